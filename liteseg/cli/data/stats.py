"""`liteseg data stats`: the tables of `data check`, without errors and warnings."""

from __future__ import annotations

import argparse
from typing import Any

from liteseg.cli.arguments import (
    SPLITS,
    add_config,
    add_json,
    check_json,
    complete,
    positive,
    save_json,
)
from liteseg.cli.data.tables import add_page, describe
from liteseg.utils.text import joined


def add_arguments(actions: Any) -> None:
    """Declare the action and its options."""
    parser = actions.add_parser(
        "stats", help="sizes, classes, objects by size, and the mean and deviation of the colors"
    )
    add_config(parser)
    parser.add_argument(
        "--split", choices=(*SPLITS, "all"), default="all", help="split to read (default: all)"
    )
    add_json(parser, "all numbers")
    add_page(parser)
    parser.add_argument(
        "--sample",
        type=positive,
        metavar="N",
        help="read N images per split, evenly spread (default: all)",
    )
    parser.add_argument(
        "--workers", type=positive, metavar="N", help="threads (default: one per core)"
    )
    complete(parser, "liteseg data stats --config my.yml --page data.html")


def run(args: argparse.Namespace) -> int:
    """Print the tables."""
    from liteseg.tasks.data import check_data

    check_json(args)
    report = check_data(
        args.config,
        overrides=args.overrides,
        split=args.split,
        sample=args.sample,
        workers=args.workers,
        page=args.page,
    )
    for split, found in report.splits.items():
        lines = describe(found, split)
        if found["errors"]:
            lines.append(f"  {len(found['errors'])} samples with errors: see `data check`")
        print(joined(lines))
    save_json(args, report.as_json())
    return 0
