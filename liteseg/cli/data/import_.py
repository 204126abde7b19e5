"""`liteseg data import`: annotations of other tools as a dataset with its config."""

from __future__ import annotations

import argparse
from typing import Any

from liteseg.cli.arguments import complete
from liteseg.utils.text import safe

FORMATS = ("auto", "labelme", "coco", "cvat", "voc", "yolo")


def add_arguments(actions: Any) -> None:
    """Declare the action and its options."""
    parser = actions.add_parser(
        "import", help="turn annotations of labelme, COCO, CVAT, VOC or YOLO into a dataset"
    )
    parser.add_argument("source", metavar="SOURCE", help="file or folder of the annotations")
    parser.add_argument(
        "--output", required=True, metavar="DIR", help="new folder of the dataset (required)"
    )
    parser.add_argument(
        "--format", choices=FORMATS, default="auto", help="format of SOURCE (default: auto)"
    )
    parser.add_argument(
        "--split",
        metavar="SHARES",
        help="shares of train, val and test, such as 80,10,10 (default: the splits of SOURCE, or "
        "80,20)",
    )
    parser.add_argument(
        "--group-by",
        metavar="REGEX",
        help="images whose paths have the same match stay in one split, such as one drive "
        "(default: every image alone)",
    )
    parser.add_argument(
        "--classes",
        metavar="FILE",
        help="YAML with lines `label: class`, to rename, merge, `ignore` or `drop` labels "
        "(default: every label is a class)",
    )
    parser.add_argument(
        "--images", metavar="DIR", help="folder of the images (default: next to the annotations)"
    )
    parser.add_argument(
        "--unlabeled",
        metavar="CLASS",
        default="background",
        help="class of pixels without a shape, or `ignore` (default: background)",
    )
    parser.add_argument(
        "--link", action="store_true", help="write links to the images instead of copies"
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="random seed of the splits (default: 0)"
    )
    complete(parser, "liteseg data import annotations/ --output data/mine --split 80,20")


def run(args: argparse.Namespace) -> int:
    """Import, and print the classes and splits."""
    from liteseg.tasks.data_import import import_data

    result = import_data(
        args.source,
        args.output,
        format=args.format,
        split=args.split,
        group_by=args.group_by,
        classes=args.classes,
        images=args.images,
        unlabeled=args.unlabeled,
        link=args.link,
        seed=args.seed,
    )
    for split, count in result.images.items():
        groups = f" in {result.groups[split]} groups" if args.group_by else ""
        print(f"{split}: {count} images{groups}")
    print(safe(f"{len(result.classes)} classes: {', '.join(result.classes)}"))
    print(safe(f"train with  liteseg train --config {result.config}"))
    return 0
