"""Prediction of videos: an overlay at their frame rate, or one PNG per frame."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from liteseg.errors import UserError
from liteseg.report.visualize import overlay, with_legend
from liteseg.tasks.background import BackgroundWriter, prefetch
from liteseg.tasks.inputs import Job
from liteseg.tasks.outputs import Results, encoded, predicted
from liteseg.tasks.segmenter import Segmenter
from liteseg.tasks.storage import write
from liteseg.tasks.video import Video, VideoWriter
from liteseg.utils.logging import progress

_READ_AHEAD = 4
_WRITERS, _MAX_PENDING = 2, 8
# Containers estimate their number of frames; with a smaller share than this, frames are missing.
_FRAMES_EXPECTED = 0.9


def predict_video(segmenter: Segmenter, job: Job, results: Results) -> None:
    """Write the overlay of a video at its frame rate, or a label map of each frame.

    The video appears once its last frame is written. Of a damaged video, all readable frames are
    written.

    Raises:
        UserError: no frame or not all can be read, or the result cannot be written.
    """
    source, (target,) = job.source, results.of(job)
    if not (isinstance(source, Path) and isinstance(target, Path)):
        raise UserError(f"{source}: videos are read from and written to local folders; copy it")
    if "polygons" in results.kinds:
        raise UserError(f"{source}: polygons are for images; save its frames as images first")
    video = Video(source)
    bar = progress(total=video.count, unit="frame", desc=source.name, leave=False)
    kind = "overlay" if "overlay" in results.kinds else results.kinds[0]
    known = iter((frame, None) for frame in prefetch(video, _READ_AHEAD))
    stream = known if kind == "confidence" else segmenter.stream(video)
    with bar, contextlib.closing(stream) as frames, results.stopping_at_full_disk():
        if kind == "overlay":
            count = _write_overlays(segmenter, frames, VideoWriter(target, video.rate), bar)
        else:
            count = _write_frames(segmenter, frames, kind, target, bar)
    if video.count and count < _FRAMES_EXPECTED * video.count:
        raise UserError(
            f"{source}: only {count} of {video.count} frames can be read (their results are "
            "written); is the file complete?"
        )


def _write_frames(segmenter: Segmenter, frames: Iterator, kind: str, folder: Path, bar: Any) -> int:
    def save(path: Path, frame: np.ndarray, *found: Any) -> None:
        (content,) = encoded(segmenter, frame, [kind], *found)
        write(path, content)

    count = 0
    with BackgroundWriter(_WRITERS, _MAX_PENDING, _raise) as writer:
        for frame, label in frames:
            found = (label, None) if label is not None else predicted(segmenter, frame, [kind])
            path = folder / f"{count:06d}.png"
            writer.submit(path, save, path, frame, *found)
            count += 1
            bar.update()
    return count


def _write_overlays(segmenter: Segmenter, frames: Iterator, target: VideoWriter, bar: Any) -> int:
    names, palette, count = segmenter.class_names, segmenter.palette, 0

    def save(frame: np.ndarray, label: np.ndarray) -> None:
        video.write(with_legend(overlay(frame, label, palette), names, palette))

    with target as video, BackgroundWriter(1, _MAX_PENDING, _raise) as writer:  # 1 keeps the order
        for frame, label in frames:
            writer.submit(count, save, frame, label)
            count += 1
            bar.update()
    return count


def _raise(error: BaseException, key: Any) -> None:
    raise error
