"""Datasets of one's own files, described by lists (an image and its label a line) or folders."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Optional

import numpy as np

from liteseg.datasets.base import (
    Sample,
    SegmentationDataset,
    name_some,
    refuse_edge,
    require_folder,
    require_mode,
)
from liteseg.datasets.own_files import Colours, pair_folders
from liteseg.errors import UserError
from liteseg.registry import DATASETS
from liteseg.utils.images import read_image

MODES = ("train", "val", "test", "trainval")


@DATASETS.register
class Dataset(SegmentationDataset):
    """Any folder of images and label maps, described by list files or by two folders.

    A line of a list is `image<separator>label`, relative to `dataset_root` (or absolute); in mode
    `test` the label may be left out. Labels are single-channel PNGs of class numbers 0 to
    `num_classes - 1`, and `ignore_index`; or, with `colours`, pictures in these colours.

    Args:
        mode: `train`, `val`, `test`, or `trainval` (the first two lists joined).
        dataset_root: the folder the lines are relative to.
        transforms: sequence of transforms, or a `Compose`.
        num_classes: number of classes, 1 to 255.
        img_channels: 3; grey images are read as RGB.
        train_path: list file of mode `train`, relative to the working directory or to
            `dataset_root`. `val_path` and `test_path` likewise.
        separator: what stands between the columns; runs of spaces count as one.
        ignore_index: the label value without meaning, 0 to 255.
        edge: PaddleSeg's; only False.
        class_names: names for reports and legends; `class_0`, `class_1`, … without.
        palette: a list of [red, green, blue] per class; made up without.
        image_dir: folder of the images, instead of a list; each goes with the label of its name.
        label_dir: folder of the labels; may be left out in mode `test`.
        colours: file with a line `red green blue name` for each colour of the labels; gives
            `class_names` and `palette`.
        pack: folder of a pack of these files (`liteseg data pack`) to read the pixels from.

    Raises:
        UserError: a missing folder, list or file; a malformed or empty list; arguments that do
            not agree.
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
    ):
        require_mode(mode, MODES)
        refuse_edge(edge)
        if img_channels != 3:
            raise UserError(f"img_channels: {img_channels}; liteseg reads every image as RGB: 3")
        if not 1 <= num_classes <= 255:
            raise UserError(f"num_classes: {num_classes} is not within 1..255 (labels are 8-bit)")
        if not 0 <= ignore_index <= 255:
            raise UserError(f"ignore_index: {ignore_index} is not within 0..255; labels are 8-bit")
        root = require_folder(dataset_root, "dataset_root", "the images and labels")
        lists = {"train": train_path, "val": val_path, "test": test_path}
        if image_dir or label_dir:
            samples = _samples_of_folders(root, mode, image_dir, label_dir, lists)
        else:
            samples = _samples_of_lists(root, mode, lists, separator)
        self._colours = None
        if colours:
            self._colours = _read_colours(root / colours, num_classes, ignore_index)
            class_names, palette = self._colours.names, self._colours.palette
        super().__init__(
            transforms,
            samples,
            _class_names(class_names, num_classes),
            _palette(palette, num_classes),
            ignore_index,
            pack=pack,
        )

    def decode_label(self, path: Path) -> np.ndarray:
        """Class numbers of a label file: (h, w) uint8."""
        if self._colours is None:
            return super().decode_label(path)
        return self._colours.decode(read_image(path), path)


def _samples_of_lists(
    root: Path, mode: str, lists: Mapping[str, Optional[str]], separator: str
) -> list[Sample]:
    samples = []
    for split in ("train", "val") if mode == "trainval" else (mode,):
        path = find_list(lists[split], root, f"{split}_path")
        samples += samples_of(read_list(path, separator), root, label_optional=split == "test")
    return samples


def _samples_of_folders(
    root: Path,
    mode: str,
    image_dir: Optional[str],
    label_dir: Optional[str],
    lists: Mapping[str, Optional[str]],
) -> list[Sample]:
    given = [f"{split}_path" for split, path in lists.items() if path]
    if given:
        raise UserError(f"image_dir and {given[0]}: give folders or lists, not both")
    if not image_dir or (not label_dir and mode != "test"):
        missing = "label_dir" if image_dir else "image_dir"
        raise UserError(f"{missing}: not set; image_dir and label_dir go together")
    pairs = pair_folders(root / image_dir, root / label_dir if label_dir else None)
    return named_samples(pairs, root)


def _read_colours(path: Path, num_classes: int, ignore_index: int) -> Colours:
    colours = Colours.read(path, ignore_index)
    if len(colours.names) != num_classes:
        raise UserError(
            f"colours: {path} names {len(colours.names)} classes ({', '.join(colours.names)}), "
            f"num_classes is {num_classes}"
        )
    return colours


class Line(NamedTuple):
    """The columns of one line of a list, and its place as `file:number`."""

    columns: list[str]
    place: str


