"""A server of weights on this machine, with the faults of real ones."""

from __future__ import annotations

import contextlib
import hashlib
import pickle
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np


def weights(seed: int = 0) -> bytes:
    """300,000 bytes of `.pdparams`; incompressible."""
    array = np.random.default_rng(seed).integers(0, 256, 299_000, dtype=np.uint8)
    length = 500  # NumPy 1 and 2 write headers of different lengths
    for _ in range(2):
        content = pickle.dumps({"w": array, "padding": "x" * length}, protocol=4)
        length += 300_000 - len(content)
    return content


class Handler(BaseHTTPRequestHandler):
    """Serves `server.files`; closes after `break_after` bytes while `breaks` > 0.

    `server.status` is the answer to all requests (200: the file), `server.location` a redirect,
    `server.pause` seconds between two parts of an answer, `server.length` a wrong Content-Length.
    """

    def do_GET(self):
        server: Any = self.server
        server.requests.append((self.path, self.headers.get("Range")))
        content = server.files.get(self.path.split("?")[0])
        if server.location is not None and self.path.startswith("/moved/"):
            self.send_response(302)
            self.send_header("Location", server.location)
            self.end_headers()
            return
        if content is None or server.status != 200:
            self.send_error(404 if content is None else server.status)
            return
        start = 0
        etag = f'"{hashlib.md5(content).hexdigest()}"'
        if self.headers.get("Range") and self.headers.get("If-Range") == etag:
            start = int(self.headers["Range"][len("bytes=") : -1])
        if start > len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("ETag", etag)
        self.send_header("Content-Length", str(server.length or len(content) - start))
        self.end_headers()
        body = content[start:]
        if server.breaks > 0:
            server.breaks -= 1
            body = body[: server.break_after]
        with contextlib.suppress(ConnectionError):  # the client gave up
            for at in range(0, len(body), 100_000):
                self.wfile.write(body[at : at + 100_000])
                time.sleep(server.pause)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serving(**files: bytes) -> Iterator[Any]:
    """A running server with `url`; `files` by name, others are set in `server.files`."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.files = {f"/{name}": content for name, content in files.items()}
        server.requests, server.breaks, server.break_after = [], 0, 100_000
        server.status, server.location, server.pause, server.length = 200, None, 0.0, None
        server.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()
