"""Online hard example mining (arXiv 1604.03540) on pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Callable, Optional

import paddle
from paddle import nn

from liteseg.losses.class_weights import class_weights
from liteseg.ops.cross_entropy import label_probability, softmax_cross_entropy, valid_labels
from liteseg.ops.selection import kth_smallest
from liteseg.registry import LOSSES

_EPS = 1e-5  # the published value, part of the published numerics
_RECIPE_SHARE = 1 / 16  # min_kept / pixels of a device's batch, in every published recipe


@LOSSES.register
class OhemCrossEntropyLoss(nn.Layer):
    """Cross-entropy over the pixels whose label has a probability below the threshold.

    The threshold is `thresh`, or the `min_kept`-th smallest probability in the batch where that is
    larger; a batch with at most `min_kept` valid pixels keeps them all. As published, "below"
    excludes the `min_kept`-th pixel itself and those tied with it.

    Args:
        thresh: probability below which a pixel is hard.
        min_kept: approximate minimum of pixels to keep in a batch (on one device); 0: no minimum.
        ignore_index: label value to leave out.
        weight: one weight per class; it scales the losses, the mean stays over the kept pixels.
        min_kept_ratio: replaces `min_kept` by a share of the batch's pixels (1/16 in the recipes),
            which follows batch and crop size.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        thresh: float = 0.7,
        min_kept: int = 10000,
        ignore_index: int = 255,
        weight: Optional[Sequence[float]] = None,
        min_kept_ratio: Optional[float] = None,
    ):
        super().__init__()
        if not 0 <= thresh <= 1:
            raise ValueError(f"thresh: {thresh} is not a probability between 0 and 1")
        if min_kept < 0:
            raise ValueError(f"min_kept: {min_kept} is not a number of pixels")
        if min_kept_ratio is not None and not 0 <= min_kept_ratio <= 1:
            raise ValueError(f"min_kept_ratio: {min_kept_ratio} is not a share between 0 and 1")
        self.thresh = thresh
        self.min_kept = min_kept
        self.ignore_index = ignore_index
        self.weight = class_weights(weight)
        self.min_kept_ratio = min_kept_ratio

    def forward(self, logits: paddle.Tensor, label: paddle.Tensor) -> paddle.Tensor:
        """(N, C, H, W) float, (N, H, W) integers -> scalar."""
        label = label if label.dtype == paddle.int64 else label.astype("int64")
        valid, known_label = valid_labels(label, self.ignore_index)
        losses, softmax = softmax_cross_entropy(logits, label, self.ignore_index)
        with paddle.no_grad():
            kept = self._select(softmax, known_label, valid).astype(losses.dtype)
        losses = losses * kept
        if self.weight is not None:
            losses = losses * self.weight.of_pixels(known_label, logits)
        return losses.mean() / (kept.mean() + _EPS)

    def _select(
        self, softmax: paddle.Tensor, label: paddle.Tensor, valid: paddle.Tensor
    ) -> paddle.Tensor:
        """The mask of the kept pixels, (N, H, W) bool, without a device synchronization."""
        probability = label_probability(softmax, label)
        min_kept = self.min_kept
        if self.min_kept_ratio is not None:
            min_kept = int(self.min_kept_ratio * label.size)
        threshold = paddle.full([], self.thresh, probability.dtype)
        if min_kept > 0:
            ranked = probability + (~valid).astype(probability.dtype)  # ignored pixels rank last
            kth = kth_smallest(ranked.flatten(), min(min_kept, label.size))
            threshold = paddle.maximum(threshold, kth)
        few = valid.astype("int64").sum() <= min_kept
        return valid & ((probability < threshold) | few)


def check_min_kept(
    losses: Sequence[tuple[str, nn.Layer, float]],
    batch_size: int,
    image_size: Callable[[], tuple[int, int]],
) -> list[str]:
    """Warnings about each `min_kept` that is far from the recipes' share of a device's batch.

    `min_kept` is a number of pixels, so another batch or crop size changes the loss.

    Args:
        losses: (name, loss, coefficient).
        batch_size: images per forward pass on one device.
        image_size: returns the (h, w) of an image; called only if a loss has a `min_kept`.
    """
    warnings = []
    for name, loss, _ in losses:
        for layer in loss.sublayers(include_self=True):
            if not isinstance(layer, OhemCrossEntropyLoss) or layer.min_kept_ratio is not None:
                continue
            height, width = image_size()
            pixels = batch_size * height * width
            share = layer.min_kept / pixels
            if layer.min_kept and not 0.8 <= share / _RECIPE_SHARE <= 1.25:
                warnings.append(
                    f"{name}: min_kept {layer.min_kept} is {share:.1%} of the {pixels} pixels of a "
                    f"device's batch ({batch_size} x {width}x{height}); the recipes keep "
                    f"{_RECIPE_SHARE:.2%}: min_kept {pixels * _RECIPE_SHARE:.0f}, or "
                    f"min_kept_ratio {_RECIPE_SHARE} for any batch and crop"
                )
    return warnings
