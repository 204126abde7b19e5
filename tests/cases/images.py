"""Small image and label files as users have them, generated (see README.md)."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

ORIENTATION = 0x0112  # EXIF and TIFF tag
LEFT_TO_RIGHT = np.linspace(0, 255, 24 * 16 * 3).reshape(16, 24, 3).astype(np.uint8)


def turned_photo(path: Path, orientation: int, image: np.ndarray = LEFT_TO_RIGHT) -> Path:
    """A photograph whose EXIF tag turns it: any format that Pillow writes with EXIF."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    lossless = {"lossless": True} if path.suffix == ".webp" else {"quality": 100}
    Image.fromarray(image).save(path, exif=exif, **lossless)
    return path


def few_bits(path: Path, bits: int) -> Path:
    """A 16-bit RGB file of a camera with `bits` significant bits (PNG, TIFF or PPM)."""
    values = np.linspace(0, 2**bits - 1, 24 * 16 * 3).reshape(16, 24, 3).astype(np.uint16)
    path.write_bytes(cv2.imencode(path.suffix, values)[1].tobytes())
    return path


def bands_tiff(path: Path, values: np.ndarray, photometric: int = 1, extra: int = 0) -> Path:
    """A TIFF (h, w, bands), as GDAL writes it: "min is black" (1), the other bands unspecified."""
    height, width, bands = values.shape
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    colors = 3 if photometric == 2 else 1
    pixels = values.astype(values.dtype.newbyteorder("<")).tobytes()
    tags = {
        256: [width],
        257: [height],
        258: [values.itemsize * 8] * bands,
        259: [1],
        262: [photometric],
        273: [0],  # offset of the pixels, set below
        277: [bands],
        278: [height],
        279: [len(pixels)],
        338: [extra] * (bands - colors),
        339: [kind] * bands,
    }
    tags = {tag: numbers for tag, numbers in tags.items() if numbers}
    place = 8 + 2 + 12 * len(tags) + 4
    lists = b""
    offset_of = {}
    for tag, numbers in tags.items():
        if len(numbers) > 2:
            offset_of[tag] = place + len(lists)
            lists += struct.pack(f"<{len(numbers)}H", *numbers)
    tags[273] = [place + len(lists)]
    entries = b""
    for tag, numbers in tags.items():
        if tag in offset_of:
            entries += struct.pack("<HHII", tag, 3, len(numbers), offset_of[tag])
        elif len(numbers) == 2:
            entries += struct.pack("<HHIHH", tag, 3, 2, *numbers)
        else:
            entries += struct.pack("<HHII", tag, 4, 1, numbers[0])
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", 0)
    path.write_bytes(head + lists + pixels)
    return path


def palette_label(path: Path, indices: np.ndarray) -> Path:
    """A label whose palette indices are the classes (GIF, BMP)."""
    image = Image.fromarray(indices, "P")
    image.putpalette([10, 20, 30, 200, 100, 0, 5, 250, 5])
    image.save(path)
    return path
