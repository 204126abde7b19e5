"""The package as a wheel has it, used from a folder of its own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from conftest import ROOT

from liteseg import __version__

NAME = "pp_liteseg/pp_liteseg_stdc1_cityscapes_1024x512_scale0.5_160k"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """What `pip install .` puts into site-packages, without its metadata."""
    folder = tmp_path_factory.mktemp("built")
    lib = folder / "lib"
    build = ["build", "--build-base", str(folder / "build"), "--build-lib", str(lib)]
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", *build], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return lib


@pytest.fixture
def run(installed, tmp_path):
    """Run the installed package's command in an empty folder."""

    def call(*arguments, code=0):
        done = subprocess.run(
            [sys.executable, "-m", "liteseg", *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(installed)},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == code, done
        return done.stdout + done.stderr

    return call


def test_every_file_is_in_it(installed):
    def below(folder, pattern):
        return {path.relative_to(folder) for path in folder.rglob(pattern)}

    assert below(installed / "liteseg", "*.py") == below(ROOT / "liteseg", "*.py")
    assert below(installed / "liteseg" / "configs", "*.yml") == below(ROOT / "configs", "*.yml")
    constraints = below(ROOT / "scripts" / "constraints", "*.txt")
    assert below(installed / "liteseg" / "constraints", "*.txt") == constraints
    assert os.listdir(installed) == ["liteseg"]


def test_version(run):
    assert run("--version").strip() == f"liteseg {__version__}"


def test_configs_by_name_from_any_folder(run, installed):
    assert run("config", "check", NAME, "quickstart") == f"{NAME}: ok\nquickstart: ok\n"
    shown = run("config", "show", NAME)
    assert str(installed / "liteseg" / "configs" / "_base_" / "cityscapes.yml") in shown
    assert "did you mean" in run("config", "check", "pp_liteseg_stdc1_cityscape", code=2)


def test_the_tested_versions_come_along(run, installed):
    found = run("doctor", "--help")
    assert "--output" in found
    code = "from liteseg.doctor.constraints import read_constraints as r; print(r()[0].path)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=installed,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == str(installed / "liteseg" / "constraints" / "paddle-3.3.txt")
