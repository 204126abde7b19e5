"""Measure the cost of a network, data loading, training, evaluation and exported models."""

from __future__ import annotations

import argparse

from liteseg.cli.bench import data, eval, infer, model, train

ACTIONS = {"model": model, "data": data, "train": train, "eval": eval, "infer": infer}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the actions and their options."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for module in ACTIONS.values():
        module.add_arguments(actions)


def run(args: argparse.Namespace) -> int:
    """Run the chosen action."""
    return ACTIONS[args.action].run(args)