def find_list(path: Optional[str], root: Path, key: str) -> Path:
    """A list file given relative to the working directory (as PaddleSeg has it) or to `root`."""
    if not path:
        raise UserError(f"{key}: not set; give the list file, a line `image label` per image")
    tried = [Path(os.path.expanduser(path)), root / path]
    for candidate in tried:
        if os.path.isfile(candidate):
            return candidate
    raise UserError(
        f"{key}: no list file {path}; looked for " + " and ".join(str(p.absolute()) for p in tried)
    )


def read_list(path: Path, separator: str = " ") -> list[Line]:
    """The filled lines of a UTF-8 list file, of one or two columns each.

    Windows line ends, a byte order mark and blank lines are fine.

    Raises:
        UserError: unreadable, empty, not UTF-8, or a line of other than one or two columns.
    """
    if not separator:
        raise UserError("separator: is empty; it must be what stands between image and label")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: can't read the list: {error.strerror}") from None
    lines = []
    for number, raw in enumerate(content.splitlines(), start=1):
        place = f"{path}:{number}"
        try:
            text = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError:
            raise UserError(f"{place}: the list is not UTF-8 text; save it as UTF-8") from None
        if text:
            lines.append(Line(_columns(text, separator, place), place))
    if not lines:
        raise UserError(f"{path}: the list is empty; expected a line `image label` per image")
    return lines


def _columns(text: str, separator: str, place: str) -> list[str]:
    columns = [column.strip() for column in text.split(separator)]
    if separator.isspace():  # several spaces in a row align the columns of some lists
        columns = [column for column in columns if column]
    if len(columns) > 2 or not all(columns):
        mend = f" If a name contains {separator!r}, use another separator (key separator)."
        raise UserError(
            f"{place}: {len(columns)} columns in {text!r} with separator {separator!r}, expected "
            f"`image label`.{mend if all(columns) else ''}"
        )
    return columns


def samples_of(lines: Sequence[Line], root: Path, label_optional: bool = False) -> list[Sample]:
    """Samples of the lines of a list; every file must be there.

    Raises:
        UserError: a line without a label (unless `label_optional`), or files that do not exist:
            how many, and the first three.
    """
    pairs, missing = [], []
    for line in lines:
        if len(line.columns) == 1 and not label_optional:
            raise UserError(_no_label(line))
        paths = [root / column for column in line.columns]  # an absolute column stays as it is
        missing += [f"{line.place}: {path}" for path in paths if not os.path.isfile(path)]
        pairs.append((paths[0], paths[1] if len(paths) == 2 else None))
    require_all(missing, root)
    return named_samples(pairs, root)


def _no_label(line: Line) -> str:
    other = next((mark for mark in "\t,;| " if mark in line.columns[0]), None)
    hint = f"; is the separator {other!r}? (key separator)" if other else ""
    return f"{line.place}: one column in {line.columns[0]!r}, expected `image label`{hint}"


def require_all(missing: Sequence[str], root: Path) -> None:
    """Raise one UserError for all files of a list that are not there."""
    if missing:
        raise UserError(
            f"{len(missing)} listed files do not exist (names are relative to {root.absolute()}):"
            f"\n  {name_some(missing)}"
        )


def named_samples(pairs: Sequence[tuple[Path, Optional[Path]]], root: Path) -> list[Sample]:
    """Samples named by image stem, or by the path below `root` where stems are not unique."""
    images = {image for image, _ in pairs}
    unique = len({image.stem for image in images}) == len(images)

    def name(image: Path) -> str:
        if unique:
            return image.stem
        inside = image.relative_to(root) if image.is_relative_to(root) else image
        return "_".join(part for part in inside.parts if part != inside.anchor)

    return [Sample(image, label, name(image)) for image, label in pairs]


def _class_names(names: Optional[Sequence[str]], num_classes: int) -> Sequence[str]:
    if names is None:
        return [f"class_{i}" for i in range(num_classes)]
    if len(names) != num_classes:
        raise UserError(f"class_names: {len(names)} names for num_classes: {num_classes}")
    return [str(name) for name in names]


def _palette(palette: Optional[Sequence], num_classes: int) -> np.ndarray:
    if palette is None:
        return default_palette(num_classes)
    try:
        colours = np.asarray(palette, np.int64)
    except (TypeError, ValueError, OverflowError):
        colours = np.zeros(0, np.int64)
    if colours.shape != (num_classes, 3) or colours.min() < 0 or colours.max() > 255:
        raise UserError(f"palette: expected {num_classes} times [red, green, blue], each 0..255")
    return colours.astype(np.uint8)


def default_palette(num_classes: int) -> np.ndarray:
    """(num_classes, 3) uint8 distinct colours: the PASCAL VOC colour map without its black.

    The bits of the class number + 1 are dealt to red, green and blue in turn, high bits first.
    """
    number = np.arange(1, num_classes + 1)
    palette = np.zeros((num_classes, 3), np.uint8)
    for bit in range(8):
        channel, place = bit % 3, 7 - bit // 3
        palette[:, channel] |= (((number >> bit) & 1) << place).astype(np.uint8)
    return palette
