"""Reading image and label files; every pixel of a dataset comes in through these two functions."""

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

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8"
_PNG_GREY, _PNG_RGB, _PNG_PALETTE = 0, 2, 3
_PNG_KINDS = {_PNG_RGB: "colours (RGB)", 4: "grey with transparency", 6: "colours (RGBA)"}
# A header may declare any size, and decoders set the memory for it aside before they look further.
# Pillow's bound is one; and above _LARGE pixels a file must have a byte for each _PIXELS_PER_BYTE.
_LARGE = 2**26
_PIXELS_PER_BYTE = 1000


def read_image(path: Union[str, Path], exif: bool = False) -> np.ndarray:
    """Read an image file as RGB.

    Grey, palette, 16-bit and transparent images come out as plain 8-bit RGB.

    Args:
        path: any format OpenCV reads; the name need not be ASCII.
        exif: turn the image as its EXIF orientation says. Off for datasets, where the label was
            drawn on the pixels as stored; on for photographs to predict.

    Returns:
        (h, w, 3) uint8 RGB.

    Raises:
        UserError: missing, unreadable, truncated, not an image, or larger than Pillow admits
            (some 179 million pixels).
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
    """Read a label map: the stored numbers, so palette indices and not palette colours.

    Returns:
        (h, w) uint8.

    Raises:
        UserError: missing, unreadable or truncated; a JPEG (its values are blurred); more than one
            channel (a colour label); 16-bit values above 255.
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
        raise UserError(_many_channels(path, f"{label.shape[2]} channels"))
    if label.dtype != np.uint8:
        if label.max() > 255 or label.min() < 0:
            raise UserError(
                f"{path}: label values reach {label.max()} ({label.dtype}); class numbers must be "
                "0..255, saved as 8-bit PNG"
            )
        label = label.astype(np.uint8)
    return label


def label_histogram(label: np.ndarray) -> np.ndarray:
    """Pixels of each value of an (h, w) uint8 label: (256,) int64, exact below 2**24 pixels."""
    # three times as fast as np.bincount, which first widens every pixel to 8 bytes
    counts = cv2.calcHist([label], [0], None, [256], [0, 256])
    return counts.ravel().astype(np.int64)


def stack_planes(images: Sequence[np.ndarray]) -> np.ndarray:
    """Images (h, w, 3) uint8 of one size as one (n, 3, h, w) array, the layout of networks.

    cv2 takes 0.1 ms for 1024x512 pixels; on a CPU, Paddle takes 5 ms (3.3) to 25 ms (2.6).
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
    """The pixels of an 8-bit RGB or grey PNG, (h, w, *channels), by imagecodecs.

    The PNG library in OpenCV's wheels since 4.8 is built without SIMD: 45 ms a core for 2048x1024
    RGB. imagecodecs takes 31 ms, Pillow 57; half of it is inflating. None where imagecodecs is
    missing or can't: OpenCV may, and says what is wrong.
    """
    imagecodecs = _imagecodecs()
    if imagecodecs is None:
        return None
    try:
        image = imagecodecs.png_decode(data)
    except Exception:  # of its own kind for each format
        return None
    width, height = struct.unpack(">II", data[16:24])
    if image.shape != (height, width, *channels) or image.dtype != np.uint8:
        return None  # a colour declared transparent makes a fourth channel
    return image


@functools.cache
def _imagecodecs() -> Any:
    try:
        import imagecodecs
    except ImportError:
        return None
    return imagecodecs


def _require_complete(data: bytes, path: Union[str, Path]) -> None:
    """Some OpenCV builds fill the missing part of a cut-off file with grey and say nothing."""
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
    """Whether the chunks follow each other to the last one: OpenCV makes room for a chunk first."""
    name, end = b"", 0
    for name, _, end in _png_chunks(data):  # noqa: B007  the last one counts
        if name == b"IEND":
            break
    return name == b"IEND" and end <= len(data)


def _require_plausible(data: bytes, path: Union[str, Path]) -> None:
    """Refuse a file whose header declares more pixels than it can hold or memory should."""
    try:
        if data.startswith(_PNG):  # Pillow refuses wrong checksums, OpenCV does not
            width, height = struct.unpack(">II", data[16:24])
        elif data[8:16] == b"WEBPVP8L":  # Pillow makes room for all pixels as it opens one
            bits = int.from_bytes(data[21:25], "little")
            width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        else:
            with Image.open(io.BytesIO(data)) as header:  # reads no pixels
                width, height = header.size
    except Image.DecompressionBombError:
        most = 2 * Image.MAX_IMAGE_PIXELS
        raise UserError(
            f"{path}: the file of {len(data)} bytes declares more than {most} pixels; it is "
            "damaged, or far too large: cut it into tiles"
        ) from None
    except Exception:  # Pillow meets files it can't read with many kinds of errors; OpenCV may
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
    if kind not in (_PNG_GREY, _PNG_PALETTE):
        raise UserError(_many_channels(path, _PNG_KINDS.get(kind, f"PNG colour type {kind}")))
    # OpenCV would turn palette indices into their colours: hand it the same compressed pixels
    # declared as grey, and nothing else from the file.
    header = b"IHDR" + data[16:25] + bytes([_PNG_GREY]) + data[26:29]
    parts = [_PNG, struct.pack(">I", 13), header, struct.pack(">I", zlib.crc32(header))]
    parts += [data[start:end] for name, start, end in _png_chunks(data) if name == b"IDAT"]
    parts += [b"\0\0\0\0IEND\xaeB`\x82"]
    plain = b"".join(parts)
    label = _decode_fast(plain) if depth == 8 else None
    if label is None:
        label = _decode(plain, cv2.IMREAD_UNCHANGED, path)
    # 1-, 2- and 4-bit grey is stretched to 0..255 by the decoder
    return label // (255 // (2**depth - 1)) if depth < 8 else label


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(name, start, end) of each chunk, length and checksum included; the last may end beyond."""
    at = len(_PNG)
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        yield data[at + 4 : at + 8], at, end
        at = end


def _many_channels(path: Union[str, Path], found: str) -> str:
    return (
        f"{path}: a label must be one channel of class numbers (grey or palette PNG), this one "
        f"holds {found}: probably a colour picture of the label; convert its colours to class "
        "numbers"
    )
