"""The shell scripts and `setup.py`: everything that runs before the package does."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import ROOT
from packaging.requirements import Requirement

import liteseg
from liteseg.config.check import check
from liteseg.config.load import load_config
from liteseg.doctor.constraints import read_constraints

SCRIPTS = sorted((ROOT / "scripts").glob("*.sh"))
COMMANDS = [path.name for path in SCRIPTS if path.name != "lib.sh"]
CONSTRAINTS = sorted((ROOT / "scripts" / "constraints").glob("*.txt"))
STREETS = [
    f"{split}_dataset.{key}"
    for split in ("train", "val")
    for key in ("type=Streets", "dataset_root=data/streets")
]
SETTINGS = ("MODEL", "SCALE", "RECIPE", "DATA_ROOT", "DEVICES", "OUTPUT", "PYTHON", "PADDLE",
            "NODES", "MASTER", "NODE_RANK")  # fmt: skip

# A Python whose virtual environments hold copies of it, and that logs its arguments.
FAKE_PYTHON = """\
#!/usr/bin/env bash
echo "$(basename "$0") $*" >>"$CALLS"
case "$*" in
    "-m venv --clear "*) mkdir -p "$4/bin" && cp "$0" "$4/bin/python" && cp "$0" "$4/bin/liteseg" ;;
    "train "*) mkdir -p output/quickstart/checkpoints/last ;;
    *json*) echo 0.6543 ;;
esac
"""


@pytest.fixture
def clone(tmp_path) -> Path:
    """A copy of the files that the scripts use, with no environment and no data."""
    for folder in ("scripts", "configs", ".ci"):
        shutil.copytree(ROOT / folder, tmp_path / "clone" / folder)
    shutil.copy(ROOT / "setup.py", tmp_path / "clone")
    return tmp_path / "clone"


@pytest.fixture
def fake_python(tmp_path) -> Path:
    python = tmp_path / "python3"
    python.write_text(FAKE_PYTHON)
    python.chmod(0o755)
    return python


def run(clone: Path, script: str, *args: str, **settings: object) -> subprocess.CompletedProcess:
    """Run a script from a folder that is not the clone's."""
    env = {key: value for key, value in os.environ.items() if key not in SETTINGS}
    env.update({key: str(value) for key, value in settings.items()}, CALLS=str(clone / "calls"))
    command = ["bash", str(clone / "scripts" / script), *args]
    return subprocess.run(command, cwd=clone.parent, env=env, capture_output=True, text=True)


def calls(clone: Path, program: str) -> list[str]:
    lines = (clone / "calls").read_text().splitlines()
    return [line for line in lines if line.startswith(program + " ")]


@pytest.mark.parametrize("path", [*SCRIPTS, ROOT / ".ci" / "run"], ids=lambda path: path.name)
def test_shell_syntax(path):
    assert subprocess.run(["bash", "-n", str(path)]).returncode == 0
    if path.name != "lib.sh":
        assert "\nset -euo pipefail\n" in path.read_text()
    if shutil.which("shellcheck"):
        checked = subprocess.run(
            ["shellcheck", "-x", "-P", "SCRIPTDIR", str(path)], capture_output=True, text=True
        )
        assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_the_command(name, clone):
    done = run(clone, name, "--help")
    assert done.returncode == 0
    assert f"bash scripts/{name}" in done.stdout
    assert "#" not in done.stdout
    assert "pipefail" not in done.stdout


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (
            "train_cityscapes.sh",
            ["leftImg8bit_trainvaltest.zip", "gtFine_trainvaltest.zip", "cityscapes-dataset.com"],
        ),
        ("train_camvid.sh", ["camvid.tar", "SegNet", "trainannot/", "701_StillsRaw_full"]),
    ],
)
def test_missing_data_is_reported_with_its_source(script, words, clone):
    done = run(clone, script)
    assert done.returncode == 2
    assert "quickstart.sh" in done.stderr
    assert all(word in done.stderr for word in words)
    assert f"{clone}/data/" in done.stderr


