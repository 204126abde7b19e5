"""Arguments shared by subcommands."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any, Optional

from liteseg.errors import UserError
from liteseg.utils.files import check_writable, require_kind, write_json

SPLITS = ("train", "val", "test")


def positive(text: str) -> int:
    """A whole number above 0."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def not_negative(text: str) -> int:
    """A whole number from 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0")
    return int(text)


def length(text: str) -> float:
    """A finite number from 0."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0")
    return value


def add_config(parser: argparse.ArgumentParser, *, optional: str = "") -> None:
    """Add `--config` and `--set KEY=VALUE`.

    Args:
        parser: of the command.
        optional: the default of `--config`, for its help; empty: it is required.
    """
    text = "YAML file, or the name of a shipped config, such as quickstart, or of a model "
    text += f"(default: {optional})" if optional else "(required)"
    parser.add_argument("--config", metavar="FILE", required=not optional, help=text)
    if optional:
        parser.add_argument(
            "--trust-plugins",
            action="store_true",
            help="run the plugins of a config.yml that is found with the weights (default: refuse)",
        )
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a config value, for example batch_size=8 (may be repeated; default: none)",
    )


def trust_found_config(args: argparse.Namespace) -> None:
    """With `--trust-plugins`, treat the config that would be found as if it were given."""
    from liteseg.tasks.runs import config_file, default_weights

    resume = getattr(args, "resume", None)
    if args.command == "predict" and not (args.weights or args.model or args.config):
        args.weights = default_weights()
    source = args.output if resume in (True, "auto") else resume or getattr(args, "weights", None)
    if args.trust_plugins and not args.config and source:
        args.config = config_file(source)


def add_weights(parser: argparse.ArgumentParser, note: str = "required") -> None:
    """Add `--weights`; `note` is its default, for the help."""
    parser.add_argument(
        "--weights",
        metavar="W",
        help="weights file, archive or URL, a run directory (its best checkpoint), or a name from "
        f"`liteseg models` ({note})",
    )


def add_loading(parser: argparse.ArgumentParser) -> None:
    """Add `--batch-size` and `--num-workers` of an evaluation."""
    parser.add_argument(
        "--batch-size",
        type=positive,
        metavar="N",
        help="images per forward pass (default: eval_batch_size of the config)",
    )
    parser.add_argument(
        "--num-workers",
        type=not_negative,
        metavar="N",
        help="worker processes that load the images; 0: a thread (default: num_workers of the "
        "config)",
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add `--device`."""
    parser.add_argument(
        "--device", metavar="NAME", help="auto, cpu or gpu (default: device of the config)"
    )


def add_json(parser: argparse.ArgumentParser, content: str = "the results") -> None:
    """Add `--json FILE`."""
    parser.add_argument("--json", metavar="FILE", help=f"write {content} as JSON (default: none)")


def check_json(args: argparse.Namespace) -> None:
    """Raise a `UserError` now if the file of `--json` cannot be written later."""
    if args.json:
        require_kind(args.json, ".json")
        config = getattr(args, "config", None) or os.curdir
        if os.path.realpath(args.json) == os.path.realpath(config):
            raise UserError(f"--json {args.json}: is the config; give another file")
        check_writable(Path(args.json).parent)


def save_json(args: argparse.Namespace, content: dict[str, Any]) -> None:
    """Write the file of `--json`, if it is given."""
    if args.json:
        write_json(args.json, content)


def size_of(pair: Optional[list[int]]) -> Optional[tuple[int, int]]:
    """The values of a `W H` argument as a tuple."""
    return (pair[0], pair[1]) if pair else None


def complete(parser: argparse.ArgumentParser, *examples: str) -> None:
    """Add the arguments of every command, `--quiet` and `--verbose`, and examples to the help."""
    output = parser.add_mutually_exclusive_group()
    output.add_argument(
        "--quiet", action="store_true", help="print results, warnings and errors only; no progress"
    )
    output.add_argument("--verbose", action="store_true", help="print more log lines")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "\n  ".join(["examples:", *examples])
    if any("quickstart" in example for example in examples):
        parser.epilog += "\nthe data of quickstart: liteseg data streets --output data/streets"
