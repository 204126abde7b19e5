"""Defaults of a config: of its keys, and of the arguments of its components."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from liteseg.config.component import is_registered, parameters
from liteseg.config.keys import REQUIRED, Key, keys_of
from liteseg.config.load import Config
from liteseg.config.schema import DERIVED, NESTED, SCHEMA, SUPPLIED
from liteseg.registry import LOSSES, Registry


def with_defaults(cfg: Config) -> Config:
    """The config with every key and argument that it leaves out, at its default.

    Arguments of components that are not registered stay as they are.
    """
    given = cfg.data
    defaults = {**_defaults(SCHEMA), **intervals(given)}
    for name, key in SCHEMA.items():
        value = given.get(name, key.default)
        if key.section is not None and isinstance(value, dict):
            defaults[name] = _defaults(keys_of(key.section))
        elif key.registry is not None and isinstance(value, dict):
            defaults[name] = _argument_defaults(value, key.registry)
    loss = given.get("loss")
    if isinstance(loss, dict):
        defaults["loss"]["types"] = _nested_defaults(loss.get("types"), LOSSES)
    return cfg.filled(defaults)


def _defaults(keys: Mapping[str, Key]) -> dict[str, Any]:
    return {name: key.default for name, key in keys.items() if key.default is not REQUIRED}


def intervals(given: Mapping[str, Any]) -> dict[str, int]:
    """The defaults of the intervals, which follow from `iters`."""
    iters = given.get("iters")
    tenth = min(1000, max(1, iters // 10)) if isinstance(iters, int) and iters > 0 else 1000
    return {"eval_interval": tenth, "save_interval": tenth}


def _nested_defaults(spec: Any, registry: Registry) -> Any:
    if isinstance(spec, list):
        return [_nested_defaults(item, registry) for item in spec]
    return _argument_defaults(spec, registry)


def _argument_defaults(spec: Any, registry: Registry) -> dict[str, Any]:
    """The defaults of a component's constructor, and of the components among its arguments."""
    if not is_registered(spec, registry):
        return {}
    elsewhere = {*SUPPLIED.get(registry.name, {}), *DERIVED.get(registry.name, ())}
    defaults = {}
    for name, parameter in parameters(registry[spec["type"]]).items():
        default = parameter.default
        if name in NESTED and spec.get(name):
            defaults[name] = _nested_defaults(spec[name], NESTED[name][0])
        elif name not in elsewhere and _is_plain(default):
            defaults[name] = default
    return defaults


def _is_plain(value: Any) -> bool:
    """Whether YAML can express it."""
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or type(value) in (bool, int, float, str)
