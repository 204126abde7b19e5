"""Training in several processes: starts them, watches them, ends them together."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from liteseg.errors import UserError

_GRACE = 10  # seconds that the others have to end by themselves when one has failed
_POLL = 0.2  # seconds
_LOST = (1, -signal.SIGABRT)  # how Paddle ends a process that lost another: exception or abort
_LINES = 20  # of the log of the one that failed


def on_gpus(cfg: Any, devices: int) -> bool:
    """Whether the processes train on GPUs; refuses more processes than GPUs.

    Raises:
        UserError: there are fewer GPUs than processes.
    """
    from liteseg.utils.runtime import gpu_count

    gpus = 0 if cfg.device == "cpu" else gpu_count()
    if gpus and devices > gpus:
        raise UserError(
            f"--devices: {devices} processes need as many GPUs, and Paddle sees {gpus}; give at "
            f"most {gpus}, or --set device=cpu"
        )
    return gpus > 0


def launch(argv: Sequence[str], devices: int, folder: Path, gpu: bool) -> int:
    """Run `liteseg *argv` in `devices` processes of this machine, one on each GPU or all on CPU.

    The first has this console, the others write to `<folder>/rank_<n>.log`. SIGTERM and Ctrl-C are
    passed on to all of them (`StopOnSignal` makes them stop after the same step). When one fails,
    its last lines are printed and the others end within `_GRACE` seconds and a little.

    Returns:
        0 when all ended well, also after a signal; 2 if the first that failed did so by a user
        error; 128 + its number if a signal ended them; 1 otherwise.
    """
    folder.mkdir(exist_ok=True)
    endpoints = _free_endpoints(devices + 1)
    processes: list[subprocess.Popen] = []
    with _signals_passed_on(processes) as passed_on:
        for rank in range(devices):
            environment = _environment(rank, endpoints[0], endpoints[1:], gpu)
            processes.append(_start(argv, rank, folder, environment))
        failed = _wait(processes)
    if failed is None:
        return 0
    if passed_on:
        return 128 + passed_on[-1]  # they were stopped before they could train, or twice
    print(_report(failed, processes, folder), file=sys.stderr)
    return 2 if processes[failed].returncode == 2 else 1


def _environment(rank: int, master: str, endpoints: list[str], gpu: bool) -> dict[str, str]:
    """What Paddle's own launcher tells a process, which `init_parallel_env` reads."""
    package = Path(__file__).resolve().parents[1]
    place = {"FLAGS_selected_gpus": str(rank)} if gpu else {"PADDLE_DISTRI_BACKEND": "gloo"}
    return {
        **os.environ,
        # The module is started by its name, which must be found from any folder.
        "PYTHONPATH": os.pathsep.join([str(package.parent), os.environ.get("PYTHONPATH", "")]),
        "PADDLE_MASTER": master,
        "PADDLE_TRAINER_ID": str(rank),
        "PADDLE_TRAINERS_NUM": str(len(endpoints)),
        "PADDLE_TRAINER_ENDPOINTS": ",".join(endpoints),
        "PADDLE_CURRENT_ENDPOINT": endpoints[rank],
        "LITESEG_LAUNCHER": str(os.getpid()),
        **place,
    }


def _start(argv: Sequence[str], rank: int, folder: Path, env: dict[str, str]) -> subprocess.Popen:
    command = [sys.executable, "-m", "liteseg", *argv]
    # In sessions of their own they get a Ctrl-C once: from here.
    options: dict[str, Any] = {"env": env, "stdin": subprocess.DEVNULL, "start_new_session": True}
    if rank == 0:
        return subprocess.Popen(command, **options)
    with open(_log(folder, rank), "w") as log:
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, **options)


def _log(folder: Path, rank: int) -> Path:
    return folder / f"rank_{rank}.log"


def _free_endpoints(count: int) -> list[str]:
    """Addresses of this machine that nobody listens at."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]


@contextlib.contextmanager
def _signals_passed_on(processes: list[subprocess.Popen]) -> Iterator[list[int]]:
    """Inside, SIGINT and SIGTERM go to the processes; yields the numbers of those that came."""
    came: list[int] = []

    def pass_on(number: int, frame: Any) -> None:
        came.append(number)
        for process in processes:
            if process.poll() is None:
                process.send_signal(number)

    before = {n: signal.signal(n, pass_on) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(processes: list[subprocess.Popen]) -> int | None:
    """Wait until all have ended; the rank of the first that failed, or None."""
    while not (failed := [p for p in processes if p.poll()]):
        if all(process.poll() == 0 for process in processes):
            return None
        time.sleep(_POLL)
    # Whom one that dies takes with it is not to blame: they lose their connection to it.
    codes = [process.returncode for process in failed]
    first = failed[min(range(len(failed)), key=lambda i: (codes[i] in _LOST, codes[i] != 2))]
    deadline = time.monotonic() + _GRACE
    while time.monotonic() < deadline and any(process.poll() is None for process in processes):
        time.sleep(_POLL)
    for process in processes:
        if process.poll() is None:  # it waits for the one that failed, deaf to SIGTERM
            process.kill()
        process.wait()
    return processes.index(first)


def _report(rank: int, processes: list[subprocess.Popen], folder: Path) -> str:
    code = processes[rank].returncode
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    told = f"process {rank} of {len(processes)} {how}, so the others were stopped"
    if rank:
        log = _log(folder, rank)
        lines = log.read_text(errors="replace").splitlines()[-_LINES:]
        told += "\n  ".join([f"; its last lines (of {log}) were", *lines])
    return f"{told}\nGo on from the last checkpoint with --resume, on any number of --devices."
