"""What happens every so often in training: logging, evaluation, checkpoints, stopping."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import signal
import sys
import time
from collections.abc import Sequence
from typing import Any, Callable, Optional

import numpy as np
import paddle

from liteseg.engine.checkpoint import Checkpointer
from liteseg.engine.evaluator import evaluate
from liteseg.engine.inference import TestConfig
from liteseg.engine.trainer import Hook, Trainer
from liteseg.engine.writers import Dashboard, MetricsFile
from liteseg.errors import UserError
from liteseg.report.gallery import Gallery
from liteseg.utils.logging import get_logger, progress
from liteseg.utils.runtime import gathered, is_main, world_size

_INPUT_BOUND = 0.3  # share of the time spent waiting for data from which the log says so


class Log(Hook):
    """Losses, learning rate and speed, every `interval` steps.

    Args:
        interval: steps.
        metrics: `metrics.jsonl`; None on processes that don't write.
        dashboard: VisualDL; likewise.
    """

    def __init__(
        self, interval: int, metrics: Optional[MetricsFile], dashboard: Optional[Dashboard]
    ):
        self.interval = interval
        self.metrics, self.dashboard = metrics, dashboard
        self._bar: Any = None

    def before_training(self, trainer: Trainer) -> None:
        """Start the clock and, on a terminal, the bar."""
        self._bar = progress(
            total=trainer.options.iters,
            initial=trainer.iteration,
            desc="train",
            unit="step",
            bar_format="{desc} {n_fmt}/{total_fmt} [{remaining} left{postfix}]",
            shown=is_main(),
        )
        self._rate = trainer.optimizer.get_lr()
        self._restart(trainer)

    def after_step(self, trainer: Trainer) -> None:
        """Write a line where the interval ends."""
        self._bar.update()
        # The schedule has moved on already: this step was taken at the rate it had before.
        rate, self._rate = self._rate, trainer.optimizer.get_lr()
        if trainer.iteration % self.interval and trainer.iteration != trainer.options.iters:
            self._count(trainer)
            return
        losses = trainer.take_mean_losses()  # waits for the device, before the clock is read
        self._count(trainer)
        seconds, steps = self._seconds, trainer.iteration - self._first
        figures = {
            **losses,
            "lr": rate,
            "images_per_second": steps * trainer.options.total_batch_size / seconds,
            "seconds_per_step": seconds / steps,
            "reader_share": trainer.clock.spent["data"] / seconds,
        }
        if is_main():
            self._report(trainer, figures)
        self._restart(trainer)

    def after_training(self, trainer: Trainer) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()

    def _count(self, trainer: Trainer) -> None:
        """Add the step just taken: evaluations and checkpoints between steps don't count."""
        self._seconds += time.perf_counter() - trainer.step_began

    def _restart(self, trainer: Trainer) -> None:
        self._seconds, self._first = 0.0, trainer.iteration
        trainer.clock.spent.clear()

    def _report(self, trainer: Trainer, figures: dict[str, float]) -> None:
        step, iters = trainer.iteration, trainer.options.iters
        left = time.gmtime(figures["seconds_per_step"] * (iters - step))
        days = left.tm_yday - 1
        bound = " input-bound" if figures["reader_share"] > _INPUT_BOUND else ""
        best = best_miou(trainer)
        words = (
            f"loss {figures['loss']:.4f} lr {figures['lr']:.3g}"
            f"{f' best mIoU {best:.4f}' if best >= 0 else ''} "
            f"{figures['images_per_second']:.2f} images/s reader {figures['reader_share']:.0%}"
            f"{bound}"
        )
        live = not self._bar.disable and sys.stdout.isatty()
        if live:
            self._bar.set_postfix_str(words)
        get_logger().info(
            f"step {step}/{iters} {words} "
            f"left {f'{days}d ' if days else ''}{time.strftime('%H:%M:%S', left)}",
            extra={"on_bar": live},
        )
        self.metrics.write(step, "train", figures)
        self.dashboard.scalars(step, {f"train/{key}": value for key, value in figures.items()})


def best_miou(trainer: Trainer) -> float:
    """The best mIoU of the run's evaluations; minus infinity before the first."""
    return max(getattr(hook, "best", -math.inf) for hook in trainer.hooks)


class _Interrupted(Exception):
    """A signal came during the evaluation."""


