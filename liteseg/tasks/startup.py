"""The start of a training: sample checks, log lines, and the config of the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional

import paddle

from liteseg.config.load import load_config
from liteseg.config.resolve import with_defaults
from liteseg.config.schema import CheckedConfig
from liteseg.datasets import SegmentationDataset, check_dataset
from liteseg.engine.checkpoint import ResumeState
from liteseg.engine.trainer import Trainer
from liteseg.errors import UserError
from liteseg.losses import OhemCrossEntropyLoss
from liteseg.utils.files import atomic_write
from liteseg.utils.logging import get_logger
from liteseg.utils.runtime import cpu_threads, world_size

_SAMPLES_CHECKED = 16  # of each dataset
_PROBLEMS_SHOWN = 3
_OHEM_SHARE = 1 / 16  # min_kept / pixels of a device's batch, in every published recipe


def check_samples(**datasets: Optional[SegmentationDataset]) -> None:
    """Read a few samples of each dataset, so that common errors show within seconds.

    Args:
        datasets: by their config key; None is skipped.

    Raises:
        UserError: a sample cannot be read, or has no label.
    """
    for key, dataset in datasets.items():
        if dataset is None:
            continue
        report = check_dataset(dataset, sample=_SAMPLES_CHECKED, progress=False, needs_labels=True)
        if report["errors"]:
            shown = "\n  ".join(error["problem"] for error in report["errors"][:_PROBLEMS_SHOWN])
            raise UserError(
                f"{key}: {len(report['errors'])} of {report['checked']} samples tried would break "
                f"training (`liteseg data check` checks all of them):\n  {shown}"
            )
        for warning in report["warnings"]:
            if warning not in dataset.notes:  # logged when the dataset was built
                get_logger().warning(f"{key}: {warning}")


def log_start(
    cfg: CheckedConfig, trainer: Trainer, device: str, resumed: Optional[ResumeState]
) -> None:
    """Log what trains on which devices, how the total batch size follows, and changed values."""
    options, devices = trainer.options, world_size()
    log = get_logger().info
    log(
        f"{cfg.path} on {devices} {device} process(es), Paddle {paddle.__version__}, "
        f"{cpu_threads()} CPU threads, {options.num_workers} worker process(es) each"
    )
    log(
        f"{len(trainer.dataset)} training images; batch {devices} devices x {options.batch_size} x "
        f"{options.accumulate} accumulated = {options.total_batch_size} images per iteration; "
        f"{options.iters} iterations = "
        f"{options.iters * options.total_batch_size / len(trainer.dataset):.1f} epochs"
    )
    if devices > 1 and device == "cpu":
        log("batch norm uses each process's own images: Paddle has no SyncBatchNorm on CPU")
    _check_hard_pixels(trainer)
    for change in config_changes(with_defaults(load_config(cfg.path)).data, cfg.source.data):
        log(f"changed from {cfg.path.name}: {change}")
    warmup = cfg.lr_scheduler.get("warmup_iters", 0)
    if warmup >= options.iters:
        get_logger().warning(
            f"lr_scheduler.warmup_iters: {warmup} of {options.iters} iterations: all of the "
            "training is warm-up, and the learning rate stays below lr_scheduler.learning_rate"
        )
    if resumed:
        log(f"resumed from {resumed.path} after iteration {trainer.iteration}")


def _check_hard_pixels(trainer: Trainer) -> None:
    """Warn where OHEM's `min_kept` is far from the recipes' share of a device's batch.

    `min_kept` is a number of pixels, so another batch or crop size changes the loss.
    """
    ohem = [
        (name, layer.min_kept)
        for name, loss, _ in trainer.losses
        for layer in loss.sublayers(include_self=True)
        if isinstance(layer, OhemCrossEntropyLoss) and layer.min_kept_ratio is None
    ]
    if not ohem:
        return
    height, width = trainer.dataset[0]["img"].shape[:2]
    batch = trainer.options.batch_size
    pixels = batch * height * width
    for name, min_kept in ohem:
        if min_kept and not 0.8 <= min_kept / pixels / _OHEM_SHARE <= 1.25:
            get_logger().warning(
                f"{name}: min_kept {min_kept} is {min_kept / pixels:.1%} of the {pixels} pixels of "
                f"a device's batch ({batch} x {width}x{height}); the recipes keep "
                f"{_OHEM_SHARE:.2%}: min_kept {pixels * _OHEM_SHARE:.0f}, or "
                f"min_kept_ratio {_OHEM_SHARE} for any batch and crop"
            )


def write_config(cfg: CheckedConfig, output: Path, resume: bool) -> None:
    """Write `config.yml` of the run; when resuming, log the values that changed."""
    path = output / "config.yml"
    if resume and path.exists():
        for change in config_changes(with_defaults(load_config(path)).data, cfg.source.data):
            get_logger().warning(f"changed on resuming: {change}")
    with atomic_write(path, "w") as file:
        file.write(cfg.dump())


def config_changes(before: Any, after: Any) -> list[str]:
    """`key.path: old -> new` of every value that differs between two configs."""
    old, new = _leaves(before), _leaves(after)
    return [
        f"{key}: {old.get(key, 'not set')} -> {new.get(key, 'not set')}"
        for key in {**old, **new}
        if old.get(key) != new.get(key)
    ]


def _leaves(value: Any, path: str = "") -> dict[str, Any]:
    """{"a.b.0": scalar} of nested dicts and lists."""
    if not isinstance(value, (dict, list)):
        return {path: value}
    leaves: dict[str, Any] = {}
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        leaves.update(_leaves(item, f"{path}.{key}" if path else str(key)))
    return leaves


def hyperparameters(cfg: CheckedConfig) -> dict[str, Any]:
    """The row of a run in VisualDL's table of hyperparameters."""
    return {
        "config": cfg.path.stem,
        "model": f"{cfg.model['type']}/{cfg.model.get('backbone', {}).get('type')}",
        "optimizer": cfg.optimizer["type"],
        "learning_rate": cfg.lr_scheduler.get("learning_rate", 0.0),
        "batch": cfg.total_batch_size or cfg.batch_size,
        "iters": cfg.iters,
        "loss": cfg.loss.types[0]["type"],
    }
