"""Models compared on the same images: paired differences, and the images that changed most."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Optional

import numpy as np

from liteseg.errors import UserError, quoted
from liteseg.metrics.confusion import named
from liteseg.metrics.image_counts import ImageCounts, metric_arrays, total_counts
from liteseg.metrics.intervals import (
    LEVEL,
    Interval,
    Units,
    differences,
    intervals,
    named_intervals,
    units_of,
)

HEADLINES = {
    "miou": "mIoU",
    "acc": "pixel accuracy",
    "kappa": "kappa",
    "mdice": "mean Dice",
    "boundary_iou": "boundary IoU",
    "boundary_f": "boundary F-score",
    "miou_small": "mIoU, small objects",
    "miou_medium": "mIoU, medium objects",
    "miou_large": "mIoU, large objects",
    "miou_thin": "mIoU, thin classes",
}
_SHOWN = 3


class Run(NamedTuple):
    """The counts of an evaluation.

    Attributes:
        source: file or folder, for messages.
        classes: names, in the order of the counts.
        images: of the evaluation, in any order.
        boundary: width and tolerance of its boundary metrics, if they are known.
    """

    source: str
    classes: tuple[str, ...]
    images: Sequence[ImageCounts]
    boundary: Optional[tuple[float, ...]] = None


class Row(NamedTuple):
    """A metric of two entries, and their difference with its interval; None: there is none."""

    name: str
    first: Optional[float]
    second: Optional[float]
    difference: Optional[float]
    interval: Optional[tuple[float, float]]
    verdict: str


class Mean(NamedTuple):
    """A metric of an entry; None: there is none.

    Attributes:
        value: mean over the runs.
        interval: its ends.
        deviation: standard deviation over the runs.
    """

    value: Optional[float]
    interval: Optional[tuple[float, float]]
    deviation: Optional[float]


class Moved(NamedTuple):
    """An image and its mIoU by two entries (means over their runs)."""

    name: str
    first: float
    second: float

    @property
    def difference(self) -> float:
        """Second minus first."""
        return self.second - self.first


@dataclass(frozen=True, eq=False)
class Entry:
    """A model: one evaluation, or those of trainings that differ in the seed only.

    Attributes:
        letter: short name: A for the first entry.
        sources: of the evaluations.
        metrics: means over the runs with intervals, by the keys of `metric_arrays`.
        deviation: standard deviation of each metric over the runs, NaN for a single one.
    """

    letter: str
    sources: list[str]
    metrics: dict[str, Interval]
    deviation: dict[str, np.ndarray]

    @property
    def miou(self) -> Mean:
        """The mIoU."""
        numbers = (*self.metrics["miou"], self.deviation["miou"])
        value, low, high, deviation = map(_plain, numbers)
        return Mean(value, _pair(low, high), deviation)


@dataclass(frozen=True, eq=False)
class Pair:
    """An entry minus the first one.

    Attributes:
        number: place of the entry among all, from 1.
        letter: its short name.
        differences: with intervals, by the keys of `metric_arrays`.
        moved: all images with labels by descending difference of their mIoU.
    """

    number: int
    letter: str
    differences: dict[str, Interval]
    moved: list[Moved]

    def most_moved(self, shown: int) -> tuple[list[Moved], list[Moved]]:
        """At most `shown` images that became better, and worse, the largest difference first."""
        rising = [image for image in self.moved[:shown] if image.difference > 0]
        falling = [image for image in self.moved[::-1][:shown] if image.difference < 0]
        return rising, falling


@dataclass(frozen=True, eq=False)
class Comparison:
    """The outcome of a comparison.

    Attributes:
        entries: in the given order.
        pairs: each further entry minus the first.
        classes: class names.
        images: number of images.
        units: the groups of images that the intervals treat as independent.
    """

    entries: list[Entry]
    pairs: list[Pair]
    classes: tuple[str, ...]
    images: int
    units: Units

    @property
    def caveats(self) -> list[str]:
        """The conditions of the intervals, as sentences."""
        found = [
            f"95 % intervals over {self.units}, of the differences on the same images; not "
            "distinguishable: the interval contains 0."
        ]
        if self.units.kind == "blocks":
            found.append("They hold for this sequence alone: other sequences may differ more.")
        if max(len(entry.sources) for entry in self.entries) == 1:
            found.append(
                "They do not cover the choice of the seed: give several trainings of each config."
            )
        count = (len(self.classes) + 1) * len(self.pairs)
        found.append(
            f"Each verdict is wrong by chance in 1 of 20 cases: of the {count} here, about "
            f"{count / 20:.0f} where all models are equal. Decide by mIoU, and verify single "
            "classes on other images."
        )
        return found

    def headline_rows(self, pair: Pair) -> list[Row]:
        """The means and other metrics of all classes, mIoU first."""
        return [
            row
            for key, name in HEADLINES.items()
            if key in pair.differences
            for row in self._rows(pair, key, [name])
        ]

    def class_rows(self, pair: Pair, key: str = "class_iou") -> list[Row]:
        """A metric of each class."""
        return self._rows(pair, key, self.classes)

    def _rows(self, pair: Pair, key: str, names: Sequence[str]) -> list[Row]:
        first, second = (self.entries[n].metrics[key].value for n in (0, pair.number))
        found = pair.differences[key]
        columns = [np.atleast_1d(part) for part in (first, second, *found, found.verdict())]
        rows = []
        for name, *numbers, verdict in zip(names, *columns):
            a, b, difference, low, high = map(_plain, numbers)
            rows.append(Row(name, a, b, difference, _pair(low, high), str(verdict)))
        return rows

    def as_json(self, shown: int = 10) -> dict[str, Any]:
        """Plain values, with `shown` images of each direction."""
        return {
            "level": LEVEL,
            "images": self.images,
            "units": self.units.kind,
            "unit_count": self.units.count,
            "entries": [self._entry_json(entry) for entry in self.entries],
            "pairs": [self._pair_json(pair, shown) for pair in self.pairs],
        }

    def _entry_json(self, entry: Entry) -> dict[str, Any]:
        return {
            "sources": entry.sources,
            "metrics": self._values(entry.metrics),
            "intervals": named_intervals(entry.metrics, self.classes),
            "standard_deviation": named(entry.deviation, self.classes),
        }

    def _pair_json(self, pair: Pair, shown: int) -> dict[str, Any]:
        verdicts = {key: interval.verdict() for key, interval in pair.differences.items()}
        rising, falling = pair.most_moved(shown)
        return {
            "first": 0,
            "second": pair.number,
            "differences": self._values(pair.differences),
            "intervals": named_intervals(pair.differences, self.classes),
            "verdicts": {
                key: dict(zip(self.classes, words.tolist())) if words.ndim else str(words)
                for key, words in verdicts.items()
            },
            "better_images": [moved._asdict() for moved in rising],
            "worse_images": [moved._asdict() for moved in falling],
        }

    def _values(self, found: dict[str, Interval]) -> dict[str, Any]:
        return named({key: interval.value for key, interval in found.items()}, self.classes)


def _plain(value: Any) -> Optional[float]:
    return None if np.isnan(value) else float(value)


def _pair(low: Optional[float], high: Optional[float]) -> Optional[tuple[float, float]]:
    return None if low is None or high is None else (low, high)


def _letter(number: int) -> str:
    return chr(ord("A") + number) if number < 26 else f"#{number + 1}"


def compare_runs(groups: Sequence[Sequence[Run]], kind: str = "auto") -> Comparison:
    """Compare each further group of runs with the first one.

    Args:
        groups: for each entry its runs.
        kind: of the units, as of `units_of`.

    Raises:
        UserError: the runs differ in images, labels or classes, or there are too few images.
    """
    first = groups[0][0]
    aligned = [[require_same_images(run, first) for run in runs] for runs in groups]
    unknown = [image.name for image in first.images if image.sequence is None]
    if kind == "sequences" and unknown:
        raise UserError(
            f"{first.source}: the sequence of {unknown[0]} is unknown; give --sequence, a regular "
            "expression for the names, or --unit images"
        )
    units = units_of(first.images, kind)
    if units.count < 2:
        other = "; --unit images treats all images as independent" * (kind == "sequences")
        raise UserError(
            f"{first.source}: {units}, so no interval is possible; compare at least 2{other}"
        )
    entries = []
    for number, (runs, images) in enumerate(zip(groups, aligned)):
        found = intervals(images, units)
        by_run = [metric_arrays(total_counts(one)) for one in images]
        spread = {key: _deviation([values[key] for values in by_run]) for key in found}
        sources = [run.source for run in runs]
        entries.append(Entry(_letter(number), sources, found, spread))
    pairs = []
    for number, images in enumerate(aligned[1:], 1):
        found = differences(aligned[0], images, units)
        pairs.append(Pair(number, _letter(number), found, _moved(aligned[0], images)))
    return Comparison(entries, pairs, first.classes, len(first.images), units)


def require_same_images(run: Run, first: Run) -> list[ImageCounts]:
    """The images of `run` in the order of `first`.

    Raises:
        UserError: they are not the same images with the same labels and classes.
    """
    if run.classes != first.classes:
        place, names = next(
            (place, names)
            for place, names in enumerate(itertools.zip_longest(run.classes, first.classes))
            if names[0] != names[1]
        )
        found, expected = (quoted(name) if name else "missing" for name in names)
        raise UserError(
            f"{run.source}: class {place} is {found}, in {first.source} {expected}; compare "
            "evaluations with the same classes in the same order (of prediction folders, give "
            "them with --classes or --config)"
        )
    images, wanted = ({image.name: image for image in one.images} for one in (run, first))
    if len(images) < len(run.images):
        ((name, count),) = Counter(image.name for image in run.images).most_common(1)
        raise UserError(
            f"{run.source}: {count} images are named {quoted(name)}; give each its own name"
        )
    for here, there, lacking in ((images, wanted, run), (wanted, images, first)):
        if absent := [name for name in there if name not in here]:
            listed = ", ".join(map(quoted, absent[:_SHOWN]))
            more = f" and {len(absent) - _SHOWN} more" if len(absent) > _SHOWN else ""
            raise UserError(
                f"{lacking.source}: {len(here)} images, without {listed}{more} of "
                f"{(first if lacking is run else run).source}; evaluate the same images"
            )
    for name, image in wanted.items():
        if not np.array_equal(images[name].labeled, image.labeled):
            place = int(np.flatnonzero(images[name].labeled != image.labeled)[0])
            raise UserError(
                f"{run.source}: the label of {quoted(name)} has {images[name].labeled[place]} "
                f"pixels of {quoted(run.classes[place])}, in {first.source} "
                f"{image.labeled[place]}; evaluate both with the same labels"
            )
    if run.boundary and first.boundary and run.boundary != first.boundary:
        raise UserError(
            f"{run.source}: boundary metrics with width and tolerance {run.boundary}, in "
            f"{first.source} with {first.boundary}; evaluate both with the same --boundary"
        )
    return [images[name] for name in wanted]


def _deviation(values: Sequence[np.ndarray]) -> np.ndarray:
    """Standard deviation over runs; NaN for a single one."""
    nothing = np.full_like(np.asarray(values[0], np.float64), np.nan)
    return np.std(values, axis=0, ddof=1) if len(values) > 1 else nothing


def _moved(first: Sequence[Sequence[ImageCounts]], second: Sequence) -> list[Moved]:
    """All images with a labeled pixel, by descending difference of their mIoU."""
    a, b = (np.mean([_image_miou(images) for images in runs], axis=0) for runs in (first, second))
    order = [place for place in np.argsort(a - b, kind="stable") if not np.isnan(a[place])]
    return [Moved(first[0][place].name, float(a[place]), float(b[place])) for place in order]


def _image_miou(images: Sequence[ImageCounts]) -> np.ndarray:
    fields = ("intersection", "predicted", "labeled")
    return metric_arrays({k: np.stack([getattr(i, k) for i in images]) for k in fields})["miou"]
