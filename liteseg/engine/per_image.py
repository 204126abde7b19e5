"""The counts of every image of an evaluation. Runs without Paddle."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Callable, NamedTuple, Optional

import numpy as np

from liteseg.errors import UserError
from liteseg.metrics.boundary import in_pixels
from liteseg.metrics.confusion import named
from liteseg.metrics.image_counts import (
    BoundaryOptions,
    ImageCounts,
    image_metrics,
    metric_arrays,
    total_counts,
)
from liteseg.metrics.intervals import intervals, named_intervals, units_of
from liteseg.utils.runtime import cpu_threads

_EXTREMES = 8  # images of each end of a column that have a thumbnail
_MANY = 400  # images; with fewer, all have one

Thumbnail = Callable[[int, Mapping[str, np.ndarray], np.ndarray], bytes]


class ImageResult(NamedTuple):
    """One image.

    Attributes:
        counts: the counts.
        width: of its boundary regions in pixels.
        thumbnail: a small image, or None.
    """

    counts: ImageCounts
    width: float
    thumbnail: Optional[bytes] = None


class PerImage:
    """Counts each image, boundaries and object sizes too; an evaluator (see `engine/evaluator.py`).

    The counting runs in threads next to the network. Memory is that of a few images, the counts of
    all, and thumbnails of those that are extreme in some metric.

    Args:
        dataset: with `samples`, `classes`, `num_classes` and `ignore_index`.
        sequence_of: the sequence of an image, by its name.
        boundary: lengths of the boundary metrics; None: without them.
        thumbnail: draws an image from index, sample and prediction; None: without.
        unknown: predicted value that is no class: its pixels are wrong.
        threads: number of threads.

    Attributes:
        images: the counts in the order of the dataset, after `compute`.
        thumbnails: {place in `images`: thumbnail}, after `compute`.
    """

    needs_logits = False

    @property
    def needs_images(self) -> bool:
        """Only for the thumbnails."""
        return self.thumbnail is not None

    def __init__(
        self,
        dataset: Any,
        sequence_of: Callable[[str], Optional[str]],
        boundary: Optional[BoundaryOptions] = None,
        thumbnail: Optional[Thumbnail] = None,
        unknown: Optional[int] = None,
        threads: Optional[int] = None,
    ):
        self.dataset, self.sequence_of, self.boundary = dataset, sequence_of, boundary
        self.thumbnail, self.unknown = thumbnail, unknown
        self.threads = threads or max(cpu_threads() // 2, 1)
        self.images: list[ImageCounts] = []
        self.thumbnails: dict[int, bytes] = {}
        self.reset()

    def reset(self) -> None:
        """Start a new evaluation."""
        self._results: dict[int, ImageResult] = {}
        self._waiting: deque[Future] = deque()
        self._pool: Optional[ThreadPoolExecutor] = None

    @property
    def state(self) -> dict[int, ImageResult]:
        """The images of this process by their index; waits for those in work."""
        while self._waiting:
            self._collect()
        if self._pool:
            self._pool.shutdown()
            self._pool = None
        return self._results

    def update(self, index: int, sample: Mapping[str, np.ndarray], prediction: np.ndarray) -> None:
        """Queue one image; those without a label do not count.

        Raises:
            UserError: an earlier image has a value that is neither a class nor ignored.
        """
        if "label" not in sample:
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.threads)
        self._waiting.append(self._pool.submit(self._count, index, sample, prediction))
        if len(self._waiting) > self.threads:
            self._collect()

    def _collect(self) -> None:
        index, result = self._waiting.popleft().result()
        self._results[index] = result
        if self.thumbnail and len(self._results) % _MANY == 0:
            self._drop_thumbnails()

    def _count(
        self, index: int, sample: Mapping[str, np.ndarray], prediction: np.ndarray
    ) -> tuple[int, ImageResult]:
        label, name = sample["label"], self.dataset.samples[index].name
        try:
            counts = ImageCounts.of(
                name,
                self.sequence_of(name),
                prediction,
                label,
                self.dataset.num_classes,
                self.dataset.ignore_index,
                self.boundary,
                self.unknown,
            )
        except ValueError as error:
            raise UserError(f"{self.dataset.samples[index].label}: {error}") from None
        width = in_pixels(self.boundary.width, label.shape) if self.boundary else 0.0
        drawn = self.thumbnail(index, sample, prediction) if self.thumbnail else None
        return index, ImageResult(counts, width, drawn)

    def _drop_thumbnails(self) -> None:
        """Keep only those of images that are among the best or worst by some metric."""
        indices = list(self._results)
        rows = [image_metrics(self._results[i].counts, self.dataset.classes) for i in indices]
        kept: set[int] = set()
        for key in rows[0]:
            values = [(row[key], i) for row, i in zip(rows, indices) if row[key] is not None]
            if values and not isinstance(values[0][0], str):
                ranked = [i for _, i in sorted(values)]
                kept.update(ranked[:_EXTREMES] + ranked[-_EXTREMES:])
        for index in set(indices) - kept:
            self._results[index] = self._results[index]._replace(thumbnail=None)

    def compute(self, states: Sequence[dict[int, ImageResult]]) -> dict[str, Any]:
        """Boundary metrics, mIoU by object size and of thin classes, `per_image`, and `intervals`:
        the 95 % interval of each metric.

        A class is thin if it is on average narrower than the boundary regions: the width of a long
        strip is twice its area over the length of its contour.
        """
        merged = {index: result for state in states for index, result in state.items()}
        self._results = dict(sorted(merged.items()))
        if self.thumbnail and len(merged) > _MANY:
            self._drop_thumbnails()
        results = list(self._results.values())
        self.images = [result.counts for result in results]
        self.thumbnails = {i: r.thumbnail for i, r in enumerate(results) if r.thumbnail is not None}
        found: dict[str, Any] = {}
        if self.images and self.boundary:
            totals = total_counts(self.images)
            arrays = metric_arrays(totals)
            found = named({k: v for k, v in arrays.items() if _is_additional(k)}, self._classes())
            contour = np.maximum(totals["contour_labeled"], 1)
            width = float(np.mean([result.width for result in results]))
            thin = (2 * totals["labeled"] / contour <= width) & (totals["labeled"] > 0)
            ious = arrays["class_iou"][thin]
            found["miou_thin"] = float(ious.mean()) if thin.any() else None
            found["thin_classes"] = [name for name, one in zip(self._classes(), thin) if one]
            found["boundary"] = self.boundary._asdict()
        if self.images:
            units = units_of(self.images)
            ends = named_intervals(intervals([self.images], units), self._classes())
            found["intervals"] = {"units": str(units), **ends}
        return {**found, "per_image": [image.as_json() for image in self.images]}

    def _classes(self) -> Sequence[str]:
        return self.dataset.classes


def _is_additional(name: str) -> bool:
    """Whether a metric is not among those of the confusion matrix."""
    return "boundary" in name or name.startswith("miou_")
