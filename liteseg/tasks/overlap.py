"""Reading ahead and writing behind, in threads, with a bound on what waits."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, Callable, TypeVar

T = TypeVar("T")

_END = object()


def read_ahead(items: Iterable[T], depth: int) -> Iterator[T]:
    """The items in order, up to `depth` of them taken in a thread before they are asked for.

    An exception of `items` is raised where its item would have been. Closing the generator (or
    dropping it) stops the thread.
    """
    waiting: queue.Queue = queue.Queue(depth)
    stop = threading.Event()

    def put(entry: tuple) -> bool:
        while not stop.is_set():
            try:
                waiting.put(entry, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def read() -> None:
        try:
            for item in items:
                if not put((item, None)):
                    return
            put((_END, None))
        except BaseException as error:  # to be raised in the other thread
            put((_END, error))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        while True:
            item, error = waiting.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield item
    finally:
        stop.set()
        thread.join()


class WriteBehind:
    """Runs jobs in threads while the caller goes on; its `with` block ends when all are done.

    Args:
        threads: how many jobs run at a time.
        waiting: how many may be unfinished before `add` waits for one.
        on_error: called, in the caller's thread, with the exception of a job that failed and what
            was given to `add` to tell it by.
    """

    def __init__(self, threads: int, waiting: int, on_error: Callable[[BaseException, Any], None]):
        self._pool = ThreadPoolExecutor(threads)
        self._waiting = waiting
        self._on_error = on_error
        self._jobs: dict[Future, Any] = {}

    def __enter__(self) -> WriteBehind:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self._pool.shutdown(wait=True, cancel_futures=kind is not None)
        if kind is None:
            self._collect(self._jobs)

    def add(self, which: Any, job: Callable, *args: Any) -> None:
        """Run `job(*args)` soon."""
        while len(self._jobs) >= self._waiting:
            self._collect(wait(self._jobs, return_when=FIRST_COMPLETED).done)
        self._jobs[self._pool.submit(job, *args)] = which

    def _collect(self, done: Iterable[Future]) -> None:
        for future in list(done):
            which = self._jobs.pop(future)
            if (error := future.exception()) is not None:
                self._on_error(error, which)
