"""The dataset check behind `liteseg data check`: reads every file once and says what is wrong."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Optional

import numpy as np
from tqdm import tqdm

from liteseg.datasets.base import SegmentationDataset, name_some, values_outside
from liteseg.datasets.stats import class_weights
from liteseg.errors import UserError
from liteseg.utils.images import label_histogram

SHOWN_ERRORS = 10


class _Finding(NamedTuple):
    """What reading one sample gave."""

    size: Optional[str]  # "WxH"
    histogram: Optional[np.ndarray]  # (256,) label values, None without a readable label
    problem: Optional[str]


def check_dataset(
    dataset: SegmentationDataset,
    workers: Optional[int] = None,
    sample: Optional[int] = None,
    progress: bool = True,
) -> dict:
    """Read the images and labels of a dataset and report what would break or spoil training.

    Args:
        dataset: its transforms are not applied.
        workers: threads (decoding releases the interpreter lock); all cores without.
        sample: check this many samples, evenly spread; all without.
        progress: draw a bar on stderr.

    Returns:
        A dict that goes into JSON as it is: `images` and `checked` counts; `errors`, a list of
        {file, problem}; `warnings`, sentences; `sizes` {"WxH": images}; `classes` {name: {pixels,
        images, frequency, weight}} with the weights of `class_weights`; `ignored` pixels;
        `outside` {value: {pixels, images}} of label values that are no class.
    """
    indices = _spread(len(dataset), sample)
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        found = pool.map(lambda index: _examine(dataset, index), indices)
        findings = list(tqdm(found, "checking", len(indices), disable=None if progress else True))
    histograms = [finding.histogram for finding in findings if finding.histogram is not None]
    stacked = np.stack(histograms) if histograms else np.zeros((0, 256), np.int64)
    report = {
        "images": len(dataset),
        "checked": len(indices),
        "errors": [
            {"file": str(dataset.samples[index].image), "problem": finding.problem}
            for index, finding in zip(indices, findings)
            if finding.problem
        ],
        "sizes": dict(Counter(finding.size for finding in findings if finding.size)),
        "classes": _class_table(dataset, stacked),
        "ignored": int(stacked[:, dataset.ignore_index].sum()),
        "outside": _outside(dataset, stacked),
    }
    report["warnings"] = [*dataset.notes, *_warnings(dataset, stacked, report)]
    return report


def find_duplicates(datasets: Mapping[str, SegmentationDataset]) -> list[list[str]]:
    """Groups of images with the same bytes, within a split or across: each `split: file`."""
    by_size: dict[int, list[tuple[str, Path]]] = defaultdict(list)
    for split, dataset in datasets.items():
        for image in {sample.image: None for sample in dataset.samples}:
            by_size[image.stat().st_size].append((split, image))
    groups = defaultdict(list)
    for files in by_size.values():
        if len(files) > 1:  # files of unlike length need not be read
            for split, path in files:
                digest = hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
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
    for value, row in report["outside"].items():
        lines.append(
            f"  value {value} is no class: {row['pixels']:,} pixels in {row['images']} images"
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


def _examine(dataset: SegmentationDataset, index: int) -> _Finding:
    try:
        sample = dataset.load(index)
    except UserError as error:
        return _Finding(None, _raw_histogram(dataset, index), str(error))
    height, width = sample["img"].shape[:2]
    label = sample.get("label")
    histogram = None if label is None else label_histogram(label)
    return _Finding(f"{width}x{height}", histogram, None)


def _raw_histogram(dataset: SegmentationDataset, index: int) -> Optional[np.ndarray]:
    """Values of a label that failed its check, so that the report can count them."""
    path = dataset.samples[index].label
    try:
        return None if path is None else label_histogram(dataset.decode_label(path))
    except UserError:
        return None


def _class_table(dataset: SegmentationDataset, histograms: np.ndarray) -> dict:
    per_image = histograms[:, : dataset.num_classes].copy()
    if dataset.ignore_index < dataset.num_classes:
        per_image[:, dataset.ignore_index] = 0
    pixels = per_image.sum(axis=0)
    images = np.count_nonzero(per_image, axis=0)
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


def _outside(dataset: SegmentationDataset, histograms: np.ndarray) -> dict:
    values = values_outside(histograms.sum(axis=0), dataset.num_classes, dataset.ignore_index)
    return {
        str(value): {"pixels": pixels, "images": int(np.count_nonzero(histograms[:, value]))}
        for value, pixels in values.items()
    }


def _warnings(dataset: SegmentationDataset, histograms: np.ndarray, report: dict) -> list[str]:
    warnings = []
    images = Counter(sample.image for sample in dataset.samples)
    repeated = [path for path, count in images.items() if count > 1]
    if repeated:
        warnings.append(f"{len(repeated)} images are listed more than once: {name_some(repeated)}")
    if not len(histograms):
        return [*warnings, "no labels to check"]
    pixels = {name: row["pixels"] for name, row in report["classes"].items()}
    absent = [name for name, count in pixels.items() if count == 0]
    used = np.flatnonzero(histograms.sum(axis=0)).tolist()
    if used == [0, 255] and dataset.num_classes > 1 and dataset.ignore_index == 255:
        warnings.append(
            "the labels hold only 0 and 255, and 255 is ignored: if they are 0/255 masks, save "
            "the foreground as 1"
        )
    elif absent:
        warnings.append(f"no pixel of {len(absent)} classes: {', '.join(absent)}")
    void = int((histograms[:, dataset.ignore_index] == histograms.sum(axis=1)).sum())
    if void:
        warnings.append(f"{void} labels are ignored entirely: no pixel of any class")
    share = report["ignored"] / max(int(histograms.sum()), 1)
    if share > 0.5:
        warnings.append(f"{share:.0%} of all label pixels are ignored")
    return warnings
