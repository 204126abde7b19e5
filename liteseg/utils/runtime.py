"""What this process runs on: device, seeds, rank among the training processes, CPU cores.

Ranks come from the environment that the launcher (`cli/launch.py`) sets, so that they are known
without (and before) importing Paddle.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import logging
import os
import random
import resource
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from liteseg.errors import UserError

if TYPE_CHECKING:  # `liteseg doctor` works without these
    import numpy as np
    from paddle import Tensor

DEVICES = ("auto", "cpu", "gpu")
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # options of mallopt(3), from malloc.h
_STATUS = Path("/proc/self/status")
_PR_SET_PDEATHSIG = 1  # prctl(2)
_CGROUP_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")


def select_device(name: str = "auto") -> str:
    """Make `name` Paddle's current device and return "cpu" or "gpu".

    "auto" takes a GPU if Paddle can use one. Under several processes each takes the GPU that the
    launcher gave it. On CPU the matrix products get all cores, divided among the processes, unless
    OMP_NUM_THREADS says how many.

    Raises:
        UserError: an unknown name, or "gpu" where Paddle has none to use.
    """
    import paddle

    if name not in DEVICES:
        raise UserError(f"device: {name!r} is unknown; expected one of {', '.join(DEVICES)}")
    gpus = gpu_count()
    if name == "gpu" and not paddle.is_compiled_with_cuda():
        raise UserError(
            f"device: 'gpu' was asked for, but the installed Paddle {paddle.__version__} is the "
            "CPU build; install paddlepaddle-gpu "
            "(https://www.paddlepaddle.org.cn/en/install/quick), or use device: cpu"
        )
    if name == "gpu" and gpus == 0:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        cause = "" if visible is None else f" (CUDA_VISIBLE_DEVICES is {visible!r})"
        raise UserError(
            f"device: 'gpu' was asked for, but Paddle sees 0 GPUs{cause}; see that `nvidia-smi` "
            "lists one and that its driver is new enough for this Paddle, or use device: cpu"
        )
    device = "gpu" if gpus and name != "cpu" else "cpu"
    paddle.set_device(device)
    if device == "cpu":
        paddle.base.core.set_num_threads(operator_threads())
        _keep_freed_memory()
        if paddle.is_compiled_with_cuda() and not gpus:
            _keep_from_looking_for_cudnn()
            if name == "auto" and is_main():
                _say_there_is_no_gpu()
    return device


def _keep_from_looking_for_cudnn() -> None:
    """Or the first convolution complains in ten lines that Paddle has found none."""
    import paddle

    notes = paddle.device.get_cudnn_version.__globals__
    if notes.get("_cudnn_version", 0) is None:
        notes["_cudnn_version"] = -1  # what Paddle notes when it has


@functools.cache
def _say_there_is_no_gpu() -> None:
    logging.getLogger(__name__).warning(
        "no GPU: this Paddle is for GPUs and sees none, so it computes on the CPU "
        "(`liteseg doctor` says why)"
    )


def _keep_freed_memory() -> None:
    """Have malloc keep what Paddle frees instead of giving it back to the system.

    On CPU every tensor is malloc'ed. The C library maps blocks of that size anew each time, so each
    operator pays for a page fault every 4 KB of its output: an element-wise one took eight times
    its own time, evaluation of a Cityscapes image at scale 0.5 took 1.1 s instead of 0.65 s. The
    peak of memory is the same; it is held until the process ends.
    """
    with contextlib.suppress(OSError, AttributeError):  # not glibc
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def gpu_count() -> int:
    """The GPUs that Paddle can use here."""
    import paddle

    return paddle.device.cuda.device_count() if paddle.is_compiled_with_cuda() else 0


def seed_everything(seed: int) -> None:
    """Seed the global generators of Python, numpy and Paddle."""
    import numpy as np
    import paddle

    random.seed(seed)
    np.random.seed(seed % 2**32)
    paddle.seed(seed)


def make_deterministic(device: str) -> str:
    """Let two runs from the same seed give the same bits, as far as Paddle can; says what it costs.

    Call it before the first operation on the device ("cpu" or "gpu").
    """
    import paddle

    if device == "cpu":
        return (
            "deterministic: costs nothing on CPU, where the operators of PP-LiteSeg always are; "
            "the same bits need the same number of threads and processes"
        )
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    paddle.set_flags({"FLAGS_cudnn_deterministic": True, "FLAGS_cudnn_exhaustive_search": False})
    return (
        "deterministic: cuDNN and cuBLAS take algorithms of a fixed order, which are slower and "
        "are not searched for the fastest. The gradient of Paddle's bilinear upsampling adds in "
        "any order and has no such switch: on GPU, the last bits may still differ"
    )


def end_with_parent(parent: int, number: signal.Signals) -> None:
    """Get the signal `number` when the process `parent`, this one's parent, has ended (on Linux).

    It also comes at the end of the thread, in the parent, that started this process.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:
            os.kill(os.getpid(), number)


def end_with_launcher() -> None:
    """Get a SIGTERM when the `liteseg train --devices` that started this process is killed."""
    launcher = os.environ.get("LITESEG_LAUNCHER")
    if launcher:
        end_with_parent(int(launcher), signal.SIGTERM)


def rank() -> int:
    """The number of this training process, from 0; 0 when it is alone."""
    return int(os.environ.get("PADDLE_TRAINER_ID", "0"))


def world_size() -> int:
    """How many training processes there are; 1 when this one is alone."""
    return int(os.environ.get("PADDLE_TRAINERS_NUM", "1"))


def gathered(tensor: Tensor) -> np.ndarray:
    """The tensors (...) of all processes, which must agree in shape, as (processes, ...)."""
    if world_size() == 1:
        return tensor.numpy()[None]
    import numpy as np
    import paddle

    tensors: list[Tensor] = []
    paddle.distributed.all_gather(tensors, tensor)
    return np.stack([one.numpy() for one in tensors])


def gathered_objects(value: Any) -> list[Any]:
    """`value`, which can be pickled, of each process, in their order."""
    if world_size() == 1:
        return [value]
    import paddle

    values: list[Any] = []
    paddle.distributed.all_gather_object(values, value)
    return values


def is_main() -> bool:
    """Whether this process is the one that writes files and talks to the user."""
    return rank() == 0


def operator_threads() -> int:
    """Threads of one CPU operator: `OMP_NUM_THREADS`, else this process's share of the cores."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    # Paddle sets it to 1 while it is imported, and so would leave all cores but one idle.
    if asked.isdigit() and int(asked) > 1:
        return int(asked)
    return max(1, cpu_threads() // world_size())


def cpu_threads() -> int:
    """The CPU cores this process may use, at least 1.

    Fewer than the machine has when the process is pinned (taskset) or its container has a quota.
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
    """Most bytes this process had so far: of the GPU if it uses one, else of main memory."""
    import paddle

    if paddle.get_device() != "cpu":
        return int(paddle.device.cuda.max_memory_allocated())
    try:
        status = _STATUS.read_text()
    except OSError:  # getrusage begins with the peak of the parent process, but is everywhere
        unit = 1 if sys.platform == "darwin" else 1024
        return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])
