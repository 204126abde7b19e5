"""The error type for users: a message without a traceback, exit code 2."""

from __future__ import annotations

_MAX_QUOTED = 200


class UserError(Exception):
    """An error that the user can fix.

    The message names the file (or key), the value found, the value expected and the fix.
    The command line prints only the message and exits with code 2.
    """


def quoted(value: object) -> str:
    """The `repr` of a value from a user's file, cut where it is long."""
    text = repr(value)
    return text if len(text) <= _MAX_QUOTED else f"{text[:_MAX_QUOTED]}..."
