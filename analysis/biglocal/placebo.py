"""Placebo lists: areas drawn at random where nothing happened, and what the design finds there.

On real outcomes this is the most direct test of the whole chain, from the pool to the p-value: with no
effect it should reject as often as it says, and find a planted effect without bias.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from biglocal.model import DataError, Fit, Inapplicable, Term
from biglocal.study import file_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np
    import pandas as pd

    from biglocal.data.load import Tier
    from biglocal.model import Analysis
    from biglocal.sample import Draw

SMALLEST, LARGEST = 4, 6
BINS = 20


@dataclass(frozen=True, slots=True)
class One:
    """What one placebo list gave: the estimate of no effect, the estimate of a planted one, whether it was covered."""

    estimate: float
    std_error: float
    p_value: float
    planted: float
    covered: bool
    counts: tuple[int, int, int, int]


def run(
    draw: Draw,
    analyses: Sequence[Analysis],
    runs: Callable[..., Iterator[Any]],
    rng: Callable[[str], np.random.Generator],
    advance: Callable[[int], None],
) -> Iterator[tuple[Analysis, Fit | str]]:
    """Each analysis with what its placebo lists say, or the reason why there is nothing to say.

    `runs` calls functions with their arguments, in order, told what analyses they are `of`; `rng` gives random
    numbers by name.
    """
    policy = draw.study.policy
    for analysis in analyses:
        known = draw.study.estimators.get(analysis.estimator)
        options = dict(known.options) if known else {}
        items = (
            (once, (draw, analysis, options, policy.placebo_effect, rng(f"{analysis.id}/{i}")))
            for i in range(policy.placebo_lists)
        )
        lists: list[One] = []
        try:
            for one in runs(items, of=[analysis]):
                advance(1)
                lists.append(one)
        except Inapplicable as e:
            yield analysis, str(e)
            continue
        yield analysis, summary(lists, policy.placebo_effect, policy.conf_level)


def draw_list(frame: pd.DataFrame, areas: int, rng: np.random.Generator) -> pd.DataFrame:
    """Placebo areas among the LSOAs of `frame` (lsoa11, msoa11, imd): a row an LSOA with lsoa11, area_id, wave.

    Each area is 4 to 6 LSOAs of one MSOA, all among the deprived fifth by the Index of Multiple Deprivation; a
    third of the areas in each of three waves. Raises `DataError` where too few MSOAs hold enough such LSOAs.
    """
    import numpy as np
    import pandas as pd

    frame = frame[["lsoa11", "msoa11", "imd"]].dropna().sort_values("lsoa11")
    deprived = frame[frame["imd"] >= frame["imd"].quantile(0.8)]
    by_msoa = deprived["lsoa11"].astype(str).groupby(deprived["msoa11"].astype(str))
    groups = [lsoas.to_numpy() for _, lsoas in by_msoa if len(lsoas) >= SMALLEST]
    if len(groups) < areas:
        raise DataError(
            f"{areas} placebo areas: only {len(groups)} MSOAs hold {SMALLEST} LSOAs of the deprived fifth. "
            f"Ask for fewer areas."
        )
    # larger groups more often, so that some 750 LSOAs come together, as in the programme
    weight = np.array([min(len(lsoas), LARGEST) - SMALLEST + 1 for lsoas in groups], dtype=float)
    chosen = rng.choice(len(groups), size=areas, replace=False, p=weight / weight.sum())
    waves = rng.permutation(np.arange(areas) % 3 + 1)
    parts = []
    for number, (group, wave) in enumerate(zip(chosen, waves, strict=True), start=1):
        lsoas = groups[group]
        picked = np.sort(rng.choice(lsoas, size=min(len(lsoas), LARGEST), replace=False))
        parts.append(pd.DataFrame({"lsoa11": picked, "area_id": f"P{number:03d}", "wave": int(wave)}))
    return pd.concat(parts, ignore_index=True)


def once(draw: Draw, analysis: Analysis, options: dict[str, Any], effect: float, rng: np.random.Generator) -> One:
    """`analysis` on one placebo list drawn with `rng`, as it is and with `effect` added to treated rows.

    LSOAs of the tier's own list are left out altogether. Raises `Inapplicable` where the analysis is so.
    """
    from biglocal import inference
    from biglocal.estimators import estimator
    from biglocal.sample import Draw

    function = estimator(file_of(draw.study, analysis.estimator))
    infer = inference.infer(analysis.inference, draw.study.policy.conf_level, 0)
    sample = Draw(draw.study, _relisted(draw.tier, rng)).sample(replace(analysis, part="effects"))
    treated = replace(sample, frame=sample.frame.assign(y=sample.frame["y"] + effect * sample.frame["d"]))
    plain, planted = (infer(function, one, function(one, **options), rng) for one in (sample, treated))
    att, found = (next(t for t in fit.terms if t.name == "att") for fit in (plain, planted))
    return One(
        att.estimate, att.std_error, att.p_value, found.estimate, found.conf_low <= effect <= found.conf_high,
        (plain.n_obs, plain.n_units, plain.n_treated, plain.n_clusters),
    )  # fmt: skip


def summary(found: Sequence[One], effect: float, level: float) -> Fit:
    """What many placebo lists say together.

    Terms: `rejection_rate` (share of lists with p < 1 - level; interval by Wilson 1927), `bias` (mean estimate, with
    its Monte Carlo error), `sd_estimates`, `mean_std_error`, `planted_effect`, `planted_mean` (mean estimate of it),
    `planted_coverage` (share of intervals that hold it), `lists`, and `p_value` with period = bin: the share of
    p-values in each of 20 equal bins. Counts are means over lists.
    """
    import numpy as np

    estimate, error, p = (np.array([getattr(one, k) for one in found]) for k in ("estimate", "std_error", "p_value"))
    n = len(found)
    rate = float((p < 1 - level).mean())
    low, high = wilson(rate, n, level)
    monte_carlo = float(estimate.std(ddof=1) / np.sqrt(n))
    terms = [
        Term("rejection_rate", rate, conf_low=low, conf_high=high, tested=False),
        Term("bias", float(estimate.mean()), std_error=monte_carlo, df=n - 1, tested=False),
        Term("sd_estimates", float(estimate.std(ddof=1)), tested=False),
        Term("mean_std_error", float(error.mean()), tested=False),
        Term("planted_effect", effect, tested=False),
        Term("planted_mean", float(np.mean([o.planted for o in found])), std_error=monte_carlo, df=n - 1, tested=False),
        Term("planted_coverage", float(np.mean([o.covered for o in found])), tested=False),
        Term("lists", float(n), tested=False),
    ]
    share = np.histogram(p, bins=np.linspace(0, 1, BINS + 1))[0] / n
    terms += [
        Term("p_value", float(s), period=b, conf_low=b / BINS, conf_high=(b + 1) / BINS, tested=False)
        for b, s in enumerate(share)
    ]
    counts = [round(float(v)) for v in np.mean([o.counts for o in found], axis=0)]
    return Fit(tuple(terms), counts[0], counts[1], counts[2], counts[3])


def wilson(rate: float, n: int, level: float) -> tuple[float, float]:
    """Wilson's (1927) interval for a proportion."""
    from scipy.special import ndtri

    z = float(ndtri((1 + level) / 2))
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * ((rate * (1 - rate) + z * z / (4 * n)) / n) ** 0.5
    return centre - half, centre + half


def _relisted(tier: Tier, rng: np.random.Generator) -> Tier:
    """The tier with a placebo list for its own: LSOAs of its real list are left out altogether."""
    import pandas as pd

    areas = tier.table("areas")
    areas = areas[areas["area_id"].isna()]
    count = len(tier.table("programme"))
    listed = draw_list(areas, count, rng)
    area = areas["lsoa11"].map(listed.set_index("lsoa11")["area_id"])
    programme = pd.DataFrame({"area_id": sorted(set(listed["area_id"]))})
    programme = programme.merge(listed[["area_id", "wave"]].drop_duplicates(), on="area_id")
    kept = {
        "areas": areas.assign(area_id=area, share=area.notna().map({True: 1.0, False: float("nan")})),
        "programme": programme,
    }
    digests = {name: d for name, d in tier.digests.items() if name != "truth"}
    for name in ("area_panel", "survey"):
        if tier.has(name):
            kept[name] = tier.table(name)
    return replace(tier, digests=digests, _kept=kept)
