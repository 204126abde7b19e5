"""Readers of image and label files, used for every dataset and prediction."""

from __future__ import annotations

import functools
import io
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Optional, Union

import cv2
import numpy as np
from PIL import Image

from liteseg.errors import UserError

# Files that datasets and `liteseg predict` find in folders, in order of preference.
IMAGE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".bmp", ".tif", ".tiff", ".webp"),
    *(".ppm", ".pgm", ".pnm", ".jp2", ".gif", ".avif"),
)
_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8"
_PNG_GRAY, _PNG_RGB, _PNG_PALETTE = 0, 2, 3
_PNG_KINDS = {_PNG_RGB: "colors (RGB)", 4: "gray with transparency", 6: "colors (RGBA)"}
# Decoders allocate the size that a header declares, so it is checked first: by Pillow's limit, and
# above _LARGE pixels a file must have at least one byte per _PIXELS_PER_BYTE pixels.
_LARGE = 2**26
_PIXELS_PER_BYTE = 1000


def read_image(path: Union[str, Path], exif: bool = False) -> np.ndarray:
    """Read an image file as RGB.

    Gray, palette, 16-bit and transparent images are converted to 8-bit RGB.

    Args:
        path: any format that OpenCV reads; the name need not be ASCII.
        exif: apply the EXIF orientation. Off for datasets, whose labels match the pixels as
            stored; on for photographs to predict.

    Returns:
        (h, w, 3) uint8 RGB.

    Raises:
        UserError: missing, unreadable, truncated, not an image, or larger than Pillow's limit
            (about 179 million pixels).
    """
    data = _read_bytes(path)
    _require_complete(data, path)
    _require_plausible(data, path)
    if not exif and data.startswith(_PNG) and tuple(data[24:26]) == (8, _PNG_RGB):
        image = _decode_fast(data, 3)
        if image is not None:
            return image
    flags = cv2.IMREAD_COLOR if exif else cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    image = _decode(data, flags, path)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)


def read_label(path: Union[str, Path]) -> np.ndarray:
    """Read a label map: the stored values, so palette indices and not palette colors.

    Returns:
        (h, w) uint8.

    Raises:
        UserError: missing, unreadable or truncated; a JPEG (lossy); more than one channel (a
            color label); 16-bit values above 255.
    """
    data = _read_bytes(path)
    _require_complete(data, path)
    if data.startswith(_JPEG):
        raise UserError(
            f"{path}: the label is a JPEG, whose compression changes class numbers; "
            "export labels as single-channel PNG"
        )
    _require_plausible(data, path)
    label = _decode_png_label(data, path) if data.startswith(_PNG) else None
    if label is None:
        label = _decode(data, cv2.IMREAD_UNCHANGED, path)
    if label.ndim != 2:
        raise UserError(_not_single_channel(path, f"{label.shape[2]} channels"))
    if label.dtype != np.uint8:
        if label.max() > 255 or label.min() < 0:
            raise UserError(
                f"{path}: label values reach {label.max()} ({label.dtype}); class numbers must be "
                "0..255, saved as 8-bit PNG"
            )
        label = label.astype(np.uint8)
    return label


def label_histogram(label: np.ndarray) -> np.ndarray:
    """Pixels per value of an (h, w) uint8 label: (256,) int64, exact below 2**24 pixels."""
    # Three times as fast as np.bincount, which first converts every pixel to 8 bytes.
    counts = cv2.calcHist([label], [0], None, [256], [0, 256])
    return counts.ravel().astype(np.int64)


def stack_planes(images: Sequence[np.ndarray]) -> np.ndarray:
    """Stack n images (h, w, 3) uint8 of one size to NCHW: (n, 3, h, w) uint8.

    For 1024x512 pixels OpenCV needs 0.1 ms; Paddle on a CPU needs 5 ms (3.3) to 25 ms (2.6).
    """
    batch = np.empty((len(images), 3, *images[0].shape[:2]), np.uint8)
    for image, planes in zip(images, batch):
        cv2.split(image, list(planes))
    return batch


def _read_bytes(path: Union[str, Path]) -> bytes:
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: can't read the file: {error.strerror or error}") from None
    if not data:
        raise UserError(f"{path}: the file is empty (0 bytes)")
    return data


