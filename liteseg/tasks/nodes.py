"""Training on several machines: Paddle's launcher on each.

On one machine liteseg starts the processes itself (`launch.py`), because Paddle's launcher

- kills them 30 s after SIGTERM or Ctrl-C, even if they still write a checkpoint;
- shows the output of the first process, which is "connection lost" if another one failed, and ends
  with the exit code of that;
- leaves them running when it is killed itself;
- sends their output through a file, so that there are no progress bars;
- writes all variables of the environment, passwords included, into files that all may read, and
  leaves the port of Paddle's store, which exchanges pickles, open to other machines;
- starts 3 s later and occupies 300 MB.

Around it here, the connections of `meeting.py`, signals sent past it, and private folders make up
for this, except for the progress bars and the open ports, which other machines need.

python -m liteseg.tasks.nodes ADDRESS PARENT ...      Paddle's launcher with its options
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import logging
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn, Optional

from liteseg.errors import UserError
from liteseg.tasks.launch import ProcessFailed, signals_passed_on
from liteseg.tasks.meeting import ANSWER_WITHIN, POLL, Failure, Group, Nodes, meet
from liteseg.utils.files import check_writable
from liteseg.utils.logging import get_logger
from liteseg.utils.runtime import end_with_parent
from liteseg.utils.text import safe

_GRACE = 40.0  # seconds to wait for the error of another node, after a connection to it was lost
_LOG_LINES = 20  # of the failed process, in the error
_CONNECTION = re.compile("gloo::|nccl|connection", re.IGNORECASE)
_USER_ERROR = re.compile(r"^liteseg \w+: (.*)", re.MULTILINE | re.DOTALL)
_SIOCGIFADDR = 0x8915  # ioctl of netdevice(7): the address of a network interface


def run_on_nodes(command: Sequence[str], nodes: Nodes, logs: Path) -> None:
    """Run `liteseg COMMAND` in the processes of this node, together with those of the others.

    All processes write to `logs/HOST.NODE/workerlog.N`, the first one also to this console. SIGTERM
    and Ctrl-C are passed on to them. After a failure of any node all nodes stop, and start again
    with `--resume auto` if restarts are left.

    Raises:
        UserError: `logs` cannot be written, the nodes do not find each other or do not fit
            together, or a process reported a user error, on any node.
        ProcessFailed: a process of any node failed otherwise.
        SystemExit: a signal ended the processes.
    """
    host = socket.gethostname()
    check_writable(logs)
    if nodes.master.startswith("etcd://"):
        _run_elastic(command, nodes, logs / host)
        return
    if not nodes.count.isdecimal() or not int(nodes.count):
        if ":" not in nodes.count:
            raise UserError(f"--nodes {nodes.count}: not a number of machines; give 1 or more")
        raise UserError(
            f"--nodes {nodes.count}: needs etcd to count the nodes, and --master is "
            f"{nodes.master}; give --master etcd://HOST:PORT, or a fixed number of --nodes"
        )
    for restart in range(nodes.max_restarts + 1):
        group = meet(nodes)
        try:
            failure = _run(command, nodes, group, logs / f"{host}.{group.rank}")
        finally:
            group.close()
        if failure is None:
            return
        if failure.code == 2 or restart == nodes.max_restarts:
            raise (UserError if failure.code == 2 else ProcessFailed)(failure.report)
        get_logger().warning(f"{failure.report}\nrestart {restart + 1} of {nodes.max_restarts}")
        command = [*command, "--resume", "auto", "--output", str(logs.parent)]


def _run(command: Sequence[str], nodes: Nodes, group: Group, logs: Path) -> Optional[Failure]:
    """Run Paddle's launcher until all is done (None) or a node fails, and stop it then."""
    options = ["--nnodes", nodes.count, "--master", group.master, "--rank", str(group.rank)]
    with _launcher(command, nodes, group.address, options, logs) as (process, received):
        failure: Optional[Failure] = None
        while failure is None and process.poll() is None:
            failure = group.receive(POLL)
        if failure is not None:  # mostly these processes lose their connection and end, too
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(ANSWER_WITHIN)
        elif process.returncode:
            failure = _failure(process.returncode, logs)
            if failure is None:  # a connection was lost: another node reports the reason
                deadline = time.monotonic() + _GRACE
                while failure is None and time.monotonic() < deadline and group.peers:
                    failure = group.receive(POLL)
                failure = failure or Failure(1, _last_lines(logs))
            else:
                group.send(failure)
        if failure is None:
            group.send(Failure(0, ""))
    if received and process.returncode:
        raise SystemExit(128 + received[-1])
    return failure


