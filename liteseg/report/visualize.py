"""Pictures of labels: colours, overlays, legends, error maps; and writing them as PNG.

H, W are pixels. Images are RGB uint8 (H, W, 3), labels are class indices (H, W), a palette is
uint8 (classes, 3).
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Optional

import cv2
import numpy as np

from liteseg.utils.files import atomic_write

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_PAPER, _INK = 255, (0, 0, 0)
CORRECT, WRONG, IGNORED = (190, 190, 190), (220, 50, 32), (0, 0, 0)


def colorize(label: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """The palette's colour at every pixel, black where the label is not a class of the palette.

    Args:
        label: (H, W), integers from 0 to 255.
        palette: (classes, 3) uint8, at most 256 classes.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    return _lookup(palette)[label.astype(np.uint8)]


def overlay(
    image: np.ndarray,
    label: np.ndarray,
    palette: np.ndarray,
    alpha: float = 0.55,
    ignore_index: int = 255,
) -> np.ndarray:
    """The image with the label's colours laid over it; plain where there is no class.

    Args:
        image: (H, W, 3) uint8 RGB.
        label: (H, W) class indices.
        palette: (classes, 3) uint8.
        alpha: how much of the colour shows, from 0 (image only) to 1 (colours only).
        ignore_index: pixels with this label show the image, as do those beyond the palette.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    mixed = cv2.addWeighted(image, 1 - alpha, colorize(label, palette), alpha, 0)
    plain = (label == ignore_index) | (label >= len(palette))
    mixed[plain] = image[plain]
    return mixed


def with_legend(
    image: np.ndarray,
    class_names: Sequence[str],
    palette: np.ndarray,
    present: Optional[Iterable[int]] = None,
) -> np.ndarray:
    """The image with a strip below it that names the colours, in as many rows as they need.

    The text grows with the image. An image narrower than the longest name is widened by white.

    Args:
        image: (H, W, 3) uint8 RGB.
        class_names: a name for each class; characters beyond ASCII show as "?".
        palette: (classes, 3) uint8.
        present: the classes to name, e.g. those in the label; all if None. Other values, such as
            the ignore index, are skipped.

    Returns:
        (H + strip, max(W, longest name), 3) uint8 RGB.
    """
    wanted = range(len(class_names)) if present is None else sorted({int(i) for i in present})
    shown = [i for i in wanted if 0 <= i < len(class_names)]
    if not shown:
        return image
    names = [class_names[i].encode("ascii", "replace").decode() for i in shown]
    text_height = int(np.clip(image.shape[1] / 60, 10, 32))
    scale = cv2.getFontScaleFromHeight(_FONT, text_height)
    thickness = max(1, round(text_height / 12))
    box, gap = round(1.4 * text_height), round(0.6 * text_height)
    widths = [
        box + 3 * gap + cv2.getTextSize(name, _FONT, scale, thickness)[0][0] for name in names
    ]
    # Columns of one width: a ragged legend is hard to search.
    column, row = max(widths), box + gap
    width = max(image.shape[1], column + gap)
    columns = min(len(names), (width - gap) // column)
    rows = -(-len(names) // columns)
    strip = np.full((rows * row + gap, width, 3), _PAPER, np.uint8)
    for k, (index, name) in enumerate(zip(shown, names)):
        x, y = gap + k % columns * column, gap + k // columns * row
        colour = tuple(int(c) for c in palette[index])
        cv2.rectangle(strip, (x, y), (x + box, y + box), colour, cv2.FILLED)
        # An outline, for colours close to the paper's.
        cv2.rectangle(strip, (x, y), (x + box, y + box), _INK, 1)
        baseline = (x + box + gap, y + (box + text_height) // 2)
        cv2.putText(strip, name, baseline, _FONT, scale, _INK, thickness, cv2.LINE_AA)
    return np.concatenate([_on_paper(image, image.shape[0], width), strip])


def error_map(pred: np.ndarray, label: np.ndarray, ignore_index: int = 255) -> np.ndarray:
    """Where a prediction is wrong: grey is right, red is wrong, black is ignored.

    Args:
        pred: (H, W) class indices.
        label: (H, W) class indices.
        ignore_index: the label of pixels that don't count.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    colours = np.array([CORRECT, WRONG, IGNORED], np.uint8)
    return colours[np.where(label == ignore_index, 2, pred != label)]


def panel(images: Sequence[np.ndarray], gap: int = 4) -> np.ndarray:
    """Images side by side, `gap` white pixels apart; lower ones are filled up with white.

    Args:
        images: at least one (H, W, 3) or grey (H, W) uint8 array, of any sizes.
        gap: pixels between two images.

    Returns:
        (largest H, sum of W and gaps, 3) uint8 RGB.
    """
    height = max(image.shape[0] for image in images)
    cells = []
    for image in images:
        colour = np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image
        cells.append(_on_paper(colour, height, colour.shape[1] + gap))
    return np.concatenate(cells, axis=1)[:, : -gap or None]


def captioned(image: np.ndarray, text: str) -> np.ndarray:
    """The image under a strip with a line of text.

    Args:
        image: (H, W, 3) uint8 RGB.
        text: characters beyond ASCII show as "?"; cut where the image ends.

    Returns:
        (H + strip, W, 3) uint8 RGB.
    """
    height = int(np.clip(image.shape[1] / 100, 9, 24))
    strip = np.full((2 * height, image.shape[1], 3), _PAPER, np.uint8)
    scale = cv2.getFontScaleFromHeight(_FONT, height)
    at = (height // 2, round(1.5 * height))
    written = text.encode("ascii", "replace").decode()
    cv2.putText(strip, written, at, _FONT, scale, _INK, max(1, height // 12), cv2.LINE_AA)
    return np.concatenate([strip, image])


def write_png(path: str | Path, image: np.ndarray) -> None:
    """Write RGB uint8 (H, W, 3), or one channel uint8 or uint16 (H, W), as PNG.

    Missing folders are made.

    Raises:
        UserError: the file can't be written.
    """
    stored = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    encoded, data = cv2.imencode(".png", stored)
    if not encoded:
        raise ValueError(f"{image.shape} {image.dtype} can't be stored as PNG")
    with atomic_write(path, sync=False) as file:
        file.write(data.tobytes())


def save_palette_png(path: str | Path, label: np.ndarray, palette: np.ndarray) -> None:
    """Write a label as a palette PNG: programs read the class indices, viewers show the colours.

    Args:
        path: the file to write; missing folders are made.
        label: (H, W), integers from 0 to 255.
        palette: (classes, 3) uint8; values beyond it show black.

    Raises:
        UserError: the file can't be written.
    """
    from PIL import Image

    height, width = label.shape
    picture = Image.frombytes("P", (width, height), label.astype(np.uint8).tobytes())
    picture.putpalette(_lookup(palette).tobytes())
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    with atomic_write(path, sync=False) as file:
        file.write(buffer.getvalue())


def _lookup(palette: np.ndarray) -> np.ndarray:
    """The palette filled up with black to 256 colours, (256, 3) uint8."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(palette)] = palette
    return table


def _on_paper(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """(H, W, 3) in the upper left of white (height, width, 3)."""
    below, right = height - image.shape[0], width - image.shape[1]
    return np.pad(image, ((0, below), (0, right), (0, 0)), constant_values=_PAPER)
