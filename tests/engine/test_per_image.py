"""PerImage: counts of every image, in threads, over several processes, with bounded memory."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import numpy as np
import pytest

from liteseg.engine import per_image
from liteseg.engine.per_image import PerImage
from liteseg.errors import UserError
from liteseg.metrics import BoundaryOptions, ConfusionMatrix, ImageCounts

CLASSES = ("road", "car", "sky")


def dataset(count):
    names = [f"ulm_{i // 2:06}_{i:06}" for i in range(count)]
    samples = [SimpleNamespace(name=name, label=f"{name}.png") for name in names]
    return SimpleNamespace(samples=samples, classes=CLASSES, num_classes=3, ignore_index=255)


def maps(index):
    rng = np.random.default_rng(index)
    label, pred = rng.integers(0, 3, (2, 24, 30)).astype(np.uint8)
    label[rng.uniform(size=label.shape) < 0.1] = 255
    return pred, label


def run(evaluator, indices):
    evaluator.reset()
    for index in indices:
        pred, label = maps(index)
        evaluator.update(index, {"label": label}, pred)
    return evaluator.state


def evaluator(count=6, **options):
    options = {"boundary": BoundaryOptions(), **options}
    return PerImage(dataset(count), lambda name: name[:10], **options)


@pytest.mark.parametrize("threads", [1, 3])
def test_counts_of_each_image_in_the_order_of_the_dataset(threads):
    counting = evaluator(threads=threads)
    found = counting.compute([run(counting, [3, 0, 5, 1, 4, 2])])
    assert [image["name"] for image in found["per_image"]] == [
        sample.name for sample in counting.dataset.samples
    ]
    assert [image.sequence for image in counting.images[:3]] == ["ulm_000000"] * 2 + ["ulm_000001"]
    for index, image in enumerate(counting.images):
        pred, label = maps(index)
        expected = ImageCounts.of(
            image.name, image.sequence, pred, label, 3, boundary=BoundaryOptions()
        )
        assert image.as_json() == expected.as_json()


def test_several_processes_give_the_same():
    counting = evaluator()
    expected = counting.compute([run(counting, range(6))])
    shares = [run(counting, range(rank, 6, 2)) for rank in range(2)]
    assert counting.compute(shares) == expected
    assert counting.compute([shares[0], expected_state := shares[1], expected_state]) == expected


def test_thin_classes():
    """Class 1 is a line of two pixels, narrower than the boundary region of three."""
    counting = evaluator(1, boundary=BoundaryOptions(3, 1))
    label = np.zeros((60, 60), np.uint8)
    label[:, 20:22] = 1
    label[:, 40:] = 2
    counting.update(0, {"label": label}, np.zeros_like(label))
    found = counting.compute([counting.state])
    assert found["thin_classes"] == ["car"]
    assert found["miou_thin"] == 0.0
    assert found["miou_large"] is None  # all objects are below 96 x 96


def test_without_boundaries():
    counting = evaluator(boundary=None)
    found = counting.compute([run(counting, range(6))])
    assert "boundary_iou" not in found
    assert set(found["per_image"][0]) == {
        *("name", "sequence", "intersection", "predicted", "labeled")
    }
    total = ConfusionMatrix(3)
    for index in range(6):
        total.update(*maps(index))
    assert (
        sum(np.array(i["intersection"]) for i in found["per_image"]).tolist()
        == np.diag(total.matrix).tolist()
    )


def test_images_without_labels_do_not_count():
    counting = evaluator()
    counting.update(0, {}, maps(0)[0])
    assert counting.compute([counting.state])["per_image"] == []


def test_a_bad_value_is_reported_with_its_file():
    counting = evaluator()
    pred, label = maps(0)
    counting.update(1, {"label": label + 100}, pred)
    with pytest.raises(UserError, match=r"ulm_000000_000001.png: label holds 99"):
        counting.state  # noqa: B018


def test_few_images_wait(monkeypatch):
    """A slow count holds back the next images instead of collecting them."""
    started, go = threading.Semaphore(0), threading.Event()

    def draw(index, sample, prediction):
        started.release()
        assert go.wait(30)
        return b""

    counting = evaluator(thumbnail=draw, threads=1)
    finished = threading.Event()
    thread = threading.Thread(target=lambda: (run(counting, range(6)), finished.set()))
    thread.start()
    assert started.acquire(timeout=30)
    assert not finished.wait(0.2)
    assert len(counting._waiting) <= 2
    go.set()
    thread.join(30)
    assert finished.is_set()


def test_thumbnails_of_many_images_are_those_of_extremes(monkeypatch):
    monkeypatch.setattr(per_image, "_MANY", 10)
    monkeypatch.setattr(per_image, "_EXTREMES", 1)
    counting = evaluator(40, thumbnail=lambda index, sample, pred: str(index).encode())
    counting.compute([run(counting, range(40))])
    rows = [per_image.image_metrics(image, CLASSES) for image in counting.images]
    expected = set()
    for key, value in rows[0].items():
        if not isinstance(value, str):
            values = [(row[key], index) for index, row in enumerate(rows)]
            expected |= {min(values)[1], max(values)[1]}
    assert set(counting.thumbnails) == expected
    assert len(expected) < 30
