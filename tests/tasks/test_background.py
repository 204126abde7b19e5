"""Prefetching and background writing: order, bounds, errors, and the end."""

from __future__ import annotations

import threading

import pytest

from liteseg.tasks.background import BackgroundWriter, prefetch


def test_order_is_kept():
    assert list(prefetch(range(100), 3)) == list(range(100))
    assert list(prefetch([], 3)) == []


def test_prefetches_up_to_its_depth():
    read, enough = [], threading.Event()

    def items():
        for i in range(20):
            read.append(i)
            if i == 4:
                enough.set()
            yield i

    ahead = prefetch(items(), 3)
    assert next(ahead) == 0
    assert enough.wait(10)  # one returned, three ready, one that waits for a free place
    ahead.close()
    assert read == [0, 1, 2, 3, 4]


def test_an_error_is_raised_in_its_place():
    def items():
        yield 1
        raise OSError("broken")

    ahead = prefetch(items(), 3)
    assert next(ahead) == 1
    with pytest.raises(OSError, match="broken"):
        next(ahead)


def test_closing_ends_the_source():
    ended = threading.Event()

    def items():
        try:
            while True:
                yield 0
        finally:
            ended.set()

    ahead = prefetch(items(), 2)
    next(ahead)
    ahead.close()
    assert ended.wait(10)


def test_all_jobs_are_done_at_the_end():
    written, errors = [], []
    with BackgroundWriter(2, 4, lambda *failure: errors.append(failure)) as writer:
        for i in range(50):
            writer.submit(i, written.append, i)
    assert sorted(written) == list(range(50))
    assert errors == []


def test_the_number_of_unfinished_jobs_is_bounded():
    gate, started = threading.Event(), []

    def job(i):
        started.append(i)
        gate.wait(10)

    def third():
        writer.submit(2, job, 2)
        submitted.set()

    submitted = threading.Event()
    with BackgroundWriter(1, 2, lambda *_: None) as writer:
        writer.submit(0, job, 0)
        writer.submit(1, job, 1)
        thread = threading.Thread(target=third)
        thread.start()
        assert not submitted.wait(0.05)  # until one of the two is done
        gate.set()
        assert submitted.wait(10)
        thread.join()
    assert started == [0, 1, 2]


def test_a_failed_job_is_reported_and_the_others_run():
    written, failures = [], []

    def job(i):
        if i == 3:
            raise ValueError("no")
        written.append(i)

    def report(error, key):
        failures.append((str(error), key))

    with BackgroundWriter(2, 2, report) as writer:
        for i in range(6):
            writer.submit(f"job {i}", job, i)
    assert failures == [("no", "job 3")]
    assert sorted(written) == [0, 1, 2, 4, 5]
