"""Exponential moving average (EMA) of the weights, to evaluate and to ship."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import paddle


class Ema:
    """shadow ← d·shadow + (1 − d)·weight per iteration, batch-norm statistics included.

    d is `decay`, or (1 + t) / (10 + t) where that is smaller, in the first iterations t: the
    initial weights are soon forgotten.

    Args:
        model: its floating-point state is averaged.
        decay: share of the old average that is kept, in (0, 1).
    """

    def __init__(self, model: paddle.nn.Layer, decay: float):
        self.decay = decay
        self.iterations = 0
        self._live = {k: v for k, v in model.state_dict().items() if v.is_floating_point()}
        self._shadow = {key: value.detach().clone() for key, value in self._live.items()}

    @paddle.no_grad()
    def update(self) -> None:
        """Add the current weights to the average."""
        self.iterations += 1
        decay = min(self.decay, (1 + self.iterations) / (10 + self.iterations))
        for key, value in self._live.items():
            shadow = self._shadow[key]
            shadow.scale_(decay)
            shadow.add_(value * (1 - decay))

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """The model has the averaged weights inside the block, its own again after it."""
        own = {key: value.detach().clone() for key, value in self._live.items()}
        _assign(self._live, self._shadow)
        try:
            yield
        finally:
            _assign(self._live, own)

    def state_dict(self) -> dict[str, Any]:
        """The average (`shadow`) and the number of iterations in it (`steps`)."""
        return {"steps": self.iterations, "shadow": self._shadow}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved average."""
        self.iterations = state["steps"]
        _assign(self._shadow, state["shadow"])


def _assign(target: Mapping[str, paddle.Tensor], source: Mapping[str, Any]) -> None:
    for key, value in source.items():
        target[key].set_value(value)
