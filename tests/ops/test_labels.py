"""Full-size labels against OpenCV's interpolation of every class."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from liteseg.ops.labels import labels_at_full_size


def reference(scores, steps):
    """All scores at full size, then the arg-max."""
    planes = []
    for plane in scores.astype(np.float64):
        for step, (h, w) in steps:
            plane = (
                cv2.resize(plane, (w, h), interpolation=cv2.INTER_LINEAR)
                if step == "resize"
                else plane[:h, :w].copy()
            )
        planes.append(plane)
    return np.stack(planes).argmax(axis=0)


def smooth(shape, seed=0):
    noise = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return np.stack([cv2.GaussianBlur(plane, (0, 0), 3) for plane in noise])


def noisy(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("scores", [smooth, noisy])
@pytest.mark.parametrize(
    ("shape", "steps"),
    [
        ((19, 32, 64), [("resize", (256, 512))]),
        ((5, 32, 64), [("resize", (256, 512)), ("resize", (512, 1024))]),
        ((4, 24, 48), [("resize", (192, 384)), ("resize", (256, 512))]),
        ((3, 29, 38), [("resize", (225, 300)), ("resize", (180, 240))]),
        ((3, 17, 13), [("resize", (136, 104)), ("crop", (130, 97)), ("resize", (40, 211))]),
        ((6, 9, 9), [("crop", (5, 8))]),
        ((6, 9, 9), []),
        ((2, 1, 7), [("resize", (50, 60))]),
        ((3, 40, 1), [("resize", (7, 3))]),
        ((1, 4, 4), [("resize", (30, 30))]),
        ((256, 4, 4), [("resize", (30, 30))]),
    ],
)
def test_equals_interpolation_of_all_scores(scores, shape, steps):
    values = scores(shape)
    found = labels_at_full_size(values, steps)
    assert found.dtype == np.uint8
    expected = reference(values, steps)
    # float32 against float64: differs where two classes are equal up to rounding
    assert np.count_nonzero(found != expected) <= 1e-4 * expected.size
    assert found.shape == expected.shape


def test_tiny_scores_fill_the_labels():
    """Also where no label depends on more than one score."""
    for h, w in np.ndindex(3, 3):
        scores = noisy((4, h + 1, w + 1))
        for height, width in np.ndindex(12, 12):
            steps = [("resize", (height + 1, width + 1))]
            found = labels_at_full_size(scores, steps)
            np.testing.assert_array_equal(found, reference(scores, steps))


def test_a_class_below_the_maximum_everywhere_can_win_in_between():
    """Second at both scores; halfway the two leading classes cancel out."""
    scores = np.array([[[10, -10]], [[-10, 10]], [[4, 4]]], np.float32)
    found = labels_at_full_size(scores, [("resize", (1, 16))])
    np.testing.assert_array_equal(np.unique(found), [0, 1, 2])
    np.testing.assert_array_equal(found, reference(scores, [("resize", (1, 16))]))


def test_the_first_class_wins_ties():
    scores = np.ones((3, 5, 6), np.float32)
    assert not labels_at_full_size(scores, [("resize", (40, 48))]).any()
    scores[1, :, 3:] = scores[2, :, 3:] = 2
    found = labels_at_full_size(scores, [("resize", (40, 48))])
    assert set(np.unique(found)) == {0, 1}


def test_the_scores_are_not_modified():
    scores = noisy((3, 8, 8))
    before = scores.copy()
    labels_at_full_size(scores, [("resize", (64, 64))])
    np.testing.assert_array_equal(scores, before)
