"""CamVid (Brostow et al., 2008) with the 11 classes of SegNet, in its common layouts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal, Optional

import cv2
import numpy as np

from liteseg.datasets.arguments import reject_edge, require_folder, splits_of
from liteseg.datasets.base import SegmentationDataset
from liteseg.datasets.color_map import ColorMap
from liteseg.datasets.discovery import images_in
from liteseg.datasets.list_file import Line, listed_path, named_samples, read_list, require_files
from liteseg.errors import UserError
from liteseg.registry import DATASETS
from liteseg.utils.images import IMAGE_SUFFIXES, read_image, read_label

IGNORE = 255
SEGNET_VOID = 11
MAX_UNKNOWN = 0.01  # share of pixels of no CamVid color that counts as annotation noise

# The colors of the original 32 classes (comments) in the *_L.png files, with their class of 11 as
# SegNet groups them (Badrinarayanan et al., 2017).
COLOR_MAP = ColorMap.parse(
    """\
    128 128 128 Sky
    128 0 0     Building
    0 128 64    Building    # Bridge
    64 192 0    Building    # Wall
    64 0 64     Building    # Tunnel
    192 0 128   Building    # Archway
    192 192 128 Pole        # Column_Pole
    0 0 64      Pole        # TrafficCone
    128 64 128  Road
    128 0 192   Road        # LaneMkgsDriv
    192 0 64    Road        # LaneMkgsNonDriv
    0 0 192     Pavement    # Sidewalk
    64 192 128  Pavement    # ParkingBlock
    128 128 192 Pavement    # RoadShoulder
    128 128 0   Tree
    192 192 0   Tree        # VegetationMisc
    192 128 128 SignSymbol
    128 128 64  SignSymbol  # Misc_Text
    0 64 64     SignSymbol  # TrafficLight
    64 64 128   Fence
    64 0 128    Car
    64 128 192  Car         # SUVPickupTruck
    192 128 192 Car         # Truck_Bus
    192 64 128  Car         # Train
    128 64 64   Car         # OtherMoving
    64 64 0     Pedestrian
    192 128 64  Pedestrian  # Child
    64 0 192    Pedestrian  # CartLuggagePram
    64 128 64   Pedestrian  # Animal
    0 128 192   Bicyclist
    192 0 192   Bicyclist   # MotorcycleScooter
    0 0 0       ignore      # Void
    """.splitlines(),
    IGNORE,
    "CamVid",
)

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
  (c) original colors: 701_StillsRaw_full/x.png, LabeledApproved_full/x_L.png (or images/ and
      labels/), train.txt with the image names, or the folders train/ and train_labels/
  and the same for val.txt, test.txt"""


def _palette() -> np.ndarray:
    palette = COLOR_MAP.palette.copy()
    palette[COLOR_MAP.names.index("Pavement")] = (60, 40, 222)  # SegNet's
    return palette


def _train_ids() -> np.ndarray:
    table = np.arange(256, dtype=np.uint8)
    table[SEGNET_VOID] = IGNORE
    return table


