"""`liteseg bench data`: how fast the training samples of a config are loaded."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from liteseg.cli.arguments import add_config, add_json, complete, not_negative, positive, save_json
from liteseg.utils.text import joined

if TYPE_CHECKING:
    from liteseg.tasks.benchmark.data import DataBenchmark


def add_arguments(actions: Any) -> None:
    """Declare the action and its options."""
    parser = actions.add_parser(
        "data", help="time of each stage of a training sample, samples per second of the workers"
    )
    add_config(parser)
    parser.add_argument(
        "--samples", type=positive, default=40, metavar="N", help="samples to measure (default: 40)"
    )
    parser.add_argument(
        "--num-workers",
        type=not_negative,
        metavar="N",
        help="worker processes; 0: a thread (default: as in training)",
    )
    add_json(parser)
    complete(parser, "liteseg bench data --config quickstart")


def run(args: argparse.Namespace) -> int:
    """Measure, print the table, write the JSON file."""
    from liteseg.tasks.benchmark.data import benchmark_data

    result = benchmark_data(
        args.config,
        overrides=args.overrides,
        samples=args.samples,
        num_workers=args.num_workers,
    )
    print(format_table(result))
    save_json(args, result.as_json())
    return 0


def format_table(result: DataBenchmark) -> str:
    """A row for each stage, their total, and the rates."""
    stages = result.milliseconds
    width = max(map(len, stages))
    total = sum(stages.values())
    lines = [f"{'stage':{width}}  ms per sample  share"]
    lines += [f"{name:{width}}  {ms:>13.2f}  {ms / total:>5.0%}" for name, ms in stages.items()]
    lines.append(f"{'total':{width}}  {total:>13.2f}")
    workers = f"{result.num_workers} worker process(es)" if result.num_workers else "a thread"
    lines.append(
        f"{result.samples_per_second_and_core:.1f} samples per second and core; "
        f"{result.samples_per_second:.1f} per second from {workers}"
    )
    return joined(lines)
