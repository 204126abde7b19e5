"""Folders of images and masks, and masks drawn in colours."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from liteseg.datasets import Dataset
from liteseg.datasets.own_files import Colours, pair_folders
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
    (tmp_path / "colours.txt").write_text(TABLE, encoding="utf-8")
    return tmp_path


def touch(folder, *names):
    for name in names:
        (folder / name).write_bytes(b"")


def names(pairs):
    return [(image.name, label and label.name) for image, label in pairs]


def test_labels_go_by_name(root):
    touch(root / "images", "b.jpg", "a.PNG", "c_d.jpeg", "Thumbs.db")
    touch(root / "masks", "a.png", "b_mask.png", "c_d.png", "c_d_old.png", "unused.png", "b.txt")
    pairs = pair_folders(root / "images", root / "masks")
    assert names(pairs) == [("a.PNG", "a.png"), ("b.jpg", "b_mask.png"), ("c_d.jpeg", "c_d.png")]
    assert names(pair_folders(root / "images", None))[0] == ("a.PNG", None)


def test_an_image_without_one_label(root):
    touch(root / "images", "a.png", "b.png", "c.png")
    touch(root / "masks", "a.png", "b_1.png", "b_2.png")
    with pytest.raises(UserError, match=r"2 of 3 images") as caught:
        pair_folders(root / "images", root / "masks")
    assert "b.png: 2 labels" in str(caught.value)
    assert "c.png: 0 labels" in str(caught.value)


def test_folders_that_are_not_there(root):
    with pytest.raises(UserError, match="holds no image"):
        pair_folders(root / "images", root / "masks")
    touch(root / "images", "a.png")
    with pytest.raises(UserError, match=r"label_dir: .*absent does not exist"):
        pair_folders(root / "images", root / "absent")


def test_colours_become_classes(root):
    colours = Colours.read(root / "colours.txt", ignore_index=7)
    assert colours.names == ("ground", "a box")
    np.testing.assert_array_equal(colours.palette, [(40, 40, 40), (200, 30, 30)])
    by_colour = {(40, 40, 40): 0, (200, 30, 30): 1, (201, 30, 30): 1, (255, 255, 255): 7}
    rng = np.random.default_rng(0)
    picks = rng.integers(0, 4, (5, 6))
    rgb = np.array(list(by_colour), np.uint8)[picks]
    expected = np.array(list(by_colour.values()))[picks]
    found = colours.decode(rgb, root)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("stray", [(0, 0, 0), (41, 40, 40), (255, 255, 254)])
def test_unknown_colours_are_named(root, stray):
    rgb = np.full((4, 4, 3), 40, np.uint8)
    rgb[1, :3] = stray
    with pytest.raises(
        UserError, match=rf"m.png: 1 colours .*{stray[0]} {stray[1]} {stray[2]} \(3"
    ):
        Colours.read(root / "colours.txt", 255).decode(rgb, root / "m.png")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2 3\n", r"colours.txt:1: '1 2 3': expected"),
        ("\n1 2 256 sky\n", r"colours.txt:2: '1 2 256 sky'"),
        ("1 2 x sky\n", "expected `red green blue name`"),
        ("1 2 3 sky\n1 2 3 car\n", r"colours.txt:2: \(1, 2, 3\) was 'sky' before"),
        ("1 2 3 ignore\n", "no class"),
    ],
)
def test_lines_of_another_form(root, text, message):
    (root / "colours.txt").write_text(text)
    with pytest.raises(UserError, match=message):
        Colours.read(root / "colours.txt", 255)
    with pytest.raises(UserError, match="can't read"):
        Colours.read(root / "absent.txt", 255)


def test_the_dataset_of_both(root):
    rgb = np.array([[(40, 40, 40), (200, 30, 30)], [(255, 255, 255), (201, 30, 30)]], np.uint8)
    assert cv2.imwrite(str(root / "masks" / "x_m.png"), rgb[..., ::-1])
    assert cv2.imwrite(str(root / "images" / "x.png"), rgb)
    given = {"mode": "val", "dataset_root": str(root), "transforms": [], "image_dir": "images"}
    dataset = Dataset(**given, num_classes=2, label_dir="masks", colours="colours.txt")
    assert dataset.classes == ("ground", "a box")
    np.testing.assert_array_equal(dataset.load(0)["label"], [[0, 1], [255, 1]])
    assert dataset.samples[0].name == "x"
    with pytest.raises(UserError, match=r"names 2 classes \(ground, a box\), num_classes is 3"):
        Dataset(**given, num_classes=3, label_dir="masks", colours="colours.txt")
    with pytest.raises(UserError, match="label_dir: not set"):
        Dataset(**given, num_classes=2)
    with pytest.raises(UserError, match="folders or lists, not both"):
        Dataset(**given, num_classes=2, label_dir="masks", val_path="list.txt")
    del given["mode"]
    assert Dataset("test", **given, num_classes=2).samples[0].label is None
