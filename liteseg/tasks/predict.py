"""Prediction: label maps, color masks and overlays of images, folders and videos.

Listing, reading, inference and writing overlap. Memory is that of a few images for any number of
inputs.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Literal, Optional, Union

import numpy as np

from liteseg.config.check import AnyConfig
from liteseg.deploy import manifest
from liteseg.errors import UserError
from liteseg.tasks.background import BackgroundWriter, map_ahead
from liteseg.tasks.confidence import require_probability
from liteseg.tasks.inputs import Job, Shard, find_jobs, jobs_of_list
from liteseg.tasks.launch import connect, summed_at_the_end
from liteseg.tasks.outputs import KINDS, Failures, OutputFailed, Results, encoded, predicted
from liteseg.tasks.predict_video import predict_video
from liteseg.tasks.runs import Weights, config_of, default_weights
from liteseg.tasks.segmenter import Segmenter
from liteseg.tasks.storage import Location, check_storage, location, read
from liteseg.utils.logging import get_logger, progress
from liteseg.utils.runtime import rank, world_size

_FIRST = 10_000  # inputs that are listed and checked before the first one is predicted
# The threads that read and those that write: more for object stores, whose answers take long.
_THREADS, _REMOTE_THREADS = 2, 8
_KEPT = 1000  # errors
THERE, _VIDEO = "there", "video"

Finished = Callable[[Job, str], None]


@dataclass
class PredictResult:
    """The outcome of a prediction.

    Attributes:
        output: folder or URL of the results.
        inputs: number of images and videos.
        skipped: {file: error} of the first 1000 that could not be read or written.
        failed: the number of those.
        existing: the number of inputs left out because their results existed.
        failures: the file with the errors of all that failed; it exists if any did.
    """

    output: Location
    inputs: int = 0
    skipped: dict[Location, str] = field(default_factory=dict)
    failed: int = 0
    existing: int = 0
    failures: Optional[Location] = None


def predict(
    inputs: Union[str, Path, Sequence[Union[str, Path]]] = (),
    output: Union[str, Path] = "predictions",
    *,
    weights: Optional[Weights] = None,
    model: Union[str, Path, Segmenter, None] = None,
    cfg: Optional[AnyConfig] = None,
    overrides: Sequence[str] = (),
    what: Literal["all", "mask", "palette", "overlay", "confidence", "polygons"] = "all",
    device: Optional[str] = None,
    runtime: Optional[str] = None,
    threads: Optional[int] = None,
    precision: Optional[str] = None,
    on_skip: Optional[Callable[[str], None]] = None,
    overwrite: bool = False,
    unknown_below: Optional[float] = None,
    inputs_from: Union[str, Path, None] = None,
    shard: Optional[Shard] = None,
    skip_existing: bool = False,
    engine: Literal["local", "ray"] = "local",
    ray_address: Optional[str] = None,
    actors: Optional[int] = None,
) -> PredictResult:
    """Predict images and videos with trained weights or an exported model.

    For each image: `NAME_label.png` (train ids), `NAME_color.png` (train ids with a color palette)
    and `NAME_overlay.png` (colors over the image, with a legend); only if requested by `what`,
    `NAME_confidence.png` (the probability of the label, times 255) or `NAME_polygons.json` (for
    labelme, to correct the regions in an annotation tool). For each video:
    `NAME_overlay.mp4`; the others only if requested by `what`, as one PNG per frame. Inputs that
    cannot be predicted are listed in `failures.jsonl` in the output.

    Args:
        inputs: images, videos, folders (searched recursively), patterns such as
            `photos/**/*.jpg`, or numbered sequences such as `frames/%06d.png`; images, folders
            and patterns may be URLs of an object store (`s3://bucket/photos`).
        output: folder or URL of the results.
        weights: name of a model, file, archive, URL or run directory (its best checkpoint); by
            default the newest run in `output` or, without one, a published model.
        model: instead of weights, the folder of an exported model, or a `Segmenter`.
        cfg: config of the weights; by default the `config.yml` of their run.
        overrides: `key=value` changes of the config.
        what: the results to write.
        device: `auto`, `cpu` or `gpu`; by default the `device` of the config.
        runtime: of an exported model: `paddle`, `onnxruntime` or `openvino`.
        threads: of an exported model on CPU; by default all cores, with Ray 1 per actor.
        precision: of an exported model: `fp32` or `bf16`.
        on_skip: called with the error of each input that cannot be read; a log line by default.
        overwrite: replace files that liteseg has not written. Its own results always are.
        unknown_below: pixels with a lower probability are labeled 255, unknown; by default those
            below the thresholds of an exported model.
        inputs_from: instead of inputs, a text file with one path or URL per line.
        shard: (index, count), index from 0: predict only this of `count` disjoint shards of the
            inputs. The processes of `paddle.distributed.launch` divide the shard further.
        skip_existing: leave out inputs of which all results exist: continues a killed job.
        engine: `local`, or `ray`: the actors of a Ray cluster, with an exported model.
        ray_address: of the cluster; by default one is started on this machine.
        actors: number of Ray actors; by default as many as the cores allow.

    Raises:
        UserError: an input does not exist, the model cannot be loaded, a result would replace
            a file that liteseg has not written, or no result can be written (disk full).
    """
    if unknown_below is not None:
        require_probability(unknown_below, "--unknown-below")
    shard = _shard_of_process(shard)
    paths = [inputs] if isinstance(inputs, (str, Path)) else inputs
    kinds = KINDS if what == "all" else (what,)
    results = Results(location(output), kinds, overwrite, skip_existing)
    list_jobs = functools.partial(_list, paths, inputs_from, results, shard)
    options: dict[str, Any] = {"device": device, "runtime": runtime, "threads": threads}
    options["precision"] = precision
    if engine == "ray":
        from liteseg.tasks.ray_engine import Exported, predict_with_ray, require_export

        exported = Exported(require_export(model, inputs_from), options, unknown_below)
    jobs = list_jobs()
    first = list(itertools.islice(jobs, _FIRST))
    check_storage(results.output)
    results.require_replaceable(first)
    run: Callable[[Finished], None]
    if engine == "ray":
        run = functools.partial(predict_with_ray, list_jobs, results, exported, ray_address, actors)
    else:
        if isinstance(model, Segmenter):
            segmenter = model
        else:
            segmenter = open_segmenter(weights, model, cfg, overrides, **options)
        segmenter = with_thresholds(segmenter, unknown_below)
        run = functools.partial(predict_jobs, segmenter, itertools.chain(first, jobs), results)
    if world_size() > 1:
        connect()
    outcome, failures = PredictResult(results.output), Failures(results.output, shard)
    if skip_existing:
        results.remove_leftovers(shard)
    total = len(first) if len(first) < _FIRST else None
    # Ray has progress bars of its own.
    with progress(total=total, unit="image", desc="predict", shown=engine == "local") as bar:
        report = on_skip or get_logger().warning
        run(functools.partial(_count, outcome, failures, bar, report))
    if engine == "ray":  # of an actor that died
        results.remove_leftovers(shard)
    failures.finish()
    outcome.failures = failures.location
    return _of_all_processes(outcome)


def _shard_of_process(shard: Optional[Shard]) -> Optional[Shard]:
    """The shard of this process among those that `paddle.distributed.launch` has started.

    Raises:
        UserError: there is no such shard.
    """
    index, count = shard or (0, 1)
    if not 0 <= index < count:
        raise UserError(
            f"--shard {index}/{count}: expected I/N with I from 0 to N-1, such as 0/{max(count, 1)}"
        )
    index, count = index + count * rank(), count * world_size()
    return None if count == 1 else (index, count)


def _of_all_processes(outcome: PredictResult) -> PredictResult:
    """The outcome with the counts of all processes, once each has finished its shard.

    Paddle's launcher ends the others as soon as one of them ends with a failure.
    """
    if world_size() > 1:
        counts = summed_at_the_end((outcome.inputs, outcome.failed, outcome.existing))
        outcome.inputs, outcome.failed, outcome.existing = counts
    return outcome


def _list(
    paths: Sequence[Union[str, Path]],
    inputs_from: Union[str, Path, None],
    results: Results,
    shard: Optional[Shard],
) -> Iterator[Job]:
    if bool(paths) == bool(inputs_from):
        raise UserError("give either inputs, or a list of them as --inputs-from FILE")
    if inputs_from:
        return jobs_of_list(inputs_from, shard)
    output = results.output if isinstance(results.output, Path) else None
    if output is None and any(str(path).rstrip("/") == str(results.output) for path in paths):
        raise UserError(f"--output {results.output}: is an input, too; give another one")
    return find_jobs(paths, output, shard=shard)


def _count(
    outcome: PredictResult,
    failures: Failures,
    bar: Any,
    report: Callable[[str], Any],
    job: Job,
    message: str,
) -> None:
    """Count a finished input, and record its failure."""
    bar.update()
    outcome.inputs += 1
    if message == THERE:
        outcome.existing += 1
    elif message:
        failures.add(job, message)
        outcome.failed += 1
        if outcome.failed <= _KEPT:
            outcome.skipped[job.source] = message
        report(f"skipped: {message}")


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
    if any(options.values()):
        raise UserError("--runtime, --threads and --precision go with --model, an exported model")
    if not weights and cfg:
        raise UserError(
            "--weights is missing: a network without trained weights predicts noise; give a "
            "weights file, URL or run directory, or an exported model as --model"
        )
    weights = weights or default_weights()
    return Segmenter.from_pretrained(weights, config_of(weights, cfg, overrides), device=device)


def with_thresholds(segmenter: Segmenter, unknown_below: Optional[float]) -> Segmenter:
    """The segmenter with one threshold for all classes, or as it is."""
    if unknown_below is not None:
        segmenter = copy.copy(segmenter)
        segmenter.thresholds = np.full(len(segmenter.class_names), unknown_below)
    return segmenter


def predict_jobs(
    segmenter: Segmenter, jobs: Iterable[Job], results: Results, finished: Finished
) -> None:
    """Predict images and videos.

    Args:
        segmenter: the model.
        jobs: any number of them.
        results: what is written, and where.
        finished: called with each job and "", `THERE` if it was left out, or its error.

    Raises:
        OutputFailed: no result can be written.
    """

    def fail(error: BaseException, job: Job) -> None:
        if not isinstance(error, UserError) or isinstance(error, OutputFailed):
            raise error
        finished(job, str(error))

    jobs = iter(jobs)
    first = next(jobs, None)
    if first is None:
        return
    is_local = isinstance(first.source, Path) and isinstance(results.output, Path)
    threads = _THREADS if is_local else _REMOTE_THREADS
    load = functools.partial(_load, results, segmenter.decode)
    images = map_ahead(load, itertools.chain([first], jobs), threads, 2 * threads)
    writer = BackgroundWriter(threads, 4 * threads, fail, lambda job: finished(job, ""))
    with writer, contextlib.closing(images) as loaded:
        for job, image in loaded:
            try:
                if isinstance(image, UserError):
                    raise image
                if isinstance(image, np.ndarray):
                    try:
                        found = predicted(segmenter, image, results.kinds)
                    except UserError as error:  # an export for another size
                        raise UserError(f"{job.source}: {error}") from None
                    writer.submit(job, _write, segmenter, job, results, image, *found)
                    continue
                if image == _VIDEO:
                    predict_video(segmenter, job, results)
                finished(job, THERE if image == THERE else "")
            except UserError as error:
                fail(error, job)


def _load(
    results: Results, decode: Callable[[bytes, str], np.ndarray], job: Job
) -> tuple[Job, Union[np.ndarray, UserError, str]]:
    """The job with its image, with the error of reading it, or with `THERE` or `_VIDEO`."""
    try:
        if job.problem:
            raise UserError(f"{job.source}: {job.problem}")
        if results.are_there(job):
            return job, THERE
        results.require_replaceable([job])
        if job.is_video:
            return job, _VIDEO
        return job, decode(read(job.source), str(job.source))
    except UserError as error:
        return job, error


def _write(
    segmenter: Segmenter,
    job: Job,
    results: Results,
    image: np.ndarray,
    label: np.ndarray,
    confidence: Optional[np.ndarray],
) -> None:
    name = results.relative(job)
    results.write(job, encoded(segmenter, image, results.kinds, label, confidence, name))
