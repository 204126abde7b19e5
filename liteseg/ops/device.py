"""The device of this process and its settings."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import logging
import os
import random
import re
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any, Optional

import numpy as np
import paddle

from liteseg.errors import UserError
from liteseg.utils import nvidia
from liteseg.utils.runtime import DEVICES, cpu_threads, is_main, local_size

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # options of mallopt(3), from malloc.h
# Paddle raises MemoryError; cuDNN and cuBLAS report their own workspaces.
_OUT_OF_MEMORY = re.compile("ResourceExhausted|out of memory|ALLOC_FAILED", re.IGNORECASE)
_portable: ContextVar[bool] = ContextVar("portable", default=False)


def is_eager_cpu(x: paddle.Tensor) -> bool:
    """Whether `x` is a float32 tensor on a CPU, outside of graphs and `portable_operators`."""
    eager = paddle.in_dynamic_mode() and not _portable.get()
    return eager and x.place.is_cpu_place() and x.dtype == paddle.float32


@contextlib.contextmanager
def portable_operators() -> Iterator[None]:
    """Use the same operators on a CPU as on a GPU, in this thread and block."""
    token = _portable.set(True)
    try:
        yield
    finally:
        _portable.reset(token)


def select_device(name: str = "auto") -> str:
    """Make `name` Paddle's current device.

    "auto" is a GPU if Paddle can use one. With several processes, each uses the GPU that the
    launcher assigned to it.

    Returns:
        "cpu" or "gpu".

    Raises:
        UserError: an unknown name, or "gpu" without a usable GPU.
    """
    if name not in DEVICES:
        raise UserError(f"device: {name!r} is unknown; expected one of {', '.join(DEVICES)}")
    gpus = gpu_count()
    if name == "gpu" and not paddle.is_compiled_with_cuda():
        found = nvidia.read_gpus()
        command = nvidia.install_command(found) if found else "install paddlepaddle-gpu"
        raise UserError(
            f"device: 'gpu' was requested, but the installed Paddle {paddle.__version__} is the "
            f"CPU build; use device: cpu, or {command}"
        )
    if name == "gpu" and gpus == 0:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        cause = "" if visible is None else f" (CUDA_VISIBLE_DEVICES is {visible!r})"
        raise UserError(
            f"device: 'gpu' was requested, but Paddle sees 0 GPUs{cause}; check that `nvidia-smi` "
            "lists one and that its driver is new enough for this Paddle, or use device: cpu"
        )
    device = "gpu" if gpus and name != "cpu" else "cpu"
    paddle.set_device(device)
    if device == "cpu":
        configure_cpu()
        if name == "auto" and is_main() and not paddle.is_compiled_with_cuda():
            _warn_cpu_build()
        if paddle.is_compiled_with_cuda() and not gpus:
            _skip_cudnn_lookup()
            if name == "auto" and is_main():
                _warn_no_gpu()
    return device


def gpu_count() -> int:
    """The number of GPUs that Paddle can use."""
    return paddle.device.cuda.device_count() if paddle.is_compiled_with_cuda() else 0


def configure_cpu() -> None:
    """Use all cores for matrix products and keep freed memory in the process.

    Paddle sets OMP_NUM_THREADS to 1 when it is imported, which leaves all cores but one idle.
    """
    paddle.base.core.set_num_threads(operator_threads())
    _keep_freed_memory()


@functools.cache
def configure_cpu_once() -> None:
    """`configure_cpu` for a program that never calls `select_device`."""
    configure_cpu()


def operator_threads() -> int:
    """Threads of one CPU operator: `OMP_NUM_THREADS`, else this process's share of the cores."""
    requested = os.environ.get("OMP_NUM_THREADS", "")
    if requested.isdigit() and int(requested) > 1:  # 1 is Paddle's own default
        return int(requested)
    return max(1, cpu_threads() // local_size())


def _keep_freed_memory() -> None:
    """Make malloc reuse freed blocks instead of returning them to the system.

    By default every large tensor is mapped anew, at a page fault per 4 KB: an element-wise operator
    takes eight times as long, the evaluation of a Cityscapes image 1.7 times. The peak is the same.
    """
    with contextlib.suppress(OSError, AttributeError):  # not glibc
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def _skip_cudnn_lookup() -> None:
    """Record that there is no cuDNN, or the first convolution prints ten lines about it."""
    state = paddle.device.get_cudnn_version.__globals__
    if state.get("_cudnn_version", 0) is None:
        state["_cudnn_version"] = -1  # Paddle's own value for "not found"


@functools.cache
def _warn_no_gpu() -> None:
    logging.getLogger(__name__).warning(
        "no GPU: this Paddle is built for GPUs and sees none, so it computes on the CPU "
        "(run `liteseg doctor` for the reason)"
    )


def require_amp(dtype: str) -> None:
    """Check that the current GPU trains in `dtype`; Paddle would silently use float32.

    Raises:
        UserError: it does not.
    """
    is_supported, needed, instead = {
        "bfloat16": (paddle.amp.is_bfloat16_supported, (8, 0), "float16 or amp: false"),
        # Paddle's function accepts 5.3, its `auto_cast` only GPUs with tensor cores.
        "float16": (paddle.amp.is_float16_supported, (7, 0), "amp: false"),
    }[dtype]
    capability = tuple(paddle.device.cuda.get_device_capability())
    if not is_supported() or capability < needed:
        raise UserError(
            f"amp.dtype: {dtype} needs compute capability {needed[0]}.{needed[1]}, and "
            f"{paddle.device.cuda.get_device_name()} has {capability[0]}.{capability[1]}; use "
            f"{instead}"
        )


def precision(device: str, amp: Optional[Mapping[str, Any]]) -> str:
    """The precision of a training on `device` ("cpu" or "gpu"), for the log."""
    if amp:
        return f"amp {amp['level']} in {amp['dtype']}; weights and losses in float32"
    return "float32" + " (TF32 inside cuDNN and cuBLAS where the GPU has it)" * (device == "gpu")


def search_cudnn_algorithms() -> None:
    """Let cuDNN time its algorithms for each new shape; costs seconds per shape, once."""
    paddle.set_flags({"FLAGS_cudnn_exhaustive_search": True})


@contextlib.contextmanager
def explained_out_of_memory(advice: Callable[[], str]) -> Iterator[None]:
    """Raise a UserError with `advice` where the block exhausts the device's memory."""
    try:
        yield
    except (MemoryError, OSError, RuntimeError, SystemError) as error:
        text = str(error)
        if not isinstance(error, MemoryError) and not _OUT_OF_MEMORY.search(text):
            raise
        wanted = re.search(r"allocate ([\d.]+\s*[KMGT]?i?B)", text)
        what = f" (allocating {wanted[1]})" if wanted else ""
        raise UserError(f"out of memory on the {paddle.get_device()}{what}: {advice()}") from error


@functools.cache
def _warn_cpu_build() -> None:
    gpus = nvidia.read_gpus() if nvidia.has_driver() else ()
    if gpus:
        logging.getLogger(__name__).warning(
            f"computing on the CPU: this Paddle is the CPU build, and the machine has {gpus[0]}. "
            f"To use it: {nvidia.install_command(gpus)}  (device: cpu turns this warning off)"
        )


def seed_everything(seed: int) -> None:
    """Seed the global generators of Python, numpy and Paddle."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    paddle.seed(seed)


def make_deterministic(device: str) -> str:
    """Make two runs with the same seed bit-identical, as far as Paddle can.

    Call it before the first operation on the device ("cpu" or "gpu").

    Returns:
        A sentence about its cost, for the log.
    """
    if device == "cpu":
        return (
            "deterministic: costs nothing on CPU, where the operators of PP-LiteSeg always are; "
            "the same bits need the same number of threads and processes"
        )
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    paddle.set_flags({"FLAGS_cudnn_deterministic": True, "FLAGS_cudnn_exhaustive_search": False})
    return (
        "deterministic: cuDNN and cuBLAS use algorithms with a fixed order, which are slower and "
        "not auto-tuned. The gradient of Paddle's bilinear upsampling adds in any order and has no "
        "such switch: on GPU, the last bits may still differ"
    )
