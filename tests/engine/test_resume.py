"""An interrupted and resumed training is bit for bit the same as one without interruption."""

from __future__ import annotations

import json
import os
import signal

import numpy as np
import paddle
import pytest
from paddle import nn
from toy_training import At, ToyImages, ToyNet, assert_same, evaluation_hooks, make_trainer

from liteseg.engine.checkpoint import Checkpointer
from liteseg.engine.hooks import Checkpoint, StopOnSignal
from liteseg.engine.optim import polynomial_decay
from liteseg.engine.writers import Dashboard, Log, MetricsFile
from liteseg.errors import UserError
from liteseg.utils.weights.load import read_state

ITERATIONS = 14
TIMES = {"images_per_second", "seconds_per_step", "reader_share", "seconds", "timings"}


class Run:
    """A run directory in which training starts and resumes, as with `liteseg train`."""

    def __init__(self, folder):
        self.folder = folder
        self.store = Checkpointer(folder / "checkpoints", keep=1)

    def train(self, *disturbances, workers=0, patience=None, iters=ITERATIONS, **options):
        """Resume from the last checkpoint, if there is one."""
        paddle.nn.Conv2D(1, 1, 1)  # advances Paddle's counters, as another process might
        loaded = self.store.load_last() if self.store.folder.exists() else None
        iteration = loaded.iteration if loaded else -1
        owes = bool(loaded and loaded.owes_evaluation)
        self.metrics = MetricsFile(self.folder / "metrics.jsonl", iteration, owes)
        dashboard = Dashboard(self.folder / "vdl", iteration, owes)
        evaluating = evaluation_hooks(
            4,
            ToyImages(3),
            self.store,
            self.metrics,
            dashboard,
            num_workers=workers,
            patience=patience,
        )
        self.evaluate, self.early_stop, *_ = evaluating
        hooks = [StopOnSignal(), Log(3, self.metrics, dashboard), *evaluating]
        hooks += [Checkpoint(self.store, 5), *disturbances]
        given = {"norm": True, "accumulate": 2, "seed": 5, "ema_decay": 0.9, "dataset": Dropping(7)}
        trainer = make_trainer(iters, hooks, num_workers=workers, **{**given, **options})
        if loaded:
            trainer.load_state_dict(loaded.weights, loaded.state)
        try:
            trainer.run()
        finally:
            dashboard.close()
        return trainer

    def metrics_lines(self):
        """The lines of `metrics.jsonl` without the measured times."""
        lines = map(json.loads, (self.folder / "metrics.jsonl").read_text().splitlines())
        return [{key: line[key] for key in line.keys() - TIMES} for line in lines]

    def curves(self):
        visualdl = pytest.importorskip("visualdl")
        (log,) = (self.folder / "vdl").glob("vdlrecords.*.log")
        reader = visualdl.LogReader(file_path=str(log))
        return {
            tag: [(point.id, point.value) for point in reader.get_data("scalar", tag)]
            for tag in reader.get_tags()["scalar"]
            if tag.rpartition("/")[2] not in TIMES
        }


class Dropping(ToyImages):
    """Images with noise that depends on the draw of the augmentation."""

    def __getitem__(self, key):
        sample = super().__getitem__(key)
        rng = np.random.default_rng((self.seed, key[1]))
        return {**sample, "img": sample["img"] ^ rng.integers(0, 8, (32, 32, 3), dtype=np.uint8)}


@pytest.fixture
def whole(tmp_path):
    run = Run(tmp_path / "whole")
    run.trainer = run.train()
    return run


def assert_as_if_never_interrupted(run, trainer, whole):
    assert trainer.iteration == ITERATIONS
    assert_same(trainer.model.state_dict(), whole.trainer.model.state_dict())
    assert_same(trainer.state_dict(), whole.trainer.state_dict())
    assert run.metrics_lines() == whole.metrics_lines()
    assert run.curves() == whole.curves()
    for name in ("best", "last", "step_10"):
        for file in ("model.pdparams", "training.pdstate"):
            found, expected = (read_state(r.store.folder / name / file) for r in (run, whole))
            assert_same(found, expected)


