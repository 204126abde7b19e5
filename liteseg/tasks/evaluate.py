"""Evaluation: the metrics of trained weights on a split of their dataset."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Optional, Union

import cv2
import numpy as np
import paddle

from liteseg.config.build import build_dataset, build_model
from liteseg.config.check import AnyConfig, load_checked
from liteseg.config.schema import CheckedConfig
from liteseg.datasets import Cityscapes, SegmentationDataset, train_id_to_id
from liteseg.deploy import manifest
from liteseg.engine.calibration import Calibration
from liteseg.engine.evaluator import Evaluator, LabelNetwork
from liteseg.engine.evaluator import evaluate as evaluate_model
from liteseg.errors import UserError
from liteseg.metrics import nothing_counted
from liteseg.ops.device import select_device
from liteseg.ops.exclusive import exclusive
from liteseg.report.gallery import Gallery
from liteseg.report.report import read_history
from liteseg.report.visualize import write_png
from liteseg.tasks.agreement import require_same_setup
from liteseg.tasks.eval_result import DEFAULT_BOUNDARY, EvalOutput, EvalResult
from liteseg.tasks.runs import Weights, config_of, file_of_run, load_found, require_class_order
from liteseg.tasks.segmenter import Segmenter
from liteseg.tasks.val_transforms import build_val_transforms
from liteseg.utils.files import check_writable
from liteseg.utils.logging import get_logger
from liteseg.utils.results import require_replaceable
from liteseg.utils.runtime import cpu_threads, is_main
from liteseg.utils.weights.load import load_weights

_SPLITS = ("train", "val", "test")


@exclusive
def evaluate(
    cfg: Optional[AnyConfig] = None,
    weights: Optional[Weights] = None,
    *,
    overrides: Sequence[str] = (),
    split: str = "val",
    batch_size: Optional[int] = None,
    num_workers: Optional[int] = None,
    device: Optional[str] = None,
    runtime: Optional[str] = None,
    precision: Optional[str] = None,
    predictions: Union[str, Path, None] = None,
    report: Union[str, Path, None] = None,
    per_image: Union[str, Path, None] = None,
    sequence: Optional[str] = None,
    boundary: Optional[Sequence[float]] = DEFAULT_BOUNDARY,
    calibration: bool = False,
) -> EvalResult:
    """Evaluate trained weights or an exported model.

    Args:
        cfg: a YAML file, the name of a shipped config, or a loaded config; None for the
            `config.yml` of the run that contains the weights or the export.
        weights: file, archive, URL, run directory (its best checkpoint), or the directory of an
            exported model; required.
        overrides: `key=value` changes of the config, for example `test_config.scales=0.5`.
        split: `train`, `val` or `test`, always with the transforms of validation.
        batch_size: images per forward pass; by default the config's `eval_batch_size`.
        num_workers: worker processes that load images; by default a few on GPU, a thread on CPU.
        device: `auto`, `cpu` or `gpu`; by default the `device` of the config.
        runtime: of an exported model, as of `Segmenter.from_pretrained`.
        precision: of an exported model, as of `Segmenter.from_pretrained`.
        predictions: folder for a PNG of each predicted label map, at full size: original label
            ids under the official names for Cityscapes, train ids for other datasets.
        report: HTML file for the metrics, the curves of the run, the worst and best images, and
            the metrics of every image.
        per_image: CSV or Parquet file with a row for each image.
        sequence: regular expression, searched in image names: its first group (without one, the
            match) is the sequence that a frame belongs to; by default, Cityscapes' and CamVid's.
        boundary: width and tolerance of the boundary metrics, in pixels or, below 1, as shares of
            the diagonal; None: without them.
        calibration: also measure the calibration of the probabilities, and fit a temperature.

    Raises:
        UserError: the config has errors, the weights do not fit, a file cannot be read or written,
            or an image has no label and neither predictions nor a report are written.
    """
    if weights is None:
        raise UserError("weights are missing: give a weights file, URL or run directory")
    output = EvalOutput(report, per_image, sequence, boundary)
    splits = _SPLITS if predictions else (split,)  # predictions must not replace any dataset
    cfg = _config(weights, cfg, overrides, [f"{name}_dataset" for name in splits])
    if predictions:
        _require_no_dataset(cfg, Path(predictions))
        check_writable(predictions)
    output.check()
    options = {"runtime": runtime, "precision": precision}
    setup = prepare(cfg, weights, split, batch_size, num_workers, device, options)
    saver = PredictionSaver(setup.dataset, Path(predictions)) if predictions else None
    if saver:
        require_replaceable(map(saver.target, range(len(setup.dataset))), "give another folder")
    gallery = Gallery(setup.dataset, cfg.num_pictures) if report else None
    evaluators: list[Any] = [evaluator for evaluator in (saver, gallery) if evaluator]
    measured: list[Any] = [Calibration(setup.dataset)] if calibration else []
    images = output.evaluator(setup.dataset)
    measured.append(images)
    require_same_setup(cfg, **{f"{split}_dataset": setup.dataset})  # of all processes
    metrics = setup.run([*evaluators, *measured], require_labels=not evaluators)
    if problem := nothing_counted(metrics, setup.dataset):
        get_logger().warning(problem)
    written = len(setup.dataset) if saver else 0
    result = EvalResult(metrics, str(cfg.path), str(weights), split, written)
    metrics_file = file_of_run(weights, "metrics.jsonl")
    history = read_history(metrics_file) if metrics_file and report else []
    title = f"{Path(weights).name}: {split}"
    about = f"evaluation of {weights} on {split} of {cfg.path}"
    if is_main():
        output.write(images, metrics, title, about, gallery, cfg.dump(), history)
    return result


def _config(
    weights: Weights, cfg: Optional[AnyConfig], overrides: Sequence[str], built: Sequence[str]
) -> CheckedConfig:
    """As `config_of`; an exported model may be in a run directory."""
    folder = manifest.find(weights)
    if folder is None or cfg is not None:
        return config_of(weights, cfg, overrides, built)
    for place in (folder, folder.resolve().parent):
        if file := file_of_run(place, "config.yml"):
            return load_found(file, overrides, built)
    raise UserError(
        f"{weights}: an exported model does not name its dataset; give the config of the dataset "
        "to evaluate on (--config on the command line)"
    )


class Evaluation(NamedTuple):
    """A model and a dataset that are ready to be evaluated."""

    cfg: CheckedConfig
    device: str
    model: Union[paddle.nn.Layer, LabelNetwork]
    dataset: SegmentationDataset
    batch_size: int
    num_workers: int

    def run(self, evaluators: Sequence[Evaluator] = (), **options: Any) -> dict[str, Any]:
        """Evaluate; arguments, result and errors as in `liteseg.engine.evaluator.evaluate`."""
        return evaluate_model(
            self.model,
            self.dataset,
            self.cfg.test_config,
            evaluators,
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            require_finite=True,
            **options,
        )


def prepare(
    cfg: AnyConfig,
    weights: Optional[Weights],
    split: str,
    batch_size: Optional[int] = None,
    num_workers: Optional[int] = None,
    device: Optional[str] = None,
    exported: Optional[dict[str, Any]] = None,
) -> Evaluation:
    """Build what an evaluation needs. Arguments as in `evaluate`; no weights leave random ones.

    Options of an exported model (`runtime`, `precision`) are in `exported`.
    """
    cfg = load_checked(cfg)
    folder = None if weights is None else manifest.find(weights)
    chosen = select_device(device or cfg.device)
    dataset = build_dataset(cfg, split)
    model: Union[paddle.nn.Layer, LabelNetwork]
    if folder is not None:
        segmenter = Segmenter.from_pretrained(folder, device=device, **(exported or {}))
        _require_same_classes(folder, segmenter.class_names, dataset.classes)
        dataset.transforms, model = segmenter.transforms, segmenter.network
    else:
        if any((exported or {}).values()):
            raise UserError(f"{weights}: runtime and precision are for exported models")
        if split == "train" or dataset.transforms.normalize is None:  # those of training are random
            dataset.transforms = build_val_transforms(cfg)
        model = build_model(cfg, pretrained=False)
        if weights:
            load_weights(model, weights)
            require_class_order(weights, dataset.classes)
    if num_workers is None and cfg.num_workers != "auto":
        num_workers = cfg.num_workers
    if num_workers is None:  # on CPU the network needs the cores: a thread loads the images
        num_workers = min(cpu_threads(), 4) if chosen == "gpu" else 0
    batch_size = batch_size or cfg.eval_batch_size
    return Evaluation(cfg, chosen, model, dataset, batch_size, num_workers)


def require_exported(path: Union[str, Path]) -> None:
    """Raise a `UserError` unless `path` is an exported model."""
    if manifest.find(path) is None:
        raise UserError(
            f"--model {path}: contains no {manifest.NAME}; give the directory of an exported model "
            "(`liteseg export`), or --weights"
        )


def _require_same_classes(folder: Path, exported: Sequence[str], names: Sequence[str]) -> None:
    if tuple(exported) != tuple(names):
        raise UserError(
            f"{folder}: the exported model has the {len(exported)} classes {', '.join(exported)}; "
            f"the dataset has {len(names)}: {', '.join(names)}; give the config of a dataset with "
            "the classes of the model, in its order"
        )


class PredictionSaver(Evaluator):
    """Writes each predicted label map as PNG.

    Args:
        dataset: Cityscapes gets its official label ids and file names, others train ids.
        folder: must exist; files of an earlier evaluation are overwritten.
    """

    def __init__(self, dataset: SegmentationDataset, folder: Path):
        self.dataset, self.folder = dataset, folder
        official = isinstance(dataset, Cityscapes)
        self.ids = train_id_to_id(dataset.classes) if official else None

    def target(self, index: int) -> Path:
        """The file of a prediction."""
        files = self.dataset.samples[index]
        return self.folder / (f"{files.name}.png" if self.ids is None else files.image.name)

    def update(self, index: int, sample: Mapping[str, np.ndarray], prediction: np.ndarray) -> None:
        """Write one prediction."""
        stored = prediction if self.ids is None else cv2.LUT(prediction, self.ids)
        write_png(self.target(index), stored)


def _require_no_dataset(cfg: CheckedConfig, folder: Path) -> None:
    """Raise UserError if `folder` is one of a dataset of the config: files could be replaced."""
    target = folder.resolve()
    for split in _SPLITS:
        with contextlib.suppress(UserError):  # the evaluated split reports its errors itself
            samples = build_dataset(cfg, split).samples
            folders = {file.parent for sample in samples for file in sample[:2] if file}
            root = Path(getattr(cfg, f"{split}_dataset").get("dataset_root") or "/none").resolve()
            # The folders of images and labels, and those above them up to the root.
            inside = root in (target, *target.parents)
            taken = {f.resolve() for f in folders}
            if target in taken or (inside and any(target in f.parents for f in taken)):
                break
    else:
        return
    raise UserError(
        f"--save-pred {folder}: contains images or labels of {split}_dataset; give a folder of its "
        "own for the predictions"
    )
