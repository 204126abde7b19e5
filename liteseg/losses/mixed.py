"""A weighted sum of losses on the same logits."""

from __future__ import annotations

from collections.abc import Sequence

import paddle
from paddle import nn

from liteseg.registry import LOSSES


@LOSSES.register
class MixedLoss(nn.Layer):
    """The sum of `losses`, each multiplied by its `coef`.

    Args:
        losses: loss components.
        coef: one factor per loss.

    Raises:
        ValueError: there is no loss, or not one factor per loss.
    """

    def __init__(self, losses: Sequence[nn.Layer], coef: Sequence[float]):
        super().__init__()
        if not losses or len(losses) != len(coef):
            raise ValueError(f"coef: {len(coef)} factors for {len(losses)} losses; give one each")
        self.losses = nn.LayerList(losses)
        self.coef = list(coef)

    def forward(self, logits: paddle.Tensor, label: paddle.Tensor) -> paddle.Tensor:
        """(N, C, H, W) float, (N, H, W) int64 -> scalar."""
        return sum(c * loss(logits, label) for c, loss in zip(self.coef, self.losses))
