"""Bad input of every kind, end to end: exit code 2, one message that names it, nothing lost."""

from __future__ import annotations

import os
import re
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
    """Valid data, a config, and their run of one iteration."""
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
    """A copy to damage, as the current folder; the files of the run are hard links."""
    shutil.copytree(sound / "data", tmp_path / "place" / "data")
    shutil.copytree(sound / "run", tmp_path / "place" / "run", copy_function=os.link)
    monkeypatch.chdir(tmp_path / "place")
    Path("config.yml").write_text(CONFIG.format(root="data", workers=0))
    return tmp_path / "place"


def signatures(folder):
    """Properties that change when a file is written or replaced, by path."""
    files = {path: path.stat() for path in folder.rglob("*") if path.is_file()}
    return {path: (s.st_ino, s.st_size, s.st_mtime_ns) for path, s in files.items()}


@pytest.fixture
def refused(place, capfd):
    """Run a command that must be refused; returns its message."""

    def run(*arguments):
        before = signatures(place)
        capfd.readouterr()
        assert main([str(argument) for argument in arguments]) == 2
        error = capfd.readouterr().err
        after = signatures(place)
        touched = [path for path, signature in before.items() if after.get(path) != signature]
        assert [path for path in touched if path.name not in ("train.log", ".lock")] == []
        message = error[error.index(f"liteseg {arguments[0]}: ") :]
        assert "Traceback" not in error
        assert len(re.findall(r"liteseg \w+: ", error)) == 1
        assert "Error" not in error
        return message

    return run


def train(*more):
    return ("train", "--config", "config.yml", "--output", "new", *more)


def evaluate(*more):
    return ("eval", "--config", "config.yml", *more)


def test_valid_input_is_accepted(place, capfd):
    assert main(list(evaluate("--weights", "run"))) == 0
    assert "mIoU" in capfd.readouterr().out


def test_missing_config(refused):
    error = refused("train", "--config", "configs/quikstart.yml", "--output", "new")
    assert "no config 'configs/quikstart.yml'" in error
    assert "did you mean" in error
    assert "quickstart.yml" in error


def test_invalid_yaml(refused):
    Path("config.yml").write_text("iters: 3\nmodel: {type: PPLiteSeg\n")
    error = refused(*train())
    assert "config.yml" in error


def test_unknown_and_missing_keys_are_listed_together(refused, place):
    text = Path("config.yml").read_text().replace("batch_size:", "bath_size:")
    Path("config.yml").write_text(text.replace("num_classes:", "num_clases:"))
    error = refused(*train())
    for expected in (
        "config.yml: ",
        "bath_size: is not a known key; did you mean 'batch_size'? (config.yml:2)",
        "batch_size: is missing",
        "train_dataset.num_clases",
        "'num_classes'",
    ):
        assert expected in error
    assert not (place / "new").exists()


def test_unknown_key_in_an_override(refused):
    assert "'iters'" in refused(*train("--set", "itres=3"))
    error = refused(*train("--set", "optimzer.momentum=0.9"))
    assert "--set optimzer.momentum=0.9" in error
    assert "did you mean 'optimizer'" in error


@pytest.mark.parametrize(
    ("key", "value", "suggestion"),
    [
        ("model.type", "PPLightSeg", "PPLiteSeg"),
        ("model.backbone.type", "STDC3", "STDC"),
        ("train_dataset.type", "CityScapes", "Cityscapes"),
        ("train_dataset.transforms.0.type", "RandomPadingCrop", "RandomPaddingCrop"),
        ("loss.types.0.type", "CrossEntropy", "CrossEntropyLoss"),
    ],
)
def test_unknown_component(refused, key, value, suggestion):
    error = refused(*train("--set", f"{key}={value}"))
    assert key in error
    assert f"'{value}'" in error
    assert suggestion in error


def test_missing_data_root(refused, place):
    error = refused(*train("--set", "train_dataset.dataset_root=/no/such/place"))
    assert "train_dataset" in error
    assert "/no/such/place does not exist" in error
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
def test_empty_or_malformed_list(refused, text, expected):
    Path("data/list.txt").write_text(text)
    error = refused(*train())
    for part in expected:
        assert part in error


