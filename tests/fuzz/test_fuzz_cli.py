"""Damaged input through the command line: exit code 2 and one message, never a traceback."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import ROOT
from fuzzing import damaged, examples
from hypothesis import given

from liteseg.cli import main
from liteseg.config.build import build_model
from liteseg.config.load import load_config
from liteseg.utils.weights.load import save_pdparams

CONFIG = """
batch_size: 2
iters: 1
num_workers: 0
model: {type: PPLiteSeg, backbone: {type: STDC1}}
train_dataset: &data
  type: Dataset
  mode: train
  dataset_root: data
  num_classes: 3
  train_path: list.txt
  val_path: list.txt
  transforms: [{type: RandomPaddingCrop, crop_size: [32, 32]}, {type: Normalize}]
val_dataset: {<<: *data, mode: val, transforms: [{type: Normalize}]}
optimizer: {type: SGD}
lr_scheduler: {type: PolynomialDecay, learning_rate: 0.01}
loss: {types: [{type: CrossEntropyLoss}]}
"""
WEIGHTS = ["--config", "config.yml", "--weights", "model.pdparams"]
COMMANDS = {
    "config": ["config", "check", "config.yml"],
    "data": ["data", "check", "--config", "config.yml"],
    "train": ["train", "--config", "config.yml", "--output", "run"],
    "eval": ["eval", *WEIGHTS],
    "predict": ["predict", "data/a.png", *WEIGHTS, "--output", "out"],
}
# Command, file to damage, number of examples.
CASES = [("config", "config.yml", 8), ("train", "config.yml", 6), ("predict", "data/a.png", 6),
         ("eval", "model.pdparams", 6)]  # fmt: skip
for _file in ("data/a.png", "data/b_l.png", "data/list.txt"):
    CASES += [("data", _file, 6), ("train", _file, 2)]


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A small dataset, its config and weights."""
    folder = tmp_path_factory.mktemp("sound")
    (folder / "data").mkdir()
    for number, name in enumerate("abcd"):
        image = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / "data" / f"{name}.png"), image)
        cv2.imwrite(str(folder / "data" / f"{name}_l.png"), image[..., 0] % 3)
    (folder / "data" / "list.txt").write_text("".join(f"{n}.png {n}_l.png\n" for n in "abcd"))
    (folder / "config.yml").write_text(CONFIG)
    model = build_model(load_config(folder / "config.yml"))
    save_pdparams(model.state_dict(), folder / "model.pdparams")
    return folder


@pytest.fixture
def place(sound, tmp_path, monkeypatch):
    """A copy of `sound`, as the current folder."""
    shutil.copytree(sound, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)


def refusal(command):
    """The exit code for a damaged file; `predict` lists it in failures.jsonl and continues."""
    return 1 if command == "predict" else 2


def error_of(command, capfd):
    """Run a command in this process: its output if it refuses the file, None if it works."""
    for folder in ("run", "out"):
        shutil.rmtree(folder, ignore_errors=True)
    capfd.readouterr()
    code = main(COMMANDS[command])
    output = "".join(capfd.readouterr())
    assert code in (0, refusal(command))
    if code == 1:
        assert Path("out/failures.jsonl").read_text().count("\n") == 1
    assert "Traceback" not in output
    return output if code else None


@pytest.mark.parametrize(("command", "file", "count"), CASES)
def test_damaged_file(command, file, count, sound, place, capfd):
    @examples(count)
    @given(damaged((sound / file).read_bytes()))
    def check(content):
        Path(file).write_bytes(content)
        output = error_of(command, capfd)
        if output is not None and command != "data":  # which lists every problem
            assert output.count(f"liteseg {command}: ") <= 1
            # An error in the config may name the key alone.
            assert Path(file).name in output or file == "config.yml"

    check()


@pytest.mark.parametrize(
    ("command", "file"),
    [("config", "config.yml"), ("data", "data/b_l.png"), ("predict", "data/a.png")],
)
def test_half_a_file_is_refused_in_a_separate_process(command, file, place):
    content = Path(file).read_bytes()
    Path(file).write_bytes(content[: len(content) // 2])
    done = subprocess.run(
        [sys.executable, "-m", "liteseg", *COMMANDS[command]],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == refusal(command), done
    assert "Traceback" not in done.stdout + done.stderr
    assert Path(file).name in done.stdout + done.stderr


@pytest.mark.parametrize("command", ["config", "data", "eval", "predict"])
def test_sound_files_are_accepted(command, place, capfd):
    assert error_of(command, capfd) is None
