"""Export trained weights for Paddle Inference, ONNX Runtime or OpenVINO, and verify the result."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from liteseg.cli.arguments import add_config, add_weights, complete, positive, size_of
from liteseg.errors import UserError
from liteseg.tasks.export import CALIBRATION_IMAGES, FORMATS, OUTPUTS, VERIFICATION_IMAGES
from liteseg.utils.text import safe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `liteseg export`."""
    add_config(parser, optional="config.yml of the run of --weights")
    add_weights(parser)
    parser.add_argument(
        "--format", choices=FORMATS, required=True, help="format of the model (required)"
    )
    parser.add_argument(
        "--output", required=True, metavar="DIR", help="output directory (required)"
    )
    parser.add_argument(
        "--input-size",
        type=positive,
        nargs=2,
        metavar=("W", "H"),
        help="pixels of the images, after the validation transforms and before test_config.scales "
        "(default: any size)",
    )
    parser.add_argument(
        "--output-kind",
        choices=OUTPUTS,
        default="label",
        help="first output of the graph, for other programs; liteseg itself reads the second one, "
        "the logits before upsampling, and upsamples them faster (default: label)",
    )
    parser.add_argument(
        "--temperature",
        default="1",
        metavar="T|FILE",
        help="divide the logits of all probabilities by T, or by that in the file of `liteseg eval "
        "--calibration --json FILE`; labels stay the same (default: 1)",
    )
    parser.add_argument(
        "--threshold",
        action="append",
        default=[],
        metavar="[CLASS=]P",
        help="liteseg labels pixels of the class 255, unknown, whose probability is below P; "
        "without a class: of all others (may be repeated; default: none)",
    )
    parser.add_argument(
        "--int8",
        action="store_true",
        help="post-training quantization (format openvino; default: float32)",
    )
    parser.add_argument(
        "--calib",
        default=str(CALIBRATION_IMAGES),
        metavar="DIR|N",
        help="images for --int8: a folder, or a number of images of the training set "
        f"(default: {CALIBRATION_IMAGES})",
    )
    _add_verification(parser)
    complete(parser, "liteseg export --weights output/my --format paddle --output exported")


def _add_verification(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--verify",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="run both models on the same images; nothing is written if they disagree "
        "(default: --verify)",
    )
    parser.add_argument(
        "--images",
        nargs="+",
        metavar="PATH",
        help="images or folders to verify with (default: the validation set with its labels, if "
        "its files exist; else synthetic streets)",
    )
    parser.add_argument(
        "--num-images",
        type=positive,
        metavar="N",
        help=f"number of images to verify with (default: {VERIFICATION_IMAGES}; with --int8 all of "
        "the validation set)",
    )


def run(args: argparse.Namespace) -> int:
    """Export, and print the comparison with the trained model."""
    if not args.weights:
        raise UserError(
            "--weights is missing: an untrained network is not worth exporting; give a weights "
            "file, URL or run directory"
        )
    from liteseg.tasks.confidence import parse_thresholds
    from liteseg.tasks.export import export

    result = export(
        args.weights,
        args.format,
        args.output,
        cfg=args.config,
        overrides=args.overrides,
        input_size=size_of(args.input_size),
        output_kind=args.output_kind,
        int8=args.int8,
        calibration=int(args.calib) if args.calib.isdecimal() else args.calib,
        verify=args.verify,
        images=args.images,
        num_images=args.num_images,
        temperature=args.temperature,
        thresholds=parse_thresholds(args.threshold),
    )
    if result.calibration_images is not None:
        print(f"int8: calibrated on {result.calibration_images} images")
    if result.verification is not None:
        print(format_verification(result.verification))
    size = "{}x{}".format(*result.input_size) if result.input_size else "any size"
    print(safe(f"{result.output}: {result.format} model {result.file}, for images of {size}"))
    return 0


def format_verification(found: Mapping[str, Any]) -> str:
    """The comparison of the trained and the exported model as a sentence."""
    text = (
        f"verified on {found['images']} images: largest logit difference "
        f"{found['logit_difference']:.2g} (largest logit {found['largest_logit']:.3g}), "
        f"{100 * found['equal_labels']:.4f}% of labels equal"
    )
    if "confidence_difference" in found:
        text += f", largest difference of a probability {found['confidence_difference']:.2g}"
    if "miou_trained" in found:
        text += f", mIoU {found['miou_trained']:.4f} trained, {found['miou_exported']:.4f} exported"
    return text
