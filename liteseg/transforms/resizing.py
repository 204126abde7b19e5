"""Transforms that change the resolution.

All read "img" (h, w, 3) uint8 and, if present, "label" (h, w) uint8, and replace them: the image
bilinear without anti-aliasing (as in PaddleSeg), the label by nearest neighbor. They change the
given sample and return it.

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
from liteseg.transforms import functional as F

INTERPOLATIONS = {
    "NEAREST": cv2.INTER_NEAREST,
    "LINEAR": cv2.INTER_LINEAR,
    "CUBIC": cv2.INTER_CUBIC,
    "AREA": cv2.INTER_AREA,
    "LANCZOS4": cv2.INTER_LANCZOS4,
}


def resize_sample(sample: dict, size: tuple[int, int], interp: int = cv2.INTER_LINEAR) -> dict:
    """Resize image (by `interp`) and label (by nearest neighbor) to `size` (h, w)."""
    sample["img"] = F.resize(sample["img"], size, interp)
    if "label" in sample:
        sample["label"] = F.resize(sample["label"], size, cv2.INTER_NEAREST)
    return sample


def record_size(sample: dict, operation: str) -> None:
    """Append (`operation`, current (h, w) of the image) to the sample's "trans_info"."""
    sample.setdefault("trans_info", []).append((operation, sample["img"].shape[:2]))


def _scaled(h: int, w: int, scale: float) -> tuple[int, int]:
    return max(1, round(h * scale)), max(1, round(w * scale))


@TRANSFORMS.register
class Resize:
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
        self.size_divisor = size_divisor
        self.interp = interp

    def target_size_for(self, h: int, w: int) -> tuple[int, int]:
        """The new size (h, w) of an `h` x `w` image."""
        size = self.size
        if self.keep_ratio:
            size = _scaled(h, w, min(max(size) / max(h, w), min(size) / min(h, w)))
        if self.size_divisor is not None:
            divisor = self.size_divisor
            size = (math.ceil(size[0] / divisor) * divisor, math.ceil(size[1] / divisor) * divisor)
        return size

    def __call__(self, sample: dict, rng: Optional[np.random.Generator] = None) -> dict:
        """Resize the sample; with interp RANDOM, by a method drawn from `rng`."""
        interp = self.interp
        if interp == "RANDOM":
            rng = rng or np.random.default_rng()
            interp = list(INTERPOLATIONS)[rng.integers(len(INTERPOLATIONS))]
        record_size(sample, "resize")
        size = self.target_size_for(*sample["img"].shape[:2])
        return resize_sample(sample, size, INTERPOLATIONS[interp])


@TRANSFORMS.register
class ResizeByLong:
    """Resize the long side to `long_size` pixels, keeping the aspect ratio.

    Reads and writes "img", "label"; appends to "trans_info".
    """

    def __init__(self, long_size: int):
        self.long_size = args.positive_int("long_size", long_size)

    def __call__(self, sample: dict, rng: Optional[np.random.Generator] = None) -> dict:
        """Resize the sample."""
        record_size(sample, "resize")
        h, w = sample["img"].shape[:2]
        return resize_sample(sample, _scaled(h, w, self.long_size / max(h, w)))


@TRANSFORMS.register
class ResizeByShort:
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

    def __call__(self, sample: dict, rng: Optional[np.random.Generator] = None) -> dict:
        """Resize the sample."""
        record_size(sample, "resize")
        h, w = sample["img"].shape[:2]
        short = self.short_size
        if short / min(h, w) * max(h, w) > self.max_size:
            short = int(self.max_size / max(h, w) * min(h, w))
        return resize_sample(sample, _scaled(h, w, short / min(h, w)))


@TRANSFORMS.register
class LimitLong:
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
        self.max_long = max_long
        self.min_long = min_long

    def __call__(self, sample: dict, rng: Optional[np.random.Generator] = None) -> dict:
        """Resize the sample if its long side is outside the limits."""
        record_size(sample, "resize")
        h, w = sample["img"].shape[:2]
        long = max(h, w)
        if self.max_long is not None:
            long = min(long, self.max_long)
        if self.min_long is not None:
            long = max(long, self.min_long)
        return resize_sample(sample, _scaled(h, w, long / max(h, w)))


@TRANSFORMS.register
class ResizeRangeScaling:
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

    def target_size_for(self, h: int, w: int, rng: np.random.Generator) -> tuple[int, int]:
        """A random new size (h, w) of an `h` x `w` image."""
        long = self.max_value
        if self.min_value < self.max_value:
            long = int(rng.uniform(self.min_value, self.max_value) + 0.5)
        return _scaled(h, w, long / max(h, w))

    def __call__(self, sample: dict, rng: Optional[np.random.Generator] = None) -> dict:
        """Resize the sample to a size drawn from `rng`."""
        rng = rng or np.random.default_rng()
        return resize_sample(sample, self.target_size_for(*sample["img"].shape[:2], rng))


@TRANSFORMS.register
class ResizeStepScaling:
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

    def target_size_for(self, h: int, w: int, rng: np.random.Generator) -> tuple[int, int]:
        """A random new size (h, w) of an `h` x `w` image."""
        if self.interval == 0:
            return _scaled(h, w, rng.uniform(self.low, self.high))
        # (2.0 - 0.6) / 0.2 is 6.999…: without the tolerance a factor would be lost.
        intervals = int((self.high - self.low) / self.interval + 1e-6)
        scale = np.linspace(self.low, self.high, intervals + 1)[rng.integers(intervals + 1)]
        return _scaled(h, w, float(scale))

    def __call__(self, sample: dict, rng: Optional[np.random.Generator] = None) -> dict:
        """Resize the sample by a factor drawn from `rng`."""
        rng = rng or np.random.default_rng()
        return resize_sample(sample, self.target_size_for(*sample["img"].shape[:2], rng))
