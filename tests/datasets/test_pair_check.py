"""Crossed pairs are found by name, without false alarms."""

from __future__ import annotations

from pathlib import Path

import pytest

from liteseg.datasets import CamVid, Cityscapes, Sample
from liteseg.datasets.pair_check import check_pairs, crossed_pairs


def samples(images, labels):
    return [Sample(Path(a), b and Path(b), a) for a, b in zip(images, labels)]


def numbers(pattern, first, last):
    return [pattern.format(i) for i in range(first, last)]


@pytest.mark.parametrize(
    ("images", "labels", "crossed"),
    [
        (numbers("i/{}.png", 0, 20), numbers("l/{}.png", 0, 20), 0),
        (numbers("i/{}.png", 10, 20), numbers("l/{}_mask.png", 10, 20), 0),
        (numbers("i/frame_{:04}.jpg", 0, 20), numbers("l/{:04}.png", 0, 20), 0),
        (numbers("{}_leftImg8bit.png", 0, 9), numbers("{}_gtFine_labelIds.png", 0, 9), 0),
        # two sorted lists zipped, one of which lacks a file: the last label has no image
        (numbers("i/{}.png", 10, 20), numbers("l/{}.png", 11, 21), 9),
        (numbers("i/{}_x.png", 0, 5), reversed(numbers("l/m_{}.png", 0, 5)), 4),
        # folders distinguish files of the same name
        (["i/a/1.png", "i/b/1.png"], ["l/a/1.png", "l/b/1.png"], 0),
        (["i/a/1.png", "i/b/1.png"], ["l/b/1.png", "l/a/1.png"], 2),
        # but not if images and labels have folders of their own
        (["x/a.png", "y/b.png"], ["z/a.png", "w/b.png"], 0),
        (["x/a.png", "y/b.png"], ["z/b.png", "w/a.png"], 2),
        # names without any relation are accepted
        (["i/cat.png", "i/dog.png"], ["l/uno.png", "l/due.png"], 0),
        (["i/1.png"], ["l/2.png"], 0),
        (["i/1.png", "i/2.png"], [None, "l/1.png"], 0),
        ([], [], 0),
    ],
)
def test_labels_of_other_images(images, labels, crossed):
    assert len(crossed_pairs(samples(images, labels))) == crossed


def test_warnings():
    assert check_pairs(samples(["1.png", "2.png"], ["l/1.png", "l/2.png"])) == []
    (crossed,) = check_pairs(samples(["1.png", "2.png"], ["l/2.png", "l/1.png"]))
    assert crossed.startswith("2 labels have the name of another image")
    assert "1.png with l/2.png" in crossed
    (repeated,) = check_pairs(samples(["1.png", "1.png"], ["l/1.png", "l/1.png"]))
    assert repeated.startswith("1 images are listed more than once: 1.png")
    (shared,) = check_pairs(samples(["a.png", "b.png"], ["l.png", "l.png"]))
    assert shared == "1 labels belong to several images: l.png"


def test_real_datasets_have_no_warnings(shared_data):
    for mode in ("train", "val"):
        assert check_pairs(CamVid([], str(shared_data / "camvid"), mode).samples) == []
        assert check_pairs(Cityscapes([], str(shared_data / "cityscapes"), mode).samples) == []
