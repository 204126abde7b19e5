"""`Concat`: several datasets as one, with one list of classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Optional

import cv2
import numpy as np

from liteseg.datasets.arguments import first_few
from liteseg.datasets.base import Sample, SegmentationDataset
from liteseg.errors import UserError
from liteseg.registry import DATASETS, nearest


@DATASETS.register
class Concat(SegmentationDataset):
    """Several datasets as one, or one dataset with other classes.

    Args:
        datasets: the datasets; they have no transforms and no pack of their own.
        transforms: sequence of transforms, or a `Compose`, for the samples of all.
        classes: {name: class name of the datasets, or a list of them}, in train id order; classes
            that are in no list are ignored. By default, the classes of all datasets must be equal.
        weights: share of each dataset among the samples of an epoch. Samples are repeated for it,
            none is left out. By default, every sample occurs once.
        pack: folder of a pack of these files (`liteseg data pack`) to read the pixels from.

    Raises:
        UserError: classes that differ or do not exist, a label file of two datasets, or arguments
            that contradict each other.
    """

    def __init__(
        self,
        datasets: Sequence[SegmentationDataset],
        transforms: Sequence,
        classes: Optional[Mapping] = None,
        weights: Optional[Sequence[float]] = None,
        pack: Optional[str] = None,
    ):
        if not datasets:
            raise UserError("datasets: is empty; give at least one")
        for index, dataset in enumerate(datasets):
            if dataset.transforms.transforms or dataset.pack is not None:
                raise UserError(
                    f"datasets.{index}: has transforms or a pack; give them to Concat instead"
                )
        for name in ("ignore_index", "exif", "bands"):
            if len(values := {getattr(dataset, name) for dataset in datasets}) > 1:
                found = " and ".join(sorted(map(repr, values)))
                raise UserError(f"datasets: {name} is {found}; give all datasets the same")
        wanted = _class_lists(datasets) if classes is None else _parsed(classes, datasets)
        self._tables = [_table(dataset, wanted) for dataset in datasets]
        self._sources: dict[Path, int] = {}
        for index, dataset in enumerate(datasets):
            for label in {sample.label for sample in dataset.samples}:
                if label is not None and self._sources.setdefault(label, index) != index:
                    other = self._sources[label]
                    raise UserError(f"datasets: {label} is in datasets {other} and {index}")
        self._datasets = list(datasets)
        self.decoding = {
            "classes": {name: list(names) for name, names in wanted.items()},
            "datasets": [[type(one).__name__, list(one.classes), one.decoding] for one in datasets],
        }
        super().__init__(
            transforms,
            _joined(datasets, weights),
            list(wanted),
            _palette(datasets, wanted),
            datasets[0].ignore_index,
            notes=[note for dataset in datasets for note in dataset.notes],
            pack=pack,
            exif=datasets[0].exif,
            bands=datasets[0].bands,
        )

    def decode_label(self, path: Path) -> np.ndarray:
        """Train ids of a label file, by the dataset that it belongs to: (h, w) uint8."""
        index = self._sources[path]
        return cv2.LUT(self._datasets[index].checked_label(path), self._tables[index])


def _class_lists(datasets: Sequence[SegmentationDataset]) -> dict[str, tuple[str, ...]]:
    """The common classes of all datasets."""
    first = datasets[0].classes
    for index, dataset in enumerate(datasets):
        if dataset.classes != first:
            differing = sorted(set(first) ^ set(dataset.classes)) or ["their order"]
            raise UserError(
                f"datasets: the classes of 0 ({len(first)}) and {index} ({len(dataset.classes)}) "
                "differ; give `classes`, a mapping of each name to the names in the datasets. "
                f"They differ in:\n  {first_few(differing)}"
            )
    return {name: (name,) for name in first}


def _parsed(classes: Mapping, datasets: Sequence[SegmentationDataset]) -> dict[str, Sequence[str]]:
    """`classes` as {name: names in the datasets}."""
    known = {name: None for dataset in datasets for name in dataset.classes}
    lists: dict[str, Sequence[str]] = {}
    used: dict[str, str] = {}
    for name, given in classes.items():
        lists[str(name)] = names = [given] if isinstance(given, str) else list(given or ())
        if not names:
            raise UserError(f"classes.{name}: is empty; give the names in the datasets")
        for one in names:
            if one not in known:
                near = nearest(str(one), list(known))
                hint = f"; did you mean {near!r}?" if near else f"; they have {', '.join(known)}"
                raise UserError(f"classes.{name}: no dataset has the class {one!r}{hint}")
            if used.setdefault(one, str(name)) != str(name):
                raise UserError(f"classes: {one!r} is in {used[one]!r} and in {str(name)!r}")
    return lists


def _table(dataset: SegmentationDataset, wanted: Mapping[str, Sequence[str]]) -> np.ndarray:
    """(256,) uint8: train id of a dataset -> that of the joined one."""
    table = np.full(256, dataset.ignore_index, np.uint8)
    for number, names in enumerate(wanted.values()):
        for name in names:
            if name in dataset.classes:
                table[dataset.classes.index(name)] = number
    table[dataset.ignore_index] = dataset.ignore_index
    return table


def _palette(
    datasets: Sequence[SegmentationDataset], wanted: Mapping[str, Sequence[str]]
) -> np.ndarray:
    colors: dict[str, np.ndarray] = {}
    for dataset in datasets:
        for name, color in zip(dataset.classes, dataset.palette):
            colors.setdefault(name, color)
    return np.stack([colors[names[0]] for names in wanted.values()])


def _joined(
    datasets: Sequence[SegmentationDataset], weights: Optional[Sequence[float]]
) -> list[Sample]:
    """The samples of all datasets, repeated by `weights`, with names that are unique."""
    parts = [list(dataset.samples) for dataset in datasets]
    if len({sample.name for part in parts for sample in part}) < sum(map(len, parts)):
        parts = [
            [sample._replace(name=f"{index}_{sample.name}") for sample in part]
            for index, part in enumerate(parts)
        ]
    if weights is None:
        return [sample for part in parts for sample in part]
    if len(weights) != len(parts) or not all(weight > 0 for weight in weights):
        raise UserError(f"weights: {list(weights)}; expected {len(parts)} numbers above 0")
    scale = max(len(part) / weight for part, weight in zip(parts, weights))
    lengths = [round(scale * weight) for weight in weights]
    return [part[i % len(part)] for part, length in zip(parts, lengths) for i in range(length)]
