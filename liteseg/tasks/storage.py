"""Files of a folder or of an object store: whatever address fsspec reads, such as s3://bucket/key.

A location is a `Path`, or a URL as text. fsspec is imported for URLs alone.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Union

from liteseg.errors import UserError
from liteseg.utils.files import atomic_write, check_writable, read_regular

Location = Union[Path, str]

# An object appears under its name once all of its bytes have arrived, and renaming copies it.
_OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oss", "memory"}


def location(text: Union[str, Path]) -> Location:
    """The text of a URL, or a path in which `~` is the home folder."""
    return str(text) if is_url(text) else Path(os.path.expanduser(text))


def is_url(text: Union[str, Path]) -> bool:
    """Whether it has a protocol (`s3://`), so that fsspec reads it."""
    return "://" in str(text)


def child(folder: Location, name: str) -> Location:
    """The location of `name`, which may have several parts, in a folder."""
    return folder / name if isinstance(folder, Path) else f"{folder.rstrip('/')}/{name}"


def kind_of(place: Location) -> str:
    """`file`, `folder`, `other` (a FIFO or a device) or `missing`.

    Raises:
        UserError: the store of a URL cannot be reached, or refuses.
    """
    if isinstance(place, Path):
        if os.path.isdir(place):
            return "folder"
        return "file" if os.path.isfile(place) else "other" if os.path.exists(place) else "missing"
    with _store(place) as (store, path):
        try:
            found = store.info(path)["type"]
        except FileNotFoundError:
            return "missing"
        return "folder" if found == "directory" else "file"


def scan(folder: Location) -> tuple[list[str], list[str]]:
    """The names of the folders and of the files in a folder, sorted, without hidden ones.

    Raises:
        UserError: it cannot be listed.
    """
    folders, files = [], []
    if isinstance(folder, Path):
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_dir():
                        folders.append(entry.name)
                    elif entry.is_file():
                        files.append(entry.name)
        except OSError as error:
            raise UserError(f"{folder}: cannot be listed: {error.strerror or error}") from error
    else:
        with _store(folder) as (store, path):
            for entry in store.ls(path, detail=True):
                name = entry["name"].rstrip("/").rpartition("/")[2]
                if entry["type"] == "directory":
                    folders.append(name)
                elif entry["name"].rstrip("/") != path.rstrip("/"):  # a marker of an empty folder
                    files.append(name)
    return _shown(folders), _shown(files)


def _shown(names: list[str]) -> list[str]:
    return sorted(name for name in names if not name.startswith("."))


def read(place: Location) -> bytes:
    """The content of a file.

    Raises:
        UserError: it cannot be read.
    """
    if not isinstance(place, Path):
        with _store(place) as (store, path):
            return store.cat_file(path)
    try:
        return read_regular(place)
    except OSError as error:
        raise UserError(f"{place}: can't read the file: {error.strerror or error}") from error


def exists(place: Location) -> bool:
    """Whether the location has a file or a folder.

    Raises:
        UserError: as `kind_of`.
    """
    return os.path.lexists(place) if isinstance(place, Path) else kind_of(place) != "missing"


def write(place: Location, content: bytes) -> None:
    """Write a file, which appears under its name once it is complete.

    Raises:
        UserError: it cannot be written.
    """
    if isinstance(place, Path):
        with atomic_write(place, sync=False) as file:
            file.write(content)
        return
    with _store(place) as (store, path):
        if not _OBJECT_STORES.isdisjoint(_protocols(store)):
            store.pipe_file(path, content)
            return
        parent, name = posixpath.split(path)
        temporary = f"{parent}/.{name[:200]}.{secrets.token_hex(4)}.tmp"
        store.makedirs(parent, exist_ok=True)
        try:
            store.pipe_file(temporary, content)
            store.mv(temporary, path)
        except BaseException:
            with contextlib.suppress(Exception):
                store.rm_file(temporary)
            raise


def check_storage(folder: Location) -> None:
    """Check that files can be written in `folder`, before the work.

    Raises:
        UserError: they can't.
    """
    if isinstance(folder, Path):
        check_writable(folder)
        return
    probe = child(folder, f".writable.{secrets.token_hex(4)}.tmp")
    write(probe, b"liteseg")
    with _store(str(probe)) as (store, path):
        store.rm_file(path)


@contextlib.contextmanager
def _store(url: str) -> Iterator[tuple[Any, str]]:
    """The file system of a URL and the path in it; its exceptions become `UserError`.

    Raises:
        UserError: also if the package for the protocol is not installed.
    """
    try:
        from fsspec.core import url_to_fs

        # Without a cache: the listings of millions of files would stay in memory.
        yield url_to_fs(url, use_listings_cache=False)
    except (ImportError, ValueError) as error:  # ValueError: an unknown protocol
        raise UserError(
            f"{url}: {error}; object stores are read by fsspec: pip install 'liteseg[data]', or "
            "the package for the protocol (gcsfs, adlfs, …)"
        ) from error
    except FileNotFoundError as error:
        raise UserError(f"{url}: does not exist") from error
    except Exception as error:  # each store has errors of its own
        raise UserError(
            f"{url}: {type(error).__name__}: {error}; check the address, the network and the "
            "credentials of the store"
        ) from error


def _protocols(store: Any) -> tuple[str, ...]:
    return (store.protocol,) if isinstance(store.protocol, str) else tuple(store.protocol)
