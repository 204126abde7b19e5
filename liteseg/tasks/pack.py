"""Packs: trained weights with all that others need to use them, in one folder or archive."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import tarfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple, Optional, Union

import jinja2

from liteseg.config.check import AnyConfig
from liteseg.config.plugins import copy_plugins
from liteseg.config.schema import CheckedConfig
from liteseg.deploy.export import versions
from liteseg.errors import UserError
from liteseg.report.report import read_history
from liteseg.tasks.runs import Weights, config_of, file_of_run
from liteseg.tasks.segmenter import Segmenter
from liteseg.utils.files import (
    atomic_write,
    read_json,
    read_regular,
    replacing_folder,
    scratch_folder,
    sha256_of,
    write_json,
)
from liteseg.utils.text import redacted, safe
from liteseg.utils.weights.archive import SUFFIXES, WEIGHTS_NAME, is_part_of_pack, members_of
from liteseg.utils.weights.index import MODEL_NAME, add_entry
from liteseg.utils.weights.source import model_of, resolve

NAME = "pack.json"
FORMAT = "liteseg-pack-1"
_FILES = (WEIGHTS_NAME, "config.yml", "README.md", NAME)
_NUMBERS = ("miou", "acc", "kappa", "mdice")
_WEAK_IOU = 0.5


class Pack(NamedTuple):
    """A pack that was written, and the index that lists it, if one does."""

    path: Path
    name: str
    listed_in: Optional[Path]


def pack_model(
    weights: Weights,
    output: Union[str, Path],
    *,
    cfg: Optional[AnyConfig] = None,
    overrides: Sequence[str] = (),
    name: Optional[str] = None,
    metrics: Union[str, Path, None] = None,
    index: bool = False,
) -> Pack:
    """Write weights, config without paths of this machine, class names, metrics and a model card.

    Args:
        weights: a run (its best checkpoint), or other weights.
        output: a folder, or a file `.tar.gz`, `.tgz`, `.tar` or `.zip`; replaces an earlier pack.
        cfg: the config; by default that of the run.
        overrides: `key=value` changes of it.
        name: of the pack; by default that of `output`.
        metrics: a file of `liteseg eval --json`; by default the validation of the run counts.
        index: list the archive in the `index.json` of its folder.

    Raises:
        UserError: the weights do not fit the config, or `output` contains something else.
    """
    output = Path(output)
    suffix = next((s for s in SUFFIXES if output.name.lower().endswith(s)), "")
    name = name or output.name[: len(output.name) - len(suffix)]
    if not MODEL_NAME.fullmatch(name):
        raise UserError(f"{name!r} is no name of a model: give --name, letters, digits and . _ - +")
    if index and not suffix:
        raise UserError(f"--index lists archives: give --output {output}.tar.gz")
    require_replaceable(output)
    cfg = config_of(weights, cfg, overrides)
    about = _describe(name, weights, cfg, metrics)
    if not suffix:
        with replacing_folder(output, require_replaceable) as folder:
            _write(folder, about, cfg)
        return Pack(output, name, None)
    with scratch_folder(output.parent) as folder:
        _write(folder, about, cfg)
        with atomic_write(output) as file:
            _archive(file, suffix, name, folder)
    entry = {
        "file": output.name,
        "sha256": sha256_of(output),
        "size": output.stat().st_size,
        "classes": len(about["class_names"]),
        "data": about["data"],
        "miou": about["metrics"].get("miou"),
        "scale": about["scales"][0] if len(about["scales"]) == 1 else None,
    }
    return Pack(output, name, add_entry(output.parent, name, entry) if index else None)


def require_replaceable(output: Path) -> None:
    """Check that a pack loses nothing at `output`.

    Raises:
        UserError: there is something other than an earlier pack, or a file that it does not list.
    """
    if not os.path.lexists(output):
        return
    if output.is_dir():
        names = [path.relative_to(output).as_posix() for path in output.rglob("*")]
        known = [name for name in names if name in (*_FILES, "plugins") or is_part_of_pack(name)]
        own = not names or (NAME in names and known == names)
    else:
        own = NAME in (PurePosixPath(member).name for member in members_of(output))
    if not own:
        raise UserError(
            f"{output}: already there, and not only an earlier pack; nothing was replaced: give "
            "another --output"
        )


def _describe(
    name: str, weights: Weights, cfg: CheckedConfig, metrics: Union[str, Path, None]
) -> dict[str, Any]:
    """The content of `pack.json`, but for its `files`, and the path of the weights."""
    segmenter = Segmenter.from_pretrained(weights, cfg, device="cpu")  # do they fit the config?
    source = resolve(weights)
    iteration = _iteration(source)
    measured: Mapping[str, Any] = {}
    data = cfg.val_dataset or cfg.train_dataset
    split = str(data.get("mode", "val"))
    if metrics is not None:
        measured, split = _of_evaluation(Path(metrics))
    elif iteration is not None and (file := file_of_run(source, "metrics.jsonl")):
        lines = [line for line in read_history(file) if line["phase"] == "eval"]
        measured = next((line for line in lines if line["step"] == iteration), {})
    elif (model := model_of(weights)) and model.miou is not None:
        measured = {"miou": model.miou}
    kept = {key: measured[key] for key in (*_NUMBERS, "images", "class_iou") if key in measured}
    return {
        "format": FORMAT,
        "name": name,
        "weights": source,
        "class_names": list(map(str, segmenter.class_names)),
        "palette": segmenter.palette.tolist(),
        "scales": sorted({scale for scale, _ in cfg.test_config.views()}),
        "data": f"{data['type']} {split}",
        "iteration": iteration,
        "metrics": kept,
        "chosen": metrics is None and source.parent.name == "best",
        "versions": versions("paddle"),
    }


def _iteration(weights: Path) -> Optional[int]:
    """That of a checkpoint; None for other weights."""
    try:
        return int(read_json(weights.with_name("manifest.json"))["iteration"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _of_evaluation(path: Path) -> tuple[Mapping[str, Any], str]:
    """Metrics and split of a file of `liteseg eval --json`."""
    try:
        content = read_json(path, 64 << 20)
        values = [*(content[key] for key in _NUMBERS), *content["class_iou"].values()]
        if not all(isinstance(value, (int, float, type(None))) for value in values):
            raise ValueError("a metric is no number")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not the metrics of `liteseg eval --json` ({error!r})") from None
    return content, str(content.get("split", "val"))


def _write(folder: Path, about: dict[str, Any], cfg: CheckedConfig) -> None:
    """Write the files of a pack."""
    source = about["weights"]
    shutil.copyfile(source, folder / WEIGHTS_NAME)
    changes = [f"{key}={json.dumps(value)}" for key, value in _machine_paths(cfg.source.data)]
    if cfg.plugins:
        copies = copy_plugins(cfg.plugins, cfg.path.parent, folder / "plugins")
        changes.append(f"plugins={json.dumps(copies)}")
    for key in ("train_dataset", "val_dataset"):
        if "colours" in (getattr(cfg, key) or {}):
            changes.append(f"{key}.class_names={json.dumps(about['class_names'])}")
            changes.append(f"{key}.palette={json.dumps(about['palette'])}")
    text = f"# the config of {about['name']}\n{redacted(cfg.source.changed(changes).dump())}"
    (folder / "config.yml").write_text(text, encoding="utf-8")
    (folder / "README.md").write_text(_card(about, cfg, sha256_of(source)), encoding="utf-8")
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    files = {name: sha256_of(folder / name) for name in names}
    write_json(folder / NAME, {**about, "weights": WEIGHTS_NAME, "files": files})


def _machine_paths(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(key path, replacement) of the values that are of use on one machine only."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        here = f"{path}.{key}" if path else str(key)
        if isinstance(item, (dict, list)):
            yield from _machine_paths(item, here)
        elif isinstance(item, str) and key in ("pretrained", "pack"):
            yield here, None
        elif isinstance(item, str) and _is_machine_path(item):
            place = Path(item).name
            yield here, f"data/{place}" if key == "dataset_root" else place


def _is_machine_path(text: str) -> bool:
    parts = PurePosixPath(text).parts
    return len(parts) > 1 and (parts[0] in ("/", "~") or ".." in parts or parts[0][0] == "~")


def _card(about: Mapping[str, Any], cfg: CheckedConfig, sha256: str) -> str:
    """The model card, in Markdown."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("liteseg.report", "."),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters["percent"] = lambda value: "-" if value is None else f"{100 * value:.1f} %"
    environment.filters["cell"] = lambda text: safe(text).replace("|", "\\|").replace("\n", " ")
    ious = about["metrics"].get("class_iou", {})
    config = cfg.source.data
    return environment.get_template("model_card.md.jinja").render(
        **about,
        sha256=sha256,
        config=config,
        initial=_initial(about["weights"], config["model"]),
        ious=ious,
        weak=[name for name, iou in ious.items() if iou is not None and iou < _WEAK_IOU],
        train=cfg.train_dataset,
        root=PurePosixPath(str(cfg.train_dataset.get("dataset_root") or "")).name,
    )


