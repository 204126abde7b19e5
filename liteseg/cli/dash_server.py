"""VisualDL's server for `liteseg dash`, which answers only requests that name this machine.

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
            return respond(environment, start)
        start("403 Forbidden", [("Content-Type", "text/plain")])
        return [b"liteseg dash: open the dashboard by its address or as localhost\n"]

    return answer


def main() -> None:
    """Serve until interrupted."""
    from visualdl.server import app as visualdl_app

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
