"""The order of the training data, against the stream written by hand."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from toy_training import ToyImages

from liteseg.datasets import Dataset
from liteseg.engine.loader import TrainingOrder, training_batches
from liteseg.errors import UserError
from liteseg.transforms import Normalize


@pytest.fixture
def as_process(monkeypatch):
    def become(rank, world_size):
        monkeypatch.setenv("PADDLE_TRAINER_ID", str(rank))
        monkeypatch.setenv("PADDLE_TRAINERS_NUM", str(world_size))

    return become


def stream(order):
    return [pair for batch in order for pair in batch]


@pytest.mark.parametrize("length", [7, 8, 1])
def test_each_epoch_is_a_permutation(length):
    found = stream(TrainingOrder(length, batch_size=4, accumulate=1, seed=3, start=0, stop=14))
    assert [position for _, position in found] == list(range(56))
    epochs = np.array([index for index, _ in found])[: 56 // length * length].reshape(-1, length)
    for epoch in epochs:
        assert sorted(epoch) == list(range(length))
    if length > 1:
        assert len({tuple(epoch) for epoch in epochs}) > 1  # shuffled again


def test_the_seed_decides():
    orders = [stream(TrainingOrder(50, 5, 1, seed, 0, 10)) for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]


@pytest.mark.parametrize(("devices", "accumulate", "batch"), [(1, 2, 4), (2, 1, 4), (2, 2, 2)])
def test_devices_and_accumulation_share_the_same_iterations(as_process, devices, accumulate, batch):
    expected = list(TrainingOrder(11, 8, 1, 0, 0, 6))
    iterations = [[] for _ in expected]
    for rank in range(devices):
        as_process(rank, devices)
        order = TrainingOrder(11, batch, accumulate, 0, 0, 6)
        found = list(order)
        assert len(found) == len(order) == 6 * accumulate
        for place, part in enumerate(found):
            iterations[place // accumulate] += part
    assert [sorted(pairs, key=lambda pair: pair[1]) for pairs in iterations] == expected


def test_a_start_skips_and_repeats_nothing():
    whole = list(TrainingOrder(5, 3, 2, 9, 0, 8))
    assert whole[:6] + list(TrainingOrder(5, 3, 2, 9, 3, 8)) == whole
    assert len(TrainingOrder(5, 3, 2, 9, 3, 8)) == 10
    assert list(TrainingOrder(5, 3, 2, 9, 8, 8)) == []


def test_workers_change_nothing():
    def batches(workers):
        order = TrainingOrder(8, 3, 1, 0, 2, 6)
        return list(training_batches(ToyImages(), order, workers))

    for alone, helped in zip(batches(0), batches(2)):
        for key in ("img", "label", "index"):
            np.testing.assert_array_equal(alone[key].numpy(), helped[key].numpy())


def test_contents_of_a_batch():
    dataset = ToyImages()
    order = TrainingOrder(8, 3, 1, 0, 0, 1)
    (batch,) = training_batches(dataset, order, 0)
    assert batch["img"].shape == [3, 3, 32, 32]
    assert str(batch["img"].dtype).endswith("uint8")
    for place, key in enumerate(next(iter(order))):
        expected = dataset[key]
        assert int(batch["index"][place]) == key[0] == expected["index"]
        planes = batch["img"][place].numpy()
        np.testing.assert_array_equal(planes.transpose(1, 2, 0), expected["img"])
        np.testing.assert_array_equal(batch["label"][place].numpy(), expected["label"])


class TwoSizes(ToyImages):
    def load(self, index):
        sample = super().load(index)
        cut = 16 if index == 1 else 32
        return {key: value[:cut] for key, value in sample.items()}


class NoLabel(ToyImages):
    def load(self, index):
        return {"img": super().load(index)["img"]}


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(("kind", "found"), [(TwoSizes, "(16, 32), (32, 32)"), (NoLabel, "label")])
def test_batches_that_cannot_be_made(kind, found, workers):
    with pytest.raises(UserError) as error:
        list(training_batches(kind(2), TrainingOrder(2, 2, 1, 0, 0, 1), workers))
    assert found in str(error.value)
    assert "RandomPaddingCrop" in str(error.value)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_cannot_be_read(tmp_path, workers):
    image = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), image)
    cv2.imwrite(str(tmp_path / "l.png"), image[..., 0] % 2)
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:1000])
    (tmp_path / "list.txt").write_text("a.png l.png\n")
    dataset = Dataset("train", tmp_path, [Normalize()], num_classes=2, train_path="list.txt")
    with pytest.raises(UserError, match=r"a\.png"):
        list(training_batches(dataset, TrainingOrder(1, 1, 1, 0, 0, 2), workers))
