"""`liteseg.evaluate` on small datasets of real files, through a whole PP-LiteSeg."""

from __future__ import annotations

import csv
import json
import sys

import cv2
import numpy as np
import pytest
from filled_run import CITYSCAPES, SIZE, draw, fill_run, write

import liteseg
from liteseg.cli import main
from liteseg.datasets import train_id_to_id
from liteseg.errors import UserError
from liteseg.metrics import ConfusionMatrix
from liteseg.tasks.evaluate import require_exported
from liteseg.utils.weights.load import read_pdparams, save_pdparams


def read(path):
    return np.ascontiguousarray(cv2.imread(str(path))[..., ::-1])


def city_name(i):
    return f"ulm_00000{i}_000019_leftImg8bit.png"


@pytest.fixture(scope="module")
def city(tmp_path_factory):
    """A run directory next to two images in Cityscapes layout."""
    folder = tmp_path_factory.mktemp("city")
    for i in range(2):
        labels = np.random.default_rng(i).choice(np.array([0, 7, 26], np.uint8), SIZE)
        name = city_name(i)
        write(folder / "data/leftImg8bit/val/ulm" / name, draw(i))
        name = name.replace("leftImg8bit", "gtFine_labelIds")
        write(folder / "data/gtFine/val/ulm" / name, labels)
    return fill_run(folder, CITYSCAPES.format(root=folder / "data"))


def expected_metrics(run):
    """Counted one image at a time from files, with predictions of `Segmenter`."""
    segmenter = liteseg.Segmenter.from_pretrained(run)
    assert segmenter.class_names == ("road", "car", "sky")
    matrix = ConfusionMatrix(3)
    for i in range(3):
        label = cv2.imread(str(run.parent / "data" / f"{i}_label.png"), cv2.IMREAD_UNCHANGED)
        matrix.update(segmenter.predict(read(run.parent / "data" / f"{i}.png")), label)
    return matrix.compute()


def test_metrics_equal_those_of_the_segmenter(filled_run):
    result = liteseg.evaluate(filled_run / "config.yml", filled_run, batch_size=2)
    expected = expected_metrics(filled_run)
    for key in ("miou", "acc", "kappa", "mdice", "images"):
        assert result.metrics[key] == pytest.approx(expected[key], abs=1e-3), key
    assert list(result.metrics["class_iou"]) == ["road", "car", "sky"]
    assert result.miou == result.metrics["miou"]
    assert result.as_json()["split"] == "val"


def test_the_config_of_the_run_is_the_default(filled_run):
    changes = ["test_config.aug_eval=false"]
    found = liteseg.evaluate(None, filled_run, overrides=changes)
    cfg = liteseg.load_config(filled_run / "config.yml", changes)
    assert found.miou == liteseg.evaluate(cfg, filled_run).miou


def test_report(filled_run, tmp_path):
    metrics_file = filled_run / "metrics.jsonl"
    metrics_file.write_text('{"step": 7, "phase": "eval", "miou": 0.4321, "loss": 1}\n')
    try:
        path = tmp_path / "sub" / "r.html"
        result = liteseg.evaluate(None, filled_run, report=path)
    finally:
        metrics_file.unlink()
    page = path.read_text(encoding="utf-8")
    assert f"<b>{result.miou:.4f}</b>" in page
    assert "<b>0.4321</b><span>iteration 7</span>" in page  # of the training
    assert page.count("<figcaption>") == 3


def test_the_training_split_is_not_augmented(filled_run):
    train, val = (liteseg.evaluate(None, filled_run, split=split) for split in ("train", "val"))
    assert train.miou == val.miou


def test_predictions_are_saved(filled_run, tmp_path):
    result = liteseg.evaluate(None, filled_run, predictions=tmp_path / "pred", num_workers=1)
    assert result.predictions == 3
    files = sorted((tmp_path / "pred").iterdir())
    assert [path.name for path in files] == ["0.png", "1.png", "2.png"]
    segmenter = liteseg.Segmenter.from_pretrained(filled_run)
    saved = cv2.imread(str(files[1]), cv2.IMREAD_UNCHANGED)
    expected = segmenter.predict(read(filled_run.parent / "data/1.png"))
    np.testing.assert_array_equal(saved, expected)


