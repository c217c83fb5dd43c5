"""The synthetic area panel: SAMHI and recorded crime by LSOA and year, 2011 to 2019.

The processes carry what makes the real outcomes hard: levels tied to deprivation, shocks that districts and
MSOAs share, serial correlation, trends that differ by deprivation and region, and missing years.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from biglocal.data.crime import add_rates
from biglocal.data.synthetic_truth import effects
from biglocal.data.tables import CRIMES

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

YEARS = tuple(range(2011, 2020))

# SAMHI v4, 2013 to 2019 (open data): national mean by year; 2011 and 2012 carry the slope on backwards.
SAMHI_MEAN = (-0.79, -0.60, -0.412, -0.214, -0.024, 0.169, 0.326, 0.526, 0.699)
# Spread grows 0.80 to 1.04; what the yearly shocks below do not explain of it is a common stretch of 2.6% a year.
SAMHI_STRETCH = 0.026
# Slope on the standardised Index, by level (region, district, MSOA, LSOA), from covariances with IMD 2010; the
# correlation falls from 0.65 to 0.52, which leaves a slope that fades by 1.8% a year.
SAMHI_ON_IMD, SAMHI_FADE = (0.44, 0.43, 0.57, 0.56), 0.018
# What is left at each level, from variances of levels and of yearly differences and the differences' first
# autocorrelation (+0.7, +0.2, -0.1, -0.34: trends at the top, measurement noise at the bottom).
# start: variance in 2011; step: of a year's shock; slope: of the trend a year; noise: of a year alone; keep: AR(1).
SAMHI_LEVELS = {
    "region": {"start": 0.110, "step": 0.0004, "slope": 0.0007, "noise": 0.0, "keep": 1.0},
    "district": {"start": 0.058, "step": 0.0032, "slope": 0.0003, "noise": 0.0, "keep": 1.0},
    "msoa": {"start": 0.063, "step": 0.0065, "slope": 0.0, "noise": 0.0, "keep": 1.0},
    "lsoa": {"start": 0.083, "step": 0.0098, "slope": 0.0, "noise": 0.0101, "keep": 0.94},
}

SAMHI_TURN = 0.4  # places that start worse worsen faster, from the growth of the variance between regions
SAMHI_SHAPE = 1.5  # of the gamma behind levels of MSOAs and LSOAs: the real index is skewed (1.1 in 2013)

# Mean crimes a LSOA and year in 2011 and 2019, straight in logs between. Levels as in police.uk (all of England).
CRIME_LEVELS = {
    "burglary": (16.0, 12.5),
    "antisocial_behaviour": (78.0, 45.0),
    "criminal_damage": (17.5, 16.5),
    "violence": (18.0, 36.0),
}
# Variances of log rates. The persistent total and its part between MSOAs are from product moments of counts in
# three Julys of police.uk, West Yorkshire (burglary 0.27 and 0.13; antisocial behaviour 0.52 and 0.22; criminal
# damage 0.46 and 0.20; violence 0.76 and 0.34). `crime`, `imd`: slopes on the normal scores of domain and Index, from
# correlations with the counts (0.2-0.3 for burglary, 0.6-0.7 for the others). `district` is added (assumed): five
# districts of one force say little of the spread over England.
CRIME_SPREAD = {
    "burglary": {"crime": 0.18, "imd": 0.05, "district": 0.06, "msoa": 0.10, "lsoa": 0.12},
    "antisocial_behaviour": {"crime": 0.30, "imd": 0.30, "district": 0.04, "msoa": 0.08, "lsoa": 0.14},
    "criminal_damage": {"crime": 0.27, "imd": 0.30, "district": 0.04, "msoa": 0.06, "lsoa": 0.13},
    "violence": {"crime": 0.33, "imd": 0.45, "district": 0.04, "msoa": 0.09, "lsoa": 0.14},
}
# Year-specific variance of log rates. In single months it is 0.21 (burglary) to 0.05 (violence) beyond chance; a
# quarter of that is taken to last a year (assumed), half of it shared in the MSOA, with an AR(1) of 0.6 (assumed).
CRIME_YEAR = {"burglary": 0.05, "antisocial_behaviour": 0.03, "criminal_damage": 0.035, "violence": 0.015}
CRIME_KEEP = 0.6
DISTRICT_YEAR = 0.06  # sd of log rates, assumed: policing and recording change by district
DRIFT = {"burglary": -0.004, "antisocial_behaviour": 0.003, "criminal_damage": 0.002, "violence": 0.006}  # assumed


def _standard(values: pd.Series, areas: pd.DataFrame) -> np.ndarray:
    """Standard scores of a column of `areas`, blanks filled from the MSOA, else the mean."""
    import numpy as np

    near = values.groupby(areas["msoa11"], observed=True).transform("mean")
    full = values.fillna(near).fillna(values.mean()).to_numpy(dtype=float)
    return np.asarray((full - full.mean()) / full.std())


def _normal(values: np.ndarray) -> np.ndarray:
    """Normal scores of `values` (n,)."""
    import numpy as np
    from scipy.special import ndtri

    rank = np.argsort(np.argsort(values, kind="stable"), kind="stable")
    return np.asarray(ndtri((rank + 0.5) / len(values)))


def _codes(areas: pd.DataFrame) -> dict[str, np.ndarray]:
    """Position of each LSOA's region, district, MSOA and of itself, (n,) each."""
    import numpy as np
    import pandas as pd

    names = {"region": "region", "district": "district", "msoa": "msoa11"}
    out = {level: pd.factorize(areas[column])[0] for level, column in names.items()}
    return out | {"lsoa": np.arange(len(areas))}


