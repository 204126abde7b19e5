"""`liteseg eval` on small datasets of real files, through a whole PP-LiteSeg."""

from __future__ import annotations

import argparse
import json

import cv2
import golden_rule
import numpy as np
import pytest

from liteseg.cli import eval as command
from liteseg.config.build import build_model
from liteseg.config.load import load_config
from liteseg.datasets import train_id_to_id
from liteseg.errors import UserError
from liteseg.metrics import ConfusionMatrix
from liteseg.tasks.segmenter import Segmenter
from liteseg.utils.weights.load import save_pdparams

CONFIG = """
batch_size: 2
iters: 10
model:
  type: PPLiteSeg
  backbone: {{type: STDC1}}
  arm_out_chs: [32, 64, 128]
  seg_head_inter_chs: [32, 64, 64]
train_dataset: &data
  {dataset}
  transforms:
    - type: RandomHorizontalFlip
    - type: Normalize
  mode: train
val_dataset:
  <<: *data
  transforms:
    - type: Normalize
  mode: val
test_config: {{aug_eval: true, scales: 0.5}}
optimizer: {{type: SGD, momentum: 0.9, weight_decay: 5.0e-4}}
lr_scheduler: {{type: PolynomialDecay, learning_rate: 0.01, power: 0.9}}
loss:
  types: [{{type: CrossEntropyLoss}}]
  coef: [1, 1, 1]
"""
LISTS = (
    "type: Dataset\n  dataset_root: {root}\n  num_classes: 3\n  class_names: [road, car, sky]"
    "\n  train_path: list.txt\n  val_path: list.txt"
)
CITY = "type: Cityscapes\n  dataset_root: {root}"


def write(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), array)


def pair(seed, values):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)
    return image, rng.choice(np.array(values, np.uint8), (64, 96))


def make_run(folder, dataset):
    """A run directory with a config and filled weights."""
    run = folder / "run"
    run.mkdir()
    (run / "config.yml").write_text(CONFIG.format(dataset=dataset))
    model = golden_rule.fill(build_model(load_config(run / "config.yml")))
    best = run / "checkpoints" / "best" / "model.pdparams"
    best.parent.mkdir(parents=True)
    save_pdparams(model.state_dict(), best)
    return run


