"""Losses against published values and pixel-by-pixel numpy twins, and properties of all."""

from __future__ import annotations

import json

import loss_twins as twins
import numpy as np
import paddle
import pytest
from golden_rule import image, label

from liteseg import losses
from liteseg.registry import LOSSES

WEIGHT = [0.5, 1, 1.5, 0.8, 1.2, 1, 2]
SHAPE, CLASSES = (2, 24, 40), 7
# Arguments of the components; one without an entry is built with its defaults.
ARGUMENTS = {
    "BootstrappedCrossEntropyLoss": lambda **k: {"min_K": 40, "loss_th": 0.5, **k},
    "MixedLoss": lambda **k: {
        "losses": [losses.CrossEntropyLoss(**k), losses.LovaszSoftmaxLoss(**k)],
        "coef": [0.8, 0.2],
    },
}
REGISTERED = [name for name, made in LOSSES.items() if made.__module__.startswith("liteseg.")]


def make(name, **arguments):
    return LOSSES[name](**ARGUMENTS.get(name, dict)(**arguments))


def batch():
    """The logits and labels of the published values."""
    target = label(36, SHAPE, CLASSES)
    logits = image(35, (2, CLASSES, *SHAPE[1:])).numpy()
    easy = np.random.RandomState(33).uniform(size=SHAPE) < 0.8
    n, i, j = np.nonzero(easy & (target != 255))
    logits[n, target[n, i, j], i, j] += 4
    return logits, target


def run(loss, logits, target):
    """Value and gradient."""
    x = paddle.to_tensor(np.asarray(logits, np.float32), stop_gradient=False)
    value = loss(x, paddle.to_tensor(target))
    assert value.ndim == 0
    value.backward()
    return float(value), x.grad.numpy()


def agree(loss, twin, logits, target):
    """Value as the twin's; gradient as the twin's central difference in a few directions."""
    value, gradient = run(loss, logits, target)
    logits = logits.astype(np.float64)
    assert value == pytest.approx(twin(logits, target), rel=2e-5)
    for seed in range(3):
        direction = np.random.RandomState(seed).choice([-1e-6, 1e-6], logits.shape)
        slope = (twin(logits + direction, target) - twin(logits - direction, target)) / 2e-6
        assert (gradient * direction).sum() / 1e-6 == pytest.approx(slope, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "loss"),
    {
        "cross_entropy": losses.CrossEntropyLoss(),
        "cross_entropy_weighted": losses.CrossEntropyLoss(weight=WEIGHT),
        "ohem_kept_small": losses.OhemCrossEntropyLoss(thresh=0.7, min_kept=100),
        "ohem_kept_large": losses.OhemCrossEntropyLoss(thresh=0.7, min_kept=1000),
        "ohem_kept_all": losses.OhemCrossEntropyLoss(thresh=0.7, min_kept=100000),
        "ohem_weighted": losses.OhemCrossEntropyLoss(thresh=0.7, min_kept=500, weight=WEIGHT),
        "dice": losses.DiceLoss(),
        "lovasz_softmax": losses.LovaszSoftmaxLoss(),
    }.items(),
)
def test_published_value_and_gradient(name, loss, golden):
    expected = json.loads((golden / "losses.json").read_text())
    value, gradient = run(loss, *batch())
    norm = np.linalg.norm(gradient.astype(np.float64))
    np.testing.assert_allclose([value, norm], expected[name], rtol=2e-5)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"weight": WEIGHT},
        {"avg_non_ignore": False},
        {"ignore_index": 3},
        {"top_k_percent_pixels": 0.2},
        {"top_k_percent_pixels": 0.95, "weight": WEIGHT},
        {"top_k_percent_pixels": 0.5, "avg_non_ignore": False},
        {"top_k_percent_pixels": 1e-9},
        {"weight": WEIGHT, "logit_shift": 0.6},
        {"weight": WEIGHT, "logit_shift": -1.0, "top_k_percent_pixels": 0.5},
    ],
)
def test_cross_entropy(arguments):
    logits, target = batch()
    if "ignore_index" in arguments:
        target[target == 255] = 3
    loss = losses.CrossEntropyLoss(**arguments)
    agree(loss, lambda x, y: twins.cross_entropy(x, y, **arguments), logits, target)


@pytest.mark.parametrize(
    "arguments",
    [
        {"min_kept": 100},
        {"min_kept": 1400},
        {"min_kept": 1400, "weight": WEIGHT},
        {"min_kept": 100, "thresh": 0.05},
        {"min_kept": 1, "thresh": 0.0},
        {"min_kept": 0},
        {"min_kept": 2 * 24 * 40 + 1},
        {"min_kept_ratio": 0.0},
        {"min_kept_ratio": 0.5},
        {"min_kept_ratio": 1.0, "min_kept": 3},
    ],
)
def test_ohem(arguments):
    logits, target = batch()
    loss = losses.OhemCrossEntropyLoss(**arguments)
    agree(loss, lambda x, y: twins.ohem(x, y, **arguments), logits, target)