def test_cityscapes_predictions_are_official(city, tmp_path):
    liteseg.evaluate(None, city, predictions=tmp_path)
    names = [city_name(i) for i in range(2)]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    saved = cv2.imread(str(tmp_path / names[0]), cv2.IMREAD_UNCHANGED)
    image = city.parent / "data/leftImg8bit/val/ulm" / names[0]
    label = liteseg.Segmenter.from_pretrained(city).predict(read(image))
    assert saved.shape == SIZE
    np.testing.assert_array_equal(saved, train_id_to_id()[label])


def test_images_without_labels_are_predicted(city, tmp_path):
    name = "bonn_000000_000019_leftImg8bit.png"
    write(city.parent / "data/leftImg8bit/test/bonn" / name, draw(5))
    changes = ["val_dataset.mode=test"]
    result = liteseg.evaluate(None, city, overrides=changes, predictions=tmp_path)
    assert result.metrics["images"] == 0
    assert [path.name for path in tmp_path.iterdir()] == [name]
    with pytest.raises(UserError, match="has no label"):
        liteseg.evaluate(None, city, overrides=changes)


def test_an_unwritable_path_is_reported_before_the_work(filled_run, tmp_path):
    (tmp_path / "file").write_text("")
    for path in ({"predictions": tmp_path / "file"}, {"report": tmp_path / "file" / "r.html"}):
        with pytest.raises(UserError, match="cannot write"):
            liteseg.evaluate(None, filled_run, **path)


def test_predictions_never_replace_ground_truth(filled_run, tmp_path):
    data = filled_run.parent / "data"
    before = {path: path.read_bytes() for path in data.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match="contains images or labels"):
        liteseg.evaluate(filled_run / "config.yml", filled_run, predictions=data)
    # Nor go into the folders between the images and the root of the dataset.
    (tmp_path / "list.txt").write_text("data/0.png data/0_label.png\n")
    values = (f"dataset_root={filled_run.parent}", f"val_path={tmp_path}/list.txt")
    changes = [f"val_dataset.{value}" for value in values]
    with pytest.raises(UserError, match="contains images or labels"):
        liteseg.evaluate(None, filled_run, overrides=changes, predictions=filled_run.parent)
    assert {path: path.read_bytes() for path in data.rglob("*") if path.is_file()} == before


def test_predictions_replace_only_predictions(filled_run, tmp_path):
    (tmp_path / "0.png").write_bytes(b"mine")
    with pytest.raises(UserError, match="not written by liteseg"):
        liteseg.evaluate(filled_run / "config.yml", filled_run, predictions=tmp_path)
    (tmp_path / "0.png").unlink()
    for _ in range(2):
        liteseg.evaluate(filled_run / "config.yml", filled_run, predictions=tmp_path)


def test_a_report_replaces_no_config(filled_run):
    config = filled_run / "config.yml"
    before = config.read_bytes()
    with pytest.raises(UserError, match=r"not a \.html file"):
        liteseg.evaluate(config, filled_run, report=config)
    assert main(["eval", "--config", str(config), "--weights", "x", "--json", str(config)]) == 2
    assert config.read_bytes() == before


@pytest.mark.parametrize("format", ["paddle", "onnx", "openvino"])
def test_an_exported_model_has_the_metrics_of_its_run(filled_run, exported, format):
    folder, config = exported(format), filled_run / "config.yml"
    expected = liteseg.evaluate(None, filled_run).metrics
    found = liteseg.evaluate(config, folder, batch_size=1).metrics
    assert found["miou"] == pytest.approx(expected["miou"], abs=2e-3)
    assert found["boundary_iou"] == pytest.approx(expected["boundary_iou"], abs=1e-2)
    assert [image["name"] for image in found["per_image"]] == ["0", "1", "2"]
    assert main(["eval", "--config", str(config), "--model", str(folder), "--quiet"]) == 0


def test_an_export_next_to_the_config_of_its_run(filled_run, exported, tmp_path):
    folder = tmp_path / "export"
    folder.mkdir()
    for file in exported("paddle").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    with pytest.raises(UserError, match="does not name its dataset; give the config"):
        liteseg.evaluate(None, folder)
    (tmp_path / "config.yml").write_text((filled_run / "config.yml").read_text())
    assert liteseg.evaluate(None, folder).metrics["images"] == 3


