"""What several tests need: real data where it is at hand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real English data: BIGLOCAL_REAL_DATA, or `../shared/england` beside the repository."""
    beside = Path(__file__).parents[2] / "shared" / "england"
    path = Path(os.environ.get("BIGLOCAL_REAL_DATA") or beside)
    if not path.is_dir():
        pytest.skip("no real data: set BIGLOCAL_REAL_DATA to its folder (data-raw/README.md says what goes in)")
    return path
