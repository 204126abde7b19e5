"""`check_data` and `make_streets`."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import yaml

import liteseg
from liteseg.cli import main
from liteseg.datasets import Streets
from liteseg.errors import UserError
from liteseg.tasks.data import check_data, make_streets


@pytest.fixture
def config(tmp_path):
    """A complete config with two tiny splits of list files."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        lines = []
        for i in range(3):
            name = f"{split}{i}.png"
            image = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
            cv2.imwrite(str(tmp_path / f"i_{name}"), image)
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


def errors(report, split):
    return [error["problem"] for error in report.splits[split]["errors"]]


@pytest.mark.parametrize(
    ("values", "message"),
    [([0, 255], "3 labels contain only 0 and 255"), ([255], "all pixels of all 3 labels")],
)
@pytest.mark.parametrize("sample", [None, 2])
def test_labels_that_training_refuses(config, capsys, values, message, sample):
    for file in config.parent.glob("l_train*.png"):
        assert cv2.imwrite(str(file), np.resize(values, (6, 8)).astype(np.uint8))
    report = check_data(config, sample=sample)
    (problem,) = errors(report, "train")
    assert message in problem
    assert not any("0/255 masks" in warning for warning in report.splits["train"]["warnings"])
    assert not errors(report, "val")
    assert main(["data", "check", "--config", str(config)]) == 2
    assert f"error: {problem}" in capsys.readouterr().out
    with pytest.raises(UserError) as refused:
        liteseg.train(config, output=config.parent / "run", overrides=["num_workers=0"])
    assert problem in str(refused.value)


def test_sound_data(config):
    report = check_data(config)
    assert report.ok
    assert sorted(report.splits) == ["train", "val"]
    assert report.splits["val"]["checked"] == 3
    assert report.splits["train"]["classes"]["class_1"]["pixels"] == 48
    assert report.errors == report.duplicates == []
    assert report.as_json()["splits"] == report.splits


def test_bad_label(config, tmp_path):
    cv2.imwrite(str(tmp_path / "l_val1.png"), np.full((6, 8), 77, np.uint8))
    report = check_data(config)
    assert not report.ok
    assert "l_val1.png: label value 77 (48 pixels)" in errors(report, "val")[0]
    assert check_data(config, split="train").ok


def test_the_other_splits_of_a_broken_one_are_checked(config, tmp_path):
    (tmp_path / "train.txt").write_text("")
    report = check_data(config)
    assert not report.ok
    assert report.errors[0]["file"] == "train"
    assert "the list is empty" in report.errors[0]["problem"]
    assert list(report.splits) == ["val"]


def test_the_same_image_in_train_and_val(config, tmp_path):
    (tmp_path / "i_val0.png").write_bytes((tmp_path / "i_train2.png").read_bytes())
    report = check_data(config)
    assert report.ok
    ((first, second),) = report.duplicates
    assert first.startswith("train: ")
    assert first.endswith("i_train2.png")
    assert second.startswith("val: ")


def test_an_image_twice_in_one_split(config, tmp_path):
    (tmp_path / "i_val0.png").write_bytes((tmp_path / "i_val1.png").read_bytes())
    report = check_data(config)
    assert report.ok
    assert [entry.partition(": ")[0] for entry in report.duplicates[0]] == ["val", "val"]


def test_overrides_and_sample(config):
    changes = ["train_dataset.num_classes=3", "val_dataset.num_classes=3"]
    report = check_data(config, overrides=changes, sample=1)
    found = report.splits["train"]
    assert (found["checked"], found["images"]) == (1, 3)
    assert "class_2" in found["classes"]


def test_config_errors_are_user_errors(config):
    with pytest.raises(UserError, match="num_classes"):
        check_data(config, overrides=["train_dataset.num_classes=two"])
    with pytest.raises(UserError, match=r"none\.yml"):
        check_data(config.with_name("none.yml"))


def change(config, key, value):
    content = yaml.safe_load(config.read_text())
    content["train_dataset"][key] = value
    content["batch_size"] = 2
    config.write_text(yaml.safe_dump(content))


def test_different_sizes_in_a_batch(config, tmp_path):
    cv2.imwrite(str(tmp_path / "i_train1.png"), np.zeros((8, 8, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "l_train1.png"), np.zeros((8, 8), np.uint8))
    assert check_data(config).ok  # batch_size is 1
    change(config, "transforms", [{"type": "Normalize"}])
    assert (
        "transforms: they leave images of different sizes" in errors(check_data(config), "train")[0]
    )
    crop = {"type": "RandomPaddingCrop", "crop_size": [6, 6]}
    change(config, "transforms", [crop, {"type": "Normalize"}])
    assert check_data(config).ok


def test_no_labels_to_train_on(config, tmp_path):
    change(config, "mode", "test")
    change(config, "test_path", "test.txt")
    (tmp_path / "test.txt").write_text("i_train0.png")
    assert "i_train0.png: has no label" in errors(check_data(config, split="train"), "train")[0]


def test_streets(tmp_path):
    root = make_streets(tmp_path / "streets", train=2, val=1, size=(128, 64))
    train = Streets([], str(root), "train")
    assert (len(train), len(Streets([], str(root), "val"))) == (2, 1)
    sample = train.load(0)
    assert sample["img"].shape == (64, 128, 3)
    assert set(np.unique(sample["label"])) <= {*range(9), 255}
    assert (sample["label"] < 9).mean() > 0.5
