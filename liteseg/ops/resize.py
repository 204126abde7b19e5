"""Bilinear resizing, with half-pixel centers (align_corners False)."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import paddle
import paddle.nn.functional as F

from liteseg.ops import device
from liteseg.ops.labels import Steps, interpolated, labels_at_full_size


def resize(x: paddle.Tensor, size: Sequence[int], mode: str = "bilinear") -> paddle.Tensor:
    """(N, C, h, w) -> (N, C, *size), with `mode` bilinear or nearest."""
    if mode == "nearest":
        return F.interpolate(x, size, mode="nearest")
    if device.is_eager_cpu(x):
        # Paddle's kernel uses one core; two products with mostly zeros are faster.
        rows, columns = (_interpolation_matrix(n, m) for n, m in zip(x.shape[2:], size))
        return paddle.matmul(rows, paddle.matmul(x, columns, transpose_y=True))
    return F.interpolate(x, size, mode="bilinear", align_corners=False)


def interpolate(x: paddle.Tensor, size: Sequence[int]) -> paddle.Tensor:
    """(N, C, h, w) -> (N, C, *size) by Paddle's own kernel on every device; for inference."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x, list(size), mode="bilinear", align_corners=False)


def pad_to(x: paddle.Tensor, size: Sequence[int]) -> paddle.Tensor:
    """(N, C, h, w) -> (N, C, *size): zeros at the bottom and right."""
    bottom, right = size[0] - x.shape[2], size[1] - x.shape[3]
    return F.pad(x, [0, right, 0, bottom]) if bottom or right else x


@functools.lru_cache(maxsize=64)
def _interpolation_matrix(inputs: int, outputs: int) -> paddle.Tensor:
    """The (outputs, inputs) float32 matrix that resizes a line."""
    return paddle.to_tensor(interpolated(np.eye(inputs), outputs), dtype="float32")


@paddle.no_grad()
def resized_scores(scores: paddle.Tensor, steps: Steps) -> paddle.Tensor:
    """(N, C, h, w) scores after `steps`; see `labels.labels_at_full_size`."""
    for step, (h, w) in steps:
        scores = interpolate(scores, (h, w)) if step == "resize" else scores[:, :, :h, :w]
    return scores


@paddle.no_grad()
def resized_labels(scores: paddle.Tensor, steps: Steps) -> np.ndarray:
    """The class with the highest score after `steps`, the first one on ties: (N, H, W) uint8."""
    if device.is_eager_cpu(scores):
        return np.stack([labels_at_full_size(one, steps) for one in _as_numpy(scores)])
    best = paddle.argmax(resized_scores(scores, steps), axis=1, dtype="int32")
    return best.astype("uint8").numpy()


def _as_numpy(tensor: paddle.Tensor) -> np.ndarray:
    """A CPU tensor as an array, without a copy on Paddle 3."""
    return np.from_dlpack(tensor) if hasattr(tensor, "__dlpack__") else tensor.numpy()
