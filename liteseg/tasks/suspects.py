"""`liteseg data suspects`: labels that a trained network contradicts, for somebody to review."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Union

import cv2
import numpy as np

from liteseg.config.build import build_dataset
from liteseg.config.check import AnyConfig, load_checked
from liteseg.config.schema import CheckedConfig
from liteseg.datasets import SegmentationDataset
from liteseg.errors import UserError
from liteseg.metrics.label_errors import Region, RegionFinder, image_scores
from liteseg.report.visualize import captioned, overlay, panel, write_png
from liteseg.tasks.background import prefetch
from liteseg.tasks.runs import Weights, config_of
from liteseg.tasks.segmenter import Segmenter
from liteseg.utils.bands import for_display
from liteseg.utils.files import atomic_write, check_writable
from liteseg.utils.logging import get_logger, progress

REGIONS, IMAGES, DRAWINGS = "suspects.csv", "images.csv", "images"
_COLUMNS = ("rank", "image", "label_file", "x", "y", "width", "height", "label", "predicted",
            "pixels", "confidence", "label_confidence", "score")  # fmt: skip
_READ_AHEAD = 4
_MARK, _MARKED = (255, 40, 40), 5  # color, and regions drawn of an image


@dataclass(frozen=True)
class SuspectsResult:
    """The outcome of the search.

    Attributes:
        output: folder of the results.
        images: (index of the image in the dataset, score), the most suspicious first; images
            without a region are left out.
        regions: (score, region), the most suspicious first.
        searched: number of images of the split.
        drawn: number of images drawn.
    """

    output: Path
    images: list[tuple[int, float]]
    regions: list[tuple[float, Region]]
    searched: int
    drawn: int


def find_suspects(
    weights: Optional[Weights] = None,
    output: Union[str, Path] = "suspects",
    *,
    cfg: Optional[AnyConfig] = None,
    overrides: Sequence[str] = (),
    split: str = "train",
    folds: Optional[int] = None,
    show: int = 50,
    device: Optional[str] = None,
) -> SuspectsResult:
    """Rank the images and regions of a split whose labels a network contradicts with confidence.

    Args:
        weights: file, archive, URL or run directory; with `folds` only its config is used.
        output: folder for `suspects.csv` (regions), `images.csv` and a drawing of each of the
            first images: image, label, prediction, and the regions.
        cfg: config of the weights; by default the `config.yml` of their run.
        overrides: `key=value` changes of the config, for example `iters=300`.
        split: `train`, `val` or `test`; its labels are compared.
        folds: train this many networks, each on the other images (split `train`): a network that
            has learned a wrong label does not contradict it. Costs that many trainings of
            `iters` iterations. Networks of an interrupted search are kept in `output`.
        show: number of images to draw.
        device: `auto`, `cpu` or `gpu`; by default the `device` of the config.

    Raises:
        UserError: an argument does not fit, the config has errors, an image has no label, or
            `output` contains an earlier list, which may have been edited.
    """
    if folds is not None and (folds < 2 or split != "train"):
        raise UserError(f"--folds {folds} --split {split}: give 2 folds or more, of split train")
    if weights is None and (folds is None or cfg is None):
        raise UserError("--weights is missing: give a run directory; or --config and --folds")
    output = Path(output)
    for name in (REGIONS, IMAGES, DRAWINGS):
        if (output / name).exists():
            raise UserError(
                f"{output / name}: already there, perhaps reviewed; give a new --output"
            )
    if weights is None:
        assert cfg is not None
        cfg = load_checked(cfg, overrides)
    else:
        built = ["loss", "optimizer", "lr_scheduler"] if folds else []
        cfg = config_of(weights, cfg, overrides, [*built, f"{split}_dataset"])
    dataset = build_dataset(cfg, split)
    _require_labels(dataset, folds)
    check_writable(output)
    parts = np.array_split(np.arange(len(dataset)), folds or 1)
    finder = RegionFinder(dataset.num_classes, dataset.ignore_index)
    networks: list[Weights] = []
    for number, part in enumerate(parts):
        source = _train_fold(cfg, output, number, parts, device) if folds else weights or ""
        networks.append(source)
        _search(Segmenter.from_pretrained(source, cfg, device=device), dataset, part, finder)
    regions = finder.ranked()
    images = image_scores(regions)
    _write_lists(output, dataset, images, regions)
    shown = {index for index, _ in images[:show]}
    for source, part in zip(networks, parts):
        if wanted := shown.intersection(part.tolist()):
            segmenter = Segmenter.from_pretrained(source, cfg, device=device)
            _draw(segmenter, dataset, sorted(wanted), images, regions, output / DRAWINGS)
    return SuspectsResult(output, images, regions, len(dataset), len(shown))


def _require_labels(dataset: SegmentationDataset, folds: Optional[int]) -> None:
    unlabeled = [sample.image for sample in dataset.samples if sample.label is None]
    if unlabeled:
        raise UserError(f"{unlabeled[0]}: has no label to compare; choose another --split")
    if folds is not None and folds > len(dataset):
        raise UserError(f"--folds {folds}: more than the {len(dataset)} images; give fewer")


def _search(
    segmenter: Segmenter, dataset: SegmentationDataset, part: np.ndarray, finder: RegionFinder
) -> None:
    """Add the images of `part` to the finder."""
    if len(segmenter.class_names) != dataset.num_classes:
        raise UserError(
            f"the network has {len(segmenter.class_names)} classes, the dataset "
            f"{dataset.num_classes}; use the weights and the config that belong together"
        )
    bar = progress(total=len(part), unit="image", desc="suspects")
    with bar:
        for index, sample in _loaded(dataset, part):
            probabilities = segmenter.probabilities(sample["img"])
            if not np.isfinite(probabilities).all():
                raise UserError(
                    f"{dataset.samples[index].image}: the model's scores are NaN or infinite; use "
                    "an earlier checkpoint"
                )
            finder.update(index, probabilities, sample["label"])
            bar.update()


def _loaded(
    dataset: SegmentationDataset, part: Iterable[int]
) -> Iterator[tuple[int, dict[str, Any]]]:
    return iter(prefetch(((int(i), dataset.load(int(i))) for i in part), _READ_AHEAD))


def _train_fold(
    cfg: CheckedConfig,
    output: Path,
    number: int,
    parts: Sequence[np.ndarray],
    device: Optional[str],
) -> Path:
    """Weights trained on all images but those of one part, from an earlier call if there are any.

    Parts are consecutive images, so that neighbors in a video are rarely in different ones.
    """
    from liteseg.engine.hooks import StopOnSignal
    from liteseg.engine.writers import Log
    from liteseg.tasks.train import build_trainer, set_up_device
    from liteseg.utils.weights.load import save_pdparams

    digest = hashlib.sha256(cfg.dump().encode()).hexdigest()[:8]
    path = output / "folds" / f"{number + 1}_of_{len(parts)}_{digest}.pdparams"
    if path.exists():
        return path
    train_set = build_dataset(cfg, "train")
    kept = np.delete(np.arange(len(train_set)), parts[number])
    train_set.samples = [train_set.samples[index] for index in kept]
    get_logger().info(f"fold {number + 1} of {len(parts)}: training on {len(kept)} images")
    trainer = build_trainer(cfg, train_set, device or set_up_device(cfg))
    trainer.hooks = [StopOnSignal(), Log(cfg.log_interval, None, None)]
    trainer.run()
    if trainer.stop_reason:
        raise UserError(
            f"fold {number + 1} of {len(parts)}: {trainer.stop_reason}; the same command resumes "
            "with this fold"
        )
    with trainer.shipped_weights():
        save_pdparams(trainer.model.state_dict(), path)
    return path


def _draw(
    segmenter: Segmenter,
    dataset: SegmentationDataset,
    part: Sequence[int],
    images: Sequence[tuple[int, float]],
    regions: Sequence[tuple[float, Region]],
    output: Path,
) -> None:
    """Draw image, label, prediction and regions of each image side by side."""
    ranks = {index: rank for rank, (index, _) in enumerate(images, 1)}
    for index, sample in _loaded(dataset, part):
        image, label = for_display(sample["img"]), sample["label"]
        own = [region for _, region in regions if region.image == index][:_MARKED]
        marked = image.copy()
        width = max(2, image.shape[1] // 240)
        for region in own:
            x, y, w, h = region.box
            cv2.rectangle(marked, (x, y), (x + w - 1, y + h - 1), _MARK, width)
        labels = [
            overlay(image, classes, dataset.palette, ignore_index=dataset.ignore_index)
            for classes in (label, segmenter.predict(image))
        ]
        names = dataset.classes
        texts = [f"{names[r.label]} or {names[r.predicted]} {r.confidence:.2f}" for r in own]
        title = f"{dataset.samples[index].name}: label or prediction? {', '.join(texts)}"
        name = f"{ranks[index]:04d}_{Path(dataset.samples[index].name).name}.png"
        write_png(output / name, captioned(panel([image, *labels, marked]), title))


def _write_lists(
    output: Path,
    dataset: SegmentationDataset,
    images: Sequence[tuple[int, float]],
    regions: Sequence[tuple[float, Region]],
) -> None:
    names = dataset.classes
    counts = {index: 0 for index, _ in images}
    with atomic_write(output / REGIONS, "w") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(_COLUMNS)
        for rank, (score, region) in enumerate(regions, 1):
            counts[region.image] += 1
            files = dataset.samples[region.image]
            pair = (names[region.label], names[region.predicted], region.pixels)
            numbers = (region.confidence, region.label_confidence)
            values = [f"{number:.4f}" for number in numbers]
            row = [rank, files.name, files.label, *region.box, *pair, *values, f"{score:.6f}"]
            table.writerow(row)
    with atomic_write(output / IMAGES, "w") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("rank", "image", "label_file", "regions", "score"))
        for rank, (index, score) in enumerate(images, 1):
            files = dataset.samples[index]
            table.writerow([rank, files.name, files.label, counts[index], f"{score:.6f}"])
