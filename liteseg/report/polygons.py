"""Labels as polygons in the file format of labelme, to correct them in an annotation tool."""

from __future__ import annotations

import json
from collections.abc import Sequence

import cv2
import numpy as np

_IGNORED = 255
# The first keys: a file that begins with them was written by liteseg, and may be replaced by it.
MARK = {"version": "5.0.0", "flags": {"liteseg": True}}


def encode_labelme(
    label: np.ndarray, class_names: Sequence[str], image_path: str, tolerance: float = 1.0
) -> bytes:
    """The regions of a label as JSON of labelme.

    Drawn in order, the polygons give the label again, but for `tolerance` at their borders: larger
    regions come first, so that smaller ones inside of them are drawn over them.

    Args:
        label: (h, w) uint8; 255 is ignored, other values without a class name are left out.
        class_names: in the order of the classes.
        image_path: of the image, relative to the JSON file.
        tolerance: largest distance, in pixels, of a simplified outline from the outline.
    """
    names = dict(enumerate(map(str, class_names))) | {_IGNORED: "__ignore__"}  # a word of labelme
    regions: list[tuple[float, str, list]] = []
    for number in np.unique(label).tolist():
        if number not in names:
            continue
        mask = (label == number).view(np.uint8)
        outlines, places = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        for outline, (_, _, _, parent) in zip(outlines, places[0]):
            if parent >= 0:  # of a hole, which other regions fill
                continue
            points = cv2.approxPolyDP(outline, tolerance, True)[:, 0].tolist()
            points = (points * 3)[:3] if len(points) < 3 else points  # a pixel or a line
            regions.append((cv2.contourArea(outline), names[number], points))
    regions.sort(key=lambda region: -region[0])
    height, width = label.shape
    content = {
        **MARK,
        "shapes": [
            {
                "label": name,
                "points": points,
                "group_id": None,
                "shape_type": "polygon",
                "flags": {},
            }
            for _, name, points in regions
        ],
        "imagePath": image_path,
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
    }
    return json.dumps(content).encode()
