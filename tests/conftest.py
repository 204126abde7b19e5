"""Paths and fixtures shared by the whole suite."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import liteseg  # noqa: F401  first: its import-order guard must precede Paddle's
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
