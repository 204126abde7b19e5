"""The same scene as the annotations of each tool: 12x8 images, a road, and a car on it."""

from __future__ import annotations

import json

import cv2
import numpy as np

WIDTH, HEIGHT = 12, 8
ROAD = (slice(4, 8), slice(0, 12))  # rows, columns
CAR = (slice(3, 6), slice(2, 7))


def expected(background=0, car=1, road=2):
    """The label: the car covers the road."""
    label = np.full((HEIGHT, WIDTH), background, np.uint8)
    label[ROAD] = road
    label[CAR] = car
    return label


def corners(region):
    """The polygon through the outermost pixels of a region."""
    (top, bottom), (left, right) = ((s.start, s.stop - 1) for s in region)
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((HEIGHT, WIDTH, 3), 90, np.uint8))
    return path


def labelme(root, names=("a", "b", "c", "d", "e")):
    for name in names:
        photo = image(root / f"{name}.png")
        shapes = [
            {"label": "road", "points": corners(ROAD), "shape_type": "polygon"},
            {"label": "car", "points": corners(CAR)[::2], "shape_type": "rectangle"},
        ]
        (root / f"{name}.json").write_text(
            json.dumps(
                {
                    "imagePath": photo.name,
                    "imageWidth": WIDTH,
                    "imageHeight": HEIGHT,
                    "shapes": shapes,
                }
            )
        )
    return root


def counts_of(mask):
    """COCO's uncompressed RLE: lengths of runs in column order, the first one of zeros."""
    runs, value = [], False
    for pixel in mask.T.ravel().tolist():
        if pixel != value:
            value = pixel
            runs.append(0)
        elif not runs:
            runs.append(0)
        runs[-1] += 1
    return runs if not mask[0, 0] else [0, *runs]


def coco(root, names=("a", "b", "c", "d", "e")):
    masks = []
    for region in (ROAD, CAR):
        mask = np.zeros((HEIGHT, WIDTH), bool)
        mask[region] = True
        masks.append({"size": [HEIGHT, WIDTH], "counts": counts_of(mask)})
    images, annotations = [], []
    for number, name in enumerate(names):
        image(root / "images" / f"{name}.png")
        images.append({"id": number, "file_name": f"{name}.png", "width": WIDTH, "height": HEIGHT})
        for category, mask in ((7, masks[0]), (3, masks[1])):
            annotations.append({"image_id": number, "category_id": category, "segmentation": mask})
    categories = [{"id": 3, "name": "car"}, {"id": 7, "name": "road"}]
    (root / "annotations").mkdir(parents=True)
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations" / "instances.json").write_text(json.dumps(content))
    return root


def cvat(root, names=("a", "b", "c", "d", "e")):
    """The car comes first in the file, and above the road by its z order."""
    elements = []
    points = ";".join(f"{x},{y}" for x, y in corners(ROAD))
    rle = "0,15"  # a mask of 5x3 pixels, all set
    for name in names:
        image(root / "images" / f"{name}.png")
        elements.append(
            f'<image id="0" name="{name}.png" width="{WIDTH}" height="{HEIGHT}">'
            f'<mask label="car" rle="{rle}" left="2" top="3" width="5" height="3" z_order="2"/>'
            f'<polygon label="road" points="{points}" z_order="1"/></image>'
        )
    (root / "annotations.xml").write_text(f"<annotations>{''.join(elements)}</annotations>")
    return root


def voc(root, names=("a", "b", "c", "d", "e")):
    (root / "SegmentationClass").mkdir(parents=True)
    (root / "labelmap.txt").write_text(
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\nroad:128,64,128::\ncar:0,0,142::\n"
    )
    colors = np.array([(0, 0, 0), (0, 0, 142), (128, 64, 128)], np.uint8)
    for name in names:
        image(root / "JPEGImages" / f"{name}.png")
        mask = colors[expected()][..., ::-1]
        cv2.imwrite(str(root / "SegmentationClass" / f"{name}.png"), mask)
    return root


def yolo(root, names=("a", "b", "c", "d", "e")):
    (root / "data.yaml").parent.mkdir(parents=True, exist_ok=True)
    (root / "data.yaml").write_text("names: {0: car, 1: road}\n")
    lines = []
    for number, region in ((1, ROAD), (0, CAR)):
        values = [f"{x / WIDTH:.9f} {y / HEIGHT:.9f}" for x, y in corners(region)]
        lines.append(f"{number} {' '.join(values)}")
    (root / "labels").mkdir()
    for name in names:
        image(root / "images" / f"{name}.png")
        (root / "labels" / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return root


ALL = {"labelme": labelme, "coco": coco, "cvat": cvat, "voc": voc, "yolo": yolo}
