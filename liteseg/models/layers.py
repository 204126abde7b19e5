"""Blocks shared by the decoder and the heads, with the published parameter names.

Shapes throughout `liteseg.models`: N images, C channels, (H, W) rows and columns.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Optional

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn

from liteseg.ops.upsample import interpolated


class ConvBN(nn.Layer):
    """Convolution ("same" padding), batch norm, then `activation` if there is one."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        bias: bool = False,
        activation: Optional[nn.Layer] = None,
    ):
        super().__init__()
        self._conv = nn.Conv2D(
            in_channels,
            out_channels,
            kernel_size,
            padding=kernel_size // 2,
            bias_attr=None if bias else False,
        )
        self._batch_norm = nn.BatchNorm2D(out_channels)
        self._act = activation

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """(N, in, H, W) -> (N, out, H, W)."""
        x = self._batch_norm(self._conv(x))
        return x if self._act is None else self._act(x)


class ConvBNReLU(ConvBN):
    """`ConvBN` closed by a ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, bias: bool = False):
        super().__init__(in_channels, out_channels, kernel_size, bias=bias, activation=nn.ReLU())


def resize(x: paddle.Tensor, size: Sequence[int], mode: str = "bilinear") -> paddle.Tensor:
    """(N, C, h, w) -> (N, C, *size) with half-pixel centres (align_corners False)."""
    if mode != "bilinear":
        return F.interpolate(x, size, mode=mode)
    if paddle.in_dynamic_mode() and x.place.is_cpu_place():
        # Paddle's kernel runs on one core; two products with mostly zeros are done sooner.
        rows, columns = (interpolation(n, m) for n, m in zip(x.shape[2:], size))
        return paddle.matmul(rows, paddle.matmul(x, columns, transpose_y=True))
    return F.interpolate(x, size, mode="bilinear", align_corners=False)


@functools.lru_cache(maxsize=64)
def interpolation(inputs: int, outputs: int) -> paddle.Tensor:
    """The (outputs, inputs) float32 matrix that resizes a line bilinearly, half-pixel centres."""
    return paddle.to_tensor(interpolated(np.eye(inputs), outputs), dtype="float32")


def channel_max(x: paddle.Tensor) -> paddle.Tensor:
    """Largest value over the channels: (N, C, H, W) -> (N, 1, H, W).

    `paddle.max` has a CPU gradient that takes longer than all of the network's convolutions.
    """
    if not paddle.in_dynamic_mode():  # a graph for inference, where it is the faster one
        return paddle.max(x, axis=1, keepdim=True)
    largest = paddle.argmax(x, axis=1, keepdim=True)
    # Without `broadcast=False` it copies all of `x` first.
    return paddle.take_along_axis(x, largest, axis=1, broadcast=False)
