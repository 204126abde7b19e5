"""Pixel counts of one image, from which the metrics of any set of images follow exactly."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Optional

import numpy as np

from liteseg.metrics.confusion import area_metrics, named


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

    @classmethod
    def from_matrix(
        cls, name: str, sequence: Optional[str], matrix: np.ndarray, **counts: np.ndarray
    ) -> ImageCounts:
        """The counts of a confusion matrix (C, C), indexed [label, prediction], and others."""
        areas = np.diag(matrix).copy(), matrix.sum(axis=0), matrix.sum(axis=1)
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
            ValueError: a field is missing or unknown, or no list of `num_classes` counts.
        """
        known = [field.name for field in fields(cls)]
        if not {*known[:5]} <= set(content) <= {*known}:
            raise ValueError(f"fields are {', '.join(content)}; expected {', '.join(known)}")
        name, sequence = content["name"], content["sequence"]
        if not isinstance(name, str) or not isinstance(sequence, (str, type(None))):
            raise ValueError(f"name {name!r}, sequence {sequence!r}; expected texts")
        counts = {key: np.array(content[key]) for key in known[2:] if key in content}
        for key, value in counts.items():
            if value.shape != (num_classes,) or value.dtype.kind != "i" or value.min() < 0:
                raise ValueError(f"{key} of {name}: expected {num_classes} counts")
        return cls(name, sequence, **counts)


def total_counts(images: Iterable[ImageCounts]) -> dict[str, np.ndarray]:
    """The sums by field, each int64 (C,); fields that an image lacks are left out."""
    images = list(images)
    names = [field.name for field in fields(ImageCounts)][2:]
    columns = {name: [getattr(image, name) for image in images] for name in names}
    return {
        name: np.sum(column, axis=0)
        for name, column in columns.items()
        if column and all(one is not None for one in column)
    }


def metrics_of_images(images: Sequence[ImageCounts], class_names: Sequence[str]) -> dict[str, Any]:
    """The metrics over a set of images: exactly those of `ConfusionMatrix.compute`."""
    totals = total_counts(images)
    areas = (totals[name] for name in ("intersection", "labeled", "predicted"))
    return {**named(area_metrics(*areas), class_names), "images": len(images)}
