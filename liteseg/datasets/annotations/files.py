"""Files of annotation formats: reading, errors with the place in a file, and finding images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

from PIL import Image

from liteseg.errors import UserError, quoted
from liteseg.utils.files import read_json, read_regular
from liteseg.utils.images import IMAGE_SUFFIXES

# Errors of damaged entries; the last two are Pillow's.
BAD = (
    *(ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError),
    *(SyntaxError, Image.DecompressionBombError),
)
_LIMIT = 2 << 30


class Entries:
    """Turns errors of damaged entries into a UserError with the file and the `place` in it."""

    def __init__(self, path: Path):
        self.path = path
        self.place = ""

    def __enter__(self) -> Entries:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if isinstance(error, (*BAD, OSError)):
            where = f"{self.path}: {self.place}" if self.place else str(self.path)
            problem = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise UserError(f"{where}: {problem[:300]}") from None


def upright_size(image: Image.Image) -> tuple[int, int]:
    """(w, h) of an opened image after its EXIF orientation."""
    width, height = image.size
    return (height, width) if image.getexif().get(0x0112, 1) > 4 else (width, height)


def existing(paths: Sequence[Path]) -> Optional[Path]:
    """The first path that is a file."""
    return next((path for path in paths if path.is_file()), None)


def find_image(name: Path, folders: Sequence[Path]) -> Path:
    """The image `name`, with or without suffix, in or below one of the folders.

    Raises:
        UserError: there is none, or several.
    """
    names = [name] if name.suffix.lower() in IMAGE_SUFFIXES else []
    names += [name.with_name(name.name + suffix) for suffix in IMAGE_SUFFIXES]
    below = ("", "images", "data", "JPEGImages")
    direct = [folder / sub / one for folder in folders for sub in below for one in names]
    if image := existing(direct):
        return image
    wanted = {one.name for one in names}
    found = sorted({p for folder in folders for p in folder.rglob("*") if p.name in wanted})
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(f"{name}: {len(found)} images have this name, such as {found[0]}")
    places = " or ".join(str(folder) for folder in folders)
    raise UserError(f"{name}: no such image in {places}; give its folder with --images")


def bytes_of(path: Path) -> bytes:
    """The content of a regular file; UserError if it can't be read."""
    try:
        return read_regular(path, _LIMIT)
    except OSError as error:
        raise UserError(f"{path}: can't be read: {error.strerror}") from None


def text_of(path: Path) -> str:
    """UTF-8 text of a file; UserError if it is not."""
    try:
        return bytes_of(path).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text") from None


def json_of(path: Path) -> Any:
    """The content of a JSON file; UserError if it is not JSON."""
    try:
        return read_json(path, _LIMIT)
    except OSError as error:
        raise UserError(f"{path}: can't be read: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{path}: not JSON: {quoted(error)}") from None
