"""`liteseg models download`: fetch models before they are needed."""

from __future__ import annotations

import argparse
from typing import Any

from liteseg.cli.arguments import complete
from liteseg.utils.weights.source import missing, model_of, resolve


def add_arguments(actions: Any) -> None:
    """Declare the action and its options."""
    parser = actions.add_parser("download", help="download models into the cache, and check them")
    parser.add_argument(
        "names", metavar="NAME", nargs="+", help="names or aliases of models (required)"
    )
    complete(parser, "liteseg models download pp_liteseg_t1_cityscapes stdc1_imagenet")


def run(args: argparse.Namespace) -> int:
    """Download each model and print its path."""
    unknown = [name for name in args.names if model_of(name) is None]
    if unknown:  # before any download
        raise missing(unknown[0])
    for name in args.names:
        print(f"{name}: {resolve(name)}")
    return 0
