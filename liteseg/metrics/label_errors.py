"""Label errors: regions where a confident prediction contradicts the label, ranked.

Confident learning (Northcutt et al., 2021) over connected regions in place of single samples: the
confidence that counts as high is a property of the class, the mean probability of the class where
it is labeled. A contradiction that the network finds everywhere is its own weakness, not an error
of the labels, so regions count by how rare their pair of classes is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

# Radius of the smallest region, as a share of the diagonal; thinner ones are imprecise outlines.
RADIUS = 0.005


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
        regions: all contradictions, confident or not.
        area: (classes,) labeled pixels of each class.
        confidence: (classes,) sum of the probability of each class where it is labeled.
    """

    def __init__(self, num_classes: int, ignore_index: int = 255):
        self.num_classes, self.ignore_index = num_classes, ignore_index
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
                        (x, y, w, h),
                        int(pair) // classes,
                        int(pair) % classes,
                        pixels,
                        float(sums[0][part] / pixels),
                        float(sums[1][part] / pixels),
                        pixels / max(int(counted.sum()), 1),
                    )
                )

    def merge(self, other: RegionFinder) -> None:
        """Add the images of another finder with the same classes."""
        self.regions += other.regions
        self.area += other.area
        self.confidence += other.confidence

    def ranked(self) -> list[tuple[float, Region]]:
        """The confident contradictions with their scores, the most suspicious first.

        A region is confident if its mean probability is at least that of the predicted class where
        it is labeled. Its score is the product of its share of the image, the difference of the
        two probabilities, and the negative logarithm of how often the network contradicts this
        label with this prediction.
        """
        usual = self.confidence / np.maximum(self.area, 1)
        confident = [
            region for region in self.regions if region.confidence >= usual[region.predicted]
        ]
        pairs = np.zeros((self.num_classes, self.num_classes), np.int64)
        for region in confident:
            pairs[region.label, region.predicted] += region.pixels
        rarity = -np.log((pairs + 1) / (self.area[:, None] + self.num_classes))
        scored = [
            (
                region.share
                * (region.confidence - region.label_confidence)
                * max(float(rarity[region.label, region.predicted]), 0.0),
                region,
            )
            for region in confident
        ]
        return sorted(scored, key=lambda item: (-item[0], item[1]))


def image_scores(ranked: Sequence[tuple[float, Region]]) -> list[tuple[int, float]]:
    """(index, sum of the scores of its regions) of every image with a region, the highest first."""
    scores: dict[int, float] = {}
    for score, region in ranked:
        scores[region.image] = scores.get(region.image, 0.0) + score
    return sorted(scores.items(), key=lambda item: (-item[1], item[0]))
