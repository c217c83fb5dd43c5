"""Synthetic places: the LSOAs of a made-up England, the 150 areas in them, and what was spent there.

Variances, correlations and marginals are measured from open data (English Indices 2010 by region, district,
MSOA and LSOA; Census 2011 populations; Open Government Licence v3.0). No value is copied from a real place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from biglocal.data.tables import REGIONS

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import pandas as pd

# Real LSOA codes of England end at E01033768 (2011) and E01035762 (2021): none begins with E019, so no synthetic
# row can be mistaken for, or joined to, a real place. The codes of MSOAs and districts keep the same distance.
FIRST_LSOA, FIRST_MSOA, FIRST_DISTRICT = "E019", "E029", "E079"
LSOAS_PER_MSOA = 4.84

# LSOAs, districts (2013), and rural share by region: counted from the ONS lookups and the 2011 classification.
LSOAS = dict(zip(REGIONS, (1657, 4497, 3317, 2774, 3487, 3614, 4835, 5382, 3281), strict=True))
DISTRICTS = dict(zip(REGIONS, (12, 39, 21, 40, 30, 47, 33, 67, 37), strict=True))
RURAL = dict(zip(REGIONS, (0.18, 0.10, 0.17, 0.25, 0.15, 0.28, 0.002, 0.19, 0.32), strict=True))

DOMAINS = ("income", "employment", "health", "education", "crime", "housing", "environment")
# Weights of the domains in the Index, and its exponential transformation of their ranks: English Indices 2010,
# technical report. Rebuilt from the real domains in this way it correlates 0.9999 with the published score.
IMD_WEIGHTS = (0.225, 0.225, 0.135, 0.135, 0.093, 0.093, 0.093)

# Normal scores of the domains, Indices 2010: means by region, then variances and correlations of what is left
# between districts, between MSOAs within districts, and within MSOAs. Measured, rounded to two or three digits.
REGION_MEANS = (
    (0.30, 0.67, 0.83, 0.30, -0.18, -0.61, -0.85),
    (0.20, 0.49, 0.75, 0.12, 0.03, -0.61, 0.14),
    (0.07, 0.18, 0.29, 0.34, 0.28, -0.21, 0.25),
    (-0.07, 0.03, 0.01, 0.20, 0.11, -0.42, -0.32),
    (0.19, 0.26, 0.23, 0.24, -0.01, 0.06, 0.17),
    (-0.23, -0.32, -0.55, -0.01, -0.37, 0.03, -0.42),
    (0.37, -0.02, -0.13, -0.38, 0.52, 0.92, 0.70),
    (-0.44, -0.56, -0.56, -0.26, -0.20, 0.07, -0.33),
    (-0.19, -0.16, -0.30, -0.08, -0.34, 0.14, 0.04),
)
DISTRICT_VARIANCES = (0.184, 0.208, 0.326, 0.168, 0.264, 0.216, 0.230)
DISTRICT_CORRELATIONS = (  # below the diagonal, row by row
    (0.94,), (0.90, 0.89), (0.81, 0.85, 0.79), (0.66, 0.57, 0.65, 0.58),
    (0.29, 0.16, 0.22, 0.07, -0.01), (0.67, 0.59, 0.62, 0.45, 0.43, 0.35),
)  # fmt: skip
MSOA_VARIANCES = (0.337, 0.295, 0.201, 0.425, 0.293, 0.154, 0.263)
MSOA_CORRELATIONS = (
    (0.97,), (0.93, 0.96), (0.90, 0.88, 0.84), (0.81, 0.82, 0.84, 0.72),
    (-0.16, -0.22, -0.26, -0.19, -0.31), (0.58, 0.52, 0.55, 0.41, 0.58, -0.04),
)  # fmt: skip
LSOA_VARIANCES = (0.375, 0.329, 0.241, 0.325, 0.346, 0.405, 0.329)
LSOA_CORRELATIONS = (
    (0.86,), (0.79, 0.84), (0.77, 0.70, 0.65), (0.36, 0.35, 0.34, 0.28),
    (-0.04, -0.05, -0.06, -0.06, -0.09), (0.34, 0.30, 0.30, 0.23, 0.37, 0.0),
)  # fmt: skip
# Quantiles of the published domain scores at these probabilities.
PROBABILITIES = (0.00002, 0.01, 0.05, 0.10, 0.25, 0.50, 0.75, 0.90, 0.95, 0.99, 0.99998)
QUANTILES = {
    "income": (0.01, 0.02, 0.03, 0.04, 0.06, 0.11, 0.20, 0.31, 0.37, 0.48, 0.77),
    "employment": (0.0, 0.02, 0.03, 0.04, 0.05, 0.08, 0.13, 0.19, 0.23, 0.31, 0.75),
    "health": (-3.1, -1.88, -1.36, -1.09, -0.61, -0.02, 0.58, 1.12, 1.43, 2.0, 3.79),
    "education": (0.01, 0.54, 1.78, 3.13, 7.32, 15.97, 30.49, 49.42, 61.3, 79.99, 99.34),
    "crime": (-2.89, -1.83, -1.35, -1.08, -0.57, 0.0, 0.57, 1.04, 1.31, 1.83, 3.81),
    "housing": (0.34, 2.98, 6.01, 8.27, 13.09, 20.14, 28.66, 37.14, 42.51, 50.28, 70.14),
    "environment": (0.06, 1.32, 3.1, 4.67, 8.73, 16.77, 30.69, 46.48, 55.04, 70.62, 92.99),
}

AREAS = 150
ANNOUNCED = {1: "2010-07-27", 2: "2012-02-29", 3: "2012-12-10"}  # FACTS, the programme

COST = 196_873_499  # GBP, the endowment (FACTS, the programme)
# GBP m by year, assumed between the stated marks: about 9m by February 2015, 102m in 2014 to 2020, the rest to 2026.
SPENT = dict(zip(range(2012, 2027), (0.6, 2, 6, 10, 14, 17, 19, 19, 17, 19, 20, 18, 15.3, 12, 7.97), strict=True))
SUPPORT, CENTRAL = 0.22, 0.6  # assumed: share of support in all spending, and of central costs in support


def _spread(
    rng: np.random.Generator, groups: int, variances: tuple[float, ...], below: tuple[tuple[float, ...], ...]
) -> np.ndarray:
    """(groups, 7) draws of the domains at one level of geography."""
    import numpy as np

    correlation = np.eye(len(DOMAINS))
    for i, row in enumerate(below, start=1):
        correlation[i, :i] = correlation[:i, i] = row
    factor = np.linalg.cholesky(correlation)
    # einsum without optimisation calls no threaded library: the sum has one order on any machine
    draws = np.einsum("gk,jk->gj", rng.standard_normal((groups, len(DOMAINS))), factor)
    return np.asarray(draws * np.sqrt(variances))


def _geography(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Region, district and MSOA position of each LSOA, (32844,) each, nested and in order of code."""
    import numpy as np

    region, district, msoa = [], [], []
    districts = msoas = 0
    for r, name in enumerate(REGIONS):
        k, total, least = DISTRICTS[name], LSOAS[name], 18
        size = rng.lognormal(0.0, 0.6, k)  # with `least` and the regions: mean 101, sd about 65 as in 2013
        edges = np.rint(np.cumsum(size) / size.sum() * (total - least * k)).astype(int)
        counts = np.diff(edges, prepend=0) + least
        for n in counts:
            m = max(1, round(n / LSOAS_PER_MSOA))
            inner = np.arange(1, m) * n / m + rng.uniform(-0.9, 0.9, m - 1)  # MSOAs of three to seven LSOAs
            edge = np.rint(inner).astype(int)
            msoa.append(msoas + np.searchsorted(edge, np.arange(n), side="right"))
            district.append(np.full(n, districts))
            districts, msoas = districts + 1, msoas + m
        region.append(np.full(total, r))
    return np.concatenate(region), np.concatenate(district), np.concatenate(msoa)


