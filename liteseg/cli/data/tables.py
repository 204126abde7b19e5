"""The options and text tables that `data check` and `data stats` share."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from liteseg.cli.arguments import SPLITS, add_config, add_json, check_json, positive

if TYPE_CHECKING:  # it loads Paddle
    from liteseg.tasks.data import DataReport

_SHOWN_SIZES = 5


def add_options(parser: argparse.ArgumentParser, json_content: str) -> None:
    """Declare the options of both commands."""
    add_config(parser)
    parser.add_argument(
        "--split", choices=(*SPLITS, "all"), default="all", help="split to read (default: all)"
    )
    add_json(parser, json_content)
    parser.add_argument(
        "--page",
        metavar="FILE.html",
        help="write the tables, and samples drawn by class, to a page (default: none)",
    )
    parser.add_argument(
        "--sample",
        type=positive,
        metavar="N",
        help="read N images per split, evenly spread (default: all)",
    )
    parser.add_argument(
        "--workers", type=positive, metavar="N", help="threads (default: one per core)"
    )


def checked_data(args: argparse.Namespace) -> DataReport:
    """The report on the data of the parsed options."""
    from liteseg.tasks.data import check_data

    check_json(args)
    return check_data(
        args.config,
        overrides=args.overrides,
        split=args.split,
        sample=args.sample,
        workers=args.workers,
        page=args.page,
    )


def describe(report: Mapping[str, Any], title: str) -> list[str]:
    """Lines on the images of a split: sizes, classes, objects by size, and colors."""
    sizes = sorted(report["sizes"].items(), key=lambda item: -item[1])
    shown = ", ".join(f"{size} ({count})" for size, count in sizes[:_SHOWN_SIZES])
    hidden = len(sizes) - _SHOWN_SIZES
    more = f" and {hidden} more sizes" if hidden > 0 else ""
    width = max(len(name) for name in (*report["classes"], "(ignored)"))
    found = f": {shown}{more}" if sizes else ""
    lines = [f"{title}: {report['checked']} of {report['images']} images checked{found}"]
    if report["histogram"]:  # a label was readable
        lines.append(f"  {'class':{width}}  {'pixels':>14}  share    images  weight")
        for name, row in report["classes"].items():
            lines.append(
                f"  {name:{width}}  {row['pixels']:>14,}  {row['frequency']:7.3%}"
                f"  {row['images']:>6}  {row['weight']:6.3f}"
            )
        lines.append(f"  {'(ignored)':{width}}  {report['ignored']:>14,}")
        lines.append(
            "  weight: the class weights of a loss with `weight: auto` on the training set"
        )
    if report["histogram"] and "objects" in report:
        lines.append(
            f"  {'objects':{width}}  {'small':>8} {'medium':>8} {'large':>8}  typical share"
        )
        for name, counts in report["objects"].items():
            share = report["typical_share"][name]
            columns = " ".join(f"{count:>8,}" for count in counts.values())
            lines.append(f"  {name:{width}}  {columns}  {'-' if share is None else f'{share:.2%}'}")
        lines.append(
            "  small: below 0.1% of the image, medium: below 1%; typical: median of the images "
            "that contain the class"
        )
    if sizes and (colors := report.get("normalize")):
        values = ", ".join(f"{key}: {value}" for key, value in colors.items())
        lines.append(f"  colors: {{type: Normalize, {values}}}")
    return lines
