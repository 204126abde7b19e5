"""Every transform on images of another number of channels, and the errors of those for colors."""

from __future__ import annotations

import numpy as np
import pytest

from liteseg.errors import UserError
from liteseg.registry import TRANSFORMS
from liteseg.transforms import Compose, Normalize, RandomDistort

ARGUMENTS = {
    "RandomPaddingCrop": {"crop_size": [24, 30]},
    "Resize": {"target_size": [24, 30]},
    "ResizeByLong": {"long_size": 24},
    "ResizeByShort": {"short_size": 24},
    "LimitLong": {"max_long": 15},
    "Padding": {"target_size": [32, 30]},
    "RandomDistort": {"saturation_prob": 0, "hue_prob": 0, "sharpness_prob": 1},
    "RandomBlur": {"prob": 1},
    "RandomNoise": {"prob": 1},
    "RandomRotation": {"max_rotation": 30, "im_padding_value": 0},  # blended at the border
    "RandomHorizontalFlip": {"prob": 1},
    "RandomVerticalFlip": {"prob": 1},
    "ResizeRangeScaling": {"min_value": 20, "max_value": 30},
}


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("name", sorted(set(TRANSFORMS) - {"Normalize"}))
def test_channels_do_not_mix(name, channels):
    """Channel c is the first one times c + 1: so is the result, up to the fill and the clipping."""
    first = np.random.default_rng(0).uniform(0.2, 0.4, (20, 26, 1)).astype(np.float32)
    factors = np.linspace(1, 2, channels, dtype=np.float32)
    label = np.random.default_rng(1).integers(0, 3, (20, 26), dtype=np.uint8)
    transform = TRANSFORMS[name](**ARGUMENTS.get(name, {}))
    compose = Compose([transform, Normalize(mean=[0], std=[1], max_value=1.0)])

    def result(image):
        sample = {"img": image.copy(), "label": label.copy()}
        return compose(sample, np.random.default_rng(7))["img"]

    found = result(first * factors)
    assert found.dtype == np.float32
    assert found.shape[2] == channels
    assert found.shape[:2] == result(first)[..., 0].shape
    if name in ("RandomNoise", "RandomDistort"):  # their noise or mean differs by channel
        return
    fill = np.float32(127 / 255)
    expected = result(first)
    if name == "RandomRotation":  # OpenCV samples at 1/32 pixels, but for some numbers of channels
        np.testing.assert_allclose(found, expected * factors, atol=0.02)
        return
    inside = np.abs(expected[..., 0] - fill) > 1e-6
    np.testing.assert_allclose(found[inside], (expected * factors)[inside], rtol=2e-5)
    if not inside.all():
        np.testing.assert_allclose(found[~inside], fill, rtol=1e-6)


@pytest.mark.parametrize("name", ["saturation_prob", "hue_prob"])
def test_colors_need_rgb(name):
    options = {"saturation_prob": 0, "hue_prob": 0, name: 0.1}
    transform = RandomDistort(**options)
    with pytest.raises(UserError, match=r"RandomDistort: saturation and hue .* hue_prob: 0"):
        transform({"img": np.zeros((4, 4, 3), np.float32)}, np.random.default_rng(0))


def test_median_needs_8_bits():
    transform = TRANSFORMS["RandomBlur"](prob=1, blur_type="median")
    with pytest.raises(UserError, match="median needs 8-bit RGB"):
        transform({"img": np.zeros((9, 9, 4), np.float32)}, np.random.default_rng(0))


def test_brightness_and_noise_stay_in_the_range():
    image = np.full((30, 30, 5), 4000, np.float32)
    options = {"brightness_range": 0.9, "brightness_prob": 1, "saturation_prob": 0, "hue_prob": 0}
    transforms = [RandomDistort(**options), TRANSFORMS["RandomNoise"](prob=1, max_sigma=100)]
    compose = Compose([*transforms, Normalize(max_value=4095)])
    for seed in range(10):
        found = compose({"img": image}, np.random.default_rng(seed))["img"]
        assert 0 <= found.min() <= found.max() <= 4095


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("max_value", [1.0, 255, 65535])
def test_normalize(channels, max_value):
    import paddle

    mean = np.linspace(0.2, 0.6, channels).tolist()
    std = np.linspace(0.1, 0.5, channels).tolist()
    image = np.random.default_rng(0).uniform(0, max_value, (6, 8, channels)).astype(np.float32)
    expected = (image / max_value - mean) / std
    transform = Normalize(mean, std, max_value)
    np.testing.assert_allclose(transform({"img": image})["img"], expected, rtol=1e-4, atol=1e-5)
    batch = transform.batch(paddle.to_tensor(image[None])).numpy()[0].transpose(1, 2, 0)
    np.testing.assert_allclose(batch, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "arguments",
    [{"mean": []}, {"std": [0.0]}, {"max_value": 0}, {"mean": [0.1, 0.2], "std": [1, 2, 3]}],
)
def test_bad_arguments(arguments):
    with pytest.raises(ValueError, match="expected"):
        Normalize(**arguments)


def test_lists_of_another_length():
    transform = Normalize([0.1, 0.2, 0.3], [0.1, 0.1, 0.1])
    with pytest.raises(UserError, match="mean has 3 values for images with 5 channels"):
        transform({"img": np.zeros((4, 4, 5), np.float32)})
    crop = TRANSFORMS["RandomPaddingCrop"](crop_size=[9, 9], im_padding_value=[1, 2, 3])
    with pytest.raises(UserError, match="im_padding_value: 3 levels for images with 5 channels"):
        crop({"img": np.zeros((4, 4, 5), np.float32)}, np.random.default_rng(0))
