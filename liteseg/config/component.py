"""From a mapping with `type` to the component it describes."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from liteseg.config.plugins import plugin_location
from liteseg.config.schema import NESTED
from liteseg.config.signature import parameters
from liteseg.errors import UserError
from liteseg.registry import Registry


def build(spec: Mapping[str, Any], registry: Registry, path: str, **defaults: Any) -> Any:
    """Make the component of a mapping with `type`, and first the components among its arguments.

    Args:
        spec: `type` and the constructor's arguments.
        registry: of the `type`.
        path: the key path, for messages.
        defaults: arguments that the constructor accepts and `spec` lacks; passed on to nested
            components of the same registry.

    Raises:
        UserError: unknown type, wrong arguments, or an error of the constructor.
    """
    try:
        component = registry[spec["type"]]
    except UserError as error:
        raise UserError(f"{path}.type: {error}") from None
    arguments = {name: value for name, value in spec.items() if name != "type"}
    for name in NESTED.keys() & arguments.keys():
        nested, many = NESTED[name]
        below, here = (defaults if nested is registry else {}), f"{path}.{name}"
        if many:
            items = enumerate(arguments[name] or ())
            arguments[name] = [build(item, nested, f"{here}.{i}", **below) for i, item in items]
        elif arguments[name] is not None:
            arguments[name] = build(arguments[name], nested, here, **below)
    known = parameters(component)
    for name, value in defaults.items():
        if name in known:
            arguments.setdefault(name, value)
    try:
        inspect.signature(component).bind(**arguments)
    except TypeError as error:
        raise UserError(f"{path}: {spec['type']}: {error}") from None
    try:
        return component(**arguments)
    except (UserError, ValueError, AssertionError) as error:  # Paddle's schedules use assert
        raise UserError(f"{path}: {spec['type']}: {plugin_location(error) or error}") from error


def is_registered(spec: Any, registry: Registry) -> bool:
    """Whether `spec` is a mapping whose `type` is in the registry."""
    name = spec.get("type") if isinstance(spec, Mapping) else None
    return isinstance(name, str) and name in registry
