"""Image and label files of every kind, sound and spoiled: pixels, or one clear error."""

from __future__ import annotations

import io
import re
import struct
import zlib
from functools import lru_cache

import cv2
import numpy as np
import pytest
from fuzzing import MUTATIONS, ROUNDS, ends_well, numbered, rng_of
from PIL import Image

from liteseg.datasets import Dataset, check_dataset
from liteseg.utils.images import read_image, read_label

# What Pillow says of the spoiled ones.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")
HEIGHT, WIDTH = 24, 32


def pixels(mode):
    """A smooth picture with some noise, as Pillow has it in `mode`."""
    rng = np.random.default_rng(0)
    ramp = np.add.outer(np.arange(HEIGHT) * 4, np.arange(WIDTH) * 3)[..., None] + [0, 20, 40]
    rgb = (ramp + rng.integers(0, 8, ramp.shape)).clip(0, 255).astype(np.uint8)
    if mode == "I;16":
        return Image.fromarray(rgb[..., 0].astype(np.uint16) * 257)
    return Image.fromarray(rgb).convert(mode)


def saved(mode, form, **options):
    buffer = io.BytesIO()
    pixels(mode).save(buffer, form, **options)
    return buffer.getvalue()


def turned():
    """A JPEG whose EXIF says that it lies on its side."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved("RGB", "JPEG", exif=exif)


def radiance():
    return cv2.imencode(".hdr", np.full((HEIGHT, WIDTH, 3), 0.5, np.float32))[1].tobytes()


SOUND = {
    "png": lambda: saved("RGB", "PNG"),
    "png_grey": lambda: saved("L", "PNG"),
    "png_alpha": lambda: saved("RGBA", "PNG"),
    "png_grey_alpha": lambda: saved("LA", "PNG"),
    "png_palette": lambda: saved("P", "PNG"),
    "png_1_bit": lambda: saved("1", "PNG"),
    "png_16_bit": lambda: saved("I;16", "PNG"),
    "png_opencv": lambda: cv2.imencode(".png", np.asarray(pixels("RGB"))[..., ::-1])[1].tobytes(),
    "jpeg": lambda: saved("RGB", "JPEG"),
    "jpeg_grey": lambda: saved("L", "JPEG"),
    "jpeg_cmyk": lambda: saved("CMYK", "JPEG"),
    "jpeg_progressive": lambda: saved("RGB", "JPEG", progressive=True),
    "jpeg_turned": turned,
    "bmp": lambda: saved("RGB", "BMP"),
    "bmp_palette": lambda: saved("P", "BMP"),
    "tiff": lambda: saved("RGB", "TIFF"),
    "tiff_lzw": lambda: saved("RGB", "TIFF", compression="tiff_lzw"),
    "tiff_deflate": lambda: saved("L", "TIFF", compression="tiff_adobe_deflate"),
    "tiff_16_bit": lambda: saved("I;16", "TIFF"),
    "webp": lambda: saved("RGB", "WEBP"),
    "webp_lossless": lambda: saved("RGBA", "WEBP", lossless=True),
    "ppm": lambda: saved("RGB", "PPM"),
    "pgm": lambda: saved("L", "PPM"),
    "gif": lambda: saved("P", "GIF"),
    "jpeg2000": lambda: saved("RGB", "JPEG2000"),
    "radiance": radiance,
}
# Formats that lose nothing, by the mode in which Pillow has the same pixels.
EXACT = {
    **dict.fromkeys(("png", "png_alpha", "png_opencv", "bmp", "tiff", "tiff_lzw", "ppm"), "RGB"),
    **dict.fromkeys(("png_grey", "png_grey_alpha", "tiff_deflate", "pgm"), "L"),
    "webp_lossless": "RGB",
}
LABELS = ("png_grey", "png_palette", "png_1_bit", "png_16_bit", "tiff_deflate", "pgm", "bmp")


@lru_cache
def sound(kind):
    return SOUND[kind]()


@pytest.mark.parametrize("kind", SOUND)
def test_sound_images_are_read(kind, tmp_path):
    if kind == "gif" and not re.search(r"GIF:\s+YES", cv2.getBuildInformation()):
        pytest.skip("this OpenCV reads no GIF")
    path = tmp_path / "image.any"  # the content tells the format, not the name
    path.write_bytes(sound(kind))
    image = read_image(path)
    assert image.shape == (HEIGHT, WIDTH, 3)
    assert image.dtype == np.uint8
    if kind in EXACT:
        expected = np.asarray(pixels(EXACT[kind]), int).reshape(HEIGHT, WIDTH, -1)
        assert np.abs(image - expected).max() == 0
    turned_shape = (WIDTH, HEIGHT, 3) if kind == "jpeg_turned" else image.shape
    assert read_image(path, exif=True).shape == turned_shape


SPOILED = numbered([f"{kind}-{mutation}" for kind in SOUND for mutation in MUTATIONS], 4)


@pytest.mark.parametrize("name", SPOILED)
def test_image(name, tmp_path):
    kind, mutation, _ = name.split("-")
    path = tmp_path / f"{kind}.png"
    path.write_bytes(MUTATIONS[mutation](sound(kind), rng_of(name)))
    image = ends_well(lambda: read_image(path, exif=bool(len(name) % 2)), str(path))
    if image is not None:
        assert image.ndim == 3
        assert image.shape[2] == 3
        assert image.dtype == np.uint8


SPOILED_LABELS = numbered([f"{kind}-{mutation}" for kind in LABELS for mutation in MUTATIONS], 8)


@pytest.mark.parametrize("name", SPOILED_LABELS)
def test_label(name, tmp_path):
    kind, mutation, _ = name.split("-")
    path = tmp_path / f"{kind}.png"
    path.write_bytes(MUTATIONS[mutation](sound(kind), rng_of(name)))
    label = ends_well(lambda: read_label(path), str(path))
    if label is not None:
        assert label.ndim == 2
        assert label.dtype == np.uint8


def png(width, height, kind, depth, content):
    """A PNG with any header and any content, checksums right."""

    def chunk(name, data):
        checksum = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + checksum

    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    parts = [chunk(b"IHDR", header)]
    if kind == 3:
        parts.append(chunk(b"PLTE", bytes(range(256)) * 3))
    parts += [chunk(b"IDAT", zlib.compress(content)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


HEADERS = numbered(["header"], 150)


@pytest.mark.parametrize("name", HEADERS)
def test_png_with_any_header(name, tmp_path):
    """Sizes from nothing to enormous, all colour types and depths, also impossible ones."""
    rng = rng_of(name)
    sizes = [0, 1, 2, 7, 1000, 8192, 20000, 65500, 2**20, 2**31 - 1, 2**32 - 1]
    width, height = (int(rng.choice(sizes, p=[0.05, 0.3] + [0.65 / 9] * 9)) for _ in range(2))
    kind, depth = int(rng.choice([0, 2, 3, 4, 6, 1, 200])), int(rng.choice([0, 1, 2, 3, 4, 8, 16]))
    content = bytes(int(min(height * (width * depth // 8 + 1), rng.choice([0, 10, 10**6]))))
    path = tmp_path / "image.png"
    path.write_bytes(png(width, height, kind, depth, content))
    for read in (read_image, read_label):
        found = ends_well(lambda read=read: read(path), str(path))
        if found is not None:
            assert found.shape[:2] == (height, width)


def declared(kind):
    """A small file whose header declares some hundreds of millions of pixels."""
    data = sound(kind)
    if kind.startswith("jpeg"):
        at = next(data.find(mark) for mark in (b"\xff\xc0", b"\xff\xc2") if mark in data)
        return data[: at + 5] + struct.pack(">HH", 13000, 13000) + data[at + 9 :]
    if kind == "gif":
        return data[:6] + struct.pack("<HH", 13000, 13000) + data[10:]
    if kind == "bmp":
        return data[:18] + struct.pack("<ii", 13000, 13000) + data[26:]
    if kind == "webp_lossless":
        at = data.find(b"VP8L") + 9
        bits = struct.unpack_from("<I", data, at)[0] >> 28 << 28
        return data[:at] + struct.pack("<I", bits | 13000 << 14 | 13000) + data[at + 4 :]
    return data.replace(f"{WIDTH} {HEIGHT}".encode(), b"13000 13000")


@pytest.mark.parametrize("kind", ["jpeg", "jpeg_progressive", "gif", "bmp", "webp_lossless", "ppm"])
def test_a_size_that_the_file_cannot_hold_is_refused(kind, tmp_path):
    path = tmp_path / "image"
    path.write_bytes(declared(kind))
    assert path.read_bytes() != sound(kind)
    for read in (read_image, read_label):
        assert ends_well(lambda read=read: read(path), str(path)) is None


NO_IMAGES = {
    "empty": b"",
    "text": b"this is no image",
    "page": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
    "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
    "zeros": bytes(10000),
    "png_magic": b"\x89PNG\r\n\x1a\n",
    "png_end": b"\x89PNG\r\n\x1a\n" + b"IEND\xaeB`\x82" * 5,
    "jpeg_magic": b"\xff\xd8",
    "jpeg_end": b"\xff\xd8\xff\xd9",
    "jpeg_lengths": b"\xff\xd8" + b"\xff\xe0\x00\x00" * 1000,
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
    "pdf": b"%PDF-1.4\n%%EOF",
    "zip": b"PK\x03\x04" + bytes(100),
    "gif_magic": b"GIF89a",
    "riff": b"RIFF\xff\xff\xff\xffWEBPVP8 \xff\xff\xff\xff",
    "pgm_lies": b"P5 99999999999 99999999999 255\n",
    "bmp_magic": b"BM" + b"\xff" * 60,
}


@pytest.mark.parametrize("name", [*NO_IMAGES, *numbered(["noise"], 33)])
def test_what_is_no_image(name, tmp_path):
    rng = rng_of(name)
    path = tmp_path / "image.png"
    path.write_bytes(NO_IMAGES.get(name) if name in NO_IMAGES else rng.bytes(rng.integers(1, 999)))
    for read in (read_image, read_label):
        assert ends_well(lambda read=read: read(path), str(path)) is None


PAIRS = numbered(["values", "size", "channels", "format"], 12)


@pytest.mark.parametrize("name", PAIRS)
def test_pair(name, tmp_path):
    """An image with a label that may not fit it, through a dataset and its check."""
    rng = rng_of(name)
    what = name.partition("-")[0]
    height, width = (int(rng.choice([1, 2, 5, 40])) for _ in range(2))
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    label = rng.integers(0, 3, (height, width), dtype=np.uint8)
    suffix = "png"
    if what == "values":
        label[0, 0] = rng.integers(0, 256)
    elif what == "size":
        label = label.repeat(rng.integers(1, 3), axis=0).repeat(rng.integers(1, 3), axis=1)
    elif what == "channels":
        label = np.stack([label] * int(rng.choice([3, 4])), axis=2)
    else:
        suffix = str(rng.choice(["bmp", "tif", "jpg", "webp", "pgm"]))
    cv2.imwrite(str(tmp_path / "i.png"), image)
    cv2.imwrite(str(tmp_path / f"l.{suffix}"), label)
    (tmp_path / "list.txt").write_text(f"i.png l.{suffix}")
    dataset = Dataset("train", str(tmp_path), [], 3, train_path="list.txt")
    sample = ends_well(lambda: dataset.load(0), str(tmp_path))
    report = check_dataset(dataset, workers=1, progress=False)
    assert len(report["errors"]) == (sample is None)
    if sample is not None:
        assert set(np.unique(sample["label"])) <= {0, 1, 2, 255}
        assert sample["label"].shape == sample["img"].shape[:2]


def test_how_many_there_are():
    counts = {
        "images": len(SPOILED) // ROUNDS,
        "labels": len(SPOILED_LABELS) // ROUNDS,
        "headers": len(HEADERS) // ROUNDS,
        "pairs": len(PAIRS) // ROUNDS,
    }
    assert counts == {"images": 624, "labels": 336, "headers": 150, "pairs": 48}
