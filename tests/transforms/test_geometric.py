"""Crops, padding, flips and rotations against brute-force references."""

from __future__ import annotations

import numpy as np
import pytest

from liteseg import transforms as T
from liteseg.errors import UserError


def coordinates(h: int, w: int) -> dict:
    """A sample whose pixels contain their position; the label repeats the red channel."""
    y, x = np.mgrid[:h, :w]
    image = np.stack([(y * 7 + x) % 250, y, x], -1).astype(np.uint8)
    return {"img": image, "label": image[..., 0].copy()}


def origin(sample: dict) -> tuple[int, int]:
    return int(sample["img"][0, 0, 1]), int(sample["img"][0, 0, 2])


@pytest.mark.parametrize("shape", [(90, 120), (40, 120), (90, 50), (30, 40), (64, 96)])
def test_random_padding_crop_against_pad_then_cut(shape):
    source = coordinates(*shape)
    padded_shape = max(shape[0], 64), max(shape[1], 96)
    image = np.full((*padded_shape, 3), 127, np.uint8)
    label = np.full(padded_shape, 255, np.uint8)
    image[: shape[0], : shape[1]] = source["img"]
    label[: shape[0], : shape[1]] = source["label"]
    seen = set()
    for seed in range(30):
        rng = np.random.default_rng(seed)
        sample = T.RandomPaddingCrop((96, 64))(dict(source), rng)
        top, left = origin(sample)
        seen.add((top, left))
        window = (slice(top, top + 64), slice(left, left + 96))
        np.testing.assert_array_equal(sample["img"], image[window])
        np.testing.assert_array_equal(sample["label"], label[window])
    tops, lefts = zip(*seen)
    assert max(tops) >= max(0, shape[0] - 64) * 0.8
    assert max(lefts) >= max(0, shape[1] - 96) * 0.8


def test_random_padding_crop_fills():
    sample = T.RandomPaddingCrop((50, 40), [1, 2, 3], 7)(coordinates(30, 40))
    assert (sample["img"][30:] == (1, 2, 3)).all()
    assert (sample["label"][:, 40:] == 7).all()


def test_category_max_ratio_prefers_mixed_windows():
    label = np.zeros((100, 400), np.uint8)
    label[:, 200:220] = 1
    label[:, :50] = 255
    source = {"img": np.zeros((100, 400, 3), np.uint8), "label": label}
    crop = T.RandomPaddingCrop((40, 40), category_max_ratio=0.75, loop_times=50)
    plain = T.RandomPaddingCrop((40, 40))

    def mixed(transform, seed):
        cut = transform(dict(source), np.random.default_rng(seed))["label"]
        ones = np.count_nonzero(cut == 1) / max(1, np.count_nonzero(cut != 255))
        return 0.25 < ones < 0.75

    assert sum(mixed(plain, seed) for seed in range(60)) < 20
    assert sum(mixed(crop, seed) for seed in range(60)) >= 58


def test_category_max_ratio_needs_no_label_and_gives_up():
    crop = T.RandomPaddingCrop((8, 8), category_max_ratio=0.5, loop_times=3)
    assert crop({"img": np.zeros((20, 20, 3), np.uint8)})["img"].shape == (8, 8, 3)
    one_class = {"img": np.zeros((20, 20, 3), np.uint8), "label": np.zeros((20, 20), np.uint8)}
    assert crop(one_class)["label"].shape == (8, 8)


def test_random_center_crop_keeps_at_least_the_ratio():
    source = coordinates(100, 200)
    for seed in range(40):
        rng = np.random.default_rng(seed)
        sample = T.RandomCenterCrop((0.5, 0.8))(dict(source), rng)
        h, w = sample["label"].shape
        assert 80 < h <= 100
        assert 100 < w <= 200
        top, left = origin(sample)
        np.testing.assert_array_equal(sample["img"], source["img"][top : top + h, left : left + w])
        np.testing.assert_array_equal(sample["img"][..., 0], sample["label"])
    whole = T.RandomCenterCrop((1, 1))(dict(source))
    np.testing.assert_array_equal(whole["img"], source["img"])


def test_random_scale_aspect_shows_an_enlarged_part():
    source = coordinates(100, 200)
    changed = 0
    for seed in range(30):
        sample = T.RandomScaleAspect(0.5, 0.5)(dict(source), np.random.default_rng(seed))
        rows, cols = sample["img"][..., 1].astype(int), sample["img"][..., 2].astype(int)
        assert sample["img"].shape == (100, 200, 3)
        assert sample["label"].shape == (100, 200)
        area = (rows.max() - rows.min() + 1) * (cols.max() - cols.min() + 1)
        assert area >= 0.45 * 100 * 200
        changed += area < 100 * 200
        # The label of a pixel is the label at the position contained in the image.
        truth = np.stack([source["label"][np.clip(rows + d, 0, 99), cols] for d in (-1, 0, 1)])
        near = np.abs(truth.astype(int) - sample["label"]) <= 2
        assert near.any(axis=0).mean() > 0.95
    assert changed > 15
    for off in (T.RandomScaleAspect(0, 0.5), T.RandomScaleAspect(0.5, 0)):
        np.testing.assert_array_equal(off(dict(source))["img"], source["img"])


