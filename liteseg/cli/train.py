"""Train a model from a config, or resume an interrupted run."""

from __future__ import annotations

import argparse

from liteseg.cli.arguments import add_config, complete, not_negative, positive
from liteseg.errors import UserError
from liteseg.utils.runtime import is_main, world_size
from liteseg.utils.text import safe


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
        help="number of processes on this machine: one per GPU, or CPU processes without a GPU "
        "(default: 1)",
    )
    parser.add_argument(
        "--resume",
        nargs="?",
        const=True,
        default=False,
        metavar="DIR",
        help="resume the run in DIR (default: in --output), or from DIR, one of its checkpoints; "
        "auto: resume the run in --output if there is one, else start it",
    )
    _add_nodes(parser)
    parser.add_argument(
        "--weights",
        metavar="W",
        help="weights file, archive, URL, run directory or name of a model to start from "
        "(fine-tuning; default: random weights, and those that `pretrained` in the config names)",
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


def _add_nodes(parser: argparse.ArgumentParser) -> None:
    nodes = parser.add_argument_group("several machines (the same command on each)")
    nodes.add_argument(
        "--nodes",
        metavar="M",
        help="number of machines; MIN:MAX for an elastic training with an etcd master (default: 1)",
    )
    nodes.add_argument(
        "--master",
        metavar="HOST:PORT",
        help="one of them, and a free port there; or etcd://HOST:PORT (required with --nodes)",
    )
    nodes.add_argument(
        "--node-rank",
        type=int,
        metavar="R",
        help="number of this machine, from 0; machine 0 writes the run (default: the master is 0, "
        "the others as they arrive)",
    )
    nodes.add_argument(
        "--max-restarts",
        type=not_negative,
        default=0,
        metavar="N",
        help="after a failure, start again from the last checkpoint up to N times (default: 0)",
    )
    nodes.add_argument(
        "--node-timeout",
        type=positive,
        default=300,
        metavar="SECONDS",
        help="wait for the other machines at most this long (default: 300)",
    )


def run(args: argparse.Namespace) -> int:
    """Train; the log has the results, and with --quiet they are printed."""
    on_nodes = args.nodes not in (None, "1") or args.master or args.max_restarts
    if (on_nodes or args.node_rank is not None) and world_size() == 1:
        return _run_on_nodes(args)
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
    if args.quiet and is_main():
        best = "never evaluated"
        if result.best_miou is not None:
            best = f"best mIoU {result.best_miou:.4f} at iteration {result.best_iteration}"
        print(safe(f"{result.output}: {result.iteration} iterations, {best}"))
    return 0


def _run_on_nodes(args: argparse.Namespace) -> int:
    from liteseg.tasks.nodes import Nodes, run_on_nodes
    from liteseg.tasks.runs import run_directory

    if not (args.nodes and args.master):
        raise UserError(
            "several machines: give both --nodes and --master, or neither of them, --node-rank and "
            "--max-restarts for one machine"
        )
    output, _ = run_directory(args.config, args.output, args.resume)
    wait, restarts = args.node_timeout, args.max_restarts
    nodes = Nodes(args.nodes, args.master, args.node_rank, args.devices, restarts, wait)
    run_on_nodes(args.argv, nodes, output / "launch")
    return 0
