"""Declaration of config keys: a dataclass field with a range, a meaning and the YAML it accepts."""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Callable, Optional

from liteseg.config.signature import type_error
from liteseg.registry import Registry


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
