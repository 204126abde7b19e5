"""The exported graph against its network in eager mode."""

from __future__ import annotations

import golden_rule
import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from paddle import nn

from liteseg.config.test_config import TestConfig
from liteseg.deploy.export import save_paddle
from liteseg.deploy.graph import DeployGraph, folded, with_exact_pooling
from liteseg.engine.inference import predict_scores
from liteseg.models import STDC1, PPLiteSeg
from liteseg.transforms import Normalize


def network(arm_type="UAFM_SpAtten"):
    model = PPLiteSeg(
        7,
        STDC1(),
        arm_type=arm_type,
        arm_out_chs=[32, 64, 128],
        seg_head_inter_chs=[32, 64, 64],
    )
    model.eval()
    return golden_rule.fill(model)


@pytest.fixture(scope="module")
def model():
    return network()


def pixels(h, w):
    return np.random.default_rng(0).integers(0, 256, (2, h, w, 3), dtype=np.uint8)


def close(found, expected):
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("arm_type", ["UAFM", "UAFM_SpAtten", "UAFM_ChAtten"])
def test_folding_changes_only_rounding(arm_type):
    model = network(arm_type)
    image = golden_rule.image(3, (1, 3, 65, 97))
    with paddle.no_grad():
        before = model(image)[0].numpy()
        without = folded(model)
        close(without(image)[0].numpy(), before)
        np.testing.assert_array_equal(model(image)[0].numpy(), before)  # folding makes a copy
    norms = [name for name, layer in without.named_sublayers() if isinstance(layer, nn.BatchNorm2D)]
    # heads that run only in training
    assert {name.partition(".conv")[0] for name in norms} == {"seg_heads.1", "seg_heads.2"}


@pytest.mark.parametrize("size", [(15, 19), (4, 4), (3, 2), (16, 32)])
@pytest.mark.parametrize("bins", [1, 4, (2, 3)])
def test_pooling_by_matrix_products(size, bins):
    x = golden_rule.image(1, (2, 5, *size))
    pool = with_exact_pooling(nn.Sequential(nn.AdaptiveAvgPool2D(bins)))
    assert not isinstance(pool[0], nn.AdaptiveAvgPool2D)
    expected = F.adaptive_avg_pool2d(x, bins).numpy()
    np.testing.assert_allclose(pool(x).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("multiple", [None, 32])
@pytest.mark.parametrize("scale", [1.0, 0.75])
def test_scores_are_those_of_evaluation(model, scale, multiple):
    images, normalize = pixels(70, 101), Normalize([0.4, 0.5, 0.6], [0.2, 0.25, 0.3])
    test = TestConfig(aug_eval=True, scales=(scale,), pad_multiple=multiple)
    expected = predict_scores(model, normalize.batch(paddle.to_tensor(images)), test).numpy()
    graphs = {
        kind: DeployGraph(model, normalize.mean, normalize.std, scale, kind, multiple)
        for kind in ("logits", "softmax", "label")
    }
    with paddle.no_grad():
        found = {k: graph(paddle.to_tensor(images))[0].numpy() for k, graph in graphs.items()}
    close(found["logits"], expected)
    close(found["softmax"], F.softmax(paddle.to_tensor(expected), axis=1).numpy())
    assert found["label"].dtype == np.uint8
    assert (found["label"] == expected.argmax(axis=1)).mean() > 0.999


def test_a_network_without_coarse_logits_returns_full_ones():
    class Plain(nn.Layer):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2D(3, 4, 3, padding=1)

        def forward(self, x):
            return [self.conv(x)]

    graph = DeployGraph(Plain(), [0.5] * 3, [0.5] * 3, 1.0, "logits")
    with paddle.no_grad():
        logits, coarse = graph(paddle.to_tensor(pixels(20, 24)))
    np.testing.assert_allclose(logits.numpy(), coarse.numpy(), rtol=1e-6)
    assert logits.shape == [2, 4, 20, 24]


def test_export_right_after_training(tmp_path):
    """The trained model needs no preparation, and continues training afterwards."""
    model = network()
    model.train()
    x = golden_rule.image(5, (2, 3, 64, 96))
    sum(logits.mean() for logits in model(x)).backward()
    model.clear_gradients()
    model.eval()
    images = pixels(33, 50)
    graph = DeployGraph(model, [0.5] * 3, [0.5] * 3, 1.0, "logits")
    saved = save_paddle(graph, None, tmp_path)
    normalized = Normalize().batch(paddle.to_tensor(images))
    with paddle.no_grad():
        expected = model(normalized)[0].numpy()
    exported = paddle.jit.load(str(saved.with_suffix("")))
    close(exported(paddle.to_tensor(images))[0].numpy(), expected)
    model.train()
    sum(logits.mean() for logits in model(x)).backward()
    assert model.seg_heads[0].conv_out.weight.grad is not None
