"""The checks of `liteseg doctor`, each on a machine that has the problem it detects."""

from __future__ import annotations

import re
import shutil
import sys
from collections import namedtuple

import pytest
from conftest import ROOT

from liteseg.doctor import machine, packages
from liteseg.doctor.constraints import read_constraints
from liteseg.doctor.findings import ChildResult, run_child

NEWEST, OLDEST = read_constraints()
SOUND = {name: NEWEST.pins[name] for name in ("paddlepaddle", *packages.RUNTIME)}


@pytest.fixture
def having(monkeypatch):
    """Sets the installed packages."""

    def change(found):
        def installed(names):
            return {name: found[name] for name in names if name in found}

        monkeypatch.setattr(packages, "installed", installed)

    return change


def without(*names):
    return {name: version for name, version in SOUND.items() if name not in names}


def test_sound_packages(having):
    having(SOUND)
    (paddle,) = packages.check_paddle()
    assert paddle[:3] == ("Paddle", "ok", "paddlepaddle 3.3.1, as tested")
    assert [finding.state for finding in packages.check_packages()] == ["ok"]


@pytest.mark.parametrize(
    ("changes", "state", "found", "fix"),
    [
        ({"paddlepaddle": "3.3.0"}, "note", "paddlepaddle 3.3.0; tested: 3.3.1, 2.6.2", "==3.3.1"),
        ({"paddlepaddle": "2.6.1"}, "note", "tested: 3.3.1, 2.6.2", "paddlepaddle==2.6.2"),
        ({"paddlepaddle": "2.4.2"}, "bad", "paddlepaddle 2.4.2", "paddlepaddle==3.3.1"),
        ({"paddlepaddle": "0.0.0"}, "note", "paddlepaddle 0.0.0", "paddlepaddle==3.3.1"),
        ({"paddlepaddle": "3.3.1+mkl"}, "ok", "paddlepaddle 3.3.1+mkl, as tested", ""),
        ({"paddlepaddle-gpu": "3.3.1"}, "bad", "overwrite each other", "pip uninstall -y paddle"),
    ],
)
def test_other_paddles(having, changes, state, found, fix):
    having({**SOUND, **changes})
    (finding,) = packages.check_paddle()
    assert finding.state == state
    assert found in finding.found
    assert fix in finding.fix
    assert bool(finding.fix) == (state != "ok")


def test_no_paddle(having):
    having(without("paddlepaddle"))
    (finding,) = packages.check_paddle()
    assert finding.state == "bad"
    line = f"{sys.executable} -m pip install paddlepaddle==3.3.1 -c {NEWEST.path}"
    assert finding.fix.startswith(line)
    assert packages.check_device() == packages.check_import_order() == []


@pytest.mark.parametrize(
    ("paddle", "numpy", "symptom"),
    [
        ("3.3.1", "2.4.0", "TypeError"),
        ("3.3.1", "2.3.9", None),
        ("2.6.2", "2.0.0rc1", "does not import"),
        ("2.6.2", "1.26.4", None),
        ("2.6.2", "1.26.0", None),
    ],
)
def test_numpy_limits(having, paddle, numpy, symptom):
    having({**SOUND, "paddlepaddle": paddle, "numpy": numpy})
    found = [finding for finding in packages.check_packages() if finding.check == "numpy"]
    assert [finding.state for finding in found] == (["bad"] if symptom else [])
    if symptom:
        pin = (NEWEST if paddle == "3.3.1" else OLDEST).pins["numpy"]
        assert symptom in found[0].found
        assert f"numpy=={pin} -c " in found[0].fix


def test_missing_and_other_versions(having):
    having({**without("tqdm", "pillow"), "pyyaml": "5.0"})
    missing, other = packages.check_packages()
    assert (missing.state, missing.found) == ("bad", "missing: pillow, tqdm")
    assert f"pillow=={NEWEST.pins['pillow']} tqdm==" in missing.fix
    assert (other.state, other.found) == ("note", "pyyaml 5.0 (tested 6.0.3)")
    having(without("visualdl"))
    assert packages.check_packages()[0].state == "note"


