"""Every kind of bad input, end to end: exit 2, one message that names it, nothing lost."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import paddle
import pytest

from liteseg.cli import main

CONFIG = """
batch_size: 2
iters: 2
num_workers: {workers}
num_pictures: 0
log_interval: 1
model: {{type: PPLiteSeg, backbone: {{type: STDC1}}}}
train_dataset: &data
  type: Dataset
  dataset_root: {root}
  num_classes: 3
  train_path: list.txt
  val_path: list.txt
  mode: train
  transforms: [{{type: RandomPaddingCrop, crop_size: [64, 64]}}, {{type: Normalize}}]
val_dataset:
  <<: *data
  mode: val
  transforms: [{{type: Normalize}}]
optimizer: {{type: SGD}}
lr_scheduler: {{type: PolynomialDecay, learning_rate: 0.01}}
loss:
  types: [{{type: CrossEntropyLoss}}]
"""


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """Data and config without a fault, and the run of one step made from them."""
    folder = tmp_path_factory.mktemp("sound")
    rng = np.random.default_rng(0)
    (folder / "data").mkdir()
    for i in range(2):
        image = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / "data" / f"{i}.png"), image)
        cv2.imwrite(str(folder / "data" / f"{i}_l.png"), image[..., 0] % 3)
    (folder / "data" / "list.txt").write_text("0.png 0_l.png\n1.png 1_l.png\n")
    (folder / "config.yml").write_text(CONFIG.format(root=folder / "data", workers=0))
    command = ["train", "--config", f"{folder}/config.yml", "--output", f"{folder}/run"]
    assert main([*command, "--set", "iters=1"]) == 0
    return folder


@pytest.fixture
def place(sound, tmp_path, monkeypatch):
    """A copy to spoil, as the current folder; the big files of the run are hard links."""
    shutil.copytree(sound / "data", tmp_path / "place" / "data")
    shutil.copytree(sound / "run", tmp_path / "place" / "run", copy_function=os.link)
    monkeypatch.chdir(tmp_path / "place")
    Path("config.yml").write_text(CONFIG.format(root="data", workers=0))
    return tmp_path / "place"


def signatures(folder):
    """What changes when a file is written or replaced, by path."""
    files = {path: path.stat() for path in folder.rglob("*") if path.is_file()}
    return {path: (s.st_ino, s.st_size, s.st_mtime_ns) for path, s in files.items()}


@pytest.fixture
def refused(place, capfd):
    """Run a command that must be refused; returns what it said."""

    def run(*arguments):
        before = signatures(place)
        capfd.readouterr()
        assert main([str(argument) for argument in arguments]) == 2
        said = capfd.readouterr().err
        after = signatures(place)
        touched = [path for path, signature in before.items() if after.get(path) != signature]
        assert [path for path in touched if path.name not in ("train.log", ".lock")] == []
        message = said[said.index(f"liteseg {arguments[0]}: ") :]
        assert "Traceback" not in said
        assert said.count("liteseg ") == 1
        assert "Error" not in said
        return message

    return run


def train(*more):
    return ("train", "--config", "config.yml", "--output", "new", *more)


def evaluate(*more):
    return ("eval", "--config", "config.yml", *more)


def test_the_sound_one_is_accepted(place, capfd):
    assert main(list(evaluate("--weights", "run"))) == 0
    assert "mIoU" in capfd.readouterr().out


def test_no_such_config(refused):
    said = refused("train", "--config", "configs/quikstart.yml", "--output", "new")
    assert "no config 'configs/quikstart.yml'" in said
    assert "did you mean" in said
    assert "quickstart.yml" in said


def test_a_config_that_is_no_yaml(refused):
    Path("config.yml").write_text("iters: 3\nmodel: {type: PPLiteSeg\n")
    said = refused(*train())
    assert "config.yml" in said


def test_no_such_keys_all_in_one_list(refused, place):
    text = Path("config.yml").read_text().replace("batch_size:", "bath_size:")
    Path("config.yml").write_text(text.replace("num_classes:", "num_clases:"))
    said = refused(*train())
    for expected in (
        "config.yml: ",
        "bath_size: is not a known key; did you mean 'batch_size'? (config.yml:2)",
        "batch_size: is missing",
        "train_dataset.num_clases",
        "'num_classes'",
    ):
        assert expected in said
    assert not (place / "new").exists()


def test_no_such_key_to_set(refused):
    assert "'iters'" in refused(*train("--set", "itres=3"))
    said = refused(*train("--set", "optimzer.momentum=0.9"))
    assert "--set optimzer.momentum=0.9" in said
    assert "did you mean 'optimizer'" in said


@pytest.mark.parametrize(
    ("key", "value", "near"),
    [
        ("model.type", "PPLightSeg", "PPLiteSeg"),
        ("model.backbone.type", "STDC3", "STDC"),
        ("train_dataset.type", "CityScapes", "Cityscapes"),
        ("train_dataset.transforms.0.type", "RandomPadingCrop", "RandomPaddingCrop"),
        ("loss.types.0.type", "CrossEntropy", "CrossEntropyLoss"),
    ],
)
def test_no_such_component(refused, key, value, near):
    said = refused(*train("--set", f"{key}={value}"))
    assert key in said
    assert f"'{value}'" in said
    assert near in said


def test_no_such_data_root(refused, place):
    said = refused(*train("--set", "train_dataset.dataset_root=/no/such/place"))
    assert "train_dataset" in said
    assert "/no/such/place does not exist" in said
    assert not (place / "new" / "checkpoints").exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["list.txt", "empty"]),
        ("0.png\n1.png\n", ["list.txt:1", "one column in '0.png'"]),
        ("0.png 0_l.png extra\n", ["list.txt:1", "3 columns"]),
        ("0.png,0_l.png\n", ["list.txt:1", "separator ','"]),
        ("0.png 0_l.png\n7.png 7_l.png\n", ["list.txt:2", "7.png", "do not exist"]),
    ],
)
def test_an_empty_or_malformed_list(refused, text, expected):
    Path("data/list.txt").write_text(text)
    said = refused(*train())
    for part in expected:
        assert part in said


def cut(path):
    data = path.read_bytes()
    path.unlink()  # the original may be linked here
    path.write_bytes(data[: len(data) // 2])


def no_image(path):
    path.write_text("<html>404</html>")


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("spoil", "word", "name", "workers"),
    [
        (cut, "truncated", "1.png", 0),
        (cut, "truncated", "1_l.png", 1),
        (no_image, "not an image", "1.png", 1),
        (empty, "empty", "1_l.png", 0),
    ],
)
def test_an_unreadable_image_or_label(refused, spoil, word, name, workers, monkeypatch):
    monkeypatch.setattr("liteseg.tasks.startup.probe", lambda **datasets: None)
    spoil(Path("data") / name)
    said = refused(*train("--set", f"num_workers={workers}"))
    assert f"data/{name}: " in said
    assert word in said


def test_a_bad_file_is_met_before_the_first_step(refused, place):
    no_image(Path("data/1.png"))
    assert "train_dataset: 1 of 2 samples tried" in refused(*train())
    assert not (place / "new/checkpoints").exists()


def test_an_unreadable_image_of_validation_loses_nothing(refused, place, monkeypatch):
    monkeypatch.setattr("liteseg.tasks.startup.probe", lambda **datasets: None)
    Path("data/val.txt").write_text("bad.png 0_l.png\n")
    no_image(Path("data/bad.png"))
    bad = ("--set", "val_dataset.val_path=val.txt")
    assert "data/bad.png" in refused(*evaluate("--weights", "run", *bad))
    assert "data/bad.png" in refused(*train(*bad))
    assert '"iteration": 2' in (place / "new/checkpoints/last/manifest.json").read_text()


def test_image_and_label_of_different_size(refused):
    cv2.imwrite("data/1_l.png", np.zeros((32, 48), np.uint8))
    for command in (train(), evaluate("--weights", "run")):
        said = refused(*command)
        assert "data/1_l.png: the label is 48x32" in said
        assert "data/1.png is 64x64" in said


def colours():
    return np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        (np.full((64, 64), 1, np.uint8) + np.eye(64, dtype=np.uint8) * 76, ["77 (64 pixels)"]),
        (colours(), ["color"]),
        (np.eye(64, dtype=np.uint8) * 3, ["3 (64 pixels)", "num_classes: 4"]),
        (np.eye(64, dtype=np.uint8) + 2, ["3 (64 pixels)", "counted from 1"]),
        (colours()[..., 0], ["JPEG"]),
        (np.full((64, 64), 255, np.uint8) * np.eye(64, dtype=np.uint8), None),
    ],
)
def test_label_values_outside_the_classes(refused, label, expected):
    cv2.imwrite("data/1_l.png", label)
    if expected is None:  # 0 and 255 are a class and the ignored pixels
        assert main(list(evaluate("--weights", "run"))) == 0
        return
    said = refused(*train())
    for part in ("data/1_l.png", *expected):
        assert part in said


def test_a_jpeg_label(refused):
    cv2.imwrite("data/1_l.jpg", np.zeros((64, 64), np.uint8))
    Path("data/list.txt").write_text("0.png 0_l.png\n1.png 1_l.jpg\n")
    said = refused(*train())
    assert "data/1_l.jpg: the label is a JPEG" in said
    assert "PNG" in said


WEIGHTS = "run/checkpoints/last/model.pdparams"


@pytest.mark.parametrize("command", [train, evaluate])
def test_weights_that_are_not_there(refused, command):
    assert "nowhere.pdparams does not exist" in refused(*command("--weights", "nowhere.pdparams"))


@pytest.mark.parametrize("command", [train, evaluate])
def test_weights_for_another_model(refused, command):
    said = refused(*command("--weights", WEIGHTS, "--set", "model.backbone.type=STDC2"))
    assert f"{WEIGHTS} does not fit PPLiteSeg" in said
    assert "missing from the file" in said
    assert "another network" in said


def test_weights_of_another_class_count(refused):
    count = ("--set", "train_dataset.num_classes=4", "--set", "val_dataset.num_classes=4")
    said = refused(*evaluate("--weights", WEIGHTS, *count))
    assert "[3, 64, 1, 1]" in said
    assert "[4, 64, 1, 1]" in said
    assert "set num_classes to 3" in said


def test_damaged_weights(refused):
    cut(Path(WEIGHTS))
    for command in (train, evaluate):
        assert WEIGHTS in refused(*command("--weights", WEIGHTS))


def test_evaluating_with_no_weights(refused):
    assert "--weights is missing" in refused(*evaluate())


def test_an_output_that_is_not_writable(refused):
    Path("file").write_text("x")  # the tests may run as root, who may write anywhere
    said = refused("train", "--config", "config.yml", "--output", "file/run")
    assert "cannot write in file/run" in said
    assert "choose another folder" in said


def test_an_output_that_holds_another_run(refused):
    said = refused("train", "--config", "config.yml", "--output", "run")
    assert "run already holds a run" in said
    assert "--resume" in said


def test_resuming_where_nothing_is(refused):
    assert "nowhere holds no run" in refused("train", "--resume", "nowhere")
    assert "--config is missing" in refused("train", "--output", "run")
    assert "differ" in refused("train", "--resume", "run", "--output", "other")


def test_resuming_from_damaged_checkpoints_only(refused):
    for path in Path("run/checkpoints").glob("*/model.pdparams"):
        cut(path)
    said = refused("train", "--resume", "run")
    assert "run/checkpoints/last/model.pdparams is damaged" in said
    assert "no checkpoint to resume from" in said


@pytest.mark.skipif(paddle.device.is_compiled_with_cuda(), reason="a build with GPU support")
@pytest.mark.parametrize("command", [train, evaluate])
def test_a_gpu_where_there_is_none(refused, command):
    said = refused(*command("--weights", "run", "--set", "device=gpu"))
    assert "device: 'gpu' was requested" in said
    assert "device: cpu" in said


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("total_batch_size=3", "total_batch_size: 3 is not a multiple"),
        ("iters=0", "iters: must be greater than 0, found 0"),
        ("batch_size=two", "batch_size"),
        ("loss.coef=[1, 2]", "2 entries for 3 heads"),
        ("val_dataset.num_classes=5", "numbers of classes differ"),
    ],
)
def test_values_that_cannot_be(refused, setting, expected):
    assert expected in refused(*train("--set", setting))


def test_no_number_of_devices(refused):
    assert "--devices: 0 is not a number" in refused(*train("--devices", "0"))


def test_crops_of_different_size(refused):
    cv2.imwrite("data/1.png", np.zeros((32, 64, 3), np.uint8))
    cv2.imwrite("data/1_l.png", np.zeros((32, 64), np.uint8))
    said = refused(*train("--set", "train_dataset.transforms=[{type: Normalize}]"))
    assert "(32, 64), (64, 64)" in said


def test_a_training_that_diverges_keeps_the_last_checkpoint(refused, place):
    enormous = ("--set", "lr_scheduler.learning_rate=1.0e+30", "--set", "iters=9")
    said = refused(*train(*enormous, "--set", "log_interval=1"))
    assert "not finite at iteration" in said
    assert "head0_CrossEntropyLoss" in said
    assert "data/0.png" in said
