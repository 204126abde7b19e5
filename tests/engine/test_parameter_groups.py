"""Parameter groups against Paddle's own, and layers that are frozen."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import paddle
import pytest
from toy_training import At, ToyNet, arrays, assert_same, make_trainer

from liteseg.engine.checkpoint import Checkpointer
from liteseg.engine.hooks import Checkpoint
from liteseg.engine.parameter_groups import freeze, parameter_groups
from liteseg.errors import UserError
from liteseg.registry import OPTIMIZERS
from liteseg.tasks.launch import launch
from liteseg.utils.runtime import gathered_objects

PADDLE = {
    "SGD": (paddle.optimizer.Momentum, {"momentum": 0.9, "use_nesterov": True}),
    "Adam": (paddle.optimizer.Adam, {"beta1": 0.8}),
    "AdamW": (paddle.optimizer.AdamW, {"beta1": 0.8}),
}
CUSTOM = [
    {"name": "norm", "weight_decay_mult": 0.0},
    {"name": "heads.1", "lr_mult": 0.1, "weight_decay_mult": 2.0},
    {"name": "body", "lr_mult": 0.0},
]


def paddleseg_groups(model, custom, decay):
    """The dictionaries that PaddleSeg gives to Paddle's optimizers for `custom_cfg`."""
    groups = [{"params": [], "learning_rate": item.get("lr_mult", 1.0)} for item in custom]
    for group, item in zip(groups, custom):
        if "weight_decay_mult" in item:
            group["weight_decay"] = decay * item["weight_decay_mult"]
    groups.append({"params": []})
    for name, parameter in model.named_parameters():
        if not parameter.stop_gradient:
            matches = [i for i, item in enumerate(custom) if item["name"] in name]
            groups[matches[0] if matches else -1]["params"].append(parameter)
    return groups


def updated(model, optimizer):
    for iteration in range(4):
        x = np.random.RandomState(iteration).randn(2, 3, 6, 6).astype("float32")
        model.train()
        sum((out**2).sum() for out in model(paddle.to_tensor(x))).backward()
        optimizer.step()
        optimizer.clear_grad()
    return arrays(model.state_dict())


def toy():
    paddle.seed(4)
    return ToyNet(norm=True)


def trained(model):
    return {name: p for name, p in model.named_parameters() if not p.stop_gradient}


@pytest.mark.parametrize("name", PADDLE)
@pytest.mark.parametrize(
    ("given", "custom"),
    [
        ({"custom_cfg": CUSTOM}, CUSTOM),
        ({"custom_cfg": [{"name": "b*y.?eight", "lr_mult": 0.5}]}, None),
        ({}, []),
    ],
)
def test_groups_are_those_of_paddleseg(name, given, custom):
    kind, options = PADDLE[name]
    model = toy()
    parameters = trained(model)
    found = updated(
        model,
        OPTIMIZERS[name](
            parameters=list(parameters.values()),
            names=list(parameters),
            learning_rate=0.01,
            weight_decay=0.1,
            **options,
            **given,
        ),
    )
    twin = toy()
    if custom is None:  # a pattern, which PaddleSeg does not have
        custom = [{"name": "body.weight", "lr_mult": 0.5}]
    if name == "AdamW":  # without decay of biases and batch norm
        matrices = {p.name for p in twin.parameters() if p.ndim > 1}
        options = {**options, "apply_decay_param_fun": matrices.__contains__}
    groups = paddleseg_groups(twin, custom, 0.1)
    expected = updated(twin, kind(0.01, parameters=groups, weight_decay=0.1, **options))
    assert_same(found, expected)


def test_backbone_lr_mult_is_of_the_layer_backbone():
    names = ["backbone.a", "head.backbone", "backbones.b"]
    slower, others = parameter_groups(names, backbone_lr_mult=0.1)
    assert (slower.names, slower.lr_mult) == (("backbone.a",), 0.1)
    assert (others.names, others.lr_mult) == (("head.backbone", "backbones.b"), 1.0)


def test_gradients_of_all_groups_are_clipped_together():
    model = toy()
    before, parameters = arrays(model.state_dict()), trained(model)
    optimizer = OPTIMIZERS["SGD"](
        parameters=list(parameters.values()),
        names=list(parameters),
        learning_rate=1.0,
        momentum=0.0,
        grad_clip=0.5,
        custom_cfg=[{"name": "heads"}],
    )
    model.train()
    sum((out**2).sum() for out in model(paddle.ones([1, 3, 6, 6]))).backward()
    optimizer.step()
    after = arrays(model.state_dict())
    moved = sum(((after[key] - before[key]) ** 2).sum() for key in parameters)
    assert moved**0.5 == pytest.approx(0.5, rel=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"custom_cfg": [{"name": "head"}, {"name": "bodi"}]},
            "custom_cfg.1: 'bodi' selects no parameter; similar: body",
        ),
        ({"custom_cfg": [{"name": "zzz"}]}, "'zzz' selects no parameter; the network has: body"),
        ({"custom_cfg": [{"name": "body", "lr_mult": -1}]}, "lr_mult must be 0 or more, found -1"),
        ({"backbone_lr_mult": 0.1}, r"backbone_lr_mult: 'backbone.\*' selects no parameter"),
        (
            {"backbone_lr_mult": 0.1, "custom_cfg": [{"name": "body"}]},
            "backbone_lr_mult and custom_cfg: give one",
        ),
    ],
)
def test_bad_groups(arguments, message):
    with pytest.raises(ValueError, match=message):
        parameter_groups(["body.weight", "heads.0.weight", "heads.1.bias"], **arguments)


