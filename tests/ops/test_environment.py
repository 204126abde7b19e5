from __future__ import annotations

import io
import platform

import pytest

from liteseg.ops import environment


@pytest.mark.parametrize(
    ("flags", "machine", "expected"),
    [
        ("sse4a avx2", "x86_64", "5"),
        ("sse4a avx2 avx512f", "x86_64", "7"),
        ("sse4a avx", "x86_64", None),  # too old
        ("avx2 avx512f", "x86_64", None),  # Intel
        ("sse4a avx2", "aarch64", None),
    ],
)
def test_mkl_on_amd(monkeypatch, flags, machine, expected):
    text = f"model name : x\nflags : {flags}\n"
    monkeypatch.setattr(environment, "open", lambda _: io.StringIO(text), raising=False)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(environment.os, "environ", {})
    environment._enable_mkl_on_amd()
    assert environment.os.environ.get("MKL_DEBUG_CPU_TYPE") == expected
    monkeypatch.setattr(environment.os, "environ", {"MKL_DEBUG_CPU_TYPE": "4"})
    environment._enable_mkl_on_amd()
    assert environment.os.environ["MKL_DEBUG_CPU_TYPE"] == "4"
