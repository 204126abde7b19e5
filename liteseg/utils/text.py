"""Text from files and servers, made safe for a terminal, a log and a report."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Optional

# All but tabs: colors, cursor movements, line ends, and marks that reverse the direction.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]|\n(?! )")


def redacted(text: str) -> str:
    """`text` with the secrets of its URLs replaced by ***: `user:password@` and query strings."""
    text = re.sub(r"(?i)(\w+://)[^\s/?#@'\"]*@", r"\1***@", text)
    return re.sub(r"(?i)(https?://[^\s?#'\"]*\?)[^\s#'\";,)]*(?<!:)", r"\1***", text)


def safe(text: str) -> str:
    """`text` with control characters escaped and without the secrets of URLs.

    A line end stays only before a space, as in our own messages, so that no name from a file can
    look like a line of its own.
    """
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], redacted(text))


def joined(lines: Iterable[str]) -> str:
    """Lines of a table or log, each of them safe, as one text."""
    return "\n".join(map(safe, lines))


def decimal(value: Optional[float], digits: int = 4) -> str:
    """A metric with `digits` decimals; a dash for None, the metric of nothing."""
    return "-" if value is None else f"{value:.{digits}f}"