def test_ohem_keeps_as_many_as_valid_pixels_or_mines():
    logits, target = batch()
    valid = int((target != 255).sum())
    for min_kept in (valid - 1, valid, valid + 1):
        _, gradient = run(losses.OhemCrossEntropyLoss(min_kept=min_kept), logits, target)
        kept = int((np.abs(gradient).sum(1) > 0).sum())
        # One below the count, the threshold is the last but one probability, itself not below it.
        assert kept == (valid if min_kept >= valid else valid - 2)


@pytest.mark.parametrize("min_kept", [1, 9, 10, 11, 25, 39])
def test_ohem_leaves_out_pixels_that_tie_with_the_threshold(min_kept):
    values = np.random.RandomState(2).permutation(np.repeat([1.0, 2.0, 3.0, 4.0], 10))
    logits = np.zeros((1, 3, 5, 8), np.float32)
    logits[0, 0] = values.reshape(5, 8)
    target = np.zeros((1, 5, 8), np.int64)
    loss = losses.OhemCrossEntropyLoss(thresh=0.5, min_kept=min_kept)
    value, gradient = run(loss, logits, target)
    # exp(1) / (exp(1) + 2) is 0.576: none is below 0.5, so the rank alone decides.
    threshold = np.sort(values)[min_kept - 1]
    np.testing.assert_array_equal(np.abs(gradient[0]).sum(0) > 0, logits[0, 0] < threshold)
    assert value == pytest.approx(twins.ohem(logits, target, 0.5, min_kept), rel=2e-5)


@pytest.mark.parametrize(
    "arguments",
    [
        {"min_K": 100, "loss_th": 0.3},
        {"min_K": 900, "loss_th": 0.3},
        {"min_K": 100, "loss_th": 0.3, "weight": WEIGHT},
        {"min_K": 10**6, "loss_th": 0.3},
        {"min_K": 1, "loss_th": 100.0},
    ],
)
def test_bootstrapped(arguments):
    logits, target = batch()
    loss = losses.BootstrappedCrossEntropyLoss(**arguments)
    agree(loss, lambda x, y: twins.bootstrapped(x, y, **arguments), logits, target)


def test_bootstrapped_decides_for_each_image():
    """The first image's hard pixels do not make up for an easy second one."""
    logits, target = batch()
    n, i, j = np.nonzero(target[1:] != 255)
    logits[1:][n, target[1:][n, i, j], i, j] += 20
    loss = losses.BootstrappedCrossEntropyLoss(min_K=50, loss_th=0.3)
    both, _ = run(loss, logits, target)
    each = [run(loss, logits[k : k + 1], target[k : k + 1])[0] for k in range(2)]
    assert each[0] > 0.3 > each[1]
    assert both == pytest.approx(np.mean(each), rel=1e-6)


@pytest.mark.parametrize("arguments", [{}, {"weight": WEIGHT}, {"smooth": 0.1}])
def test_dice(arguments):
    logits, target = batch()
    target[0][target[0] == 2] = 255  # a class that one image lacks
    loss = losses.DiceLoss(**arguments)
    agree(loss, lambda x, y: twins.dice(x, y, **arguments), logits, target)


@pytest.mark.parametrize("classes", ["present", "all", [1, 4], [2]])
def test_lovasz_is_the_choquet_integral_of_the_jaccard_loss(classes):
    logits, target = image(5, (2, 5, 4, 6)).numpy(), label(6, (2, 4, 6), 5)
    target[target == 2] = 255  # an absent class
    loss = losses.LovaszSoftmaxLoss(classes=classes)
    agree(loss, lambda x, y: twins.lovasz(x, y, classes), logits, target)


@pytest.mark.parametrize("seed", range(4))
def test_lovasz_of_hard_predictions_is_one_minus_the_mean_jaccard(seed):
    r = np.random.RandomState(seed)
    target, guess = label(seed, (2, 6, 7), 4), r.randint(0, 4, (2, 6, 7))
    guess = np.where((r.uniform(size=guess.shape) < 0.5) & (target != 255), target, guess)
    logits = np.where(guess[:, None] == np.arange(4)[:, None, None], 60.0, -60.0)
    valid, jaccards = target != 255, []
    for c in np.unique(target[valid]):
        both = ((guess == c) & (target == c) & valid).sum()
        jaccards.append(both / (((guess == c) | (target == c)) & valid).sum())
    value, _ = run(losses.LovaszSoftmaxLoss(), logits, target)
    assert value == pytest.approx(1 - np.mean(jaccards), rel=1e-5)