@pytest.mark.parametrize(
    ("transform", "index"),
    [(T.RandomHorizontalFlip, np.s_[:, ::-1]), (T.RandomVerticalFlip, np.s_[::-1])],
)
def test_flips(transform, index):
    source = coordinates(30, 40)
    flipped = transform(prob=1)(dict(source))
    np.testing.assert_array_equal(flipped["img"], source["img"][index])
    np.testing.assert_array_equal(flipped["label"], source["label"][index])
    np.testing.assert_array_equal(transform(prob=0)(dict(source))["img"], source["img"])
    rng = np.random.default_rng(0)
    count = 0
    for _ in range(400):
        count += origin(transform(prob=0.3)(dict(source), rng)) != (0, 0)
    assert 85 < count < 155


def test_rotation_against_inverse_mapping():
    source = coordinates(60, 80)
    rng = np.random.default_rng(4)
    angle = np.deg2rad(np.random.default_rng(4).uniform(-25, 25))
    sample = T.RandomRotation(25, im_padding_value=255, label_padding_value=255)(dict(source), rng)
    cos, sin = np.cos(angle), np.sin(angle)
    h, w = sample["label"].shape
    assert h == int(60 * abs(cos) + 80 * abs(sin))
    assert w == int(60 * abs(sin) + 80 * abs(cos))
    y, x = np.mgrid[:h, :w]
    # Counter-clockwise about the center, y downwards.
    back_x = cos * (x - w / 2) - sin * (y - h / 2) + 40
    back_y = sin * (x - w / 2) + cos * (y - h / 2) + 30
    inside = (back_x > 1) & (back_x < 78) & (back_y > 1) & (back_y < 58)
    assert np.abs(sample["img"][..., 1] - back_y)[inside].max() < 1.1
    assert np.abs(sample["img"][..., 2] - back_x)[inside].max() < 1.1
    rows, cols = np.rint(back_y).astype(int), np.rint(back_x).astype(int)
    expected = source["label"][np.clip(rows, 0, 59), np.clip(cols, 0, 79)]
    assert np.mean(expected[inside] == sample["label"][inside]) > 0.95
    outside = (back_x < -2) | (back_x > 81) | (back_y < -2) | (back_y > 61)
    assert (sample["label"][outside] == 255).all()
    assert (sample["img"][outside] == 255).all()


def test_padding_records_the_size_and_keeps_the_corner():
    source = coordinates(30, 40)
    sample = T.Padding((64, 48))(dict(source))
    assert sample["img"].shape == (48, 64, 3)
    assert sample["trans_info"] == [("padding", (30, 40))]
    np.testing.assert_array_equal(sample["img"][:30, :40], source["img"])
    assert (sample["img"][30:] == 127).all()
    assert (sample["label"][:, 40:] == 255).all()
    with pytest.raises(UserError, match=r"32 x 48 .*image is 40 x 30.*Resize"):
        T.Padding((32, 48))(dict(source))


@pytest.mark.parametrize(
    ("ratio", "expected"), [(1, (40, 40)), (2, (30, 60)), (4 / 3, (30, 40)), (0.5, (80, 40))]
)
def test_padding_by_aspect_ratio(ratio, expected):
    sample = T.PaddingByAspectRatio(ratio)(coordinates(30, 40))
    assert sample["label"].shape == expected
    assert ("trans_info" in sample) == (expected != (30, 40))


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("RandomPaddingCrop", {"crop_size": 512}, "crop_size is 512, expected [width, height]"),
        ("RandomPaddingCrop", {"im_padding_value": 300}, "im_padding_value is 300"),
        ("RandomPaddingCrop", {"label_padding_value": -1}, "label_padding_value is -1"),
        ("RandomPaddingCrop", {"category_max_ratio": 0}, "category_max_ratio is 0"),
        ("RandomPaddingCrop", {"loop_times": 0}, "loop_times is 0"),
        ("RandomCenterCrop", {"retain_ratio": [0.5, 1.5]}, "retain_ratio is [0.5, 1.5]"),
        ("RandomScaleAspect", {"min_scale": 2}, "min_scale is 2"),
        ("RandomHorizontalFlip", {"prob": 1.5}, "prob is 1.5, expected a probability"),
        ("RandomVerticalFlip", {"prob": "half"}, "prob is 'half'"),
        ("RandomRotation", {"max_rotation": -3}, "max_rotation is -3"),
        ("Padding", {"target_size": (0, 5)}, "target_size is (0, 5)"),
        ("PaddingByAspectRatio", {"aspect_ratio": 0}, "aspect_ratio is 0"),
        ("PaddingByAspectRatio", {"im_padding_value": [1, 256]}, "im_padding_value is [1, 256]"),
    ],
)
def test_wrong_arguments(name, arguments, message):
    with pytest.raises(ValueError) as error:
        getattr(T, name)(**arguments)
    assert message in str(error.value)
