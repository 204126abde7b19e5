"""Export: a trained model for Paddle Inference, ONNX Runtime or OpenVINO, verified."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional, Union

import numpy as np

from liteseg.config.check import AnyConfig
from liteseg.config.schema import CheckedConfig
from liteseg.deploy.export import replacing, require_replaceable, versions, write_model
from liteseg.deploy.manifest import FORMATS, INPUT, OUTPUTS, Manifest
from liteseg.deploy.quantize import quantize
from liteseg.deploy.verify import Example, compare, disagreements
from liteseg.errors import UserError
from liteseg.ops.exclusive import exclusive
from liteseg.tasks import examples
from liteseg.tasks.confidence import Thresholds, temperature_of, thresholds_of
from liteseg.tasks.runs import Weights, config_of
from liteseg.tasks.segmenter import Segmenter
from liteseg.tasks.val_transforms import val_transform_specs
from liteseg.utils.logging import get_logger

if TYPE_CHECKING:
    from liteseg.deploy.graph import DeployGraph

CALIBRATION_IMAGES = 100
_FEW_IMAGES = 10
VERIFICATION_IMAGES = 8  # of a float32 model


@dataclass(frozen=True)
class ExportResult:
    """The outcome of an export.

    Attributes:
        output: folder of the exported model.
        format: paddle, onnx or openvino.
        file: name of the model file.
        input_size: (w, h) of the images; None for any size.
        calibration_images: number of images that int8 was calibrated on; None for float32.
        verification: the comparison with the trained model, as `liteseg.deploy.verify.compare`
            returns it; None if it was not verified.
    """

    output: Path
    format: str
    file: str
    input_size: Optional[tuple[int, int]]
    calibration_images: Optional[int] = None
    verification: Optional[dict[str, Any]] = None


@exclusive
def export(
    weights: Weights,
    format: str,
    output: Union[str, Path],
    *,
    cfg: Optional[AnyConfig] = None,
    overrides: Sequence[str] = (),
    input_size: Optional[tuple[int, int]] = None,
    output_kind: str = "label",
    int8: bool = False,
    calibration: Union[int, str, Path] = CALIBRATION_IMAGES,
    verify: bool = True,
    images: Optional[Sequence[Union[str, Path]]] = None,
    num_images: Optional[int] = None,
    temperature: Union[float, str, Path] = 1.0,
    thresholds: Thresholds = 0.0,
) -> ExportResult:
    """Export trained weights in a format that other programs run.

    The folder also contains `liteseg.json`, with which `Segmenter` and `predict` run the model.

    Args:
        weights: file, archive, URL or run directory (its best checkpoint).
        format: `paddle`, `onnx` or `openvino`.
        output: folder; an earlier export in it is overwritten.
        cfg: config of the weights; by default the `config.yml` of their run.
        overrides: `key=value` changes of the config.
        input_size: (w, h) of the images after the validation transforms and before
            `test_config.scales`; by default any size.
        output_kind: first output of the graph: `label`, `logits`, `softmax`, or `confidence`: the
            labels and their probability, uint8 each.
        int8: post-training quantization (format openvino).
        calibration: images for int8: a folder, or a number of images of the training set.
        verify: run the trained and the exported model on the same images.
        images: images or folders to verify with; by default the validation set with its labels if
            its files exist, or else synthetic streets.
        num_images: number of images to verify with; by default 8, or with int8 all of them.
        temperature: divides the logits of all probabilities, which leaves the labels as they are:
            a number, or a file of `liteseg eval --calibration --json FILE`.
        thresholds: `Segmenter` and `predict` label pixels 255, unknown, whose probability is below
            that of their class: one number for all classes, or {class name: number}.

    Raises:
        UserError: the config has errors, the weights do not fit, a package is missing, the
            conversion fails, or the models disagree. Nothing is written then.
    """
    if format not in FORMATS:
        raise UserError(f"--format: {format!r} is unknown; expected one of {', '.join(FORMATS)}")
    if int8 and format != "openvino":
        raise UserError(f"--int8 writes the openvino format, not {format}; give openvino")
    output = Path(output)
    require_replaceable(output)
    built = ["train_dataset"] if int8 and isinstance(calibration, int) else []
    cfg = config_of(weights, cfg, overrides, built)
    trained = Segmenter.from_pretrained(weights, cfg, device="cpu")
    trained.trained_network.temperature = temperature_of(temperature)
    lowest = thresholds_of(thresholds, trained.class_names)
    graph = _graph(trained, output_kind)
    with replacing(output) as folder:
        file = write_model(graph, format, input_size, folder)
        description = _describe(cfg, trained, graph, format, file, input_size)
        description = replace(description, thresholds=lowest)
        result = ExportResult(output, format, file, input_size)
        if int8:
            count = quantize(folder / file, _calibration(cfg, trained, calibration, input_size))
            if count < _FEW_IMAGES:
                get_logger().warning(
                    f"int8 is calibrated on {count} images; give {_FEW_IMAGES} or more that show "
                    "what the model will see (--calib), and others to verify with (--images)"
                )
            description = replace(description, precision="int8")
            result = replace(result, calibration_images=count)
        description.write(folder)
        if verify:
            source = _examples(cfg, trained, images, num_images, description)
            verification = _verify(cfg, trained, folder, source, description.precision)
            replace(description, verified=verification).write(folder)
            result = replace(result, verification=verification)
    return result


def _graph(trained: Segmenter, kind: str) -> DeployGraph:
    from liteseg.deploy.graph import DeployGraph

    network = trained.trained_network
    views = network.test.views()
    if len(views) > 1 or network.test.is_slide:
        raise UserError(
            "test_config defines several forward passes (scales, flips or a sliding window), and "
            "an exported model makes one; choose it: --set test_config.scales=1.0 "
            "--set test_config.flip_horizontal=false --set test_config.flip_vertical=false "
            "--set test_config.is_slide=false"
        )
    normalize = network.normalize
    mean, std = normalize.for_channels(len(trained.bands or "RGB"))
    options: dict[str, Any] = {"multiple": network.test.pad_multiple}
    if trained.bands is not None:
        options.update(max_value=normalize.max_value, dtype="float32")
    return DeployGraph(
        network.model,
        mean.tolist(),
        std.tolist(),
        views[0][0],
        kind,
        temperature=network.temperature,
        **options,
    )


def _describe(
    cfg: CheckedConfig,
    trained: Segmenter,
    graph: DeployGraph,
    format: str,
    file: str,
    size: Optional[tuple[int, int]],
) -> Manifest:
    normalize = trained.trained_network.normalize
    mean, std = normalize.for_channels(graph.channels)
    bands: dict[str, Any] = {}
    if trained.bands is not None:
        bands = {"channels": list(trained.bands), "max_value": normalize.max_value}
    transforms = val_transform_specs(cfg)
    return Manifest(
        name=cfg.path.parent.name if cfg.path.name == "config.yml" else cfg.path.stem,
        format=format,
        file=file,
        input={
            "name": INPUT,
            "dtype": graph.dtype,
            "layout": "NHWC",
            "channels": "RGB",
            "size": list(size) if size else None,
            **({"exif": "ignore"} if trained.exif == "ignore" else {}),
            **bands,
        },
        output={"name": OUTPUTS[graph.kind], "kind": graph.kind},
        mean=[round(float(value), 7) for value in mean],
        std=[round(float(value), 7) for value in std],
        scale=graph.scale,
        temperature=graph.temperature,
        pad_multiple=graph.multiple,
        transforms=transforms[:-1],
        class_names=list(trained.class_names),
        palette=trained.palette.tolist(),
        versions=versions(format),
    )


def _calibration(
    cfg: CheckedConfig,
    trained: Segmenter,
    source: Union[int, str, Path],
    size: Optional[tuple[int, int]],
) -> Iterator[np.ndarray]:
    """(1, H, W, 3) uint8 RGB images to calibrate int8 on."""
    if isinstance(source, int):
        found: Iterator[Example] = itertools.islice(examples.from_dataset(cfg, "train"), source)
    else:
        found = examples.from_files([source], trained.decode)
    fitted = (examples.fitted(example, trained.transforms, size) for example in found)
    return (trained.transforms({"img": example.image})["img"][None] for example in fitted)


def _examples(
    cfg: CheckedConfig,
    trained: Segmenter,
    images: Optional[Sequence[Union[str, Path]]],
    count: Optional[int],
    description: Manifest,
) -> Iterator[Example]:
    """Images to verify with, from the best available source, at a size that the model accepts."""
    size = description.size
    if count is None and description.precision != "int8":
        count = VERIFICATION_IMAGES
    if images:
        source = examples.from_files(images, trained.decode)
    else:
        try:
            source = examples.from_dataset(cfg, "val")
        except UserError as error:
            get_logger().warning(f"verifying with synthetic streets: {error}")
            source, count = examples.synthetic(size), count or VERIFICATION_IMAGES
    selected = itertools.islice(source, count)
    return (examples.fitted(example, trained.transforms, size) for example in selected)


def _verify(
    cfg: CheckedConfig,
    trained: Segmenter,
    folder: Path,
    source: Iterator[Example],
    precision: str,
) -> dict[str, Any]:
    """Compare the exported model in `folder` with the trained one.

    Raises:
        UserError: the models disagree.
    """
    import paddle

    from liteseg.engine.inference import predict_scores

    network = trained.trained_network

    def reference(image: np.ndarray) -> np.ndarray:
        batch = network.normalize.batch(paddle.to_tensor(image[None]))
        return predict_scores(network.model, batch, network.test)[0].numpy()

    exported = Segmenter.from_pretrained(folder, device="cpu")  # a GPU's TF32 is less exact
    exported.thresholds = None  # rounding would move pixels across them
    ignore_index = examples.ignore_index(cfg)
    found = compare(trained, exported, reference, source, ignore_index=ignore_index)
    if problems := disagreements(found, precision):
        raise UserError(
            "the exported model does not agree with the trained one, so nothing was written: "
            f"{'; '.join(problems)} (on {found['images']} images)"
        )
    return found
