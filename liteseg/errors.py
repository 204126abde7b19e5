"""The one error type that is meant for users: a message, no traceback, exit code 2."""

from __future__ import annotations

_LONGEST_VALUE = 200


class UserError(Exception):
    """Something the user can mend.

    The message names the file (or key), the value found, the value expected and the mend.
    The command line prints it alone and exits with code 2.
    """


def quoted(value: object) -> str:
    """A value found in a user's file as a message shows it: its `repr`, cut where it is long."""
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."
