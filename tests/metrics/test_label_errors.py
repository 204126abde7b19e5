"""Regions with wrong labels, on images where each error is known."""

from __future__ import annotations

import numpy as np
import pytest

from liteseg.metrics.label_errors import RegionFinder, image_scores

SIZE = (100, 120)


def scene():
    """(h, w) labels: two halves and a square."""
    label = np.zeros(SIZE, np.uint8)
    label[:, 60:] = 1
    label[10:40, 10:40] = 2
    return label


def probabilities(label, confidence=0.9, classes=3):
    """(C, h, w): the label with this probability, the others share the rest."""
    rest = (1 - confidence) / (classes - 1)
    planes = np.full((classes, *label.shape), rest, np.float32)
    np.put_along_axis(planes, label[None].astype(np.int64), confidence, axis=0)
    return planes


def found(*images, ignore_index=255):
    finder = RegionFinder(3, ignore_index)
    for image, (predicted, label) in enumerate(images):
        finder.update(image, predicted, label)
    return finder


def test_a_missing_object_is_one_region_with_its_values():
    label = scene()
    label[10:40, 10:40] = 0
    finder = found((probabilities(scene()), label), (probabilities(scene()), scene()))
    [region] = finder.regions
    assert region.image == 0
    assert (region.label, region.predicted) == (0, 2)
    assert region.box == (10, 10, 30, 30)
    assert 890 <= region.pixels <= 900  # without its corners
    assert region.confidence == pytest.approx(0.9)
    assert region.label_confidence == pytest.approx(0.05)
    assert region.share == pytest.approx(region.pixels / label.size)
    assert [index for index, _ in image_scores(finder.ranked())] == [0]


def test_thin_and_ignored_contradictions_are_no_regions():
    label = scene()
    label[:, 60] = 0  # a border that is one pixel off
    label[60:90, 10:40] = 255
    predicted = probabilities(scene())
    predicted[:, 60:90, 10:40] = probabilities(np.full((30, 30), 2, np.uint8))
    assert found((predicted, label)).regions == []


def test_a_doubtful_prediction_is_no_suspect():
    """Confident means: as the class is where it is labeled."""
    label = scene()
    label[10:40, 10:40] = 0
    doubtful = probabilities(scene())
    doubtful[:, 10:40, 10:40] = probabilities(np.full((30, 30), 2, np.uint8), 0.5)
    sure = probabilities(scene())
    finder = found((doubtful, label), (sure, scene()))
    assert len(finder.regions) == 1
    assert finder.ranked() == []


def test_what_the_network_always_gets_wrong_ranks_below_a_rare_contradiction():
    """Class 2 is seen as class 1 in every image; one image lacks half of class 1."""
    confused = scene()
    confused[10:40, 10:40] = 1
    images = [(probabilities(confused), scene()) for _ in range(30)]
    label = scene()
    label[30:60, 80:110] = 0
    images[17] = (probabilities(confused), label)
    ranked = found(*images).ranked()
    assert ranked[0][1].image == 17
    assert (ranked[0][1].label, ranked[0][1].predicted) == (0, 1)
    assert [score for score, _ in ranked[1:] if score > ranked[0][0] / 100] == []
    assert image_scores(ranked)[0] == (17, pytest.approx(ranked[0][0]))


def test_the_scores_are_those_of_the_definition():
    """Two regions of one pair in one image, one in another, none in the others."""
    labels = [scene() for _ in range(6)]
    labels[1][60:80, 5:25] = labels[1][85:100, 5:35] = labels[4][60:90, 5:35] = 2
    finder = found(*[(probabilities(scene()), label) for label in labels])
    masses = np.zeros(6)
    for region in finder.regions:
        masses[region.image] += region.share * (region.confidence - region.label_confidence)
    expected = {}
    for image in (1, 4):
        others = np.delete(masses, image)
        expected[image] = (masses[image] - others.mean()) / (others.std() + 1e-3)
    scores = dict(image_scores(finder.ranked()))
    assert scores == {image: pytest.approx(score, rel=1e-4) for image, score in expected.items()}
    parts = [score for score, region in finder.ranked() if region.image == 1]
    assert len(parts) == 2
    assert parts[0] / parts[1] == pytest.approx(450 / 400, rel=0.05)


def test_large_images_are_compared_on_a_grid():
    scale = 12
    label = scene()
    label[10:40, 10:40] = 0
    large = [np.kron(x, np.ones((scale, scale), np.uint8)) for x in (scene(), label)]
    [region] = found((probabilities(large[0]), large[1])).regions
    for value, expected in zip(region.box, (10, 10, 30, 30)):
        assert abs(value - expected * scale) <= 4
    assert region.pixels == pytest.approx(900 * scale**2, rel=0.02)
    assert region.share == pytest.approx(900 / label.size, rel=0.02)
