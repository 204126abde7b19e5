"""Images whose orientation, depth or bands need more than a decoder."""

import numpy as np
import pytest
from cases.images import LEFT_TO_RIGHT, bands_tiff, few_bits, palette_label, turned_photo
from PIL import Image, ImageOps

from liteseg.errors import UserError
from liteseg.utils.images import image_facts, read_image, read_label

RNG = np.random.default_rng(0)
BANDS = RNG.integers(0, 256, (16, 24, 10), np.uint8)
INDICES = RNG.integers(0, 3, (16, 24), np.uint8)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
def test_orientation(tmp_path, suffix, orientation):
    path = turned_photo(tmp_path / f"photo{suffix}", orientation)
    assert image_facts(path).orientation == orientation
    tolerance = 3 if suffix == ".jpg" else 0
    with Image.open(path) as photo:
        upright = np.asarray(ImageOps.exif_transpose(photo).convert("RGB"), int)
    assert np.abs(read_image(path, exif=True) - upright).max() <= tolerance
    assert np.abs(read_image(path) - LEFT_TO_RIGHT.astype(int)).max() <= tolerance


@pytest.mark.parametrize("value", [0, 9, 99])
def test_an_invalid_orientation_is_none(tmp_path, value):
    path = turned_photo(tmp_path / "photo.png", value)
    assert image_facts(path).orientation == 1
    assert (read_image(path, exif=True) == LEFT_TO_RIGHT).all()


@pytest.mark.parametrize("suffix", [".png", ".tif", ".ppm"])
@pytest.mark.parametrize("bits", [8, 10, 12])
def test_few_bits_of_16(tmp_path, suffix, bits):
    path = few_bits(tmp_path / f"camera{suffix}", bits)
    with pytest.raises(UserError) as error:
        read_image(path)
    assert str(path) in str(error.value)
    assert f"16 bits per band with a largest value of {2**bits - 1}" in str(error.value)
    assert "scale the values to 0..255" in str(error.value)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".ppm"])
def test_full_range_of_16_bits(tmp_path, suffix):
    path = few_bits(tmp_path / f"camera{suffix}", 16)
    assert image_facts(path) == (1, 65535)
    assert np.abs(read_image(path) - LEFT_TO_RIGHT.astype(int)).max() <= 2


@pytest.mark.parametrize(
    ("values", "options", "found"),
    [
        (BANDS[..., :2], {}, "2 bands of 8-bit integers"),
        (BANDS[..., :4], {}, "4 bands of 8-bit integers"),
        (BANDS[..., :4], {"photometric": 2}, "4 bands of 8-bit integers"),
        (BANDS[..., :4], {"photometric": 2, "extra": 2}, "4 bands of 8-bit integers"),
        (BANDS, {}, "10 bands of 8-bit integers"),
        (BANDS[..., :1] / np.float32(255), {}, "1 band of 32-bit floats"),
        (BANDS[..., :3] / np.float32(255), {"photometric": 2}, "3 bands of 32-bit floats"),
        (BANDS[..., :1].astype(np.int16), {}, "1 band of 16-bit signed integers"),
        (BANDS[..., :1].astype(np.uint32), {}, "1 band of 32-bit integers"),
    ],
)
def test_other_bands(tmp_path, values, options, found):
    path = bands_tiff(tmp_path / "bands.tif", values, **options)
    with pytest.raises(UserError) as error:
        read_image(path)
    assert str(error.value).startswith(f"{path}: {found}")
    assert "expected 8 or 16 bits of gray, RGB or RGBA" in str(error.value)


def test_transparency_is_no_band(tmp_path):
    alpha = np.where(INDICES > 0, 255, 0)[..., None].astype(np.uint8)
    values = np.concatenate([LEFT_TO_RIGHT, alpha], axis=2)
    path = bands_tiff(tmp_path / "rgba.tif", values, photometric=2, extra=2)
    opaque = INDICES > 0
    assert (read_image(path)[opaque] == LEFT_TO_RIGHT[opaque]).all()


@pytest.mark.parametrize("suffix", [".gif", ".bmp", ".png"])
def test_palette_labels(tmp_path, suffix):
    assert (read_label(palette_label(tmp_path / f"label{suffix}", INDICES)) == INDICES).all()


def test_fractions_are_no_classes(tmp_path):
    path = bands_tiff(tmp_path / "label.tif", INDICES[..., None] + np.float32(0.5))
    with pytest.raises(UserError, match="label values are fractions"):
        read_label(path)
