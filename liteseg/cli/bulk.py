"""The options of `liteseg predict` for many images: lists, shards, resuming, Ray."""

from __future__ import annotations

import argparse
from typing import Any

from liteseg.cli.arguments import positive

_OPTIONS = ("inputs_from", "skip_existing", "shard", "engine", "ray_address", "actors")


def add_bulk(parser: argparse.ArgumentParser) -> None:
    """Add the options of `predict` for many images."""
    group = parser.add_argument_group("many images (liteseg/deploy/README.md)")
    group.add_argument(
        "--inputs-from",
        metavar="FILE",
        help="instead of INPUT, a text file with one path or URL per line; - is the standard "
        "input (default: none)",
    )
    group.add_argument(
        "--skip-existing",
        action="store_true",
        help="leave out inputs of which all results exist: continues a killed job (default: "
        "predict all)",
    )
    group.add_argument(
        "--shard",
        type=_shard,
        metavar="I/N",
        help="only shard I of N, from 0 to N-1: the inputs are divided by a hash of the names of "
        "their results (default: all)",
    )
    group.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="ray: actors of a Ray cluster, with an exported model (default: local)",
    )
    group.add_argument(
        "--ray-address",
        metavar="ADDRESS",
        help="of the cluster, such as auto (default: start one on this machine)",
    )
    group.add_argument(
        "--actors",
        type=positive,
        metavar="N",
        help="of Ray, each with --threads cores (default: as many as the cluster has cores for)",
    )


def bulk_options(args: argparse.Namespace) -> dict[str, Any]:
    """The keyword arguments of the task."""
    return {name: getattr(args, name) for name in _OPTIONS}


def _shard(text: str) -> tuple[int, int]:
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not I/N, such as 0/4")
    return int(index), int(count)
