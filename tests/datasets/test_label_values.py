"""Pixel counts of the classes, and class weights of real counts."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from liteseg.datasets import CamVid, Dataset, class_weights, count_label_pixels
from liteseg.errors import UserError


@pytest.fixture
def labels():
    values = np.array([0, 1, 2, 3, 255], np.uint8)
    return np.random.default_rng(0).choice(values, (5, 9, 11), p=[0.6, 0.2, 0.05, 0.05, 0.1])


@pytest.fixture
def dataset(tmp_path, labels):
    lines = []
    for i, label in enumerate(labels):
        cv2.imwrite(str(tmp_path / f"l{i}.png"), label)
        cv2.imwrite(str(tmp_path / f"i{i}.png"), np.zeros((9, 11, 3), np.uint8))
        lines.append(f"i{i}.png l{i}.png")
    (tmp_path / "train.txt").write_text("\n".join(lines))
    return Dataset("train", str(tmp_path), [], 4, train_path="train.txt")


@pytest.mark.parametrize("workers", [None, 1, 3])
def test_counts(dataset, labels, workers):
    counts = count_label_pixels(dataset, workers, progress=False)
    assert counts.dtype == np.int64
    assert counts.tolist() == [int((labels == value).sum()) for value in range(4)]


def test_ignored_class_is_not_counted(dataset, labels):
    labels[labels == 255] = 0
    for i, label in enumerate(labels):
        cv2.imwrite(str(dataset.samples[i].label), label)
    dataset.ignore_index = 1
    expected = [(labels == 0).sum(), 0, (labels == 2).sum(), (labels == 3).sum()]
    assert count_label_pixels(dataset, progress=False).tolist() == expected


def test_bad_label_is_an_error(dataset):
    cv2.imwrite(str(dataset.samples[3].label), np.full((9, 11), 99, np.uint8))
    with pytest.raises(UserError, match=r"l3\.png: label value 99"):
        count_label_pixels(dataset, progress=False)


def test_images_without_label_are_skipped(dataset, labels):
    dataset.samples = list(dataset.samples)
    dataset.samples[0] = dataset.samples[0]._replace(label=None)
    counts = count_label_pixels(dataset, progress=False)
    assert counts.sum() == (labels[1:] != 255).sum()


def test_real_counts(shared_data):
    """Road, building and sky lead in CamVid; poles and bicyclists are rare."""
    counts = count_label_pixels(CamVid([], str(shared_data / "camvid"), "val"), progress=False)
    share = dict(zip(CamVid([], str(shared_data / "camvid"), "val").classes, counts / counts.sum()))
    assert share["Road"] > 0.2
    assert share["Pole"] < 0.03
    weights = class_weights(counts)
    assert weights[2] > 3 * weights[3]
