"""`liteseg doctor` on this machine, without packages, and with broken packages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv

import pytest
from conftest import ROOT

from liteseg.cli import main


def doctor(python, folder, *paths, command="doctor"):
    """Run the command with another interpreter, or with other packages first on its path."""
    path = os.pathsep.join(str(path) for path in (*paths, ROOT))
    done = subprocess.run(
        [python, "-m", "liteseg", *command.split()],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert "Traceback" not in done.stdout + done.stderr, done
    return done.returncode, done.stdout + done.stderr


def test_this_machine(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = main(["doctor", "--output", "runs/one", "--json", "report.json"])
    out = capfd.readouterr().out
    findings = json.loads((tmp_path / "report.json").read_text())["findings"]
    bad = [finding for finding in findings if finding["state"] == "bad"]
    assert code == (2 if bad else 0)
    seen = {finding["check"]: finding for finding in findings}
    assert seen["import paddle"]["state"] == "ok"
    assert seen["VisualDL"]["found"].startswith("the server answered")
    assert seen["output"]["found"].startswith("runs/one can be written")
    assert os.listdir(tmp_path) == ["report.json"]
    assert len(out.splitlines()) <= 24
    assert all(finding["found"] in out for finding in findings)


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory):
    """A Python without any package."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, symlinks=True)
    return folder / "bin" / "python"


def test_no_packages_at_all(bare_python, tmp_path):
    code, out = doctor(bare_python, tmp_path)
    assert code == 2
    assert f"bad   Paddle         not installed\n{'':21}-> {bare_python} -m pip install" in out
    assert "missing: numpy, opencv-python, pillow, pyyaml, tqdm, visualdl, protobuf" in out
    assert "cv2: ModuleNotFoundError: No module named 'cv2'" in out
    assert "VisualDL       not installed" in out


@pytest.mark.parametrize("command", ["train --config quickstart", "config show quickstart"])
def test_other_commands_without_packages(command, bare_python, tmp_path):
    code, out = doctor(bare_python, tmp_path, command=command)
    assert code == 2
    assert "can't be imported (No module named" in out
    assert "run `liteseg doctor` for the fix" in out


BROKEN = {
    "paddle": "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
    "cv2": "raise ImportError('libGL.so.1: cannot open shared object file')",
    "visualdl": "raise TypeError('Descriptors cannot be created directly')",
}


def test_broken_packages(tmp_path):
    for name, code in BROKEN.items():
        (tmp_path / "broken" / name).mkdir(parents=True)
        (tmp_path / "broken" / name / "__init__.py").write_text(code)
    code, out = doctor(sys.executable, tmp_path, tmp_path / "broken")
    assert code == 2
    assert "bad   Paddle         import of Paddle fails: killed by SIGSEGV" in out
    assert "bad   imports        cv2: ImportError: libGL.so.1" in out
    assert "apt-get install -y libgl1 libglib2.0-0  (without root: " in out
    assert "uninstall -y opencv-python" in out
    assert "opencv-python-headless==" in out
    assert "the server fails: TypeError: Descriptors" in out
    assert "killed by SIGSEGV" in out.partition("import order")[2]


def test_a_system_library_of_opencv_is_not_blamed_on_paddle(tmp_path):
    (tmp_path / "broken" / "cv2").mkdir(parents=True)
    (tmp_path / "broken" / "cv2" / "__init__.py").write_text(BROKEN["cv2"])
    _, out = doctor(sys.executable, tmp_path, tmp_path / "broken")
    assert "bad   OpenCV" in out
    assert "bad   Paddle" not in out
    assert "install paddlepaddle" not in out
    code, out = doctor(
        sys.executable, tmp_path, tmp_path / "broken", command="data check --config quickstart"
    )
    assert code == 2
    assert "cv2 can't be imported (libGL.so.1: cannot open shared object file)" in out
