"""Cross-entropy over all pixels, the hardest share of a batch, or the hardest of each image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

import paddle
from paddle import nn

from liteseg.losses.class_weights import class_weights
from liteseg.ops.cross_entropy import softmax_cross_entropy, valid_labels
from liteseg.ops.selection import k_largest
from liteseg.registry import LOSSES

_EPS = 1e-8  # makes the loss of a batch without a valid pixel 0


@LOSSES.register
class CrossEntropyLoss(nn.Layer):
    """Mean cross-entropy over the pixels that are not ignored, optionally weighted by class.

    Args:
        weight: one weight per class; the mean is then the weighted mean.
        ignore_index: label value to leave out.
        top_k_percent_pixels: share in (0, 1] of pixels, the hardest, that enter the mean.
        avg_non_ignore: divide by the pixels that are not ignored (True) or by all (False).
        logit_shift: compute the loss of `logits + logit_shift * log(weight)`. Weighted
            cross-entropy alone drives a model towards probabilities proportional to weight times
            the true ones, so it predicts rare classes too often. With the shift they become
            proportional to weight^(1 - logit_shift) times the true ones, while rare classes keep
            their share of the gradient. A logit adjustment as in arXiv 2007.07314, section 4.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        weight: Optional[Sequence[float]] = None,
        ignore_index: int = 255,
        top_k_percent_pixels: float = 1.0,
        avg_non_ignore: bool = True,
        logit_shift: float = 0.0,
    ):
        super().__init__()
        if not 0 < top_k_percent_pixels <= 1:
            raise ValueError(f"top_k_percent_pixels: {top_k_percent_pixels} is not in (0, 1]")
        self.weight = class_weights(weight)
        self.ignore_index = ignore_index
        self.top_k_percent_pixels = top_k_percent_pixels
        self.avg_non_ignore = avg_non_ignore
        self.logit_shift = logit_shift
        if logit_shift and (self.weight is None or not (self.weight.values > 0).all()):
            raise ValueError("logit_shift: needs a weight above 0 for each class")

    def forward(self, logits: paddle.Tensor, label: paddle.Tensor) -> paddle.Tensor:
        """(N, C, H, W) float, (N, H, W) integers -> scalar."""
        label = label if label.dtype == paddle.int64 else label.astype("int64")
        valid = label != self.ignore_index
        if self.logit_shift and self.weight is not None:
            shift = self.logit_shift * self.weight.tensor(logits).log()
            # Without expand_as, Paddle's broadcast is several times slower on a CPU.
            logits = logits + shift.reshape([1, -1, 1, 1]).expand_as(logits)
        losses, _ = softmax_cross_entropy(logits, label, self.ignore_index)
        share = valid.astype(losses.dtype) if self.avg_non_ignore else paddle.ones_like(losses)
        if self.weight is not None:
            _, known_label = valid_labels(label, self.ignore_index)
            weights = self.weight.of_pixels(known_label, logits)
            losses, share = losses * weights, share * weights
        if self.top_k_percent_pixels < 1:
            count = max(1, int(self.top_k_percent_pixels * losses.size))
            losses, hardest = k_largest(losses.flatten(), count)
            share = paddle.gather(share.flatten(), hardest)
        return losses.mean() / (share.mean() + _EPS)


@LOSSES.register
class BootstrappedCrossEntropyLoss(nn.Layer):
    """Mean over the hard pixels of each image: those above `loss_th`, at least the `min_K` hardest.

    Args:
        min_K: pixels of an image that always count.
        loss_th: cross-entropy above which a pixel is hard.
        weight: one weight per class, multiplied into the losses before they are ranked.
        ignore_index: label value to leave out.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        min_K: int,
        loss_th: float,
        weight: Optional[Sequence[float]] = None,
        ignore_index: int = 255,
    ):
        super().__init__()
        if min_K < 1:
            raise ValueError(f"min_K: {min_K} is not a positive number of pixels")
        self.min_K = min_K
        self.loss_th = loss_th
        self.weight = class_weights(weight)
        self.ignore_index = ignore_index

    def forward(self, logits: paddle.Tensor, label: paddle.Tensor) -> paddle.Tensor:
        """(N, C, H, W) float, (N, H, W) integers -> scalar: the mean over the images."""
        label = label if label.dtype == paddle.int64 else label.astype("int64")
        losses, _ = softmax_cross_entropy(logits, label, self.ignore_index)
        if self.weight is not None:
            _, known_label = valid_labels(label, self.ignore_index)
            losses = losses * self.weight.of_pixels(known_label, logits)
        losses = losses.flatten(1)
        count = min(self.min_K, losses.shape[1])
        hardest = paddle.stack([k_largest(image, count)[0] for image in losses.unbind(0)])
        hard = (losses > self.loss_th).astype(losses.dtype)
        above = (losses * hard).sum(1) / hard.sum(1).clip(min=1)
        # Decided by the K-th hardest pixel of each image, without a device synchronization.
        return paddle.where(hardest[:, -1] > self.loss_th, above, hardest.mean(1)).mean()
