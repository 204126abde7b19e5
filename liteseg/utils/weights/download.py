"""Downloads into a cache: resumed, checked, and complete before they get their name."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Callable, NamedTuple, Optional
from urllib.parse import unquote, urlsplit

from filelock import FileLock

from liteseg import __version__
from liteseg.errors import UserError, quoted
from liteseg.utils.files import atomic_write, read_regular, sha256_of
from liteseg.utils.logging import get_logger, progress
from liteseg.utils.text import redacted

_TRIES = 3
_TIMEOUT_S = 30
_BLOCK = 1 << 18
_MAX_BYTES = 2 << 30
_WEB = ("http", "https")
_STORES = ("s3", "gs", "gcs", "az", "abfs", "abfss", "oss", "hdfs")  # protocols of fsspec


Check = Callable[[Path], object]


class Unreachable(UserError):
    """The server cannot be reached, or the connection broke."""


class _Interrupted(Exception):
    """The connection broke during the transfer; another try resumes it."""


def cache_home() -> Path:
    """The folder of downloads: `$LITESEG_HOME`, or `~/.cache/liteseg`."""
    return Path(os.path.expanduser(os.environ.get("LITESEG_HOME") or "~/.cache/liteseg"))


def is_url(text: str | Path) -> bool:
    """Whether `text` is an address of http, https or an object store."""
    scheme, mark, _ = str(text).partition("://")
    return bool(mark) and scheme.lower() in _WEB + _STORES


def cache_path(url: str) -> Path:
    """The path of a download in the cache: host and path of `url` below `cache_home()`.

    Raises:
        UserError: the address is malformed or does not end in a file name.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise UserError(f"{redacted(url)}: not an address: {error}") from None
    if not re.fullmatch(r"[\w.-]*\w[\w.-]*|[0-9a-f.]*:[0-9a-f:.]*", host) or not url.isprintable():
        raise UserError(f"{redacted(url)}: {quoted(host)} is not the name of a host")
    names = [name for name in unquote(parts.path).replace("\\", "/").split("/") if name.strip(".")]
    if not names:
        raise UserError(
            f"{redacted(url)} contains no file name; expected an address that ends in one"
        )
    if parts.query:  # `get?id=1` and `get?id=2` are two files
        names.insert(-1, hashlib.sha256(parts.query.encode()).hexdigest()[:12])
    # No host contains a +, so that http, which anyone on the way can change, has files of its own.
    scheme = "" if parts.scheme == "https" else f"{parts.scheme}+"
    folder = f"{scheme}{host.replace(':', '_')}"
    return cache_home().joinpath("weights", f"{folder}_{port}" if port else folder, *names)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http and https, but not from https to http."""

    def redirect_request(self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: Any):
        scheme = urlsplit(newurl).scheme
        if scheme != "https" and (scheme != "http" or req.type == "https"):
            raise UserError(
                f"{redacted(req.full_url)}: refused a redirect to {redacted(newurl)}, which is not "
                "https; give the address of the file itself"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def fetch(url: str, sha256: Optional[str] = None, *, check: Check, remember: bool = False) -> Path:
    """Download `url` into the cache unless it is there; one process at a time.

    Args:
        url: of a file of at most 2 GiB.
        sha256: the expected checksum, in hexadecimal.
        check: reads the received file before it enters the cache; raises UserError if the content
            is wrong.
        remember: without `sha256`, record the checksum of the first download next to it, and
            require the same of later ones.

    Raises:
        UserError: the file cannot be downloaded, verified or written.
    """
    target = cache_path(url)
    record = _record_of(target)
    advice = ""
    if remember and sha256 is None and (sha256 := recorded_sha256(url)):
        advice = f" (that of the first download; if the publisher replaced it, delete {record})"

    def accept(part: Path) -> None:
        if sha256 is not None:
            _verify_download(part, sha256, url, advice)
        check(part)

    with _disk_errors(target):
        if target.is_file():
            if sha256 is not None:
                _verify_download(target, sha256, url, advice)
        else:
            with _lock(target):
                if not target.is_file():  # else another process has fetched it in the meantime
                    get_logger().info(f"downloading {redacted(url)} to {target}")
                    _download(url, target, accept)
        if remember and sha256 is None:
            with contextlib.suppress(UserError), atomic_write(record, "w") as file:
                file.write(f"{sha256_of(target)}\n")  # UserError: the cache is read-only
    return target


def refresh(url: str, *, check: Check) -> Path:
    """Download `url` again; without a connection, the earlier download is used.

    Args:
        url: of a small file.
        check: as in `fetch`.

    Raises:
        UserError: as `fetch`; or the server cannot be reached, and nothing was downloaded before.
    """
    target = cache_path(url)
    with _disk_errors(target), _lock(target):
        try:
            _download(url, target, check)
        except Unreachable as error:
            if not target.is_file():
                raise
            problem = str(error).partition("; ")[0]
            get_logger().warning(f"{problem}; using the earlier download, {target}")
    return target


def recorded_sha256(url: str) -> Optional[str]:
    """The checksum of the first download of a file; None if there was none."""
    try:
        text = read_regular(_record_of(cache_path(url)), limit=100).decode("ascii", "replace")
    except OSError:
        return None
    return text.strip()


def _record_of(target: Path) -> Path:
    return target.with_name(f"{target.name}.sha256")


@contextlib.contextmanager
def _disk_errors(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write {target}: {error.strerror or error}; free some space, or set "
            "LITESEG_HOME to a folder with more"
        ) from error


def _lock(target: Path) -> FileLock:
    target.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(f"{target}.lock")


def _download(url: str, target: Path, accept: Check) -> None:
    """Collect `url` in `<target>.part`, over several tries or runs; then rename it to `target`."""
    part = target.with_name(target.name + ".part")
    for left in reversed(range(_TRIES)):
        try:
            _receive(url, target, part)
            break
        except _Interrupted as error:
            if not left:
                raise Unreachable(
                    f"{redacted(url)}: the connection broke {_TRIES} times ({error}); run again to "
                    f"resume, or download the file another way and put it at {target}"
                ) from error
    try:
        accept(part)
    except UserError:
        part.unlink(missing_ok=True)
        raise
    finally:
        _version_file(part).unlink(missing_ok=True)
    os.replace(part, target)


class _Answer(NamedTuple):
    """A file on a server, from position `start` on."""

    start: int
    version: Optional[str]
    total: Optional[int]
    read: Callable[[int], bytes]


def _receive(url: str, target: Path, part: Path) -> None:
    """Append the missing bytes of `url` to `part`; start over if the file on the server changed."""
    version_file = _version_file(part)
    # A part is resumed only if its version is known: halves of two versions would be worthless.
    have = part.stat().st_size if part.is_file() and version_file.is_file() else 0
    version = version_file.read_text() if have else ""
    opened = _from_web if urlsplit(url).scheme in _WEB else _from_store
    with opened(url, have, version, target, part) as answer:
        version_file.unlink(missing_ok=True)
        if answer.version:
            version_file.write_text(answer.version)
        if (answer.total or 0) > _MAX_BYTES:
            raise _too_large(url)
        bar = progress(
            desc=target.name, initial=answer.start, total=answer.total, unit="B", unit_scale=True
        )
        with open(part, "ab" if answer.start else "wb") as file, bar:
            for block in _blocks(answer.read):
                file.write(block)
                bar.update(len(block))
                if file.tell() > _MAX_BYTES:
                    raise _too_large(url)
    size = part.stat().st_size
    if answer.total is not None and size != answer.total:
        raise _Interrupted(f"{size} of {answer.total} bytes received")


@contextlib.contextmanager
def _from_web(url: str, have: int, version: str, target: Path, part: Path) -> Iterator[_Answer]:
    headers = {"User-Agent": f"liteseg/{__version__}"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": version}
    with _open(_request(url, headers), url, target, part) as response:
        start = have if response.status == 206 else 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length and length.isdecimal() else None
        found = response.headers.get("ETag") or response.headers.get("Last-Modified")
        yield _Answer(start, found, total, response.read)


@contextlib.contextmanager
def _from_store(url: str, have: int, version: str, target: Path, part: Path) -> Iterator[_Answer]:
    install = "pip install s3fs  (or the package for its protocol; s3: pip install 'liteseg[data]')"
    try:
        from fsspec.core import url_to_fs

        store, path = url_to_fs(url, skip_instance_cache=True)
    except ImportError as error:
        raise UserError(f"{redacted(url)}: {error}: {install}") from error
    try:
        info = store.info(path)
        found = str(info.get("ETag") or info.get("LastModified") or "")
        start = have if found and found == version and have <= info["size"] else 0
        file = store.open(path, "rb", cache_type="readahead")
    except Exception as error:  # each store has errors of its own
        raise Unreachable(
            f"{redacted(url)} can't be read ({type(error).__name__}: {error}); check the address "
            f"and the credentials, or download it another way and put it at {target}"
        ) from error
    with file:
        file.seek(start)
        yield _Answer(start, found, info["size"], _with_plain_errors(file.read))


def _with_plain_errors(read: Callable[[int], bytes]) -> Callable[[int], bytes]:
    def plain(size: int) -> bytes:
        try:
            return read(size)
        except Exception as error:
            raise OSError(f"{type(error).__name__}: {error}") from error

    return plain


def _request(url: str, headers: Mapping[str, str]) -> urllib.request.Request:
    """The request; `user:password@` becomes a header, which redirects don't pass on."""
    parts = urlsplit(url)
    user, _, host = parts.netloc.rpartition("@")
    request = urllib.request.Request(parts._replace(netloc=host).geturl(), headers=dict(headers))
    if user:
        encoded = base64.b64encode(unquote(user).encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {encoded}")
    return request


def _open(
    request: urllib.request.Request, url: str, target: Path, part: Path
) -> http.client.HTTPResponse:
    """Send the request; UserError if the server is not reached or answers with an error."""
    try:
        return urllib.request.build_opener(_Redirects).open(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # the part is longer than the file
            part.unlink()
            raise _Interrupted("the partial file did not match") from error
        raise UserError(
            f"{redacted(url)}: the server answered {error.code} {error.reason}; check the "
            f"address, or download the file another way and put it at {target}"
        ) from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise Unreachable(
            f"{redacted(url)} can't be reached ({getattr(error, 'reason', error)}); without a "
            f"network, download it on another machine and put it at {target} (or, if it is the "
            "`pretrained` of a config, set that to null and train from random weights)"
        ) from error


def _too_large(url: str) -> UserError:
    return UserError(
        f"{redacted(url)}: larger than {_MAX_BYTES >> 30} GiB, which no weights are; check the "
        "address"
    )


def _blocks(read: Callable[[int], bytes]) -> Iterator[bytes]:
    # Network errors are separated from those of the disk, which are OSErrors too.
    try:
        while block := read(_BLOCK):
            yield block
    except (OSError, http.client.HTTPException) as error:
        raise _Interrupted(str(error) or type(error).__name__) from error


def _version_file(part: Path) -> Path:
    return part.with_name(part.name + ".version")


def verify(path: Path, expected: str, source: str, fix: str) -> None:
    """Raise UserError if the SHA-256 of a file is not `expected`.

    Args:
        path: the file.
        expected: in hexadecimal.
        source: path or address, for the message.
        fix: advice for the message.
    """
    found = sha256_of(path)
    if found != expected.lower():
        raise UserError(f"{redacted(source)}: SHA-256 is {found}, expected {expected}; {fix}")


def _verify_download(path: Path, expected: str, url: str, advice: str) -> None:
    fix = "the download was deleted; run again, and if it fails again, do not trust the source"
    try:
        verify(path, expected, url, fix + advice)
    except UserError:
        path.unlink()
        raise
