"""`liteseg data pack`, and training data read from what it made."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import yaml

from liteseg.cli import main
from liteseg.config.build import build_dataset
from liteseg.config.load import load_config
from liteseg.datasets.pack import PIXELS
from liteseg.datasets.streets.generate import generate

QUICKSTART = Path(__file__).resolve().parents[2] / "configs" / "quickstart.yml"


@pytest.fixture
def config(tmp_path) -> Path:
    generate(tmp_path / "streets", train=3, val=1, size=(128, 64), progress=False)
    dataset = {"dataset_root": str(tmp_path / "streets")}
    sections = {"_base_": str(QUICKSTART), "train_dataset": dataset, "val_dataset": dataset}
    (tmp_path / "c.yml").write_text(yaml.safe_dump(sections))
    return tmp_path / "c.yml"


def test_packs_and_trains_from_it(config, tmp_path, capsys):
    folder = tmp_path / "fast" / "train.pack"
    assert main(["data", "pack", "--config", f"{config}", "--output", f"{folder}", "--verify"]) == 0
    said = capsys.readouterr().out
    assert f"3 samples in {folder} have the checksums" in said
    setting = said.rpartition("--set ")[2].strip()
    files = build_dataset(load_config(config), "train")
    packed = build_dataset(load_config(config, [setting]), "train")
    for index in range(3):
        for key in ("img", "label"):
            np.testing.assert_array_equal(packed[index, 7][key], files[index, 7][key])


def test_the_pack_that_the_config_names(config, tmp_path, capsys):
    """It need not exist yet; a damaged one does not pass `--verify`."""
    folder = tmp_path / "val.pack"
    command = ["data", "pack", "--config", f"{config}", "--split", "val"]
    command += ["--set", f"val_dataset.pack={folder}"]
    assert main(command) == 0
    with open(folder / PIXELS, "r+b") as file:
        file.write(b"\1\2\3")
    assert main([*command, "--verify"]) == 2
    assert "1 of 1 samples" in capsys.readouterr().err


def test_data_check_reads_the_files(config, tmp_path, capsys):
    """A file that is damaged without changing size or time is still in the pack."""
    setting = f"train_dataset.pack={tmp_path / 'pack'}"
    assert main(["data", "pack", "--config", f"{config}", "--set", setting]) == 0
    image = next((tmp_path / "streets").glob("leftImg8bit/train/*/*.png"))
    stat = image.stat()
    image.write_bytes(image.read_bytes()[:100] + bytes(stat.st_size - 100))
    os.utime(image, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert build_dataset(load_config(config, [setting]), "train").load(0)["img"].any()
    assert main(["data", "check", "--config", f"{config}", "--set", setting]) == 2
    assert image.name in capsys.readouterr().out


def test_needs_an_output(config, capsys):
    assert main(["data", "pack", "--config", f"{config}"]) == 2
    assert "--output is missing" in capsys.readouterr().err


def test_a_config_with_no_pack_yet_is_refused_in_training(config, tmp_path, capsys):
    setting = f"train_dataset.pack={tmp_path / 'none'}"
    command = ["train", "--config", f"{config}", "--output", f"{tmp_path / 'run'}"]
    assert main([*command, "--set", setting]) == 2
    assert "is no pack" in capsys.readouterr().err
