"""Files that are written whole or not at all, folder locks and checksums."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Callable

from liteseg.errors import UserError


def open_regular(path: str | Path) -> IO[bytes]:
    """Open a file for reading; never waits for a FIFO and never reads a device.

    Raises:
        OSError: it cannot be opened, or is a folder, FIFO, socket or device.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return open(descriptor, "rb")
    os.close(descriptor)
    raise OSError(errno.EINVAL, "not a regular file", str(path))


def read_regular(path: str | Path, limit: int = 2 << 30) -> bytes:
    """The content of a file of at most `limit` bytes.

    Raises:
        OSError: as `open_regular`; the file is larger.
    """
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size > limit:
            raise OSError(errno.EFBIG, f"larger than {limit} bytes", str(path))
        return file.read()  # with a number of bytes it would allocate as many


def read_json(path: str | Path, limit: int = 1 << 20) -> Any:
    """The content of a JSON file of at most `limit` bytes.

    Raises:
        OSError: as `read_regular`.
        ValueError: it is not JSON, or nested too deeply.
    """
    return parse_json(read_regular(path, limit))


def parse_json(text: str | bytes) -> Any:
    """As `json.loads`, but text that is nested too deeply raises ValueError."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def require_contained(folder: Path) -> None:
    """Check a run or export of unknown origin before anything in it is read or written.

    Raises:
        UserError: it contains a link that leaves it, a FIFO, a socket or a device.
    """
    root = folder.resolve()
    for parent, folders, files in os.walk(root):
        for path in (Path(parent, name) for name in (*folders, *files)):
            if path.is_symlink() and not path.resolve().is_relative_to(root):
                problem = f"is a link to {os.readlink(path)!r}, outside of {folder}"
            elif path.exists() and not (path.is_file() or path.is_dir()):
                problem = "is not a regular file"
            else:
                continue
            raise UserError(f"{path}: {problem}; replace it by a copy of the file, or remove it")


@contextlib.contextmanager
def atomic_write(path: str | Path, mode: str = "wb", *, sync: bool = True) -> Iterator[IO[Any]]:
    """Open a temporary file next to `path`; it replaces `path` when the block succeeds.

    Missing parent folders are created. If the block raises, `path` is unchanged.

    Args:
        path: the file to write.
        mode: "wb", or "w" for UTF-8 text.
        sync: wait until the bytes are on the disk. Worth it for checkpoints; it takes some
            milliseconds, so leave it out for thousands of images.

    Raises:
        UserError: the file cannot be written (no permission, disk full, a folder in its place).
    """
    path = Path(path)
    # The name is random: two processes may write the same file at once, and the last one wins.
    temporary = path.with_name(f".{path.name[:200]}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            if sync:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}; free some space, or choose a "
            "writable folder"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


@contextlib.contextmanager
def replacing_folder(output: Path, check: Callable[[Path], None]) -> Iterator[Path]:
    """An empty folder that replaces `output` when the block ends without an exception.

    What was in `output` stays, or is restored, if anything fails.

    Args:
        output: a folder, or nothing.
        check: raises UserError if `output` must not be replaced; called before and after.
    """
    output = output.absolute()
    check(output)
    with scratch_folder(output.parent) as scratch:
        fresh = scratch / "new"
        fresh.mkdir()
        yield fresh
        check(output)  # again: the block may have taken a while
        old = scratch / "old"
        try:
            if output.exists():
                output.rename(old)
            fresh.rename(output)
        except BaseException:  # Ctrl-C too
            if old.exists() and not output.exists():
                old.rename(output)
            raise


@contextlib.contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """A temporary folder in `parent`, so that renaming stays on one file system.

    Raises:
        UserError: it cannot be created.
    """
    folder = parent / f".liteseg.{secrets.token_hex(4)}.tmp"
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"cannot write in {parent}: {error.strerror or error}") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_leftovers(folder: Path, *names: str) -> None:
    """Remove the temporary files of `atomic_write` calls whose process was killed.

    No other process may be writing these files (see `locked`).

    Args:
        folder: need not exist.
        names: names of the written files, as patterns of `fnmatch`.
    """
    for name in names:
        for path in folder.glob(f".{name}.*.tmp"):
            if re.fullmatch(r"\.[0-9a-f]{8}\.tmp", path.name[-13:]):
                path.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder` within the block; the system releases it if the process dies.

    Raises:
        UserError: another process holds it.
    """
    with open(folder / ".lock", "a+", encoding="utf-8", opener=_open_own) as file:
        try:
            # lockf and not flock (filelock): forked loader workers would inherit a flock, and
            # hold it after the process was killed.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            file.seek(0)
            raise UserError(
                f"{folder} is in use by process {file.read().strip()} on this or another machine; "
                "wait for it to end or stop it, or choose another folder"
            ) from None
        except OSError:
            pass  # some network file systems have no locks
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def _open_own(path: str, flags: int) -> int:
    try:
        return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as error:
        raise UserError(f"{path}: cannot be locked: {error.strerror}; remove it") from None


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open_regular(path) as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def write_json(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write `content` as indented JSON, with lists of numbers on one line.

    Raises:
        UserError: the file cannot be written.
    """
    # No string of JSON contains a line end, so these brackets are those of lists.
    text = re.sub(
        r"\[\n[-+.\deE,\snul]*\]",
        lambda found: "[" + " ".join(found[0][1:-1].split()) + "]",
        json.dumps(content, indent=2),
    )
    with atomic_write(path, "w") as file:
        file.write(text + "\n")


def require_kind(path: str | Path, suffix: str) -> None:
    """Raise UserError if `path` is an existing file of another kind, such as a config."""
    path = Path(path)
    if os.path.lexists(path) and path.suffix.lower() != suffix:
        raise UserError(
            f"{path}: already there, and not a {suffix} file, so it is not replaced; give another "
            f"name, such as {path.with_suffix(suffix).name}"
        )


def check_writable(folder: str | Path) -> Path:
    """Create `folder` if it is missing and check that files can be written in it.

    Called before long work, so that a read-only disk fails in the first second and not at the
    first checkpoint.

    Raises:
        UserError: the folder cannot be created or written.
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
