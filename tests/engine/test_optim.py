"""Schedules against closed forms, optimizers against numpy twins."""

from __future__ import annotations

import inspect
import math

import numpy as np
import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from liteseg.config.component import build
from liteseg.engine import optim
from liteseg.errors import UserError
from liteseg.registry import LR_SCHEDULERS, OPTIMIZERS

ITERS, PEAK = 40, 0.02


def cosine(t, length, low=0.0):
    return low + (PEAK - low) * (1 + math.cos(math.pi * t / length)) / 2


def one_cycle(t, divide_factor=25.0, end=0.0, share=0.3):
    top, last = share * ITERS - 1, ITERS - 1
    if t <= top:
        start, stop, position = PEAK / divide_factor, PEAK, t / top
    else:
        start, stop, position = PEAK, end, (t - top) / (last - top)
    return stop + (start - stop) * (1 + math.cos(math.pi * position)) / 2


# name, arguments, rate at iteration t after the warm-up, which leaves `steps` of them
SCHEDULES = [
    ("PolynomialDecay", {}, lambda t, length: PEAK * (1 - t / length) ** 0.9),
    (
        "PolynomialDecay",
        {"power": 2.0, "end_lr": 0.001, "decay_steps": 25},
        lambda t, _: (PEAK - 0.001) * (1 - min(t, 25) / 25) ** 2 + 0.001,
    ),
    ("CosineAnnealingDecay", {}, cosine),
    ("CosineAnnealingDecay", {"T_max": 60, "eta_min": 0.004}, lambda t, _: cosine(t, 60, 0.004)),
    ("StepDecay", {"step_size": 7}, lambda t, _: PEAK * 0.1 ** (t // 7)),
    ("StepDecay", {"step_size": 5, "gamma": 0.5}, lambda t, _: PEAK / 2 ** (t // 5)),
    (
        "MultiStepDecay",
        {"milestones": [4, 5, 20], "gamma": 0.3},
        lambda t, _: PEAK * 0.3 ** sum(t >= m for m in (4, 5, 20)),
    ),
    ("ExponentialDecay", {"gamma": 0.9}, lambda t, _: PEAK * 0.9**t),
    (
        "PiecewiseDecay",
        {"boundaries": [3, 10], "values": [PEAK, 0.5, 0.25]},
        lambda t, _: PEAK if t < 3 else 0.5 if t < 10 else 0.25,
    ),
    ("OneCycleLR", {}, lambda t, _: one_cycle(t)),
    (
        "OneCycleLR",
        {"divide_factor": 10.0, "end_lr": 1e-4, "phase_pct": 0.5},
        lambda t, _: one_cycle(t, 10.0, 1e-4, 0.5),
    ),
]
WARMING = [row for row in SCHEDULES if row[0] != "OneCycleLR"]


def rates(name, **arguments):
    if name != "PiecewiseDecay":
        arguments["learning_rate"] = PEAK
    schedule = LR_SCHEDULERS[name](iters=ITERS, **arguments)
    values = []
    for _ in range(ITERS):
        values.append(schedule())
        schedule.step()  # one more than is used: the trainer steps after the last iteration as well
    return values


def test_every_schedule_is_tested():
    built_in = {n for n, made in LR_SCHEDULERS.items() if made.__module__ == optim.__name__}
    assert built_in == {name for name, *_ in SCHEDULES}


@pytest.mark.parametrize(("name", "arguments", "rate"), SCHEDULES)
def test_schedule_without_warm_up(name, arguments, rate):
    expected = [rate(t, ITERS) for t in range(ITERS)]
    np.testing.assert_allclose(rates(name, **arguments), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("start", [0.0, 1e-5])
@pytest.mark.parametrize(("name", "arguments", "rate"), WARMING)
def test_schedule_counts_from_the_end_of_the_warm_up(name, arguments, rate, start):
    warm = 6
    expected = [start + (PEAK - start) * t / warm for t in range(warm)]
    expected += [rate(t, ITERS - warm) for t in range(ITERS - warm)]
    actual = rates(name, warmup_iters=warm, warmup_start_lr=start, **arguments)
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-12)


def test_published_schedule_of_cityscapes():
    schedule = optim.polynomial_decay(160000, 0.005, warmup_iters=1000, warmup_start_lr=1e-5)
    expected = {0: 1e-5, 500: 0.002505, 1000: 0.005, 80500: 0.005 * 0.5**0.9, 160000: 0.0}
    for iteration, rate in expected.items():
        schedule.step(iteration)
        assert schedule() == pytest.approx(rate, rel=1e-9, abs=1e-12)


def test_polynomial_decay_stays_at_its_end():
    schedule = optim.polynomial_decay(10, 0.1, end_lr=0.01)
    schedule.step(25)
    assert schedule() == pytest.approx(0.01)


def test_a_schedule_resumes_from_its_state():
    first = optim.polynomial_decay(30, 0.1, warmup_iters=5, warmup_start_lr=1e-5)
    for _ in range(12):
        first.step()
    second = optim.polynomial_decay(30, 0.1, warmup_iters=5, warmup_start_lr=1e-5)
    second.set_state_dict(first.state_dict())
    for _ in range(10):
        assert second() == pytest.approx(first(), rel=1e-12)
        first.step()
        second.step()


@settings(max_examples=300, derandomize=True, database=None, deadline=None)
@given(st.data(), st.sampled_from(SCHEDULES), st.integers(1, 12))
def test_every_schedule_is_built_for_any_number_of_iterations(data, row, iters):
    """The rates are finite, or the arguments are refused, when it is built."""
    name, arguments, _ = row
    known = inspect.signature(LR_SCHEDULERS[name]).parameters
    edges = {
        key: st.sampled_from(
            [value[::-1], value[:1], []]
            if isinstance(value, list)
            else [type(value)(edge) for edge in (0, 1, -1, 0.2, value)]
        )
        for key, value in arguments.items()
    }
    edges |= {"warmup_iters": st.integers(0, 15), "phase_pct": st.sampled_from([0, 0.2, 0.5, 1])}
    spec = {key: data.draw(edge) for key, edge in edges.items() if key in known}
    if name != "PiecewiseDecay":
        spec["learning_rate"] = PEAK
    try:
        schedule = build({"type": name, **spec}, LR_SCHEDULERS, "lr_scheduler", iters=iters)
    except UserError:
        return
    for _ in range(iters):
        assert math.isfinite(schedule())
        schedule.step()


def test_piecewise_wants_one_value_more_than_boundaries():
    with pytest.raises(ValueError, match="values: 2 given for 2 boundaries; expected one more"):
        optim.piecewise_decay(10, boundaries=[3, 6], values=[0.1, 0.01])


class Momentum:
    def __init__(self, momentum=0.9, weight_decay=0.0, use_nesterov=False):
        self.momentum, self.decay, self.nesterov = momentum, weight_decay, use_nesterov
        self.velocity = {}

    def __call__(self, key, w, g, lr, t):
        g = g + self.decay * w
        v = self.velocity[key] = self.momentum * self.velocity.get(key, 0) + g
        return w - lr * (g + self.momentum * v if self.nesterov else v)


class Adam:
    decoupled = False

    def __init__(self, beta1=0.9, beta2=0.999, epsilon=1e-8, weight_decay=0.0):
        self.betas, self.epsilon, self.decay = (beta1, beta2), epsilon, weight_decay
        self.moments = {}

    def __call__(self, key, w, g, lr, t):
        if self.decoupled:
            w = w * (1 - lr * self.decay * (w.ndim > 1))
        else:
            g = g + self.decay * w
        old = self.moments.get(key, (0, 0))
        new = [b * m + (1 - b) * x for b, m, x in zip(self.betas, old, (g, g * g))]
        self.moments[key] = new
        mean, square = (m / (1 - b**t) for b, m in zip(self.betas, new))
        return w - lr * mean / (np.sqrt(square) + self.epsilon)


class AdamW(Adam):
    decoupled = True

    def __init__(self, weight_decay=0.01, **arguments):
        super().__init__(weight_decay=weight_decay, **arguments)


BUILT_IN = [name for name, made in OPTIMIZERS.items() if made.__module__ == optim.__name__]
TWINS = {"sgd": Momentum, "momentum": Momentum, "adam": Adam, "adamw": AdamW}


def follow(name, twin, grad_clip=None, **arguments):
    """Four updates of a small network; each compared with the reference."""
    paddle.seed(3)
    model = paddle.nn.Sequential(
        paddle.nn.Conv2D(3, 4, 3), paddle.nn.BatchNorm2D(4), paddle.nn.Conv2D(4, 2, 1)
    )
    schedule = optim.polynomial_decay(10, 0.1, warmup_iters=2, warmup_start_lr=0.02)
    if grad_clip is not None:
        arguments["grad_clip"] = grad_clip
    optimizer = OPTIMIZERS[name](parameters=model.parameters(), learning_rate=schedule, **arguments)
    trained = {k: p for k, p in model.named_parameters() if not p.stop_gradient}
    assert len(trained) == 6
    expected = {k: p.numpy().astype(np.float64) for k, p in trained.items()}
    for t in range(1, 5):
        x = paddle.to_tensor(np.random.RandomState(t).randn(2, 3, 6, 6).astype("float32"))
        (model(x) ** 2).sum().backward()
        gradients = {k: p.grad.numpy().astype(np.float64) for k, p in trained.items()}
        if grad_clip is not None:
            norm = math.sqrt(sum((g**2).sum() for g in gradients.values()))
            assert norm > grad_clip
            gradients = {k: g * grad_clip / norm for k, g in gradients.items()}
        rate = schedule()
        optimizer.step()
        optimizer.clear_grad()
        schedule.step()
        for key, parameter in trained.items():
            expected[key] = twin(key, expected[key], gradients[key], rate, t)
            np.testing.assert_allclose(parameter.numpy(), expected[key], rtol=1e-4, atol=2e-6)
            expected[key] = parameter.numpy().astype(np.float64)  # no accumulated drift


@pytest.mark.parametrize("name", BUILT_IN)
@pytest.mark.parametrize("arguments", [{}, {"weight_decay": 0.05}])
def test_every_optimizer_steps_as_its_twin(name, arguments):
    follow(name, TWINS[name.lower()](**arguments), **arguments)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("SGD", {"momentum": 0.0}),
        ("SGD", {"momentum": 0.5, "use_nesterov": True, "weight_decay": 0.01}),
        ("Adam", {"beta1": 0.5, "beta2": 0.9, "epsilon": 1e-3}),
        ("AdamW", {"beta1": 0.5, "beta2": 0.9, "epsilon": 1e-3, "weight_decay": 0.3}),
    ],
)
def test_arguments_reach_the_optimizer(name, arguments):
    follow(name, TWINS[name.lower()](**arguments), **arguments)


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_gradients_are_clipped_together_before_the_decay(name):
    decay = {"weight_decay": 0.05}
    follow(name, TWINS[name.lower()](**decay), grad_clip=0.01, **decay)


def test_published_names_are_there():
    assert {"sgd", "momentum", "adam", "adamw", "SGD", "Adam", "AdamW"} <= set(OPTIMIZERS)


def test_a_training_within_the_warm_up_is_the_beginning_of_a_longer_one():
    short = optim.polynomial_decay(5, 0.1, warmup_iters=20, warmup_start_lr=0.01)
    long = optim.polynomial_decay(50, 0.1, warmup_iters=20, warmup_start_lr=0.01)
    for _ in range(5):
        assert short.get_lr() == long.get_lr()
        short.step()
        long.step()


@pytest.mark.parametrize("clip", [None, 0.1])
def test_one_kernel_for_all_parameters_changes_no_bit(clip):
    """Also where the parameters that have a gradient change, and after a resume."""
    rng = np.random.default_rng(3)
    start = [rng.normal(size=(4, 3)).astype("float32") for _ in range(3)]
    gradients = [[rng.normal(size=(4, 3)).astype("float32") for _ in start] for _ in range(6)]
    options = {"weight_decay": 5e-4, "use_nesterov": True, "grad_clip": optim._clip(clip)}

    def optimizers(values):
        weights = [paddle.create_parameter([4, 3], "float32") for _ in values]
        for weight, value in zip(weights, values):
            weight.set_value(value)
        return weights, OPTIMIZERS["SGD"](
            weights, 0.1, weight_decay=5e-4, use_nesterov=True, grad_clip=clip
        )

    def twin(values):
        weights, _ = optimizers(values)
        return weights, paddle.optimizer.Momentum(0.1, 0.9, weights, **options)

    def step(weights, optimizer, iteration):
        with_gradient = {3: (0, 2), 4: (1, 2)}.get(iteration, (0, 1, 2))
        for place in with_gradient:
            (weights[place] * paddle.to_tensor(gradients[iteration][place])).sum().backward()
        optimizer.step()
        optimizer.clear_grad(set_to_zero=False)

    found, expected = optimizers(start), twin(start)
    assert found[1]._use_multi_tensor
    for iteration in range(6):
        step(*found, iteration)
        step(*expected, iteration)
        for weight, other in zip(found[0], expected[0]):
            np.testing.assert_array_equal(weight.numpy(), other.numpy())
    state = found[1].state_dict()
    resumed = optimizers([weight.numpy() for weight in found[0]])
    names = dict(zip((w.name for w in found[0]), (w.name for w in resumed[0])))
    resumed[1].set_state_dict(
        {
            names[key.partition("_velocity")[0]] + "_velocity_0": state[key]
            for key in state
            if "velocity" in key
        }
    )
    for weights, optimizer in (resumed, expected):
        step(weights, optimizer, 5)
    for weight, other in zip(resumed[0], expected[0]):
        np.testing.assert_array_equal(weight.numpy(), other.numpy())
