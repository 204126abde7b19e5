"""Evaluation of a toy network, against a loop written by hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import cv2
import golden_rule
import numpy as np
import paddle
import pytest
from toy_training import ToyImages, ToyNet, make_trainer

from liteseg.config.test_config import TestConfig
from liteseg.engine.evaluator import Evaluator, evaluate
from liteseg.engine.loader import GuardedDataset, guarded, raise_if_error
from liteseg.errors import UserError
from liteseg.metrics import ConfusionMatrix, nothing_counted

Sample = namedtuple("Sample", "image label name")


class Normalize:
    def planes(self, images):
        return images.astype("float32") / 127.5 - 1


class Halve:
    """The validation transforms of the toy dataset: half the size."""

    normalize = Normalize()

    def __call__(self, sample, rng=None):
        h, w = sample["img"].shape[:2]
        sample["trans_info"].append(("resize", (h, w)))
        if "label" in sample:  # as transforms do; evaluation must not pass them the label
            sample["label"] = sample["label"][::2, ::2]
        sample["img"] = cv2.resize(sample["img"], (w // 2, h // 2))
        return sample


class ToyData(paddle.io.Dataset):
    classes = ("road", "car", "sky", "bus")
    num_classes = 4
    ignore_index = 255
    transforms = Halve()
    sizes = ((24, 32), (24, 32), (20, 30), (24, 32), (20, 30))

    def __init__(self, broken=None):
        self.broken = broken
        self.samples = [Sample(f"{i}.png", f"{i}_label.png", str(i)) for i in range(5)]

    def __len__(self):
        return 5

    def load(self, index):
        if index == self.broken:
            raise UserError(f"{index}.png: the file is truncated")
        rng = np.random.default_rng(index)
        shape = self.sizes[index]
        label = rng.integers(0, 3, shape, dtype=np.uint8)
        label[rng.uniform(size=shape) < 0.1] = 255
        img = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
        return {"img": img, "label": label, "trans_info": []}


class Toy(paddle.nn.Layer):
    def __init__(self, classes=4):
        super().__init__()
        self.conv = paddle.nn.Conv2D(3, classes, 3, padding=1)
        self.norm = paddle.nn.BatchNorm2D(classes)
        golden_rule.fill(self)

    def forward(self, images):
        logits = self.norm(self.conv(images))
        return [logits, logits] if self.training else [logits]


def mean_score(logits, label):
    assert logits.shape[0] == label.shape[0]
    assert logits.shape[2:] == label.shape[1:]
    assert label.dtype == paddle.int64
    return logits.mean()


def by_hand(model, data):
    model.eval()
    matrix, scores = ConfusionMatrix(4, class_names=data.classes), []
    for i in range(len(data)):
        sample = data.load(i)
        h, w = sample["label"].shape
        small = cv2.resize(sample["img"], (w // 2, h // 2))
        image = paddle.to_tensor(small[None].transpose(0, 3, 1, 2).astype("float32") / 127.5 - 1)
        logits = paddle.nn.functional.interpolate(model(image)[0], [h, w], mode="bilinear")
        matrix.update(logits.numpy()[0].argmax(0), sample["label"])
        scores.append(float(logits.mean()))
    return matrix.compute(), float(np.mean(scores))


@pytest.mark.parametrize(("batch_size", "num_workers"), [(1, 0), (3, 0), (2, 2)])
def test_metrics_do_not_depend_on_batches_and_workers(batch_size, num_workers):
    model, data = Toy(), ToyData()
    expected, score = by_hand(model, data)
    found = evaluate(
        model,
        data,
        TestConfig(),
        batch_size=batch_size,
        num_workers=num_workers,
        losses=[("main", mean_score, 0.5)],
        progress=False,
    )
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, abs=1e-6), key
    assert found["images"] == 5
    assert found["losses"]["main"] == pytest.approx(score, abs=1e-5)
    assert found["loss"] == pytest.approx(score / 2, abs=1e-5)
    assert set(found["timings"]) >= {"data", "network", "counting"}
    json.dumps(found)


class Collect(Evaluator):
    """Everything that an evaluator receives."""

    def reset(self):
        self.state = []

    def update(self, index, sample, prediction):
        self.state.append((index, sample, prediction))

    def compute(self, states):
        return {"collected": sum(map(len, states))}


def test_an_evaluator_receives_every_image_once():
    model, data, collect = Toy(), ToyData(), Collect()
    results = evaluate(model, data, TestConfig(), [collect], batch_size=5, progress=False)
    assert sorted(index for index, _, _ in collect.state) == [0, 1, 2, 3, 4]
    for index, sample, prediction in collect.state:
        assert sample["label"].shape == prediction.shape == data.sizes[index]
        np.testing.assert_array_equal(sample["label"], data.load(index)["label"])
        np.testing.assert_array_equal(sample["img"], data.transforms(data.load(index))["img"])
        assert sample["img"].flags.c_contiguous
        assert prediction.dtype == np.uint8
    assert results["collected"] == 5


def test_modes_are_restored():
    model = Toy()
    model.train()
    model.norm.eval()  # frozen
    evaluate(model, ToyData(), TestConfig(), progress=False)
    assert model.training
    assert model.conv.training
    assert not model.norm.training


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_broken_file_is_the_same_error_with_and_without_workers(num_workers, capfd):
    model = Toy()
    model.train()
    with pytest.raises(UserError, match=r"^3\.png: the file is truncated$"):
        evaluate(model, ToyData(3), TestConfig(), num_workers=num_workers, progress=False)
    assert model.training
    assert "Traceback" not in capfd.readouterr().err


def test_the_file_with_a_bad_label_is_named():
    data = ToyData()
    load = data.load
    data.load = lambda i: {**load(i), "label": np.full(data.sizes[i], 7 if i == 2 else 0, "uint8")}
    with pytest.raises(UserError, match=r"2_label\.png: label holds 7"):
        evaluate(Toy(), data, TestConfig(), batch_size=5, progress=False)


def test_a_missing_label_is_an_error():
    data = ToyData()
    data.load = lambda i: {"img": np.zeros((8, 8, 3), np.uint8), "trans_info": []}
    with pytest.raises(UserError, match=r"0\.png: has no label"):
        evaluate(Toy(), data, TestConfig(), progress=False)


def test_images_without_label_are_predicted_but_not_counted():
    data, collect = ToyData(), Collect()
    load = data.load
    data.load = lambda i: {k: v for k, v in load(i).items() if k != "label" or i == 1}

    options = {"batch_size": 5, "progress": False, "require_labels": False}
    found = evaluate(Toy(), data, TestConfig(), [collect], **options)
    assert sorted(index for index, _, _ in collect.state) == [0, 1, 2, 3, 4]
    assert all(("label" in sample) == (index == 1) for index, sample, _ in collect.state)
    assert found["images"] == 1


def test_another_number_of_classes_is_an_error():
    with pytest.raises(UserError, match="predicts 5 classes, the dataset has 4"):
        evaluate(Toy(5), ToyData(), TestConfig(), progress=False)


def test_guard_passes_on_samples_and_unexpected_errors():
    data = GuardedDataset([1, 2, 3])
    assert len(data) == 3
    assert raise_if_error(guarded(sum)([data[0], data[2]])) == 4
    with pytest.raises(RuntimeError, match=r"Traceback(.|\n)*IndexError: list index"):
        raise_if_error(guarded(sum)([data[0], data[9]]))


SHARE = """
import sys
sys.path[:0] = {paths!r}
import liteseg, paddle, json
from test_evaluator import *
paddle.distributed.init_parallel_env()
losses = [("a", mean_score, 1.0)]
found = evaluate(Toy(), ToyData(), TestConfig(), [Collect()], losses=losses, progress=False)
keys = ("miou", "loss", "images", "collected")
print("RESULT", json.dumps([found[key] for key in keys]), flush=True)
"""


def test_two_processes_share_the_images(tmp_path):
    script = tmp_path / "share.py"
    here = Path(__file__).resolve().parent
    script.write_text(SHARE.format(paths=[str(here), str(here.parent), str(here.parents[1])]))
    command = [sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node", "2"]
    command += ["--log_dir", str(tmp_path / "log"), "--backend", "gloo", str(script)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PADDLE")}
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=120)
    expected, score = by_hand(Toy(), ToyData())
    logs = [path.read_text() for path in sorted((tmp_path / "log").glob("workerlog.*"))]
    lines = [line for log in logs for line in log.splitlines() if line.startswith("RESULT")]
    assert len(lines) == 2
    for line in lines:
        miou, loss, images, collected = json.loads(line.split(" ", 1)[1])
        assert miou == pytest.approx(expected["miou"])
        assert loss == pytest.approx(score, abs=1e-5)
        assert images == collected == 5


def test_labels_that_are_ignored_entirely():
    dataset = ToyImages(2)
    assert nothing_counted(evaluate(ToyNet(), dataset, TestConfig()), dataset) is None
    load = dataset.load
    dataset.load = lambda index: {**load(index), "label": np.full((32, 32), 255, np.uint8)}
    metrics = evaluate(ToyNet(), dataset, TestConfig(), limit=1)
    assert metrics["images"] == 1
    assert nothing_counted(metrics, dataset).startswith("all pixels of all 1 labels are ignored")


def test_transforms_without_normalize():
    dataset = ToyImages(2)
    dataset.transforms.normalize = None
    with pytest.raises(UserError, match="must end in Normalize"):
        evaluate(ToyNet(), dataset, TestConfig())
    with pytest.raises(UserError, match="must end in Normalize"):
        make_trainer(dataset=dataset)
