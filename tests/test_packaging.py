"""The package as in a wheel, used from another folder, and its public names."""

from __future__ import annotations

import ast
import os
import subprocess
import sys

import pytest
from conftest import ROOT

import liteseg
from liteseg import __version__

NAME = "pp_liteseg/pp_liteseg_stdc1_cityscapes_1024x512_scale0.5_160k"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The files that `pip install .` copies to site-packages, without metadata."""
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


def test_every_file_is_installed(installed):
    def below(folder, pattern):
        return {path.relative_to(folder) for path in folder.rglob(pattern)}

    for pattern in ("*.py", "*.jinja", "py.typed"):
        assert below(installed / "liteseg", pattern) == below(ROOT / "liteseg", pattern) != set()
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


def test_tested_versions_are_installed(run, installed):
    assert "--output" in run("doctor", "--help")
    code = "from liteseg.doctor.constraints import read_constraints as r; print(r()[0].path)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=installed,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == str(installed / "liteseg" / "constraints" / "paddle-3.3.txt")


def test_public_names_are_the_same_for_users_and_type_checkers():
    tree = ast.parse((ROOT / "liteseg" / "__init__.py").read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    typed = {alias.name: node.module for node in block.body for alias in node.names}
    assert typed == liteseg._MODULES
    assert {*typed, "__version__"} == set(liteseg.__all__) == set(dir(liteseg))
