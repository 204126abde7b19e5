"""The images of an evaluation that are kept, and their content."""

from __future__ import annotations

import numpy as np
import pytest
from toy_training import ToyImages

from liteseg.report.gallery import Gallery
from liteseg.report.visualize import CORRECT, IGNORED, WRONG, overlay


def predict(gallery, wrong_rows, indices=None):
    """Add predictions whose first rows are wrong; the list has the number for each sample."""
    for index in range(len(wrong_rows)) if indices is None else indices:
        sample, rows = gallery.dataset.load(index), wrong_rows[index]
        pred = sample["label"].copy()
        pred[:rows] = (pred[:rows] + 1) % 3
        gallery.update(index, sample, pred)


def test_the_worst_and_the_best_of_any_order():
    rng = np.random.default_rng(0)
    for _ in range(20):
        rows = rng.permutation(12)
        gallery = Gallery(ToyImages(12), 3)
        predict(gallery, rows)
        # More wrong rows need not mean a smaller mIoU: rank by the mIoU in a gallery of all.
        every = Gallery(ToyImages(12), 12)
        predict(every, rows)
        order = sorted(every.worst, key=lambda image: image.miou)
        assert [p.name for p in gallery.worst] == [p.name for p in order[:3]]
        assert [p.name for p in gallery.best] == [p.name for p in order[::-1][:3]]


def test_no_image_is_both_worst_and_best():
    gallery = Gallery(ToyImages(5), 4)
    predict(gallery, [5, 4, 3, 2, 0])
    names = [image.name for image in gallery.worst + gallery.best]
    assert sorted(names) == [f"image_{i}" for i in range(5)]
    assert gallery.best[0].miou == 1.0


def test_fixed_samples_are_spread_over_the_dataset():
    gallery = Gallery(ToyImages(9), 3)
    predict(gallery, [0] * 9)
    assert [image.name for image in gallery.fixed] == ["image_0", "image_4", "image_8"]
    gallery.reset()
    assert gallery.fixed == gallery.worst == gallery.best == []


@pytest.mark.parametrize("processes", [1, 2, 3, 5])
@pytest.mark.parametrize("count", [0, 1, 2, 4])
def test_shares_of_processes_make_the_gallery_of_one(processes, count):
    rows = np.random.default_rng(0).permutation(12)
    alone = Gallery(ToyImages(12), count)
    predict(alone, rows)
    galleries = [Gallery(ToyImages(12), count) for _ in range(processes)]
    for process, gallery in enumerate(galleries):
        predict(gallery, rows, range(process, 12, processes))
    assert galleries[0].compute([gallery.state for gallery in galleries]) == {}
    for kind in ("fixed", "worst", "best"):
        found, expected = getattr(galleries[0], kind), getattr(alone, kind)
        assert [(p.name, p.miou) for p in found] == [(p.name, p.miou) for p in expected]
        assert len(found) == count


def test_the_tiles():
    gallery = Gallery(ToyImages(1), 1)
    sample = gallery.dataset.load(0)
    pred = sample["label"].copy()
    pred[0] = (pred[0] + 1) % 3
    sample["label"][1] = 255
    gallery.update(0, sample, pred)
    (shown,) = gallery.fixed
    image, label, prediction, errors = shown.tiles.values()
    np.testing.assert_array_equal(image, sample["img"])
    # Label and prediction have the same colors where they agree.
    drawn = overlay(image, sample["label"], gallery.dataset.palette)
    np.testing.assert_array_equal(label, drawn)
    np.testing.assert_array_equal(label[2:], prediction[2:])
    np.testing.assert_array_equal(label[1], image[1])  # ignored
    assert (errors[0] == WRONG).all()
    assert (errors[1] == IGNORED).all()
    assert (errors[2:] == CORRECT).all()
    panel = shown.panel()
    assert panel.shape[1] >= 4 * 32
    np.testing.assert_array_equal(panel[-32:, :32], image)
    assert (panel[:-32] < 128).any()  # the caption


def test_large_images_are_reduced():
    class Large(ToyImages):
        def load(self, index):
            sample = super().load(index)
            return {key: value.repeat(64, axis=1) for key, value in sample.items()}

    gallery = Gallery(Large(1), 1)
    sample = gallery.dataset.load(0)
    gallery.update(0, sample, sample["label"])
    assert {tile.shape for tile in gallery.fixed[0].tiles.values()} == {(8, 512, 3)}


def test_unlabelled_and_ignored_images_are_not_ranked():
    gallery = Gallery(ToyImages(2), 2)
    sample = gallery.dataset.load(0)
    gallery.update(0, {"img": sample["img"]}, sample["label"])  # no label
    sample["label"][:] = 255
    gallery.update(1, sample, np.zeros((32, 32), np.uint8))
    assert gallery.worst == gallery.best == []
    assert [image.name for image in gallery.fixed] == ["image_1"]


@pytest.mark.parametrize("count", [0, 1])
def test_the_number_of_images(count):
    gallery = Gallery(ToyImages(4), count)
    predict(gallery, [3, 2, 1, 0])
    assert len(gallery.fixed) == len(gallery.worst) == len(gallery.best) == count
