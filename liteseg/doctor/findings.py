"""One finding of `liteseg doctor`, and what finding it takes: metadata and child processes."""

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
_TIMEOUT_S = 120


class Finding(NamedTuple):
    """One line of the report: `state` is "ok", "note" (goes on, less well) or "bad"."""

    check: str
    state: str
    found: str
    mend: str = ""


class Child(NamedTuple):
    """What a child process said: its last line of JSON, or how and where it ended."""

    said: dict[str, Any]
    problem: Optional[str]


def run_child(code: str, *arguments: str) -> Child:
    """Run Python code that prints JSON objects; the union of them, and what went wrong, if it did.

    `liteseg` is importable in it, wherever it was started from.
    """
    command = [sys.executable, "-c", code, *arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=_TIMEOUT_S, env=child_environment(), check=False
        )
    except subprocess.TimeoutExpired:
        return Child({}, f"no answer within {_TIMEOUT_S} s")
    said: dict[str, Any] = {}
    for line in done.stdout.decode(errors="replace").splitlines():
        with contextlib.suppress(ValueError):
            said.update(json.loads(line) if line.startswith("{") else {})
    return Child(said, ending(done.returncode, done.stderr.decode(errors="replace")))


def child_environment() -> dict[str, str]:
    """This environment, with liteseg importable from any folder."""
    package = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path}


def ending(code: int, errors: str) -> Optional[str]:
    """How a process ended: None if well; the signal that killed it; or its last words."""
    if code == 0:
        return None
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(-code).name}"
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    return lines[-1][:300] if lines else f"exit code {code}"


def pip(*requirements: str, constraints: Optional[Path] = None) -> str:
    """The line that installs `requirements` for this Python."""
    words = [sys.executable, "-m", "pip", "install", *requirements]
    return " ".join([*words, "-c", str(constraints)] if constraints else words)


def installed(names: Sequence[str]) -> dict[str, str]:
    """name -> version of those that are installed."""
    found = {}
    for name in names:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
