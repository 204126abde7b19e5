"""Inference against published values and simple twins."""

from __future__ import annotations

import weakref

import golden_rule
import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

from liteseg.config.test_config import TestConfig
from liteseg.engine.inference import _mean_of_overlaps, predict, predict_labels, predict_scores
from liteseg.models import STDC1, PPLiteSeg
from liteseg.ops import labels


class Toy(paddle.nn.Layer):
    """Five classes from a 3x3 convolution that depends on the border, so that windows differ."""

    def __init__(self):
        super().__init__()
        self.conv = paddle.nn.Conv2D(3, 5, 3, padding=1)
        golden_rule.fill(self)

    def forward(self, images):
        return [self.conv(images)]


@pytest.fixture(scope="module")
def toy():
    model = Toy()
    model.eval()
    return model


@pytest.fixture(scope="module")
def published():
    model = PPLiteSeg(19, STDC1(), arm_out_chs=[32, 64, 128], seg_head_inter_chs=[32, 64, 64])
    model.eval()
    return golden_rule.fill(model)


def assert_published(found, expected):
    error = np.abs(found.numpy()[:, :, ::7, ::7] - expected).max()
    assert error <= 1e-4 * np.abs(expected).max()


def test_sliding_window_is_the_published_one(published, golden):
    test = TestConfig.from_dict({"is_slide": True, "crop_size": [96, 64], "stride": [64, 32]})
    scores = predict_scores(published, golden_rule.image(51, (1, 3, 96, 160)), test)
    expected = np.load(golden / "infer_T.npz")["slide_w96h64_stride_w64h32_every7"]
    assert_published(scores, expected)


def test_scales_and_flips_are_the_published_ones(published, golden):
    test = TestConfig(aug_eval=True, scales=(0.75, 1.0, 1.25), flip_horizontal=True)
    scores = predict_scores(published, golden_rule.image(51, (1, 3, 96, 160)), test)
    expected = np.load(golden / "infer_T.npz")["multiscale_flip_probs_every7"]
    assert_published(scores, expected)


def slide_twin(model, image, crop, stride):
    """One window after the other, sums and counts kept in full-size arrays."""
    h, w = image.shape[-2:]
    total, count = np.zeros((image.shape[0], 5, h, w)), np.zeros((h, w))
    for row in range(max(int(np.ceil((h - crop[1]) / stride[1])), 0) + 1):
        for column in range(max(int(np.ceil((w - crop[0]) / stride[0])), 0) + 1):
            bottom = min(row * stride[1] + crop[1], h)
            right = min(column * stride[0] + crop[0], w)
            box = (slice(max(bottom - crop[1], 0), bottom), slice(max(right - crop[0], 0), right))
            total[(..., *box)] += model(image[(..., *box)])[0].numpy()
            count[box] += 1
    assert count.min() > 0
    return total / count


@pytest.mark.parametrize("crop", [(16, 12), (64, 12), (16, 64), (64, 64), (31, 23)])
@pytest.mark.parametrize("stride", [(16, 12), (5, 3), (11, 9)])
def test_windows_are_averaged(toy, crop, stride):
    image = golden_rule.image(1, (2, 3, 30, 41))
    test = TestConfig.from_dict({"is_slide": True, "crop_size": crop, "stride": stride})
    found = predict_scores(toy, image, test).numpy()
    np.testing.assert_allclose(found, slide_twin(toy, image, crop, stride), atol=1e-5)


def test_a_strip_of_windows_is_dropped_when_the_next_ones_do_not_reach_it():
    """One strip of logits, and the result, in memory at a time."""
    alive = weakref.WeakSet()

    def strips():
        for _ in range(20):
            strip = paddle.ones([1, 1, 6, 8])
            alive.add(strip)
            assert len(alive) <= 2
            yield strip
            del strip

    found = _mean_of_overlaps(strips(), range(0, 80, 4), axis=2)
    np.testing.assert_array_equal(found, paddle.ones([1, 1, 82, 8]))


@pytest.mark.parametrize("size", [(30, 41), (32, 64), (33, 1)])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"aug_eval": True, "scales": 0.75},
        {"aug_eval": True, "scales": [0.75, 1.0], "flip_horizontal": True},
        {"is_slide": True, "crop_size": [20, 28], "stride": [10, 14]},
    ],
)
def test_padded_inputs(toy, size, options):
    """The network only gets multiples; elsewhere the scores are those of an input with zeros."""
    sizes = []

    def network(images):
        sizes.append(images.shape[-2:])
        return toy(images)

    image = golden_rule.image(1, (2, 3, *size))
    found = predict_scores(network, image, TestConfig(pad_multiple=16, **options))
    assert all(side % 16 == 0 for shape in sizes for side in shape)
    # a 3x3 convolution pads with zeros itself
    expected = predict_scores(toy, image, TestConfig(**options))
    np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=1e-5)


