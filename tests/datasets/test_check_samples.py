"""`check_samples`: errors in the data that show before the first iteration."""

from __future__ import annotations

import logging

import cv2
import numpy as np
import pytest

from liteseg.datasets import Dataset, check_samples
from liteseg.errors import UserError


@pytest.fixture
def make(tmp_path):
    """A dataset of 20 images, from the lines of its list."""
    for i in range(20):
        cv2.imwrite(str(tmp_path / f"i{i}.png"), np.zeros((4, 4, 3), np.uint8))
        cv2.imwrite(str(tmp_path / f"l{i}.png"), np.zeros((4, 4), np.uint8))

    def dataset(lines, mode="train"):
        (tmp_path / "list.txt").write_text("\n".join(lines))
        return Dataset(mode, str(tmp_path), [], 2, train_path="list.txt", test_path="list.txt")

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
    assert str(error.value).count("has no label") == 3
