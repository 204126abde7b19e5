"""Text from files and servers, made safe for a terminal, a log and a report."""

from __future__ import annotations

import re

# All but tabs and line ends: colors, cursor movements, and marks that reverse the direction.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def redacted(text: str) -> str:
    """`text` with the secrets of its URLs replaced by ***: `user:password@` and query strings."""
    text = re.sub(r"(?i)(\w+://)[^\s/?#@'\"]*@", r"\1***@", text)
    return re.sub(r"(?i)(https?://[^\s?#'\"]*\?)[^\s#'\";,)]*", r"\1***", text)


def safe(text: str) -> str:
    """`text` with control characters escaped and without the secrets of URLs."""
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], redacted(text))
