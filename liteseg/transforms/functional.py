"""Operations on pure arrays: images (h, w, 3) uint8 RGB, labels (h, w) uint8. No Paddle.

No function writes into its input; some return it, or a view of it. The color operations equal
Pillow's (ImageEnhance, and 8-bit HSV for the hue) within 2 gray levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

# ITU-R 601 luma, Pillow's conversion to "L".
LUMA = np.array([0.299, 0.587, 0.114])

# Planes of this many pixels stay in the cache and are not returned to the system after each use
# (page faults more than double the time of `hue` on a whole 1024x512 image).
STRIP_PIXELS = 2**16

# Tolerance, in source pixels, between the sampling grids of a window and of the whole image.
GRID_TOLERANCE = 1 / 256


class Window(NamedTuple):
    """A rectangle of pixels."""

    top: int
    left: int
    height: int
    width: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """The window as an index of an array."""
        rows = slice(self.top, self.top + self.height)
        return rows, slice(self.left, self.left + self.width)


def resize(array: np.ndarray, size: tuple[int, int], interp: int = cv2.INTER_LINEAR) -> np.ndarray:
    """`array` at `size` (h, w). Linear has no anti-aliasing when it shrinks, as in PaddleSeg."""
    if array.shape[:2] == tuple(size):
        return array
    return cv2.resize(array, (size[1], size[0]), interpolation=interp)


def resize_window(image: np.ndarray, size: tuple[int, int], window: Window) -> np.ndarray:
    """`resize(image, size)[window.slices]`, reading only the required part of the image."""
    height, width = image.shape[:2]
    if (height, width) == tuple(size):
        return image[window.slices]
    row, rows = _source_span(height, size[0], window.top, window.height)
    col, cols = _source_span(width, size[1], window.left, window.width)
    source = image[rows, cols]
    fy, fx = size[0] / height, size[1] / width
    if (round(source.shape[0] * fy), round(source.shape[1] * fx)) == source.shape[:2]:
        return resize(image, size)[window.slices]  # so near 1 that cv2 would only copy the part
    # Factors instead of a size: the part is then sampled at the distances of the whole image.
    part = cv2.resize(source, None, fx=fx, fy=fy)
    return part[Window(window.top - row, window.left - col, *window[2:]).slices]


def resize_label_window(label: np.ndarray, size: tuple[int, int], window: Window) -> np.ndarray:
    """`resize(label, size, cv2.INTER_NEAREST)[window.slices]`, exactly."""
    if label.shape == tuple(size):
        return label[window.slices]
    rows = _nearest(label.shape[0], size[0], window.top, window.height)
    cols = _nearest(label.shape[1], size[1], window.left, window.width)
    return np.take(np.take(label, rows, axis=0), cols, axis=1)


def _source_span(length: int, target: int, start: int, count: int) -> tuple[int, slice]:
    """Source span for `count` pixels from `start` of an axis resized from length to target.

    Target pixel x samples the source at (x + 0.5) r - 0.5 with r = length / target. A part that
    begins at the source pixel o r and is resized alone is sampled at the same places if o r is a
    whole number (every p-th o for target / length = p / q), so the part begins at the last such o
    before the window.

    Returns:
        The origin o (target pixels) and the slice of source pixels.
    """
    ratio = length / target
    # When enlarged, the first 0.5 / r - 0.5 pixels blend with a source pixel before the part.
    origins = np.arange(max(0, start - int(np.ceil(0.5 / ratio))) + 1)
    remainder = origins * length % target
    off_grid = np.minimum(remainder, target - remainder)
    origin = int(origins[off_grid <= GRID_TOLERANCE * target][-1])
    stop = int(np.ceil((start + count) * ratio)) + 2
    return origin, slice(round(origin * ratio), min(length, stop))


def _nearest(length: int, target: int, start: int, count: int) -> np.ndarray:
    """Source pixels of cv2's INTER_NEAREST for `count` target pixels from `start`."""
    inverse = 1.0 / (target / length)  # cv2's own order of rounding
    positions = np.arange(start, start + count) * inverse
    return np.minimum(positions.astype(np.intp), length - 1)


def pad(array: np.ndarray, size: tuple[int, int], value: int | Sequence[int]) -> np.ndarray:
    """`array` padded at the bottom and right with `value` to at least `size` (h, w)."""
    below = max(size[0] - array.shape[0], 0)
    right = max(size[1] - array.shape[1], 0)
    if below == right == 0:
        return array
    return cv2.copyMakeBorder(array, 0, below, 0, right, cv2.BORDER_CONSTANT, value=value)


