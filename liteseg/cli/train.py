"""`liteseg train`: a model from a config, or the rest of an interrupted run."""

from __future__ import annotations

import argparse
import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from liteseg.cli.arguments import changes_of_config, complete, positive
from liteseg.errors import UserError
from liteseg.tasks.launch import launch, on_gpus
from liteseg.tasks.training import build_trainer
from liteseg.utils.files import check_writable, locked, remove_leftovers
from liteseg.utils.logging import setup_logging
from liteseg.utils.runtime import is_main, world_size


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `liteseg train`."""
    parser.add_argument("--config", help="YAML file (the run's own with --resume DIR)")
    changes_of_config(parser)
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
    parser.add_argument(
        "--deterministic", action="store_true", help="short for --set deterministic=true"
    )
    parser.add_argument(
        "--compare-weights",
        type=positive,
        metavar="N",
        help="for debugging: every N steps, see that all processes have the same weights",
    )
    complete(
        parser,
        "liteseg train --config quickstart --output output/quickstart",
        "liteseg train --resume output/quickstart",
    )


def run(args: argparse.Namespace) -> int:
    """Check everything, then train here or in `--devices` processes."""
    from liteseg.config.build import build_dataset
    from liteseg.config.resolve import load_checked

    output = _output(args)
    seed = [] if args.seed is None else [f"seed={args.seed}"]
    deterministic = ["deterministic=true"] if args.deterministic else []
    changes = [*args.set, *seed, *deterministic]
    cfg = load_checked(args.config or output / "config.yml", changes)
    check_writable(output)
    if args.devices > 1 and world_size() == 1:
        for split in ("train", "val"):  # one message here, rather than one from each process
            if getattr(cfg, f"{split}_dataset"):
                build_dataset(cfg, split)
        return launch(args.argv, args.devices, output / "launch", gpu=on_gpus(cfg, args.devices))
    with _sole_writer(output):
        return _train(cfg, output, args)


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
    # Hidden ones are half-written, by a run that was killed in its first checkpoint.
    started = any((output / "checkpoints").glob("[!.]*"))
    if args.resume is not None and not started:
        raise UserError(f"--resume: {output} holds no run with checkpoints; start it without")
    if args.resume is None and started:
        raise UserError(
            f"{output} already holds a run: give --resume to go on with it, or another --output"
        )
    return output


@contextlib.contextmanager
def _sole_writer(output: Path) -> Iterator[None]:
    """Inside, no other training writes to `output`; what a killed one left behind goes."""
    from liteseg.engine.workers import clear_shared_memory

    if not is_main():
        yield
        return
    with locked(output):
        clear_shared_memory()
        remove_leftovers(output, "config.yml", "metrics.jsonl", "report.html", "writable")
        remove_leftovers(output / "vdl", "vdlrecords.*")
        yield


def _train(cfg: Any, output: Path, args: argparse.Namespace) -> int:
    import paddle

    from liteseg.engine.checkpoint import Checkpointer
    from liteseg.engine.evaluation_hooks import best_evaluation
    from liteseg.engine.hooks import CompareWeights
    from liteseg.ops.device import make_deterministic, select_device
    from liteseg.report.report import write_run_report
    from liteseg.tasks.startup import announce, hparams, write_config
    from liteseg.utils.logging import get_logger
    from liteseg.utils.runtime import (
        end_with_launcher,
        seed_everything,
    )

    end_with_launcher()
    device = select_device(cfg.device)
    cost = make_deterministic(device) if cfg.deterministic else None
    if world_size() > 1:
        paddle.distributed.init_parallel_env()
    logging_stack.enter_context(log_file(output / "train.log"))
    if cost:
        get_logger().info(cost)
    seed_everything(cfg.seed or 0)
    checkpointer = Checkpointer(output / "checkpoints", cfg.keep_checkpoints)
    loaded = None if args.resume is None else checkpointer.load_last()
    trainer, dashboard = _assemble(cfg, output, device, checkpointer, args.weights, loaded)
    if args.compare_weights:
        trainer.hooks.insert(1, CompareWeights(args.compare_weights))
    if is_main():
        write_config(cfg, output, resume=loaded is not None)
    announce(cfg, trainer, device, loaded)
    trainer.run()
    if is_main():
        best, _ = best_evaluation(trainer)
        get_logger().info(
            f"{trainer.stop_reason or 'finished'} at iteration {trainer.iteration}; "
            f"{f'best mIoU {best:.4f}' if best >= 0 else 'never evaluated'}; {output}"
        )
        if not cfg.val_dataset:  # otherwise each evaluation writes it
            write_run_report(output, cfg.dump())
        dashboard.hparams(hparams(cfg), "val/best_miou")
        dashboard.close()
    return 0


def _assemble(cfg, output, device, checkpointer, weights, loaded) -> tuple[Any, Any]:
    """The trainer of a config, continued from `loaded` if there is one; and the dashboard."""
    from liteseg.config.build import build_dataset
    from liteseg.engine.evaluation_hooks import EarlyStop, Evaluate, KeepBest, WriteReport
    from liteseg.engine.hooks import Checkpoint, Log, StopOnSignal
    from liteseg.engine.writers import Dashboard, MetricsFile
    from liteseg.ops.device import make_deterministic, select_device
    from liteseg.report.gallery import Gallery
    from liteseg.report.report import write_run_report
    from liteseg.tasks.startup import probe

    train_set = build_dataset(cfg, "train")
    val_set = build_dataset(cfg, "val") if cfg.val_dataset else None
    probe(train_dataset=train_set, val_dataset=val_set)
    trainer = build_trainer(cfg, train_set, device, weights)
    step = loaded.iteration if loaded else -1  # a run killed before its first checkpoint
    metrics = MetricsFile(output / "metrics.jsonl", step) if is_main() else None
    dashboard = Dashboard(output / "vdl", step) if is_main() else None
    hooks = [StopOnSignal(), Log(cfg.log_interval, metrics, dashboard)]
    if val_set is not None:
        gallery = Gallery(val_set, cfg.num_pictures)
        write_page = functools.partial(write_run_report, output, cfg.dump(), gallery)
        evaluation = Evaluate(
            cfg.eval_interval,
            val_set,
            cfg.test_config,
            [gallery],
            batch_size=cfg.eval_batch_size,
            num_workers=trainer.options.num_workers,
        )
        hooks += [
            evaluation,
            EarlyStop(**(vars(cfg.early_stop) if cfg.early_stop else {})),
            KeepBest(checkpointer),
            WriteReport(metrics, dashboard, gallery.panels, write_page),
        ]
    hooks.append(Checkpoint(checkpointer, cfg.save_interval))
    trainer.hooks = hooks
    if loaded:
        trainer.load_state_dict(loaded.weights, loaded.state)
    elif dashboard:
        dashboard.text(0, "config", cfg.dump())
    return trainer, dashboard