@pytest.mark.parametrize(
    ("script", "settings", "words"),
    [
        ("train_cityscapes.sh", {"MODEL": "x"}, "t (STDC1) or b (STDC2)"),
        ("train_cityscapes.sh", {"SCALE": "0.25"}, "0.5, 0.75 or 1.0"),
        ("train_camvid.sh", {"RECIPE": "20k"}, "'20k'"),
        ("train_camvid.sh", {"RECIPE": "scratch", "MODEL": "b"}, "'scratch' for MODEL b"),
        ("test.sh", {"PADDLE": "2.5"}, "3.3 and 2.6"),
    ],
)
def test_wrong_settings_are_refused(script, settings, words, clone):
    done = run(clone, script, **settings)
    assert done.returncode == 2
    assert words in done.stderr


@pytest.mark.parametrize(
    "config", sorted((ROOT / "configs" / "pp_liteseg").glob("*.yml")), ids=lambda path: path.stem
)
def test_settings_select_each_config(config, clone, fake_python):
    data = clone / "some data"
    for folder in ("leftImg8bit/train", "leftImg8bit/val", "gtFine/train", "gtFine/val", "train"):
        (data / folder).mkdir(parents=True)
    settings = {"MODEL": "t" if "stdc1" in config.stem else "b"}
    if "cityscapes" in config.stem:
        script, settings["SCALE"] = "train_cityscapes.sh", re.search(r"scale(.+)_", config.stem)[1]
    else:
        script, settings["RECIPE"] = "train_camvid.sh", re.search(r"_\d+x\d+_(.+)", config.stem)[1]

    done = run(clone, script, "--resume", PYTHON=fake_python, DATA_ROOT=data, DEVICES=3, **settings)
    assert done.returncode == 0, done.stderr
    assert calls(clone, "python3")[-1] == (
        f"python3 -m liteseg train --config {clone}/configs/pp_liteseg/{config.name} --devices 3 "
        f"--output {clone}/output/{config.stem} --set train_dataset.dataset_root={data} "
        f"--set val_dataset.dataset_root={data} --resume"
    )


@pytest.mark.parametrize("name", ["cityscapes_1024x512_scale0.5_160k", "camvid_960x720_10k"])
def test_published_recipes_accept_streets_as_the_scripts_suggest(name):
    assert check(load_config(f"pp_liteseg/pp_liteseg_stdc1_{name}", STREETS)) == []


def test_scripts_pass_on_the_nodes(clone, fake_python):
    (clone / "data" / "train").mkdir(parents=True)
    data = {"DATA_ROOT": clone / "data", "PYTHON": fake_python}
    done = run(clone, "train_camvid.sh", NODES=2, **data)
    assert done.returncode == 2
    assert "MASTER must be HOST:PORT" in done.stderr
    done = run(clone, "train_camvid.sh", NODES=2, MASTER="a:6170", NODE_RANK=1, **data)
    assert done.returncode == 0, done.stderr
    assert calls(clone, "python3")[-1].endswith("--node-rank 1 --nodes 2 --master a:6170")


def test_quickstart_reuses_existing_results(clone, fake_python):
    first = run(clone, "quickstart.sh", PYTHON=fake_python)
    assert first.returncode == 0, first.stderr
    assert "0.6543" in first.stdout
    assert f"{clone}/.venv/bin/visualdl --logdir {clone}/output/quickstart/vdl" in first.stdout
    assert f"{clone}/output/quickstart/overlays" in first.stdout
    verbs = [line.split()[1] for line in calls(clone, "liteseg")]
    assert verbs == ["data", "train", "eval", "predict"]
    assert "--resume" not in calls(clone, "liteseg")[1]

    (clone / "calls").unlink()
    second = run(clone, "quickstart.sh")
    assert second.returncode == 0, second.stderr
    assert "--resume" in calls(clone, "liteseg")[1]
    assert not [line for line in calls(clone, "python") if "pip install" in line]

    (clone / "setup.py").write_text("changed")
    (clone / "calls").unlink()
    assert run(clone, "quickstart.sh").returncode == 0
    assert [line for line in calls(clone, "python") if "pip install" in line]


