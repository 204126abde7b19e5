"""`liteseg data streets`: generate the synthetic Streets dataset."""

from __future__ import annotations

import argparse
from typing import Any

from liteseg.cli.arguments import complete, positive
from liteseg.utils.text import safe


def add_arguments(actions: Any) -> None:
    """Declare the action and its options."""
    parser = actions.add_parser("streets", help="generate the synthetic Streets dataset")
    parser.add_argument(
        "--output", required=True, metavar="DIR", help="folder of the dataset (required)"
    )
    for split, count in (("train", 200), ("val", 50)):
        parser.add_argument(
            f"--{split}",
            type=positive,
            default=count,
            metavar="N",
            help=f"number of {split} images (default: {count})",
        )
    parser.add_argument(
        "--size",
        type=positive,
        nargs=2,
        default=(512, 256),
        metavar=("W", "H"),
        help="pixels of the images (default: 512 256)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="random seed of the scenes (default: 0)"
    )
    complete(parser, "liteseg data streets --output data/streets")


def run(args: argparse.Namespace) -> int:
    """Generate the images."""
    from liteseg.tasks.data import make_streets

    size = tuple(args.size)
    root = make_streets(args.output, train=args.train, val=args.val, size=size, seed=args.seed)
    print(safe(f"Streets: {args.train} train and {args.val} val images in {root}"))
    return 0
