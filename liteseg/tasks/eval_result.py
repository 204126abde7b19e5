"""The outcome of an evaluation, and the files that it is written to. Runs without Paddle."""

from __future__ import annotations

import csv
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Optional, Union

from liteseg.engine.per_image import PerImage
from liteseg.errors import UserError
from liteseg.metrics.image_counts import BoundaryOptions, ImageCounts, image_metrics
from liteseg.report.gallery import Gallery
from liteseg.report.image_table import image_table, sequence_table, thumbnails_of
from liteseg.report.report import ReportData, write_report
from liteseg.tasks.sequences import sequence_function
from liteseg.utils.files import atomic_write, check_writable, require_kind
from liteseg.utils.logging import get_logger

DEFAULT_BOUNDARY = BoundaryOptions()
_TABLES = (".csv", ".parquet")


@dataclass(frozen=True)
class EvalResult:
    """The outcome of an evaluation.

    Attributes:
        metrics: `miou`, `acc`, `kappa`, `mdice` (0 to 1; None where nothing is labeled),
            `class_iou`, `class_precision`, `class_recall` and `class_dice` {name: value, or None
            for an absent class}, `confusion`, `images` (those with labels), `seconds`,
            `images_per_second`, `timings`; `per_image`, the counts of each image (the fields of
            `liteseg.metrics.ImageCounts`); `intervals`: `units`, the groups of images that count
            as independent, and by metric [low, high] at 95 %; the boundary metrics `boundary_iou`,
            `boundary_f`, `class_boundary_iou`, `class_boundary_f`, `miou_small`, `miou_medium`,
            `miou_large`, `miou_thin` and `thin_classes`, unless they were turned off; with
            `calibration` also that.
        config: file of the config, if there is one.
        weights: the evaluated weights or exported model.
        split: the evaluated split.
        predictions: number of label maps written.
        folders: `predictions` and `labels`, if folders were evaluated.
    """

    metrics: dict[str, Any]
    config: Optional[str] = None
    weights: Optional[str] = None
    split: Optional[str] = None
    predictions: int = 0
    folders: dict[str, str] = field(default_factory=dict)

    @property
    def miou(self) -> Optional[float]:
        """Mean intersection over union, 0 to 1; None where nothing is labeled."""
        return self.metrics["miou"]

    def as_json(self) -> dict[str, Any]:
        """The content of `liteseg eval --json`."""
        about = {"config": self.config, "weights": self.weights, "split": self.split}
        return {**self.metrics, **about, **self.folders}


class EvalOutput(NamedTuple):
    """The options of an evaluation that concern its images, its table and its report.

    Attributes:
        report: HTML file.
        table: CSV or Parquet file with a row for each image.
        sequence: regular expression of sequences in image names.
        boundary: width and tolerance of the boundary metrics; None: without them.
    """

    report: Union[str, Path, None] = None
    table: Union[str, Path, None] = None
    sequence: Optional[str] = None
    boundary: Optional[Sequence[float]] = None

    def check(self) -> None:
        """Raise a `UserError` now for an option or file that would fail later."""
        sequence_function(self.sequence)
        if self.report:
            require_kind(self.report, ".html")
            check_writable(Path(self.report).parent)
        if self.table:
            check_table(self.table)

    def evaluator(self, dataset: Any, unknown: Optional[int] = None) -> PerImage:
        """The evaluator that counts each image of `dataset`."""
        draw = thumbnails_of(dataset) if self.report else None
        names = sequence_function(self.sequence)
        lengths = BoundaryOptions(*self.boundary) if self.boundary else None
        return PerImage(dataset, names, lengths, draw, unknown)

    def write(
        self,
        images: PerImage,
        metrics: Mapping[str, Any],
        title: str,
        about: str,
        gallery: Optional[Gallery] = None,
        config: str = "",
        history: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Write the table and the report; the arguments after `images` are for the report.

        Raises:
            UserError: a file cannot be written, or the package for Parquet is missing.
        """
        classes = images.dataset.classes
        if self.sequence and not any(image.sequence for image in images.images):
            get_logger().warning(f"--sequence {self.sequence!r}: found in no image name")
        if self.table:
            write_table(self.table, images.images, classes)
        if self.report and metrics["images"]:
            table = image_table(images.images, classes, images.thumbnails)
            sequences = sequence_table(images.images, classes)
            data = ReportData(title, about, config, history, metrics, gallery, table, sequences)
            write_report(Path(self.report), data)


def check_table(path: Union[str, Path]) -> None:
    """Raise a `UserError` now if a table of images cannot be written to `path` later."""
    path = Path(path)
    if path.suffix.lower() not in _TABLES:
        raise UserError(f"--per-image {path}: expected a name that ends in .csv or .parquet")
    if path.suffix.lower() == ".parquet":
        _parquet(path)
    check_writable(path.parent)


def write_table(
    path: Union[str, Path], images: Sequence[ImageCounts], class_names: Sequence[str]
) -> None:
    """Write a row per image with its metrics (see `image_metrics`), as CSV or Parquet.

    Raises:
        UserError: the file cannot be written, or the package for Parquet is missing.
    """
    path = Path(path)
    rows = [image_metrics(image, class_names) for image in images]
    if path.suffix.lower() == ".parquet":
        pyarrow, parquet = _parquet(path)
        with atomic_write(path) as file:
            parquet.write_table(pyarrow.Table.from_pylist(rows), file)
        return
    with atomic_write(path, "w") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else ["name"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _parquet(path: Path) -> tuple[Any, Any]:
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise UserError(
            f"--per-image {path}: Parquet needs pyarrow ({error}); run `pip install pyarrow`, or "
            "give a .csv file"
        ) from None
