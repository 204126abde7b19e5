"""Hooks: log lines, evaluation, checkpoints and stopping."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import shutil
import signal
import sys

import numpy as np
import pytest
from toy_training import (
    CLASSES,
    At,
    ToyImages,
    assert_same,
    evaluation_hooks,
    make_trainer,
    resume,
)
from tqdm import tqdm

from liteseg.config.test_config import TestConfig
from liteseg.engine import hooks, writers
from liteseg.engine import trainer as trainer_module
from liteseg.engine.checkpoint import Checkpointer
from liteseg.engine.evaluator import evaluate
from liteseg.engine.hooks import (
    Checkpoint,
    CompareWeights,
    Evaluate,
    KeepBest,
    StopOnSignal,
)
from liteseg.engine.writers import Log, MetricsFile
from liteseg.errors import UserError
from liteseg.utils.weights.load import read_pdparams


class Recorder:
    """Replaces the dashboard."""

    def __init__(self):
        self.points, self.images = {}, {}

    def scalars(self, iteration, values):
        for tag, value in values.items():
            self.points.setdefault(tag, {})[iteration] = value

    def image(self, iteration, tag, image):
        self.images.setdefault(tag, {})[iteration] = image


@pytest.fixture
def store(tmp_path):
    return Checkpointer(tmp_path / "checkpoints", keep=2)


@pytest.fixture
def metrics(tmp_path):
    return MetricsFile(tmp_path / "metrics.jsonl", 0)


@pytest.fixture
def dashboard():
    return Recorder()


def lines(metrics):
    return [json.loads(line) for line in metrics.path.read_text().splitlines()]


def checkpoints(store):
    return sorted(path.name for path in store.folder.iterdir())


def iteration(store, name):
    return json.loads((store.folder / name / "manifest.json").read_text())["iteration"]


def test_log_lines(metrics, dashboard, caplog):
    with caplog.at_level(logging.INFO):
        make_trainer(7, [Log(3, metrics, dashboard)], accumulate=2).run()
    found = lines(metrics)
    assert [(line["step"], line["phase"]) for line in found] == [(s, "train") for s in (3, 6, 7)]
    for line in found:
        assert line["loss"] == pytest.approx(line["main"] + line["aux"])
        assert line["images_per_second"] * line["seconds_per_step"] == pytest.approx(4)
        assert 0 <= line["reader_share"] <= 1
        # Warm-up over 3 iterations to 0.5, then a decay over 7: the rate of the iteration taken.
        t = line["step"] - 1
        rate = 0.5 * t / 3 if t < 3 else 0.5 * (1 - (t - 3) / 7) ** 0.9
        assert line["lr"] == pytest.approx(rate)
        assert dashboard.points["train/loss"][line["step"]] == line["loss"]
        assert dashboard.points["train/main"][line["step"]] == line["main"]
    messages = [record.getMessage() for record in caplog.records]
    assert [message.split()[1] for message in messages] == ["3/7", "6/7", "7/7"]
    assert f"loss {found[-1]['loss']:.4f}" in messages[-1]
    assert messages[-1].endswith("eta 00:00:00")


def test_a_live_line_on_terminals(store, metrics, dashboard, caplog, monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(writers, "progress", lambda shown, **given: tqdm(file=terminal, **given))
    monkeypatch.setattr(sys, "stdout", terminal)
    evaluation = evaluation_hooks(1, ToyImages(2), store, metrics, dashboard)
    with caplog.at_level(logging.INFO):
        make_trainer(3, [Log(1, metrics, dashboard), *evaluation]).run()
    live = terminal.getvalue().rpartition("\r")[2]
    assert "3/3" in live
    logged = [record for record in caplog.records if record.getMessage().startswith("iteration ")]
    assert all(record.on_bar for record in logged)
    text = re.search(r"iteration 3/3 (.+) eta", logged[-1].getMessage())[1]
    for part in ("loss ", "lr ", "images/s", "waiting for data ", "best mIoU "):
        assert part in text
    assert text in live
    assert "best mIoU" not in logged[0].getMessage()


def test_waiting_for_data_is_reported(metrics, dashboard, caplog):
    def wait(trainer):
        trainer.clock.spent["data"] += 1e6

    with caplog.at_level(logging.INFO):
        make_trainer(2, [At(2, wait), Log(1, metrics, dashboard)]).run()
    assert "input-bound" in caplog.records[-1].getMessage()


def test_evaluation_and_its_report(store, metrics, dashboard, caplog):
    dataset = ToyImages(5)
    trainer = make_trainer(5, evaluation_hooks(2, dataset, store, metrics, dashboard, count=2))
    with caplog.at_level(logging.INFO):
        trainer.run()
    found = lines(metrics)
    assert [line["step"] for line in found] == [2, 4, 5]
    assert all(line["phase"] == "eval" for line in found)
    expected = evaluate(trainer.model, dataset, TestConfig(), losses=trainer.losses[:1])
    assert found[-1]["miou"] == pytest.approx(expected["miou"])
    assert found[-1]["loss"] == pytest.approx(expected["loss"])
    best = max(found, key=lambda line: line["miou"])
    kept = find(trainer, KeepBest)
    assert found[-1]["best_miou"] == best["miou"] == kept.best
    assert iteration(store, "best") == best["step"] == kept.best_iteration
    assert trainer.model.training
    for key in ("miou", "acc", "kappa", "mdice", "loss", "best_miou"):
        assert dashboard.points[f"val/{key}"][5] == pytest.approx(found[-1][key])
    for name in CLASSES:
        assert dashboard.points[f"val/iou/{name}"][5] == found[-1]["class_iou"][name]
    assert "evaluation at iteration 5: mIoU" in caplog.text


def test_images_are_always_those_of_the_same_samples(store, metrics, dashboard):
    hooks = evaluation_hooks(1, ToyImages(5), store, metrics, dashboard, count=3)
    make_trainer(2, hooks).run()
    fixed = [f"val/image_{i}" for i in (0, 2, 4)]
    assert sorted(dashboard.images) == [*fixed, "worst/1", "worst/2", "worst/3"]
    for shown in dashboard.images.values():
        assert sorted(shown) == [1, 2]
        for image in shown.values():
            assert image.dtype == np.uint8
            assert image.ndim == 3
            assert image.shape[2] == 3
            assert image.shape[1] >= 4 * 32  # input, label, prediction, errors


@pytest.fixture
def scores(monkeypatch):
    """Make the evaluations return the given mIoUs, one after the other."""

    def give(*mious):
        rest = iter(mious)

        def found(model, dataset, *args, **kwargs):
            others = dict.fromkeys(("acc", "kappa", "mdice", "loss", "seconds"), 0.5)
            return {"miou": next(rest), "images": 1, "class_iou": {}, **others}

        monkeypatch.setattr(hooks, "evaluate", found)

    return give


def evaluation(store, metrics, dashboard, **early_stop):
    return evaluation_hooks(1, ToyImages(1), store, metrics, dashboard, **early_stop)


def find(trainer, kind):
    return next(hook for hook in trainer.hooks if isinstance(hook, kind))


def test_early_stop(store, metrics, dashboard, scores):
    scores(0.1, 0.3, 0.2, 0.3, 0.29, 0.9)
    evaluating = evaluation(store, metrics, dashboard, patience=3)
    trainer = make_trainer(20, [*evaluating, Checkpoint(store, 100)])
    trainer.run()
    assert trainer.iteration == 5
    assert trainer.stop_reason.startswith("early stop: mIoU did not rise by more than")
    assert "0.3000 at iteration 2" in trainer.stop_reason
    assert iteration(store, "best") == 2
    assert iteration(store, "last") == 5


def test_a_gain_below_min_delta_stalls_but_is_kept(store, metrics, dashboard, scores):
    scores(0.50, 0.51, 0.52, 0.9)
    trainer = make_trainer(20, evaluation(store, metrics, dashboard, patience=2, min_delta=0.1))
    trainer.run()
    assert trainer.iteration == 3
    assert iteration(store, "best") == 3


def test_best_and_patience_survive_a_resume(store, metrics, dashboard, scores):
    scores(0.4, 0.3, 0.35, 0.2)
    first = evaluation(store, metrics, dashboard, patience=3)
    make_trainer(2, [*first, Checkpoint(store, 100)]).run()
    second = evaluation(store, metrics, dashboard, patience=3)
    trainer = make_trainer(20, [*second, Checkpoint(store, 100)])
    resume(trainer, store)
    _, early_stop, keep_best, _ = second
    assert (early_stop.best, early_stop.best_iteration, early_stop.stalled) == (0.4, 1, 1)
    assert (keep_best.best, keep_best.best_iteration) == (0.4, 1)
    trainer.run()
    assert trainer.iteration == 4
    assert iteration(store, "best") == 1


def test_the_averaged_weights_are_evaluated_and_best_can_be_resumed(store, metrics, dashboard):
    trainer = make_trainer(1, evaluation(store, metrics, dashboard), ema_decay=0.99)
    trainer.run()
    best = store.load_last()  # there is `best` only
    assert_same(best.weights, trainer.ema.state_dict()["shadow"])
    assert_same(best.state["model"], trainer.model.state_dict())
    dataset = find(trainer, Evaluate).dataset
    with trainer.shipped_weights():
        assert (
            evaluate(trainer.model, dataset, TestConfig())["miou"] == find(trainer, KeepBest).best
        )


def test_checkpoints_and_their_limit(store):
    trainer = make_trainer(7, [Checkpoint(store, 2)])
    trainer.run()
    assert checkpoints(store) == ["last", "last.previous", "step_4", "step_6"]
    assert iteration(store, "last") == 7
    weights = read_pdparams(store.folder / "last" / "model.pdparams")
    assert_same(weights, trainer.model.state_dict())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_signal_stops_after_the_iteration_with_a_checkpoint(store, number, workers):
    before = signal.getsignal(number)
    kill = At(3, lambda trainer: os.kill(os.getpid(), number))
    trainer = make_trainer(50, [StopOnSignal(), kill, Checkpoint(store, 100)], num_workers=workers)
    trainer.run()
    assert trainer.iteration == 3
    assert trainer.stop_reason == f"stopped by {number.name}"
    assert iteration(store, "last") == 3
    assert signal.getsignal(number) is before


@pytest.fixture
def interrupts():
    """Ctrl-C raises KeyboardInterrupt: in what a script starts with `&` it does nothing."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupts")
