"""Bytes and headers of image files: completeness, size, orientation and tags."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Union

import cv2
import numpy as np
from PIL import Image, TiffImagePlugin

from liteseg.errors import UserError
from liteseg.utils.files import read_regular

PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8"
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# The orientations whose inverse is another one.
_INVERSE = {6: 8, 8: 6}
_ORIENTATION = 0x0112  # tag of EXIF and TIFF
# Decoders allocate the size that a header declares, so it is checked first: by Pillow's limit, and
# above _LARGE pixels a file must have at least one byte per _PIXELS_PER_BYTE pixels.
_LARGE = 2**26
_PIXELS_PER_BYTE = 1000


def read_bytes(path: Union[str, Path]) -> bytes:
    """The content of a file; UserError if it can't be read."""
    try:
        return read_regular(path)
    except OSError as error:
        raise UserError(f"{path}: can't read the file: {error.strerror or error}") from None


def decode(data: bytes, flags: int, path: Union[str, Path]) -> np.ndarray:
    """`cv2.imdecode`; UserError if it fails."""
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise UserError(f"{path}: OpenCV can't decode the image: {error}") from None
    if image is None:
        raise UserError(f"{path}: not an image OpenCV can read, or a damaged one")
    return image


def require_readable(data: bytes, path: Union[str, Path]) -> None:
    """Raise UserError for files that are truncated, or declare more pixels than they can have."""
    _require_complete(data, path)
    _require_plausible(data, path)


def _require_complete(data: bytes, path: Union[str, Path]) -> None:
    """Raise for truncated files: some OpenCV builds silently fill the missing part with gray."""
    if not data:
        raise UserError(f"{path}: the file is empty (0 bytes)")
    if data.startswith(PNG):
        complete = _png_ends(data)
    elif data.startswith(JPEG):
        complete = data.rfind(b"\xff\xd9") > _jpeg_scan_start(data)
    else:
        return
    if not complete:
        raise UserError(
            f"{path}: the file is truncated ({len(data)} bytes, no end marker); copy it again"
        )


def _png_ends(data: bytes) -> bool:
    """Whether the chunks are contiguous up to a complete IEND chunk."""
    return any(name == b"IEND" and end <= len(data) for name, _, end in png_chunks(data))


def _require_plausible(data: bytes, path: Union[str, Path]) -> None:
    """Raise if the header declares more pixels than the file can contain or memory should."""
    try:
        if data.startswith(PNG):  # Pillow checks checksums, OpenCV does not
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


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(name, start, end) per chunk, with length and checksum; the last may end past the data."""
    at = len(PNG)
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        yield data[at + 4 : at + 8], at, end
        at = end


def stored_orientation(data: bytes) -> int:
    """The EXIF orientation, 1 to 8; 1 if there is none."""
    try:
        if data.startswith(TIFF):
            value = tiff_tags(data).get(_ORIENTATION, 1)
        else:
            exif = Image.Exif()
            exif.load(_exif_block(data))
            value = exif.get(_ORIENTATION, 1)
    except Exception:  # damaged metadata: Pillow has many error types
        return 1
    return value if value in range(1, 9) else 1


def _exif_block(data: bytes) -> bytes:
    if data.startswith(PNG):
        blocks = (
            data[start + 8 : end - 4] for name, start, end in png_chunks(data) if name == b"eXIf"
        )
        return next(blocks, b"")
    if data.startswith(JPEG) and b"Exif\0\0" not in data[: _jpeg_scan_start(data)]:
        return b""
    if not data.startswith(JPEG) and data[8:12] != b"WEBP" and data[4:8] != b"ftyp":
        return b""
    with Image.open(io.BytesIO(data)) as image:  # reads no pixels
        return image.info.get("exif", b"")


def tiff_tags(data: bytes) -> Any:
    """The tags of the first image of a TIFF file."""
    tags = TiffImagePlugin.ImageFileDirectory_v2(data[: 16 if data[2:4] in (b"+\0", b"\0+") else 8])
    file = io.BytesIO(data)
    file.seek(tags.next)
    tags.load(file)
    return tags


def turned(image: np.ndarray, orientation: int) -> np.ndarray:
    """An image (h, w, C) as stored, turned upright."""
    if orientation >= 5:
        image = image.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return np.ascontiguousarray(image)


def turned_back(image: np.ndarray, data: bytes) -> np.ndarray:
    """The pixels as stored of an (h, w, C) TIFF, whose orientation OpenCV applies in any case."""
    orientation = stored_orientation(data)
    return turned(image, _INVERSE.get(orientation, orientation))
