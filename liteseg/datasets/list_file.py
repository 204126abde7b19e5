"""List files: text files with a line `image label` per sample."""

from __future__ import annotations

import functools
import io
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Optional

import numpy as np

from liteseg.datasets.arguments import backslash_advice, first_few
from liteseg.datasets.base import Sample
from liteseg.errors import UserError
from liteseg.utils.files import read_regular

_MAX_BYTES = 2 << 30
_NAMED = 3  # missing files in an error, at most


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
    return list(lines_of(path, separator))


def lines_of(path: Path, separator: str = " ") -> Iterator[Line]:
    """As `read_list`, one line at a time."""
    if not separator:
        raise UserError("separator: is empty; expected the text between image and label")
    try:
        content = read_regular(path, _MAX_BYTES)
    except OSError as error:
        raise UserError(f"{path}: can't read the list: {error.strerror}") from None
    if b"\r" in content:
        content = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    is_empty = True
    for number, raw in enumerate(io.BytesIO(content), start=1):
        place = f"{path}:{number}"
        try:
            text = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError:
            raise UserError(f"{place}: the list is not UTF-8 text; save it as UTF-8") from None
        if text:
            is_empty = False
            yield Line(_columns(text, separator, place), place)
    if is_empty:
        raise UserError(f"{path}: the list is empty; expected a line `image label` per image")


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


def add_lines(
    samples: SampleList, lines: Iterable[Line], root: Path, label_optional: bool = False
) -> None:
    """Add the (image, label) files of the lines of a list.

    Raises:
        UserError: a line without a label (unless `label_optional`), or files that do not exist.
    """
    missing: list[str] = []
    count = 0
    for line in lines:
        if len(line.columns) == 1 and not label_optional:
            other = next((mark for mark in "\t,;| " if mark in line.columns[0]), None)
            hint = f"; is the separator {other!r}? (key separator)" if other else ""
            raise UserError(
                f"{line.place}: one column in {line.columns[0]!r}, expected `image label`{hint}"
            )
        paths = [listed_path(root, column) for column in line.columns]
        for path in paths:
            if not os.path.isfile(path):
                count += 1
                missing += [f"{line.place}: {path}"] if len(missing) < _NAMED else []
        samples.add(paths[0], paths[1] if len(paths) == 2 else None)
    require_files(missing, root, count)


def listed_path(root: Path, column: str) -> str:
    """The file of a column: absolute, or relative to `root`; `\\` separates folders like `/`."""
    path = os.path.join(root, column)
    if "\\" in column and not os.path.exists(path):
        return os.path.join(root, column.replace("\\", "/"))
    return path


def require_files(missing: Sequence[str], root: Path, count: Optional[int] = None) -> None:
    """Raise one UserError for all listed files that are missing; `missing` may be the first."""
    if missing:
        windows = any(re.search(r"[A-Za-z]:[/\\]", name.partition(": ")[2]) for name in missing)
        hint = "; these are paths of a Windows drive: write them relative to dataset_root"
        shown = (
            "\n  ".join([*missing[:3], f"... and {count - 3} more"]) if count and count > 3 else ""
        )
        raise UserError(
            f"{count or len(missing)} listed files do not exist (names are relative to "
            f"{root.absolute()}{hint if windows else ''}):\n  {shown or first_few(missing)}"
        )


class SampleList(Sequence[Sample]):
    """Samples of a dataset that may have millions: each takes about 100 bytes until it is used.

    They are named by image stem, or by the path below `root` if stems are not unique.
    """

    def __init__(self, root: Path):
        self._root = str(root)
        self._entries: list[bytes] = []  # image and label below `root`, separated by a zero byte

    def add(self, image: str, label: Optional[str]) -> None:
        """Append a sample."""
        prefix = self._root + os.sep
        names = [image] if label is None else [image, label]
        short = [name[len(prefix) :] if name.startswith(prefix) else name for name in names]
        self._entries.append(os.fsencode("\0".join(short)))

    @functools.cached_property
    def _unique(self) -> bool:
        names = (entry.partition(b"\0")[0].decode(errors="replace") for entry in self._entries)
        pairs = np.fromiter(
            ((hash(_stem(name)), hash(name)) for name in names), np.dtype((np.int64, 2))
        )
        return len(np.unique(pairs[:, 0])) == len(np.unique(pairs[:, 1]))

    def _paths(self, index: int) -> list[str]:
        names = os.fsdecode(self._entries[index]).split("\0")
        return [os.path.join(self._root, name) for name in names]

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        paths = self._paths(index)
        label = Path(paths[1]) if len(paths) == 2 else None
        return Sample(Path(paths[0]), label, self._name(paths[0]))

    def _name(self, image: str) -> str:
        if self._unique:
            return _stem(image)
        path, root = Path(image), Path(self._root)
        inside = path.relative_to(root) if path.is_relative_to(root) else path
        return "_".join(part for part in inside.parts if part != inside.anchor)


def _stem(path: str) -> str:
    """As `Path(path).stem`, in a fifth of its time."""
    name = path.rpartition("/")[2]
    dot = name.rfind(".")
    return name[:dot] if 0 < dot < len(name) - 1 else name


def named_samples(pairs: Sequence[tuple[Path, Optional[Path]]], root: Path) -> SampleList:
    """The samples of (image, label) files."""
    samples = SampleList(root)
    for image, label in pairs:
        samples.add(str(image), None if label is None else str(label))
    return samples
