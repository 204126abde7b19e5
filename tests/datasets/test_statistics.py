"""Statistics of images and labels, against numpy and a flood fill written here."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from liteseg.datasets import CamVid
from liteseg.datasets.statistics import Statistics, find_similar, measure

CLASSES = ("a", "b", "c")


def regions(mask):
    """Sizes of the 8-connected regions of a bool mask, by a flood fill."""
    left, sizes = {tuple(p) for p in np.argwhere(mask).tolist()}, []
    while left:
        stack, size = [left.pop()], 0
        while stack:
            y, x = stack.pop()
            size += 1
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            stack += near
        sizes.append(size)
    return sizes


@pytest.fixture
def samples():
    rng = np.random.default_rng(5)
    found = []
    for index in range(4):
        label = (rng.random((40, 50)) < 0.3).astype(np.uint8) * rng.integers(1, 3)
        label[rng.random((40, 50)) < 0.05] = 255
        label[: 3 + index] = 2
        found.append((rng.integers(0, 256, (40, 50, 3), dtype=np.uint8), label))
    return found


def gathered(samples):
    statistics = Statistics(CLASSES)
    for index, (image, label) in enumerate(samples):
        found = measure(image, label, len(CLASSES))
        statistics.add(found, index, f"{index}.jpg", f"{index}.png")
    return statistics


def test_colors_and_shares(samples):
    found = gathered(samples).compute()
    pixels = np.concatenate([image.reshape(-1, 3) for image, _ in samples]) / 255
    np.testing.assert_allclose(found["normalize"]["mean"], pixels.mean(axis=0), atol=1e-4)
    np.testing.assert_allclose(found["normalize"]["std"], pixels.std(axis=0), atol=1e-4)
    for number, name in enumerate(CLASSES):
        shares = [np.mean(label == number) for _, label in samples if (label == number).any()]
        assert found["typical_share"][name] == pytest.approx(np.median(shares), abs=1e-6)


def test_objects_by_size(samples):
    found = gathered(samples).compute()["objects"]
    for number, name in enumerate(CLASSES):
        shares = [size / 2000 for _, label in samples for size in regions(label == number)]
        bins = np.digitize(shares, (0.001, 0.01))
        assert list(found[name].values()) == np.bincount(bins, minlength=3).tolist()


def test_constant_files():
    plain, noise = np.full((20, 20, 3), 9, np.uint8), np.zeros((20, 20, 3), np.uint8)
    noise[3] = 200
    one, two = np.zeros((20, 20), np.uint8), np.eye(20, dtype=np.uint8)
    found = gathered([(plain, two), (noise, one), (noise, two)]).compute()
    assert found["constant_images"] == ["0.jpg"]
    assert found["constant_labels"] == ["1.png"]


def test_examples_go_from_the_largest_to_the_smallest_share(samples):
    examples = gathered(samples).examples()
    rows = [np.mean(label == 2) for _, label in samples]
    assert examples["c"][0] == int(np.argmax(rows))
    assert examples["c"][-1] == int(np.argmin(rows))
    assert len(examples["c"]) == 3


def test_no_label(samples):
    statistics = Statistics(CLASSES)
    statistics.add(measure(samples[0][0], None, 3), 0, "0.jpg", None)
    assert statistics.compute()["typical_share"] == dict.fromkeys(CLASSES)
    assert statistics.examples() == {"a": [], "b": [], "c": []}


def changed(image):
    """Copies that a person would call the same image."""
    encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 70])[1]
    yield cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    yield cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    yield cv2.convertScaleAbs(image, alpha=1.05, beta=5)


def test_copies_are_found_and_other_frames_are_not(shared_data):
    """Neighboring frames of one drive in CamVid are not called copies across the splits."""
    val = CamVid([], str(shared_data / "camvid"), "val")
    train = CamVid([], str(shared_data / "camvid"), "train")
    splits = {"train": Statistics(val.classes), "val": Statistics(val.classes)}
    for dataset, name, step in ((train, "train", 25), (val, "val", 20)):
        for index in range(0, len(dataset), step):
            image = dataset.load(index)["img"]
            splits[name].add(measure(image, None, 11), index, f"{index}.png", None)
    assert find_similar(splits) == []
    copies = Statistics(val.classes)
    for index in range(0, len(val), 20):
        for kind, image in enumerate(changed(val.load(index)["img"])):
            copies.add(measure(image, None, 11), index, f"{index}-{kind}.png", None)
    pairs = find_similar({"val": splits["val"], "test": copies})
    assert {tuple(pair) for pair in pairs} == {
        (f"val: {index}.png", f"test: {index}-{kind}.png")
        for index in range(0, len(val), 20)
        for kind in range(3)
    }
