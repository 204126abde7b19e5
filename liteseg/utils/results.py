"""Marks in result files, so that a later call replaces its own files and no others."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

from liteseg.errors import UserError

_TEXT = b"tEXtSoftware\0liteseg"
_PNG_CHUNK = struct.pack(">I", len(_TEXT) - 4) + _TEXT + struct.pack(">I", zlib.crc32(_TEXT))
_AFTER_HEADER = 33  # bytes of a PNG's signature and first chunk
#: begin of a file of polygons
JSON_BEGIN = b'{"version": "5.0.0", "flags": {"liteseg"'
#: a box that players skip, appended to an mp4 file
MP4_BOX = struct.pack(">I", 15) + b"freeliteseg"


def marked_png(content: bytes) -> bytes:
    """A PNG with the text `Software: liteseg`."""
    return content[:_AFTER_HEADER] + _PNG_CHUNK + content[_AFTER_HEADER:]


def require_replaceable(paths: Iterable[Path], fix: str) -> None:
    """Check that every file among `paths` that exists is a result of liteseg.

    Args:
        paths: files that may not exist.
        fix: advice for the error.

    Raises:
        UserError: some are not.
    """
    foreign = [path for path in paths if os.path.lexists(path) and not is_marked(path)]
    if foreign:
        more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
        raise UserError(
            f"{foreign[0]}{more}: already there and not written by liteseg; nothing was "
            f"replaced: {fix}"
        )


def is_marked(path: Path) -> bool:
    """Whether a file has the mark of liteseg's results."""
    if path.is_symlink() or not path.is_file():
        return False
    with open(path, "rb") as file:
        begin = file.read(_AFTER_HEADER + len(_PNG_CHUNK))
        if begin.endswith(_PNG_CHUNK) or begin.startswith(JSON_BEGIN):
            return True
        file.seek(-min(len(MP4_BOX), os.fstat(file.fileno()).st_size), os.SEEK_END)
        return file.read() == MP4_BOX
