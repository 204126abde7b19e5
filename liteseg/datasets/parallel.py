"""A map over threads whose memory does not grow with the number of items."""

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
    """`map(function, items)` in threads, in order and a few items ahead of the reader.

    For work that releases the interpreter lock (decoding, hashing, reading). An exception, such as
    Ctrl-C, ends it after the items in work; those not begun are dropped.

    Args:
        function: called in a thread with each item.
        items: any number of them; read as they are needed.
        workers: threads; the cores of this process without.
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