def _decode(data: bytes, flags: int, path: Union[str, Path]) -> np.ndarray:
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise UserError(f"{path}: OpenCV can't decode the image: {error}") from None
    if image is None:
        raise UserError(f"{path}: not an image OpenCV can read, or a damaged one")
    return image


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


def _require_complete(data: bytes, path: Union[str, Path]) -> None:
    """Raise for truncated files: some OpenCV builds silently fill the missing part with gray."""
    if data.startswith(_PNG):
        complete = _png_ends(data)
    elif data.startswith(_JPEG):
        complete = data.rfind(b"\xff\xd9") > _jpeg_scan_start(data)
    else:
        return
    if not complete:
        raise UserError(
            f"{path}: the file is truncated ({len(data)} bytes, no end marker); copy it again"
        )


def _png_ends(data: bytes) -> bool:
    """Whether the chunks are contiguous up to a complete IEND chunk."""
    return any(name == b"IEND" and end <= len(data) for name, _, end in _png_chunks(data))


def _require_plausible(data: bytes, path: Union[str, Path]) -> None:
    """Raise if the header declares more pixels than the file can contain or memory should."""
    try:
        if data.startswith(_PNG):  # Pillow checks checksums, OpenCV does not
            width, height = struct.unpack(">II", data[16:24])
        elif data[8:16] == b"WEBPVP8L":  # Pillow allocates all pixels on opening
            bits = int.from_bytes(data[21:25], "little")
            width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        else:
            with Image.open(io.BytesIO(data)) as header:  # reads no pixels
                width, height = header.size
    except Image.DecompressionBombError:
        most = 2 * int(Image.MAX_IMAGE_PIXELS or 0)
        raise UserError(
            f"{path}: the file of {len(data)} bytes declares more than {most} pixels; it is "
            "damaged or far too large: cut it into tiles"
        ) from None
    except Exception:  # Pillow has many error types for files it can't read; OpenCV may read them
        return
    if width * height > max(_LARGE, _PIXELS_PER_BYTE * len(data)):
        raise UserError(
            f"{path}: the file declares {width}x{height} pixels in {len(data)} bytes; it is damaged"
        )


def _jpeg_scan_start(data: bytes) -> int:
    """Offset of the pixel data; an end marker before it belongs to an EXIF thumbnail."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        kind = data[at + 1]
        if kind == 0xDA:  # start of scan
            return at
        if kind == 0xFF:  # fill byte
            at += 1
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return len(data)


def _decode_png_label(data: bytes, path: Union[str, Path]) -> np.ndarray:
    depth, kind = data[24], data[25]
    if kind not in (_PNG_GRAY, _PNG_PALETTE):
        raise UserError(_not_single_channel(path, _PNG_KINDS.get(kind, f"PNG color type {kind}")))
    # OpenCV would convert palette indices to colors: pass it the same compressed pixels declared
    # as gray, without the other chunks.
    header = b"IHDR" + data[16:25] + bytes([_PNG_GRAY]) + data[26:29]
    parts = [_PNG, struct.pack(">I", 13), header, struct.pack(">I", zlib.crc32(header))]
    parts += [data[start:end] for name, start, end in _png_chunks(data) if name == b"IDAT"]
    parts += [b"\0\0\0\0IEND\xaeB`\x82"]
    plain = b"".join(parts)
    label = _decode_fast(plain) if depth == 8 else None
    if label is None:
        label = _decode(plain, cv2.IMREAD_UNCHANGED, path)
    # The decoder scales 1-, 2- and 4-bit gray to 0..255.
    return label // (255 // (2**depth - 1)) if depth < 8 else label


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(name, start, end) per chunk, with length and checksum; the last may end past the data."""
    at = len(_PNG)
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        yield data[at + 4 : at + 8], at, end
        at = end


def _not_single_channel(path: Union[str, Path], found: str) -> str:
    return (
        f"{path}: a label must be one channel of class numbers (gray or palette PNG), but this "
        f"file contains {found}, probably a color visualization; convert its colors to class "
        "numbers"
    )
