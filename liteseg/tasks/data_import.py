"""Import of annotations: masks, splits, class names and a config, ready to train."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np
import yaml
from PIL import Image

from liteseg.datasets.annotations.files import text_of, upright_size
from liteseg.datasets.annotations.parsers import detect, read
from liteseg.datasets.annotations.shapes import Annotated
from liteseg.datasets.annotations.splits import NAMES, assign, groups_of, parse_shares
from liteseg.datasets.arguments import require_folder
from liteseg.datasets.color_map import default_palette
from liteseg.datasets.parallel import map_in_threads
from liteseg.errors import UserError, quoted
from liteseg.report.visualize import save_palette_png
from liteseg.utils import logging
from liteseg.utils.files import atomic_write, locked, write_json

IGNORE, DROP = "ignore", "drop"
_IGNORED = 255
# Labels with a meaning in labelme.
_ALIASES = {"__ignore__": IGNORE, "_background_": "background"}


@dataclass(frozen=True)
class ImportResult:
    """A finished import.

    Attributes:
        config: the YAML file to train from.
        classes: names in the order of the class numbers.
        images: {split: number of images}.
        groups: {split: number of groups}.
    """

    config: Path
    classes: tuple[str, ...]
    images: dict[str, int]
    groups: dict[str, int]


@dataclass(frozen=True)
class _Item:
    """An image to write: `name` is its file name without suffix."""

    annotated: Annotated
    name: str
    split: str


@dataclass(frozen=True)
class _Classes:
    """Class names, {label: value in the masks} without dropped ones, and the value elsewhere."""

    names: tuple[str, ...]
    values: dict[str, int]
    unlabeled: int


def import_data(
    source: Union[str, Path],
    output: Union[str, Path],
    *,
    format: str = "auto",
    split: Optional[str] = None,
    group_by: Optional[str] = None,
    classes: Optional[Union[str, Path]] = None,
    images: Optional[Union[str, Path]] = None,
    unlabeled: str = "background",
    link: bool = False,
    seed: int = 0,
) -> ImportResult:
    """Turn annotations into images, masks of class numbers, and a config.

    Everything is checked before anything is written. Files go to a hidden folder next to `output`,
    which is renamed at the end; the same call continues an import that was interrupted.

    Args:
        source: the file or folder of the annotations.
        output: a new or empty folder.
        format: `auto`, or one of `liteseg data import`.
        split: shares of train, val and test, such as `80,20`. By default the splits of the source,
            or `80,20` where it has none.
        group_by: regular expression on the image's path; images with the same match (or first
            group of it) are in one split.
        classes: YAML file {label: class}; several labels may have one class. `ignore`: not counted;
            `drop`: not drawn. Labels that it leaves out keep their names.
        images: folder of the images, where they are not next to the annotations.
        unlabeled: class of pixels without a shape, or `ignore`.
        link: write links to the images instead of copies.
        seed: random seed of the splits.

    Raises:
        UserError: the annotations, images or arguments have errors, or `output` has files.
    """
    source, output = Path(source), Path(output)
    if not source.exists():
        raise UserError(f"{source}: no such file or folder")
    if output.is_file() or (output.is_dir() and any(output.iterdir())):
        raise UserError(f"{output}: already there; give a new or empty folder with --output")
    kind = detect(source) if format == "auto" else format
    folder = None if images is None else require_folder(images, "--images", "the images")
    annotated = read(source, kind, folder)
    _require_sizes(annotated)
    known = _classes(annotated, _mapping(classes), unlabeled)
    names = [item.name for item in annotated]
    groups = groups_of(names, group_by)
    splits = _splits(annotated, groups, split, seed)
    items = [
        _Item(one, name, where) for one, name, where in zip(annotated, _file_names(names), splits)
    ]
    partial = output.absolute().with_name(f".{output.name}.importing")
    plan = _fingerprint(items, known, link)
    partial.mkdir(parents=True, exist_ok=True)
    with locked(partial):
        _start(partial, plan)
        _write_all(partial, items, known, link)
        with atomic_write(partial / "classes.txt", "w") as file:
            file.write("".join(f"{name}\n" for name in known.names))
        config = f"{output.name}.yml"
        with atomic_write(partial / config, "w") as file:
            file.write(_config(output.absolute(), items, known.names, source))
        (partial / "plan.json").unlink()
        (partial / ".lock").unlink()
        if output.is_dir():
            output.rmdir()
        os.rename(partial, output)
    counts = {name: splits.count(name) for name in NAMES if name in splits}
    distinct = {n: len({g for g, s in zip(groups, splits) if s == n}) for n in counts}
    return ImportResult(output / config, known.names, counts, distinct)


def _require_sizes(annotated: Sequence[Annotated]) -> None:
    """Raise one UserError for all images that are unreadable or not of the annotated size."""

    def problem(item: Annotated) -> Optional[str]:
        try:
            with Image.open(item.image) as image:
                found = upright_size(image)
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            return f"{item.image}: can't be read: {error}"
        if item.size is not None and item.size != found:
            return (
                f"{item.image} is {found[0]}x{found[1]}, its annotation is for "
                f"{item.size[0]}x{item.size[1]}"
            )
        return None

    if problems := [p for p in map_in_threads(problem, annotated) if p]:
        more = f"\n  ... and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise UserError(
            f"{len(problems)} of {len(annotated)} images do not fit; export the annotations again, "
            "or replace the images:\n  " + "\n  ".join(problems[:3]) + more
        )


def _mapping(path: Optional[Union[str, Path]]) -> dict[str, str]:
    if path is None:
        return dict(_ALIASES)
    try:
        content = yaml.safe_load(text_of(Path(path)))
    except (yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{path}: not YAML: {quoted(error)}") from None
    if not isinstance(content, dict) or not all(isinstance(v, str) for v in content.values()):
        raise UserError(f"{path}: expected lines `label: class`, found {quoted(content)}")
    return {**_ALIASES, **{str(label): name for label, name in content.items()}}


def _classes(
    annotated: Sequence[Annotated], mapping: Mapping[str, str], unlabeled: str
) -> _Classes:
    labels = sorted({shape.label for item in annotated for shape in item.shapes})
    if unknown := sorted(mapping.keys() - set(labels) - _ALIASES.keys()):
        raise UserError(
            f"--classes: no annotation has the label {unknown[0]!r}; found {', '.join(labels)}"
        )
    class_of = {label: mapping.get(label, label) for label in labels}
    used = set(class_of.values())
    mapped = [name for name in mapping.values() if name in used]
    ordered = dict.fromkeys([unlabeled, *mapped, *class_of.values()])
    names = tuple(name for name in ordered if name not in (IGNORE, DROP))
    if not 2 <= len(names) <= 255:
        found = ", ".join(names[:3])
        raise UserError(f"the annotations have {len(names)} classes ({found}), expected 2 to 255")
    numbers = {name: number for number, name in enumerate(names)} | {IGNORE: _IGNORED}
    values = {label: numbers[name] for label, name in class_of.items() if name != DROP}
    return _Classes(names, values, numbers[unlabeled])


def _splits(
    annotated: Sequence[Annotated], groups: Sequence[str], split: Optional[str], seed: int
) -> list[str]:
    own = [item.subset for item in annotated]
    if split is None and None not in own and "train" in own:
        return [str(name) for name in own]
    return assign(groups, parse_shares(split or "80,20"), seed)


def _file_names(names: Sequence[str]) -> list[str]:
    """Names of files in one folder: the last part where these differ, else the whole path."""
    short = [name.rpartition("/")[2] for name in names]
    if len({name.lower() for name in short}) == len(short):
        return short
    return [name.replace("/", "_") for name in names]


def _fingerprint(items: Sequence[_Item], classes: _Classes, link: bool) -> str:
    facts = [
        (item.name, item.split, str(item.annotated.image), [s.label for s in item.annotated.shapes])
        for item in items
    ]
    text = json.dumps([facts, astuple(classes), link], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _start(partial: Path, plan: str) -> None:
    """Continue in a folder with the same plan, else empty it."""
    path = partial / "plan.json"
    if path.is_file() and text_of(path) == json.dumps({"plan": plan}, indent=2) + "\n":
        return
    for child in partial.iterdir():
        if child.is_dir():
            shutil.rmtree(child)
        elif child.name != ".lock":
            child.unlink()
    write_json(path, {"plan": plan})


def _write_all(folder: Path, items: Sequence[_Item], classes: _Classes, link: bool) -> None:
    palette = default_palette(len(classes.names))

    def write(item: _Item) -> None:
        source = item.annotated.image
        target = folder / "images" / item.split / f"{item.name}{source.suffix.lower()}"
        mask = folder / "masks" / item.split / f"{item.name}.png"
        if mask.is_file():  # written last
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        if link:
            target.symlink_to(source.absolute())
        else:
            with atomic_write(target, sync=False) as file, open(source, "rb") as content:
                shutil.copyfileobj(content, file)
        mask.parent.mkdir(parents=True, exist_ok=True)
        save_palette_png(mask, draw(item.annotated, classes.values, classes.unlabeled), palette)

    done = map_in_threads(write, items)
    for _ in logging.progress(done, "importing", len(items)):
        pass


def draw(annotated: Annotated, values: Mapping[str, int], unlabeled: int) -> np.ndarray:
    """The (h, w) uint8 mask of an image; shapes whose label has no value are left out."""
    with Image.open(annotated.image) as image:
        canvas = Image.new("L", upright_size(image), unlabeled)
    for shape in annotated.shapes:
        if shape.label in values:
            shape.paint(canvas, values[shape.label])
    return np.asarray(canvas)


def _config(root: Path, items: Sequence[_Item], names: Sequence[str], source: Path) -> str:
    """The YAML text of a config that trains on the imported data."""
    sizes = []
    for item in items[:: max(1, len(items) // 50)]:
        with Image.open(item.annotated.image) as image:
            sizes.append(upright_size(image))
    # A crop of at most 512 pixels, a multiple of 32, within the usual image.
    crop = [max(32, min(512, int(side)) // 32 * 32) for side in np.median(sizes, axis=0)]

    def dataset(split: str, transforms: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "type": "Dataset",
            "mode": split,
            "dataset_root": str(root),
            "image_dir": f"images/{split}",
            "label_dir": f"masks/{split}",
            "num_classes": len(names),
            "class_names": list(names),
            "transforms": [*transforms, {"type": "Normalize"}],
        }

    splits = {item.split for item in items}
    augment: list[dict[str, Any]] = [
        {"type": "ResizeStepScaling", "min_scale_factor": 0.75, "max_scale_factor": 1.5},
        {"type": "RandomPaddingCrop", "crop_size": crop},
        {"type": "RandomHorizontalFlip"},
        {"type": "RandomDistort"},
    ]
    content = {
        "batch_size": 4,
        "iters": 1000,
        "train_dataset": dataset("train", augment),
        **{f"{s}_dataset": dataset(s, []) for s in ("val", "test") if s in splits},
        "test_config": {"pad_multiple": 32},
        "model": {  # PP-LiteSeg-T: its published weights fit
            "type": "PPLiteSeg",
            "backbone": {"type": "STDC1", "init": "kaiming"},
            "arm_out_chs": [32, 64, 128],
            "seg_head_inter_chs": [32, 64, 64],
        },
        "optimizer": {"type": "AdamW", "weight_decay": 0.01},
        "lr_scheduler": {"type": "OneCycleLR", "learning_rate": 0.002},
        "loss": {"types": [{"type": "CrossEntropyLoss", "weight": "auto"}]},
    }
    head = (
        f"# Imported from {source.name} by `liteseg data import`. Train with\n"
        f"#   liteseg train --config {root / root.name}.yml --output output/{root.name}\n"
    )
    return head + yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
