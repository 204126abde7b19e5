"""Annotated images and the shapes on them, drawn in the order of the annotation tool."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Callable, NamedTuple, Optional

import numpy as np
from PIL import Image, ImageDraw

_LARGEST = 1e6  # pixels; farther coordinates are errors, not shapes

Painter = Callable[[Image.Image, int], None]


class Shape(NamedTuple):
    """A region of one label; `paint` draws it into an 8-bit PIL image with a value."""

    label: str
    paint: Painter


class Annotated(NamedTuple):
    """An image with its shapes, the topmost last.

    Attributes:
        image: the image file.
        name: path of the image below the source, without suffix.
        size: (w, h) that the annotation gives, or None.
        shapes: in drawing order.
        subset: the split that the source assigns, or None.
    """

    image: Path
    name: str
    size: Optional[tuple[int, int]]
    shapes: Sequence[Shape]
    subset: Optional[str] = None


def points_of(values: Any, least: int) -> list[tuple[float, float]]:
    """`values` as (x, y) pairs.

    Args:
        values: a list of pairs, or of numbers x, y, x, y, ...
        least: fewest points.

    Raises:
        ValueError: not numbers, not finite, far outside of any image, or too few.
    """
    try:
        points = np.asarray(values, np.float64).reshape(-1, 2)
    except (TypeError, ValueError):
        raise ValueError("the points are not pairs of numbers") from None
    if len(points) < least:
        raise ValueError(f"{len(points)} points, expected at least {least}")
    if not (np.abs(points) < _LARGEST).all():  # False for NaN
        raise ValueError("a point is not within any image")
    return [(float(x), float(y)) for x, y in points]


def polygon(points: Sequence[tuple[float, float]]) -> Painter:
    """A filled polygon with its outline, as labelme draws it."""
    return lambda image, value: ImageDraw.Draw(image).polygon(points, fill=value, outline=value)


def rectangle(points: Sequence[tuple[float, float]]) -> Painter:
    """A filled rectangle between two opposite corners."""
    (x0, y0), (x1, y1) = points[:2]
    corners = [(min(x0, x1), min(y0, y1)), (max(x0, x1), max(y0, y1))]
    return lambda image, value: ImageDraw.Draw(image).rectangle(corners, fill=value, outline=value)


def ellipse(center: tuple[float, float], rx: float, ry: float) -> Painter:
    """A filled ellipse; `rx` and `ry` are its radii."""
    x, y = center
    box = [(x - rx, y - ry), (x + rx, y + ry)]
    return lambda image, value: ImageDraw.Draw(image).ellipse(box, fill=value, outline=value)


def bitmap(mask: np.ndarray, left: int = 0, top: int = 0) -> Painter:
    """The pixels of an (h, w) bool mask whose corner is at (left, top)."""
    stencil = Image.fromarray(mask.astype(np.uint8) * 255)
    return lambda image, value: image.paste(value, (left, top), stencil)
