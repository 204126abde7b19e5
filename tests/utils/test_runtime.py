from __future__ import annotations

import logging
import os
import platform
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest
from conftest import ROOT

from liteseg.errors import UserError
from liteseg.utils import runtime
from liteseg.utils.logging import get_logger, log_file, progress, setup_logging


@pytest.fixture
def fresh_logging():
    logger = get_logger()
    before = list(logger.handlers), logger.level, logger.propagate
    yield
    for handler in logger.handlers:
        handler.close()
    logger.handlers, logger.level, logger.propagate = before


PAGE_FAULTS = """
import resource
import paddle
from liteseg.utils.runtime import select_device

select_device("cpu")
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    paddle.full([1 << 26], 1, "uint8")
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the option is glibc's")
def test_freed_memory_is_used_again():
    """A block of the size of a large tensor costs page faults once, not at every operator."""

    def second_is_free() -> bool:
        # In a fresh process: where a block goes depends on all that was allocated before.
        command = [sys.executable, "-c", f"import liteseg{PAGE_FAULTS}"]
        told = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout
        first, second = (int(line) for line in told.split())
        return second < first / 10

    # In about every other process something small settles in what is left of an aligned block,
    # which then is a little short for the next one. Without the option no process would do.
    assert any(second_is_free() for _ in range(10))


def test_cpu_is_always_there():
    assert runtime.select_device("cpu") == "cpu"
    assert paddle.get_device() == "cpu"


def test_auto_follows_the_machine(monkeypatch):
    chosen = []
    monkeypatch.setattr(paddle, "set_device", chosen.append)
    monkeypatch.setattr(paddle, "is_compiled_with_cuda", lambda: True)
    for gpus, expected in ((0, "cpu"), (2, "gpu")):
        monkeypatch.setattr(paddle.device.cuda, "device_count", lambda gpus=gpus: gpus)
        assert runtime.select_device("auto") == expected
    assert runtime.select_device("cpu") == "cpu"
    assert chosen == ["cpu", "gpu", "cpu"]


def test_a_paddle_for_gpus_without_one_says_so_in_one_line(monkeypatch, caplog):
    monkeypatch.setattr(paddle, "is_compiled_with_cuda", lambda: True)
    monkeypatch.setattr(paddle.device.cuda, "device_count", lambda: 0)
    notes = paddle.device.get_cudnn_version.__globals__
    monkeypatch.setitem(notes, "_cudnn_version", None)
    runtime._say_there_is_no_gpu.cache_clear()
    runtime.select_device("auto")
    runtime.select_device("auto")
    (said,) = caplog.messages
    assert "computes on the CPU" in said
    assert "\n" not in said
    # Now no layer makes it look for the library, which is not there.
    ask = lambda: pytest.fail("asked for cuDNN")  # noqa: E731
    monkeypatch.setattr(paddle.base.core, "cudnn_version", ask, raising=False)
    monkeypatch.setattr(paddle.base.core, "is_compiled_with_cuda", lambda: True)
    assert paddle.device.get_cudnn_version() == -1


def test_gpu_without_one(monkeypatch):
    monkeypatch.setattr(paddle, "is_compiled_with_cuda", lambda: False)
    with pytest.raises(UserError, match="CPU build; install paddlepaddle-gpu"):
        runtime.select_device("gpu")
    monkeypatch.setattr(paddle, "is_compiled_with_cuda", lambda: True)
    monkeypatch.setattr(paddle.device.cuda, "device_count", lambda: 0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(UserError, match=r"sees 0 GPUs.*CUDA_VISIBLE_DEVICES is ''"):
        runtime.select_device("gpu")


def test_unknown_device():
    with pytest.raises(UserError, match=r"'tpu' is unknown.*auto, cpu, gpu"):
        runtime.select_device("tpu")


def test_seed_everything():
    def draw():
        return random.random(), np.random.rand(), float(paddle.rand([]))

    runtime.seed_everything(2**33 + 5)
    first = draw()
    assert draw() != first
    runtime.seed_everything(2**33 + 5)
    assert draw() == first


def test_ranks(monkeypatch):
    monkeypatch.delenv("PADDLE_TRAINER_ID", raising=False)
    monkeypatch.delenv("PADDLE_TRAINERS_NUM", raising=False)
    assert (runtime.rank(), runtime.world_size(), runtime.is_main()) == (0, 1, True)
    monkeypatch.setenv("PADDLE_TRAINER_ID", "3")
    monkeypatch.setenv("PADDLE_TRAINERS_NUM", "4")
    assert (runtime.rank(), runtime.world_size(), runtime.is_main()) == (3, 4, False)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("max 100000", 8), ("200000 100000", 2), ("50000 100000", 1), ("9900000 100000", 8)],
)
def test_cpu_threads(monkeypatch, tmp_path, text, expected):
    monkeypatch.setattr(runtime.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    (tmp_path / "cpu.max").write_text(text + "\n")
    monkeypatch.setattr(runtime, "_CGROUP_CPU_MAX", tmp_path / "cpu.max")
    assert runtime.cpu_threads() == expected
    monkeypatch.setattr(runtime, "_CGROUP_CPU_MAX", tmp_path / "none")
    assert runtime.cpu_threads() == 8


@pytest.mark.usefixtures("fresh_logging")
def test_log_lines(tmp_path, capsys):
    setup_logging()
    setup_logging(quiet=True)  # replaces, does not double
    with log_file(tmp_path / "train.log"):
        get_logger().info("plain")
        get_logger().warning("mind this")
        get_logger().debug("detail")
    assert capsys.readouterr().out == "mind this\n"
    get_logger().warning("after the block")
    lines = (tmp_path / "train.log").read_text().splitlines()
    assert [line.split(" ", 2)[2] for line in lines] == ["INFO plain", "WARNING mind this"]
    assert lines[0][:2] == "20"
    assert capsys.readouterr().out == "after the block\n"
    setup_logging(verbose=True)
    get_logger().debug("detail")
    assert capsys.readouterr().out == "detail\n"


@pytest.mark.usefixtures("fresh_logging")
def test_what_a_live_line_shows_is_not_said_twice(tmp_path, capsys):
    for verbose, expected in ((False, ""), (True, "step 1\n")):
        setup_logging(verbose=verbose)
        with log_file(tmp_path / "train.log"):
            get_logger().info("step 1", extra={"on_bar": True})
        assert capsys.readouterr().out == expected
    assert (tmp_path / "train.log").read_text().count("INFO step 1") == 2


@pytest.mark.usefixtures("fresh_logging")
def test_bars_on_terminals_unless_quiet(monkeypatch):
    for terminal, quiet, shown, expected in (
        (True, False, True, True),
        (False, False, True, False),
        (True, True, True, False),
        (True, False, False, False),
    ):
        monkeypatch.setattr(sys.stderr, "isatty", lambda terminal=terminal: terminal, raising=False)
        setup_logging(quiet=quiet)
        bar = progress(range(3), "counting", shown=shown)
        assert (not bar.disable) == expected
        assert list(bar) == [0, 1, 2]


@pytest.mark.usefixtures("fresh_logging")
def test_other_ranks_are_silent(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PADDLE_TRAINER_ID", "1")
    with log_file(tmp_path / "train.log"):  # sets up the console, too
        get_logger().log(logging.ERROR, "x")
    assert capsys.readouterr() == ("", "")
    assert not (tmp_path / "train.log").exists()


@pytest.mark.parametrize("status", [None, "/no/such/file"])
def test_peak_memory_counts_what_was_freed(monkeypatch, status):
    if status:  # as where there is no /proc
        monkeypatch.setattr(runtime, "_STATUS", Path(status))
    size = runtime.peak_memory()
    held = np.ones(size + (64 << 20), np.uint8)  # more than the process ever had
    del held
    assert size + (64 << 20) <= runtime.peak_memory() < 3 * size + (256 << 20)


def test_a_full_disk_ends_the_log_file_with_one_warning(tmp_path, capfd):
    (tmp_path / "train.log").symlink_to("/dev/full")
    with log_file(tmp_path / "train.log"):
        for line in ("one", "two"):
            get_logger().info(line)
    told = capfd.readouterr()
    assert told.err == ""
    assert told.out.count("No space left") == 1
    assert told.out.split("\n")[0] == "one"
    assert "two" in told.out


@pytest.mark.parametrize(
    ("device", "flags", "said"),
    [
        ("cpu", {}, "costs nothing"),
        (
            "gpu",
            {"FLAGS_cudnn_deterministic": True, "FLAGS_cudnn_exhaustive_search": False},
            "bilinear upsampling",
        ),
    ],
)
def test_deterministic_mode_tells_its_cost(monkeypatch, device, flags, said):
    found = {}
    monkeypatch.setattr(paddle, "set_flags", found.update)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    assert said in runtime.make_deterministic(device)
    assert found == flags
    assert os.environ.get("CUBLAS_WORKSPACE_CONFIG") == (":4096:8" if flags else None)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
