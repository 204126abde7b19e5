"""Train a model from a config, or resume an interrupted run."""

from __future__ import annotations

import argparse

from liteseg.cli.arguments import add_config, complete, positive


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `liteseg train`."""
    add_config(parser, optional="with --resume, config.yml of the run")
    parser.add_argument(
        "--output", metavar="DIR", help="run directory (default: output/<name of the config>)"
    )
    parser.add_argument(
        "--devices",
        type=int,
        default=1,
        metavar="N",
        help="number of processes: one per GPU, or CPU processes without a GPU (default: 1)",
    )
    parser.add_argument(
        "--resume",
        nargs="?",
        const=True,
        default=False,
        metavar="DIR",
        help="resume the run in DIR (default: in --output), or from DIR, one of its checkpoints",
    )
    parser.add_argument(
        "--weights",
        metavar="W",
        help="weights file, archive, URL or run directory to start from (fine-tuning; default: "
        "random weights, and those that `pretrained` in the config names)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        metavar="N",
        help="random seed for initialization, shuffling and augmentation (default: the config's)",
    )
    parser.add_argument(
        "--deterministic", action="store_true", help="the same as --set deterministic=true"
    )
    parser.add_argument(
        "--compare-weights",
        type=positive,
        metavar="N",
        help="for debugging: check every N iterations that all processes have the same weights "
        "(default: never)",
    )
    complete(
        parser,
        "liteseg train --config my.yml --output output/my",
        "liteseg train --config my.yml --weights output/my --output output/fine_tuned",
        "liteseg train --resume output/my",
        "liteseg train --config quickstart --output output/quickstart",
    )


def run(args: argparse.Namespace) -> int:
    """Train; the log has the results, and with --quiet they are printed."""
    from liteseg.tasks.train import train

    seed = [] if args.seed is None else [f"seed={args.seed}"]
    deterministic = ["deterministic=true"] if args.deterministic else []
    result = train(
        args.config,
        overrides=[*args.overrides, *seed, *deterministic],
        output=args.output,
        resume=args.resume,
        weights=args.weights,
        devices=args.devices,
        compare_weights=args.compare_weights,
    )
    if args.quiet:
        best = "never evaluated"
        if result.best_miou is not None:
            best = f"best mIoU {result.best_miou:.4f} at iteration {result.best_iteration}"
        print(f"{result.output}: {result.iteration} iterations, {best}")
    return 0