# 7 samples, 4 per iteration: each of these is inside an epoch, inside a log interval (3), or both.
@pytest.mark.parametrize("iterations", [(5,), (7,), (1, 2, 8, 13)])
def test_stopped_by_a_signal(tmp_path, whole, iterations):
    run = Run(tmp_path / "run")
    for workers, iteration in enumerate(iterations):
        stop = At(iteration, lambda trainer: os.kill(os.getpid(), signal.SIGTERM))
        assert run.train(stop, workers=workers % 3, init_seed=workers).iteration == iteration
    trainer = run.train(workers=1, init_seed=99)
    assert_as_if_never_interrupted(run, trainer, whole)


@pytest.mark.parametrize("iteration", [6, 8, 9, 12])
def test_crashed_after_the_last_checkpoint(tmp_path, whole, iteration, caplog):
    """The iterations since then were logged, evaluated (8, 12), perhaps kept as best."""

    def crash(trainer):
        raise RuntimeError

    run = Run(tmp_path / "run")
    with pytest.raises(RuntimeError):
        run.train(At(iteration, crash), workers=1)
    caplog.set_level("INFO")
    trainer = run.train(init_seed=99)
    saved = max(iteration // 5 * 5, iteration // 4 * 4)
    logged = max(iteration // 3 * 3, iteration // 4 * 4)
    repeated = f"iterations {saved + 1} to {logged} are logged already" in caplog.text
    assert repeated == (logged > saved)
    owed = f"the evaluation of iteration {saved} is repeated" in caplog.text
    assert owed == (saved % 4 == 0)
    assert_as_if_never_interrupted(run, trainer, whole)


def test_an_unreadable_file_in_the_middle_of_an_iteration(tmp_path, whole):
    """The second half of iteration 7 can't be read; then the file is fixed."""

    class Breaking(Dropping):
        def __getitem__(self, key):
            if key[1] == 26:
                raise UserError("image_x.png: the file is truncated")
            return super().__getitem__(key)

    run = Run(tmp_path / "run")
    with pytest.raises(UserError, match="image_x"):
        run.train(dataset=Breaking(7))
    assert run.store.load_last().iteration == 6
    assert_as_if_never_interrupted(run, run.train(), whole)


@pytest.mark.parametrize("iteration", [4, 14])
def test_a_crash_in_an_evaluation_loses_no_iteration(tmp_path, whole, iteration):
    class Broken(ToyImages):
        def load(self, index):
            raise MemoryError

    run = Run(tmp_path / "run")
    change = At(iteration - 1, lambda trainer: setattr(run.evaluate, "dataset", Broken(3)))
    with pytest.raises(RuntimeError, match="MemoryError"):
        run.train(change)
    assert run.store.load_last().iteration == iteration
    assert run.store.load_last().owes_evaluation
    assert_as_if_never_interrupted(run, run.train(), whole)


class SignalDuringLoad(ToyImages):
    """Validation images; loading the second one sends SIGTERM to the training process."""

    process = os.getpid()

    def load(self, index):
        if index == 1:
            os.kill(self.process, signal.SIGTERM)
        return super().load(index)


def stop_in_evaluation_of_8(run, workers=0):
    change = At(7, lambda trainer: setattr(run.evaluate, "dataset", SignalDuringLoad(3)))
    assert run.train(change, workers=workers).iteration == 8
    assert [line["step"] for line in run.metrics_lines() if line["phase"] == "eval"] == [4]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_signal_in_the_evaluation_leaves_it_to_the_resume(tmp_path, whole, workers):
    run = Run(tmp_path / "run")
    stop_in_evaluation_of_8(run, workers)
    assert_as_if_never_interrupted(run, run.train(), whole)


def merge_hook_state(store):
    """Rewrite `last` in the former format: all state of the evaluation under one hook."""
    last = store.load_last()
    hooks = dict(last.state["hooks"])
    early_stop = hooks.pop("EarlyStop")
    hooks["Evaluate"] = {
        "best": early_stop["best"],
        "best_step": early_stop["best_iteration"],
        "stalled": early_stop["stalled"],
        "owed": hooks["Evaluate"]["owed"],
    }
    del hooks["KeepBest"], hooks["WriteReport"]
    store.save("last", last.weights, {**last.state, "hooks": hooks})


@pytest.mark.parametrize("owed", [False, True])
def test_a_checkpoint_in_the_former_format_resumes(tmp_path, whole, owed):
    run = Run(tmp_path / "run")
    if owed:
        stop_in_evaluation_of_8(run)
    else:
        run.train(At(9, lambda trainer: setattr(trainer, "stop_reason", "x")))
    merge_hook_state(run.store)
    assert_as_if_never_interrupted(run, run.train(init_seed=99), whole)


def test_a_run_that_stopped_early_does_not_continue(tmp_path):
    run = Run(tmp_path / "run")

    def stall(trainer):
        run.early_stop.best = 2.0

    first = run.train(At(3, stall), patience=2)
    assert first.stop_reason.startswith("early stop: mIoU did not rise by more than")
    again = run.train(patience=2)
    assert again.iteration == first.iteration == 8
    assert again.stop_reason == first.stop_reason
    assert run.train(patience=3).iteration == 12


def test_dropout_continues_with_the_same_draws(tmp_path, monkeypatch):
    class DroppingNet(ToyNet):
        def __init__(self, norm):
            super().__init__(norm)
            self.body = nn.Sequential(self.body, nn.Dropout(0.5))

    monkeypatch.setattr("toy_training.ToyNet", DroppingNet)
    whole, run = Run(tmp_path / "whole"), Run(tmp_path / "run")
    expected = whole.train(iters=6)
    run.train(At(3, lambda trainer: setattr(trainer, "stop_reason", "x")), iters=6)
    paddle.rand([7])
    assert_same(run.train(iters=6).state_dict(), expected.state_dict())


class FakeScaler:
    """Replaces Paddle's loss scaler, which works on GPUs only."""

    def __init__(self, enable, init_loss_scaling):
        self.scale_, self.good_updates = np.array([init_loss_scaling], np.float32), 0

    def scale(self, loss):
        return loss * float(self.scale_[0])

    def step(self, optimizer):
        for parameter in optimizer._parameter_list:
            if parameter.grad is not None:
                parameter.grad.set_value(parameter.grad / float(self.scale_[0]))
        optimizer.step()

    def update(self):
        self.good_updates += 1
        if self.good_updates % 4 == 0:
            self.scale_ = self.scale_ * 3

    def state_dict(self):
        return {"scale": self.scale_, "incr_count": self.good_updates}

    def load_state_dict(self, state):
        self.scale_, self.good_updates = state["scale"], state["incr_count"]


def test_the_loss_scaler_resumes(tmp_path, monkeypatch):
    monkeypatch.setattr(paddle.amp, "GradScaler", FakeScaler)
    whole, run = Run(tmp_path / "whole"), Run(tmp_path / "run")
    expected = whole.train(iters=7)
    run.train(At(3, lambda trainer: setattr(trainer, "stop_reason", "x")), iters=7)
    found = run.train(iters=7)
    assert found.state_dict()["amp"]["incr_count"] == 7
    assert_same(found.state_dict(), expected.state_dict())


@pytest.mark.parametrize("length", [5, 14])
def test_another_learning_rate_applies_from_the_first_iteration(length):
    """Also after the end of the first schedule, where its rate is 0."""
    first = make_trainer(5, schedule=polynomial_decay(length, 0.5, warmup_iters=2))
    first.run()
    schedule = polynomial_decay(14, 0.005, warmup_iters=2)
    second = make_trainer(14, schedule=schedule)
    second.load_state_dict(*first.checkpoint())
    assert second.optimizer.get_lr() == pytest.approx(0.005 * (1 - 3 / 12) ** 0.9)
    expected = polynomial_decay(14, 0.005, warmup_iters=2)
    for _ in range(5):
        expected.step()
    assert schedule.state_dict() == expected.state_dict()
