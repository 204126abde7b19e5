"""Street datasets in their official layouts: BDD100K, ACDC, KITTI, IDD, GTA5, Mapillary Vistas."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Optional

import numpy as np

from liteseg.datasets.arguments import require_folder
from liteseg.datasets.cityscapes import CITYSCAPES_CLASSES, id_to_train_id, palette_of
from liteseg.datasets.layout import OfficialLayout
from liteseg.datasets.list_file import read_list
from liteseg.errors import UserError, quoted
from liteseg.registry import DATASETS
from liteseg.utils.files import read_regular

_MAX_CONFIG_BYTES = 1 << 22


@DATASETS.register
class BDD100K(OfficialLayout):
    """BDD100K (Yu et al., CVPR 2020), semantic segmentation of its 10k images, 19 classes.

    Images are `images/10k/<split>/*.jpg`, labels `labels/sem_seg/masks/<split>/*.png` (train ids).
    """

    CLASSES = CITYSCAPES_CLASSES
    PALETTE = palette_of(CITYSCAPES_CLASSES)
    IMAGES, LABELS = "images/10k/{split}", "labels/sem_seg/masks/{split}"
    IMAGE_SUFFIXES = (".jpg",)
    SOURCE = "the archives of 10K images and of semantic segmentation"


@DATASETS.register
class ACDC(OfficialLayout):
    """ACDC (Sakaridis et al., ICCV 2021): fog, night, rain and snow, 19 classes.

    Images are `rgb_anon/<condition>/<split>/<sequence>/*_rgb_anon.png`, labels
    `gt/<condition>/<split>/<sequence>/*_gt_labelTrainIds.png`, else `*_gt_labelIds.png`.
    """

    CLASSES = CITYSCAPES_CLASSES
    PALETTE = palette_of(CITYSCAPES_CLASSES)
    IMAGES, LABELS, BELOW = "rgb_anon", "gt", "*/{split}/*/"
    IMAGE_SUFFIXES = ("_rgb_anon.png",)
    LABEL_SUFFIXES = ("_gt_labelTrainIds.png", "_gt_labelIds.png")
    TRAIN_IDS = {"_gt_labelIds.png": id_to_train_id()}
    SOURCE = "rgb_anon_trainvaltest.zip and gt_trainval.zip"


@DATASETS.register
class KITTI(OfficialLayout):
    """KITTI semantics (Alhaija et al., IJCV 2018): 200 labeled images, 19 classes.

    Images are `training/image_2/*.png`, labels `training/semantic/*.png` (ids of Cityscapes). The
    benchmark has no validation split: every fifth image is `val`, the others are `train`.
    """

    CLASSES = CITYSCAPES_CLASSES
    PALETTE = palette_of(CITYSCAPES_CLASSES)
    IMAGES, LABELS = "{split}/image_2", "{split}/semantic"
    IMAGE_SUFFIXES = (".png",)
    TRAIN_IDS = {".png": id_to_train_id()}
    SPLITS = {"train": "training", "val": "training", "test": "testing"}
    SOURCE = "data_semantics.zip"

    def select(self, root: Path, split: str, frames: Sequence[str]) -> Sequence[str]:
        """Every fifth frame for `val`, the others for `train`."""
        if split == "test":
            return frames
        return [f for i, f in enumerate(frames) if (i % 5 == 4) == (split == "val")]


@DATASETS.register
class IDD(OfficialLayout):
    """India Driving Dataset (Varma et al., WACV 2019), the 26 classes of level 3.

    Images are `leftImg8bit/<split>/<drive>/*_leftImg8bit.png` (or `.jpg`), labels
    `gtFine/<split>/<drive>/*_gtFine_labellevel3Ids.png`, which the dataset's `createLabels.py`
    makes with `--id-type level3Id`.
    """

    CLASSES = (
        *("road", "drivable fallback", "sidewalk", "non-drivable fallback", "person", "rider"),
        *("motorcycle", "bicycle", "autorickshaw", "car", "truck", "bus", "vehicle fallback"),
        *("curb", "wall", "fence", "guard rail", "billboard", "traffic sign", "traffic light"),
        *("pole", "obs-str-bar-fallback", "building", "bridge", "vegetation", "sky"),
    )
    PALETTE = np.array(
        [
            *((128, 64, 128), (81, 0, 81), (244, 35, 232), (152, 251, 152), (220, 20, 60)),
            *((255, 0, 0), (0, 0, 230), (119, 11, 32), (255, 204, 54), (0, 0, 142)),
            *((0, 0, 70), (0, 60, 100), (136, 143, 153), (220, 190, 40), (102, 102, 156)),
            *((190, 153, 153), (180, 165, 180), (174, 64, 67), (220, 220, 0), (250, 170, 30)),
            *((153, 153, 153), (169, 187, 214), (70, 70, 70), (150, 100, 100), (107, 142, 35)),
            (70, 130, 180),
        ],
        np.uint8,
    )
    IMAGES, LABELS, BELOW = "leftImg8bit/{split}", "gtFine/{split}", "*/"
    IMAGE_SUFFIXES = ("_leftImg8bit.png", "_leftImg8bit.jpg")
    LABEL_SUFFIXES = ("_gtFine_labellevel3Ids.png",)
    SOURCE = "the IDD segmentation archives"


@DATASETS.register
class GTA5(OfficialLayout):
    """GTA5, "Playing for Data" (Richter et al., ECCV 2016), 19 classes of Cityscapes.

    Images are `images/*.png`, labels `labels/*.png` (palette PNGs of the ids of Cityscapes). The
    splits are those of `split.mat` in `dataset_root`, which needs SciPy, or of text files
    `train.txt`, `val.txt`, `test.txt` with an image name per line.
    """

    CLASSES = CITYSCAPES_CLASSES
    PALETTE = palette_of(CITYSCAPES_CLASSES)
    IMAGES, LABELS = "images", "labels"
    IMAGE_SUFFIXES = (".png",)
    TRAIN_IDS = {".png": id_to_train_id()}
    SOURCE = "the ten archives of images and of labels"

    def select(self, root: Path, split: str, frames: Sequence[str]) -> Sequence[str]:
        """The frames that the list or `split.mat` has for the split."""
        listed = root / f"{split}.txt"
        source = listed if listed.is_file() else root / "split.mat"
        if source is listed:
            wanted = {Path(line.columns[0]).stem for line in read_list(listed)}
        elif source.is_file():
            wanted = {f"{number:05d}" for number in _matlab_numbers(source, f"{split}Ids")}
        else:
            raise UserError(
                f"dataset_root: {root} has neither {split}.txt nor split.mat (in read_mapping.zip "
                f"of the dataset); add one: {split}.txt has an image name per line"
            )
        chosen = [frame for frame in frames if frame in wanted]
        if missing := len(wanted) - len(chosen):
            raise UserError(
                f"{source}: {missing} of {len(wanted)} images of {split} are not in "
                f"{root / self.IMAGES}, such as {min(wanted - set(chosen))}.png; unpack all "
                "archives"
            )
        return chosen


def _matlab_numbers(path: Path, name: str) -> list[int]:
    try:
        from scipy.io import loadmat
    except ImportError:
        raise UserError(f"{path} needs SciPy: pip install scipy") from None
    try:
        return [int(number) for number in loadmat(path)[name].ravel()]
    except Exception as error:  # SciPy raises many types for a damaged file
        raise UserError(f"{path}: can't read {name}: {quoted(error)}") from None


@DATASETS.register
class MapillaryVistas(OfficialLayout):
    """Mapillary Vistas (Neuhold et al., ICCV 2017), the evaluated classes of version 1.2 or 2.0.

    Images are `<split>/images/*.jpg`, labels `<split>/<version>/labels/*.png` (or
    `<split>/labels/*.png` of the first release of 1.2), with the split `training`, `validation` or
    `testing`. Names and colors are those of `config_<version>.json` in `dataset_root`; labels that
    are not evaluated are ignored.

    Args:
        version: `v1.2` or `v2.0`; the other arguments are those of `OfficialLayout`.

    Raises:
        UserError: as `OfficialLayout`, or the JSON file is missing or not as published.
    """

    IMAGES, LABELS = "{split}/images", "{split}/labels"
    IMAGE_SUFFIXES = (".jpg",)
    SPLITS = {"train": "training", "val": "validation", "test": "testing"}
    SOURCE = "the archive of Mapillary Vistas"

    def __init__(
        self,
        transforms: Sequence,
        dataset_root: str,
        mode: str = "train",
        version: Literal["v1.2", "v2.0"] = "v1.2",
        edge: bool = False,
        pack: Optional[str] = None,
        exif: Literal["apply", "ignore"] = "apply",
    ):
        root = require_folder(dataset_root, "dataset_root", "training/ and validation/")
        path = root / f"config_{version}.json"
        labels = _vistas_labels(path)
        kept = [number for number, label in enumerate(labels) if label[2]]
        self.CLASSES = tuple(labels[number][0] for number in kept)
        self.PALETTE = np.array([labels[number][1] for number in kept], np.uint8)
        table = np.full(256, 255, np.uint8)
        table[kept] = np.arange(len(kept))
        self.TRAIN_IDS = {".png": table}
        if version == "v2.0" or any(
            (root / folder / version).is_dir() for folder in ("training", "validation")
        ):
            self.LABELS = f"{{split}}/{version}/labels"  # type: ignore[misc]
        super().__init__(transforms, dataset_root, mode, edge, pack, exif)


def _vistas_labels(path: Path) -> list[tuple[str, list[int], bool]]:
    """(name, color, evaluated) of each label value, from the dataset's JSON file."""
    try:
        labels = json.loads(read_regular(path, _MAX_CONFIG_BYTES))["labels"]
        found = [(str(x["readable"]), list(x["color"]), bool(x["evaluate"])) for x in labels]
        colors = np.array([color for _, color, _ in found])
        if colors.shape != (len(found), 3) or not 2 <= len(found) <= 255:
            raise ValueError(f"{len(found)} labels")
    except OSError as error:
        raise UserError(f"dataset_root: can't read {path}: {error.strerror}") from None
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise UserError(
            f"{path}: expected `labels` with readable, color and evaluate, as published; found "
            f"{quoted(error)}"
        ) from None
    return found
