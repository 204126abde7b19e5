"""A real disk that fills up, turns read-only or reaches a quota during a training."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess

import pytest
from plain_run import last_checkpoint, prepare, start, train


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("disk"))


def mount(*arguments):
    done = subprocess.run(["mount", *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"file systems can't be mounted here: {done.stderr.strip()}")


@pytest.fixture
def disk(tmp_path):
    """A file system of 4 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount("-t", "tmpfs", "-o", "size=4m", "tmpfs", disk)
    yield disk
    subprocess.run(["umount", "--recursive", "--lazy", disk], check=True)


def fill(disk, process):
    """Fill the disk to the last byte."""
    done = subprocess.run(["dd", "if=/dev/zero", f"of={disk}/ballast"], capture_output=True)
    assert b"No space left" in done.stderr
    return (disk / "ballast").unlink


def make_read_only(disk, process):
    """Act like a damaged file system; open files stay writable."""
    checkpoints = disk / "run" / "checkpoints"
    process.send_signal(signal.SIGSTOP)  # mounting is refused while a file is being written
    mount("--bind", checkpoints, checkpoints)
    mount("-o", "remount,ro,bind", checkpoints)
    process.send_signal(signal.SIGCONT)
    return lambda: subprocess.run(["umount", checkpoints], check=True)


def set_quota(disk, process):
    """Let no file grow beyond 100 bytes."""
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (100, 100))
    return lambda: None


def half_written(run):
    return [path.name for path in (run / "checkpoints").glob(".*")]


@pytest.mark.parametrize(
    ("accident", "reason"),
    [
        (fill, os.strerror(errno.ENOSPC)),
        (make_read_only, os.strerror(errno.EROFS)),
        (set_quota, os.strerror(errno.EFBIG)),
    ],
)
def test_training_stops_with_the_reason_and_can_be_resumed(folder, disk, accident, reason):
    run = disk / "run"
    process = start("--config", folder / "plain.yml", "--output", run, iters=100_000)
    undo = accident(disk, process)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2, errors
    assert "Traceback" not in errors
    assert f"{run}/checkpoints/" in errors
    assert reason in errors
    undo()
    if accident is not make_read_only:  # where nothing can be deleted either
        assert half_written(run) == []
    last = last_checkpoint(run)
    done = train("--trust-plugins", "--resume", run, iters=last + 4)
    assert done.returncode == 0, done.stderr
    assert last_checkpoint(run) == last + 4
    assert half_written(run) == []
