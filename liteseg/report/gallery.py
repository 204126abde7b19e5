"""Pictures of an evaluation: the same few samples each time, and those labelled worst and best."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np

from liteseg.metrics import ConfusionMatrix
from liteseg.report.visualize import captioned, colorize, error_map, overlay, panel

TILES = ("input", "label", "prediction", "errors")
_LONGEST_SIDE = 512  # pixels of a tile: a report and a dashboard hold many


class Picture(NamedTuple):
    """One labelled sample.

    Attributes:
        name: of the sample.
        miou: of this image alone, 0 to 1.
        tiles: the images of `TILES`, each (h, w, 3) uint8 RGB.
    """

    name: str
    miou: float
    tiles: tuple[np.ndarray, ...]

    def panel(self) -> np.ndarray:
        """The tiles side by side under name and mIoU: (H, W, 3) uint8 RGB."""
        return captioned(panel(self.tiles), f"{self.name}: mIoU {self.miou:.3f}")


class Gallery:
    """Chooses and keeps the pictures of the latest evaluation.

    Args:
        dataset: that is evaluated; with `samples`, `classes`, `palette` and `ignore_index`.
        count: how many pictures of each kind: fixed, worst, best.
    """

    def __init__(self, dataset: Any, count: int):
        self.dataset, self.count = dataset, count
        places = np.linspace(0, len(dataset) - 1, min(count, len(dataset)))
        self._chosen = set(places.astype(int).tolist())
        self.reset()

    def reset(self) -> None:
        """Start a new evaluation without any image."""
        self._fixed: dict[int, Picture] = {}
        self._ranked: list[tuple[float, int, Picture]] = []  # by mIoU, the middle is dropped

    @property
    def state(self) -> tuple[dict, list]:
        """The images of this process."""
        return self._fixed, self._ranked

    @property
    def fixed(self) -> list[Picture]:
        """The same samples at each evaluation, in their order, spread over the dataset."""
        return [self._fixed[index] for index in sorted(self._fixed)]

    @property
    def worst(self) -> list[Picture]:
        """At most `count` with the smallest mIoU, the worst first."""
        return [picture for _, _, picture in self._ranked[: self.count]]

    @property
    def best(self) -> list[Picture]:
        """At most `count` with the largest mIoU that are not among `worst`, the best first."""
        return [picture for _, _, picture in self._ranked[self.count :][::-1]]

    def update(self, index: int, sample: dict, pred: np.ndarray) -> None:
        """Keep the image if it is one of the chosen or, so far, of the worst or best."""
        if not self.count or "label" not in sample:
            return
        matrix = ConfusionMatrix(len(self.dataset.classes), self.dataset.ignore_index)
        matrix.update(pred, sample["label"])
        miou = matrix.compute()["miou"]
        place = bisect.bisect_left(self._ranked, (miou, index))
        full = len(self._ranked) == 2 * self.count
        # In the full list that place is between the worst and the best; an image whose pixels are
        # all ignored is neither.
        ranks = matrix.matrix.any() and not (full and place == self.count)
        if not ranks and index not in self._chosen:
            return
        picture = Picture(self.dataset.samples[index].name, miou, self._tiles(sample, pred))
        if index in self._chosen:
            self._fixed[index] = picture
        if ranks:
            self._ranked.insert(place, (miou, index, picture))
            if full:
                del self._ranked[self.count]

    def compute(self, states: Sequence[tuple[dict, list]]) -> dict[str, Any]:
        """Combine the images of all processes, in each of them; adds no metric."""
        self._fixed = {index: picture for fixed, _ in states for index, picture in fixed.items()}
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

    def _tiles(self, sample: dict, pred: np.ndarray) -> tuple[np.ndarray, ...]:
        image, label, palette = sample["img"], sample["label"], self.dataset.palette
        # The image may be smaller or padded: what the network sees is not of the label's size.
        alike = image.shape[:2] == pred.shape
        shown = overlay(image, pred, palette) if alike else colorize(pred, palette)
        errors = error_map(pred, label, self.dataset.ignore_index)
        return tuple(_small(tile) for tile in (image, colorize(label, palette), shown, errors))


def _small(image: np.ndarray) -> np.ndarray:
    """At most `_LONGEST_SIDE` pixels wide and high."""
    scale = _LONGEST_SIDE / max(image.shape[:2])
    if scale >= 1:
        return image
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
