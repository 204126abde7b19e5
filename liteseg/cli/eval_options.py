"""Options of `liteseg eval`: what is evaluated, and what is written."""

from __future__ import annotations

import argparse
from typing import Any

from liteseg.cli.arguments import add_weights, length


def add_sources(parser: argparse.ArgumentParser) -> None:
    """Declare what is evaluated: `--weights`, `--model` or `--predictions`."""
    add_weights(parser, "default: none; this, --model or --predictions is required")
    parser.add_argument(
        "--model", metavar="EXPORTED", help="directory of an exported model (default: none)"
    )
    parser.add_argument(
        "--runtime",
        metavar="R",
        help="of --model: paddle, onnxruntime or openvino (default: the first installed one)",
    )
    parser.add_argument("--precision", metavar="P", help="of --model: fp32 or bf16 (default: fp32)")
    parser.add_argument(
        "--predictions",
        metavar="DIR",
        help="folder of label maps from any tool, paired with --labels by name: class numbers, "
        "palette or color images, Cityscapes ids; needs no Paddle (default: none)",
    )
    parser.add_argument("--labels", metavar="DIR", help="labels of --predictions (default: none)")
    parser.add_argument(
        "--classes",
        metavar="FILE",
        help="of --predictions: a line for each class, its name or `red green blue name` (default: "
        "those of --config or of Cityscapes' file names, else numbers)",
    )


def add_outputs(parser: argparse.ArgumentParser) -> None:
    """Declare the report, the table of images, and the metrics that they contain."""
    parser.add_argument(
        "--report",
        metavar="FILE",
        help="write metrics, curves of the run, worst and best images, and the metrics of every "
        "image as one HTML page (default: no file)",
    )
    parser.add_argument(
        "--per-image",
        metavar="FILE",
        help="write a row of metrics for each image as .csv or .parquet (default: no file)",
    )
    parser.add_argument(
        "--sequence",
        metavar="REGEX",
        help="the sequence of an image: the first group of this expression in its name (default: "
        "city and sequence of Cityscapes, prefix of CamVid)",
    )
    parser.add_argument(
        "--boundary",
        nargs=2,
        type=length,
        metavar=("WIDTH", "TOLERANCE"),
        help="width for Boundary IoU, tolerance for the boundary F-score: pixels, or below 1 a "
        "share of the image's diagonal; 0 0 for no boundary metrics (default: 0.02 0.0075)",
    )


def output_options(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `liteseg.evaluate` that `add_outputs` declares."""
    found = {name: getattr(args, name) for name in ("report", "per_image", "sequence")}
    if args.boundary:  # otherwise the default of the task
        found["boundary"] = args.boundary if all(args.boundary) else None
    return found
