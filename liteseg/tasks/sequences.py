"""Sequences of frames, recognized by the names of their images."""

from __future__ import annotations

import re
from typing import Callable, Optional

from liteseg.errors import UserError

# Cityscapes: city and sequence of `ulm_000012_000019`; CamVid: `0016E5` of `0016E5_08370`.
_KNOWN = re.compile(r"([a-z][a-z-]+_\d{6})_\d{6}(?:_|$)|(\d{4}[A-Z]{1,2}\d?|Seq\d\dVD)_f?\d{5}")


def sequence_function(pattern: Optional[str] = None) -> Callable[[str], Optional[str]]:
    """A function from the name of an image to its sequence, None where there is none.

    Args:
        pattern: regular expression, searched in the name; its first group, or without one the
            matched text, is the sequence. By default, the names of Cityscapes and CamVid.

    Raises:
        UserError: not a regular expression.
    """
    try:
        expression = re.compile(pattern) if pattern else _KNOWN
    except re.error as error:
        raise UserError(
            f"--sequence {pattern!r}: not a regular expression ({error}); for names such as "
            "day1_0001 give '^[^_]+'"
        ) from None

    def sequence_of(name: str) -> Optional[str]:
        found = expression.search(name) if pattern else expression.match(name)
        if not found:
            return None
        return next((group for group in found.groups() if group), found[0])

    return sequence_of
