"""Registries: checked dictionaries from the names used in YAML to the classes they name."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Callable, Optional

from liteseg.errors import UserError, quoted


def nearest(name: str, names: Mapping[str, object] | list[str]) -> Optional[str]:
    """The entry of `names` most like `name` (case ignored), or None if none is like it."""
    by_lower = {known.lower(): known for known in names}
    close = difflib.get_close_matches(str(name).lower(), list(by_lower), n=1, cutoff=0.6)
    return by_lower[close[0]] if close else None


class Registry(Mapping[str, Callable]):
    """A named dictionary of components that refuses duplicates and explains misses."""

    def __init__(self, name: str):
        self.name = name
        self._components: dict[str, Callable] = {}

    def register(self, component: Optional[Callable] = None, *, name: Optional[str] = None):
        """Register a class or function under its own name; use as a plain or called decorator.

        Raises:
            ValueError: the name is taken by another component.
        """
        if component is None:
            return lambda decorated: self.register(decorated, name=name)
        key = name or component.__name__
        if key in self._components:
            raise ValueError(f"{self.name} already holds {key!r}: {self._components[key]}")
        self._components[key] = component
        return component

    def miss(self, key: str) -> str:
        """The sentence that says `key` is not here and what is."""
        hint = nearest(key, self)
        mend = f"; did you mean {hint!r}?" if hint else ""
        return f"{quoted(key)} is not in {self.name} ({', '.join(sorted(self))}){mend}"

    def __getitem__(self, key: str) -> Callable:
        try:
            return self._components[key]
        except KeyError:
            raise UserError(self.miss(key)) from None

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
