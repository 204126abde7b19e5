"""The STDC encoders against a numpy twin and their own arithmetic."""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import numpy_twin as twin
import paddle
import pytest
from golden_rule import fill, image

from liteseg.models import STDC1, STDC2
from liteseg.models.backbones.stdc import ShortTermDenseConcat
from liteseg.utils.weights.load import save_pdparams

MODULES = {STDC1: (2, 2, 2), STDC2: (4, 5, 3)}


@cache
def filled(encoder):
    """One model for all tests that do not change it."""
    return evaluating(encoder())


def evaluating(layer):
    fill(layer).eval()  # `eval` returns nothing on Paddle 2.6
    return layer


def close(actual, expected, tolerance=1e-4):
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= tolerance * np.abs(expected).max()


@pytest.mark.parametrize("size", [(8, 12), (9, 13), (7, 6)])
@pytest.mark.parametrize("stride", [1, 2])
def test_module_is_four_shrinking_convolutions_concatenated(stride, size):
    layer = evaluating(ShortTermDenseConcat(16, 32, stride))
    x = image(3, (2, 16, *size))
    actual = layer(x).numpy()
    assert actual.shape == (2, 32, *(-(-n // stride) for n in size))
    close(actual, twin.stdc_module(twin.state_of(layer), "", x.numpy(), stride))


@pytest.mark.parametrize("encoder", MODULES)
def test_whole_encoder(encoder):
    model = filled(encoder)
    x = image(4, (1, 3, 37, 51))
    expected = twin.stdc(twin.state_of(model), "", x.numpy(), MODULES[encoder])
    actual = model(x)
    assert len(actual) == len(expected) == len(model.feat_channels)
    for feature, other in zip(actual, expected):
        close(feature.numpy(), other)


@pytest.mark.parametrize("encoder", MODULES)
@pytest.mark.parametrize("size", [(1, 1), (33, 65), (64, 32)])
def test_sizes_are_halved_and_rounded_up(encoder, size):
    model = filled(encoder)
    expected, (h, w) = [], size
    for channels in (32, 64, 256, 512, 1024):
        h, w = (h + 1) // 2, (w + 1) // 2
        expected.append([1, channels, h, w])
    assert [list(f.shape) for f in model(image(1, (1, 3, *size)))] == expected


def parameters(modules):
    """Weights of the convolutions and four values per channel of each batch norm."""

    def block(cin, cout, k):
        return cin * cout * k * k + 4 * cout

    total, cin = block(3, 32, 3) + block(32, 64, 3), 64
    for count, cout in zip(modules, (256, 512, 1024)):
        for i in range(count):
            total += block(cin, cout // 2, 1) + block(cout // 2, cout // 4, 3)
            total += block(cout // 4, cout // 8, 3) + block(cout // 8, cout // 8, 3)
            total += block(1, cout // 2, 3) if i == 0 else 0  # depthwise
            cin = cout
    return total


@pytest.mark.parametrize(("encoder", "name"), [(STDC1, "T"), (STDC2, "B")])
def test_published_keys_and_parameter_count(encoder, name, golden):
    published = json.loads((golden / f"state_dict_{name}.json").read_text())
    published = {k[9:]: s for k, s in published.items() if k.startswith("backbone.")}
    state = filled(encoder).state_dict()
    assert {k: list(v.shape) for k, v in state.items()} == published
    assert list(state) == list(published)
    assert sum(v.numpy().size for v in state.values()) == parameters(MODULES[encoder])


def test_published_initialization_is_tiny_and_kaiming_keeps_the_variance():
    def deviation_ratios(init, expected):
        paddle.seed(1)
        return [
            float(layer.weight.numpy().std()) / expected(layer.weight.numpy()[0].size)
            for layer in STDC1(init=init).sublayers()
            if isinstance(layer, paddle.nn.Conv2D) and layer.weight.numpy().size > 1000
        ]

    published = deviation_ratios("published", lambda fan_in: 0.001)
    kaiming = deviation_ratios("kaiming", lambda fan_in: (2 / fan_in) ** 0.5)
    assert len(published) == len(kaiming) > 20
    np.testing.assert_allclose(published, 1, atol=0.1)
    np.testing.assert_allclose(kaiming, 1, atol=0.1)


def test_pretrained_encoder_is_loaded(tmp_path):
    source = filled(STDC1)
    save_pdparams(source.state_dict(), tmp_path / "encoder.pdparams")
    loaded = STDC1(pretrained=str(tmp_path / "encoder.pdparams")).state_dict()
    for key, value in source.state_dict().items():
        np.testing.assert_array_equal(loaded[key].numpy(), value.numpy())


def test_unknown_initialization_is_refused():
    with pytest.raises(ValueError, match="init: 'xavier' is not one of published, kaiming"):
        STDC1(init="xavier")
