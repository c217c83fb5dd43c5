"""What several tests need: real data where it is at hand."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

with suppress(ImportError):  # the deposit's tests do without
    import hypothesis

    # the same examples every time and no limit on a slow machine; `--hypothesis-profile=default` looks for others
    hypothesis.settings.load_profile("ci")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real English data: BIGLOCAL_REAL_DATA, or `../shared/england` beside the repository."""
    beside = Path(__file__).parents[2] / "shared" / "england"
    path = Path(os.environ.get("BIGLOCAL_REAL_DATA") or beside)
    if not path.is_dir():
        pytest.skip("no real data: set BIGLOCAL_REAL_DATA to its folder (data-raw/README.md says what goes in)")
    return path


@pytest.fixture(scope="session")
def small_tier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a lab would have it: three regions of the synthetic tier, in the table contract of the secure tier."""
    from biglocal.data.load import load

    tier = load("synthetic", seed=5)
    areas = tier.table("areas")
    areas = areas[areas["region"].isin(["North East", "East Midlands", "South West"])]
    here, ids = set(areas["lsoa11"]), set(areas["area_id"].dropna())
    folder = tmp_path_factory.mktemp("lab")
    areas.to_parquet(folder / "areas.parquet")
    programme = tier.table("programme")
    programme[programme["area_id"].isin(ids)].to_parquet(folder / "programme.parquet")
    for name in ("area_panel", "survey"):
        table = tier.table(name)
        table[table["lsoa11"].isin(here)].to_parquet(folder / f"{name}.parquet")
    tier.table("truth").to_csv(folder / "truth.csv", index=False)
    return folder


@pytest.fixture(scope="session")
def reproduced(small_tier: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One whole run on the small tier; tests that change it copy it first."""
    outputs = tmp_path_factory.mktemp("outputs")
    from biglocal import run

    done = run.reproduce("secure", data=small_tier, outputs=outputs)
    assert done.estimated > 90
    assert done.reused == 0
    return outputs


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Linear algebra on one thread, as in a run: the last digit of a sum follows the number of threads."""
    import scipy.linalg  # noqa: F401  # loads the libraries that are to be limited
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        yield
