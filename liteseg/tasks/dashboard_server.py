"""VisualDL's server for `liteseg dash`, which answers only requests that name this machine.

A log that ends within a record (a killed training, a full disk, a copy of a running one) is shown
up to there, and a browser in a language that VisualDL lacks gets English.

Started as a file: `python -m` would import modules from the current folder, which has the runs.
"""

from __future__ import annotations

import ipaddress
import socket
import sys
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

Respond = Callable[[dict[str, Any], Callable], Iterable[bytes]]


def is_own_name(host: str) -> bool:
    """Whether a Host header is an address or a name of this machine.

    A web page can let its own name point to this machine (DNS rebinding) and then read the
    dashboard through the browser; it can't do so with an address.
    """
    try:
        name = urlsplit(f"//{host}").hostname or ""
        if name in ("localhost", socket.gethostname().lower(), socket.getfqdn().lower()):
            return True
        return bool(ipaddress.ip_address(name))
    except ValueError:
        return False


def guarded(respond: Respond) -> Respond:
    """The WSGI application `respond`, with 403 for requests under a foreign name."""

    def answer(environment: dict[str, Any], start: Callable) -> Iterable[bytes]:
        if is_own_name(environment.get("HTTP_HOST", "")):
            languages = environment.get("HTTP_ACCEPT_LANGUAGE") or "en"
            environment["HTTP_ACCEPT_LANGUAGE"] = f"{languages},en;q=0.01"  # VisualDL needs a match
            return respond(environment, start)
        start("403 Forbidden", [("Content-Type", "text/plain")])
        return [b"liteseg dash: open the dashboard by its address or as localhost\n"]

    return answer


def _next_record(reader: Any) -> None:
    """Read a record: 8 bytes of length, little-endian, and that many bytes.

    An incomplete one at the end is read again next time: a running training may be writing it.
    """
    if not hasattr(reader, "file"):
        reader.file = open(reader.file_handle._filename, "rb")  # noqa: SIM115
    start, header = reader.file.tell(), reader.file.read(8)
    length = int.from_bytes(header, "little")
    reader._curr_event = reader.file.read(min(length, 2**31 - 1))
    if len(header) < 8 or len(reader._curr_event) < length:
        reader.file.seek(start)
        raise EOFError


def main() -> None:
    """Serve until interrupted."""
    from visualdl.reader import record_reader
    from visualdl.server import app as visualdl_app

    record_reader._RecordReader.get_next = _next_record
    create_app = visualdl_app.create_app

    def create(args: Any) -> Any:
        app = create_app(args)
        app.wsgi_app = guarded(app.wsgi_app)
        return app

    visualdl_app.create_app = create
    visualdl_app.main()


if __name__ == "__main__":
    sys.path.pop(0)  # this folder
    main()
