"""Base class of the datasets in an official layout: trees of images and labels, paired by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal, Optional

import cv2
import numpy as np

from liteseg.datasets.arguments import first_few, reject_edge, require_folder, splits_of
from liteseg.datasets.base import Sample, SegmentationDataset
from liteseg.datasets.discovery import files_by_frame
from liteseg.errors import UserError
from liteseg.utils.images import read_label


class OfficialLayout(SegmentationDataset):
    """Images and labels of a split in two trees of folders; a subclass is its metadata.

    A label belongs to the image at the same place in its tree, with the same name but for the
    suffix.

    Args:
        transforms: sequence of transforms, or a `Compose`.
        dataset_root: the folder that contains both trees.
        mode: `train`, `val`, `test` (labels optional) or `trainval`.
        edge: PaddleSeg's; only False.
        pack: folder of a pack of these files (`liteseg data pack`) to read the pixels from.
        exif: `apply`: images with an EXIF orientation are turned upright; `ignore`: as stored.

    Attributes:
        CLASSES: class names in train id order.
        PALETTE: (num_classes, 3) uint8 RGB.
        IMAGES: root of the images below `dataset_root`; `{split}` is the folder of the split.
        LABELS: root of the labels.
        BELOW: folders between a root and its files, as a pattern that ends in `/`, or "".
        IMAGE_SUFFIXES: ends of image names; earlier ones take precedence.
        LABEL_SUFFIXES: ends of label names; earlier ones take precedence.
        TRAIN_IDS: {suffix: (256,) uint8 table from label values to train ids}.
        SPLITS: {split: its folder}.
        SOURCE: what to unpack, for the error where no image is found.

    Raises:
        UserError: a folder is missing or empty, or images of train or val have no label. Labels
            without an image go into `notes`.
    """

    CLASSES: tuple[str, ...] = ()
    PALETTE: np.ndarray = np.zeros((0, 3), np.uint8)
    IMAGES: ClassVar[str]
    LABELS: ClassVar[str]
    BELOW: ClassVar[str] = ""
    IMAGE_SUFFIXES: ClassVar[Sequence[str]] = (".jpg", ".png")
    LABEL_SUFFIXES: ClassVar[Sequence[str]] = (".png",)
    TRAIN_IDS: Mapping[str, np.ndarray] = {}
    SPLITS: ClassVar[Mapping[str, str]] = {"train": "train", "val": "val", "test": "test"}
    SOURCE: ClassVar[str] = "the images"

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
        roots = (self.IMAGES, self.LABELS)
        first, second = (part.partition("{split}")[0].rstrip("/") for part in roots)
        content = f"{first}/" if first == second else f"{first}/ and {second}/"
        root = require_folder(dataset_root, "dataset_root", content)
        samples, notes = [], []
        for split in splits:
            found, note = self._pair(root, split)
            samples += found
            notes += [note] if note else []
        super().__init__(
            transforms, samples, self.CLASSES, self.PALETTE, notes=notes, pack=pack, exif=exif
        )

    def decode_label(self, path: Path) -> np.ndarray:
        """Train ids of a label file: (h, w) uint8."""
        label = read_label(path)
        table = next((t for end, t in self.TRAIN_IDS.items() if path.name.endswith(end)), None)
        return label if table is None else cv2.LUT(label, table)

    def select(self, root: Path, split: str, frames: Sequence[str]) -> Sequence[str]:
        """The frames of a split, where it has no folder of its own: all of them by default.

        Args:
            root: the `dataset_root`.
            split: `train`, `val` or `test`.
            frames: sorted places of the images below their root, without suffix.
        """
        return frames

    def _pair(self, root: Path, split: str) -> tuple[list[Sample], str]:
        """The samples of a split sorted by place, and a note on labels without an image, or ""."""
        below = self.BELOW.replace("{split}", self.SPLITS[split])
        folders = [
            part.replace("{split}", self.SPLITS[split]) for part in (self.IMAGES, self.LABELS)
        ]
        images = files_by_frame(root / folders[0], below, self.IMAGE_SUFFIXES)
        labels = files_by_frame(root / folders[1], below, self.LABEL_SUFFIXES)
        shown = below.replace("*/", "<folder>/")
        if not images:
            raise UserError(
                f"dataset_root: no images {root}/{folders[0]}/{shown}*{self.IMAGE_SUFFIXES[0]}; "
                f"unpack {self.SOURCE} into {root}"
            )
        frames = self.select(root, split, list(images))
        note = ""
        if unused := [label for frame, label in labels.items() if frame not in images]:
            note = (
                f"{len(unused)} labels in {root}/{folders[1]} have no image, they are not used:\n  "
                f"{first_few(unused)}"
            )
        bare = [images[frame] for frame in frames if frame not in labels]
        if bare and split != "test":
            raise UserError(
                f"{len(bare)} of {len(frames)} images in {root}/{folders[0]} have no label "
                f"{root}/{folders[1]}/{shown}*{self.LABEL_SUFFIXES[-1]}; add the labels or remove "
                f"the images:\n  {first_few(bare)}" + (f"\n{note}" if note else "")
            )
        names = {frame: frame.rpartition("/")[2] for frame in frames}
        if len(set(names.values())) < len(names):
            names = {frame: frame.replace("/", "_") for frame in frames}
        return [Sample(images[f], labels.get(f), names[f]) for f in frames], note
