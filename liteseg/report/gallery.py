"""Images of an evaluation: the same few samples each time, and the worst and best predictions."""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Optional

import cv2
import numpy as np

from liteseg.metrics import ConfusionMatrix
from liteseg.report.visualize import captioned, colorize, error_map, overlay, panel
from liteseg.utils.bands import for_display
from liteseg.utils.text import decimal

_LONGEST_SIDE = 512  # pixels of a tile: a report and a dashboard contain many


class GalleryImage(NamedTuple):
    """One sample with its label and prediction.

    Attributes:
        name: of the sample.
        miou: of this image alone, 0 to 1; None: all its pixels are ignored.
        tiles: {name: (h, w, 3) uint8 RGB}, those of `sample_tiles`.
    """

    name: str
    miou: Optional[float]
    tiles: Mapping[str, np.ndarray]

    def panel(self) -> np.ndarray:
        """The tiles side by side under name and mIoU: (H, W, 3) uint8 RGB."""
        return captioned(
            panel(tuple(self.tiles.values())), f"{self.name}: mIoU {decimal(self.miou, 3)}"
        )


class Gallery:
    """Selects and keeps images of the latest evaluation; an evaluator (see `engine/evaluator.py`).

    Args:
        dataset: the dataset that is evaluated; with `samples`, `classes`, `palette` and
            `ignore_index`.
        count: number of images of each kind: fixed, worst, best.
    """

    def __init__(self, dataset: Any, count: int):
        self.dataset, self.count = dataset, count
        places = np.linspace(0, len(dataset) - 1, min(count, len(dataset)))
        self._chosen = set(places.astype(int).tolist())
        self.reset()

    def reset(self) -> None:
        """Start a new evaluation without any image."""
        self._fixed: dict[int, GalleryImage] = {}
        # By mIoU, at most 2 x count: those in the middle are dropped.
        self._ranked: list[tuple[float, int, GalleryImage]] = []

    @property
    def state(self) -> tuple[dict, list]:
        """The images of this process."""
        return self._fixed, self._ranked

    @property
    def fixed(self) -> list[GalleryImage]:
        """The same samples at each evaluation, spread over the dataset, in its order."""
        return [self._fixed[index] for index in sorted(self._fixed)]

    @property
    def worst(self) -> list[GalleryImage]:
        """At most `count` with the smallest mIoU, the worst first."""
        return [image for _, _, image in self._ranked[: self.count]]

    @property
    def best(self) -> list[GalleryImage]:
        """At most `count` with the largest mIoU that are not among `worst`, the best first."""
        return [image for _, _, image in self._ranked[self.count :][::-1]]

    def update(self, index: int, sample: Mapping[str, np.ndarray], prediction: np.ndarray) -> None:
        """Keep the image if it is one of the fixed ones or, so far, of the worst or best."""
        if not self.count or "label" not in sample:
            return
        matrix = ConfusionMatrix(len(self.dataset.classes), self.dataset.ignore_index)
        matrix.update(prediction, sample["label"])
        miou = matrix.compute()["miou"]
        place = bisect.bisect_left(self._ranked, (-1.0 if miou is None else miou, index))
        full = len(self._ranked) == 2 * self.count
        # In the full list that place is between the worst and the best; an image whose pixels are
        # all ignored is neither.
        ranks = miou is not None and not (full and place == self.count)
        if not ranks and index not in self._chosen:
            return
        name = self.dataset.samples[index].name
        image = GalleryImage(name, miou, self._tiles(sample, prediction))
        if index in self._chosen:
            self._fixed[index] = image
        if ranks:
            self._ranked.insert(place, (miou, index, image))
            if full:
                del self._ranked[self.count]

    def compute(self, states: Sequence[tuple[dict, list]]) -> dict[str, Any]:
        """Combine the images of all processes, in each of them; adds no metric."""
        self._fixed = {index: image for fixed, _ in states for index, image in fixed.items()}
        ranked = sorted((one for _, few in states for one in few), key=lambda one: one[:2])
        if len(ranked) > 2 * self.count:
            del ranked[self.count : len(ranked) - self.count]
        self._ranked = ranked
        return {}

    def panels(self) -> dict[str, np.ndarray]:
        """The panels of the fixed and the worst images by their tag in VisualDL."""
        fixed = {f"val/{image.name}": image.panel() for image in self.fixed}
        worst = {f"worst/{place}": image.panel() for place, image in enumerate(self.worst, 1)}
        return {**fixed, **worst}

    def _tiles(
        self, sample: Mapping[str, np.ndarray], prediction: np.ndarray
    ) -> dict[str, np.ndarray]:
        tiles = sample_tiles(self.dataset, sample, prediction)
        return {name: _small(tile) for name, tile in tiles.items()}


def sample_tiles(
    dataset: Any, sample: Mapping[str, np.ndarray], prediction: np.ndarray
) -> dict[str, np.ndarray]:
    """`input`, `label`, `prediction` and `errors` of a sample, each (h, w, 3) uint8 RGB.

    Args:
        dataset: with `palette` and `ignore_index`.
        sample: `label` (h, w) and, if there is one, `img` (H, W, C).
        prediction: (h, w) class indices.
    """
    image, label, ignored = sample.get("img"), sample["label"], dataset.ignore_index
    image = None if image is None else for_display(image)
    # The transforms may have resized or padded the image: then it can't be overlaid.
    below = image if image is not None and image.shape[:2] == prediction.shape else None
    tiles = {} if image is None else {"input": image}
    for name, numbers in (("label", label), ("prediction", prediction)):
        tiles[name] = (
            colorize(numbers, dataset.palette)
            if below is None
            else overlay(below, numbers, dataset.palette, ignore_index=ignored)
        )
    return {**tiles, "errors": error_map(prediction, label, ignored)}


def _small(image: np.ndarray) -> np.ndarray:
    """At most `_LONGEST_SIDE` pixels wide and high."""
    scale = _LONGEST_SIDE / max(image.shape[:2])
    if scale >= 1:
        return image
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
