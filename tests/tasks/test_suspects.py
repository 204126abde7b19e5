"""`liteseg data suspects` on labels that are the predictions of the network, but for one error."""

from __future__ import annotations

import csv
import shutil

import cv2
import numpy as np
import pytest
from filled_run import LISTS, draw, fill_run, write

import liteseg
from liteseg.cli import main
from liteseg.errors import UserError
from liteseg.tasks import suspects
from liteseg.tasks.segmenter import Segmenter
from liteseg.utils.images import read_image

WRONG = 3  # the image with an error


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose labels are its predictions; in one image a square has another class."""
    folder = tmp_path_factory.mktemp("suspects")
    (folder / "data").mkdir()
    lines = [f"{place}.png {place}_label.png\n" for place in range(6)]
    (folder / "data" / "list.txt").write_text("".join(lines))
    run = fill_run(folder, LISTS.format(root=folder / "data"))
    segmenter = Segmenter.from_pretrained(run)
    for place in range(6):
        image = draw(place)
        probabilities = segmenter.probabilities(image)
        label = probabilities.argmax(axis=0).astype(np.uint8)
        if place == WRONG:
            y, x = surest(probabilities.max(axis=0))
            part = label[y : y + 20, x : x + 30]
            part[:] = (int(np.bincount(part.ravel()).argmax()) + 1) % 3
        write(folder / "data" / f"{place}.png", image)
        write(folder / "data" / f"{place}_label.png", label)
    return run


def surest(confidence):
    """(y, x) of the 20x30 window with the highest mean."""
    means = cv2.boxFilter(confidence, -1, (30, 20), anchor=(0, 0))[:-20, :-30]
    return np.unravel_index(means.argmax(), means.shape)


def rows(path):
    with open(path, encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_error_is_the_first_suspect(run, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["data", "suspects", "--weights", str(run), "--output", str(out)]) == 0
    assert "in 1 of 6 images" in capsys.readouterr().out
    [image] = rows(out / "images.csv")
    assert (image["image"], image["rank"]) == (str(WRONG), "1")
    assert image["label_file"].endswith(f"{WRONG}_label.png")
    first = rows(out / "suspects.csv")[0]
    assert first["image"] == str(WRONG)
    names = ("road", "car", "sky")
    label, predicted = names.index(first["label"]), names.index(first["predicted"])
    assert label == (predicted + 1) % 3
    x, y, w, h, pixels = (int(first[key]) for key in ("x", "y", "width", "height", "pixels"))
    assert 0.8 * w * h < pixels <= w * h <= 600
    assert float(first["confidence"]) > float(first["label_confidence"])
    [drawing] = (out / "images").iterdir()
    assert drawing.name == f"0001_{WRONG}.png"
    panel = read_image(drawing)
    marked = panel[-70:, -100:]
    red = (marked == (255, 40, 40)).all(axis=2)
    assert red[y, x : x + w].all()
    assert red[y : y + h, x].all()
    assert not red[: y - 1].any()


def test_a_list_that_may_be_reviewed_is_kept(run, tmp_path):
    (tmp_path / "suspects.csv").write_text("mine\n")
    with pytest.raises(UserError, match=r"suspects\.csv: already there, perhaps reviewed"):
        suspects.find_suspects(run, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["suspects.csv"]


def test_no_suspects(run, tmp_path):
    """Labels that the network agrees with: lists without rows, and no drawing."""
    data = shutil.copytree(run.parent / "data", tmp_path / "data")
    (data / "list.txt").write_text("0.png 0_label.png\n1.png 1_label.png\n")
    changes = [f"train_dataset.dataset_root={data}"]
    found = suspects.find_suspects(run, tmp_path / "out", overrides=changes)
    assert (found.images, found.regions, found.searched, found.drawn) == ([], [], 2, 0)
    assert rows(tmp_path / "out" / "images.csv") == []


def test_folds_train_on_the_other_images_and_are_kept(streets_config, tmp_path, monkeypatch):
    from liteseg.tasks import train

    trained_on, original = [], train.build_trainer

    def recorded(cfg, train_set, device):
        trained_on.append([sample.name for sample in train_set.samples])
        return original(cfg, train_set, device)

    monkeypatch.setattr(train, "build_trainer", recorded)
    options = {"cfg": streets_config, "folds": 2, "overrides": ["iters=2"]}
    found = suspects.find_suspects(None, tmp_path / "out", **options)
    names = [
        sample.name
        for sample in liteseg.build_dataset(liteseg.load_config(streets_config), "train").samples
    ]
    half = -(-len(names) // 2)
    assert trained_on == [names[half:], names[:half]]
    assert found.searched == len(names)
    kept = sorted((tmp_path / "out" / "folds").iterdir())
    assert [path.name[:6] for path in kept] == ["1_of_2", "2_of_2"]
    # Another call with the same config resumes: no fold is trained again.
    for name in ("suspects.csv", "images.csv"):
        (tmp_path / "out" / name).unlink()
    shutil.rmtree(tmp_path / "out" / "images", ignore_errors=True)
    again = suspects.find_suspects(None, tmp_path / "out", **options)
    assert len(trained_on) == 2
    assert again.images == found.images


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--weights is missing: give a run directory; or --config and --folds"),
        (["--weights", "{run}", "--folds", "1"], "--folds 1 --split train: give 2 folds or more"),
        (["--weights", "{run}", "--folds", "3", "--split", "val"], "--split val: give 2 folds"),
        (["--weights", "{run}", "--folds", "7"], "--folds 7: more than the 6 images"),
        (["--weights", "{run}/gone"], "gone does not exist"),
        (["--weights", "{run}", "--split", "test"], "no test_dataset"),
        (["--weights", "{run}", "--set", "train_dataset.num_classes=4"], "classes"),
    ],
)
def test_bad_arguments(run, tmp_path, capsys, arguments, message):
    given = [argument.format(run=run) for argument in arguments]
    assert main(["data", "suspects", "--output", str(tmp_path / "out"), *given]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "out" / "suspects.csv").exists()


def test_an_image_without_a_label(run, tmp_path):
    data = shutil.copytree(run.parent / "data", tmp_path / "data")
    (data / "list.txt").write_text("0.png 0_label.png\n1.png\n")
    changes = ["test_dataset={type: Dataset, mode: test, num_classes: 3, test_path: list.txt, "
               "transforms: [{type: Normalize}], "
               f"dataset_root: {data}, class_names: [road, car, sky]}}"]  # fmt: skip
    with pytest.raises(UserError, match=r"1\.png: has no label to compare"):
        suspects.find_suspects(run, tmp_path / "out", overrides=changes, split="test")
