"""Checks of the machine: cores, memory, disk and VisualDL's server."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Optional

from liteseg.doctor.findings import BAD, NOTE, OK, Finding, installed, pip, run_child
from liteseg.doctor.packages import current_set
from liteseg.errors import UserError
from liteseg.utils.files import check_writable
from liteseg.utils.runtime import cpu_threads

_GIB = 2**30
# 8 workers with 2 prefetched batches each, and the batch in use, of 4 Cityscapes images.
_WORKER_MEMORY = (2 * 8 + 2) * 4 * 2048 * 1024 * 4


def check_cpu() -> list[Finding]:
    """Cores this process may use, and settings that keep Paddle from using them."""
    usable, cores = cpu_threads(), os.cpu_count() or 1
    found = f"{usable} of {cores} cores"
    try:
        flags = Path("/proc/cpuinfo").read_text().partition("flags")[2].partition("\n")[0].split()
    except OSError:  # not Linux
        flags = []
    if "sse2" in flags and "avx" not in flags:
        fix = "use a machine or a virtual CPU that has AVX (all since 2011)"
        return [Finding("CPU", BAD, f"{found}; no AVX, which Paddle's wheels need", fix)]
    if kind := os.environ.get("MKL_DEBUG_CPU_TYPE"):
        found += f"; MKL_DEBUG_CPU_TYPE={kind}, for MKL's vector code on AMD"
    threads = os.environ.get("OMP_NUM_THREADS", "1")
    if threads.isdecimal() and 1 < int(threads) < usable:
        found += f"; OMP_NUM_THREADS={threads}"
        return [Finding("CPU", NOTE, found, "unset OMP_NUM_THREADS")]
    return [Finding("CPU", OK, found)]


def check_memory() -> list[Finding]:
    """Free memory, within the container's limit if there is one."""
    free = _free_memory()
    if free is None:
        return [Finding("memory", OK, "unknown")]
    found = f"{free / _GIB:.1f} GiB free"
    if free < 2 * _GIB:
        return [Finding("memory", NOTE, found, "use a smaller batch_size (and total_batch_size)")]
    return [Finding("memory", OK, found)]


def _free_memory() -> Optional[int]:
    try:
        meminfo = Path("/proc/meminfo").read_text()
    except OSError:  # not Linux
        return None
    free = int(meminfo.partition("MemAvailable:")[2].split()[0]) * 1024
    with contextlib.suppress(OSError, ValueError):  # ValueError: "max" means no limit
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text())
        free = min(free, limit - int((group / "memory.current").read_text()))
    return free


def check_shared_memory(folder: Path = Path("/dev/shm")) -> list[Finding]:
    """Shared memory for the batches that worker processes pass on."""
    try:
        free = shutil.disk_usage(folder).free
    except OSError:  # not Linux
        return []
    found = f"{free / _GIB:.2f} GiB free"
    if free >= _WORKER_MEMORY:
        return [Finding(str(folder), OK, found)]
    fix = f"docker run --shm-size=2g, or mount -o remount,size=2g {folder}"
    return [Finding(str(folder), NOTE, f"{found}: batches go through slower pipes", fix)]


def check_disk(output: Path) -> list[Finding]:
    """Whether runs can be written below `output`; leaves no file or folder behind."""
    folder = output.expanduser().absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        check_writable(folder)
        free = shutil.disk_usage(folder).free
    except (UserError, OSError) as error:
        return [Finding("output", BAD, str(error), "give the commands another --output")]
    found = f"{output} can be written; {free / _GIB:.0f} GiB free"
    if free < _GIB:
        return [Finding("output", NOTE, found, "free some space: a run needs a few hundred MiB")]
    return [Finding("output", OK, found)]


_SERVE = """
import os, socket, sys, threading, time, urllib.request
from visualdl import LogWriter
from visualdl.server.app import main
folder = sys.argv[1]
with LogWriter(folder) as writer:
    writer.add_scalar("doctor/works", 1.0, 0)
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    host, port = free.getsockname()
sys.argv = ["visualdl", "--logdir", folder, "--host", host, "--port", str(port),
            "--disable-telemetry"]
def query():
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # the server is local
    answer = b""
    while b"doctor/works" not in answer:
        time.sleep(0.1)
        try:
            answer = opener.open(f"http://{host}:{port}/app/api/scalar/tags", timeout=5).read()
        except OSError:  # not ready
            pass
    os._exit(0)
threading.Thread(target=query, daemon=True).start()
main()
sys.exit("the server stopped")
"""


def check_dashboard(seconds: float = 60) -> list[Finding]:
    """Write a curve with VisualDL, start its server on a free port and request the curve.

    Args:
        seconds: timeout for the answer.
    """
    if not installed(["visualdl"]):
        return [Finding("VisualDL", NOTE, "not installed: training works without a dashboard")]
    begin, tested = time.monotonic(), current_set()
    with tempfile.TemporaryDirectory() as folder:
        problem = run_child(_SERVE, folder, timeout=seconds).problem
    if problem is None:
        took = time.monotonic() - begin
        return [Finding("VisualDL", OK, f"the server answered after {took:.1f} s")]
    fix = pip(f"visualdl=={tested.pins['visualdl']}", constraints=tested.path)
    return [Finding("VisualDL", NOTE, f"the server fails: {problem}", fix)]
