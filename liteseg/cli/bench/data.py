"""`liteseg bench data`: how fast the training samples of a config can be read."""

from __future__ import annotations

import argparse
from typing import Any

from liteseg.cli.arguments import changes_of_config, complete, not_negative, positive


def add_arguments(actions: Any) -> None:
    """Declare the action among the others of `liteseg bench`."""
    data = actions.add_parser(
        "data", help="time of each stage of a training sample, and samples a second of the readers"
    )
    data.add_argument("--config", required=True, help="YAML file, or the name of a shipped config")
    data.add_argument("--samples", type=positive, default=40, metavar="N", help="to measure")
    data.add_argument(
        "--num-workers", type=not_negative, metavar="N", help="readers (default: as in training)"
    )
    changes_of_config(data)
    data.add_argument("--json", metavar="FILE", help="write the figures as JSON")
    complete(data, "liteseg bench data --config quickstart")


def run(args: argparse.Namespace) -> int:
    """Measure, print the table, write what was asked for."""
    from liteseg.config.build import build_dataset
    from liteseg.config.resolve import load_checked
    from liteseg.ops.device import select_device
    from liteseg.tasks.benchmark_steps import measure_reading, measure_stages
    from liteseg.tasks.training import training_options
    from liteseg.utils.files import write_json

    cfg = load_checked(args.config, args.set)
    dataset = build_dataset(cfg, "train")
    options = training_options(cfg, select_device(cfg.device))
    workers = options.num_workers if args.num_workers is None else args.num_workers
    batches = -(-args.samples // options.batch_size)
    rate = measure_reading(dataset, options.batch_size, workers, batches)
    stages = measure_stages(dataset, args.samples)
    figures = {
        "config": str(args.config),
        "milliseconds": stages,
        "samples_per_second_and_core": 1000 / sum(stages.values()),
        "num_workers": workers,
        "samples_per_second": rate,
    }
    print(format_table(figures))
    if args.json:
        write_json(args.json, figures)
    return 0


def format_table(figures: dict[str, Any]) -> str:
    """The figures as text."""
    stages = figures["milliseconds"]
    width = max(map(len, stages))
    total = sum(stages.values())
    lines = [f"{'stage':{width}}  ms a sample  share"]
    lines += [f"{name:{width}}  {ms:>11.2f}  {ms / total:>5.0%}" for name, ms in stages.items()]
    lines.append(f"{'total':{width}}  {total:>11.2f}")
    workers = figures["num_workers"]
    readers = f"{workers} reader process(es)" if workers else "a reader thread"
    lines.append(
        f"{figures['samples_per_second_and_core']:.1f} samples a second and core; "
        f"{figures['samples_per_second']:.1f} a second from {readers}"
    )
    return "\n".join(lines)
