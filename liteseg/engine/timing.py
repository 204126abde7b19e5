"""Time spent per phase."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator

import paddle


class Clock:
    """Sums the seconds of this process by phase.

    A GPU computes while the host queues more work. With `synchronize` each phase waits for the
    work it has queued, so that its seconds are its own. That slows training: only for measuring.

    Attributes:
        spent: {phase: seconds}.
        synchronize: wait for the device at the end of each phase.
    """

    def __init__(self, synchronize: bool = False):
        self.spent: dict[str, float] = defaultdict(float)
        self.synchronize = synchronize

    @contextlib.contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Add the time of the block to `phase`."""
        begin = time.perf_counter()
        yield
        if self.synchronize and paddle.get_device() != "cpu":  # on a CPU nothing is queued
            paddle.device.synchronize()
        self.spent[phase] += time.perf_counter() - begin
