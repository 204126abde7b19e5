"""`liteseg export`: a trained model for Paddle Inference, ONNX Runtime or OpenVINO, verified."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from liteseg.cli.arguments import changes_of_config, complete, positive
from liteseg.deploy.manifest import FORMATS, INPUT, OUTPUTS
from liteseg.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from liteseg.config.load import Config
    from liteseg.deploy.manifest import Manifest
    from liteseg.deploy.verify import Example
    from liteseg.tasks.segmenter import Segmenter

_IMAGES = 8  # to verify a float32 export with
_CALIBRATION_IMAGES = 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `liteseg export`."""
    parser.add_argument("--config", help="YAML file (default: config.yml of the run of --weights)")
    parser.add_argument(
        "--weights", help="weights file, archive or URL, or a run directory (best checkpoint)"
    )
    changes_of_config(parser)
    parser.add_argument("--format", choices=FORMATS, required=True)
    parser.add_argument("--output", required=True, metavar="DIR", help="replaced as a whole")
    parser.add_argument(
        "--input-size",
        type=positive,
        nargs=2,
        metavar=("W", "H"),
        help="of the images, after the validation transforms and before test_config.scales "
        "(default: any size)",
    )
    parser.add_argument(
        "--output-kind",
        choices=OUTPUTS,
        default="label",
        help="first output of the graph, for other programs (liteseg itself reads the second, the "
        "logits before upsampling, and upsamples them faster)",
    )
    parser.add_argument(
        "--int8", action="store_true", help="post-training quantization (format openvino)"
    )
    parser.add_argument(
        "--calib",
        default=str(_CALIBRATION_IMAGES),
        metavar="DIR|N",
        help=f"images for --int8: a folder, or so many of the training set "
        f"(default: {_CALIBRATION_IMAGES})",
    )
    parser.add_argument(
        "--verify",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="run both models on the same images; nothing is written if they disagree",
    )
    parser.add_argument(
        "--images",
        nargs="+",
        metavar="PATH",
        help="images or folders to verify with (default: the validation set with its labels, where "
        "its files are; else drawn streets)",
    )
    parser.add_argument(
        "--num-images",
        type=positive,
        metavar="N",
        help=f"how many (default: {_IMAGES}; with --int8 all of the validation set)",
    )
    complete(parser, "liteseg export --weights output/quickstart --format paddle --output exported")


def run(args: argparse.Namespace) -> int:
    """Export, verify, and put the result in its place."""
    if not args.weights:
        raise UserError(
            "--weights is missing: an untrained network is not worth exporting; give a weights "
            "file, URL or run directory"
        )
    if args.int8 and args.format != "openvino":
        raise UserError(f"--int8 writes the openvino format, not {args.format}; give openvino")
    from liteseg.deploy.export import replacing, write_model
    from liteseg.tasks.segmenter import Segmenter, trained_config

    cfg = trained_config(args.weights, args.config, args.set)
    trained = Segmenter.from_pretrained(args.weights, cfg, device="cpu")
    graph = _graph(trained, args.output_kind)
    output = Path(args.output)
    with replacing(output) as folder:
        size = tuple(args.input_size) if args.input_size else None
        file = write_model(graph, args.format, size, folder)
        about = _manifest(args, cfg, trained, graph, file)
        if args.int8:
            about = _quantize(args, cfg, trained, folder, about)
        about.write(folder)
        if args.verify:
            _verify(args, cfg, trained, folder, about)
    print(f"{output}: {args.format} model {file}, for images of {_size_words(size)}")
    return 0


def _graph(trained: Segmenter, kind: str) -> Any:
    from liteseg.deploy.graph import DeployGraph

    network = trained.network
    views = network.test.views()
    if len(views) > 1 or network.test.is_slide:
        raise UserError(
            "test_config asks for several passes (scales, flips or a sliding window), and an "
            "exported model makes one; choose it: --set test_config.scales=1.0 "
            "--set test_config.flip_horizontal=false --set test_config.flip_vertical=false "
            "--set test_config.is_slide=false"
        )
    normalize = network.normalize
    return DeployGraph(network.model, normalize.mean, normalize.std, views[0][0], kind)


