"""Masks of another kind than the config expects: reported once, with the change that works."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from liteseg.cli.data.check import format_report
from liteseg.datasets import Dataset
from liteseg.datasets.check import check_dataset, check_samples
from liteseg.errors import UserError
from liteseg.transforms import Normalize

COLORS = np.array([(40, 40, 40), (200, 30, 30), (30, 30, 200)], np.uint8)
COLOR_FILE = "40 40 40 ground\n200 30 30 box\n30 30 200 ball\n"
COUNT = 5


@pytest.fixture
def masks(tmp_path):
    """Makes a dataset whose labels are drawn from class numbers by `draw`."""

    def make(draw, **options):
        for name in ("images", "masks"):
            (tmp_path / name).mkdir(exist_ok=True)
        for index in range(COUNT):
            numbers = np.random.default_rng(index).integers(0, 3, (8, 8)).astype(np.uint8)
            assert cv2.imwrite(f"{tmp_path}/images/{index}.png", np.zeros((8, 8, 3), np.uint8))
            assert cv2.imwrite(f"{tmp_path}/masks/{index}.png", draw(numbers))
        (tmp_path / "colors.txt").write_text(COLOR_FILE)
        options = {"num_classes": 3, "image_dir": "images", "label_dir": "masks", **options}
        return Dataset("train", str(tmp_path), [Normalize()], **options)

    return make


def drawn(numbers):
    return COLORS[numbers][..., ::-1]  # OpenCV writes BGR


@pytest.mark.parametrize(
    ("draw", "options", "advice"),
    [
        (
            drawn,
            {},
            "3 colors, and the dataset has no `colours`: add `colours: colors.txt`",
        ),
        (lambda numbers: numbers, {"colours": "colors.txt"}, "remove `colours` from the config"),
        (
            lambda numbers: cv2.resize(drawn(numbers), (64, 64), interpolation=cv2.INTER_CUBIC),
            {},
            "too many for classes",
        ),
    ],
    ids=["colors without colours", "numbers with colours", "smoothed colors"],
)
def test_each_kind_is_reported_once(masks, draw, options, advice):
    dataset = masks(draw, **options)
    with pytest.raises(UserError) as error:
        check_samples(train_dataset=dataset)
    assert str(error.value).count(advice) == 1
    assert f"(and {COUNT - 1} more files like it)" in str(error.value)
    text = format_report(check_dataset(dataset, progress=False), "train")
    assert text.count(advice) == 1
    assert "pixels  share" not in text  # no table of zeros
    assert f"{COUNT} errors" in text


def test_the_advice_works(masks):
    assert check_samples(train_dataset=masks(drawn, colours="colors.txt")) is None
    plain = masks(lambda numbers: numbers, class_names=["ground", "box", "ball"])
    assert check_samples(train_dataset=plain) is None
    both = {"num_classes": 2}
    halves = masks(lambda numbers: np.where(numbers > 0, 255, 0).astype(np.uint8), **both)
    with pytest.raises(UserError, match="`255 255 255 foreground`"):
        check_samples(train_dataset=halves)


def test_the_colors_of_the_file_are_in_the_advice(masks):
    dataset = masks(drawn)
    with pytest.raises(UserError) as error:
        dataset.load(0)
    for color in ("40 40 40", "200 30 30", "30 30 200"):
        assert color in str(error.value)
