"""Hooks around the evaluation during training: evaluate, stop early, keep the best, report.

`Evaluate` runs the evaluation and passes the metrics to `after_evaluation` of every hook of the
trainer. The others react to it, in this order: `Evaluate`, `EarlyStop`, `KeepBest`, `WriteReport`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Callable, Optional

import numpy as np

from liteseg.engine.checkpoint import Checkpointer
from liteseg.engine.evaluator import Evaluator, evaluate
from liteseg.engine.trainer import Hook, Trainer
from liteseg.engine.writers import Dashboard, MetricsFile
from liteseg.utils.logging import get_logger
from liteseg.utils.runtime import is_main, world_size

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
        self.owed = True
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
        miou = metrics["miou"]
        self.stalled = 0 if miou > self.best + self.min_delta else self.stalled + 1
        if miou > self.best:
            self.best, self.best_iteration = miou, trainer.iteration
        self._stop_if_stalled(trainer)

    def _stop_if_stalled(self, trainer: Trainer) -> None:
        if self.patience is not None and self.stalled >= self.patience:
            trainer.stop_reason = (
                f"early stop: {self.stalled} evaluations without a better mIoU than "
                f"{self.best:.4f} of iteration {self.best_iteration}"
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
        if metrics["miou"] > self.best:
            self.best, self.best_iteration = metrics["miou"], trainer.iteration
            if is_main():
                self.checkpointer.save("best", *trainer.checkpoint())


class WriteReport(Hook):
    """Writes the metrics of each evaluation to the log, `metrics.jsonl`, VisualDL and a page.

    Place it after `KeepBest`. Only the main process writes.

    Args:
        metrics_file: `metrics.jsonl`; None on the other processes.
        dashboard: VisualDL; None on the other processes.
        images: returns the images to show in VisualDL by tag, (H, W, 3) uint8 RGB each.
        write_page: called last; writes the report page.
    """

    def __init__(
        self,
        metrics_file: Optional[MetricsFile],
        dashboard: Optional[Dashboard],
        images: Optional[Callable[[], Mapping[str, np.ndarray]]] = None,
        write_page: Optional[Callable[[], None]] = None,
    ):
        self.metrics_file, self.dashboard = metrics_file, dashboard
        self.images, self.write_page = images, write_page

    def after_evaluation(self, trainer: Trainer, metrics: Mapping[str, Any]) -> None:
        """Write all of it."""
        if not is_main():
            return
        iteration = trainer.iteration
        best, best_iteration = best_evaluation(trainer)
        get_logger().info(
            f"evaluation at iteration {iteration}: mIoU {metrics['miou']:.4f} "
            f"accuracy {metrics['acc']:.4f} loss {metrics['loss']:.4f} "
            f"(best mIoU {best:.4f} at iteration {best_iteration}; "
            f"{metrics['images']} images in {metrics['seconds']:.1f} s)"
        )
        if self.metrics_file:
            self.metrics_file.write(iteration, "eval", {**metrics, "best_miou": best})
        if self.dashboard:
            curves = {key: metrics[key] for key in ("miou", "acc", "kappa", "mdice", "loss")}
            curves.update({f"iou/{name}": iou for name, iou in metrics["class_iou"].items()})
            curves["best_miou"] = best
            self.dashboard.scalars(iteration, {f"val/{key}": v for key, v in curves.items()})
            for tag, image in (self.images() if self.images else {}).items():
                self.dashboard.image(iteration, tag, image)
        if self.write_page:
            self.write_page()


def best_evaluation(trainer: Trainer) -> tuple[float, int]:
    """(mIoU, iteration) of the run's best evaluation; (minus infinity, 0) before the first."""
    kept = next((hook for hook in trainer.hooks if isinstance(hook, KeepBest)), None)
    return (kept.best, kept.best_iteration) if kept else (-math.inf, 0)
