"""95 % intervals of metrics, and of paired differences between models, from counts of images.

Every metric is a function of summed counts. Its standard error is that of the delete-one-group
jackknife for groups of unequal size (Busing, Meijer & van der Leeden, Delete-m jackknife for
unequal m, Statistics and Computing 9, 1999), and the interval uses Student's t with the degrees of
freedom of Kish's effective number of groups. Percentile intervals of a bootstrap over the same
groups are too narrow when there are few: `scripts/experiments/intervals.py` measures both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Optional

import numpy as np

from liteseg.metrics.confusion import named
from liteseg.metrics.image_counts import ImageCounts, metric_arrays, total_counts

LEVEL = 0.95
_BLOCKS = 5  # of a lone sequence: fewer and longer blocks are less correlated
_OF_ALL_PIXELS = ("acc", "kappa")
_GRID = 1025

Runs = Sequence[Sequence[ImageCounts]]  # the same images, once for each training


@dataclass(frozen=True, eq=False)
class Units:
    """Groups of images that count as independent draws from all images that could have been taken.

    Attributes:
        kind: `images`, `sequences` or `blocks` (of consecutive frames of the only sequence).
        numbers: (N,) group of each image, 0 to `count - 1`.
        count: number of groups.
    """

    kind: str
    numbers: np.ndarray
    count: int

    def __str__(self) -> str:
        kind = self.kind if self.count != 1 else self.kind[:-1]
        frames = " of consecutive frames of one sequence" * (self.kind == "blocks")
        return f"{self.count} {kind}{frames}"


class Interval(NamedTuple):
    """A metric or difference with its 95 % interval, (...) or (..., C) each; NaN: there is none."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def verdict(self) -> np.ndarray:
        """Of a difference: `better`, `worse`, `not distinguishable` (zero is inside), or
        `no interval`.
        """
        conditions = [np.isnan(self.low), self.low > 0, self.high < 0]
        words = ["no interval", "better", "worse"]
        return np.select(conditions, words, "not distinguishable")


