"""Dice loss (V-Net, arXiv 1606.04797, section 3), one coefficient per class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

import paddle
import paddle.nn.functional as F
from paddle import nn

from liteseg.losses.class_weights import class_weights
from liteseg.ops.cross_entropy import valid_labels
from liteseg.registry import LOSSES

_EPS = 1e-8


@LOSSES.register
class DiceLoss(nn.Layer):
    """1 - Dice of the softmax and the one-hot label, averaged over images and classes.

    Args:
        weight: one factor per class on its term.
        ignore_index: label value to leave out.
        smooth: added to numerator and denominator, so that the loss of an absent class is 0.

    Raises:
        ValueError: a weight is negative or not finite.
    """

    def __init__(
        self,
        weight: Optional[Sequence[float]] = None,
        ignore_index: int = 255,
        smooth: float = 1.0,
    ):
        super().__init__()
        self.weight = class_weights(weight)
        self.ignore_index = ignore_index
        self.smooth = smooth

    def forward(self, logits: paddle.Tensor, label: paddle.Tensor) -> paddle.Tensor:
        """(N, C, H, W) float, (N, H, W) integers -> scalar."""
        label = label if label.dtype == paddle.int64 else label.astype("int64")
        classes = logits.shape[1]
        valid, known_label = valid_labels(label, self.ignore_index)
        mask = valid.astype(logits.dtype).unsqueeze(1)
        probability = F.softmax(logits, axis=1) * mask
        # (N, H, W) -> (N, H, W, C) -> (N, C, H, W)
        target = F.one_hot(known_label, classes).transpose([0, 3, 1, 2])
        target = target.astype(logits.dtype) * mask
        overlap = (probability * target).sum([2, 3])
        area = probability.sum([2, 3]) + target.sum([2, 3])
        losses = 1 - (2 * overlap + self.smooth) / (area + self.smooth + _EPS)
        if self.weight is not None:
            losses = losses * self.weight.tensor(logits)  # (N, C) x (C,)
        return losses.mean()