def _run_elastic(command: Sequence[str], nodes: Nodes, logs: Path) -> None:
    """Run Paddle's elastic launcher, which finds the nodes and restarts them by itself."""
    if importlib.util.find_spec("etcd3") is None:
        raise UserError(
            f"--master {nodes.master}: Paddle needs etcd3 for it; run  pip install etcd3"
        )
    # The code that etcd3 has for protobuf is older than the fast implementation admits.
    os.environ.setdefault("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", "python")
    options = ["--nnodes", nodes.count, "--master", nodes.master, "--job_id", logs.parents[1].name]
    options += ["--max_restart", str(nodes.max_restarts), "--elastic_level", "1"]
    options += ["--elastic_timeout", f"{nodes.wait:.0f}"]
    host, _, port = nodes.master[len("etcd://") :].partition(":")
    try:
        with socket.create_connection((host, int(port or 2379)), ANSWER_WITHIN) as peer:
            address = peer.getsockname()[0]
    except (OSError, ValueError) as error:
        raise UserError(f"--master {nodes.master}: cannot be reached: {error}") from None
    command = [*command, "--resume", "auto", "--output", str(logs.parents[1])]
    with _launcher(command, nodes, address, options, logs) as (process, received):
        process.wait()
    if received and process.returncode:
        raise SystemExit(128 + received[-1])
    if process.returncode:
        failure = _failure(process.returncode, logs) or Failure(1, _last_lines(logs))
        raise (UserError if failure.code == 2 else ProcessFailed)(failure.report)


@contextlib.contextmanager
def _launcher(
    command: Sequence[str], nodes: Nodes, address: str, options: Sequence[str], logs: Path
) -> Iterator[tuple[subprocess.Popen, list[int]]]:
    """Paddle's launcher and the signals received; its processes are stopped after the block."""
    logs.mkdir(parents=True, exist_ok=True)
    logs.chmod(0o700)  # Paddle writes all variables of the environment there
    package = str(Path(__file__).resolve().parents[2])
    kept = {key: text for key, text in os.environ.items() if not key.startswith("PADDLE_")}
    environment = {
        **_interface(address),
        **kept,
        "PYTHONPATH": os.pathsep.join([package, os.environ.get("PYTHONPATH", "")]),
    }
    script = [sys.executable, "-m", "liteseg", *command]
    start = [sys.executable, "-u", "-m", "liteseg.tasks.nodes", address, str(os.getpid())]
    options = [*options, "--nproc_per_node", str(nodes.devices), "--log_level", "ERROR"]
    process = subprocess.Popen(
        [*start, *options, "--log_dir", str(logs), "--log_overwrite", "True", *script],
        env=environment,
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C reaches the processes once, through this one
    )
    with signals_passed_on(lambda number: _pass_on(process, number)) as received:
        try:
            yield process, received
        finally:
            for child in _children(process.pid):
                with contextlib.suppress(OSError):
                    os.kill(child, signal.SIGKILL)  # it waits for the other nodes
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(ANSWER_WITHIN)
            process.kill()
            process.wait()


def _pass_on(process: subprocess.Popen, number: int) -> None:
    """Send a signal to the training processes.

    Not to Paddle's launcher, which kills them 30 s after the first one, checkpoint or not.
    """
    for target in _children(process.pid) or [process.pid]:
        with contextlib.suppress(OSError):
            os.kill(target, number)


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
    return []


def _failure(code: int, logs: Path) -> Optional[Failure]:
    """The failure of this node; None if its processes have only lost their connection."""
    host = socket.gethostname()
    texts = {path: path.read_text(errors="replace") for path in sorted(logs.glob("workerlog.*"))}
    for text in texts.values():
        if found := _USER_ERROR.search(text):
            return Failure(2, f"{host}: {found[1].strip()}")
    own = [path for path, text in texts.items() if not _CONNECTION.search(text)]
    if texts and not own:
        return None
    code = code - 256 if code > 128 else code  # Paddle exits with the negative number of a signal
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    lines = "\n  ".join([line for path in own[:1] for line in _tail(path)])
    return Failure(1, f"{host}: a process {how}; the last lines of {logs} are:\n  {lines}")


def _last_lines(logs: Path) -> str:
    first = next(iter(sorted(logs.glob("workerlog.*"))), None)
    lines = "\n  ".join(_tail(first)) if first else "none"
    host = socket.gethostname()
    return f"{host}: the processes have ended; the last lines of {logs} are:\n  {lines}"


def _tail(path: Path) -> list[str]:
    return [safe(line) for line in path.read_text(errors="replace").splitlines()[-_LOG_LINES:]]


def _interface(address: str) -> dict[str, str]:
    """The variable that makes gloo use the network interface of an address; empty without one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            with contextlib.suppress(OSError):
                found = fcntl.ioctl(any_socket.fileno(), _SIOCGIFADDR, request)[20:24]
                if socket.inet_ntoa(found) == address:
                    return {"GLOO_SOCKET_IFNAME": name}
    return {}


def _paddle_launcher(address: str, parent: int) -> NoReturn:
    """Run Paddle's launcher in this process."""
    end_with_parent(parent, signal.SIGTERM)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    # It takes the address of this node from the name of the host, which often is that of loopback.
    socket.getfqdn = lambda name="": address
    from paddle.distributed.launch.main import launch

    sys.exit(launch())


if __name__ == "__main__":
    _, own_address, parent_id = sys.argv[:3]
    del sys.argv[1:3]
    _paddle_launcher(own_address, int(parent_id))
