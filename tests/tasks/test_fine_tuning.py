"""Fine-tuning: classes are matched by name; runs carry their class names and plugins."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys

import cv2
import numpy as np
import paddle
import pytest

import liteseg
from liteseg.config.check import load_checked
from liteseg.config.load import load_config
from liteseg.config.plugins import load_components
from liteseg.errors import UserError
from liteseg.registry import LOSSES
from liteseg.tasks.run_config import config_name
from liteseg.tasks.runs import class_names_of, load_to_fine_tune, require_class_order
from liteseg.utils.weights.load import load_weights, save_pdparams


class Net(paddle.nn.Layer):
    def __init__(self, classes):
        super().__init__()
        self.stem = paddle.nn.Conv2D(3, 2, 1)
        head = paddle.nn.Layer()
        head.conv_out = paddle.nn.Conv2D(2, classes, 1)
        self.seg_heads = paddle.nn.LayerList([head])


KEY = "seg_heads.0.conv_out.weight"


@pytest.mark.parametrize(
    ("old", "new", "kept", "anew"),
    [
        (["ground", "bar", "box"], ["sky", "road", "car"], [], "sky, road, car"),
        (["ground", "bar", "box"], ["box", "ground", "bar"], [(0, 2), (1, 0), (2, 1)], None),
        (["road", "car"], ["sky", "car", "road", "tree"], [(1, 1), (2, 0)], "sky, tree"),
        (["road", "car"], ["road", "car"], [(0, 0), (1, 1)], None),
        (["traffic sign", "car"], ["Car", "TrafficSign", "Sky"], [(0, 1), (1, 0)], "Sky"),
        ([], ["road", "car"], [], "road, car"),
    ],
)
def test_classes_are_matched_by_name(tmp_path, caplog, old, new, kept, anew, monkeypatch):
    monkeypatch.setattr(logging.getLogger("liteseg"), "propagate", True)
    file = tmp_path / "model.pdparams"
    source, target = Net(len(old) or len(new)), Net(len(new))
    save_pdparams(source.state_dict(), file)
    before = target.state_dict()[KEY].numpy()
    with caplog.at_level(logging.INFO, "liteseg"):
        load_weights(target, file, fine_tune=True, class_names=(old, new))
    after, given = target.state_dict()[KEY].numpy(), source.state_dict()[KEY].numpy()
    expected = before.copy()
    for row, place in kept:
        expected[row] = given[place]
    np.testing.assert_array_equal(after, expected)
    np.testing.assert_array_equal(target.stem.weight.numpy(), source.stem.weight.numpy())
    assert (anew is None) == ("learned anew" not in caplog.text)
    assert anew is None or f"learned anew: {anew}" in caplog.text


@pytest.mark.parametrize(
    ("init", "log"),
    [
        (None, "1 of 2 rows kept: Car; learned anew: sky; not used: road"),
        ("by_name", "1 of 2 rows kept: Car; learned anew: sky; not used: road"),
        ("anew", "no row is kept; learned anew: sky, Car"),
    ],
)
def test_init_classes(tmp_path, caplog, init, log, monkeypatch):
    monkeypatch.setattr(logging.getLogger("liteseg"), "propagate", True)
    (tmp_path / "config.yml").write_text("val_dataset: {type: Dataset, class_names: [road, car]}\n")
    source, target = Net(2), Net(2)
    before = target.state_dict()[KEY].numpy()
    save_pdparams(source.state_dict(), tmp_path / "model.pdparams")
    with caplog.at_level(logging.INFO, "liteseg"):
        load_to_fine_tune(target, tmp_path, ["sky", "Car"], init)
    after = target.state_dict()[KEY].numpy()
    np.testing.assert_array_equal(after[0], before[0])
    expected = before[1] if init == "anew" else source.state_dict()[KEY].numpy()[1]
    np.testing.assert_array_equal(after[1], expected)
    assert log in caplog.text


@pytest.mark.parametrize("named", [True, False])
def test_init_classes_by_name_needs_names(tmp_path, named):
    save_pdparams(Net(2).state_dict(), tmp_path / "model.pdparams")
    if named:
        (tmp_path / "config.yml").write_text(
            "val_dataset: {type: Dataset, class_names: [road, car]}\n"
        )
    classes = ["class_0", "class_1"] if named else ["road", "car"]
    with pytest.raises(UserError, match="init_classes: by_name needs the class names of"):
        load_to_fine_tune(Net(2), tmp_path, classes, "by_name")


def test_classes_in_another_order_are_refused_in_inference(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("liteseg"), "propagate", True)
    (tmp_path / "config.yml").write_text(
        "val_dataset: {type: Dataset, class_names: [road, car, box]}\n"
    )
    require_class_order(tmp_path, ["road", "car", "box"])
    require_class_order(tmp_path, ["class_0", "class_1", "class_2"])
    assert not caplog.text
    with pytest.raises(UserError, match=r"classes road, car, box, and the config lists them as c"):
        require_class_order(tmp_path, ["car", "road", "box"])
    require_class_order(tmp_path, ["road", "auto", "box"])
    assert "the config names them road, auto, box" in caplog.text


PLUGIN = """\
from paddle import nn
from liteseg.registry import LOSSES


