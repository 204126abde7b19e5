"""A checked config: every error reported first, then every default filled in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Union

from liteseg.config.check import check
from liteseg.config.keys import REQUIRED, Key, keys_of
from liteseg.config.load import Config, load_config
from liteseg.config.schema import SCHEMA, CheckedConfig
from liteseg.errors import UserError

AnyConfig = Union[str, Path, Config, CheckedConfig]


def load_checked(cfg: AnyConfig, overrides: Sequence[str] = ()) -> CheckedConfig:
    """Load a config, apply `a.b.c=value` overrides, check everything and fill in the defaults.

    Args:
        cfg: a YAML file, the name of a shipped config, or a loaded config.
        overrides: changes of values, in order.

    Raises:
        UserError: the file or an override cannot be used, or the config has errors (all of them
            are listed, with file and line).
    """
    if isinstance(cfg, (str, Path)):
        return checked(load_config(cfg, overrides))
    if overrides:
        cfg = (cfg.source if isinstance(cfg, CheckedConfig) else cfg).changed(overrides)
    return checked(cfg)


def checked(cfg: Union[Config, CheckedConfig]) -> CheckedConfig:
    """The checked form of a config, with its plugins loaded.

    Raises:
        UserError: lists every error that `check` finds.
    """
    if isinstance(cfg, CheckedConfig):
        return cfg
    if problems := check(cfg):
        count = "1 error" if len(problems) == 1 else f"{len(problems)} errors"
        raise UserError(f"{cfg.path}: {count}\n" + "\n".join(f"  - {p}" for p in problems))
    given = cfg.data
    values = {name: key.resolve(given[name]) for name, key in SCHEMA.items() if name in given}
    return CheckedConfig(**values, source=with_defaults(cfg))


def with_defaults(cfg: Config) -> Config:
    """The config with every key that it leaves out, at its default."""
    defaults = _defaults(SCHEMA)
    for name, key in SCHEMA.items():
        value = cfg.get(name, key.default)
        if key.section is not None and isinstance(value, dict):
            defaults[name] = _defaults(keys_of(key.section))
    return cfg.filled(defaults)


def _defaults(keys: Mapping[str, Key]) -> dict[str, Any]:
    return {name: key.default for name, key in keys.items() if key.default is not REQUIRED}


def changes_since(path: Path, cfg: CheckedConfig) -> list[str]:
    """`key.path: old -> new` of every value of `cfg` that differs from the config file `path`."""
    old = _leaves(with_defaults(load_config(path)).data)
    new = _leaves(cfg.source.data)
    return [
        f"{key}: {old.get(key, 'not set')} -> {new.get(key, 'not set')}"
        for key in {**old, **new}
        if old.get(key) != new.get(key)
    ]


def _leaves(value: Any, path: str = "") -> dict[str, Any]:
    """{"a.b.0": scalar} of nested dicts and lists."""
    if not isinstance(value, (dict, list)):
        return {path: value}
    leaves: dict[str, Any] = {}
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        leaves.update(_leaves(item, f"{path}.{key}" if path else str(key)))
    return leaves
