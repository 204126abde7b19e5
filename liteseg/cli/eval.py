"""Evaluate trained weights on a split of their dataset."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any, Optional

from liteseg.cli.arguments import (
    SPLITS,
    add_config,
    add_device,
    add_json,
    add_loading,
    add_weights,
    check_json,
    complete,
    save_json,
)
from liteseg.errors import UserError
from liteseg.utils.text import joined, safe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `liteseg eval`."""
    add_config(parser, optional="config.yml of the run of --weights")
    add_weights(parser)
    parser.add_argument(
        "--split", choices=SPLITS, default="val", help="split to evaluate (default: val)"
    )
    add_json(parser, "the metrics")
    parser.add_argument(
        "--report",
        metavar="FILE",
        help="write metrics, curves of the run, worst and best images as one HTML page "
        "(default: no file)",
    )
    parser.add_argument(
        "--save-pred",
        metavar="DIR",
        help="write each predicted label map at full size as PNG (Cityscapes: original label ids "
        "under the official names; otherwise train ids; default: none)",
    )
    parser.add_argument(
        "--calibration",
        action="store_true",
        help="measure the expected calibration error of the probabilities, and fit a temperature "
        "for `liteseg export --temperature` on half of the images (default: do not)",
    )
    add_loading(parser)
    add_device(parser)
    complete(
        parser,
        "liteseg eval --weights output/my --report eval.html",
        "liteseg eval --config my.yml --weights model.pdparams",
    )


def run(args: argparse.Namespace) -> int:
    """Evaluate, print the table, write the requested files."""
    if not args.weights:
        raise UserError(
            "--weights is missing: without it a randomly initialized network would be evaluated, "
            "and its metrics mean nothing; give a weights file, URL or run directory"
        )
    from liteseg.tasks.evaluate import evaluate

    check_json(args)
    result = evaluate(
        args.config,
        args.weights,
        overrides=args.overrides,
        split=args.split,
        batch_size=args.batch_size,
        num_workers=args.num_workers,
        device=args.device,
        predictions=args.save_pred,
        report=args.report,
        calibration=args.calibration,
    )
    if args.save_pred:
        print(safe(f"{result.predictions} predictions are in {args.save_pred}"))
    if not result.metrics["images"]:
        print(f"the images of {args.split} have no labels: there is nothing to evaluate")
        return 0
    print(format_table(result.metrics))
    if args.calibration:
        print(format_calibration(result.metrics["calibration"]))
    save_json(args, result.as_json())
    return 0


def format_table(metrics: Mapping[str, Any]) -> str:
    """The metrics per class and their means, in percent."""
    columns = ("class_iou", "class_precision", "class_recall", "class_dice")
    width = max(len("class"), *map(len, metrics["class_iou"]))
    lines = [f"{'class':{width}}     IoU  precision  recall    Dice"]
    for name in metrics["class_iou"]:
        iou, precision, recall, dice = (_percent(metrics[column][name]) for column in columns)
        lines.append(f"{name:{width}}  {iou:>6}  {precision:>9}  {recall:>6}  {dice:>6}")
    if None in metrics["class_iou"].values():
        lines.append("-: in neither the labels nor the predictions; not in the means")
    lines.append(
        f"mIoU {metrics['miou']:.4f}  accuracy {metrics['acc']:.4f}  kappa {metrics['kappa']:.4f}  "
        f"mean Dice {metrics['mdice']:.4f}  images {metrics['images']}"
    )
    lines.append(f"{metrics['seconds']:.1f} s, {metrics['images_per_second']:.2f} images/s")
    return joined(lines)


def format_calibration(found: Mapping[str, Any]) -> str:
    """The calibration as text."""
    text = f"expected calibration error {100 * found['ece']:.2f} % over all pixels"
    if "temperature" not in found:
        return f"{text}; two images with labels are required to fit a temperature"
    before, after = (f"{100 * found[name]['ece']:.2f}" for name in ("before", "after"))
    return (
        f"{text}\ntemperature {found['temperature']:.3f}, fitted on {found['fit_images']} images: "
        f"{before} % -> {after} % on the other {found['held_out_images']}"
    )


def _percent(value: Optional[float]) -> str:
    return "-" if value is None else f"{100 * value:.2f}"
