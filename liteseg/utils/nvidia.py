"""NVIDIA GPUs of this machine as the driver reports them, and the Paddle package for them.

Works without Paddle: `liteseg doctor` recommends a package before one is installed.
"""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Optional

PADDLE = "3.3.1"  # the newest tested version
_INDEX = "https://www.paddlepaddle.org.cn/packages/stable"
_QUERIES = ("name,driver_version,compute_cap", "name,driver_version")  # the second: before 2022
_ANSWER_WITHIN = 30  # seconds; without its persistence mode a driver takes several


class Gpu(NamedTuple):
    """A GPU, with its compute capability (None: the driver is too old to report it)."""

    name: str
    driver: str
    capability: Optional[tuple[int, int]]

    def __str__(self) -> str:
        known = self.capability and f", compute capability {'.'.join(map(str, self.capability))}"
        return f"{self.name}{known or ''}, driver {self.driver}"


class _Build(NamedTuple):
    """A CUDA build on Paddle's index: the GPUs it has code for, and the oldest driver it runs on.

    The PyPI package (2.6.2) is a cu118 without cuDNN.
    """

    name: str
    lowest: tuple[int, int]
    highest: tuple[int, int]
    driver: int


_BUILDS = (
    _Build("cu126", (6, 1), (9, 0), 525),
    _Build("cu118", (6, 1), (8, 9), 450),
    _Build("cu129", (7, 5), (12, 1), 570),  # Blackwell
)


def has_driver() -> bool:
    """Whether the machine has an NVIDIA driver."""
    return Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None


@functools.cache
def read_gpus() -> tuple[Gpu, ...]:
    """The GPUs that `nvidia-smi` lists; empty if it is missing or fails."""
    for query in _QUERIES:
        command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_ANSWER_WITHIN, check=True
            )
        except (OSError, subprocess.SubprocessError):
            continue
        rows = [line.split(", ") for line in done.stdout.splitlines() if ", " in line]
        if rows:
            return tuple(
                Gpu(name, driver, _pair(capability[0]) if capability else None)
                for name, driver, *capability in rows
            )
    return ()


def _pair(version: str) -> Optional[tuple[int, int]]:
    numbers = re.findall(r"\d+", version)
    return (int(numbers[0]), int(numbers[1])) if len(numbers) > 1 else None


def suitable_build(gpus: Sequence[Gpu]) -> tuple[Optional[str], str]:
    """The CUDA build of Paddle for all of `gpus`, and where there is none, the reason."""
    # A driver that does not report the capability is older than Hopper.
    capabilities = [gpu.capability or (8, 0) for gpu in gpus]
    driver = min(int(re.findall(r"\d+", f"{gpu.driver} 0")[0]) for gpu in gpus)
    for_gpu = [
        b for b in _BUILDS if b.lowest <= min(capabilities) <= max(capabilities) <= b.highest
    ]
    if not for_gpu:
        shown = ", ".join(str(gpu) for gpu in gpus)
        return None, f"no package of Paddle has code for {shown} together; they start at 6.1"
    for build in for_gpu:
        if driver >= build.driver:
            return build.name, ""
    return None, f"update the NVIDIA driver {driver} to {for_gpu[0].driver} or newer"


def install_command(gpus: Sequence[Gpu], *, replace: bool = True) -> str:
    """The command that installs Paddle for `gpus`, or what prevents it.

    Args:
        gpus: at least one.
        replace: remove the installed Paddle first.
    """
    build, reason = suitable_build(gpus)
    if build is None:
        return reason
    pip = f"{sys.executable} -m pip"
    remove = f"{pip} uninstall -y paddlepaddle paddlepaddle-gpu && " if replace else ""
    return f"{remove}{pip} install paddlepaddle-gpu=={PADDLE} -i {_INDEX}/{build}/"


def lacks_code(cuda: str, gpu: Gpu) -> bool:
    """Whether a Paddle built with `cuda`, such as "11.8", has no code for `gpu`."""
    version = _pair(cuda)
    if version is None or gpu.capability is None:
        return False
    newest = (8, 9) if version < (12, 0) else (9, 0) if version < (12, 8) else (99, 0)
    return not (6, 1) <= gpu.capability <= newest
