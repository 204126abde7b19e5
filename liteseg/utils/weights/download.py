"""Weights by path, run directory or URL: downloads into a cache, resumed and checked."""

from __future__ import annotations

import base64
import hashlib
import http.client
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Optional
from urllib.parse import unquote, urlsplit

from filelock import FileLock

from liteseg import __version__
from liteseg.errors import UserError, quoted
from liteseg.utils.files import sha256_of
from liteseg.utils.logging import get_logger, progress
from liteseg.utils.text import redacted
from liteseg.utils.weights.archive import SUFFIXES, WEIGHTS_NAME, unpack_weights

# Places of the weights in a run directory, a checkpoint, or PaddleSeg's output directory.
_IN_A_DIRECTORY = ("checkpoints/best", "checkpoints/last", "", "best", "last", "best_model")
_TRIES = 3
_TIMEOUT_S = 30
_BLOCK = 1 << 18
_MAX_BYTES = 2 << 30


class _Interrupted(Exception):
    """The connection broke during the transfer; another try resumes it."""


def cache_home() -> Path:
    """The folder of downloads: `$LITESEG_HOME`, or `~/.cache/liteseg`."""
    return Path(os.path.expanduser(os.environ.get("LITESEG_HOME") or "~/.cache/liteseg"))


def is_url(text: str | Path) -> bool:
    """Whether `text` is an http or https address."""
    return str(text).lower().startswith(("http://", "https://"))


def resolve(path_or_url: str | Path, sha256: Optional[str] = None) -> Path:
    """Find the weights file for a path or URL; download and unpack it if needed.

    Args:
        path_or_url: a weights file; a `.tar.gz`, `.tar` or `.zip` with one `model.pdparams`; a run
            or checkpoint directory (the best checkpoint comes first); or the URL of a file or
            archive, which may end in `#sha256=<hex>`. Downloads are kept in `cache_home()`.
        sha256: expected checksum of the file or archive, in hexadecimal.

    Raises:
        UserError: the file is missing, or it cannot be downloaded, verified or unpacked.
    """
    if "***" in str(path_or_url):
        raise UserError(
            f"{path_or_url}: the password or query of this address was left out of config.yml; "
            "give the whole address with --set, or null if other weights are loaded"
        )
    if is_url(path_or_url):
        url, mark, given = str(path_or_url).partition("#sha256=")
        path = _fetch(url, given if mark else sha256)
    else:
        path = _local(Path(os.path.expanduser(path_or_url)))
        if sha256 is not None:
            _verify(path, sha256, str(path))
    if path.name.lower().endswith(SUFFIXES):
        return unpack_weights(path, cache_home() / "unpacked")
    return path


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
    folder = f"{'http+' if parts.scheme == 'http' else ''}{host.replace(':', '_')}"
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


def _local(path: Path) -> Path:
    if os.path.isfile(path):
        return path
    if not os.path.exists(path):
        raise UserError(
            f"{path} does not exist; expected a weights file, a run directory or an http(s) address"
        )
    for folder in _IN_A_DIRECTORY:
        if (path / folder / WEIGHTS_NAME).is_file():
            return path / folder / WEIGHTS_NAME
    raise UserError(
        f"{path} contains no {WEIGHTS_NAME}, neither directly nor in checkpoints/best or "
        "checkpoints/last; give a run directory with a checkpoint, or the file"
    )


def _fetch(url: str, sha256: Optional[str]) -> Path:
    """Download `url` into the cache unless it is there; one process at a time."""
    target = cache_path(url)
    try:
        if not target.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{target}.lock"):
                if not target.is_file():  # else another process has fetched it in the meantime
                    get_logger().info(f"downloading {redacted(url)} to {target}")
                    _download(url, target, sha256)
        elif sha256 is not None:
            _verify(target, sha256, url)
    except OSError as error:
        raise UserError(
            f"cannot write {target}: {error.strerror or error}; free some space, or set "
            "LITESEG_HOME to a folder with more"
        ) from error
    return target


def _download(url: str, target: Path, sha256: Optional[str]) -> None:
    """Collect `url` in `<target>.part`, over several tries or runs; then rename it to `target`."""
    part = target.with_name(target.name + ".part")
    for left in reversed(range(_TRIES)):
        try:
            _receive(url, target, part)
            break
        except _Interrupted as error:
            if not left:
                raise UserError(
                    f"{redacted(url)}: the connection broke {_TRIES} times ({error}); run again to "
                    f"resume, or download the file another way and put it at {target}"
                ) from error
    if sha256 is not None:
        _verify(part, sha256, url)
    os.replace(part, target)
    _version_file(part).unlink(missing_ok=True)


def _receive(url: str, target: Path, part: Path) -> None:
    """Append the missing bytes of `url` to `part`; start over if the file on the server changed."""
    version_file = _version_file(part)
    # A part is resumed only if its version is known: halves of two versions would be worthless.
    have = part.stat().st_size if part.is_file() and version_file.is_file() else 0
    headers = {"User-Agent": f"liteseg/{__version__}"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": version_file.read_text()}
    with _open(_request(url, headers), url, target, part) as response:
        if response.status != 206:
            have = 0
        version_file.unlink(missing_ok=True)
        if version := response.headers.get("ETag") or response.headers.get("Last-Modified"):
            version_file.write_text(version)
        length = response.headers.get("Content-Length")
        total = have + int(length) if length and length.isdecimal() else None
        if (total or 0) > _MAX_BYTES:
            raise _too_large(url)
        bar = progress(desc=target.name, initial=have, total=total, unit="B", unit_scale=True)
        with open(part, "ab" if have else "wb") as file, bar:
            for block in _blocks(response):
                file.write(block)
                bar.update(len(block))
                if file.tell() > _MAX_BYTES:
                    raise _too_large(url)
    size = part.stat().st_size
    if total is not None and size != total:
        raise _Interrupted(f"{size} of {total} bytes received")


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
        raise UserError(
            f"{redacted(url)} can't be reached ({getattr(error, 'reason', error)}); without a "
            f"network, download it on another machine and put it at {target} (or, if it is the "
            "`pretrained` of a config, set that to null and train from random weights)"
        ) from error


def _too_large(url: str) -> UserError:
    return UserError(
        f"{redacted(url)}: larger than {_MAX_BYTES >> 30} GiB, which no weights are; check the "
        "address"
    )


def _blocks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    # Network errors are separated from those of the disk, which are OSErrors too.
    try:
        while block := response.read(_BLOCK):
            yield block
    except (OSError, http.client.HTTPException) as error:
        raise _Interrupted(str(error) or type(error).__name__) from error


def _version_file(part: Path) -> Path:
    return part.with_name(part.name + ".version")


def _verify(path: Path, expected: str, source: str) -> None:
    """Raise UserError, and delete a wrong download, if the SHA-256 is not `expected`."""
    found = sha256_of(path)
    if found == expected.lower():
        return
    fix = "check that it is the intended file"
    if is_url(source):
        path.unlink()
        fix = "the download was deleted; run again, and if it fails again, do not trust the source"
    raise UserError(f"{redacted(source)}: SHA-256 is {found}, expected {expected}; {fix}")
