"""`liteseg compare`: entries of every kind, verdicts, files, and every bad input."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from filled_run import write

import liteseg
from liteseg.cli import main
from liteseg.errors import UserError
from liteseg.metrics import ConfusionMatrix
from liteseg.metrics.intervals import intervals, named_intervals, units_of
from liteseg.tasks.compare import _kind, compare, read_run
from liteseg.tasks.prediction_folder import evaluate_predictions

NAMES = ("road", "car", "sky")
COUNT = 12
QUALITY = {"good": 0.9, "same": 0.9, "close": 0.9, "bad": 0.6}


def labels_of(index):
    label = np.random.default_rng(index).choice(np.array([0, 1, 2, 255], np.uint8), (12, 15))
    return np.kron(label, np.ones((4, 4), np.uint8))


def predictions_of(name, index):
    """Labels with a share of random classes; `same` are those of `good`."""
    seed = ["good", "close", "bad"].index("good" if name == "same" else name)
    rng = np.random.default_rng([seed, index])
    wrong = rng.random((48, 60)) > QUALITY[name]
    return np.where(wrong, rng.integers(0, 3, wrong.shape), labels_of(index) % 255).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folders of labels and predictions, a file of class names, and the evaluations as JSON."""
    folder = tmp_path_factory.mktemp("compare")
    (folder / "classes.txt").write_text("\n".join(NAMES))
    for i in range(COUNT):
        write(folder / "labels" / f"{i:02}.png", labels_of(i))
        for name in QUALITY:
            write(folder / name / f"{i:02}.png", predictions_of(name, i))
    for name in QUALITY:
        options = {"classes": folder / "classes.txt", "boundary": (2, 1)}
        result = evaluate_predictions(folder / name, folder / "labels", **options)
        (folder / f"{name}.json").write_text(json.dumps(result.as_json()))
    return folder


def miou(folder, name):
    matrix = ConfusionMatrix(3)
    for i in range(COUNT):
        matrix.update(predictions_of(name, i), labels_of(i))
    return matrix.compute()["miou"]


def options(folder):
    return {"labels": folder / "labels", "classes": folder / "classes.txt"}


def test_folders(folder):
    names = ["good", "same", "bad"]
    found = compare([folder / name for name in names], **options(folder))
    assert (found.images, found.classes, str(found.units)) == (COUNT, NAMES, f"{COUNT} images")
    same, bad = (pair.differences["miou"] for pair in found.pairs)
    assert same.verdict() == "not distinguishable"
    assert same.value == 0
    assert bad.verdict() == "worse"
    assert bad.value == pytest.approx(miou(folder, "bad") - miou(folder, "good"), abs=1e-12)
    assert found.entries[2].miou.value == pytest.approx(miou(folder, "bad"), abs=1e-12)
    assert "boundary_iou" in found.pairs[1].differences


def test_intervals_of_an_evaluation(folder, tmp_path, capsys):
    """In the text, the JSON and the report of `liteseg eval`; none for a single image."""
    command = ["eval", "--classes", f"{folder}/classes.txt", "--labels", f"{folder}/labels"]
    outputs = ["--json", str(tmp_path / "e.json"), "--report", str(tmp_path / "e.html")]
    assert main([*command, "--predictions", f"{folder}/bad", *outputs]) == 0
    found = json.loads((tmp_path / "e.json").read_text())
    images = read_run(tmp_path / "e.json").images
    expected = named_intervals(intervals([images], units_of(images)), NAMES)
    assert found["intervals"] == {"units": "12 images", **expected}
    low, high = found["intervals"]["miou"]
    assert low < found["miou"] < high
    printed = capsys.readouterr().out
    assert f"95 % intervals over 12 images:\n  mIoU {low:.4f} to {high:.4f}  accuracy" in printed
    ends = [f"{100 * end:.2f}" for end in found["intervals"]["class_iou"]["car"]]
    assert " - ".join(ends) in printed
    page = (tmp_path / "e.html").read_text()
    assert f"95 %: {low:.3f} to {high:.3f}" in page
    assert "95 % intervals over 12 images." in page

    for name in ("labels", "bad"):
        (tmp_path / name).mkdir()
        shutil.copy(folder / name / "03.png", tmp_path / name)
    command[-1] = f"{tmp_path}/labels"
    assert main([*command, "--predictions", f"{tmp_path}/bad", *outputs]) == 0
    assert "no 95 % intervals, which require two units: 1 image\n" in capsys.readouterr().out
    found = json.loads((tmp_path / "e.json").read_text())["intervals"]
    assert found["miou"] is found["class_iou"]["car"] is None


