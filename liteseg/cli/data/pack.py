"""`liteseg data pack`: decode a dataset once, into a file that training reads without decoding."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from liteseg.cli.arguments import changes_of_config, complete, positive
from liteseg.errors import UserError


def add_arguments(actions: Any) -> None:
    """Declare the action and its options among the others of `liteseg data`."""
    pack = actions.add_parser(
        "pack", help="decode a split into one memory-mapped file, from which training reads faster"
    )
    pack.add_argument("--config", required=True, help="YAML file with the dataset")
    pack.add_argument("--split", choices=("train", "val", "test"), default="train")
    pack.add_argument("--output", metavar="DIR", help="the pack (default: the config's `pack`)")
    changes_of_config(pack)
    pack.add_argument("--workers", type=positive, metavar="N", help="threads (default: cores)")
    pack.add_argument(
        "--verify", action="store_true", help="read the whole pack and compare the checksums"
    )
    complete(pack, "liteseg data pack --config quickstart --output data/streets_pack")


def run(args: argparse.Namespace) -> int:
    """Build the pack (or finish it, or find it up to date), and verify it if asked to."""
    from liteseg.config.build import build_dataset
    from liteseg.config.load import load_config
    from liteseg.config.resolve import load_checked
    from liteseg.datasets.pack import build_pack

    cfg = load_checked(args.config, args.set)
    key = f"{args.split}_dataset"
    output = args.output or (getattr(cfg, key) or {}).get("pack")
    if not output:
        raise UserError(f"--output is missing: give a folder for the pack (or set {key}.pack)")
    # The pack that the config names may not be there yet.
    cfg = load_config(args.config, [*args.set, f"{key}.pack=null"])
    dataset = build_dataset(cfg, args.split)
    pack = build_pack(dataset, Path(output), args.workers)
    if args.verify:
        pack.verify()
        print(f"{len(pack.entries)} samples in {output} have the checksums they were written with")
    print(f"{output} is ready; train from it with --set {key}.pack={output}")
    return 0