def test_padding_aligns_the_coarse_logits(published):
    image = golden_rule.image(51, (1, 3, 66, 97))
    padded = F.pad(image, [0, 31, 0, 30])
    logits = published(padded)[0][:, :, :66, :97]
    found = predict(published, image, TestConfig(pad_multiple=32))
    np.testing.assert_allclose(found.logits().numpy(), logits.numpy(), atol=1e-4)
    assert (found.labels() == logits.numpy().argmax(1)).mean() > 0.999


def test_a_shift_is_logged_once(published, caplog, monkeypatch):
    monkeypatch.setattr(labels, "_shift_reported", [])
    for size in [(64, 96), (65, 96), (65, 97), (65, 96)]:
        predict(published, paddle.zeros([1, 3, *size]), TestConfig())
        predict(published, paddle.zeros([1, 3, *size]), TestConfig(pad_multiple=32))
    (line,) = caplog.messages
    assert "96x65, no multiple of 8" in line
    assert "test_config.pad_multiple=32" in line


def softmax(x):
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def test_all_four_flips(toy):
    image = golden_rule.image(2, (1, 3, 9, 14))
    test = TestConfig(aug_eval=True, flip_horizontal=True, flip_vertical=True)
    expected = 0
    for rows in (slice(None), slice(None, None, -1)):
        for columns in (slice(None), slice(None, None, -1)):
            flipped = paddle.to_tensor(image.numpy()[:, :, rows, columns].copy())
            expected = expected + softmax(toy(flipped)[0].numpy()[:, :, rows, columns])
    np.testing.assert_allclose(predict_scores(toy, image, test).numpy(), expected, atol=1e-5)


def test_flips_and_scales_need_aug_eval(toy):
    image = golden_rule.image(2, (1, 3, 9, 14))
    test = TestConfig(scales=(0.5,), flip_horizontal=True)
    np.testing.assert_array_equal(predict_scores(toy, image, test), toy(image)[0])


@pytest.mark.parametrize("scale", [0.5, 0.75, 1.5])
def test_labels_of_one_scale_are_those_of_the_probabilities(toy, scale):
    image = golden_rule.image(3, (2, 3, 37, 51))
    small = F.interpolate(image, [int(37 * scale + 0.5), int(51 * scale + 0.5)], mode="bilinear")
    logits = F.interpolate(toy(small)[0], [37, 51], mode="bilinear")
    found = predict_labels(toy, image, TestConfig(aug_eval=True, scales=(scale,)))
    assert found.dtype == np.uint8
    assert (found == F.softmax(logits, axis=1).numpy().argmax(1)).mean() > 0.999


@pytest.mark.parametrize(
    ("options", "trans_info"),
    [
        ({}, ()),
        ({}, [("resize", (70, 190)), ("padding", (64, 150))]),
        ({"aug_eval": True, "scales": (0.5,)}, [("padding", (61, 150))]),
    ],
)
def test_upsampling_outside_the_network_changes_nothing(published, options, trans_info):
    test = TestConfig(**options)
    images = golden_rule.image(7, (2, 3, 64, 160))
    coarse = predict(published, images, test, trans_info)
    whole = predict(lambda x: published(x), images, test, trans_info)  # without coarse logits
    assert coarse.scores.shape[2:] < whole.scores.shape[2:]
    scores = whole.full_scores().numpy()
    np.testing.assert_allclose(coarse.full_scores().numpy(), scores, atol=1e-5)
    labels = coarse.labels()
    assert labels.shape == scores[:, 0].shape
    chosen = np.take_along_axis(scores, labels[:, None].astype(int), 1)[:, 0]
    assert (scores.max(axis=1) - chosen).max() < 1e-5  # the best class, up to rounding
    assert (whole.labels() == labels).mean() > 0.999


def test_labels_revert_the_transforms(toy):
    image = golden_rule.image(4, (2, 3, 40, 64))  # 50x100 -> resized 32x64 -> padded 40x64
    trans_info = [("resize", (50, 100)), ("padding", (32, 64))]
    logits = F.interpolate(toy(image)[0][:, :, :32], [50, 100], mode="bilinear")
    result = predict(toy, image, TestConfig(), trans_info)
    np.testing.assert_allclose(result.logits().numpy(), logits.numpy(), atol=1e-5)
    assert (result.labels() == logits.numpy().argmax(1)).mean() > 0.999
    probabilities = F.interpolate(
        F.softmax(toy(image)[0], axis=1)[:, :, :32], [50, 100], mode="bilinear"
    )
    with_views = predict_labels(toy, image, TestConfig(aug_eval=True), trans_info)
    assert (with_views == probabilities.numpy().argmax(1)).mean() > 0.999


def test_logits_of_several_views_have_the_mean_probability(toy):
    image = golden_rule.image(5, (1, 3, 12, 16))
    result = predict(toy, image, TestConfig(aug_eval=True, flip_horizontal=True))
    np.testing.assert_allclose(
        F.softmax(result.logits(), axis=1).numpy(), result.full_scores().numpy() / 2, atol=1e-6
    )


def test_no_gradient_is_recorded(toy):
    assert predict_scores(toy, golden_rule.image(1, (1, 3, 8, 8)), TestConfig()).stop_gradient
