"""Train a model from a config.

liteseg train --config configs/quickstart.yml --output output/quickstart
liteseg train --config output/quickstart/config.yml --resume output/quickstart
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Optional

from liteseg.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `liteseg train`."""
    parser.add_argument("--config", help="YAML file (the run's own with --resume DIR)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change a config value"
    )
    parser.add_argument("--output", metavar="DIR", help="run directory (output/<config name>)")
    parser.add_argument("--devices", type=int, default=1, metavar="N", help="processes to train in")
    parser.add_argument(
        "--resume",
        nargs="?",
        const="",
        metavar="DIR",
        help="go on with the run in DIR (default: in --output)",
    )
    parser.add_argument("--weights", metavar="W", help="file, run or URL to start from (fine-tune)")
    parser.add_argument("--seed", type=int, help="overrides the config's seed")


def run(args: argparse.Namespace) -> int:
    """Check everything, then train here or in `--devices` processes."""
    from liteseg.builder import build_dataset, ensure
    from liteseg.config import load_config
    from liteseg.schema import setting
    from liteseg.utils.files import check_writable
    from liteseg.utils.runtime import world_size

    output = _output(args)
    seed = [] if args.seed is None else [f"seed={args.seed}"]
    cfg = load_config(args.config or output / "config.yml", [*args.set, *seed])
    ensure(cfg)
    check_writable(output)
    if args.devices > 1 and world_size() == 1:
        for split in ("train", "val"):  # one message here, rather than one from each process
            if setting(cfg, f"{split}_dataset"):
                build_dataset(cfg, split)
        return _launch(args.devices, output, args.argv)
    return _train(cfg, output, resume=args.resume is not None, weights=args.weights)


def _output(args: argparse.Namespace) -> Path:
    """The run directory; refuses one that holds another run."""
    if not args.config and not args.resume:
        raise UserError(
            "--config is missing: give a YAML file, or --resume DIR to go on with a run"
        )
    if args.devices < 1:
        raise UserError(f"--devices: {args.devices} is not a number of processes; give 1 or more")
    if args.resume and args.output and Path(args.resume) != Path(args.output):
        raise UserError(
            f"--resume {args.resume} and --output {args.output} differ: a run goes on in its own "
            "directory; leave --output out"
        )
    output = Path(args.resume or args.output or Path("output") / Path(args.config).stem)
    started = (output / "checkpoints").is_dir()
    if args.resume is not None and not started:
        raise UserError(f"--resume: {output} holds no run with checkpoints; start it without")
    if args.resume is None and started:
        raise UserError(
            f"{output} already holds a run: give --resume to go on with it, or another --output"
        )
    return output


