"""Where the figures of a run go: `metrics.jsonl` and the VisualDL dashboard."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Callable

import numpy as np

from liteseg.utils.files import atomic_write
from liteseg.utils.logging import get_logger


class MetricsFile:
    """`metrics.jsonl`: one JSON object a line, with `step`, `phase` and figures.

    A line that can't be written is warned of once and ends the file, never the training.

    Args:
        path: the file; lines are added.
        resume_step: lines of later steps are dropped, since these steps are taken again; the log
            says so, because `train.log` keeps its lines of them.
    """

    def __init__(self, path: Path, resume_step: int):
        self.path = path
        self._failed = False
        kept, last = [], resume_step
        if path.exists():
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    step = json.loads(line)["step"]
                    if step <= resume_step:
                        kept.append(line)
                    last = max(last, step)
                except (ValueError, KeyError, TypeError):
                    continue  # the line a killed process left half-written
        if last > resume_step:
            get_logger().info(f"steps {resume_step + 1} to {last}, logged before, are taken again")
        with atomic_write(path, "w") as file:
            file.writelines(f"{line}\n" for line in kept)

    def write(self, step: int, phase: str, figures: dict[str, Any]) -> None:
        """Add a line; NaN and infinity, which JSON has not, become null."""
        if self._failed:
            return
        line = json.dumps(_jsonable({"step": step, "phase": phase, **figures}))
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            self._failed = True
            get_logger().warning(f"going on without {self.path}: {error.strerror or error}")


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value


class Dashboard:
    """The VisualDL log of a run. A failure warns once and ends the dashboard, never the training.

    Args:
        folder: `<run>/vdl`. A resume goes on in the newest log file there, because VisualDL shows
            only one file of a folder.
        resume_step: points of later steps are dropped, since these steps are taken again.
    """

    def __init__(self, folder: Path, resume_step: int):
        self._writer: Any = None
        self._failed = False
        self._attempt(lambda: self._open(folder, resume_step))

    def _open(self, folder: Path, resume_step: int) -> None:
        from visualdl import LogWriter

        newest = max(folder.glob("vdlrecords.*.log"), key=lambda p: p.stat().st_mtime, default=None)
        if newest:
            _keep_points(newest, resume_step)
        file_name = newest.name if newest else ""
        # Without a display name: of two runs with the same one VisualDL shows only one.
        self._writer = LogWriter(logdir=str(folder), file_name=file_name)

    def scalars(self, step: int, values: dict[str, Any]) -> None:
        """Points of curves, by tag; values that are no finite number are left out."""

        def write() -> None:
            for tag, value in values.items():
                # A NaN makes VisualDL's server refuse the whole curve.
                if isinstance(value, (int, float)) and math.isfinite(value):
                    self._writer.add_scalar(tag, float(value), step)
            # VisualDL writes in a thread: a checkpoint must not be ahead of its points.
            self._writer.flush()

        self._attempt(write)

    def image(self, step: int, tag: str, image: np.ndarray) -> None:
        """A picture: (H, W, 3) uint8 RGB."""
        self._attempt(lambda: self._writer.add_image(tag, image, step))

    def text(self, step: int, tag: str, text: str) -> None:
        """A text, such as the config."""
        self._attempt(lambda: self._writer.add_text(tag, text, step))

    def hparams(self, values: dict[str, Any], metric: str) -> None:
        """The row of this run in the table of hyper-parameters; `metric` is the tag of a curve."""
        self._attempt(lambda: self._writer.add_hparams(values, [metric]))

    def close(self) -> None:
        """Write what is buffered."""
        self._attempt(lambda: self._writer.close())

    def _attempt(self, action: Callable[[], Any]) -> None:
        if self._failed:
            return
        try:
            action()
        except Exception as error:
            self._failed = True
            get_logger().warning(f"VisualDL failed, going on without the dashboard: {error!r}")


def _keep_points(path: Path, resume_step: int) -> None:
    """Leave the points up to `resume_step` in a VisualDL log, each as it was.

    A record is its length in 8 bytes, little-endian, then a message. Meta data and the table
    of hyper-parameters are left out: a resumed run writes what it needs of them anew.
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
        if not once and all(value.id <= resume_step for value in values):
            kept.append(data[place:end])
        place = end
    with atomic_write(path) as file:
        file.writelines(kept)
