"""`liteseg models pack`: trained weights for others, in one folder or archive."""

from __future__ import annotations

import argparse
from typing import Any

from liteseg.cli.arguments import add_config, complete


def add_arguments(actions: Any) -> None:
    """Declare the action and its options."""
    parser = actions.add_parser(
        "pack", help="write weights, config, metrics and a model card as one folder or archive"
    )
    parser.add_argument(
        "weights", metavar="RUN", help="a run (its best checkpoint), or other weights (required)"
    )
    parser.add_argument(
        "--output",
        required=True,
        metavar="PATH",
        help="a folder, or a file .tar.gz, .tar or .zip; replaces an earlier pack (required)",
    )
    parser.add_argument(
        "--name", metavar="NAME", help="name of the model (default: that of --output)"
    )
    parser.add_argument(
        "--metrics",
        metavar="FILE",
        help="metrics for the model card, of `liteseg eval --json` (default: those of the "
        "validation in the run)",
    )
    parser.add_argument(
        "--index",
        action="store_true",
        help="list the archive in the index.json of its folder, for LITESEG_ZOO",
    )
    add_config(parser, optional="config.yml of the run")
    complete(
        parser,
        "liteseg models pack output/my --output packed/my",
        "liteseg models pack output/my --output zoo/my.tar.gz --index",
    )


def run(args: argparse.Namespace) -> int:
    """Write the pack."""
    from liteseg.tasks.pack import pack_model

    pack = pack_model(
        args.weights,
        args.output,
        cfg=args.config,
        overrides=args.overrides,
        name=args.name,
        metrics=args.metrics,
        index=args.index,
    )
    print(f"{pack.path}: the pack {pack.name}; use it as --weights {pack.path}")
    if pack.listed_in is not None:
        folder = pack.listed_in.parent
        print(f"{pack.listed_in} lists it: with LITESEG_ZOO={folder} its name is enough")
    return 0