def test_bad_exports(filled_run, exported, tmp_path):
    config = filled_run / "config.yml"
    folder = tmp_path / "export"
    folder.mkdir()
    for file in exported("paddle").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    described = folder / "liteseg.json"
    content = json.loads(described.read_text())
    content["class_names"] = ["road", "sky", "car"]
    described.write_text(json.dumps(content))
    with pytest.raises(UserError, match="has the 3 classes road, sky, car; the dataset has 3"):
        liteseg.evaluate(config, folder)
    with pytest.raises(UserError, match="runtime and precision are for exported models"):
        liteseg.evaluate(config, filled_run, runtime="openvino")
    with pytest.raises(UserError, match=r"contains no liteseg\.json"):
        require_exported(filled_run)
    assert main(["eval", "--weights", "a", "--model", "b"]) == 2


def test_scores_that_are_nan(filled_run, tmp_path):
    weights = filled_run / "checkpoints" / "best" / "model.pdparams"
    state = dict(read_pdparams(weights))
    state = {
        key: np.where(array > 0, 3e38, array).astype(array.dtype) for key, array in state.items()
    }
    save_pdparams(state, tmp_path / "model.pdparams")
    with pytest.raises(UserError, match=r"0.png: the model's scores are NaN or infinite"):
        liteseg.evaluate(filled_run / "config.yml", tmp_path / "model.pdparams", num_workers=0)


def test_a_table_of_the_images(filled_run, tmp_path):
    path = tmp_path / "sub" / "images.csv"
    result = liteseg.evaluate(None, filled_run, per_image=path, sequence="^[01]")
    rows = list(csv.DictReader(path.open()))
    assert [row["name"] for row in rows] == ["0", "1", "2"]
    assert [row["sequence"] for row in rows] == ["0", "1", ""]
    segmenter = liteseg.Segmenter.from_pretrained(filled_run)
    for row in rows:
        data = filled_run.parent / "data"
        label = cv2.imread(str(data / f"{row['name']}_label.png"), cv2.IMREAD_UNCHANGED)
        matrix = ConfusionMatrix(3, class_names=segmenter.class_names)
        matrix.update(segmenter.predict(read(data / f"{row['name']}.png")), label)
        expected = matrix.compute()
        assert float(row["miou"]) == pytest.approx(expected["miou"], abs=2e-3)
        assert float(row["accuracy"]) == pytest.approx(expected["acc"], abs=2e-3)
        assert int(row["pixels"]) == (label != 255).sum()
        for name, iou in expected["class_iou"].items():
            assert float(row[f"iou/{name}"]) == pytest.approx(iou, abs=5e-3)
        assert 0 <= float(row["boundary_iou"]) <= 1
    assert result.metrics["boundary"] == {"width": 0.02, "tolerance": 0.0075}


def test_a_table_in_parquet(filled_run, tmp_path, monkeypatch):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    path = tmp_path / "images.parquet"
    liteseg.evaluate(None, filled_run, per_image=path, boundary=None)
    table = parquet.read_table(path)
    assert table.column("name").to_pylist() == ["0", "1", "2"]
    assert table.column_names[-3:] == ["iou/road", "iou/car", "iou/sky"]
    assert "boundary_iou" not in table.column_names
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(UserError, match="Parquet needs pyarrow"):
        liteseg.evaluate(None, filled_run, per_image=path)


def test_a_split_without_labeled_pixels_has_no_metrics(city, tmp_path, capsys):
    """The labels of the Cityscapes test split are dummies: all pixels are void."""
    name = "berlin_000000_000019_leftImg8bit.png"
    write(city.parent / "data/leftImg8bit/train/berlin" / name, draw(5))
    label = (
        city.parent / "data/gtFine/train/berlin" / name.replace("leftImg8bit", "gtFine_labelIds")
    )
    write(label, np.zeros(SIZE, np.uint8))
    path = tmp_path / "found.json"
    assert main(["eval", "--weights", str(city), "--split", "train", "--json", str(path)]) == 0
    found = json.loads(path.read_text())
    assert found["miou"] is found["acc"] is found["kappa"] is found["mdice"] is None
    assert found["images"] == 1
    out = capsys.readouterr().out
    assert "all pixels of all 1 labels are ignored" in out
    assert "0.0000" not in out
