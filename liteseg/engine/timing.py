"""Where the time goes."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator


class Clock:
    """Adds up the seconds of this process by phase.

    A GPU works on while the host queues more; with `synchronize` each phase waits for what it has
    queued, so that its seconds are its own. That slows training down: for measuring only.

    Attributes:
        spent: {phase: seconds}.
        synchronize: wait for the device at the end of each phase.
    """

    def __init__(self, synchronize: bool = False):
        self.spent: dict[str, float] = defaultdict(float)
        self.synchronize = synchronize

    @contextlib.contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Count the block as part of `phase`."""
        begin = time.perf_counter()
        yield
        if self.synchronize:
            _wait_for_device()
        self.spent[phase] += time.perf_counter() - begin


def _wait_for_device() -> None:
    import paddle

    if paddle.get_device() != "cpu":  # on a CPU every operator is done when it returns
        paddle.device.synchronize()
