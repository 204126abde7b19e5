"""This process: its rank among the training processes, its cores and memory.

Ranks come from the environment set by the launcher, so they are known before Paddle is imported.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # `liteseg doctor` works without these
    import numpy as np
    from paddle import Tensor

DEVICES = ("auto", "cpu", "gpu")  # values of `device` in a config
_STATUS = Path("/proc/self/status")
_PR_SET_PDEATHSIG = 1  # prctl(2)
_CGROUP_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")


def end_with_parent(parent: int, number: signal.Signals) -> None:
    """Receive the signal `number` when the parent process `parent` has ended (on Linux).

    It is also sent at the end of the parent's thread that started this process.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:
            os.kill(os.getpid(), number)


def rank() -> int:
    """The index of this training process, 0 without others."""
    return int(os.environ.get("PADDLE_TRAINER_ID", "0"))


def world_size() -> int:
    """The number of training processes."""
    return int(os.environ.get("PADDLE_TRAINERS_NUM", "1"))


def gathered(tensor: Tensor) -> np.ndarray:
    """The tensors (...) of all processes, which must have the same shape, as (processes, ...)."""
    if world_size() == 1:
        return tensor.numpy()[None]
    import numpy as np
    import paddle

    tensors: list[Tensor] = []
    paddle.distributed.all_gather(tensors, tensor)
    return np.stack([one.numpy() for one in tensors])


def gathered_objects(value: Any) -> list[Any]:
    """The picklable `value` of every process, in rank order."""
    if world_size() == 1:
        return [value]
    import paddle

    values: list[Any] = []
    paddle.distributed.all_gather_object(values, value)
    return values


def is_main() -> bool:
    """Whether this process is the one that writes files and logs."""
    return rank() == 0


def cpu_threads() -> int:
    """The number of CPU cores this process may use, at least 1.

    It respects CPU pinning (taskset) and the quota of a container.
    """
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        cores = os.cpu_count() or 1
    try:
        quota, period = _CGROUP_CPU_MAX.read_text().split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))


def peak_memory() -> int:
    """The peak memory of this process in bytes: of its GPU if it uses one, else of main memory."""
    import paddle

    if paddle.get_device() != "cpu":
        return int(paddle.device.cuda.max_memory_allocated())
    try:
        status = _STATUS.read_text()
    except OSError:  # not Linux; getrusage starts at the peak of the parent process
        unit = 1 if sys.platform == "darwin" else 1024
        return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])
