"""Paths and fixtures shared by the whole suite."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

import liteseg  # noqa: F401  first: its import-order guard must precede Paddle's
from liteseg.utils.logging import get_logger

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "tests" / "golden"
SHARED_DATA = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of reference figures copied into the repository."""
    return GOLDEN


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real CamVid and Cityscapes images; tests that need them are skipped where they are not."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"needs the real images at {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture(autouse=True)
def _untouched_logger() -> Iterator[None]:
    """Commands run in this process set the logger up for themselves; tests must not notice.

    Files in removed folders would stay open, and `caplog` would see nothing. Before a test, too:
    a module's fixtures run commands before this one is asked.
    """
    _reset_logger()
    yield
    _reset_logger()


def _reset_logger() -> None:
    logger = get_logger()
    for handler in logger.handlers:
        handler.close()
    logger.handlers[:], logger.propagate = [], True
    logger.setLevel(logging.NOTSET)
