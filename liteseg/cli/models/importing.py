"""`liteseg models import`: weights from a PyTorch file."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

from liteseg.cli.arguments import add_json, check_json, complete, save_json

ARCHITECTURES = ("stdc1", "stdc2", "pp_liteseg_t", "pp_liteseg_b")


def add_arguments(actions: Any) -> None:
    """Declare the options of `liteseg models import`."""
    parser = actions.add_parser("import", help="convert a PyTorch file, without PyTorch")
    parser.add_argument(
        "file",
        metavar="FILE",
        type=Path,
        help="checkpoint of STDC (MichaelFan01/STDC-Seg) or of super-gradients (required)",
    )
    parser.add_argument(
        "--as",
        dest="architecture",
        choices=ARCHITECTURES,
        required=True,
        help="an encoder, or super-gradients' PP-LiteSeg (required)",
    )
    parser.add_argument(
        "--output", metavar="W", type=Path, required=True, help="the .pdparams file (required)"
    )
    add_json(parser, "what became of each key")
    complete(
        parser, "liteseg models import STDCNet813M_73.9.tar --as stdc1 --output stdc1.pdparams"
    )


def run(args: argparse.Namespace) -> int:
    """Convert the file, and print what became of its keys."""
    from liteseg.tasks.torch_import import import_torch

    check_json(args)
    report = import_torch(args.file, args.architecture, args.output)
    print(f"{args.output}: {len(report.mapped)} arrays from {args.file} {report.state}".rstrip())
    for title, keys in (("converted", report.changed), ("not used", report.skipped)):
        for reason, count in Counter(keys.values()).items():
            first = next(key for key, value in keys.items() if value == reason)
            print(f"  {title}: {count} ({first}{', …' * (count > 1)}): {reason}")
    if report.initialized:
        first, count = report.initialized[0], len(report.initialized)
        print(f"  not in the file: {count} ({first}, …): training heads of a new network")
    print("The config for these weights, with the padding and normalization of the original:")
    for line in report.config:
        print(f"  {line}")
    save_json(args, vars(report))
    return 0
