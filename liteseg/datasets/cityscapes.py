"""Cityscapes (Cordts et al., CVPR 2016), and its table of label ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import numpy as np

from liteseg.datasets.layout import OfficialLayout
from liteseg.registry import DATASETS


class LabelId(NamedTuple):
    """An entry of the official label table; `train_id` is 255 where it is not evaluated."""

    name: str
    id: int
    train_id: int
    color: tuple[int, int, int]


LABEL_IDS = (
    LabelId("unlabeled", 0, 255, (0, 0, 0)),
    LabelId("ego vehicle", 1, 255, (0, 0, 0)),
    LabelId("rectification border", 2, 255, (0, 0, 0)),
    LabelId("out of roi", 3, 255, (0, 0, 0)),
    LabelId("static", 4, 255, (0, 0, 0)),
    LabelId("dynamic", 5, 255, (111, 74, 0)),
    LabelId("ground", 6, 255, (81, 0, 81)),
    LabelId("road", 7, 0, (128, 64, 128)),
    LabelId("sidewalk", 8, 1, (244, 35, 232)),
    LabelId("parking", 9, 255, (250, 170, 160)),
    LabelId("rail track", 10, 255, (230, 150, 140)),
    LabelId("building", 11, 2, (70, 70, 70)),
    LabelId("wall", 12, 3, (102, 102, 156)),
    LabelId("fence", 13, 4, (190, 153, 153)),
    LabelId("guard rail", 14, 255, (180, 165, 180)),
    LabelId("bridge", 15, 255, (150, 100, 100)),
    LabelId("tunnel", 16, 255, (150, 120, 90)),
    LabelId("pole", 17, 5, (153, 153, 153)),
    LabelId("polegroup", 18, 255, (153, 153, 153)),
    LabelId("traffic light", 19, 6, (250, 170, 30)),
    LabelId("traffic sign", 20, 7, (220, 220, 0)),
    LabelId("vegetation", 21, 8, (107, 142, 35)),
    LabelId("terrain", 22, 9, (152, 251, 152)),
    LabelId("sky", 23, 10, (70, 130, 180)),
    LabelId("person", 24, 11, (220, 20, 60)),
    LabelId("rider", 25, 12, (255, 0, 0)),
    LabelId("car", 26, 13, (0, 0, 142)),
    LabelId("truck", 27, 14, (0, 0, 70)),
    LabelId("bus", 28, 15, (0, 60, 100)),
    LabelId("caravan", 29, 255, (0, 0, 90)),
    LabelId("trailer", 30, 255, (0, 0, 110)),
    LabelId("train", 31, 16, (0, 80, 100)),
    LabelId("motorcycle", 32, 17, (0, 0, 230)),
    LabelId("bicycle", 33, 18, (119, 11, 32)),
    LabelId("license plate", -1, 255, (0, 0, 142)),
)
CITYSCAPES_CLASSES = tuple(
    label.name for label in sorted(LABEL_IDS, key=lambda x: x.train_id) if label.train_id != 255
)
LABEL_IDS_SUFFIX = "_gtFine_labelIds.png"


def id_to_train_id(classes: Sequence[str] = CITYSCAPES_CLASSES) -> np.ndarray:
    """(256,) uint8 table: official id -> index in `classes`, 255 for every other id (and -1)."""
    table = np.full(256, 255, np.uint8)
    for label in LABEL_IDS:
        if label.name in classes:
            table[label.id] = classes.index(label.name)
    return table


def train_id_to_id(classes: Sequence[str] = CITYSCAPES_CLASSES) -> np.ndarray:
    """(256,) uint8 table: train id -> official id, for result files; others become 0, unlabeled."""
    table = np.zeros(256, np.uint8)
    for label in LABEL_IDS:
        if label.name in classes:
            table[classes.index(label.name)] = label.id
    return table


def palette_of(classes: Sequence[str] = CITYSCAPES_CLASSES) -> np.ndarray:
    """(len(classes), 3) uint8: the official colors of `classes`."""
    colors = {label.name: label.color for label in LABEL_IDS}
    return np.array([colors[name] for name in classes], np.uint8)


@DATASETS.register
class Cityscapes(OfficialLayout):
    """Cityscapes in its official layout, 19 classes.

    Images are `leftImg8bit/<split>/<city>/*_leftImg8bit.png`; labels are
    `gtFine/<split>/<city>/*_gtFine_labelTrainIds.png` where present, else `*_gtFine_labelIds.png`,
    mapped to train ids when loaded. Arguments: see `OfficialLayout`.
    """

    CLASSES: tuple[str, ...] = CITYSCAPES_CLASSES
    PALETTE = palette_of(CITYSCAPES_CLASSES)
    IMAGES, LABELS, BELOW = "leftImg8bit/{split}", "gtFine/{split}", "*/"
    IMAGE_SUFFIXES = ("_leftImg8bit.png",)
    LABEL_SUFFIXES: ClassVar[Sequence[str]] = ("_gtFine_labelTrainIds.png", LABEL_IDS_SUFFIX)
    TRAIN_IDS = {LABEL_IDS_SUFFIX: id_to_train_id(CITYSCAPES_CLASSES)}
    SOURCE = "leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip"
