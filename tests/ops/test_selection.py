"""Order statistics by the CPU's and the GPU's implementation."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from liteseg.losses import BootstrappedCrossEntropyLoss, CrossEntropyLoss, OhemCrossEntropyLoss
from liteseg.ops.device import portable_operators
from liteseg.ops.selection import k_largest, kth_smallest


@pytest.mark.parametrize("k", [1, 2, 700, 999, 1000])
def test_both_implementations_select_the_same_values(k):
    values = np.random.default_rng(k).permutation(1000).astype(np.float32) / 7
    values[10] = values[20]
    ordered = np.sort(values)
    tensor = paddle.to_tensor(values)

    def select():
        largest, indices = k_largest(tensor, k)
        np.testing.assert_array_equal(values[indices.numpy()], largest.numpy())
        smallest = kth_smallest(tensor, k)
        assert smallest.shape == []
        return float(smallest), largest.numpy()

    for smallest, largest in (select(), _portable(select)):
        assert smallest == ordered[k - 1]
        np.testing.assert_array_equal(largest, ordered[::-1][:k])


def _portable(function):
    with portable_operators():
        return function()


@pytest.mark.parametrize(
    "loss",
    [
        OhemCrossEntropyLoss(min_kept=300),
        CrossEntropyLoss(top_k_percent_pixels=0.25, weight=[1, 2, 3, 4, 5]),
        BootstrappedCrossEntropyLoss(min_K=60, loss_th=9.0),
        BootstrappedCrossEntropyLoss(min_K=60, loss_th=0.5),
    ],
    ids=["ohem", "top_k_percent_pixels", "bootstrapped", "bootstrapped, above the threshold"],
)
def test_losses_and_gradients_are_the_same(loss):
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(2, 5, 24, 32)).astype(np.float32) * 3
    label = rng.integers(0, 5, (2, 24, 32))
    label[:, :3] = 255

    def compute():
        logits = paddle.to_tensor(scores, stop_gradient=False)
        value = loss(logits, paddle.to_tensor(label))
        value.backward()
        return float(value), logits.grad.numpy()

    (value, gradient), (other, other_gradient) = compute(), _portable(compute)
    assert other == pytest.approx(value, rel=1e-6)
    np.testing.assert_allclose(other_gradient, gradient, atol=1e-6 * np.abs(gradient).max())
