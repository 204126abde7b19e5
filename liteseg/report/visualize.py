"""Visualizations of labels: colors, overlays, legends, error maps; and writing PNG files.

Images are RGB uint8 (H, W, 3), labels are class indices (H, W), a palette is uint8 (classes, 3).
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Optional

import cv2
import numpy as np

from liteseg.utils.files import atomic_write
from liteseg.utils.results import marked_png

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_WHITE, _BLACK = 255, (0, 0, 0)
CORRECT, WRONG, IGNORED = (190, 190, 190), (220, 50, 32), (0, 0, 0)


def colorize(label: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """The palette's color at every pixel, black where the label is not a class of the palette.

    Args:
        label: (H, W), integers from 0 to 255.
        palette: (classes, 3) uint8, at most 256 classes.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    return _color_table(palette)[label.astype(np.uint8)]


def overlay(
    image: np.ndarray,
    label: np.ndarray,
    palette: np.ndarray,
    alpha: float = 0.55,
    ignore_index: int = 255,
) -> np.ndarray:
    """The image blended with the colors of the label; unchanged where there is no class or black.

    Black is the color of the background, which would darken most of the image.

    Args:
        image: (H, W, 3) uint8 RGB.
        label: (H, W) class indices.
        palette: (classes, 3) uint8.
        alpha: weight of the color, from 0 (image only) to 1 (colors only).
        ignore_index: pixels with this label are unchanged, as are those beyond the palette.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    colors = colorize(label, palette)
    mixed = cv2.addWeighted(image, 1 - alpha, colors, alpha, 0)
    unchanged = (label == ignore_index) | ~colors.any(axis=2)
    mixed[unchanged] = image[unchanged]
    return mixed


def with_legend(
    image: np.ndarray,
    class_names: Sequence[str],
    palette: np.ndarray,
    present: Optional[Iterable[int]] = None,
) -> np.ndarray:
    """The image above a legend of the colors, in as many rows as needed.

    The text grows with the image. An image narrower than the longest name is padded with white.

    Args:
        image: (H, W, 3) uint8 RGB.
        class_names: one per class; characters beyond ASCII become "?".
        palette: (classes, 3) uint8.
        present: the classes to show, e.g. those in the label; all if None. Other values, such as
            the ignore index, are skipped.

    Returns:
        (H + legend, max(W, longest name), 3) uint8 RGB.
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
    # Columns of equal width are easier to search.
    column, row = max(widths), box + gap
    width = max(image.shape[1], column + gap)
    columns = min(len(names), (width - gap) // column)
    rows = -(-len(names) // columns)
    strip = np.full((rows * row + gap, width, 3), _WHITE, np.uint8)
    for k, (index, name) in enumerate(zip(shown, names)):
        x, y = gap + k % columns * column, gap + k // columns * row
        color = tuple(int(c) for c in palette[index])
        cv2.rectangle(strip, (x, y), (x + box, y + box), color, cv2.FILLED)
        # An outline, for colors close to the background.
        cv2.rectangle(strip, (x, y), (x + box, y + box), _BLACK, 1)
        baseline = (x + box + gap, y + (box + text_height) // 2)
        cv2.putText(strip, name, baseline, _FONT, scale, _BLACK, thickness, cv2.LINE_AA)
    return np.concatenate([_pad(image, image.shape[0], width), strip])


def error_map(pred: np.ndarray, label: np.ndarray, ignore_index: int = 255) -> np.ndarray:
    """The errors of a prediction: gray is right, red is wrong, black is ignored.

    Args:
        pred: (H, W) class indices.
        label: (H, W) class indices.
        ignore_index: label of the pixels to ignore.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    colors = np.array([CORRECT, WRONG, IGNORED], np.uint8)
    return colors[np.where(label == ignore_index, 2, pred != label)]


def panel(images: Sequence[np.ndarray], gap: int = 4) -> np.ndarray:
    """Images side by side, `gap` white pixels apart; shorter ones are padded with white.

    Args:
        images: at least one (H, W, 3) or gray (H, W) uint8 array, of any sizes.
        gap: pixels between two images.

    Returns:
        (largest H, sum of W and gaps, 3) uint8 RGB.
    """
    height = max(image.shape[0] for image in images)
    cells = []
    for image in images:
        rgb = np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image
        cells.append(_pad(rgb, height, rgb.shape[1] + gap))
    return np.concatenate(cells, axis=1)[:, : -gap or None]


def captioned(image: np.ndarray, text: str) -> np.ndarray:
    """The image below a line of text.

    Args:
        image: (H, W, 3) uint8 RGB.
        text: characters beyond ASCII become "?"; cut at the width of the image.

    Returns:
        (H + text, W, 3) uint8 RGB.
    """
    height = int(np.clip(image.shape[1] / 100, 9, 24))
    strip = np.full((2 * height, image.shape[1], 3), _WHITE, np.uint8)
    scale = cv2.getFontScaleFromHeight(_FONT, height)
    at = (height // 2, round(1.5 * height))
    written = text.encode("ascii", "replace").decode()
    cv2.putText(strip, written, at, _FONT, scale, _BLACK, max(1, height // 12), cv2.LINE_AA)
    return np.concatenate([strip, image])


def write_png(path: str | Path, image: np.ndarray) -> None:
    """Write RGB uint8 (H, W, 3), or one channel uint8 or uint16 (H, W), as PNG.

    Missing folders are created.

    Raises:
        UserError: the file can't be written.
    """
    with atomic_write(path, sync=False) as file:
        file.write(encode_png(image))


def encode_png(image: np.ndarray) -> bytes:
    """The content of the file that `write_png` writes."""
    stored = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    encoded, data = cv2.imencode(".png", stored)
    if not encoded:
        raise ValueError(f"{image.shape} {image.dtype} can't be stored as PNG")
    return marked_png(data.tobytes())


def save_palette_png(path: str | Path, label: np.ndarray, palette: np.ndarray) -> None:
    """Write the content of `encode_palette_png`; missing folders are created.

    Raises:
        UserError: the file can't be written.
    """
    with atomic_write(path, sync=False) as file:
        file.write(encode_palette_png(label, palette))


def encode_palette_png(label: np.ndarray, palette: np.ndarray) -> bytes:
    """Encode a label as a palette PNG: programs read the class indices, viewers show the colors.

    Args:
        label: (H, W), integers from 0 to 255.
        palette: (classes, 3) uint8; values beyond it are black.
    """
    from PIL import Image

    image = Image.fromarray(label.astype(np.uint8))
    image.putpalette(_color_table(palette).tobytes())
    content = io.BytesIO()
    image.save(content, "PNG")
    return marked_png(content.getvalue())


def _color_table(palette: np.ndarray) -> np.ndarray:
    """The palette padded with black to 256 colors, (256, 3) uint8."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(palette)] = palette
    return table


def _pad(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """The image padded with white at the bottom and right to (height, width, 3)."""
    below, right = height - image.shape[0], width - image.shape[1]
    return np.pad(image, ((0, below), (0, right), (0, 0)), constant_values=_WHITE)