def _initial(weights: Path, model: Mapping[str, Any]) -> str:
    """The weights that the training of a checkpoint started from."""
    log = file_of_run(weights, "train.log")
    if log is not None:
        text = read_regular(log, 256 << 20).decode(errors="replace")
        found = re.findall(r" weights: \d+ arrays from (\S+?)[;:]?(?= |$)", text, re.MULTILINE)
        return ", ".join(map(_short, dict.fromkeys(found))) or "random"
    backbone = model.get("backbone") or {}
    return _short(str(model.get("pretrained") or backbone.get("pretrained") or "not recorded"))


def _short(path: str) -> str:
    """The name of weights: that of their run, or of their file."""
    parts = PurePosixPath(redacted(path)).parts
    folders = [part for part in parts[:-1] if part not in ("checkpoints", "best", "last")]
    return folders[-1] if parts[-1] == WEIGHTS_NAME and folders else parts[-1]


def _archive(file: IO[bytes], suffix: str, name: str, folder: Path) -> None:
    """Write the files below `folder` as `name/...`, without owner and time: equal in, equal out.

    Weights hardly compress, so the level is the fastest one.
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    members = [(path, f"{name}/{path.relative_to(folder).as_posix()}") for path in paths]
    if suffix == ".zip":
        with zipfile.ZipFile(file, "w", compresslevel=1) as packed:
            for path, member in members:
                info = zipfile.ZipInfo(member)  # of 1980
                info.compress_type = zipfile.ZIP_DEFLATED
                info.external_attr = 0o644 << 16
                packed.writestr(info, path.read_bytes())
        return
    compressed = gzip.GzipFile("", "wb", 1, file, mtime=0) if suffix != ".tar" else file
    with tarfile.open(fileobj=compressed, mode="w") as tar:
        for path, member in members:
            entry = tarfile.TarInfo(member)
            entry.size = path.stat().st_size
            with open(path, "rb") as content:
                tar.addfile(entry, content)
    if compressed is not file:
        compressed.close()
