"""The k-th smallest and the k largest of many values.

Paddle's GPU kernels of `kthvalue` and `topk` give each row to one thread block, however long it is.
Its sort of a single row uses the whole GPU.
"""

from __future__ import annotations

import paddle

from liteseg.ops import device


def kth_smallest(values: paddle.Tensor, k: int) -> paddle.Tensor:
    """The k-th smallest, from 1, of (P,) values as a tensor without dimensions."""
    if device.is_eager_cpu(values):
        return paddle.kthvalue(values, k)[0]
    return paddle.sort(values)[k - 1]


def k_largest(values: paddle.Tensor, k: int) -> tuple[paddle.Tensor, paddle.Tensor]:
    """The k largest of (P,) values in descending order, and their indices."""
    if device.is_eager_cpu(values):
        return paddle.topk(values, k)
    order = paddle.argsort(values.detach(), descending=True)[:k]
    return paddle.gather(values, order), order
