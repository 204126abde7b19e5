"""The nodes of a training meet at the master, and stay connected.

The connections carry the error of the node that fails first, which Paddle reports to the others as
a lost connection only. Their loss shows that a node or its network is down.
"""

from __future__ import annotations

import contextlib
import errno
import json
import select
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any, NamedTuple, Optional

from liteseg import __version__
from liteseg.errors import UserError

ANSWER_WITHIN = 10.0  # seconds, of another node or program
POLL = 0.2  # seconds
_GREETING = b"liteseg nodes 1\n"
# A connection without an answer to this many probes, in seconds, is lost: 10 + 4 x 5 = 30 s.
_PROBE_AFTER, _PROBE_EVERY, _PROBES = 10, 5, 4


@dataclass(frozen=True)
class Nodes:
    """The nodes of a training.

    Attributes:
        count: their number, or MIN:MAX for an elastic training.
        master: HOST:PORT of the node that the others connect to, or etcd://HOST:PORT.
        rank: number of this node, from 0; None to have it assigned.
        devices: processes on this node.
        max_restarts: restarts after a failure.
        wait: seconds within which all nodes must arrive.
    """

    count: str
    master: str
    rank: Optional[int] = None
    devices: int = 1
    max_restarts: int = 0
    wait: float = 300.0


class Failure(NamedTuple):
    """The end of a node's processes: `code` 0 (done), 1 (failed) or 2 (user error), and why."""

    code: int
    report: str


@dataclass
class Group:
    """The nodes that have arrived.

    Attributes:
        rank: of this node.
        address: of this node, as the others reach it.
        master: IP address and port of the master.
        peers: {connection: name of the node}: all others on the master, the master on the others.
    """

    rank: int
    address: str
    master: str
    peers: dict[socket.socket, str] = field(default_factory=dict)

    def send(self, failure: Failure, besides: Optional[socket.socket] = None) -> None:
        """Send a failure to the connected nodes."""
        for peer in self.peers:
            if peer is not besides:
                with contextlib.suppress(OSError):
                    _send(peer, failure._asdict())

    def receive(self, timeout: float) -> Optional[Failure]:
        """The failure of another node, waiting up to `timeout` seconds; passed on to the rest."""
        ready, _, _ = select.select(list(self.peers), [], [], timeout)  # without peers it waits
        for peer in ready:
            name = self.peers[peer]
            try:
                failure = Failure(**_receive(peer))
            except (OSError, ValueError, TypeError) as error:
                cause = getattr(error, "strerror", None) or "it has ended"
                failure = Failure(
                    1, f"the connection to {name} is lost ({cause}): the machine or its network is "
                    "down, or its processes were killed"
                )  # fmt: skip
            del self.peers[peer]
            peer.close()
            if failure.code:
                self.send(failure, besides=peer)
                return failure
        return None

    def close(self) -> None:
        """Close the connections."""
        for peer in self.peers:
            peer.close()


def meet(nodes: Nodes) -> Group:
    """Wait until all nodes have arrived at the master.

    Raises:
        UserError: they have not, within `nodes.wait` seconds, or they do not fit together.
    """
    host, _, port = nodes.master.rpartition(":")
    if not host or not port.isdecimal():
        raise UserError(f"--master {nodes.master}: give HOST:PORT, such as node-0:6170")
    deadline = time.monotonic() + nodes.wait
    problem: Any = "no time was left"
    while time.monotonic() < deadline:
        in_use = False
        try:
            address = socket.gethostbyname(host)
            try:
                server = socket.create_server((address, int(port)))
            except OSError as error:
                in_use = error.errno == errno.EADDRINUSE  # perhaps by a node on this machine
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EADDRINUSE):
                    raise
                return _join((address, int(port)), nodes, deadline)
            with server:
                return _gather(server, nodes, deadline)
        except (OSError, OverflowError) as error:
            problem = getattr(error, "strerror", None) or error
            if in_use:
                raise UserError(
                    f"--master {nodes.master}: port {port} of {socket.gethostname()} is in use by "
                    "another program; give a free port, the same on every node"
                ) from None
        time.sleep(min(1.0, nodes.wait / 10))
    raise UserError(
        f"--master {nodes.master}: {socket.gethostname()} has not reached it within "
        f"{nodes.wait:g} s ({problem}); give the address of one of the nodes, start the command "
        "there, and let its firewall pass the ports of the nodes"
    )


