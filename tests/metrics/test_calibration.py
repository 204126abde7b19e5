"""Calibration against its definition, pixel by pixel, and against known temperatures."""

from __future__ import annotations

import numpy as np
import pytest

from liteseg.metrics.calibration import (
    TEMPERATURES,
    PixelSample,
    Reliability,
    calibrate,
    fit_temperature,
    softmax,
)


def draw(n, classes, temperature, seed=0):
    """Logits, and labels drawn from the softmax of the logits divided by a temperature."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (n, classes)).astype(np.float32)
    cumulative = softmax(logits, temperature).cumsum(axis=1)
    labels = (rng.random((n, 1)) > cumulative).sum(axis=1).clip(max=classes - 1)
    return logits, labels.astype(np.uint8)


@pytest.mark.parametrize("bins", [1, 4, 15])
def test_the_error_is_that_of_a_loop_over_bins(bins):
    rng = np.random.default_rng(1)
    confidence = np.concatenate([rng.random(500), [0, 1, 0.25, 0.5]]).astype(np.float32)
    correct = rng.random(len(confidence)) < confidence**2
    error = 0.0
    for k in range(bins):
        inside = (confidence > k / bins) & (confidence <= (k + 1) / bins)
        inside |= (confidence == 0) & (k == 0)
        if inside.any():
            difference = correct[inside].mean() - confidence[inside].mean(dtype=np.float64)
            error += inside.mean() * abs(difference)
    parts = Reliability(bins), Reliability(bins)
    parts[0].update(confidence[:200].reshape(10, 20), correct[:200].reshape(10, 20))
    parts[1].update(confidence[200:], correct[200:])
    parts[0].merge(parts[1])
    found = parts[0].compute()
    assert found["ece"] == pytest.approx(error, abs=1e-9)
    assert sum(bin["pixels"] for bin in found["bins"]) == len(confidence)
    for bin in found["bins"]:
        assert 0 <= bin["accuracy"] <= 1


def test_no_pixels():
    assert Reliability().compute() == {"ece": None, "bins": []}
    assert calibrate(PixelSample()) == {}


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_of_the_labels_is_found(temperature):
    logits, labels = draw(40_000, 6, temperature)
    found = fit_temperature(logits, labels)
    assert found == pytest.approx(temperature, rel=0.05)
    losses = {}
    for candidate in np.geomspace(0.3, 4, 60):  # a brute-force minimum
        probabilities = softmax(logits, candidate)
        losses[candidate] = -np.log(probabilities[np.arange(len(labels)), labels]).mean()
    best = min(losses, key=losses.get)
    assert found == pytest.approx(best, rel=0.05)
    assert np.argmax(softmax(logits, found), axis=1).tolist() == logits.argmax(axis=1).tolist()


def test_a_network_that_is_always_right_or_wrong_reaches_the_limits():
    logits = np.eye(3, dtype=np.float32) / 10
    assert fit_temperature(logits, np.arange(3)) == pytest.approx(TEMPERATURES[0], rel=1e-3)
    wrong = np.array([1, 2, 0])
    assert fit_temperature(logits, wrong) == pytest.approx(TEMPERATURES[1], rel=1e-3)


def images(count, temperature, side=20):
    for index in range(count):
        logits, labels = draw(side * side, 4, temperature, seed=index)
        yield index, logits.T.reshape(4, side, side), labels.reshape(side, side)


def test_the_temperature_lowers_the_error_of_other_images():
    sample = PixelSample(per_image=300)
    for index, logits, label in images(60, temperature=2.0):
        label[:3] = 255
        sample.update(index, logits, label, ignore_index=255)
    assert all(len(labels) == 300 for _, labels in sample.images.values())
    assert not any(255 in labels for _, labels in sample.images.values())
    found = calibrate(sample)
    assert (found["fit_images"], found["held_out_images"]) == (30, 30)
    assert found["temperature"] == pytest.approx(2.0, rel=0.1)
    assert found["before"]["ece"] > 0.1
    assert found["after"]["ece"] < 0.03
    assert found["after"]["nll"] < found["before"]["nll"]


def test_a_sample_is_bounded_and_the_same_in_any_order_and_number_of_processes():
    def sampled(order, parts=1):
        samples = [PixelSample(per_image=100, limit=400) for _ in range(parts)]
        data = {index: rest for index, *rest in images(20, 1.0)}
        for place, index in enumerate(order):
            samples[place % parts].update(index, *data[index], ignore_index=255)
        for other in samples[1:]:
            samples[0].merge(other)
        return samples[0]

    one, other = sampled(range(20)), sampled(range(19, -1, -1), parts=3)
    for sample in (one, other):
        assert sum(len(labels) for _, labels in sample.images.values()) <= 800
        assert len(sample.images) == 20
    n = min(one.per_image, other.per_image)
    for index in range(20):
        np.testing.assert_array_equal(one.images[index][0][:n], other.images[index][0][:n])
        np.testing.assert_array_equal(one.images[index][1][:n], other.images[index][1][:n])
    assert calibrate(one)["temperature"] == pytest.approx(1.0, rel=0.25)
