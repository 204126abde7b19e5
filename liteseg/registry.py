"""Registries: checked dictionaries from names in YAML to components."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Callable, Optional, TypeVar, overload

from liteseg.errors import UserError, quoted

Component = Callable[..., Any]
_C = TypeVar("_C", bound=Component)
_Decorator = Callable[[_C], _C]


def nearest(name: str, names: Collection[str]) -> Optional[str]:
    """The entry of `names` most similar to `name` (case ignored), or None if none is similar."""
    by_lower = {known.lower(): known for known in names}
    close = difflib.get_close_matches(str(name).lower(), list(by_lower), n=1, cutoff=0.6)
    return by_lower[close[0]] if close else None


class Registry(Mapping[str, Component]):
    """A named dictionary of components (classes or functions) that refuses duplicates."""

    def __init__(self, name: str):
        self.name = name
        self._components: dict[str, Component] = {}

    @overload
    def register(self, component: _C, *, name: Optional[str] = None) -> _C: ...

    @overload
    def register(self, component: None = None, *, name: Optional[str] = None) -> _Decorator: ...

    def register(
        self, component: Optional[Component] = None, *, name: Optional[str] = None
    ) -> Component:
        """Register a component under `name`, or its own name; works as a decorator.

        Both `@REGISTRY.register` and `@REGISTRY.register(name="Name")` are valid.

        Raises:
            ValueError: another component has the name.
        """
        if component is None:
            return lambda decorated: self.register(decorated, name=name)
        key = name or component.__name__
        if key in self._components:
            raise ValueError(f"{self.name} already contains {key!r}: {self._components[key]}")
        self._components[key] = component
        return component

    def missing_message(self, key: str) -> str:
        """The error message for an unknown name: the known names and the nearest one."""
        hint = nearest(key, self)
        suggestion = f"; did you mean {hint!r}?" if hint else ""
        return f"{quoted(key)} is not in {self.name} ({', '.join(sorted(self))}){suggestion}"

    def __getitem__(self, key: str) -> Component:
        try:
            return self._components[key]
        except KeyError:
            raise UserError(self.missing_message(key)) from None

    def __contains__(self, key: object) -> bool:
        return key in self._components

    def __iter__(self) -> Iterator[str]:
        return iter(self._components)

    def __len__(self) -> int:
        return len(self._components)


BACKBONES = Registry("BACKBONES")
MODELS = Registry("MODELS")
LOSSES = Registry("LOSSES")
DATASETS = Registry("DATASETS")
TRANSFORMS = Registry("TRANSFORMS")
OPTIMIZERS = Registry("OPTIMIZERS")
LR_SCHEDULERS = Registry("LR_SCHEDULERS")
