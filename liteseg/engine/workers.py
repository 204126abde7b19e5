"""Worker processes that load data for a trainer: they end with it and leave nothing behind.

Paddle's workers survive a trainer that was killed (they hang on a pipe that nobody reads), and what
they had put into the shared memory stays there until the next boot.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any

import cv2
import paddle

from liteseg.errors import UserError
from liteseg.utils.runtime import end_with_parent

# Both are fixed by Paddle: the batches a worker keeps ready, and where it keeps them.
_PREFETCH = 2
_SHARED_MEMORY = Path("/dev/shm")


def worker_setup() -> Callable[[int], None]:
    """The `worker_init_fn` of loaders created in this process (and thread)."""
    return functools.partial(_set_up, os.getpid())


def _set_up(trainer: int, worker_id: int) -> None:
    """Use one core (OpenCV's own threads would only compete), and end with the trainer.

    In a process group of its own a worker does not receive the Ctrl-C or SIGTERM after which the
    trainer writes a checkpoint and stops: until then the trainer needs its workers.
    """
    os.setpgid(0, 0)
    cv2.setNumThreads(0)
    with contextlib.suppress(OSError):  # no such folder on macOS, or it is full
        marker = _marker(str(trainer), str(os.getpid()))
        marker.touch()
        Finalize(None, marker.unlink, kwargs={"missing_ok": True}, exitpriority=0)
    signal.signal(signal.SIGTERM, _end)
    end_with_parent(trainer, signal.SIGTERM)


def _end(*signal_and_frame: Any) -> None:
    """Exit with nothing left in the shared memory: the process that would read it is gone."""
    _clear(str(os.getpid()))
    os._exit(0)


def _marker(trainer: str, worker: str) -> Path:
    """An empty file that records which trainer the files of process `worker` belong to."""
    # The number of the process namespace separates containers that share the memory.
    namespace = os.stat("/proc/self/ns/pid").st_ino
    return _SHARED_MEMORY / f"liteseg_{namespace}_{trainer}_{worker}"


def _clear(worker: str) -> None:
    """Remove the worker's files, then its marker."""
    for pattern in (f"paddle_{worker}_*", _marker("*", worker).name):
        for path in _SHARED_MEMORY.glob(pattern):
            with contextlib.suppress(OSError):
                path.unlink()


def clear_shared_memory() -> None:
    """Remove the files of workers that were killed together with their trainer.

    Only files that a worker of liteseg has marked are removed, and only if both have ended.
    """
    with contextlib.suppress(OSError):  # not on Linux
        for marker in _SHARED_MEMORY.glob(_marker("*", "*").name):
            trainer, worker = marker.name.split("_")[2:]
            ended = not (_is_alive(trainer) or _is_alive(worker))
            if ended and marker.stat().st_uid == os.getuid():
                _clear(worker)


def _is_alive(process: str) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def shared_memory_fits(num_workers: int, batch_size: int, sample_bytes: int) -> bool:
    """Whether the batches that workers keep ready fit the shared memory (64 MB in a container)."""
    try:
        free = shutil.disk_usage(_SHARED_MEMORY).free
    except OSError:
        return False
    # Besides the prefetched batches, one is being made and one is in use.
    return free > (_PREFETCH * num_workers + 2) * batch_size * sample_bytes


def batches_of(loader: paddle.io.DataLoader) -> Iterator[Any]:
    """The batches of `loader`.

    Raises:
        UserError: a worker process was killed, or raised something other than a `UserError`.
    """
    batches = iter(loader)
    if loader.num_workers and threading.current_thread() is threading.main_thread():
        # With Paddle's handler, the death of a worker raises in the middle of anything, such as
        # an update of the weights. Without it the loader raises when the next batch is requested.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield from batches
    except SystemError as error:
        raise UserError(
            "a worker process that loads the data was killed (out of memory?) or failed; its "
            "output is above. Try a smaller num_workers or batch_size"
        ) from error
    finally:
        # If the loader is not exhausted, its thread keeps it, and the workers, alive.
        pids = [str(process.pid) for process in getattr(batches, "_workers", ())]
        batches._try_shutdown_all()  # type: ignore[attr-defined]
        for pid in pids:  # a worker's second thread may write after the worker has cleaned up
            if not _is_alive(pid):
                _clear(pid)
