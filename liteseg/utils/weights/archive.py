"""Extraction of weights, or of a pack, from an untrusted `.tar`, `.tar.gz` or `.zip`.

Only members with the names of a pack are written, to a new folder in the cache. Archives with a
member that points elsewhere (`..`, absolute paths, links) are rejected as a whole nevertheless.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import lzma
import os
import re
import shutil
import stat
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Generator
from pathlib import Path, PurePosixPath
from typing import Any

from liteseg.errors import UserError, quoted
from liteseg.utils.files import atomic_write, check_writable, sha256_of

SUFFIXES = (".tar.gz", ".tgz", ".tar", ".zip")
WEIGHTS_NAME = "model.pdparams"
PACK_FILES = ("config.yml", "pack.json", "README.md")
_PLUGIN = re.compile(r"plugins/\w[\w.-]*\.py")
# ValueError is raised here, RuntimeError by zipfile for encryption and unknown compression,
# LookupError for an empty name.
_READ_ERRORS = (
    ValueError,
    ArithmeticError,
    LookupError,
    struct.error,
    RuntimeError,
    OSError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    tarfile.TarError,
    zipfile.BadZipFile,
)
# File names and readable streams.
_Entries = Generator[tuple[str, Any], None, None]


class _Bounded(io.RawIOBase):
    """A stream that raises once more than `limit` bytes have been read from it."""

    def __init__(self, stream: Any, limit: int):
        self._stream = stream
        self._left = limit

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise ValueError("it unpacks to far more than weights would")
        return data


def unpack_weights(archive: Path, cache: Path, name: str = "") -> Path:
    """Copy the weights in `archive` to a folder of `cache` named after the archive's SHA-256.

    The files of a pack (see `is_part_of_pack`) are copied with them.

    Args:
        archive: the file.
        cache: parent of the folder.
        name: file name of the archive, if `archive` has not got it yet.

    Returns:
        The path of the copy. An existing copy is used again.

    Raises:
        UserError: the archive is damaged, contains no weights or several, unpacks to far more than
            its size, or has members that are links, devices, or paths outside the archive.
    """
    name = name or archive.name
    folder = cache / f"{name.split('.')[0]}-{sha256_of(archive)[:12]}"
    target = folder / WEIGHTS_NAME
    if target.is_file():
        return target
    try:
        # Weights hardly compress; the floor is for tiny archives.
        limit = max(64 << 20, 20 * archive.stat().st_size)
        is_zip = name.lower().endswith(".zip")
        parts = _parts([member for member, _ in _files(archive, is_zip, limit)])
        with tempfile.TemporaryDirectory(dir=check_writable(cache)) as scratch:
            for member, content in _files(archive, is_zip, limit):
                if member in parts:
                    with atomic_write(Path(scratch, "new", parts[member])) as file:
                        shutil.copyfileobj(content, file, 1 << 20)
            with contextlib.suppress(OSError):  # another process was faster
                os.replace(Path(scratch, "new"), folder)
    except _READ_ERRORS as error:
        raise UserError(
            f"{archive} can't be used as an archive of weights: {error}; download it again from "
            f"its publisher, or unpack it yourself and give the {WEIGHTS_NAME}"
        ) from error
    if not target.is_file():
        raise UserError(f"{archive} changed while it was read, or {folder} is in the way")
    return target


def members_of(archive: Path) -> list[str]:
    """The names of the files in an archive; none if it cannot be read."""
    try:
        is_zip = archive.name.lower().endswith(".zip")
        return [member for member, _ in _files(archive, is_zip, 20 * archive.stat().st_size)]
    except _READ_ERRORS:
        return []


def _parts(members: list[str]) -> dict[str, str]:
    """Member -> relative path of its copy, for the weights and the files of a pack around them."""
    weights = [member for member in members if member.endswith(".pdparams")]
    chosen = [n for n in weights if PurePosixPath(n).name == WEIGHTS_NAME] or weights
    if len(chosen) != 1:
        found = f"{len(chosen)} ({', '.join(map(quoted, chosen[:4]))})" if chosen else "none"
        raise ValueError(f"it should contain one {WEIGHTS_NAME}, found {found}")
    root = PurePosixPath(chosen[0]).parent
    paths = [(member, PurePosixPath(member)) for member in members]
    near = {m: str(path.relative_to(root)) for m, path in paths if path.is_relative_to(root)}
    pack = {member: path for member, path in near.items() if is_part_of_pack(path)}
    return {**pack, chosen[0]: WEIGHTS_NAME}


def is_part_of_pack(path: str) -> bool:
    """Whether `liteseg models pack` writes a file of this path, relative to the weights."""
    return path in PACK_FILES or bool(_PLUGIN.fullmatch(path))


def _files(archive: Path, is_zip: bool, limit: int) -> _Entries:
    """Name and content of each regular file; read the content before the next iteration."""
    entries = _zip_files if is_zip else _tar_files
    with contextlib.closing(entries(archive, limit)) as found:
        for name, content in found:
            path = PurePosixPath(name.replace("\\", "/"))
            if path.is_absolute() or ".." in path.parts or ":" in str(path).partition("/")[0]:
                raise ValueError(f"rejected: its member {quoted(name)} points outside of it")
            yield name, content


def _tar_files(archive: Path, limit: int) -> _Entries:
    with open(archive, "rb") as file:
        opener: Any = gzip.open if file.read(2) == b"\x1f\x8b" else open
    # "r|" reads strictly forward, so that the limit applies to headers too.
    with (
        opener(archive, "rb") as stream,
        tarfile.open(fileobj=_Bounded(stream, limit), mode="r|") as tar,
    ):
        for member in tar:
            if member.issparse():
                raise ValueError(f"rejected: its member {quoted(member.name)} is a sparse file")
            if member.isfile():
                yield member.name, _Bounded(tar.extractfile(member), limit)
            elif not member.isdir():
                raise ValueError(f"rejected: its member {quoted(member.name)} is a link or device")


def _zip_files(archive: Path, limit: int) -> _Entries:
    with zipfile.ZipFile(archive) as packed:
        for info in packed.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise ValueError(f"rejected: its member {quoted(info.filename)} is a link")
            if not info.is_dir():
                with packed.open(info) as content:
                    yield info.filename, _Bounded(content, limit)
