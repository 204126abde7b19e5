"""Temperature and thresholds of an export, as they are given."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Union

from liteseg.errors import UserError, quoted
from liteseg.metrics.calibration import TEMPERATURES
from liteseg.utils.files import read_json

# Of all classes; or by class name, with that of all others under "".
Thresholds = Union[float, Mapping[str, float]]


def temperature_of(given: Union[float, str, Path]) -> float:
    """A number, or that in a file of `liteseg eval --calibration --json FILE`.

    Raises:
        UserError: it is outside `TEMPERATURES`, or the file contains none.
    """
    try:
        found, place = float(str(given)), "--temperature"
    except ValueError:
        place = f"--temperature {given}"
        try:
            found = read_json(Path(str(given)).expanduser())["calibration"]["temperature"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{place}: no number, and no file with calibration.temperature "
                f"({type(error).__name__}: {error}); give a number, or a file that `liteseg eval "
                "--calibration --json FILE` has written"
            ) from None
    low, high = TEMPERATURES
    if not isinstance(found, (int, float)) or not low <= found <= high:
        raise UserError(f"{place}: {quoted(found)}; expected a number from {low} to {high}")
    return float(found)


def thresholds_of(given: Thresholds, names: Sequence[str]) -> list[float]:
    """The threshold of each class, 0 where none is given; empty if all are 0.

    Raises:
        UserError: an unknown class, or no probability.
    """
    by_name = given if isinstance(given, Mapping) else {"": given}
    for name, threshold in by_name.items():
        if name and name not in names:
            raise UserError(
                f"--threshold: no class is named {quoted(name)}; the classes are {', '.join(names)}"
            )
        require_probability(threshold, "--threshold")
    values = [float(by_name.get(name, by_name.get("", 0))) for name in names]
    if any(values) and len(names) > 255:
        raise UserError(f"--threshold: {len(names)} classes leave no label for unknown pixels, 255")
    return values if any(values) else []


def parse_thresholds(texts: Sequence[str]) -> Thresholds:
    """The values of `--threshold`: `CLASS=P`, or `P` for all other classes."""
    try:
        return {name: float(p) for name, _, p in (text.rpartition("=") for text in texts)}
    except ValueError as error:
        raise UserError(f"--threshold: {error}; give CLASS=P or P, such as Car=0.6") from None


def require_probability(value: float, option: str) -> None:
    """Raise UserError unless `value` is a number from 0 to 1."""
    if not isinstance(value, (int, float)) or math.isnan(value) or not 0 <= value <= 1:
        raise UserError(f"{option}: {value} is not a probability; expected a number from 0 to 1")