@pytest.fixture(scope="module")
def lists(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lists")
    lines = []
    for i in range(3):
        image, label = pair(i, [0, 1, 255])
        write(folder / "data" / f"{i}.png", image)
        write(folder / "data" / f"{i}_label.png", label)
        lines.append(f"{i}.png {i}_label.png\n")
    (folder / "data" / "list.txt").write_text("".join(lines))
    return make_run(folder, LISTS.format(root=folder / "data"))


@pytest.fixture(scope="module")
def city(tmp_path_factory):
    folder = tmp_path_factory.mktemp("city")
    for i in range(2):
        image, label = pair(i, [0, 7, 26])
        stem = f"ulm_00000{i}_000019"
        write(folder / "data/leftImg8bit/val/ulm" / f"{stem}_leftImg8bit.png", image)
        write(folder / "data/gtFine/val/ulm" / f"{stem}_gtFine_labelIds.png", label)
    return make_run(folder, CITY.format(root=folder / "data"))


def call(run, *arguments, weights=True):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    given = ["--config", str(run / "config.yml"), *map(str, arguments)]
    return command.run(parser.parse_args(given + (["--weights", str(run)] if weights else [])))


def expected_figures(run):
    """Counted one image at a time from files, with predictions of the Python interface."""
    segmenter = Segmenter.from_pretrained(run)
    assert segmenter.class_names == ("road", "car", "sky")
    matrix = ConfusionMatrix(3)
    for i in range(3):
        image = cv2.imread(str(run.parent / "data" / f"{i}.png"))[..., ::-1]
        label = cv2.imread(str(run.parent / "data" / f"{i}_label.png"), cv2.IMREAD_UNCHANGED)
        matrix.update(segmenter.predict(np.ascontiguousarray(image)), label)
    return matrix.compute()


def test_figures_table_and_json(lists, tmp_path, capsys):
    assert call(lists, "--json", tmp_path / "sub" / "f.json", "--batch-size", 2) == 0
    said = capsys.readouterr().out
    found = json.loads((tmp_path / "sub" / "f.json").read_text())
    expected = expected_figures(lists)
    for key in ("miou", "acc", "kappa", "mdice", "images"):
        assert found[key] == pytest.approx(expected[key], abs=1e-3), key
    assert list(found["class_iou"]) == ["road", "car", "sky"]
    assert found["split"] == "val"
    for name in (*found["class_iou"], "mIoU", "images 3"):
        assert name in said


def test_report(lists, tmp_path):
    (lists / "metrics.jsonl").write_text(
        '{"step": 7, "phase": "eval", "miou": 0.4321, "loss": 1}\n'
    )
    found = tmp_path / "f.json"
    assert call(lists, "--report", tmp_path / "sub" / "r.html", "--json", found) == 0
    page = (tmp_path / "sub" / "r.html").read_text(encoding="utf-8")
    assert f"<b>{json.loads(found.read_text())['miou']:.4f}</b>" in page
    assert "<b>0.4321</b><span>iteration 7</span>" in page  # of the training
    assert page.count("<figcaption>") == 3


def test_the_training_split_is_not_augmented(lists, tmp_path):
    for split in ("train", "val"):
        call(lists, "--split", split, "--json", tmp_path / f"{split}.json")
    train, val = (json.loads((tmp_path / f"{s}.json").read_text()) for s in ("train", "val"))
    assert train["miou"] == val["miou"]


def test_predictions_are_saved(lists, tmp_path):
    assert call(lists, "--save-pred", tmp_path / "pred", "--num-workers", 1) == 0
    segmenter = Segmenter.from_pretrained(lists)
    files = sorted((tmp_path / "pred").iterdir())
    assert [path.name for path in files] == ["0.png", "1.png", "2.png"]
    image = cv2.cvtColor(cv2.imread(str(lists.parent / "data/1.png")), cv2.COLOR_BGR2RGB)
    saved = cv2.imread(str(files[1]), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(saved, segmenter.predict(image))


def test_cityscapes_predictions_are_official(city, tmp_path):
    assert call(city, "--save-pred", tmp_path, "--json", tmp_path / "f.json") == 0
    names = [f"ulm_00000{i}_000019_leftImg8bit.png" for i in range(2)]
    assert sorted(path.name for path in tmp_path.glob("*.png")) == names
    saved = cv2.imread(str(tmp_path / names[0]), cv2.IMREAD_UNCHANGED)
    image = city.parent / "data/leftImg8bit/val/ulm" / names[0]
    pred = Segmenter.from_pretrained(city).predict(
        cv2.cvtColor(cv2.imread(str(image)), cv2.COLOR_BGR2RGB)
    )
    assert saved.shape == (64, 96)
    np.testing.assert_array_equal(saved, train_id_to_id()[pred])


def test_images_without_labels_are_predicted(city, tmp_path, capsys):
    data = city.parent / "data/leftImg8bit"
    image, _ = pair(5, [0])
    write(data / "test/bonn/bonn_000000_000019_leftImg8bit.png", image)
    assert call(city, "--set", "val_dataset.mode=test", "--save-pred", tmp_path) == 0
    assert "no labels" in capsys.readouterr().out
    assert [p.name for p in tmp_path.iterdir()] == ["bonn_000000_000019_leftImg8bit.png"]
    with pytest.raises(UserError, match="has no label"):
        call(city, "--set", "val_dataset.mode=test")


def test_python_interface_on_images_of_several_sizes(lists):
    segmenter = Segmenter.from_pretrained(lists / "checkpoints" / "best" / "model.pdparams")
    images = [pair(i, [0])[0] for i in range(3)]
    images[1] = images[1][:50, :70]
    found = segmenter.predict_batch(images)
    for image, label in zip(images, found):
        assert label.shape == image.shape[:2]
        assert label.dtype == np.uint8
        assert (label == segmenter.predict(image)).mean() > 0.999
    with pytest.raises(ValueError, match="uint8 RGB"):
        segmenter.predict(images[0].astype("float32"))


def test_weights_are_needed(lists):
    with pytest.raises(UserError, match="--weights is missing"):
        call(lists, weights=False)


def test_no_config_beside_the_weights(tmp_path):
    with pytest.raises(UserError, match=r"no config\.yml"):
        Segmenter.from_pretrained(tmp_path / "a" / "b" / "c" / "d.pdparams")


def test_an_unwritable_place_is_told_before_the_work(lists, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        call(lists, "--save-pred", tmp_path / "file")
    with pytest.raises(UserError, match="cannot write"):
        call(lists, "--json", tmp_path / "file" / "f.json")
