"""Extraction of one weights file from an untrusted `.tar`, `.tar.gz` or `.zip`.

Member paths are never written to: the weights are copied to a path of our choice. Archives with a
member that points elsewhere (`..`, absolute paths, links) are rejected as a whole nevertheless.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import lzma
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Generator
from pathlib import Path, PurePosixPath
from typing import Any

from liteseg.errors import UserError, quoted
from liteseg.utils.files import atomic_write, sha256_of

SUFFIXES = (".tar.gz", ".tgz", ".tar", ".zip")
WEIGHTS_NAME = "model.pdparams"
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


def unpack_weights(archive: Path, cache: Path) -> Path:
    """Copy the weights in `archive` to a folder of `cache` named after the archive's SHA-256.

    Returns:
        The path of the copy. An existing copy is used again.

    Raises:
        UserError: the archive is damaged, contains no weights or several, unpacks to far more than
            its size, or has members that are links, devices, or paths outside the archive.
    """
    folder = cache / f"{archive.name.split('.')[0]}-{sha256_of(archive)[:12]}"
    target = folder / WEIGHTS_NAME
    if target.is_file():
        return target
    # Weights hardly compress; the floor is for tiny archives.
    limit = max(64 << 20, 20 * archive.stat().st_size)
    try:
        names = [name for name, _ in _files(archive, limit) if name.endswith(".pdparams")]
        chosen = [n for n in names if PurePosixPath(n).name == WEIGHTS_NAME] or names
        if len(chosen) != 1:
            found = f"{len(chosen)} ({', '.join(map(quoted, chosen[:4]))})" if chosen else "none"
            raise ValueError(f"it should contain one {WEIGHTS_NAME}, found {found}")
        for name, content in _files(archive, limit):
            if name == chosen[0]:
                with atomic_write(target) as file:
                    shutil.copyfileobj(content, file, 1 << 20)
                return target
    except _READ_ERRORS as error:
        raise UserError(
            f"{archive} can't be used as an archive of weights: {error}; download it again from "
            f"its publisher, or unpack it yourself and give the {WEIGHTS_NAME}"
        ) from error
    raise UserError(f"{archive} changed while it was read; run again")


def _files(archive: Path, limit: int) -> _Entries:
    """Name and content of each regular file; read the content before the next iteration."""
    entries = _zip_files if archive.name.lower().endswith(".zip") else _tar_files
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
