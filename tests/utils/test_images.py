"""Image and label files of every kind, compared with Pillow."""

from __future__ import annotations

import io
import os

import cv2
import numpy as np
import pytest
from PIL import Image

from liteseg.errors import UserError
from liteseg.utils import images
from liteseg.utils.images import label_histogram, read_image, read_label, stack_planes

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (13, 17, 3), dtype=np.uint8)
INDEX = RNG.integers(0, 4, (13, 17), dtype=np.uint8)


@pytest.fixture(autouse=True, params=["imagecodecs", "OpenCV"])
def decoder(request, monkeypatch):
    """Run every test with both PNG decoders."""
    if request.param == "imagecodecs":
        pytest.importorskip("imagecodecs", reason="imagecodecs is not installed: the extra `fast`")
    else:
        monkeypatch.setattr(images, "_imagecodecs", lambda: None)
    return request.param


def save(path, array, mode=None, **options):
    Image.fromarray(array, mode).save(path, **options)
    return path


def palette_png(path, index, bits=8, **options):
    image = Image.fromarray(index, "P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 7, 8, 9] + [1, 1, 1] * 12)
    image.save(path, bits=bits, **options)
    return path


def test_color_png_is_rgb(tmp_path):
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.png", RGB)), RGB)


def test_imagecodecs_decodes_8_bit_rgb_and_labels_only(tmp_path, decoder, monkeypatch):
    """OpenCV decodes 16 bits, alpha and a transparent color."""
    decoded = []
    fast = images._decode_fast
    monkeypatch.setattr(images, "_decode_fast", lambda *a: decoded.append(fast(*a)) or decoded[-1])
    read_image(save(tmp_path / "rgb.png", RGB))
    read_label(save(tmp_path / "label.png", INDEX))
    assert [image is not None for image in decoded] == [decoder == "imagecodecs"] * 2
    decoded.clear()
    Image.fromarray(RGB).save(tmp_path / "t.png", transparency=tuple(map(int, RGB[0, 0])))
    np.testing.assert_array_equal(read_image(tmp_path / "t.png"), RGB)
    assert decoded == [None]
    decoded.clear()
    cv2.imwrite(str(tmp_path / "w.png"), RGB.astype(np.uint16) * 257)
    np.testing.assert_array_equal(read_image(tmp_path / "w.png"), RGB[..., ::-1])
    assert decoded == []


def test_name_need_not_be_ascii(tmp_path):
    path = save(tmp_path / "Straße 路.png", RGB)
    np.testing.assert_array_equal(read_image(str(path)), RGB)


def test_alpha_is_dropped(tmp_path):
    rgba = np.dstack([RGB, RNG.integers(0, 256, (13, 17), dtype=np.uint8)])
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.png", rgba)), RGB)


def test_gray_and_16_bit_become_rgb(tmp_path):
    gray = RGB[..., 0]
    expected = np.dstack([gray] * 3)
    np.testing.assert_array_equal(read_image(save(tmp_path / "g.png", gray)), expected)
    cv2.imwrite(str(tmp_path / "w.png"), gray.astype(np.uint16) * 257)
    np.testing.assert_array_equal(read_image(tmp_path / "w.png"), expected)


def test_palette_image_is_converted_to_its_colors(tmp_path):
    path = palette_png(tmp_path / "p.png", INDEX)
    expected = np.asarray(Image.open(path).convert("RGB"))
    np.testing.assert_array_equal(read_image(path), expected)


def test_exif_orientation_only_on_request(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    path = save(tmp_path / "a.jpg", RGB, exif=exif)
    assert read_image(path).shape == (13, 17, 3)
    assert read_image(path, exif=True).shape == (17, 13, 3)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_truncated_image(tmp_path, suffix, keep):
    path = save(tmp_path / f"a{suffix}", np.tile(RGB, (9, 9, 1)))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(UserError, match=rf"a{suffix}: the file is truncated"):
        read_image(path)


def test_truncated_jpeg_with_whole_thumbnail(tmp_path):
    """The end marker of the EXIF thumbnail does not count."""
    thumbnail, image = io.BytesIO(), io.BytesIO()
    Image.fromarray(RGB).save(thumbnail, "JPEG")
    Image.fromarray(np.tile(RGB, (9, 9, 1))).save(image, "JPEG")
    app1 = b"Exif\0\0" + thumbnail.getvalue()
    segment = b"\xff\xe1" + (len(app1) + 2).to_bytes(2, "big") + app1
    whole = b"\xff\xd8" + segment + image.getvalue()[2:]
    path = tmp_path / "a.jpg"
    path.write_bytes(whole)
    assert read_image(path).shape == (117, 153, 3)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="truncated"):
        read_image(path)


def test_bytes_after_the_end_are_ignored(tmp_path):
    for name in ("a.png", "a.jpg"):
        path = save(tmp_path / name, RGB)
        expected = read_image(path)
        path.write_bytes(path.read_bytes() + b"\0" * 100)
        np.testing.assert_array_equal(read_image(path), expected)


@pytest.mark.parametrize("read", [read_image, read_label])
@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "empty"), (b"<html>not found</html>", "not an image"), (None, "No such file")],
)
def test_not_an_image(tmp_path, read, content, message):
    path = tmp_path / "x.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=rf"x\.png.*{message}"):
        read(path)


