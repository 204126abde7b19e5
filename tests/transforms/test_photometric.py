"""Jitter, blur, noise and normalization."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from liteseg import transforms as T
from liteseg.transforms import functional as F


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def test_distort_applies_each_operation_by_its_probability(image):
    names = ("brightness", "contrast", "saturation", "hue", "sharpness")
    for name in names:
        others = {f"{other}_prob": 0 for other in names}
        transform = T.RandomDistort(**{**others, f"{name}_prob": 1})
        rng = np.random.default_rng(5)
        replay = np.random.default_rng(5)
        # The draws: an order, then one per operation, and the amount of the one that is applied.
        order = replay.permutation(5)
        for index in order:
            replay.random()
            if names[index] == name:
                low, high = (-18, 18) if name == "hue" else (0.5, 1.5)
                amount = replay.uniform(low, high)
        result = transform({"img": image}, rng)["img"]
        np.testing.assert_array_equal(result, getattr(F, name)(image, amount))


def test_distort_by_default_keeps_one_in_sixteen(image):
    rng = np.random.default_rng(0)
    transform = T.RandomDistort()
    same = sum(np.array_equal(transform({"img": image}, rng)["img"], image) for _ in range(480))
    assert 15 < same < 48


@pytest.mark.parametrize("kind", ["gaussian", "median", "blur"])
def test_blur_is_that_of_cv2_with_an_odd_size(image, kind):
    blur = {
        "gaussian": lambda side: cv2.GaussianBlur(image, (side, side), 0),
        "median": lambda side: cv2.medianBlur(image, side),
        "blur": lambda side: cv2.blur(image, (side, side)),
    }[kind]
    seen = set()
    for seed in range(30):
        result = T.RandomBlur(1, kind)({"img": image}, np.random.default_rng(seed))["img"]
        seen.add(next(side for side in (3, 5, 7, 9) if np.array_equal(result, blur(side))))
    assert seen == {3, 5, 7, 9}


def test_blur_probability(image):
    rng = np.random.default_rng(0)
    for prob, low, high in ((0, 0, 0), (0.1, 20, 62), (1, 400, 400)):
        transform = T.RandomBlur(prob, "random")
        count = sum(transform({"img": image}, rng)["img"] is not image for _ in range(400))
        assert low <= count <= high


def test_noise_has_the_drawn_strength():
    gray = np.full((200, 200, 3), 128, np.uint8)
    rng = np.random.default_rng(2)
    noisy = T.RandomNoise(1, 20)({"img": gray}, np.random.default_rng(2))["img"]
    rng.random()
    sigma = rng.random() * 20
    assert noisy.dtype == np.uint8
    assert abs(noisy.astype(float).std() - sigma) < 0.1 * sigma
    assert abs(noisy.astype(float).mean() - 128) < 0.3
    assert T.RandomNoise(0)({"img": gray})["img"] is gray


@pytest.mark.parametrize(
    ("mean", "std"), [((0.5,) * 3, (0.5,) * 3), ([0.5], [0.5]), ([0.3, 0.4, 0.5], [0.2, 0.3, 0.1])]
)
def test_normalize_of_image_and_batch(image, mean, std):
    import paddle

    expected = (image / 255 - np.array(mean)) / np.array(std)
    normalize = T.Normalize(mean, std)
    single = normalize({"img": image})["img"]
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, expected, atol=1e-5)
    for dtype in (np.uint8, np.float32):
        for _ in range(2):
            batch = normalize.batch(paddle.to_tensor(np.stack([image, image[::-1]]).astype(dtype)))
            assert batch.shape == [2, 3, 40, 60]
            assert batch.dtype == paddle.float32
            np.testing.assert_allclose(batch[0].numpy(), expected.transpose(2, 0, 1), atol=1e-5)
    np.testing.assert_allclose(batch[1].numpy(), expected[::-1].transpose(2, 0, 1), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("RandomDistort", {"hue_prob": 2}, "hue_prob is 2, expected a probability"),
        ("RandomDistort", {"contrast_range": -0.1}, "contrast_range is -0.1"),
        ("RandomBlur", {"blur_type": "box"}, "blur_type is 'box', expected one of gaussian"),
        ("RandomNoise", {"max_sigma": -1}, "max_sigma is -1"),
        ("Normalize", {"mean": 0.5}, "mean is 0.5, expected a list"),
        ("Normalize", {"std": [0.5, 0, 0.5]}, "std is [0.5, 0, 0.5], expected numbers above 0"),
    ],
)
def test_wrong_arguments(name, arguments, message):
    with pytest.raises(ValueError) as error:
        getattr(T, name)(**arguments)
    assert message in str(error.value)
