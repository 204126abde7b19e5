"""`Dataset`: the user's own files, given by list files or by folders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, Optional

import numpy as np

from liteseg.datasets.arguments import reject_edge, require_folder, splits_of
from liteseg.datasets.base import SegmentationDataset
from liteseg.datasets.color_map import ColorMap, default_palette
from liteseg.datasets.discovery import pair_folders
from liteseg.datasets.list_file import SampleList, add_lines, find_list, lines_of
from liteseg.errors import NotOneChannel, UserError
from liteseg.registry import DATASETS
from liteseg.utils.bands import bands_of
from liteseg.utils.images import read_image, read_label

_MOST_COLORS, _SHOWN_COLORS = 256, 8


@DATASETS.register
class Dataset(SegmentationDataset):
    """Any images and label maps, given by list files or by two folders.

    A line of a list is `image<separator>label`, relative to `dataset_root` (or absolute); in mode
    `test` the label is optional. Labels are single-channel PNGs of class numbers 0 to
    `num_classes - 1`, and `ignore_index`; or, with `colours`, RGB images of these colors.

    Args:
        mode: `train`, `val`, `test`, or `trainval` (the first two lists joined).
        dataset_root: folder that the paths in the lists are relative to.
        transforms: sequence of transforms, or a `Compose`.
        num_classes: number of classes, 2 to 255.
        img_channels: number of channels. 3: 8-bit RGB, also of gray images. Another number: the
            first bands of the files, with the values as they are stored.
        channels: numbers of the bands to use, from 1, in this order, with the values as they are
            stored: TIFF, PNG or `.npy` of 8 or 16 bits or floats. Normalize needs their
            `max_value`.
        train_path: list file of mode `train`, relative to the working directory or to
            `dataset_root`.
        val_path: list file of mode `val`.
        test_path: list file of mode `test`.
        separator: text between the columns; runs of spaces count as one.
        ignore_index: label value of ignored pixels, 0 to 255.
        edge: PaddleSeg's; only False.
        class_names: names for reports and legends (default: `class_0`, `class_1`, …).
        palette: a list of [red, green, blue] per class (default: `default_palette`).
        image_dir: folder of the images, instead of a list; labels are found by name.
        label_dir: folder of the labels; optional in mode `test`.
        colours: file with a line `red green blue name` for each color of the labels; gives
            `class_names` and `palette`.
        pack: folder of a pack of these files (`liteseg data pack`) to read the pixels from.
        exif: `apply`: images with an EXIF orientation are turned upright; `ignore`: as stored.

    Raises:
        UserError: a missing folder, list or file; a malformed or empty list; an argument out of
            range, or arguments that contradict each other.
    """

    def __init__(
        self,
        mode: str,
        dataset_root: str,
        transforms: Sequence,
        num_classes: int,
        img_channels: int = 3,
        train_path: Optional[str] = None,
        val_path: Optional[str] = None,
        test_path: Optional[str] = None,
        separator: str = " ",
        ignore_index: int = 255,
        edge: bool = False,
        class_names: Optional[Sequence[str]] = None,
        palette: Optional[Sequence] = None,
        image_dir: Optional[str] = None,
        label_dir: Optional[str] = None,
        colours: Optional[str] = None,
        pack: Optional[str] = None,
        exif: Literal["apply", "ignore"] = "apply",
        channels: Optional[Sequence[int]] = None,
    ):
        splits = splits_of(mode)
        reject_edge(edge)
        bands = bands_of(img_channels, channels)
        if not 2 <= num_classes <= 255:
            raise UserError(f"num_classes: {num_classes} is not within 2..255 (labels are 8-bit)")
        if not 0 <= ignore_index <= 255:
            raise UserError(f"ignore_index: {ignore_index} is not within 0..255; labels are 8-bit")
        root = require_folder(dataset_root, "dataset_root", "the images and labels")
        lists = {"train": train_path, "val": val_path, "test": test_path}
        samples = SampleList(root)
        if image_dir or label_dir:
            for pair in _pairs_of_folders(
                root, mode, image_dir, label_dir, lists, bands is not None
            ):
                samples.add(*pair)
        else:
            for split in splits:
                lines = lines_of(find_list(lists[split], root, f"{split}_path"), separator)
                add_lines(samples, lines, root, label_optional=split == "test")
        self._color_map: Optional[ColorMap] = None
        if colours:
            self._color_map = ColorMap.read(root / colours, ignore_index)
            self.decoding = [[code, value] for code, value in self._color_map.values.items()]
            class_names, palette = self._color_map.names, self._color_map.palette.tolist()
        if class_names is None:
            class_names = [f"class_{i}" for i in range(num_classes)]
        elif len(class_names) != num_classes:
            given = f"colours: {colours}" if colours else "class_names"
            found = ", ".join(map(str, class_names))
            raise UserError(
                f"{given}: {len(class_names)} names ({found}) for num_classes: {num_classes}"
            )
        names = [str(name) for name in class_names]
        colors = _palette(palette, num_classes)
        super().__init__(
            transforms, samples, names, colors, ignore_index, pack=pack, exif=exif, bands=bands
        )

    def decode_label(self, path: Path) -> np.ndarray:
        """Class numbers of a label file: (h, w) uint8."""
        try:
            if self._color_map is None:
                return super().decode_label(path)
            return self._color_map.decode(read_image(path), path)
        except NotOneChannel:
            rgb = read_image(path)
            if (rgb == rgb[..., :1]).all():  # gray
                raise
            raise UserError(f"{path}: {_advice_on_colors(rgb)}") from None
        except UserError:
            if self._color_map is not None and self._has_numbers(path):
                raise UserError(
                    f"{path}: the label has class numbers, and `colours` in the dataset expects "
                    "colors: remove `colours` from the config, and give the names as "
                    f"class_names: [{', '.join(self.classes)}]"
                ) from None
            raise

    def _has_numbers(self, path: Path) -> bool:
        """Whether the label is one of class numbers, which are not its colors."""
        try:
            values = np.unique(read_label(path))
        except UserError:
            return False
        return set(values.tolist()) <= {*range(self.num_classes), self.ignore_index}


def _advice_on_colors(rgb: np.ndarray) -> str:
    """The fix for a label drawn in colors."""
    colors, counts = np.unique(rgb.reshape(-1, 3), axis=0, return_counts=True)
    if len(colors) > _MOST_COLORS:
        return (
            f"the label is drawn in {len(colors)} colors, too many for classes: it was saved as "
            "JPEG or resized smoothly; export labels as PNG, without smoothing"
        )
    lines = (" ".join(map(str, colors[i])) for i in np.argsort(-counts)[:_SHOWN_COLORS])
    return (
        f"the label is drawn in {len(colors)} colors, and the dataset has no `colours`: add "
        "`colours: colors.txt` to it, a file below dataset_root with a line `red green blue name` "
        f"for each color; this label has {', '.join(lines)}"
    )


def _pairs_of_folders(
    root: Path,
    mode: str,
    image_dir: Optional[str],
    label_dir: Optional[str],
    lists: Mapping[str, Optional[str]],
    arrays: bool,
) -> Iterator[tuple[str, Optional[str]]]:
    given = [f"{split}_path" for split, path in lists.items() if path]
    if given:
        raise UserError(f"image_dir and {given[0]}: give folders or lists, not both")
    if not image_dir or (not label_dir and mode != "test"):
        missing = "label_dir" if image_dir else "image_dir"
        raise UserError(f"{missing}: not set; image_dir and label_dir go together")
    return pair_folders(root / image_dir, root / label_dir if label_dir else None, arrays)


def _palette(palette: Optional[Sequence], num_classes: int) -> np.ndarray:
    if palette is None:
        return default_palette(num_classes)
    try:
        colors = np.asarray(palette, np.int64)
    except (TypeError, ValueError, OverflowError):
        colors = np.zeros(0, np.int64)
    if colors.shape != (num_classes, 3) or colors.min() < 0 or colors.max() > 255:
        raise UserError(f"palette: expected {num_classes} times [red, green, blue], each 0..255")
    return colors.astype(np.uint8)
