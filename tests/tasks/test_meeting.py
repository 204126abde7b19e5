"""The nodes of a training meet at the master; all over loopback."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from liteseg.cli import main
from liteseg.errors import UserError
from liteseg.tasks import meeting
from liteseg.tasks.meeting import Failure, Nodes, meet
from liteseg.tasks.nodes import run_on_nodes


@pytest.fixture
def master():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def meet_all(nodes):
    """The group, or the error, of each of several nodes that meet at once; the master first."""
    ready = threading.Event()

    def arrive(number):
        if number:
            ready.wait()
        try:
            return meet(nodes[number])
        except UserError as error:
            return str(error)

    with ThreadPoolExecutor(len(nodes)) as threads:
        first = threads.submit(arrive, 0)
        while not first.done() and not is_listening(nodes[0].master):
            pass
        ready.set()
        others = list(threads.map(arrive, range(1, len(nodes))))
        return [first.result(), *others]


def is_listening(master):
    host, _, port = master.rpartition(":")
    with socket.socket() as one:
        return not one.connect_ex((host, int(port)))


def test_nodes_are_numbered_and_pass_on_the_first_failure(master):
    groups = meet_all([Nodes("4", master, wait=20)] * 3 + [Nodes("4", master, rank=2, wait=20)])
    assert groups[0].rank == 0
    assert groups[3].rank == 2
    assert sorted(group.rank for group in groups) == [0, 1, 2, 3]
    assert {(group.address, group.master) for group in groups} == {("127.0.0.1", master)}
    groups[1].send(Failure(2, "no such image"))
    assert groups[0].receive(5) == Failure(2, "no such image")  # and passes it on
    assert groups[2].receive(5) == groups[3].receive(5) == Failure(2, "no such image")
    for group in groups:
        group.close()


def test_a_node_that_has_ended_is_named(master):
    here, there = meet_all([Nodes("2", master, wait=20)] * 2)
    there.close()
    failure = here.receive(5)
    assert failure.code == 1
    assert f"the connection to {socket.gethostname()} (127.0.0.1) is lost" in failure.report
    assert here.receive(0) is None
    here, there = meet_all([Nodes("2", master, wait=20)] * 2)
    there.send(Failure(0, ""))  # done
    there.close()
    assert here.receive(5) is None
    here.close()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ([{"rank": 1}, {"rank": 1}], "--node-rank 1 is given twice: on .* give each node its own"),
        ([{}, {"rank": 2}], "--node-rank is 2; give 0 to 1"),
        ([{}, {"count": "3"}], "--nodes is 3, and 2 on .*; use the same on every node"),
    ],
)
def test_every_node_reports_what_does_not_fit(changes, words, master):
    nodes = [dataclasses.replace(Nodes("2", master, wait=20), **change) for change in changes]
    for problem in meet_all(nodes):
        assert isinstance(problem, str)
        assert re.search(words, problem)


def test_other_versions_are_named():
    facts = {"host": "a", "rank": None, "--nodes": "2", "liteseg": "1.0", "Paddle": "3.3.1"}
    other = {**facts, "host": "b", "address": "10.0.0.2"}
    assert meeting._mismatch([facts, other], 2) == ""
    for package in ("liteseg", "Paddle"):
        problem = meeting._mismatch([facts, {**other, package: "0.1"}], 2)
        assert problem.startswith(f"b (10.0.0.2): {package} is 0.1, and {facts[package]} on a; ")


def test_missing_nodes_are_counted(master):
    with pytest.raises(UserError, match=r"--nodes 3: 1 arrived at .* within 0.3 s .*; start the"):
        meet(Nodes("3", master, wait=0.3))


def test_a_port_in_use(master, monkeypatch):
    monkeypatch.setattr(meeting, "ANSWER_WITHIN", 0.2)
    host, _, port = master.rpartition(":")
    words = f"port {port} of .* is in use by another program"
    with socket.create_server((host, int(port))), pytest.raises(UserError, match=words):
        meet(Nodes("2", master, wait=20))


def test_a_master_that_is_not_found(monkeypatch):
    def unknown(host):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "gethostbyname", unknown)
    words = r"--master a.invalid:1: .* has not reached it within 0.2 s \(Name or service not known"
    with pytest.raises(UserError, match=words):
        meet(Nodes("2", "a.invalid:1", wait=0.2))


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        (Nodes("2", "node-a"), "give HOST:PORT, such as node-0:6170"),
        (Nodes("2:4", "node-a:6170"), "give --master etcd://HOST:PORT, or a fixed number"),
        (Nodes("0", "node-a:6170"), "--nodes 0"),
        (Nodes("2:4", "etcd://node-a:2379"), "pip install etcd3"),
    ],
)
def test_wrong_options(nodes, words, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=words):
        run_on_nodes(["train"], nodes, Path(tmp_path))


def test_a_program_that_is_no_node_is_left_out(master):
    """Such as a port scan: it gets no number and delays nobody else."""
    answers = []

    def scan():
        while not is_listening(master):
            pass
        with socket.create_connection(
            (master.partition(":")[0], int(master.partition(":")[2]))
        ) as s:
            s.sendall(b"GET / HTTP/1.0\r\n\r\n")
            answers.append(s.recv(100))

    scanner = threading.Thread(target=scan)
    scanner.start()
    with pytest.raises(UserError, match="1 arrived"):
        meet(Nodes("2", master, wait=2))
    scanner.join()
    assert answers == [meeting._GREETING]


def test_elastic_options_are_passed_on_to_paddle(tmp_path, monkeypatch):
    started = []

    @contextlib.contextmanager
    def launcher(*arguments):
        started.append(arguments)
        yield SimpleNamespace(wait=lambda: 0, returncode=0), []

    monkeypatch.setattr("liteseg.tasks.nodes._launcher", launcher)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: True)
    with socket.create_server(("127.0.0.1", 0)) as etcd:
        master = f"etcd://127.0.0.1:{etcd.getsockname()[1]}"
        nodes = Nodes("2:4", master, max_restarts=3, wait=60)
        run_on_nodes(["train", "--config", "my.yml"], nodes, tmp_path / "run" / "launch")
    ((command, _, address, options, _),) = started
    assert command[-4:] == ["--resume", "auto", "--output", str(tmp_path / "run")]
    assert address == "127.0.0.1"
    assert " ".join(options) == (
        f"--nnodes 2:4 --master {master} --job_id run --max_restart 3 --elastic_level 1 "
        "--elastic_timeout 60"
    )
    with pytest.raises(UserError, match=f"--master {master}: cannot be reached"):
        run_on_nodes(["train"], nodes, tmp_path / "run" / "launch")


@pytest.mark.parametrize(
    "options", [["--nodes", "2"], ["--master", "a:1"], ["--node-rank", "0"], ["--max-restarts=1"]]
)
def test_options_of_several_machines_go_together(options, capsys):
    assert main(["train", "--config", "quickstart", *options]) == 2
    assert "give both --nodes and --master, or neither" in capsys.readouterr().err


def test_logs_that_cannot_be_written(tmp_path):
    (tmp_path / "run").write_text("a file")
    with pytest.raises(UserError, match=r"cannot write in .*launch: Not a directory"):
        run_on_nodes(["train"], Nodes("2", "node-a:6170"), tmp_path / "run" / "launch")
