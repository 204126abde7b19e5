"""Worker processes: nothing of theirs outlives the trainer, nothing of others is touched."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT
from toy_training import ToyImages

from liteseg.engine import workers
from liteseg.engine.loader import TrainingOrder, training_batches

PREFETCH = """
import sys
from toy_training import ToyImages, paddle
from liteseg.engine.loader import TrainingOrder, training_batches
batches = training_batches(ToyImages(), TrainingOrder(8, 2, 1, 0, 0, 10_000), 2)
next(batches)
print("loading", flush=True)
sys.stdin.read()
"""
SHARED_MEMORY = Path("/dev/shm")

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux has /dev/shm and /proc")


@pytest.fixture
def trainer():
    """A process with two workers."""
    paths = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    process = subprocess.Popen(
        [sys.executable, "-c", f"import liteseg\n{PREFETCH}"],
        env={**os.environ, "PYTHONPATH": paths},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"loading\n"
    yield process
    process.kill()
    process.communicate()


def workers_of(process):
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    found = children.split()
    assert len(found) == 2
    return found


def wait_for_the_end_of(pids):
    while any(map(workers._is_alive, pids)):
        time.sleep(0.02)


def left_by(pids):
    return [
        path
        for pid in pids
        for pattern in (f"paddle_{pid}_*", f"liteseg_*_{pid}")
        for path in SHARED_MEMORY.glob(pattern)
    ]


def test_they_end_with_a_trainer_that_is_killed(trainer):
    pids = workers_of(trainer)
    assert left_by(pids)
    trainer.kill()
    trainer.wait()
    wait_for_the_end_of(pids)
    assert left_by(pids) == []


def test_leftovers_are_removed_once_all_have_ended(trainer):
    pids = workers_of(trainer)
    workers.clear_shared_memory()
    assert left_by(pids)  # they are alive
    for pid in [*pids, trainer.pid]:
        os.kill(int(pid), 9)
    trainer.wait()
    wait_for_the_end_of(pids)
    assert left_by(pids)
    other = SHARED_MEMORY / f"paddle_{pids[0]}0_of_another"
    other.touch()
    try:
        workers.clear_shared_memory()
        assert left_by(pids) == []
        assert other.exists()
    finally:
        other.unlink()


@pytest.mark.parametrize("all_of_it", [True, False])
def test_they_end_and_leave_nothing_when_loading_ends(all_of_it):
    before = set(SHARED_MEMORY.glob("liteseg_*"))
    batches = training_batches(ToyImages(), TrainingOrder(8, 2, 1, 0, 0, 8), 2)
    next(batches)
    pids, end = [], time.monotonic() + 60
    while len(pids) < 2 and time.monotonic() < end:  # the first batch may come before worker 2
        markers = set(SHARED_MEMORY.glob(f"liteseg_*_{os.getpid()}_*")) - before
        pids = [marker.name.split("_")[-1] for marker in markers]
    assert len(pids) == 2
    if all_of_it:
        assert len(list(batches)) == 7
    batches.close()
    assert not any(map(workers._is_alive, pids))
    assert left_by(pids) == []
