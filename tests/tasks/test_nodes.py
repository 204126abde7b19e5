"""Training on two hosts, which are network namespaces of this machine joined by a cable."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from plain_run import ENVIRONMENT, command, last_checkpoint, lines, prepare, train

from liteseg.utils.weights.load import read_state

ITERATIONS = 12
# Within this many seconds all nodes have ended after the network of one was cut.
NOTICED_WITHIN = 60
EVENT = """
import os
import signal
import threading
from pathlib import Path
from liteseg.registry import TRANSFORMS

@TRANSFORMS.register
class Event:
    \"\"\"At the n-th image, once: writes a file, and kills this process or fills a disk.\"\"\"

    calls = 0

    def __call__(self, sample, rng=None):
        # The checks before the training run in the main thread.
        Event.calls += threading.current_thread() is not threading.main_thread()
        what, images, process, marker = os.environ.get("EVENT", "no 0 - -").split()
        if Event.calls == int(images) and os.environ.get("PADDLE_TRAINER_ID") == process:
            if not Path(marker).exists():
                Path(marker).write_text(what)
                if what == "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                if what == "fill":
                    os.system(f"dd if=/dev/zero of={marker}.ballast status=none")
        return sample
"""


def ip(*arguments):
    return subprocess.run(["ip", *map(str, arguments)], capture_output=True, text=True)


class Host:
    """A network namespace with a host name and an address of its own."""

    def __init__(self, name, number, tag):
        self.name, self.space, self.device = name, f"ls{tag}{name[-1]}", f"v{tag}{name[-1]}"
        self.address = f"10.77.0.{number}"

    def start(self, *arguments, environment=(), **settings):
        enter = ["ip", "netns", "exec", self.space, "unshare", "--uts", "sh", "-c"]
        return subprocess.Popen(
            [*enter, f'hostname {self.name} && exec "$@"', "sh", *command(*arguments, **settings)],
            env={**ENVIRONMENT, **dict(environment)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


@contextlib.contextmanager
def two_hosts(tag):
    """Two hosts, node-a (10.77.0.1) and node-b (10.77.0.2), which reach only each other."""
    if os.geteuid() or not shutil.which("ip") or not shutil.which("unshare"):
        pytest.skip("needs root, iproute2 (ip) and unshare for network namespaces")
    hosts = [Host("node-a", 1, tag), Host("node-b", 2, tag)]
    folders = [Path("/etc/netns", host.space) for host in hosts]
    try:
        for host, folder in zip(hosts, folders):
            if (made := ip("netns", "add", host.space)).returncode:
                pytest.skip(f"network namespaces are not allowed here: {made.stderr.strip()}")
            folder.mkdir(parents=True)  # `ip netns exec` shows its files in /etc
            # As on Debian: the name of the host is an address of loopback.
            names = [f"127.0.1.1 {host.name}", *(f"{h.address} {h.name}" for h in hosts)]
            (folder / "hosts").write_text("\n".join(["127.0.0.1 localhost", *names, ""]))
        a, b = hosts
        cable = ip("link", "add", a.device, "netns", a.space, "type", "veth",
                   "peer", "name", b.device, "netns", b.space)  # fmt: skip
        if cable.returncode:
            pytest.skip(f"network namespaces can't be joined here: {cable.stderr.strip()}")
        for host in hosts:
            space = ("-n", host.space)
            ip(*space, "address", "add", f"{host.address}/24", "dev", host.device)
            ip(*space, "link", "set", "lo", "up")
            assert not ip(*space, "link", "set", host.device, "up").returncode
        yield hosts
    finally:
        for host, folder in zip(hosts, folders):
            ip("netns", "delete", host.space)
            shutil.rmtree(folder, ignore_errors=True)


def start_both(hosts, folder, out, *options, event="no 0 - -", each=({}, {}), **settings):
    """The two commands, one on each host, that train in `out/node-a` and `out/node-b`."""
    return [
        host.start(
            *("--config", folder / "event.yml", "--nodes", 2, "--master", "10.77.0.1:6170"),
            *("--node-rank", rank, "--node-timeout", 60, "--output", out / host.name, *options),
            environment={"EVENT": event},
            **{"batch_size": 2, "iters": ITERATIONS, **settings, **own},
        )
        for rank, (host, own) in enumerate(zip(hosts, each))
    ]


def end(processes, timeout=120):
    """[(exit code, output)] of processes."""
    outputs = [process.communicate(timeout=timeout)[0] for process in processes]
    return [(process.returncode, output) for process, output in zip(processes, outputs)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = prepare(tmp_path_factory.mktemp("nodes"))
    (folder / "event.py").write_text(EVENT)
    text = (folder / "plain.yml").read_text().replace("FailInProcess1", "Event")
    (folder / "event.yml").write_text(text.replace("plugins: [", f"plugins: [{folder}/event.py, "))
    return folder


@pytest.fixture(scope="module")
def hosts():
    with two_hosts(f"{os.getpid() % 100000}x") as found:
        yield found


@pytest.fixture(scope="module")
def cut(folder):
    """A training whose network has been cut in the middle.

    (future of what its processes end with, and of the seconds until then; its folder)
    """
    with two_hosts(f"{os.getpid() % 100000}y") as found:
        marker, out = folder / "reached", folder / "cut"
        processes = start_both(found, folder, out, event=f"mark 15 1 {marker}", iters=100_000)
        while not marker.exists():
            assert [process.poll() for process in processes] == [None, None]
            time.sleep(0.1)
        ip("-n", found[1].space, "link", "set", found[1].device, "down")
        begin = time.monotonic()
        with ThreadPoolExecutor() as threads:
            yield threads.submit(lambda: (end(processes), time.monotonic() - begin)), out


@pytest.fixture(scope="module")
def undisturbed(cut, hosts, folder):
    """The folder of two run directories; the cut network is noticed meanwhile."""
    out = folder / "undisturbed"
    for code, output in end(start_both(hosts, folder, out)):
        assert code == 0, output
    return out


def state(run):
    return read_state(run / "checkpoints/last/model.pdparams")


def test_two_nodes_train_as_one_process(undisturbed, folder):
    run, other = undisturbed / "node-a", undisturbed / "node-b"
    alone = folder / "alone"
    done = train("--config", folder / "event.yml", "--output", alone, iters=ITERATIONS)
    assert done.returncode == 0, done.stderr
    found, expected = lines(run, "train"), lines(alone, "train")
    assert [line["step"] for line in found] == list(range(1, ITERATIONS + 1))
    for line, one in zip(found, expected):
        assert line == pytest.approx(one, rel=1e-5)
    # The other node has only the log of its process, which nobody else may read.
    assert [path.name for path in other.iterdir()] == ["launch"]
    (logs,) = (other / "launch").iterdir()
    assert logs.name == "node-b.1"
    assert logs.stat().st_mode & 0o777 == 0o700
    assert "[node-b, rank 1] " in (logs / "workerlog.0").read_text()


def test_a_killed_process_restarts_all_and_ends_as_if_undisturbed(undisturbed, hosts, folder):
    out = folder / "killed"
    options = ("--resume", "auto", "--max-restarts", 1)
    event = f"kill 15 1 {folder / 'killed_once'}"
    for code, output in end(start_both(hosts, folder, out, *options, event=event)):
        assert code == 0, output
        assert "node-b: a process was killed by SIGKILL" in output
        assert "restart 1 of 1" in output
    log = (out / "node-a" / "train.log").read_text()
    assert re.search(r"resumed from \S+ after iteration [2-8]\n", log)
    assert lines(out / "node-a", "train") == lines(undisturbed / "node-a", "train")
    found, expected = state(out / "node-a"), state(undisturbed / "node-a")
    assert [key for key in expected if (found[key] != expected[key]).any()] == []


def test_stopping_one_node_stops_both_with_a_checkpoint(hosts, folder, tmp_path):
    processes = start_both(hosts, folder, tmp_path, iters=100_000)
    run = tmp_path / "node-a"
    while not (run / "checkpoints/last").exists():
        assert [process.poll() for process in processes] == [None, None]
        time.sleep(0.1)
    processes[1].send_signal(signal.SIGTERM)
    for code, output in end(processes):
        assert code == 0, output
    assert last_checkpoint(run) == lines(run, "train")[-1]["step"]
    assert "stopped by SIGTERM" in (run / "train.log").read_text()


def test_a_node_with_another_dataset_is_named(hosts, folder):
    copy = Path(shutil.copytree(folder / "streets", folder / "other"))
    image = next(copy.rglob("*leftImg8bit.png"))
    image.write_bytes(image.read_bytes() + b"one byte more")
    each = ({}, {"train_dataset.dataset_root": copy, "val_dataset.dataset_root": copy})
    for code, output in end(start_both(hosts, folder, folder / "differ", each=each)):
        assert code == 2
        assert re.search(
            r"node-b, rank 1: \w+_dataset is \d+ files of \d+ bytes .* on node-a", output
        )
    assert not (folder / "differ" / "node-a" / "checkpoints").exists()


def test_a_full_disk_on_one_node_ends_both_with_the_message(hosts, folder, tmp_path):
    disk = tmp_path / "node-a"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk])
    if mounted.returncode:
        pytest.skip("file systems can't be mounted here")
    try:
        processes = start_both(
            hosts, folder, tmp_path, event=f"fill 41 0 {disk}/full", iters=100_000, save_interval=4
        )
        for code, output in end(processes):
            assert code == 2
            assert re.search("(liteseg train|node-a): cannot write .* No space left", output)
        assert last_checkpoint(disk) >= 4
        assert not list((disk / "checkpoints").glob(".*"))
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def test_a_cut_network_is_noticed(cut):
    ended, out = cut
    found, seconds = ended.result()
    assert seconds < NOTICED_WITHIN
    for code, output in found:
        assert code == 1
        assert re.search(r"the connection to node-[ab] \(10.77.0.[12]\) is lost", output)
    assert last_checkpoint(out / "node-a") >= 2
