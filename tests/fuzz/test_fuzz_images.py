"""Image and label files in every format, sound and damaged: pixels, or one clear error."""

from __future__ import annotations

import io
import re
import struct
import zlib
from functools import cache

import cv2
import numpy as np
import pytest
from fuzzing import damaged, examples, result_or_error
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from liteseg.datasets import Dataset, check_dataset
from liteseg.utils.images import read_image, read_label

# Pillow warns about damaged files.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")
HEIGHT, WIDTH = 24, 32
TURNED = Image.Exif()
TURNED[0x0112] = 6  # by 90 degrees
MODES = {"PNG": ("RGB", "L", "RGBA", "LA", "P", "1", "I;16"), "JPEG": ("RGB", "L", "CMYK"),
         "BMP": ("RGB", "P"), "TIFF": ("RGB", "I;16"), "PPM": ("RGB", "L"), "WEBP": ("RGB",),
         "GIF": ("P",), "JPEG2000": ("RGB",), "HDR": ("RGB",)}  # fmt: skip
# Name: format, mode and options of Pillow.
SOUND = {
    **{f"{form}_{mode}": (form, mode, {}) for form, modes in MODES.items() for mode in modes},
    "JPEG_progressive": ("JPEG", "RGB", {"progressive": True}),
    "JPEG_turned": ("JPEG", "RGB", {"exif": TURNED}),
    "TIFF_lzw": ("TIFF", "RGB", {"compression": "tiff_lzw"}),
    "TIFF_deflate": ("TIFF", "L", {"compression": "tiff_adobe_deflate"}),
    "WEBP_lossless": ("WEBP", "RGBA", {"lossless": True}),
}


def pixels(mode):
    """A smooth image with some noise, as Pillow has it in `mode`."""
    rng = np.random.default_rng(0)
    ramp = np.add.outer(np.arange(HEIGHT) * 4, np.arange(WIDTH) * 3)[..., None] + [0, 20, 40]
    rgb = (ramp + rng.integers(0, 8, ramp.shape)).clip(0, 255).astype(np.uint8)
    sixteen_bits = rgb[..., 0].astype(np.uint16) * 257
    return Image.fromarray(sixteen_bits if mode == "I;16" else rgb).convert(mode)


@cache
def sound(kind):
    """The bytes of a sound file."""
    form, mode, options = SOUND[kind]
    if form == "HDR":  # which Pillow lacks
        return cv2.imencode(".hdr", np.full((HEIGHT, WIDTH, 3), 0.5, np.float32))[1].tobytes()
    buffer = io.BytesIO()
    pixels(mode).save(buffer, form, **options)
    return buffer.getvalue()


def is_image(image):
    return image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3


def assert_refused(path, content):
    path.write_bytes(content)
    for read in (read_image, read_label):
        assert result_or_error(read, path, expected=path) is None


@pytest.mark.parametrize("kind", SOUND)
def test_sound_image(kind, tmp_path):
    form, mode, options = SOUND[kind]
    if form == "GIF" and not re.search(r"GIF:\s+YES", cv2.getBuildInformation()):
        pytest.skip("this OpenCV reads no GIF")
    path = tmp_path / "image.any"  # the format follows from the content, not from the name
    path.write_bytes(sound(kind))
    image = read_image(path)
    assert is_image(image)
    assert image.shape == (HEIGHT, WIDTH, 3)
    if (form in ("PNG", "BMP", "TIFF", "PPM") or "lossless" in options) and mode != "I;16":
        assert (image == np.asarray(pixels(mode).convert("RGB"))).all()
    turned = (WIDTH, HEIGHT, 3) if kind == "JPEG_turned" else image.shape
    assert read_image(path, exif=True).shape == turned


def test_image_written_by_opencv(tmp_path):
    expected = np.asarray(pixels("RGB"))
    cv2.imwrite(str(tmp_path / "image.png"), expected[..., ::-1])
    assert (read_image(tmp_path / "image.png") == expected).all()


@pytest.mark.parametrize("kind", SOUND)
@examples(36)
@given(st.data(), st.booleans())
def test_damaged_file(kind, tmp_path, data, exif):
    path = tmp_path / "image.png"
    path.write_bytes(data.draw(damaged(sound(kind))))
    image = result_or_error(read_image, path, exif, expected=path)
    assert image is None or is_image(image)
    label = result_or_error(read_label, path, expected=path)
    assert label is None or (label.dtype == np.uint8 and label.ndim == 2)


