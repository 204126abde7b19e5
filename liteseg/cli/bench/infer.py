"""`liteseg bench infer`: latency and throughput of exported models, measured in turns."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from liteseg.cli.arguments import (
    add_config,
    add_json,
    complete,
    not_negative,
    positive,
    save_json,
)
from liteseg.errors import UserError
from liteseg.utils.text import joined

if TYPE_CHECKING:
    from liteseg.tasks.benchmark.infer import Row


def add_arguments(actions: Any) -> None:
    """Declare the action and its options."""
    parser = actions.add_parser(
        "infer", help="latency and throughput of exported models, next to PaddleSeg's inference"
    )
    several = {"nargs": "+", "metavar": "N", "type": positive}
    parser.add_argument("models", nargs="+", metavar="EXPORTED", help="folders of `liteseg export`")
    parser.add_argument(
        "--runtime",
        nargs="+",
        metavar="NAME",
        default=[None],
        help="paddle, onnxruntime, openvino (default: the first installed one for the format)",
    )
    parser.add_argument(
        "--precision", nargs="+", default=["fp32"], metavar="P", help="fp32, bf16 (default: fp32)"
    )
    parser.add_argument("--threads", help="CPU threads (default: all cores)", **several)
    parser.add_argument("--batch", default=[1], help="images per call (default: 1)", **several)
    parser.add_argument(
        "--size",
        nargs=2,
        type=positive,
        action="append",
        default=[],
        metavar=("W", "H"),
        help="pixels of the images; may be repeated (default: the model's size, or 1024 512)",
    )
    parser.add_argument(
        "--weights",
        metavar="RUN",
        help="a run directory: adds PaddleSeg's inference with this network as the first rows, and "
        "is required by --accuracy",
    )
    add_config(parser, optional="config.yml of the run of --weights")
    parser.add_argument(
        "--image", metavar="FILE", help="image to time on (default: a synthetic street)"
    )
    for name, count, text in (
        ("--calls", 40, "timed calls per case"),
        ("--warm-up", 5, "untimed calls per case, before the timed ones"),
    ):
        text += f" (default: {count})"
        parser.add_argument(name, type=positive, default=count, metavar="N", help=text)
    parser.add_argument(
        "--accuracy",
        type=not_negative,
        default=0,
        metavar="N",
        help="run each model on N images of the validation set: mIoU, and the share of labels "
        "equal to the trained model's (default: 0)",
    )
    add_json(parser)
    parser.add_argument(
        "--plot", metavar="FILE", help="plot mIoU over images per second (PNG; default: no plot)"
    )
    complete(parser, "liteseg bench infer exported --weights output/quickstart --size 512 256")


def run(args: argparse.Namespace) -> int:
    """Measure, print the table, write the requested files."""
    from liteseg.tasks.benchmark.infer import benchmark_inference, plot

    if args.plot and not args.accuracy:
        raise UserError("--plot draws mIoU over speed: give --accuracy N, and --weights RUN")
    result = benchmark_inference(
        args.models,
        runtimes=args.runtime,
        precisions=args.precision,
        threads=args.threads,
        batches=args.batch,
        sizes=args.size,
        weights=args.weights,
        cfg=args.config,
        overrides=args.overrides,
        image=args.image,
        calls=args.calls,
        warm_up=args.warm_up,
        accuracy=args.accuracy,
    )
    print(format_table(result.rows))
    save_json(args, result.as_json())
    if args.plot:
        plot(result.rows, Path(args.plot))
    return 0


def format_table(rows: Sequence[Row]) -> str:
    """The rows, each with its speed relative to the first one."""
    columns = ("median", "p90", "p99", "images/s", "network", "faster")
    width = max(len(row.model) for row in rows)
    lines = [
        f"{'model':{width}}  {'runtime':11}  {'precision':9}  {'size':>9}  batch  threads"
        + "".join(f"  {column:>8}" for column in columns)
        + "    mIoU  labels equal"
    ]
    first = rows[0].image_to_labels["images_per_second"]
    for row in rows:
        whole = row.image_to_labels
        values = [f"{whole[name]:.1f}" for name in ("median_ms", "p90_ms", "p99_ms")]
        values.append(f"{whole['images_per_second']:.2f}")
        values.append(f"{row.network['median_ms']:.1f}")
        values.append(f"{whole['images_per_second'] / first:.2f}x")
        size = "{}x{}".format(*row.size)
        lines.append(
            f"{row.model:{width}}  {row.runtime:11}  {row.precision:9}  {size:>9}  "
            f"{row.batch:5}  {row.threads:7}"
            + "".join(f"  {value:>8}" for value in values)
            + ("       -" if row.miou is None else f"  {row.miou:.4f}")
            + ("  -" if row.equal_labels is None else f"  {100 * row.equal_labels:.3f}%")
        )
    lines.append(
        "median, p90, p99, network: ms per call, from image to labels; `network` leaves out "
        "upsampling\n  and arg-max (in the PaddleSeg path: normalization in numpy); the cases were "
        "measured in turns"
    )
    return joined(lines)
