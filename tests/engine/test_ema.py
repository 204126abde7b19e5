"""The moving average of the weights against numpy."""

from __future__ import annotations

import contextlib

import numpy as np
import paddle
import pytest
from toy_training import ToyNet, arrays, assert_same

from liteseg.engine.ema import Ema


def set_all(model, rng):
    """Set the whole floating-point state to random values and return them."""
    values = {}
    for key, tensor in model.state_dict().items():
        values[key] = rng.normal(size=tensor.shape).astype(np.float32)
        tensor.set_value(values[key])
    return values


@pytest.mark.parametrize("decay", [0.2, 0.999])
def test_the_average_equals_numpy(decay):
    rng = np.random.default_rng(0)
    model = ToyNet(norm=True)
    expected = set_all(model, rng)
    assert any("_mean" in key for key in expected)  # batch-norm statistics are averaged too
    ema = Ema(model, decay)
    for t in range(1, 6):
        latest = set_all(model, rng)
        ema.update()
        d = min(decay, (1 + t) / (10 + t))
        expected = {key: d * expected[key] + (1 - d) * latest[key] for key in expected}
    with ema.applied():
        inside = arrays(model.state_dict())
    for key, value in expected.items():
        np.testing.assert_allclose(inside[key], value, atol=1e-6, err_msg=key)
    assert_same(model.state_dict(), latest)


def test_the_weights_are_restored_after_an_error():
    model = ToyNet()
    own = arrays(model.state_dict())
    ema = Ema(model, 0.5)
    set_all(model, np.random.default_rng(1))
    latest = arrays(model.state_dict())
    with contextlib.suppress(RuntimeError), ema.applied():
        assert_same(model.state_dict(), own)
        raise RuntimeError
    assert_same(model.state_dict(), latest)


def test_resuming_from_a_saved_average():
    rng = np.random.default_rng(2)
    model = ToyNet(norm=True)
    ema = Ema(model, 0.9)
    for _ in range(3):
        set_all(model, rng)
        ema.update()
    saved = {"steps": ema.iterations, "shadow": arrays(ema.state_dict()["shadow"])}
    latest = set_all(model, rng)
    ema.update()

    other = ToyNet(norm=True)
    resumed = Ema(other, 0.9)
    resumed.load_state_dict(saved)
    for key, tensor in other.state_dict().items():
        tensor.set_value(latest[key])
    resumed.update()
    assert_same(resumed.state_dict(), ema.state_dict())


def test_it_keeps_no_gradient_graph():
    model = ToyNet()
    ema = Ema(model, 0.9)
    sum(out.sum() for out in model(paddle.ones([1, 3, 8, 8]))).backward()
    ema.update()
    assert all(tensor.stop_gradient for tensor in ema.state_dict()["shadow"].values())


def test_frozen_keys_are_left_out_and_may_train_later():
    model = ToyNet(norm=True)
    frozen = {"body.weight", "body.bias", "norm.weight", "norm.bias", "norm._mean"}
    ema = Ema(model, 0.9, frozen)
    before = model.body.weight.numpy()
    for _ in range(50):  # 0.9 x + 0.1 x is not always x
        ema.update()
    with ema.applied():
        np.testing.assert_array_equal(model.body.weight.numpy(), before)
    saved = ema.state_dict()
    assert not saved["shadow"].keys() & frozen
    unfrozen = Ema(model, 0.9)
    unfrozen.load_state_dict(saved)
    np.testing.assert_array_equal(unfrozen.state_dict()["shadow"]["body.weight"].numpy(), before)
