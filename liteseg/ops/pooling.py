"""Pooling over space and over channels."""

from __future__ import annotations

import paddle
import paddle.nn.functional as F

from liteseg.ops import onednn


def halving_average_pool(x: paddle.Tensor, include_padding: bool = False) -> paddle.Tensor:
    """Mean over 3x3 with stride 2 and padding 1.

    (N, C, H, W) -> (N, C, ceil(H/2), ceil(W/2)).

    Args:
        x: the features.
        include_padding: whether zeros outside of the image count in the mean.
    """
    if not include_padding and onednn.supports(x):
        return onednn.halving_average_pool(x)
    return F.avg_pool2d(x, kernel_size=3, stride=2, padding=1, exclusive=not include_padding)


def channel_max(x: paddle.Tensor) -> paddle.Tensor:
    """Maximum over the channels: (N, C, H, W) -> (N, 1, H, W).

    The CPU gradient of `paddle.max` takes longer than all convolutions of the network.
    """
    if not paddle.in_dynamic_mode():  # an exported graph has no gradient, and `max` is faster
        return paddle.max(x, axis=1, keepdim=True)
    largest = paddle.argmax(x, axis=1, keepdim=True)
    # Without `broadcast=False` it copies all of `x` first.
    return paddle.take_along_axis(x, largest, axis=1, broadcast=False)
