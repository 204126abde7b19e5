"""Declaration of config keys: a dataclass field with a range, a meaning and the YAML it accepts.

Arguments of constructors are checked against their annotations in the same way.
"""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import functools
import math
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Literal, Optional, Union

from liteseg.errors import quoted
from liteseg.registry import Registry

_UNIONS = (Union, getattr(types, "UnionType", Union))  # X | Y has its own origin from 3.10 on
_SEQUENCES = (list, tuple, collections.abc.Sequence, collections.abc.Iterable)
_MAPPINGS = (dict, collections.abc.Mapping)


class _Required:
    def __repr__(self) -> str:
        return "required"


REQUIRED = _Required()


@dataclass(frozen=True)
class Rule:
    """A range: `holds(number)`, and its description for "must be ..."."""

    holds: Callable[[float], bool]
    description: str


POSITIVE = Rule(lambda number: number > 0, "greater than 0")
NOT_NEGATIVE = Rule(lambda number: number >= 0, "0 or more")
FRACTION = Rule(lambda number: 0 < number < 1, "between 0 and 1")


@dataclass(frozen=True)
class Key:
    """One key of a config.

    Attributes:
        type: the annotation that its YAML value must match.
        default: the value of a key that is not given; REQUIRED if it must be given.
        meaning: one line of documentation.
        rule: a range for the number (or for each number of a list).
        section: the dataclass of the keys below, for a mapping with fixed keys.
        registry: the registry of its component (a mapping with `type`).
        many: whether it is a list of components.
    """

    type: Any
    default: Any
    meaning: str
    rule: Optional[Rule] = None
    section: Optional[type] = None
    registry: Optional[Registry] = None
    many: bool = False

    def problem(self, value: Any) -> Optional[str]:
        """The error of a value's type or range; None if it has neither."""
        if problem := type_error(value, self.type):
            return problem
        if self.rule is None:
            return None
        numbers = value if isinstance(value, (list, tuple)) else [value]
        bad = [n for n in numbers if isinstance(n, (int, float)) and not self.rule.holds(n)]
        if bad or not numbers:
            return f"must be {self.rule.description}, found {bad[0] if bad else '[]'}"
        return None

    def resolve(self, value: Any) -> Any:
        """The typed value of a checked YAML value; a section becomes its dataclass or None."""
        if self.section is None:
            return value
        if value is None or value is False:
            return None if self.default is False else self.section()
        return self.section(**({} if value is True else value))


def key(
    default: Any, meaning: str, rule: Optional[Rule] = None, *, yaml: Any = None, **kind: Any
) -> Any:
    """A dataclass field that is a config key.

    Args:
        default: REQUIRED, or the value where the YAML does not give the key.
        meaning: one line of documentation.
        rule: a range.
        yaml: the annotation of the YAML value where it differs from the field's own.
        kind: `section`, `registry` or `many` of `Key`.
    """
    metadata = {"meaning": meaning, "rule": rule, "yaml": yaml, "default": default, **kind}
    if default is REQUIRED:
        return dataclasses.field(metadata=metadata)
    if isinstance(default, (dict, list)) or (default is False and "section" in kind):
        section = kind.get("section")
        empty: Any = None if default is False else section() if section else default
        return dataclasses.field(default_factory=lambda: empty, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@functools.cache
def keys_of(section: Any) -> Mapping[str, Key]:
    """The keys that the fields of a dataclass (the class) declare, by name and in order."""
    hints = typing.get_type_hints(section)
    keys = {}
    for one in dataclasses.fields(section):
        if one.metadata:
            options = dict(one.metadata)
            annotation = options.pop("yaml") or hints[one.name]
            keys[one.name] = Key(annotation, options.pop("default"), **options)
    return keys


def type_error(value: Any, annotation: Any) -> Optional[str]:
    """The error message for a `value` that does not match `annotation`; None if it does.

    An int is accepted for a float; a bool is not an int; YAML lists serve as any sequence;
    annotations that YAML cannot express (a layer, an array) accept everything.
    """
    if matches(value, annotation):
        return None
    hint = _number_hint(value, annotation) if isinstance(value, str) else ""
    return f"expected {describe(annotation)}, found {quoted(value)} ({_kind(value)}){hint}"


def _number_hint(text: str, annotation: Any) -> str:
    """The fix of a number that YAML reads as text."""
    for written, fix in ((text, "remove the quotes"), (text.replace(",", ".", 1), "")):
        for kind in (int, float):
            with contextlib.suppress(ValueError):
                if matches(kind(written), annotation):
                    return f"; {fix or f'it has a decimal comma; write {written.strip()}'}"
    if re.fullmatch(r"\d+(,\d+)+", text):  # 20,5 or 20,000 for an integer
        return "; write a whole number, with digits only"
    return ""


def matches(value: Any, annotation: Any) -> bool:
    """Whether a value of plain YAML types is one of `annotation`."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in _UNIONS:
        return any(matches(value, arm) for arm in args)
    if origin is Literal:
        return any(value == option and type(value) is type(option) for option in args)
    if (origin or annotation) in _SEQUENCES:
        return isinstance(value, (list, tuple)) and _items_match(value, origin, args)
    if required := getattr(annotation, "__required_keys__", None):  # a TypedDict
        types = typing.get_type_hints(annotation)
        return (
            isinstance(value, dict)
            and required <= value.keys() <= types.keys()
            and all(matches(item, types[name]) for name, item in value.items())
        )
    if (origin or annotation) in _MAPPINGS:
        return isinstance(value, dict) and (
            not args or all(matches(k, args[0]) and matches(v, args[1]) for k, v in value.items())
        )
    if annotation in (None, type(None)):
        return value is None
    if annotation is float:
        return _is_int(value) or (isinstance(value, float) and math.isfinite(value))
    if annotation is int:
        return _is_int(value)
    if annotation in (bool, str):
        return isinstance(value, annotation)
    if annotation is Path:
        return isinstance(value, str)
    return True


def _items_match(value: typing.Sequence, origin: Any, args: tuple) -> bool:
    if origin is tuple and args and args[-1] is not Ellipsis:
        return len(value) == len(args) and all(map(matches, value, args))
    return not args or all(matches(item, args[0]) for item in value)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def describe(annotation: Any) -> str:
    """An annotation in terms of YAML."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in _UNIONS:
        return " or ".join(describe(arm) for arm in args)
    if origin is Literal:
        return " or ".join(map(_yaml_text, args))
    if (origin or annotation) in _SEQUENCES:
        if origin is tuple and args and args[-1] is not Ellipsis:
            return f"[{', '.join(map(describe, args))}]"
        return f"a list of {describe(args[0])}" if args else "a list"
    if hasattr(annotation, "__required_keys__"):
        types = typing.get_type_hints(annotation)
        return f"{{{', '.join(f'{name}: {describe(kind)}' for name, kind in types.items())}}}"
    if (origin or annotation) in _MAPPINGS:
        return "a mapping"
    names: dict[Any, str] = {
        float: "a number",
        int: "an integer",
        bool: "true or false",
        str: "text",
        Path: "a path",
    }
    if annotation in (None, type(None)):
        return "null"
    return names.get(annotation) or str(getattr(annotation, "__name__", annotation))


def _yaml_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)


def _kind(value: Any) -> str:
    kinds = {
        dict: "a mapping",
        list: "a list",
        str: "text",
        bool: "true or false",
        float: "a number",
    }
    return kinds.get(type(value), "an integer" if isinstance(value, int) else "nothing")
