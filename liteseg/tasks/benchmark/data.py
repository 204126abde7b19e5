"""Benchmark of data loading: the stages of a training sample, and the rate of the workers."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Optional

import cv2
import numpy as np

from liteseg.config.build import build_dataset
from liteseg.config.check import AnyConfig, load_checked
from liteseg.datasets import SegmentationDataset
from liteseg.engine.loader import TrainingOrder, training_batch, training_batches
from liteseg.ops.device import select_device
from liteseg.tasks.train import training_options


@dataclass(frozen=True)
class DataBenchmark:
    """The speed of loading training samples.

    Attributes:
        config: file of the config.
        milliseconds: {stage: time per sample on one core}, in the order of the stages.
        samples_per_second_and_core: of all stages together.
        num_workers: worker processes; 0 is a thread.
        samples_per_second: of the workers.
    """

    config: str
    milliseconds: dict[str, float]
    samples_per_second_and_core: float
    num_workers: int
    samples_per_second: float

    def as_json(self) -> dict[str, Any]:
        """The content of `liteseg bench data --json`."""
        return asdict(self)


def benchmark_data(
    cfg: AnyConfig,
    *,
    overrides: Sequence[str] = (),
    samples: int = 40,
    num_workers: Optional[int] = None,
) -> DataBenchmark:
    """Measure how fast the training samples of a config are loaded.

    Args:
        cfg: a YAML file, the name of a shipped config, or a loaded config.
        overrides: `key=value` changes of the config.
        samples: number of samples to measure.
        num_workers: worker processes; by default as in training.

    Raises:
        UserError: the config or the data has errors.
    """
    cfg = load_checked(cfg, overrides)
    dataset = build_dataset(cfg, "train")
    options = training_options(cfg, select_device(cfg.device))
    workers = options.num_workers if num_workers is None else num_workers
    batches = -(-samples // options.batch_size)
    rate = measure_workers(dataset, options.batch_size, workers, batches)
    stages = measure_stages(dataset, samples)
    return DataBenchmark(str(cfg.path), stages, 1000 / sum(stages.values()), workers, rate)


def measure_stages(dataset: SegmentationDataset, samples: int) -> dict[str, float]:
    """Milliseconds per sample of each stage on one core, in this process.

    Args:
        dataset: its samples are loaded in order, repeatedly if there are fewer.
        samples: number of samples to average over, after one for warm-up.

    Returns:
        {stage: ms}: `read`, each transform, `collate`.
    """
    spent: dict[str, float] = {}

    def timed(stage: str, function: Callable, *args: Any) -> Any:
        begin = time.perf_counter()
        result = function(*args)
        spent[stage] = spent.get(stage, 0.0) + 1000 * (time.perf_counter() - begin) / samples
        return result

    threads = cv2.getNumThreads()
    cv2.setNumThreads(0)  # as in a worker process
    for draw in range(-1, samples):
        if draw == 0:
            spent.clear()
        sample = timed("read", dataset.load, draw % len(dataset))
        rng = np.random.default_rng((dataset.seed, max(draw, 0)))
        for stage, transform in dataset.transforms.stages:
            sample = timed(stage, transform, sample, rng)
        timed("collate", training_batch, [{**sample, "index": 0}])
    cv2.setNumThreads(threads)
    return spent


def measure_workers(
    dataset: SegmentationDataset, batch_size: int, num_workers: int, batches: int
) -> float:
    """Samples per second of the workers alone, without a network."""
    order = TrainingOrder(len(dataset), batch_size, 1, dataset.seed, 0, batches + 1)
    stream = training_batches(dataset, order, num_workers)
    with contextlib.closing(stream):
        next(stream)  # starts the workers
        begin = time.perf_counter()
        for _ in range(batches):
            next(stream)
        return batches * batch_size / (time.perf_counter() - begin)