def test_a_second_signal_ends_at_once_but_not_an_echo_of_the_first(store, monkeypatch):
    def interrupt(trainer):
        # Not os.kill: another thread may get that one, and two become one before this thread looks.
        signal.raise_signal(signal.SIGINT)

    def twice():
        return [StopOnSignal(), At(2, interrupt), At(2, interrupt), Checkpoint(store, 1)]

    make_trainer(50, twice()).run()
    assert iteration(store, "last") == 2
    monkeypatch.setattr(StopOnSignal, "again", 0)
    shutil.rmtree(store.folder)
    with pytest.raises(KeyboardInterrupt):
        make_trainer(50, twice()).run()
    assert iteration(store, "last") == 1


def test_handlers_are_restored_after_an_error(store):
    before = signal.getsignal(signal.SIGTERM)

    def fail(trainer):
        raise RuntimeError

    with pytest.raises(RuntimeError):
        make_trainer(5, [StopOnSignal(), At(1, fail)]).run()
    assert signal.getsignal(signal.SIGTERM) is before


class BreakingImages(ToyImages):
    """Images that can't be read from draw 6 onwards."""

    def __getitem__(self, key):
        if key[1] >= 6:
            raise UserError("image_x.png: the file is truncated")
        return super().__getitem__(key)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_file_loses_no_iteration(store, workers):
    dataset = BreakingImages()
    trainer = make_trainer(9, [Checkpoint(store, 100)], dataset=dataset, num_workers=workers)
    with pytest.raises(UserError, match="image_x"):
        trainer.run()
    assert iteration(store, "last") == 3
    assert checkpoints(store) == ["last"]


