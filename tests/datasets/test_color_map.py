"""Folders of images and masks, and masks drawn in colors."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from liteseg.datasets import Dataset
from liteseg.datasets.color_map import ColorMap, default_palette
from liteseg.errors import UserError

TABLE = """\
# red green blue name
40 40 40   ground

200 30 30  a box   # with a comment
201 30 30  a box
255 255 255 ignore
"""


@pytest.fixture
def root(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    (tmp_path / "colors.txt").write_text(TABLE, encoding="utf-8")
    return tmp_path


def test_colors_become_classes(root):
    color_map = ColorMap.read(root / "colors.txt", ignore_index=7)
    assert color_map.names == ("ground", "a box")
    np.testing.assert_array_equal(color_map.palette, [(40, 40, 40), (200, 30, 30)])
    by_color = {(40, 40, 40): 0, (200, 30, 30): 1, (201, 30, 30): 1, (255, 255, 255): 7}
    rng = np.random.default_rng(0)
    picks = rng.integers(0, 4, (5, 6))
    rgb = np.array(list(by_color), np.uint8)[picks]
    expected = np.array(list(by_color.values()))[picks]
    found = color_map.decode(rgb, root)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("stray", [(0, 0, 0), (41, 40, 40), (255, 255, 254)])
def test_unknown_colors_are_named(root, stray):
    rgb = np.full((4, 4, 3), 40, np.uint8)
    rgb[1, :3] = stray
    with pytest.raises(
        UserError, match=rf"m.png: 3 of 16 .* 1 unknown .*{stray[0]} {stray[1]} {stray[2]} \(3"
    ):
        ColorMap.read(root / "colors.txt", 255).decode(rgb, root / "m.png")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2 3\n", r"colors.txt:1: '1 2 3': expected"),
        ("\n1 2 256 sky\n", r"colors.txt:2: '1 2 256 sky'"),
        ("1 2 x sky\n", "expected `red green blue name`"),
        ("1 2 3 sky\n1 2 3 car\n", r"colors.txt:2: \(1, 2, 3\) was 'sky' before"),
        ("1 2 3 ignore\n", "no class"),
    ],
)
def test_malformed_lines(root, text, message):
    (root / "colors.txt").write_text(text)
    with pytest.raises(UserError, match=message):
        ColorMap.read(root / "colors.txt", 255)
    with pytest.raises(UserError, match="can't read"):
        ColorMap.read(root / "absent.txt", 255)


def test_dataset_with_folders_and_colors(root):
    rgb = np.array([[(40, 40, 40), (200, 30, 30)], [(255, 255, 255), (201, 30, 30)]], np.uint8)
    assert cv2.imwrite(str(root / "masks" / "x_m.png"), rgb[..., ::-1])
    assert cv2.imwrite(str(root / "images" / "x.png"), rgb)
    given = {"mode": "val", "dataset_root": str(root), "transforms": [], "image_dir": "images"}
    dataset = Dataset(**given, num_classes=2, label_dir="masks", colours="colors.txt")
    assert dataset.classes == ("ground", "a box")
    np.testing.assert_array_equal(dataset.load(0)["label"], [[0, 1], [255, 1]])
    assert dataset.samples[0].name == "x"
    with pytest.raises(
        UserError, match=r"colours: .*: 2 names \(ground, a box\) for num_classes: 3"
    ):
        Dataset(**given, num_classes=3, label_dir="masks", colours="colors.txt")
    with pytest.raises(UserError, match="label_dir: not set"):
        Dataset(**given, num_classes=2)
    with pytest.raises(UserError, match="folders or lists, not both"):
        Dataset(**given, num_classes=2, label_dir="masks", val_path="list.txt")
    del given["mode"]
    assert Dataset("test", **given, num_classes=2).samples[0].label is None


def test_default_palette_is_distinct():
    palette = default_palette(255)
    assert len(np.unique(palette, axis=0)) == 255
    assert palette[:3].tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0]]
