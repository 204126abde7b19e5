"""`benchmark_inference` on a small exported model."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest
from filled_run import draw

import liteseg
from liteseg.deploy import timing
from liteseg.deploy.reference import PaddleSegPath
from liteseg.errors import UserError
from liteseg.tasks.benchmark.infer import REFERENCE, benchmark_inference, plot
from liteseg.tasks.segmenter import Segmenter

QUICK = {"calls": 2, "warm_up": 1}


def test_rows_and_plot(filled_run, exported, tmp_path):
    sizes = [(64, 48), (96, 64)]
    options = {"sizes": sizes, "batches": [1, 2], "threads": [1], "accuracy": 2, **QUICK}
    found = benchmark_inference([exported("paddle")], weights=filled_run, **options)
    rows = found.rows
    assert [row.model for row in rows] == [REFERENCE] * 4 + ["run"] * 4
    expected = list(itertools.product([1, 2], sizes))
    assert [(row.batch, row.size) for row in rows] == 2 * expected
    for row in rows:
        for part in (row.image_to_labels, row.network):
            assert 0 < part["median_ms"] <= part["p90_ms"] <= part["p99_ms"]
    for row in rows[4:]:
        assert row.equal_labels > 0.999
        assert 0 < row.miou < 1
    assert found.machine["cores"] >= 1
    assert "PaddleSeg" in found.method
    content = found.as_json()["rows"][0]
    assert list(content)[:4] == ["model", "runtime", "precision", "scale"]
    plot(rows, tmp_path / "f.png")
    assert cv2.imread(str(tmp_path / "f.png")).std() > 0


def test_accuracy_of_a_model_of_another_size(filled_run, tmp_path):
    export = liteseg.export(
        filled_run, "paddle", tmp_path / "fixed", input_size=(64, 48), verify=False
    )
    options = {"accuracy": 2, "threads": [1], **QUICK}
    (*_, row) = benchmark_inference([export.output], weights=filled_run, **options).rows
    assert row.equal_labels > 0.999
    assert 0 < row.miou < 1


def test_the_paddleseg_path_gives_the_same_labels(filled_run, tmp_path):
    """At scale 1; otherwise it upsamples labels instead of logits."""
    cfg = liteseg.load_config(filled_run / "config.yml", ["test_config.aug_eval=false"])
    network = Segmenter.from_pretrained(filled_run, cfg).network
    mean, std = network.normalize.mean, network.normalize.std
    path = PaddleSegPath(network.model, mean, std, tmp_path, 1)
    image = draw(3)
    found = path.labels(image[None], 1.0)
    assert found.dtype == np.int32
    assert (found[0] == network.labels(image[None], ())[0]).mean() > 0.999
    assert path.labels(image[None], 0.5).shape == (1, 70, 100)


def test_cases_run_in_turns():
    order = []
    cases = {name: (lambda name=name: order.append(name)) for name in "ab"}
    seconds = timing.time_interleaved(cases, calls=8, warm_up=3)
    assert {name: len(values) for name, values in seconds.items()} == {"a": 8, "b": 8}
    assert "".join(order) == "aaabbb" + ("a" * timing.BURST + "b" * timing.BURST) * 2


def test_summary():
    found = timing.summary(np.arange(1, 101) / 1000, batch=3)
    assert found["median_ms"] == pytest.approx(50.5)
    assert found["p90_ms"] == pytest.approx(90.1)
    assert found["p99_ms"] == pytest.approx(99.01)
    assert found["images_per_second"] == pytest.approx(3 * 100 / 5.05)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"accuracy": 2}, "give --weights RUN"), ({"runtimes": ["tensorrt"]}, "expected paddle")],
)
def test_arguments_that_do_not_fit(exported, options, message):
    with pytest.raises(UserError, match=message):
        benchmark_inference([exported("paddle")], **options, **QUICK)
