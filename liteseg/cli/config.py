"""Show a resolved config with the origin of every value, or check configs."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence

from liteseg.cli.arguments import complete
from liteseg.config.check import check
from liteseg.config.defaults import with_defaults
from liteseg.config.load import Config, load_config
from liteseg.config.plugins import load_plugins
from liteseg.errors import UserError
from liteseg.utils.text import joined, safe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the actions and their options."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="show|check")
    show = actions.add_parser(
        "show",
        help="print the resolved config, the origin of each value, and what trains at which rate",
    )
    show.add_argument("file", metavar="FILE", help="YAML file, or the name of a shipped config")
    checks = actions.add_parser("check", help="list every error of the configs; exit 2 if any")
    checks.add_argument(
        "files", metavar="FILE", nargs="+", help="YAML files, or names of shipped configs"
    )
    for action in (show, checks):
        action.add_argument(
            "--set",
            dest="overrides",
            metavar="KEY=VALUE",
            action="append",
            default=[],
            help="change a value, for example loss.types.0.min_kept=5 (may be repeated; "
            "default: none)",
        )
    complete(show, "liteseg config show my.yml --set optimizer.weight_decay=0.02")
    complete(checks, "liteseg config check my.yml")


def run(args: argparse.Namespace) -> int:
    """Run the action; 2 if `check` finds errors."""
    if args.action == "show":
        cfg = load_config(args.file, args.overrides)
        with contextlib.suppress(UserError):  # `check` reports it
            load_plugins(cfg)
        print(with_defaults(cfg).annotated(), end="")
        if not check(cfg):
            print(joined(["", *(f"# {line}" for line in _rates(cfg))]))
        return 0
    return max(_check_file(file, args.overrides) for file in args.files)


def _rates(cfg: Config) -> list[str]:
    from liteseg.tasks.rates import rate_table  # Paddle takes seconds to load

    return rate_table(cfg)


def _check_file(file: str, overrides: Sequence[str]) -> int:
    try:
        cfg = load_config(file, overrides)
        problems = check(cfg)
        if not problems:
            selecting = {"custom_cfg", "backbone_lr_mult"} & cfg["optimizer"].keys()
            if cfg.get("freeze") or selecting:
                _rates(cfg)  # raises where a name selects nothing
    except UserError as error:
        problems = [str(error)]
    if not problems:
        print(safe(f"{file}: ok"))
        return 0
    count = f"{file}: {len(problems)} error{'s' * (len(problems) > 1)}"
    print(joined([count, *(f"  - {problem}" for problem in problems)]), file=sys.stderr)
    return 2