def test_damaged_png(tmp_path):
    path = save(tmp_path / "a.png", np.tile(RGB, (9, 9, 1)))
    data = bytearray(path.read_bytes())
    data[100:300] = bytes(200)
    path.write_bytes(bytes(data))
    with pytest.raises(UserError, match=r"a\.png"):
        read_image(path)


def test_gray_label(tmp_path):
    label = RNG.integers(0, 256, (13, 17), dtype=np.uint8)
    read = read_label(save(tmp_path / "l.png", label))
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, label)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palette_label_gives_indices(tmp_path, bits):
    index = INDEX & (2**bits - 1)
    path = palette_png(tmp_path / "l.png", index, bits=bits)
    np.testing.assert_array_equal(read_label(path), index)


def test_palette_with_transparency(tmp_path):
    path = palette_png(tmp_path / "l.png", INDEX, transparency=0)
    np.testing.assert_array_equal(read_label(path), INDEX)


def test_one_bit_label_is_zero_and_one(tmp_path):
    mask = (INDEX % 2).astype(bool)
    path = tmp_path / "l.png"
    Image.fromarray(mask).save(path)
    np.testing.assert_array_equal(read_label(path), mask.astype(np.uint8))


def test_16_bit_label(tmp_path):
    path = tmp_path / "l.png"
    cv2.imwrite(str(path), INDEX.astype(np.uint16))
    read = read_label(path)
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, INDEX)
    cv2.imwrite(str(path), INDEX.astype(np.uint16) * 1000)
    with pytest.raises(UserError, match="values reach 3000"):
        read_label(path)


def test_other_lossless_formats(tmp_path):
    for suffix in (".bmp", ".tif"):
        cv2.imwrite(str(tmp_path / f"l{suffix}"), INDEX)
        np.testing.assert_array_equal(read_label(tmp_path / f"l{suffix}"), INDEX)


def test_color_labels_are_rejected(tmp_path):
    with pytest.raises(UserError, match=r"colors \(RGB\)"):
        read_label(save(tmp_path / "l.png", RGB))
    with pytest.raises(UserError, match="RGBA"):
        read_label(save(tmp_path / "l.png", np.dstack([RGB, INDEX])))
    cv2.imwrite(str(tmp_path / "l.bmp"), RGB)
    with pytest.raises(UserError, match="3 channels"):
        read_label(tmp_path / "l.bmp")


def test_jpeg_label_is_rejected(tmp_path):
    with pytest.raises(UserError, match="JPEG"):
        read_label(save(tmp_path / "l.jpg", INDEX))


def test_label_histogram():
    label = RNG.integers(0, 256, (31, 57), dtype=np.uint8)
    counts = label_histogram(label)
    assert counts.dtype == np.int64
    np.testing.assert_array_equal(counts, np.bincount(label.ravel(), minlength=256))


@pytest.mark.parametrize("writeable", [True, False])
def test_stack_planes(writeable):
    """Also for views into larger arrays, such as crops from a pack."""
    images = np.random.default_rng(0).integers(0, 256, (3, 12, 20, 3), np.uint8)
    images.flags.writeable = writeable
    for windows in (images, images[:, 2:9, 3:17]):
        planes = stack_planes(list(windows))
        assert planes.dtype == np.uint8
        np.testing.assert_array_equal(planes, windows.transpose(0, 3, 1, 2))


@pytest.mark.parametrize("read", [read_image, read_label])
def test_fifos_and_devices_are_refused_at_once(read, tmp_path):
    os.mkfifo(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to("/dev/zero")
    for name in ("a.png", "b.png"):
        with pytest.raises(UserError, match="not a regular file"):
            read(tmp_path / name)
