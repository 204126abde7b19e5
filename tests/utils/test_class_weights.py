"""Measured class weights against their formula."""

from __future__ import annotations

import math

import numpy as np

from liteseg.utils.class_weights import class_weights


def test_weights_by_hand():
    weights = class_weights(np.array([60, 30, 10, 0]))
    raw = [1 / math.sqrt(math.log(1.02 + p)) for p in (0.6, 0.3, 0.1, 0.0)]
    mean = 0.6 * raw[0] + 0.3 * raw[1] + 0.1 * raw[2]
    np.testing.assert_allclose(weights, [w / mean for w in raw], rtol=1e-6)
    assert weights.dtype == np.float32


def test_enet_weights_by_hand():
    weights = class_weights(np.array([60, 30, 10, 0]), "enet")
    raw = [1 / math.log(1.02 + p) for p in (0.6, 0.3, 0.1, 0.0)]
    mean = 0.6 * raw[0] + 0.3 * raw[1] + 0.1 * raw[2]
    np.testing.assert_allclose(weights, [w / mean for w in raw], rtol=1e-6)


def test_weights_are_finite_for_any_counts():
    for counts in ([0, 0, 0], [5, 0, 0], [10**15, 1, 0]):
        weights = class_weights(np.array(counts))
        assert np.isfinite(weights).all()
        assert (weights > 0).all()
        assert weights.max() / weights.min() < 36
    assert class_weights(np.array([0, 0])).tolist() == [1, 1]
