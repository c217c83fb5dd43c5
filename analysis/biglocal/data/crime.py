"""From counts of recorded crime to rates and to standard scores, in one place for every tier."""

from __future__ import annotations

from typing import TYPE_CHECKING

from biglocal.data.tables import CRIMES

if TYPE_CHECKING:
    import pandas as pd


def add_rates(panel: pd.DataFrame, areas: pd.DataFrame, crimes: tuple[str, ...] = CRIMES) -> pd.DataFrame:
    """Copy of `panel` with `<crime>_rate` and `<crime>_z` for each of `crimes`, aligned with its rows.

    `panel` (one row an LSOA and year) has lsoa11, year and the counts, which may be blank; `areas` has
    lsoa11 and population (persons). The rate is crimes per 1,000 residents and year. The score is
    (rate - mean) / sd over the LSOAs of the panel with a rate that year, sd with n - 1: the crime
    outcomes of the study are z-scores (FACTS, part 1). Where every rate of a year is the same the
    score is blank. Whether a year with fewer than twelve months of police data counts is the reader's
    business: blank its counts first.
    """
    import numpy as np
    import pandas as pd

    population = areas.set_index("lsoa11")["population"].reindex(panel["lsoa11"]).to_numpy(dtype=float, na_value=np.nan)
    year, years = pd.factorize(panel["year"].to_numpy(dtype=int))
    out = panel.copy()
    for crime in crimes:
        rate = panel[crime].to_numpy(dtype=float, na_value=np.nan) / population * 1000.0
        seen = np.isfinite(rate)
        n = np.bincount(year[seen], minlength=len(years)).astype(float)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.bincount(year[seen], weights=rate[seen], minlength=len(years)) / n
            gap = rate - mean[year]
            variance = np.bincount(year[seen], weights=gap[seen] ** 2, minlength=len(years)) / (n - 1)
            score = np.where(variance[year] > 0, gap / np.sqrt(variance[year]), np.nan)
        out[f"{crime}_rate"] = np.where(seen, rate, np.nan)
        out[f"{crime}_z"] = score
    return out
