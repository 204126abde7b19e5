"""Checks of YAML values against the annotations of the Python constructor that takes them."""

from __future__ import annotations

import collections.abc
import inspect
import math
import types
import typing
from pathlib import Path
from typing import Any, Callable, Literal, Optional, Union

from liteseg.errors import quoted

_UNIONS = (Union, getattr(types, "UnionType", Union))  # X | Y has its own origin from 3.10 on
_SEQUENCES = (list, tuple, collections.abc.Sequence, collections.abc.Iterable)
_MAPPINGS = (dict, collections.abc.Mapping)


def parameters(component: Callable) -> dict[str, inspect.Parameter]:
    """The named parameters of a class or function, without `self`, `*args` and `**kwargs`."""
    return {
        name: parameter
        for name, parameter in inspect.signature(component).parameters.items()
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    }


def accepts_any_argument(component: Callable) -> bool:
    """Whether the component has `**kwargs`, so that unknown names cannot be detected."""
    kinds = [p.kind for p in inspect.signature(component).parameters.values()]
    return inspect.Parameter.VAR_KEYWORD in kinds


def argument_types(component: Callable) -> dict[str, Any]:
    """The evaluated annotations of the constructor; empty if one names something unknown here."""
    function = component.__init__ if inspect.isclass(component) else component
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError):  # TYPE_CHECKING imports, `X | Y` on 3.9: then nothing is checked
        return {}


def type_error(value: Any, annotation: Any) -> Optional[str]:
    """The error message for a `value` that does not match `annotation`; None if it does.

    An int is accepted for a float; a bool is not an int; YAML lists serve as any sequence;
    annotations that YAML cannot express (a layer, an array) accept everything.
    """
    if matches(value, annotation):
        return None
    return f"expected {describe(annotation)}, found {quoted(value)} ({_kind(value)})"


def matches(value: Any, annotation: Any) -> bool:
    """Whether a value of plain YAML types is one of `annotation`."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in _UNIONS:
        return any(matches(value, arm) for arm in args)
    if origin is Literal:
        return any(value == option and type(value) is type(option) for option in args)
    if (origin or annotation) in _SEQUENCES:
        return isinstance(value, (list, tuple)) and _items_match(value, origin, args)
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
    """An annotation as a YAML author knows it."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in _UNIONS:
        return " or ".join(describe(arm) for arm in args)
    if origin is Literal:
        return " or ".join(map(_yaml_text, args))
    if (origin or annotation) in _SEQUENCES:
        if origin is tuple and args and args[-1] is not Ellipsis:
            return f"[{', '.join(map(describe, args))}]"
        return f"a list of {describe(args[0])}" if args else "a list"
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
