"""The Streets dataset: synthetic scenes with the layout and label ids of Cityscapes."""

from __future__ import annotations

from liteseg.datasets.cityscapes import LABEL_IDS_SUFFIX, Cityscapes, id_to_train_id, palette_of
from liteseg.registry import DATASETS


@DATASETS.register
class Streets(Cityscapes):
    """Synthetic street scenes made by `liteseg data streets`, 9 classes, Cityscapes layout.

    Train ids are in the order of Cityscapes. All other label ids are ignored.
    """

    CLASSES = (
        *("road", "sidewalk", "building", "pole", "traffic sign"),
        *("vegetation", "sky", "person", "car"),
    )
    PALETTE = palette_of(CLASSES)
    LABEL_SUFFIXES = (LABEL_IDS_SUFFIX,)  # labelTrainIds would be numbers of the 19 classes
    TRAIN_IDS = {LABEL_IDS_SUFFIX: id_to_train_id(CLASSES)}
