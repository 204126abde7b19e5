"""From images to labels: in one pass, by sliding window, and over scales and flips.

Sizes: N images, C classes, (H, W) of the network's input, (h, w) of the original image.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Optional, Protocol

import numpy as np
import paddle
import paddle.nn.functional as F

from liteseg.ops.labels import padded, report_shift
from liteseg.ops.resize import interpolate, pad_to, resized_labels, resized_scores

Size = tuple[int, int]
TransInfo = Sequence[tuple[str, Sequence[int]]]


class TestOptions(Protocol):
    """Scales, flips, sliding window and padding, as in `TestConfig`."""

    @property
    def aug_eval(self) -> bool:
        """Whether scales and flips apply."""

    @property
    def is_slide(self) -> bool:
        """Whether to run the network on windows."""

    @property
    def crop_size(self) -> Optional[Size]:
        """(w, h) of a window."""

    @property
    def stride(self) -> Optional[Size]:
        """(w, h) between windows."""

    @property
    def pad_multiple(self) -> Optional[int]:
        """The sides of the network's input are padded to multiples of it."""

    def views(self) -> list[tuple[float, tuple[int, ...]]]:
        """The (scale, axes to flip) of every forward pass."""


class Prediction(NamedTuple):
    """The output of the network, and the operations that bring it to the original size.

    They are not applied yet, because labels are much cheaper than full-size logits.

    Attributes:
        scores: (N, C, ., .) float32: logits, before the network's own upsampling if it has
            `coarse_logits`, or sums of probabilities (`summed`).
        steps: ("resize" | "crop", (h, w)) in the order to apply.
        summed: whether the scores are probabilities summed over several views.
    """

    scores: paddle.Tensor
    steps: tuple[tuple[str, Size], ...]
    summed: bool

    def full_scores(self) -> paddle.Tensor:
        """Scores at the original size, (N, C, h, w) float32."""
        return resized_scores(self.scores, self.steps)

    @paddle.no_grad()
    def logits(self) -> paddle.Tensor:
        """Logits at the original size, (N, C, h, w); of the mean probability of several views."""
        scores = self.full_scores()
        return paddle.log(scores.clip(min=1e-12)) if self.summed else scores

    def labels(self) -> np.ndarray:
        """The class with the highest score, the first one on ties: (N, h, w) uint8."""
        return resized_labels(self.scores, self.steps)


