"""Softmax cross-entropy per pixel."""

from __future__ import annotations

import math
import warnings

import paddle
import paddle.nn.functional as F

from liteseg.ops import onednn

# The function is marked as deprecated since 2.0 and exists in every release since. Its successor
# does not return the softmax, which costs as much to compute again as the whole loss.
warnings.filterwarnings("ignore", message="[\\s\\S]*softmax_with_cross_entropy")


def softmax_cross_entropy(
    logits: paddle.Tensor, label: paddle.Tensor, ignore_index: int
) -> tuple[paddle.Tensor, paddle.Tensor]:
    """Cross-entropy of each pixel (0 where ignored) and the softmax it was computed from.

    (N, C, H, W), (N, H, W) int64 -> (N, H, W), (N, C, H, W); the latter carries no gradient.
    """
    if onednn.supports(logits):
        return _CrossEntropy.apply(logits, label, ignore_index)
    losses, softmax = F.softmax_with_cross_entropy(
        logits,
        label.unsqueeze(1),
        ignore_index=ignore_index,
        axis=1,
        return_softmax=True,
    )
    return losses.squeeze(1), softmax.detach()


class _CrossEntropy(paddle.autograd.PyLayer):
    """The same from oneDNN's softmax, which takes a fifth of the time of Paddle's on a CPU."""

    @staticmethod
    def forward(ctx, logits: paddle.Tensor, label: paddle.Tensor, ignore_index: int):
        softmax = onednn.softmax(logits)
        ctx.ignore_index = ignore_index
        ctx.save_for_backward(softmax, label)  # as little as possible, held until the backward pass
        ctx.mark_non_differentiable(softmax)
        valid, known_label = valid_labels(label, ignore_index)
        # Paddle's kernel also limits the difference of two logits to 64.
        probability = label_probability(softmax, known_label).clip(min=math.exp(-64))
        return -probability.log() * valid.astype(softmax.dtype), softmax

    @staticmethod
    def backward(ctx, gradient: paddle.Tensor, _: paddle.Tensor):
        """The `gradient` of each pixel times the softmax, minus 1 at the label."""
        softmax, label = ctx.saved_tensor()
        valid, label = valid_labels(label, ctx.ignore_index)
        gradient = gradient * valid.astype(gradient.dtype)
        at_label = (label_probability(softmax, label) - 1) * gradient
        all_classes = gradient.unsqueeze(1).expand_as(softmax).multiply_(softmax)
        return all_classes.put_along_axis_(label.unsqueeze(1), at_label.unsqueeze(1), axis=1)


def valid_labels(label: paddle.Tensor, ignore_index: int) -> tuple[paddle.Tensor, paddle.Tensor]:
    """The mask of pixels that are not ignored, and the labels with class 0 for the ignored ones.

    (N, H, W) int64 -> (N, H, W) bool, (N, H, W) int64.
    """
    valid = label != ignore_index
    return valid, label * valid.astype(label.dtype)


def label_probability(softmax: paddle.Tensor, label: paddle.Tensor) -> paddle.Tensor:
    """The probability of each pixel's label: (N, C, H, W), (N, H, W) in 0..C-1 -> (N, H, W)."""
    # Without `broadcast=False` it copies all of `softmax` first.
    return paddle.take_along_axis(softmax, label.unsqueeze(1), axis=1, broadcast=False).squeeze(1)
