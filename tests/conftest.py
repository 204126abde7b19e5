"""Paths and fixtures shared by the whole suite."""

from __future__ import annotations

from pathlib import Path

import pytest

import liteseg  # noqa: F401  first: its import-order guard must precede Paddle's

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
