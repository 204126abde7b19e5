"""The parsers of annotation formats, against regions of pixels set by hand."""

from __future__ import annotations

import base64
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
import sources

from liteseg.datasets.annotations.parsers import PARSERS, detect, read
from liteseg.errors import UserError
from liteseg.tasks.data_import import draw

VALUES = {"car": 1, "road": 2}


def need(kind):
    if kind == "coco":
        pytest.importorskip("pycocotools")


@pytest.mark.parametrize("kind", PARSERS)
def test_the_scene_of_each_tool(kind, tmp_path):
    need(kind)
    root = sources.ALL[kind](tmp_path / "source")
    assert detect(root) == kind
    found = read(root, kind)
    assert [Path(item.name).name for item in found] == ["a", "b", "c", "d", "e"]
    for item in found:
        assert item.image.stem == Path(item.name).name
        np.testing.assert_array_equal(draw(item, VALUES, 0), sources.expected())


def test_formats_are_those_of_the_command():
    from liteseg.cli.data.import_ import FORMATS

    assert set(FORMATS) == {"auto", *PARSERS}


def labelme_shape(tmp_path, **shape):
    root = sources.labelme(tmp_path / "source", ["a"])
    content = json.loads((root / "a.json").read_text())
    content["shapes"] = [{"label": "car", **shape}]
    (root / "a.json").write_text(json.dumps(content))
    return draw(read(root, "labelme")[0], VALUES, 0)


def test_labelme_mask(tmp_path):
    mask = np.array([[1, 0, 1], [0, 1, 1]], bool)
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "PNG")
    text = base64.b64encode(buffer.getvalue()).decode()
    found = labelme_shape(tmp_path, shape_type="mask", mask=text, points=[[4, 5], [6, 6]])
    wanted = np.zeros((8, 12), np.uint8)
    wanted[5:7, 4:7] = mask
    np.testing.assert_array_equal(found, wanted)


def test_labelme_circle(tmp_path):
    found = labelme_shape(tmp_path, shape_type="circle", points=[[5, 4], [7, 4]])
    rows, columns = np.mgrid[:8, :12]
    distance = np.hypot(rows - 4, columns - 5)
    assert (found[distance <= 1.5] == 1).all()
    assert (found[distance > 2.9] == 0).all()


def test_coco_polygons_and_compressed_rle(tmp_path):
    coco = pytest.importorskip("pycocotools.mask")
    root = sources.coco(tmp_path / "source", ["a"])
    path = root / "annotations" / "instances.json"
    content = json.loads(path.read_text())
    mask = np.zeros((8, 12), np.uint8, order="F")
    mask[sources.CAR] = 1
    rle = coco.encode(mask)
    content["annotations"] = [
        {"image_id": 0, "category_id": 7, "segmentation": [[0, 4, 12, 4, 12, 8, 0, 8]]},
        {
            "image_id": 0,
            "category_id": 3,
            "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()},
        },
    ]
    path.write_text(json.dumps(content))
    np.testing.assert_array_equal(draw(read(root, "coco")[0], VALUES, 0), sources.expected())


def test_coco_splits_of_several_files(tmp_path):
    pytest.importorskip("pycocotools")
    root = sources.coco(tmp_path / "source", ["a"])
    path = root / "annotations" / "instances.json"
    content = json.loads(path.read_text())
    path.rename(path.with_name("instances_train2017.json"))
    content["images"][0]["file_name"] = "z.png"
    sources.image(root / "images" / "z.png")
    path.with_name("instances_val2017.json").write_text(json.dumps(content))
    assert [item.subset for item in read(root, "coco")] == ["train", "val"]


def test_voc_class_numbers_without_a_label_map(tmp_path):
    root = sources.voc(tmp_path / "source", ["a"])
    (root / "labelmap.txt").unlink()
    label = Image.fromarray(np.array([[0, 7], [255, 15]], np.uint8))
    label.putpalette(list(range(256)) * 3)
    label.save(root / "SegmentationClass" / "a.png")
    (item,) = read(root, "voc")
    assert [shape.label for shape in item.shapes] == ["background", "car", "person", "ignore"]
    assert item.size == (2, 2)


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


BAD = [
    ("labelme", "a.json", '"shapes"', '"shape"', r"a\.json: not a file of labelme"),
    ("labelme", "a.json", "{", "", r"a\.json: not JSON"),
    ("labelme", "a.json", '"polygon"', '"line"', r"a\.json: shapes\[0\]: a line has no area"),
    ("labelme", "a.json", "[0, 4]", "[0, NaN]", r"shapes\[0\]: a point is not within any image"),
    ("labelme", "a.json", '"label": "road"', '"x": 1', r"shapes\[0\]: 'label' is missing"),
    (
        "labelme",
        "a.json",
        "a.png",
        "gone.png",
        r"a\.json: its image gone\.png is missing.*--images",
    ),
    ("coco", "annotations/instances.json", '"id": 7', '"id": 8', r"annotations\[0\]: 7 is missing"),
    ("coco", "annotations/instances.json", '"size": [8', '"size": [9', r"\[0\]: RLE of \[9, 12\]"),
    ("coco", "annotations/instances.json", '"a.png"', '"no.png"', r"no\.png: no such image"),
    ("cvat", "annotations.xml", "<annotations>", "<a><annotations>", "not XML"),
    ("cvat", "annotations.xml", "<annotations>", "<!DOCTYPE x><annotations>", "a document type"),
    ("cvat", "annotations.xml", 'rle="0,15"', 'rle="0,14"', r"image a\.png: rle of 14 pixels"),
    ("cvat", "annotations.xml", "0,4;", "0,x;", r"image a\.png: the points are not pairs"),
    ("cvat", "annotations.xml", "<polygon", "<polyline", "a polyline has no area"),
    ("voc", "labelmap.txt", "car:0,0,142", "car:0,0,141", r"a\.png: color 0 0 142 is not in"),
    ("voc", "labelmap.txt", "car:0,0,142", "car=0,0,142", r"labelmap\.txt:4: expected"),
    ("yolo", "labels/a.txt", "1 0.", "x 0.", r"labels/a\.txt: line 1: invalid literal"),
    ("yolo", "data.yaml", "{0: car", "{zero: car", r"data\.yaml: can't read `names`"),
]


@pytest.mark.parametrize(("kind", "file", "old", "new", "message"), BAD)
def test_damaged_entries_are_named(kind, file, old, new, message, tmp_path):
    need(kind)
    root = sources.ALL[kind](tmp_path / "source", ["a"])
    edit(root / file, old, new)
    with pytest.raises(UserError, match=message):
        read(root, kind)


def test_boxes_of_yolo_are_refused(tmp_path):
    root = sources.yolo(tmp_path / "source", ["a"])
    (root / "labels" / "a.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    with pytest.raises(UserError, match=r"a\.txt: line 1: a box, not an outline"):
        read(root, "yolo")


def test_unknown_and_empty_sources(tmp_path):
    with pytest.raises(UserError, match=r"not in a known format; give one: --format labelme\|coco"):
        detect(tmp_path)
    with pytest.raises(UserError, match="no annotated image in the format cvat"):
        read(tmp_path, "cvat")
