"""What several subcommands share: types of arguments, and what every one of them has."""

from __future__ import annotations

import argparse


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


def changes_of_config(parser: argparse.ArgumentParser) -> None:
    """Add `--set KEY=VALUE`, which may be repeated."""
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change a config value"
    )


def complete(parser: argparse.ArgumentParser, *examples: str) -> None:
    """Add what every command has: `--quiet`, `--verbose`, and examples below its help."""
    words = parser.add_mutually_exclusive_group()
    words.add_argument(
        "--quiet", action="store_true", help="results, warnings and errors only; no progress"
    )
    words.add_argument("--verbose", action="store_true", help="more lines")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "\n  ".join(["for example:", *examples])
