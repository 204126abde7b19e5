"""Training: from a config to a run directory with checkpoints, metrics, curves and a report.

`train` sets the run up, trains, and closes the run. `build_trainer` assembles model, losses,
optimizer and data for training loops of one's own.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Optional, Union

import paddle

from liteseg.config.build import build_dataset, build_losses, build_model, build_optimizer
from liteseg.config.check import AnyConfig, load_checked
from liteseg.config.schema import CheckedConfig
from liteseg.datasets import SegmentationDataset, check_samples, count_label_pixels
from liteseg.engine.checkpoint import Checkpointer
from liteseg.engine.evaluator import evaluate
from liteseg.engine.hooks import (
    Checkpoint,
    CompareWeights,
    EarlyStop,
    Evaluate,
    KeepBest,
    StopOnSignal,
    best_evaluation,
)
from liteseg.engine.parameter_groups import freeze
from liteseg.engine.trainer import Hook, Trainer, TrainOptions
from liteseg.engine.workers import clear_shared_memory
from liteseg.engine.writers import Dashboard, Log, MetricsFile, WriteReport
from liteseg.errors import UserError
from liteseg.ops.device import (
    make_deterministic,
    require_amp,
    search_cudnn_algorithms,
    seed_everything,
    select_device,
)
from liteseg.ops.exclusive import exclusive
from liteseg.report.gallery import Gallery
from liteseg.report.report import write_run_report
from liteseg.tasks.agreement import require_same_setup, shared_errors
from liteseg.tasks.launch import connect, launch
from liteseg.tasks.run_config import config_name, hyperparameters, write_config
from liteseg.tasks.runs import (
    Weights,
    load_found,
    load_to_fine_tune,
    require_own_output,
    resumes,
    run_directory,
)
from liteseg.tasks.start_log import log_start
from liteseg.utils.files import locked, remove_leftovers
from liteseg.utils.logging import get_logger, log_file
from liteseg.utils.runtime import (
    cpu_threads,
    from_main,
    is_main,
    local_rank,
    local_size,
    node_count,
    world_size,
)
from liteseg.utils.text import redacted


@dataclass(frozen=True)
class TrainResult:
    """The outcome of a training.

    Attributes:
        output: the run directory; accepted as weights everywhere (its best checkpoint).
        iteration: number of the last iteration.
        best_miou: highest mIoU of an evaluation, 0 to 1; None if there was no evaluation.
        best_iteration: the iteration of that evaluation.
        stop_reason: why training ended before `iters`; None if it is complete.
    """

    output: Path
    iteration: int
    best_miou: Optional[float]
    best_iteration: int
    stop_reason: Optional[str]


def train(
    cfg: Optional[AnyConfig] = None,
    *,
    overrides: Sequence[str] = (),
    output: Union[str, Path, None] = None,
    resume: Union[bool, str, Path] = False,
    weights: Optional[Weights] = None,
    hooks: Sequence[Hook] = (),
    devices: int = 1,
    compare_weights: Optional[int] = None,
) -> TrainResult:
    """Train a model, or resume a training, and write a run directory.

    The run directory contains `config.yml`, `train.log`, `metrics.jsonl`, `report.html`, `vdl/` and
    `checkpoints/`. Ctrl-C and SIGTERM save a checkpoint and end the training early.

    Args:
        cfg: a YAML file, the name of a shipped config, or a loaded config. When resuming, the
            `config.yml` of the run by default.
        overrides: `key=value` changes of the config, for example `iters=100`.
        output: the run directory; by default `output/<name of the config>`.
        resume: True to resume the run in `output`, "auto" to do so if there is one, the run
            directory to resume, or one of its checkpoints: later ones are then moved to
            `replaced_<n>` in the run directory.
        weights: file, archive, URL or run directory to start from (fine-tuning).
        hooks: called after the built-in hooks, except that the checkpoint is saved last.
        devices: number of processes: one per GPU, or CPU processes where there is no GPU.
        compare_weights: for debugging: check every N iterations that all processes have the same
            weights.

    Raises:
        UserError: the config or the data has errors, `output` contains another run, or the loss
            becomes NaN or infinite.
    """
    if devices < 1:
        raise UserError(f"--devices: {devices} is not a number of processes; give 1 or more")
    with shared_errors():
        output, chosen = run_directory(cfg, output, resume)
        resume = is_main() and resumes(output, resume)  # checkpoints are those of its machine
        found = output / "config.yml"
        if cfg is None and not found.exists():
            raise UserError(f"{found} is not on this machine, so give --config there")
        cfg = load_found(found, overrides) if cfg is None else load_checked(cfg, overrides)
        require_own_output(output, cfg, resume)
        if chosen is not None and is_main():
            with locked(output):
                Checkpointer(output / "checkpoints").rewind(chosen)
    options: dict[str, Any] = {"output": output, "resume": resume, "weights": weights}
    options["compare_weights"] = compare_weights
    if devices > 1 and world_size() == 1:
        if hooks:
            raise UserError("hooks: they cannot be sent to other processes; train with devices=1")
        return _train_in_processes(cfg, devices, **options)
    with _sole_writer(output), log_file(output / "train.log"):
        return _train(cfg, hooks=hooks, **options)


@exclusive
def _train(
    cfg: CheckedConfig,
    *,
    output: Path,
    resume: bool,
    weights: Optional[Weights],
    hooks: Sequence[Hook],
    compare_weights: Optional[int],
) -> TrainResult:
    """Set up, train, and close the run, in this process."""
    device = set_up_device(cfg)
    checkpointer = Checkpointer(output / "checkpoints", cfg.keep_checkpoints)
    checkpoint = from_main(lambda: checkpointer.load_last() if resume else None)
    train_set, val_set = _build_datasets(cfg)
    given = None if checkpoint else weights
    trainer = build_trainer(cfg, train_set, device, given, pretrained=checkpoint is None)

    # -1: nothing that a run wrote before its first checkpoint is kept.
    since = (checkpoint.iteration, checkpoint.owes_evaluation) if checkpoint else (-1, False)
    metrics_file = MetricsFile(output / "metrics.jsonl", *since) if is_main() else None
    dashboard = Dashboard(output / "vdl", *since) if is_main() else None
    trainer.hooks = [
        StopOnSignal(),
        *([CompareWeights(compare_weights)] if compare_weights else []),
        Log(cfg.log_interval, metrics_file, dashboard),
    ]
    gallery: Any = Gallery(val_set, cfg.num_pictures) if val_set else None
    write_page = functools.partial(write_run_report, output, cfg.dump(), gallery)
    if val_set:
        # One image, so that transforms, network and labels that do not fit fail before training.
        evaluate(
            trainer.model,
            val_set,
            cfg.test_config,
            losses=trainer.losses[:1],
            progress=False,
            limit=1,
        )
        trainer.hooks += [
            Evaluate(
                cfg.eval_interval,
                val_set,
                cfg.test_config,
                [gallery],
                batch_size=cfg.eval_batch_size,
                num_workers=trainer.options.num_workers,
            ),
            EarlyStop(**(vars(cfg.early_stop) if cfg.early_stop else {})),
            KeepBest(checkpointer),
            WriteReport(metrics_file, dashboard, gallery.panels, write_page),
        ]
    trainer.hooks += [*hooks, Checkpoint(checkpointer, cfg.save_interval)]

    if checkpoint:
        trainer.load_state_dict(checkpoint.weights, checkpoint.state)
    elif dashboard:
        dashboard.text(0, "config", redacted(cfg.dump()))
    name = config_name(cfg)
    if is_main():
        write_config(cfg, output, train_set, name, resume=checkpoint is not None)
    log_start(cfg, trainer, device, checkpoint)
    trainer.run()

    if dashboard:
        if not val_set:  # otherwise each evaluation writes it
            write_page()
        dashboard.hparams({"config": name, **hyperparameters(cfg)}, "val/best_miou")
        dashboard.close()
    return _result(trainer, output)


def _build_datasets(
    cfg: CheckedConfig,
) -> tuple[SegmentationDataset, Optional[SegmentationDataset]]:
    """The datasets to train on and to evaluate on, which all processes have."""
    with shared_errors():
        train_set = build_dataset(cfg, "train")
        val_set = build_dataset(cfg, "val") if cfg.val_dataset else None
        check_samples(cfg.batch_size, train_dataset=train_set, val_dataset=val_set)
    require_same_setup(cfg, train_dataset=train_set, val_dataset=val_set)
    return train_set, val_set


def build_trainer(
    cfg: AnyConfig,
    train_set: SegmentationDataset,
    device: str,
    weights: Optional[Weights] = None,
    pretrained: bool = True,
) -> Trainer:
    """Build the trainer of a config, without hooks.

    Args:
        cfg: a config.
        train_set: the dataset to train on.
        device: `cpu` or `gpu`, Paddle's current device.
        weights: file, archive, URL or run directory to start from.
        pretrained: without weights, load those that the config names `pretrained`.

    Raises:
        UserError: the config has errors, or the weights do not fit.
    """
    cfg = load_checked(cfg)
    if cfg.init_classes and pretrained and not weights:
        weights = cfg.model.get("pretrained")
    # On several machines only the main process reads weights; `Trainer` sends them to the others.
    reads = is_main() or node_count() == 1
    with shared_errors():
        options = training_options(cfg, device)
        model = build_model(cfg, pretrained and not weights and reads)
        if weights and reads:
            load_to_fine_tune(model, weights, train_set.classes, cfg.init_classes)
        losses = build_losses(
            cfg,
            _count_outputs(model, len(getattr(train_set, "bands", None) or "RGB")),
            lambda: count_label_pixels(train_set),
            train_set.ignore_index,
        )
    if world_size() > 1 and device == "gpu":
        model = paddle.nn.SyncBatchNorm.convert_sync_batchnorm(model)
    frozen = freeze(model, cfg.freeze or ())
    trained = {name: p for name, p in model.named_parameters() if not p.stop_gradient}
    optimizer, _ = build_optimizer(cfg, list(trained.values()), list(trained))
    return Trainer(model, train_set, losses, optimizer, replace(options, frozen=frozen))


def training_options(cfg: CheckedConfig, device: str) -> TrainOptions:
    """Batch arithmetic, worker processes, mixed precision and EMA of a config on this machine.

    Raises:
        UserError: the batch sizes do not divide, or the GPU lacks the precision of `amp`.
    """
    batch, devices = cfg.batch_size, world_size()
    total = cfg.total_batch_size or batch * devices
    if total % (batch * devices):
        raise UserError(
            f"total_batch_size: {total} is not a multiple of {devices} devices x batch_size {batch}"
            f" = {batch * devices}; change batch_size or --devices"
        )
    amp, ema = cfg.amp, cfg.ema
    if amp and device == "cpu":
        get_logger().warning("amp: Paddle has no mixed precision on CPU; training in float32")
        amp = None
    if amp:
        require_amp(amp.dtype)
    # With a GPU the cores are free to load data; on CPU one worker keeps up with the network.
    workers = min(8, max(1, cpu_threads() // local_size())) if device == "gpu" else 1
    return TrainOptions(
        iters=cfg.iters,
        batch_size=batch,
        accumulate=total // (batch * devices),
        seed=cfg.seed or 0,
        num_workers=workers if cfg.num_workers == "auto" else cfg.num_workers,
        amp=vars(amp) if amp else None,
        ema_decay=ema.decay if ema else None,
    )


def set_up_device(cfg: CheckedConfig) -> str:
    """Select `cpu` or `gpu`, connect to the other processes, and seed everything."""
    device = select_device(cfg.device)
    if world_size() > 1 and device == "cpu" and "FLAGS_selected_gpus" in os.environ:
        raise UserError(
            "device: cpu, and Paddle's launcher has selected GPUs; hide them from it with "
            "CUDA_VISIBLE_DEVICES= (empty)"
        )
    if cfg.deterministic:
        get_logger().info(make_deterministic(device))
    if cfg.cudnn_exhaustive_search and device == "gpu":
        search_cudnn_algorithms()
    if world_size() > 1:
        connect()
    seed_everything(cfg.seed or 0)
    return device


def _train_in_processes(cfg: CheckedConfig, devices: int, **arguments: Any) -> TrainResult:
    """Call `train` in several processes with these arguments."""
    for split in ("train", "val"):  # an error here is reported once, not by every process
        if getattr(cfg, f"{split}_dataset"):
            build_dataset(cfg, split)
    return launch(
        train,
        {"cfg": cfg.source, "devices": devices, **arguments},
        devices=devices,
        device=cfg.device,
        logs=arguments["output"] / "launch",
        name="train",
        advice=functools.partial(_resume_advice, arguments["output"]),
    )


def _resume_advice(output: Path) -> str:
    if not (output / "checkpoints").exists():
        return "There is no checkpoint yet."
    return "Resume from the last checkpoint with --resume, on any number of --devices."


@contextlib.contextmanager
def _sole_writer(output: Path) -> Iterator[None]:
    """No other training writes to `output` within the block; removes what a killed one left."""
    if local_rank() == 0:
        clear_shared_memory()
    if not is_main():
        yield
        return
    with locked(output):
        remove_leftovers(output, "config.yml", "metrics.jsonl", "report.html", "writable")
        remove_leftovers(output / "vdl", "vdlrecords.*")
        yield


def _count_outputs(model: paddle.nn.Layer, channels: int) -> int:
    """The number of outputs of the model in training."""
    model.eval()
    with paddle.no_grad():
        # All heads run in training mode only; batch norm in eval mode keeps its statistics.
        model.training = True
        count = len(model(paddle.zeros([1, channels, 64, 64])))
    model.train()
    return count


def _result(trainer: Trainer, output: Path) -> TrainResult:
    best, best_iteration = best_evaluation(trainer)
    evaluated = math.isfinite(best)
    get_logger().info(
        f"{trainer.stop_reason or 'finished'} at iteration {trainer.iteration}; "
        f"{f'best mIoU {best:.4f}' if evaluated else 'never evaluated'}; {output}"
    )
    miou = best if evaluated else None
    return TrainResult(output, trainer.iteration, miou, best_iteration, trainer.stop_reason)