def test_files_and_seeds(folder, tmp_path, capsys):
    entries = [f"{folder}/good.json,{folder}/close.json", f"{folder}/bad.json"]
    command = ["compare", *entries, "--json", str(tmp_path / "c.json"), "--images", "2"]
    assert main([*command, "--page", str(tmp_path / "c.html")]) == 0
    printed = capsys.readouterr().out
    assert "2 runs, standard deviation" in printed
    assert printed.count("worse") >= 5
    assert "boundary IoU" in printed
    content = json.loads((tmp_path / "c.json").read_text())
    first, second = content["entries"]
    both = [miou(folder, name) for name in ("good", "close")]
    assert first["metrics"]["miou"] == pytest.approx(np.mean(both), abs=1e-12)
    assert first["standard_deviation"]["miou"] == pytest.approx(np.std(both, ddof=1), abs=1e-12)
    assert second["standard_deviation"]["miou"] is None
    (pair,) = content["pairs"]
    low, high = pair["intervals"]["class_iou"]["car"]
    assert low < pair["differences"]["class_iou"]["car"] < high < 0
    assert pair["verdicts"]["class_iou"]["car"] == "worse"
    assert not pair["better_images"]
    ranked = [image["second"] - image["first"] for image in pair["worse_images"]]
    assert len(ranked) == 10
    assert ranked == sorted(ranked)
    page = (tmp_path / "c.html").read_text()
    shown = [ends for key, ends in pair["intervals"].items() if not key.startswith("class_")]
    assert page.count("<svg") == sum(ends is not None for ends in shown) + 3  # and classes
    assert str(folder / "good.json") in page


def test_equal_models_are_not_distinguishable(folder, capsys):
    assert main(["compare", f"{folder}/good.json", f"{folder}/same.json"]) == 0
    printed = capsys.readouterr().out
    assert "not distinguishable" in printed
    assert "better\n" not in printed
    assert "worse\n" not in printed


def test_sequences(folder, capsys):
    entries = [f"{folder}/good.json", f"{folder}/bad.json"]
    assert main(["compare", *entries, "--sequence", "^."]) == 0  # 0 and 1, of 00 to 11
    assert "over 2 sequences" in capsys.readouterr().out
    assert main(["compare", *entries, "--sequence", "^..", "--unit", "images"]) == 0
    assert "over 12 images" in capsys.readouterr().out


def test_label_maps_and_json_need_no_paddle(folder):
    script = (
        "import sys; from liteseg.cli import main; code = main(sys.argv[1:]); "
        "assert 'paddle' not in sys.modules; sys.exit(code)"
    )
    entries = [folder / "good.json", folder / "bad", "--labels", folder / "labels"]
    command = ["compare", *entries, "--classes", folder / "classes.txt"]
    # The boundary metrics of the JSON have other lengths.
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, command)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2, done.stderr
    assert "--boundary" in done.stderr
    assert "Traceback" not in done.stderr


def test_networks(filled_run, tmp_path):
    """A run and its evaluation as a file are equal."""
    file = tmp_path / "run.json"
    file.write_text(json.dumps(liteseg.evaluate(None, filled_run).as_json()))
    (pair,) = compare([filled_run, file], cfg=filled_run / "config.yml").pairs
    assert (pair.differences["miou"].value, pair.differences["kappa"].value) == (0, 0)
    (pair,) = compare([filled_run, file], overrides=["test_config.scales=0.3"]).pairs
    assert pair.differences["miou"].value != 0


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        (["liteseg.json", "model.json"], "model"),  # an export
        (["config.yml", "report.png"], "model"),
        (["checkpoints/best/model.pdparams"], "model"),
        (["model.pdparams"], "model"),
        (["0.png", "1.png"], "predictions"),
        (["berlin/0.png"], "predictions"),
    ],
)
def test_folders_are_recognized(tmp_path, files, kind):
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert _kind(str(tmp_path)) == kind
    assert _kind(str(tmp_path / "absent")) == "model"  # perhaps a name or URL
    assert _kind(str(tmp_path / "absent.json")) == "json"


def changed(folder, tmp_path, change):
    """A copy of an evaluation with a change."""
    content = json.loads((folder / "good.json").read_text())
    change(content)
    path = tmp_path / "changed.json"
    path.write_text(json.dumps(content))
    return path


def rename_class(content):
    content["class_iou"] = dict(zip(("road", "sky", "car"), content["class_iou"].values()))


def drop_class(content):
    del content["class_iou"]["sky"]
    for image in content["per_image"]:
        for key, value in image.items():
            if isinstance(value, list):
                image[key] = [v[:2] if isinstance(v, list) else v for v in value]
                image[key] = image[key] if isinstance(value[0], list) else value[:2]


def other_labels(content):
    content["per_image"][3]["labeled"][1] += 5


