"""Reading ahead and writing behind: order, bounds, errors, and ends."""

from __future__ import annotations

import threading

import pytest
from liteseg.tasks.overlap import WriteBehind, read_ahead


def test_order_is_kept():
    assert list(read_ahead(range(100), 3)) == list(range(100))
    assert list(read_ahead([], 3)) == []


def test_reads_ahead_but_not_further_than_asked():
    taken, enough = [], threading.Event()

    def items():
        for i in range(20):
            taken.append(i)
            if i == 4:
                enough.set()
            yield i

    ahead = read_ahead(items(), 3)
    assert next(ahead) == 0
    assert enough.wait(10)  # one in hand, three waiting, one that finds no place
    ahead.close()
    assert taken == [0, 1, 2, 3, 4]


def test_an_error_comes_in_its_place():
    def items():
        yield 1
        raise OSError("broken")

    ahead = read_ahead(items(), 3)
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

    ahead = read_ahead(items(), 2)
    next(ahead)
    ahead.close()
    assert ended.wait(10)


def test_all_is_written_at_the_end():
    written, errors = [], []
    with WriteBehind(2, 4, lambda *told: errors.append(told)) as writer:
        for i in range(50):
            writer.add(i, written.append, i)
    assert sorted(written) == list(range(50))
    assert errors == []


def test_no_more_waits_than_allowed():
    gate, started = threading.Event(), []

    def job(i):
        started.append(i)
        gate.wait(10)

    def third():
        writer.add(2, job, 2)
        added.set()

    added = threading.Event()
    with WriteBehind(1, 2, lambda *_: None) as writer:
        writer.add(0, job, 0)
        writer.add(1, job, 1)
        thread = threading.Thread(target=third)
        thread.start()
        assert not added.wait(0.05)  # until one of the two is done
        gate.set()
        assert added.wait(10)
        thread.join()
    assert started == [0, 1, 2]


def test_a_failed_job_is_told_and_the_others_run():
    written, told = [], []

    def job(i):
        if i == 3:
            raise ValueError("no")
        written.append(i)

    with WriteBehind(2, 2, lambda error, which: told.append((str(error), which))) as writer:
        for i in range(6):
            writer.add(f"job {i}", job, i)
    assert told == [("no", "job 3")]
    assert sorted(written) == [0, 1, 2, 4, 5]
