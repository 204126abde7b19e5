"""Self-contained HTML pages from the templates of this folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2

from liteseg.utils.files import atomic_write


def write_page(path: Path, template: str, **values: Any) -> None:
    """Fill a template and write the page; texts are escaped, and a missing value is an error.

    Raises:
        UserError: the file can't be written.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    page = environment.get_template(template).render(**values)
    with atomic_write(path, "w") as file:
        file.write(page)
