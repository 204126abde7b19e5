"""Where the metrics of a run are written: `metrics.jsonl` and the VisualDL dashboard."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Callable

import numpy as np

from liteseg.utils.files import atomic_write
from liteseg.utils.logging import get_logger


class MetricsFile:
    """`metrics.jsonl`: one JSON object per line with `step` (the iteration), `phase` and metrics.

    If a line can't be written, a warning says so once and the file ends; training continues.

    Args:
        path: the file; lines are appended.
        resume_iteration: lines of later iterations are removed, since they are repeated. The log
            says so, because `train.log` keeps its lines of them.
    """

    def __init__(self, path: Path, resume_iteration: int):
        self.path = path
        self._failed = False
        kept, last = [], resume_iteration
        if path.exists():
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    iteration = json.loads(line)["step"]
                    if iteration <= resume_iteration:
                        kept.append(line)
                    last = max(last, iteration)
                except (ValueError, KeyError, TypeError):
                    continue  # a killed process left the line half-written
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
    """

    def __init__(self, folder: Path, resume_iteration: int):
        self._writer: Any = None
        self._failed = False
        self._attempt(lambda: self._open(folder, resume_iteration))

    def _open(self, folder: Path, resume_iteration: int) -> None:
        from visualdl import LogWriter

        newest = max(folder.glob("vdlrecords.*.log"), key=lambda p: p.stat().st_mtime, default=None)
        if newest:
            _remove_later_points(newest, resume_iteration)
        file_name = newest.name if newest else ""
        # Without a display name: VisualDL shows only one of two runs with the same name.
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


def _remove_later_points(path: Path, resume_iteration: int) -> None:
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
        if not once and all(value.id <= resume_iteration for value in values):
            kept.append(data[place:end])
        place = end
    with atomic_write(path) as file:
        file.writelines(kept)
