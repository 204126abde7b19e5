"""`liteseg dash`: VisualDL's server over real runs, asked through its HTTP interface."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

import cv2
import numpy as np
import pytest
from conftest import ROOT
from test_train import lines, streets, write_config  # noqa: F401

from liteseg.cli import main

RUNS = {"first/run": "0.002", "second/run": "0.001"}  # one name, which must not merge them


@pytest.fixture(scope="module")
def runs(streets, tmp_path_factory):  # noqa: F811
    """A folder with two runs of two steps and two evaluations each."""
    folder = tmp_path_factory.mktemp("runs")
    config = write_config(folder / "tiny.yml", streets)
    changes = ("iters=2", "eval_interval=1", "num_pictures=1")
    command = ["train", "--config", str(config)]
    command += [part for change in changes for part in ("--set", change)]
    for name, rate in RUNS.items():
        rate = f"lr_scheduler.learning_rate={rate}"
        assert main([*command, "--set", rate, "--output", str(folder / name)]) == 0
    return folder


# Axes and grid are grey: color on a canvas is a curve.
_COLORED = """[...document.querySelectorAll('canvas')].some(canvas => {
    if (!canvas.width || !canvas.height) return false;
    const seen = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
    for (let i = 0; i < seen.length; i += 4)
        if (seen[i + 3] > 128 && Math.abs(seen[i] - seen[i + 2]) > 60) return true;
    return false; })"""


class Server:
    """`liteseg dash` in a process of its own."""

    def __init__(self, folder):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        command = [sys.executable, "-m", "liteseg", "dash", str(folder), "--port", str(port)]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(command, env=env)
        self.address = f"http://127.0.0.1:{port}/app"
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def raw(self, path, **query):
        url = f"{self.address}/api/{path}?{urllib.parse.urlencode(query)}"
        with self.opener.open(url, timeout=60) as answer:
            return answer.read()

    def ask(self, path, **query):
        answer = json.loads(self.raw(path, **query))
        assert answer["status"] == 0, answer
        return answer["data"]

    def wait(self):
        end = time.monotonic() + 180
        while self.process.poll() is None:
            try:
                return self.ask("runs")
            except (urllib.error.URLError, ConnectionError):
                assert time.monotonic() < end
        raise AssertionError(f"the server ended with {self.process.returncode}")


@pytest.fixture(scope="module")
def server(runs):
    pytest.importorskip("visualdl")
    server = Server(runs)
    try:
        server.wait()
        yield server
    finally:
        server.process.terminate()
        server.process.wait(60)


def tags(server, component):
    """{run: tags} of a component."""
    found = server.ask(f"{component}/tags")
    return dict(zip(found["runs"], found["tags"]))


def run_named(server, runs, name):
    run = f"{runs.name}/{name}/vdl"  # whatever the working folder
    assert run in server.ask("runs")
    return run


def test_every_component_has_a_page(server):
    expected = {"scalar", "image", "text", "hyper_parameters"}
    assert expected <= set(server.ask("component_tabs"))
    assert len(server.ask("runs")) == len(RUNS)


def test_curves(server, runs):
    heads = [f"train/head{i}_CrossEntropyLoss" for i in range(3)]
    expected = ["train/loss", "train/lr", *heads, "val/loss", "val/miou", "val/iou/road"]
    for name in RUNS:
        run = run_named(server, runs, name)
        assert set(expected) <= set(tags(server, "scalar")[run])
        for phase, tag, key in (("train", "train/loss", "loss"), ("eval", "val/miou", "miou")):
            points = server.ask("scalar/list", run=run, tag=tag)
            told = [(line["step"], line[key]) for line in lines(runs / name, phase)]
            assert [(step, value) for _, step, value in points] == [
                (step, pytest.approx(value)) for step, value in told
            ]


def test_pictures(server, runs):
    for name in RUNS:
        run = run_named(server, runs, name)
        found = tags(server, "image")[run]
        assert sum(tag.startswith("val/") for tag in found) == 1
        assert "worst/1" in found
        for tag in found:
            steps = [item["step"] for item in server.ask("image/list", run=run, tag=tag)]
            assert steps == [1, 2]
            data = np.frombuffer(server.raw("image/image", run=run, tag=tag, index=1), np.uint8)
            picture = cv2.imdecode(data, cv2.IMREAD_COLOR)
            assert picture.shape[1] == 4 * 128 + 3 * 4  # input, label, prediction, errors
            assert picture.std() > 10


def test_the_config_as_text(server, runs):
    run = run_named(server, runs, "second/run")
    assert tags(server, "text")[run] == ["config"]
    text = server.raw("text/text", run=run, tag="config", index=0).decode()
    assert text == (runs / "second/run/config.yml").read_text()


def test_the_table_of_hyperparameters(server, runs):
    rows = {row["name"]: row for row in server.ask("hparams/list")}
    assert len(rows) == len(RUNS)
    for name, rate in RUNS.items():
        (row,) = [row for run, row in rows.items() if name in run]
        assert row["hparams"]["learning_rate"] == pytest.approx(float(rate))
        assert row["hparams"]["iters"] == 2
        best = max(line["miou"] for line in lines(runs / name, "eval"))
        assert row["metrics"]["val/best_miou"] == pytest.approx(best)


def test_in_a_browser(server, browser):
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.set_default_timeout(180_000)  # the machine may be busy
    page.goto(f"{server.address}/scalar")
    page.wait_for_function(_COLORED)
    page.goto(f"{server.address}/image")
    page.wait_for_function("document.body.innerText.includes('worst')")
    page.wait_for_function("[...document.images].some(i => i.naturalWidth == 524)")
    page.goto(f"{server.address}/hyper-parameter")
    for text in ("val/best_miou", "second/run"):
        page.wait_for_function("text => document.body.innerText.includes(text)", arg=text)


def test_what_can_be_wrong(tmp_path, capsys):
    assert main(["dash", str(tmp_path / "absent")]) == 2
    assert "is no folder" in capsys.readouterr().err
    assert main(["dash", str(tmp_path)]) == 2
    assert "holds no run" in capsys.readouterr().err
    (tmp_path / "vdl").mkdir()
    (tmp_path / "vdl" / "vdlrecords.1.log").write_bytes(b"")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["dash", str(tmp_path), "--port", str(taken.getsockname()[1])]) == 2
    assert "another --port" in capsys.readouterr().err
