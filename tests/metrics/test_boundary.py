"""Boundary metrics and object sizes against loops over pixels, from the papers' definitions."""

from __future__ import annotations

import itertools
import math

import cv2
import numpy as np
import pytest

from liteseg.metrics import BoundaryOptions, ConfusionMatrix, ImageCounts
from liteseg.metrics.boundary import IGNORED, histogram, in_pixels
from liteseg.metrics.image_counts import metrics_of_images
from liteseg.metrics.objects import SIZE_LIMITS, SIZES, size_counts

CLASSES = 4


def blobs(seed, shape=(34, 41)):
    """A label map of smooth regions, with thin lines and single pixels."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, CLASSES, (5, 6)).astype(np.uint8)
    maps = cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_NEAREST)
    maps[rng.integers(shape[0])] = 1
    maps[rng.uniform(size=shape) < 0.03] = 2
    return maps


def pair(seed, shape=(34, 41), ignored=0.0):
    label, pred = blobs(seed, shape), blobs(seed, shape)
    pred = np.roll(pred, (1, -2), (0, 1))
    rng = np.random.default_rng(seed)
    label[cv2.blur(rng.uniform(size=shape), (3, 3)) < ignored] = IGNORED
    return pred, label


def window(shape, row, column, reach):
    return itertools.product(
        range(max(row - reach, 0), min(row + reach + 1, shape[0])),
        range(max(column - reach, 0), min(column + reach + 1, shape[1])),
    )


def twin_region(mask, ignored, reach):
    """Cheng et al.: pixels of the mask within `reach` of its outside, where nothing is ignored."""
    region = np.zeros(mask.shape, bool)
    for row, column in zip(*np.nonzero(mask)):
        at_edge = min(row, column, mask.shape[0] - 1 - row, mask.shape[1] - 1 - column) < reach
        near = window(mask.shape, row, column, reach)
        region[row, column] = at_edge or any(not mask[p] and not ignored[p] for p in near)
    return region


def twin_contour(mask, ignored):
    contour = np.zeros(mask.shape, bool)
    for row, column in zip(*np.nonzero(mask)):
        around = ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1))
        inside = [p for p in around if 0 <= p[0] < mask.shape[0] and 0 <= p[1] < mask.shape[1]]
        contour[row, column] = any(not mask[p] and not ignored[p] for p in inside)
    return contour


def twin_matched(contour, other, tolerance):
    others = list(zip(*np.nonzero(other)))
    return sum(
        any(math.dist(place, one) <= tolerance for one in others)
        for place in zip(*np.nonzero(contour))
    )


@pytest.mark.parametrize(
    ("seed", "ignored", "width", "tolerance"),
    [(0, 0.0, 1, 1.0), (1, 0.0, 3, 2.5), (2, 0.3, 2, 4.0), (3, 0.4, 5, 1.5), (4, 0.0, 40, 60.0)],
)
def test_counts_equal_loops_over_pixels(seed, ignored, width, tolerance):
    pred, label = pair(seed, ignored=ignored)
    found = ImageCounts.of(
        "", None, pred, label, CLASSES, boundary=BoundaryOptions(width, tolerance)
    )
    void = label == IGNORED
    for number in range(CLASSES):
        masks = [(values == number) & ~void for values in (label, pred)]
        first, second = (twin_region(mask, void, width) for mask in masks)
        assert found.boundary_intersection[number] == (first & second).sum()
        assert found.boundary_union[number] == (first | second).sum()
        first, second = (twin_contour(mask, void) for mask in masks)
        assert found.contour_labeled[number] == first.sum()
        assert found.contour_predicted[number] == second.sum()
        assert found.contour_labeled_matched[number] == twin_matched(first, second, tolerance)
        assert found.contour_predicted_matched[number] == twin_matched(second, first, tolerance)


@pytest.mark.parametrize("width", [1, 4])
def test_regions_equal_iterated_erosions(width):
    """The published code erodes the padded mask `width` times by a square of 3 x 3."""
    pred, label = pair(7, (90, 120))
    found = ImageCounts.of("", None, pred, label, CLASSES, boundary=BoundaryOptions(width, 1))
    for number in range(CLASSES):
        regions = []
        for values in (label, pred):
            mask = np.pad((values == number).astype(np.uint8), 1)
            eroded = cv2.erode(mask, np.ones((3, 3), np.uint8), iterations=width)
            regions.append((mask > eroded)[1:-1, 1:-1])
        assert found.boundary_intersection[number] == (regions[0] & regions[1]).sum()
        assert found.boundary_union[number] == (regions[0] | regions[1]).sum()


def test_predictions_on_ignored_pixels_change_nothing():
    pred, label = pair(2, ignored=0.4)
    other = np.where(label == IGNORED, (pred + 1) % CLASSES, pred).astype(np.uint8)
    first, second = (
        ImageCounts.of("", None, values, label, CLASSES, boundary=BoundaryOptions())
        for values in (pred, other)
    )
    assert first.as_json() == second.as_json()


def test_a_perfect_prediction_has_perfect_metrics():
    _, label = pair(5, ignored=0.3)
    pred = np.where(label == IGNORED, 3, label).astype(np.uint8)
    counts = ImageCounts.of("", None, pred, label, CLASSES, boundary=BoundaryOptions())
    found = metrics_of_images([counts], "abcd")
    assert found["boundary_iou"] == found["boundary_f"] == found["miou_small"] == 1.0


def test_a_class_without_a_contour_has_no_score():
    label = np.zeros((8, 8), np.uint8)
    counts = ImageCounts.of("", None, label, label, 2, boundary=BoundaryOptions(1, 1))
    found = metrics_of_images([counts], "ab")
    assert found["class_boundary_iou"] == {"a": 1.0, "b": None}  # the edge of the image
    assert found["class_boundary_f"] == {"a": None, "b": None}
    assert found["boundary_f"] is None
    pred = label.copy()
    pred[3, 3] = 1
    counts = ImageCounts.of("", None, pred, label, 2, boundary=BoundaryOptions(1, 1))
    assert metrics_of_images([counts], "ab")["class_boundary_f"] == {"a": 0.0, "b": 0.0}


def test_boundary_metrics_by_hand():
    """A square of 4x4 predicted one pixel to the right, in an image of 12x12."""
    label, pred = np.zeros((2, 12, 12), np.uint8)
    label[4:8, 4:8] = pred[4:8, 5:9] = 1
    counts = ImageCounts.of("", None, pred, label, 2, boundary=BoundaryOptions(1, 0.9 + 0.1))
    found = metrics_of_images([counts], "ab")
    # Rings of 12 pixels each: two rows of 3 in common, and none of the columns.
    assert found["class_boundary_iou"]["b"] == pytest.approx(6 / (12 + 12 - 6))
    # Within one pixel all match but none is farther away.
    assert found["class_boundary_f"]["b"] == 1.0


def twin_objects(mask):
    """Connected components by flood fill over the eight neighbors: a list of sets of pixels."""
    left = set(zip(*(axis.tolist() for axis in np.nonzero(mask))))
    while left:
        stack, found = [left.pop()], set()
        while stack:
            place = stack.pop()
            found.add(place)
            near = left & set(window(mask.shape, *place, 1))
            left -= near
            stack += near
        yield found


@pytest.mark.parametrize("ignored", [0.0, 0.35])
def test_object_sizes_equal_a_flood_fill(ignored):
    pred, label = pair(9, (60, 70), ignored)
    pred, valid = np.where(label == IGNORED, IGNORED, pred).astype(np.uint8), label != IGNORED
    limits = (4, 60)
    found = size_counts(pred, label, limits)
    expected = {name: np.zeros((3, 256), int) for name in found}
    for number in range(CLASSES):
        for values, other in ((label, pred), (pred, label)):
            for pixels in twin_objects((values == number) & valid):
                size = sum(len(pixels) >= limit for limit in limits)
                hits = sum(other[place] == number for place in pixels)
                if values is label:
                    expected["size_intersection"][size, number] += hits
                    expected["size_union"][size, number] += len(pixels)
                else:
                    expected["size_union"][size, number] += len(pixels) - hits
    for name, counts in expected.items():
        np.testing.assert_array_equal(found[name], counts)


def test_sizes_add_up_to_the_class():
    pred, label = pair(3, (150, 200), 0.3)
    counts = ImageCounts.of("", None, pred, label, CLASSES, boundary=BoundaryOptions())
    assert counts.size_union.shape == (len(SIZES), CLASSES)
    np.testing.assert_array_equal(counts.size_intersection.sum(axis=0), counts.intersection)
    union = counts.labeled + counts.predicted - counts.intersection
    np.testing.assert_array_equal(counts.size_union.sum(axis=0), union)


def test_more_objects_than_16_bit_numbers():
    label = np.zeros((520, 520), np.uint8)
    label[::2, ::2] = 1  # 67600 objects of one pixel
    counts = size_counts(label, label)
    assert counts["size_union"][:, 1].tolist() == [67600, 0, 0]
    assert counts["size_union"][:, 0].tolist() == [0, 0, 520 * 520 - 67600]
    assert SIZE_LIMITS == (1024, 9216)


def test_histogram_in_pieces(monkeypatch):
    monkeypatch.setattr("liteseg.metrics.boundary.EXACT_PIXELS", 50)
    pred, label = pair(1)
    mask = pred == label
    expected = np.bincount(label[mask], minlength=256)
    np.testing.assert_array_equal(histogram(label, mask), expected)


def test_lengths():
    assert in_pixels(3, (30, 40)) == 3.0
    assert in_pixels(0.02, (300, 400)) == pytest.approx(10)


def test_areas_are_those_of_the_matrix():
    pred, label = pair(6, ignored=0.3)
    matrix = ConfusionMatrix(CLASSES, class_names="abcd")
    matrix.update(pred, label)
    counts = ImageCounts.of("", None, pred, label, CLASSES, boundary=BoundaryOptions())
    found, expected = metrics_of_images([counts], "abcd"), matrix.compute()
    assert {key: found[key] for key in expected} == expected


def test_unknown_predictions_have_boundaries_but_no_class():
    _, label = pair(6)
    pred = label.copy()
    pred[:, 20:] = 255
    counts = ImageCounts.of(
        "", None, pred, label, CLASSES, boundary=BoundaryOptions(1, 1), unknown=255
    )
    assert counts.labeled.sum() == label.size
    assert counts.predicted.sum() == counts.intersection.sum() == 34 * 20
    found = metrics_of_images([counts], "abcd")
    assert found["acc"] == pytest.approx(20 / 41)
    assert found["boundary_iou"] < 0.6
