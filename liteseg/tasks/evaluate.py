"""Evaluation: the metrics of trained weights on a split of their dataset."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Optional, Union

import cv2
import numpy as np
import paddle

from liteseg.config.build import build_dataset, build_model
from liteseg.config.check import AnyConfig, load_checked
from liteseg.config.schema import CheckedConfig
from liteseg.datasets import Cityscapes, SegmentationDataset, train_id_to_id
from liteseg.engine.calibration import Calibration
from liteseg.engine.evaluator import Evaluator, nothing_counted
from liteseg.engine.evaluator import evaluate as evaluate_model
from liteseg.errors import UserError
from liteseg.ops.device import select_device
from liteseg.ops.exclusive import exclusive
from liteseg.report.gallery import Gallery
from liteseg.report.report import ReportData, read_history, write_report
from liteseg.report.visualize import write_png
from liteseg.tasks.runs import Weights, config_of, file_of_run, require_class_order
from liteseg.tasks.val_transforms import build_val_transforms
from liteseg.utils.files import check_writable, require_kind
from liteseg.utils.results import require_replaceable
from liteseg.utils.runtime import cpu_threads
from liteseg.utils.weights.load import load_weights

_SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class EvalResult:
    """The outcome of an evaluation.

    Attributes:
        metrics: `miou`, `acc`, `kappa`, `mdice` (0 to 1), `class_iou`, `class_precision`,
            `class_recall` and `class_dice` {name: value, or None for an absent class},
            `confusion`, `images` (those with labels), `seconds`, `images_per_second`, `timings`;
            with `calibration` also that.
        config: file of the config.
        weights: the evaluated weights.
        split: the evaluated split.
        predictions: number of label maps written.
    """

    metrics: dict[str, Any]
    config: str
    weights: str
    split: str
    predictions: int = 0

    @property
    def miou(self) -> float:
        """Mean intersection over union, 0 to 1."""
        return self.metrics["miou"]

    def as_json(self) -> dict[str, Any]:
        """The content of `liteseg eval --json`."""
        about = {"config": self.config, "weights": self.weights, "split": self.split}
        return {**self.metrics, **about}


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
    predictions: Union[str, Path, None] = None,
    report: Union[str, Path, None] = None,
    calibration: bool = False,
) -> EvalResult:
    """Evaluate trained weights.

    Args:
        cfg: a YAML file, the name of a shipped config, or a loaded config; None for the
            `config.yml` of the run that contains the weights.
        weights: file, archive, URL or run directory (its best checkpoint); required.
        overrides: `key=value` changes of the config, for example `test_config.scales=0.5`.
        split: `train`, `val` or `test`, always with the transforms of validation.
        batch_size: images per forward pass; by default the config's `eval_batch_size`.
        num_workers: worker processes that load images; by default a few on GPU, a thread on CPU.
        device: `auto`, `cpu` or `gpu`; by default the `device` of the config.
        predictions: folder for a PNG of each predicted label map, at full size: original label
            ids under the official names for Cityscapes, train ids for other datasets.
        report: HTML file for the metrics, the curves of the run, and the worst and best images.
        calibration: also measure the calibration of the probabilities, and fit a temperature.

    Raises:
        UserError: the config has errors, the weights do not fit, a file cannot be read or written,
            or an image has no label and neither predictions nor a report are written.
    """
    if weights is None:
        raise UserError("weights are missing: give a weights file, URL or run directory")
    splits = _SPLITS if predictions else (split,)  # predictions must not replace any dataset
    cfg = config_of(weights, cfg, overrides, [f"{name}_dataset" for name in splits])
    if predictions:
        _require_no_dataset(cfg, Path(predictions))
        check_writable(predictions)
    if report:
        require_kind(report, ".html")
        check_writable(Path(report).parent)
    setup = prepare(cfg, weights, split, batch_size, num_workers, device)
    saver = PredictionSaver(setup.dataset, Path(predictions)) if predictions else None
    if saver:
        require_replaceable(map(saver.target, range(len(setup.dataset))), "give another folder")
    gallery = Gallery(setup.dataset, cfg.num_pictures) if report else None
    evaluators: list[Any] = [evaluator for evaluator in (saver, gallery) if evaluator]
    measured = [Calibration(setup.dataset)] if calibration else []
    metrics = setup.run([*evaluators, *measured], require_labels=not evaluators)
    written = len(setup.dataset) if saver else 0
    result = EvalResult(metrics, str(cfg.path), str(weights), split, written)
    if report and metrics["images"]:
        _write_report(Path(report), result, cfg, gallery)
    return result


class Evaluation(NamedTuple):
    """A model and a dataset that are ready to be evaluated."""

    cfg: CheckedConfig
    device: str
    model: paddle.nn.Layer
    dataset: SegmentationDataset
    batch_size: int
    num_workers: int

    def run(self, evaluators: Sequence[Evaluator] = (), **options: Any) -> dict[str, Any]:
        """Evaluate; arguments and result as in `liteseg.engine.evaluator.evaluate`.

        Raises:
            UserError: as there, or all labels are ignored entirely.
        """
        metrics = evaluate_model(
            self.model,
            self.dataset,
            self.cfg.test_config,
            evaluators,
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            **options,
        )
        if problem := nothing_counted(metrics, self.dataset):
            raise UserError(problem)
        return metrics


def prepare(
    cfg: AnyConfig,
    weights: Optional[Weights],
    split: str,
    batch_size: Optional[int] = None,
    num_workers: Optional[int] = None,
    device: Optional[str] = None,
) -> Evaluation:
    """Build what an evaluation needs. Arguments as in `evaluate`; no weights leave random ones."""
    cfg = load_checked(cfg)
    device = select_device(device or cfg.device)
    dataset = build_dataset(cfg, split)
    if split == "train" or dataset.transforms.normalize is None:  # those of training are random
        dataset.transforms = build_val_transforms(cfg)
    model = build_model(cfg, pretrained=False)
    if weights:
        load_weights(model, weights)
        require_class_order(weights, dataset.classes)
    if num_workers is None and cfg.num_workers != "auto":
        num_workers = cfg.num_workers
    if num_workers is None:  # on CPU the network needs the cores: a thread loads the images
        num_workers = min(cpu_threads(), 4) if device == "gpu" else 0
    batch_size = batch_size or cfg.eval_batch_size
    return Evaluation(cfg, device, model, dataset, batch_size, num_workers)


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
    """Raise UserError if `folder` has images or labels of the config: they could be replaced."""
    for split in _SPLITS:
        with contextlib.suppress(UserError):  # the evaluated split reports its errors itself
            samples = build_dataset(cfg, split).samples
            files = (file for sample in samples for file in sample[:2] if file)
            if folder.resolve() in {parent.resolve() for parent in {f.parent for f in files}}:
                break
    else:
        return
    raise UserError(
        f"--save-pred {folder}: contains images or labels of {split}_dataset; give a folder of its "
        "own for the predictions"
    )


def _write_report(
    path: Path, result: EvalResult, cfg: CheckedConfig, gallery: Optional[Gallery]
) -> None:
    metrics_file = file_of_run(result.weights, "metrics.jsonl")
    history = read_history(metrics_file) if metrics_file else []
    title = f"{Path(result.weights).name}: {result.split}"
    about = f"evaluation of {result.weights} on {result.split} of {result.config}"
    write_report(path, ReportData(title, about, cfg.dump(), history, result.metrics, gallery))
