"""The error type for users: a message without a traceback, exit code 2."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

_MAX_QUOTED = 200


class UserError(Exception):
    """An error that the user can fix.

    The message names the file (or key), the value found, the value expected and the fix.
    The command line prints only the message and exits with code 2.
    """


class NotOneChannel(UserError):
    """A label file has colors instead of class numbers."""


def quoted(value: object) -> str:
    """The `repr` of a value from a user's file, cut where it is long."""
    text = repr(value)
    return text if len(text) <= _MAX_QUOTED else f"{text[:_MAX_QUOTED]}..."


def grouped_errors(errors: Sequence[Mapping[str, str]]) -> list[str]:
    """The first of each kind of {file, problem}, with the number of files that have one like it."""
    kinds: dict[str, list[str]] = {}
    for error in errors:
        kind = re.sub(r"\d+", "0", error["problem"].replace(error["file"], ""))
        kinds.setdefault(kind, []).append(error["problem"])
    return [
        first + (f" (and {len(others)} more files like it)" if others else "")
        for first, *others in kinds.values()
    ]