def _gather(server: socket.socket, nodes: Nodes, deadline: float) -> Group:
    """On the master: accept the others, check them, and give each its number."""
    address, port = server.getsockname()
    arrived: list[tuple[dict[str, Any], Optional[socket.socket]]] = [(_hello(nodes), None)]
    count, problem = int(nodes.count), ""
    while len(arrived) < count and time.monotonic() < deadline:
        server.settimeout(POLL)
        with contextlib.suppress(OSError, ValueError):
            arrived = [one for one in arrived if one[1] is None or not _is_closed(one[1])]
            peer, (host, _) = server.accept()
            peer.settimeout(ANSWER_WITHIN)
            peer.sendall(_GREETING)
            arrived.append(({**_receive(peer), "address": host}, peer))
    facts = [fact for fact, _ in arrived]
    if len(arrived) < count:
        problem = (
            f"--nodes {count}: {len(arrived)} arrived at {nodes.master} within {nodes.wait:g} s "
            f"({', '.join(_name(fact) for fact in facts)}); start the command on the others"
        )
    problem = problem or _mismatch(facts, count)
    given = {fact["rank"] for fact in facts}
    free = iter(number for number in range(count) if number not in given)
    group = Group(0, address, f"{address}:{port}")
    for fact, member in arrived:
        number = next(free, 0) if fact["rank"] is None else fact["rank"]
        if member is None:
            group.rank = number
            continue
        with contextlib.suppress(OSError):
            name = f"{facts[0]['host']} ({address})"
            _send(member, {"problem": problem, "rank": number, "name": name})
        group.peers[_probed(member)] = _name(fact)
    if problem:
        group.close()
        raise UserError(problem)
    return group


def _join(master: tuple[str, int], nodes: Nodes, deadline: float) -> Group:
    """On the other nodes: connect to the master and wait for the number of this node."""
    peer = socket.create_connection(master, ANSWER_WITHIN)
    try:
        if peer.recv(len(_GREETING), socket.MSG_WAITALL) != _GREETING:
            raise OSError(errno.EPROTO, "another program answers")
        _send(peer, _hello(nodes))
        peer.settimeout(max(1.0, deadline + ANSWER_WITHIN - time.monotonic()))
        answer = _receive(peer)
    except (OSError, ValueError):
        peer.close()
        raise
    if answer["problem"]:
        peer.close()
        raise UserError(answer["problem"])
    peers = {_probed(peer): answer["name"]}
    return Group(answer["rank"], peer.getsockname()[0], f"{master[0]}:{master[1]}", peers)


def _hello(nodes: Nodes) -> dict[str, Any]:
    paddle = next(filter(None, map(_version_of, ("paddlepaddle-gpu", "paddlepaddle"))), "unknown")
    versions = {"liteseg": __version__, "Paddle": paddle}
    return {"host": socket.gethostname(), "rank": nodes.rank, "--nodes": nodes.count, **versions}


def _version_of(package: str) -> Optional[str]:
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(package)
    return None


def _mismatch(facts: Sequence[Mapping[str, Any]], count: int) -> str:
    """Why these nodes can't train together; empty if they can."""
    first, seen = facts[0], {}  # type: ignore[var-annotated]
    for fact in facts:
        for key in ("--nodes", "liteseg", "Paddle"):
            if fact[key] != first[key]:
                return (
                    f"{_name(fact)}: {key} is {fact[key]}, and {first[key]} on {_name(first)}; use "
                    "the same on every node"
                )
        number = fact["rank"]
        if number is None:
            continue
        if not 0 <= number < count:
            return f"{_name(fact)}: --node-rank is {number}; give 0 to {count - 1}"
        if number in seen:
            return (
                f"--node-rank {number} is given twice: on {_name(seen[number])} and {_name(fact)}; "
                f"give each node its own, from 0 to {count - 1}, or none"
            )
        seen[number] = fact
    return ""


def _name(fact: Mapping[str, Any]) -> str:
    return f"{fact['host']} ({fact['address']})" if "address" in fact else str(fact["host"])


def _send(peer: socket.socket, message: Mapping[str, Any]) -> None:
    peer.sendall(json.dumps(message).encode() + b"\n")


def _receive(peer: socket.socket, limit: int = 1 << 16) -> dict[str, Any]:
    """A message of at most `limit` bytes: a line of JSON."""
    data = b""
    while not data.endswith(b"\n"):
        part = peer.recv(4096)
        if not part or len(data) > limit:
            raise OSError(errno.ECONNRESET, "it has ended")
        data += part
    return json.loads(data)


def _is_closed(peer: socket.socket) -> bool:
    return bool(select.select([peer], [], [], 0)[0]) and not peer.recv(1, socket.MSG_PEEK)


def _probed(peer: socket.socket) -> socket.socket:
    """The connection, which now fails if the other machine does not answer."""
    peer.settimeout(ANSWER_WITHIN)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    options = {"KEEPIDLE": _PROBE_AFTER, "KEEPINTVL": _PROBE_EVERY, "KEEPCNT": _PROBES}
    for name, value in options.items():
        if hasattr(socket, f"TCP_{name}"):  # not all on macOS
            peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, f"TCP_{name}"), value)
    return peer