def png(width, height, color_type, depth, content):
    """A PNG with any header and any content; the checksums are right."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0))]
    chunks += [(b"PLTE", bytes(range(256)) * 3)] * (color_type == 3)
    chunks += [(b"IDAT", zlib.compress(content)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


SIDES = st.just(1) | st.sampled_from(
    [0, 1, 2, 7, 1000, 8192, 20000, 65500, 2**20, 2**31 - 1, 2**32 - 1]
)
COLOR_TYPES = st.sampled_from([0, 2, 3, 4, 6, 1, 200])
DEPTHS = st.sampled_from([8, 16, 0, 1, 2, 3, 4])


@examples(150)
@given(SIDES, SIDES, COLOR_TYPES, DEPTHS, st.sampled_from([0, 10, 10**6]))
def test_png_with_any_header(tmp_path, width, height, color_type, depth, length):
    content = bytes(min(height * (width * depth // 8 + 1), length))
    path = tmp_path / "image.png"
    path.write_bytes(png(width, height, color_type, depth, content))
    for read in (read_image, read_label):
        found = result_or_error(read, path, expected=path)
        assert found is None or found.shape[:2] == (height, width)


@pytest.mark.parametrize(
    ("kind", "mark", "offset", "size"),
    [
        ("JPEG_RGB", b"\xff\xc0", 5, struct.pack(">HH", 13000, 13000)),
        ("JPEG_progressive", b"\xff\xc2", 5, struct.pack(">HH", 13000, 13000)),
        ("GIF_P", b"GIF8", 6, struct.pack("<HH", 13000, 13000)),
        ("BMP_RGB", b"BM", 18, struct.pack("<ii", 13000, 13000)),
        ("WEBP_lossless", b"VP8L", 9, struct.pack("<I", 1 << 28 | 13000 << 14 | 13000)),
        ("PPM_RGB", b"32 24\n255\n", 0, b"13000 13000\n255\n"),
    ],
)
def test_size_beyond_the_content_is_refused(kind, mark, offset, size, tmp_path):
    """A small file whose header declares 169 million pixels."""
    data = sound(kind)
    at = data.index(mark) + offset
    replaced = len(mark) if offset == 0 else len(size)
    assert_refused(tmp_path / "image", data[:at] + size + data[at + replaced :])


NOT_IMAGES = [
    b"", b"this is no image", b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", bytes(10000),
    b"\x89PNG\r\n\x1a\n", b"\x89PNG\r\n\x1a\n" + b"IEND\xaeB`\x82" * 5, b"\xff\xd8",
    b"\xff\xd8\xff\xd9", b"\xff\xd8" + b"\xff\xe0\x00\x00" * 1000,
    b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', b"%PDF-1.4\n%%EOF",
    b"PK\x03\x04" + bytes(100), b"GIF89a", b"RIFF\xff\xff\xff\xffWEBPVP8 \xff\xff\xff\xff",
    b"P5 99999999999 99999999999 255\n", b"BM" + b"\xff" * 60,
]  # fmt: skip


def test_other_files_are_refused(tmp_path):
    for content in NOT_IMAGES:
        assert_refused(tmp_path / "image.png", content)


@examples(33)
@given(st.binary(max_size=999))
def test_noise_is_refused(tmp_path, content):
    assert_refused(tmp_path / "image.png", content)


SHORT_SIDES = st.sampled_from([1, 2, 5, 40])


@examples(48)
@given(
    shape=st.tuples(SHORT_SIDES, SHORT_SIDES),
    value=st.integers(0, 255),
    repeats=st.sampled_from([(1, 1), (1, 1), (1, 2), (2, 1)]),
    channels=st.sampled_from([1, 1, 3, 4]),
    suffix=st.sampled_from(["png", "png", "bmp", "tif", "jpg", "webp", "pgm"]),
)
def test_image_with_any_label(tmp_path, shape, value, repeats, channels, suffix):
    """A label of another size, format or with other values, through a dataset and its check."""
    label = np.arange(shape[0] * shape[1], dtype=np.uint8).reshape(shape) % 3
    label[0, 0] = value
    label = label.repeat(repeats[0], axis=0).repeat(repeats[1], axis=1)
    label = label if channels == 1 or suffix == "pgm" else np.stack([label] * channels, axis=2)
    cv2.imwrite(str(tmp_path / "i.png"), np.full((*shape, 3), 99, np.uint8))
    cv2.imwrite(str(tmp_path / f"l.{suffix}"), label)
    (tmp_path / "list.txt").write_text(f"i.png l.{suffix}")
    dataset = Dataset("train", str(tmp_path), [], 3, train_path="list.txt")
    sample = result_or_error(dataset.load, 0, expected=tmp_path)
    report = check_dataset(dataset, workers=1, progress=False)
    assert len(report["errors"]) == (sample is None)
    if sample is not None:
        assert set(np.unique(sample["label"])) <= {0, 1, 2, 255}
        assert sample["label"].shape == sample["img"].shape[:2]