@DATASETS.register
class CamVid(SegmentationDataset):
    """CamVid, 11 classes: SegNet's gray labels, PaddleSeg's, or the original color labels.

    The layout is detected from the files below `dataset_root`:

    - lists `train.txt`, `val.txt`, `test.txt` with lines `image label`, relative to the root.
      Absolute paths of another machine, as in SegNet's own lists, are searched by their last two
      parts;
    - lists of image names only, or no lists but a folder per split, with the labels in the
      folders of `FOLDERS`.

    Labels named `*_L.png` are decoded by color (original 32 classes), all others as class numbers;
    11 and 255 are void.

    Args:
        transforms: sequence of transforms, or a `Compose`.
        dataset_root: the CamVid folder.
        mode: `train`, `val`, `test` or `trainval`.
        edge: PaddleSeg's; only False.
        pack: folder of a pack of these files (`liteseg data pack`) to read the pixels from.
        exif: `apply`: images with an EXIF orientation are turned upright; `ignore`: as stored.

    Raises:
        UserError: no known layout, a malformed list, or files that do not exist.
    """

    CLASSES = COLOR_MAP.names
    PALETTE = _palette()
    COLORS = COLOR_MAP
    #: {suffix: (256,) uint8 table from label values to train ids}
    TRAIN_IDS: ClassVar = {".png": _train_ids()}

    def __init__(
        self,
        transforms: Sequence,
        dataset_root: str,
        mode: str = "train",
        edge: bool = False,
        pack: Optional[str] = None,
        exif: Literal["apply", "ignore"] = "apply",
    ):
        splits = splits_of(mode)
        reject_edge(edge)
        root = require_folder(dataset_root, "dataset_root", "CamVid")
        pairs = [pair for split in splits for pair in _pairs(root, split)]
        samples = named_samples(pairs, root)
        super().__init__(transforms, samples, self.CLASSES, self.PALETTE, pack=pack, exif=exif)

    def decode_label(self, path: Path) -> np.ndarray:
        """Train ids of a gray or color label: (h, w) uint8."""
        if path.stem.endswith("_L"):
            fix = "use the original *_L.png, or resize it with nearest neighbor"
            return COLOR_MAP.decode(read_image(path), path, MAX_UNKNOWN, fix)
        return cv2.LUT(read_label(path), self.TRAIN_IDS[".png"])


def _pairs(root: Path, split: str) -> list[tuple[Path, Optional[Path]]]:
    """The (image, label) files of a split."""
    folders = _folders(root, split)
    pairs, missing = [], []
    for line in _lines(root, split):
        label: Optional[Path]
        if len(line.columns) == 2:
            image, label = (_listed(root, column) for column in line.columns)
        elif folders is None:
            raise UserError(
                f"{line.place}: {line.columns[0]!r} has no label next to it, and {root} has none "
                f"of CamVid's label folders; expected one of\n{LAYOUTS}"
            )
        else:
            image, label = _named(Path(line.columns[0]), *folders)
            if split == "test" and not os.path.isfile(label):
                label = None
        missing += [f"{line.place}: {p}" for p in (image, label) if p and not os.path.isfile(p)]
        pairs.append((image, label))
    require_files(missing, root)
    return pairs


def _lines(root: Path, split: str) -> list[Line]:
    """The lines of the split's list file, or one line for each image of its folder."""
    list_file, folder = root / f"{split}.txt", root / split
    if os.path.isfile(list_file):
        return read_list(list_file)
    images = images_in(folder) if os.path.isdir(folder) else []
    if images:
        return [Line([path.name], f"{folder}") for path in images]
    raise UserError(
        f"dataset_root: neither {list_file} nor images in {folder}; expected one of\n{LAYOUTS}"
    )


def _folders(root: Path, split: str) -> Optional[tuple[Path, Path]]:
    for images, labels in FOLDERS:
        pair = root / images.format(split=split), root / labels.format(split=split)
        if all(map(os.path.isdir, pair)):
            return pair
    return None


def _listed(root: Path, column: str) -> Path:
    path = Path(listed_path(root, column))
    moved = root.joinpath(*path.parts[-2:])
    return moved if os.path.isfile(moved) and not os.path.isfile(path) else path


def _named(name: Path, images: Path, labels: Path) -> tuple[Path, Path]:
    """Image and label of a name with or without folder and suffix, even if they do not exist."""
    stem = name.stem if name.suffix.lower() in IMAGE_SUFFIXES else name.name
    guesses = [images / name.name, *(images / f"{stem}{suffix}" for suffix in IMAGE_SUFFIXES)]
    image = next(filter(os.path.isfile, guesses), guesses[1])
    guesses = [labels / f"{stem}{end}" for end in (".png", "_L.png")]
    return image, next(filter(os.path.isfile, guesses), guesses[0])
