"""The dataset check behind `liteseg data check`: reads every file once and says what is wrong."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Optional

import numpy as np

from liteseg.config.class_weights import class_weights
from liteseg.datasets.base import SegmentationDataset, values_outside
from liteseg.datasets.pairing import pairing_notes
from liteseg.datasets.parallel import map_in_threads
from liteseg.datasets.stats import class_counts
from liteseg.errors import UserError
from liteseg.utils import logging
from liteseg.utils.images import label_histogram

SHOWN_ERRORS = 10
_FILES_NAMED = 3
_TRANSFORMED = 8  # samples that go through the transforms
_BLOCK = 1 << 20


class _Finding(NamedTuple):
    """What reading one sample gave."""

    index: int
    size: Optional[str]  # "WxH"
    histogram: Optional[np.ndarray]  # (256,) label values, None without a readable label
    problem: Optional[str]


def check_dataset(
    dataset: SegmentationDataset,
    workers: Optional[int] = None,
    sample: Optional[int] = None,
    progress: bool = True,
    *,
    needs_labels: bool = False,
    needs_one_size: bool = False,
) -> dict:
    """Read the images and labels of a dataset and report what would break or spoil training.

    Memory does not grow with the number of samples, but for a message for each bad one.

    Args:
        dataset: its transforms are applied for `needs_one_size` only.
        workers: threads (decoding releases the interpreter lock); all cores without.
        sample: check this many samples, evenly spread; all without.
        progress: draw a bar on stderr.
        needs_labels: a sample without a label is an error (training, evaluation).
        needs_one_size: the transforms must bring images to one size (training in batches).

    Returns:
        A dict that goes into JSON as it is: `images` and `checked` counts; `errors`, a list of
        {file, problem}; `warnings`, sentences; `sizes` {"WxH": images}; `classes` {name: {pixels,
        images, frequency, weight}} with the weights of `class_weights`; `ignored` pixels;
        `histogram` {value: pixels} of the labels; `outside` {value: {pixels, images, files}} of
        label values that are no class, with the first few files.
    """
    indices = _spread(len(dataset), sample)
    found = map_in_threads(lambda index: _examine(dataset, index, needs_labels), indices, workers)
    tally = _Tally(dataset)
    for finding in logging.progress(found, "checking", len(indices), shown=progress):
        tally.add(finding)
    if needs_one_size:
        tally.errors += _mixed_sizes(dataset, tally.examples)
    report = {
        "images": len(dataset),
        "checked": len(indices),
        "errors": tally.errors,
        "sizes": dict(tally.sizes),
        "classes": _class_table(dataset, tally),
        "ignored": int(tally.pixels[dataset.ignore_index]),
        "histogram": {str(v): int(tally.pixels[v]) for v in np.flatnonzero(tally.pixels)},
        "outside": _outside(dataset, tally),
    }
    report["warnings"] = [
        *dataset.notes,
        *pairing_notes(dataset.samples),
        *_label_warnings(dataset, tally, report),
    ]
    return report


def find_duplicates(
    datasets: Mapping[str, SegmentationDataset],
    workers: Optional[int] = None,
    progress: bool = False,
) -> list[list[str]]:
    """Groups of images with the same bytes, within a split or across: each `split: file`.

    Args:
        datasets: by the name of their split; one image may be listed in several.
        workers: threads; all cores without.
        progress: draw a bar on stderr.
    """
    by_size: dict[int, list[tuple[str, Path]]] = defaultdict(list)
    for split, dataset in datasets.items():
        for image in {sample.image: None for sample in dataset.samples}:
            by_size[_length(image)].append((split, image))
    # Files of unlike length need not be read.
    alike = [
        file for size, files in by_size.items() if size >= 0 and len(files) > 1 for file in files
    ]
    digests = map_in_threads(lambda file: _digest(file[1]), alike, workers)
    groups = defaultdict(list)
    bar = logging.progress(digests, "comparing", len(alike), shown=progress)
    for (split, path), digest in zip(alike, bar):
        if digest is not None:
            groups[digest].append(f"{split}: {path}")
    return [group for group in groups.values() if len(group) > 1]


def format_report(report: dict, title: str = "dataset") -> str:
    """The report of `check_dataset` as text for the terminal."""
    sizes = sorted(report["sizes"].items(), key=lambda item: -item[1])
    shown = ", ".join(f"{size} ({count})" for size, count in sizes[:5])
    more = f" and {len(sizes) - 5} more sizes" if len(sizes) > 5 else ""
    lines = [f"{title}: {report['checked']} of {report['images']} images checked: {shown}{more}"]
    width = max(len(name) for name in report["classes"])
    lines.append(f"  {'class':{width}}  {'pixels':>14}  share    images  weight")
    for name, row in report["classes"].items():
        lines.append(
            f"  {name:{width}}  {row['pixels']:>14,}  {row['frequency']:7.3%}  {row['images']:>6}"
            f"  {row['weight']:6.3f}"
        )
    lines.append(f"  {'(ignored)':{width}}  {report['ignored']:>14,}")
    lines.append("  weight: what `weight: auto` in a loss takes from the training set")
    for value, row in report["outside"].items():
        lines.append(
            f"  value {value} is no class: {row['pixels']:,} pixels in {row['images']} images: "
            f"{', '.join(row['files'])}{', ...' if row['images'] > len(row['files']) else ''}"
        )
    lines += [f"  warning: {warning}" for warning in report["warnings"]]
    errors = report["errors"]
    lines += [f"  error: {error['problem']}" for error in errors[:SHOWN_ERRORS]]
    if len(errors) > SHOWN_ERRORS:
        lines.append(f"  ... and {len(errors) - SHOWN_ERRORS} more errors (--json lists all)")
    lines.append(f"  {len(errors)} errors, {len(report['warnings'])} warnings")
    return "\n".join(lines)


def _spread(count: int, sample: Optional[int]) -> list[int]:
    if sample is None or sample >= count:
        return list(range(count))
    return np.linspace(0, count - 1, max(sample, 1)).round().astype(int).tolist()


def _examine(dataset: SegmentationDataset, index: int, needs_label: bool) -> _Finding:
    try:
        sample = dataset.load(index)
    except UserError as error:
        return _Finding(index, None, _raw_histogram(dataset, index), str(error))
    label = sample.get("label")
    histogram = None if label is None else label_histogram(label)
    bare = needs_label and label is None
    problem = f"{dataset.samples[index].image}: has no label" if bare else None
    return _Finding(index, _size(sample["img"]), histogram, problem)


def _raw_histogram(dataset: SegmentationDataset, index: int) -> Optional[np.ndarray]:
    """Values of a label that failed its check, so that the report can count them."""
    path = dataset.samples[index].label
    try:
        return None if path is None else label_histogram(dataset.decode_label(path))
    except UserError:
        return None


def _size(image: np.ndarray) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"


def _error(file: object, problem: str) -> dict[str, str]:
    return {"file": str(file), "problem": problem}


class _Tally:
    """Sums over the findings.

    Attributes:
        pixels: (256,) int64 pixels of each label value.
        images: (256,) int64 labels that hold each value.
        labels: how many labels could be read.
        void: how many of them hold nothing but ignored pixels.
        sizes: "WxH" -> images.
        examples: "WxH" -> the first sample of that size, for the first few sizes.
        files: value that is no class -> the first few labels that hold it.
        errors: {file, problem} of each bad sample.
    """

    def __init__(self, dataset: SegmentationDataset):
        self.dataset = dataset
        self.pixels = np.zeros(256, np.int64)
        self.images = np.zeros(256, np.int64)
        self.labels = self.void = 0
        self.sizes: Counter[str] = Counter()
        self.examples: dict[str, int] = {}
        self.files: dict[int, list[str]] = defaultdict(list)
        self.errors: list[dict[str, str]] = []

    def add(self, finding: _Finding) -> None:
        """Count one sample."""
        files = self.dataset.samples[finding.index]
        if finding.problem is not None:
            of_label = finding.problem.startswith(f"{files.label}: ")
            self.errors.append(_error(files.label if of_label else files.image, finding.problem))
        if finding.size is not None:
            self.sizes[finding.size] += 1
            if len(self.examples) < _TRANSFORMED:
                self.examples.setdefault(finding.size, finding.index)
        if finding.histogram is not None:
            self._count(finding.histogram, files.label)

    def _count(self, histogram: np.ndarray, path: Optional[Path]) -> None:
        num_classes, ignore = self.dataset.num_classes, self.dataset.ignore_index
        self.labels += 1
        self.void += bool(histogram[ignore] == histogram.sum())
        self.pixels += histogram
        self.images += histogram > 0
        for value in values_outside(histogram, num_classes, ignore):
            if len(self.files[value]) < _FILES_NAMED:
                self.files[value].append(str(path))


def _mixed_sizes(dataset: SegmentationDataset, examples: Mapping[str, int]) -> list[dict[str, str]]:
    """What is wrong with the transforms, tried on images of different size and on several draws."""
    indices = list(examples.values())
    sizes = set()
    for draw in range(_TRANSFORMED if indices else 0):
        index = indices[draw % len(indices)]
        try:
            sizes.add(_size(dataset[index, draw]["img"]))
        except UserError as error:
            return [_error(dataset.samples[index].image, f"transforms: {error}")]
    if len(sizes) < 2:
        return []
    problem = (
        f"transforms: they leave images of different sizes ({', '.join(sorted(sizes))}), which "
        "make no batch; end them with a crop (RandomPaddingCrop) or a Resize before Normalize"
    )
    return [_error("transforms", problem)]


def _length(path: Path) -> int:
    """Bytes of a file; -1 if it is not there."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _digest(path: Path) -> Optional[bytes]:
    """A hash of a file's bytes; None if it can't be read, which is the check's to report."""
    digest = hashlib.blake2b(digest_size=16)
    try:
        with open(path, "rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    except OSError:
        return None
    return digest.digest()


def _class_table(dataset: SegmentationDataset, tally: _Tally) -> dict:
    pixels, images = (class_counts(dataset, counts) for counts in (tally.pixels, tally.images))
    weights = class_weights(pixels)
    total = max(int(pixels.sum()), 1)
    return {
        name: {
            "pixels": int(pixels[i]),
            "images": int(images[i]),
            "frequency": float(pixels[i] / total),
            "weight": round(float(weights[i]), 4),
        }
        for i, name in enumerate(dataset.classes)
    }


def _outside(dataset: SegmentationDataset, tally: _Tally) -> dict:
    values = values_outside(tally.pixels, dataset.num_classes, dataset.ignore_index)
    return {
        str(value): {
            "pixels": pixels,
            "images": int(tally.images[value]),
            "files": tally.files[value],
        }
        for value, pixels in values.items()
    }


def _label_warnings(dataset: SegmentationDataset, tally: _Tally, report: dict) -> list[str]:
    if not tally.labels:
        return ["no labels to check"]
    warnings = []
    absent = [name for name, row in report["classes"].items() if row["pixels"] == 0]
    used = np.flatnonzero(tally.pixels).tolist()
    if used == [0, 255] and dataset.num_classes > 1 and dataset.ignore_index == 255:
        warnings.append(
            "the labels hold only 0 and 255, and 255 is ignored: if they are 0/255 masks, save "
            "the foreground as 1"
        )
    elif absent and report["checked"] == report["images"]:  # a sample may well lack a class
        warnings.append(f"no pixel of {len(absent)} classes: {', '.join(absent)}")
    if tally.void:
        warnings.append(f"{tally.void} labels are ignored entirely: no pixel of any class")
    share = report["ignored"] / max(int(tally.pixels.sum()), 1)
    if share > 0.5:
        warnings.append(f"{share:.0%} of all label pixels are ignored")
    return warnings
