"""Reading of image and label files, for every dataset and prediction."""

from __future__ import annotations

import contextlib
import functools
import io
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Optional, Union

import cv2
import numpy as np
from PIL import Image

from liteseg.errors import NotOneChannel, UserError
from liteseg.utils.image_files import (
    JPEG,
    PNG,
    TIFF,
    decode,
    png_chunks,
    read_bytes,
    require_readable,
    stored_orientation,
    tiff_tags,
    turned,
    turned_back,
)

# Files that datasets and `liteseg predict` find in folders, in order of preference.
IMAGE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".bmp", ".tif", ".tiff", ".webp"),
    *(".ppm", ".pgm", ".pnm", ".jp2", ".gif", ".avif"),
)
_PNM = (b"P2", b"P3", b"P5", b"P6")
_PNG_GRAY, _PNG_RGB, _PNG_PALETTE = 0, 2, 3
_PNG_KINDS = {_PNG_RGB: "colors (RGB)", 4: "gray with transparency", 6: "colors (RGBA)"}
_LEAST_OF_16_BITS = 2**12  # images with smaller values only have 12 bits or fewer
_BANDS_ADVICE = (
    "name the bands as `channels: [1, 2, 3]` in the dataset, and their range as `max_value` of "
    "Normalize"
)


def read_image(path: Union[str, Path], exif: bool = False) -> np.ndarray:
    """Read an image file as RGB.

    Gray, palette, transparent and full-range 16-bit images are converted to 8-bit RGB.

    Args:
        path: any format that OpenCV reads; the name need not be ASCII.
        exif: apply the EXIF orientation; without it, pixels come as stored.

    Returns:
        (h, w, 3) uint8 RGB.

    Raises:
        UserError: missing, unreadable, truncated, not an image, larger than Pillow's limit (about
            179 million pixels), or with bands or a depth that 8-bit RGB would distort.
    """
    return decode_image(read_bytes(path), path, exif)


def decode_image(data: bytes, name: Union[str, Path], exif: bool = False) -> np.ndarray:
    """As `read_image`, of the content of a file; `name` is for errors."""
    require_readable(data, name)
    _require_eight_bit_rgb(data, name)
    image = None
    if data.startswith(PNG) and tuple(data[24:26]) == (8, _PNG_RGB):
        image = _decode_fast(data, 3)
    if image is None:
        image = decode(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION, name)
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)
    if data.startswith(TIFF):
        return image if exif else turned_back(image, data)
    return turned(image, stored_orientation(data)) if exif else image


class ImageFacts(NamedTuple):
    """The description of the pixels in a file.

    Attributes:
        orientation: the EXIF orientation, 1 (as stored) to 8.
        largest: the largest value of a 16-bit image, or None.
    """

    orientation: int
    largest: Optional[int]


def image_facts(path: Union[str, Path]) -> ImageFacts:
    """The orientation and depth of an image file that `read_image` can read."""
    data = read_bytes(path)
    return ImageFacts(stored_orientation(data), _largest_of_16_bits(data, path))


def read_label(path: Union[str, Path]) -> np.ndarray:
    """Read a label map: the stored values, so palette indices and not palette colors.

    Returns:
        (h, w) uint8.

    Raises:
        UserError: missing, unreadable or truncated; a JPEG (lossy); more than one channel (a
            color label); 16-bit values above 255.
    """
    data = read_bytes(path)
    require_readable(data, path)
    if data.startswith(JPEG):
        raise UserError(
            f"{path}: the label is a JPEG, whose compression changes class numbers; "
            "export labels as single-channel PNG"
        )
    label = _decode_png_label(data, path) if data.startswith(PNG) else _palette_indices(data)
    if label is None:
        label = decode(data, cv2.IMREAD_UNCHANGED, path)
    if label.ndim != 2:
        raise NotOneChannel(_not_single_channel(path, f"{label.shape[2]} channels"))
    if label.dtype != np.uint8:
        if not (np.isfinite(label).all() and label.min() >= 0 and label.max() <= 255):
            raise UserError(
                f"{path}: label values reach {label.max()} ({label.dtype}); class numbers must be "
                "0..255, saved as 8-bit PNG"
            )
        whole = label.astype(np.uint8)
        if (whole != label).any():
            raise UserError(f"{path}: label values are fractions; expected class numbers 0..255")
        label = whole
    return label


def label_histogram(label: np.ndarray) -> np.ndarray:
    """Pixels per value of an (h, w) uint8 label: (256,) int64, exact below 2**24 pixels."""
    # Three times as fast as np.bincount, which first converts every pixel to 8 bytes.
    counts = cv2.calcHist([label], [0], None, [256], [0, 256])
    return counts.ravel().astype(np.int64)


def stack_planes(images: Sequence[np.ndarray]) -> np.ndarray:
    """Stack n images (h, w, C) of one size and dtype to NCHW: (n, C, h, w).

    For 1024x512 pixels OpenCV needs 0.1 ms; Paddle on a CPU needs 5 ms (3.3) to 25 ms (2.6).
    """
    height, width, channels = images[0].shape
    batch = np.empty((len(images), channels, height, width), images[0].dtype)
    for image, planes in zip(images, batch):
        cv2.split(image, list(planes))
    return batch