BAD_EVALUATIONS = {
    "fewer images": (lambda c: c["per_image"].pop(4), "11 images, without '04' of"),
    "more images": (lambda c: c["per_image"].append({**c["per_image"][0], "name": "99"}), "99"),
    "a name twice": (lambda c: c["per_image"].append(c["per_image"][0]), "2 images are named '00'"),
    "order of classes": (rename_class, "class 1 is 'sky', in"),
    "number of classes": (drop_class, "class 2 is missing, in"),
    "other labels": (other_labels, "the label of '03' has"),
    "no counts": (lambda c: c.pop("per_image"), "has no per_image"),
    "empty counts": (lambda c: c.update(per_image=[]), "has no per_image"),
    "no metrics": (lambda c: c.pop("class_iou"), "is not an evaluation"),
    "counts of text": (lambda c: c["per_image"][0].update(labeled="many"), "is damaged"),
    "negative counts": (lambda c: c["per_image"][0]["labeled"].__setitem__(0, -1), "is damaged"),
    "impossible counts": (
        lambda c: c["per_image"][0]["intersection"].__setitem__(0, 10**6),
        "00 has more correct than",
    ),
    "images of numbers": (lambda c: c.update(per_image=[1, 2]), "is damaged"),
    "counts as a dict": (lambda c: c.update(per_image={"a": 1}), "is damaged"),
    "boundaries of another width": (
        lambda c: c["boundary"].update(width=9),
        "with the same --boundary",
    ),
}


@pytest.mark.parametrize("kind", BAD_EVALUATIONS)
@pytest.mark.parametrize("swapped", [False, True])
def test_evaluations_that_do_not_fit(folder, tmp_path, capsys, kind, swapped):
    change, message = BAD_EVALUATIONS[kind]
    entries = [str(folder / "good.json"), str(changed(folder, tmp_path, change))]
    entries = entries[::-1] if swapped else entries
    outputs = ["--json", str(tmp_path / "c.json"), "--page", str(tmp_path / "c.html")]
    assert main(["compare", *entries, *outputs]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    if not (swapped and kind in ("order of classes", "number of classes", "other labels")):
        assert message in error
    assert "changed.json" in error
    assert not (tmp_path / "c.json").exists()
    assert not (tmp_path / "c.html").exists()


@pytest.mark.parametrize(
    ("entries", "more", "message"),
    [
        (["good.json"], [], "give at least two"),
        (["good.json", "absent.json"], [], "absent.json"),
        (["good.json", "classes.txt"], [], "classes.txt"),
        (["good.json", "broken.json"], [], "not JSON"),
        (["good.json", "list.json"], [], "is not an evaluation"),
        (["good.json", "deep.json"], [], "nested too deeply"),
        (["good.json", "bad"], [], "needs --labels"),
        (["good.json", "empty"], ["--labels", "labels"], "empty"),
        (["good.json", "nowhere"], [], "nowhere"),
        (["good.json", "bad.json"], ["--labels", "labels"], "none is given"),
        (["good.json", "bad.json"], ["--sequence", "("], "regular expression"),
        (["good.json", "bad.json"], ["--sequence", "$", "--unit", "sequences"], "1 sequence,"),
        (["good.json", "bad.json"], ["--unit", "sequences"], "the sequence of 00 is unknown"),
        (["good.json,good.json", "bad.json"], [], "is in one entry twice"),
        (["good.json", "bad.json"], ["--page", "classes.txt"], "classes.txt"),
        (["good.json", "bad.json"], ["--json", "classes.txt"], "classes.txt"),
        (["good.json,", ","], [], "an entry is empty"),
        (["one.json", "one.json"], [], "1 image, so no interval is possible"),
        (["good", "bad"], ["--labels", "labels"], ""),
    ],
)
def test_bad_arguments(folder, tmp_path, monkeypatch, capsys, entries, more, message):
    shutil.copytree(folder, tmp_path / "data")
    monkeypatch.chdir(tmp_path / "data")
    (tmp_path / "data" / "broken.json").write_text('{"miou": ')
    (tmp_path / "data" / "list.json").write_text("[1, 2]")
    (tmp_path / "data" / "deep.json").write_text("[" * 100_000)
    (tmp_path / "data" / "empty").mkdir()
    one = changed(folder, tmp_path, lambda c: c.update(per_image=c["per_image"][:1]))
    one.rename(tmp_path / "data" / "one.json")
    code = main(["compare", *entries, *more])
    error = capsys.readouterr().err
    if not message:  # sound: without --classes, the numbers are the names
        assert code == 0, error
        return
    assert code == 2, error
    assert message in error
    assert "Traceback" not in error
    assert (tmp_path / "data" / "classes.txt").read_text() == "\n".join(NAMES)


def test_a_prediction_folder_with_a_missing_image(folder, tmp_path):
    shutil.copytree(folder / "bad", tmp_path / "bad")
    (tmp_path / "bad" / "05.png").unlink()
    with pytest.raises(UserError, match="05"):
        compare([folder / "good", tmp_path / "bad"], **options(folder))


def test_read_run(folder):
    run = read_run(folder / "good.json")
    assert run.classes == NAMES
    assert [image.name for image in run.images] == [f"{i:02}" for i in range(COUNT)]
    assert run.boundary == (2, 1)
