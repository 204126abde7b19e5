"""Evaluation of label maps from any tool, by their labels. Runs without Paddle."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional, Union

from liteseg.config.load import Config, load_config
from liteseg.datasets.parallel import map_in_threads
from liteseg.datasets.predictions import UNKNOWN, LabelFormat, PredictionFolder
from liteseg.engine.per_image import PerImage
from liteseg.errors import UserError
from liteseg.metrics import ConfusionMatrix, nothing_counted
from liteseg.registry import DATASETS
from liteseg.report.gallery import Gallery
from liteseg.tasks.eval_result import DEFAULT_BOUNDARY, EvalOutput, EvalResult
from liteseg.tasks.runs import names_and_palette
from liteseg.utils import logging

_GALLERY = 4  # images of each kind in a report, as `num_pictures` of a config by default


def evaluate_predictions(
    predictions: Union[str, Path],
    labels: Union[str, Path],
    *,
    classes: Union[str, Path, None] = None,
    cfg: Union[str, Path, None] = None,
    overrides: Sequence[str] = (),
    boundary: Optional[Sequence[float]] = DEFAULT_BOUNDARY,
    sequence: Optional[str] = None,
    per_image: Union[str, Path, None] = None,
    report: Union[str, Path, None] = None,
) -> EvalResult:
    """Evaluate a folder of predicted label maps. The network that made them is not required.

    Files are paired by name: see `PredictionFolder`. Predictions may be class numbers, palette
    images, images in the colors of the classes, or official label ids of Cityscapes; 255 is no
    class, so its pixels count as wrong.

    Args:
        predictions: folder of the predictions.
        labels: folder of the labels.
        classes: text file with a line for each class: its name, or `red green blue name`.
        cfg: a YAML file, or the name of a shipped config, instead of `classes`: the classes and
            the label format are those of its validation set.
        overrides: `key=value` changes of the config.
        boundary: as of `liteseg.evaluate`.
        sequence: as of `liteseg.evaluate`.
        per_image: as of `liteseg.evaluate`.
        report: as of `liteseg.evaluate`.

    Raises:
        UserError: a label has no prediction or several, a file cannot be read or has another size,
            or a value is no class.
    """
    if classes and cfg:
        raise UserError("--classes and --config: both give the classes; leave one out")
    output = EvalOutput(report, per_image, sequence, boundary)
    output.check()
    format = LabelFormat.read(Path(classes)) if classes else None
    if cfg is not None:
        format = _format_of_config(load_config(cfg, overrides))
    pairs = PredictionFolder(Path(predictions).expanduser(), Path(labels).expanduser(), format)
    gallery = Gallery(pairs, _GALLERY) if report else None
    images = output.evaluator(pairs, UNKNOWN)
    metrics = _metrics(pairs, images, gallery)
    folders = {"predictions": str(predictions), "labels": str(labels)}
    result = EvalResult(metrics, None if cfg is None else str(cfg), folders=folders)
    about = f"evaluation of {predictions} by {labels}"
    output.write(images, metrics, Path(predictions).name, about, gallery)
    return result


def _format_of_config(cfg: Config) -> LabelFormat:
    spec = cfg.get("val_dataset") or cfg.get("train_dataset")
    if not isinstance(spec, dict) or "type" not in spec:
        raise UserError(f"{cfg.path}: has no val_dataset; give the classes with --classes FILE")
    import liteseg.datasets  # noqa: F401 (registers them)

    if spec["type"] not in DATASETS:
        raise UserError(
            f"{cfg.path}: val_dataset.type {spec['type']!r} is not a dataset of liteseg; give the "
            "classes with --classes FILE"
        )
    names, palette = names_and_palette(spec)
    return LabelFormat.of_dataset(DATASETS[spec["type"]], spec, names, palette)


def _metrics(
    pairs: PredictionFolder, images: PerImage, gallery: Optional[Gallery]
) -> dict[str, Any]:
    """Everything that `liteseg.evaluate` returns as metrics."""
    matrix = ConfusionMatrix(pairs.num_classes, pairs.ignore_index, pairs.classes, UNKNOWN)
    begin = time.perf_counter()
    loaded = logging.progress(map_in_threads(pairs.load, range(len(pairs))), "eval", len(pairs))
    for index, (pred, label) in enumerate(loaded):
        sample = {"label": label}
        matrix.update(pred, label)
        images.update(index, sample, pred)
        if gallery:
            gallery.update(index, sample, pred)
    found = {**matrix.compute(), "confusion": matrix.matrix.tolist()}
    found.update(images.compute([images.state]))
    seconds = time.perf_counter() - begin
    if problem := nothing_counted(found, pairs):
        logging.get_logger().warning(problem)
    if unknown := int(matrix.missed.sum()):
        logging.get_logger().warning(
            f"{unknown} labeled pixels ({unknown / matrix.labeled.sum():.1%}) are predicted as "
            f"{UNKNOWN}, no class, and count as wrong"
        )
    rates = {"seconds": seconds, "images_per_second": len(pairs) / max(seconds, 1e-9)}
    return {**found, **rates, "timings": {}}
