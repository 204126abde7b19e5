"""CamVid (Brostow et al., 2008) with the 11 classes of SegNet, in the layouts it is found in."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

import cv2
import numpy as np

from liteseg.datasets.base import SegmentationDataset, refuse_edge, require_folder, require_mode
from liteseg.datasets.file_list import MODES, Line, named_samples, read_list, require_all
from liteseg.errors import UserError
from liteseg.registry import DATASETS
from liteseg.utils.images import read_image, read_label

CAMVID_COLOURS = {
    "Sky": (128, 128, 128),
    "Building": (128, 0, 0),
    "Pole": (192, 192, 128),
    "Road": (128, 64, 128),
    "Pavement": (60, 40, 222),
    "Tree": (128, 128, 0),
    "SignSymbol": (192, 128, 128),
    "Fence": (64, 64, 128),
    "Car": (64, 0, 128),
    "Pedestrian": (64, 64, 0),
    "Bicyclist": (0, 128, 192),
}

# The original 32 classes by their class of 11, grouped as SegNet does (Badrinarayanan et al.,
# 2017), with their colour in the *_L.png files.
ORIGINAL_COLOURS = {
    "Sky": {"Sky": (128, 128, 128)},
    "Building": {
        "Building": (128, 0, 0),
        "Bridge": (0, 128, 64),
        "Wall": (64, 192, 0),
        "Tunnel": (64, 0, 64),
        "Archway": (192, 0, 128),
    },
    "Pole": {"Column_Pole": (192, 192, 128), "TrafficCone": (0, 0, 64)},
    "Road": {
        "Road": (128, 64, 128),
        "LaneMkgsDriv": (128, 0, 192),
        "LaneMkgsNonDriv": (192, 0, 64),
    },
    "Pavement": {
        "Sidewalk": (0, 0, 192),
        "ParkingBlock": (64, 192, 128),
        "RoadShoulder": (128, 128, 192),
    },
    "Tree": {"Tree": (128, 128, 0), "VegetationMisc": (192, 192, 0)},
    "SignSymbol": {
        "SignSymbol": (192, 128, 128),
        "Misc_Text": (128, 128, 64),
        "TrafficLight": (0, 64, 64),
    },
    "Fence": {"Fence": (64, 64, 128)},
    "Car": {
        "Car": (64, 0, 128),
        "SUVPickupTruck": (64, 128, 192),
        "Truck_Bus": (192, 128, 192),
        "Train": (192, 64, 128),
        "OtherMoving": (128, 64, 64),
    },
    "Pedestrian": {
        "Pedestrian": (64, 64, 0),
        "Child": (192, 128, 64),
        "CartLuggagePram": (64, 0, 192),
        "Animal": (64, 128, 64),
    },
    "Bicyclist": {"Bicyclist": (0, 128, 192), "MotorcycleScooter": (192, 0, 192)},
}
VOID_COLOUR = (0, 0, 0)
IGNORE = 255
SEGNET_VOID = 11
UNKNOWN = 254
IMAGE_SUFFIXES = (".png", ".jpg")
STRAY_LIMIT = 0.01  # share of pixels of no CamVid colour that is taken for slips of the brush

# image folder, label folder, for lists (or split folders) that only name the images
FOLDERS = (
    ("701_StillsRaw_full", "LabeledApproved_full"),
    ("images", "labels"),
    ("images", "annot"),
    ("{split}", "{split}annot"),
    ("{split}", "{split}_labels"),
)
LAYOUTS = """\
  (a) SegNet: train.txt with lines `train/x.png trainannot/x.png`, void = 11
  (b) PaddleSeg: images/, annot/, train.txt with lines `images/x.png annot/x.png`, void = 255
  (c) original colours: 701_StillsRaw_full/x.png, LabeledApproved_full/x_L.png (or images/ and
      labels/), train.txt with the image names, or the folders train/ and train_labels/
  and val.txt, test.txt likewise"""


@DATASETS.register
class CamVid(SegmentationDataset):
    """CamVid, 11 classes: SegNet's grey labels, PaddleSeg's, or the original colour labels.

    The layout is found from the files below `dataset_root`:

    - lists `train.txt`, `val.txt`, `test.txt` with `image label` a line, relative to the root.
      Paths of another machine, as in SegNet's own lists, are looked up by their last two parts;
    - lists of image names alone, or no lists but a folder per split, with the labels in the
      folders of `FOLDERS`.

    Labels named `*_L.png` are read by their colours (original 32 classes); all others as class
    numbers, 11 and 255 being void.

    Args:
        transforms: sequence of transforms, or a `Compose`.
        dataset_root: the CamVid folder.
        mode: `train`, `val`, `test` or `trainval`.
        edge: PaddleSeg's; only False.
        pack: folder of a pack of these files (`liteseg data pack`) to read the pixels from.

    Raises:
        UserError: no layout recognised, a malformed list, or files that do not exist.
    """

    CLASSES = tuple(CAMVID_COLOURS)
    PALETTE = np.array(list(CAMVID_COLOURS.values()), np.uint8)

    def __init__(
        self,
        transforms: Sequence,
        dataset_root: str,
        mode: str = "train",
        edge: bool = False,
        pack: Optional[str] = None,
    ):
        require_mode(mode, MODES)
        refuse_edge(edge)
        root = require_folder(dataset_root, "dataset_root", "CamVid")
        pairs = []
        for split in ("train", "val") if mode == "trainval" else (mode,):
            pairs += _pairs(root, split)
        samples = named_samples(pairs, root)
        super().__init__(transforms, samples, self.CLASSES, self.PALETTE, pack=pack)

    def decode_label(self, path: Path) -> np.ndarray:
        """Train ids of a grey or colour label: (h, w) uint8."""
        if path.stem.endswith("_L"):
            return _classes_of_colours(read_image(path), path)
        return cv2.LUT(read_label(path), _GREY_TABLE)


def _pairs(root: Path, split: str) -> list[tuple[Path, Optional[Path]]]:
    list_file = root / f"{split}.txt"
    if os.path.isfile(list_file):
        lines = read_list(list_file)
    elif os.path.isdir(root / split):
        names = sorted(p.name for p in (root / split).iterdir() if p.suffix in IMAGE_SUFFIXES)
        lines = [Line([name], f"{root / split}") for name in names]
    else:
        lines = []
    if not lines:
        raise UserError(
            f"dataset_root: neither {list_file} nor images in {root / split}; "
            f"expected one of\n{LAYOUTS}"
        )
    folders = _folders(root, split)
    pairs, missing = [], []
    for line in lines:
        if len(line.columns) == 2:
            image, label = (_listed(root, column) for column in line.columns)
        elif folders is None:
            raise UserError(
                f"{line.place}: {line.columns[0]!r} has no label beside it, and {root} has none "
                f"of CamVid's label folders; expected one of\n{LAYOUTS}"
            )
        else:
            image, label = _named(Path(line.columns[0]), *folders)
            if split == "test" and not os.path.isfile(label):
                label = None
        missing += [f"{line.place}: {p}" for p in (image, label) if p and not os.path.isfile(p)]
        pairs.append((image, label))
    require_all(missing, root)
    return pairs


def _folders(root: Path, split: str) -> Optional[tuple[Path, Path]]:
    for images, labels in FOLDERS:
        pair = root / images.format(split=split), root / labels.format(split=split)
        if all(map(os.path.isdir, pair)):
            return pair
    return None


def _listed(root: Path, column: str) -> Path:
    path = root / column
    moved = root.joinpath(*path.parts[-2:])
    return moved if os.path.isfile(moved) and not os.path.isfile(path) else path


def _named(name: Path, images: Path, labels: Path) -> tuple[Path, Path]:
    """Image and label of a name with or without folder and suffix; the last guess if none is."""
    stem = name.stem if name.suffix in IMAGE_SUFFIXES else name.name
    image = [images / f"{stem}{end}" for end in IMAGE_SUFFIXES]
    label = [labels / f"{stem}{end}" for end in (".png", "_L.png")]
    return tuple(
        next((path for path in guesses if os.path.isfile(path)), guesses[-1])
        for guesses in (image, label)
    )


def _classes_of_colours(rgb: np.ndarray, path: Path) -> np.ndarray:
    """(h, w) uint8 classes of an (h, w, 3) original colour label."""
    red, green, blue = cv2.split(rgb)
    # every colour is a triple of 0, 64, 128 and 192: two bits each make a table of 64
    label = cv2.LUT((red >> 6 << 4) | (green >> 6 << 2) | (blue >> 6), _COLOUR_TABLE)
    label[((red | green | blue) & 63) != 0] = UNKNOWN
    stray = label == UNKNOWN
    strays = np.count_nonzero(stray)
    if strays > STRAY_LIMIT * label.size:
        colours, counts = np.unique(rgb[stray], axis=0, return_counts=True)
        shown = [
            f"{tuple(colours[i].tolist())} ({counts[i]} pixels)" for i in np.argsort(-counts)[:3]
        ]
        raise UserError(
            f"{path}: {strays} of {label.size} pixels have no CamVid colour, such as "
            f"{', '.join(shown)}: was the label resized smoothly, or saved as JPEG? Take the "
            "original *_L.png, or resize with nearest neighbour"
        )
    label[stray] = IGNORE
    return label


def _colour_table() -> np.ndarray:
    table = np.full(256, UNKNOWN, np.uint8)
    table[_colour_key(VOID_COLOUR)] = IGNORE
    for number, name in enumerate(CAMVID_COLOURS):
        for colour in ORIGINAL_COLOURS[name].values():
            table[_colour_key(colour)] = number
    return table


def _colour_key(colour: Sequence[int]) -> int:
    red, green, blue = (value >> 6 for value in colour)
    return red << 4 | green << 2 | blue


def _grey_table() -> np.ndarray:
    table = np.arange(256, dtype=np.uint8)
    table[SEGNET_VOID] = IGNORE
    return table


_COLOUR_TABLE = _colour_table()
_GREY_TABLE = _grey_table()
