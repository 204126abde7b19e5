"""`predict` on a Ray cluster: Ray Data sends the inputs to actors that each hold a model.

The actors read, predict and write with the functions of the local engine, so the outputs are the
same bytes. The model is sent to them; inputs and output must have the same address on every
machine: URLs, or folders that all of them have.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, NamedTuple, Optional, Union

import numpy as np

from liteseg.deploy import manifest
from liteseg.errors import UserError
from liteseg.tasks.inputs import Job
from liteseg.tasks.outputs import Results
from liteseg.tasks.predict import Finished, open_segmenter, predict_jobs, with_thresholds
from liteseg.tasks.segmenter import Segmenter
from liteseg.tasks.storage import location, read
from liteseg.utils.logging import console_options

_BATCH = 32  # inputs per task of an actor; those of a task whose actor died are predicted again
_FATAL = "\0"  # in front of the message of an error that ends the run
_BLOCK = 4096  # bytes of names, sent as soon as they are listed
_OBJECT_STORE = 256 << 20  # bytes of shared memory of a cluster on this machine: models and names

Batch = dict[str, np.ndarray]


class Exported(NamedTuple):
    """An exported model to be loaded by actors.

    Attributes:
        folder: of the model.
        options: `runtime`, `threads` (cores of an actor; 1 by default), `precision` and `device`.
        unknown_below: as of `predict`.
    """

    folder: Path
    options: dict[str, Any]
    unknown_below: Optional[float] = None


def require_export(model: Any, inputs_from: Any) -> Path:
    """The folder of the exported model that the actors load.

    Raises:
        UserError: it is none, or the list of inputs is the standard input of this process alone.
    """
    if str(inputs_from) == "-":
        raise UserError("--inputs-from -: processes of Ray read the list; write it to a file")
    folder = manifest.find(model) if isinstance(model, (str, Path)) else None
    if folder is None:
        raise UserError(
            f"--engine ray: the model is {model or 'missing'}; expected the folder of an exported "
            "one: `liteseg export --weights RUN --format openvino --output DIR`, then --model DIR"
        )
    return folder


def predict_with_ray(
    list_jobs: Callable[[], Iterable[Job]],
    results: Results,
    exported: Exported,
    address: Optional[str],
    actors: Optional[int],
    finished: Finished,
) -> None:
    """Predict images and videos with the actors of a Ray cluster.

    Args:
        list_jobs: lists the inputs; called on this machine, in a process of Ray.
        results: what is written, and where.
        exported: the model of each actor.
        address: of the cluster, as `ray.init` reads it: `auto`, `ray://HOST:PORT`, or None to
            start one on this machine.
        actors: their number; by default up to as many as the cores of the cluster allow.
        finished: called with each job and "", `THERE` if it was left out, or its error.

    Raises:
        UserError: Ray is not installed, there is no cluster at the address, or an actor cannot
            load the model or write.
    """
    if isinstance(results.output, Path):
        results = replace(results, output=results.output.absolute())
    with _cluster(address) as ray:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        cores = exported.options.get("threads") or 1
        most = max(1, int(ray.cluster_resources().get("CPU", 1)) // cores)
        here = ray.get_runtime_context().get_node_id()
        folder = exported.folder
        files = {name: read(folder / name) for name in manifest.read(folder).files}
        options = {**exported.options, "threads": cores}
        rows = (
            ray.data.from_items([{"id": 0}])
            .map_batches(
                _Lister(list_jobs, os.getcwd()),
                num_cpus=0,
                scheduling_strategy=NodeAffinitySchedulingStrategy(here, soft=True),
            )
            .map_batches(
                _Actor,
                fn_constructor_args=(ray.put(files), options, exported.unknown_below, results),
                batch_size=_BATCH,
                num_cpus=cores,
                concurrency=actors or (1, most),
            )
        )
        for batch in rows.iter_batches(batch_size=None):
            for job, message in _unpacked(batch):
                if message.startswith(_FATAL):
                    raise UserError(message[len(_FATAL) :])
                finished(job, message)


@contextlib.contextmanager
def _cluster(address: Optional[str]) -> Iterator[Any]:
    """Ray, connected to a cluster, with small blocks: inputs are sent as they are listed.

    Raises:
        UserError: Ray is not installed, or there is no cluster at the address.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise UserError(f"--engine ray: {error}; pip install 'liteseg[ray]'") from None
    connect = not ray.is_initialized()
    if connect:
        local: dict[str, Any] = {"include_dashboard": False, "object_store_memory": _OBJECT_STORE}
        try:
            ray.init(address, **({} if address or "RAY_ADDRESS" in os.environ else local))
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UserError(
                f"--ray-address {address}: {error}; start a cluster with `ray start --head`, and "
                "`ray start --address HOST:6379` on the other machines"
            ) from error
    context = ray.data.DataContext.get_current()
    before = context.target_max_block_size, context.enable_progress_bars
    context.target_max_block_size = _BLOCK
    context.enable_progress_bars = not console_options()["quiet"]
    try:
        yield ray
    finally:
        context.target_max_block_size, context.enable_progress_bars = before
        if connect:
            ray.shutdown()


