"""What every dataset shares: samples, loading with checks, augmentation seeded by the draw."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Optional, Union

import numpy as np
import paddle

from liteseg.datasets.pack import Pack
from liteseg.errors import UserError
from liteseg.transforms import Compose
from liteseg.utils.images import label_histogram, read_image, read_label

logger = logging.getLogger(__name__)


class Sample(NamedTuple):
    """The files of one image; `label` is None where there is none (a test set)."""

    image: Path
    label: Optional[Path]
    name: str


class SegmentationDataset(paddle.io.Dataset):
    """Images with label maps of train ids. Subclasses list the samples and own the classes.

    Attributes:
        classes: the class names, in train id order.
        palette: (num_classes, 3) uint8 RGB.
        num_classes: int; valid labels are 0..num_classes-1 and `ignore_index`.
        ignore_index: label of pixels that count neither in loss nor in metrics.
        transforms: the `Compose` applied by `__getitem__`.
        samples: list of `Sample`.
        pack: where `load` reads from if the files were packed (see `liteseg.datasets.pack`).
        notes: what was odd about the files but does not prevent training, a sentence each.
        seed: set by the trainer; with the draw number it fixes the augmentation.
    """

    def __init__(
        self,
        transforms: Union[Compose, Sequence, None],
        samples: list[Sample],
        classes: Sequence[str],
        palette: np.ndarray,
        ignore_index: int = 255,
        notes: Sequence[str] = (),
        pack: Optional[str] = None,
    ):
        super().__init__()
        self.transforms = (
            transforms if isinstance(transforms, Compose) else Compose(list(transforms or ()))
        )
        self.samples = samples
        self.classes = tuple(classes)
        self.num_classes = len(self.classes)
        self.palette = np.asarray(palette, np.uint8)
        self.ignore_index = ignore_index
        self.notes = list(notes)
        self.seed = 0
        self.pack = None if pack is None else Pack(pack)
        self._packed = {} if self.pack is None else self.pack.entries_of(self)
        for note in self.notes:
            logger.warning(note)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: Union[int, tuple[int, int]]) -> dict:
        """The transformed sample of `index` or `(index, draw)`.

        The same (seed, draw) always augments alike, whichever worker does it; a bare index draws
        number `index`.

        Returns:
            dict of `img` (h, w, 3) uint8, `label` (h, w) uint8 (when there is one), `trans_info`
            and `index`.
        """
        index, draw = key if isinstance(key, (tuple, list)) else (key, key)
        rng = np.random.default_rng((self.seed, int(draw)))
        sample = self.transforms(self.load(index), rng)
        sample["index"] = int(index)
        return sample

    def load(self, index: int) -> dict:
        """Image and label as stored (label in train ids), before any transform.

        Returns:
            dict of `img` (h, w, 3) uint8, `label` (h, w) uint8 (when there is one) and an empty
            `trans_info`. From a pack the arrays are read-only.

        Raises:
            UserError: as `load_files`.
        """
        if self.pack is None:
            return self.load_files(index)
        image, label = self.pack.load(self._packed[self.samples[index]])
        sample = {"img": image, "trans_info": []}
        return sample if label is None else {**sample, "label": label}

    def load_files(self, index: int) -> dict:
        """What `load` returns, read from the files even if there is a pack.

        Raises:
            UserError: a file can't be read, sizes differ, or the label holds other values than
                the classes and `ignore_index`.
        """
        files = self.samples[index]
        sample = {"img": read_image(files.image), "trans_info": []}
        if files.label is not None:
            label = sample["label"] = self._read_label(files.label)
            if label.shape != sample["img"].shape[:2]:
                raise UserError(
                    f"{files.label}: the label is {_size(label)}, its image {files.image} is "
                    f"{_size(sample['img'])}; they must have the same size"
                )
        return sample

    def load_label(self, index: int) -> np.ndarray:
        """The label of a sample alone: (h, w) uint8 train ids, values checked like in `load`."""
        files = self.samples[index]
        if self.pack is None:
            return self._read_label(files.label)
        return self.pack.load(self._packed[files])[1]

    def _read_label(self, path: Path) -> np.ndarray:
        label = self.decode_label(path)
        problem = describe_outside(label_histogram(label), self.num_classes, self.ignore_index)
        if problem:
            raise UserError(f"{path}: {problem}")
        return label

    def decode_label(self, path: Path) -> np.ndarray:
        """Read a label file into (h, w) uint8 train ids, values not yet checked."""
        return read_label(path)


def values_outside(histogram: np.ndarray, num_classes: int, ignore_index: int) -> dict[int, int]:
    """{label value: pixels} of the values that are neither a class nor ignored, ascending."""
    counts = histogram.copy()
    counts[:num_classes] = 0
    counts[ignore_index] = 0
    return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}


def describe_outside(
    histogram: np.ndarray, num_classes: int, ignore_index: int, named: int = 5
) -> Optional[str]:
    """Say which values of a (256,) label histogram are no class, and what the file may be.

    Returns:
        None when every value is a class or `ignore_index`.
    """
    outside = values_outside(histogram, num_classes, ignore_index)
    if not outside:
        return None
    shown = ", ".join(f"{value} ({n} pixels)" for value, n in list(outside.items())[:named])
    more = f" and {len(outside) - named} more values" if len(outside) > named else ""
    return (
        f"label value {shown}{more}: expected 0..{num_classes - 1}, or {ignore_index} for ignored "
        f"pixels. {_guess(histogram, outside, num_classes)}"
    )


def _guess(histogram: np.ndarray, outside: dict[int, int], num_classes: int) -> str:
    """What kind of file has such values; the order is from the most to the least certain sign."""
    present = np.flatnonzero(histogram)
    values = list(outside)
    if set(present) <= {0, 255}:
        return "It looks like a 0/255 mask: save the foreground as 1."
    if values == [num_classes] and histogram[0] == 0:
        return "Classes seem to be counted from 1: subtract 1."
    if values == [num_classes]:
        return (
            f"If {num_classes} means 'void', write 255 there (or set ignore_index: {num_classes}); "
            f"if it is a class, set num_classes: {num_classes + 1}."
        )
    if num_classes == 19 and values[-1] <= 33:
        return "It looks like Cityscapes labelIds where labelTrainIds are expected."
    if len(present) > 48 and len(present) > 2 * num_classes:
        return "So many values come from a JPEG, a resized label, or a grey colour picture."
    if values[-1] < num_classes + 30:
        return f"If these are classes, num_classes must be at least {values[-1] + 1}."
    return (
        "It looks like a colour label turned grey, or a palette PNG whose colours were saved "
        "instead of its indices: convert each colour to its class number."
    )


def _size(array: np.ndarray) -> str:
    return f"{array.shape[1]}x{array.shape[0]}"


def require_folder(path: Union[str, Path, None], key: str, wanted: str) -> Path:
    """`path` as a Path if it is a folder; `wanted` says what should be in it.

    Raises:
        UserError: it is not set, missing, or a file.
    """
    if not path:
        raise UserError(f"{key}: not set; give the folder with {wanted}")
    root = Path(os.path.expanduser(path))
    if not os.path.isdir(root):
        found = "is a file" if os.path.exists(root) else "does not exist"
        where = "" if root.is_absolute() else f" (looked in {Path.cwd()})"
        raise UserError(f"{key}: {path} {found}{where}; expected the folder with {wanted}")
    return root


def require_mode(mode: str, modes: Sequence[str]) -> None:
    """Raise UserError unless `mode` is one of `modes`."""
    if mode not in modes:
        raise UserError(f"mode: {mode!r} is not one of {', '.join(modes)}")


def refuse_edge(edge: bool) -> None:
    """`edge` is PaddleSeg's argument for models with an edge loss; PP-LiteSeg has none."""
    if edge:
        raise UserError("edge: true is for edge losses, which liteseg does not have; remove it")


def name_some(items: Sequence, named: int = 3) -> str:
    """The first few items, one a line, and how many follow."""
    more = [f"... and {len(items) - named} more"] if len(items) > named else []
    return "\n  ".join([_shortened(str(item)) for item in items[:named]] + more)


def _shortened(text: str, most: int = 400) -> str:
    return text if len(text) <= most else f"{text[: most // 2]}...{text[-most // 2 :]}"
