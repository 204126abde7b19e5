"""Timing several ways of doing the same, in turns, so that what the machine does meets all alike.

Method: each case is called `warm_up` times, uncounted. Then the cases take turns: in each round a
case runs a burst of calls, of which the first is not counted (it pays for the caches and the idle
threads of the case before it). Every call ends when its result is in memory, so nothing is left
running. The clock is the wall's.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Mapping
from typing import Callable

import numpy as np

BURST = 5


def in_turns(
    cases: Mapping[Hashable, Callable[[], object]],
    calls: int,
    warm_up: int,
    on_burst: Callable[[], object] = lambda: None,
) -> dict[Hashable, np.ndarray]:
    """Seconds of each counted call.

    Args:
        cases: what to time, by name.
        calls: counted calls of each case, at least; filled up to whole bursts.
        warm_up: calls before.
        on_burst: called after every burst, for progress.

    Returns:
        One array of seconds for each case.
    """
    for run in cases.values():
        for _ in range(warm_up):
            run()
    seconds: dict[Hashable, list[float]] = {name: [] for name in cases}
    for _ in range(-(-calls // (BURST - 1))):
        for name, run in cases.items():
            burst = []
            for _ in range(BURST):
                begin = time.perf_counter()
                run()
                burst.append(time.perf_counter() - begin)
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
