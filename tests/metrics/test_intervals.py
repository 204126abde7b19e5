"""Intervals against closed forms, brute-force twins, tables of Student's t, and a simulation."""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import pytest
from conftest import ROOT

from liteseg.metrics import ImageCounts
from liteseg.metrics.image_counts import metrics_of_images
from liteseg.metrics.intervals import (
    _student,
    differences,
    intervals,
    named_intervals,
    units_of,
)

CLASSES = ("a", "b", "c")


def image(name, hits, predicted, labeled, sequence=None, **counts):
    areas = (np.array(values, np.int64) for values in (hits, predicted, labeled))
    return ImageCounts(name, sequence, *areas, **counts)


def random_images(count, seed=0, sequences=0, quality=0.7, boundary=False):
    """Images of three classes; labels depend on `seed` only."""
    rng, noise = np.random.default_rng(seed), np.random.default_rng(int(1000 * quality))
    images = []
    for i in range(count):
        labeled = rng.integers(1000, 9000, 3)
        hits = (labeled * np.clip(quality + 0.1 * noise.standard_normal(3), 0, 1)).astype(int)
        rest = noise.multinomial((labeled - hits).sum(), [0.5, 0.3, 0.2])
        part = {"boundary_intersection": hits // 20, "boundary_union": labeled // 10}
        contours = ("predicted_matched", "predicted", "labeled_matched", "labeled")
        for place, key in enumerate(contours):
            part[f"contour_{key}"] = hits // (20 - 2 * place)
        group = str(i % sequences) if sequences else None
        shown = part if boundary else {}
        images.append(image(f"{i:03}", hits, hits + rest, labeled, group, **shown))
    return images


def test_students_t_is_that_of_the_tables():
    table = {1: 12.706, 2: 4.303, 5: 2.571, 9: 2.262, 30: 2.042, 120: 1.980, 1e9: 1.960}
    assert _student(np.array(list(table))) == pytest.approx(list(table.values()), abs=6e-4)
    assert _student(np.array(0.2)) == pytest.approx(12.706, abs=6e-4)


def test_a_plain_mean_has_the_textbook_interval():
    """Accuracy of images with equally many pixels is the mean of theirs: t interval of a mean."""
    hits = np.array([500, 620, 580, 710, 450, 640, 600, 590, 550, 660])
    images = [image(str(i), [h, 0], [h, 1000 - h], [1000, 0]) for i, h in enumerate(hits)]
    found = intervals([images], units_of(images))["acc"]
    accuracy = hits / 1000
    half = 2.2622 * accuracy.std(ddof=1) / np.sqrt(10)
    assert found.value == pytest.approx(accuracy.mean())
    # On the logit, by the delta method.
    mean = accuracy.mean()
    logit, half = np.log(mean / (1 - mean)), half / (mean * (1 - mean))
    expected = [1 / (1 + np.exp(-end)) for end in (logit - half, logit + half)]
    assert [found.low, found.high] == pytest.approx(expected, abs=1e-5)


def twin(key, first, second, groups, shares):
    """The interval of one metric, by evaluating all images but those of one group."""

    def metric(chosen):
        values = [metrics_of_images([run[i] for i in chosen], CLASSES) for run in (first, second)]
        a, b = (v[key[0]][key[1]] if len(key) > 1 else v[key[0]] for v in values)
        return b - a

    everything = range(len(first))
    value = metric(everything)
    variance = 0.0
    for group, share in enumerate(shares):
        without = metric([i for i in everything if groups[i] != group])
        variance += (1 - share) * (without - value) ** 2
    freedom = 1 / sum(share**2 for share in shares) - 1
    half = float(_student(np.array(freedom))) * variance**0.5
    return value, value - half, value + half


@pytest.mark.parametrize(
    "key", [("miou",), ("kappa",), ("class_iou", "b"), ("boundary_iou",), ("class_boundary_f", "a")]
)
def test_differences_equal_evaluations_without_each_sequence(key):
    first = random_images(23, sequences=6, boundary=True)
    second = random_images(23, sequences=6, quality=0.75, boundary=True)
    units = units_of(first)
    assert (units.kind, units.count) == ("sequences", 6)
    union = np.zeros((6, 3))
    labeled = np.zeros(6)
    for run in (first, second):
        for i, one in enumerate(run):
            union[i % 6] += one.labeled + one.predicted - one.intersection
            labeled[i % 6] += one.labeled.sum()
    union /= union.sum(axis=0)
    shares = {"kappa": labeled / labeled.sum(), "class_iou": union[:, 1]}.get(key[0])
    if shares is None:
        shares = union[:, 0] if len(key) > 1 else union.mean(axis=1)
    expected = twin(key, first, second, [i % 6 for i in range(23)], shares)
    found = differences([first], [second], units)[key[0]]
    place = CLASSES.index(key[1]) if len(key) > 1 else ()
    assert [part[place] for part in found] == pytest.approx(expected, abs=1e-9)
    assert found.verdict()[place] == ("better" if expected[1] > 0 else "not distinguishable")


def test_order_and_equal_models():
    images = random_images(12, sequences=4)
    shuffled = [images[i] for i in np.random.default_rng(1).permutation(12)]
    one, other = (intervals([run], units_of(run))["miou"] for run in (images, shuffled))
    assert [*one] == pytest.approx([*other], abs=1e-12)
    same = differences([images], [images], units_of(images))
    assert {str(word) for found in same.values() for word in found.verdict().ravel()} == {
        "not distinguishable"
    }


def test_verdicts_follow_the_interval():
    worse, better = (random_images(30, quality=quality) for quality in (0.5, 0.9))
    units = units_of(worse)
    assert differences([worse], [better], units)["miou"].verdict() == "better"
    assert differences([better], [worse], units)["miou"].verdict() == "worse"


def test_classes_that_allow_no_interval():
    images = [
        image("0", [50, 10, 0], [60, 20, 0], [70, 10, 0]),
        image("1", [55, 0, 0], [55, 0, 0], [80, 0, 0]),
        image("2", [75, 0, 0], [75, 0, 0], [80, 0, 0]),
    ]
    found = intervals([images], units_of(images))
    plain = named_intervals(found, CLASSES)
    # Class b is in one image only, class c in none.
    assert plain["class_iou"]["b"] is None
    assert plain["class_iou"]["c"] is None
    low, high = plain["class_iou"]["a"]
    assert 0 <= low < found["class_iou"].value[0] < high <= 1
    again = differences([images], [images], units_of(images))["class_iou"]
    assert again.verdict().tolist() == ["not distinguishable", "no interval", "no interval"]


def test_images_without_labeled_pixels(recwarn):
    images = [image(str(i), [0, 0], [0, 0], [0, 0]) for i in range(3)]
    plain = named_intervals(intervals([images], units_of(images)), ("a", "b"))
    assert plain["miou"] is plain["acc"] is plain["class_iou"]["a"] is None
    verdict = differences([images], [images], units_of(images))["miou"].verdict()
    assert verdict == "no interval"
    assert not recwarn.list


def test_one_image_has_no_interval():
    images = random_images(1)
    plain = named_intervals(intervals([images], units_of(images)), CLASSES)
    assert plain["miou"] is plain["acc"] is None


def test_units():
    images = random_images(20, sequences=4)
    assert str(units_of(images)) == "4 sequences"
    assert str(units_of(images, "images")) == "20 images"
    assert str(units_of(random_images(20))) == "20 images"
    # One sequence alone: five blocks of its frames in the order of their names.
    one = random_images(20, sequences=1)[::-1]
    units = units_of(one)
    assert (units.kind, units.count) == ("blocks", 5)
    np.testing.assert_array_equal(units.numbers, np.repeat(range(5), 4)[::-1])
    assert units_of(one, "sequences").count == 1
    assert units_of(one[:3]).count == 3


def test_seeds_widen_the_interval():
    """Images without any variance: only the seeds vary, as in a two-sample t interval."""

    def run(hits):
        return [image(str(i), [hits, 0], [hits, 1000 - hits], [1000, 0]) for i in range(9)]

    first, second = [run(h) for h in (500, 520, 540)], [run(h) for h in (600, 640)]
    found = differences(first, second, units_of(first[0]))["acc"]
    assert found.value == pytest.approx(0.1)
    pooled = np.sqrt((0.04**2 / 2 + 2 * 0.02**2) / 3)  # three degrees of freedom
    half = 3.1824 * pooled * np.sqrt(1 / 3 + 1 / 2)
    assert found.high - found.value == pytest.approx(half, rel=1e-3)
    alone = intervals(first, units_of(first[0]))["acc"]
    # 4.3027 is t with two degrees of freedom; the interval is computed on the logit.
    reach = 4.3027 * 0.02 / np.sqrt(3) / (0.52 * 0.48)
    logit = np.log(0.52 / 0.48)
    assert alone.high == pytest.approx(1 / (1 + np.exp(-logit - reach)), rel=1e-4)


def test_metrics_at_their_limits():
    """Equal in all images: no variance, so the interval is the value; never outside 0 to 1."""
    perfect = [image(str(i), [100, 0], [100, 0], [100, 0]) for i in range(6)]
    poor = [image(str(i), [0, 90], [60, 140], [100, 100]) for i in range(5)]
    poor.append(image("5", [2, 100], [20, 180], [100, 100]))
    found = intervals([perfect], units_of(perfect))
    assert [*found["acc"]] == [1, 1, 1]
    assert found["class_iou"].low[0] == found["class_iou"].high[0] == 1
    low, value, high = (intervals([poor], units_of(poor))["class_iou"][n][0] for n in (1, 0, 2))
    assert 0 < low < value < high < 0.1


@pytest.fixture(scope="module")
def experiment():
    path = ROOT / "scripts" / "experiments" / "intervals.py"
    spec = importlib.util.spec_from_file_location("intervals_experiment", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


DRAWS = 150
# Three standard deviations of a binomial share of 0.95.
NOISE = 3 * (0.95 * 0.05 / DRAWS) ** 0.5


@pytest.mark.parametrize("layout", ["30 images", "4 sequences of 25"])
def test_intervals_hold_the_truth(experiment, layout):
    """The full simulation is scripts/experiments/intervals.py."""
    one, difference = experiment.coverage(experiment.LAYOUTS[layout], DRAWS, others=False)
    # Expected between 0.93 and 0.97.
    for shares in (one, difference):
        assert (shares > 0.93 - NOISE).all(), shares
        assert (shares <= min(0.97 + NOISE, 1)).all(), shares
    assert abs(np.mean([one, difference]) - 0.95) < 0.03


def test_a_bootstrap_and_independent_frames_do_not(experiment):
    """The simulation notices intervals that are too narrow."""
    layout = experiment.LAYOUTS["4 sequences of 25"]
    _, _, bootstrap, independent = experiment.coverage(layout, 40)
    assert (bootstrap < 0.88).all()
    assert (independent < 0.7).all()
