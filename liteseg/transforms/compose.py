"""The pipeline of transforms a dataset applies to its samples."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Callable, Optional

import numpy as np

from liteseg.transforms.geometric import RandomPaddingCrop
from liteseg.transforms.photometric import Normalize
from liteseg.transforms.resizing import ResizeRangeScaling, ResizeStepScaling


class Compose:
    """Apply transforms in order, all but the trailing `Normalize`.

    That one is left to the trainer, as `compose.normalize.planes`, so that pixels stay uint8 on
    their way to the device. A random scaling right before a `RandomPaddingCrop` is fused with it:
    the same random draws, the same pixels (within rounding), but only what the window covers is
    resized.

    Attributes:
        stages: (name, callable) of what is applied in order, a fused pair being one.

    Args:
        transforms: objects called as `transform(sample, rng) -> sample`; may be empty.

    Raises:
        ValueError: `Normalize` is not the last transform.
    """

    def __init__(self, transforms: Sequence[Callable] = ()):
        self.transforms = list(transforms)
        steps = list(self.transforms)
        ends_normalized = bool(steps) and isinstance(steps[-1], Normalize)
        self.normalize: Optional[Normalize] = steps.pop() if ends_normalized else None
        for place, step in enumerate(steps, 1):
            if isinstance(step, Normalize):
                raise ValueError(
                    f"transforms has Normalize in place {place} of {len(self.transforms)}, "
                    "expected last: the other transforms work on 8-bit images"
                )
        self.stages = _fused(steps)

    def __call__(self, sample: dict, rng: Optional[np.random.Generator] = None) -> dict:
        """Apply the transforms to (a shallow copy of) `sample`; all draws come from `rng`."""
        rng = rng or np.random.default_rng()
        sample = {**sample, "trans_info": list(sample.get("trans_info", ()))}
        for _, stage in self.stages:
            sample = stage(sample, rng)
        return sample


def _fused(transforms: list[Callable]) -> list[tuple[str, Callable]]:
    """`transforms` with their names, each pair of random scaling and crop made one."""
    stages: list[tuple[str, Callable]] = []
    for transform in transforms:
        name = type(transform).__name__
        before, scaling = stages[-1] if stages else ("", None)
        if isinstance(scaling, (ResizeStepScaling, ResizeRangeScaling)) and isinstance(
            transform, RandomPaddingCrop
        ):
            fused = functools.partial(_scale_and_crop, scaling, transform)
            stages[-1] = (f"{before} + {name}", fused)
        else:
            stages.append((name, transform))
    return stages


def _scale_and_crop(scaling, crop: RandomPaddingCrop, sample: dict, rng) -> dict:
    size = scaling.target_size_for(*sample["img"].shape[:2], rng)
    return crop(sample, rng, resized_to=size)
