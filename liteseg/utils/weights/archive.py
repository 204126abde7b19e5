"""Taking the weights out of a `.tar`, `.tar.gz` or `.zip` from the internet.

No member's own path is ever written to: the one weights file is copied to a place of our choice.
Archives that try to name a place elsewhere are refused as a whole all the same.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from liteseg.errors import UserError
from liteseg.utils.files import atomic_write

SUFFIXES = (".tar.gz", ".tgz", ".tar", ".zip")
WEIGHTS_NAME = "model.pdparams"
# ValueError is ours, RuntimeError is zipfile's for encryption and unknown compression.
_UNUSABLE = (
    ValueError,
    RuntimeError,
    OSError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    tarfile.TarError,
    zipfile.BadZipFile,
)


class _Bounded(io.RawIOBase):
    """A stream that raises once more than `limit` bytes have been read from it."""

    def __init__(self, stream: IO[bytes], limit: int):
        self._stream = stream
        self._left = limit

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise ValueError("it unpacks to far more than weights would")
        return data


def unpack_weights(archive: Path, cache: Path) -> Path:
    """Copy the weights in `archive` to a folder of `cache` named after its content.

    Returns:
        The copy's path. Nothing is unpacked if it was before.

    Raises:
        UserError: the archive is damaged, holds no weights or several, unpacks to far more than
            its size, or has members that are links, devices, or named outside the archive.
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
            found = f"{len(chosen)} ({', '.join(chosen)})" if chosen else "none"
            raise ValueError(f"it should hold one {WEIGHTS_NAME}, found {found}")
        for name, content in _files(archive, limit):
            if name == chosen[0]:
                with atomic_write(target) as file:
                    shutil.copyfileobj(content, file, 1 << 20)
                return target
    except _UNUSABLE as error:
        raise UserError(
            f"{archive} can't be used as an archive of weights: {error}; get it again from its "
            f"publisher, or unpack it yourself and give the {WEIGHTS_NAME}"
        ) from error
    raise UserError(f"{archive} changed while it was read; run again")


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def _files(archive: Path, limit: int) -> Iterator[tuple[str, IO[bytes]]]:
    """Each regular file's name and content, to be read before the next one is asked for."""
    entries = _zip_files if archive.name.lower().endswith(".zip") else _tar_files
    with contextlib.closing(entries(archive, limit)) as found:
        for name, content in found:
            path = PurePosixPath(name.replace("\\", "/"))
            if path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
                raise ValueError(f"refused, because its member {name!r} points outside of it")
            yield name, content


def _tar_files(archive: Path, limit: int) -> Iterator[tuple[str, IO[bytes]]]:
    with open(archive, "rb") as file:
        opener = gzip.open if file.read(2) == b"\x1f\x8b" else open
    # "r|" reads strictly forward, so that the bound holds for headers too.
    with (
        opener(archive, "rb") as stream,
        tarfile.open(fileobj=_Bounded(stream, limit), mode="r|") as tar,
    ):
        for member in tar:
            if member.isfile():
                yield member.name, tar.extractfile(member)
            elif not member.isdir():
                raise ValueError(f"refused, because its member {member.name!r} is a link or device")


def _zip_files(archive: Path, limit: int) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(archive) as packed:
        for info in packed.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise ValueError(f"refused, because its member {info.filename!r} is a link")
            if not info.is_dir():
                with packed.open(info) as content:
                    yield info.filename, _Bounded(content, limit)
