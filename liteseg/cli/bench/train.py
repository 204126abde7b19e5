"""`liteseg bench train`: the time of a config's training iteration, by phase."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from liteseg.cli.arguments import add_config, add_json, check_json, complete, positive, save_json
from liteseg.utils.text import joined

if TYPE_CHECKING:
    from liteseg.tasks.benchmark.train import TrainBenchmark


def add_arguments(actions: Any) -> None:
    """Declare the action and its options."""
    parser = actions.add_parser(
        "train", help="time of a training iteration by phase, time spent waiting for data, memory"
    )
    add_config(parser)
    parser.add_argument(
        "--steps",
        type=positive,
        default=10,
        metavar="N",
        help="iterations to measure (default: 10)",
    )
    parser.add_argument(
        "--warm-up",
        type=positive,
        default=3,
        metavar="N",
        help="iterations before the measured ones (default: 3)",
    )
    parser.add_argument(
        "--devices", type=positive, default=1, metavar="N", help="number of processes (default: 1)"
    )
    add_json(parser)
    complete(parser, "liteseg bench train --config quickstart")


def run(args: argparse.Namespace) -> int:
    """Measure, print the table, write the JSON file."""
    from liteseg.tasks.benchmark.train import benchmark_training

    check_json(args)
    result = benchmark_training(
        args.config,
        overrides=args.overrides,
        iterations=args.steps,
        warm_up=args.warm_up,
        devices=args.devices,
    )
    print(format_table(result))
    save_json(args, result.as_json())
    return 0


def format_table(result: TrainBenchmark) -> str:
    """A row for each phase, and the rates."""
    total = sum(result.phases.values())
    lines = [f"{'phase':9}  ms per iteration  share"]
    lines += [
        f"{name:9}  {1000 * s:>16.1f}  {s / total:>5.0%}" for name, s in result.phases.items()
    ]
    lines.append(
        f"{result.seconds_per_step:.3f} s per iteration ({result.fastest:.3f} to "
        f"{result.slowest:.3f}), {result.images_per_second:.2f} images/s in {result.processes} "
        f"{result.device} process(es), {result.total_batch_size} images per iteration"
    )
    if result.communication_share is not None:
        lines.append(f"exchange of gradients: {result.communication_share:.0%} of an iteration")
    lines.append(
        f"waiting for the {result.num_workers} worker process(es): {result.reader_share:.0%}; "
        f"peak memory {result.peak_mib:.0f} MiB per process"
    )
    return joined(lines)
