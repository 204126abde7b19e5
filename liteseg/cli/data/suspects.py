"""`liteseg data suspects`: rank labels that a trained network contradicts."""

from __future__ import annotations

import argparse
from typing import Any

from liteseg.cli.arguments import (
    SPLITS,
    add_config,
    add_device,
    add_weights,
    complete,
    not_negative,
    positive,
)
from liteseg.utils.text import safe


def add_arguments(actions: Any) -> None:
    """Declare the action and its options."""
    parser = actions.add_parser(
        "suspects", help="rank images and regions whose labels a trained network contradicts"
    )
    add_config(parser, optional="config.yml of the run of --weights")
    add_weights(parser, "required without --folds")
    parser.add_argument(
        "--split", choices=SPLITS, default="train", help="split to search (default: train)"
    )
    parser.add_argument(
        "--output",
        default="suspects",
        metavar="DIR",
        help="folder of suspects.csv, images.csv and the drawings (default: suspects)",
    )
    parser.add_argument(
        "--show",
        type=not_negative,
        default=50,
        metavar="N",
        help="number of images to draw: image, label, prediction, regions (default: 50)",
    )
    parser.add_argument(
        "--folds",
        type=positive,
        metavar="K",
        help="train K networks, each on the images outside its part of the split: K times the cost "
        "of the config's training, and finds errors that one network has learned (default: none)",
    )
    add_device(parser)
    complete(
        parser,
        "liteseg data suspects --weights output/my",
        "liteseg data suspects --config my.yml --folds 4 --set iters=300",
    )


def run(args: argparse.Namespace) -> int:
    """Search, and print the first images."""
    from liteseg.tasks.suspects import find_suspects

    result = find_suspects(
        args.weights,
        args.output,
        cfg=args.config,
        overrides=args.overrides,
        split=args.split,
        folds=args.folds,
        show=args.show,
        device=args.device,
    )
    text = (
        f"{len(result.regions)} regions in {len(result.images)} of {result.searched} images; the "
        f"lists, and drawings of the first {result.drawn} images, are in {result.output}"
    )
    print(safe(text))
    return 0
