"""From images to labels: plain, by sliding window, and over scales and flips.

Sizes: N images, C classes, (H, W) the size handed to the network, (h, w) the original one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import paddle
import paddle.nn.functional as F

from liteseg.ops.upsample import labels_at_full_size

if TYPE_CHECKING:
    from liteseg.config.test_config import TestConfig

Size = tuple[int, int]
TransInfo = Sequence[tuple[str, Sequence[int]]]


class Prediction(NamedTuple):
    """What the network said, and the way back from its size to the original one.

    The way is kept apart because labels can be had much cheaper than full-size logits.

    Attributes:
        scores: (N, C, ., .) float tensor, logits before the network's own upsampling if it has
            `coarse_logits`, or (`summed`) sums of probabilities.
        steps: ("resize" | "crop", (h, w)) in the order to apply.
        summed: whether the scores are probabilities summed over several views.
    """

    scores: paddle.Tensor
    steps: tuple[tuple[str, Size], ...]
    summed: bool

    @paddle.no_grad()
    def full_scores(self) -> paddle.Tensor:
        """Scores at the original size, (N, C, h, w) float."""
        scores = self.scores
        for step, (h, w) in self.steps:
            if step == "resize":
                scores = _resize(scores, (h, w))
            else:
                scores = scores[:, :, :h, :w]
        return scores

    @paddle.no_grad()
    def logits(self) -> paddle.Tensor:
        """Logits at the original size, (N, C, h, w); of the mean probability if there are views."""
        scores = self.full_scores()
        return paddle.log(scores.clip(min=1e-12)) if self.summed else scores

    @paddle.no_grad()
    def labels(self) -> np.ndarray:
        """Class with the highest score, first one on ties: (N, h, w) uint8."""
        if self.scores.place.is_cpu_place():
            scores = _as_numpy(self.scores)
            return np.stack([labels_at_full_size(one, self.steps) for one in scores])
        best = paddle.argmax(self.full_scores(), axis=1, dtype="int32")
        return best.astype("uint8").numpy()


@paddle.no_grad()
def predict(
    model: paddle.nn.Layer,
    images: paddle.Tensor,
    test: TestConfig,
    trans_info: TransInfo = (),
) -> Prediction:
    """Run the network as `test` says.

    Args:
        model: in eval mode; maps (N, 3, H, W) to a list whose first item is (N, C, H, W) logits.
        images: (N, 3, H, W) float32, normalised.
        test: scales, flips, sliding window.
        trans_info: ("resize" | "padding", (h, w)): the size before each step of the validation
            transforms, the same for all images.
    """
    size = tuple(images.shape[-2:])
    back = tuple(
        ("resize" if step == "resize" else "crop", (int(before[0]), int(before[1])))
        for step, before in reversed(list(trans_info))
    )
    views = test.views()
    resized_later = any(step == "resize" for step, _ in back)
    if len(views) == 1 and not (test.aug_eval and resized_later):
        # Softmax keeps the order of the scores of a pixel: one view needs none. (Only where the
        # validation transforms resize, PaddleSeg interpolates probabilities: then so do we.)
        scaled = _scaled(images, views[0][0], size)
        if test.is_slide:
            logits = _forward(model, scaled, test)
        else:  # the network's own upsampling is a step like the others
            logits = getattr(model, "coarse_logits", model)(scaled)[0]
        sizes = (tuple(scaled.shape[-2:]), size)
        return Prediction(logits, (*(("resize", one) for one in sizes), *back), summed=False)

    total = None
    for scale, flip in views:
        scaled = _scaled(images, scale, size)
        logits = _forward(model, scaled.flip(list(flip)) if flip else scaled, test)
        logits = logits.flip(list(flip)) if flip else logits
        probabilities = F.softmax(_resize(logits, size), axis=1)
        total = probabilities if total is None else total + probabilities
    return Prediction(total, back, summed=True)


def predict_logits(
    model: paddle.nn.Layer, images: paddle.Tensor, test: TestConfig
) -> paddle.Tensor:
    """Scores at the input size, (N, C, H, W): logits; of several views, summed probabilities."""
    return predict(model, images, test).full_scores()


def predict_labels(
    model: paddle.nn.Layer,
    images: paddle.Tensor,
    test: TestConfig,
    trans_info: TransInfo = (),
) -> np.ndarray:
    """Labels at the original size, (N, h, w) uint8. Arguments as in `predict`."""
    return predict(model, images, test, trans_info).labels()


def _forward(model: paddle.nn.Layer, images: paddle.Tensor, test: TestConfig) -> paddle.Tensor:
    if not test.is_slide:
        return model(images)[0]
    (crop_w, crop_h), (step_w, step_h) = test.crop_size, test.stride
    height, width = images.shape[-2:]
    lefts, strips = _starts(width, crop_w, step_w), []
    tops = _starts(height, crop_h, step_h)
    for top in tops:
        row = images[:, :, top : top + crop_h]
        windows = [model(row[..., left : left + crop_w])[0] for left in lefts]
        strips.append(_mean_of_overlaps(windows, lefts, axis=3))
    # Every pixel lies in (rows over it) x (columns over it) windows: the mean of means is the mean.
    return _mean_of_overlaps(strips, tops, axis=2)


def _starts(size: int, crop: int, step: int) -> list[int]:
    """Where windows begin along one axis; the last one is moved inwards to end at the edge."""
    count = max(math.ceil((size - crop) / step) + 1, 1)
    return [max(min(i * step, size - crop), 0) for i in range(count)]


def _mean_of_overlaps(pieces: list[paddle.Tensor], starts: list[int], axis: int) -> paddle.Tensor:
    """Lay pieces that overlap along `axis` out in one tensor, taking the mean where they overlap.

    Cut at every piece's ends and put together again, which on CPU is 20 times faster than adding
    into slices of one large tensor.
    """
    ends = [start + piece.shape[axis] for start, piece in zip(starts, pieces)]
    cuts = sorted({*starts, *ends})
    parts = []
    for low, high in zip(cuts, cuts[1:]):
        over = [
            piece.slice([axis], [low - start], [high - start])
            for piece, start, end in zip(pieces, starts, ends)
            if start <= low and high <= end
        ]
        parts.append(over[0] if len(over) == 1 else paddle.add_n(over) / len(over))
    return parts[0] if len(parts) == 1 else paddle.concat(parts, axis=axis)


def _scaled(images: paddle.Tensor, scale: float, size: Size) -> paddle.Tensor:
    return _resize(images, (int(size[0] * scale + 0.5), int(size[1] * scale + 0.5)))


def _resize(images: paddle.Tensor, size: Size) -> paddle.Tensor:
    if tuple(images.shape[-2:]) == tuple(size):
        return images
    return F.interpolate(images, list(size), mode="bilinear", align_corners=False)


def _as_numpy(tensor: paddle.Tensor) -> np.ndarray:
    """A CPU tensor as an array, without copying where Paddle can (3.x)."""
    return np.from_dlpack(tensor) if hasattr(tensor, "__dlpack__") else tensor.numpy()
