"""`liteseg data check`: read every image and label, and report errors and warnings."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from liteseg.cli.arguments import complete, save_json
from liteseg.cli.data.tables import add_options, checked_data, describe
from liteseg.errors import grouped_errors
from liteseg.utils.text import joined, safe

_SHOWN_ERRORS = 10


def add_arguments(actions: Any) -> None:
    """Declare the action and its options."""
    parser = actions.add_parser(
        "check", help="read every image and label; report what would break or impair training"
    )
    add_options(parser, "the whole report")
    complete(parser, "liteseg data check --config my.yml")


def run(args: argparse.Namespace) -> int:
    """Check and print the report; 2 if there are errors."""
    report = checked_data(args)
    for error in report.errors:
        print(safe(f"{error['file']}: error: {error['problem']}"))
    for split, found in report.splits.items():
        print(format_report(found, split))
    print_duplicates(report.duplicates)
    if report.similar:
        pairs = [f"    {one}  {other}" for one, other in report.similar[:3]]
        count = len(report.similar)
        print(joined([f"warning: {count} pairs of images of two splits look the same:", *pairs]))
    save_json(args, report.as_json())
    return 0 if report.ok else 2


def format_report(report: Mapping[str, Any], title: str = "dataset") -> str:
    """The report of one dataset as text."""
    lines = describe(report, title)
    for value, row in report["outside"].items():
        lines.append(
            f"  value {value} is no class: {row['pixels']:,} pixels in {row['images']} images: "
            f"{', '.join(row['files'])}{', ...' if row['images'] > len(row['files']) else ''}"
        )
    lines += [f"  warning: {warning}" for warning in report["warnings"]]
    errors = report["errors"]
    kinds = grouped_errors(errors)
    lines += [f"  error: {problem}" for problem in kinds[:_SHOWN_ERRORS]]
    if len(kinds) > _SHOWN_ERRORS:
        lines.append(f"  ... and {len(kinds) - _SHOWN_ERRORS} more kinds (--json lists all)")
    lines.append(f"  {len(errors)} errors, {len(report['warnings'])} warnings")
    return joined(lines)


def print_duplicates(groups: Sequence[Sequence[str]]) -> None:
    """Warn about images that are in several splits, and about those that are twice in one."""
    across = [group for group in groups if len({entry.partition(": ")[0] for entry in group}) > 1]
    within = [group for group in groups if group not in across]
    for found, where in ((across, "are in more than one split"), (within, "are twice in a split")):
        if found:
            title = f"warning: {len(found)} images (by content) {where}, the first:"
            print(joined([title, *(f"    {entry}" for entry in found[0])]))
