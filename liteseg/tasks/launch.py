"""Tasks in several processes: start them on this machine, watch them, stop them together.

Paddle's launcher starts those of several machines; `nodes.py` lists what it would lose here.

python -m liteseg.tasks.launch FOLDER      one process; FOLDER contains the pickled call
"""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import re
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Callable, NoReturn, Optional, TypeVar

from liteseg.config.plugins import plugin_location
from liteseg.errors import UserError
from liteseg.utils.logging import console_options, get_logger, setup_logging
from liteseg.utils.runtime import end_with_parent, is_main, world_size
from liteseg.utils.text import safe

Result = TypeVar("Result")

_GRACE = 10  # seconds in which the others may end by themselves after one has failed
_POLL = 0.2  # seconds
_LOST_PEER = (1, -signal.SIGABRT)  # exit codes of Paddle after a lost connection
_CONNECTION = re.compile("gloo|nccl|connection", re.IGNORECASE)
_BUG = 3  # exit code after another exception
_LOG_LINES = 20  # of the failed process, in the error
_LAUNCHER = "LITESEG_LAUNCHER"  # environment variable with the process id of the launcher
_CALL, _RESULT = "call.pickle", "result.pickle"


class ProcessFailed(Exception):
    """A process was killed or ended with an error that is not a user error."""


def launch(
    task: Callable[..., Result],
    arguments: Mapping[str, Any],
    *,
    devices: int,
    device: str,
    logs: Path,
    name: str,
    advice: Callable[[], str] = str,
) -> Result:
    """Call `task(**arguments)` in several processes, one on each GPU or all on the CPU.

    The first process shares this console, the others write to `<logs>/rank_<n>.log`. SIGTERM and
    Ctrl-C are passed on to all of them. When one fails, the others are stopped within `_GRACE`
    seconds.

    Args:
        task: a function of a module; called with the same arguments in every process.
        arguments: must be picklable.
        devices: number of processes.
        device: the `device` of the config: auto, cpu or gpu.
        logs: folder of the logs.
        name: the command, for messages.
        advice: returns a sentence to add to the report of a failure.

    Returns:
        The result of the first process.

    Raises:
        UserError: there are fewer GPUs than processes, or a process reported a user error.
        ProcessFailed: a process failed otherwise.
        SystemExit: a signal ended the processes before they could finish.
    """
    gpu = _use_gpus(devices, device)
    logs.mkdir(parents=True, exist_ok=True)
    endpoints = _free_endpoints(devices + 1)
    processes: list[subprocess.Popen] = []
    with tempfile.TemporaryDirectory(prefix="liteseg-launch-") as exchange:
        call = (task, dict(arguments), console_options(), name)
        Path(exchange, _CALL).write_bytes(pickle.dumps(call))

        def pass_on(number: int) -> None:
            for process in processes:
                if process.poll() is None:
                    process.send_signal(number)

        with signals_passed_on(pass_on) as received:
            for rank in range(devices):
                environment = _environment(rank, endpoints[0], endpoints[1:], gpu)
                processes.append(_start(exchange, rank, logs, environment))
            failed = _wait(processes)
        if failed is None:
            return pickle.loads(Path(exchange, _RESULT).read_bytes())
    if received:
        raise SystemExit(128 + received[-1])
    report = "\n  ".join(filter(None, [_report(failed, processes, logs), advice()]))
    raise (UserError if processes[failed].returncode == 2 else ProcessFailed)(report)


def _run_call(folder: Path) -> int:
    """Run the pickled call in this process and return the exit code."""
    end_with_parent(int(os.environ[_LAUNCHER]), signal.SIGTERM)
    task, arguments, console, name = pickle.loads((folder / _CALL).read_bytes())
    setup_logging(**console)
    try:
        result = task(**arguments)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        message = str(error) if isinstance(error, UserError) else plugin_location(error)
        if message is None:
            traceback.print_exc()
            return _LOST_PEER[0] if _CONNECTION.search(str(error)) else _BUG
        print(f"liteseg {name}: {safe(message)}", file=sys.stderr)
        return 2
    if is_main():
        (folder / _RESULT).write_bytes(pickle.dumps(result))
    return 0


def connect() -> None:
    """Connect this process to the others; on one machine, they are the only ones that can."""
    import paddle

    if paddle.distributed.is_initialized():
        return
    if _LAUNCHER not in os.environ:  # started by Paddle's launcher, which may be killed
        end_with_parent(os.getppid(), signal.SIGTERM)
    with contextlib.redirect_stderr(io.StringIO()):  # a list of Paddle's own flags
        paddle.distributed.init_parallel_env()
    if _LAUNCHER in os.environ and is_main():
        _close_to_others(int(os.environ["PADDLE_MASTER"].rpartition(":")[2]))


def summed_at_the_end(numbers: Sequence[int]) -> list[int]:
    """The sums over all connected processes, once every one has called this; only once.

    Unlike an exchange over gloo, which fails after 30 s, this waits for as long as it takes.
    """
    from paddle.base import core

    store = core.create_or_get_global_tcp_store()
    sums = [f"liteseg/sum{index}" for index in range(len(numbers))]
    for key, number in zip(sums, numbers):
        store.add(key, number)
    store.add("liteseg/arrived", 1)
    while store.add("liteseg/arrived", 0) < world_size():
        time.sleep(_POLL)
    found = [store.add(key, 0) for key in sums]
    store.add("liteseg/left", 1)
    while is_main() and store.add("liteseg/left", 0) < world_size():  # the store is in this process
        time.sleep(_POLL)
    return found


