"""The dataset check of `liteseg data check`: reads every file once and reports the problems."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Optional

import numpy as np

from liteseg.datasets.arguments import first_few
from liteseg.datasets.base import SegmentationDataset, format_size
from liteseg.datasets.label_values import MASK_ADVICE, class_pixels, invalid_values
from liteseg.datasets.pair_check import check_pairs
from liteseg.datasets.parallel import map_in_threads
from liteseg.datasets.statistics import SampleStatistics, Statistics, measure
from liteseg.errors import UserError, grouped_errors
from liteseg.utils import logging
from liteseg.utils.class_weights import class_weights
from liteseg.utils.images import ImageFacts, image_facts, label_histogram

_FILES_PER_VALUE = 3
_TRANSFORMED = 8  # samples that go through the transforms
_RARE_IMAGES, _RARE_SHARE = 5, 0.01  # classes in fewer images are named
_FEW_SAMPLES, _FEW_ERRORS = 16, 3  # per dataset, before training


class _Result(NamedTuple):
    """The result of reading one sample."""

    sample_index: int
    size: Optional[str]  # "WxH"
    histogram: Optional[np.ndarray]  # (256,) label values, None without a readable label
    problem: Optional[str]
    facts: Optional[ImageFacts] = None
    statistics: Optional[SampleStatistics] = None


def check_dataset(
    dataset: SegmentationDataset,
    workers: Optional[int] = None,
    sample: Optional[int] = None,
    progress: bool = True,
    *,
    needs_labels: bool = False,
    needs_one_size: Optional[bool] = None,
    statistics: Optional[Statistics] = None,
) -> dict[str, Any]:
    """Read the images and labels of a dataset and report whatever would break or impair training.

    Memory does not grow with the number of samples, except for the messages about bad ones and for
    `statistics`.

    Args:
        dataset: its transforms are only applied where `needs_one_size` is given.
        workers: number of threads (default: one per core); decoding releases the GIL.
        sample: check this many samples, evenly spread (default: all).
        progress: show a progress bar on stderr.
        needs_labels: a sample without a label is an error (training, evaluation).
        needs_one_size: try the transforms; True: they must give all images the same size
            (training in batches).
        statistics: empty ones, to add those of the samples to.

    Returns:
        A dict that can be written as JSON: `images` and `checked` counts; `errors`, a list of
        {file, problem}; `warnings`, sentences; `sizes` {"WxH": images}; `classes` {name: {pixels,
        images, frequency, weight}} with the weights of `class_weights`; `ignored` pixels;
        `histogram` {value: pixels} of the labels; `outside` {value: {pixels, images, files}} of
        label values that are no class, with the first few files; and what `Statistics.compute`
        returns, if `statistics` is given.
    """
    indices = _spread(len(dataset), sample)
    measured = statistics is not None
    results = map_in_threads(lambda i: _read(dataset, i, needs_labels, measured), indices, workers)
    totals = _Totals(dataset)
    for result in logging.progress(results, "checking", len(indices), shown=progress):
        totals.add(result)
        if statistics is not None and result.statistics is not None:
            files = dataset.samples[result.sample_index]
            label = files.label and str(files.label)
            statistics.add(result.statistics, result.sample_index, str(files.image), label)
    if needs_one_size is not None:
        totals.errors += _check_transforms(dataset, totals.examples, needs_one_size)
    report = {
        "images": len(dataset),
        "checked": len(indices),
        "errors": totals.errors,
        "sizes": dict(totals.sizes),
        "classes": _class_table(dataset, totals),
        "ignored": int(totals.pixels[dataset.ignore_index]),
        "histogram": {str(v): int(totals.pixels[v]) for v in np.flatnonzero(totals.pixels)},
        "outside": totals.outside(),
        **({} if statistics is None else statistics.compute()),
    }
    label_warnings = _label_warnings(dataset, totals, report)
    image_warnings = _image_warnings(dataset, totals)
    report["warnings"] = [
        *dataset.notes,
        *check_pairs(dataset.samples),
        *image_warnings,
        *label_warnings,
        *_balance_warnings(report),
    ]
    return report


def check_samples(batch_size: int = 1, **datasets: Optional[SegmentationDataset]) -> None:
    """Read a few samples of each dataset, so that common errors show within seconds.

    Args:
        batch_size: of training: above 1, its images must have one size.
        datasets: by their config key; None is skipped.

    Raises:
        UserError: a sample cannot be read, or has no label.
    """
    for key, dataset in datasets.items():
        if dataset is None:
            continue
        if dataset.transforms.normalize is None:
            raise UserError(f"{key}: transforms: must end in Normalize; add it as the last one")
        report = check_dataset(
            dataset,
            sample=_FEW_SAMPLES,
            progress=False,
            needs_labels=True,
            needs_one_size=key == "train_dataset" and batch_size > 1,
        )
        if report["errors"]:
            shown = "\n  ".join(grouped_errors(report["errors"])[:_FEW_ERRORS])
            raise UserError(
                f"{key}: {len(report['errors'])} of {report['checked']} samples tried would break "
                f"training (`liteseg data check` checks all of them):\n  {shown}"
            )
        if problem := nothing_to_count(dataset, report):
            raise UserError(f"{key}: {problem}")
        for warning in report["warnings"]:
            if warning not in dataset.notes:  # logged when the dataset was built
                logging.get_logger().warning(f"{key}: {warning}")


def nothing_to_count(dataset: SegmentationDataset, report: dict[str, Any]) -> Optional[str]:
    """Why no label of the dataset can train or measure anything; None if some can."""
    found, ignored = {int(value) for value in report["histogram"]}, dataset.ignore_index
    if found <= {ignored}:
        problem = f"all pixels of all {len(dataset)} labels are ignored (ignore_index {ignored})"
    elif found == {0, 255} and ignored == 255:
        problem = (
            f"all {len(dataset)} labels contain only 0 and 255 (ignored): as 0/255 masks, "
            f"{MASK_ADVICE}"
        )
    else:
        return None
    if report["checked"] < report["images"]:  # look for another value, up to the first one
        labels = map_in_threads(dataset.load_label, range(len(dataset)))
        if any(not set(np.unique(label)) <= found for label in labels if label is not None):
            return None
    return problem


def _spread(count: int, sample: Optional[int]) -> list[int]:
    if sample is None or sample >= count:
        return list(range(count))
    return np.linspace(0, count - 1, max(sample, 1)).round().astype(int).tolist()


def _read(dataset: SegmentationDataset, index: int, needs_label: bool, measured: bool) -> _Result:
    files = dataset.samples[index]
    try:
        sample = dataset.load(index)
    except UserError as error:
        try:  # the values of a label that failed its check are counted, too
            label = None if files.label is None else dataset.decode_label(files.label)
        except UserError:
            label = None
        histogram = None if label is None else label_histogram(label)
        return _Result(index, None, histogram, str(error), _facts(dataset, files.image))
    label = sample.get("label")
    problem = f"{files.image}: has no label" if needs_label and label is None else None
    histogram = None if label is None else label_histogram(label)
    size = format_size(sample["img"])
    found = measure(sample["img"], label, dataset.num_classes) if measured else None
    return _Result(index, size, histogram, problem, _facts(dataset, files.image), found)


def _facts(dataset: SegmentationDataset, image: Path) -> Optional[ImageFacts]:
    try:
        return image_facts(image) if dataset.pack is None and dataset.bands is None else None
    except UserError:  # reported as the error of the sample
        return None


class _Totals:
    """Sums over the results."""

    def __init__(self, dataset: SegmentationDataset):
        self.dataset = dataset
        self.pixels = np.zeros(256, np.int64)  # of each label value
        self.images = np.zeros(256, np.int64)  # labels that contain each value
        self.labels = 0  # readable ones
        self.void = 0  # labels with nothing but ignored pixels
        self.sizes: Counter[str] = Counter()  # "WxH" -> images
        self.examples: dict[str, int] = {}  # "WxH" -> a sample, for the first few sizes
        self.files: dict[int, list[str]] = defaultdict(list)  # invalid value -> first few labels
        self.errors: list[dict[str, str]] = []  # {file, problem} of each bad sample
        self.orientations: Counter[int] = Counter()  # EXIF orientation -> images
        self.first_of: dict[int, Path] = {}  # EXIF orientation -> the first of these images
        self.dim: list[str] = []  # 16-bit images that use a quarter of the values or less

    def add(self, result: _Result) -> None:
        """Count one sample."""
        files = self.dataset.samples[result.sample_index]
        if result.problem is not None:
            is_of_label = result.problem.startswith(f"{files.label}: ")
            file = files.label if is_of_label else files.image
            self.errors.append({"file": str(file), "problem": result.problem})
        if result.size is not None:
            self.sizes[result.size] += 1
            if len(self.examples) < _TRANSFORMED:
                self.examples.setdefault(result.size, result.sample_index)
        if result.facts is not None:
            orientation, largest = result.facts
            self.orientations[orientation] += 1
            self.first_of.setdefault(orientation, files.image)
            if largest is not None and 0 < largest < 2**14:
                self.dim.append(f"{files.image}: {largest} of 65535")
        if result.histogram is not None:
            self._count(result.histogram, files.label)

    def _count(self, histogram: np.ndarray, path: Optional[Path]) -> None:
        self.labels += 1
        self.void += bool(histogram[self.dataset.ignore_index] == histogram.sum())
        self.pixels += histogram
        self.images += histogram > 0
        for value in self._invalid_values(histogram):
            if len(self.files[value]) < _FILES_PER_VALUE:
                self.files[value].append(str(path))

    def _invalid_values(self, histogram: np.ndarray) -> dict[int, int]:
        return invalid_values(histogram, self.dataset.num_classes, self.dataset.ignore_index)

    def outside(self) -> dict[str, dict[str, Any]]:
        """`outside` of the report."""
        return {
            str(value): {
                "pixels": pixels,
                "images": int(self.images[value]),
                "files": self.files[value],
            }
            for value, pixels in self._invalid_values(self.pixels).items()
        }


def _check_transforms(
    dataset: SegmentationDataset, examples: Mapping[str, int], one_size: bool
) -> list[dict[str, str]]:
    """Errors of the transforms, on images of different sizes and on several draws."""
    indices = list(examples.values())
    sizes = set()
    for draw in range(_TRANSFORMED if indices else 0):
        index = indices[draw % len(indices)]
        try:
            sizes.add(format_size(dataset[index, draw]["img"]))
        except UserError as error:
            image = dataset.samples[index].image
            return [{"file": str(image), "problem": f"transforms: {error}"}]
    if len(sizes) < 2 or not one_size:
        return []
    problem = (
        f"transforms: they leave images of different sizes ({', '.join(sorted(sizes))}), which "
        "can't form a batch; end them with a crop (RandomPaddingCrop) or a Resize before Normalize"
    )
    return [{"file": "transforms", "problem": problem}]


def _class_table(dataset: SegmentationDataset, totals: _Totals) -> dict[str, dict[str, Any]]:
    pixels, images = (
        class_pixels(counts, dataset.num_classes, dataset.ignore_index)
        for counts in (totals.pixels, totals.images)
    )
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


def _image_warnings(dataset: SegmentationDataset, totals: _Totals) -> list[str]:
    warnings = []
    turned = {n: count for n, count in sorted(totals.orientations.items()) if n > 1}
    if turned:
        which = ", ".join(
            f"{n}: {count}, such as {totals.first_of[n]}" for n, count in turned.items()
        )
        does, other, fits = (
            ("are turned upright", "ignore", "were drawn on the pixels as stored")
            if dataset.exif == "apply"
            else ("are read as stored", "apply", "were drawn on upright images")
        )
        warnings.append(
            f"{sum(turned.values())} images have an EXIF orientation ({which}) and {does} "
            f"(exif: {dataset.exif}); if their labels {fits}, set `exif: {other}`"
        )
    if totals.dim:
        warnings.append(
            f"{len(totals.dim)} 16-bit images have small values and become dark in 8 bits; if "
            f"their range is below 16 bits, scale them to 0..255: {first_few(totals.dim)}"
        )
    return warnings


def _balance_warnings(report: Mapping[str, Any]) -> list[str]:
    """Values above `max_value`, files of one color or class, and classes in very few images."""
    warnings = []
    normalize = report.get("normalize", {})
    if (largest := max(normalize.get("mean", ()), default=0)) > 1:
        limit = normalize.get("max_value", 255)
        warnings.append(
            f"the mean of a channel is {largest * limit:g}, above max_value {limit:g} of "
            "Normalize: set that to the largest possible value, such as 4095 for 12 bits"
        )
    if images := report.get("constant_images"):
        warnings.append(f"{len(images)} images have one color: {first_few(images)}")
    if labels := report.get("constant_labels"):
        warnings.append(f"{len(labels)} labels have a single class: {first_few(labels)}")
    few = max(_RARE_IMAGES, report["checked"] * _RARE_SHARE)
    counts = {name: row["images"] for name, row in report["classes"].items()}
    rare = [f"{name}: {count}" for name, count in counts.items() if 0 < count < few]
    if rare and report["checked"] >= 10 * _RARE_IMAGES:
        warnings.append(
            f"{len(rare)} classes are in very few of the {report['checked']} images "
            f"({', '.join(rare)}), so their IoU has a wide interval"
        )
    return warnings


def _label_warnings(
    dataset: SegmentationDataset, totals: _Totals, report: dict[str, Any]
) -> list[str]:
    if not totals.labels:
        return [] if report["errors"] else ["no labels to check"]
    warnings = []
    absent = [name for name, row in report["classes"].items() if row["pixels"] == 0]
    present = np.flatnonzero(totals.pixels).tolist()
    if present == [0, 255] and dataset.num_classes > 1 and dataset.ignore_index == 255:
        warnings.append(
            f"the labels contain only 0 and 255, and 255 is ignored: if they are 0/255 masks, "
            f"{MASK_ADVICE}"
        )
    elif absent and report["checked"] == report["images"]:  # a sample may well lack a class
        warnings.append(f"no pixel of {len(absent)} classes: {', '.join(absent)}")
    if totals.void:
        warnings.append(f"{totals.void} labels are ignored entirely: no pixel of any class")
    share = report["ignored"] / max(int(totals.pixels.sum()), 1)
    if share > 0.5:
        warnings.append(f"{share:.0%} of all label pixels are ignored")
    return warnings
