"""Spoiled input through the command line: exit 2 and one message, never a traceback."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from conftest import ROOT
from fuzzing import MUTATIONS, ROUNDS, numbered, rng_of

from liteseg.cli import main

NAMES = ("a", "b", "c", "d")
CONFIG = {
    "batch_size": 2,
    "iters": 1,
    "num_workers": 0,
    "model": {"type": "PPLiteSeg", "backbone": {"type": "STDC1"}},
    "train_dataset": {
        "type": "Dataset",
        "mode": "train",
        "dataset_root": "data",
        "num_classes": 3,
        "train_path": "list.txt",
        "transforms": [{"type": "RandomPaddingCrop", "crop_size": [32, 32]}, {"type": "Normalize"}],
    },
    "val_dataset": {
        "type": "Dataset",
        "mode": "val",
        "dataset_root": "data",
        "num_classes": 3,
        "val_path": "list.txt",
        "transforms": [{"type": "Normalize"}],
    },
    "optimizer": {"type": "SGD"},
    "lr_scheduler": {"type": "PolynomialDecay", "learning_rate": 0.01},
    "loss": {"types": [{"type": "CrossEntropyLoss"}]},
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A small dataset, its config and weights."""
    from liteseg.config.build import build_model
    from liteseg.utils.weights.load import save_pdparams

    folder = tmp_path_factory.mktemp("sound")
    (folder / "data").mkdir()
    rng = np.random.default_rng(0)
    for name in NAMES:
        image = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / "data" / f"{name}.png"), image)
        cv2.imwrite(str(folder / "data" / f"{name}_l.png"), image[..., 0] % 3)
    (folder / "data" / "list.txt").write_text("".join(f"{n}.png {n}_l.png\n" for n in NAMES))
    (folder / "config.yml").write_text(yaml.safe_dump(CONFIG))
    save_pdparams(build_model(CONFIG).state_dict(), folder / "model.pdparams")
    return folder


@pytest.fixture
def place(sound, tmp_path, monkeypatch):
    """A copy to spoil, as the current folder."""
    shutil.copytree(sound, tmp_path / "place", copy_function=os.link)
    monkeypatch.chdir(tmp_path / "place")
    return tmp_path / "place"


COMMANDS = {
    "config": ["config", "check", "config.yml"],
    "data": ["data", "check", "--config", "config.yml"],
    "train": ["train", "--config", "config.yml", "--output", "run"],
    "eval": ["eval", "--config", "config.yml", "--weights", "model.pdparams"],
    "predict": [*["predict", "data/a.png", "--config", "config.yml", "--weights", "model.pdparams"],
                "--output", "out"],
}  # fmt: skip


def spoil(path, name, mutation):
    """Replace a file (which may be linked to the sound one) by a spoiled copy."""
    content = Path(path).read_bytes()
    os.unlink(path)
    Path(path).write_bytes(MUTATIONS[mutation](content, rng_of(name)))


def refused(command, capfd):
    """Run a command; its words if it was refused, None if it was not."""
    capfd.readouterr()
    code = main(COMMANDS[command])
    out, errors = capfd.readouterr()
    assert code in (0, 2)
    assert "Traceback" not in out + errors
    return out + errors if code else None


CASES = [
    *[f"config-config.yml-{mutation}" for mutation in MUTATIONS],
    *[f"train-config.yml-{mutation}" for mutation in MUTATIONS],
    *[f"data-data/{file}-{mutation}" for file in ("a.png", "b_l.png", "list.txt")
      for mutation in MUTATIONS],
    *[f"train-data/{file}-truncate" for file in ("a.png", "b_l.png", "list.txt")],
    *[f"predict-data/a.png-{mutation}" for mutation in MUTATIONS],
    *[f"eval-model.pdparams-{mutation}" for mutation in MUTATIONS],
]  # fmt: skip
RUNS = numbered(CASES, 1)


@pytest.mark.parametrize("name", RUNS)
def test_command(name, place, capfd):
    command, path, mutation, _ = name.split("-")
    spoil(path, name, mutation)
    said = refused(command, capfd)
    if mutation == "truncate":
        assert said is not None
    if said is not None and command != "data":  # that lists what it finds
        assert said.count(f"liteseg {command}: ") <= 1
        assert Path(path).name in said or path == "config.yml"  # that may name the key alone


@pytest.mark.parametrize(
    ("command", "path"),
    [("config", "config.yml"), ("data", "data/c_l.png"), ("predict", "data/a.png")],
)
def test_in_a_process_of_its_own(command, path, place):
    spoil(path, "own", "truncate")
    done = subprocess.run(
        [sys.executable, "-m", "liteseg", *COMMANDS[command]],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 2, done
    assert "Traceback" not in done.stdout + done.stderr
    assert Path(path).name in done.stdout + done.stderr


@pytest.mark.parametrize("command", ["config", "data", "eval", "predict"])
def test_the_sound_ones_are_accepted(command, place, capfd):
    assert refused(command, capfd) is None


def test_how_many_there_are():
    assert len(RUNS) // ROUNDS == 45
