"""`liteseg bench model`: parameters, multiply-adds and activation memory of a network, by part."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from liteseg.cli.arguments import add_config, add_json, complete, positive, save_json, size_of
from liteseg.utils.text import joined, safe

if TYPE_CHECKING:
    from liteseg.tasks.benchmark.model import ModelBenchmark


def add_arguments(actions: Any) -> None:
    """Declare the action and its options."""
    parser = actions.add_parser(
        "model", help="parameters, multiply-adds and peak activation memory of evaluation, by part"
    )
    add_config(parser)
    parser.add_argument(
        "--size",
        type=positive,
        nargs=2,
        metavar=("W", "H"),
        help="pixels of the network's input (default: the sliding window; for Cityscapes 2048x1024 "
        "times the largest scale of test_config; else the training crop)",
    )
    add_json(parser)
    complete(parser, "liteseg bench model --config quickstart --size 512 256")


def run(args: argparse.Namespace) -> int:
    """Count, print the table, write the JSON file."""
    from liteseg.tasks.benchmark.model import benchmark_model

    result = benchmark_model(args.config, overrides=args.overrides, size=size_of(args.size))
    width, height = result.size
    print(safe(f"{args.config}: evaluation of one {width}x{height} image in float32"))
    print(format_table(result))
    save_json(args, result.as_json())
    return 0


def format_table(result: ModelBenchmark) -> str:
    """A row for each part, and the total."""
    width = max(len(part.name) for part in result.parts)
    lines = [f"{'part':{width}}  {'output':>15}  parameters  multiply-adds  peak memory"]
    for part in (*result.parts, result.total):
        output = "x".join(map(str, part.output))
        peak = f"{part.peak_bytes / 2**20:.1f} MiB" if part.peak_bytes else "-"
        lines.append(
            f"{part.name:{width}}  {output:>15}  {part.parameters / 1e6:>8.4f} M  "
            f"{part.multiply_adds / 1e9:>11.4f} G  {peak:>11}"
        )
    lines.append(
        "parameters: with batch norm's statistics, without layers that only train; multiply-adds: "
        "of convolutions,\n  linear layers (a bias is one) and batch norm (one per value); peak "
        "memory: most bytes of features held\n  at once while the part ran"
    )
    return joined(lines)
