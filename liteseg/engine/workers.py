"""The processes that read ahead for a trainer: they end with it, and leave nothing behind.

Paddle's outlive a trainer that was killed (they hang on a pipe nobody reads), and what they had put
into the shared memory stays there until the next boot.
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

# Both are set by Paddle: batches a reader keeps ready, and where it keeps them.
_PREFETCH = 2
_SHARED_MEMORY = Path("/dev/shm")


def reader_setup() -> Callable[[int], None]:
    """The `worker_init_fn` of loaders made in this process (and thread)."""
    return functools.partial(_set_up, os.getpid())


def _set_up(trainer: int, worker_id: int) -> None:
    """One core each, so OpenCV's own threads would only compete; and end with the trainer.

    In a process group of its own a reader does not see the Ctrl-C or SIGTERM that tells the trainer
    to write a checkpoint and stop, for which the trainer needs its readers.
    """
    os.setpgid(0, 0)
    cv2.setNumThreads(0)
    with contextlib.suppress(OSError):  # no such place on macOS, or it is full
        marker = _marker(str(trainer), str(os.getpid()))
        marker.touch()
        Finalize(None, marker.unlink, kwargs={"missing_ok": True}, exitpriority=0)
    signal.signal(signal.SIGTERM, _end)
    end_with_parent(trainer, signal.SIGTERM)


def _end(*signal_and_frame: Any) -> None:
    """Leave nothing in the shared memory; whoever would have read it is gone."""
    _clear(str(os.getpid()))
    os._exit(0)


def _marker(trainer: str, reader: str) -> Path:
    """An empty file that says whose the files of process `reader` in the shared memory are."""
    # The number of the process namespace tells containers apart that share the memory.
    namespace = os.stat("/proc/self/ns/pid").st_ino
    return _SHARED_MEMORY / f"liteseg_{namespace}_{trainer}_{reader}"


def _clear(reader: str) -> None:
    """Remove its files, then the marker of them."""
    for pattern in (f"paddle_{reader}_*", _marker("*", reader).name):
        for path in _SHARED_MEMORY.glob(pattern):
            with contextlib.suppress(OSError):
                path.unlink()


def clear_shared_memory() -> None:
    """Remove what readers left that were killed together with their trainer, as a system does.

    Only what a reader of liteseg has marked is touched, and only if both have ended.
    """
    with contextlib.suppress(OSError):  # not on Linux
        for marker in _SHARED_MEMORY.glob(_marker("*", "*").name):
            trainer, reader = marker.name.split("_")[2:]
            if marker.stat().st_uid == os.getuid() and not (_lives(trainer) or _lives(reader)):
                _clear(reader)


def _lives(process: str) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def shared_memory_fits(num_workers: int, batch_size: int, sample_bytes: int) -> bool:
    """Whether the batches that readers keep ready fit the shared memory (64 MB in a container)."""
    try:
        free = shutil.disk_usage(_SHARED_MEMORY).free
    except OSError:
        return False
    # Besides those kept ready, one batch is made and one is used.
    return free > (_PREFETCH * num_workers + 2) * batch_size * sample_bytes


def batches_of(loader: paddle.io.DataLoader) -> Iterator[Any]:
    """What the loader yields.

    Raises:
        UserError: a reader process was killed, or raised something that is no `UserError`.
    """
    batches = iter(loader)
    if loader.num_workers and threading.current_thread() is threading.main_thread():
        # With Paddle's handler, the death of a reader raises in the middle of anything, such as
        # an optimizer step. Without it the loader tells it where the next batch is asked for.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield from batches
    except SystemError as error:
        raise UserError(
            "a process that reads the data was killed (for lack of memory?) or failed; what it "
            "said stands above. Try a smaller num_workers or batch_size"
        ) from error
    finally:
        # Where the loader has more to read, its own thread keeps it, and the readers, alive.
        pids = [str(process.pid) for process in getattr(batches, "_workers", ())]
        batches._try_shutdown_all()
        for pid in pids:  # a reader's second thread may write after it has tidied up
            if not _lives(pid):
                _clear(pid)
