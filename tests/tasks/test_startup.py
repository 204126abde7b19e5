"""The start of a training: sample checks, and warnings about hard-pixel mining."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from liteseg.datasets import Dataset
from liteseg.errors import UserError
from liteseg.losses import CrossEntropyLoss, MixedLoss, OhemCrossEntropyLoss
from liteseg.tasks.startup import _check_hard_pixels, check_samples


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


def warnings_of(loss, caplog, batch_size=4, height=360, width=480):
    dataset = [{"img": np.zeros((height, width, 3), np.uint8)}]
    trainer = SimpleNamespace(
        dataset=dataset,
        options=SimpleNamespace(batch_size=batch_size),
        losses=[("head0", loss, 1.0)],
    )
    _check_hard_pixels(trainer)
    return [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize(
    ("min_kept", "batch_size", "width", "height"),
    [(43200, 4, 480, 360), (130000, 4, 1024, 512), (250000, 6, 960, 720), (0, 1, 8, 8)],
)
def test_published_recipes_give_no_warning(min_kept, batch_size, width, height, caplog):
    loss = OhemCrossEntropyLoss(min_kept=min_kept)
    assert not warnings_of(loss, caplog, batch_size, height, width)


def test_another_batch_size_is_reported_with_the_fix(caplog):
    (message,) = warnings_of(OhemCrossEntropyLoss(min_kept=43200), caplog, batch_size=1)
    assert "head0: min_kept 43200 is 25.0% of the 172800 pixels" in message
    assert "min_kept 10800, or min_kept_ratio 0.0625" in message


def test_a_loss_inside_a_mixed_loss_is_checked(caplog):
    mixed = MixedLoss([CrossEntropyLoss(), OhemCrossEntropyLoss(min_kept=10)], [1, 1])
    assert len(warnings_of(mixed, caplog)) == 1


def test_a_ratio_fits_any_batch_size(caplog):
    assert not warnings_of(OhemCrossEntropyLoss(min_kept_ratio=0.5), caplog)
