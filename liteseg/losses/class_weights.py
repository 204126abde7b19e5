"""Class weights of the pixel-wise losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

import paddle


def weight_tensor(weight: Optional[Sequence[float]]) -> Optional[paddle.Tensor]:
    """Class weights as a float32 tensor (C,), or None.

    Raises:
        ValueError: a weight is negative or not finite.
    """
    if weight is None:
        return None
    tensor = paddle.to_tensor(list(weight), dtype="float32")
    if not bool((paddle.isfinite(tensor) & (tensor >= 0)).all()):
        raise ValueError(f"weight: {list(weight)} must be finite and not negative")
    return tensor


def pixel_weights(
    weight: paddle.Tensor, label: paddle.Tensor, logits: paddle.Tensor
) -> paddle.Tensor:
    """The weight of each pixel's class: (C,), (N, H, W) in 0..C-1 -> (N, H, W).

    Raises:
        ValueError: there is not one weight for each class of `logits`.
    """
    check_weight_count(weight, logits)
    return paddle.gather(weight, label.flatten()).reshape(label.shape)


def check_weight_count(weight: paddle.Tensor, logits: paddle.Tensor) -> None:
    """Raise ValueError unless there is one weight for each class of `logits`."""
    if weight.shape[0] != logits.shape[1]:
        raise ValueError(
            f"weight: {weight.shape[0]} class weights for {logits.shape[1]} classes; give one each"
        )
