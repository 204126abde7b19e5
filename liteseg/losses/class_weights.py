"""Class weights of the pixel-wise losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

import numpy as np
import paddle


class ClassWeights:
    """One weight per class, on the host until the first loss is computed.

    Checking a config constructs its losses, and must not open a GPU.

    Args:
        weight: finite and not negative.

    Raises:
        ValueError: a weight is negative or not finite.
    """

    def __init__(self, weight: Sequence[float]):
        self.values = np.array(weight, np.float32)
        if not (np.isfinite(self.values) & (self.values >= 0)).all():
            raise ValueError(f"weight: {list(weight)} must be finite and not negative")
        self._tensors: dict[str, paddle.Tensor] = {}

    def tensor(self, logits: paddle.Tensor) -> paddle.Tensor:
        """The weights, (C,) float32 on the device of `logits` (N, C, H, W).

        Raises:
            ValueError: there is not one weight for each class of `logits`.
        """
        if len(self.values) != logits.shape[1]:
            raise ValueError(
                f"weight: {len(self.values)} class weights for {logits.shape[1]} classes; give one "
                "each"
            )
        place = str(logits.place)
        if place not in self._tensors:
            self._tensors[place] = paddle.to_tensor(self.values, place=logits.place)
        return self._tensors[place]

    def of_pixels(self, label: paddle.Tensor, logits: paddle.Tensor) -> paddle.Tensor:
        """The weight of each pixel's class: (N, H, W) in 0..C-1 -> (N, H, W)."""
        return paddle.gather(self.tensor(logits), label.flatten()).reshape(label.shape)


def class_weights(weight: Optional[Sequence[float]]) -> Optional[ClassWeights]:
    """`ClassWeights`, or None without weights."""
    return None if weight is None else ClassWeights(weight)
