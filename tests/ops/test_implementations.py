"""Models and losses with CPU implementations against those of a GPU (`portable_operators`)."""

from __future__ import annotations

import contextlib
import copy

import numpy as np
import paddle
import pytest
from golden_rule import fill, image, label
from paddle import nn

from liteseg.config.test_config import TestConfig
from liteseg.engine.inference import predict_labels
from liteseg.losses import CrossEntropyLoss, OhemCrossEntropyLoss
from liteseg.models import STDC1, PPLiteSeg
from liteseg.ops import onednn
from liteseg.ops.conv import Conv2D
from liteseg.ops.device import portable_operators

SHAPE, CLASSES = (2, 64, 96), 7


def network():
    """All heads as in training, batch norm as in evaluation.

    The statistics of a small batch would amplify rounding a thousandfold. (The golden test of
    training runs with and without oneDNN, too.)
    """
    model = PPLiteSeg(CLASSES, STDC1(), arm_out_chs=[32, 64, 128], seg_head_inter_chs=[32, 64, 64])
    fill(model).eval()
    model.training = True
    return model


def batch(seed=1):
    return image(seed, (2, 3, *SHAPE[1:])), paddle.to_tensor(label(seed, SHAPE, CLASSES))


def gradients(model):
    return {
        name: parameter.grad.numpy().copy()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


def iterate(model, criterion, optimizer=None, seed=1):
    """One training iteration: the loss of each head, and the gradients."""
    images, target = batch(seed)
    losses = [criterion(logits, target) for logits in model(images)]
    sum(losses).backward()
    found = gradients(model)
    if optimizer:
        optimizer.step()
    model.clear_gradients()
    return [float(loss) for loss in losses], found


def weights(model):
    return {key: value.numpy().copy() for key, value in model.state_dict().items()}


def assert_close(found, expected, tolerance=1e-5):
    """Within `tolerance` of the largest expected value of all."""
    assert found.keys() == expected.keys()
    atol = tolerance * max(np.abs(value).max() for value in expected.values())
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, rtol=0, atol=atol, err_msg=key)


@pytest.fixture
def calls(monkeypatch):
    """The weights of all convolutions that oneDNN computed."""
    found, original = [], onednn.conv2d

    def conv2d(x, weight, *arguments):
        found.append(weight)
        return original(x, weight, *arguments)

    monkeypatch.setattr(onednn, "conv2d", conv2d)
    return found


@pytest.mark.parametrize(
    "criterion",
    [
        OhemCrossEntropyLoss(min_kept=500),
        CrossEntropyLoss(weight=[0.5, 1, 2, 1, 1, 3, 1], logit_shift=0.5),
    ],
    ids=lambda loss: type(loss).__name__,
)
def test_training_gives_the_same_results(criterion, calls):
    results, count = [], []
    for context in (contextlib.nullcontext(), portable_operators()):
        with context:
            results.append(iterate(network(), criterion))
        count.append(len(calls))
    assert count[0] == count[1]  # no call in the second case
    assert count[0] > 30 or not onednn.available()
    (losses, found), (expected_losses, expected) = results
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-6)
    assert_close(found, expected)


@pytest.mark.parametrize(
    "test",
    [
        TestConfig(),
        TestConfig(aug_eval=True, scales=(0.5, 1.0), flip_horizontal=True),
        TestConfig(is_slide=True, crop_size=(64, 48), stride=(32, 24)),
    ],
    ids=["whole", "views", "windows"],
)
def test_evaluation_gives_the_same_labels(test):
    model = network()
    model.training = False
    trans_info = [("resize", (80, 130)), ("padding", (60, 90))]
    labels = predict_labels(model, batch()[0], test, trans_info)
    with portable_operators():
        np.testing.assert_array_equal(labels, predict_labels(model, batch()[0], test, trans_info))
    assert labels.shape == (2, 80, 130)
    assert len(np.unique(labels)) > 1


@pytest.mark.skipif(not onednn.available(), reason="needs Paddle 3.2")
def test_a_custom_loop_uses_onednn(calls):
    """Nothing but the public classes, without a call that sets anything up."""
    model = network()
    optimizer = paddle.optimizer.SGD(0.01, parameters=model.parameters())
    iterate(model, OhemCrossEntropyLoss(min_kept=500), optimizer)
    used = {id(weight) for weight in calls}
    for layer in model.sublayers():
        if isinstance(layer, nn.Conv2D):
            assert type(layer) is Conv2D
            channels = min(layer._in_channels, layer._out_channels)
            assert (id(layer.weight) in used) == (channels >= 16 and layer._kernel_size[0] > 1)


def test_a_copied_model_is_independent():
    criterion = OhemCrossEntropyLoss(min_kept=500)
    model = network()
    model(batch()[0])  # copied after its first call
    twin = copy.deepcopy(model)
    before = weights(model)
    losses, found = iterate(model, criterion)

    optimizer = paddle.optimizer.SGD(0.1, parameters=twin.parameters())
    twin_losses, twin_found = iterate(twin, criterion, optimizer)
    np.testing.assert_allclose(twin_losses, losses, rtol=1e-6)
    assert_close(twin_found, found)
    assert_close(weights(model), before, tolerance=0)
    trained = weights(twin)
    assert all((trained[key] != before[key]).any() for key in found if np.any(found[key]))

    other_losses, other_found = iterate(model, criterion)  # of the model that was not trained
    np.testing.assert_allclose(other_losses, losses, rtol=1e-6)
    assert_close(other_found, found)
    assert iterate(twin, criterion)[0] != pytest.approx(losses, rel=1e-3)


def test_two_models_between_forward_and_backward_pass():
    """Models share graphs; each keeps the values of its own forward pass."""
    criterion = CrossEntropyLoss()
    models = [network(), network()]
    with paddle.no_grad():
        for parameter in models[1].parameters():
            parameter.set_value(parameter * 1.1)
    expected = [iterate(model, criterion, seed=i)[1] for i, model in enumerate(models)]
    totals = []
    for i, model in enumerate(models):
        images, target = batch(i)
        totals.append(sum(criterion(logits, target) for logits in model(images)))
    for total in totals:
        total.backward()
    for model, gradient in zip(models, expected):
        assert_close(gradients(model), gradient)


def test_conversion_to_sync_batch_norm_keeps_keys_and_convolutions():
    model = network()
    before = weights(model)
    model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    assert_close(weights(model), before, tolerance=0)
    layers = model.sublayers()
    assert not any(type(layer) is nn.BatchNorm2D for layer in layers)
    assert sum(type(layer) is Conv2D for layer in layers) == 51


def test_other_types_and_graphs_use_paddle(calls):
    layer = Conv2D(16, 16, 3, padding=1)
    x = image(1, (1, 16, 6, 7))
    expected = layer(x).numpy()
    del calls[:]
    graph = paddle.jit.to_static(layer, full_graph=True)
    np.testing.assert_allclose(graph(x).numpy(), expected, atol=1e-5)
    double = Conv2D(16, 16, 3, padding=1)
    double.to(dtype="float64")
    assert double(x.astype("float64")).dtype == paddle.float64
    assert calls == []
