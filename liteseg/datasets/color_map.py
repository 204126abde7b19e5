"""Labels drawn in colors, and the default colors of classes."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from liteseg.errors import UserError, quoted
from liteseg.utils.files import read_regular

_MAX_BYTES = 1 << 20
IGNORED = "ignore"  # the name of colors that are not counted
_ADD_LINES = f"add a line for each to the color file (name `{IGNORED}`: not counted)"


@dataclass(frozen=True, eq=False)
class ColorMap:
    """The classes of the colors of a label.

    Attributes:
        names: class names in the order of their first lines.
        palette: (num_classes, 3) uint8 RGB, the first color of each class.
        values: {red << 16 | green << 8 | blue: label value}.
        ignore_index: label value of the colors named `ignore`.
    """

    names: tuple[str, ...]
    palette: np.ndarray
    values: dict[int, int]
    ignore_index: int

    @classmethod
    def read(cls, path: Path, ignore_index: int) -> ColorMap:
        """Read a text file with a line `red green blue name` for each color.

        Raises:
            UserError: the file is unreadable, or as `parse`.
        """
        try:
            lines = read_regular(path, _MAX_BYTES).decode("utf-8-sig").splitlines()
        except OSError as error:
            raise UserError(f"colours: can't read {path}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise UserError(f"colours: {path} is not UTF-8 text") from None
        return cls.parse(lines, ignore_index, str(path))

    @classmethod
    def parse(cls, lines: Sequence[str], ignore_index: int, source: str) -> ColorMap:
        """Parse lines `red green blue name`; blank lines and text after a # are skipped.

        Colors of the same name form one class; colors named `ignore` are not counted. `source`
        goes into the errors.

        Raises:
            UserError: no class, a malformed line, or a color with two names.
        """
        first: dict[str, tuple[int, ...]] = {}
        names: dict[int, str] = {}
        for number, line in enumerate(lines, start=1):
            if words := line.partition("#")[0].split(maxsplit=3):
                color, name = _parse_words(words, f"{source}:{number}")
                code = color[0] << 16 | color[1] << 8 | color[2]
                if names.setdefault(code, name) != name:
                    raise UserError(f"{source}:{number}: {color} was {names[code]!r} before")
                if name != IGNORED:
                    first.setdefault(name, color)
        if not first:
            raise UserError(f"{source}: no class; expected a line `red green blue name` for each")
        numbers = {name: number for number, name in enumerate(first)} | {IGNORED: ignore_index}
        palette = np.array(list(first.values()), np.uint8)
        values = {code: numbers[name] for code, name in names.items()}
        return cls(tuple(first), palette, values, ignore_index)

    @functools.cached_property
    def _table(self) -> np.ndarray:
        """Label value + 1 by color code, 0 for unknown colors; untouched pages take no memory."""
        table = np.zeros(1 << 24, np.uint16)
        for code, value in self.values.items():
            table[code] = value + 1
        return table

    def decode(
        self, rgb: np.ndarray, path: Path, max_unknown: float = 0.0, fix: str = _ADD_LINES
    ) -> np.ndarray:
        """Label values (h, w) uint8 of an (h, w, 3) uint8 RGB label.

        Args:
            rgb: the label.
            path: its file, for the error.
            max_unknown: share of pixels of unknown colors to ignore; more are an error.
            fix: advice for the error.

        Raises:
            UserError: too many pixels of unknown colors.
        """
        # (h, w, 3) -> (h, w, 4) bytes blue, green, red, 255 -> (h, w) codes
        codes = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGRA).view("<u4")[..., 0] & 0xFFFFFF
        entries = np.take(self._table, codes)
        unknown = entries == 0
        count = np.count_nonzero(unknown)
        if count > max_unknown * unknown.size:
            found, counts = np.unique(codes[unknown], return_counts=True)
            most = [
                f"{code >> 16} {code >> 8 & 255} {code & 255} ({pixels} pixels)"
                for pixels, code in sorted(zip(counts, found), reverse=True)[:3]
            ]
            raise UserError(
                f"{path}: {count} of {unknown.size} pixels have {len(found)} unknown colors, such "
                f"as {', '.join(most)}; {fix}. Many unknown colors come from a JPEG or a smoothly "
                "resized label"
            )
        label = (entries - 1).astype(np.uint8)
        label[unknown] = self.ignore_index
        return label


def _parse_words(words: list[str], place: str) -> tuple[tuple[int, ...], str]:
    numbers = words[:3]
    if len(words) < 4 or not all(n.isdecimal() and int(n) < 256 for n in numbers):
        # Quoted only if it looks like a color: `colours` may name any file.
        found = f"{quoted(' '.join(words))}: " if all(n.isdecimal() for n in numbers) else ""
        raise UserError(f"{place}: {found}expected `red green blue name`, 0 to 255 each")
    return tuple(map(int, numbers)), words[3].strip()


def default_palette(num_classes: int) -> np.ndarray:
    """(num_classes, 3) uint8 distinct colors: the PASCAL VOC color map, class 0 in black.

    The bits of the class number are dealt to red, green and blue in turn, high bits first.
    """
    number = np.arange(num_classes)
    palette = np.zeros((num_classes, 3), np.uint8)
    for bit in range(8):
        channel, place = bit % 3, 7 - bit // 3
        palette[:, channel] |= (((number >> bit) & 1) << place).astype(np.uint8)
    return palette
