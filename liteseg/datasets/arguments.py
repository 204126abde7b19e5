"""Checks of the datasets' constructor arguments, and short lists of file names for errors."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Union

from liteseg.errors import UserError

MODES = {"train": ("train",), "val": ("val",), "test": ("test",), "trainval": ("train", "val")}


def splits_of(mode: str) -> tuple[str, ...]:
    """The splits that `mode` joins.

    Raises:
        UserError: `mode` is not one of `MODES`.
    """
    if mode not in MODES:
        raise UserError(f"mode: {mode!r} is not one of {', '.join(MODES)}")
    return MODES[mode]


def require_folder(path: Union[str, Path, None], key: str, content: str) -> Path:
    """`path` as a Path; `key` and `content` (what the folder should contain) go into the error.

    Raises:
        UserError: `path` is not set, missing, or a file.
    """
    if not path:
        raise UserError(f"{key}: not set; give the folder with {content}")
    root = Path(os.path.expanduser(path))
    if not os.path.isdir(root):
        found = "is a file" if os.path.exists(root) else "does not exist"
        where = fix = ""
        if not root.is_absolute():
            where = f" in {Path.cwd()}, where liteseg was started"
            fix = "; give its whole path, or start liteseg in another folder"
        raise UserError(
            f"{key}: {path} {found}{where}; expected the folder with {content}"
            f"{backslash_advice(str(path)) or fix}"
        )
    return root


def backslash_advice(path: str) -> str:
    """The fix of a Windows path, for the end of an error message; empty for another path."""
    return "; write / between folders, and no drive" if "\\" in path else ""


def reject_edge(edge: bool) -> None:
    """Refuse PaddleSeg's `edge`, an argument for models with an edge loss."""
    if edge:
        raise UserError("edge: true is for edge losses, which liteseg does not have; remove it")


def first_few(items: Sequence, shown: int = 3) -> str:
    """The first items, one per line, and the number of those left out."""
    more = [f"... and {len(items) - shown} more"] if len(items) > shown else []
    return "\n  ".join([_shortened(str(item)) for item in items[:shown]] + more)


def _shortened(text: str, limit: int = 400) -> str:
    return text if len(text) <= limit else f"{text[: limit // 2]}...{text[-limit // 2 :]}"
