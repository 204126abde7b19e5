"""scripts/gpu without a GPU: the search for missing kernels, and its last result."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys

import pytest
from conftest import ROOT

GPU = ROOT / "scripts" / "gpu"


@pytest.fixture
def kernels(monkeypatch):
    monkeypatch.syspath_prepend(str(GPU))
    return importlib.import_module("kernels")


def test_the_last_result_has_a_gpu_kernel_for_every_operator():
    result = json.loads((GPU / "kernels.json").read_text())
    assert result["paddle"] == "2.6.2"
    assert result["missing"] == []
    assert result["pairs"]["all"] >= 100
    recorded = result["kernels"]
    # Forward, backward, each optimizer, mixed precision and several GPUs.
    for name in (
        *("conv2d", "conv2d_grad", "batch_norm_grad", "bilinear_interp_grad", "argsort"),
        *("merged_momentum", "adam", "adamw", "update_loss_scaling", "sync_batch_norm_grad"),
    ):
        assert "float32" in recorded[name]
    # One thread block for a row of all pixels.
    assert not {"kthvalue", "topk"} & recorded.keys()


def test_kernels_are_read_from_the_log(kernels):
    prefix = "I1128 06:11:40.899688 15953 api.cc:15026] "
    key = kernels._KERNEL.search(f"{prefix}argsort API kernel key: [CPU, NCHW, float32]")
    assert (key[1], key[2]) == ("float32", None)
    key = kernels._KERNEL.search(f"{prefix}full API kernel key: [CPU, Undefined(AnyLayout), int64]")
    assert key[1] == "int64"
    name = kernels._KERNEL.search(f'{prefix}argsort kernel: {{"input":["CPU, NCHW, float32"]')
    assert (name[1], name[2]) == (None, "argsort")


def test_missing_kernels(kernels):
    gpu = {"relu": {"float32", "float16"}, "shape": {"Undefined"}}
    pairs = [("relu", "float32"), ("relu", "bfloat16"), ("shape", "int64"), ("nms", "float32")]
    assert kernels.missing(pairs, gpu) == ["nms float32", "relu bfloat16"]


def test_a_cpu_build_is_refused():
    done = subprocess.run([sys.executable, str(GPU / "kernels.py")], capture_output=True, text=True)
    assert done.returncode == 1
    assert "has no GPU kernels: install paddlepaddle-gpu" in done.stderr
