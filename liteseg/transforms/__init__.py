"""Transforms of samples {"img": uint8 RGB, "label": uint8, "trans_info": list}; see `Compose`."""

from __future__ import annotations

from liteseg.transforms.compose import Compose
from liteseg.transforms.geometric import (
    Padding,
    PaddingByAspectRatio,
    RandomCenterCrop,
    RandomHorizontalFlip,
    RandomPaddingCrop,
    RandomRotation,
    RandomScaleAspect,
    RandomVerticalFlip,
)
from liteseg.transforms.photometric import Normalize, RandomBlur, RandomDistort, RandomNoise
from liteseg.transforms.resizing import (
    LimitLong,
    Resize,
    ResizeByLong,
    ResizeByShort,
    ResizeRangeScaling,
    ResizeStepScaling,
)

__all__ = [
    "Compose",
    "LimitLong",
    "Normalize",
    "Padding",
    "PaddingByAspectRatio",
    "RandomBlur",
    "RandomCenterCrop",
    "RandomDistort",
    "RandomHorizontalFlip",
    "RandomNoise",
    "RandomPaddingCrop",
    "RandomRotation",
    "RandomScaleAspect",
    "RandomVerticalFlip",
    "Resize",
    "ResizeByLong",
    "ResizeByShort",
    "ResizeRangeScaling",
    "ResizeStepScaling",
]