def _exactly(start: np.ndarray, turn: np.ndarray, fixed: np.ndarray, size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`start` and `turn` (groups,) made uncorrelated with `fixed` and each other, mean 0 and variance 1, by `size`.

    Nine regions drawn freely would give a variance between regions that has little to do with the measured one.
    """
    import numpy as np

    basis: list[np.ndarray] = []
    weight = size / size.sum()
    for vector in (np.ones(len(size)), fixed, start, turn):
        left = vector - sum(((weight * vector * b).sum() * b for b in basis), np.zeros(len(size)))
        basis.append(left / np.sqrt((weight * left**2).sum()))
    return basis[2], basis[3]


def samhi(rng: np.random.Generator, areas: pd.DataFrame) -> np.ndarray:
    """SAMHI without any effect, (LSOAs, 9 years), index points, higher is worse; no blanks yet."""
    import numpy as np

    codes, t = _codes(areas), np.arange(len(YEARS))
    rest = _standard(areas["imd"], areas)
    out = np.zeros((len(areas), len(YEARS)))
    fade = 1.0 - SAMHI_FADE * (t - 2)
    for (level, v), slope_on_imd in zip(SAMHI_LEVELS.items(), SAMHI_ON_IMD, strict=True):
        code = codes[level]
        groups = int(code.max()) + 1
        mean = np.bincount(code, rest) / np.bincount(code)
        start, turn = rng.standard_normal((2, groups))
        if level in ("msoa", "lsoa"):
            start = (rng.gamma(SAMHI_SHAPE, size=groups) - SAMHI_SHAPE) / np.sqrt(SAMHI_SHAPE)
        if level == "region":
            start, turn = _exactly(start, turn, mean, np.bincount(code))
        turn = SAMHI_TURN * start + np.sqrt(1 - SAMHI_TURN**2) * turn
        start = np.sqrt(v["start"]) * start
        path = np.empty((groups, len(YEARS)))
        path[:, 0] = start
        for year in t[1:]:
            path[:, year] = v["keep"] * path[:, year - 1] + np.sqrt(v["step"]) * rng.standard_normal(groups)
        path += np.sqrt(v["slope"]) * turn[:, None] * t + np.sqrt(v["noise"]) * rng.standard_normal(path.shape)
        path += slope_on_imd * mean[:, None] * fade
        out += path[code]
        rest = rest - mean[code]
    out -= out.mean(axis=0)
    return np.asarray(np.array(SAMHI_MEAN) + out * (1 + SAMHI_STRETCH) ** (t - 2))


def shared(rng: np.random.Generator, areas: pd.DataFrame) -> dict[str, np.ndarray]:
    """The draws that the four crimes share, by level."""
    codes = _codes(areas)
    return {level: rng.standard_normal(int(codes[level].max()) + 1) for level in ("district", "msoa", "lsoa")}


def expected(rng: np.random.Generator, crime: str, areas: pd.DataFrame, common: dict[str, np.ndarray]) -> np.ndarray:
    """Expected recorded crimes, (LSOAs, 9 years). `common`: what `shared` drew."""
    import numpy as np

    codes, v, t = _codes(areas), CRIME_SPREAD[crime], np.arange(len(YEARS))
    imd, domain = (_normal(_standard(areas[column], areas)) for column in ("imd", "crime"))
    fixed = v["crime"] * domain + v["imd"] * imd
    for level in ("district", "msoa", "lsoa"):
        own = rng.standard_normal(len(common[level]))
        fixed = fixed + np.sqrt(v[level] / 2) * (common[level] + own)[codes[level]]  # half of it is shared
    log = fixed[:, None] + DRIFT[crime] * (t - 4) * imd[:, None]
    for level in ("msoa", "lsoa"):
        groups = len(common[level])
        now = rng.standard_normal(groups)
        for year in t:
            if year:
                now = CRIME_KEEP * now + np.sqrt(1 - CRIME_KEEP**2) * rng.standard_normal(groups)
            log[:, year] += np.sqrt(CRIME_YEAR[crime] / 2) * now[codes[level]]
    log += DISTRICT_YEAR * rng.standard_normal((len(common["district"]), len(YEARS)))[codes["district"]]
    people = areas["population"].fillna(1614).to_numpy(dtype=float)
    raw = np.exp(log) * people[:, None]
    first, last = CRIME_LEVELS[crime]
    return np.asarray(raw / raw.mean(axis=0) * first * (last / first) ** (t / t[-1]))


def _counts(
    rng: np.random.Generator, moving: np.random.Generator, expected: np.ndarray, effect: np.ndarray, people: np.ndarray
) -> np.ndarray:
    """Counts with the effect in them, (LSOAs, years).

    `effect` is in standard deviations of the year's rate without effects. Poisson counts are thinned, or added
    to (draws of `moving`), until their expectation has moved by effect x sd x population: they stay Poisson, and
    the draws of `rng` are the same with and without effects. (Treated LSOAs are 2% of all, so the year's mean,
    against which the score is measured, moves by a fiftieth of the effect.)
    """
    import numpy as np

    counts = rng.poisson(expected)
    spread = np.std(counts / people[:, None], axis=0, ddof=1)
    wanted = np.maximum(expected + effect * spread * people[:, None], 0.0)
    treated = np.flatnonzero((effect != 0).any(axis=1))
    counts[treated] = moved(moving, counts[treated], expected[treated], wanted[treated])
    return np.asarray(counts)


def moved(rng: np.random.Generator, counts: np.ndarray, expected: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Poisson `counts` with these expectations, thinned or added to until they are Poisson with those `wanted`."""
    import numpy as np

    fewer = rng.binomial(counts, np.minimum(wanted / expected, 1.0))
    return np.asarray(fewer + rng.poisson(np.maximum(wanted - expected, 0.0)))


def panel(rng: np.random.Generator, areas: pd.DataFrame, programme: pd.DataFrame, truth: pd.DataFrame) -> pd.DataFrame:
    """The `area_panel` table: 32,844 LSOAs x 2011 to 2019, effects as in `truth` (which may be all nil).

    Faults: some SAMHI cells and whole LSOAs blank; criminal damage blank in 2011, before the category existed;
    a block of ten districts of the North West with half a year of police data, and so no counts, in 2019 (as
    Greater Manchester); a few LSOAs without crime in a year; no rate where the population is blank.
    """
    import numpy as np
    import pandas as pd

    n, t = len(areas), len(YEARS)
    for_samhi, for_crime, for_gaps = rng.spawn(3)
    index = samhi(for_samhi, areas) + effects("samhi", truth, areas, programme, YEARS)
    index[for_gaps.random((n, t)) < 0.002] = np.nan
    index[for_gaps.permutation(n)[:60]] = np.nan

    common = shared(for_crime, areas)
    people = areas["population"].fillna(1614).to_numpy(dtype=float)
    northwest = pd.unique(areas.loc[(areas["region"] == "North West").to_numpy(), "district"].astype(str))
    block = int(for_gaps.integers(0, len(northwest) - 10))
    late = areas["district"].astype(str).isin(northwest[block : block + 10]).to_numpy()
    months = np.full((n, t), 12)
    months[late, -1] = 6
    gap = (for_gaps.random((n, t)) < 0.0005) | (months < 12)
    columns: dict[str, object] = {}
    for crime in CRIMES:
        stream, counting, moving = for_crime.spawn(3)
        effect = effects(f"{crime}_z", truth, areas, programme, YEARS)
        counts = _counts(counting, moving, expected(stream, crime, areas, common), effect, people)
        blank = gap.copy()
        if crime == "criminal_damage":
            blank[:, 0] = True  # did not exist before September 2011 (FACTS, raw files)
        columns[crime] = pd.array(counts.ravel(), dtype="Int64")
        columns[crime][blank.ravel()] = pd.NA  # type: ignore[index]
    out = pd.DataFrame(
        {
            "lsoa11": np.repeat(areas["lsoa11"].to_numpy(), t),
            "year": np.tile(np.array(YEARS), n),
            "samhi": np.round(index, 6).ravel(),
            "months": months.ravel(),
            **columns,
        }
    )
    return add_rates(out, areas)
