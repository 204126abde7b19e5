"""Element-wise operators."""

from __future__ import annotations

import paddle

from liteseg.ops import device


def lerp(x: paddle.Tensor, y: paddle.Tensor, weight: paddle.Tensor) -> paddle.Tensor:
    """x + weight·(y − x).

    Args:
        x: (N, C, H, W).
        y: (N, C, H, W).
        weight: (N, 1, H, W) or (N, C, 1, 1), broadcast.
    """
    if device.is_eager_cpu(x):
        # On a CPU, Paddle broadcasts eight times slower than it multiplies equal shapes. In a graph
        # ONNX Runtime can't expand to a batch of any size.
        weight = weight.expand_as(x)
    return x + weight * (y - x)