class Evaluate(Hook):
    """Evaluation every `interval` steps and at the end; keeps the best, stops when it stalls.

    Args:
        interval: steps.
        dataset: with labels.
        test: scales, flips, sliding window.
        batch_size: images of a forward pass.
        num_workers: reader processes.
        checkpointer: writes `best`.
        metrics, dashboard: as in `Log`.
        pictures: how many samples, spread over the dataset, are shown; and how many of the worst.
        report: called with the `Gallery` after each evaluation, on the process that writes.
        patience: evaluations without a gain before training stops; None: never.
        min_delta: gain of mIoU (0 to 1) that counts.
    """

    _kept = ("best", "best_step", "stalled", "owed")

    def __init__(
        self,
        interval: int,
        dataset: Any,
        test: TestConfig,
        checkpointer: Checkpointer,
        metrics: Optional[MetricsFile],
        dashboard: Optional[Dashboard],
        *,
        batch_size: int = 1,
        num_workers: int = 0,
        pictures: int = 0,
        report: Optional[Callable[[Gallery], None]] = None,
        patience: Optional[int] = None,
        min_delta: float = 0.0,
    ):
        self.interval = interval
        self.dataset, self.test = dataset, test
        self.checkpointer = checkpointer
        self.metrics, self.dashboard = metrics, dashboard
        self.batch_size, self.num_workers = batch_size, num_workers
        self.gallery, self.report = Gallery(dataset, pictures), report
        self.patience, self.min_delta = patience, min_delta
        self.best, self.best_step, self.stalled, self.owed = -math.inf, 0, 0, False

    def before_training(self, trainer: Trainer) -> None:
        """Evaluate if a signal kept the run from it; a run that stalled does not go on."""
        if self.owed:
            self._evaluate_unless_stopped(trainer)
        self._stop_if_stalled(trainer)

    def after_step(self, trainer: Trainer) -> None:
        """Evaluate where the interval ends."""
        if trainer.iteration % self.interval and trainer.iteration != trainer.options.iters:
            return
        trainer.read_losses()  # a network that diverged is not worth evaluating
        self._evaluate_unless_stopped(trainer)
        self._stop_if_stalled(trainer)

    def _evaluate_unless_stopped(self, trainer: Trainer) -> None:
        self.owed = True  # until it is done: an error or a signal leaves it to the resume
        try:
            self._evaluate(trainer)
        except _Interrupted:
            get_logger().info(f"the resume begins with the evaluation of step {trainer.iteration}")

    def _evaluate(self, trainer: Trainer) -> None:
        step, begin = trainer.iteration, time.perf_counter()

        def each(*prediction: Any) -> None:
            if trainer.stop_reason and world_size() == 1:
                raise _Interrupted
            self.gallery.add(*prediction)

        self.gallery.clear()
        with trainer.shipped_weights():
            trainer.share_statistics()
            figures = evaluate(
                trainer.model,
                self.dataset,
                self.test,
                batch_size=self.batch_size,
                num_workers=self.num_workers,
                losses=trainer.losses[:1],  # the head that is shipped
                on_prediction=each,
            )
        self.gallery.gather()
        self.owed = False
        self._judge(trainer, figures["miou"])
        if is_main():
            self._report(step, figures, time.perf_counter() - begin)

    def _judge(self, trainer: Trainer, miou: float) -> None:
        """Keep the weights if they are the best so far; count the evaluations without a gain."""
        gained = miou > self.best + self.min_delta
        self.stalled = 0 if gained else self.stalled + 1
        if miou > self.best:
            self.best, self.best_step = miou, trainer.iteration
            if is_main():
                self.checkpointer.save("best", *trainer.checkpoint())

    def _stop_if_stalled(self, trainer: Trainer) -> None:
        if self.patience is not None and self.stalled >= self.patience:
            trainer.stop_reason = (
                f"early stop: {self.stalled} evaluations without a better mIoU than "
                f"{self.best:.4f} of step {self.best_step}"
            )

    def _report(self, step: int, figures: dict[str, Any], seconds: float) -> None:
        get_logger().info(
            f"eval step {step} mIoU {figures['miou']:.4f} accuracy {figures['acc']:.4f} "
            f"loss {figures['loss']:.4f} (best mIoU {self.best:.4f} at step {self.best_step}; "
            f"{figures['images']} images in {seconds:.1f} s)"
        )
        self.metrics.write(step, "eval", {**figures, "best_miou": self.best})
        curves = {key: figures[key] for key in ("miou", "acc", "kappa", "mdice", "loss")}
        ious = {f"iou/{name}": iou for name, iou in figures["class_iou"].items()}
        best = {"best_miou": self.best}
        self.dashboard.scalars(step, {f"val/{k}": v for k, v in {**curves, **best, **ious}.items()})
        for picture in self.gallery.fixed:
            self.dashboard.image(step, f"val/{picture.name}", picture.panel())
        for place, picture in enumerate(self.gallery.worst, start=1):
            self.dashboard.image(step, f"worst/{place}", picture.panel())
        if self.report:
            self.report(self.gallery)

    def state_dict(self) -> dict[str, Any]:
        """Best figure, patience, and whether the evaluation of this step is still to be made."""
        return {key: getattr(self, key) for key in self._kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue counting."""
        for key in self._kept:
            setattr(self, key, state.get(key, getattr(self, key)))


class Checkpoint(Hook):
    """Writes `last` and `step_<n>` every `interval` steps, and `last` when training ends.

    Args:
        checkpointer: where.
        interval: steps.
    """

    def __init__(self, checkpointer: Checkpointer, interval: int):
        self.checkpointer = checkpointer
        self.interval = interval
        self._saved = 0

    def before_training(self, trainer: Trainer) -> None:
        """What was resumed is saved already."""
        self._saved = trainer.iteration

    def after_step(self, trainer: Trainer) -> None:
        """Save where the interval ends; comes after `Evaluate`, so that its figures are in."""
        due = trainer.iteration % self.interval == 0
        if due or trainer.iteration == trainer.options.iters or trainer.stop_reason:
            self._save(trainer, due)

    def after_training(self, trainer: Trainer) -> None:
        """Save the steps that a file nobody can read, or a late signal, would lose."""
        error = sys.exc_info()[1]
        # Of several processes, the others may not get here: saving asks all of them.
        savable = isinstance(error, UserError) and world_size() == 1
        if self._saved == trainer.iteration or not (error is None or savable):
            return
        with contextlib.suppress(UserError):  # diverged, or the disk is full: `error` says so
            self._save(trainer, due=False)
            get_logger().info(f"saved the checkpoint of step {trainer.iteration}")

    def _save(self, trainer: Trainer, due: bool) -> None:
        trainer.read_losses()
        if is_main():
            weights, state = trainer.checkpoint()
            if due:  # first: a resume from this `last` would not write it any more
                self.checkpointer.save_step(weights, state)
            self.checkpointer.save("last", weights, state)
        self._saved = trainer.iteration


class CompareWeights(Hook):
    """Every `interval` steps, see that all processes have the same weights, bit for bit."""

    def __init__(self, interval: int):
        self.interval = interval

    def after_step(self, trainer: Trainer) -> None:
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
            bad = [key for key, fine in zip(parameters, same) if not fine]
            raise UserError(
                f"after step {trainer.iteration} the processes differ in {len(bad)} of "
                f"{len(parameters)} weights, {bad[0]} among them: a loss or layer of the config "
                "does something in one process that it does not do in the others"
            )


class StopOnSignal(Hook):
    """Ctrl-C and SIGTERM end training after the running step, with a checkpoint.

    A second signal, `again` seconds later or more, ends it at once (the system, launchers and
    schedulers may send the first one twice). Comes first among the hooks. Several processes must
    stop after the same step, so they ask each other every few steps: asking waits for the device.
    """

    signals: Sequence[signal.Signals] = (signal.SIGINT, signal.SIGTERM)
    ask_every = 5
    again = 1.0

    def before_training(self, trainer: Trainer) -> None:
        """Take the signals over."""
        self._received = 0

        def stop(number: int, frame: Any) -> None:
            if not self._received:
                self._received, self._since = number, time.monotonic()
                if world_size() == 1:
                    trainer.stop_reason = _stopped_by(number)
            elif time.monotonic() - self._since >= self.again:
                self._give_back()
                os.kill(os.getpid(), number)

        self._before = {number: signal.signal(number, stop) for number in self.signals}

    def after_step(self, trainer: Trainer) -> None:
        """Ask the other processes."""
        if world_size() == 1 or trainer.iteration % self.ask_every:
            return
        request = paddle.to_tensor([self._received])
        paddle.distributed.all_reduce(request, paddle.distributed.ReduceOp.MAX)
        if int(request):
            trainer.stop_reason = _stopped_by(int(request))

    def after_training(self, trainer: Trainer) -> None:
        """Give them back."""
        self._give_back()

    def _give_back(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def _stopped_by(number: int) -> str:
    return f"stopped by {signal.Signals(number).name}"
