"""`liteseg eval --predictions`: folders of label maps from any tool."""

from __future__ import annotations

import csv
import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
from filled_run import SIZE, write
from PIL import Image
from test_evaluate_official import scores_of_the_benchmark

import liteseg
from liteseg import evaluate_predictions
from liteseg.cli import main
from liteseg.datasets.cityscapes import CITYSCAPES_CLASSES, id_to_train_id, palette_of
from liteseg.errors import UserError
from liteseg.metrics import ConfusionMatrix

COLORS = np.array([(128, 64, 128), (0, 0, 142), (70, 130, 180)], np.uint8)


def maps(seed):
    """A label with ignored pixels, and a prediction."""
    rng = np.random.default_rng(seed)
    label = rng.choice(np.array([0, 1, 2, 255], np.uint8), SIZE)
    pred = np.where(rng.uniform(size=SIZE) < 0.7, label % 3, rng.integers(0, 3, SIZE))
    return pred.astype(np.uint8), label


@pytest.fixture
def folders(tmp_path):
    """Folders of three predictions and labels, and their confusion matrix."""
    matrix = ConfusionMatrix(3)
    for i in range(3):
        pred, label = maps(i)
        matrix.update(pred, label)
        write(tmp_path / "labels" / f"street_{i}.png", label)
        write(tmp_path / "predictions" / f"street_{i}.png", pred)
    return tmp_path, matrix.compute()


def evaluate(root, **options):
    return evaluate_predictions(root / "predictions", root / "labels", **options).metrics


def require_equal(found, expected):
    for key in ("miou", "acc", "kappa", "mdice", "images"):
        assert found[key] == expected[key], key
    assert list(found["class_iou"].values()) == list(expected["class_iou"].values())


def test_class_numbers(folders):
    root, expected = folders
    found = evaluate(root)
    require_equal(found, expected)
    assert list(found["class_iou"]) == ["0", "1", "2"]
    assert [image["name"] for image in found["per_image"]] == ["street_0", "street_1", "street_2"]


def test_names_of_the_classes(folders):
    root, expected = folders
    (root / "classes.txt").write_text("road # gray\n\ncar\nsky\n")
    found = evaluate(root, classes=root / "classes.txt")
    require_equal(found, expected)
    assert list(found["class_iou"]) == ["road", "car", "sky"]


def rewrite(root, change):
    """Replace each prediction by `change(label map)`, an image of Pillow."""
    for path in (root / "predictions").iterdir():
        pred = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        change(pred).save(path)


def palette_image(indices, palette):
    image = Image.fromarray(indices, "P")
    image.putpalette(palette.ravel().tolist())
    return image