def test_unusable_python_is_reported(clone, fake_python):
    missing = run(clone, "quickstart.sh", PYTHON="/no/such/python")
    assert missing.returncode == 2
    assert "No Python 3.9 to 3.13 among: /no/such/python" in missing.stderr

    fake_python.write_text("#!/bin/sh\ncase $* in *ensurepip*) exit 1;; esac\n")
    bare = run(clone, "quickstart.sh", PYTHON=fake_python)
    assert bare.returncode == 2
    assert "apt-get install -y python3-venv" in bare.stderr


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")
def test_git_ignores_no_source_file():
    folders = ["liteseg", "configs", "scripts", "tests"]
    command = ["git", "ls-files", "--others", "--ignored", "--exclude-standard", *folders]
    ignored = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert [path for path in ignored.splitlines() if "__pycache__" not in path] == []


FAKE_APT = """\
#!/usr/bin/env bash
echo "apt-get $*" >>"$CALLS"
[[ $1 == update || $(grep -c "apt-get install" "$CALLS") -gt 1 ]]
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root installs packages")
def test_ci_installs_chromium(clone, fake_python, tmp_path):
    """With one retry; on a machine that has the tools below and no browser."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in ("bash", "basename", "cat", "cksum", "cp", "dirname", "grep", "mkdir", "mktemp"):
        (folder / tool).symlink_to(shutil.which(tool))
    for tool, text in (("apt-get", FAKE_APT), ("sleep", "#!/bin/sh\n"), ("sed", "#!/bin/sh\n")):
        (folder / tool).write_text(text)
        (folder / tool).chmod(0o755)
    done = run(clone, "../.ci/run", PYTHON=fake_python, PATH=folder)
    assert done.returncode == 0, done.stderr
    assert len(calls(clone, "apt-get")) == 4
    assert (
        calls(clone, "apt-get")[-1]
        == "apt-get install -y --no-install-recommends chromium iproute2"
    )
    tests = [line for line in calls(clone, "python") if "-m pytest" in line]
    assert len(tests) == 2
    for argument in re.findall(r"tests/\S+", tests[1]):
        assert (ROOT / argument).exists()


@pytest.fixture
def package(monkeypatch) -> dict:
    """The arguments of `setuptools.setup` in setup.py."""
    arguments: dict = {}
    fake = SimpleNamespace(
        setup=lambda **given: arguments.update(given), find_packages=lambda **_: []
    )
    monkeypatch.setitem(sys.modules, "setuptools", fake)
    runpy.run_path(str(ROOT / "setup.py"))
    return arguments


def test_setup_has_the_version_of_the_package(package):
    assert package["version"] == liteseg.__version__


@pytest.mark.parametrize("path", CONSTRAINTS, ids=lambda path: path.stem)
def test_tested_sets_pin_every_requirement(path, package):
    lines = [line.partition("#")[0].strip() for line in path.read_text().splitlines()]
    pins = [Requirement(line) for line in lines if line]
    extras = package["extras_require"]
    for minor in range(9, 13):
        python = {"python_version": f"3.{minor}"}
        for text in [*package["install_requires"], *extras["cpu"], *extras["test"]]:
            wanted = Requirement(text)
            if wanted.marker and not wanted.marker.evaluate(python):
                continue
            (pin,) = [
                pin
                for pin in pins
                if pin.name == wanted.name and (not pin.marker or pin.marker.evaluate(python))
            ]
            (version,) = pin.specifier
            assert version.operator == "=="
            assert wanted.specifier.contains(version.version), (path.name, minor, text)


@pytest.mark.parametrize("minor", [11, 12])
def test_tested_set_pins_the_export_extra(minor, package):
    pins = read_constraints(minor)[0].pins
    for wanted in map(Requirement, package["extras_require"]["export"]):
        assert wanted.specifier.contains(pins[wanted.name]), wanted


def test_wheel_contains_every_config(package):
    patterns = package["package_data"]["liteseg.configs"]
    configs = ROOT / package["package_dir"]["liteseg.configs"]
    packed = {path for pattern in patterns for path in configs.glob(pattern)}
    assert packed == set(configs.rglob("*.yml"))
