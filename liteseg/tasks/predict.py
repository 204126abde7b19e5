"""Prediction: label maps, color masks and overlays of images, folders and videos.

Reading, inference and writing overlap. Memory is that of a few images for any number of inputs.
"""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Literal, Optional, Union

import numpy as np

from liteseg.config.check import AnyConfig
from liteseg.deploy import manifest
from liteseg.errors import UserError
from liteseg.report.visualize import overlay, save_palette_png, with_legend, write_png
from liteseg.tasks.background import BackgroundWriter, prefetch
from liteseg.tasks.confidence import require_probability
from liteseg.tasks.inputs import Job, find_jobs
from liteseg.tasks.runs import Weights, config_of, default_weights
from liteseg.tasks.segmenter import Segmenter
from liteseg.tasks.video import Video, VideoWriter
from liteseg.utils.files import check_writable
from liteseg.utils.images import read_image
from liteseg.utils.logging import get_logger, progress
from liteseg.utils.results import require_replaceable

KINDS = ("mask", "palette", "overlay")
_ENDINGS = {
    "mask": "_label",
    "palette": "_color",
    "overlay": "_overlay",
    "confidence": "_confidence",
}
_READ_AHEAD = 4
_WRITERS, _MAX_PENDING = 2, 8
# Containers estimate their number of frames; with a smaller share than this, frames are missing.
_FRAMES_EXPECTED = 0.9


@dataclass(frozen=True)
class PredictResult:
    """The outcome of a prediction.

    Attributes:
        output: folder of the results.
        inputs: number of images and videos.
        skipped: {file: error} of those that could not be read or written.
    """

    output: Path
    inputs: int
    skipped: dict[Path, str]


def predict(
    inputs: Union[str, Path, Sequence[Union[str, Path]]],
    output: Union[str, Path] = "predictions",
    *,
    weights: Optional[Weights] = None,
    model: Union[str, Path, Segmenter, None] = None,
    cfg: Optional[AnyConfig] = None,
    overrides: Sequence[str] = (),
    what: Literal["all", "mask", "palette", "overlay", "confidence"] = "all",
    device: Optional[str] = None,
    runtime: Optional[str] = None,
    threads: Optional[int] = None,
    precision: Optional[str] = None,
    on_skip: Optional[Callable[[str], None]] = None,
    overwrite: bool = False,
    unknown_below: Optional[float] = None,
) -> PredictResult:
    """Predict images and videos with trained weights or an exported model.

    For each image: `NAME_label.png` (train ids), `NAME_color.png` (train ids with a color palette)
    and `NAME_overlay.png` (colors over the image, with a legend); only if requested by `what`,
    `NAME_confidence.png` (the probability of the label, times 255). For each video:
    `NAME_overlay.mp4`; the others only if requested by `what`, as one PNG per frame.

    Args:
        inputs: images, videos, folders (searched recursively), or numbered sequences such as
            `frames/%06d.png`.
        output: folder of the results.
        weights: name of a model, file, archive, URL or run directory (its best checkpoint); by
            default the newest run in `output` or, without one, a published model.
        model: instead of weights, the folder of an exported model, or a `Segmenter`.
        cfg: config of the weights; by default the `config.yml` of their run.
        overrides: `key=value` changes of the config.
        what: the results to write.
        device: `auto`, `cpu` or `gpu`; by default the `device` of the config.
        runtime: of an exported model: `paddle`, `onnxruntime` or `openvino`.
        threads: of an exported model on CPU; by default all cores.
        precision: of an exported model: `fp32` or `bf16`.
        on_skip: called with the error of each input that cannot be read; a log line by default.
        overwrite: replace files that liteseg has not written. Its own results always are.
        unknown_below: pixels with a lower probability are labeled 255, unknown; by default those
            below the thresholds of an exported model.

    Raises:
        UserError: an input does not exist, the model cannot be loaded, or a result would replace
            a file that liteseg has not written.
    """
    if unknown_below is not None:
        require_probability(unknown_below, "--unknown-below")
    output = check_writable(output)
    paths = [inputs] if isinstance(inputs, (str, Path)) else inputs
    jobs = find_jobs([Path(os.path.expanduser(path)) for path in paths], output)
    kinds = KINDS if what == "all" else (what,)
    if not overwrite:
        targets = (path for job in jobs for path in _results(job, kinds))
        require_replaceable(targets, "give another --output, or --overwrite")
    if isinstance(model, Segmenter):
        segmenter = model
    else:
        options = {"runtime": runtime, "threads": threads, "precision": precision}
        segmenter = open_segmenter(weights, model, cfg, overrides, device, **options)
    if unknown_below is not None:
        segmenter = copy.copy(segmenter)
        segmenter.thresholds = np.full(len(segmenter.class_names), unknown_below)
    skipped: dict[Path, str] = {}

    def skip(error: BaseException, job: Job) -> None:
        if not isinstance(error, UserError):
            raise error
        skipped[job.source] = str(error)
        (on_skip or get_logger().warning)(f"skipped: {error}")

    bar = progress(total=len(jobs), unit="image", desc="predict")
    images = contextlib.closing(prefetch(_read(jobs, segmenter.exif == "apply"), _READ_AHEAD))
    with bar, BackgroundWriter(_WRITERS, _MAX_PENDING, skip) as writer, images as loaded:
        for job, image in loaded:
            try:
                if isinstance(image, UserError):
                    raise image
                if image is None:
                    predict_video(segmenter, job, kinds)
                else:
                    try:
                        found = _predicted(segmenter, image, kinds)
                    except UserError as error:  # an export for another size
                        raise UserError(f"{job.source}: {error}") from None
                    writer.submit(job, write_results, segmenter, job, kinds, image, *found)
            except UserError as error:
                skip(error, job)
            bar.update()
    return PredictResult(output, len(jobs), skipped)


