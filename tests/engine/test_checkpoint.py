"""Checkpoints: complete or absent, recovered after any accident, independent of layer names."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import paddle
import pytest
from toy_training import ToyNet, arrays, assert_same, cross_entropy

from liteseg.engine import checkpoint
from liteseg.engine.checkpoint import Checkpointer, load_optimizer_state, optimizer_state
from liteseg.errors import UserError
from liteseg.utils.weights.load import read_pdparams

FILES = ["manifest.json", "model.pdparams", "training.pdstate"]


@pytest.fixture
def store(tmp_path):
    return Checkpointer(tmp_path / "run" / "checkpoints", keep=2)


def weights(value):
    return {"layer.weight": np.full((2, 3), value, np.float32)}


def save(store, name, iteration):
    return store.save(name, weights(iteration), {"iteration": iteration, "more": {"text": "x"}})


def names(store):
    return sorted(path.name for path in store.folder.iterdir())


def loaded(store):
    last = store.load_last()
    assert_same(last.weights, weights(last.iteration))
    return last.path.name, last.iteration


def damage(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def test_saving_and_loading(store):
    path = store.save("last", weights(7), {"iteration": 7, "amp": {}, "hooks": {"Log": {"a": 1.5}}})
    assert sorted(os.listdir(path)) == FILES
    assert json.loads((path / "manifest.json").read_text())["iteration"] == 7
    last = store.load_last()
    assert last.path == path
    assert last.iteration == 7
    assert_same(last.weights, weights(7))
    assert last.state == {"iteration": 7, "amp": {}, "hooks": {"Log": {"a": 1.5}}}


def test_the_newest_numbered_checkpoints_are_kept(store):
    for iteration in (90, 100, 1000, 1010):  # not in alphabetical order
        store.save_step(weights(iteration), {"iteration": iteration})
    assert names(store) == ["step_1000", "step_1010"]


def test_keeping_none(tmp_path):
    store = Checkpointer(tmp_path, keep=0)
    store.save_step(weights(1), {"iteration": 1})
    assert names(store) == []


def test_only_last_keeps_its_predecessor(store):
    for iteration in (1, 2, 3):
        save(store, "last", iteration)
        save(store, "best", iteration)
    assert names(store) == ["best", "last", "last.previous"]
    assert loaded(store) == ("last", 3)
    assert (store.folder / "last.previous" / "model.pdparams").is_file()


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("accident", [damage, os.remove])
def test_the_previous_one_replaces_a_damaged_last(store, file, accident, caplog):
    save(store, "last", 1)
    accident(save(store, "last", 2) / file)
    assert loaded(store) == ("last.previous", 1)
    (warning,) = (record.getMessage() for record in caplog.records)
    assert "last.previous" in warning
    assert str(store.folder / "last") in warning


def test_the_newest_intact_one_replaces_last(store):
    save(store, "last", 10)
    store.save_step(weights(10), {"iteration": 10})
    save(store, "best", 15)
    damage(save(store, "last", 20) / "model.pdparams")
    store.save_step(weights(20), {"iteration": 20})
    assert loaded(store) == ("step_20", 20)
    damage(store.folder / "step_20" / "model.pdparams")
    assert loaded(store) == ("best", 15)
    damage(store.folder / "best" / "training.pdstate")
    assert loaded(store) in [("last.previous", 10), ("step_10", 10)]


def test_none_is_intact(store):
    with pytest.raises(UserError, match="holds none"):
        store.load_last()
    damage(save(store, "last", 2) / "model.pdparams")
    with pytest.raises(UserError) as error:
        store.load_last()
    assert str(store.folder / "last" / "model.pdparams") in str(error.value)
    assert "from the start" in str(error.value)


def test_leftovers_of_a_kill_while_writing(store):
    save(store, "last", 1)
    shutil.copytree(store.folder / "last", store.folder / ".last.tmp")
    (store.folder / ".last.tmp" / "manifest.json").unlink()
    assert loaded(store) == ("last", 1)
    assert names(store) == ["last"]


def test_leftovers_of_a_kill_between_the_renames(store):
    save(store, "last", 1)
    os.rename(store.folder / "last", store.folder / "last.previous")
    assert loaded(store) == ("last", 1)
    assert names(store) == ["last"]
    save(store, "last", 2)
    assert loaded(store) == ("last", 2)


@pytest.mark.parametrize("call", range(12))
@pytest.mark.parametrize("first", [True, False])
def test_failing_at_any_call_loses_nothing(store, monkeypatch, call, first):
    """A disk that fails at the n-th rename or sync."""
    if not first:
        save(store, "last", 1)
    calls = iter(range(100))
    failed = []
    for name in ("replace", "fsync"):
        original = getattr(os, name)

        def flaky(*args, original=original):
            if next(calls) == call:
                failed.append(True)
                raise OSError(28, "No space left on device")
            return original(*args)

        monkeypatch.setattr(os, name, flaky)
    try:
        save(store, "last", 2)
    except UserError as error:
        assert "No space left" in str(error)  # noqa: PT017  not every call fails
    monkeypatch.undo()
    if first and failed and not (store.folder / "last").exists():
        return  # there was nothing to lose
    assert loaded(store)[1] in ((2,) if not failed else (1, 2))
    assert not list(store.folder.glob(".*"))


OPTIMIZERS = {
    "momentum": lambda rate, p: paddle.optimizer.Momentum(rate, 0.9, p, weight_decay=0.01),
    "adamw": lambda rate, p: paddle.optimizer.AdamW(rate, parameters=p, weight_decay=0.01),
}


def schedule():
    decay = paddle.optimizer.lr.PolynomialDecay(0.1, 20)
    return paddle.optimizer.lr.LinearWarmup(decay, 3, 0.0, 0.1)


def train(model, optimizer, iterations):
    for iteration in iterations:
        images = np.random.default_rng(iteration).normal(size=(2, 3, 8, 8)).astype(np.float32)
        label = paddle.to_tensor(np.random.default_rng(iteration).integers(0, 3, (2, 8, 8)))
        outputs = model(paddle.to_tensor(images))
        sum(cross_entropy(logits, label) for logits in outputs).backward()
        optimizer.step()
        optimizer.clear_grad()
        optimizer._learning_rate.step()


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_the_optimizer_resumes_under_other_layer_names(store, kind):
    model = ToyNet(norm=True)
    optimizer = OPTIMIZERS[kind](schedule(), model.parameters())
    train(model, optimizer, range(5))
    state = {"iteration": 5, "optimizer": optimizer_state(optimizer, model)}
    slots = state["optimizer"]["slots"]
    assert slots
    assert all(key.startswith(("body.", "norm.", "heads.")) for key in slots)
    store.save("last", model.state_dict(), state)
    train(model, optimizer, range(5, 9))

    paddle.nn.Conv2D(1, 1, 1)  # advances Paddle's counters
    other = ToyNet(norm=True)
    resumed = OPTIMIZERS[kind](schedule(), other.parameters())
    assert other.body.weight.name != model.body.weight.name
    last = store.load_last()
    for key, tensor in other.state_dict().items():
        tensor.set_value(last.weights[key])
    load_optimizer_state(resumed, other, last.state["optimizer"])
    assert resumed.get_lr() > 0
    train(other, resumed, range(5, 9))
    assert_same(other.state_dict(), model.state_dict())
    assert_same(optimizer_state(resumed, other), optimizer_state(optimizer, model))


def test_slots_of_the_longest_name_and_inside_master_weights():
    state = {
        "conv_1.w_0_velocity_0": 1,
        "conv_1.w_0_1_velocity_0": 2,
        "master_weights": {"conv_1.w_0": 3},
        "LR_Scheduler": {"last_epoch": 4},
    }
    names = {"conv_1.w_0": "body.weight", "conv_1.w_0_1": "other.weight"}
    assert checkpoint._renamed(state, names) == {
        "body.weight_velocity_0": 1,
        "other.weight_velocity_0": 2,
        "master_weights": {"body.weight": 3},
    }


def test_saved_weights_have_the_published_form(store):
    model = ToyNet(norm=True)
    path = store.save("best", model.state_dict(), {"iteration": 1})
    assert_same(read_pdparams(path / "model.pdparams"), arrays(model.state_dict()))


def test_rewind_to_an_older_checkpoint(tmp_path):
    store = Checkpointer(tmp_path / "run" / "checkpoints", keep=5)

    def state(iteration, best):
        return {
            "iteration": iteration,
            "hooks": {"KeepBest": {"best": 0.5, "best_iteration": best}},
        }

    for iteration, best in ((2, 2), (4, 2), (6, 6)):
        weights = {"w": paddle.full([2], float(iteration))}
        store.save_step(weights, state(iteration, best))
        store.save("last", weights, state(iteration, best))
        if best == iteration:
            store.save("best", weights, state(iteration, best))
    store.rewind("step_4")
    assert store.load_last().iteration == 4
    assert float(store.load_last().weights["w"][0]) == 4
    aside = tmp_path / "run" / "replaced_1"
    assert sorted(path.name for path in aside.iterdir()) == ["best", "last", "step_6"]
    assert load(store, "best") == 2
    assert store.load_last().state["hooks"]["KeepBest"]["best_iteration"] == 2
    shutil.rmtree(store.folder / "best")
    assert "KeepBest" not in store.load_last().state["hooks"]  # the next evaluation is the best
    store.rewind("last")  # nothing is later: nothing moves
    assert not (tmp_path / "run" / "replaced_2").exists()
    with pytest.raises(UserError, match=r"step_6 does not exist; .* contains .*step_2, step_4"):
        store.rewind("step_6")


def load(store, name):
    return json.loads((store.folder / name / "manifest.json").read_text())["iteration"]