def test_mixed():
    logits, target = batch()
    parts = [losses.OhemCrossEntropyLoss(min_kept=500), losses.DiceLoss()]
    value, gradient = run(losses.MixedLoss(parts, [0.7, 2]), logits, target)
    (ohem, ohem_gradient), (dice, dice_gradient) = (run(part, logits, target) for part in parts)
    assert value == pytest.approx(0.7 * ohem + 2 * dice, rel=1e-6)
    np.testing.assert_allclose(gradient, 0.7 * ohem_gradient + 2 * dice_gradient, atol=1e-9)


@pytest.mark.parametrize("name", REGISTERED)
def test_every_loss_is_finite_and_ignores_ignored_pixels(name):
    logits, target = batch()
    value, gradient = run(make(name), logits, target)
    ignored = np.broadcast_to((target == 255)[:, None], logits.shape)
    assert np.isfinite(value)
    assert value > 0
    assert np.isfinite(gradient).all()
    assert (gradient[~ignored] != 0).any()
    assert (gradient[ignored] == 0).all()
    other, _ = run(make(name), np.where(ignored, 9 * logits[::-1], logits), target)
    assert other == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize("name", REGISTERED)
def test_every_loss_of_a_batch_without_valid_pixels_is_zero(name):
    logits, target = batch()
    value, gradient = run(make(name), logits, np.full_like(target, 255))
    assert value == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(gradient, 0, atol=1e-6)


@pytest.mark.parametrize("name", REGISTERED)
def test_every_loss_ignores_a_class_as_it_ignores_255(name):
    logits, target = batch()
    expected, expected_gradient = run(make(name), logits, np.where(target == 0, 255, target))
    relabeled = np.where(target == 255, 0, target)
    value, gradient = run(make(name, ignore_index=0), logits, relabeled)
    assert value == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("name", REGISTERED)
def test_every_loss_is_finite_for_extreme_logits(name):
    target = label(3, (1, 6, 8), 4)
    for logits in (np.zeros((1, 4, 6, 8)), 1e4 * image(4, (1, 4, 6, 8)).numpy()):
        value, gradient = run(make(name), logits, target)
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("CrossEntropyLoss", {"top_k_percent_pixels": 0}, r"top_k_percent_pixels: 0 .*\(0, 1\]"),
        ("CrossEntropyLoss", {"top_k_percent_pixels": 1.1}, "top_k_percent_pixels: 1.1"),
        ("CrossEntropyLoss", {"weight": [1, -1]}, r"weight: \[1, -1\] must be finite"),
        ("CrossEntropyLoss", {"logit_shift": 0.5}, "logit_shift: needs a weight"),
        ("CrossEntropyLoss", {"logit_shift": 0.5, "weight": [1, 0]}, "logit_shift: needs a weight"),
        ("DiceLoss", {"weight": [1, float("nan")]}, "weight: .* must be finite"),
        ("OhemCrossEntropyLoss", {"weight": [float("inf")]}, "weight: .* must be finite"),
        ("OhemCrossEntropyLoss", {"thresh": 1.5}, "thresh: 1.5 is not a probability"),
        ("OhemCrossEntropyLoss", {"thresh": -0.1}, "thresh: -0.1 is not a probability"),
        ("OhemCrossEntropyLoss", {"min_kept": -1}, "min_kept: -1 is not a number of pixels"),
        ("OhemCrossEntropyLoss", {"min_kept_ratio": 2}, "min_kept_ratio: 2 is not a share"),
        ("BootstrappedCrossEntropyLoss", {"min_K": 0, "loss_th": 1}, "min_K: 0 is not a positive"),
        ("LovaszSoftmaxLoss", {"classes": "some"}, "classes: 'some' is not 'present', 'all'"),
        ("MixedLoss", {"losses": [losses.DiceLoss()], "coef": [1, 2]}, "coef: 2 factors for 1 "),
    ],
)
def test_constructors_refuse(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        LOSSES[name](**arguments)


@pytest.mark.parametrize(
    "name", ["CrossEntropyLoss", "OhemCrossEntropyLoss", "BootstrappedCrossEntropyLoss", "DiceLoss"]
)
def test_one_weight_per_class_is_required(name):
    for count in (1, CLASSES + 1):
        with pytest.raises(ValueError, match=f"weight: {count} class weights for 7 classes"):
            run(make(name, weight=[1.0] * count), *batch())


@pytest.mark.parametrize("name", REGISTERED)
def test_every_loss_accepts_the_labels_of_a_dataset(name):
    logits, target = batch()
    loss, logits = make(name), paddle.to_tensor(logits)
    expected = float(loss(logits, paddle.to_tensor(target.astype(np.int64))))
    for dtype in (np.uint8, np.int32):
        assert float(loss(logits, paddle.to_tensor(target.astype(dtype)))) == expected
