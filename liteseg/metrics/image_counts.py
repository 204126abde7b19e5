"""Pixel counts of one image, from which the metrics of any set of images follow exactly."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, Optional

import numpy as np

from liteseg.metrics.boundary import IGNORED, boundary_counts, boundary_metrics, in_pixels
from liteseg.metrics.confusion import ConfusionMatrix, area_metrics, named
from liteseg.metrics.objects import SIZES, size_counts, size_metrics


class BoundaryOptions(NamedTuple):
    """Lengths of the boundary metrics: pixels, or below 1 a share of the image's diagonal.

    Attributes:
        width: of the boundary regions (Boundary IoU).
        tolerance: distance at which contours match (boundary F-score).
    """

    width: float = 0.02
    tolerance: float = 0.0075


@dataclass(frozen=True, eq=False)
class ImageCounts:
    """Counts of one image, each int64 (C,), by class; those of a set of images are their sums.

    Attributes:
        name: of the image.
        sequence: of frames that it belongs to; None if unknown.
        intersection: pixels of the class in label and prediction.
        predicted: pixels predicted as the class, where the label is not ignored.
        labeled: pixels labeled as the class.
        boundary_intersection: pixels of both boundary regions (Boundary IoU); None: not computed.
        boundary_union: pixels of at least one of the boundary regions.
        contour_predicted: contour pixels of the prediction (boundary F-score).
        contour_predicted_matched: those within the tolerance of the label's contour.
        contour_labeled: contour pixels of the label.
        contour_labeled_matched: those within the tolerance of the prediction's contour.
        size_intersection: as `intersection`, by object size: (sizes, C).
        size_union: pixels of the class in label or prediction, by object size: (sizes, C).
    """

    name: str
    sequence: Optional[str]
    intersection: np.ndarray
    predicted: np.ndarray
    labeled: np.ndarray
    boundary_intersection: Optional[np.ndarray] = None
    boundary_union: Optional[np.ndarray] = None
    contour_predicted: Optional[np.ndarray] = None
    contour_predicted_matched: Optional[np.ndarray] = None
    contour_labeled: Optional[np.ndarray] = None
    contour_labeled_matched: Optional[np.ndarray] = None
    size_intersection: Optional[np.ndarray] = None
    size_union: Optional[np.ndarray] = None

    @classmethod
    def of(
        cls,
        name: str,
        sequence: Optional[str],
        pred: np.ndarray,
        label: np.ndarray,
        num_classes: int,
        ignore_index: int = 255,
        boundary: Optional[BoundaryOptions] = None,
        unknown: Optional[int] = None,
    ) -> ImageCounts:
        """Count one image.

        Args:
            name: of the image.
            sequence: that it belongs to.
            pred: (h, w) class indices.
            label: (h, w) class indices or `ignore_index`.
            num_classes: number of classes, 1 to 255.
            ignore_index: label value whose pixels are not counted.
            boundary: lengths of the boundary metrics; None: without them and the object sizes.
            unknown: predicted value that is no class, as of `ConfusionMatrix`.

        Raises:
            ValueError, TypeError: as `ConfusionMatrix.update`.
        """
        matrix = ConfusionMatrix(num_classes, ignore_index, unknown=unknown)
        matrix.update(pred, label)
        counts: dict[str, np.ndarray] = {}
        if boundary:
            valid = label != ignore_index
            known = valid if unknown is None else valid & (pred != unknown)
            pred = np.where(known, pred, IGNORED).astype(np.uint8)
            label = np.where(valid, label, IGNORED).astype(np.uint8)
            lengths = (in_pixels(length, label.shape) for length in boundary)
            found = {**boundary_counts(pred, label, *lengths), **size_counts(pred, label)}
            counts = {key: value[..., :num_classes] for key, value in found.items()}
        areas = np.diag(matrix.matrix).copy(), matrix.matrix.sum(axis=0), matrix.labeled
        return cls(name, sequence, *areas, **counts)

    def as_json(self) -> dict[str, Any]:
        """The fields as plain values; counts that were not computed are left out."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            name: value.tolist() if isinstance(value, np.ndarray) else value
            for name, value in values.items()
            if value is not None or name == "sequence"
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any], num_classes: int) -> ImageCounts:
        """The reverse of `as_json`.

        Raises:
            ValueError: a field is missing or unknown, or not the counts of `num_classes`.
        """
        known = [field.name for field in fields(cls)]
        if not {*known[:5]} <= set(content) <= {*known}:
            raise ValueError(f"fields are {', '.join(content)}; expected {', '.join(known)}")
        name, sequence = content["name"], content["sequence"]
        if not isinstance(name, str) or not isinstance(sequence, (str, type(None))):
            raise ValueError(f"name {name!r}, sequence {sequence!r}; expected texts")
        counts = {key: np.array(content[key]) for key in known[2:] if key in content}
        for key, value in counts.items():
            shape = (len(SIZES), num_classes) if key.startswith("size") else (num_classes,)
            if value.shape != shape or value.dtype.kind != "i" or value.min() < 0:
                raise ValueError(f"{key} of {name}: expected counts of {num_classes} classes")
        return cls(name, sequence, **counts)


def total_counts(images: Iterable[ImageCounts]) -> dict[str, np.ndarray]:
    """The sums by field, int64; fields that an image lacks are left out."""
    images = list(images)
    names = [field.name for field in fields(ImageCounts)][2:]
    columns = {name: [getattr(image, name) for image in images] for name in names}
    return {
        name: np.sum(column, axis=0)
        for name, column in columns.items()
        if column and all(one is not None for one in column)
    }


def metric_arrays(totals: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """All metrics of summed counts, (..., C) each: those of `area_metrics` and, as far as they were
    counted, `boundary_metrics` and `size_metrics`.
    """
    areas = (totals[name] for name in ("intersection", "labeled", "predicted"))
    found = area_metrics(*areas)
    if "boundary_union" in totals:
        found.update(boundary_metrics(totals))
    if "size_union" in totals:
        found.update(size_metrics(totals))
    return found


def metrics_of_images(images: Sequence[ImageCounts], class_names: Sequence[str]) -> dict[str, Any]:
    """The metrics over a set of images, as plain numbers by class name and size.

    The areas give exactly what `ConfusionMatrix.compute` gives.
    """
    metrics = named(metric_arrays(total_counts(images)), class_names)
    return {**metrics, "images": len(images)}


def image_metrics(image: ImageCounts, class_names: Sequence[str]) -> dict[str, Any]:
    """The metrics of one image as a row of a table; None where there is nothing to measure.

    Returns:
        `name`, `sequence`, `pixels` (those that count), `accuracy`, `miou`; `boundary_iou` and
        `boundary_f` if they were counted; `iou/<class>` of every class.
    """
    found = metrics_of_images([image], class_names)
    boundary: list[str] = [key for key in ("boundary_iou", "boundary_f") if key in found]
    return {
        "name": image.name,
        "sequence": image.sequence,
        "pixels": int(image.labeled.sum()),
        "accuracy": found["acc"],
        "miou": found["miou"],
        **{key: found[key] for key in boundary},
        **{f"iou/{name}": iou for name, iou in found["class_iou"].items()},
    }
