"""The page of `liteseg data check` and `data stats`: tables, and samples drawn by class."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Optional

import cv2
import numpy as np

from liteseg.report.page import write_page
from liteseg.report.visualize import overlay

_WIDTH = 480  # pixels of a drawn sample
_QUALITY = 82


class Tile(NamedTuple):
    """A drawn sample: its name, and a JPEG in base64."""

    name: str
    data: str


class SplitPage(NamedTuple):
    """A split on the page.

    Attributes:
        report: as `check_dataset` returns it, with statistics.
        colors: {class: [red, green, blue]}.
        examples: {class: samples that contain it}.
        errors: problems to show, one sentence each.
        warnings: as `errors`.
    """

    report: Mapping[str, Any]
    colors: Mapping[str, Sequence[int]]
    examples: Mapping[str, Sequence[Tile]]
    errors: Sequence[str] = ()
    warnings: Sequence[str] = ()


def draw_tile(
    name: str, image: np.ndarray, label: np.ndarray, number: int, palette: np.ndarray
) -> Tile:
    """An image with the label of one class drawn over it.

    Args:
        name: below the tile.
        image: (h, w, 3) uint8 RGB.
        label: (h, w) uint8.
        number: the class.
        palette: (num_classes, 3) uint8.
    """
    chosen = np.where(label == number, label, np.uint8(255))
    color = palette.copy()
    if not color[number].any():  # `overlay` leaves black classes as they are
        color[number] = (255, 255, 255)
    drawn = overlay(image, chosen, color)
    scale = min(1.0, _WIDTH / image.shape[1])
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    small = cv2.resize(drawn, size, interpolation=cv2.INTER_AREA)
    options = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
    encoded = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), options)[1]
    return Tile(name, base64.b64encode(encoded.tobytes()).decode())


def write_data_page(
    path: Path, title: str, subtitle: str, splits: Mapping[str, SplitPage], sizes: Sequence[str]
) -> None:
    """Write the page as one self-contained file.

    Args:
        path: the HTML file.
        title: of the page.
        subtitle: the line below it.
        splits: by name.
        sizes: names of the sizes of objects.

    Raises:
        UserError: the file cannot be written.
    """
    write_page(
        path,
        "data.html.jinja",
        title=title,
        subtitle=subtitle,
        splits=splits,
        sizes=sizes,
        percent=_percent,
        thousands=lambda number: f"{number:,}",
    )


def _percent(share: Optional[float]) -> str:
    return "–" if share is None else f"{share:.3%}"
