"""Label values: pixel counts of the classes, and values that no class has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Optional

import numpy as np

from liteseg.datasets.parallel import map_in_threads
from liteseg.utils import logging
from liteseg.utils.images import label_histogram

if TYPE_CHECKING:
    from liteseg.datasets.base import SegmentationDataset


MASK_ADVICE = (
    "save the foreground as 1, or set colours: colors.txt in the dataset, a file below "
    "dataset_root with the two lines `0 0 0 background` and `255 255 255 foreground`"
)


def count_label_pixels(
    dataset: SegmentationDataset, workers: Optional[int] = None, progress: bool = True
) -> np.ndarray:
    """Count the labeled pixels of each class over all labels of a dataset.

    Args:
        dataset: its transforms are not applied.
        workers: number of threads (default: one per core); decoding releases the GIL.
        progress: show a progress bar on stderr.

    Returns:
        (num_classes,) int64 pixels; ignored pixels are not counted.

    Raises:
        UserError: a label can't be read, or contains a value that is no class.
    """

    def count(index: int) -> np.ndarray:
        label = dataset.load_label(index)
        return np.zeros(256, np.int64) if label is None else label_histogram(label)

    counts = map_in_threads(count, range(len(dataset)), workers)
    bar = logging.progress(counts, "counting pixels", len(dataset), shown=progress)
    total = sum(bar, np.zeros(256, np.int64))
    return class_pixels(total, dataset.num_classes, dataset.ignore_index)


def class_pixels(histogram: np.ndarray, num_classes: int, ignore_index: int) -> np.ndarray:
    """The part of a (256,) label histogram that belongs to classes: (num_classes,)."""
    counts = histogram[:num_classes].copy()
    if ignore_index < num_classes:
        counts[ignore_index] = 0
    return counts


def invalid_values(histogram: np.ndarray, num_classes: int, ignore_index: int) -> dict[int, int]:
    """{label value: pixels}, ascending, of the values that are neither a class nor ignored."""
    counts = histogram.copy()
    counts[:num_classes] = 0
    counts[ignore_index] = 0
    return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}


def describe_invalid_values(
    histogram: np.ndarray, num_classes: int, ignore_index: int, shown: int = 5
) -> Optional[str]:
    """The invalid values of a (256,) label histogram, and their probable cause.

    Returns:
        None if every value is a class or `ignore_index`.
    """
    invalid = invalid_values(histogram, num_classes, ignore_index)
    if not invalid:
        return None
    first = ", ".join(f"{value} ({n} pixels)" for value, n in list(invalid.items())[:shown])
    more = f" and {len(invalid) - shown} more values" if len(invalid) > shown else ""
    return (
        f"label value {first}{more}: expected 0..{num_classes - 1}, or {ignore_index} for ignored "
        f"pixels. {_probable_cause(histogram, list(invalid), num_classes)}"
    )


def _probable_cause(histogram: np.ndarray, invalid: list[int], num_classes: int) -> str:
    """The kind of file that has such values; the most certain signs are tested first."""
    present = np.flatnonzero(histogram)
    if set(present) <= {0, 255}:
        return f"It looks like a 0/255 mask: {MASK_ADVICE}."
    if invalid == [num_classes] and histogram[0] == 0:
        return "Classes seem to be counted from 1: subtract 1."
    if invalid == [num_classes]:
        return (
            f"If {num_classes} means 'void', write 255 there (or set ignore_index: {num_classes}); "
            f"if it is a class, set num_classes: {num_classes + 1}."
        )
    if num_classes == 19 and invalid[-1] <= 33:
        return "It looks like Cityscapes labelIds where labelTrainIds are expected."
    if len(present) > 48 and len(present) > 2 * num_classes:
        return "So many values come from a JPEG, a resized label, or a color label saved as gray."
    if invalid[-1] < num_classes + 30:
        return f"If these are classes, num_classes must be at least {invalid[-1] + 1}."
    return (
        "It looks like a color label saved as gray, or a palette PNG whose colors were saved "
        "instead of its indices: convert each color to its class number."
    )
