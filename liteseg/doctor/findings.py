"""Findings of `liteseg doctor`, and the package metadata and child processes they come from."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple, Optional

OK, NOTE, BAD = "ok", "note", "bad"


class Finding(NamedTuple):
    """Result of a check.

    Attributes:
        check: name of the check.
        state: "ok", "note" (works, with limits) or "bad" (training would fail).
        found: versions, sizes or the problem.
        fix: the command or change that fixes it.
    """

    check: str
    state: str
    found: str
    fix: str = ""

    def __str__(self) -> str:
        line = f"{self.state:4}  {self.check:13}  {self.found}"
        return f"{line}\n{'':21}-> {self.fix}" if self.fix else line


class ChildResult(NamedTuple):
    """The JSON output of a child process, and how it failed (None: it did not)."""

    reported: dict[str, Any]
    problem: Optional[str]


def run_child(code: str, *arguments: str, timeout: float = 120) -> ChildResult:
    """Run Python code that prints lines of JSON, and merge the objects it printed.

    Args:
        code: can import liteseg, whatever the current folder is.
        arguments: `sys.argv[1:]` of the code.
        timeout: in seconds.
    """
    command = [sys.executable, "-c", code, *arguments]
    package = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path}
    try:
        done = subprocess.run(command, capture_output=True, timeout=timeout, env=environment)
    except subprocess.TimeoutExpired:
        return ChildResult({}, f"no answer within {timeout:g} s")
    reported: dict[str, Any] = {}
    for line in done.stdout.decode(errors="replace").splitlines():
        with contextlib.suppress(ValueError):
            reported.update(json.loads(line) if line.startswith("{") else {})
    return ChildResult(reported, _exit_problem(done.returncode, done.stderr))


def _exit_problem(code: int, stderr: bytes) -> Optional[str]:
    """How a process failed: its signal, or the last line of `stderr`; None if it succeeded."""
    if code == 0:
        return None
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(-code).name}"
    lines = [line.strip() for line in stderr.decode(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else f"exit code {code}"


def pip(*requirements: str, constraints: Optional[Path] = None) -> str:
    """The command that installs `requirements` for this Python."""
    words = [sys.executable, "-m", "pip", "install", *requirements]
    return " ".join([*words, "-c", str(constraints)] if constraints else words)


def installed(names: Sequence[str]) -> dict[str, str]:
    """name -> version of the installed ones among `names`."""
    found = {}
    for name in names:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
