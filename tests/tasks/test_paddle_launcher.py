"""Commands under the plain `paddle.distributed.launch`, as batch systems start them."""

from __future__ import annotations

import json
import subprocess
import sys

import cv2
import pytest
from plain_run import ENVIRONMENT, last_checkpoint, lines, prepare

import liteseg


def launch(logs, *arguments, processes=2):
    """Run `liteseg ARGUMENTS` in several processes; (exit code, output of each process)."""
    launcher = [sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node", processes]
    command = [*launcher, "--log_dir", logs, sys.executable, "-m", "liteseg", *arguments]
    done = subprocess.run(
        list(map(str, command)), env=ENVIRONMENT, capture_output=True, text=True, timeout=300
    )
    outputs = [(logs / f"workerlog.{n}").read_text() for n in range(processes)]
    return done.returncode, outputs


def test_eval_counts_each_image_once_and_reports_once(filled_run, tmp_path):
    expected = liteseg.evaluate(weights=filled_run).metrics
    saved = ("--json", tmp_path / "metrics.json", "--report", tmp_path / "report.html")
    predictions = ("--save-pred", tmp_path / "predictions")
    code, outputs = launch(tmp_path / "logs", "eval", "--weights", filled_run, *saved, *predictions)
    assert code == 0, outputs
    assert [output.count("images/s") for output in outputs] == [1, 0]
    found = json.loads((tmp_path / "metrics.json").read_text())
    measured = {"seconds", "images_per_second", "timings"}
    for key in expected.keys() - measured:
        assert found[key] == expected[key], key
    assert found["images"] == len(list((tmp_path / "predictions").iterdir())) == 3
    assert (tmp_path / "report.html").exists()


def test_predict_writes_each_result_once(filled_run, tmp_path):
    images = sorted(filled_run.parent.rglob("*.png"))[:3]
    arguments = ("--weights", filled_run, *images, "--output", tmp_path / "out")
    code, outputs = launch(tmp_path / "logs", "predict", *arguments, "--what", "mask")
    assert code == 0, outputs
    assert len(list((tmp_path / "out").glob("*_label.png"))) == 3


def test_a_failure_ends_no_other_process_of_predict(filled_run, tmp_path):
    """The launcher ends all as soon as one exits with 1, so they do so together."""
    (tmp_path / "in").mkdir()
    image = cv2.imread(str(next(filled_run.parent.rglob("*.png"))))
    for number in range(30):
        cv2.imwrite(str(tmp_path / "in" / f"{number}.png"), image)
    (tmp_path / "in" / "broken.png").write_bytes(b"no image")
    arguments = ("--weights", filled_run, tmp_path / "in", "--output", tmp_path / "out")
    code, outputs = launch(tmp_path / "logs", "predict", *arguments, "--what", "mask")
    assert code != 0
    assert len(list((tmp_path / "out").glob("*_label.png"))) == 30
    for output in outputs:
        assert "30 of 31 inputs predicted" in output
    assert len((tmp_path / "out" / "failures.jsonl").read_text().splitlines()) == 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("launcher"))


def test_the_same_command_starts_and_resumes(folder, tmp_path):
    run = tmp_path / "run"
    arguments = ("train", "--config", folder / "plain.yml", "--output", run, "--resume", "auto")
    sets = ("--set", "batch_size=2", "--set", "iters=3")
    code, outputs = launch(tmp_path / "first", *arguments, *sets)
    assert code == 0, outputs
    assert last_checkpoint(run) == 3
    code, outputs = launch(tmp_path / "second", *arguments, *sets, "--set", "iters=5")
    assert code == 0, outputs
    assert "after iteration 3" in outputs[0]
    assert [line["step"] for line in lines(run, "train")] == [1, 2, 3, 4, 5]
