"""The argument parser of the command line, which names the option for a foreign argument."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Iterable
from typing import Any, NoReturn, Optional

from liteseg.utils.text import joined

_SET = {  # where arguments are that other tools have as options
    "lr": "lr_scheduler.learning_rate",
    "learning_rate": "lr_scheduler.learning_rate",
    "weight_decay": "optimizer.weight_decay",
    "num_classes": "train_dataset.num_classes",
    "workers": "num_workers",
    "batch": "batch_size",
}


class Parser(argparse.ArgumentParser):
    """An argument parser that names the option for a config file or a config value."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As that of argparse."""
        self._words = list(args or ())
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Print usage and error, with what to write instead, and exit with 2."""
        words = message.partition("unrecognized arguments: ")[2].split()
        if "required: --config" in message:
            words = self._words
        hints: list[Optional[str]]
        hints = list(filter(None, map(_option_for, words, [*words[1:], ""])))
        if spaced := re.search(r"--set ([\w.]+)( = | =| ?= )(\S+)", " ".join(self._words)):
            hints = [f"  write it without spaces: --set {spaced[1]}={spaced[3]}"]
        hints = hints or [*map(self._similar_option, words), _similar_choice(message)]
        super().error(joined([message, *filter(None, hints)]))

    def _similar_option(self, word: str) -> Optional[str]:
        """The option of the command that a misspelled one resembles."""
        parser: argparse.ArgumentParser = self
        for given in self._words:
            for action in parser._actions:
                if isinstance(action.choices, dict) and given in action.choices:
                    parser = action.choices[given]
        return _similar(word, parser._option_string_actions) if word.startswith("-") else None


def _similar_choice(message: str) -> Optional[str]:
    found = re.search(r"invalid choice: '(.*)' \(choose from (.*)\)", message)
    return found and _similar(found[1], re.findall(r"[\w.-]+", found[2]))


def _similar(word: str, known: Iterable[str]) -> Optional[str]:
    near = difflib.get_close_matches(word.partition("=")[0], list(known), 1)
    return f"  did you mean {near[0]}?" if near else None


def _option_for(word: str, value: str) -> Optional[str]:
    from liteseg.config.schema import ELSEWHERE, SCHEMA

    name, equals, given = word.partition("=")
    value = given if equals else "VALUE" if not value or value.startswith("--") else value
    key = name.lstrip("-").replace("-", "_")
    if word.endswith((".yml", ".yaml")):
        return f"  give the config as --config {word}"
    if equals and not name.startswith("-"):
        return f"  give a config value as --set {word}"
    if not name.startswith("--"):
        return None
    if key in _SET or key in SCHEMA:
        return f"  {name} is a value of the config: --set {_SET.get(key, key)}={value}"
    return f"  {name}: {ELSEWHERE[key]}" if key in ELSEWHERE else None
