"""Label errors: regions where a confident prediction contradicts the label, ranked.

Confident learning (Northcutt et al., 2021) over connected regions in place of single samples: the
confidence that counts as high is a property of the class, the mean probability of the class where
it is labeled. A contradiction that the network finds in many images is its own weakness, not an
error of the labels, so regions count by how unusual their pair of classes and their size are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

# Radius of the smallest region, as a share of the diagonal; thinner ones are imprecise outlines.
RADIUS = 0.005
_PIXELS = 1 << 18  # of an image that are compared; larger images are compared on a grid
_SMALL = 1e-3  # of an image: what is added to a standard deviation


class Region(NamedTuple):
    """A connected region with one label and one other prediction.

    Attributes:
        image: number of the image.
        box: (x, y, w, h) in pixels.
        label: class of the label.
        predicted: class of the prediction.
        pixels: area without parts thinner than twice the radius.
        confidence: mean probability of the predicted class.
        label_confidence: mean probability of the class of the label.
        share: `pixels` as a share of the labeled pixels of the image.
    """

    image: int
    box: tuple[int, int, int, int]
    label: int
    predicted: int
    pixels: int
    confidence: float
    label_confidence: float
    share: float


class RegionFinder:
    """Finds the contradictions in image after image.

    Args:
        num_classes: number of classes.
        ignore_index: label of the pixels that can't be wrong.

    Attributes:
        images: number of images.
        regions: all contradictions, confident or not.
        area: (classes,) labeled pixels of each class.
        confidence: (classes,) sum of the probability of each class where it is labeled.
    """

    def __init__(self, num_classes: int, ignore_index: int = 255):
        self.num_classes, self.ignore_index = num_classes, ignore_index
        self.images = 0
        self.regions: list[Region] = []
        self.area = np.zeros(num_classes, np.int64)
        self.confidence = np.zeros(num_classes, np.float64)

    def update(self, index: int, probabilities: np.ndarray, label: np.ndarray) -> None:
        """Add one image.

        Args:
            index: its number.
            probabilities: (C, h, w) float32.
            label: (h, w) uint8 classes.
        """
        self.images += 1
        grid = max(1, int((label.size / _PIXELS) ** 0.5))
        probabilities, label = probabilities[:, ::grid, ::grid], label[::grid, ::grid]
        classes = self.num_classes
        counted = label != self.ignore_index
        labeled = np.where(counted, label, 0)
        own = np.take_along_axis(probabilities, labeled[None].astype(np.int64), axis=0)[0]
        flat = labeled[counted]
        self.area += np.bincount(flat, minlength=classes)
        self.confidence += np.bincount(flat, own[counted], classes)
        predicted, highest = probabilities.argmax(axis=0), probabilities.max(axis=0)
        pairs = np.where(
            counted & (predicted != labeled), labeled * np.int64(classes) + predicted, -1
        )
        radius = max(1, round(RADIUS * float(np.hypot(*label.shape))))
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
        found, counts = np.unique(pairs[pairs >= 0], return_counts=True)
        for pair in found[counts >= kernel.sum()]:
            mask = cv2.morphologyEx((pairs == pair).astype(np.uint8), cv2.MORPH_OPEN, kernel)
            number, parts, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
            sums = [np.bincount(parts.ravel(), x.ravel(), number) for x in (highest, own)]
            for part in range(1, number):
                x, y, w, h, pixels = stats[part].tolist()
                self.regions.append(
                    Region(
                        index,
                        (x * grid, y * grid, w * grid, h * grid),
                        int(pair) // classes,
                        int(pair) % classes,
                        pixels * grid**2,
                        float(sums[0][part] / pixels),
                        float(sums[1][part] / pixels),
                        pixels / max(int(counted.sum()), 1),
                    )
                )

    def ranked(self) -> list[tuple[float, Region]]:
        """The confident contradictions with their scores, the most suspicious first.

        A region is confident if its mean probability is at least that of the predicted class where
        it is labeled. Regions of an image with the same two classes count together, by their share
        of the image times the difference of the two probabilities. Their score is how far this is
        above the mean of the other images, in standard deviations (plus 0.1 % of an image), and is
        divided among them. Regions at or below the mean are left out.
        """
        usual = self.confidence / np.maximum(self.area, 1)
        groups: dict[tuple[int, int], dict[int, list[tuple[float, Region]]]] = {}
        for region in self.regions:
            if region.confidence >= usual[region.predicted]:
                weight = region.share * (region.confidence - region.label_confidence)
                pair = groups.setdefault((region.label, region.predicted), {})
                pair.setdefault(region.image, []).append((weight, region))
        scored = []
        for images in groups.values():
            masses = np.array([sum(weight for weight, _ in found) for found in images.values()])
            for mass, excess, found in zip(masses, self._excess(masses), images.values()):
                if excess > 0:
                    scored += [(weight / mass * excess, region) for weight, region in found]
        return sorted(scored, key=lambda item: (-item[0], item[1]))

    def _excess(self, masses: np.ndarray) -> np.ndarray:
        """Standard deviations above the mean of the other images; those without a region have 0."""
        others = max(self.images - 1, 1)
        mean = (masses.sum() - masses) / others
        variance = ((masses**2).sum() - masses**2) / others - mean**2
        return (masses - mean) / (np.sqrt(variance.clip(min=0)) + _SMALL)


def image_scores(ranked: Sequence[tuple[float, Region]]) -> list[tuple[int, float]]:
    """(index, sum of the scores of its regions) of every image with a region, the highest first."""
    scores: dict[int, float] = {}
    for score, region in ranked:
        scores[region.image] = scores.get(region.image, 0.0) + score
    return sorted(scores.items(), key=lambda item: (-item[1], item[0]))
