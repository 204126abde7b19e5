"""`liteseg bench`: what a network, its data and a training step cost; how fast exports are."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from liteseg.cli.arguments import changes_of_config, complete, positive
from liteseg.cli.bench import data as bench_data
from liteseg.cli.bench import eval as bench_eval
from liteseg.cli.bench import infer as bench_infer
from liteseg.cli.bench import train as bench_train
from liteseg.errors import UserError

CITYSCAPES_SIZE = (2048, 1024)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the actions and their options."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    model = actions.add_parser(
        "model", help="parameters, multiply-adds and peak activation memory of evaluation, by part"
    )
    model.add_argument("--config", required=True, help="YAML file, or the name of a shipped config")
    model.add_argument(
        "--size",
        type=positive,
        nargs=2,
        metavar=("W", "H"),
        help="pixels the network gets (default: the sliding window; for Cityscapes 2048x1024 times "
        "the largest scale of test_config; else the training crop)",
    )
    changes_of_config(model)
    model.add_argument("--json", metavar="FILE", help="write the figures as JSON")
    complete(model, "liteseg bench model --config quickstart --size 512 256")
    bench_data.add_arguments(actions)
    bench_train.add_arguments(actions)
    bench_eval.add_arguments(actions)
    bench_infer.add_arguments(actions)


def run(args: argparse.Namespace) -> int:
    """Run the chosen action."""
    actions = {
        "model": _model,
        "data": bench_data.run,
        "train": bench_train.run,
        "eval": bench_eval.run,
        "infer": bench_infer.run,
    }
    return actions[args.action](args)


def _model(args: argparse.Namespace) -> int:
    from dataclasses import asdict, replace

    from liteseg.config.build import build_model
    from liteseg.config.resolve import load_checked
    from liteseg.tasks.complexity import measure
    from liteseg.utils.files import write_json

    cfg = load_checked(args.config, args.set)
    size = tuple(args.size) if args.size else default_size(cfg)
    # The figures are those of any weights: download none.
    model = build_model(replace(cfg, model=_without_pretrained(cfg.model)))
    found = measure(model, size)
    print(f"{args.config}: evaluation of one {size[0]}x{size[1]} image in float32")
    print(format_table(found))
    if args.json:
        figures = {
            "config": str(args.config),
            "size": list(size),
            "parts": [asdict(part) for part in found.parts],
            "total": asdict(found.total),
        }
        write_json(args.json, figures)
    return 0


def default_size(cfg: Mapping[str, Any]) -> tuple[int, int]:
    """(w, h) that the network gets in evaluation, as far as the config alone tells.

    Raises:
        UserError: it does not tell.
    """

    test = cfg.test_config
    if test.is_slide:
        return test.crop_size
    data = cfg.val_dataset or cfg.train_dataset
    if data["type"] == "Cityscapes":
        scale = max(scale for scale, _ in test.views())
        return tuple(int(side * scale + 0.5) for side in CITYSCAPES_SIZE)
    for transform in cfg.train_dataset.get("transforms") or ():
        if transform["type"] == "RandomPaddingCrop" and "crop_size" in transform:
            return tuple(transform["crop_size"])
    raise UserError("the config does not tell the size of its images; give --size W H")


def format_table(found: Any) -> str:
    """A `Complexity` as text."""
    width = max(len(part.name) for part in found.parts)
    lines = [f"{'part':{width}}  {'output':>15}  parameters  multiply-adds  peak memory"]
    for part in (*found.parts, found.total):
        output = "x".join(map(str, part.output))
        peak = f"{part.peak_bytes / 2**20:.1f} MiB" if part.peak_bytes else "-"
        lines.append(
            f"{part.name:{width}}  {output:>15}  {part.parameters / 1e6:>8.4f} M  "
            f"{part.multiply_adds / 1e9:>11.4f} G  {peak:>11}"
        )
    lines.append(
        "parameters: with batch norm's statistics, without what only trains; multiply-adds: of "
        "convolutions,\nlinear layers (a bias is one) and batch norm (one a value); peak memory: "
        "most bytes of features held\nat once while the part ran"
    )
    return "\n".join(lines)


def _without_pretrained(spec: Any) -> Any:
    if not isinstance(spec, Mapping):
        return spec
    return {key: _without_pretrained(v) for key, v in spec.items() if key != "pretrained"}
