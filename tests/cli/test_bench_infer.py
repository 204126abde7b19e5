"""`liteseg bench infer` on a small exported model."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from deploy_run import make_run

from liteseg.cli import main
from liteseg.cli.bench import infer as bench_infer
from liteseg.deploy import timing


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("bench"))


@pytest.fixture(scope="module")
def exported(run):
    folder = run.parent / "model"
    command = ["export", "--weights", str(run), "--format", "paddle", "--output", str(folder)]
    assert main([*command, "--num-images", "1"]) == 0
    return folder


def bench(*arguments):
    return main(["bench", "infer", *map(str, arguments), "--calls", "2", "--warm-up", "1"])


def test_table_json_and_plot(run, exported, tmp_path, capsys):
    options = ("--size", 64, 48, "--size", 96, 64, "--batch", 1, 2, "--threads", 1)
    files = ("--json", tmp_path / "f.json", "--plot", tmp_path / "f.png")
    assert bench(exported, "--weights", run, *options, "--accuracy", 2, *files) == 0
    found = json.loads((tmp_path / "f.json").read_text())
    rows = found["rows"]
    assert [row["model"] for row in rows] == [bench_infer.REFERENCE] * 4 + ["run"] * 4
    assert [(row["batch"], row["size"]) for row in rows[4:]] == [
        (1, [64, 48]),
        (1, [96, 64]),
        (2, [64, 48]),
        (2, [96, 64]),
    ]
    for row in rows:
        for part in ("image_to_labels", "network"):
            figures = row[part]
            assert 0 < figures["median_ms"] <= figures["p90_ms"] <= figures["p99_ms"]
    for row in rows[4:]:
        assert row["equal_labels"] > 0.999
        assert 0 < row["miou"] < 1
    assert found["machine"]["cores"] >= 1
    assert "PaddleSeg" in found["method"]
    assert bench_infer.REFERENCE in capsys.readouterr().out
    assert cv2.imread(str(tmp_path / "f.png")).std() > 0


def test_the_paddleseg_path_gives_the_same_labels(run, tmp_path):
    """Up to where it upsamples labels, not logits: what is compared is the same work."""
    from deploy_run import picture

    from liteseg.config.load import load_config
    from liteseg.deploy.reference import PaddleSegPath
    from liteseg.tasks.segmenter import Segmenter

    plain = load_config(run / "config.yml", ["test_config.aug_eval=false"])
    network = Segmenter.from_pretrained(run, plain).network
    mean, std = network.normalize.mean, network.normalize.std
    path = PaddleSegPath(network.model, mean, std, tmp_path, 1)
    image = picture(3)
    found = path.labels(image[None], 1.0)
    assert found.dtype == np.int32
    assert (found[0] == network.labels(image[None], ())[0]).mean() > 0.999
    assert path.labels(image[None], 0.5).shape == (1, 70, 100)


def test_turns_and_counts():
    order = []
    cases = {name: (lambda name=name: order.append(name)) for name in "ab"}
    seconds = timing.in_turns(cases, calls=8, warm_up=3)
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
    [
        (["--accuracy", "2"], "give --weights RUN"),
        (["--plot", "f.png"], "give --accuracy N"),
        (["--runtime", "tensorrt"], "expected paddle"),
    ],
)
def test_what_does_not_go_together(exported, capsys, options, message):
    assert bench(exported, *options) == 2
    assert message in capsys.readouterr().err
