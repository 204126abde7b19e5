"""Writing files so that a reader, or a crash, never meets a half-written one."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from liteseg.errors import UserError


@contextlib.contextmanager
def atomic_write(path: str | Path, mode: str = "wb", *, sync: bool = True) -> Iterator[IO[Any]]:
    """Open a file beside `path` for writing; it takes the place of `path` when the block ends well.

    Missing parent folders are made. If the block raises, `path` is as it was before.

    Args:
        path: the file to write.
        mode: "wb", or "w" for UTF-8 text.
        sync: wait until the bytes are on the disk. Worth it for checkpoints; costs some
            milliseconds, so leave it out for thousands of pictures.

    Raises:
        UserError: the file cannot be written (no permission, disk full, a folder in its place).
    """
    path = Path(path)
    # The name is random: two processes may write the same file at once, and the last one wins.
    beside = path.with_name(f".{path.name[:200]}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(beside, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            if sync:
                os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}; free some space, or choose a place "
            "where you may write"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Inside, no other process has `folder` locked; the lock ends with this process, killed or not.

    Raises:
        UserError: another process holds it.
    """
    with open(folder / ".lock", "a+", encoding="utf-8") as file:
        try:
            # Of this kind because worker processes don't inherit it.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            file.seek(0)
            raise UserError(
                f"{folder} is in use by process {file.read().strip()} on this or another machine; "
                "wait for it to end or stop it, or choose another folder"
            ) from None
        except OSError:
            pass  # some network disks have no locks
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def sweep(folder: Path, *names: str) -> None:
    """Remove what `atomic_write` of these files in `folder` left when its process was killed.

    Nobody else may be writing them (see `locked`).

    Args:
        folder: need not exist.
        names: of the files, as patterns of `fnmatch`.
    """
    for name in names:
        for path in folder.glob(f".{name}.*.tmp"):
            if re.fullmatch(r"\.[0-9a-f]{8}\.tmp", path.name[-13:]):
                path.unlink(missing_ok=True)


def write_json(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write `content` as indented JSON.

    Raises:
        UserError: as `atomic_write`.
    """
    with atomic_write(path, "w") as file:
        json.dump(content, file, indent=2)
        file.write("\n")


def check_writable(folder: str | Path) -> Path:
    """Make `folder` if it is missing and prove that a file can be written in it.

    Called before long work, so that a read-only disk is known in the first second and not at the
    first checkpoint.

    Raises:
        UserError: the folder cannot be made or written.
    """
    folder = Path(folder)
    probe = folder / f".writable.{secrets.token_hex(4)}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"liteseg")
    except OSError as error:
        raise UserError(
            f"cannot write in {folder}: {error.strerror or error}; choose another folder, or free "
            "some space there"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()
    return folder