@paddle.no_grad()
def predict(
    model: paddle.nn.Layer,
    images: paddle.Tensor,
    test: TestOptions,
    trans_info: TransInfo = (),
) -> Prediction:
    """Run the network with the options of `test`.

    Args:
        model: in eval mode; maps (N, 3, H, W) to a list whose first item is (N, C, H, W) logits.
        images: (N, 3, H, W) float32, normalized.
        test: scales, flips, sliding window.
        trans_info: ("resize" | "padding", (h, w)): the size before each of the validation
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
        # One view needs no softmax, which keeps the order of a pixel's scores. (With `aug_eval` and
        # validation transforms that resize, PaddleSeg interpolates probabilities, as below.)
        scaled = _scaled(images, views[0][0], size)
        inner: Size = tuple(scaled.shape[-2:])
        steps: tuple[tuple[str, Size], ...] = (("resize", inner), ("resize", size), *back)
        if test.is_slide:
            logits = _forward(model, scaled, test)
        else:  # the network's own upsampling becomes the first step
            outer = padded(inner, test.pad_multiple)
            logits = getattr(model, "coarse_logits", model)(pad_to(scaled, outer))[0]
            report_shift(outer, logits.shape[-2:], "")
            if outer != inner:
                steps = (("resize", outer), ("crop", inner), *steps[1:])
        return Prediction(logits, steps, summed=False)

    total: Any = None
    for scale, flip in views:
        scaled = _scaled(images, scale, size)
        logits = _forward(model, scaled.flip(list(flip)) if flip else scaled, test)
        logits = logits.flip(list(flip)) if flip else logits
        probabilities = F.softmax(interpolate(logits, size), axis=1)
        total = probabilities if total is None else total + probabilities
    return Prediction(total, back, summed=True)


def predict_scores(
    model: paddle.nn.Layer, images: paddle.Tensor, test: TestOptions
) -> paddle.Tensor:
    """Scores at the input size, (N, C, H, W): logits, or summed probabilities of several views."""
    return predict(model, images, test).full_scores()


def predict_labels(
    model: paddle.nn.Layer,
    images: paddle.Tensor,
    test: TestOptions,
    trans_info: TransInfo = (),
) -> np.ndarray:
    """Labels at the original size, (N, h, w) uint8. Arguments as in `predict`."""
    return predict(model, images, test, trans_info).labels()


def _forward(model: paddle.nn.Layer, images: paddle.Tensor, test: TestOptions) -> paddle.Tensor:
    if not test.is_slide:
        return _padded_forward(model, images, test.pad_multiple)
    if test.crop_size is None or test.stride is None:
        raise ValueError("a sliding window needs crop_size and stride")
    (crop_w, crop_h), (stride_w, stride_h) = test.crop_size, test.stride
    height, width = images.shape[-2:]
    lefts, tops = _starts(width, crop_w, stride_w), _starts(height, crop_h, stride_h)

    def strip(top: int) -> paddle.Tensor:
        row = images[:, :, top : top + crop_h]
        windows = (row[..., left : left + crop_w] for left in lefts)
        logits = (_padded_forward(model, window, test.pad_multiple) for window in windows)
        return _mean_of_overlaps(logits, lefts, axis=3)

    # The windows over a pixel are (rows over it) x (columns over it), so the mean of the means is
    # their mean.
    return _mean_of_overlaps(map(strip, tops), tops, axis=2)


def _padded_forward(
    model: paddle.nn.Layer, images: paddle.Tensor, multiple: Optional[int]
) -> paddle.Tensor:
    """Logits at the size of the images, from a network input padded with zeros.

    After normalization with the usual mean of 0.5, zero is the gray of padded training crops.
    """
    h, w = size = tuple(images.shape[-2:])
    return model(pad_to(images, padded(size, multiple)))[0][:, :, :h, :w]


def _starts(size: int, crop: int, stride: int) -> list[int]:
    """Where windows begin along one axis; the last one is moved inwards to end at the edge."""
    count = max(math.ceil((size - crop) / stride) + 1, 1)
    return [max(min(i * stride, size - crop), 0) for i in range(count)]


def _mean_of_overlaps(
    pieces: Iterable[paddle.Tensor], starts: Sequence[int], axis: int
) -> paddle.Tensor:
    """Join pieces that overlap along `axis` into one tensor, with the mean where they overlap.

    A piece is kept only until the next one starts behind its end. Cutting at the ends of all pieces
    and concatenating is 20 times faster on a CPU than adding into slices of one large tensor.
    """
    parts: list[paddle.Tensor] = []
    current: list[tuple[int, int, paddle.Tensor]] = []  # (start, end, piece)
    low: float = 0
    for start, piece, following in zip(starts, pieces, [*starts[1:], math.inf]):
        current.append((start, start + piece.shape[axis], piece))
        del piece
        for high in sorted({end for _, end, _ in current} | {following} - {math.inf}):
            if not low < high <= following:
                continue
            over = [p.slice([axis], [low - s], [high - s]) for s, e, p in current if high <= e]
            parts.append(over[0] if len(over) == 1 else paddle.add_n(over) / len(over))
            low = high
        current = [(s, e, p) for s, e, p in current if e > low]
    return parts[0] if len(parts) == 1 else paddle.concat(parts, axis=axis)


def _scaled(images: paddle.Tensor, scale: float, size: Size) -> paddle.Tensor:
    return interpolate(images, (int(size[0] * scale + 0.5), int(size[1] * scale + 0.5)))
