"""ImageCounts against the confusion matrix of all images."""

from __future__ import annotations

import json

import numpy as np
import pytest

from liteseg.metrics import ConfusionMatrix, ImageCounts
from liteseg.metrics.image_counts import metrics_of_images

NAMES = ("road", "car", "bus")


def images_and_matrix(count=5):
    rng = np.random.default_rng(4)
    total, images = ConfusionMatrix(3, class_names=NAMES), []
    for index in range(count):
        label, pred = rng.integers(0, 3, (2, 8, 9)).astype(np.uint8)
        label[rng.uniform(size=label.shape) < 0.3] = 255
        total.update(pred, label)
        sequence = "a" if index < 2 else None
        images.append(ImageCounts.of(str(index), sequence, pred, label, 3))
    return images, total


def test_sums_give_the_metrics_of_the_matrix():
    images, total = images_and_matrix()
    assert metrics_of_images(images, NAMES) == total.compute()


def test_json_keeps_everything():
    images, total = images_and_matrix()
    again = [ImageCounts.from_json(json.loads(json.dumps(image.as_json())), 3) for image in images]
    assert [image.as_json() for image in again] == [image.as_json() for image in images]
    assert metrics_of_images(again, NAMES) == total.compute()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labeled": [1, 2]}, "labeled of 0: expected counts of 3 classes"),
        ({"labeled": [1, 2, -1]}, "expected counts"),
        ({"labeled": [1, 2, 0.5]}, "expected counts"),
        ({"name": 3}, "expected texts"),
        ({"extra": [1]}, "fields are"),
    ],
)
def test_other_content_is_refused(change, message):
    content = images_and_matrix(1)[0][0].as_json()
    with pytest.raises(ValueError, match=message):
        ImageCounts.from_json({**content, **change}, 3)
