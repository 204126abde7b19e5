"""`liteseg data pack`: decode a dataset once, for training without decoding."""

from __future__ import annotations

import argparse
from typing import Any

from liteseg.cli.arguments import SPLITS, add_config, complete, positive
from liteseg.utils.text import safe


def add_arguments(actions: Any) -> None:
    """Declare the action and its options."""
    parser = actions.add_parser(
        "pack", help="decode a split into one memory-mapped file, from which training reads faster"
    )
    add_config(parser)
    parser.add_argument(
        "--split", choices=SPLITS, default="train", help="split to pack (default: train)"
    )
    parser.add_argument(
        "--output", metavar="DIR", help="folder of the pack (default: `pack` of the config)"
    )
    parser.add_argument(
        "--workers", type=positive, metavar="N", help="threads (default: one per core)"
    )
    parser.add_argument(
        "--verify", action="store_true", help="read the whole pack and compare the checksums"
    )
    complete(parser, "liteseg data pack --config my.yml --output data/my_pack")


def run(args: argparse.Namespace) -> int:
    """Build, complete or keep the pack, and verify it if requested."""
    from liteseg.tasks.data import pack_data

    pack = pack_data(
        args.config,
        args.output,
        overrides=args.overrides,
        split=args.split,
        workers=args.workers,
        verify=args.verify,
    )
    if args.verify:
        print(safe(f"{pack.samples} samples in {pack.output} have the checksums of their index"))
    setting = f"{args.split}_dataset.pack={pack.output}"
    print(safe(f"{pack.output} is ready; train from it with --set {setting}"))
    return 0
