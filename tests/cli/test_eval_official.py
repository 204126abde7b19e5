"""Saved Cityscapes predictions under the benchmark's own evaluator."""

from __future__ import annotations

import argparse
import json

import pytest
from test_eval import CITY, make_run

from liteseg.cli import eval as command
from liteseg.datasets.streets.generate import generate

official = pytest.importorskip(
    "cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling",
    reason="needs cityscapesscripts (extra `test`)",
    exc_type=ImportError,
)


@pytest.fixture(params=["real", "generated"])
def cityscapes(request, tmp_path):
    """A folder in Cityscapes layout: one real pair, or four small synthetic ones."""
    if request.param == "real":
        return request.getfixturevalue("shared_data") / "cityscapes"
    return generate(tmp_path / "streets", train=1, val=4, size=(256, 128), progress=False)


def scores_of_the_benchmark(truths, preds):
    """(mean IoU, {class: IoU}) by the official evaluator; NaN where a class is absent."""
    settings = official.args
    settings.quiet = True
    settings.JSONOutput = settings.evalInstLevelScore = settings.evalPixelAccuracy = False
    result = official.evaluateImgLists([str(p) for p in preds], [str(p) for p in truths], settings)
    return result["averageScoreClasses"], result["classScores"]


def test_figures_equal_those_of_the_benchmark(cityscapes, tmp_path):
    run = make_run(tmp_path, CITY.format(root=cityscapes))
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    options = ["--config", run / "config.yml", "--weights", run]
    options += ["--save-pred", tmp_path / "pred", "--json", tmp_path / "f.json"]
    assert command.run(parser.parse_args([str(option) for option in options])) == 0
    found = json.loads((tmp_path / "f.json").read_text())

    truths = sorted((cityscapes / "gtFine" / "val").rglob("*_gtFine_labelIds.png"))
    preds = [
        tmp_path / "pred" / path.name.replace("_gtFine_labelIds", "_leftImg8bit") for path in truths
    ]
    mean, scores = scores_of_the_benchmark(truths, preds)
    assert found["miou"] == pytest.approx(mean, abs=1e-6)
    assert any(found["class_iou"].values())
    assert None in found["class_iou"].values()
    for name, iou in found["class_iou"].items():
        if iou is None:
            assert scores[name] != scores[name]  # the benchmark's NaN: absent
        else:
            assert iou == pytest.approx(scores[name], abs=1e-6), name