def test_headless_opencv_is_accepted(having):
    version = SOUND["opencv-python"]
    having({**without("opencv-python"), "opencv-python-headless": version})
    assert [finding.state for finding in packages.check_packages()] == ["ok"]
    having({**SOUND, "opencv-python-headless": version})
    (twice,) = packages.check_packages()
    assert "opencv-python and opencv-python-headless overwrite" in twice.found


def test_runtime_packages_are_those_of_setup():
    setup = (ROOT / "setup.py").read_text()
    required = re.findall(
        r'"([\w-]+)[<>=]', setup.partition("install_requires")[2].partition("]")[0]
    )
    # protobuf comes with visualdl
    assert {*required, "protobuf"} == set(packages.RUNTIME)


@pytest.mark.parametrize(
    ("version", "paddle", "state"),
    [((3, 9, 1), "3.3.1", "ok"), ((3, 13, 0), "2.6.2", "note"), ((3, 8, 0), "3.3.1", "bad")],
)
def test_pythons(having, monkeypatch, version, paddle, state):
    having({**SOUND, "paddlepaddle": paddle})
    monkeypatch.setattr(packages.sys, "version_info", version)
    assert packages.check_python()[0].state == state


FACTS = {"version": "2.6.2", "seconds": 1.0, "stage": "x", "cuda_build": True, "device": "cpu"}


@pytest.mark.parametrize(
    ("reported", "problem", "driver", "state", "words"),
    [
        ({"device": "cpu"}, None, False, "note", "finds no GPU"),
        ({"device": "cpu"}, None, True, "note", "nvidia-smi"),
        ({"device": "cpu", "cuda_build": False}, None, True, "note", "lists no GPU"),
        ({"device": "cpu", "cuda_build": False}, None, False, "ok", "CPU"),
        (
            {"device": "gpu", "gpus": [["GTX 1080 Ti", 11 * 2**30]], "cuda": "11.8"},
            *(None, True, "ok", "GTX 1080 Ti 11 GiB; CUDA 11.8"),
        ),
        ({"stage": "convolution"}, "no kernel image", True, "bad", "convolution fails: no kernel"),
        ({}, "ImportError: libgomp.so.1: cannot open", False, "bad", "apt-get install -y libgomp1"),
        ({}, "TypeError: only 0-dimensional arrays", False, "bad", "pip install numpy=="),
        ({}, "ModuleNotFoundError: No module named 'setuptools'", False, "bad", "install setupto"),
    ],
)
def test_devices(having, monkeypatch, reported, problem, driver, state, words):
    having(SOUND)
    monkeypatch.setattr(
        packages, "run_child", lambda code: ChildResult({**FACTS, **reported}, problem)
    )
    monkeypatch.setattr(packages.nvidia, "has_driver", lambda: driver)
    version, finding = packages.check_device()
    assert version.found == "2.6.2 in 1.0 s"
    assert finding.state == state
    assert words in f"{finding.found} {finding.fix}"


GPU = {"device": "gpu", "gpus": [["H100", 80 * 2**30]], "cuda": "11.8", "cudnn": 8906}
H100 = "NVIDIA H100 80GB HBM3, 550.54.15, 9.0"
CU126 = "paddlepaddle-gpu==3.3.1 -i https://www.paddlepaddle.org.cn/packages/stable/cu126/"