def _results(job: Job, kinds: Sequence[str]) -> Iterator[Path]:
    """The files that a job writes or, of a folder of frames, may replace."""
    if not job.is_video:
        yield from (job.result(f"{_ENDINGS[kind]}.png") for kind in kinds)
    elif "overlay" in kinds:
        yield job.result("_overlay.mp4")
    else:
        yield from job.result(_ENDINGS[kinds[0]]).glob("*")


def open_segmenter(
    weights: Optional[Weights],
    model: Union[str, Path, None],
    cfg: Optional[AnyConfig] = None,
    overrides: Sequence[str] = (),
    device: Optional[str] = None,
    **options: Any,
) -> Segmenter:
    """Load the exported model, or else the trained weights. Arguments as in `predict`.

    Raises:
        UserError: neither or both are given, or loading fails.
    """
    if model:
        if weights or cfg or overrides:
            raise UserError(
                "--model is an exported model, which contains its weights and settings: leave out "
                "--weights, --config and --set"
            )
        if manifest.find(model) is None:
            raise UserError(
                f"--model {model}: no {manifest.NAME} there; give the folder that `liteseg "
                "export` wrote, or trained weights as --weights"
            )
        return Segmenter.from_pretrained(model, device=device, **options)
    if not weights and not cfg:
        weights = default_weights()
    if not weights:
        raise UserError(
            "--weights is missing: a network without trained weights predicts noise; give a "
            "weights file, URL or run directory, or an exported model as --model"
        )
    if any(options.values()):
        raise UserError("--runtime, --threads and --precision go with --model, an exported model")
    return Segmenter.from_pretrained(weights, config_of(weights, cfg, overrides), device=device)


def _read(
    jobs: Sequence[Job], exif: bool
) -> Iterator[tuple[Job, Union[np.ndarray, UserError, None]]]:
    """Each job with its image, the error of reading it, or None for a video."""
    for job in jobs:
        try:
            yield job, None if job.is_video else read_image(job.source, exif)
        except UserError as error:
            yield job, error


def _predicted(
    segmenter: Segmenter, image: np.ndarray, kinds: Sequence[str]
) -> tuple[np.ndarray, Optional[np.ndarray]]:
    """The labels and, if it is to be written, the confidence as uint8."""
    if "confidence" not in kinds:
        return segmenter.predict(image), None
    label, confidence = segmenter.predict_with_confidence(image)
    return label, (255 * confidence + 0.5).astype(np.uint8)


def write_results(
    segmenter: Segmenter,
    job: Job,
    kinds: Sequence[str],
    image: np.ndarray,
    label: np.ndarray,
    confidence: Optional[np.ndarray] = None,
) -> None:
    """Write the results of one image.

    Raises:
        UserError: a result cannot be written.
    """
    names, palette = segmenter.class_names, segmenter.palette
    for kind in kinds:
        path = job.result(f"{_ENDINGS[kind]}.png")
        if kind == "overlay":
            blended = overlay(image, label, palette)
            write_png(path, with_legend(blended, names, palette, np.unique(label)))
        else:
            plane = confidence if kind == "confidence" and confidence is not None else label
            _write_label(path, kind, plane, palette)


def _write_label(path: Path, kind: str, label: np.ndarray, palette: np.ndarray) -> None:
    if kind == "palette":
        save_palette_png(path, label, palette)
    else:
        write_png(path, label)


def predict_video(segmenter: Segmenter, job: Job, kinds: Sequence[str]) -> None:
    """Write the overlay of a video at its frame rate, or a label map of each frame.

    The video appears once its last frame is written. Of a damaged video, all readable frames are
    written.

    Raises:
        UserError: no frame or not all can be read, or the result cannot be written.
    """
    video = Video(job.source)
    bar = progress(total=video.count, unit="frame", desc=job.source.name, leave=False)
    known = iter((frame, None) for frame in prefetch(video, _READ_AHEAD))
    stream = known if "confidence" in kinds else segmenter.stream(video)
    with bar, contextlib.closing(stream) as frames:
        if "overlay" in kinds:
            count = _write_overlays(segmenter, frames, video.rate, job, bar)
        else:
            count = _write_labels(segmenter, frames, kinds[0], job, bar)
    if video.count and count < _FRAMES_EXPECTED * video.count:
        raise UserError(
            f"{job.source}: only {count} of {video.count} frames can be read (their results are "
            "written); is the file complete?"
        )


def _write_labels(segmenter: Segmenter, frames: Iterator, kind: str, job: Job, bar: Any) -> int:
    folder, count = job.result(_ENDINGS[kind]), 0
    with BackgroundWriter(_WRITERS, _MAX_PENDING, _raise) as writer:
        for frame, label in frames:
            if kind == "confidence":
                label = _predicted(segmenter, frame, [kind])[1]
            path = folder / f"{count:06d}.png"
            writer.submit(path, _write_label, path, kind, label, segmenter.palette)
            count += 1
            bar.update()
    return count


def _write_overlays(segmenter: Segmenter, frames: Iterator, rate: float, job: Job, bar: Any) -> int:
    names, palette, count = segmenter.class_names, segmenter.palette, 0

    def write(frame: np.ndarray, label: np.ndarray) -> None:
        video.write(with_legend(overlay(frame, label, palette), names, palette))

    target = VideoWriter(job.result("_overlay.mp4"), rate)
    with target as video, BackgroundWriter(1, _MAX_PENDING, _raise) as writer:  # 1 keeps the order
        for frame, label in frames:
            writer.submit(count, write, frame, label)
            count += 1
            bar.update()
    return count


def _raise(error: BaseException, key: Any) -> None:
    raise error
