"""List files: text files with a line `image label` per sample."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Optional

from liteseg.datasets.arguments import backslash_advice, first_few
from liteseg.datasets.base import Sample
from liteseg.errors import UserError
from liteseg.utils.files import read_regular

_MAX_BYTES = 1 << 30


class Line(NamedTuple):
    """The columns of a line of a list file, and its place as `file:number`."""

    columns: list[str]
    place: str


def find_list(path: Optional[str], root: Path, key: str) -> Path:
    """The list file `path`, relative to the working directory (as in PaddleSeg) or to `root`."""
    if not path:
        raise UserError(f"{key}: not set; give the list file, a line `image label` per image")
    candidates = [Path(os.path.expanduser(path)), root / path]
    for candidate in candidates:
        if os.path.isfile(candidate):
            return candidate
    searched = " and ".join(str(candidate.absolute()) for candidate in candidates)
    advice = backslash_advice(path)
    raise UserError(f"{key}: no list file {path}; looked for {searched}{advice}")


def read_list(path: Path, separator: str = " ") -> list[Line]:
    """The non-blank lines of a UTF-8 list file, with one or two columns each.

    Windows line ends and a byte order mark are allowed.

    Raises:
        UserError: the file is unreadable, empty or not UTF-8, or a line has another number of
            columns.
    """
    if not separator:
        raise UserError("separator: is empty; expected the text between image and label")
    try:
        content = read_regular(path, _MAX_BYTES)
    except OSError as error:
        raise UserError(f"{path}: can't read the list: {error.strerror}") from None
    lines = []
    for number, raw in enumerate(content.splitlines(), start=1):
        place = f"{path}:{number}"
        try:
            text = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError:
            raise UserError(f"{place}: the list is not UTF-8 text; save it as UTF-8") from None
        if text:
            lines.append(Line(_columns(text, separator, place), place))
    if not lines:
        raise UserError(f"{path}: the list is empty; expected a line `image label` per image")
    return lines


def _columns(text: str, separator: str, place: str) -> list[str]:
    columns = [column.strip() for column in text.split(separator)]
    if separator.isspace():  # some lists align their columns with several spaces
        columns = [column for column in columns if column]
    if len(columns) > 2 or not all(columns):
        fix = f" If a name contains {separator!r}, use another separator (key separator)."
        raise UserError(
            f"{place}: {len(columns)} columns in {text!r} with separator {separator!r}, expected "
            f"`image label`.{fix if all(columns) else ''}"
        )
    return columns


def pairs_of_lines(
    lines: Sequence[Line], root: Path, label_optional: bool = False
) -> list[tuple[Path, Optional[Path]]]:
    """The (image, label) files of the lines of a list.

    Raises:
        UserError: a line without a label (unless `label_optional`), or files that do not exist.
    """
    pairs, missing = [], []
    for line in lines:
        if len(line.columns) == 1 and not label_optional:
            other = next((mark for mark in "\t,;| " if mark in line.columns[0]), None)
            hint = f"; is the separator {other!r}? (key separator)" if other else ""
            raise UserError(
                f"{line.place}: one column in {line.columns[0]!r}, expected `image label`{hint}"
            )
        paths = [listed_path(root, column) for column in line.columns]
        missing += [f"{line.place}: {path}" for path in paths if not os.path.isfile(path)]
        pairs.append((paths[0], paths[1] if len(paths) == 2 else None))
    require_files(missing, root)
    return pairs


def listed_path(root: Path, column: str) -> Path:
    """The file of a column: absolute, or relative to `root`; `\\` separates folders like `/`."""
    path = root / column
    return root / column.replace("\\", "/") if "\\" in column and not path.exists() else path


def require_files(missing: Sequence[str], root: Path) -> None:
    """Raise one UserError for all listed files that are missing."""
    if missing:
        windows = any(re.search(r"[A-Za-z]:[/\\]", name.partition(": ")[2]) for name in missing)
        hint = "; these are paths of a Windows drive: write them relative to dataset_root"
        raise UserError(
            f"{len(missing)} listed files do not exist (names are relative to {root.absolute()}"
            f"{hint if windows else ''}):\n  {first_few(missing)}"
        )


def named_samples(pairs: Sequence[tuple[Path, Optional[Path]]], root: Path) -> list[Sample]:
    """Samples named by image stem, or by the path below `root` if stems are not unique."""
    images = {image for image, _ in pairs}
    unique = len({image.stem for image in images}) == len(images)

    def name(image: Path) -> str:
        if unique:
            return image.stem
        inside = image.relative_to(root) if image.is_relative_to(root) else image
        return "_".join(part for part in inside.parts if part != inside.anchor)

    return [Sample(image, label, name(image)) for image, label in pairs]
