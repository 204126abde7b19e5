"""Bilinear resizing on a CPU against Paddle's own kernel."""

from __future__ import annotations

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

from liteseg.ops.resize import resize


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        ((4, 6), (32, 48)),
        ((1, 1), (5, 3)),
        ((7, 5), (50, 33)),
        ((16, 16), (5, 9)),
        ((3, 8), (3, 8)),
    ],
)
def test_values_and_gradient(inputs, outputs):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, 3, *inputs)).astype("float32")
    weights = paddle.to_tensor(rng.normal(size=(2, 3, *outputs)).astype("float32"))
    results = []
    for function in (resize, lambda x, size: F.interpolate(x, size, mode="bilinear")):
        x = paddle.to_tensor(images, stop_gradient=False)
        y = function(x, outputs)
        (y * weights).sum().backward()
        results.append((y.numpy(), x.grad.numpy()))
    for actual, expected in zip(*results):
        np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_a_constant_remains_constant():
    assert np.ptp(resize(paddle.ones([1, 1, 5, 7]), (40, 56)).numpy()) < 1e-6
