"""Output of a run: log lines, `metrics.jsonl`, VisualDL, and the hooks that write them."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, Callable, Optional

import numpy as np

from liteseg.engine.hooks import best_evaluation
from liteseg.engine.trainer import Hook, Trainer
from liteseg.utils.files import atomic_write, parse_json, read_regular
from liteseg.utils.logging import get_logger, progress
from liteseg.utils.runtime import is_main
from liteseg.utils.text import decimal

_INPUT_BOUND = 0.3  # share of the time spent waiting for data above which the log reports it


class MetricsFile:
    """`metrics.jsonl`: one JSON object per line with `step` (the iteration), `phase` and metrics.

    If a line can't be written, there is one warning and the file ends; training continues.

    Args:
        path: the file; lines are appended.
        resume_iteration: lines of later iterations are removed, since they are repeated. The log
            reports it, because `train.log` keeps its lines of them.
        owes_evaluation: the evaluation of `resume_iteration` is repeated, too.
    """

    def __init__(self, path: Path, resume_iteration: int, owes_evaluation: bool = False):
        self.path = path
        self._failed = False
        kept, last = [], resume_iteration
        if path.exists():
            for line in read_regular(path).decode(errors="replace").splitlines():
                try:
                    entry = parse_json(line)
                    iteration = int(entry["step"])
                    end = resume_iteration - (owes_evaluation and entry["phase"] == "eval")
                    if iteration <= end:
                        kept.append(line)
                    last = max(last, iteration)
                except (ValueError, KeyError, TypeError, OverflowError):
                    continue  # a killed process left the line half-written
        if owes_evaluation:
            get_logger().info(f"the evaluation of iteration {resume_iteration} is repeated")
        if last > resume_iteration:
            get_logger().info(
                f"iterations {resume_iteration + 1} to {last} are logged already and are repeated"
            )
        with atomic_write(path, "w") as file:
            file.writelines(f"{line}\n" for line in kept)

    def write(self, iteration: int, phase: str, metrics: Mapping[str, Any]) -> None:
        """Append a line; NaN and infinity, which JSON lacks, become null."""
        if self._failed:
            return
        line = json.dumps(_jsonable({"step": iteration, "phase": phase, **metrics}))
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            self._failed = True
            get_logger().warning(f"continuing without {self.path}: {error.strerror or error}")


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value


class Dashboard:
    """The VisualDL log of a run. A failure warns once and ends the dashboard, not the training.

    Args:
        folder: `<run>/vdl`. A resume continues the newest log file there, because VisualDL shows
            only one file per folder.
        resume_iteration: points of later iterations are removed, since they are repeated.
        owes_evaluation: the evaluation of `resume_iteration` is repeated, too.
    """

    def __init__(self, folder: Path, resume_iteration: int, owes_evaluation: bool = False):
        self._writer: Any = None
        self._failed = False
        self._attempt(lambda: self._open(folder, resume_iteration, owes_evaluation))

    def _open(self, folder: Path, resume_iteration: int, owes_evaluation: bool) -> None:
        from visualdl import LogWriter

        newest = max(folder.glob("vdlrecords.*.log"), key=lambda p: p.stat().st_mtime, default=None)
        if newest:
            _remove_later_points(newest, resume_iteration, owes_evaluation)
        file_name = newest.name if newest else ""
        # Without a display name: VisualDL shows only one of two runs with the same name.
        with redirect_stdout(StringIO()):  # it prints that the file to continue exists
            self._writer = LogWriter(logdir=str(folder), file_name=file_name)

    def scalars(self, iteration: int, values: Mapping[str, Any]) -> None:
        """Add points to the curves of these tags; anything but a finite number is left out."""

        def write() -> None:
            for tag, value in values.items():
                # A NaN makes VisualDL's server refuse the whole curve.
                if isinstance(value, (int, float)) and math.isfinite(value):
                    self._writer.add_scalar(tag, float(value), iteration)
            # VisualDL writes in a thread: a checkpoint must not be ahead of its points.
            self._writer.flush()

        self._attempt(write)

    def image(self, iteration: int, tag: str, image: np.ndarray) -> None:
        """Add an image, (H, W, 3) uint8 RGB."""
        self._attempt(lambda: self._writer.add_image(tag, image, iteration))

    def text(self, iteration: int, tag: str, text: str) -> None:
        """Add a text, such as the config."""
        self._attempt(lambda: self._writer.add_text(tag, text, iteration))

    def hparams(self, values: dict[str, Any], metric: str) -> None:
        """Add this run to the table of hyperparameters; `metric` is the tag of a curve."""
        self._attempt(lambda: self._writer.add_hparams(values, [metric]))

    def close(self) -> None:
        """Write buffered points."""
        self._attempt(lambda: self._writer.close())

    def _attempt(self, action: Callable[[], Any]) -> None:
        if self._failed:
            return
        try:
            action()
        except Exception as error:
            self._failed = True
            get_logger().warning(f"VisualDL failed, continuing without the dashboard: {error!r}")


def _remove_later_points(path: Path, resume_iteration: int, owes_evaluation: bool) -> None:
    """Keep the points up to `resume_iteration` in a VisualDL log, byte for byte.

    A record is its length in 8 bytes, little-endian, then a message. Metadata and the table of
    hyperparameters are removed too: a resumed run writes them again.
    """
    from google.protobuf.message import DecodeError
    from visualdl.proto.record_pb2 import Record

    data, place, kept = path.read_bytes(), 0, []
    while place + 8 <= len(data):
        end = place + 8 + int.from_bytes(data[place : place + 8], "little")
        try:
            values = Record.FromString(data[place + 8 : end]).values
        except DecodeError:
            break  # half-written, by a process that was killed or on a full disk
        once = any(value.HasField("meta_data") or value.HasField("hparam") for value in values)
        if not once and all(
            value.id <= resume_iteration - (owes_evaluation and not value.tag.startswith("train/"))
            for value in values
        ):
            kept.append(data[place:end])
        place = end
    with atomic_write(path) as file:
        file.writelines(kept)


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
        heads = len(trainer.losses)
        text = (
            f"loss {metrics['loss']:.4f}{f' ({heads} heads)' if heads > 1 else ''} "
            f"lr {metrics['lr']:.3g}"
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
        head = " (finest head)" if len(trainer.losses) > 1 else ""
        get_logger().info(
            f"evaluation at iteration {iteration}: mIoU {decimal(metrics['miou'])} "
            f"accuracy {decimal(metrics['acc'])} loss {metrics['loss']:.4f}{head} "
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
