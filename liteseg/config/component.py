"""Components: the constructors that a mapping with `type` names, and their construction."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Mapping
from typing import Any, Callable

import numpy as np

from liteseg.config.plugins import plugin_location
from liteseg.config.schema import NESTED
from liteseg.errors import UserError
from liteseg.registry import Registry
from liteseg.utils.class_weights import WEIGHT_SCHEMES

# Placeholder for class weights that need the training set.
UNMEASURED = dict.fromkeys(WEIGHT_SCHEMES, np.ones(1))


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


def is_scheme(weight: Any) -> bool:
    """Whether a loss's `weight` is the name of a scheme."""
    return isinstance(weight, str) and weight in WEIGHT_SCHEMES


def schemes_of(spec: Any) -> set[str]:
    """The schemes named by the losses of `spec`, a part of a config."""
    if isinstance(spec, list):
        return set().union(*map(schemes_of, spec))
    if not isinstance(spec, dict):
        return set()
    named = {spec["weight"]} if is_scheme(spec.get("weight")) else set()
    return named | schemes_of(list(spec.values()))


def with_measured(spec: Any, measured: Mapping[str, np.ndarray]) -> Any:
    """`spec` with every name of a scheme replaced by its weights, as a list."""
    if isinstance(spec, list):
        return [with_measured(item, measured) for item in spec]
    if not isinstance(spec, dict):
        return spec
    return {
        key: measured[value].tolist()
        if key == "weight" and is_scheme(value)
        else with_measured(value, measured)
        for key, value in spec.items()
    }
