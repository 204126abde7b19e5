"""The environment of launched processes, and a process that fails while others wait for it."""

from __future__ import annotations

import atexit
import os
import socket
import time
from pathlib import Path

import paddle
import pytest

from liteseg.errors import UserError
from liteseg.tasks import launch as launcher
from liteseg.tasks.launch import ProcessFailed, launch
from liteseg.utils.runtime import rank

ENDPOINTS = ["127.0.0.1:6001", "127.0.0.1:6002", "127.0.0.1:6003", "127.0.0.1:6004"]


@pytest.mark.parametrize("process", range(4))
def test_each_process_gets_a_gpu_of_its_own(process, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    monkeypatch.setenv("PYTHONPATH", "/my/plugins")
    found = launcher._environment(process, "127.0.0.1:6000", ENDPOINTS, gpu=True)
    # An index into CUDA_VISIBLE_DEVICES, which stays as it was.
    assert found["FLAGS_selected_gpus"] == str(process)
    assert found["CUDA_VISIBLE_DEVICES"] == "4,5,6,7"
    assert "PADDLE_DISTRI_BACKEND" not in found  # NCCL
    assert found["PADDLE_MASTER"] == "127.0.0.1:6000"
    assert found["PADDLE_TRAINER_ID"] == str(process)
    assert found["PADDLE_TRAINERS_NUM"] == "4"
    assert found["PADDLE_TRAINER_ENDPOINTS"] == ",".join(ENDPOINTS)
    assert found["PADDLE_CURRENT_ENDPOINT"] == ENDPOINTS[process]
    package, *others = found["PYTHONPATH"].split(os.pathsep)
    assert (Path(package) / "liteseg").is_dir()
    assert others == ["/my/plugins"]


def test_paddle_reads_the_gpu_of_the_process(monkeypatch):
    found = launcher._environment(2, "127.0.0.1:6000", ENDPOINTS, gpu=True)
    for name, value in found.items():
        if name.startswith(("PADDLE_", "FLAGS_")):
            monkeypatch.setenv(name, value)
    monkeypatch.setattr(paddle.base.core, "is_compiled_with_cuda", lambda: True)
    parallel = paddle.distributed.ParallelEnv()
    assert (parallel.rank, parallel.world_size, parallel.device_id) == (2, 4, 2)
    assert parallel.current_endpoint == ENDPOINTS[2]


def test_processes_on_the_cpu_use_gloo(monkeypatch):
    monkeypatch.delenv("FLAGS_selected_gpus", raising=False)
    found = launcher._environment(1, "127.0.0.1:6000", ENDPOINTS, gpu=False)
    assert found["PADDLE_DISTRI_BACKEND"] == "gloo"
    assert "FLAGS_selected_gpus" not in found


def test_the_store_accepts_no_other_machine(caplog):
    with socket.socket() as store:
        store.bind(("0.0.0.0", 0))
        store.listen()
        port = store.getsockname()[1]
        launcher._close_to_others(port)
        device = store.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16)
        assert device.rstrip(b"\0") == b"lo"
        socket.create_connection(("127.0.0.1", port), 5).close()
    assert not caplog.records
    launcher._close_to_others(port)
    assert f"port {port}" in caplog.text
    assert "stays open" in caplog.text


@pytest.mark.parametrize(
    ("device", "gpus", "processes", "expected"),
    [("auto", 4, 2, True), ("cpu", 4, 8, False), ("auto", 0, 2, False), ("gpu", 2, 2, True)],
)
def test_gpus_are_used_where_there_are_enough(monkeypatch, device, gpus, processes, expected):
    monkeypatch.setattr("liteseg.ops.device.gpu_count", lambda: gpus)
    assert launcher._use_gpus(processes, device) == expected


def test_fewer_gpus_than_processes(monkeypatch):
    monkeypatch.setattr("liteseg.ops.device.gpu_count", lambda: 2)
    with pytest.raises(UserError, match="3 processes need as many GPUs, and Paddle finds 2"):
        launcher._use_gpus(3, "auto")


def fail_and_never_exit(how):
    """Fails in the second process, whose regular exit then waits forever, as NCCL's may."""
    paddle.distributed.init_parallel_env()
    if rank() == 1:
        atexit.register(time.sleep, 1000)
        raise UserError("no such image") if how == "user" else KeyError("bug")
    paddle.distributed.barrier()  # waits for the failed process


@pytest.mark.parametrize(
    ("how", "error", "words"),
    [("user", UserError, "liteseg test: no such image"), ("bug", ProcessFailed, "KeyError: 'bug'")],
)
def test_a_failed_process_ends_the_others(tmp_path, monkeypatch, how, error, words):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.setattr(launcher, "_GRACE", 2)
    begin = time.monotonic()
    options = {"devices": 2, "device": "cpu", "logs": tmp_path, "name": "test"}
    with pytest.raises(error, match=words):
        launch(fail_and_never_exit, {"how": how}, **options)
    assert time.monotonic() - begin < 60
