"""Interleaved timing of several cases, so that other load on the machine affects all equally.

First each case is called `warm_up` times, without timing. Then the cases alternate: in each round
every case runs a burst of calls, the first of which is not timed because caches and threads are
still in the state of the previous case. A call returns when its result is in memory. Times are wall
time.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Mapping
from typing import Callable

import numpy as np

BURST = 5


def time_interleaved(
    cases: Mapping[Hashable, Callable[[], object]],
    calls: int,
    warm_up: int,
    on_burst: Callable[[], object] = lambda: None,
) -> dict[Hashable, np.ndarray]:
    """Time all cases.

    Args:
        cases: functions to time, by name.
        calls: timed calls per case, rounded up to whole bursts.
        warm_up: calls per case before timing.
        on_burst: called after every burst, to show progress.

    Returns:
        The seconds of each timed call, one array per case.
    """
    for run in cases.values():
        for _ in range(warm_up):
            run()
    seconds: dict[Hashable, list[float]] = {name: [] for name in cases}
    for _ in range(-(-calls // (BURST - 1))):
        for name, run in cases.items():
            burst = []
            for _ in range(BURST):
                start = time.perf_counter()
                run()
                burst.append(time.perf_counter() - start)
            seconds[name] += burst[1:]
            on_burst()
    return {name: np.array(values) for name, values in seconds.items()}


def summary(seconds: np.ndarray, batch: int) -> dict[str, float]:
    """`median_ms`, `p90_ms`, `p99_ms` of a call, and `images_per_second` over all of them."""
    median, p90, p99 = (float(value) * 1e3 for value in np.percentile(seconds, [50, 90, 99]))
    return {
        "median_ms": median,
        "p90_ms": p90,
        "p99_ms": p99,
        "images_per_second": float(batch * len(seconds) / seconds.sum()),
    }
