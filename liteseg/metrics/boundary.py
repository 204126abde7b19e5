"""Boundary IoU (Cheng et al., CVPR 2021) and boundary F-score (Csurka et al., BMVC 2013).

Both are defined for one class against the rest. Here all classes are counted at once: a pixel is
interior if its whole window has one class, which a minimum and a maximum filter find together.
Pixels with an ignored label count nowhere, and no boundary runs along them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import cv2
import numpy as np

from liteseg.metrics.confusion import mean_of_present, ratio

IGNORED = 255  # value of pixels that do not count, in `pred` and `label`
EXACT_PIXELS = 1 << 24  # OpenCV returns counts as float32, which is exact up to here


def in_pixels(extent: float, shape: tuple[int, ...]) -> float:
    """A length in pixels: `extent` from 1, below it a share of the diagonal of (h, w)."""
    return float(extent) if extent >= 1 else extent * math.hypot(*shape[:2])


def boundary_counts(
    pred: np.ndarray, label: np.ndarray, width: float, tolerance: float
) -> dict[str, np.ndarray]:
    """The boundary fields of `ImageCounts` for values 0 to 255, (256,) int64 each.

    Args:
        pred: (h, w) uint8 classes, 255 where the label is ignored.
        label: (h, w) uint8 classes, 255 where ignored.
        width: of the boundary region in pixels (Chebyshev distance, as in the paper), rounded; at
            least 1. Pixels near the edge of the image belong to it.
        tolerance: distance in pixels (Euclidean) at which contour pixels match. A contour pixel
            has one of its four neighbors in another class; the edge of the image is no contour.
    """
    maps = label, pred
    valid = label != IGNORED
    filled = [np.where(valid, values, np.uint8(0)) for values in maps]
    regions = [_boundary_region(*pair, max(round(width), 1)) & valid for pair in zip(maps, filled)]
    shared = regions[0] & regions[1] & (label == pred)
    counts = {"boundary_intersection": histogram(label, shared)}
    areas = [histogram(values, region) for values, region in zip(maps, regions)]
    counts["boundary_union"] = areas[0] + areas[1] - counts["boundary_intersection"]
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    contours = [~_uniform(*pair, cross) & valid for pair in zip(maps, filled)]
    margin, columns = math.ceil(tolerance), label.shape[1]
    places = [np.flatnonzero(contour) for contour in contours]
    classes = [values.ravel()[place] for values, place in zip(maps, places)]
    keys = [_keys(*pair, label.shape, margin) for pair in zip(classes, places)]
    square = np.ones((2 * margin + 1, 2 * margin + 1), np.uint8)
    for name, own, other in (("labeled", 0, 1), ("predicted", 1, 0)):
        # Pixels that are far from the contours of all classes need no search.
        near = cv2.dilate(contours[other].view(np.uint8), square).ravel()[places[own]] > 0
        matched = _matched(keys[own][near], keys[other], tolerance, columns)
        counts[f"contour_{name}"] = np.bincount(classes[own], minlength=256)
        found = classes[own][near][matched]
        counts[f"contour_{name}_matched"] = np.bincount(found, minlength=256)
    return counts


def boundary_metrics(totals: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Boundary metrics of summed counts (..., C) with the names of `ImageCounts`.

    Returns:
        `boundary_iou` and `boundary_f`, the means over classes (...), and `class_boundary_iou` and
        `class_boundary_f` (..., C). A class without any boundary is NaN and not in the means; one
        with a contour in label or prediction only has F-score 0.
    """
    iou = ratio(totals["boundary_intersection"], totals["boundary_union"])
    precision, recall = (
        ratio(totals[f"contour_{name}_matched"], totals[f"contour_{name}"])
        for name in ("predicted", "labeled")
    )
    either = ~(np.isnan(precision) & np.isnan(recall))
    precision, recall = np.nan_to_num(precision), np.nan_to_num(recall)
    score = np.nan_to_num(ratio(2 * precision * recall, precision + recall))
    return {
        "boundary_iou": mean_of_present(iou, ~np.isnan(iou)),
        "boundary_f": mean_of_present(score, either),
        "class_boundary_iou": iou,
        "class_boundary_f": np.where(either, score, np.nan),
    }


def histogram(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(256,) int64 counts of the (h, w) uint8 values where the (h, w) bool mask is set."""
    counts = np.zeros(256, np.int64)
    rows = max(EXACT_PIXELS // max(values.shape[1], 1), 1)
    for top in range(0, len(values), rows):
        part, inside = values[top : top + rows], mask[top : top + rows].view(np.uint8)
        found = cv2.calcHist([part], [0], inside, [256], [0, 256])
        counts += found.ravel().astype(np.int64)
    return counts


def _uniform(values: np.ndarray, filled: np.ndarray, window: np.ndarray) -> np.ndarray:
    """Where all pixels of the window that are not ignored have one class, (h, w) bool.

    Ignored pixels are 255 in `values` and 0 in `filled`, neutral for minimum and maximum, as are
    pixels outside the image in OpenCV's filters.
    """
    return cv2.erode(values, window) == cv2.dilate(filled, window)


def _boundary_region(values: np.ndarray, filled: np.ndarray, width: int) -> np.ndarray:
    """Pixels within `width` of another class or of the edge, (h, w) bool."""
    region = ~_uniform(values, filled, np.ones((2 * width + 1, 2 * width + 1), np.uint8))
    for strip in (region[:width], region[-width:], region[:, :width], region[:, -width:]):
        strip[...] = True
    return region


def _keys(
    classes: np.ndarray, places: np.ndarray, shape: tuple[int, ...], margin: int
) -> np.ndarray:
    """Numbers of contour pixels, ordered by class, row and column, with gaps of `margin`.

    Args:
        classes: (n,) uint8.
        places: (n,) indices of the pixels in the flat image.
        shape: (h, w) of the image.
        margin: rows and columns between classes and between rows.
    """
    rows, columns = np.divmod(places, shape[1])
    rows += classes.astype(np.int64) * (shape[0] + 2 * margin) + margin
    return rows * (shape[1] + 2 * margin) + columns + margin


def _matched(keys: np.ndarray, others: np.ndarray, tolerance: float, columns: int) -> np.ndarray:
    """Which of the contour pixels `keys` have one of `others` in their class within `tolerance`.

    For each row of the disk, a binary search finds the first of `others` from the left end of the
    disk in that row. Most pixels match in the first rows, so few remain for the others.
    """
    matched = np.zeros(len(keys), bool)
    others = np.append(np.sort(others), np.iinfo(np.int64).max)
    row = columns + 2 * math.ceil(tolerance)
    left = np.argsort(keys)  # sorted searches are faster: they stay in the cache
    reach = math.floor(tolerance)
    for shift in sorted(range(-reach, reach + 1), key=abs):
        half = math.isqrt(math.floor(tolerance**2) - shift**2)
        first = keys[left] + (shift * row - half)
        hit = others[np.searchsorted(others, first)] <= first + 2 * half
        matched[left[hit]] = True
        left = left[~hit]
    return matched
