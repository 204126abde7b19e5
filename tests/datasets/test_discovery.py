"""Images of one folder paired with the labels of another by name."""

from __future__ import annotations

import pytest

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
    return [(image.name, label and label.name) for image, label in pairs]


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
