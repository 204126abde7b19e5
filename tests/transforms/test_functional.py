"""Resizing of a window equals that of the whole image; color operations equal Pillow's."""

from __future__ import annotations

import subprocess
import sys

import cv2
import numpy as np
import pytest

from liteseg.transforms import functional as F

SCALES_OF_RECIPES = {
    "scale 0.5 and 0.75": np.arange(1, 13) / 8,
    "scale 1.0": np.arange(2, 9) / 4,
    "camvid": np.arange(2, 11) / 4,
}
SCALES = sorted({float(s) for scales in SCALES_OF_RECIPES.values() for s in scales})


def street(h: int, w: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Smooth and textured areas, and a label with many borders."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:h, :w]
    smooth = np.stack([x * 255 / w, y * 255 / h, 127 + 120 * np.sin(x / 5) * np.cos(y / 7)], -1)
    noise = rng.normal(0, 25, (h, w, 3)) * (x[..., None] > w // 2)
    image = np.clip(smooth + noise, 0, 255).astype(np.uint8)
    return image, ((x // 13 + y // 9) % 19).astype(np.uint8)


def windows(size: tuple[int, int], crop: tuple[int, int], count: int):
    """Random windows, and those in the far corners."""
    rng = np.random.default_rng(size)
    height, width = min(crop[0], size[0]), min(crop[1], size[1])
    yield F.Window(0, 0, height, width)
    yield F.Window(size[0] - height, size[1] - width, height, width)
    for _ in range(count):
        top = int(rng.integers(size[0] - height + 1))
        yield F.Window(top, int(rng.integers(size[1] - width + 1)), height, width)


def check_windows(image, label, size, crop, count, tolerance):
    whole, whole_label = F.resize(image, size), F.resize(label, size, cv2.INTER_NEAREST)
    for window in windows(size, crop, count):
        part = F.resize_window(image, size, window)
        assert part.shape == (window.height, window.width, 3)
        difference = np.abs(part.astype(int) - whole[window.slices])
        assert difference.mean() < tolerance, (size, window)
        assert difference.max() <= 2, (size, window)
        labels = F.resize_label_window(label, size, window)
        np.testing.assert_array_equal(labels, whole_label[window.slices])


@pytest.mark.parametrize("shape", [(360, 480), (720, 960)])
def test_resized_window_at_every_recipe_scale(shape):
    image, label = street(*shape)
    for scale in SCALES:
        size = round(shape[0] * scale), round(shape[1] * scale)
        check_windows(image, label, size, (180, 240), 4, tolerance=0.05)


def test_resized_window_of_cityscapes_size():
    image, label = street(1024, 2048)
    for scale in (0.125, 0.625, 0.875, 1.5):
        size = round(1024 * scale), round(2048 * scale)
        check_windows(image, label, size, (512, 1024), 1, tolerance=0.05)


@pytest.mark.parametrize("shape", [(97, 1001), (375, 501), (53, 31)])
def test_resized_window_of_odd_sizes(shape):
    image, label = street(*shape)
    random_sizes = np.random.default_rng(1).uniform(0.1, 3, (10, 2)) * shape
    scaled = np.outer(SCALES, shape)
    off_by_one = np.add(shape, [[-1, -1], [1, 1], [0, 1], [-1, 0]])
    for size in np.concatenate([random_sizes, scaled, off_by_one]).round().astype(int).tolist():
        check_windows(image, label, tuple(size), (40, 200), 3, tolerance=0.3)


def test_resized_window_only_reads_its_part_of_the_image():
    image, _ = street(1024, 2048)
    size, window = (1536, 3072), F.Window(800, 1900, 512, 1024)
    damaged = image.copy()
    damaged[: 800 * 2 // 3 - 8] = 0
    damaged[:, : 1900 * 2 // 3 - 8] = 0
    damaged[(800 + 512) * 2 // 3 + 8 :] = 0
    damaged[:, (1900 + 1024) * 2 // 3 + 8 :] = 0
    expected = F.resize_window(image, size, window)
    np.testing.assert_array_equal(F.resize_window(damaged, size, window), expected)


def test_resize_linear_is_point_sampling_without_antialias():
    image, _ = street(40, 60)
    h, w = 25, 33
    y = np.clip((np.arange(h) + 0.5) * 40 / h - 0.5, 0, 39)
    x = np.clip((np.arange(w) + 0.5) * 60 / w - 0.5, 0, 59)
    top, left = np.floor(y).astype(int), np.floor(x).astype(int)
    fy, fx = (y - top)[:, None, None], (x - left)[None, :, None]
    bottom, right = np.minimum(top + 1, 39), np.minimum(left + 1, 59)
    pixels = image.astype(float)
    upper = pixels[top][:, left] * (1 - fx) + pixels[top][:, right] * fx
    lower = pixels[bottom][:, left] * (1 - fx) + pixels[bottom][:, right] * fx
    expected = upper * (1 - fy) + lower * fy
    assert np.abs(F.resize(image, (h, w)) - expected).max() <= 1


def test_pad_fills_bottom_and_right():
    image, label = street(5, 7)
    padded = F.pad(image, (8, 7), (1, 2, 3))
    np.testing.assert_array_equal(padded[:5], image)
    assert (padded[5:] == (1, 2, 3)).all()
    padded = F.pad(label, (5, 9), 255)
    np.testing.assert_array_equal(padded[:, :7], label)
    assert (padded[:, 7:] == 255).all()


def test_colors_against_golden(golden):
    reference = np.load(golden / "colour.npz")
    names = [name for name in reference.files if "@" in name]
    assert len(names) == 9
    for name in names:
        operation, amount = name.split("@")
        result = getattr(F, operation)(reference["input"], float(amount))
        assert result.dtype == np.uint8
        assert np.abs(result.astype(int) - reference[name]).max() <= 2, name


@pytest.fixture(scope="module")
def many_colors() -> np.ndarray:
    """Random colors, every gray, and the corners of the color cube."""
    rng = np.random.default_rng(3)
    corners = np.stack(np.meshgrid(*[[0, 1, 254, 255]] * 3), -1).reshape(-1, 3)
    grays = np.repeat(np.arange(256)[:, None], 3, axis=1)
    random = rng.integers(0, 256, (512 * 300 - len(corners) - 256, 3))
    return np.concatenate([corners, grays, random]).astype(np.uint8).reshape(512, 300, 3)


@pytest.mark.parametrize("factor", [0.5, 0.77, 1.0, 1.21, 1.5])
def test_enhancements_against_pillow(many_colors, factor):
    pil = pytest.importorskip("PIL.Image")
    enhance = pytest.importorskip("PIL.ImageEnhance")
    references = {
        F.brightness: enhance.Brightness,
        F.contrast: enhance.Contrast,
        F.saturation: enhance.Color,
        F.sharpness: enhance.Sharpness,
    }
    for operation, reference in references.items():
        expected = np.asarray(reference(pil.fromarray(many_colors)).enhance(factor)).astype(int)
        assert np.abs(operation(many_colors, factor) - expected).max() <= 2, operation.__name__


@pytest.mark.parametrize("shift", [-18.0, -17.3, -0.4, 0.0, 5.6, 18.0])
def test_hue_against_pillow(many_colors, shift):
    pil = pytest.importorskip("PIL.Image")
    hsv = np.array(pil.fromarray(many_colors).convert("HSV"))
    hsv[..., 0] = np.trunc(hsv[..., 0] + shift).astype(int) & 255
    merged = pil.merge("HSV", [pil.fromarray(plane) for plane in np.moveaxis(hsv, -1, 0)])
    expected = np.asarray(merged.convert("RGB")).astype(int)
    difference = np.abs(F.hue(many_colors, shift) - expected).max(axis=-1)
    assert np.mean(difference > 2) < 0.005  # exact hues that Pillow's floats round down
    assert difference.max() <= 8
    assert difference[:1, :64].max() <= 2  # the corners of the cube


def test_neutral_amounts_change_nothing(many_colors):
    for operation in (F.brightness, F.contrast, F.saturation, F.sharpness):
        np.testing.assert_array_equal(operation(many_colors, 1.0), many_colors)


def test_functional_does_not_import_paddle():
    code = "import sys, liteseg.transforms; sys.exit('paddle' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
