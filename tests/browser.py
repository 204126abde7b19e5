"""Pages in headless Chromium, driven over its DevTools pipe; skipped where there is none."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_PATIENCE = 180  # seconds for one answer: the machine may be busy


class Page:
    """One tab. Messages are JSON, each ended by a zero byte."""

    def __init__(self, to_browser: int, from_browser: int):
        self._to, self._from = to_browser, from_browser
        self._number, self._read, self._session = 0, b"", None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]

    def call(self, method: str, **parameters):
        """The result of a DevTools command."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._number:
            pass  # events
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def _next(self):
        while b"\0" not in self._read:
            ready, _, _ = select.select([self._from], [], [], _PATIENCE)
            assert ready, f"Chromium said nothing for {_PATIENCE} s"
            chunk = os.read(self._from, 1 << 20)
            assert chunk, "Chromium has ended"
            self._read += chunk
        message, _, self._read = self._read.partition(b"\0")
        return json.loads(message)

    def open(self, url: str, width: int, height: int = 900) -> None:
        """Go to a page in a window of that size, in CSS pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        self.call("Page.navigate", url=url)
        self.wait_for("document.readyState == 'complete'")

    def ask(self, expression: str):
        """The value of a JavaScript expression."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait_for(self, expression: str):
        """The value of the expression, once it is true."""
        end = time.monotonic() + _PATIENCE
        while not (value := self.ask(expression)):
            assert time.monotonic() < end, f"never true: {expression}\n{self.text()[:2000]}"
            select.select([], [], [], 0.2)
        return value

    def text(self) -> str:
        """What can be read on the page."""
        return self.ask("document.body.innerText")

    def screenshot(self, path: Path) -> None:
        """Write what is seen as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))


@contextlib.contextmanager
def browse(profile: Path) -> Iterator[Page]:
    """A tab of a new Chromium with its files in `profile`."""
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        pytest.skip("needs Chromium (Debian: apt-get install chromium)")
    pairs = os.pipe(), os.pipe()
    # Chromium reads its descriptor 3 and writes 4; none of ours may have these numbers.
    (reads, tell), (listen, writes) = (
        tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in pair) for pair in pairs
    )
    for end in (*pairs[0], *pairs[1]):
        os.close(end)
    start = (
        f"import os, sys; os.dup2({reads}, 3); os.dup2({writes}, 4); "
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    command = [sys.executable, "-c", start, found]
    command += ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += ["--disable-dev-shm-usage", "--no-proxy-server", f"--user-data-dir={profile}"]
    process = subprocess.Popen(
        [*command, "--remote-debugging-pipe"],
        pass_fds=(reads, writes),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(reads)
    os.close(writes)
    try:
        yield Page(tell, listen)
    finally:
        process.kill()
        process.wait()
        os.close(tell)
        os.close(listen)
