"""Base class of the transforms, and operations on samples that they share.

A sample is a dict of "img", (h, w, 3) uint8 RGB or (h, w, C) float32, and, if present, "label"
(h, w) uint8 and "trans_info", a list of (operation, (h, w) before) that a prediction is resized or
cropped back by.
"""

from __future__ import annotations

from typing import Optional

import cv2
import numpy as np

from liteseg.transforms import functional as F


class Transform:
    """A callable that changes a sample; subclasses implement `_apply`.

    Attributes:
        random: whether two calls may differ; None: not declared, accepted everywhere.
        keeps_geometry: whether a prediction can be mapped back to the input, because pixels stay
            in place or "trans_info" records the change; None: not declared.
        fills: colors and label of pixels outside the input (see `arguments.fills`).
        white: largest value of the images, the `max_value` of Normalize.
    """

    random: Optional[bool] = None
    keeps_geometry: Optional[bool] = None
    fills: dict = {}
    white: float = 255

    def follow_range(self, white: float) -> None:
        """Adapt the fill, which is given in 255ths, to images with values up to `white`."""
        if self.fills and white != self.white:
            levels = self.fills["img"]
            self.fills["img"] = tuple(level * white / self.white for level in levels)
        self.white = white

    def _declare_identity(self, unchanged: bool) -> None:
        """Declare that the arguments switch the transform off, if they do."""
        if unchanged:
            self.random, self.keeps_geometry = False, True

    def follow_labels(self, num_classes: int, ignore_index: int) -> None:
        """Fill with the dataset's `ignore_index`, unless the arguments give a label value.

        Raises:
            ValueError: that value is neither a class nor `ignore_index`.
        """
        if not self.fills:
            return
        value = self.fills["label"]
        if not self.fills["label_given"]:
            self.fills["label"] = ignore_index
        elif value != ignore_index and value >= num_classes:
            raise ValueError(
                f"{type(self).__name__}: label_padding_value is {value}, expected the ignore_index "
                f"{ignore_index} of the dataset (leave it out) or a class below {num_classes}"
            )

    def __call__(self, sample: dict, rng: Optional[np.random.Generator] = None) -> dict:
        """Change the given sample and return it; all draws come from `rng`, if there is one."""
        return self._apply(sample, rng or np.random.default_rng())

    def _apply(self, sample: dict, rng: np.random.Generator) -> dict:
        raise NotImplementedError


def resize_sample(sample: dict, size: tuple[int, int], interp: int = cv2.INTER_LINEAR) -> dict:
    """Resize image (by `interp`) and label (by nearest neighbor) to `size` (h, w)."""
    sample["img"] = F.resize(sample["img"], size, interp)
    if "label" in sample:
        sample["label"] = F.resize(sample["label"], size, cv2.INTER_NEAREST)
    return sample


def crop_sample(sample: dict, window: F.Window) -> dict:
    """Crop image and label to views of `window`."""
    for key in ("img", "label"):
        if key in sample:
            sample[key] = sample[key][window.slices]
    return sample


def pad_sample(sample: dict, size: tuple[int, int], fills: dict) -> dict:
    """Pad image and label at the bottom and right to `size` (h, w), by `fills` of their keys."""
    record_size(sample, "padding")
    for key in ("img", "label"):
        if key in sample:
            sample[key] = F.pad(sample[key], size, fills[key])
    return sample


def record_size(sample: dict, operation: str) -> None:
    """Append (`operation`, current (h, w) of the image) to "trans_info"."""
    sample.setdefault("trans_info", []).append((operation, sample["img"].shape[:2]))
