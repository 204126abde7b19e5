"""Images of any number of bands and any depth: TIFF, PNG and `.npy` files as float32 values."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Optional, Union

import cv2
import numpy as np

from liteseg.errors import UserError
from liteseg.utils.image_files import (
    TIFF,
    decode,
    read_bytes,
    require_readable,
    stored_orientation,
    turned,
    turned_back,
)

NPY = b"\x93NUMPY"
_MOST_BANDS = 512


def bands_of(img_channels: int, channels: Optional[Sequence[int]]) -> Optional[list[int]]:
    """The bands that a dataset with these arguments reads; None for 8-bit RGB.

    Raises:
        UserError: not whole numbers from 1, a band twice, or numbers that differ.
    """
    if channels is None:
        if not 1 <= img_channels <= _MOST_BANDS:
            raise UserError(f"img_channels: {img_channels} is not within 1..{_MOST_BANDS}")
        return None if img_channels == 3 else list(range(1, img_channels + 1))
    bands = list(channels)
    whole = all(type(band) is int and 1 <= band <= _MOST_BANDS for band in bands)
    if not bands or not whole or len(set(bands)) < len(bands):
        raise UserError(f"channels: {bands}; expected different numbers of bands, from 1")
    if img_channels not in (3, len(bands)):
        raise UserError(f"img_channels: {img_channels}, and channels has {len(bands)}; remove it")
    return bands


def read_bands(path: Union[str, Path], bands: Sequence[int], exif: bool = False) -> np.ndarray:
    """Read the values of some bands of an image file as they are stored.

    Args:
        path: a TIFF with any number of bands (more than 4 need tifffile), a `.npy` array (h, w) or
            (h, w, bands), or any image that OpenCV reads. Bands of color images are red, green,
            blue and, if there is one, alpha.
        bands: numbers of the bands, from 1, in the order to return them.
        exif: apply the EXIF orientation; without it, pixels come as stored.

    Returns:
        (h, w, len(bands)) float32.

    Raises:
        UserError: missing, unreadable, too few bands, or values that are not finite.
    """
    return decode_bands(read_bytes(path), path, bands, exif)


def decode_bands(
    data: bytes, path: Union[str, Path], bands: Sequence[int], exif: bool = False
) -> np.ndarray:
    """As `read_bands`, of the content of a file; `path` is for errors."""
    if data.startswith(NPY):
        image = _npy(data, path)
    else:
        require_readable(data, path)
        whole = _tiff(data, path) if data.startswith(TIFF) else None
        image = _by_opencv(data, path) if whole is None else whole
    if image.ndim == 2:
        image = image[..., None]
    if max(bands) > image.shape[2]:
        found = f"{image.shape[2]} band{'s' * (image.shape[2] > 1)}"
        raise UserError(
            f"{path}: has {found}, and band {max(bands)} is to be read; set `channels` of the "
            "dataset to bands that all images have"
        )
    if exif and not data.startswith(NPY):
        image = turned(image, stored_orientation(data))
    values = np.ascontiguousarray(image[..., [band - 1 for band in bands]], np.float32)
    if not np.isfinite(values).all():
        raise UserError(
            f"{path}: has values that are NaN or infinite; replace them, for example by 0, in all "
            "images"
        )
    return values


def for_display(image: np.ndarray) -> np.ndarray:
    """An image as RGB that a person can look at.

    Args:
        image: (h, w, C); uint8 RGB is returned as it is.

    Returns:
        (h, w, 3) uint8: the first three channels, or the first one in gray, with the values from
        the 1st to the 99th percentile from black to white.
    """
    if image.dtype == np.uint8 and image.shape[2] == 3:
        return image
    shown = image[..., :3] if image.shape[2] >= 3 else image[..., :1].repeat(3, axis=2)
    low, high = np.percentile(shown[:: max(1, len(shown) // 256)], (1, 99))
    scaled = (shown.astype(np.float32) - low) * (255 / max(float(high - low), 1e-12))
    return np.clip(scaled, 0, 255).astype(np.uint8)


def _npy(data: bytes, path: Union[str, Path]) -> np.ndarray:
    try:
        image = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, MemoryError) as error:
        raise UserError(f"{path}: can't be read as an array: {error}") from None
    plain = image.dtype.kind in "uif" and image.ndim in (2, 3) and image.size
    if not plain or (image.ndim == 3 and image.shape[2] > _MOST_BANDS):
        raise UserError(
            f"{path}: an array of shape {image.shape} and type {image.dtype}; expected numbers of "
            "shape (height, width) or (height, width, bands)"
        )
    return image


def _tiff(data: bytes, path: Union[str, Path]) -> Optional[np.ndarray]:
    """The bands of a TIFF by tifffile; None if it is not installed."""
    try:
        import tifffile
    except ImportError:
        return None
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            series = file.series[0]
            image, axes = series.asarray(), series.axes
    except Exception as error:  # tifffile and its decoders have many error types
        raise UserError(f"{path}: tifffile can't read it: {error}") from None
    if image.ndim == 3 and image.size:
        if axes[-1] not in "YX":  # bands of a pixel are next to each other
            return image
        if axes[:1] not in ("Y", "X"):  # bands or pages one after the other
            return np.moveaxis(image, 0, -1)
    if image.ndim != 2 or not image.size:
        raise UserError(f"{path}: a TIFF of shape {image.shape} ({axes}); expected one image")
    return image


def _by_opencv(data: bytes, path: Union[str, Path]) -> np.ndarray:
    try:
        image = decode(data, cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION, path)
    except UserError:
        if not data.startswith(TIFF):
            raise
        raise UserError(
            f"{path}: OpenCV can't read this TIFF; for more bands, pip install 'liteseg[data]'"
        ) from None
    if image.ndim == 3 and image.shape[2] in (3, 4):
        code = cv2.COLOR_BGR2RGB if image.shape[2] == 3 else cv2.COLOR_BGRA2RGBA
        image = cv2.cvtColor(image, code)
    if data.startswith(TIFF):
        return turned_back(image[..., None] if image.ndim == 2 else image, data)
    return image
