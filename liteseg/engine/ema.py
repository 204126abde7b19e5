"""Exponential moving average (EMA) of the weights, to evaluate and to ship."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import paddle


class Ema:
    """shadow ← d·shadow + (1 − d)·weight per iteration, batch-norm statistics included.

    d is `decay`, or (1 + t) / (10 + t) where that is smaller, in the first iterations t: the
    initial weights are soon forgotten.

    Args:
        model: its float32 state is averaged.
        decay: share of the old average that is kept, in (0, 1).
        frozen: state keys that never change, and are left out.
    """

    def __init__(self, model: paddle.nn.Layer, decay: float, frozen: Collection[str] = ()):
        self.decay = decay
        self.iterations = 0
        state = model.state_dict()
        averaged = state.keys() - frozen
        self._live = {k: v for k, v in state.items() if v.dtype == paddle.float32 and k in averaged}
        self._shadow = self._flat()

    def _flat(self) -> paddle.Tensor:
        """The current state in one tensor: three kernels update it, where each key took three."""
        return paddle.concat([value.detach().flatten() for value in self._live.values()])

    def _by_key(self, flat: paddle.Tensor) -> dict[str, paddle.Tensor]:
        parts = flat.split([value.size for value in self._live.values()])
        return {k: part.reshape(v.shape) for (k, v), part in zip(self._live.items(), parts)}

    @paddle.no_grad()
    def update(self) -> None:
        """Add the current weights to the average."""
        self.iterations += 1
        decay = min(self.decay, (1 + self.iterations) / (10 + self.iterations))
        self._shadow.scale_(decay)
        self._shadow.add_(self._flat() * (1 - decay))

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """The model has the averaged weights inside the block, its own again after it."""
        own = self._flat()
        self._assign(self._by_key(self._shadow))
        try:
            yield
        finally:
            self._assign(self._by_key(own))

    def state_dict(self) -> dict[str, Any]:
        """The average (`shadow`) and the number of iterations in it (`steps`)."""
        return {"steps": self.iterations, "shadow": self._by_key(self._shadow)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved average."""
        self.iterations = state["steps"]
        saved = {**self._live, **state["shadow"]}  # which lacks what was frozen before
        parts = [paddle.to_tensor(saved[key]).flatten() for key in self._live]
        self._shadow = paddle.concat(parts)

    def _assign(self, values: Mapping[str, paddle.Tensor]) -> None:
        for key, value in values.items():
            self._live[key].set_value(value)
