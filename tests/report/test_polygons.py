"""Polygons of labels, drawn back by the importer."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

import liteseg
from liteseg.datasets.annotations.parsers import read
from liteseg.report.polygons import encode_labelme
from liteseg.tasks.data_import import draw, import_data
from liteseg.transforms import Compose, Normalize

NAMES = ["road", "car", "sky", "pole"]
VALUES = {name: number for number, name in enumerate(NAMES)} | {"__ignore__": 255}


def label_of(seed, kind):
    """Regions with holes, islands in them, lines and single pixels."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 4, (12, 16)).astype(np.uint8)
    label = cv2.resize(coarse, (160, 120), interpolation=kind) % 4
    cv2.circle(label, (80, 60), 30, 1, 6)
    label[60, 70:90] = 2
    label[5, 5] = 3
    label[100:110, 20:40] = 255
    return label


def drawn(tmp_path, label, tolerance):
    cv2.imwrite(str(tmp_path / "x.png"), np.zeros((*label.shape, 3), np.uint8))
    (tmp_path / "x.json").write_bytes(encode_labelme(label, NAMES, "x.png", tolerance))
    (item,) = read(tmp_path, "labelme")
    return draw(item, VALUES, 77)


@pytest.mark.parametrize("kind", [cv2.INTER_NEAREST, cv2.INTER_CUBIC])
@pytest.mark.parametrize("seed", range(4))
def test_polygons_give_the_label_again(tmp_path, kind, seed):
    label = label_of(seed, kind)
    np.testing.assert_array_equal(drawn(tmp_path, label, 0), label)
    simplified = drawn(tmp_path, label, 1.0)
    border = cv2.dilate(label, np.ones((7, 7))) != cv2.erode(label, np.ones((7, 7)))
    assert np.mean((simplified != label) & ~border) < 1e-3


def test_values_without_a_name_are_left_out(tmp_path):
    label = np.full((9, 9), 200, np.uint8)
    label[:4] = 1
    found = drawn(tmp_path, label, 0)
    assert (found[:4] == 1).all()
    assert (found[4:] == 77).all()


class Network:
    """Predicts the red channel as class numbers."""

    def labels(self, images, trans_info):
        return [image[..., 0] // 40 for image in images]


def test_predict_and_import_back(tmp_path):
    label = label_of(1, cv2.INTER_NEAREST) % 4
    (tmp_path / "photos").mkdir()
    for name in ("a", "b"):
        image = np.zeros((*label.shape, 3), np.uint8)
        image[..., 2] = 40 * label  # red in OpenCV's order
        cv2.imwrite(str(tmp_path / "photos" / f"{name}.png"), image)
    palette = np.zeros((4, 3), np.uint8)
    segmenter = liteseg.Segmenter(Network(), Compose([Normalize()]), NAMES, palette)
    out = tmp_path / "out"
    for _ in range(2):  # a second call replaces its own files
        liteseg.predict([tmp_path / "photos"], out, model=segmenter, what="polygons")
    assert sorted(path.name for path in out.iterdir()) == ["a_polygons.json", "b_polygons.json"]
    assert json.loads((out / "a_polygons.json").read_text())["imagePath"] == "../photos/a.png"
    imported = import_data(out, tmp_path / "mine", split="50,50")
    assert set(imported.classes) == {"background", *NAMES}
    assert sorted(path.stem for path in (tmp_path / "mine").rglob("images/*/*")) == [
        "a_polygons",
        "b_polygons",
    ]
    (out / "a_polygons.json").write_text('{"shapes": []}')
    with pytest.raises(liteseg.UserError, match="a_polygons"):
        liteseg.predict([tmp_path / "photos" / "a.png"], out, model=segmenter, what="polygons")
    assert (out / "a_polygons.json").read_text() == '{"shapes": []}'
