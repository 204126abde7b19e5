"""Evaluate weights, an exported model, or a folder of predictions."""

from __future__ import annotations

import argparse
from typing import Any

from liteseg.cli.arguments import (
    SPLITS,
    add_config,
    add_device,
    add_json,
    add_loading,
    check_json,
    complete,
    save_json,
)
from liteseg.cli.eval_options import add_outputs, add_sources, output_options
from liteseg.cli.metrics_table import format_calibration, format_table
from liteseg.errors import UserError
from liteseg.utils.runtime import is_main
from liteseg.utils.text import safe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `liteseg eval`."""
    add_config(parser, optional="config.yml of the run of --weights or --model")
    add_sources(parser)
    parser.add_argument(
        "--split", choices=SPLITS, default="val", help="split to evaluate (default: val)"
    )
    add_json(parser, "the metrics")
    add_outputs(parser)
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
        "liteseg eval --config my.yml --model exported --per-image images.csv",
        "liteseg eval --predictions masks --labels labels --classes classes.txt",
    )


def run(args: argparse.Namespace) -> int:
    """Evaluate, print the table, write the requested files."""
    check_json(args)
    result = _evaluate_folder(args) if args.predictions else _evaluate_model(args)
    if not is_main():  # one of several processes
        return 0
    if args.save_pred:
        print(safe(f"{result.predictions} predictions are in {args.save_pred}"))
    if not result.metrics["images"]:
        print(f"the images of {args.split} have no labels: there is nothing to evaluate")
    elif result.miou is not None:  # otherwise, a line of the log gives the reason
        print(format_table(result.metrics))
    if args.calibration and result.metrics["images"]:
        print(format_calibration(result.metrics["calibration"]))
    save_json(args, result.as_json())
    return 0


def _evaluate_model(args: argparse.Namespace) -> Any:
    if args.weights and args.model:
        raise UserError("--weights and --model: give one of them")
    if not (args.weights or args.model):
        raise UserError(
            "--weights is missing: without it a randomly initialized network would be evaluated, "
            "and its metrics mean nothing; give a weights file, URL or run directory, an exported "
            "--model, or --predictions"
        )
    if args.labels or args.classes:
        raise UserError("--labels and --classes belong to --predictions")
    from liteseg.tasks.evaluate import evaluate, require_exported

    if args.model:
        require_exported(args.model)
    return evaluate(
        args.config,
        args.weights or args.model,
        overrides=args.overrides,
        split=args.split,
        batch_size=args.batch_size,
        num_workers=args.num_workers,
        device=args.device,
        runtime=args.runtime,
        precision=args.precision,
        predictions=args.save_pred,
        calibration=args.calibration,
        **output_options(args),
    )


def _evaluate_folder(args: argparse.Namespace) -> Any:
    given = ("weights", "model", "save_pred", "calibration", "runtime", "precision")
    if unused := [f"--{name.replace('_', '-')}" for name in given if getattr(args, name)]:
        raise UserError(f"{unused[0]} and --predictions: label maps need no network; leave it out")
    if not args.labels:
        raise UserError("--labels is missing: give the folder of the labels of --predictions")
    from liteseg.tasks.prediction_folder import evaluate_predictions

    return evaluate_predictions(
        args.predictions,
        args.labels,
        classes=args.classes,
        cfg=args.config,
        overrides=args.overrides,
        **output_options(args),
    )