@pytest.mark.parametrize("kind", ["palette", "other palette", "shuffled palette", "colors"])
def test_palettes_and_colors(folders, kind):
    root, expected = folders
    lines = [" ".join(map(str, color)) for color in COLORS.tolist()]
    (root / "colors.txt").write_text("\n".join(f"{c} class {i}" for i, c in enumerate(lines)))
    order = np.array([2, 0, 1], np.uint8)  # index of each class in the shuffled palette
    changes = {
        "palette": lambda pred: palette_image(pred, COLORS),
        "other palette": lambda pred: palette_image(pred, COLORS // 3),
        "shuffled palette": lambda pred: palette_image(order[pred], COLORS[np.argsort(order)]),
        "colors": lambda pred: Image.fromarray(COLORS[pred]),
    }
    rewrite(root, changes[kind])
    require_equal(evaluate(root, classes=root / "colors.txt"), expected)


def test_a_void_number_is_not_counted(folders):
    root, expected = folders
    for path in (root / "labels").iterdir():
        label = cv2.imread(str(path), 0)
        cv2.imwrite(str(path), np.where(label == 255, 3, label))
    (root / "classes.txt").write_text("road\ncar\nsky\nignore\n")
    found = evaluate(root, classes=root / "classes.txt")
    require_equal(found, expected)
    assert list(found["class_iou"]) == ["road", "car", "sky"]


def test_palettes_without_classes_are_numbers(folders):
    root, expected = folders
    rewrite(root, lambda pred: palette_image(pred, COLORS))
    require_equal(evaluate(root), expected)


@pytest.mark.parametrize(
    ("label", "pred"),
    [
        ("{}.png", "{}_label.png"),
        ("{}_L.png", "{}.png"),
        ("day/{}.png", "night/{}.png"),
        ("{}_mask.png", "{}_pred.png"),
    ],
)
def test_pairs_of_names(folders, label, pred):
    root, expected = folders
    for kind, pattern in (("labels", label), ("predictions", pred)):
        for path in list((root / kind).iterdir()):
            target = root / kind / pattern.format(path.stem)
            target.parent.mkdir(exist_ok=True)
            path.rename(target)
    write(root / "predictions" / "street_0_color.png", COLORS[maps(0)[0]])
    require_equal(evaluate(root), expected)


def test_equal_names_in_several_folders(folders):
    root, expected = folders
    for kind in ("labels", "predictions"):
        for i in range(3):
            (root / kind / str(i)).mkdir()
            (root / kind / f"street_{i}.png").rename(root / kind / str(i) / "frame.png")
    found = evaluate(root)
    require_equal(found, expected)
    assert [image["name"] for image in found["per_image"]] == ["0/frame", "1/frame", "2/frame"]


def test_a_prediction_without_a_label_does_not_count(folders, caplog):
    root, expected = folders
    write(root / "predictions" / "street_7.png", maps(7)[0])
    require_equal(evaluate(root), expected)
    assert "1 predictions have no label and do not count" in caplog.text


def test_train_ids_of_cityscapes(tmp_path):
    label = np.random.default_rng(0).integers(0, 19, SIZE).astype(np.uint8)
    write(tmp_path / "labels" / "ulm_000000_000019_gtFine_labelTrainIds.png", label)
    write(tmp_path / "predictions" / "ulm_000000_000019_leftImg8bit_label.png", label)
    assert evaluate(tmp_path)["class_iou"] == dict.fromkeys(CITYSCAPES_CLASSES, 1.0)


@pytest.mark.parametrize("ids", [True, False])
def test_cityscapes_equals_the_benchmark(tmp_path, ids):
    """Official ids and train ids; also ids that are not evaluated, which count as wrong."""
    rng = np.random.default_rng(0)
    known = np.flatnonzero(id_to_train_id() != 255)
    truths, preds = [], []
    for i in range(2):
        name = f"ulm_00000{i}_000019"
        label = rng.integers(0, 34, SIZE).astype(np.uint8)
        pred = np.where(rng.uniform(size=SIZE) < 0.6, label, rng.permutation(label))
        pred = pred.astype(np.uint8) if ids else rng.choice(known, SIZE).astype(np.uint8)
        truths.append(tmp_path / "gtFine" / "ulm" / f"{name}_gtFine_labelIds.png")
        write(truths[-1], label)
        write(truths[-1].with_name(f"{name}_gtFine_color.png"), np.dstack([label] * 3))
        preds.append(tmp_path / "ids" / f"{name}_leftImg8bit.png")
        write(preds[-1], pred)
        write(tmp_path / "given" / preds[-1].name, pred if ids else id_to_train_id()[pred])
    mean, scores = scores_of_the_benchmark(truths, preds)
    found = evaluate_predictions(tmp_path / "given", tmp_path / "gtFine").metrics
    assert found["miou"] == pytest.approx(mean, abs=1e-9)
    assert list(found["class_iou"]) == list(CITYSCAPES_CLASSES)
    for name, iou in found["class_iou"].items():
        assert iou == pytest.approx(scores[name], abs=1e-9)


def test_cityscapes_colors(tmp_path):
    label = np.random.default_rng(0).integers(0, 34, SIZE).astype(np.uint8)
    write(tmp_path / "labels" / "ulm_000000_000019_gtFine_labelIds.png", label)
    train_ids = id_to_train_id()[label]
    colors = np.vstack([palette_of(), np.zeros((237, 3), np.uint8)])[train_ids]
    write(tmp_path / "predictions" / "ulm_000000_000019_color_map.png", colors)
    found = evaluate(tmp_path)
    assert found["miou"] == 1.0
    assert found["per_image"][0]["sequence"] == "ulm_000000"


def test_the_classes_of_a_config(folders, filled_run):
    root, expected = folders
    found = evaluate(root, cfg=filled_run / "config.yml")
    require_equal(found, expected)
    assert list(found["class_iou"]) == ["road", "car", "sky"]


def test_void_of_camvid(tmp_path):
    label = np.random.default_rng(0).integers(0, 12, SIZE).astype(np.uint8)  # 11: void
    write(tmp_path / "labels" / "0016E5_00001.png", label)
    write(tmp_path / "predictions" / "0016E5_00001.png", label % 11)
    found = evaluate(tmp_path, cfg="pp_liteseg_stdc1_camvid_960x720_10k")
    assert found["miou"] == 1.0
    assert sum(found["per_image"][0]["labeled"]) == (label < 11).sum()


def test_labels_without_any_labeled_pixel(tmp_path, capsys):
    write(tmp_path / "labels" / "ulm_000000_000019_gtFine_labelIds.png", np.zeros(SIZE, np.uint8))
    write(tmp_path / "predictions" / "ulm_000000_000019.png", np.full(SIZE, 13, np.uint8))
    found = evaluate(tmp_path)
    assert found["miou"] is found["acc"] is found["kappa"] is found["boundary_iou"] is None
    arguments = ["--predictions", str(tmp_path / "predictions"), "--labels"]
    arguments += [str(tmp_path / "labels"), "--json", str(tmp_path / "found.json")]
    assert main(["eval", *arguments]) == 0
    assert json.loads((tmp_path / "found.json").read_text())["miou"] is None
    (line,) = capsys.readouterr().out.splitlines()
    assert "all pixels of all 1 labels are ignored" in line


def bad(root, name):
    path = root / "predictions" / "street_1.png"
    pred, label = maps(1)
    if name == "size":
        write(path, pred[:-1])
    elif name == "value":
        pred[3, 4] = 77
        write(path, pred)
    elif name == "colors":
        write(path, COLORS[pred])
    elif name == "missing":
        path.unlink()
    elif name == "doubled":
        write(path.with_name("street_1_label.png"), pred)
    elif name == "unreadable":
        path.write_bytes(path.read_bytes()[:60])
    elif name == "label value":
        label[0, 0] = 9
        write(root / "labels" / "street_1.png", label)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("size", r"street_1.png: the prediction is 100x69, its label .* is 100x70.*nearest"),
        (
            "value",
            r"street_1.png: the prediction contains 77 \(1 pixels\); expected classes 0",
        ),
        ("colors", r"street_1.png: the label map is drawn in colors.*--classes FILE"),
        ("missing", r"1 of 3 labels have no prediction of their name.*\n  .*street_1.png"),
        ("doubled", r"labels/street_1.png: has 2 predictions, .*street_1.*street_1_label"),
        ("unreadable", r"street_1.png: the file is truncated"),
        ("label value", r"labels/street_1.png: label value 9 \(1 pixels\): expected 0..2"),
    ],
)
def test_bad_input(folders, name, message):
    root, _ = folders
    (root / "classes.txt").write_text("a\nb\nc\n")
    bad(root, name)
    outputs = {"per_image": root / "images.csv", "report": root / "report.html"}
    with pytest.raises(UserError, match=message):
        evaluate(root, classes=root / "classes.txt", **outputs)
    assert not any(path.exists() for path in outputs.values())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\n", "1 names; expected a line for each class"),
        ("a\nignore\n", "2 names; expected a line for each class"),
        ("a\nignore\nb\n", "'ignore' is not counted; give it as the last name"),
        ("a\nb\na\n", "'a' twice"),
        ("1 2 3 a\n4 5 b\n", "colors.txt:2"),
        (None, "No such file"),
    ],
)
def test_bad_class_files(folders, text, message):
    root, _ = folders
    if text is not None:
        (root / "colors.txt").write_text(text)
    with pytest.raises(UserError, match=message):
        evaluate(root, classes=root / "colors.txt")


