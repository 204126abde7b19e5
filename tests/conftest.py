"""Paths and fixtures shared by the whole suite."""

from __future__ import annotations

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
def _logger_as_before() -> Iterator[None]:
    """Commands run in this process set the logger up for themselves; later tests must not notice.

    Files in removed folders would stay open, and `caplog` would see nothing.
    """
    logger = get_logger()
    handlers, propagate, level = list(logger.handlers), logger.propagate, logger.level
    yield
    for handler in set(logger.handlers) - set(handlers):
        handler.close()
    logger.handlers[:], logger.propagate = handlers, propagate
    logger.setLevel(level)
