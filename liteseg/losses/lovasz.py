"""Lovász-softmax (arXiv 1705.08790): a convex surrogate of the Jaccard index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Union

import paddle
import paddle.nn.functional as F
from paddle import nn

from liteseg.registry import LOSSES


@LOSSES.register
class LovaszSoftmaxLoss(nn.Layer):
    """Mean over classes of the Lovász extension of the Jaccard loss, pixels of the batch pooled.

    Args:
        ignore_index: label value to leave out.
        classes: "present" (those with a label in the batch), "all", or a list of class indices.

    Raises:
        ValueError: `classes` is another string.
    """

    def __init__(self, ignore_index: int = 255, classes: Union[str, Sequence[int]] = "present"):
        super().__init__()
        if isinstance(classes, str) and classes not in ("present", "all"):
            raise ValueError(f"classes: {classes!r} is not 'present', 'all' or a list of indices")
        self.ignore_index = ignore_index
        self.classes = classes

    def forward(self, logits: paddle.Tensor, label: paddle.Tensor) -> paddle.Tensor:
        """(N, C, H, W) float, (N, H, W) integers -> scalar."""
        label = label if label.dtype == paddle.int64 else label.astype("int64")
        classes = logits.shape[1]
        valid = (label != self.ignore_index).flatten().astype(logits.dtype)
        # (N, C, H, W) -> (C, N·H·W)
        probability = F.softmax(logits, axis=1).transpose([1, 0, 2, 3]).reshape([classes, -1])
        label = label.flatten()
        indices = range(classes) if isinstance(self.classes, str) else self.classes
        losses, counted = [], []
        for index in indices:
            foreground = (label == index).astype(logits.dtype) * valid
            # An ignored pixel has error 0: it sorts last and adds nothing to the sum.
            errors = (foreground - probability[index]).abs() * valid
            order = paddle.argsort(errors.detach(), descending=True)
            gradient = _jaccard_gradient(paddle.gather(foreground, order))
            losses.append((paddle.gather(errors, order) * gradient).sum())
            present = (foreground.sum() > 0).astype(logits.dtype)
            counted.append(present if self.classes == "present" else paddle.ones_like(present))
        share = paddle.stack(counted)
        return (paddle.stack(losses) * share).sum() / share.sum().clip(min=1)


def _jaccard_gradient(foreground: paddle.Tensor) -> paddle.Tensor:
    """Gradient of the Lovász extension for descending errors (algorithm 1): (P,) -> (P,)."""
    total = foreground.sum()
    intersection = total - foreground.cumsum()
    union = total + (1 - foreground).cumsum()
    jaccard = 1 - intersection / union
    return paddle.concat([jaccard[:1], jaccard[1:] - jaccard[:-1]]).detach()
