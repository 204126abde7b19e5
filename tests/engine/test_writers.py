"""`metrics.jsonl` and the VisualDL log, read back."""

from __future__ import annotations

import json
import logging
import math

import numpy as np
import pytest

from liteseg.engine.writers import Dashboard, MetricsFile


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_lines_are_json_without_nan(tmp_path):
    metrics = MetricsFile(tmp_path / "metrics.jsonl", 0)
    values = {
        "loss": math.nan,
        "miou": np.float32(0.5),
        "images": np.int64(3),
        "class_iou": {"road": 0.25, "car": math.inf, "sky": None},
        "list": [np.float64("nan"), (1, 2)],
    }
    metrics.write(10, "eval", values)
    assert lines(metrics.path) == [
        {
            "step": 10,
            "phase": "eval",
            "loss": None,
            "miou": 0.5,
            "images": 3,
            "class_iou": {"road": 0.25, "car": None, "sky": None},
            "list": [None, [1, 2]],
        }
    ]


def test_a_resume_drops_later_iterations_and_broken_lines(tmp_path):
    path = tmp_path / "metrics.jsonl"
    metrics = MetricsFile(path, 0)
    for iteration in (10, 20, 30):
        metrics.write(iteration, "train", {"loss": iteration})
        metrics.write(iteration, "eval", {"miou": iteration})
    text = path.read_text()
    path.write_text(text + '[1]\n{"phase": "train"}\n' + text.splitlines()[0][:12])
    MetricsFile(path, 20).write(30, "train", {"loss": -1})
    assert [(line["step"], line["phase"]) for line in lines(path)] == [
        *((iteration, phase) for iteration in (10, 20) for phase in ("train", "eval")),
        (30, "train"),
    ]
    assert lines(path)[-1]["loss"] == -1


def test_a_new_run_starts_empty(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 5, "phase": "train"}\n')
    MetricsFile(tmp_path / "metrics.jsonl", 0)
    assert (tmp_path / "metrics.jsonl").read_text() == ""


def test_a_full_disk_ends_the_metrics_with_one_warning(tmp_path, caplog):
    metrics = MetricsFile(tmp_path / "metrics.jsonl", 0)
    metrics.path.unlink()
    metrics.path.symlink_to("/dev/full")
    for iteration in (1, 2):
        metrics.write(iteration, "train", {"loss": 1.0})
    (record,) = caplog.records
    assert "No space left" in record.getMessage()
    assert str(metrics.path) in record.getMessage()


def curve(folder, tag):
    from visualdl import LogReader

    (log,) = folder.glob("vdlrecords.*.log")  # VisualDL shows one file of a folder
    points = LogReader(file_path=str(log)).get_data("scalar", tag)
    return [(point.id, pytest.approx(point.value)) for point in points]


def test_a_dashboard_continues_in_its_file(tmp_path, caplog, capfd):
    pytest.importorskip("visualdl")
    folder = tmp_path / "vdl"
    for iterations in ((1, 2), (3,)):
        dashboard = Dashboard(folder, iterations[0] - 1)
        for iteration in iterations:
            values = {"train/loss": 1 / iteration, "bad": math.nan, "none": None}
            dashboard.scalars(iteration, values)
        dashboard.image(iterations[0], "val/image", np.zeros((4, 6, 3), np.uint8))
        dashboard.text(iterations[0], "config", "iters: 3")
        dashboard.close()
    assert curve(folder, "train/loss") == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert caplog.text == ""
    assert capfd.readouterr() == ("", "")  # VisualDL prints that the file exists


@pytest.mark.parametrize("torn", [0, 3, 11, 30])
def test_a_resume_drops_later_points_and_a_torn_end(tmp_path, caplog, torn):
    pytest.importorskip("visualdl")
    dashboard = Dashboard(tmp_path, -1)
    for iteration in (1, 2, 3, 4):
        dashboard.scalars(iteration, {"train/loss": iteration})
        dashboard.image(iteration, "val/image", np.zeros((4, 6, 3), np.uint8))
    dashboard.hparams({"config": "toy"}, "train/loss")
    dashboard.close()
    (log,) = tmp_path.glob("vdlrecords.*.log")
    log.write_bytes(log.read_bytes()[: -torn or None])
    dashboard = Dashboard(tmp_path, 2)
    for iteration in (3, 4):
        dashboard.scalars(iteration, {"train/loss": -iteration})
    dashboard.hparams({"config": "toy"}, "train/loss")
    dashboard.close()
    assert curve(tmp_path, "train/loss") == [(1, 1), (2, 2), (3, -3), (4, -4)]
    assert log.read_bytes().count(b"toy") == 1
    assert caplog.text == ""


def test_points_are_in_the_file_at_once(tmp_path):
    """A process killed now loses no point that a checkpoint relies on."""
    pytest.importorskip("visualdl")
    dashboard = Dashboard(tmp_path, -1)
    dashboard.scalars(1, {f"tag{i}": i for i in range(40)})
    for i in range(40):
        assert curve(tmp_path, f"tag{i}") == [(1, i)]
    dashboard.close()


def test_the_table_of_hyperparameters(tmp_path, caplog):
    pytest.importorskip("visualdl")
    dashboard = Dashboard(tmp_path, -1)
    dashboard.scalars(5, {"val/best_miou": 0.5})
    dashboard.hparams({"config": "toy", "learning_rate": 0.01, "batch": 2}, "val/best_miou")
    dashboard.close()
    assert caplog.text == ""
    assert curve(tmp_path, "val/best_miou") == [(5, 0.5)]


def test_a_failing_dashboard_warns_once(tmp_path, monkeypatch, caplog):
    visualdl = pytest.importorskip("visualdl")

    def refuse(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(visualdl, "LogWriter", refuse)
    with caplog.at_level(logging.WARNING):
        dashboard = Dashboard(tmp_path, -1)
        dashboard.scalars(1, {"loss": 1.0})
        dashboard.image(1, "image", np.zeros((2, 2, 3), np.uint8))
        dashboard.text(1, "config", "x")
        dashboard.hparams({"a": 1}, "loss")
        dashboard.close()
    (record,) = caplog.records
    assert "VisualDL failed" in record.getMessage()
    assert "No space left" in record.getMessage()


def test_without_visualdl(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(__import__("sys").modules, "visualdl", None)
    Dashboard(tmp_path, -1).scalars(1, {"loss": 1.0})
    (record,) = caplog.records
    assert "visualdl" in record.getMessage()
