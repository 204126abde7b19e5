"""Checks of the transforms' constructor arguments: name, value found, value expected."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Optional, Union

Fill = Union[float, Sequence[float]]  # a gray level, or one level per channel


def expect(ok: bool, name: str, value: object, expected: str) -> None:
    """Raise ValueError "`name` is `value`, expected …" unless `ok`."""
    if not ok:
        raise ValueError(f"{name} is {value!r}, expected {expected}")


def is_number(value: object) -> bool:
    """Whether `value` is a real number (True and False are not)."""
    return isinstance(value, Real) and not isinstance(value, bool)


def is_integer(value: object) -> bool:
    """Whether `value` is a whole number (True and False are not)."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def probability(name: str, value: float) -> float:
    """`value` if it is a number in [0, 1]."""
    expect(is_number(value) and 0 <= value <= 1, name, value, "a probability from 0 to 1")
    return value


def positive(name: str, value: float) -> float:
    """`value` if it is a number above 0."""
    expect(is_number(value) and value > 0, name, value, "a number above 0")
    return value


def non_negative(name: str, value: float) -> float:
    """`value` if it is a number of at least 0."""
    expect(is_number(value) and value >= 0, name, value, "a number of at least 0")
    return value


def positive_int(name: str, value: int) -> int:
    """`value` if it is a whole number of at least 1."""
    expect(is_integer(value) and value >= 1, name, value, "a whole number of at least 1")
    return int(value)


def size_hw(name: str, value: Sequence[int]) -> tuple[int, int]:
    """The (width, height) `value` of a YAML file as (h, w)."""
    ok = isinstance(value, Sequence) and len(value) == 2
    ok = ok and all(is_integer(side) and side >= 1 for side in value)
    expect(ok, name, value, "[width, height], two whole numbers of at least 1")
    return int(value[1]), int(value[0])


def label_value(name: str, value: int) -> int:
    """`value` if it fits a uint8 label."""
    expect(is_integer(value) and 0 <= value <= 255, name, value, "a whole number from 0 to 255")
    return int(value)


def fills(im_padding_value: Fill, label_padding_value: Optional[int]) -> dict:
    """{"img": levels, "label": value, "label_given": bool} from PaddleSeg's arguments.

    `levels` has one entry for each of red, green and blue, or for each channel if more are given.

    Fractions are truncated, as by PaddleSeg's conversion to uint8: 127.5 becomes 127. A label value
    that is not given is 255 until `Transform.follow_labels`.
    """
    value = im_padding_value
    levels: list = list(value) if isinstance(value, (list, tuple)) else [value]
    ok = bool(levels) and all(is_number(x) and 0 <= x <= 255 for x in levels)
    expect(ok, "im_padding_value", value, "a gray level from 0 to 255, or a list of them")
    color = tuple(int(level) for level in (levels * 3 if len(levels) == 1 else levels))
    given = label_padding_value is not None
    label = label_value(
        "label_padding_value", 255 if label_padding_value is None else label_padding_value
    )
    return {"img": color, "label": label, "label_given": given}
