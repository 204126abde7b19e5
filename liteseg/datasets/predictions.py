"""Folders of predicted label maps from any tool, paired with their labels. Runs without Paddle."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

import cv2
import numpy as np
from PIL import Image

from liteseg.datasets.arguments import first_few
from liteseg.datasets.base import Sample, format_size
from liteseg.datasets.cityscapes import Cityscapes
from liteseg.datasets.color_map import IGNORED, ColorMap, default_palette
from liteseg.datasets.label_values import describe_invalid_values
from liteseg.datasets.parallel import map_in_threads
from liteseg.errors import NotOneChannel, UserError
from liteseg.utils.files import read_regular
from liteseg.utils.images import IMAGE_SUFFIXES, label_histogram, read_image, read_label
from liteseg.utils.logging import get_logger

UNKNOWN = 255  # predicted value that is no class
_MAX_BYTES = 1 << 20
_SAMPLED = 16  # predictions that show whether a folder has official ids
_NO_LABELS = ("_color", "_overlay", "_confidence", "_instanceIds")  # files next to label maps


@dataclass(frozen=True)
class LabelFormat:
    """The classes of label files, and how the files store them.

    Attributes:
        names: class names; empty: the numbers that occur.
        colors: of the classes, for label maps in colors; None: unknown.
        ignore_index: label value that is not counted.
        palette: (classes, 3) uint8 RGB; None: default colors.
        train_ids: {suffix of a label file: (256,) uint8 table from its values to train ids}.
        suffixes: ends of label files, earlier ones take precedence; empty: any image.
        max_unknown: share of pixels in unknown colors that a label may have.
    """

    names: tuple[str, ...] = ()
    colors: Optional[ColorMap] = None
    ignore_index: int = 255
    palette: Optional[np.ndarray] = None
    train_ids: Mapping[str, np.ndarray] = field(default_factory=dict)
    suffixes: Sequence[str] = ()
    max_unknown: float = 0.0

    @classmethod
    def read(cls, path: Path) -> LabelFormat:
        """Read a text file with a line for each class: its name, or `red green blue name`.

        If the last name is `ignore`, its number is the label value that is not counted.

        Raises:
            UserError: unreadable, without classes, or with a name twice.
        """
        try:
            text = read_regular(path, _MAX_BYTES).decode("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8 text"
            raise UserError(f"--classes {path}: {reason}; give a text file of names") from None
        lines = [line.partition("#")[0].strip() for line in text.splitlines()]
        names = [line for line in lines if line]
        if names and all(word.isdecimal() for word in names[0].split()[:3]) and " " in names[0]:
            colors = ColorMap.parse(text.splitlines(), UNKNOWN, str(path))
            return cls(colors.names, colors, palette=colors.palette)
        doubled = [name for name in names if names.count(name) > 1]
        if (
            len(names) - (IGNORED in names) < 2
            or doubled
            or not all(name.isprintable() for name in names)
        ):
            found = f"{doubled[0]!r} twice" if doubled else f"{len(names)} names"
            raise UserError(f"--classes {path}: {found}; expected a line for each class, 2 to 255")
        if IGNORED in names[:-1]:
            raise UserError(
                f"--classes {path}: {IGNORED!r} is not counted; give it as the last name"
            )
        if names[-1] == IGNORED:
            return cls(tuple(names[:-1]), ignore_index=len(names) - 1)
        return cls(tuple(names))

    @classmethod
    def of_dataset(
        cls, component: Any, spec: Mapping[str, Any], names: Sequence[str], palette: np.ndarray
    ) -> LabelFormat:
        """The format of a dataset in a config, whose files need not exist.

        Args:
            component: the class of the dataset.
            spec: its arguments.
            names: class names.
            palette: (classes, 3) uint8 RGB.
        """
        ignored = spec.get("ignore_index", 255)
        colors = getattr(component, "COLORS", None)
        noise = 0.01 if colors is not None else 0.0  # annotation noise of CamVid
        if spec.get("colours") and (file := Path(spec["dataset_root"], spec["colours"])).is_file():
            colors = ColorMap.read(file, ignored)
        return cls(
            tuple(names),
            colors or _color_map(names, palette),
            ignored,
            palette,
            getattr(component, "TRAIN_IDS", {}),
            getattr(component, "LABEL_SUFFIXES", ()),
            noise,
        )

    def values(self, path: Path, max_unknown: float = 0.0) -> np.ndarray:
        """The class numbers in a file (h, w) uint8: stored ones, or those of its colors.

        Raises:
            UserError: unreadable, or in colors that are unknown.
        """
        try:
            stored = read_label(path)
        except NotOneChannel:
            if self.colors is None:
                raise UserError(
                    f"{path}: the label map is drawn in colors, without a palette of class "
                    "numbers; give the colors: --classes FILE with a line `red green blue name` "
                    "for each class"
                ) from None
            return self.colors.decode(read_image(path), path, max_unknown)
        table = None if self.colors is None else _palette_table(path, stored, self.colors)
        return stored if table is None else cv2.LUT(stored, table)


def cityscapes_format() -> LabelFormat:
    """The format of Cityscapes in its official layout."""
    return LabelFormat.of_dataset(Cityscapes, {}, Cityscapes.CLASSES, Cityscapes.PALETTE)


def _color_map(names: Sequence[str], palette: np.ndarray) -> ColorMap:
    """The colors of the classes; black is no class unless it is the color of one."""
    values = {0: UNKNOWN}
    for number, (red, green, blue) in reversed(list(enumerate(palette.tolist()))):
        values[red << 16 | green << 8 | blue] = number
    return ColorMap(tuple(names), palette, values, UNKNOWN)


def _palette_table(path: Path, stored: np.ndarray, colors: ColorMap) -> Optional[np.ndarray]:
    """(256,) uint8 from indices to classes if all used colors of a palette image are classes."""
    with Image.open(path) as image:
        flat = image.getpalette() if image.mode == "P" else None
    if flat is None:
        return None
    flat += [0] * (768 - len(flat))
    table = np.arange(256, dtype=np.uint8)
    for index in np.flatnonzero(label_histogram(stored)).tolist():
        red, green, blue = flat[3 * index : 3 * index + 3]
        value = colors.values.get(red << 16 | green << 8 | blue)
        if value is None:
            return None
        table[index] = value
    return table


class PredictionFolder:
    """Predicted label maps with the labels of the same names.

    Attributes:
        samples: `image` is the file of the prediction, `label` that of the label.
        classes: class names.
        num_classes: their number.
        palette: (num_classes, 3) uint8 RGB.
        ignore_index: label value that is not counted.

    Args:
        predictions: folder of the predictions; subfolders are searched.
        labels: folder of the labels; subfolders are searched.
        format: of the labels; None: of Cityscapes if the files have its names, otherwise numbers.

    Raises:
        UserError: a folder is missing or empty, a label has no prediction or several, or the
            classes are unknown.
    """

    def __init__(self, predictions: Path, labels: Path, format: Optional[LabelFormat] = None):
        found = _label_files(labels, format)
        official = tuple(Cityscapes.LABEL_SUFFIXES)
        if format is None and any(file.name.endswith(official) for file in found):
            format = cityscapes_format()
            found = _label_files(labels, format)
        self.format = format or LabelFormat()
        self.samples = _pairs(found, predictions)
        self._table = self._id_table()
        names = self.format.names or self._numbers()
        self.classes, self.num_classes = tuple(names), len(names)
        self.ignore_index = self.format.ignore_index
        palette = self.format.palette
        self.palette = default_palette(len(names)) if palette is None else palette

    def __len__(self) -> int:
        return len(self.samples)

    def load(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """The prediction and the label, both (h, w) uint8; `UNKNOWN` is predicted as no class.

        Raises:
            UserError: a file is unreadable, the sizes differ, or a value is no class.
        """
        pred_file, label_file, _ = self.samples[index]
        assert label_file is not None
        label = self._label(label_file)
        pred = self.format.values(pred_file)
        if self._table is not None:
            highest = int(np.flatnonzero(self._table != UNKNOWN)[-1])
            self._require_values(pred, pred_file, highest + 1)
            pred = cv2.LUT(pred, self._table)
        self._require_values(pred, pred_file, self.num_classes)
        if pred.shape != label.shape:
            raise UserError(
                f"{pred_file}: the prediction is {format_size(pred)}, its label {label_file} is "
                f"{format_size(label)}; they must have the same size: write predictions at the "
                "size of the image, or resize them with nearest neighbor"
            )
        problem = describe_invalid_values(
            label_histogram(label), self.num_classes, self.ignore_index
        )
        if problem:
            raise UserError(f"{label_file}: {problem}")
        return pred, label

    def _label(self, path: Path) -> np.ndarray:
        label = self.format.values(path, self.format.max_unknown)
        table = next(
            (t for end, t in self.format.train_ids.items() if path.name.endswith(end)), None
        )
        return label if table is None else cv2.LUT(label, table)

    def _require_values(self, pred: np.ndarray, path: Path, count: int) -> None:
        counts = label_histogram(pred)
        counts[UNKNOWN] = 0
        if outside := np.flatnonzero(counts[count:]).tolist():
            value = count + outside[0]
            raise UserError(
                f"{path}: the prediction contains {value} ({counts[value]} pixels); expected "
                f"classes 0 to {count - 1}, or {UNKNOWN} for no class; give the predictions in the "
                "classes of the labels, or all classes with --classes or --config"
            )

    def _id_table(self) -> Optional[np.ndarray]:
        """The table from official ids to train ids if the predictions have values as ids only."""
        tables = list(self.format.train_ids.values())
        if not tables:
            return None
        places = np.linspace(0, len(self) - 1, min(_SAMPLED, len(self))).astype(int)
        counts = [label_histogram(self.format.values(self.samples[i].image)) for i in places]
        total = np.sum(counts, axis=0)
        values = np.flatnonzero(total[:UNKNOWN])
        if not values.size or values[-1] < len(self.format.names):
            return None
        get_logger().info("the predictions have official label ids; they become train ids")
        return tables[0]

    def _numbers(self) -> list[str]:
        """The classes by number, up to the largest one in the labels."""

        def largest(index: int) -> int:
            label = self._label(self.samples[index].label)  # type: ignore[arg-type]
            return int(np.flatnonzero(label_histogram(label)[:UNKNOWN]).max(initial=-1))

        count = max(map_in_threads(largest, range(len(self)))) + 1
        if count < 2:
            raise UserError(
                f"{self.samples[0].label}: the labels contain no class above 0 (255 is ignored); "
                "save the foreground as 1, or give --classes or --config"
            )
        return [str(number) for number in range(count)]


def _images_below(folder: Path, option: str) -> list[Path]:
    if not folder.is_dir():
        raise UserError(f"{option} {folder}: not a folder; give the folder of the label maps")
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    )
    kept = [path for path in files if not path.stem.endswith(_NO_LABELS)]
    if not kept:
        raise UserError(f"{option} {folder}: contains no label maps, such as *.png")
    return kept


def _label_files(folder: Path, format: Optional[LabelFormat]) -> dict[Path, str]:
    """{label file: place without its suffix}."""
    files = _images_below(folder, "--labels")
    found: dict[str, Path] = {}
    for suffix in format.suffixes if format else ():
        for path in files:
            if path.name.endswith(suffix):
                place = path.relative_to(folder).as_posix()[: -len(suffix)]
                found.setdefault(place, path)
    if not found:
        found = {path.relative_to(folder).with_suffix("").as_posix(): path for path in files}
        if len(found) < len(files):
            raise UserError(
                f"--labels {folder}: several labels have one name and differ in the suffix; keep "
                "one of each"
            )
    return {path: place for place, path in found.items()}


def _pairs(labels: dict[Path, str], folder: Path) -> list[Sample]:
    """Each label with its prediction: of the same name, or one that continues the other at a `_`.

    `a_000019_leftImg8bit.png` belongs to `a_000019_gtFine_labelIds.png`, `x_label.png` to `x.png`,
    `x.png` to `x_L.png`, and `x_pred.png` to `x_mask.png`. Names that occur in several folders are
    compared with their folders.
    """
    files = _images_below(folder, "--predictions")
    names = {place: place.rpartition("/")[2] for place in labels.values()}
    whole = len(set(names.values())) < len(names)
    keys = {(place if whole else names[place]): path for path, place in labels.items()}
    longer: dict[str, list[str]] = defaultdict(list)
    for key in keys:
        for start in _starts(key):
            longer[start].append(key)
    found: dict[str, list[Path]] = defaultdict(list)
    unused = []
    for file in files:
        stem = file.relative_to(folder).with_suffix("").as_posix() if whole else file.stem
        starts = [stem, *_starts(stem)]
        one = (longer[start][0] for start in starts if len(longer[start]) == 1)
        known = next((start for start in starts if start in keys), None) or next(one, None)
        if known is None:
            unused.append(file)
        else:
            found[known].append(file)
    missing = [path for key, path in keys.items() if key not in found]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(keys)} labels have no prediction of their name; add the "
            f"predictions, or give the --labels of these images only:\n  {first_few(missing)}"
        )
    for key, several in found.items():
        if len(several) > 1:
            raise UserError(
                f"{keys[key]}: has {len(several)} predictions, "
                f"{', '.join(map(str, several[:3]))}; keep one of them"
            )
    if unused:
        get_logger().warning(
            f"{len(unused)} predictions have no label and do not count:\n  {first_few(unused)}"
        )
    return [Sample(found[key][0], path, key) for key, path in sorted(keys.items())]


def _starts(stem: str) -> list[str]:
    """The parts of a name before each `_` with a letter behind it, the longest first."""
    cuts = [i for i in range(1, len(stem) - 1) if stem[i] == "_" and stem[i + 1].isalpha()]
    return [stem[:cut] for cut in reversed(cuts)]