class KillingImages(ToyImages):
    """Images whose draw 20 kills the worker, as a system out of memory would."""

    def __getitem__(self, key):
        if key[1] == 20:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(key)


def test_a_killed_worker_loses_no_iteration(store):
    trainer = make_trainer(99, [Checkpoint(store, 100)], dataset=KillingImages(), num_workers=1)
    with pytest.raises(UserError, match="loads the data was killed"):
        trainer.run()
    # Batches loaded ahead may be lost, but no iteration that was finished.
    assert iteration(store, "last") == trainer.iteration > 0


def test_a_failing_evaluation_loses_no_iteration(store, metrics, dashboard):
    class Unreadable(ToyImages):
        def load(self, index):
            raise UserError("image_y.png: the file is empty")

    evaluating = evaluation_hooks(2, Unreadable(), store, metrics, dashboard)
    with pytest.raises(UserError, match="image_y"):
        make_trainer(9, [*evaluating, Checkpoint(store, 2)], ema_decay=0.9).run()
    assert iteration(store, "last") == 2


def test_a_signal_after_the_checkpoint_hook(store):
    stop = At(3, lambda trainer: os.kill(os.getpid(), signal.SIGTERM))
    make_trainer(9, [StopOnSignal(), Checkpoint(store, 100), stop]).run()
    assert iteration(store, "last") == 3