def units_of(images: Sequence[ImageCounts], kind: str = "auto") -> Units:
    """Group images.

    Args:
        images: in any order.
        kind: `images`; `sequences`; `auto`: sequences where all images have one, otherwise images.
            Of one sequence alone, `auto` makes blocks of consecutive frames, by name.
    """
    numbers = np.arange(len(images))
    names = [image.sequence for image in images]
    known = bool(names) and None not in names
    if kind == "images" or (kind == "auto" and not known):
        return Units("images", numbers, len(images))
    found, groups = np.unique([str(name) for name in names], return_inverse=True)
    if kind == "sequences" or len(found) > 1:
        return Units("sequences", groups, len(found))
    blocks = min(_BLOCKS, len(images))
    order = np.argsort(np.argsort([image.name for image in images]))
    return Units("blocks", order * blocks // len(images), blocks)


def intervals(runs: Runs, units: Units) -> dict[str, Interval]:
    """The mean of each metric over the runs, with its interval.

    Args:
        runs: one run, or trainings that differ in the seed only: then the interval also covers the
            choice of the seed.
        units: groups of the images.

    Returns:
        By the keys of `metric_arrays`.
    """
    values, without = _estimates(runs, units)
    shares = _shares(runs, units)
    found = {}
    for key, by_run in values.items():
        seeds = _seed_variance([by_run])
        interval = _interval(by_run.mean(axis=0), without[key], shares[key], seeds)
        found[key] = _between(interval, -1.0 if key == "kappa" else 0.0)
    return found


def differences(first: Runs, second: Runs, units: Units) -> dict[str, Interval]:
    """Metrics of `second` minus those of `first`, on the same images in the same order.

    With several runs on a side, the interval also covers the choice of the seed; its variance is
    assumed to be that of both sides together.
    """
    (a, a_without), (b, b_without) = _estimates(first, units), _estimates(second, units)
    shares = _shares([*first, *second], units)
    found = {}
    for key in (key for key in a if key in b):
        value = b[key].mean(axis=0) - a[key].mean(axis=0)
        seeds = _seed_variance([a[key], b[key]])
        interval = _interval(value, b_without[key] - a_without[key], shares[key], seeds)
        low, high = (np.clip(end, -1.0, 1.0) for end in interval[1:])
        found[key] = Interval(value, low, high)
    return found


def _estimates(runs: Runs, units: Units) -> tuple[dict, dict]:
    """Metrics of each run (R, ...), and, averaged over the runs, without each unit (G, ...)."""
    found = []
    for images in runs:
        totals = total_counts(images)
        parts = {key: _by_unit([getattr(i, key) for i in images], units) for key in totals}
        left = {key: total - parts[key] for key, total in totals.items()}
        found.append((metric_arrays(totals), metric_arrays(left)))
    keys = [key for key in found[0][0] if all(key in values for values, _ in found)]
    values = {key: np.stack([run[key] for run, _ in found]) for key in keys}
    without = {key: np.mean([run[key] for _, run in found], axis=0) for key in keys}
    return values, without


def _by_unit(counts: Sequence[np.ndarray], units: Units) -> np.ndarray:
    sums = np.zeros((units.count, *counts[0].shape), np.int64)
    np.add.at(sums, units.numbers, np.stack(counts))
    return sums


class _Shares(dict):
    """Share of each unit in a metric, (G, ...): of the pixels that decide it."""

    def __init__(self, by_class: np.ndarray, of_all: np.ndarray):
        super().__init__(dict.fromkeys(_OF_ALL_PIXELS, of_all))
        self.by_class = by_class

    def __missing__(self, key: str) -> np.ndarray:
        if key.startswith("class_"):
            return self.by_class
        return self.by_class.sum(axis=1) / max(self.by_class.any(axis=0).sum(), 1)


def _shares(runs: Runs, units: Units) -> Mapping[str, np.ndarray]:
    fields = ("labeled", "predicted", "intersection")
    sums = [[_by_unit([getattr(i, key) for i in run], units) for key in fields] for run in runs]
    union = np.sum([labeled + predicted - hits for labeled, predicted, hits in sums], axis=0)
    by_class = union / np.maximum(union.sum(axis=0), 1)
    labeled = sums[0][0].sum(axis=1)
    return _Shares(by_class, labeled / max(labeled.sum(), 1))


def _seed_variance(values: Sequence[np.ndarray]) -> Optional[tuple[np.ndarray, int]]:
    """Variance of the (difference of) means over runs by the choice of seeds, and its degrees of
    freedom; None without a side of several runs.

    Args:
        values: for each side (R, ...).
    """
    freedom = sum(len(runs) - 1 for runs in values)
    if not freedom:
        return None
    squares = sum(((runs - runs.mean(axis=0)) ** 2).sum(axis=0) for runs in values)
    return squares / freedom * sum(1 / len(runs) for runs in values), freedom


def _interval(
    value: np.ndarray,
    without: np.ndarray,
    share: np.ndarray,
    seeds: Optional[tuple[np.ndarray, int]],
) -> Interval:
    """The interval of a metric.

    Args:
        value: (...).
        without: (G, ...) the metric without each unit.
        share: (G, ...) of the units, with sum 1.
        seeds: result of `_seed_variance`.
    """
    deviation = np.where(share > 0, without - value, 0.0)
    # (1 - share) is (G - 1) / G of the ordinary jackknife where all units are equal.
    variance = ((1 - share) * deviation**2).sum(axis=0)
    freedom = 1 / np.maximum((share**2).sum(axis=0), 1e-12) - 1
    variance = np.where((share > 0).sum(axis=0) > 1, variance, np.nan)
    if seeds is not None:
        extra, extra_freedom = seeds
        terms = variance**2 / np.maximum(freedom, 1) + extra**2 / extra_freedom
        variance = variance + extra
        # Satterthwaite's approximation for a sum of variances.
        freedom = np.where(terms > 0, variance**2 / np.where(terms > 0, terms, 1.0), freedom)
    reach = _student(freedom) * np.sqrt(variance)
    return Interval(value, value - reach, value + reach)


def _between(found: Interval, smallest: float) -> Interval:
    """The interval of a metric from `smallest` to 1, by the delta method on its logit.

    Near 1 the distribution of a metric is skewed; that of its logit is closer to normal.
    """
    value, scale = found.value, 1 - smallest
    share = (value - smallest) / scale
    inside = (share > 0) & (share < 1)
    share = np.where(inside, share, 0.5)
    reach = (found.high - value) / scale / (share * (1 - share))
    logit = np.log(share / (1 - share))
    ends = (smallest + scale * (1 + np.tanh((logit + sign * reach) / 2)) / 2 for sign in (-1, 1))
    low, high = (np.where(inside, end, value + 0 * reach)[()] for end in ends)
    return Interval(value, low, high)


def _student(freedom: np.ndarray) -> np.ndarray:
    """Distance from 0 within which Student's t falls with probability `LEVEL`.

    With t = sqrt(freedom) tan(angle), the density of the angle is a power of its cosine. Below one
    degree of freedom, one is assumed; above 10,000, the normal distribution is reached.
    """
    flat = np.clip(np.nan_to_num(np.ravel(freedom), nan=1.0), 1.0, 1e4)[:, None]
    # The density is next to nothing beyond 10 standard deviations.
    angles = np.linspace(0, 1, _GRID) * np.minimum(np.pi / 2, 10 / np.sqrt(flat))
    density = np.cos(angles) ** (flat - 1)
    area = np.cumsum(density[:, 1:] + density[:, :-1], axis=1)
    area = np.concatenate([np.zeros_like(flat), area], axis=1) / area[:, -1:]
    found = [np.interp(LEVEL, *row) for row in zip(area, angles)]
    return (np.sqrt(flat[:, 0]) * np.tan(found)).reshape(np.shape(freedom))


def named_intervals(found: Mapping[str, Interval], class_names: Sequence[str]) -> dict[str, Any]:
    """Plain numbers: {metric: [low, high] or None}, for metrics of classes {name: ...}."""
    ends = (
        named({key: getattr(interval, end) for key, interval in found.items()}, class_names)
        for end in ("low", "high")
    )
    low, high = ends

    def pair(a: Any, b: Any) -> Any:
        if isinstance(a, dict):
            return {name: pair(a[name], b[name]) for name in a}
        return None if a is None else [a, b]

    return {key: pair(low[key], high[key]) for key in found}
