"""Do the 95 % intervals of `liteseg eval` and `liteseg compare` hold the truth? A simulation.

Two models are drawn again and again with images of eight classes: sizes, presence and quality vary
by sequence and by image, and half of the classes are rare. The true metrics are those of the pixels
of very many draws. Of each interval the table has the share of the draws in which it held the
truth; then, on the same draws, that of a percentile bootstrap over the same units, and that of
intervals that treat correlated frames as independent images.

    python scripts/experiments/intervals.py --draws 1000
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from liteseg.metrics.image_counts import ImageCounts, metric_arrays
from liteseg.metrics.intervals import Interval, Runs, Units, differences, intervals, units_of

SHARES = np.array([0.35, 0.3, 0.15, 0.1, 0.05, 0.03, 0.015, 0.005])  # of the pixels, where present
PRESENT = np.array([1, 1, 0.95, 0.9, 0.7, 0.5, 0.35, 0.3])
# Logits of the recall, their difference between the models, and standard deviations.
QUALITY = np.array([2.8, 2.4, 1.5, 1.8, 1.0, 0.6, 0.4, 0.2])
GAIN, BY_IMAGE, BY_MODEL, BY_SEED = 0.03, 0.8, 0.3, 0.06
PIXELS = 1e6
FIELDS = ("intersection", "predicted", "labeled")
MEANS = ("miou", "acc", "kappa", "mdice")
RESAMPLES = 400


class Layout(NamedTuple):
    """Images of a draw.

    Attributes:
        sizes: images of each sequence.
        common: share of the variance that the images of a sequence have in common.
        neighbor: correlation of consecutive frames, beyond that.
        seeds: trainings of each model.
    """

    sizes: list[int]
    common: float = 0.6
    neighbor: float = 0.0
    seeds: int = 1


LAYOUTS = {
    "100 images": Layout([1] * 100),
    "30 images": Layout([1] * 30),
    "20 sequences of 10": Layout([10] * 20),
    "8 sequences of 25": Layout([25] * 8),
    "4 sequences of 25": Layout([25] * 4),
    "10 sequences of 2 to 80": Layout([80, 40, 20, 10, 10, 5, 5, 5, 2, 2]),
    "Cityscapes val (197, 70, 233 x 1)": Layout([197, 70] + [1] * 233),
    "8 sequences of 25, 3 seeds": Layout([25] * 8, seeds=3),
    "1 sequence of 100, neighbors 0.5": Layout([100], common=0.0, neighbor=0.5),
    "1 sequence of 100, neighbors 0.8": Layout([100], common=0.0, neighbor=0.8),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=1000, help="of each layout (default: 1000)")
    parser.add_argument("--seed", type=int, default=0, help="of all draws (default: 0)")
    parser.add_argument("--only", help="layouts with this text in the name (default: all)")
    args = parser.parse_args()
    print(f"share of {args.draws} draws in percent | mIoU, accuracy, kappa, mean Dice, class IoU:")
    print("of one model, then of the difference of two | bootstrap: mIoU, of the difference |")
    print("frames as independent images: mIoU, of the difference")
    for name, layout in LAYOUTS.items():
        if (args.only or "") in name:
            covered = coverage(layout, args.draws, args.seed)
            cells = [" ".join(f"{100 * v:5.1f}" for v in part) for part in covered]
            print(f"{name:34} | " + " | ".join(cells), flush=True)


def coverage(layout: Layout, draws: int, seed: int = 0, others: bool = True) -> list[np.ndarray]:
    """Shares of draws whose interval held the truth: a list of arrays.

    They are those of one model (`MEANS` and class IoU) and of the difference, and with `others`
    those of a bootstrap and of independent images, (mIoU, its difference) each.
    """
    rng = np.random.default_rng(seed)
    truth = true_metrics(layout, rng)
    shares: list[list[list[float]]] = [[], [], [], []]
    for _ in range(draws):
        first, second = draw(layout, rng)
        units = units_of(first[0])
        found = intervals(first, units), differences(first, second, units)
        for part, metrics, expected in zip(shares, found, truth):
            part.append([held(metrics[key], expected[key]) for key in (*MEANS, "class_iou")])
        if others:
            alone = units_of(first[0], "images")
            plain = intervals(first, alone)["miou"], differences(first, second, alone)["miou"]
            for part, both in ((2, bootstrap(first, second, units, rng)), (3, plain)):
                shares[part].append([held(i, t["miou"]) for i, t in zip(both, truth)])
    return [np.nanmean(part, axis=0) for part in shares if part]


def held(interval: Interval, truth: np.ndarray) -> float:
    """Whether the interval contains the truth; of classes, the share of those with an interval."""
    inside = (interval.low <= truth) & (truth <= interval.high)
    known = ~np.isnan(interval.low)
    return float(inside[known].mean()) if known.any() else np.nan


def true_metrics(layout: Layout, rng: np.random.Generator) -> tuple[dict, dict]:
    """Metrics of the first model, and the differences, over all images of 80 large draws."""
    many = layout._replace(sizes=layout.sizes * max(1, 1000 // sum(layout.sizes)), seeds=1)
    sums = sum(draw_counts(many, rng)[:, 0].sum(axis=1) for _ in range(80))
    a, b = (metric_arrays(dict(zip(FIELDS, total))) for total in sums)
    return a, {key: b[key] - a[key] for key in a}


def bootstrap(
    first: Runs, second: Runs, units: Units, rng: np.random.Generator
) -> Iterator[Interval]:
    """Percentile intervals of the mIoU and of its difference, from resampled units."""
    weights = rng.multinomial(units.count, np.full(units.count, 1 / units.count), RESAMPLES)
    miou = []
    for run in (first[0], second[0]):
        sums = {}
        for key in FIELDS:
            by_unit = np.zeros((units.count, len(SHARES)))
            np.add.at(by_unit, units.numbers, np.stack([getattr(image, key) for image in run]))
            sums[key] = weights @ by_unit
        miou.append(metric_arrays(sums)["miou"])
    for values in (miou[0], miou[1] - miou[0]):
        yield Interval(values.mean(), *np.percentile(values, [2.5, 97.5]))


def draw(layout: Layout, rng: np.random.Generator) -> tuple[Runs, Runs]:
    """The runs of two models over the same images."""
    sequences = [str(number) for number, size in enumerate(layout.sizes) for _ in range(size)]
    known = max(layout.sizes) > 1
    first, second = (
        [
            [
                ImageCounts(f"{place:06}", group if known else None, *areas)
                for place, (group, areas) in enumerate(zip(sequences, run))
            ]
            for run in runs
        ]
        for runs in draw_counts(layout, rng)
    )
    return first, second


def draw_counts(layout: Layout, rng: np.random.Generator) -> np.ndarray:
    """(models, seeds, images, `FIELDS`, classes) int64 pixels."""
    sequence = np.repeat(np.arange(len(layout.sizes)), layout.sizes)

    def noise(classes: int = len(SHARES)) -> np.ndarray:  # (images, classes), variance 1
        return _correlated(layout, sequence, classes, rng)

    here = _uniform_ranks(noise()) < PRESENT
    labeled = np.exp(0.8 * noise()) * SHARES * here
    labeled *= PIXELS / labeled.sum(axis=1, keepdims=True)
    logits = QUALITY + BY_IMAGE * noise() + 0.4 * noise(1)
    counts = np.zeros((2, layout.seeds, len(sequence), len(FIELDS), len(SHARES)))
    for number, runs in enumerate(counts):
        own = logits + number * GAIN + BY_MODEL * noise()
        wrong = SHARES * np.exp(BY_MODEL * noise())
        for run in runs:
            offset = BY_SEED * rng.standard_normal() if layout.seeds > 1 else 0.0
            hits = labeled / (1 + np.exp(-own - offset))
            missed = (labeled - hits).sum(axis=1, keepdims=True)
            predicted = hits + missed * wrong / wrong.sum(axis=1, keepdims=True)
            run[...] = np.stack([hits, predicted, labeled], axis=1).round()
    return counts.astype(np.int64)


def _correlated(
    layout: Layout, sequence: np.ndarray, classes: int, rng: np.random.Generator
) -> np.ndarray:
    own = rng.standard_normal((len(sequence), classes))
    if layout.neighbor:
        for place in range(1, len(own)):
            if sequence[place] == sequence[place - 1]:
                kept = layout.neighbor * own[place - 1]
                own[place] = kept + np.sqrt(1 - layout.neighbor**2) * own[place]
    if max(layout.sizes) == 1:
        return own
    common = rng.standard_normal((len(layout.sizes), classes))[sequence]
    return np.sqrt(layout.common) * common + np.sqrt(1 - layout.common) * own


def _uniform_ranks(normal: np.ndarray) -> np.ndarray:
    """The distribution function of the logistic distribution that is close to the normal one."""
    return 1 / (1 + np.exp(-1.702 * normal))


if __name__ == "__main__":
    main()