def test_bad_arguments(folders, capsys):
    root, _ = folders
    given = ["eval", "--predictions", str(root / "predictions")]
    both = [*given, "--labels", str(root / "labels")]
    for arguments, message in (
        (given, "--labels is missing"),
        ([*both, "--weights", "x"], "--weights and --predictions"),
        ([*both, "--save-pred", "x"], "--save-pred and --predictions"),
        ([*both, "--per-image", str(root / "x.txt")], "ends in .csv or .parquet"),
        ([*both, "--sequence", "("], "not a regular expression"),
        ([*both, "--boundary", "-1", "2"], "is not a number from 0"),
        ([*given, "--labels", str(root / "nothing")], "not a folder"),
        (["eval", "--weights", "x", "--labels", str(root)], "belong to --predictions"),
    ):
        try:
            code = main(arguments)
        except SystemExit as end:
            code = end.code
        assert code == 2
        assert message in capsys.readouterr().err


def test_paddle_is_not_imported(folders, filled_run):
    """Not even with a config, a report and a table."""
    root, _ = folders
    code = (
        "import sys\nfrom liteseg.cli import main\n"
        f"root, config = {str(root)!r}, {str(filled_run / 'config.yml')!r}\n"
        "code = main(['eval', '--predictions', root + '/predictions', '--labels', root + '/labels',"
        "'--config', config, '--report', root + '/r.html', '--per-image', root + '/i.csv',"
        "'--json', root + '/j.json'])\n"
        "assert 'paddle' not in sys.modules, 'Paddle was imported'\nsys.exit(code)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    rows = list(csv.DictReader((root / "i.csv").open()))
    content = json.loads((root / "j.json").read_text())
    assert [row["name"] for row in rows] == [image["name"] for image in content["per_image"]]
    assert content["labels"].endswith("labels")
    assert "street_1" in (root / "r.html").read_text()


def test_predictions_of_liteseg_have_the_metrics_of_the_model(filled_run, tmp_path):
    expected = liteseg.evaluate(None, filled_run, predictions=tmp_path / "predictions").metrics
    found = evaluate_predictions(
        tmp_path / "predictions", _labels(filled_run, tmp_path), cfg=filled_run / "config.yml"
    ).metrics
    for key in ("miou", "class_iou", "confusion", "boundary_iou", "boundary_f", "miou_small"):
        assert found[key] == expected[key], key
    for one, other in zip(found["per_image"], expected["per_image"]):
        assert one == other


def _labels(run, folder):
    for i in range(3):
        label = cv2.imread(str(run.parent / "data" / f"{i}_label.png"), cv2.IMREAD_UNCHANGED)
        write(folder / "labels" / f"{i}.png", label)
    return folder / "labels"