@LOSSES.register
class LossOfARun(nn.CrossEntropyLoss):
    def __init__(self, axis: int = 1):
        super().__init__(axis=axis)

    def forward(self, logits, label):
        return super().forward(logits, label.unsqueeze(1).astype("int64"))
"""
CONFIG = """\
model: {type: PPLiteSeg, backbone: {type: STDC1, init: kaiming}}
train_dataset: &data
  {type: Dataset, mode: train, dataset_root: data, num_classes: 2, image_dir: images,
   label_dir: masks, transforms: [{type: Normalize}], colours: colors.txt}
val_dataset: {<<: *data, mode: val}
loss: {types: [{type: LossOfARun}]}
optimizer: {type: AdamW}
lr_scheduler: {type: PolynomialDecay, learning_rate: 0.001}
batch_size: 1
iters: 1
num_workers: 0
plugins: [mine.py]
"""


@pytest.fixture
def own_run(tmp_path, monkeypatch):
    """A run with a plugin and color masks, started in its own folder."""
    load_components()
    monkeypatch.setattr(LOSSES, "_components", dict(LOSSES._components))
    monkeypatch.chdir(tmp_path)
    for name in ("images", "masks"):
        (tmp_path / "data" / name).mkdir(parents=True)
        image = np.zeros((64, 64, 3), np.uint8)
        image[20:] = 255
        assert cv2.imwrite(f"data/{name}/1.png", image)
    (tmp_path / "data/colors.txt").write_text("0 0 0 ground\n255 255 255 sky\n")
    (tmp_path / "mine.py").write_text(f"{PLUGIN}# {tmp_path}\n")  # not loaded before
    (tmp_path / "mine.yml").write_text(CONFIG)
    liteseg.train("mine.yml", output="run")
    return tmp_path / "run"


def test_a_run_carries_plugins_and_names(own_run, tmp_path, monkeypatch):
    (copy,) = (own_run / "plugins").iterdir()
    assert copy.read_text() == (tmp_path / "mine.py").read_text()
    config = load_config(own_run / "config.yml")
    assert config["plugins"] == [f"plugins/{copy.name}"]
    assert config["train_dataset"]["class_names"] == ["ground", "sky"]
    # In another folder, without the data and the plugin's own file, and in another process.
    shutil.move(str(tmp_path / "data"), str(tmp_path / "moved"))
    (tmp_path / "mine.py").unlink()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    command = ["predict", f"{tmp_path}/moved/images", "--weights", f"{own_run}"]
    shutil.rmtree(own_run / "plugins")  # of a loss: not needed
    done = subprocess.run(
        [sys.executable, "-m", "liteseg", *command],
        cwd=elsewhere,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert len(list((elsewhere / "predictions").iterdir())) == 3
    segmenter = liteseg.Segmenter.from_pretrained(own_run)
    assert segmenter.class_names == ("ground", "sky")


def test_a_resumed_run_keeps_its_name_and_says_that_it_is_complete(own_run, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("liteseg"), "propagate", True)
    assert config_name(load_checked(own_run / "config.yml")) == "mine"
    with caplog.at_level(logging.INFO, "liteseg"):
        liteseg.train(own_run / "config.yml", resume=own_run)
    assert "the run is complete already" in caplog.text
    assert "changed on resuming" not in caplog.text
    assert config_name(load_checked(own_run / "config.yml")) == "mine"
    assert len(list((own_run / "plugins").iterdir())) == 1


def test_fine_tuning_on_other_names(own_run, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("liteseg"), "propagate", True)
    assert class_names_of(own_run) == ("ground", "sky")
    (tmp_path / "data/colors.txt").write_text("0 0 0 road\n255 255 255 sky\n")
    with caplog.at_level(logging.INFO, "liteseg"):
        liteseg.train("mine.yml", output="tuned", weights=own_run)
    assert "kept: sky; learned anew: road; not used: ground" in caplog.text
