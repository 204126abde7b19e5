"""Paths and fixtures shared by the whole suite."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import liteseg  # first: its import-order guard must precede Paddle's
from liteseg.utils.logging import get_logger

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "tests" / "golden"
SHARED_DATA = ROOT.parent / "shared" / "data"
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# A container has no sandbox and often no GPU; Chromium's own services need the internet.
CHROMIUM_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of reference values."""
    return GOLDEN


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real CamVid and Cityscapes images; tests that need them are skipped without them."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"needs the real images at {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture(scope="session")
def streets(tmp_path_factory) -> Path:
    """A tiny Streets dataset: four images to train on, two to evaluate on."""
    from liteseg.tasks.data import make_streets

    root = tmp_path_factory.mktemp("data") / "streets"
    return make_streets(root, train=4, val=2, size=(128, 64))


@pytest.fixture(scope="session")
def streets_config(streets, tmp_path_factory) -> Path:
    """The config of a training of four iterations on it."""
    from streets_run import write_config

    return write_config(tmp_path_factory.mktemp("config") / "tiny.yml", streets)


@pytest.fixture(scope="session")
def streets_run(streets_config, tmp_path_factory) -> Path:
    """The run directory of that training; tests must not change it."""
    run = tmp_path_factory.mktemp("trained") / "run"
    liteseg.train(streets_config, output=run)
    return run


@pytest.fixture(scope="session")
def filled_run(tmp_path_factory) -> Path:
    """A run directory with filled weights, next to three labeled images; see `filled_run.py`."""
    from filled_run import make_run

    return make_run(tmp_path_factory.mktemp("filled"))


@pytest.fixture(scope="session")
def exported(filled_run):
    """Returns the folder of `filled_run` exported in a format; exports each format once."""
    from filled_run import EXPORT_PACKAGES

    folders: dict[str, Path] = {}

    def export(format: str) -> Path:
        for package in EXPORT_PACKAGES[format]:
            pytest.importorskip(package, reason=f"{package} is not installed: the extra `export`")
        if format not in folders:
            folder = filled_run.parent / format
            folders[format] = liteseg.export(filled_run, format, folder).output
        return folders[format]

    return export


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """Puts an `nvidia-smi` on the path that prints rows "name, driver, compute capability"."""
    from liteseg.utils import nvidia

    def install(*rows: str) -> None:
        nvidia.read_gpus.cache_clear()
        program = tmp_path / "bin" / "nvidia-smi"
        program.parent.mkdir(exist_ok=True)
        text = "\n".join(rows)
        unknown = "compute_cap" if text.count(",") < 2 * len(rows) else "nothing"
        program.write_text(
            f"#!{sys.executable}\nimport sys\n"
            f"if {unknown!r} in sys.argv[1]:\n"
            '    sys.exit("Field \\"compute_cap\\" is not a valid field to query.")\n'
            f"print({text!r})\n"
        )
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)

    nvidia.read_gpus.cache_clear()
    yield install
    nvidia.read_gpus.cache_clear()


@pytest.fixture
def browser():
    """Headless Chromium, driven by Playwright: $CHROMIUM, or the one that is installed."""
    playwright = pytest.importorskip("playwright.sync_api")
    program = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, CHROMIUM)), None)
    if program is None:
        pytest.skip("needs Chromium (Debian: apt-get install chromium)")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=program, args=CHROMIUM_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(autouse=True)
def _reset_logger() -> Iterator[None]:
    """Undo the logging setup of commands that run in this process, before and after each test.

    Otherwise files in removed folders stay open and `caplog` sees nothing. Fixtures of a module run
    commands before this one starts.
    """
    _remove_handlers()
    yield
    _remove_handlers()


def _remove_handlers() -> None:
    logger = get_logger()
    for handler in logger.handlers:
        handler.close()
    logger.handlers[:], logger.propagate = [], True
    logger.setLevel(logging.NOTSET)