def _close_to_others(port: int) -> None:
    """Let the listening socket at `port` accept connections of this machine only.

    Paddle's store exchanges pickles, listens on all interfaces, and has no option for its address.
    """
    for file in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # closed in the meantime, or no socket
            if not stat.S_ISSOCK(file.stat().st_mode):
                continue
            with socket.socket(fileno=os.dup(int(file.name))) as one:
                listens = one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
                if listens and one.getsockname()[1] == port:
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
                    return
    get_logger().warning(
        f"port {port}, at which the processes find each other, stays open to other machines: this "
        "system does not let liteseg close it; use a firewall"
    )


def end_at_once(code: int) -> NoReturn:
    """End this process after a failure.

    A regular exit frees NCCL's communicator, which waits for the other processes, while they wait
    for this one.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _use_gpus(devices: int, device: str) -> bool:
    from liteseg.ops.device import gpu_count

    gpus = 0 if device == "cpu" else gpu_count()
    if gpus and devices > gpus:
        raise UserError(
            f"--devices: {devices} processes need as many GPUs, and Paddle finds {gpus}; give at "
            f"most {gpus}, or --set device=cpu"
        )
    return gpus > 0


def _environment(rank: int, master: str, endpoints: list[str], gpu: bool) -> dict[str, str]:
    """The variables of Paddle's own launcher, which `init_parallel_env` reads."""
    package = Path(__file__).resolve().parents[1]
    place = {"FLAGS_selected_gpus": str(rank)} if gpu else {"PADDLE_DISTRI_BACKEND": "gloo"}
    return {
        **os.environ,
        # liteseg must be importable from any working folder.
        "PYTHONPATH": os.pathsep.join([str(package.parent), os.environ.get("PYTHONPATH", "")]),
        "PADDLE_MASTER": master,
        "PADDLE_TRAINER_ID": str(rank),
        "PADDLE_TRAINERS_NUM": str(len(endpoints)),
        "PADDLE_LOCAL_RANK": str(rank),
        "PADDLE_LOCAL_SIZE": str(len(endpoints)),
        "PADDLE_NNODES": "1",
        "PADDLE_TRAINER_ENDPOINTS": ",".join(endpoints),
        "PADDLE_CURRENT_ENDPOINT": endpoints[rank],
        # The connections of one machine stay on it.
        **{
            name: os.environ.get(name, "lo")
            for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
        },
        _LAUNCHER: str(os.getpid()),
        **place,
    }


def _start(exchange: str, rank: int, logs: Path, env: dict[str, str]) -> subprocess.Popen:
    command = [sys.executable, "-m", "liteseg.tasks.launch", exchange]
    # A session of its own: Ctrl-C reaches the process once, through this one.
    options: dict[str, Any] = {"env": env, "stdin": subprocess.DEVNULL, "start_new_session": True}
    if rank == 0:
        return subprocess.Popen(command, **options)
    with open(_log(logs, rank), "w") as log:
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, **options)


def _log(logs: Path, rank: int) -> Path:
    return logs / f"rank_{rank}.log"


def _free_endpoints(count: int) -> list[str]:
    """Free addresses of this machine."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]


@contextlib.contextmanager
def signals_passed_on(pass_on: Callable[[int], None]) -> Iterator[list[int]]:
    """Call `pass_on` with each SIGINT and SIGTERM within the block; yields those received."""
    received: list[int] = []

    def handle(number: int, frame: Any) -> None:
        received.append(number)
        pass_on(number)

    before = {n: signal.signal(n, handle) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(processes: Sequence[subprocess.Popen]) -> Optional[int]:
    """Wait until all processes have ended; the rank of the one that failed first, or None."""
    while not (failed := [p for p in processes if p.poll()]):
        if all(process.poll() == 0 for process in processes):
            return None
        time.sleep(_POLL)
    # Peers that lose their connection fail too; report the first failure.
    codes = [process.returncode for process in failed]
    first = failed[min(range(len(failed)), key=lambda i: (codes[i] in _LOST_PEER, codes[i] != 2))]
    deadline = time.monotonic() + _GRACE
    while time.monotonic() < deadline and any(process.poll() is None for process in processes):
        time.sleep(_POLL)
    for process in processes:
        if process.poll() is None:  # it waits for the failed one and ignores SIGTERM
            process.kill()
        process.wait()
    return processes.index(first)


def _report(rank: int, processes: Sequence[subprocess.Popen], logs: Path) -> str:
    code = processes[rank].returncode
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    report = f"process {rank} of {len(processes)} {how}, so the others were stopped"
    if rank:
        log = _log(logs, rank)
        lines = log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
        report += "\n  ".join([f"; its last lines ({log}) are:", *lines])
    return report


if __name__ == "__main__":
    if exit_code := _run_call(Path(sys.argv[1])):
        end_at_once(exit_code)
