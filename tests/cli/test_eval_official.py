"""Saved Cityscapes predictions under the benchmark's own evaluator, on a real image."""

from __future__ import annotations

import argparse
import json

import pytest
from test_eval import CITY, make_run

from liteseg.cli import eval as command

official = pytest.importorskip(
    "cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling",
    reason="needs cityscapesscripts (extra `test`)",
    exc_type=ImportError,
)


def test_figures_equal_those_of_the_benchmark(shared_data, tmp_path):
    root = shared_data / "cityscapes"
    run = make_run(tmp_path, CITY.format(root=root))
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    options = ["--config", run / "config.yml", "--weights", run]
    options += ["--save-pred", tmp_path / "pred", "--json", tmp_path / "f.json"]
    assert command.run(parser.parse_args([str(option) for option in options])) == 0
    found = json.loads((tmp_path / "f.json").read_text())

    truths = sorted((root / "gtFine" / "val").rglob("*_gtFine_labelIds.png"))
    preds = [
        tmp_path / "pred" / path.name.replace("_gtFine_labelIds", "_leftImg8bit") for path in truths
    ]
    settings = official.args
    settings.quiet = True
    settings.JSONOutput = settings.evalInstLevelScore = settings.evalPixelAccuracy = False
    result = official.evaluateImgLists([str(p) for p in preds], [str(p) for p in truths], settings)
    assert found["miou"] == pytest.approx(result["averageScoreClasses"], abs=1e-6)
    for name, iou in found["class_iou"].items():
        score = result["classScores"][name]
        if iou is None:
            assert score != score  # the benchmark's NaN: absent
        else:
            assert iou == pytest.approx(score, abs=1e-6), name
