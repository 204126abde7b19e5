"""`config.yml` of a run: every value, usable in another folder and on another machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from liteseg.config.defaults import with_defaults
from liteseg.config.load import load_config
from liteseg.config.plugins import copy_plugins
from liteseg.config.schema import CheckedConfig
from liteseg.datasets import SegmentationDataset
from liteseg.utils.files import atomic_write, read_regular
from liteseg.utils.logging import get_logger
from liteseg.utils.text import redacted, safe

_HEAD = "# every value of the config "


def config_name(cfg: CheckedConfig) -> str:
    """The name of the config that the run, or the run whose config this is, was started with."""
    first = read_regular(cfg.path).decode().partition("\n")[0] if cfg.path.exists() else ""
    name = first[len(_HEAD) :] if first.startswith(_HEAD) else cfg.path.stem
    return " ".join(safe(name).split())


def write_config(
    cfg: CheckedConfig, output: Path, train_set: SegmentationDataset, name: str, resume: bool
) -> None:
    """Write `config.yml` of the run; when resuming, log the values that changed.

    Plugins are copied, and class names that a color file gives are written, so that the run can be
    used in another folder and on another machine.
    """
    path = output / "config.yml"
    changes = []
    if cfg.plugins:
        copies = copy_plugins(cfg.plugins, cfg.path.parent, output / "plugins")
        changes.append(f"plugins={json.dumps(copies)}")
    for key in ("train_dataset", "val_dataset"):
        if (getattr(cfg, key) or {}).get("colours") and "class_names" in cfg.source[key]:
            changes.append(f"{key}.class_names={json.dumps(train_set.classes)}")
            changes.append(f"{key}.palette={json.dumps(train_set.palette.tolist())}")
    source = cfg.source.changed(changes)
    if resume and path.exists():
        for change in with_defaults(load_config(path)).changes(source):
            get_logger().warning(f"changed on resuming: {change}")
    with atomic_write(path, "w") as file:
        file.write(f"{_HEAD}{name}\n{redacted(source.dump())}")


def hyperparameters(cfg: CheckedConfig) -> dict[str, Any]:
    """The row of a run in VisualDL's table of hyperparameters."""
    return {
        "model": f"{cfg.model['type']}/{cfg.model.get('backbone', {}).get('type')}",
        "optimizer": cfg.optimizer["type"],
        "learning_rate": cfg.lr_scheduler.get("learning_rate", 0.0),
        "batch": cfg.total_batch_size or cfg.batch_size,
        "iters": cfg.iters,
        "loss": cfg.loss.types[0]["type"],
    }
