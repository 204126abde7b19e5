"""Ranks, cores and memory of the process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from liteseg.utils import runtime


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


@pytest.mark.parametrize("status", [None, "/no/such/file"])
def test_peak_memory_includes_freed_memory(monkeypatch, status):
    if status:  # as without /proc
        monkeypatch.setattr(runtime, "_STATUS", Path(status))
    size = runtime.peak_memory()
    held = np.ones(size + (64 << 20), np.uint8)  # more than the peak so far
    del held
    assert size + (64 << 20) <= runtime.peak_memory() < 3 * size + (256 << 20)
