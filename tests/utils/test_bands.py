"""Images of any number of bands and any depth, written by other libraries."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from liteseg.errors import UserError
from liteseg.utils.bands import bands_of, for_display, read_bands

RNG = np.random.default_rng(3)


def values(channels, dtype):
    if np.issubdtype(dtype, np.floating):
        return RNG.normal(size=(5, 7, channels)).astype(dtype)
    return RNG.integers(0, np.iinfo(dtype).max, (5, 7, channels)).astype(dtype)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "float64"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("channels", [2, 5, 12])
def test_tiff(tmp_path, dtype, planar, channels):
    tifffile = pytest.importorskip("tifffile")
    image = values(channels, np.dtype(dtype))
    stored = image if planar == "contig" else np.moveaxis(image, 2, 0)
    options = {"photometric": "minisblack", "planarconfig": planar}
    tifffile.imwrite(tmp_path / "x.tif", stored, **options)
    found = read_bands(tmp_path / "x.tif", [channels, 1])
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, image[..., [-1, 0]].astype(np.float32))


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_png(tmp_path, dtype, channels):
    image = values(channels, np.dtype(dtype))
    stored = image[..., {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[channels]]  # OpenCV's order
    cv2.imwrite(str(tmp_path / "x.png"), stored)
    found = read_bands(tmp_path / "x.png", range(1, channels + 1))
    np.testing.assert_array_equal(found, image.astype(np.float32))


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 6)])
def test_npy(tmp_path, shape):
    image = RNG.normal(size=shape)
    np.save(tmp_path / "x.npy", image)
    found = read_bands(tmp_path / "x.npy", [1])
    np.testing.assert_array_equal(found, image.reshape(5, 7, -1)[..., :1].astype(np.float32))


@pytest.mark.parametrize("without_tifffile", [False, True])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_orientations_are_those_of_pillow(
    tmp_path, monkeypatch, orientation, suffix, without_tifffile
):
    if without_tifffile:
        monkeypatch.setitem(__import__("sys").modules, "tifffile", None)
    image = Image.fromarray(RNG.integers(0, 255, (5, 7, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / f"x{suffix}", exif=exif)
    from PIL import ImageOps

    with Image.open(tmp_path / f"x{suffix}") as opened:
        upright = np.asarray(ImageOps.exif_transpose(opened))
    found = read_bands(tmp_path / f"x{suffix}", [1, 2, 3], exif=True)
    np.testing.assert_array_equal(found, upright)
    np.testing.assert_array_equal(read_bands(tmp_path / f"x{suffix}", [1, 2, 3]), image)


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (npy(np.zeros((2, 2, 2))), r"has 2 bands, and band 3 is to be read; set `channels`"),
        (npy(np.full((2, 2, 3), np.nan)), "NaN or infinite"),
        (npy(np.zeros((2, 2, 2, 2))), r"an array of shape \(2, 2, 2, 2\) and type float64"),
        (npy(np.zeros((2, 2, 3), complex)), "type complex128"),
        (npy(np.zeros((2, 2, 3), object)), "can't be read as an array"),
        (npy(np.zeros((2, 2, 3)))[:-9], "can't be read as an array"),
        (b"II*\0garbage", "x.npy: "),
        (b"", "the file is empty"),
        (b"text", "not an image"),
    ],
)
def test_bad_files_are_named(tmp_path, content, message):
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_bands(tmp_path / "x.npy", [1, 2, 3])


def test_bands_of_arguments():
    assert bands_of(3, None) is None
    assert bands_of(5, None) == [1, 2, 3, 4, 5]
    assert bands_of(3, [4, 2]) == [4, 2]
    assert bands_of(2, [4, 2]) == [4, 2]
    for arguments in ((0, None), (5, [1]), (3, []), (3, [0]), (3, [1, 1]), (3, [1.5])):
        with pytest.raises(UserError, match="channels"):
            bands_of(*arguments)


def test_display():
    rgb = RNG.integers(0, 255, (5, 7, 3), dtype=np.uint8)
    assert for_display(rgb) is rgb
    deep = np.linspace(100, 4000, 400, dtype=np.float32).reshape(20, 20, 1)
    shown = for_display(deep)
    assert shown.shape == (20, 20, 3)
    assert (shown[..., 0] == shown[..., 2]).all()
    assert shown.min() == 0
    assert shown.max() == 255
    assert for_display(np.zeros((5, 7, 9), np.float32)).shape == (5, 7, 3)
