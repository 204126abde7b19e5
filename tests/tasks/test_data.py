"""`liteseg data check` and `liteseg data streets`, through their parser."""

from __future__ import annotations

import argparse
import json

import cv2
import numpy as np
import pytest
import yaml

from liteseg.cli import data
from liteseg.errors import UserError


def call(*arguments):
    parser = argparse.ArgumentParser()
    data.add_arguments(parser)
    return data.run(parser.parse_args([str(argument) for argument in arguments]))


@pytest.fixture
def config(tmp_path):
    """A whole config over two tiny splits of list files."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        lines = []
        for i in range(3):
            name = f"{split}{i}.png"
            picture = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
            cv2.imwrite(str(tmp_path / f"i_{name}"), picture)
            cv2.imwrite(str(tmp_path / f"l_{name}"), np.full((6, 8), i % 2, np.uint8))
            lines.append(f"i_{name} l_{name}")
        (tmp_path / f"{split}.txt").write_text("\n".join(lines))

    def dataset(split):
        return {
            "type": "Dataset",
            "mode": split,
            "dataset_root": str(tmp_path),
            "num_classes": 2,
            f"{split}_path": f"{split}.txt",
            "transforms": [{"type": "Normalize"}],
        }

    content = {
        "batch_size": 1,
        "iters": 1,
        "train_dataset": dataset("train"),
        "val_dataset": dataset("val"),
        "model": {"type": "PPLiteSeg", "backbone": {"type": "STDC1"}},
        "optimizer": {"type": "SGD"},
        "lr_scheduler": {"type": "PolynomialDecay", "learning_rate": 0.01},
        "loss": {"types": [{"type": "CrossEntropyLoss"}], "coef": [1, 1, 1]},
    }
    path = tmp_path / "config.yml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_sound_data(config, tmp_path, capsys):
    assert call("check", "--config", config, "--json", tmp_path / "report.json") == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert sorted(report["splits"]) == ["train", "val"]
    assert report["splits"]["val"]["checked"] == 3
    assert report["splits"]["train"]["classes"]["class_1"]["pixels"] == 48
    assert report["errors"] == report["duplicates"] == []
    assert "train: 3 of 3 images checked: 8x6 (3)" in capsys.readouterr().out


def test_bad_label_is_exit_2(config, tmp_path, capsys):
    cv2.imwrite(str(tmp_path / "l_val1.png"), np.full((6, 8), 77, np.uint8))
    assert call("check", "--config", config) == 2
    assert "l_val1.png: label value 77 (48 pixels)" in capsys.readouterr().out
    assert call("check", "--config", config, "--split", "train") == 0


def test_one_split_broken_the_other_checked(config, tmp_path, capsys):
    (tmp_path / "train.txt").write_text("")
    assert call("check", "--config", config, "--json", tmp_path / "r.json") == 2
    report = json.loads((tmp_path / "r.json").read_text())
    assert "the list is empty" in report["errors"][0]["problem"]
    assert list(report["splits"]) == ["val"]


def test_same_image_in_train_and_val(config, tmp_path, capsys):
    (tmp_path / "i_val0.png").write_bytes((tmp_path / "i_train2.png").read_bytes())
    assert call("check", "--config", config) == 0
    out = capsys.readouterr().out
    assert "1 images (by content) are in more than one split" in out
    assert "train: " in out
    assert "i_train2.png" in out


def test_override_and_sample(config, capsys):
    changed = "train_dataset.num_classes=3", "val_dataset.num_classes=3"
    sets = [part for change in changed for part in ("--set", change)]
    assert call("check", "--config", config, "--sample", 1, *sets) == 0
    out = capsys.readouterr().out
    assert "1 of 3 images" in out
    assert "class_2" in out


def test_config_errors_are_user_errors(config):
    with pytest.raises(UserError, match="num_classes"):
        call("check", "--config", config, "--set", "train_dataset.num_classes=two")
    with pytest.raises(UserError, match=r"none\.yml"):
        call("check", "--config", config.with_name("none.yml"))


def test_numbers_are_checked_by_the_parser(config, capsys):
    with pytest.raises(SystemExit):
        call("check", "--config", config, "--sample", 0)
    assert "is not a whole number above 0" in capsys.readouterr().err


def test_streets(tmp_path):
    from liteseg.datasets import Streets

    root = tmp_path / "streets"
    sizes = ("--train", 2, "--val", 1, "--size", 128, 64)
    assert call("streets", "--output", root, *sizes) == 0
    train = Streets([], str(root), "train")
    assert (len(train), len(Streets([], str(root), "val"))) == (2, 1)
    sample = train.load(0)
    assert sample["img"].shape == (64, 128, 3)
    assert set(np.unique(sample["label"])) <= {*range(9), 255}
    assert (sample["label"] < 9).mean() > 0.5


def spoil(config, key, value):
    content = yaml.safe_load(config.read_text())
    content["train_dataset"][key] = value
    content["batch_size"] = 2
    config.write_text(yaml.safe_dump(content))


def test_what_would_break_training_later_is_exit_2(config, tmp_path, capsys):
    cv2.imwrite(str(tmp_path / "i_train1.png"), np.zeros((8, 8, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "l_train1.png"), np.zeros((8, 8), np.uint8))
    assert call("check", "--config", config) == 0  # batch_size is 1
    spoil(config, "transforms", [{"type": "Normalize"}])
    assert call("check", "--config", config) == 2
    assert "error: transforms: they leave images of different sizes" in capsys.readouterr().out
    crop = {"type": "RandomPaddingCrop", "crop_size": [6, 6]}
    spoil(config, "transforms", [crop, {"type": "Normalize"}])
    assert call("check", "--config", config) == 0


def test_no_labels_to_train_on_is_exit_2(config, tmp_path, capsys):
    spoil(config, "mode", "test")
    spoil(config, "test_path", "test.txt")
    (tmp_path / "test.txt").write_text("i_train0.png")
    assert call("check", "--config", config, "--split", "train") == 2
    assert "i_train0.png: has no label" in capsys.readouterr().out


def test_an_image_twice_in_one_split(config, tmp_path, capsys):
    (tmp_path / "i_val0.png").write_bytes((tmp_path / "i_val1.png").read_bytes())
    assert call("check", "--config", config) == 0
    assert "1 images (by content) are twice in a split" in capsys.readouterr().out


def test_a_report_that_cannot_be_written_is_known_at_once(config, tmp_path):
    with pytest.raises(UserError, match="cannot write"):
        call("check", "--config", config, "--json", config / "r.json")
