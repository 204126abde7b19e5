"""Check a dataset before training, import annotations, pack it, or generate Streets."""

from __future__ import annotations

import argparse

from liteseg.cli.data import check, import_, pack, stats, streets, suspects

ACTIONS = {
    "check": check,
    "import": import_,
    "pack": pack,
    "stats": stats,
    "streets": streets,
    "suspects": suspects,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the actions and their options."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for module in ACTIONS.values():
        module.add_arguments(actions)


def run(args: argparse.Namespace) -> int:
    """Run the chosen action."""
    return ACTIONS[args.action].run(args)
