"""The thread map: order, bounded read-ahead, errors."""

from __future__ import annotations

import itertools
import threading

import pytest

from liteseg.datasets.parallel import map_in_threads


def test_results_come_in_order():
    assert list(map_in_threads(lambda n: n * n, range(100), workers=3)) == [
        n * n for n in range(100)
    ]
    assert list(map_in_threads(str, [])) == []


def test_calls_run_at_the_same_time():
    both = threading.Barrier(2, timeout=30)
    assert sorted(map_in_threads(lambda _: both.wait(), range(4), workers=2)) == [0, 0, 1, 1]


def test_items_are_consumed_lazily():
    counter = itertools.count()
    results = map_in_threads(lambda n: n, counter, workers=2)
    assert [next(results) for _ in range(10)] == list(range(10))
    assert next(counter) < 20
    results.close()


def test_an_error_cancels_the_calls_not_started():
    started = []

    def work(n):
        started.append(n)
        if n == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(map_in_threads(work, range(1000), workers=2))
    assert len(started) < 20
