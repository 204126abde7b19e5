"""List, show, download and pack models: published weights and your own, by name."""

from __future__ import annotations

import argparse

from liteseg.cli.models import download, importing, pack, show

# `list` is also what `liteseg models` alone does.
ACTIONS = {"list": show, "show": show, "download": download, "pack": pack, "import": importing}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the actions and their options."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    parser.set_defaults(action="list", quiet=False, verbose=False)
    for module in dict.fromkeys(ACTIONS.values()):
        module.add_arguments(actions)


def run(args: argparse.Namespace) -> int:
    """Run the chosen action."""
    return ACTIONS[args.action].run(args)
