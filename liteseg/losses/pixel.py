"""What every pixel-wise loss starts from."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Optional

import paddle
import paddle.nn.functional as F

# The function is marked deprecated since 2.0 and there in every release since; its successor does
# not return the softmax, and computing that again costs as much as the whole loss.
warnings.filterwarnings("ignore", message="[\\s\\S]*softmax_with_cross_entropy")


def softmax_cross_entropy(
    logits: paddle.Tensor, label: paddle.Tensor, ignore_index: int
) -> tuple[paddle.Tensor, paddle.Tensor]:
    """Cross-entropy of each pixel (0 where ignored) and the softmax it came from.

    (N, C, H, W), (N, H, W) int64 -> (N, H, W), (N, C, H, W); the latter carries no gradient.
    """
    losses, softmax = F.softmax_with_cross_entropy(
        logits,
        label.unsqueeze(1),
        ignore_index=ignore_index,
        axis=1,
        return_softmax=True,
    )
    return losses.squeeze(1), softmax.detach()


def label_probability(softmax: paddle.Tensor, label: paddle.Tensor) -> paddle.Tensor:
    """The probability of each pixel's label: (N, C, H, W), (N, H, W) in 0..C-1 -> (N, H, W)."""
    return paddle.take_along_axis(softmax, label.unsqueeze(1), axis=1).squeeze(1)


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
