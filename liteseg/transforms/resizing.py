"""Transforms that change the resolution.

All read "img" (h, w, 3) uint8 and, if present, "label" (h, w) uint8, and replace them: the image
bilinear without anti-aliasing (as in PaddleSeg), the label by nearest neighbor.

The transforms for evaluation append ("resize", (h, w) before) to "trans_info", so that a prediction
can be resized to the size of the input; the random scalings for training do not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Optional

import cv2
import numpy as np

from liteseg.registry import TRANSFORMS
from liteseg.transforms import arguments as args
from liteseg.transforms.base import Transform, record_size, resize_sample

INTERPOLATIONS = {
    "NEAREST": cv2.INTER_NEAREST,
    "LINEAR": cv2.INTER_LINEAR,
    "CUBIC": cv2.INTER_CUBIC,
    "AREA": cv2.INTER_AREA,
    "LANCZOS4": cv2.INTER_LANCZOS4,
}


def _scaled(h: int, w: int, scale: float) -> tuple[int, int]:
    return max(1, round(h * scale)), max(1, round(w * scale))


@TRANSFORMS.register
class Resize(Transform):
    """Resize to a fixed size.

    Reads and writes "img", "label"; appends to "trans_info".

    Args:
        target_size: (width, height).
        keep_ratio: fit the image into target_size (long side to long side, short to short).
        size_divisor: then round both sides up to a multiple of this.
        interp: NEAREST, LINEAR, CUBIC, AREA, LANCZOS4, or RANDOM for one of them at each call.

    Raises:
        ValueError: an argument is not as described.
    """

    keeps_geometry = True

    def __init__(
        self,
        target_size: Sequence[int] = (512, 512),
        keep_ratio: bool = False,
        size_divisor: Optional[int] = None,
        interp: str = "LINEAR",
    ):
        self.size = args.size_hw("target_size", target_size)
        known = [*INTERPOLATIONS, "RANDOM"]
        args.expect(interp in known, "interp", interp, f"one of {', '.join(known)}")
        if size_divisor is not None:
            args.positive_int("size_divisor", size_divisor)
        self.keep_ratio = keep_ratio
        self.size_divisor = size_divisor or 1
        self.interp = interp
        self.random = interp == "RANDOM"

    def _apply(self, sample: dict, rng: np.random.Generator) -> dict:
        interp = self.interp
        if interp == "RANDOM":
            interp = list(INTERPOLATIONS)[rng.integers(len(INTERPOLATIONS))]
        record_size(sample, "resize")
        (h, w), (height, width) = sample["img"].shape[:2], self.size
        if self.keep_ratio:
            scale = min(max(self.size) / max(h, w), min(self.size) / min(h, w))
            height, width = _scaled(h, w, scale)
        height, width = (
            math.ceil(side / self.size_divisor) * self.size_divisor for side in (height, width)
        )
        return resize_sample(sample, (height, width), INTERPOLATIONS[interp])


class _ScaleForEvaluation(Transform):
    """Base of the transforms that resize by `_scale(h, w)` and keep the aspect ratio."""

    random, keeps_geometry = False, True

    def _apply(self, sample: dict, rng: np.random.Generator) -> dict:
        record_size(sample, "resize")
        h, w = sample["img"].shape[:2]
        return resize_sample(sample, _scaled(h, w, self._scale(h, w)))

    def _scale(self, h: int, w: int) -> float:
        raise NotImplementedError


@TRANSFORMS.register
class ResizeByLong(_ScaleForEvaluation):
    """Resize the long side to `long_size` pixels, keeping the aspect ratio.

    Reads and writes "img", "label"; appends to "trans_info".
    """

    def __init__(self, long_size: int):
        self.long_size = args.positive_int("long_size", long_size)

    def _scale(self, h: int, w: int) -> float:
        return self.long_size / max(h, w)


@TRANSFORMS.register
class ResizeByShort(_ScaleForEvaluation):
    """Resize the short side to `short_size` pixels, keeping the aspect ratio.

    Reads and writes "img", "label"; appends to "trans_info".

    Args:
        short_size: pixels.
        max_size: maximum long side in pixels; a larger one is resized to it instead.
    """

    def __init__(self, short_size: int, max_size: float = 1e10):
        self.short_size = args.positive_int("short_size", short_size)
        ok = args.is_number(max_size) and max_size >= 1
        args.expect(ok, "max_size", max_size, "a number of at least 1")
        self.max_size = max_size

    def _scale(self, h: int, w: int) -> float:
        short = self.short_size
        if short / min(h, w) * max(h, w) > self.max_size:
            short = int(self.max_size / max(h, w) * min(h, w))
        return short / min(h, w)


@TRANSFORMS.register
class LimitLong(_ScaleForEvaluation):
    """Limit the long side to [min_long, max_long], keeping the aspect ratio.

    Reads and writes "img", "label"; appends to "trans_info".

    Args:
        max_long: maximum long side in pixels; None for no limit.
        min_long: minimum long side in pixels; None for no limit.
    """

    def __init__(self, max_long: Optional[int] = None, min_long: Optional[int] = None):
        if max_long is not None:
            args.positive_int("max_long", max_long)
        if min_long is not None:
            args.positive_int("min_long", min_long)
            ok = max_long is None or min_long <= max_long
            args.expect(ok, "min_long", min_long, f"at most max_long ({max_long})")
        self.max_long = max_long or math.inf
        self.min_long = min_long or 0

    def _scale(self, h: int, w: int) -> float:
        long = max(h, w)
        return max(min(long, self.max_long), self.min_long) / long


class RandomScaling(Transform):
    """Base of the random scalings: resize to `target_size_for(h, w, rng)`."""

    random, keeps_geometry = True, False

    def _apply(self, sample: dict, rng: np.random.Generator) -> dict:
        h, w = sample["img"].shape[:2]
        return resize_sample(sample, self.target_size_for(h, w, rng))

    def target_size_for(self, h: int, w: int, rng: np.random.Generator) -> tuple[int, int]:
        """A random new size (h, w) of an `h` x `w` image."""
        return _scaled(h, w, self._draw_scale(h, w, rng))

    def _draw_scale(self, h: int, w: int, rng: np.random.Generator) -> float:
        raise NotImplementedError


@TRANSFORMS.register
class ResizeRangeScaling(RandomScaling):
    """Resize the long side to a random length, keeping the aspect ratio.

    Reads and writes "img", "label".

    Args:
        min_value: minimum length of the long side in pixels.
        max_value: maximum length of the long side in pixels.
    """

    def __init__(self, min_value: int = 400, max_value: int = 600):
        self.min_value = args.positive_int("min_value", min_value)
        self.max_value = args.positive_int("max_value", max_value)
        ok = min_value <= max_value
        args.expect(ok, "min_value", min_value, f"at most max_value ({max_value})")

    def _draw_scale(self, h: int, w: int, rng: np.random.Generator) -> float:
        long = self.max_value
        if self.min_value < self.max_value:
            long = int(rng.uniform(self.min_value, self.max_value) + 0.5)
        return long / max(h, w)


@TRANSFORMS.register
class ResizeStepScaling(RandomScaling):
    """Resize by a random factor.

    Reads and writes "img", "label".

    Args:
        min_scale_factor: minimum factor.
        max_scale_factor: maximum factor.
        scale_step_size: distance between the factors to choose from, both ends included; 0 for any
            factor in the range.
    """

    def __init__(
        self,
        min_scale_factor: float = 0.75,
        max_scale_factor: float = 1.25,
        scale_step_size: float = 0.25,
    ):
        self.low = args.positive("min_scale_factor", min_scale_factor)
        self.high = args.positive("max_scale_factor", max_scale_factor)
        expected = f"at most max_scale_factor ({max_scale_factor})"
        args.expect(self.low <= self.high, "min_scale_factor", min_scale_factor, expected)
        self.interval = args.non_negative("scale_step_size", scale_step_size)

    def _draw_scale(self, h: int, w: int, rng: np.random.Generator) -> float:
        if self.interval == 0:
            return rng.uniform(self.low, self.high)
        # (2.0 - 0.6) / 0.2 is 6.999…: without the tolerance a factor would be lost.
        intervals = int((self.high - self.low) / self.interval + 1e-6)
        return float(np.linspace(self.low, self.high, intervals + 1)[rng.integers(intervals + 1)])
