"""Write label maps, color masks and overlays of images, folders and videos."""

from __future__ import annotations

import argparse
import sys

from liteseg.cli.arguments import add_config, add_device, add_weights, complete, positive
from liteseg.cli.bulk import add_bulk, bulk_options
from liteseg.utils.text import safe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `liteseg predict`."""
    parser.add_argument(
        "inputs",
        nargs="*",
        metavar="INPUT",
        help="images, videos, folders, patterns ('photos/**/*.jpg'), URLs of an object store "
        "(s3://bucket/photos), numbered sequences (frames/%%06d.png)",
    )
    parser.add_argument(
        "--model", metavar="EXPORTED", help="folder of `liteseg export` (default: --weights)"
    )
    add_config(parser, optional="config.yml of the run of --weights")
    add_weights(parser, "default: the newest run in output or, without one, a published model")
    parser.add_argument(
        "--output",
        default="predictions",
        metavar="DIR",
        help="folder or URL of the results (default: predictions)",
    )
    parser.add_argument(
        "--what",
        choices=("all", "mask", "palette", "overlay", "confidence", "polygons"),
        default="all",
        help="NAME_label.png: train ids (mask); NAME_color.png: train ids with a color palette "
        "(palette); NAME_overlay.png: colors over the image, with a legend (overlay); "
        "NAME_confidence.png: 255 times the probability of the label (confidence; not in all); "
        "NAME_polygons.json: regions for labelme (polygons; not in all). Of "
        "a video NAME_overlay.mp4; the others, one PNG per frame in NAME_label/, NAME_color/ or "
        "NAME_confidence/, only with this option (default: all)",
    )
    parser.add_argument(
        "--unknown-below",
        type=float,
        metavar="P",
        help="label pixels 255, unknown, whose probability is below P (default: below the "
        "thresholds of the exported model, if it has any)",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace files in --output that liteseg has not written (default: refuse)",
    )
    add_device(parser)
    parser.add_argument(
        "--runtime",
        metavar="NAME",
        help="of --model: paddle, onnxruntime or "
        "openvino (default: the first installed one for its format)",
    )
    parser.add_argument(
        "--threads", type=positive, metavar="N", help="CPU threads of --model (default: all cores)"
    )
    parser.add_argument("--precision", metavar="P", help="of --model: fp32 or bf16 (default: fp32)")
    add_bulk(parser)
    complete(
        parser,
        "liteseg predict photos",
        "liteseg predict photos --weights output/my",
        "liteseg predict photos --model exported --output masks",
        "liteseg predict photos --model exported --what mask --shard 0/4 --skip-existing",
    )


def run(args: argparse.Namespace) -> int:
    """Predict every input; 1 if some could not be predicted (the others are done)."""
    from tqdm import tqdm

    from liteseg.tasks.predict import predict

    result = predict(
        args.inputs,
        args.output,
        weights=args.weights,
        model=args.model,
        cfg=args.config,
        overrides=args.overrides,
        what=args.what,
        device=args.device,
        runtime=args.runtime,
        threads=args.threads,
        overwrite=args.overwrite,
        unknown_below=args.unknown_below,
        precision=args.precision,
        on_skip=lambda message: tqdm.write(safe(message), file=sys.stderr),
        **bulk_options(args),
    )
    done = result.inputs - result.failed - result.existing
    print(safe(f"{done} of {result.inputs} inputs predicted, results are in {result.output}"))
    if result.existing:
        print(f"{result.existing} were left out, because their results exist")
    if result.failed:
        print(safe(f"{result.failed} failed; their errors are in {result.failures}"))
    return 1 if result.failed else 0