@pytest.mark.parametrize(
    ("patterns", "frozen"),
    [
        (["body"], {"body.weight", "body.bias"}),
        (["heads.0", "heads.1.bias"], {"heads.0.weight", "heads.0.bias", "heads.1.bias"}),
        (["*.weight"], {"body.weight", "norm.weight", "heads.0.weight", "heads.1.weight"}),
        (["nor?"], {"norm.weight", "norm.bias", "norm._mean", "norm._variance"}),
    ],
)
def test_patterns_of_frozen_layers(patterns, frozen):
    model = toy()
    assert freeze(model, patterns) == frozen
    assert {n for n, p in model.named_parameters() if p.stop_gradient} == frozen | {
        "norm._mean",
        "norm._variance",
    }


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["body", "haeds"], "freeze: 'haeds' selects no parameter; similar: heads"),
        (["bod"], "freeze: 'bod' selects no parameter; similar: body"),
        (["*"], "leaves no parameter to train"),
    ],
)
def test_bad_patterns_of_frozen_layers(patterns, message):
    with pytest.raises(UserError, match=message):
        freeze(toy(), patterns)


FROZEN = ["body", "norm"]


def train_frozen(**options):
    """The trainer, after it has trained, and the frozen state before."""
    before = {}

    def remember(trainer):
        before.update(arrays(trainer.model.state_dict()))

    trainer = make_trainer(freeze_patterns=FROZEN, norm=True, **options)
    remember(trainer)
    trainer.run()
    return trainer, before


def assert_frozen(trainer, before):
    after = arrays(trainer.model.state_dict())
    for key in ("body.weight", "body.bias", "norm.weight", "norm.bias", "norm._mean"):
        np.testing.assert_array_equal(after[key], before[key], err_msg=key)
    assert (after["heads.0.weight"] != before["heads.0.weight"]).all()


@pytest.mark.parametrize("ema_decay", [None, 0.9])
def test_frozen_layers_stay_bit_for_bit(ema_decay):
    trainer, before = train_frozen(iters=6, ema_decay=ema_decay, accumulate=2)
    assert_frozen(trainer, before)
    with trainer.shipped_weights():
        assert_frozen(trainer, before)
    slots = trainer.state_dict()["optimizer"]["slots"]
    assert len(slots) == 4
    assert all(slot.startswith("heads.") for slot in slots)
    model = trainer.model
    model.train()
    image = paddle.randn([2, 3, 8, 8]) * 5
    training = model(image)[0].numpy()
    model.eval()
    np.testing.assert_array_equal(model(image)[0].numpy(), training)


def run_in(folder, iters, crash_at=None, patterns=FROZEN):
    store = Checkpointer(folder)
    last = store.load_last() if folder.exists() else None

    def crash(trainer):
        raise KeyboardInterrupt

    hooks = [Checkpoint(store, 3), *([At(crash_at, crash)] if crash_at else [])]
    trainer = make_trainer(
        iters, hooks, norm=True, freeze_patterns=patterns, ema_decay=0.9, init_seed=bool(last)
    )
    if last:
        trainer.load_state_dict(last.weights, last.state)
    if crash_at:
        with pytest.raises(KeyboardInterrupt):
            trainer.run()
    else:
        trainer.run()
    return trainer


def test_a_frozen_training_resumes_exactly(tmp_path):
    whole = run_in(tmp_path / "whole", 9)
    run_in(tmp_path / "parts", 9, crash_at=5)
    resumed = run_in(tmp_path / "parts", 9)
    assert_same(resumed.state_dict(), whole.state_dict())
    assert_same(resumed.model.state_dict(), whole.model.state_dict())


def test_a_resume_may_freeze_more_or_less(tmp_path):
    first = run_in(tmp_path / "run", 3)
    before = arrays(first.model.state_dict())
    thawed = run_in(tmp_path / "run", 6, patterns=())
    after = arrays(thawed.model.state_dict())
    assert (after["body.weight"] != before["body.weight"]).any()
    assert (after["norm._mean"] != before["norm._mean"]).all()
    run_in(tmp_path / "run", 9, patterns=["heads.1"])
    last = arrays(run_in(tmp_path / "run", 9, patterns=["heads.1"]).model.state_dict())
    np.testing.assert_array_equal(last["heads.1.weight"], after["heads.1.weight"])
    assert (last["heads.0.weight"] != after["heads.0.weight"]).any()


def exchange(folder: Path):
    """In every process: whether the frozen layers stayed, and the number of exchanged gradients."""
    paddle.distributed.init_parallel_env()
    trainer, before = train_frozen(iters=3)
    assert_frozen(trainer, before)
    exchanged = sum(len(group) for group in trainer._network.group_indices)
    states = gathered_objects(arrays(trained(trainer.model)))
    for key, value in states[0].items():
        np.testing.assert_array_equal(states[1][key], value)
    return exchanged, sorted(states[0])


def test_frozen_gradients_are_not_exchanged(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent)]))
    options = {"devices": 2, "device": "cpu", "logs": tmp_path, "name": "test"}
    exchanged, names = launch(exchange, {"folder": tmp_path}, **options)
    assert names == ["heads.0.bias", "heads.0.weight", "heads.1.bias", "heads.1.weight"]
    assert exchanged == len(names)
