"""Tested package versions, from scripts/constraints/*.txt (in a wheel: liteseg/constraints).

Parsed without `packaging`: `liteseg doctor` must run where no package is installed.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

_PIN = re.compile(
    r"""(?P<name>[\w.-]+)==(?P<version>[^\s;]+)
        (?:\s*;\s*python_version\s*(?P<sign>==|>=|<=)\s*"3\.(?P<minor>\d+)")?""",
    re.VERBOSE,
)
_PYTHONS = re.compile(r"Python 3\.(\d+) to 3\.(\d+)")


@dataclass(frozen=True)
class Constraints:
    """Package versions tested together with one release line of Paddle.

    Attributes:
        line: release line of Paddle, such as "3.3".
        path: the file, for `pip install -c`.
        pythons: lowest and highest tested minor version of Python 3.
        pins: package -> version, for one version of Python.
    """

    line: str
    path: Path
    pythons: tuple[int, int]
    pins: dict[str, str]


def read_constraints(minor: Optional[int] = None) -> list[Constraints]:
    """The tested set of each Paddle line, newest first, on Python 3.`minor` (or this one)."""
    minor = sys.version_info[1] if minor is None else minor
    files = [path for folder in _folders() for path in sorted(folder.glob("paddle-*.txt"))]
    return [_read(path, minor) for path in reversed(files)]


def _folders() -> list[Path]:
    package = Path(__file__).resolve().parents[1]
    checkout, wheel = package.parent / "scripts" / "constraints", package / "constraints"
    return [checkout] if checkout.is_dir() else [wheel]


def _read(path: Path, minor: int) -> Constraints:
    text = path.read_text(encoding="utf-8")
    ((lowest, highest),) = _PYTHONS.findall(text)
    pins = {}
    for line in text.splitlines():
        requirement = line.partition("#")[0].strip()
        if not requirement:
            continue
        pin = _PIN.fullmatch(requirement)
        if pin is None:
            raise ValueError(f"{path}: {line!r} is not `name==version; python_version ...`")
        if pin["sign"] is None or _matches(minor, pin["sign"], int(pin["minor"])):
            pins[pin["name"]] = pin["version"]
    return Constraints(path.stem.partition("-")[2], path, (int(lowest), int(highest)), pins)


def _matches(minor: int, sign: str, bound: int) -> bool:
    return {"==": minor == bound, ">=": minor >= bound, "<=": minor <= bound}[sign]
