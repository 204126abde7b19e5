"""Hooks of the training loop: evaluation, checkpoints, consistency, stopping on a signal.

`Evaluate` runs the evaluation and passes the metrics to `after_evaluation` of every hook. The hooks
that react to it follow in this order: `EarlyStop`, `KeepBest`, `WriteReport` (in `writers.py`).
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Optional

import numpy as np
import paddle

from liteseg.engine.checkpoint import Checkpointer
from liteseg.engine.evaluator import Evaluator, evaluate
from liteseg.engine.trainer import Hook, Trainer
from liteseg.errors import UserError
from liteseg.metrics import nothing_counted
from liteseg.utils.logging import get_logger
from liteseg.utils.runtime import gathered, is_main, world_size

if TYPE_CHECKING:
    from liteseg.engine.inference import TestOptions


class _Interrupted(Exception):
    """A signal arrived during the evaluation."""


class _StopWithTraining(Evaluator):
    """Ends the evaluation at the next image once training is to stop."""

    def __init__(self, trainer: Trainer):
        self.trainer = trainer

    def update(self, *image: Any) -> None:
        # One of several processes can't leave alone: the others would wait for it.
        if self.trainer.stop_reason and world_size() == 1:
            raise _Interrupted


class Evaluate(Hook):
    """Evaluates the shipped weights every `interval` iterations and after the last one.

    Args:
        interval: iterations between two evaluations.
        dataset: validation samples with labels.
        test_config: scales, flips, sliding window.
        evaluators: receive every image, besides the metrics (see `Evaluator`).
        batch_size: images per forward pass.
        num_workers: worker processes that load the images.

    Attributes:
        owed: an evaluation was due and did not finish, because of a signal or an error. A resume
            starts with it.
    """

    saved = ("owed",)

    def __init__(
        self,
        interval: int,
        dataset: Any,
        test_config: TestOptions,
        evaluators: Sequence[Evaluator] = (),
        *,
        batch_size: int = 1,
        num_workers: int = 0,
    ):
        self.interval = interval
        self.dataset, self.test_config, self.evaluators = dataset, test_config, evaluators
        self.batch_size, self.num_workers = batch_size, num_workers
        self.owed = False

    def before_training(self, trainer: Trainer) -> None:
        """Run the evaluation that the interrupted run owes."""
        if self.owed:
            self._evaluate(trainer)

    def after_iteration(self, trainer: Trainer) -> None:
        """Evaluate if it is due."""
        if trainer.iteration % self.interval and trainer.iteration != trainer.options.iters:
            return
        trainer.read_losses()  # raises if training diverged: no use evaluating such weights
        self._evaluate(trainer)

    def _evaluate(self, trainer: Trainer) -> None:
        if not self.owed:
            self.owed = True
            for hook in trainer.hooks:
                hook.before_evaluation(trainer)
        try:
            with trainer.shipped_weights():
                trainer.share_statistics()
                metrics = evaluate(
                    trainer.model,
                    self.dataset,
                    self.test_config,
                    [_StopWithTraining(trainer), *self.evaluators],
                    batch_size=self.batch_size,
                    num_workers=self.num_workers,
                    losses=trainer.losses[:1],  # the head that is shipped
                    require_labels=False,
                )
        except _Interrupted:
            get_logger().info(f"the resume starts with the evaluation at {trainer.iteration}")
            return
        self.owed = False
        if problem := nothing_counted(metrics, self.dataset):
            get_logger().warning(f"the evaluation at iteration {trainer.iteration}: {problem}")
        for hook in trainer.hooks:
            hook.after_evaluation(trainer, metrics)


class EarlyStop(Hook):
    """Stops training after `patience` evaluations in a row without a better mIoU.

    Place it before `KeepBest`, whose checkpoint contains the count.

    Args:
        patience: number of evaluations; None only counts and never stops.
        min_delta: smallest increase of mIoU (0 to 1) over the best so far that counts as better.
    """

    saved = ("best", "best_iteration", "stalled")

    def __init__(self, patience: Optional[int] = None, min_delta: float = 0.0):
        self.patience, self.min_delta = patience, min_delta
        self.best, self.best_iteration, self.stalled = -math.inf, 0, 0

    def before_training(self, trainer: Trainer) -> None:
        """A resumed run that had stopped early stops again."""
        self._stop_if_stalled(trainer)

    def after_evaluation(self, trainer: Trainer, metrics: Mapping[str, Any]) -> None:
        """Count this evaluation."""
        miou = metrics["miou"] or 0.0  # None: nothing is labeled
        self.stalled = 0 if miou > self.best + self.min_delta else self.stalled + 1
        if miou > self.best:
            self.best, self.best_iteration = miou, trainer.iteration
        self._stop_if_stalled(trainer)

    def _stop_if_stalled(self, trainer: Trainer) -> None:
        if self.patience is not None and self.stalled >= self.patience:
            trainer.stop_reason = (
                f"early stop: mIoU did not rise by more than {self.min_delta:g} in "
                f"{self.stalled} evaluations (best: {self.best:.4f} at iteration "
                f"{self.best_iteration})"
            )


class KeepBest(Hook):
    """Saves the checkpoint `best` after each evaluation with a higher mIoU than all before.

    Args:
        checkpointer: writes it.

    Attributes:
        best: highest mIoU so far; minus infinity before the first evaluation.
        best_iteration: the iteration it belongs to.
    """

    saved = ("best", "best_iteration")

    def __init__(self, checkpointer: Checkpointer):
        self.checkpointer = checkpointer
        self.best, self.best_iteration = -math.inf, 0

    def after_evaluation(self, trainer: Trainer, metrics: Mapping[str, Any]) -> None:
        """Save the weights that were evaluated, if they are the best."""
        miou = metrics["miou"] or 0.0  # None: nothing is labeled
        if miou > self.best:
            self.best, self.best_iteration = miou, trainer.iteration
            if is_main():
                self.checkpointer.save("best", *trainer.checkpoint())


def best_evaluation(trainer: Trainer) -> tuple[float, int]:
    """(mIoU, iteration) of the run's best evaluation; (minus infinity, 0) before the first."""
    kept = next((hook for hook in trainer.hooks if isinstance(hook, KeepBest)), None)
    return (kept.best, kept.best_iteration) if kept else (-math.inf, 0)


