"""What every pixel-wise loss starts from."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Optional

import paddle
import paddle.nn.functional as F

from liteseg.ops import onednn

# The function is marked deprecated since 2.0 and there in every release since; its successor does
# not return the softmax, and computing that again costs as much as the whole loss.
warnings.filterwarnings("ignore", message="[\\s\\S]*softmax_with_cross_entropy")


def softmax_cross_entropy(
    logits: paddle.Tensor, label: paddle.Tensor, ignore_index: int
) -> tuple[paddle.Tensor, paddle.Tensor]:
    """Cross-entropy of each pixel (0 where ignored) and the softmax it came from.

    (N, C, H, W), (N, H, W) int64 -> (N, H, W), (N, C, H, W); the latter carries no gradient.
    """
    if onednn.takes(logits):
        return _CrossEntropy.apply(logits, label, ignore_index)
    losses, softmax = F.softmax_with_cross_entropy(
        logits,
        label.unsqueeze(1),
        ignore_index=ignore_index,
        axis=1,
        return_softmax=True,
    )
    return losses.squeeze(1), softmax.detach()


def known_labels(label: paddle.Tensor, ignore_index: int) -> tuple[paddle.Tensor, paddle.Tensor]:
    """Which pixels are not ignored, and the labels with class 0 for those that are: (N, H, W)."""
    valid = label != ignore_index
    return valid, label * valid.astype(label.dtype)


class _CrossEntropy(paddle.autograd.PyLayer):
    """The same from a softmax of oneDNN's, which takes a fifth of the time of Paddle's on a CPU."""

    @staticmethod
    def forward(ctx, logits: paddle.Tensor, label: paddle.Tensor, ignore_index: int):
        softmax = onednn.softmax(logits)
        ctx.ignore_index = ignore_index
        ctx.save_for_backward(softmax, label)  # no more: it takes memory until the backward pass
        ctx.mark_non_differentiable(softmax)
        valid, known_label = known_labels(label, ignore_index)
        # Paddle's kernel too takes no difference of logits for larger than 64.
        probability = label_probability(softmax, known_label).clip(min=math.exp(-64))
        return -probability.log() * valid.astype(softmax.dtype), softmax

    @staticmethod
    def backward(ctx, gradient: paddle.Tensor, _: paddle.Tensor):
        """For each pixel, its `gradient` times the softmax, less 1 at the label."""
        softmax, label = ctx.saved_tensor()
        valid, label = known_labels(label, ctx.ignore_index)
        gradient = gradient * valid.astype(gradient.dtype)
        at_label = (label_probability(softmax, label) - 1) * gradient
        all_classes = gradient.unsqueeze(1).expand_as(softmax).multiply_(softmax)
        return all_classes.put_along_axis_(label.unsqueeze(1), at_label.unsqueeze(1), axis=1)


def label_probability(softmax: paddle.Tensor, label: paddle.Tensor) -> paddle.Tensor:
    """The probability of each pixel's label: (N, C, H, W), (N, H, W) in 0..C-1 -> (N, H, W)."""
    # Without `broadcast=False` it copies all of `softmax` first.
    return paddle.take_along_axis(softmax, label.unsqueeze(1), axis=1, broadcast=False).squeeze(1)


def class_weight(weight: Optional[Sequence[float]]) -> Optional[paddle.Tensor]:
    """Weights of the classes as a float32 tensor (C,), or None.

    Raises:
        ValueError: a weight is negative or not finite.
    """
    if weight is None:
        return None
    tensor = paddle.to_tensor(list(weight), dtype="float32")
    if not bool((paddle.isfinite(tensor) & (tensor >= 0)).all()):
        raise ValueError(f"weight: {list(weight)} must be finite and not negative")
    return tensor


def pixel_weight(
    weight: paddle.Tensor, label: paddle.Tensor, logits: paddle.Tensor
) -> paddle.Tensor:
    """The weight of each pixel's class: (C,), (N, H, W) in 0..C-1 -> (N, H, W).

    Raises:
        ValueError: there is not one weight for each class of `logits`.
    """
    require_one_each(weight, logits)
    return paddle.gather(weight, label.flatten()).reshape(label.shape)


def require_one_each(weight: paddle.Tensor, logits: paddle.Tensor) -> None:
    """Raise ValueError unless there is one weight for each class of `logits`."""
    if weight.shape[0] != logits.shape[1]:
        raise ValueError(
            f"weight: {weight.shape[0]} class weights for {logits.shape[1]} classes; give one each"
        )