def _require_eight_bit_rgb(data: bytes, path: Union[str, Path]) -> None:
    """Raise for pixels that 8-bit RGB would distort: more bands, floats, 16 bits mostly unused."""
    found = _unusual_tiff(data) if data.startswith(TIFF) else None
    if found:
        raise UserError(
            f"{path}: {found}; expected 8 or 16 bits of gray, RGB or RGBA: save the three bands "
            f"to use as 8-bit RGB, or {_BANDS_ADVICE}"
        )
    largest = _largest_of_16_bits(data, path)
    if largest is not None and 0 < largest < _LEAST_OF_16_BITS:
        raise UserError(
            f"{path}: 16 bits per band with a largest value of {largest}, which would become "
            f"{largest >> 8} of 255; scale the values to 0..255 and save 8-bit RGB, or "
            f"{_BANDS_ADVICE}, here {2 ** largest.bit_length() - 1}"
        )


def _unusual_tiff(data: bytes) -> Optional[str]:
    """The bands and depth of a TIFF that is neither gray nor color, with its largest value."""
    try:
        tags = tiff_tags(data)
        bits, kinds, extra = (
            tuple(map(int, tags.get(tag, default)))
            for tag, default in ((258, (1,)), (339, (1,)), (338, ()))
        )
        bands, photometric = int(tags.get(277, 1)), int(tags.get(262, 1))
    except Exception:  # OpenCV reports damaged files
        return None
    colors = bands - sum(kind in (1, 2) for kind in extra)  # without alpha
    expected = {0: 1, 1: 1, 3: 1, 5: 4}.get(photometric, 3)
    if set(kinds) == {1} and max(bits) <= 16 and colors == expected:
        if not (expected == 3 and bands == 4):
            return None
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if pixels is None or pixels.ndim < 3 or len(np.unique(pixels[..., -1])) <= 2:
            return None  # transparency, as far as one can tell
    kind = {1: "integers", 2: "signed integers", 3: "floats"}.get(max(kinds), "numbers")
    with contextlib.suppress(Exception):
        ok, pages = cv2.imdecodemulti(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        kind += f", largest value {max(page.max() for page in pages):g}" if ok else ""
    return f"{bands} band{'s' * (bands > 1)} of {max(bits)}-bit {kind}"


def _largest_of_16_bits(data: bytes, path: Union[str, Path]) -> Optional[int]:
    deep = data[24] == 16 if data.startswith(PNG) else data.startswith((*TIFF, *_PNM))
    if not deep:
        return None
    pixels = decode(data, cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION, path)
    if pixels.dtype != np.uint16:
        return None
    colors = pixels if pixels.ndim == 2 else pixels[..., :3]
    return int(colors.max())


def _palette_indices(data: bytes) -> Optional[np.ndarray]:
    """The indices of a palette image (GIF, BMP, TIFF), which OpenCV would convert to colors."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            gray_gif = image.format == "GIF" and image.mode == "L"
            if (image.mode != "P" and not gray_gif) or getattr(image, "n_frames", 1) > 1:
                return None
            return np.array(image)
    except Exception:  # Pillow has many error types for files it can't read; OpenCV may read them
        return None


def _decode_fast(data: bytes, *channels: int) -> Optional[np.ndarray]:
    """Decode an 8-bit RGB or gray PNG with imagecodecs to (h, w, *channels) uint8.

    None if imagecodecs is missing or fails; then OpenCV decodes or reports the error. The PNG
    library in OpenCV's wheels since 4.8 has no SIMD: on one core, 2048x1024 RGB takes 45 ms with
    OpenCV, 31 ms with imagecodecs and 57 ms with Pillow.
    """
    imagecodecs = _imagecodecs()
    if imagecodecs is None:
        return None
    try:
        image = imagecodecs.png_decode(data)
    except Exception:  # imagecodecs has one error type per format
        return None
    width, height = struct.unpack(">II", data[16:24])
    if image.shape != (height, width, *channels) or image.dtype != np.uint8:
        return None  # a transparent color adds a fourth channel
    return image


@functools.cache
def _imagecodecs() -> Any:
    try:
        import imagecodecs
    except ImportError:
        return None
    return imagecodecs


def _decode_png_label(data: bytes, path: Union[str, Path]) -> np.ndarray:
    depth, kind = data[24], data[25]
    if kind not in (_PNG_GRAY, _PNG_PALETTE):
        raise NotOneChannel(
            _not_single_channel(path, _PNG_KINDS.get(kind, f"PNG color type {kind}"))
        )
    # OpenCV would convert palette indices to colors: pass it the same compressed pixels declared
    # as gray, without the other chunks.
    header = b"IHDR" + data[16:25] + bytes([_PNG_GRAY]) + data[26:29]
    parts = [PNG, struct.pack(">I", 13), header, struct.pack(">I", zlib.crc32(header))]
    parts += [data[start:end] for name, start, end in png_chunks(data) if name == b"IDAT"]
    parts += [b"\0\0\0\0IEND\xaeB`\x82"]
    plain = b"".join(parts)
    label = _decode_fast(plain) if depth == 8 else None
    if label is None:
        label = decode(plain, cv2.IMREAD_UNCHANGED, path)
    # The decoder scales 1-, 2- and 4-bit gray to 0..255.
    return label // (255 // (2**depth - 1)) if depth < 8 else label


def _not_single_channel(path: Union[str, Path], found: str) -> str:
    return (
        f"{path}: a label must be one channel of class numbers (gray or palette PNG), but this "
        f"file contains {found}, probably a color visualization; convert its colors to class "
        "numbers"
    )
