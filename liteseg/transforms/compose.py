"""The pipeline of transforms that a dataset applies to its samples."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Callable, Optional

import numpy as np

from liteseg.transforms.base import Transform
from liteseg.transforms.geometric import RandomPaddingCrop
from liteseg.transforms.photometric import Normalize
from liteseg.transforms.resizing import RandomScaling


class Compose:
    """Apply transforms in order, except for a `Normalize` at the end.

    The trainer applies `Normalize` on the device, as `compose.normalize.planes`, so that pixels are
    transferred as uint8. A random scaling right before a `RandomPaddingCrop` is fused with it: the
    same random draws and pixels (within rounding), but only the window is resized.

    Attributes:
        stages: (name, callable) of the transforms in order; a fused pair is one.
        normalize: the `Normalize` at the end, or None.

    Args:
        transforms: objects called as `transform(sample, rng) -> sample`; may be empty.

    Raises:
        ValueError: `Normalize` is not the last transform.
    """

    def __init__(self, transforms: Sequence[Callable] = ()):
        self.transforms = list(transforms)
        others = list(self.transforms)
        last = others[-1] if others else None
        self.normalize = last if isinstance(last, Normalize) else None
        if self.normalize is not None:
            others.pop()
        for place, transform in enumerate(others, 1):
            if isinstance(transform, Normalize):
                raise ValueError(
                    f"transforms has Normalize in place {place} of {len(self.transforms)}, "
                    "expected last: the other transforms work on 8-bit images"
                )
        if self.normalize is not None:
            for transform in others:
                if isinstance(transform, Transform):
                    transform.follow_range(self.normalize.max_value)
        self.stages = _fused(others)

    def follow_labels(self, num_classes: int, ignore_index: int) -> None:
        """Let transforms that fill labels use the values of a dataset (see `Transform`).

        Raises:
            ValueError: an argument contradicts them.
        """
        for transform in self.transforms:
            if isinstance(transform, Transform):
                transform.follow_labels(num_classes, ignore_index)

    def __call__(self, sample: dict, rng: Optional[np.random.Generator] = None) -> dict:
        """Apply the transforms to a shallow copy of `sample`; all draws come from `rng`."""
        rng = rng or np.random.default_rng()
        sample = {**sample, "trans_info": list(sample.get("trans_info", ()))}
        for _, stage in self.stages:
            sample = stage(sample, rng)
        return sample


def _fused(transforms: list[Callable]) -> list[tuple[str, Callable]]:
    """`transforms` with their names; a random scaling and the crop after it are one."""
    stages: list[tuple[str, Callable]] = []
    for transform in transforms:
        name = type(transform).__name__
        before, scaling = stages[-1] if stages else ("", None)
        if isinstance(scaling, RandomScaling) and isinstance(transform, RandomPaddingCrop):
            fused = functools.partial(_scale_and_crop, scaling, transform)
            stages[-1] = (f"{before} + {name}", fused)
        else:
            stages.append((name, transform))
    return stages


def _scale_and_crop(
    scaling: RandomScaling, crop: RandomPaddingCrop, sample: dict, rng: np.random.Generator
) -> dict:
    h, w = sample["img"].shape[:2]
    return crop.crop_resized(sample, scaling.target_size_for(h, w, rng), rng)
