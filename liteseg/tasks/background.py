"""Work in background threads: loading items ahead, and writing results while the caller continues.

The number of items in memory is bounded in both.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, Callable, TypeVar

T = TypeVar("T")
R = TypeVar("R")

_END = object()


def prefetch(items: Iterable[T], depth: int) -> Generator[T, None, None]:
    """The items in order, up to `depth` of them computed ahead in a thread.

    An exception of `items` is raised where its item would have been. Closing or deleting the
    generator stops the thread.
    """
    ready: queue.Queue = queue.Queue(depth)
    stop = threading.Event()

    def put(entry: tuple) -> bool:
        while not stop.is_set():
            try:
                ready.put(entry, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            for item in items:
                if not put((item, None)):
                    return
            put((_END, None))
        except BaseException as error:  # raised again in the thread of the caller
            put((_END, error))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield item
    finally:
        stop.set()
        thread.join()


def map_ahead(
    function: Callable[[T], R], items: Iterable[T], threads: int, depth: int
) -> Generator[R, None, None]:
    """`function` of each item, in order, up to `depth` of them computed ahead in threads.

    The items are taken in the caller's thread. An exception of `function` is raised where its
    result would have been. Closing the generator waits for the threads.
    """
    pool, pending = ThreadPoolExecutor(threads), deque[Future]()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > depth:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class BackgroundWriter:
    """Runs jobs in threads while the caller continues; its `with` block ends when all are done.

    Args:
        threads: number of jobs that run at the same time.
        max_pending: number of unfinished jobs at which `submit` waits for one to finish.
        on_error: called in the caller's thread with the exception of a failed job and its key.
        on_done: called in the caller's thread with the key of a job that has not failed.
    """

    def __init__(
        self,
        threads: int,
        max_pending: int,
        on_error: Callable[[BaseException, Any], None],
        on_done: Callable[[Any], None] = lambda key: None,
    ):
        self._pool = ThreadPoolExecutor(threads)
        self._max_pending = max_pending
        self._on_error = on_error
        self._on_done = on_done
        self._pending: dict[Future, Any] = {}

    def __enter__(self) -> BackgroundWriter:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self._pool.shutdown(wait=True, cancel_futures=kind is not None)
        if kind is None:
            self._collect(self._pending)

    def submit(self, key: Any, job: Callable, *args: Any) -> None:
        """Run `job(*args)` in a thread."""
        while len(self._pending) >= self._max_pending:
            self._collect(wait(self._pending, return_when=FIRST_COMPLETED).done)
        self._pending[self._pool.submit(job, *args)] = key

    def _collect(self, done: Iterable[Future]) -> None:
        for future in list(done):
            key = self._pending.pop(future)
            if (error := future.exception()) is not None:
                self._on_error(error, key)
            else:
                self._on_done(key)
