"""Transforms that crop, pad, flip and rotate image and label together.

All read "img" (h, w, C) and, if present, "label" (h, w) uint8, and replace them (by views where
possible). Pixels outside the input are filled with `im_padding_value` (a gray level or one level
per channel, in 255ths of the `max_value` of Normalize; 127.5 becomes 127) and
`label_padding_value`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

import cv2
import numpy as np

from liteseg.errors import UserError
from liteseg.registry import TRANSFORMS
from liteseg.transforms import arguments as args
from liteseg.transforms import functional as F
from liteseg.transforms.base import Transform, crop_sample, pad_sample, resize_sample


@TRANSFORMS.register
class RandomPaddingCrop(Transform):
    """Crop a random window of a fixed size; pad smaller images at the bottom and right.

    Reads and writes "img", "label".

    Args:
        crop_size: (width, height).
        im_padding_value: fill of the image.
        label_padding_value: fill of the label (default: the dataset's ignore_index).
        category_max_ratio: below 1, draw again (up to `loop_times` times) while the label of the
            window has only one class, or one class covers this share of its pixels or more.
        ignore_index: label value that is not counted in that share (default: the dataset's).
        loop_times: maximum number of further draws.

    Raises:
        ValueError: an argument is not as described.
    """

    random, keeps_geometry = True, False

    def __init__(
        self,
        crop_size: Sequence[int] = (512, 512),
        im_padding_value: args.Fill = 127.5,
        label_padding_value: Optional[int] = None,
        category_max_ratio: float = 1.0,
        ignore_index: Optional[int] = None,
        loop_times: int = 10,
    ):
        self.size = args.size_hw("crop_size", crop_size)
        self.fills = args.fills(im_padding_value, label_padding_value)
        self.category_max_ratio = args.positive("category_max_ratio", category_max_ratio)
        self._ignore_given = ignore_index is not None
        self.ignore_index = args.label_value(
            "ignore_index", 255 if ignore_index is None else ignore_index
        )
        self.loop_times = args.positive_int("loop_times", loop_times)

    def follow_labels(self, num_classes: int, ignore_index: int) -> None:
        """As `Transform.follow_labels`; also for `ignore_index`."""
        super().follow_labels(num_classes, ignore_index)
        if self._ignore_given and self.ignore_index != ignore_index:
            raise ValueError(
                f"RandomPaddingCrop: ignore_index is {self.ignore_index}, expected that of the "
                f"dataset, {ignore_index} (leave it out)"
            )
        self.ignore_index = ignore_index

    def _apply(self, sample: dict, rng: np.random.Generator) -> dict:
        return self.crop_resized(sample, sample["img"].shape[:2], rng)

    def crop_resized(self, sample: dict, size: tuple[int, int], rng: np.random.Generator) -> dict:
        """Crop the sample as if it had been resized to `size` (h, w) before.

        The window is drawn first, so that only the part of the sample it covers is resized.
        """
        window = self._draw(size, rng)
        if "label" in sample:
            window, sample["label"] = self._crop_label(sample["label"], size, window, rng)
        image = F.resize_window(sample["img"], size, window)
        sample["img"] = F.pad(image, self.size, self.fills["img"])
        return sample

    def _draw(self, size: tuple[int, int], rng: np.random.Generator) -> F.Window:
        """A random window, without its padding."""
        top = int(rng.integers(max(size[0] - self.size[0], 0) + 1))
        left = int(rng.integers(max(size[1] - self.size[1], 0) + 1))
        return F.Window(top, left, min(size[0], self.size[0]), min(size[1], self.size[1]))

    def _crop_label(
        self,
        label: np.ndarray,
        size: tuple[int, int],
        window: F.Window,
        rng: np.random.Generator,
    ) -> tuple[F.Window, np.ndarray]:
        """The window (a new one where `category_max_ratio` requires it) and its label."""
        draws_left = self.loop_times if self.category_max_ratio < 1 else 0
        while True:
            cropped = F.resize_label_window(label, size, window)
            cropped = F.pad(cropped, self.size, self.fills["label"])
            if draws_left == 0 or self._is_mixed(cropped):
                return window, cropped
            window = self._draw(size, rng)
            draws_left -= 1

    def _is_mixed(self, label: np.ndarray) -> bool:
        counts = np.bincount(label.ravel(), minlength=256)
        counts[self.ignore_index] = 0
        largest, total = int(counts.max()), int(counts.sum())
        return largest < total and largest < self.category_max_ratio * total


@TRANSFORMS.register
class RandomCenterCrop(Transform):
    """Crop a random amount off the sides, keeping at least `retain_ratio` of each side.

    Reads and writes "img", "label".

    Args:
        retain_ratio: minimum share kept of (width, height), 0 to 1.
    """

    random, keeps_geometry = True, False

    def __init__(self, retain_ratio: Sequence[float] = (0.5, 0.5)):
        ok = isinstance(retain_ratio, Sequence) and len(retain_ratio) == 2
        ok = ok and all(args.is_number(ratio) and 0 <= ratio <= 1 for ratio in retain_ratio)
        expected = "[width share, height share], two numbers from 0 to 1"
        args.expect(ok, "retain_ratio", retain_ratio, expected)
        self.retain_ratio = retain_ratio
        self._declare_identity(min(retain_ratio) == 1)

    def _apply(self, sample: dict, rng: np.random.Generator) -> dict:
        h, w = sample["img"].shape[:2]
        left, width = self._draw(w, self.retain_ratio[0], rng)
        top, height = self._draw(h, self.retain_ratio[1], rng)
        return crop_sample(sample, F.Window(top, left, height, width))

    @staticmethod
    def _draw(length: int, retain: float, rng: np.random.Generator) -> tuple[int, int]:
        """Start and length of the part of a side that is kept."""
        cut = int(rng.integers(max(1, int(length * (1 - retain)))))
        return int(rng.integers(max(1, cut))), length - cut


@TRANSFORMS.register
class RandomScaleAspect(Transform):
    """Crop a window of random area and aspect ratio and resize it to the size of the input.

    Reads and writes "img", "label". The sample is unchanged if ten draws do not fit.

    Args:
        min_scale: minimum area of the window as a share of the image's; 0 disables the transform.
        aspect_ratio: minimum aspect ratio; the maximum is its inverse; 0 disables the transform.
    """

    random, keeps_geometry = True, False

    def __init__(self, min_scale: float = 0.5, aspect_ratio: float = 0.33):
        self.min_scale = args.probability("min_scale", min_scale)
        self.aspect_ratio = args.probability("aspect_ratio", aspect_ratio)
        self._declare_identity(0 in (min_scale, aspect_ratio))

    def _apply(self, sample: dict, rng: np.random.Generator) -> dict:
        h, w = sample["img"].shape[:2]
        window = self._draw(h, w, rng)
        return sample if window is None else resize_sample(crop_sample(sample, window), (h, w))

    def _draw(self, h: int, w: int, rng: np.random.Generator) -> Optional[F.Window]:
        if self.min_scale == 0 or self.aspect_ratio == 0:
            return None
        for _ in range(10):
            area = h * w * rng.uniform(self.min_scale, 1.0)
            aspect = rng.uniform(self.aspect_ratio, 1.0 / self.aspect_ratio)
            width, height = int(np.sqrt(area * aspect)), int(np.sqrt(area / aspect))
            if rng.random() < 0.5:
                width, height = height, width
            if 0 < height < h and 0 < width < w:
                top, left = int(rng.integers(h - height)), int(rng.integers(w - width))
                return F.Window(top, left, height, width)
        return None


@TRANSFORMS.register
class RandomHorizontalFlip(Transform):
    """Mirror left and right with probability `prob`. Reads and writes "img", "label"."""

    random, keeps_geometry = True, False

    def __init__(self, prob: float = 0.5):
        self.prob = args.probability("prob", prob)
        self._declare_identity(prob == 0)

    def _apply(self, sample: dict, rng: np.random.Generator) -> dict:
        return _random_flip(sample, 1, self.prob, rng)


@TRANSFORMS.register
class RandomVerticalFlip(Transform):
    """Mirror top and bottom with probability `prob`. Reads and writes "img", "label"."""

    random, keeps_geometry = True, False

    def __init__(self, prob: float = 0.1):
        self.prob = args.probability("prob", prob)
        self._declare_identity(prob == 0)

    def _apply(self, sample: dict, rng: np.random.Generator) -> dict:
        return _random_flip(sample, 0, self.prob, rng)


def _random_flip(sample: dict, axis: int, prob: float, rng: np.random.Generator) -> dict:
    """Flip along cv2's `axis`: 0 upside down, 1 left to right."""
    if rng.random() < prob:
        # Not a reversed view: a later copy of it would cost much more than a flip.
        for key in ("img", "label"):
            if key in sample:
                sample[key] = F.flip(sample[key], axis)
    return sample


@TRANSFORMS.register
class RandomRotation(Transform):
    """Rotate by a random angle, on a canvas that contains the whole rotated image.

    Reads and writes "img", "label".

    Args:
        max_rotation: maximum angle in degrees, in both directions; 0 disables the transform.
        im_padding_value: fill of the image.
        label_padding_value: fill of the label (default: the dataset's ignore_index).
    """

    random, keeps_geometry = True, False

    def __init__(
        self,
        max_rotation: float = 15,
        im_padding_value: args.Fill = 127.5,
        label_padding_value: Optional[int] = None,
    ):
        self.max_rotation = args.non_negative("max_rotation", max_rotation)
        self._declare_identity(max_rotation == 0)
        self.fills = args.fills(im_padding_value, label_padding_value)

    def _apply(self, sample: dict, rng: np.random.Generator) -> dict:
        if self.max_rotation == 0:
            return sample
        h, w = sample["img"].shape[:2]
        center = (w // 2, h // 2)
        angle = rng.uniform(-self.max_rotation, self.max_rotation)
        matrix = np.array(cv2.getRotationMatrix2D(center, angle, 1.0), np.float64)
        cos, sin = np.abs(matrix[0, :2])
        size = int(h * sin + w * cos), int(h * cos + w * sin)
        matrix[:, 2] += (size[0] / 2 - center[0], size[1] / 2 - center[1])
        for key, interp in (("img", cv2.INTER_LINEAR), ("label", cv2.INTER_NEAREST)):
            if key in sample:
                sample[key] = F.rotate(sample[key], matrix, size, interp, self.fills[key])
        return sample


@TRANSFORMS.register
class Padding(Transform):
    """Pad at the bottom and right to a fixed size.

    Reads and writes "img", "label"; appends ("padding", (h, w) before) to "trans_info".

    Args:
        target_size: (width, height).
        im_padding_value: fill of the image.
        label_padding_value: fill of the label (default: the dataset's ignore_index).
    """

    random, keeps_geometry = False, True

    def __init__(
        self,
        target_size: Sequence[int],
        im_padding_value: args.Fill = 127.5,
        label_padding_value: Optional[int] = None,
    ):
        self.size = args.size_hw("target_size", target_size)
        self.fills = args.fills(im_padding_value, label_padding_value)

    def _apply(self, sample: dict, rng: np.random.Generator) -> dict:
        h, w = sample["img"].shape[:2]
        if h > self.size[0] or w > self.size[1]:
            raise UserError(
                f"Padding: target_size is {self.size[1]} x {self.size[0]} (w x h), but the image "
                f"is {w} x {h}; enlarge target_size or put a Resize or LimitLong before it"
            )
        return pad_sample(sample, self.size, self.fills)


@TRANSFORMS.register
class PaddingByAspectRatio(Transform):
    """Pad at the bottom or right until width / height is `aspect_ratio`.

    Reads and writes "img", "label"; if it pads, appends ("padding", (h, w) before) to "trans_info".

    Args:
        aspect_ratio: width / height.
        im_padding_value: fill of the image.
        label_padding_value: fill of the label (default: the dataset's ignore_index).
    """

    random, keeps_geometry = False, True

    def __init__(
        self,
        aspect_ratio: float = 1,
        im_padding_value: args.Fill = 127.5,
        label_padding_value: Optional[int] = None,
    ):
        self.aspect_ratio = args.positive("aspect_ratio", aspect_ratio)
        self.fills = args.fills(im_padding_value, label_padding_value)

    def _apply(self, sample: dict, rng: np.random.Generator) -> dict:
        h, w = sample["img"].shape[:2]
        if w / h > self.aspect_ratio:
            size = (int(w / self.aspect_ratio), w)
        else:
            size = (h, max(w, int(h * self.aspect_ratio)))
        return sample if size == (h, w) else pad_sample(sample, size, self.fills)
