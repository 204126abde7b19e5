"""This process: its rank among the training processes, its cores and memory.

Ranks come from the environment set by the launcher, so they are known before Paddle is imported.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import resource
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional, TypeVar

from liteseg.errors import UserError

if TYPE_CHECKING:  # `liteseg doctor` works without these
    import numpy as np
    from paddle import Tensor

Value = TypeVar("Value")

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


def local_size() -> int:
    """The number of training processes on this machine."""
    return int(os.environ.get("PADDLE_LOCAL_SIZE", world_size()))


def local_rank() -> int:
    """The index of this training process among those of this machine."""
    return int(os.environ.get("PADDLE_LOCAL_RANK", rank()))


def node_count() -> int:
    """The number of machines (nodes of Paddle's launcher) that the training processes run on."""
    return int(os.environ.get("PADDLE_NNODES", "1"))


def host_and_rank() -> str:
    """This process among those of several machines, for messages and logs."""
    return f"{socket.gethostname()}, rank {rank()}"


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


def from_main(produce: Callable[[], Value]) -> Value:
    """The value of `produce()`, which only the main process calls, in every process.

    The value must be picklable. Its arrays are sent one after another, so the memory is that of the
    value and of one array more.

    Raises:
        UserError: raised by `produce`; in every process.
    """
    if world_size() == 1:
        return produce()
    error: Optional[UserError] = None
    outcome: Any = None
    buffers: list[pickle.PickleBuffer] = []
    if is_main():
        try:
            outcome = produce(), None
        except UserError as raised:
            outcome, error = (None, str(raised)), raised
        head = pickle.dumps(outcome, protocol=5, buffer_callback=buffers.append)
        _send([head, *(buffer.raw() for buffer in buffers)])
    else:
        head, *received = _receive()
        outcome = pickle.loads(head, buffers=received)
        error = outcome[1] and UserError(outcome[1])
    if error:
        raise error
    return outcome[0]


def _send(parts: list[Any]) -> None:
    import numpy as np

    arrays = [np.frombuffer(part, np.uint8) for part in parts]
    sizes = np.array([len(array) for array in arrays], np.int64)
    _broadcast(np.array([len(sizes)], np.int64))
    _broadcast(sizes)
    for array in arrays:
        _broadcast(array)


def _receive() -> list[Any]:
    import numpy as np

    (count,) = _broadcast(np.zeros(1, np.int64))
    sizes = _broadcast(np.zeros(count, np.int64))
    return [_broadcast(np.zeros(size, np.uint8)).data for size in sizes]


def _broadcast(array: np.ndarray) -> np.ndarray:
    """The array (n,) of the main process, with as many elements of its type in each process."""
    import paddle

    if not len(array):
        return array
    tensor = paddle.to_tensor(array)
    paddle.distributed.broadcast(tensor, 0)
    return tensor.numpy()


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
