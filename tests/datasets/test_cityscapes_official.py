"""Labels made by the official tools from polygons, read as Cityscapes."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from PIL import Image

from liteseg.datasets import Cityscapes
from liteseg.datasets.cityscapes import LABEL_IDS

TOOLS = "cityscapesscripts.preparation"
REQUIRED = {"reason": "needs cityscapesscripts (extra `test`)", "exc_type": ImportError}
labels_tool = pytest.importorskip(f"{TOOLS}.json2labelImg", **REQUIRED)
train_ids_tool = pytest.importorskip(f"{TOOLS}.createTrainIdLabelImgs", **REQUIRED)
WIDTH, HEIGHT = 96, 64


def write_frame(folder, frame, rng):
    """Polygons of every official label and of a group, in random order, and an image."""
    names = [label.name for label in LABEL_IDS] + ["cargroup"]
    objects = []
    for name in rng.permutation(names):
        center = rng.uniform((0, 0), (WIDTH, HEIGHT))
        corners = center + rng.uniform(-14, 14, (int(rng.integers(3, 7)), 2))
        objects.append({"label": str(name), "polygon": corners.round(1).tolist()})
    stem = f"ulm_{frame:06d}_000019"
    image = folder / "leftImg8bit/train/ulm" / f"{stem}_leftImg8bit.png"
    polygons = folder / "gtFine/train/ulm" / f"{stem}_gtFine_polygons.json"
    for path in (image, polygons):
        path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(image), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    annotation = {"imgWidth": WIDTH, "imgHeight": HEIGHT, "objects": objects}
    polygons.write_text(json.dumps(annotation))
    return polygons


def test_both_kinds_of_labels_agree(tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(5)
    for frame in range(4):
        polygons = str(write_frame(tmp_path, frame, rng))
        ids = polygons.replace("_polygons.json", "_labelIds.png")
        labels_tool.json2labelImg(polygons, ids, "ids")
    dataset = Cityscapes([], str(tmp_path))
    mapped = [dataset.load(i)["label"] for i in range(4)]

    monkeypatch.setenv("CITYSCAPES_DATASET", str(tmp_path))
    train_ids_tool.main()  # the command csCreateTrainIdLabelImgs
    capsys.readouterr()
    dataset = Cityscapes([], str(tmp_path))
    for i, label in enumerate(mapped):
        path = dataset.samples[i].label
        assert path.name.endswith("_gtFine_labelTrainIds.png")
        official = np.asarray(Image.open(path))
        np.testing.assert_array_equal(label, official)
        np.testing.assert_array_equal(dataset.load(i)["label"], official)
    assert set(np.unique(mapped)) == {*range(19), 255}
