"""The pipeline: fusing changes nothing, one generator for all draws, every component runs."""

from __future__ import annotations

import numpy as np
import pytest

from liteseg import transforms as T
from liteseg.registry import TRANSFORMS

REQUIRED = {
    "ResizeByLong": {"long_size": 48},
    "ResizeByShort": {"short_size": 48},
    "Padding": {"target_size": (90, 70)},
}


def street(h: int, w: int) -> dict:
    rng = np.random.default_rng((h, w))
    y, x = np.mgrid[:h, :w]
    smooth = np.stack([x * 255 / w, y * 255 / h, 127 + 120 * np.sin(x / 9) * np.cos(y / 7)], -1)
    image = np.clip(smooth + rng.normal(0, 8, (h, w, 3)), 0, 255).astype(np.uint8)
    return {"img": image, "label": ((x // 11 + y // 9) % 11).astype(np.uint8)}


def apply_one_by_one(transforms, sample, rng) -> dict:
    sample = dict(sample)
    for transform in transforms:
        sample = transform(sample, rng)
    return sample


@pytest.mark.parametrize("category_max_ratio", [1.0, 0.4])
@pytest.mark.parametrize(
    ("shape", "scaling"),
    [
        ((360, 480), T.ResizeStepScaling(0.125, 1.5, 0.125)),
        ((360, 480), T.ResizeStepScaling(0.5, 2.5, 0.25)),
        ((301, 397), T.ResizeStepScaling(0.5, 2.0, 0.25)),
        ((301, 397), T.ResizeStepScaling(0.5, 2.0, 0)),
        ((360, 480), T.ResizeRangeScaling(300, 700)),
    ],
)
def test_fused_equals_unfused(shape, scaling, category_max_ratio):
    source = street(*shape)
    crop = T.RandomPaddingCrop((240, 180), category_max_ratio=category_max_ratio)
    chain = [scaling, crop, T.RandomHorizontalFlip()]
    for seed in range(12):
        fused_rng, rng = np.random.default_rng(seed), np.random.default_rng(seed)
        fused = T.Compose(chain)(source, fused_rng)
        plain = apply_one_by_one(chain, source, rng)
        difference = np.abs(fused["img"].astype(int) - plain["img"])
        assert difference.mean() < 0.2
        assert difference.max() <= 2
        np.testing.assert_array_equal(fused["label"], plain["label"])
        assert fused_rng.random() == rng.random()  # the same number of draws
        unlabeled = T.Compose(chain)({"img": source["img"]}, np.random.default_rng(seed))
        assert unlabeled["img"].shape == (180, 240, 3)


def test_trailing_normalize_is_left_to_the_trainer():
    normalize = T.Normalize()
    compose = T.Compose([T.RandomHorizontalFlip(), normalize])
    assert compose.normalize is normalize
    assert compose(street(20, 30))["img"].dtype == np.uint8
    assert T.Compose([T.RandomHorizontalFlip()]).normalize is None
    assert T.Compose([]).normalize is None
    with pytest.raises(ValueError, match="Normalize in place 1 of 2, expected last"):
        T.Compose([normalize, T.RandomHorizontalFlip()])


def test_the_given_sample_does_not_change():
    source = {**street(60, 80), "trans_info": [], "index": 3}
    before = {key: value.copy() for key, value in source.items() if key in ("img", "label")}
    for array in (source["img"], source["label"]):
        array.flags.writeable = False  # as in a memory-mapped pack
    compose = T.Compose([T.Resize((50, 40)), T.RandomVerticalFlip(1), T.RandomDistort()])
    result = compose(source)
    assert result["index"] == 3
    assert result["trans_info"] == [("resize", (60, 80))]
    assert source["trans_info"] == []
    for key, array in before.items():
        np.testing.assert_array_equal(source[key], array)


@pytest.mark.parametrize("name", sorted(TRANSFORMS))
def test_every_registered_transform_runs(name):
    transform = TRANSFORMS[name](**REQUIRED.get(name, {}))
    assert getattr(T, name) is TRANSFORMS[name]
    source = street(64, 80)
    before = {key: value.copy() for key, value in source.items()}
    for array in source.values():
        array.flags.writeable = False
    for seed in range(8):
        sample = transform(dict(source), np.random.default_rng(seed))
        assert sample["img"].dtype == (np.float32 if name == "Normalize" else np.uint8)
        assert sample["img"].ndim == 3
        assert sample["label"].dtype == np.uint8
        assert sample["img"].shape[:2] == sample["label"].shape
        again = transform(dict(source), np.random.default_rng(seed))
        unlabeled = transform({"img": source["img"]}, np.random.default_rng(seed))
        np.testing.assert_array_equal(again["img"], sample["img"])
        np.testing.assert_array_equal(again["label"], sample["label"])
        np.testing.assert_array_equal(unlabeled["img"], sample["img"])
        assert "label" not in unlabeled
    assert transform(dict(source))["img"].ndim == 3  # without a generator
    for key, array in before.items():
        np.testing.assert_array_equal(source[key], array)


def test_no_global_random_state():
    np.random.seed(0)
    expected = np.random.random()
    np.random.seed(0)
    for name in TRANSFORMS:
        TRANSFORMS[name](**REQUIRED.get(name, {}))(street(64, 80), np.random.default_rng(0))
    assert np.random.random() == expected


def test_fixed_list_of_components():
    expected = """LimitLong Normalize Padding PaddingByAspectRatio RandomBlur RandomCenterCrop
        RandomDistort RandomHorizontalFlip RandomNoise RandomPaddingCrop RandomRotation
        RandomScaleAspect RandomVerticalFlip Resize ResizeByLong ResizeByShort ResizeRangeScaling
        ResizeStepScaling"""
    assert set(expected.split()) <= set(TRANSFORMS)
    assert {*expected.split(), "Compose"} == set(T.__all__)


def test_every_transform_declares_its_kind():
    options = {
        "Padding": {"target_size": (8, 8)},
        "ResizeByLong": {"long_size": 8},
        "ResizeByShort": {"short_size": 8},
    }
    colors = {"RandomBlur", "RandomDistort", "RandomNoise"}
    for name in T.__all__[1:]:  # all but Compose
        transform = TRANSFORMS[name](**options.get(name, {}))
        random = name.startswith("Random") or "Scaling" in name
        assert transform.random is random, name
        assert transform.keeps_geometry is (not random or name in colors), name
