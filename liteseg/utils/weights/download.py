"""From what the user wrote (a path, a run directory, a URL) to a weights file on this machine."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional
from urllib.parse import unquote, urlsplit

from liteseg import __version__
from liteseg.errors import UserError
from liteseg.utils.logging import get_logger, progress
from liteseg.utils.weights import archive

# Where weights lie in a run directory, a checkpoint directory, or PaddleSeg's output directory.
_IN_A_DIRECTORY = (
    "checkpoints/best",
    "checkpoints/last",
    "",
    "best",
    "last",
    "best_model",
)
_TRIES = 3
_TIMEOUT_S = 30
_BLOCK = 1 << 18


class _Interrupted(Exception):
    """The connection broke in the middle: worth another try from where it stopped."""


def cache_home() -> Path:
    """The folder of downloads: `$LITESEG_HOME`, or `~/.cache/liteseg`."""
    return Path(os.path.expanduser(os.environ.get("LITESEG_HOME") or "~/.cache/liteseg"))


def is_url(text: str | Path) -> bool:
    """Whether `text` is an http or https address."""
    return str(text).lower().startswith(("http://", "https://"))


def resolve(path_or_url: str | Path, sha256: Optional[str] = None) -> Path:
    """The weights file that `path_or_url` stands for, downloaded and unpacked where needed.

    Args:
        path_or_url: a weights file; a `.tar.gz`, `.tar` or `.zip` with one `model.pdparams`; a run
            or checkpoint directory (the best checkpoint is preferred); or the URL of a file or
            archive. Downloads are kept in `cache_home()`.
        sha256: the expected checksum of the file or archive, in hexadecimal.

    Raises:
        UserError: nothing is there, or it can't be downloaded, checked or unpacked.
    """
    if is_url(path_or_url):
        path = _fetch(str(path_or_url), sha256)
    else:
        path = _local(Path(os.path.expanduser(path_or_url)))
        if sha256 is not None:
            _check_sum(path, sha256, str(path))
    if path.name.lower().endswith(archive.SUFFIXES):
        return archive.unpack_weights(path, cache_home() / "unpacked")
    return path


def cache_path(url: str) -> Path:
    """Where the download of `url` is kept: its host and path below `cache_home()`.

    Raises:
        UserError: the address has no file name to keep it under.
    """
    parts = urlsplit(url)
    names = [name for name in unquote(parts.path).replace("\\", "/").split("/") if name.strip(".")]
    if not names:
        raise UserError(f"{url} names no file; expected an address that ends in one")
    if parts.query:  # `get?id=1` and `get?id=2` are two files
        names.insert(-1, hashlib.sha256(parts.query.encode()).hexdigest()[:12])
    host = parts.netloc.rpartition("@")[2].replace(":", "_")
    return cache_home().joinpath("weights", host, *names)


def _local(path: Path) -> Path:
    if os.path.isfile(path):
        return path
    if not os.path.exists(path):
        raise UserError(
            f"{path} does not exist; expected a weights file, a run directory or an http(s) address"
        )
    for folder in _IN_A_DIRECTORY:
        if (path / folder / archive.WEIGHTS_NAME).is_file():
            return path / folder / archive.WEIGHTS_NAME
    raise UserError(
        f"{path} holds no {archive.WEIGHTS_NAME}, neither itself nor in checkpoints/best or "
        "checkpoints/last; give a run directory whose training saved a checkpoint, or the file"
    )


def _fetch(url: str, sha256: Optional[str]) -> Path:
    """Download `url` into the cache, unless it is there; one process at a time."""
    target = cache_path(url)
    try:
        if not target.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            with _locked(target.with_name(target.name + ".lock")):
                if not target.is_file():  # else another process fetched it meanwhile
                    get_logger().info(f"downloading {url} to {target}")
                    _download(url, target, sha256)
        elif sha256 is not None:
            _check_sum(target, sha256, url)
    except OSError as error:
        raise UserError(
            f"cannot write {target}: {error.strerror or error}; free some space, or set "
            "LITESEG_HOME to a folder that has it"
        ) from error
    return target


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path`; another process waits here. The system frees it on a crash."""
    with open(path, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _download(url: str, target: Path, sha256: Optional[str]) -> None:
    """Collect `url` in `<target>.part`, over several tries or runs, then give it its name."""
    part = target.with_name(target.name + ".part")
    for left in reversed(range(_TRIES)):
        try:
            _receive(url, target, part)
            break
        except _Interrupted as error:
            if not left:
                raise UserError(
                    f"{url}: the connection broke {_TRIES} times ({error}); run again to go on "
                    f"from there, or put the file at {target} by hand"
                ) from error
    if sha256 is not None:
        _check_sum(part, sha256, url)
    os.replace(part, target)
    _version_file(part).unlink(missing_ok=True)


def _receive(url: str, target: Path, part: Path) -> None:
    """Append to `part` what is missing of `url`; from its start if the server's file changed."""
    version_file = _version_file(part)
    # Half of one version and half of another would be worthless: only a known one is resumed.
    have = part.stat().st_size if part.is_file() and version_file.is_file() else 0
    headers = {"User-Agent": f"liteseg/{__version__}"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": version_file.read_text()}
    with _open(urllib.request.Request(url, headers=headers), url, target, part) as response:
        if response.status != 206:
            have = 0
        version = response.headers.get("ETag") or response.headers.get("Last-Modified")
        version_file.unlink(missing_ok=True)
        if version:
            version_file.write_text(version)
        length = response.headers.get("Content-Length")
        total = None if length is None else have + int(length)
        with open(part, "ab" if have else "wb") as file, _progress(target, have, total) as bar:
            for block in _blocks(response):
                file.write(block)
                bar.update(len(block))
    size = part.stat().st_size
    if total is not None and size != total:
        raise _Interrupted(f"{size} of {total} bytes are here")


def _open(
    request: urllib.request.Request, url: str, target: Path, part: Path
) -> http.client.HTTPResponse:
    """The server's answer; UserError if there is none or it is a refusal."""
    try:
        return urllib.request.urlopen(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # the part is longer than the file: not a part of it
            part.unlink()
            raise _Interrupted("the part on the disk did not belong to it") from error
        raise UserError(
            f"{url}: the server answered {error.code} {error.reason}; check the address, or put "
            f"the file at {target} by hand"
        ) from error
    except (OSError, http.client.HTTPException) as error:
        raise UserError(
            f"{url} can't be reached ({getattr(error, 'reason', error)}); without a network, "
            f"download it on another machine and put it at {target} (or, if it is the `pretrained` "
            "of a config, set that to null and train from random weights)"
        ) from error


def _blocks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    while True:
        try:
            block = response.read(_BLOCK)
        except (OSError, http.client.HTTPException) as error:
            raise _Interrupted(str(error) or type(error).__name__) from error
        if not block:
            return
        yield block


def _progress(target: Path, have: int, total: Optional[int]) -> Any:
    return progress(desc=target.name, initial=have, total=total, unit="B", unit_scale=True)


def _version_file(part: Path) -> Path:
    return part.with_name(part.name + ".version")


def _check_sum(path: Path, expected: str, source: str) -> None:
    """Raise UserError, and delete a wrong file in the cache, if the SHA-256 is not `expected`."""
    found = archive.sha256_of(path)
    if found == expected.lower():
        return
    mend = "see that it is the file you mean"
    if is_url(source):
        path.unlink()
        mend = "the download was deleted; run again, and if it stays so, don't trust the source"
    raise UserError(f"{source}: SHA-256 is {found}, expected {expected}; {mend}")
