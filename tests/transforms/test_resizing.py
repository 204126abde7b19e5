"""Sizes after each resizer, and image and label sampled at the same places."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from liteseg import transforms as T


def coordinates(h: int, w: int) -> dict:
    """A sample whose image and label contain the position of each pixel."""
    y, x = np.mgrid[:h, :w]
    image = np.stack([y, x, y + x], -1).astype(np.uint8)
    return {"img": image, "label": (y + x).astype(np.uint8)}


def nearest_reference(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    rows = np.arange(size[0]) * array.shape[0] // size[0]
    return array[rows][:, np.arange(size[1]) * array.shape[1] // size[1]]


@pytest.mark.parametrize(
    ("transform", "expected"),
    [
        (T.Resize((60, 40)), (40, 60)),
        (T.Resize((60, 60), keep_ratio=True), (30, 60)),
        (T.Resize((200, 60), keep_ratio=True), (60, 120)),
        (T.Resize((60, 60), keep_ratio=True, size_divisor=32), (32, 64)),
        (T.ResizeByLong(50), (25, 50)),
        (T.ResizeByShort(25), (25, 50)),
        (T.ResizeByShort(25, max_size=40), (20, 40)),
        (T.LimitLong(max_long=80), (40, 80)),
        (T.LimitLong(min_long=120), (60, 120)),
        (T.LimitLong(max_long=120, min_long=90), (50, 100)),
        (T.ResizeRangeScaling(70, 70), (35, 70)),
        (T.ResizeStepScaling(1.5, 1.5), (75, 150)),
    ],
)
def test_size_and_shared_geometry(transform, expected):
    sample = transform(coordinates(50, 100))
    assert sample["img"].shape == (*expected, 3)
    assert sample["label"].shape == expected
    assert sample["img"].dtype == sample["label"].dtype == np.uint8
    # The label is the sum of the coordinates: linear sampling differs by at most one pixel.
    shift = np.abs(sample["img"][..., 2].astype(int) - sample["label"])
    assert shift.max() <= np.ceil(50 / expected[0]) + np.ceil(100 / expected[1])
    np.testing.assert_array_equal(
        sample["label"], nearest_reference(coordinates(50, 100)["label"], expected)
    )


@pytest.mark.parametrize("name", ["Resize", "ResizeByLong", "ResizeByShort", "LimitLong"])
def test_evaluation_resizers_record_the_size_before(name):
    argument = {"Resize": (64, 64)}.get(name, 64)
    sample = {**coordinates(50, 100), "trans_info": [("padding", (7, 8))]}
    sample = getattr(T, name)(argument)(sample)
    assert sample["trans_info"] == [("padding", (7, 8)), ("resize", (50, 100))]


def test_random_scalings_record_nothing():
    for transform in (T.ResizeStepScaling(), T.ResizeRangeScaling(20, 40)):
        assert not transform(coordinates(50, 100)).get("trans_info")


@pytest.mark.parametrize(
    ("low", "high", "step", "count"),
    [(0.125, 1.5, 0.125, 12), (0.5, 2.0, 0.25, 7), (0.5, 2.5, 0.25, 9), (0.6, 2.0, 0.2, 8)],
)
def test_step_scaling_draws_all_factors_equally(low, high, step, count):
    transform = T.ResizeStepScaling(low, high, step)
    rng = np.random.default_rng(0)
    heights = [transform.target_size_for(1000, 2000, rng)[0] for _ in range(200 * count)]
    values, counts = np.unique(heights, return_counts=True)
    np.testing.assert_array_equal(values, np.round(1000 * np.linspace(low, high, count)))
    assert counts.min() > 130
    assert counts.max() < 280


def test_continuous_scaling_covers_the_range():
    rng = np.random.default_rng(0)
    step, long = T.ResizeStepScaling(0.5, 1.0, 0), T.ResizeRangeScaling(400, 600)
    heights = [step.target_size_for(1000, 2000, rng)[0] for _ in range(300)]
    assert min(heights) < 520
    assert max(heights) > 980
    lengths = [long.target_size_for(1000, 2000, rng) for _ in range(300)]
    assert all(400 <= w <= 600 and h == round(w / 2) for h, w in lengths)


def test_random_interpolation_is_one_of_the_five():
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    modes = (cv2.INTER_NEAREST, cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_AREA)
    expected = [cv2.resize(image, (17, 13), interpolation=m) for m in (*modes, cv2.INTER_LANCZOS4)]
    seen = set()
    for seed in range(40):
        rng = np.random.default_rng(seed)
        result = T.Resize((17, 13), interp="RANDOM")({"img": image}, rng)["img"]
        seen.add(next(i for i, other in enumerate(expected) if np.array_equal(result, other)))
    assert seen == set(range(5))


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("Resize", {"target_size": 512}, "target_size is 512, expected [width, height]"),
        ("Resize", {"target_size": [512]}, "target_size is [512]"),
        ("Resize", {"interp": "BILINEAR"}, "interp is 'BILINEAR', expected one of NEAREST"),
        ("Resize", {"size_divisor": 0}, "size_divisor is 0"),
        ("ResizeByLong", {"long_size": 2.5}, "long_size is 2.5, expected a whole number"),
        ("ResizeByShort", {"short_size": -1}, "short_size is -1"),
        (
            "LimitLong",
            {"max_long": 10, "min_long": 20},
            "min_long is 20, expected at most max_long",
        ),
        ("ResizeRangeScaling", {"min_value": 700}, "min_value is 700, expected at most"),
        ("ResizeStepScaling", {"min_scale_factor": 0}, "min_scale_factor is 0"),
        ("ResizeStepScaling", {"min_scale_factor": 2}, "expected at most max_scale_factor (1.25)"),
        ("ResizeStepScaling", {"scale_step_size": -1}, "scale_step_size is -1"),
    ],
)
def test_wrong_arguments(name, arguments, message):
    with pytest.raises(ValueError) as error:
        getattr(T, name)(**arguments)
    assert message in str(error.value)