def cut(path):
    data = path.read_bytes()
    path.unlink()  # it may be a hard link of the original
    path.write_bytes(data[: len(data) // 2])


def not_an_image(path):
    path.write_text("<html>404</html>")


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("damage", "word", "name", "workers"),
    [
        (cut, "truncated", "1.png", 0),
        (cut, "truncated", "1_l.png", 1),
        (not_an_image, "not an image", "1.png", 1),
        (empty, "empty", "1_l.png", 0),
    ],
)
def test_unreadable_image_or_label(refused, damage, word, name, workers, monkeypatch):
    monkeypatch.setattr("liteseg.tasks.train.check_samples", lambda *_, **datasets: None)
    damage(Path("data") / name)
    error = refused(*train("--set", f"num_workers={workers}"))
    assert f"data/{name}: " in error
    assert word in error


def test_bad_file_is_found_before_the_first_iteration(refused, place):
    not_an_image(Path("data/1.png"))
    assert "train_dataset: 1 of 2 samples tried" in refused(*train())
    assert not (place / "new/checkpoints").exists()


def test_unreadable_validation_image_loses_nothing(refused, place, monkeypatch):
    monkeypatch.setattr("liteseg.tasks.train.check_samples", lambda *_, **datasets: None)
    Path("data/val.txt").write_text("0.png 0_l.png\nbad.png 0_l.png\n")  # the first is tried
    not_an_image(Path("data/bad.png"))
    bad = ("--set", "val_dataset.val_path=val.txt")
    assert "data/bad.png" in refused(*evaluate("--weights", "run", *bad))
    assert "data/bad.png" in refused(*train(*bad, "--set", "eval_interval=2"))
    assert '"iteration": 2' in (place / "new/checkpoints/last/manifest.json").read_text()


def test_image_and_label_of_different_size(refused):
    cv2.imwrite("data/1_l.png", np.zeros((32, 48), np.uint8))
    for command in (train(), evaluate("--weights", "run")):
        error = refused(*command)
        assert "data/1_l.png: the label is 48x32" in error
        assert "data/1.png is 64x64" in error


def colors():
    return np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        (np.full((64, 64), 1, np.uint8) + np.eye(64, dtype=np.uint8) * 76, ["77 (64 pixels)"]),
        (colors(), ["color"]),
        (np.eye(64, dtype=np.uint8) * 3, ["3 (64 pixels)", "num_classes: 4"]),
        (np.eye(64, dtype=np.uint8) + 2, ["3 (64 pixels)", "counted from 1"]),
        (colors()[..., 0], ["JPEG"]),
        (np.full((64, 64), 255, np.uint8) * np.eye(64, dtype=np.uint8), None),
    ],
)
def test_label_values_outside_the_classes(refused, label, expected):
    cv2.imwrite("data/1_l.png", label)
    if expected is None:  # 0 and 255 are a class and the ignored pixels
        assert main(list(evaluate("--weights", "run"))) == 0
        return
    error = refused(*train())
    for part in ("data/1_l.png", *expected):
        assert part in error


def test_jpeg_label(refused):
    cv2.imwrite("data/1_l.jpg", np.zeros((64, 64), np.uint8))
    Path("data/list.txt").write_text("0.png 0_l.png\n1.png 1_l.jpg\n")
    error = refused(*train())
    assert "data/1_l.jpg: the label is a JPEG" in error
    assert "PNG" in error


WEIGHTS = "run/checkpoints/last/model.pdparams"


@pytest.mark.parametrize("command", [train, evaluate])
def test_missing_weights(refused, command):
    assert "nowhere.pdparams does not exist" in refused(*command("--weights", "nowhere.pdparams"))


@pytest.mark.parametrize("command", [train, evaluate])
def test_weights_for_another_model(refused, command):
    error = refused(*command("--weights", WEIGHTS, "--set", "model.backbone.type=STDC2"))
    assert f"{WEIGHTS} does not fit PPLiteSeg" in error
    assert "missing from the file" in error
    assert "another network" in error


def test_weights_for_another_number_of_classes(refused):
    count = ("--set", "train_dataset.num_classes=4", "--set", "val_dataset.num_classes=4")
    error = refused(*evaluate("--weights", WEIGHTS, *count))
    assert "[3, 64, 1, 1]" in error
    assert "[4, 64, 1, 1]" in error
    assert "set num_classes to 3" in error


def test_damaged_weights(refused):
    cut(Path(WEIGHTS))
    for command in (train, evaluate):
        assert WEIGHTS in refused(*command("--weights", WEIGHTS))


def test_evaluation_without_weights(refused):
    assert "--weights is missing" in refused(*evaluate())


def test_output_that_is_not_writable(refused):
    Path("file").write_text("x")  # root could write in any folder
    error = refused("train", "--config", "config.yml", "--output", "file/run")
    assert "cannot write in file/run" in error
    assert "choose another folder" in error


def test_output_that_holds_another_run(refused):
    error = refused("train", "--config", "config.yml", "--output", "run")
    assert "run already contains a run" in error
    assert "--resume" in error


def test_resuming_without_a_run(refused):
    assert "nowhere contains no run" in refused("train", "--resume", "nowhere")
    assert "--config is missing" in refused("train", "--output", "run")
    assert "differ" in refused("train", "--resume", "run", "--output", "other")


def test_resuming_from_damaged_checkpoints_only(refused):
    for path in Path("run/checkpoints").glob("*/model.pdparams"):
        cut(path)
    error = refused("train", "--resume", "run")
    assert "run/checkpoints/last/model.pdparams is damaged" in error
    assert "no checkpoint to resume from" in error


@pytest.mark.skipif(paddle.device.is_compiled_with_cuda(), reason="a build with GPU support")
@pytest.mark.parametrize("command", [train, evaluate])
def test_gpu_without_gpu_support(refused, command):
    error = refused(*command("--weights", "run", "--set", "device=gpu"))
    assert "device: 'gpu' was requested" in error
    assert "device: cpu" in error


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
def test_impossible_values(refused, setting, expected):
    assert expected in refused(*train("--set", setting))


def test_zero_devices(refused):
    assert "--devices: 0 is not a number" in refused(*train("--devices", "0"))


def test_samples_of_different_size(refused):
    cv2.imwrite("data/1.png", np.zeros((32, 64, 3), np.uint8))
    cv2.imwrite("data/1_l.png", np.zeros((32, 64), np.uint8))
    error = refused(*train("--set", "train_dataset.transforms=[{type: Normalize}]"))
    assert "images of different sizes (64x32, 64x64)" in error


def test_diverged_training_keeps_the_last_checkpoint(refused, place):
    diverging = ("--set", "lr_scheduler.learning_rate=1.0e+30", "--set", "iters=9")
    error = refused(*train(*diverging, "--set", "log_interval=1"))
    assert "not finite at iteration" in error
    assert "head0_CrossEntropyLoss" in error
    assert "data/0.png" in error
