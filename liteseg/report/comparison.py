"""The page of a comparison of models, from the template `comparison.html.jinja`."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path

import jinja2

from liteseg.metrics.comparison import Comparison, Row
from liteseg.utils.files import atomic_write
from liteseg.utils.text import decimal, redacted

_IMAGES = 10  # of each direction


def write_comparison(path: Path, comparison: Comparison) -> None:
    """Write the page.

    Raises:
        UserError: the file can't be written.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    page = environment.get_template("comparison.html.jinja").render(
        comparison=comparison,
        shown=_IMAGES,
        date=f"{datetime.datetime.now():%Y-%m-%d %H:%M}",
        decimal=decimal,
        redacted=redacted,
        extent=_extent,
    )
    with atomic_write(path, "w") as file:
        file.write(page)


def _extent(rows: Sequence[Row]) -> float:
    """The distance from 0 that the bars of a table show."""
    return max((abs(end) for row in rows for end in row.interval or ()), default=0) or 1