def test_killed_between_the_two_checkpoints_of_an_iteration(store, monkeypatch):
    """The run resumes from the previous `last`, and `step_4` exists at the end."""
    save = Checkpointer.save

    def killed(self, name, weights, state):
        if (name, state["iteration"]) == ("last", 4):
            raise KeyboardInterrupt
        return save(self, name, weights, state)

    monkeypatch.setattr(Checkpointer, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        make_trainer(5, [Checkpoint(store, 2)]).run()
    monkeypatch.undo()
    trainer = make_trainer(5, [Checkpoint(store, 2)])
    resume(trainer, store)
    assert trainer.iteration == 2
    trainer.run()
    assert checkpoints(store) == ["last", "last.previous", "step_2", "step_4"]


def test_nothing_is_saved_twice(store):
    make_trainer(4, [Checkpoint(store, 4)]).run()
    assert checkpoints(store) == ["last", "step_4"]


def test_a_full_disk_ends_with_the_last_checkpoint_intact(store, monkeypatch):
    def fill(trainer):
        def full(descriptor):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(UserError, match="No space left"):
        make_trainer(9, [At(5, fill), Checkpoint(store, 2)]).run()
    assert checkpoints(store) == ["last", "last.previous", "step_2", "step_4"]
    assert store.load_last().iteration == 4


@pytest.mark.parametrize("differing", [None, "heads.0.bias"])
def test_weights_are_compared_between_processes(monkeypatch, differing):
    hook, names = CompareWeights(2), []

    def two_processes(checksums):
        """Those of this process, and those of one in which a parameter differs."""
        names.extend(key for key, _ in trainer.model.named_parameters())
        both = np.stack([checksums.numpy()] * 2)
        if differing:
            both[1, names.index(differing), 3] ^= 1
        return both

    monkeypatch.setattr(hooks, "gathered", two_processes)
    trainer = make_trainer(5, [hook])
    if differing is None:
        trainer.run()
        assert len(names) == 2 * 6
        return
    with pytest.raises(
        UserError, match=r"after iteration 2 .* 1 of 6 weights, including heads\.0\.bias:"
    ):
        trainer.run()


def test_checksums_distinguish_weights(monkeypatch):
    found = []
    monkeypatch.setattr(hooks, "gathered", lambda c: found.append(c.numpy()) or c.numpy()[None])
    make_trainer(2, [CompareWeights(1)]).run()
    assert found[0].shape == (6, 4)
    assert (found[0] != found[1]).any(axis=1).all()  # every one of them was trained


def test_a_broken_network_in_one_process_stops_all_of_them(monkeypatch):
    """The losses of all processes are read: here another one has a NaN."""

    def two_processes(tensor):
        own = tensor.numpy()
        other = own.copy()
        if own.dtype == np.float32:
            other[1, 0] = np.nan
        else:
            other[:] = 7
        return np.stack([own, other])

    monkeypatch.setattr(trainer_module, "gathered", two_processes)
    with pytest.raises(UserError, match=r"iteration 2: main nan, (.|\n)*image_7\.png"):
        make_trainer(4, [Log(3, None, None)]).run()
