"""Statistics of images and labels: colors, objects by size, constant files, perceptual hashes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Optional

import cv2
import numpy as np

from liteseg.utils.bands import for_display

SIZES = ("small", "medium", "large")
# Largest share of the image that a small and a medium object cover.
_SMALL, _MEDIUM = 0.001, 0.01
_OBJECT_SIDE = 640  # labels are reduced to it for counting objects
_HASH_SIDE = 32
_HASH_BITS = 64
# Copies that were encoded again or resized differ by fewer bits, neighboring frames by more.
_SIMILAR_BITS = 4
_MOST_PAIRS = 1000


class SampleStatistics(NamedTuple):
    """Statistics of one sample.

    Attributes:
        color_sum: (C,) float64, sum of the pixels; `color_squares` of their squares.
        pixels: number of pixels.
        code: 64-bit perceptual hash of the image.
        constant_image: all pixels have one color.
        constant_label: all labeled pixels have one class, at least half of the image.
        shares: (num_classes,) float32, share of the image of each class.
        objects: (num_classes, 3) int64, connected regions by `SIZES`.
    """

    color_sum: np.ndarray
    color_squares: np.ndarray
    pixels: int
    code: int
    constant_image: bool
    constant_label: bool
    shares: np.ndarray
    objects: np.ndarray


def measure(image: np.ndarray, label: Optional[np.ndarray], num_classes: int) -> SampleStatistics:
    """The statistics of an (h, w, C) image and its (h, w) uint8 label, if there is one."""
    pixels = image.shape[0] * image.shape[1]
    if image.dtype == np.uint8:
        mean, deviation = (value.ravel()[:3] for value in cv2.meanStdDev(image))
    else:
        flat = image.reshape(pixels, -1)
        mean, deviation = flat.mean(axis=0, dtype=np.float64), flat.std(axis=0, dtype=np.float64)
    counts = np.zeros(256, np.int64)
    if label is not None:
        counts = np.bincount(label.ravel(), minlength=256)
    of_classes = counts[:num_classes]
    return SampleStatistics(
        mean * pixels,
        (deviation**2 + mean**2) * pixels,
        pixels,
        _perceptual_hash(image),
        bool(deviation.max() == 0),
        bool(np.count_nonzero(of_classes) == 1 and 2 * of_classes.max() >= pixels),
        (of_classes / pixels).astype(np.float32),
        _objects(label, np.flatnonzero(of_classes), num_classes),
    )


def _perceptual_hash(image: np.ndarray) -> int:
    """64 bits: which of the lowest frequencies of the gray image are above their median."""
    gray = cv2.cvtColor(for_display(image), cv2.COLOR_RGB2GRAY)
    small = cv2.resize(gray, (_HASH_SIDE, _HASH_SIDE), interpolation=cv2.INTER_AREA)
    low = cv2.dct(small.astype(np.float32))[:9, :8].ravel()[1 : 1 + _HASH_BITS]  # no mean
    return int.from_bytes(np.packbits(low > np.median(low)).tobytes(), "big")


def _objects(label: Optional[np.ndarray], present: np.ndarray, num_classes: int) -> np.ndarray:
    found = np.zeros((num_classes, len(SIZES)), np.int64)
    if label is None:
        return found
    if (scale := _OBJECT_SIDE / max(label.shape)) < 1:
        size = max(1, round(label.shape[1] * scale)), max(1, round(label.shape[0] * scale))
        label = cv2.resize(label, size, interpolation=cv2.INTER_NEAREST)
    for number in present.tolist():
        mask = (label == number).view(np.uint8)
        areas = cv2.connectedComponentsWithStats(mask)[2][1:, cv2.CC_STAT_AREA] / label.size
        found[number] += np.bincount(np.digitize(areas, (_SMALL, _MEDIUM)), minlength=3)
    return found


class Statistics:
    """Sums of `SampleStatistics` over a dataset; per image it keeps its shares and its hash."""

    def __init__(self, classes: Sequence[str], max_value: float = 255):
        self.classes = classes
        self.max_value = max_value
        self.color_sum: Any = 0.0
        self.color_squares: Any = 0.0
        self.pixels = 0
        self.objects = np.zeros((len(classes), len(SIZES)), np.int64)
        self.shares: list[np.ndarray] = []
        self.codes: list[int] = []
        self.files: list[str] = []
        self.indices: list[int] = []
        self.constant_images: list[str] = []
        self.constant_labels: list[str] = []

    def add(self, found: SampleStatistics, index: int, image: str, label: Optional[str]) -> None:
        """Count sample `index`; `image` and `label` are its files."""
        self.color_sum = self.color_sum + found.color_sum
        self.color_squares = self.color_squares + found.color_squares
        self.pixels += found.pixels
        self.objects += found.objects
        self.shares.append(found.shares)
        self.codes.append(found.code)
        self.files.append(image)
        self.indices.append(index)
        if found.constant_image:
            self.constant_images.append(image)
        if found.constant_label and label is not None:
            self.constant_labels.append(label)

    def examples(self, count: int = 3) -> dict[str, list[int]]:
        """{class: samples that contain it, from its largest to its smallest share}."""
        shares = np.array(self.shares).reshape(-1, len(self.classes))
        chosen = {}
        for number, name in enumerate(self.classes):
            order = np.argsort(-shares[:, number], kind="stable")
            order = order[: np.count_nonzero(shares[:, number])]
            places = np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int)
            chosen[name] = [self.indices[i] for i in order[places].tolist()]
        return chosen

    def compute(self) -> dict[str, Any]:
        """The statistics of all samples.

        Returns:
            dict of `normalize` {mean, std}, of each channel in units of `max_value`, which is
            there if it is not 255; by class, `objects` {size: number} and `typical_share`, the
            median share of an image among those that contain the class; `constant_images` and
            `constant_labels`, lists of files.
        """
        mean = self.color_sum / max(self.pixels, 1)
        mean = np.atleast_1d(mean)
        deviation = np.sqrt(np.maximum(self.color_squares / max(self.pixels, 1) - mean**2, 0))
        shares = np.array(self.shares).reshape(-1, len(self.classes))
        typical = {}
        for number, name in enumerate(self.classes):
            present = shares[shares[:, number] > 0, number]
            typical[name] = float(np.median(present)) if len(present) else None
        return {
            "normalize": {
                "mean": [round(float(value) / self.max_value, 4) for value in mean],
                "std": [round(float(value) / self.max_value, 4) for value in deviation],
                **({} if self.max_value == 255 else {"max_value": self.max_value}),
            },
            "objects": {
                name: dict(zip(SIZES, row))
                for name, row in zip(self.classes, self.objects.tolist())
            },
            "typical_share": typical,
            "constant_images": self.constant_images,
            "constant_labels": self.constant_labels,
        }


def find_similar(splits: Mapping[str, Statistics]) -> list[list[str]]:
    """Pairs of images in different splits that look the same, each as `split: file`, closest first.

    At most 1,000 pairs; images of one color are left out.
    """
    names = list(splits)
    pairs: list[tuple[int, str, str]] = []
    for place, first in enumerate(names):
        for second in names[place + 1 :]:
            pairs += _similar(splits[first], splits[second], first, second)
    return [[one, other] for _, one, other in sorted(pairs)[:_MOST_PAIRS]]


def _similar(a: Statistics, b: Statistics, first: str, second: str) -> list[tuple[int, str, str]]:
    codes = np.array(b.codes, np.uint64)
    if not len(codes):
        return []
    constant = {*a.constant_images, *b.constant_images}
    pairs = []
    for file, code in zip(a.files, a.codes):
        bits = np.unpackbits((codes ^ np.uint64(code)).view(np.uint8).reshape(-1, 8), axis=1)
        distances = bits.sum(axis=1)
        for index in np.flatnonzero(distances <= _SIMILAR_BITS).tolist():
            if file not in constant and b.files[index] not in constant:
                pairs.append(
                    (int(distances[index]), f"{first}: {file}", f"{second}: {b.files[index]}")
                )
    return pairs