class _Lister:
    """Batches of inputs, listed while the first ones are predicted."""

    def __init__(self, list_jobs: Callable[[], Iterable[Job]], folder: str):
        self.list_jobs, self.folder = list_jobs, folder

    def __call__(self, _: Batch) -> Iterator[Batch]:
        os.chdir(self.folder)  # of the command: inputs may be relative
        try:
            jobs = iter(self.list_jobs())
            while batch := list(itertools.islice(jobs, _BATCH)):
                yield _packed((_absolute(job), job.problem) for job in batch)
        except UserError as error:
            yield _failed(error)


class _Actor:
    """A process with a model. Its errors are rows, because those of Ray are long."""

    def __init__(
        self, files: Any, options: dict[str, Any], unknown_below: Optional[float], results: Results
    ):
        import ray

        self.results = results
        self.segmenter: Union[Segmenter, UserError]
        with tempfile.TemporaryDirectory() as folder:
            for name, content in ray.get(files).items():
                Path(folder, name).write_bytes(content)
            try:
                segmenter = open_segmenter(None, folder, **options)
                self.segmenter = with_thresholds(segmenter, unknown_below)
            except UserError as error:
                self.segmenter = error

    def __call__(self, batch: Batch) -> Batch:
        finished: list[tuple[Job, str]] = []
        jobs = [job._replace(problem=problem) for job, problem in _unpacked(batch)]
        if fatal := [(job, job.problem) for job in jobs if job.problem.startswith(_FATAL)]:
            return _packed(fatal)
        try:
            if isinstance(self.segmenter, UserError):
                raise self.segmenter
            predict_jobs(self.segmenter, jobs, self.results, lambda *row: finished.append(row))
        except UserError as error:
            return _failed(error)
        return _packed(finished)


def _failed(error: UserError) -> Batch:
    return _packed([(Job("", ""), f"{_FATAL}{error}")])


def _absolute(job: Job) -> Job:
    is_path = isinstance(job.source, Path)
    return job._replace(source=Path(os.path.abspath(job.source))) if is_path else job


def _packed(jobs: Iterable[tuple[Job, str]]) -> Batch:
    """As columns of bytes: names of files need not be text."""
    rows = zip(*((str(job.source), job.place, message) for job, message in jobs))
    columns = zip(("source", "place", "message"), rows)
    return {name: np.array([*map(os.fsencode, values)], object) for name, values in columns}


def _unpacked(batch: Batch) -> Iterator[tuple[Job, str]]:
    columns = (map(os.fsdecode, batch[name]) for name in ("source", "place", "message"))
    for source, place, message in zip(*columns):
        yield Job(location(source), place), message
