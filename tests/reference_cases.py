"""The cases of the R reference implementations: read from beside the project, never copied into it."""

from __future__ import annotations

import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

FOLDER = Path(os.environ.get("BIGLOCAL_REFERENCE", Path(__file__).resolve().parents[2] / "shared" / "reference"))


@lru_cache(maxsize=1)
def _cases() -> dict[str, Any]:
    path = FOLDER / "reference.json"
    if not path.is_file():
        return {}
    return {c["id"]: c for c in json.loads(path.read_text())["cases"]}


def case(name: str) -> dict[str, Any]:
    """One case; skips the test where the reference folder is not beside the project."""
    if not _cases():
        pytest.skip("no folder of reference results (set BIGLOCAL_REFERENCE)")
    return _cases()[name]


def data(name: str) -> pd.DataFrame:
    """A data set of the cases; skips the test where the reference folder is not beside the project."""
    if not (FOLDER / "data" / name).is_file():
        pytest.skip("no folder of reference results (set BIGLOCAL_REFERENCE)")
    return pd.read_csv(FOLDER / "data" / name)
