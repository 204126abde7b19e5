"""`liteseg bench eval`: how fast a config's evaluation is, and what it waits for."""

from __future__ import annotations

import argparse
from typing import Any

from liteseg.cli.arguments import changes_of_config, complete, not_negative, positive
from liteseg.cli.eval import SPLITS

PHASES = ("data", "network", "counting")


def add_arguments(actions: Any) -> None:
    """Declare the action among the others of `liteseg bench`."""
    parser = actions.add_parser(
        "eval", help="images a second of an evaluation, its time by phase, memory"
    )
    parser.add_argument(
        "--config", required=True, help="YAML file, or the name of a shipped config"
    )
    parser.add_argument("--weights", help="as for `liteseg eval` (default: random weights)")
    parser.add_argument("--split", choices=SPLITS, default="val")
    parser.add_argument(
        "--images",
        type=positive,
        metavar="N",
        help="as many images, the first ones, over again if there are fewer (default: all, once)",
    )
    parser.add_argument("--batch-size", type=positive, metavar="N", help="images at a time")
    parser.add_argument("--num-workers", type=not_negative, metavar="N", help="reader processes")
    changes_of_config(parser)
    parser.add_argument("--json", metavar="FILE", help="write the figures as JSON")
    complete(parser, "liteseg bench eval --config quickstart --images 20")


def run(args: argparse.Namespace) -> int:
    """Evaluate, print the table, write what was asked for."""
    from pathlib import Path

    from liteseg.cli.eval import evaluated_dataset, loading_options
    from liteseg.config.build import build_model
    from liteseg.config.resolve import load_checked
    from liteseg.engine.evaluator import evaluate
    from liteseg.ops.device import select_device
    from liteseg.utils.files import check_writable, write_json
    from liteseg.utils.runtime import peak_memory
    from liteseg.utils.weights.load import load_weights

    cfg = load_checked(args.config, args.set)
    if args.json:
        check_writable(Path(args.json).parent)
    device = select_device(cfg.device)
    dataset = evaluated_dataset(cfg, args.split)
    if args.images:
        samples = dataset.samples
        dataset.samples = [samples[i % len(samples)] for i in range(args.images)]
    model = build_model(cfg)
    if args.weights:
        load_weights(model, args.weights)
    options = loading_options(args, cfg, device)
    found = evaluate(
        model,
        dataset,
        cfg.test_config,
        **options,
    )
    figures = {
        "config": str(args.config),
        "device": device,
        **options,
        "images": found["images"],
        "images_per_second": found["images_per_second"],
        "seconds": found["seconds"],
        "phases": {phase: found["timings"].get(phase, 0.0) for phase in PHASES},
        "peak_mib": peak_memory() / 2**20,
    }
    print(format_table(figures))
    if args.json:
        write_json(args.json, figures)
    return 0


def format_table(figures: dict[str, Any]) -> str:
    """The figures as text."""
    images, total = max(figures["images"], 1), max(figures["seconds"], 1e-9)
    lines = [f"{'phase':9}  ms an image  share"]
    lines += [
        f"{name:9}  {1000 * s / images:>11.1f}  {s / total:>5.0%}"
        for name, s in figures["phases"].items()
    ]
    readers = figures["num_workers"]
    lines.append(
        f"{figures['images']} images in {figures['seconds']:.1f} s, "
        f"{figures['images_per_second']:.2f} images/s on {figures['device']}, "
        f"{figures['batch_size']} at a time, "
        f"{f'{readers} reader process(es)' if readers else 'a reader thread'}; "
        f"peak memory {figures['peak_mib']:.0f} MiB"
    )
    return "\n".join(lines)
