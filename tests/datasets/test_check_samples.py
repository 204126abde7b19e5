"""`check_samples`: errors in the data that show before the first iteration."""

from __future__ import annotations

import logging

import cv2
import numpy as np
import pytest

from liteseg.datasets import Dataset, check_samples
from liteseg.errors import UserError
from liteseg.transforms import Normalize


@pytest.fixture
def make(tmp_path):
    """A dataset of 20 images, from the lines of its list."""
    for i in range(20):
        cv2.imwrite(str(tmp_path / f"i{i}.png"), np.zeros((4, 4, 3), np.uint8))
        cv2.imwrite(str(tmp_path / f"l{i}.png"), np.zeros((4, 4), np.uint8))

    def dataset(lines, mode="train"):
        (tmp_path / "list.txt").write_text("\n".join(lines))
        return Dataset(
            mode, str(tmp_path), [Normalize()], 2, train_path="list.txt", test_path="list.txt"
        )

    return dataset


def test_sound_data_gives_no_log_lines(make, caplog):
    with caplog.at_level(logging.INFO):
        check_samples(
            train_dataset=make([f"i{i}.png l{i}.png" for i in range(20)]), val_dataset=None
        )
    assert caplog.messages == []


def test_shifted_list_gives_a_warning(make, caplog):
    check_samples(train_dataset=make([f"i{i}.png l{i + 1}.png" for i in range(19)]))
    (warning,) = caplog.messages
    assert warning.startswith("train_dataset: 18 labels have the name of another image")


def test_missing_labels_are_reported_before_the_first_evaluation(make):
    with pytest.raises(UserError, match="val_dataset: 16 of 16 samples tried") as error:
        check_samples(val_dataset=make([f"i{i}.png" for i in range(20)], "test"))
    assert str(error.value).endswith("i0.png: has no label (and 15 more files like it)")


def test_transforms_without_normalize(make):
    dataset = make(["i0.png l0.png"])
    dataset.transforms.normalize = None
    with pytest.raises(UserError, match="val_dataset: transforms: must end in Normalize"):
        check_samples(val_dataset=dataset)


@pytest.mark.parametrize("values", [(255,), (0, 255)])
@pytest.mark.parametrize("last", [None, 1])
def test_labels_without_a_counted_class(make, tmp_path, values, last):
    """The whole split is searched where the first 16 labels have nothing to count."""
    for i in range(20):
        label = np.resize(np.array(values, np.uint8), (4, 4))
        label = np.full((4, 4), last, np.uint8) if last is not None and i == 17 else label
        cv2.imwrite(str(tmp_path / f"l{i}.png"), label)
    dataset = make([f"i{i}.png l{i}.png" for i in range(20)])
    if last is not None:
        check_samples(train_dataset=dataset)
        return
    with pytest.raises(UserError) as error:
        check_samples(train_dataset=dataset)
    if values == (255,):
        assert "all pixels of all 20 labels are ignored (ignore_index 255)" in str(error.value)
    else:
        assert "`0 0 0 background` and `255 255 255 foreground`" in str(error.value)


def test_two_lines_of_colors_read_a_mask(tmp_path):
    cv2.imwrite(str(tmp_path / "i.png"), np.zeros((4, 4, 3), np.uint8))
    mask = np.array([[0, 255]] * 2, np.uint8).repeat(2, 1).repeat(2, 0)
    cv2.imwrite(str(tmp_path / "l.png"), mask)
    (tmp_path / "list.txt").write_text("i.png l.png")
    (tmp_path / "colors.txt").write_text("0 0 0 background\n255 255 255 foreground\n")
    options = {"num_classes": 2, "train_path": "list.txt", "colours": "colors.txt"}
    dataset = Dataset("train", str(tmp_path), [Normalize()], **options)
    assert (dataset.load(0)["label"] == mask // 255).all()
    check_samples(train_dataset=dataset)
