"""A model that gets all its weights from elsewhere never fetches `pretrained` of its config."""

from __future__ import annotations

import shutil

import cv2
import numpy as np
import pytest

from liteseg.cli import main

# Nobody listens there: any attempt ends in an error.
ADDRESS = "http://127.0.0.1:9/encoder.pdparams"
COMMANDS = {
    "eval": ["eval", "--weights", "run"],
    "eval of a file": ["eval", "--config", "run/config.yml", "--weights", "model.pdparams"],
    "predict": ["predict", "photo.png", "--weights", "run"],
    "export": ["export", "--weights", "run", "--format", "paddle", "--output", "exported"],
    "pack": ["models", "pack", "run", "--output", "packed"],
    "bench model": ["bench", "model", "--config", "run/config.yml", "--set", "iters=1"],
    "bench eval": ["bench", "eval", "--config", "run/config.yml", "--images", "1"],
    "bench train": ["bench", "train", "--config", "run/config.yml", "--steps", "1"],
    "fine-tuning": ["train", "--config", "run/config.yml", "--weights", "run", "--output", "more"],
    "resume": ["train", "--resume", "run", "--set", "iters=5"],
}


@pytest.fixture(scope="module")
def place(streets_run, tmp_path_factory):
    """The run, as if it came from another machine, whose config names an encoder to download."""
    folder = tmp_path_factory.mktemp("carried")
    shutil.copytree(streets_run, folder / "run")
    config = folder / "run" / "config.yml"
    text = config.read_text()
    assert text.count("pretrained: null") == 2
    config.write_text(text.replace("pretrained: null", f"pretrained: {ADDRESS}", 1))
    shutil.copy(folder / "run/checkpoints/best/model.pdparams", folder)
    assert cv2.imwrite(str(folder / "photo.png"), np.zeros((64, 128, 3), np.uint8))
    return folder


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch, place):
    monkeypatch.setenv("LITESEG_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.chdir(place)


def test_the_config_does_name_an_encoder(capfd, place):
    assert main(["train", "--config", "run/config.yml", "--output", "fresh"]) == 2
    error = capfd.readouterr().err
    assert f"{ADDRESS} can't be reached" in error
    shutil.rmtree(place / "fresh")


@pytest.mark.parametrize("name", COMMANDS)
def test_no_download(name, tmp_path, place):
    assert main(COMMANDS[name]) == 0
    assert not (tmp_path / "home" / "weights").exists()