def _chosen(
    rng: np.random.Generator, need: np.ndarray, funding: np.ndarray, district: np.ndarray, msoa: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Big Local area of each LSOA (-1 for none) and share inside it, (n,) each.

    Selection as told in FACTS: mostly the more deprived fifth (`need`, standard scores), places that earlier
    funding passed by. An area is a run of neighbouring LSOAs of one district; its ends may be cut.
    """
    import numpy as np

    n = len(need)
    starts = np.flatnonzero(np.diff(msoa, prepend=-1))
    local = np.add.reduceat(need, starts) / np.diff(starts, append=n)
    poor = -np.logaddexp(0.0, -(local - 0.85) / 0.2)
    key = poor - 0.8 * np.log(funding[district[starts]]) + rng.gumbel(size=len(starts))
    length = rng.choice([3, 4, 5, 6, 7], p=[0.15, 0.25, 0.25, 0.2, 0.15], size=len(starts))
    area, share = np.full(n, -1), np.full(n, np.nan)
    in_district = np.bincount(district)
    first = np.concatenate([[0], np.cumsum(in_district)])
    used = np.zeros(len(in_district), dtype=int)
    runs: list[tuple[int, int]] = []
    for i in np.argsort(-key, kind="stable"):
        d, k = district[starts[i]], int(length[i])
        begin = int(min(starts[i], first[d + 1] - k))
        if used[d] >= 3 or (area[max(begin - 1, 0) : begin + k + 1] >= 0).any():
            continue
        area[begin : begin + k] = 0
        used[d] += 1
        runs.append((begin, k))
        if len(runs) == AREAS:
            break
    cut = rng.random((AREAS, 2)) < 0.5
    part = np.round(rng.uniform(0.08, 0.97, (AREAS, 2)), 3)
    for j, (begin, k) in enumerate(sorted(runs)):
        area[begin : begin + k] = j
        share[begin : begin + k] = 1.0
        for side, at in enumerate((begin, begin + k - 1)):
            if cut[j, side]:
                share[at] = part[j, side]
    return area, share


def named(codes: np.ndarray, names: Sequence[str]) -> pd.Categorical[str]:
    """Categories `names` at positions `codes` (n,); -1 is blank."""
    import pandas as pd

    return pd.Categorical.from_codes(codes, pd.Index(list(names)))


def area_ids() -> list[str]:
    """Codes of the 150 areas, in geographical order."""
    return [f"BL{i:03d}" for i in range(1, AREAS + 1)]


def areas(rng: np.random.Generator) -> pd.DataFrame:
    """The `areas` table: 32,844 LSOAs in about 6,790 MSOAs, 326 districts and the nine regions.

    Faults: no Index for complex LSOAs and a few others, some rural flags, populations and districts' earlier
    funding blank, rounded (tied) scores, LSOAs split and merged, LSOAs only partly inside an area.
    """
    import numpy as np
    import pandas as pd
    from scipy.special import ndtri

    region, district, msoa = _geography(rng)
    n = len(region)
    draws = {
        "district": _spread(rng, district[-1] + 1, DISTRICT_VARIANCES, DISTRICT_CORRELATIONS)[district],
        "msoa": _spread(rng, msoa[-1] + 1, MSOA_VARIANCES, MSOA_CORRELATIONS)[msoa],
        "lsoa": _spread(rng, n, LSOA_VARIANCES, LSOA_CORRELATIONS),
    }
    around = np.array(REGION_MEANS)[region] + draws["district"] + draws["msoa"]
    score = around + draws["lsoa"]
    rank = (np.argsort(np.argsort(score, axis=0, kind="stable"), axis=0, kind="stable") + 0.5) / n
    imd = np.zeros(n)
    for k, weight in enumerate(IMD_WEIGHTS):
        imd += weight * -23.0 * np.log1p(-rank[:, k] * (1.0 - np.exp(-100.0 / 23.0)))
    knots = ndtri(np.array(PROBABILITIES))
    domains = {
        name: np.round(np.interp(ndtri(rank[:, k]), knots, QUANTILES[name]), 2) for k, name in enumerate(DOMAINS)
    }

    # Rural LSOAs have less crime and more barriers to services, and come by whole MSOAs: 86% of the variance of the
    # real flag is between MSOAs.
    open_land = -around[:, 4] + 0.6 * around[:, 5] + 0.9 * rng.standard_normal(msoa[-1] + 1)[msoa]
    open_land += 0.3 * rng.standard_normal(n)
    rural = np.zeros(n, dtype=bool)
    for r, name in enumerate(REGIONS):
        here = region == r
        rural[here] = open_land[here] > np.quantile(open_land[here], 1 - RURAL[name])

    # Census 2011: least 983, median 1,564, mean 1,614, sd 301, a long right tail (student quarters)
    population = 983.0 + 581.0 * np.exp(0.42 * rng.standard_normal(n))
    population = np.rint(np.where(rng.random(n) < 0.002, population * 2.2, population))

    need = (imd - imd.mean()) / imd.std()
    poverty = np.bincount(district, need) / np.bincount(district)
    funding = 60.0 * np.exp(0.45 * poverty + 0.5 * rng.standard_normal(len(poverty)))  # assumed: GBP 60 at the median
    area, share = _chosen(rng, need, funding, district, msoa)

    change = rng.choice(4, p=[0.9643, 0.0265, 0.0070, 0.0022], size=n)  # ONS lookup 2001 to 2011: 96.4% unchanged
    unscored = (change == 3) | (rng.random(n) < 0.0005)
    unfunded = rng.permutation(len(poverty))[:6]  # districts whose earlier funding is not known
    no_rural = rng.random(n) < 0.02
    no_people = rng.permutation(n)[:10]
    # other area programmes of the time went to poor MSOAs too (assumed: 2% of MSOAs, never a Big Local one)
    elsewhere = rng.permutation(msoa[-1] + 1)
    poor_msoa = (np.bincount(msoa, need) / np.bincount(msoa))[elsewhere] > 0.5
    elsewhere = np.setdiff1d(elsewhere[poor_msoa][: int(0.02 * msoa[-1])], msoa[area >= 0])
    other = np.where(np.isin(msoa, elsewhere), np.where(msoa % 2, 0, 1), -1)
    return pd.DataFrame(
        {
            "lsoa11": [f"{FIRST_LSOA}{i:05d}" for i in range(1, n + 1)],
            "msoa11": named(msoa, [f"{FIRST_MSOA}{i:05d}" for i in range(1, msoa[-1] + 2)]),
            "district": named(district, [f"{FIRST_DISTRICT}{i:05d}" for i in range(1, district[-1] + 2)]),
            "region": named(region, REGIONS),
            "rural": pd.array(rural, dtype="boolean"),
            "population": pd.array(population.astype(int), dtype="Int64"),
            "change": named(change, "USMX"),
            "imd": np.where(unscored, np.nan, np.round(imd, 2)),
            **{name: np.where(unscored, np.nan, domains[name]) for name in DOMAINS},
            "earlier_funding": np.where(np.isin(district, unfunded), np.nan, np.round(funding, 2)[district]),
            "other_programme": named(other, ("Synthetic programme A", "Synthetic programme B")),
            "area_id": named(area, area_ids()),
            "share": share,
        }
    ).assign(
        rural=lambda f: f["rural"].mask(no_rural),
        population=lambda f: f["population"].mask(np.isin(np.arange(n), no_people)),
    )


def borders(areas: pd.DataFrame) -> pd.DataFrame:
    """The `borders` table: synthetic LSOAs lie in order of code, and each borders on the next two of its district."""
    import pandas as pd

    code, district = areas["lsoa11"], areas["district"].astype(object)
    pairs = [
        pd.DataFrame({"lsoa11": code, "neighbour": code.shift(-k)})[(district == district.shift(-k)).to_numpy()]
        for k in (1, 2)
    ]
    return pd.concat(pairs).sort_values(["lsoa11", "neighbour"], ignore_index=True)


def programme(rng: np.random.Generator, areas: pd.DataFrame) -> pd.DataFrame:
    """The `programme` table: 150 areas, three waves of 50, half of them of fast progress.

    Dates of announcement are the real ones (FACTS). Plans are endorsed from 2012 to 2015, later in later waves,
    and money follows by weeks to a year (assumed). Progress leans a little to less deprived areas and early
    plans (assumed). Three first payments and one plan are blank.

    How many areas "progressed fastest" is not published. The published interval for them is too narrow for a third
    of the areas, given how much real SAMHI moves between MSOAs: its width, against that for all areas, is that of
    about half. So fast is half, and the rest is split in two. A choice of size, from the published error alone.
    """
    import numpy as np
    import pandas as pd

    ids = area_ids()
    by_area = areas.groupby("area_id", observed=True)["imd"].mean().reindex(ids)
    need = by_area.fillna(by_area.mean()).to_numpy(dtype=float)
    wave = rng.permutation(np.repeat([1, 2, 3], AREAS // 3))
    opened = np.array(["2012-06-01", "2013-01-01", "2013-07-01"], dtype="datetime64[D]")[wave - 1]
    wait = rng.gamma(4.0, 80.0, AREAS)
    plan = np.minimum(opened + wait.astype("timedelta64[D]"), np.datetime64("2015-12-18"))
    spend = plan + (21 + rng.gamma(2.0, 75.0, AREAS)).astype("timedelta64[D]")
    pace = -0.3 * (need - need.mean()) / need.std() - 0.3 * (wait - wait.mean()) / wait.std()
    place = np.argsort(np.argsort(pace + rng.standard_normal(AREAS), kind="stable"), kind="stable")
    blank = rng.permutation(AREAS)[:3]
    spend[blank] = np.datetime64("NaT", "D")
    plan[blank[0]] = np.datetime64("NaT", "D")
    return pd.DataFrame(
        {
            "area_id": pd.Categorical(ids, categories=ids),
            "area_name": [f"Synthetic area {i:03d}" for i in range(1, AREAS + 1)],
            "wave": wave,
            "announced": pd.to_datetime([ANNOUNCED[w] for w in wave]),
            "plan_endorsed": pd.to_datetime(plan),
            "first_spend": pd.to_datetime(spend),
            "progress": named(np.where(place >= 75, 0, np.where(place >= 37, 1, 2)), ("fast", "middle", "slow")),
        }
    )


def costs(rng: np.random.Generator, programme: pd.DataFrame) -> pd.DataFrame:
    """The `costs` table: grants and support by area and year, GBP, 196,873,499 in all, rising late (FACTS).

    Central support stands under area `programme`. An area has spending from the year of its first payment
    (a blank one counts as 2015); before any area spends, all of it is central.
    """
    import numpy as np
    import pandas as pd

    since = programme["first_spend"].dt.year.fillna(2015).to_numpy(dtype=int)
    size = rng.lognormal(0.0, 0.15, AREAS)
    fast = (programme["progress"] == "fast").to_numpy()
    rows: list[tuple[str, int, str, int]] = []
    for year, millions in SPENT.items():
        total = millions * 1e6
        weight = size * (since <= year) * np.where(fast, np.exp(-0.05 * (year - 2019)), 1.0)
        started = weight.sum() > 0
        central = total * (SUPPORT * CENTRAL if started else 1.0)
        rows.append(("programme", year, "support", round(central)))
        if started:
            each = weight / weight.sum()
            for item, share in (("grant", 1 - SUPPORT), ("support", SUPPORT * (1 - CENTRAL))):
                paid = np.rint(total * share * each).astype(int)
                rows += [
                    (a, year, item, int(p)) for a, p in zip(programme["area_id"].astype(str), paid, strict=True) if p
                ]
    paid_out = sum(amount for *_, amount in rows)
    central_last = max(i for i, row in enumerate(rows) if row[0] == "programme")
    who, when, item, amount = rows[central_last]
    rows[central_last] = (who, when, item, amount + COST - paid_out)  # what rounding left over
    out = pd.DataFrame(rows, columns=["area_id", "year", "item", "amount"])
    return out.astype({"area_id": pd.CategoricalDtype([*area_ids(), "programme"])})
