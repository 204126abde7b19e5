"""Datasets on disk: check them, pack them, generate the synthetic Streets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Optional, Union

from liteseg import __version__
from liteseg.config.build import build_dataset
from liteseg.config.check import AnyConfig, load_checked
from liteseg.datasets import SegmentationDataset, check_dataset, find_duplicates
from liteseg.datasets.check import nothing_to_count
from liteseg.datasets.label_values import MASK_ADVICE
from liteseg.datasets.pack import build_pack
from liteseg.datasets.statistics import SIZES, Statistics, find_similar
from liteseg.datasets.streets.generate import generate
from liteseg.errors import UserError, grouped_errors
from liteseg.report.data_page import SplitPage, Tile, draw_tile, write_data_page
from liteseg.utils.bands import for_display
from liteseg.utils.files import require_kind

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class DataReport:
    """The result of a dataset check.

    Attributes:
        splits: {split: report}, each as `liteseg.datasets.check_dataset` returns it.
        errors: {file, problem} of splits that could not be opened; `file` is the split.
        duplicates: groups of images with the same content, each as `split: file`.
        similar: pairs of images of different splits that look the same, each as `split: file`.
    """

    splits: dict[str, dict[str, Any]]
    errors: list[dict[str, str]]
    duplicates: list[list[str]]
    similar: list[list[str]] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing would break training; warnings are allowed."""
        return not self.errors and not any(report["errors"] for report in self.splits.values())

    def as_json(self) -> dict[str, Any]:
        """The content of `liteseg data check --json`."""
        return asdict(self)


def check_data(
    cfg: AnyConfig,
    *,
    overrides: Sequence[str] = (),
    split: str = "all",
    sample: Optional[int] = None,
    workers: Optional[int] = None,
    page: Union[str, Path, None] = None,
) -> DataReport:
    """Read the images and labels of a config's datasets and report errors and warnings.

    Args:
        cfg: a YAML file, the name of a shipped config, or a loaded config.
        overrides: `key=value` changes of the config.
        split: `train`, `val`, `test` or `all`.
        sample: check this many images per split, evenly spread; by default all.
        workers: number of threads; by default one per core.
        page: HTML file for the tables, and samples drawn by class.

    Raises:
        UserError: the config has errors, or no dataset; `page` cannot be written.
    """
    if page is not None:
        require_kind(page, ".html")
    cfg = load_checked(cfg, overrides)
    requested = SPLITS if split == "all" else (split,)
    splits = [name for name in requested if split != "all" or getattr(cfg, f"{name}_dataset")]
    if not splits:
        raise UserError(f"{cfg.path}: no train_dataset, val_dataset or test_dataset to check")
    report = DataReport({}, [], [])
    datasets, statistics = {}, {}
    for name in splits:
        try:
            dataset = build_dataset(cfg, name)
        except UserError as error:  # the other splits are still worth checking
            report.errors.append({"file": name, "problem": str(error)})
            continue
        dataset.pack = None  # check the files themselves
        datasets[name] = dataset
        normalize = dataset.transforms.normalize
        white = 255 if normalize is None else normalize.max_value
        statistics[name] = Statistics(dataset.classes, white)
        found = report.splits[name] = check_dataset(
            dataset,
            workers,
            sample,
            needs_labels=name != "test",
            needs_one_size=name == "train" and cfg.batch_size > 1,
            statistics=statistics[name],
        )
        if name == "test" or not found["histogram"]:
            continue  # labels are optional, or reported as missing
        if problem := nothing_to_count(dataset, found):  # training refuses it, too
            found["errors"].append({"file": f"{name}_dataset", "problem": problem})
            found["warnings"] = [w for w in found["warnings"] if MASK_ADVICE not in w]
    report.duplicates.extend(find_duplicates(datasets, workers, progress=True))
    copies = [set(group) for group in report.duplicates]
    pairs = find_similar(statistics)
    report.similar.extend(pair for pair in pairs if not any(set(pair) <= one for one in copies))
    if page is not None:
        splits_shown = {
            n: _split_page(datasets[n], report.splits[n], statistics[n]) for n in datasets
        }
        title = f"Data of {cfg.path.name}"
        write_data_page(Path(page), title, f"liteseg {__version__}", splits_shown, SIZES)
    return report


def _split_page(
    dataset: SegmentationDataset, found: dict[str, Any], statistics: Statistics
) -> SplitPage:
    examples: dict[str, list[Tile]] = {}
    for number, (name, indices) in enumerate(statistics.examples().items()):
        for index in indices:
            sample = dataset.load(index)
            tile = draw_tile(
                dataset.samples[index].name,
                for_display(sample["img"]),
                sample["label"],
                number,
                dataset.palette,
            )
            examples.setdefault(name, []).append(tile)
    return SplitPage(
        found,
        dict(zip(dataset.classes, dataset.palette.tolist())),
        examples,
        grouped_errors(found["errors"])[:10],
        found["warnings"],
    )


@dataclass(frozen=True)
class PackResult:
    """A pack on disk.

    Attributes:
        output: its folder.
        samples: number of samples in it.
    """

    output: Path
    samples: int


def pack_data(
    cfg: AnyConfig,
    output: Union[str, Path, None] = None,
    *,
    overrides: Sequence[str] = (),
    split: str = "train",
    workers: Optional[int] = None,
    verify: bool = False,
) -> PackResult:
    """Decode a split once into a memory-mapped pack, from which training reads faster.

    An interrupted pack is completed; one that is up to date is kept.

    Args:
        cfg: a YAML file, the name of a shipped config, or a loaded config.
        output: folder of the pack; by default the `pack` of the config's dataset.
        overrides: `key=value` changes of the config.
        split: `train`, `val` or `test`.
        workers: number of threads; by default one per core.
        verify: read the whole pack and compare its checksums.

    Raises:
        UserError: the config or a file has errors, the disk is full, or a checksum differs.
    """
    cfg = load_checked(cfg, overrides)
    key = f"{split}_dataset"
    output = output or (getattr(cfg, key) or {}).get("pack")
    if not output:
        raise UserError(f"--output is missing: give a folder for the pack (or set {key}.pack)")
    if getattr(cfg, key):  # its pack may not exist yet
        cfg = load_checked(cfg, [f"{key}.pack=null"])
    pack = build_pack(build_dataset(cfg, split), Path(output), workers)
    if verify:
        pack.verify()
    return PackResult(Path(output), len(pack.entries))


def make_streets(
    output: Union[str, Path],
    *,
    train: int = 200,
    val: int = 50,
    size: tuple[int, int] = (512, 256),
    seed: int = 0,
) -> Path:
    """Generate Streets, a synthetic dataset in the layout of Cityscapes.

    Args:
        output: folder of the dataset.
        train: number of training images.
        val: number of validation images.
        size: (w, h) of the images in pixels.
        seed: random seed.
    """
    return generate(Path(output), train=train, val=val, size=size, seed=seed)
