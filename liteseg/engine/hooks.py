"""Periodic work during training: logging, checkpoints, stopping on a signal.

The hooks around the evaluation are in `evaluation_hooks.py`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import sys
import time
from collections.abc import Sequence
from typing import Any, Optional

import numpy as np
import paddle

from liteseg.engine.checkpoint import Checkpointer
from liteseg.engine.evaluation_hooks import best_evaluation
from liteseg.engine.trainer import Hook, Trainer
from liteseg.engine.writers import Dashboard, MetricsFile
from liteseg.errors import UserError
from liteseg.utils.logging import get_logger, progress
from liteseg.utils.runtime import gathered, is_main, world_size

_INPUT_BOUND = 0.3  # share of the time spent waiting for data above which the log reports it


class Log(Hook):
    """Writes losses, learning rate and speed every `interval` iterations.

    Args:
        interval: iterations between two lines.
        metrics_file: `metrics.jsonl`; None on processes that don't write.
        dashboard: VisualDL; None on processes that don't write.
    """

    def __init__(
        self, interval: int, metrics_file: Optional[MetricsFile], dashboard: Optional[Dashboard]
    ):
        self.interval = interval
        self.metrics_file, self.dashboard = metrics_file, dashboard
        self._bar: Any = None

    def before_training(self, trainer: Trainer) -> None:
        """Start the clock and, on a terminal, the progress bar."""
        self._bar = progress(
            total=trainer.options.iters,
            initial=trainer.iteration,
            desc="train",
            unit="iteration",
            bar_format="{desc} {n_fmt}/{total_fmt} [eta {remaining}{postfix}]",
            shown=is_main(),
        )
        self._rate = trainer.optimizer.get_lr()
        self._restart(trainer)

    def after_iteration(self, trainer: Trainer) -> None:
        """Write a line at the end of the interval."""
        self._bar.update()
        # The schedule has advanced already: this iteration used the rate before that.
        rate, self._rate = self._rate, trainer.optimizer.get_lr()
        if trainer.iteration % self.interval and trainer.iteration != trainer.options.iters:
            self._count(trainer)
            return
        losses = trainer.take_mean_losses()  # waits for the device, before the clock is read
        self._count(trainer)
        seconds, iterations = self._seconds, trainer.iteration - self._first
        metrics = {
            **losses,
            "lr": rate,
            "images_per_second": iterations * trainer.options.total_batch_size / seconds,
            "seconds_per_step": seconds / iterations,
            "reader_share": trainer.clock.spent["data"] / seconds,
        }
        if is_main():
            self._write(trainer, metrics)
        self._restart(trainer)

    def after_training(self, trainer: Trainer) -> None:
        """Close the progress bar."""
        if self._bar is not None:
            self._bar.close()

    def _count(self, trainer: Trainer) -> None:
        """Add the time of this iteration; evaluations and checkpoints in between don't count."""
        self._seconds += time.perf_counter() - trainer.iteration_began

    def _restart(self, trainer: Trainer) -> None:
        self._seconds, self._first = 0.0, trainer.iteration
        trainer.clock.spent.clear()

    def _write(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        iteration, iters = trainer.iteration, trainer.options.iters
        eta = time.gmtime(metrics["seconds_per_step"] * (iters - iteration))
        days = eta.tm_yday - 1
        best, _ = best_evaluation(trainer)
        text = (
            f"loss {metrics['loss']:.4f} lr {metrics['lr']:.3g}"
            f"{f' best mIoU {best:.4f}' if best >= 0 else ''} "
            f"{metrics['images_per_second']:.2f} images/s "
            f"waiting for data {metrics['reader_share']:.0%}"
            f"{' (input-bound)' if metrics['reader_share'] > _INPUT_BOUND else ''}"
        )
        live = not self._bar.disable and sys.stdout.isatty()
        if live:
            self._bar.set_postfix_str(text)
        get_logger().info(
            f"iteration {iteration}/{iters} {text} "
            f"eta {f'{days}d ' if days else ''}{time.strftime('%H:%M:%S', eta)}",
            extra={"on_bar": live},
        )
        if self.metrics_file:
            self.metrics_file.write(iteration, "train", metrics)
        if self.dashboard:
            self.dashboard.scalars(iteration, {f"train/{k}": v for k, v in metrics.items()})


class Checkpoint(Hook):
    """Saves `last` and `step_<n>` every `interval` iterations, and `last` when training ends.

    Place it after the hooks around the evaluation, whose state it saves.

    Args:
        checkpointer: writes them.
        interval: iterations between two checkpoints.
    """

    def __init__(self, checkpointer: Checkpointer, interval: int):
        self.checkpointer = checkpointer
        self.interval = interval
        self._saved = 0

    def before_training(self, trainer: Trainer) -> None:
        """A resumed iteration is saved already."""
        self._saved = trainer.iteration

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
        if self._saved == trainer.iteration or not (error is None or savable):
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
        self._saved = trainer.iteration


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

        self._before = {number: signal.signal(number, stop) for number in self.signals}

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
