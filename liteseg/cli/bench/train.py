"""`liteseg bench train`: where the time of a config's training step goes."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from liteseg.cli.arguments import changes_of_config, complete, positive


def add_arguments(actions: Any) -> None:
    """Declare the action among the others of `liteseg bench`."""
    train = actions.add_parser(
        "train", help="time of a training step by phase, share of the readers, memory"
    )
    train.add_argument("--config", required=True, help="YAML file, or the name of a shipped config")
    train.add_argument("--steps", type=positive, default=10, metavar="N", help="to measure")
    train.add_argument("--warm-up", type=positive, default=3, metavar="N", help="steps before them")
    train.add_argument("--devices", type=positive, default=1, metavar="N", help="processes")
    changes_of_config(train)
    train.add_argument("--json", metavar="FILE", help="write the figures as JSON")
    complete(train, "liteseg bench train --config quickstart")


def run(args: argparse.Namespace) -> int:
    """Measure here or in `--devices` processes, print the table, write what was asked for."""
    from liteseg.config.resolve import load_checked
    from liteseg.tasks.launch import launch, on_gpus
    from liteseg.utils.files import check_writable
    from liteseg.utils.runtime import world_size

    cfg = load_checked(args.config, args.set)
    if args.json:
        check_writable(Path(args.json).parent)
    if args.devices > 1 and world_size() == 1:
        with tempfile.TemporaryDirectory(prefix="liteseg-bench-") as logs:
            return launch(args.argv, args.devices, Path(logs), on_gpus(cfg, args.devices))
    return _measure(cfg, args)


def _measure(cfg: Any, args: argparse.Namespace) -> int:
    import paddle

    from liteseg.config.build import build_dataset
    from liteseg.ops.device import select_device
    from liteseg.tasks.benchmark_steps import measure_steps
    from liteseg.tasks.training import build_trainer
    from liteseg.utils.files import write_json
    from liteseg.utils.runtime import is_main, seed_everything, world_size

    device = select_device(cfg.device)
    if world_size() > 1:
        paddle.distributed.init_parallel_env()
    seed_everything(cfg.seed or 0)
    trainer = build_trainer(cfg, build_dataset(cfg, "train"), device)
    figures = {
        "config": str(args.config),
        "device": device,
        "processes": world_size(),
        "num_workers": trainer.options.num_workers,
        "total_batch_size": trainer.options.total_batch_size,
        **measure_steps(trainer, args.steps, args.warm_up),
    }
    if is_main():
        print(format_table(figures), flush=True)
        if args.json:
            write_json(args.json, figures)
    return 0


def format_table(figures: dict[str, Any]) -> str:
    """The figures as text."""
    phases = figures["phases"]
    total = sum(phases.values())
    lines = [f"{'phase':9}  ms a step  share"]
    lines += [f"{name:9}  {1000 * s:>9.1f}  {s / total:>5.0%}" for name, s in phases.items()]
    low, middle, high = (
        f"{figures[key]:.3f}" for key in ("fastest", "seconds_per_step", "slowest")
    )
    lines.append(
        f"{middle} s a step ({low} to {high}), {figures['images_per_second']:.2f} images/s in "
        f"{figures['processes']} {figures['device']} process(es), "
        f"{figures['total_batch_size']} images a step"
    )
    if figures["communication_share"] is not None:
        lines.append(f"exchange of gradients: {figures['communication_share']:.0%} of a step")
    lines.append(
        f"waiting for the {figures['num_workers']} reader(s): {figures['reader_share']:.0%}; "
        f"peak memory {figures['peak_mib']:.0f} MiB a process"
    )
    return "\n".join(lines)