class Checkpoint(Hook):
    """Saves `last` and `step_<n>` every `interval` iterations; `last` also before evaluations and
    when training ends.

    Place it after the hooks around the evaluation, whose state it saves.

    Args:
        checkpointer: writes them.
        interval: iterations between two checkpoints.
    """

    def __init__(self, checkpointer: Checkpointer, interval: int):
        self.checkpointer = checkpointer
        self.interval = interval
        self._evaluated = False  # since the last checkpoint

    def before_training(self, trainer: Trainer) -> None:
        """A resumed iteration is saved already, unless its evaluation was owed."""
        if self._evaluated:
            self._save(trainer, trainer.iteration % self.interval == 0)

    def before_evaluation(self, trainer: Trainer) -> None:
        """Save, so that a failure of the evaluation loses no iterations."""
        self._save(trainer, due=False)

    def after_evaluation(self, trainer: Trainer, metrics: Mapping[str, Any]) -> None:
        """Its results are not saved yet."""
        self._evaluated = True

    def after_iteration(self, trainer: Trainer) -> None:
        """Save if it is due."""
        due = trainer.iteration % self.interval == 0
        if due or trainer.iteration == trainer.options.iters or trainer.stop_reason:
            self._save(trainer, due)

    def after_training(self, trainer: Trainer) -> None:
        """Save the iterations that an unreadable file or a late signal would lose."""
        error = sys.exc_info()[1]
        # Saving needs every process, and the others may not get here.
        savable = isinstance(error, UserError) and world_size() == 1
        saved = trainer.saved_iteration == trainer.iteration and not self._evaluated
        if saved or not trainer.iteration or not (error is None or savable):
            return
        with contextlib.suppress(UserError):  # diverged or disk full: `error` reports it
            self._save(trainer, due=False)
            get_logger().info(f"saved the checkpoint of iteration {trainer.iteration}")

    def _save(self, trainer: Trainer, due: bool) -> None:
        trainer.read_losses()
        if is_main():
            weights, state = trainer.checkpoint()
            if due:  # first: a resume from this `last` would not write it again
                self.checkpointer.save_step(weights, state)
            self.checkpointer.save("last", weights, state)
        trainer.saved_iteration, self._evaluated = trainer.iteration, False


class CompareWeights(Hook):
    """Checks every `interval` iterations that all processes have the same weights, bit for bit."""

    def __init__(self, interval: int):
        self.interval = interval

    def after_iteration(self, trainer: Trainer) -> None:
        """Exchange a checksum of each parameter.

        Raises:
            UserError: in all processes, if one differs.
        """
        if trainer.iteration % self.interval:
            return
        parameters = {k: p for k, p in trainer.model.named_parameters() if not p.stop_gradient}
        checksums = [hashlib.sha256(p.numpy().tobytes()).digest() for p in parameters.values()]
        words = np.frombuffer(b"".join(checksums), np.int64).reshape(len(parameters), -1)
        everywhere = gathered(paddle.to_tensor(words))
        same = (everywhere == everywhere[0]).all(axis=(0, 2))
        if not same.all():
            different = [key for key, equal in zip(parameters, same) if not equal]
            raise UserError(
                f"after iteration {trainer.iteration} the processes differ in {len(different)} of "
                f"{len(parameters)} weights, including {different[0]}: a loss or layer of the "
                "config does something in one process that it does not do in the others"
            )


class StopOnSignal(Hook):
    """Ctrl-C and SIGTERM end training after the current iteration, with a checkpoint.

    A second signal, at least `again` seconds later, ends it at once (the system, launchers and
    schedulers may send the first one twice). Place it first. Several processes must stop after the
    same iteration, so they compare every few iterations: that waits for the device.
    """

    signals: Sequence[signal.Signals] = (signal.SIGINT, signal.SIGTERM)
    compare_every = 5
    again = 1.0

    def before_training(self, trainer: Trainer) -> None:
        """Install the signal handlers."""
        self._received = 0

        def stop(number: int, frame: Any) -> None:
            if not self._received:
                self._received, self._since = number, time.monotonic()
                if world_size() == 1:
                    trainer.stop_reason = _stopped_by(number)
            elif time.monotonic() - self._since >= self.again:
                self._restore_handlers()
                os.kill(os.getpid(), number)

        in_main = threading.current_thread() is threading.main_thread()  # others receive none
        signals = self.signals if in_main else ()
        self._before = {number: signal.signal(number, stop) for number in signals}

    def after_iteration(self, trainer: Trainer) -> None:
        """Stop if any process received a signal."""
        if world_size() == 1 or trainer.iteration % self.compare_every:
            return
        request = paddle.to_tensor([self._received])
        paddle.distributed.all_reduce(request, paddle.distributed.ReduceOp.MAX)
        if int(request):
            trainer.stop_reason = _stopped_by(int(request))

    def after_training(self, trainer: Trainer) -> None:
        """Restore the previous handlers."""
        self._restore_handlers()

    def _restore_handlers(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def _stopped_by(number: int) -> str:
    return f"stopped by {signal.Signals(number).name}"
