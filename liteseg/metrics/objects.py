"""Intersection and union by object size: objects are the connected components of a class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from liteseg.metrics.boundary import IGNORED, histogram
from liteseg.metrics.confusion import mean_of_present, ratio

SIZES = ("small", "medium", "large")
#: areas in pixels at which objects become medium and large, those of COCO
SIZE_LIMITS = (32**2, 96**2)
_CONNECTIVITY = 8
_MOST_16_BIT = 1 << 16


def size_counts(
    pred: np.ndarray, label: np.ndarray, limits: Sequence[float] = SIZE_LIMITS
) -> dict[str, np.ndarray]:
    """`size_intersection` and `size_union` for values 0 to 255, (sizes, 256) int64 each.

    A labeled pixel of a class counts for the size of its object in the label; a pixel that is only
    predicted as the class, for the size of the predicted object. So the counts of all sizes add up
    to the intersection and union of the class.

    Args:
        pred: (h, w) uint8 classes, 255 where the label is ignored; such pixels are in no object.
        label: (h, w) uint8 classes, 255 where ignored.
        limits: ascending areas in pixels; one size more than limits.
    """
    hits = cv2.compare(pred, label, cv2.CMP_EQ)
    intersection, labeled = _by_size(label, hits, limits)
    right, predicted = _by_size(pred, hits, limits)
    return {"size_intersection": intersection, "size_union": labeled + predicted - right}


def size_metrics(totals: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """mIoU by object size, {`miou_small`: (...), ...}, of summed counts (..., sizes, C)."""
    iou = ratio(totals["size_intersection"], totals["size_union"])
    means = mean_of_present(iou, ~np.isnan(iou))
    return {f"miou_{size}": means[..., place] for place, size in enumerate(SIZES)}


def _by_size(
    values: np.ndarray, hits: np.ndarray, limits: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of the objects of `values` that are among `hits`, and all: (sizes, 256) int64 each."""
    counts = np.zeros((2, len(limits) + 1, 256), np.int64)
    present = np.flatnonzero(histogram(values, np.ones(values.shape, bool))[:IGNORED])
    for number in present.tolist():
        mask = cv2.compare(values, number, cv2.CMP_EQ)
        left, top, width, height = cv2.boundingRect(mask)
        box = slice(top, top + height), slice(left, left + width)
        objects, count = _components(mask[box])
        missed, found = _split_by_hit(objects, count, hits[box])
        sizes = np.searchsorted(limits, missed + found, side="right")
        for kind, pixels in enumerate((found, missed + found)):
            counts[kind, :, number] = np.bincount(sizes[1:], pixels[1:], len(limits) + 1)
    return counts[0], counts[1]


def _components(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """The object of each pixel, 0 outside of objects, and the number of objects plus one.

    16-bit numbers are faster. OpenCV does not report when they overflow, but it numbers at most as
    many parts as there are horizontal runs.
    """
    runs = len(mask) + np.count_nonzero(mask[:, 1:] > mask[:, :-1])
    kind = cv2.CV_16U if runs < _MOST_16_BIT else cv2.CV_32S
    count, objects = cv2.connectedComponents(mask, connectivity=_CONNECTIVITY, ltype=kind)
    return objects, count


def _split_by_hit(objects: np.ndarray, count: int, hits: np.ndarray) -> np.ndarray:
    """(2, count) pixels of each object where `hits` is 0, and where it is 255."""
    dtype = np.uint8 if 2 * count <= 256 else np.uint32
    numbers = 2 * objects.astype(dtype) + (hits & 1)
    if dtype is np.uint8:  # about five times as fast
        pixels = histogram(numbers, np.ones(numbers.shape, bool))[: 2 * count]
    else:
        pixels = np.bincount(numbers.ravel(), minlength=2 * count)
    return pixels.reshape(count, 2).T
