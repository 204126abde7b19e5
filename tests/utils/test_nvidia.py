"""The Paddle package recommended for a machine's GPUs and driver, from a fake `nvidia-smi`."""

from __future__ import annotations

import sys

import pytest

from liteseg.doctor.constraints import read_constraints
from liteseg.utils import nvidia

H100, A100 = "NVIDIA H100 80GB HBM3, 550.54.15, 9.0", "NVIDIA A100-SXM4-80GB, 535.104.05, 8.0"


def test_gpus_of_this_machine(nvidia_smi):
    nvidia_smi(H100, A100)
    assert nvidia.has_driver()
    first, second = nvidia.read_gpus()
    assert first == ("NVIDIA H100 80GB HBM3", "550.54.15", (9, 0))
    assert str(second) == "NVIDIA A100-SXM4-80GB, compute capability 8.0, driver 535.104.05"


def test_old_drivers_do_not_report_the_capability(nvidia_smi):
    nvidia_smi("Tesla V100-SXM2-16GB, 470.82.01")
    (gpu,) = nvidia.read_gpus()
    assert str(gpu) == "Tesla V100-SXM2-16GB, driver 470.82.01"
    assert nvidia.suitable_build([gpu])[0] == "cu118"


def test_a_driver_without_a_gpu(nvidia_smi):
    nvidia_smi("No devices were found")
    assert nvidia.read_gpus() == ()


def test_no_driver(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    nvidia.read_gpus.cache_clear()
    assert nvidia.read_gpus() == ()
    nvidia.read_gpus.cache_clear()


@pytest.mark.parametrize(
    ("rows", "build"),
    [
        ([H100], "cu126"),
        (["NVIDIA H200, 570.86.15, 9.0"], "cu126"),
        (["NVIDIA B200, 570.86.15, 10.0"], "cu129"),
        (["NVIDIA GeForce RTX 5090, 575.57.08, 12.0"], "cu129"),
        ([A100], "cu126"),
        (["Tesla T4, 525.60.13, 7.5"], "cu126"),
        (["Tesla V100-SXM2-16GB, 470.82.01, 7.0"], "cu118"),
        (["NVIDIA GeForce GTX 1080 Ti, 450.80.02, 6.1"], "cu118"),
        (["NVIDIA GeForce RTX 4090, 535.54.03, 8.9", A100], "cu126"),
    ],
)
def test_build_for_a_machine(nvidia_smi, rows, build):
    nvidia_smi(*rows)
    line = nvidia.install_command(nvidia.read_gpus())
    index = f"-i https://www.paddlepaddle.org.cn/packages/stable/{build}/"
    package = f"paddlepaddle-gpu=={nvidia.PADDLE}"
    remove = f"{sys.executable} -m pip uninstall -y paddlepaddle paddlepaddle-gpu"
    assert line == f"{remove} && {sys.executable} -m pip install {package} {index}"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("NVIDIA H100 PCIe, 470.82.01, 9.0", "update the NVIDIA driver 470 to 525 or newer"),
        ("NVIDIA B200, 550.54.15, 10.0", "update the NVIDIA driver 550 to 570 or newer"),
        ("Tesla K80, 470.82.01, 3.7", "no package of Paddle has code for Tesla K80"),
        ("Tesla P100-PCIE-16GB, 535.54.03, 6.0", "they start at 6.1"),
        ("Tesla T4, 418.87.00, 7.5", "update the NVIDIA driver 418 to 525"),
    ],
)
def test_machines_without_a_build(nvidia_smi, row, reason):
    nvidia_smi(row)
    assert reason in nvidia.install_command(nvidia.read_gpus())


@pytest.mark.parametrize(
    ("cuda", "capability", "lacks"),
    [
        ("11.8", (9, 0), True),
        ("11.8", (8, 9), False),
        ("12.6", (9, 0), False),
        ("12.6", (10, 0), True),
        ("12.9", (12, 0), False),
        ("11.8", (6, 0), True),
        ("False", (9, 0), False),
    ],
)
def test_code_in_an_installed_paddle(cuda, capability, lacks):
    assert nvidia.lacks_code(cuda, nvidia.Gpu("GPU", "550.54", capability)) == lacks


def test_the_recommended_version_is_the_newest_tested_one():
    assert read_constraints()[0].pins["paddlepaddle"] == nvidia.PADDLE
