"""`liteseg bench eval`: the speed of a config's evaluation, and its time by phase."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from liteseg.cli.arguments import (
    SPLITS,
    add_config,
    add_json,
    add_loading,
    add_weights,
    check_json,
    complete,
    positive,
    save_json,
)
from liteseg.utils.text import joined

if TYPE_CHECKING:
    from liteseg.tasks.benchmark.evaluate import EvalBenchmark


def add_arguments(actions: Any) -> None:
    """Declare the action and its options."""
    parser = actions.add_parser(
        "eval", help="images per second of an evaluation, its time by phase, memory"
    )
    add_config(parser)
    add_weights(parser, "default: random weights")
    parser.add_argument(
        "--split", choices=SPLITS, default="val", help="split to evaluate (default: val)"
    )
    parser.add_argument(
        "--images",
        type=positive,
        metavar="N",
        help="number of images, repeated if there are fewer (default: each one once)",
    )
    parser.add_argument(
        "--per-image",
        action="store_true",
        help="also measure the cost of the metrics of every image, boundaries and intervals, which "
        "liteseg eval computes (default: do not)",
    )
    add_loading(parser)
    add_json(parser)
    complete(parser, "liteseg bench eval --config quickstart --images 20")


def run(args: argparse.Namespace) -> int:
    """Evaluate, print the table, write the JSON file."""
    from liteseg.tasks.benchmark.evaluate import benchmark_evaluation

    check_json(args)
    result = benchmark_evaluation(
        args.config,
        args.weights,
        overrides=args.overrides,
        split=args.split,
        images=args.images,
        batch_size=args.batch_size,
        num_workers=args.num_workers,
        per_image=args.per_image,
    )
    print(format_table(result))
    save_json(args, result.as_json())
    return 0


def format_table(result: EvalBenchmark) -> str:
    """A row for each phase, and the rates."""
    images, total = max(result.images, 1), max(result.seconds, 1e-9)
    lines = [f"{'phase':9}  ms per image  share"]
    lines += [
        f"{name:9}  {1000 * s / images:>12.1f}  {s / total:>5.0%}"
        for name, s in result.phases.items()
    ]
    workers = f"{result.num_workers} worker process(es)" if result.num_workers else "a thread"
    lines.append(
        f"{result.images} images in {result.seconds:.1f} s, {result.images_per_second:.2f} images/s"
        f" on {result.device}, batch size {result.batch_size}, loaded by {workers}; "
        f"peak memory {result.peak_mib:.0f} MiB"
    )
    if result.images_ratio is not None:
        lines.append(
            "with the metrics of every image, boundaries and intervals: "
            f"{result.images_ratio['seconds']:.2f} times the seconds, "
            f"{result.images_ratio['cpu_seconds']:.2f} times the processor time"
        )
    return joined(lines)
