"""Compare models on the same images: is the difference real?"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Sequence
from typing import Any, Optional

from liteseg.cli.arguments import (
    SPLITS,
    add_config,
    add_device,
    add_json,
    check_json,
    complete,
    not_negative,
    save_json,
)
from liteseg.utils.text import decimal, joined


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `liteseg compare`."""
    parser.add_argument(
        "entries",
        nargs="+",
        metavar="ENTRY",
        help="two or more; the first is compared with each other one. A run, weights, an exported "
        "model, a JSON file of `liteseg eval`, or a folder of predictions; several, separated by "
        "commas: trainings of one config with different seeds",
    )
    add_config(parser, optional="config.yml of each run")
    parser.add_argument(
        "--split",
        choices=SPLITS,
        default="val",
        help="split on which networks are evaluated (default: val)",
    )
    parser.add_argument(
        "--labels", metavar="DIR", help="labels of folders of predictions (default: none)"
    )
    parser.add_argument(
        "--classes",
        metavar="FILE",
        help="of folders of predictions: a line for each class, its name or `red green blue name` "
        "(default: as of liteseg eval)",
    )
    parser.add_argument(
        "--unit",
        choices=("auto", "sequences", "images"),
        default="auto",
        help="what counts as an independent draw in the intervals; auto: sequences where they are "
        "known (default: auto)",
    )
    parser.add_argument(
        "--sequence",
        metavar="REGEX",
        help="the sequence of an image: the first group of this expression in its name (default: "
        "city and sequence of Cityscapes, prefix of CamVid)",
    )
    parser.add_argument(
        "--images",
        type=not_negative,
        default=5,
        metavar="N",
        help="images that became better, and worse, to print (default: 5)",
    )
    add_json(parser, "the comparison")
    parser.add_argument(
        "--page", metavar="FILE", help="write the comparison as an HTML page (default: no file)"
    )
    add_device(parser)
    complete(
        parser,
        "liteseg compare output/base output/wide",
        "liteseg compare base1.json,base2.json,base3.json wide1.json,wide2.json,wide3.json",
        "liteseg compare masks/a masks/b --labels labels --classes classes.txt --page compare.html",
    )


def run(args: argparse.Namespace) -> int:
    """Compare, print the tables, write the requested files."""
    from liteseg.tasks.compare import compare

    check_json(args)
    comparison = compare(
        args.entries,
        labels=args.labels,
        classes=args.classes,
        cfg=args.config,
        overrides=args.overrides,
        split=args.split,
        sequence=args.sequence,
        unit=args.unit,
        device=args.device,
        trust_plugins=args.trust_plugins,
        page=args.page,
    )
    print(format_comparison(comparison, args.images))
    save_json(args, comparison.as_json())
    return 0


def format_comparison(comparison: Any, shown: int = 5) -> str:
    """A comparison as text, with `shown` images of each direction."""
    lines = []
    for entry in comparison.entries:
        miou = entry.miou
        found = f"mIoU {decimal(miou.value)}"
        if miou.interval:
            found += " [{:.4f}, {:.4f}]".format(*miou.interval)
        if len(entry.sources) > 1:
            found += f", {len(entry.sources)} runs, standard deviation {decimal(miou.deviation)}"
        lines.append(f"{entry.letter}  {found}  {', '.join(entry.sources)}")
    for pair in comparison.pairs:
        name = pair.letter
        rows = [*comparison.headline_rows(pair), None, *comparison.class_rows(pair)]
        lines += ["", *_table(f"{name} minus A", name, rows)]
        for word, images in zip(("better", "worse"), pair.most_moved(shown)):
            if images:
                lines.append(f"images where {name} is {word}, mIoU of the image:")
            lines += [
                f"  {image.difference:+.4f}  {image.first:.4f} to {image.second:.4f}  {image.name}"
                for image in images
            ]
    for sentence in comparison.caveats:
        lines += ["", *textwrap.wrap(sentence, 88)]
    return joined(lines)


def _table(title: str, name: str, rows: Sequence[Optional[Any]]) -> list[str]:
    width = max(len(title), *(len(row.name) for row in rows if row))
    lines = [f"{title:{width}}       A       {name}    change  95 % interval"]
    for row in rows:
        if row is None:
            lines.append(f"{'class IoU':{width}}")
            continue
        change = "-" if row.difference is None else f"{row.difference:+.4f}"
        ends = "[{:+.4f}, {:+.4f}]".format(*row.interval) if row.interval else "-"
        lines.append(
            f"{row.name:{width}}  {decimal(row.first):>6}  {decimal(row.second):>6}  {change:>8}  "
            f"{ends:18}  {row.verdict}"
        )
    return lines
