"""Files as people have them: a folder of images beside one of masks; masks drawn in colours."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Optional

import numpy as np

from liteseg.datasets.base import name_some, require_folder
from liteseg.errors import UserError, quoted

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
IGNORED = "ignore"  # the name of colours that don't count


def pair_folders(images: Path, labels: Optional[Path]) -> list[tuple[Path, Optional[Path]]]:
    """Each image of a folder with the label of its name, by ascending name.

    `street.jpg` goes with `street.png`, or else with `street_<anything>.png`, such as
    `street_mask.png`.

    Args:
        images: the folder; folders in it are not entered.
        labels: likewise; None for images without labels.

    Raises:
        UserError: no image, an image without a label, or with several.
    """
    found = _images_in(require_folder(images, "image_dir", "the images"))
    if not found:
        raise UserError(f"image_dir: {images} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})")
    if labels is None:
        return [(image, None) for image in found]
    exact: dict[str, list[Path]] = {}
    marked: dict[str, list[Path]] = {}
    for label in _images_in(require_folder(labels, "label_dir", "the labels")):
        exact.setdefault(label.stem, []).append(label)
        marked.setdefault(label.stem.rpartition("_")[0], []).append(label)
    pairs = [(image, exact.get(image.stem) or marked.get(image.stem, [])) for image in found]
    wrong = [f"{image}: {len(fitting)} labels" for image, fitting in pairs if len(fitting) != 1]
    if wrong:
        raise UserError(
            f"{len(wrong)} of {len(found)} images have not one label in {labels}, named as the "
            f"image or with _<anything> behind it:\n  {name_some(wrong)}"
        )
    return [(image, fitting[0]) for image, fitting in pairs]


def _images_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)


class Colours(NamedTuple):
    """What the colours of masks mean.

    Attributes:
        names: of the classes, in the order of their first lines.
        palette: (classes, 3) uint8 RGB, the first colour of each.
        keys: (colours,) int32 ascending: red * 65536 + green * 256 + blue.
        values: (colours,) uint8 class numbers of the keys.
    """

    names: tuple[str, ...]
    palette: np.ndarray
    keys: np.ndarray
    values: np.ndarray

    @classmethod
    def read(cls, path: Path, ignore_index: int) -> Colours:
        """From a text file with a line `red green blue name` for each colour.

        Several colours may have one name and are one class; those named `ignore` don't count.
        Empty lines and what follows a # are skipped.

        Raises:
            UserError: unreadable, no class, or a line of another form.
        """
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"colours: can't read {path}: {error}") from None
        first: dict[str, tuple[int, ...]] = {}
        names: dict[int, str] = {}
        for number, line in enumerate(lines, start=1):
            if words := line.partition("#")[0].split(maxsplit=3):
                colour, name = _colour(words, f"{path}:{number}")
                if names.setdefault(_key(colour), name) != name:
                    raise UserError(f"{path}:{number}: {colour} was {names[_key(colour)]!r} before")
                if name != IGNORED:
                    first.setdefault(name, colour)
        if not first:
            raise UserError(f"{path}: no class; expected a line `red green blue name` for each")
        numbers = {name: number for number, name in enumerate(first)} | {IGNORED: ignore_index}
        keys = sorted(names)
        return cls(
            tuple(first),
            np.array(list(first.values()), np.uint8),
            np.array(keys, np.int32),
            np.array([numbers[names[key]] for key in keys], np.uint8),
        )

    def decode(self, rgb: np.ndarray, path: Path) -> np.ndarray:
        """(h, w) uint8 class numbers of an (h, w, 3) uint8 RGB mask.

        Raises:
            UserError: colours that have no line, with the first three and their pixels.
        """
        pixels = rgb.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
        places = np.searchsorted(self.keys, pixels).clip(max=len(self.keys) - 1)
        stray = self.keys[places] != pixels
        if stray.any():
            keys, counts = np.unique(pixels[stray], return_counts=True)
            most = np.argsort(-counts)[:3]
            told = [
                f"{key >> 16} {key >> 8 & 255} {key & 255} ({count} pixels)"
                for key, count in zip(keys[most], counts[most])
            ]
            raise UserError(
                f"{path}: {len(keys)} colours are not in the file of colours, such as "
                f"{', '.join(told)}; add a line for each (name `{IGNORED}`: does not count). Many "
                "unknown colours come from a JPEG or a smoothly resized mask"
            )
        return self.values[places]


def _colour(words: list[str], place: str) -> tuple[tuple[int, ...], str]:
    numbers = words[:3]
    if len(words) < 4 or not all(n.isdecimal() and int(n) < 256 for n in numbers):
        raise UserError(
            f"{place}: {quoted(' '.join(words))}: expected `red green blue name`, 0 to 255 each"
        )
    return tuple(map(int, numbers)), words[3].strip()


def _key(colour: tuple[int, ...]) -> int:
    return colour[0] << 16 | colour[1] << 8 | colour[2]
