"""Exponential moving average of the weights, to evaluate and to ship."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import paddle


class Ema:
    """shadow ← d·shadow + (1 − d)·weight after each step, batch-norm statistics included.

    d is `decay`, but smaller, (1 + t) / (10 + t), in the first steps t, so that the initial weights
    are soon forgotten.

    Args:
        model: its floating-point state is averaged.
        decay: share of the old average kept, in (0, 1).
    """

    def __init__(self, model: paddle.nn.Layer, decay: float):
        self.decay = decay
        self.steps = 0
        self._live = {k: v for k, v in model.state_dict().items() if v.is_floating_point()}
        self._shadow = {key: value.detach().clone() for key, value in self._live.items()}

    @paddle.no_grad()
    def update(self) -> None:
        """Take in the weights as they are now."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
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

    def state_dict(self) -> dict:
        """What `load_state_dict` takes."""
        return {"steps": self.steps, "shadow": self._shadow}

    def load_state_dict(self, state: dict) -> None:
        """Continue from a saved average."""
        self.steps = state["steps"]
        _assign(self._shadow, state["shadow"])


def _assign(target: dict, source: dict) -> None:
    for key, value in source.items():
        target[key].set_value(value)
