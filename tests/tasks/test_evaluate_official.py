"""Saved Cityscapes predictions, scored by the benchmark's own evaluator."""

from __future__ import annotations

import pytest
from filled_run import CITYSCAPES, fill_run

import liteseg
from liteseg.tasks.data import make_streets

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
    return make_streets(tmp_path / "streets", train=1, val=4, size=(256, 128))


def scores_of_the_benchmark(truths, preds):
    """(mean IoU, {class: IoU}) by the official evaluator; NaN where a class is absent."""
    settings = official.args
    settings.quiet = True
    settings.JSONOutput = settings.evalInstLevelScore = settings.evalPixelAccuracy = False
    result = official.evaluateImgLists([str(p) for p in preds], [str(p) for p in truths], settings)
    return result["averageScoreClasses"], result["classScores"]


def test_metrics_equal_those_of_the_benchmark(cityscapes, tmp_path):
    run = fill_run(tmp_path, CITYSCAPES.format(root=cityscapes))
    found = liteseg.evaluate(None, run, predictions=tmp_path / "pred").metrics

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
