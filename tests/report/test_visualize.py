from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image

from liteseg.errors import UserError
from liteseg.report import visualize

PALETTE = np.array([[255, 0, 0], [0, 255, 0], [10, 20, 30]], np.uint8)
LABEL = np.array([[0, 1, 2], [255, 7, 1]], np.uint8)


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (2, 3, 3), dtype=np.uint8)


def test_colorize():
    for dtype in (np.uint8, np.int64):
        colors = visualize.colorize(LABEL.astype(dtype), PALETTE)
        assert colors.dtype == np.uint8
        assert colors.tolist() == [
            [[255, 0, 0], [0, 255, 0], [10, 20, 30]],
            [[0, 0, 0], [0, 0, 0], [0, 255, 0]],
        ]


def test_overlay_against_loops(image):
    found = visualize.overlay(image, LABEL, PALETTE, alpha=0.25, ignore_index=1)
    for y in range(2):
        for x in range(3):
            k = int(LABEL[y, x])
            expected = image[y, x].astype(float)
            if k != 1 and k < 3:
                expected = 0.75 * expected + 0.25 * PALETTE[k]
            np.testing.assert_allclose(found[y, x], expected, atol=0.51)


@pytest.mark.parametrize("width", [5, 60, 480, 2048])
def test_legend_names_every_color_at_any_width(width):
    image = np.full((40, width, 3), 77, np.uint8)
    palette = np.random.default_rng(1).integers(0, 200, (19, 3), dtype=np.uint8)
    names = [f"class {i}" for i in range(18)] + ["traffic light über"]
    found = visualize.with_legend(image, names, palette)
    assert found.shape[1] >= width
    assert (found[:40, :width] == image).all()
    assert (found[:40, width:] == 255).all()
    strip = found[40:].reshape(-1, 3)
    text_height = np.clip(width / 60, 10, 32)
    for color in palette:
        assert (strip == color).all(axis=1).sum() > text_height**2  # a box as high as the text
    # No text is cut: the outer columns of the strip are paper.
    assert (found[40:, -1] == 255).all()
    assert (found[-1] == 255).all()


def test_legend_shows_only_what_is_present():
    image = np.full((9, 300, 3), 50, np.uint8)
    found = visualize.with_legend(image, ["a", "b", "c"], PALETTE, present=np.array([2, 255, 2]))
    colors = {tuple(c) for c in found[9:].reshape(-1, 3).tolist()}
    assert (10, 20, 30) in colors
    assert (255, 0, 0) not in colors
    assert visualize.with_legend(image, ["a"], PALETTE, present=[255]) is image


def test_error_map():
    pred = np.array([[0, 0, 2], [3, 7, 0]])
    found = visualize.error_map(pred, LABEL)
    right, wrong, ignored = visualize.CORRECT, visualize.WRONG, visualize.IGNORED
    assert [[tuple(c) for c in row] for row in found.tolist()] == [
        [right, wrong, right],
        [ignored, right, wrong],
    ]
    assert found.dtype == np.uint8


def test_panel():
    first, second = np.full((4, 5, 3), 9, np.uint8), np.full((6, 2), 8, np.uint8)
    found = visualize.panel([first, second], gap=3)
    assert found.shape == (6, 10, 3)
    assert (found[:4, :5] == 9).all()
    assert (found[:, 8:] == 8).all()
    assert (found[4:, :8] == 255).all()
    assert (found[:, 5:8] == 255).all()
    assert (visualize.panel([first], gap=0) == first).all()


def test_write_png(tmp_path, image):
    visualize.write_png(tmp_path / "new" / "ü.png", image)
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / "new" / "ü.png")), image)
    ids = np.array([[0, 65535]], np.uint16)
    visualize.write_png(tmp_path / "ids.png", ids)
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "ids.png"), cv2.IMREAD_UNCHANGED), ids)
    with pytest.raises(UserError, match="cannot write"):
        visualize.write_png(tmp_path / "ids.png" / "x.png", image)


def test_palette_png(tmp_path):
    visualize.save_palette_png(tmp_path / "p.png", LABEL.astype(np.int64), PALETTE)
    with Image.open(tmp_path / "p.png") as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(np.array(image), LABEL)
        shown = np.array(image.convert("RGB"))
    np.testing.assert_array_equal(shown, visualize.colorize(LABEL, PALETTE))


def test_on_a_real_image(shared_data):
    name, label_name = (shared_data / "camvid" / "val.txt").read_text().split()[:2]
    image = cv2.imread(str(shared_data / "camvid" / name))[..., ::-1]
    label = cv2.imread(str(shared_data / "camvid" / label_name), cv2.IMREAD_GRAYSCALE)
    palette = np.random.default_rng(2).integers(0, 256, (11, 3), dtype=np.uint8)
    found = visualize.overlay(image, label, palette, ignore_index=11)
    assert (found[label == 11] == image[label == 11]).all()
    assert (found[label == 3] != image[label == 3]).any(axis=1).mean() > 0.9


def test_overlay_leaves_a_black_background(image):
    palette = np.array([[0, 0, 0], [0, 255, 0]], np.uint8)
    label = np.array([[0, 1, 0], [0, 0, 1]], np.uint8)
    found = visualize.overlay(image, label, palette)
    np.testing.assert_array_equal(found[label == 0], image[label == 0])
    assert (found[label == 1] != image[label == 1]).any()
