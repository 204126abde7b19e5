"""The first lines of `train.log`: what trains on which devices, with which batch."""

from __future__ import annotations

from typing import Optional

import paddle

from liteseg.config.defaults import with_defaults
from liteseg.config.load import load_config
from liteseg.config.schema import CheckedConfig
from liteseg.engine.checkpoint import ResumeState
from liteseg.engine.trainer import Trainer
from liteseg.losses import check_min_kept
from liteseg.ops.device import precision
from liteseg.tasks.rates import rates_of
from liteseg.utils.logging import get_logger
from liteseg.utils.runtime import cpu_threads, world_size


def log_start(
    cfg: CheckedConfig, trainer: Trainer, device: str, checkpoint: Optional[ResumeState]
) -> None:
    """Log what trains on which devices, how the total batch size follows, and changed values."""
    options, devices, samples = trainer.options, world_size(), len(trainer.dataset)
    log, warn = get_logger().info, get_logger().warning
    log(
        f"{cfg.path} on {devices} {device} process(es), Paddle {paddle.__version__}, "
        f"{cpu_threads()} CPU threads, {options.num_workers} worker process(es) each; precision "
        f"{precision(device, options.amp)}"
    )
    log(
        f"{samples} training images; batch {devices} devices x {options.batch_size} x "
        f"{options.accumulate} accumulated = {options.total_batch_size} images per iteration; "
        f"{options.iters} iterations = "
        f"{options.iters * options.total_batch_size / samples:.1f} epochs"
    )
    if devices > 1 and device == "cpu":
        log("batch norm uses each process's own images: Paddle has no SyncBatchNorm on CPU")
    image_size = lambda: trainer.dataset[0]["img"].shape[:2]  # noqa: E731
    for warning in check_min_kept(trainer.losses, options.batch_size, image_size):
        warn(warning)
    for change in with_defaults(load_config(cfg.path)).changes(cfg.source):
        log(f"changed from {cfg.path.name}: {change}")
    rates = rates_of(cfg, trainer.model, options.frozen)
    for line in rates if len(rates) > 2 else ():  # the header and one group: nothing to report
        log(line)
    warmup = cfg.lr_scheduler.get("warmup_iters", 0)
    if warmup >= options.iters:
        warn(
            f"lr_scheduler.warmup_iters: {warmup} of {options.iters} iterations: all of the "
            "training is warm-up, and the learning rate stays below lr_scheduler.learning_rate"
        )
    if checkpoint:
        log(f"resumed from {checkpoint.path} after iteration {trainer.iteration}")
        if trainer.iteration >= options.iters and not checkpoint.owes_evaluation:
            more = 2 * trainer.iteration
            log(
                f"the run is complete already; to train longer, give for example --set iters={more}"
            )
