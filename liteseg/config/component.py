"""Components: the constructors that a mapping with `type` names, and their construction."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Callable, Optional

import numpy as np

from liteseg.config.plugins import plugin_location
from liteseg.config.schema import INNER_DATASET, NESTED, SCHEMA
from liteseg.errors import UserError
from liteseg.registry import DATASETS, Registry
from liteseg.utils.bands import bands_of
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
        below = INNER_DATASET if name == "datasets" else below
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


def parts_to_leave(cfg: Mapping[str, Any], built: Sequence[str]) -> tuple[str, ...]:
    """The keys whose components inference does not build; none if it needs the config's plugins.

    Args:
        cfg: a config; liteseg's own components are registered.
        built: keys that are built, next to the model and the validation transforms.
    """
    evaluated = cfg.get("val_dataset")
    has_transforms = isinstance(evaluated, dict) and evaluated.get("transforms")
    keys = {"model", "val_dataset", *built, *(() if has_transforms else ("train_dataset",))}
    keys &= SCHEMA.keys()
    if not cfg.get("plugins") or any(_is_foreign(cfg.get(k), SCHEMA[k].registry) for k in keys):
        return ()
    return tuple(n for n, key in SCHEMA.items() if (key.registry or n == "loss") and n not in keys)


def _is_foreign(spec: Any, registry: Any) -> bool:
    """Whether a component, or one among its arguments, is not registered."""
    if isinstance(spec, list):
        return any(_is_foreign(item, registry) for item in spec)
    if spec is None:
        return False
    return not is_registered(spec, registry) or any(
        _is_foreign(spec[name], nested) for name, (nested, _) in NESTED.items() if name in spec
    )


def dataset_attribute(spec: Any, name: str) -> Any:
    """An argument of a dataset's mapping, else its class attribute, else its default; or None.

    Joined datasets have the attributes of the first one, but for the classes that they list.
    """
    parts = spec.get("datasets") if isinstance(spec, dict) else None
    if isinstance(parts, list) and parts:
        listed = spec.get("classes") if name == "CLASSES" else None
        return listed or dataset_attribute(parts[0], name)
    return given_argument(spec, DATASETS, name)


def dataset_bands(spec: Any) -> Optional[list[int]]:
    """The bands that the dataset of a mapping reads; None for 8-bit RGB.

    Raises:
        UserError: numbers that are no bands.
    """
    channels = dataset_attribute(spec, "img_channels") or 3
    return bands_of(channels, dataset_attribute(spec, "channels"))


def label_values(spec: Any) -> tuple[Optional[int], Optional[int]]:
    """The number of classes and the ignored label value of a dataset, where the config has them."""
    classes = dataset_attribute(spec, "CLASSES")
    classes = len(classes) if classes else dataset_attribute(spec, "num_classes")
    ignored = dataset_attribute(spec, "ignore_index")
    if ignored is None and is_registered(spec, DATASETS):
        own = DATASETS[spec["type"]].__module__.startswith("liteseg.")
        ignored = 255 if own else None
    valid = type(classes) is int and classes > 0 and isinstance(ignored, int)
    return (classes, ignored) if valid else (None, None)


def given_argument(spec: Any, registry: Registry, name: str) -> Any:
    """An argument of a component's mapping, else the class attribute or the default; or None."""
    if not is_registered(spec, registry):
        return None
    component = registry[spec["type"]]
    if name in spec or hasattr(component, name):
        return spec.get(name, getattr(component, name, None))
    parameter = parameters(component).get(name)
    return None if parameter is None or parameter.default is parameter.empty else parameter.default


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
