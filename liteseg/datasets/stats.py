"""Label statistics: how often each class occurs, and the class weights that follow from it."""

from __future__ import annotations

from typing import Optional

import numpy as np

from liteseg.datasets.base import SegmentationDataset
from liteseg.datasets.parallel import map_in_threads
from liteseg.utils import logging
from liteseg.utils.images import label_histogram


def class_frequencies(
    dataset: SegmentationDataset, workers: Optional[int] = None, progress: bool = True
) -> np.ndarray:
    """Count the labelled pixels of each class over all labels of a dataset.

    Args:
        dataset: its transforms are not applied.
        workers: threads (decoding releases the interpreter lock); all cores without.
        progress: draw a bar on stderr.

    Returns:
        (num_classes,) int64 pixels; ignored pixels are not counted.

    Raises:
        UserError: a label that can't be read or holds other values than the classes.
    """
    labelled = [i for i, sample in enumerate(dataset.samples) if sample.label is not None]

    def count(index: int) -> np.ndarray:
        return class_counts(dataset, label_histogram(dataset.load_label(index)))

    total = np.zeros(dataset.num_classes, np.int64)
    counts = map_in_threads(count, labelled, workers)
    for one in logging.progress(counts, "class frequencies", len(labelled), shown=progress):
        total += one
    return total


def class_counts(dataset: SegmentationDataset, histogram: np.ndarray) -> np.ndarray:
    """The (num_classes,) part of a (256,) count of label values that is no ignored one."""
    counts = histogram[: dataset.num_classes].copy()
    if dataset.ignore_index < dataset.num_classes:
        counts[dataset.ignore_index] = 0
    return counts
