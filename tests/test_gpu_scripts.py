"""scripts/gpu without a GPU: the search for missing kernels, and its last result."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys

import paddle
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


def check(*arguments):
    command = ["bash", str(ROOT / "scripts" / "gpu_check.sh"), *arguments]
    environment = {**os.environ, "PYTHON": sys.executable}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_without_a_gpu_the_check_ends_with_a_message():
    if paddle.device.cuda.device_count():
        pytest.skip("this machine has a GPU")
    done = check()
    assert done.returncode == 2
    assert "gpu_check: device: 'gpu' was requested, but" in done.stderr
    assert "--device cpu --quick tries the check itself" in done.stderr
    assert done.stdout == ""


def test_parts_of_the_check_on_the_cpu(tmp_path):
    parts = ("step", "selection", "export")
    path = tmp_path / "gpu.json"
    done = check("--device", "cpu", "--quick", "--json", str(path), "--only", *parts)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(path.read_text())
    assert (result["device"], result["paddle"]) == ("cpu", paddle.__version__)
    jobs = result["jobs"]
    assert list(jobs) == ["step, CPU and device", "sort and kthvalue", "export"]
    assert all(values["passed"] for values in jobs.values())
    assert jobs["step, CPU and device"]["loss_difference"] < 1e-5
    assert all(values["summary"] in done.stdout for values in jobs.values())


def test_a_job_that_fails_or_hangs_costs_one_row(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(GPU))
    script = importlib.import_module("check")
    arguments = ["--device", "cpu", "--folder", str(tmp_path)]
    hanging = script.run_job(script.Job("slow", "selection"), arguments, timeout=0)
    assert hanging == {"passed": False, "error": "no result within 0 s"}
    wrong = script.run_job(script.Job("wrong", "selection", {"size": 3}), arguments, timeout=60)
    assert wrong["error"].startswith("TypeError: selection() got an unexpected keyword argument")
    job = script.Job("crash", "selection", environment={"PYTHONHOME": "/nowhere"})
    crash = script.run_job(job, arguments, timeout=60)
    assert crash["error"].startswith("exit code ")
    assert "\n".join(crash["log"]).count("encodings")


def test_every_part_is_run_by_a_job(monkeypatch):
    monkeypatch.syspath_prepend(str(GPU))
    script, parts = importlib.import_module("check"), importlib.import_module("parts")
    assert {job.part for job in script.JOBS} == set(parts.PARTS)
