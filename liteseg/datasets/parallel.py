"""A thread map whose memory does not grow with the number of items."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Callable, Optional, TypeVar

from liteseg.utils.runtime import cpu_threads

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_threads(
    function: Callable[[Item], Result], items: Iterable[Item], workers: Optional[int] = None
) -> Iterator[Result]:
    """`map(function, items)` in threads, in order, for work that releases the GIL.

    `Executor.map` submits every item at once; this submits at most two per thread ahead of the
    caller, so `items` may be endless. After an exception (Ctrl-C too), running calls finish and
    the others are canceled.

    Args:
        function: called in a thread with each item.
        items: any iterable.
        workers: number of threads (default: the cores of this process).
    """
    workers = workers or cpu_threads()
    waiting: deque[Future] = deque()
    pool = ThreadPoolExecutor(workers)
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
