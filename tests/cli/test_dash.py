"""`liteseg dash`: VisualDL's server on real runs, through its HTTP interface and in a browser."""

from __future__ import annotations

import json
import os
import shutil
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
from streets_run import lines

from liteseg.cli import main
from liteseg.tasks.dashboard_server import guarded, is_own_name

RUNS = {"first/run": "0.002", "second/run": "0.001"}  # equal names, which must not be merged


@pytest.fixture(scope="module")
def runs(streets_config, tmp_path_factory):
    """A folder with two runs of two iterations and two evaluations each."""
    folder = tmp_path_factory.mktemp("runs")
    overrides = ("iters=2", "eval_interval=1", "num_pictures=1")
    command = ["train", "--config", str(streets_config)]
    command += [part for override in overrides for part in ("--set", override)]
    for name, rate in RUNS.items():
        rate = f"lr_scheduler.learning_rate={rate}"
        assert main([*command, "--set", rate, "--output", str(folder / name)]) == 0
    return folder


# Axes and grid are gray: color on a canvas is a curve.
_COLORED = """[...document.querySelectorAll('canvas')].some(canvas => {
    if (!canvas.width || !canvas.height) return false;
    const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
    for (let i = 0; i < pixels.length; i += 4)
        if (pixels[i + 3] > 128 && Math.abs(pixels[i] - pixels[i + 2]) > 60) return true;
    return false; })"""


class Server:
    """`liteseg dash` in a separate process."""

    def __init__(self, folder, *options, path="/app"):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        command = [sys.executable, "-m", "liteseg", "dash", str(folder), "--port", str(port)]
        command += options
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(command, env=env)
        self.address = f"http://127.0.0.1:{port}{path}"
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def get_bytes(self, path, **query):
        url = f"{self.address}/api/{path}?{urllib.parse.urlencode(query)}"
        with self.opener.open(url, timeout=60) as answer:
            return answer.read()

    def get(self, path, **query):
        answer = json.loads(self.get_bytes(path, **query))
        assert answer["status"] == 0, answer
        return answer["data"]

    def wait(self):
        end = time.monotonic() + 180
        while self.process.poll() is None:
            try:
                return self.get("runs")
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
    """The tags of each run for a component."""
    found = server.get(f"{component}/tags")
    return dict(zip(found["runs"], found["tags"]))


def run_named(server, runs, name):
    run = f"{runs.name}/{name}/vdl"  # does not depend on the working folder
    assert run in server.get("runs")
    return run


def test_every_component_has_a_page(server):
    expected = {"scalar", "image", "text", "hyper_parameters"}
    assert expected <= set(server.get("component_tabs"))
    assert len(server.get("runs")) == len(RUNS)


def test_curves(server, runs):
    heads = [f"train/head{i}_CrossEntropyLoss" for i in range(3)]
    expected = ["train/loss", "train/lr", *heads, "val/loss", "val/miou", "val/iou/road"]
    for name in RUNS:
        run = run_named(server, runs, name)
        assert set(expected) <= set(tags(server, "scalar")[run])
        for phase, tag, key in (("train", "train/loss", "loss"), ("eval", "val/miou", "miou")):
            points = server.get("scalar/list", run=run, tag=tag)
            assert [(step, value) for _, step, value in points] == [
                (line["step"], pytest.approx(line[key])) for line in lines(runs / name, phase)
            ]


def test_images(server, runs):
    for name in RUNS:
        run = run_named(server, runs, name)
        found = tags(server, "image")[run]
        assert sum(tag.startswith("val/") for tag in found) == 1
        assert "worst/1" in found
        for tag in found:
            steps = [item["step"] for item in server.get("image/list", run=run, tag=tag)]
            assert steps == [1, 2]
            content = server.get_bytes("image/image", run=run, tag=tag, index=1)
            image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
            assert image.shape[1] == 4 * 128 + 3 * 4  # input, label, prediction, errors
            assert image.std() > 10


def test_config_as_text(server, runs):
    run = run_named(server, runs, "second/run")
    assert tags(server, "text")[run] == ["config"]
    text = server.get_bytes("text/text", run=run, tag="config", index=0).decode()
    head, _, config = (runs / "second/run/config.yml").read_text().partition("\n")
    assert head.startswith("# every value of the config")
    assert text == config


def test_hyperparameters(server, runs):
    rows = {row["name"]: row for row in server.get("hparams/list")}
    assert len(rows) == len(RUNS)
    for name, rate in RUNS.items():
        (row,) = [row for run, row in rows.items() if name in run]
        assert row["hparams"]["learning_rate"] == pytest.approx(float(rate))
        assert row["hparams"]["iters"] == 2
        best = max(line["miou"] for line in lines(runs / name, "eval"))
        assert row["metrics"]["val/best_miou"] == pytest.approx(best)


@pytest.fixture
def cut_run(runs, tmp_path):
    """A copy of a run whose log ends within a record."""
    folder = shutil.copytree(runs / "first/run", tmp_path / "cut/run")
    (log,) = folder.glob("vdl/*.log")
    log.write_bytes(log.read_bytes()[:-3])
    return folder


def test_a_cut_log_languages_and_a_public_path(cut_run):
    pytest.importorskip("visualdl")
    server = Server(cut_run.parent, "--public-path", "/proxy/", path="/proxy")
    try:
        assert server.wait() == ["cut/run/vdl"]
        assert "train/loss" in tags(server, "scalar")["cut/run/vdl"]
        for language in ("de-DE,de;q=0.9", "en", "zh-CN", None):
            headers = {} if language is None else {"Accept-Language": language}
            page = urllib.request.Request(f"{server.address}/index", headers=headers)
            assert server.opener.open(page, timeout=60).status == 200
    finally:
        server.process.terminate()
        server.process.wait(60)


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


def test_errors(tmp_path, capsys):
    assert main(["dash", str(tmp_path / "absent")]) == 2
    assert "is not a folder" in capsys.readouterr().err
    assert main(["dash", str(tmp_path)]) == 2
    assert "contains no run" in capsys.readouterr().err
    (tmp_path / "vdl").mkdir()
    (tmp_path / "vdl" / "vdlrecords.1.log").write_bytes(b"")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["dash", str(tmp_path), "--port", str(taken.getsockname()[1])]) == 2
    assert "another --port" in capsys.readouterr().err


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8040", "[::1]:80", "192.168.1.5"])
def test_addresses_of_this_machine(host):
    assert is_own_name(host)
    assert is_own_name(socket.gethostname())


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example:80", "", "[", "a@b@c"])
def test_foreign_names_are_refused(host):
    """DNS rebinding: a page's own name that points to this machine."""
    assert not is_own_name(host)
    status = []
    answer = guarded(lambda environment, start: pytest.fail("was answered"))
    assert b"localhost" in b"".join(answer({"HTTP_HOST": host}, lambda s, h: status.append(s)))
    assert status == ["403 Forbidden"]


def test_the_server_refuses_foreign_names(server):
    request = urllib.request.Request(server.address, headers={"Host": "evil.example"})
    with pytest.raises(urllib.error.HTTPError, match="403"):
        server.opener.open(request)
