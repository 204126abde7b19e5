"""Benchmark of evaluation: images per second, the time by phase, memory."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Optional

import numpy as np

from liteseg.config.check import AnyConfig, load_checked
from liteseg.tasks.eval_result import DEFAULT_BOUNDARY, EvalOutput
from liteseg.tasks.evaluate import Evaluation, prepare
from liteseg.tasks.runs import Weights
from liteseg.utils.runtime import peak_memory

_ROUNDS = 3
PHASES = ("data", "network", "counting")


@dataclass(frozen=True)
class EvalBenchmark:
    """The speed of an evaluation.

    Attributes:
        config: file of the config.
        device: cpu or gpu.
        batch_size: images per forward pass.
        num_workers: worker processes; 0 is a thread.
        images: number of images.
        images_per_second: over the whole evaluation.
        seconds: of the whole evaluation.
        phases: {phase: seconds}: waiting for `data`, `network` with arg-max, `counting`.
        peak_mib: peak memory: of the GPU if it is used, else main memory.
        images_ratio: `seconds`, and `cpu_seconds` of all threads, with the metrics of every image,
            boundaries and intervals, over those of the plain evaluation; None: not measured.
    """

    config: str
    device: str
    batch_size: int
    num_workers: int
    images: int
    images_per_second: float
    seconds: float
    phases: dict[str, float]
    peak_mib: float
    images_ratio: Optional[dict[str, float]] = None

    def as_json(self) -> dict[str, Any]:
        """The content of `liteseg bench eval --json`."""
        return asdict(self)


def benchmark_evaluation(
    cfg: AnyConfig,
    weights: Optional[Weights] = None,
    *,
    overrides: Sequence[str] = (),
    split: str = "val",
    images: Optional[int] = None,
    batch_size: Optional[int] = None,
    num_workers: Optional[int] = None,
    per_image: bool = False,
) -> EvalBenchmark:
    """Measure an evaluation. Arguments as in `liteseg.evaluate`, except for:

    Args:
        weights: random weights by default.
        images: number of images, repeated if there are fewer; by default each one once.
        per_image: also measure `images_ratio`, by the fastest of `_ROUNDS` evaluations of each
            kind, in turn.

    Raises:
        UserError: the config or the data has errors, or the weights do not fit.
    """
    setup = prepare(load_checked(cfg, overrides), weights, split, batch_size, num_workers)
    if images:
        samples = setup.dataset.samples
        setup.dataset.samples = [samples[i % len(samples)] for i in range(images)]
    found = setup.run()
    return EvalBenchmark(
        config=str(setup.cfg.path),
        device=setup.device,
        batch_size=setup.batch_size,
        num_workers=setup.num_workers,
        images=found["images"],
        images_per_second=found["images_per_second"],
        seconds=found["seconds"],
        phases={phase: found["timings"].get(phase, 0.0) for phase in PHASES},
        peak_mib=peak_memory() / 2**20,
        images_ratio=_images_ratio(setup) if per_image else None,
    )


def _images_ratio(setup: Evaluation) -> dict[str, float]:
    times = []
    for _ in range(_ROUNDS):
        evaluator: Any = EvalOutput(boundary=DEFAULT_BOUNDARY).evaluator(setup.dataset)
        for evaluators in ([], [evaluator]):
            begin = time.process_time()
            seconds = setup.run(evaluators)["seconds"]
            times.append((seconds, time.process_time() - begin))
    plain, counted = np.min(times[::2], axis=0), np.min(times[1::2], axis=0)
    return dict(zip(("seconds", "cpu_seconds"), (counted / plain).tolist()))
