"""The table of images in a report: sortable by every column, without a script in the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Callable, NamedTuple, Optional

import cv2
import numpy as np

from liteseg.metrics.image_counts import ImageCounts, image_metrics, metrics_of_images
from liteseg.report.gallery import sample_tiles
from liteseg.report.visualize import panel

_MANY = 2000  # rows; a longer table has only those with a thumbnail
_TILE = 128  # pixels of the longer side
_QUALITY = 75
_TITLES = {"miou": "mIoU", "boundary_iou": "boundary IoU", "boundary_f": "boundary F"}


class Row(NamedTuple):
    """A row: the `cells` are text, `order` the rank by each column, None without a value."""

    cells: list[str]
    order: list[Optional[int]]
    thumbnail: Optional[bytes] = None


class ImageTable(NamedTuple):
    """Columns and rows; `hidden` counts the images that are left out."""

    columns: list[str]
    rows: list[Row]
    hidden: int = 0


def thumbnails_of(dataset: Any) -> Callable[[int, Mapping[str, np.ndarray], np.ndarray], bytes]:
    """A function that draws a sample and its prediction as a small JPEG.

    Args:
        dataset: with `palette` and `ignore_index`.
    """

    def draw(index: int, sample: Mapping[str, np.ndarray], prediction: np.ndarray) -> bytes:
        small = {key: _small(sample[key]) for key in ("img", "label") if key in sample}
        if "img" in small and small["img"].shape[:2] != small["label"].shape:
            small["img"] = cv2.resize(small["img"], small["label"].shape[::-1])
        image = panel(tuple(sample_tiles(dataset, small, _small(prediction)).values()))
        bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        return cv2.imencode(".jpeg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()

    return draw


def _small(array: np.ndarray) -> np.ndarray:
    scale = min(_TILE / max(array.shape[:2]), 1.0)
    size = [max(round(side * scale), 1) for side in array.shape[1::-1]]
    kind = cv2.INTER_NEAREST if array.ndim == 2 else cv2.INTER_AREA
    return cv2.resize(array, size, interpolation=kind)


def image_table(
    images: Sequence[ImageCounts], class_names: Sequence[str], thumbnails: Mapping[int, bytes]
) -> ImageTable:
    """The table of `images`; `thumbnails` by their place."""
    places = list(range(len(images)))
    if len(images) > _MANY:
        places = sorted(thumbnails)
    values = [image_metrics(images[place], class_names) for place in places]
    drawn = [thumbnails.get(place) for place in places]
    return _table(values, drawn, len(images) - len(places))


def sequence_table(images: Sequence[ImageCounts], class_names: Sequence[str]) -> ImageTable:
    """A row of metrics over the images of each sequence; empty if there is only one, or none."""
    groups: dict[str, list[ImageCounts]] = {}
    for image in images:
        groups.setdefault(image.sequence or "(none)", []).append(image)
    values: list[dict[str, Any]] = []
    for name, members in groups.items() if len(groups) > 1 else ():
        found = metrics_of_images(members, class_names)
        keys = [key for key in ("miou", "boundary_iou", "boundary_f") if key in found]
        values.append(
            {
                "sequence": name,
                "images": len(members),
                "accuracy": found["acc"],
                **{key: found[key] for key in keys},
                **{f"iou/{name}": iou for name, iou in found["class_iou"].items()},
            }
        )
    return _table(values, [None] * len(values), 0)


def _table(
    values: Sequence[Mapping[str, Any]], thumbnails: Sequence[Optional[bytes]], hidden: int
) -> ImageTable:
    # A column without any value, such as an absent class, tells nothing.
    columns = (
        [key for key in values[0] if any(row[key] is not None for row in values)] if values else []
    )
    orders: list[list[Optional[int]]] = []
    for key in columns:
        ranked = sorted(row[key] for row in values if row[key] is not None)
        rank = {value: place for place, value in enumerate(ranked)}
        orders.append([rank.get(row[key]) for row in values])
    rows = [
        Row([_text(row[key]) for key in columns], [order[i] for order in orders], thumbnail)
        for i, (row, thumbnail) in enumerate(zip(values, thumbnails))
    ]
    return ImageTable([_TITLES.get(k, k.removeprefix("iou/")) for k in columns], rows, hidden)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{100 * value:.1f}"
    return "–" if value is None else str(value)
