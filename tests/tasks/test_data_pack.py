"""`pack_data`, and training data read from the pack."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import yaml

import liteseg
from liteseg.config.build import build_dataset
from liteseg.config.load import load_config
from liteseg.datasets.pack import PIXELS
from liteseg.errors import UserError
from liteseg.tasks.data import check_data, make_streets, pack_data

QUICKSTART = Path(__file__).resolve().parents[2] / "configs" / "quickstart.yml"


@pytest.fixture
def config(tmp_path) -> Path:
    make_streets(tmp_path / "streets", train=3, val=1, size=(128, 64))
    dataset = {"dataset_root": str(tmp_path / "streets")}
    sections = {"_base_": str(QUICKSTART), "train_dataset": dataset, "val_dataset": dataset}
    (tmp_path / "c.yml").write_text(yaml.safe_dump(sections))
    return tmp_path / "c.yml"


def test_pack_and_read(config, tmp_path):
    folder = tmp_path / "fast" / "train.pack"
    result = pack_data(config, folder, verify=True)
    assert (result.output, result.samples) == (folder, 3)
    files = build_dataset(load_config(config), "train")
    packed = build_dataset(load_config(config, [f"train_dataset.pack={folder}"]), "train")
    for index in range(3):
        for key in ("img", "label"):
            np.testing.assert_array_equal(packed[index, 7][key], files[index, 7][key])


def test_the_pack_of_the_config(config, tmp_path):
    """It need not exist yet; a damaged one fails the verification."""
    folder = tmp_path / "val.pack"
    options = {"split": "val", "overrides": [f"val_dataset.pack={folder}"]}
    assert pack_data(config, **options).output == folder
    with open(folder / PIXELS, "r+b") as file:
        file.write(b"\1\2\3")
    with pytest.raises(UserError, match="1 of 1 samples"):
        pack_data(config, verify=True, **options)


def test_check_data_reads_the_files(config, tmp_path):
    """A file that is damaged without a change of size or time is still intact in the pack."""
    changes = [f"train_dataset.pack={tmp_path / 'pack'}"]
    pack_data(config, overrides=changes)
    image = next((tmp_path / "streets").glob("leftImg8bit/train/*/*.png"))
    stat = image.stat()
    image.write_bytes(image.read_bytes()[:100] + bytes(stat.st_size - 100))
    os.utime(image, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert build_dataset(load_config(config, changes), "train").load(0)["img"].any()
    (error,) = check_data(config, overrides=changes).splits["train"]["errors"]
    assert image.name in error["problem"]


def test_an_output_is_required(config):
    with pytest.raises(UserError, match="--output is missing"):
        pack_data(config)


def test_training_refuses_a_pack_that_does_not_exist(config, tmp_path):
    changes = [f"train_dataset.pack={tmp_path / 'none'}"]
    with pytest.raises(UserError, match="is no pack"):
        liteseg.train(config, overrides=changes, output=tmp_path / "run")
