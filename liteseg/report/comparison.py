"""The page of a comparison of models, from the template `comparison.html.jinja`."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path

from liteseg.metrics.comparison import Comparison, Row
from liteseg.report.page import write_page
from liteseg.utils.text import decimal, redacted

_IMAGES = 10  # of each direction


def write_comparison(path: Path, comparison: Comparison) -> None:
    """Write the page.

    Raises:
        UserError: the file can't be written.
    """
    write_page(
        path,
        "comparison.html.jinja",
        comparison=comparison,
        shown=_IMAGES,
        date=f"{datetime.datetime.now():%Y-%m-%d %H:%M}",
        decimal=decimal,
        redacted=redacted,
        extent=_extent,
    )


def _extent(rows: Sequence[Row]) -> float:
    """The distance from 0 that the bars of a table show."""
    return max((abs(end) for row in rows for end in row.interval or ()), default=0) or 1
