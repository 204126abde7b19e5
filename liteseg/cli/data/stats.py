"""`liteseg data stats`: the tables of `data check`, without errors and warnings."""

from __future__ import annotations

import argparse
from typing import Any

from liteseg.cli.arguments import complete, save_json
from liteseg.cli.data.tables import add_options, checked_data, describe
from liteseg.utils.text import joined


def add_arguments(actions: Any) -> None:
    """Declare the action and its options."""
    parser = actions.add_parser(
        "stats", help="sizes, classes, objects by size, and the mean and deviation of the colors"
    )
    add_options(parser, "all numbers")
    complete(parser, "liteseg data stats --config my.yml --page data.html")


def run(args: argparse.Namespace) -> int:
    """Print the tables."""
    report = checked_data(args)
    for split, found in report.splits.items():
        lines = describe(found, split)
        if found["errors"]:
            lines.append(f"  {len(found['errors'])} samples with errors: see `data check`")
        print(joined(lines))
    save_json(args, report.as_json())
    return 0
