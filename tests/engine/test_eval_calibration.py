"""`eval --calibration`: the numbers are those of the probabilities, over every image."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from filled_run import draw

from liteseg.cli import main
from liteseg.engine.calibration import Calibration
from liteseg.errors import UserError
from liteseg.metrics.calibration import Reliability
from liteseg.tasks.confidence import temperature_of
from liteseg.tasks.segmenter import Segmenter
from liteseg.utils.images import read_label


def test_the_evaluation_reports_and_draws_it(filled_run, tmp_path, capsys):
    file, page = tmp_path / "eval.json", tmp_path / "eval.html"
    arguments = ["--calibration", "--json", str(file), "--report", str(page)]
    assert main(["eval", "--weights", str(filled_run), *arguments]) == 0
    found = json.loads(file.read_text())["calibration"]

    segmenter, expected = Segmenter.from_pretrained(filled_run), Reliability()
    for place in range(3):
        label = read_label(filled_run.parent / "data" / f"{place}_label.png")
        probabilities, counted = segmenter.probabilities(draw(place)), label != 255
        correct = probabilities.argmax(axis=0) == label
        expected.update(probabilities.max(axis=0)[counted], correct[counted])
    assert found["ece"] == pytest.approx(expected.compute()["ece"], abs=2e-3)
    assert sum(bin["pixels"] for bin in found["bins"]) == expected.sums[0].sum()
    assert (found["fit_images"], found["held_out_images"]) == (2, 1)
    assert found["after"]["nll"] < found["before"]["nll"]
    assert temperature_of(file) == found["temperature"]

    printed = capsys.readouterr().out
    assert f"expected calibration error {100 * found['ece']:.2f} % over all pixels" in printed
    assert f"temperature {found['temperature']:.3f}, fitted on 2 images" in printed
    text = page.read_text()
    assert "accuracy by confidence" in text
    assert f"Temperature {found['temperature']:.3f}" in text


def test_several_processes_count_what_one_does():
    dataset = SimpleNamespace(ignore_index=255)
    samples = {}
    for index in range(6):
        rng = np.random.default_rng(index)
        logits = rng.normal(0, 2, (3, 10, 12)).astype(np.float32)
        label = rng.choice(np.array([0, 1, 2, 255], np.uint8), (10, 12))
        samples[index] = {"logits": logits, "label": label}

    def states(*shares):
        for share in shares:
            evaluator = Calibration(dataset)
            for index in share:
                logits = samples[index]["logits"]
                evaluator.update(index, samples[index], logits.argmax(axis=0).astype(np.uint8))
            yield evaluator.state

    one, several = (list(states(*shares)) for shares in ([range(6)], [(0, 2, 4), (1, 3), (5,)]))
    calibration = Calibration(dataset)
    first, second = (calibration.compute(found)["calibration"] for found in (one, several))
    assert first["temperature"] == second["temperature"]
    assert first["ece"] == pytest.approx(second["ece"])
    assert first["before"] == second["before"]


def test_scores_that_are_not_finite_name_the_image():
    dataset = SimpleNamespace(ignore_index=255, samples=[SimpleNamespace(image="a.png")])
    sample = {"label": np.zeros((2, 2), np.uint8), "logits": np.full((3, 2, 2), np.nan)}
    with pytest.raises(UserError, match=r"a\.png: the model's scores are NaN or infinite"):
        Calibration(dataset).update(0, sample, np.zeros((2, 2), np.uint8))
    Calibration(dataset).update(0, {"logits": sample["logits"]}, sample["label"])  # no label


def test_one_image_is_too_few_for_a_temperature():
    dataset = SimpleNamespace(ignore_index=255)
    evaluator = Calibration(dataset)
    sample = {"label": np.zeros((2, 2), np.uint8), "logits": np.ones((3, 2, 2), np.float32)}
    evaluator.update(0, sample, np.zeros((2, 2), np.uint8))
    assert set(evaluator.compute([evaluator.state])["calibration"]) == {"ece", "bins"}