@pytest.mark.parametrize(
    ("reported", "problem", "findings"),
    [
        (GPU, None, [("GPU", "bad", "has no code for NVIDIA H100"), ("cuDNN", "ok", "8.9.6")]),
        ({**GPU, "cuda": "12.6", "cudnn": 90501}, None, [("cuDNN", "ok", "9.5.1")]),
        (
            {**GPU, "cuda": "12.6", "cudnn": 0},
            "killed by SIGABRT",
            [("cuDNN", "bad", "does not contain it"), ("Paddle", "bad", "killed by SIGABRT")],
        ),
        (
            {"device": "cpu", "cuda_build": False},
            None,
            [("device", "note", "is the CPU build, but the machine has NVIDIA H100")],
        ),
    ],
)
def test_a_machine_with_a_gpu(having, monkeypatch, nvidia_smi, reported, problem, findings):
    having(SOUND)
    nvidia_smi(H100)
    monkeypatch.setattr(
        packages, "run_child", lambda code: ChildResult({**FACTS, **reported}, problem)
    )
    found = packages.check_device()[1:]
    for (check, state, words), finding in zip(findings, found):
        assert (finding.check, finding.state) == (check, state)
        assert words in finding.found
        assert CU126 in finding.fix or state == "ok"


@pytest.mark.parametrize("paddle", [{}, {"paddlepaddle": "3.3.1", "paddlepaddle-gpu": "2.6.2"}])
def test_the_package_for_the_gpu_is_recommended(having, nvidia_smi, paddle):
    having({**without("paddlepaddle"), **paddle})
    nvidia_smi(H100)
    assert CU126 in packages.check_paddle()[0].fix


def test_results_of_child_processes():
    assert run_child("print('{\"a\": 1}'); print('noise'); print('{\"b\": 2}')") == ChildResult(
        {"a": 1, "b": 2}, None
    )
    reported, problem = run_child("print('{\"a\": 1}', flush=True); import os; os.abort()")
    assert (reported, problem) == ({"a": 1}, "killed by SIGABRT")
    assert run_child("raise ValueError('why')").problem == "ValueError: why"
    assert run_child("import sys; sys.exit(7)").problem == "exit code 7"
    assert run_child("import sys; assert sys.argv[1:] == ['x', 'y']", "x", "y").problem is None


def test_cpu(monkeypatch):
    monkeypatch.setattr(machine, "cpu_threads", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as Paddle sets it on import
    monkeypatch.setenv("MKL_DEBUG_CPU_TYPE", "5")
    (finding,) = machine.check_cpu()
    assert finding.state == "ok"
    assert "8 of " in finding.found
    assert "MKL_DEBUG_CPU_TYPE=5" in finding.found
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert machine.check_cpu()[0].fix == "unset OMP_NUM_THREADS"


def test_memory(monkeypatch):
    for free, state in ((8 << 30, "ok"), (1 << 30, "note"), (None, "ok")):
        monkeypatch.setattr(machine, "_free_memory", lambda free=free: free)
        assert machine.check_memory()[0].state == state


Usage = namedtuple("Usage", "total used free")


@pytest.mark.parametrize(("free", "state"), [(64 << 20, "note"), (2 << 30, "ok")])
def test_shared_memory_and_disk_space(monkeypatch, tmp_path, free, state):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(free, 0, free))
    (finding,) = machine.check_shared_memory()
    assert finding.state == state
    assert ("--shm-size" in finding.fix) == (state == "note")
    assert machine.check_disk(tmp_path)[0].state == state
    assert machine.check_shared_memory(tmp_path / "missing")[0].state == state


def test_no_shared_memory(tmp_path):
    assert machine.check_shared_memory(tmp_path / "missing") == []


def test_output_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    (finding,) = machine.check_disk(tmp_path / "file" / "runs")
    assert finding.state == "bad"
    assert "cannot write in" in finding.found
    assert machine.check_disk(tmp_path / "a" / "b")[0].state == "ok"
    assert not (tmp_path / "a").exists()


def test_dashboard_does_not_answer(monkeypatch):
    monkeypatch.setattr(machine, "_SERVE", "import time; time.sleep(60)")
    (finding,) = machine.check_dashboard(seconds=0.5)
    assert (finding.state, finding.found) == ("note", "the server fails: no answer within 0.5 s")
    monkeypatch.setattr(machine, "_SERVE", "raise OSError('no port')")
    assert machine.check_dashboard()[0].found == "the server fails: OSError: no port"
