"""Measuring the data path and the training step with the code that trains."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np

from liteseg.engine.loader import TrainingOrder, training_batch, training_batches
from liteseg.engine.trainer import Trainer
from liteseg.utils.runtime import peak_memory, world_size


def measure_stages(dataset: Any, samples: int) -> dict[str, float]:
    """Milliseconds of one core that each stage of a sample takes, in this process.

    Args:
        dataset: its samples are read in order, over again where there are fewer.
        samples: how many to take the mean of; one more warms up.

    Returns:
        {stage: ms a sample}: `read`, each transform, `collate`; in the order they happen.
    """
    spent: dict[str, float] = {}

    def timed(stage: str, function: Callable, *args: Any) -> Any:
        begin = time.perf_counter()
        result = function(*args)
        spent[stage] = spent.get(stage, 0.0) + 1000 * (time.perf_counter() - begin) / samples
        return result

    threads = cv2.getNumThreads()
    cv2.setNumThreads(0)  # as in a reader process
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


def measure_reading(dataset: Any, batch_size: int, num_workers: int, batches: int) -> float:
    """Samples a second from the readers alone, with nobody to wait for."""
    order = TrainingOrder(len(dataset), batch_size, 1, dataset.seed, 0, batches + 1)
    stream = training_batches(dataset, order, num_workers)
    with contextlib.closing(stream):
        next(stream)  # starts the readers
        begin = time.perf_counter()
        for _ in range(batches):
            next(stream)
        return batches * batch_size / (time.perf_counter() - begin)


def measure_steps(trainer: Trainer, steps: int, warm_up: int) -> dict[str, Any]:
    """Time training steps, as `Trainer.run` takes them.

    Under several processes every process must call it. As many steps follow then without exchanging
    gradients: what the others take longer is the cost of communication.

    Returns:
        `seconds_per_step` (median), `fastest`, `slowest`, `images_per_second` over all processes,
        `phases` {phase: mean seconds a step}, `reader_share`, `communication_share` (None for one
        process) and `peak_mib` (see `peak_memory`).
    """
    options = trainer.options
    runs = warm_up + steps * (2 if world_size() > 1 else 1)
    order = TrainingOrder(
        len(trainer.dataset), options.batch_size, options.accumulate, options.seed, 0, runs
    )
    batches = training_batches(trainer.dataset, order, options.num_workers)
    trainer.clock.synchronize = True
    trainer.model.train()
    with contextlib.closing(batches):
        _steps(trainer, batches, warm_up)
        trainer.clock.spent.clear()
        seconds = _steps(trainer, batches, steps)
        phases = {phase: spent / steps for phase, spent in trainer.clock.spent.items()}
        alone = None
        if world_size() > 1:
            with trainer.no_sync():
                alone = statistics.median(_steps(trainer, batches, steps))
    median = statistics.median(seconds)
    return {
        "seconds_per_step": median,
        "fastest": min(seconds),
        "slowest": max(seconds),
        "images_per_second": options.total_batch_size / median,
        "phases": phases,
        "reader_share": phases["data"] * steps / sum(seconds),
        "communication_share": None if alone is None else max(0.0, 1 - alone / median),
        "peak_mib": peak_memory() / 2**20,
    }


def _steps(trainer: Trainer, batches: Iterator[dict], count: int) -> list[float]:
    """Seconds of each of the next steps."""
    seconds = []
    for _ in range(count):
        begin = time.perf_counter()
        trainer.run_iteration(batches)
        trainer.take_mean_losses()
        seconds.append(time.perf_counter() - begin)
    return seconds