def _manifest(
    args: argparse.Namespace, cfg: Config, trained: Segmenter, graph: Any, file: str
) -> Manifest:
    from liteseg.deploy.export import versions
    from liteseg.deploy.manifest import Manifest

    normalize = trained.network.normalize
    return Manifest(
        name=cfg.path.parent.name if cfg.path.name == "config.yml" else cfg.path.stem,
        format=args.format,
        file=file,
        input={
            "name": INPUT,
            "dtype": "uint8",
            "layout": "NHWC",
            "channels": "RGB",
            "size": args.input_size,
        },
        output={"name": OUTPUTS[graph.kind], "kind": graph.kind},
        mean=[round(float(value), 7) for value in normalize.mean],
        std=[round(float(value), 7) for value in normalize.std],
        scale=graph.scale,
        transforms=cfg.val_dataset["transforms"][:-1],
        class_names=list(trained.class_names),
        palette=trained.palette.tolist(),
        versions=versions(args.format),
    )


def _quantize(
    args: argparse.Namespace, cfg: Config, trained: Segmenter, folder: Path, about: Manifest
) -> Manifest:
    from dataclasses import replace

    from liteseg.deploy.quantize import quantize
    from liteseg.tasks import examples

    if args.calib.isdecimal():
        source = itertools.islice(examples.from_dataset(cfg, "train"), int(args.calib))
    else:
        source = examples.from_files([args.calib])
    fitted = (examples.resized(example, trained.transforms, about.size) for example in source)
    images = (trained.transforms({"img": example.image})["img"][None] for example in fitted)
    count = quantize(folder / about.file, images)
    print(f"int8: calibrated on {count} images")
    return replace(about, precision="int8")


def _verify(
    args: argparse.Namespace, cfg: Config, trained: Segmenter, folder: Path, about: Manifest
) -> None:
    """Compare, print, and keep the findings in `liteseg.json`.

    Raises:
        UserError: the models disagree.
    """
    from dataclasses import replace

    import paddle

    from liteseg.deploy.verify import compare, disagreements
    from liteseg.engine.inference import predict_scores
    from liteseg.tasks import examples
    from liteseg.tasks.segmenter import Segmenter

    network = trained.network

    def reference(image: np.ndarray) -> np.ndarray:
        batch = network.normalize.batch(paddle.to_tensor(image[None]))
        return predict_scores(network.model, batch, network.test)[0].numpy()

    exported = Segmenter.from_pretrained(folder)
    tried = _examples(args, cfg, trained, about)
    found = compare(trained, exported, reference, tried, ignore_index=examples.ignore_index(cfg))
    print(_verdict(found))
    if problems := disagreements(found, about.precision):
        raise UserError(
            "the exported model does not agree with the trained one, so nothing was written: "
            f"{'; '.join(problems)}"
        )
    replace(about, verified=found).write(folder)


def _verdict(found: dict[str, Any]) -> str:
    words = (
        f"verified on {found['images']} images: largest logit difference "
        f"{found['logit_difference']:.2g} (largest logit {found['largest_logit']:.3g}), "
        f"{100 * found['equal_labels']:.4f}% of labels equal"
    )
    if "miou_trained" in found:
        words += (
            f", mIoU {found['miou_trained']:.4f} trained, {found['miou_exported']:.4f} exported"
        )
    return words


def _examples(
    args: argparse.Namespace, cfg: Config, trained: Segmenter, about: Manifest
) -> Iterator[Example]:
    """Images that fit the model, from the best source at hand."""
    from liteseg.tasks import examples

    count: Optional[int] = args.num_images or (None if about.precision == "int8" else _IMAGES)
    if args.images:
        source = examples.from_files(args.images)
    else:
        try:
            source = examples.from_dataset(cfg, "val")
        except UserError as error:
            print(f"verifying with drawn streets: {error}")
            source, count = examples.drawn(about.size), count or _IMAGES
    return (
        examples.resized(example, trained.transforms, about.size)
        for example in itertools.islice(source, count)
    )


def _size_words(size: Optional[tuple[int, int]]) -> str:
    return f"{size[0]}x{size[1]}" if size else "any size"
