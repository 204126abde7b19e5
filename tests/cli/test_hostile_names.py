"""Names of files, folders and classes that contain control characters and line ends."""

from __future__ import annotations

import contextlib
import json
import shutil

import pytest
from filled_run import draw, fill_run, write

from liteseg.cli import main
from liteseg.utils.logging import get_logger, log_file, progress

HOSTILE = "x\nliteseg: forged\x1b[2J\x9b31m\u202e\r"


@pytest.fixture
def hostile(tmp_path, monkeypatch):
    """A folder with a run, `data` and more, all of them with such names."""
    folder = tmp_path / f"f{HOSTILE}"
    data = folder / f"data{HOSTILE}"
    for i in range(2):
        write(data / "images" / f"{i}{HOSTILE}.png", draw(i))
        write(data / "labels" / f"{i}{HOSTILE}.png", draw(i)[..., 0] // 90)
    names = [f"{i}{HOSTILE}" for i in range(3)]
    folders = {"dataset_root": str(data), "image_dir": "images", "label_dir": "labels"}
    spec = {"type": "Dataset", "num_classes": 3, "class_names": names, **folders}
    fill_run(folder, "\n  ".join(f"{key}: {json.dumps(value)}" for key, value in spec.items()))
    monkeypatch.chdir(folder)
    return folder


def assert_harmless(text):
    assert not [c for c in "\x1b\x9b\u202e\r" if c in text]
    assert not [line for line in text.split("\n") if line.startswith("liteseg: forged")]


@pytest.mark.parametrize(
    "command",
    [
        ["data", "check", "--config", "run/config.yml"],
        ["eval", "--weights", "run", "--save-pred", f"pred{HOSTILE}"],
        ["predict", f"data{HOSTILE}", "--weights", "run", "--output", f"out{HOSTILE}"],
        ["data", "check", "--config", "run/config.yml", "--set", "train_dataset.label_dir=images"],
        ["predict", f"none{HOSTILE}", "--weights", "run"],
        ["eval", "--weights", f"none{HOSTILE}"],
        [
            "eval",
            "--weights",
            f"http://127.0.0.1{HOSTILE}/a.pdparams",
            "--config",
            "run/config.yml",
        ],
        ["config", "show", f"c{HOSTILE}.yml"],
        ["config", "check", "run/config.yml", "--set", f"iters={HOSTILE}"],
        ["train", "--resume", "run", f"--none{HOSTILE}"],
        ["export", "--weights", "run", "--format", HOSTILE, "--output", "e"],
    ],
    ids=lambda command: "-".join(command[:2]).partition("\n")[0],
)
def test_names_reach_the_terminal_escaped(command, hostile, capsys):
    shutil.copy(hostile / "run/config.yml", hostile / f"c{HOSTILE}.yml")
    with contextlib.suppress(SystemExit):  # of argparse
        main(command)
    captured = capsys.readouterr()
    assert_harmless(captured.out)
    assert_harmless(captured.err)
    assert r"\nliteseg: forged\x1b[2J" in captured.out + captured.err


def test_names_reach_logs_and_bars_escaped(tmp_path, capsys):
    with log_file(tmp_path / "train.log"):
        get_logger().info(f"reading {HOSTILE}")
        progress(desc=HOSTILE).close()
    text = (tmp_path / "train.log").read_text()
    assert len(text.splitlines()) == 1
    assert_harmless(text)
    assert_harmless(capsys.readouterr().out)