def _launch(devices: int, output: Path, argv: list[str]) -> int:
    """Start this same command in several processes; the child processes come back to `_train`."""
    command = [sys.executable, "-m", "paddle.distributed.launch", f"--nproc_per_node={devices}"]
    package = Path(__file__).resolve().parents[1]
    command += ["--log_dir", str(output / "launch"), str(package / "__main__.py"), *argv]
    # The launcher runs a file, which finds the package only if that is installed or on the path.
    path = os.pathsep.join([str(package.parent), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(command, check=False, env={**os.environ, "PYTHONPATH": path}).returncode


def _train(cfg: Any, output: Path, resume: bool, weights: Optional[str]) -> int:
    import paddle

    from liteseg.cli.startup import announce, hparams, write_config
    from liteseg.engine.checkpoint import Checkpointer
    from liteseg.schema import setting
    from liteseg.utils.logging import get_logger, setup_logging
    from liteseg.utils.runtime import is_main, seed_everything, select_device, world_size

    device = select_device(setting(cfg, "device"))
    if world_size() > 1:
        paddle.distributed.init_parallel_env()
    setup_logging(output / "train.log")
    seed_everything(setting(cfg, "seed") or 0)
    checkpointer = Checkpointer(output / "checkpoints", setting(cfg, "keep_checkpoints"))
    loaded = checkpointer.load_last() if resume else None
    trainer, dashboard = _assemble(cfg, output, device, checkpointer, weights, loaded)
    if is_main():
        write_config(cfg, output, resume)
    announce(cfg, trainer, device, loaded)
    trainer.run()
    if is_main():
        best = max(getattr(hook, "best", -math.inf) for hook in trainer.hooks)
        get_logger().info(
            f"{trainer.stop_reason or 'finished'} at step {trainer.iteration}; "
            f"{f'best mIoU {best:.4f}' if best >= 0 else 'never evaluated'}; {output}"
        )
        dashboard.hparams(hparams(cfg), "val/best_miou")
        dashboard.close()
    return 0


def _assemble(cfg, output, device, checkpointer, weights, loaded) -> tuple[Any, Any]:
    """The trainer of a config, continued from `loaded` if there is one; and the dashboard."""
    from liteseg.builder import build_dataset, build_losses, build_model, build_optimizer
    from liteseg.cli.startup import probe
    from liteseg.datasets import class_frequencies, class_weights
    from liteseg.engine.hooks import Checkpoint, Evaluate, Log, StopOnSignal
    from liteseg.engine.inference import TestConfig
    from liteseg.engine.trainer import Trainer
    from liteseg.engine.writers import Dashboard, MetricsFile
    from liteseg.schema import setting
    from liteseg.utils.runtime import is_main
    from liteseg.utils.weights import load_weights

    train_set = build_dataset(cfg, "train")
    val_set = build_dataset(cfg, "val") if setting(cfg, "val_dataset") else None
    probe(train_dataset=train_set, val_dataset=val_set)
    options = _options(cfg, device)
    model = build_model(cfg)
    if weights:
        load_weights(model, weights, fine_tune=True)
    losses = build_losses(
        cfg, _outputs(model), lambda: class_weights(class_frequencies(train_set)).tolist()
    )
    model = _for_device(model, device)
    optimizer, _ = build_optimizer(cfg, model.parameters())
    step = loaded[2]["iteration"] if loaded else 0
    metrics = MetricsFile(output / "metrics.jsonl", step) if is_main() else None
    dashboard = Dashboard(output / "vdl") if is_main() else None
    hooks = [StopOnSignal(), Log(setting(cfg, "log_interval"), metrics, dashboard)]
    if val_set is not None:
        evaluation = Evaluate(
            setting(cfg, "eval_interval"),
            val_set,
            TestConfig.from_dict(setting(cfg, "test_config")),
            checkpointer,
            metrics,
            dashboard,
            batch_size=setting(cfg, "eval_batch_size"),
            num_workers=options.num_workers,
            pictures=setting(cfg, "num_pictures"),
            **(setting(cfg, "early_stop") or {}),
        )
        hooks.append(evaluation)
    hooks.append(Checkpoint(checkpointer, setting(cfg, "save_interval")))
    trainer = Trainer(model, train_set, losses, optimizer, options, hooks)
    if loaded:
        trainer.load_state_dict(*loaded[1:])
    elif dashboard:
        dashboard.text(0, "config", cfg.dump())
    return trainer, dashboard


def _options(cfg: Any, device: str) -> Any:
    """Batch arithmetic, workers, AMP and EMA of a config on this machine."""
    from liteseg.engine.trainer import TrainOptions
    from liteseg.schema import setting
    from liteseg.utils.logging import get_logger
    from liteseg.utils.runtime import cpu_threads, world_size

    batch, devices = setting(cfg, "batch_size"), world_size()
    total = setting(cfg, "total_batch_size") or batch * devices
    if total % (batch * devices):
        raise UserError(
            f"total_batch_size: {total} is not a multiple of {devices} devices x batch_size {batch}"
            f" = {batch * devices}; change batch_size or --devices"
        )
    amp, ema = setting(cfg, "amp"), setting(cfg, "ema")
    if amp and ema and amp["level"] == "O2":
        raise UserError("ema: can't average the low-precision weights of amp.level O2; use O1")
    if amp and device == "cpu":
        get_logger().warning("amp: Paddle has no mixed precision on CPU; training in float32")
        amp = None
    workers = setting(cfg, "num_workers")
    if workers == "auto":
        # Beside a GPU the cores are free to read; on CPU one reader keeps up with the network.
        workers = min(8, max(1, cpu_threads() // devices)) if device == "gpu" else 1
    return TrainOptions(
        iters=setting(cfg, "iters"),
        batch_size=batch,
        accumulate=total // (batch * devices),
        seed=setting(cfg, "seed") or 0,
        num_workers=workers,
        amp=amp,
        ema_decay=ema["decay"] if ema else None,
    )


def _for_device(model: Any, device: str) -> Any:
    """On GPUs batch norm over all devices, on a CPU the fast convolutions."""
    import paddle

    from liteseg.utils.onednn import accelerate_convolutions
    from liteseg.utils.runtime import world_size

    if world_size() > 1 and device == "gpu":
        model = paddle.nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return accelerate_convolutions(model)


def _outputs(model: Any) -> int:
    """How many logits the model returns in training."""
    import paddle

    model.eval()
    with paddle.no_grad():
        # The heads all run in training mode only; eval-mode batch norm leaves the statistics alone.
        model.training = True
        count = len(model(paddle.zeros([1, 3, 64, 64])))
    model.train()
    return count
