"""What `liteseg train` does before the first step: tries the data, says what trains, keeps it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import paddle

from liteseg.config.load import load_config
from liteseg.config.resolve import with_defaults
from liteseg.datasets import check_dataset
from liteseg.errors import UserError
from liteseg.losses import OhemCrossEntropyLoss
from liteseg.utils.files import atomic_write
from liteseg.utils.logging import get_logger
from liteseg.utils.runtime import cpu_threads, world_size

_PROBED = 16  # samples of a dataset that are read before training
_PROBLEMS_SHOWN = 3
_OHEM_SHARE = 1 / 16  # of a batch's pixels: what min_kept is in every published recipe


def probe(**datasets: Any) -> None:
    """Read a few samples of each dataset now: what is wrong with all of them shows in seconds.

    Raises:
        UserError: a sample can't be read, or has no label.
    """
    for key, dataset in datasets.items():
        if dataset is None:
            continue
        report = check_dataset(dataset, sample=_PROBED, progress=False, needs_labels=True)
        if report["errors"]:
            told = "\n  ".join(error["problem"] for error in report["errors"][:_PROBLEMS_SHOWN])
            raise UserError(
                f"{key}: {len(report['errors'])} of {report['checked']} samples tried would break "
                f"training (the command `data check` tries all of them):\n  {told}"
            )
        for warning in report["warnings"]:
            if warning not in dataset.notes:  # said when it was built
                get_logger().warning(f"{key}: {warning}")


def announce(cfg: Any, trainer: Any, device: str, loaded: Any) -> None:
    """The start-up lines: what trains, on what, and how the total batch comes about."""
    options, devices = trainer.options, world_size()
    say = get_logger().info
    say(
        f"{cfg.path} on {devices} {device} process(es), Paddle {paddle.__version__}, "
        f"{cpu_threads()} CPU threads, {options.num_workers} reader(s) each"
    )
    say(
        f"{len(trainer.dataset)} training images; batch {devices} devices x {options.batch_size} x "
        f"{options.accumulate} accumulated = {options.total_batch_size} images a step; "
        f"{options.iters} steps = "
        f"{options.iters * options.total_batch_size / len(trainer.dataset):.1f} epochs"
    )
    if devices > 1 and device == "cpu":
        say("batch norm uses each process's own images: Paddle has no SyncBatchNorm on CPU")
    _announce_hard_pixels(trainer)
    for change in changes(with_defaults(load_config(cfg.path)).data, cfg.source.data):
        say(f"changed from {cfg.path.name}: {change}")
    warm_up = cfg.lr_scheduler.get("warmup_iters", 0)
    if warm_up >= options.iters:
        get_logger().warning(
            f"lr_scheduler.warmup_iters: {warm_up} of {options.iters} steps: the whole training is "
            "warm-up, and the learning rate stays below lr_scheduler.learning_rate"
        )
    if loaded:
        say(f"resumed from {loaded.path} after iteration {trainer.iteration}")


def _announce_hard_pixels(trainer: Any) -> None:
    """Warn where OHEM's `min_kept` is far from the recipes' share of a device's batch.

    It counts pixels, so another batch or crop size makes it another loss.
    """
    counting = [
        (name, layer.min_kept)
        for name, loss, _ in trainer.losses
        for layer in loss.sublayers(include_self=True)
        if isinstance(layer, OhemCrossEntropyLoss) and layer.min_kept_ratio is None
    ]
    if not counting:
        return
    height, width = trainer.dataset[0]["img"].shape[:2]
    batch = trainer.options.batch_size
    pixels = batch * height * width
    for name, min_kept in counting:
        if min_kept and not 0.8 <= min_kept / pixels / _OHEM_SHARE <= 1.25:
            get_logger().warning(
                f"{name}: min_kept {min_kept} is {min_kept / pixels:.1%} of the {pixels} pixels of "
                f"a device's batch ({batch} x {width}x{height}); the recipes keep "
                f"{_OHEM_SHARE:.2%}: min_kept {pixels * _OHEM_SHARE:.0f}, or "
                f"min_kept_ratio {_OHEM_SHARE} for any batch and crop"
            )


def write_config(cfg: Any, output: Path, resume: bool) -> None:
    """`config.yml` of the run; says what a resume changes."""
    path = output / "config.yml"
    if resume and path.exists():
        for change in changes(with_defaults(load_config(path)).data, cfg.source.data):
            get_logger().warning(f"changed on resuming: {change}")
    with atomic_write(path, "w") as file:
        file.write(cfg.dump())


def changes(before: Any, after: Any) -> list[str]:
    """`key.path: old -> new` of every value that differs between two configs."""
    old, new = _leaves(before), _leaves(after)
    return [
        f"{key}: {old.get(key, 'not there')} -> {new.get(key, 'not there')}"
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


def hparams(cfg: Any) -> dict[str, Any]:
    """What tells runs apart in VisualDL's table."""
    return {
        "config": cfg.path.stem,
        "model": f"{cfg.model['type']}/{cfg.model.get('backbone', {}).get('type')}",
        "optimizer": cfg.optimizer["type"],
        "learning_rate": cfg.lr_scheduler.get("learning_rate", 0.0),
        "batch": cfg.total_batch_size or cfg.batch_size,
        "iters": cfg.iters,
        "loss": cfg.loss.types[0]["type"],
    }