def brightness(image: np.ndarray, factor: float) -> np.ndarray:
    """Every channel times `factor`."""
    return _affine(image, factor * np.eye(3))


def contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """The distance of every channel from the image's mean luma times `factor`."""
    mean = int(np.dot(LUMA, cv2.mean(image)[:3]) + 0.5)
    return _affine(image, factor * np.eye(3), (1 - factor) * mean)


def saturation(image: np.ndarray, factor: float) -> np.ndarray:
    """The distance of every channel from the pixel's luma times `factor`."""
    return _affine(image, factor * np.eye(3) + (1 - factor) * LUMA)


def _affine(image: np.ndarray, matrix: np.ndarray, offset: float = 0.0) -> np.ndarray:
    """`matrix` @ pixel + `offset`, clipped to 0..255.

    cv2.transform uses 8-bit SIMD: less than half the time of a 256-entry table.
    """
    # cv2 rounds where Pillow truncates; the thousandth keeps whole numbers whole.
    column = np.full((3, 1), offset - 0.499)
    return cv2.transform(image, np.hstack([matrix, column]))


def sharpness(image: np.ndarray, factor: float) -> np.ndarray:
    """Blend of Pillow's 3x3 smoothing (factor 0) and the image (1); sharper above 1."""
    kernel = np.full((3, 3), (1 - factor) / 13)
    kernel[1, 1] = factor + 5 * (1 - factor) / 13
    blended = cv2.filter2D(image, -1, kernel)
    # Pillow keeps the one-pixel border.
    blended[[0, -1]] = image[[0, -1]]
    blended[:, [0, -1]] = image[:, [0, -1]]
    return blended


def hue(image: np.ndarray, shift: float) -> np.ndarray:
    """Rotate the hue by `shift`, in 255ths of the circle.

    Within 2 gray levels of Pillow for 99.7% of all colors. The others have a hue of exactly a whole
    number of 255ths, which Pillow's float arithmetic rounds down by one: up to 7 levels.
    """
    levels = np.arange(256)
    # Reds with more blue than green have the value 256 + h for a hue of 255 + h, h from -43 to -1;
    # no other hue is above 212.
    hues = levels - (levels > 212)
    table = (np.trunc(hues + shift).astype(np.int64) & 255).astype(np.uint8)
    turned = np.empty_like(image)
    rows = max(1, STRIP_PIXELS // image.shape[1])
    for top in range(0, image.shape[0], rows):
        turned[top : top + rows] = _mapped_hue(image[top : top + rows], table)
    return turned


def _mapped_hue(image: np.ndarray, table: np.ndarray) -> np.ndarray:
    """`image` with its hue plane looked up in `table`."""
    red, green, blue = cv2.split(image)
    value = cv2.max(cv2.max(red, green), blue)
    chroma = cv2.subtract(value, cv2.min(cv2.min(red, green), blue))
    position = cv2.LUT(_hue_position(red, green, blue, value, chroma), table)
    hsv = cv2.merge((position, cv2.divide(chroma, value, scale=255), value))
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)


def _hue_position(red, green, blue, value, chroma) -> np.ndarray:
    """Pillow's 8-bit hue, modulo 256 (see `hue`), from uint8 planes.

    cv2's own 8-bit hue has 256 steps, Pillow's 255, and it is rounded: up to 6 gray levels off.
    Here 42.5 difference / chroma is computed to 1/256 and then floored, which is exact: the
    quotient is a whole number or at least 1/510 below one.
    """
    red_16, green_16, blue_16 = (plane.astype(np.int16) for plane in (red, green, blue))
    difference = red_16 - green_16
    is_green = cv2.compare(green, value, cv2.CMP_EQ)
    cv2.copyTo(blue_16 - red_16, is_green, difference)
    is_red = cv2.compare(red, value, cv2.CMP_EQ)
    cv2.copyTo(green_16 - blue_16, is_red, difference)
    base = (is_green ^ 170) & ~is_red  # blue 170, green 170 ^ 255 = 85, red 0
    fixed_point = cv2.divide(difference, chroma.astype(np.int16), scale=42.5 * 256)
    return base + (fixed_point >> 8).astype(np.uint8)
