"""Full-size labels from low-resolution scores, on a CPU, without full-size scores.

C classes, (h, w) the size of the scores, (H, W) the size of the labels.

Each output of bilinear resizing is a mean of neighboring scores, with weights that are not negative
and sum to 1. So a class can't be the highest in a patch of the labels if its highest score there is
below the lowest score of another class; and if one class is the highest at all scores of a patch,
it is the highest in all of the patch. Only some classes in some patches are left to interpolate,
and two resizings in a row cost no more than one: 19 classes at 64x128 through 512x1024 to 1024x2048
take 12 ms on one core, and 47 ms class by class.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple, Optional

import numpy as np

from liteseg.utils.logging import get_logger

Steps = Sequence[tuple[str, tuple[int, int]]]

_NEGLIGIBLE = 1e-9  # a weight that is 0 up to rounding
_shift_reported: list[bool] = []
_TILE = 128  # side of a patch of labels, in pixels


def labels_at_full_size(scores: np.ndarray, steps: Steps) -> np.ndarray:
    """The arg-max of the scores after `steps`, the first class on ties.

    Args:
        scores: (C, h, w) float32, at most 256 classes.
        steps: ("resize" | "crop", (height, width)) in order: bilinear with half-pixel centers
            (align_corners False, no anti-aliasing), or the upper left part.

    Returns:
        (H, W) uint8: the arg-max of the interpolated scores, up to rounding.
    """
    rows, columns = (
        _axis(scores.shape[1 + axis], tuple((step, size[axis]) for step, size in steps), axis)
        for axis in range(2)
    )
    coarse = _argmax(scores, np.arange(len(scores), dtype=np.uint8))
    if rows.reach == columns.reach == 1:  # each label is that of one score
        return coarse.take(rows.first, axis=0).take(columns.first, axis=1)
    candidates = _candidates(scores, rows.reach, columns.reach)
    labels = np.empty((rows.outputs, columns.outputs), np.uint8)
    for row in rows.tiles:
        in_row = np.any(candidates[:, row.windows], axis=1)  # (C, windows)
        classes = np.flatnonzero(np.any(in_row, axis=1))
        tall = np.matmul(row.weights, scores[classes, row.inputs])  # (C,k,w) -> (C,r,w)
        for column in columns.tiles:
            part = coarse[row.inputs, column.inputs]
            patch = labels[row.span, column.span]
            if part.min() == part.max():
                patch[:] = part[0, 0]
                continue
            here = np.any(in_row[classes, column.windows], axis=1)
            wide = np.matmul(tall[here][:, :, column.inputs], column.weights)
            patch[:] = _argmax(wide, classes[here].astype(np.uint8))
    return labels


def scores_at_full_size(scores: np.ndarray, steps: Steps) -> np.ndarray:
    """The scores after `steps`, (C, H, W) float32; arguments as of `labels_at_full_size`."""
    rows, columns = (
        _weights(scores.shape[1 + axis], [(step, size[axis]) for step, size in steps])
        for axis in range(2)
    )
    return np.matmul(np.matmul(rows.astype(np.float32), scores), columns.T.astype(np.float32))


def confidence_at_full_size(scores: np.ndarray, steps: Steps, temperature: float) -> np.ndarray:
    """The highest probability at every pixel: (H, W) float32, without scores at full size.

    Args:
        scores: (C, h, w) float32 logits.
        steps: as of `labels_at_full_size`.
        temperature: probabilities are the softmax of the logits divided by it.
    """
    rows, columns = (
        _weights(scores.shape[1 + axis], [(step, size[axis]) for step, size in steps])
        for axis in range(2)
    )
    wide = np.matmul(scores / np.float32(temperature), columns.T.astype(np.float32))
    confidence = np.empty((len(rows), wide.shape[2]), np.float32)
    for start in range(0, len(rows), _TILE):
        band = np.tensordot(rows[start : start + _TILE].astype(np.float32), wide, (1, 1))
        band -= band.max(axis=1, keepdims=True)  # (rows, C, W)
        confidence[start : start + _TILE] = 1 / np.exp(band, out=band).sum(axis=1)
    return confidence


class _Tile(NamedTuple):
    """A range of r outputs along one axis, computed from k scores.

    Attributes:
        span: the outputs.
        inputs: the scores.
        windows: where windows of `reach` scores inside `inputs` begin.
        weights: (r, k) float32 for rows, transposed (k, r) for columns.
    """

    span: slice
    inputs: slice
    windows: slice
    weights: np.ndarray


class _Axis(NamedTuple):
    """The resizing along one axis; an output depends on at most `reach` scores from `first` on."""

    outputs: int
    first: np.ndarray
    reach: int
    tiles: list[_Tile]


@functools.lru_cache(maxsize=32)
def _axis(size: int, steps: tuple[tuple[str, int], ...], transposed: int) -> _Axis:
    """`steps` along one axis of `size` scores."""
    weights = _weights(size, steps)
    used = weights > _NEGLIGIBLE
    first = used.argmax(axis=1)
    last = size - 1 - used[:, ::-1].argmax(axis=1)
    reach = int((last - first).max()) + 1
    tiles = []
    for start in range(0, len(weights), _TILE):
        span = slice(start, min(start + _TILE, len(weights)))
        low, high = int(first[span].min()), int(last[span].max()) + 1
        windows = slice(min(low, size - reach), max(low, high - reach) + 1)
        part = weights[span, low:high]
        part = np.ascontiguousarray(part.T if transposed else part, np.float32)
        tiles.append(_Tile(span, slice(low, high), windows, part))
    return _Axis(len(weights), first, reach, tiles)


def _weights(size: int, steps: Sequence[tuple[str, int]]) -> np.ndarray:
    """The matrix (outputs, size) of `steps` along one axis."""
    weights = np.eye(size)
    for step, target in steps:
        if step == "crop":
            weights = weights[:target]
        elif target != len(weights):
            weights = interpolated(weights, target)
    return weights


def padded(size: Sequence[int], multiple: Optional[int]) -> tuple[int, int]:
    """(h, w) rounded up to multiples of `multiple` pixels; None leaves it as it is."""
    h, w = (-(-side // (multiple or 1)) * (multiple or 1) for side in size)
    return h, w


def report_shift(size: tuple[int, int], coarse: Sequence[int], fix: str) -> None:
    """Log once if scores at `coarse` (h, w) don't fit an input of `size` (h, w), with the fix.

    The network rounds sizes up, so the scores cover more than the image, and resizing them to its
    size moves the labels.
    """
    scales = [side // scores for side, scores in zip(size, coarse) if side % scores]
    if _shift_reported or not scales:
        return
    _shift_reported.append(True)
    stride = 1 << max(scales).bit_length()
    get_logger().warning(
        f"the network's input is {size[1]}x{size[0]}, no multiple of {stride}: predictions are "
        f"shifted by up to {stride - 1} pixels, as in PaddleSeg; {fix}test_config.pad_multiple=32 "
        "avoids it"
    )


def interpolated(weights: np.ndarray, target: int) -> np.ndarray:
    """Resize a line of points bilinearly, with half-pixel centers.

    Args:
        weights: (points, inputs), the share of each input in each point.
        target: the number of points afterwards.

    Returns:
        (target, inputs).
    """
    size = len(weights)
    centers = np.clip((np.arange(target) + 0.5) * size / target - 0.5, 0, size - 1)
    below = centers.astype(np.int64)
    share = (centers - below)[:, None]
    return weights[below] * (1 - share) + weights[np.minimum(below + 1, size - 1)] * share


def _candidates(scores: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """The classes that can win among the scores of each `rows` x `columns` window.

    (C, h, w) -> bool (C, h - rows + 1, w - columns + 1).
    """
    low = high = scores
    for axis, reach in ((1, rows), (2, columns)):
        count = low.shape[axis] - reach + 1
        windows = [(slice(None),) * axis + (slice(start, start + count),) for start in range(reach)]
        low = functools.reduce(np.minimum, (low[window] for window in windows))
        high = functools.reduce(np.maximum, (high[window] for window in windows))
    return high >= low.max(axis=0)


def _argmax(planes: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """The class of the highest plane, the first one on ties: (h, w) uint8.

    `classes` (uint8) increase. `np.argmax` over the first axis takes 20 times as long.
    """
    best, found = planes[0].copy(), np.full(planes[0].shape, classes[0], np.uint8)
    for plane, number in zip(planes[1:], classes[1:]):
        higher = (plane > best).view(np.uint8)
        np.maximum(plane, best, out=best)
        np.multiply(higher, number, out=higher)
        np.maximum(found, higher, out=found)  # a later class has a larger number
    return found
