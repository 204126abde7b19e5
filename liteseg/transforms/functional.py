"""Operations on pure arrays: images (h, w, C), labels (h, w) uint8. No Paddle.

Images are uint8 RGB or float32 with any number of channels. No function writes into its input; some
return it, or a view of it. The color operations equal Pillow's (ImageEnhance, and 8-bit HSV for the
hue) within 2 gray levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable, NamedTuple, Union

import cv2
import numpy as np

from liteseg.errors import UserError

Levels = Union[float, Sequence[float]]  # a fill: of all channels, or of each

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
    return _like(array, cv2.resize(array, (size[1], size[0]), interpolation=interp))


def _like(array: np.ndarray, result: np.ndarray) -> np.ndarray:
    """A result of OpenCV, which drops the axis of a single channel, with the axes of `array`."""
    return result if result.ndim == array.ndim else result[..., None]


def by_fours(operation: Callable, array: np.ndarray, levels: Levels) -> np.ndarray:
    """`operation(array, levels)` of OpenCV functions that fill at most four channels.

    Args:
        operation: called with (h, w, up to 4) and as many fill levels.
        array: (h, w, C), or (h, w) with a single level.
        levels: fill of all channels, or one for each.

    Raises:
        UserError: neither one level nor one for each channel.
    """
    if array.ndim == 2:
        return operation(array, levels)
    channels = array.shape[2]
    values = [levels] * channels if isinstance(levels, (int, float)) else list(levels)
    if len(values) != channels and len(set(values)) == 1:
        values = values[:1] * channels
    if len(values) != channels:
        raise UserError(
            f"im_padding_value: {len(values)} levels for images with {channels} channels; give one "
            "level, or one for each channel"
        )
    if channels <= 4:
        return _like(array, operation(array, tuple(values)))
    parts = [
        operation(np.ascontiguousarray(array[..., i : i + 4]), tuple(values[i : i + 4]))
        for i in range(0, channels, 4)
    ]
    return np.concatenate([part.reshape(*part.shape[:2], -1) for part in parts], axis=2)


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
    part = _like(source, cv2.resize(source, None, fx=fx, fy=fy))
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


def pad(array: np.ndarray, size: tuple[int, int], value: Levels) -> np.ndarray:
    """`array` padded at the bottom and right with `value` to at least `size` (h, w)."""
    below = max(size[0] - array.shape[0], 0)
    right = max(size[1] - array.shape[1], 0)
    if below == right == 0:
        return array

    def padded(part: np.ndarray, fill: Any) -> np.ndarray:
        return cv2.copyMakeBorder(part, 0, below, 0, right, cv2.BORDER_CONSTANT, value=fill)

    return by_fours(padded, array, value)


def flip(array: np.ndarray, axis: int) -> np.ndarray:
    """`cv2.flip`: 0 upside down, 1 left to right."""
    return _like(array, cv2.flip(array, axis))


def rotate(
    array: np.ndarray, matrix: np.ndarray, size: tuple[int, int], interp: int, value: Levels
) -> np.ndarray:
    """`cv2.warpAffine` to `size` (w, h), filled with `value` outside of the input."""

    def rotated(part: np.ndarray, fill: Any) -> np.ndarray:
        return cv2.warpAffine(part, matrix, size, flags=interp, borderValue=fill)

    return by_fours(rotated, array, value)


def brightness(image: np.ndarray, factor: float, white: float = 255) -> np.ndarray:
    """Every channel times `factor`."""
    if image.dtype != np.uint8:
        return np.clip(image * np.float32(factor), 0, white)
    return _affine(image, factor * np.eye(3))


def contrast(image: np.ndarray, factor: float, white: float = 255) -> np.ndarray:
    """The distance of every channel from the image's mean luma (of all channels) times `factor`."""
    if image.dtype != np.uint8:
        mean = np.float32(image.mean(dtype=np.float64))
        return np.clip(mean + (image - mean) * np.float32(factor), 0, white)
    mean = int(np.dot(LUMA, cv2.mean(image)[:3]) + 0.5)
    return _affine(image, factor * np.eye(3), (1 - factor) * mean)


def saturation(image: np.ndarray, factor: float, white: float = 255) -> np.ndarray:
    """The distance of every channel from the pixel's luma times `factor`."""
    return _affine(image, factor * np.eye(3) + (1 - factor) * LUMA)


def _affine(image: np.ndarray, matrix: np.ndarray, offset: float = 0.0) -> np.ndarray:
    """`matrix` @ pixel + `offset`, clipped to 0..255.

    cv2.transform uses 8-bit SIMD: less than half the time of a 256-entry table.
    """
    # cv2 rounds where Pillow truncates; the thousandth keeps whole numbers whole.
    column = np.full((3, 1), offset - 0.499)
    return cv2.transform(image, np.hstack([matrix, column]))


def sharpness(image: np.ndarray, factor: float, white: float = 255) -> np.ndarray:
    """Blend of Pillow's 3x3 smoothing (factor 0) and the image (1); sharper above 1."""
    kernel = np.full((3, 3), (1 - factor) / 13)
    kernel[1, 1] = factor + 5 * (1 - factor) / 13
    blended = _like(image, cv2.filter2D(image, -1, kernel))
    if image.dtype != np.uint8:
        blended = np.clip(blended, 0, white)
    # Pillow keeps the one-pixel border.
    blended[[0, -1]] = image[[0, -1]]
    blended[:, [0, -1]] = image[:, [0, -1]]
    return blended


def hue(image: np.ndarray, shift: float, white: float = 255) -> np.ndarray:
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
