"""Images of one folder paired with the labels of another by name."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from cases.images import palette_label

from liteseg.datasets import Dataset
from liteseg.datasets.discovery import pair_folders
from liteseg.errors import UserError


@pytest.fixture(autouse=True)
def folders(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()


def touch(folder, *names):
    for name in names:
        (folder / name).write_bytes(b"")


def names(pairs):
    return [(Path(image).name, label and Path(label).name) for image, label in pairs]


def test_labels_are_paired_by_name(tmp_path):
    touch(tmp_path / "images", "b.jpg", "a.PNG", "c_d.jpeg", "Thumbs.db")
    touch(
        tmp_path / "masks", "a.png", "b_mask.png", "c_d.png", "c_d_old.png", "unused.png", "b.txt"
    )
    pairs = pair_folders(tmp_path / "images", tmp_path / "masks")
    assert names(pairs) == [("a.PNG", "a.png"), ("b.jpg", "b_mask.png"), ("c_d.jpeg", "c_d.png")]
    assert names(pair_folders(tmp_path / "images", None))[0] == ("a.PNG", None)


def test_image_without_exactly_one_label(tmp_path):
    touch(tmp_path / "images", "a.png", "b.png", "c.png")
    touch(tmp_path / "masks", "a.png", "b_1.png", "b_2.png")
    with pytest.raises(UserError, match=r"2 of 3 images") as caught:
        pair_folders(tmp_path / "images", tmp_path / "masks")
    assert "b.png: 2 labels" in str(caught.value)
    assert "c.png: 0 labels" in str(caught.value)


def test_missing_or_empty_folders(tmp_path):
    with pytest.raises(UserError, match="contains no image"):
        pair_folders(tmp_path / "images", tmp_path / "masks")
    touch(tmp_path / "images", "a.png")
    with pytest.raises(UserError, match=r"label_dir: .*absent does not exist"):
        pair_folders(tmp_path / "images", tmp_path / "absent")


def test_labels_in_gifs(tmp_path):
    """As in Carvana: photo.jpg and photo_mask.gif, whose palette indices are the classes."""
    indices = np.arange(48, dtype=np.uint8).reshape(6, 8) % 3
    cv2.imwrite(str(tmp_path / "images" / "photo.jpg"), np.zeros((6, 8, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "images" / "._photo.jpg"), np.zeros((6, 8, 3), np.uint8))
    palette_label(tmp_path / "masks" / "photo_mask.gif", indices)
    options = {"image_dir": "images", "label_dir": "masks"}
    dataset = Dataset("train", str(tmp_path), [], 3, **options)
    assert len(dataset) == 1  # without the hidden file
    assert (dataset.load(0)["label"] == indices).all()
