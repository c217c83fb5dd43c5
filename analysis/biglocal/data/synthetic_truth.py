"""The known effects of the synthetic tier, and how a row finds its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

PROGRESS = ("fast", "middle", "slow")
YEARS = tuple(range(2011, 2021))
FROM = 2015  # every area at once: the study's start is not known (FACTS, the programme), this one is ours

# A LSOA counts as treated, with the whole effect, where at least this share of its residents is inside a
# Big Local area; below it the effect is nil. Proportional effects would leave no single true value to recover.
TREATED_SHARE = 0.5

# From published_estimates.csv and FACTS, by outcome and progress, for 2015 to 2020. What is not named here
# has no published estimate and is nil: antisocial behaviour, criminal damage and violence (z), happiness,
# worthwhile, and SAMHI outside the areas of fast progress ("no significant effect overall but burglary").
BURGLARY = -0.054  # wp1_burglary, sd of the rate within the year
SAMHI_FAST = -0.053  # wp1_samhi_fast_progress, index points
# wp1_high_anxiety: -0.8 percentage points over the years; "some reduction after 2017" (FACTS, part 1) is read as
# a third of the later size before 2018, so that the mean of 2015 to 2020 stays -0.8.
ANXIETY = {2015: -0.4, 2016: -0.4, 2017: -0.4, 2018: -1.2, 2019: -1.2, 2020: -1.2}
# Assumed: net benefit 64m + cost 196.87m = 260.9m; at 13,000 a point-year and 1.0m residents (FACTS, part 4)
# 0.0201 point-years a resident, spread over the six years of effect. Horizon and population are not published.
SATISFACTION = 0.0033

OUTCOMES = (
    "samhi",
    "burglary_z",
    "antisocial_behaviour_z",
    "criminal_damage_z",
    "violence_z",
    "anxiety",
    "satisfaction",
    "happiness",
    "worthwhile",
)


def truth() -> pd.DataFrame:
    """The `truth` table: 9 outcomes x 3 speeds of progress x 2011 to 2020, 270 rows, the same for every seed.

    Units: SAMHI in index points, crimes in standard deviations of the rate within the year, anxiety in
    percentage points on the share with a score of 6 or more, the other items in points of their mean.
    """
    import pandas as pd

    def effect(outcome: str, progress: str, year: int) -> float:
        if year < FROM:
            return 0.0
        if outcome == "samhi":
            return SAMHI_FAST if progress == "fast" else 0.0
        return {"burglary_z": BURGLARY, "anxiety": ANXIETY[year], "satisfaction": SATISFACTION}.get(outcome, 0.0)

    on = {"anxiety": (6.0, 100.0)}  # a share, in percentage points
    rows = [(o, *on.get(o, (None, 1.0)), p, y, effect(o, p, y)) for o in OUTCOMES for p in PROGRESS for y in YEARS]
    names = ["outcome", "at_least", "scale", "progress", "year", "effect"]
    return pd.DataFrame(rows, columns=names).astype({"at_least": float})


def effects(
    outcome: str, truth: pd.DataFrame, areas: pd.DataFrame, programme: pd.DataFrame, years: tuple[int, ...]
) -> np.ndarray:
    """Effect on `outcome` of each LSOA and year, (LSOAs, years), aligned with `areas`; 0 where not treated."""
    import numpy as np

    cells = truth[truth["outcome"] == outcome].pivot_table(index="progress", columns="year", values="effect")
    by_progress = cells.reindex(index=list(PROGRESS), columns=list(years)).fillna(0.0).to_numpy()
    speed = (
        areas["area_id"]
        .astype(object)
        .map(dict(zip(programme["area_id"].astype(str), programme["progress"].astype(str), strict=True)))
    )
    row = speed.map({p: i for i, p in enumerate(PROGRESS)}).to_numpy(dtype=float, na_value=np.nan)
    share = areas["share"].to_numpy(dtype=float, na_value=np.nan)
    treated = np.isfinite(row) & (np.nan_to_num(share) >= TREATED_SHARE)
    out = np.zeros((len(areas), len(years)))
    out[treated] = by_progress[row[treated].astype(int)]
    return out
