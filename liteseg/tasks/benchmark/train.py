"""Benchmark of training: the time of an iteration by phase, data loading, communication, memory."""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Optional

from liteseg.config.build import build_dataset
from liteseg.config.check import AnyConfig, load_checked
from liteseg.engine.loader import TrainingOrder, training_batches
from liteseg.engine.trainer import Trainer
from liteseg.tasks.launch import launch
from liteseg.tasks.train import build_trainer, set_up_device
from liteseg.utils.runtime import peak_memory, world_size


@dataclass(frozen=True)
class TrainBenchmark:
    """The speed of training; the JSON fields call an iteration a step.

    Attributes:
        config: file of the config.
        device: cpu or gpu.
        processes: number of processes.
        num_workers: worker processes of each process.
        total_batch_size: images per iteration over all processes.
        seconds_per_step: median over the iterations.
        fastest, slowest: seconds.
        images_per_second: over all processes.
        phases: {phase: mean seconds per iteration}.
        reader_share: share of the time spent waiting for data.
        communication_share: share of the exchange of gradients; None for one process.
        peak_mib: peak memory of a process: of the GPU if it uses one, else main memory.
    """

    config: str
    device: str
    processes: int
    num_workers: int
    total_batch_size: int
    seconds_per_step: float
    fastest: float
    slowest: float
    images_per_second: float
    phases: dict[str, float]
    reader_share: float
    communication_share: Optional[float]
    peak_mib: float

    def as_json(self) -> dict[str, Any]:
        """The content of `liteseg bench train --json`."""
        return asdict(self)


def benchmark_training(
    cfg: AnyConfig,
    *,
    overrides: Sequence[str] = (),
    iterations: int = 10,
    warm_up: int = 3,
    devices: int = 1,
) -> TrainBenchmark:
    """Measure the training iterations of a config.

    Args:
        cfg: a YAML file, the name of a shipped config, or a loaded config.
        overrides: `key=value` changes of the config.
        iterations: number of iterations to measure.
        warm_up: iterations before them.
        devices: number of processes.

    Raises:
        UserError: the config or the data has errors.
    """
    cfg = load_checked(cfg, overrides)
    if devices > 1 and world_size() == 1:
        arguments = {
            "cfg": cfg.source,
            "iterations": iterations,
            "warm_up": warm_up,
            "devices": devices,
        }
        with tempfile.TemporaryDirectory(prefix="liteseg-bench-") as logs:
            return launch(
                benchmark_training,
                arguments,
                devices=devices,
                device=cfg.device,
                logs=Path(logs),
                name="bench",
            )
    device = set_up_device(cfg)
    trainer = build_trainer(cfg, build_dataset(cfg, "train"), device, pretrained=False)
    options = trainer.options
    return TrainBenchmark(
        config=str(cfg.path),
        device=device,
        processes=world_size(),
        num_workers=options.num_workers,
        total_batch_size=options.total_batch_size,
        **measure_iterations(trainer, iterations, warm_up),
    )


def measure_iterations(trainer: Trainer, iterations: int, warm_up: int) -> dict[str, Any]:
    """Time training iterations as `Trainer.run` executes them.

    With several processes every process must call it. The iterations are then repeated without
    the exchange of gradients; the difference is the cost of communication.

    Returns:
        The fields of `TrainBenchmark` from `seconds_per_step` on.
    """
    options = trainer.options
    count = warm_up + iterations * (2 if world_size() > 1 else 1)
    order = TrainingOrder(
        len(trainer.dataset), options.batch_size, options.accumulate, options.seed, 0, count
    )
    batches = training_batches(trainer.dataset, order, options.num_workers)
    trainer.clock.synchronize = True
    trainer.model.train()
    with contextlib.closing(batches):
        _time_iterations(trainer, batches, warm_up)
        trainer.clock.spent.clear()
        seconds = _time_iterations(trainer, batches, iterations)
        phases = {phase: spent / iterations for phase, spent in trainer.clock.spent.items()}
        local = None
        if world_size() > 1:
            with trainer.no_sync():
                local = statistics.median(_time_iterations(trainer, batches, iterations))
    median = statistics.median(seconds)
    return {
        "seconds_per_step": median,
        "fastest": min(seconds),
        "slowest": max(seconds),
        "images_per_second": options.total_batch_size / median,
        "phases": phases,
        "reader_share": phases["data"] * iterations / sum(seconds),
        "communication_share": None if local is None else max(0.0, 1 - local / median),
        "peak_mib": peak_memory() / 2**20,
    }


def _time_iterations(trainer: Trainer, batches: Iterator[dict], count: int) -> list[float]:
    """Seconds of each of the next iterations."""
    seconds = []
    for _ in range(count):
        begin = time.perf_counter()
        trainer.run_iteration(batches)
        trainer.take_mean_losses()
        seconds.append(time.perf_counter() - begin)
    return seconds
