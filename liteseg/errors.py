"""The one error type that is meant for users: a message, no traceback, exit code 2."""

from __future__ import annotations


class UserError(Exception):
    """Something the user can mend.

    The message names the file (or key), the value found, the value expected and the mend.
    The command line prints it alone and exits with code 2.
    """
