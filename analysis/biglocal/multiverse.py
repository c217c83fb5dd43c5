"""The multiverse: every specification of study.toml estimated, and all of them tested together.

Specification curve analysis (Simonsohn, Simmons and Nelson 2020, Nature Human Behaviour 4:1208): the statistics of
the whole curve are held against what they are where the programme changed nothing and other places were treated. One
draw of who was treated goes through all specifications at once, from the pool and the matching to the standard error,
so that the dependence between specifications is as it is.

What changes hands. A place is a Big Local area, or the LSOAs of an MSOA without one, six at most, the most deprived
first. Places of one region and one band of deprivation (bands cut at quantiles of the MSOAs) are taken to be
exchangeable: a draw gives the names of the band's areas, with their dates, to as many of its places, each as likely.
The list as it is is one of these draws, so under the sharp null of no effect on any LSOA in any year the p-values are
exact for areas drawn so (Fisher 1935; Imbens and Rubin 2015, chapter 5). The programme's areas were chosen, not
drawn: places that were passed over for reasons that go with the trend of the outcome make the test say too much.
Boundaries are not exchangeable: an area keeps its own, another place has its MSOA's. Nor does the test say
anything of a null of no effect on average.

Outcomes enter through sums over the years of each LSOA: with whole series every estimator here is linear in the
LSOAs' means before, after and in the last year before the start, or a regression on a handful of columns. `sample`
gives any specification the ordinary way; the tests hold the two together.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from biglocal.estimators import correction
from biglocal.model import Analysis, Fit, Inapplicable, Sample, Term
from biglocal.specifications import DIMENSIONS, Specification, expand

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from biglocal.model import Multiverse, Study
    from biglocal.sample import Draw

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Mask = NDArray[np.bool_]

BATCH = 27  # draws of a task
SMALLEST, LARGEST = 3, 6  # LSOAs of a place that is no area
TAIL = 0.01  # winsorised on either side
PER_ROW = 5  # estimate, standard error, units, treated units, clusters
SHARED = (0, 1, 4)  # of these, what a draw says
FEWEST = 99  # draws that a test may rest on


@dataclass(frozen=True, slots=True)
class Places:
    """Who could change hands: `of` (N,) the place of each LSOA, -1 for none; `label` (P,) the area a place is, as a
    code into `names`, -1 for none; `stratum` (P,); `share` (N,) that of the area's residents who live in the LSOA."""

    of: Ints
    label: Ints
    stratum: Ints
    names: tuple[str, ...]
    share: Floats

    def drawn(self, rng: np.random.Generator) -> Ints:
        """Another list: the area that each place is now (P,), -1 for none."""
        import numpy as np

        out = np.full(len(self.label), -1)
        key, turn = rng.random(len(self.label)), rng.random(len(self.label))
        by_key = np.lexsort((key, self.stratum))
        named = np.flatnonzero(self.label >= 0)
        named = named[np.lexsort((turn[named], self.stratum[named]))]
        # the first places of a stratum in random order take its areas' names, these too in random order
        first = np.searchsorted(self.stratum[by_key], self.stratum[named])
        nth = np.arange(len(named)) - np.searchsorted(self.stratum[named], self.stratum[named])
        out[by_key[first + nth]] = self.label[named]
        return out


@dataclass(frozen=True, slots=True)
class Changes:
    """What each LSOA's outcome did at each of the `starts` (S,) there can be: the mean of the years from it on less the
    last year before (`from_last`) and less the mean of all before (`from_all`), (N, S, definitions) each. `spell` (S,):
    years from the start on."""

    starts: Floats
    spell: Floats
    from_last: Floats
    from_all: Floats


@dataclass(frozen=True, slots=True)
class World:
    """What every draw shares, and what a worker is sent.

    `whole` (outcome, window) -> (N,) whether no year is blank. Of the whole series, a column a definition: `around`
    (outcome, window, start) -> (N, 3 x definitions), means from the start on and before it, and the last year
    before; `changes` (outcome, window) -> `Changes`. `starts` treatment -> (A,) first treated year by area,
    `covariates` name -> (N, k), `excluded` name -> (N,). `unknown`: treatment -> why the tier has no dates.
    """

    draw: Draw
    specs: tuple[Specification, ...]
    outcomes: tuple[str, ...]
    places: Places
    years: Ints
    around: dict[tuple[str, str, int], Floats]
    changes: dict[tuple[str, str], Changes]
    whole: dict[tuple[str, str], Mask]
    starts: dict[str, Floats]
    covariates: dict[str, Floats]
    excluded: dict[str, Mask]
    population: Floats
    unknown: dict[str, str]


def run(
    draw: Draw,
    analyses: Sequence[Analysis],
    runs: Callable[[Any], Iterator[Any]],
    rng: Callable[[str], np.random.Generator],
    advance: Callable[[int], None],
) -> Iterator[tuple[Analysis, Fit | str]]:
    """Each outcome with its specifications and what they say together, or the reason why there are none.

    All outcomes share the draws. `runs` calls functions with their arguments, in order; `rng` gives random numbers by
    name.
    """
    import numpy as np

    m = draw.study.multiverse
    assert m is not None  # the analyses are its own
    try:
        world = build(draw, [a.outcome for a in analyses])
        seen = once(world, world.draw)
    except Inapplicable as e:
        advance(m.draws * len(analyses))
        yield from ((a, str(e)) for a in analyses)
        return
    batches = [range(i, min(i + BATCH, m.draws)) for i in range(0, m.draws, BATCH)]
    found = []
    for batch, part in zip(batches, runs((permuted, (world, b, rng)) for b in batches), strict=True):
        advance(len(batch) * len(analyses))
        found.append(part)
    null = np.concatenate(found)
    for o, analysis in enumerate(analyses):
        try:
            yield analysis, summary(world, o, seen[o], null[:, o])
        except Inapplicable as e:
            yield analysis, str(e)


def permuted(world: World, which: range, rng: Callable[[str], np.random.Generator]) -> Floats:
    """Draws x outcomes x specifications x (estimate, standard error, clusters) under other lists; NaN for none."""
    import numpy as np

    out = np.empty((len(which), len(world.outcomes), len(world.specs), len(SHARED)))
    for i, number in enumerate(which):
        area = world.places.drawn(rng(f"multiverse/{number}"))
        out[i] = once(world, relisted(world, area))[..., SHARED]
    return out


def relisted(world: World, area: Ints) -> Draw:
    """The draw under another list: `area` (P,) is the area that each place is now."""
    import numpy as np
    import pandas as pd

    p = world.places
    frame = world.draw.places()
    of = np.where(p.of >= 0, area[p.of], -1)
    moved = of != np.where(p.of >= 0, p.label[p.of], -1)
    share = np.where(of < 0, np.nan, np.where(moved & np.isnan(p.share), 1.0, p.share))
    return world.draw.relabelled(
        frame.assign(area_id=pd.Categorical.from_codes(of.astype(np.int64), categories=pd.Index(p.names)), share=share)
    )


# --- the ordinary way ------------------------------------------------------------------------------------------


def sample(draw: Draw, outcome: str, spec: Specification) -> Sample:
    """The sample of one specification, for any estimator: that of the ordinary path with the specification's window,
    definition, exclusion, weights and covariates. Raises `Inapplicable` where nothing is left of it."""
    import numpy as np
    import pandas as pd

    m = _multiverse(draw.study)
    column = draw.study.outcomes[outcome].column
    table = draw.tier.table("area_panel")
    if spec.definition == "winsorised":
        by_year = table.groupby("year")[column]
        low, high = (table["year"].map(by_year.quantile(q)) for q in (TAIL, 1 - TAIL))
        table = table.assign(**{column: table[column].astype(float).clip(low, high)})
    cells = draw.matched(spec.comparison)[0]  # before the outcome is changed: matching may look at it
    tier = replace(draw.tier, _kept={**draw.tier._kept, "area_panel": table})
    made = replace(draw, tier=tier).sample(
        Analysis("", "effects", outcome, "all", spec.comparison, "", "none", spec.treatment)
    )
    cells = cells[cells["weight"] > 0]
    window, gone = m.window[spec.window], m.exclusion[spec.exclusion]
    frame = made.frame
    frame = frame[frame["time"].between(window.first_year, window.last_year)]
    years = frame["time"].nunique()
    whole = frame.groupby("unit")["time"].transform("size") == years
    first = frame["first_treated"]
    fits = (frame["treated"] == 0) | ((first > frame["time"].min()) & (first <= frame["time"].max()))
    kept = whole & fits
    for c in gone.columns:
        kept &= ~cells[c].isin(list(gone.values)).to_numpy()[frame["unit"]]
    frame = frame[kept]
    there = set(frame["unit"])
    frame = frame[(frame["set"] < 0) | frame["set"].isin(there)]
    if not (frame["treated"] == 1).any():
        raise Inapplicable(f"{spec.name}: no treated LSOA is left.")
    head = frame["set"].where(frame["set"] >= 0, frame["unit"]).to_numpy()
    if spec.weights == "residents":
        frame = frame.assign(weight=frame["weight"] * cells["population"].to_numpy(dtype=float)[head])
    elif spec.weights == "areas":
        treated = frame[frame["treated"] == 1].drop_duplicates("unit")
        area = cells["area_id"].astype(object).to_numpy()
        size = pd.Series(area[treated["unit"]]).value_counts()
        frame = frame.assign(weight=frame["weight"] / size.reindex(area[head]).to_numpy(dtype=float))
    more: dict[str, Any] = {}
    for c in m.covariates[spec.covariates].columns:
        x = cells[c].to_numpy(dtype=float)[frame["unit"]]
        if spec.estimator == "ancova":
            more[c] = x
        else:  # unit effects hold its level, so it enters by year
            more |= {f"{c} in {t}": np.where(frame["time"] == t, x, 0.0) for t in sorted(frame["time"].unique())[1:]}
    return replace(made, frame=frame.assign(**more).reset_index(drop=True), covariates=tuple(more))


def average(fit: Fit) -> tuple[float, float]:
    """Estimate and standard error that a specification takes from its estimator's fit: the ATT, or of an event study
    the mean of the years from the start on."""
    import numpy as np

    if "periods" not in fit.facts:
        att = next(t for t in fit.terms if t.name == "att")
        return att.estimate, att.std_error
    after = np.asarray(fit.facts["periods"]) >= 0
    contrast = after / after.sum()
    return float(contrast @ fit.facts["beta"]), float(np.sqrt(contrast @ fit.facts["vcov"] @ contrast))


# --- all at once -----------------------------------------------------------------------------------------------


def build(draw: Draw, outcomes: Sequence[str]) -> World:
    """What every draw shares. Raises `Inapplicable` where the tier lacks an outcome, or no specification is left."""
    import numpy as np
    import pandas as pd

    study, m = draw.study, _multiverse(draw.study)
    specs = expand(study)[0]
    frame = draw.places()
    frame = frame.assign(row=np.arange(len(frame)))
    names = tuple(sorted(map(str, draw.tier.table("programme")["area_id"])))
    starts: dict[str, Floats] = {}
    unknown: dict[str, str] = {}
    for name in m.treatment:
        try:
            by_area, _ = draw.starts(study.treatments[name])
            starts[name] = np.array([by_area[a] for a in names])
        except Inapplicable as e:
            unknown[name] = str(e)
    specs = tuple(s for s in specs if s.treatment not in unknown)
    if not specs:
        raise Inapplicable(" ".join(dict.fromkeys(unknown.values())))
    if not draw.tier.has("area_panel"):
        raise Inapplicable(draw.tier.lacks.get("area_panel", "The tier has no area_panel."))
    panel = draw.tier.table("area_panel")
    first = min(w.first_year for w in m.window.values())
    years = np.arange(first, max(w.last_year for w in m.window.values()) + 1)
    at = frame.index.get_indexer(pd.Index(panel["lsoa11"]))
    year = panel["year"].to_numpy(dtype=int)
    values: dict[tuple[str, str], Floats] = {}
    whole: dict[tuple[str, str], Mask] = {}
    for name in outcomes:
        o = study.outcomes[name]
        y = panel[o.column].to_numpy(dtype=float, na_value=np.nan)
        y = np.where(np.isin(y, o.codes_missing), np.nan, y)
        wide = np.full((len(frame), len(years)), np.nan)
        here = (at >= 0) & (year >= max(first, o.first_year)) & (year <= min(years[-1], o.last_year))
        wide[at[here], year[here] - first] = y[here]
        if not np.isfinite(wide).any():
            raise Inapplicable(f"{o.label}: no values of {o.column}. {draw.tier.lacks.get(o.column, '')}".rstrip())
        for window, w in m.window.items():
            span = _span(years, max(w.first_year, o.first_year), min(w.last_year, o.last_year))
            whole[name, window] = np.isfinite(wide[:, span]).all(axis=1)
        for definition in m.definition:
            made = wide
            if definition == "winsorised":
                low, high = np.nanquantile(wide, [TAIL, 1 - TAIL], axis=0)
                made = np.clip(wide, low, high)
            if o.at_least is not None:
                made = np.where(np.isnan(made), np.nan, made >= o.at_least)
            values[name, definition] = np.nan_to_num(made * o.scale)
    common = {t.year for t in (study.treatments[s.treatment] for s in specs) if t.year is not None}
    dated = {s.treatment for s in specs if study.treatments[s.treatment].year is None}
    around: dict[tuple[str, str, int], Floats] = {}
    changes: dict[tuple[str, str], Changes] = {}
    for name, (window, w) in itertools.product(outcomes, m.window.items()):
        o = study.outcomes[name]
        span = _span(years, max(w.first_year, o.first_year), min(w.last_year, o.last_year))
        y = np.stack([values[name, d][:, span] for d in m.definition], axis=1)
        seen = years[span]
        for start in common:
            after = seen >= start
            if after.any() and not after.all():
                parts = (y[:, :, after].mean(axis=2), y[:, :, ~after].mean(axis=2), y[:, :, ~after][:, :, -1])
                around[name, window, start] = np.concatenate(parts, axis=1)
        if dated:
            changes[name, window] = _changes(y, seen, np.unique(np.concatenate([starts[t] for t in sorted(dated)])))
    area = frame["area_id"].astype(object)
    kept = {"areas": frame, "programme": draw.tier.table("programme")}
    return World(
        draw=replace(draw, tier=replace(draw.tier, _kept=kept), _matched={}, _places=frame),
        specs=specs,
        outcomes=tuple(outcomes),
        places=exchangeable(frame, study, names),
        years=years,
        around=around,
        changes=changes,
        whole=whole,
        starts=starts,
        covariates={k: frame[list(c.columns)].to_numpy(dtype=float) for k, c in m.covariates.items()},
        excluded={
            k: np.logical_or.reduce([frame[c].isin(list(x.values)).to_numpy(dtype=bool) for c in x.columns])
            if x.columns
            else np.zeros(len(area), dtype=bool)
            for k, x in m.exclusion.items()
        },
        population=frame["population"].to_numpy(dtype=float, na_value=np.nan),
        unknown=unknown,
    )


def exchangeable(frame: pd.DataFrame, study: Study, names: tuple[str, ...]) -> Places:
    """The places of `frame` (as `Draw.places`), and within which of them names change hands.

    LSOAs of an area with too small a share go with it. MSOAs that an area has an LSOA of are no place of their own.
    """
    import numpy as np
    import pandas as pd

    m = _multiverse(study)
    code = pd.Index(names).get_indexer(pd.Index(frame["area_id"].astype(object)))
    share = np.where(code >= 0, frame["share"].to_numpy(dtype=float), np.nan)
    msoa, msoas = pd.factorize(frame["msoa11"].astype(str), sort=True)
    imd = frame["imd"].to_numpy(dtype=float)
    known = np.isfinite(imd)
    taken = np.zeros(len(msoas), dtype=bool)
    taken[msoa[code >= 0]] = True
    free = np.flatnonzero(~taken[msoa] & known)
    order = free[np.lexsort((free, -imd[free], msoa[free]))]
    rank = np.arange(len(order)) - np.searchsorted(msoa[order], msoa[order])
    order = order[rank < LARGEST]
    order = order[np.bincount(msoa[order], minlength=len(msoas))[msoa[order]] >= SMALLEST]
    of = np.where(code >= 0, code, -1)
    others, number = np.unique(msoa[order], return_inverse=True)
    of[order] = len(names) + number
    size = len(names) + len(others)
    inside = (of >= 0) & known & ~(share < study.policy.treated_share)
    count = np.bincount(of[inside], minlength=size)
    mean = np.bincount(of[inside], imd[inside], size) / np.maximum(count, 1)
    region, _ = pd.factorize(frame["region"].astype(str), sort=True)
    home = np.full(size, -1)
    at = np.flatnonzero(of >= 0)[::-1]
    home[of[at]] = region[at]
    national = np.bincount(msoa[known], imd[known]) / np.maximum(np.bincount(msoa[known]), 1)
    cuts = np.quantile(national, np.arange(1, m.bands) / m.bands)
    own = np.arange(size)
    label = np.where(own < len(names), own, -1)
    # an area without an LSOA of its own, or of unknown deprivation, keeps its name
    stratum = np.where(count > 0, home * m.bands + np.searchsorted(cuts, mean), -1 - own)
    return Places(of, label, stratum, names, share)


def once(world: World, draw: Draw) -> Floats:
    """Outcomes x specifications x (estimate, standard error, units, treated units, clusters) under the list of `draw`.

    NaN where a comparison does not apply to the list.
    """
    import numpy as np

    out = np.full((len(world.outcomes), len(world.specs), PER_ROW), np.nan)
    numbered = list(enumerate(world.specs))
    for (comparison,), group in _grouped(numbered, "comparison"):
        try:
            matched = _Matched.of(world, draw, comparison)
        except Inapplicable:
            continue
        for (window, treatment, exclusion), some in _grouped(group, "window", "treatment", "exclusion"):
            for o, outcome in enumerate(world.outcomes):
                units = matched.units(world, outcome, window, treatment, exclusion)
                for i, said in units.estimates(some) if units else ():
                    out[o, i] = said
    return out


# --- what they say together ------------------------------------------------------------------------------------


def summary(world: World, outcome: int, seen: Floats, null: Floats) -> Fit:
    """Every specification, and the tests of all: `seen` (S, 5) as `once` has it, `null` (draws, S, 3) of other lists.

    Terms: `specifications` and `draws` (counts); `curve`, with its two-sided p-value over the draws, and `drawn`, the
    mean and the middle of what the draws say (interval at the study's level), of level `median` (of the estimates),
    `share_same_sign` (of the commoner sign), `share_significant` (in the commoner direction), `stouffer` (the sum of z
    over the root of their number), `max_z` (the largest in size); `curve` of level `told_apart`: specifications that
    are, with the family-wise error held at the study's level (step-down over the draws; Westfall and Young 1993;
    Romano and Wolf 2005, Econometrica 73:1237). `vibration`: 99th less 1st percentile of the estimates, the logarithm
    of the ratio that Patel, Burford and Ioannidis (2015, J Clin Epidemiol 68:1046) take of hazard ratios;
    `vibration_p`: the same of -log10 p; `share_flipped`: with another sign than the median. `choice` (level =
    dimension): its share of the variance of the estimates, see `shares`, with `choice` of level `interactions` for the
    rest; `option` (level = dimension: option): the median estimate with it. `null_curve` (period = percentile): the
    draws' estimates by size, median and middle. `specification` (level = its name): estimate, error, t, p and interval.

    Raises `Inapplicable` for fewer than 99 draws.
    """
    import numpy as np
    from scipy.special import ndtri, stdtr, stdtrit

    policy = world.draw.study.policy
    alpha = 1 - policy.conf_level
    there = np.isfinite(seen[:, 1]) & (seen[:, 1] > 0)
    if not there.any():
        raise Inapplicable("no specification has treated and comparison LSOAs with whole series in two areas or more.")
    good = np.asarray((np.isfinite(null[:, there]).all(axis=2) & (null[:, there, 1] > 0)).all(axis=1))
    if good.sum() < FEWEST:
        raise Inapplicable(
            f"{int(good.sum())} of {len(good)} draws went through every specification; {FEWEST} are needed. "
            f"Take out the comparison or window that leaves none."
        )
    specs = [s for s, ok in zip(world.specs, there, strict=True) if ok]
    seen, null = seen[there], null[good][:, there]
    estimate = np.vstack([seen[None, :, 0], null[..., 0]])  # the list as it is, then the draws
    error, df = np.vstack([seen[None, :, 1], null[..., 1]]), np.vstack([seen[None, :, 4], null[..., 2]]) - 1
    p = 2 * stdtr(df, -np.abs(estimate / error))
    z = np.sign(estimate) * -ndtri(np.maximum(p, 1e-300) / 2)
    found = p < alpha
    curve = {
        "median": np.median(estimate, axis=1),
        "share_same_sign": np.maximum((estimate > 0).mean(axis=1), (estimate < 0).mean(axis=1)),
        "share_significant": np.maximum((found & (z > 0)).mean(axis=1), (found & (z < 0)).mean(axis=1)),
        "stouffer": z.sum(axis=1) / np.sqrt(len(specs)),
        "max_z": np.abs(z).max(axis=1),
    }
    draws = len(null)
    terms = [Term("specifications", float(len(specs)), tested=False), Term("draws", float(draws), tested=False)]
    for name, values in curve.items():
        terms.append(Term("curve", float(values[0]), level=name, p_value=extreme(values)))
        low, high = np.quantile(values[1:], [alpha / 2, 1 - alpha / 2])
        mean = float(values[1:].mean())
        terms.append(Term("drawn", mean, level=name, conf_low=float(low), conf_high=float(high)))
    apart = float((step_down(np.abs(z)) < alpha).sum())
    terms.append(Term("curve", apart, level="told_apart", tested=False))
    middle = curve["median"][0]
    spread, of_p = np.quantile(seen[:, 0], [0.01, 0.99]), np.quantile(-np.log10(np.maximum(p[0], 1e-300)), [0.01, 0.99])
    terms += [
        Term("vibration", float(spread[1] - spread[0]), conf_low=float(spread[0]), conf_high=float(spread[1])),
        Term("vibration_p", float(of_p[1] - of_p[0]), conf_low=float(of_p[0]), conf_high=float(of_p[1])),
        Term("share_flipped", float((np.sign(seen[:, 0]) == -np.sign(middle)).mean()), tested=False),
    ]
    terms += [Term("choice", v, level=k, tested=False) for k, v in shares(specs, seen[:, 0]).items()]
    for dimension in DIMENSIONS:
        for (option,), some in _grouped(list(enumerate(specs)), dimension):
            of = float(np.median([seen[i, 0] for i, _ in some]))
            terms.append(Term("option", of, level=f"{dimension}: {option}", tested=False))
    at = np.round(np.linspace(0, len(specs) - 1, 101)).astype(int)
    ordered = np.sort(null[..., 0], axis=1)[:, at]
    low, mid, high = np.quantile(ordered, [alpha / 2, 0.5, 1 - alpha / 2], axis=0)
    terms += [
        Term("null_curve", float(mid[i]), period=i, conf_low=float(low[i]), conf_high=float(high[i]), tested=False)
        for i in range(len(at))
    ]
    width = stdtrit(df[0], 1 - alpha / 2) * seen[:, 1]
    counts: list[tuple[int | None, int | None, int | None]] = [(None, None, None)] * len(terms)
    for i, s in enumerate(specs):
        b, e = float(seen[i, 0]), float(seen[i, 1])
        terms.append(
            Term("specification", b, e, float(df[0, i]), level=s.name, statistic=b / e, p_value=float(p[0, i]),
                 conf_low=b - float(width[i]), conf_high=b + float(width[i]))
        )  # fmt: skip
        counts.append((int(seen[i, 2]), int(seen[i, 3]), int(seen[i, 4])))
    whole = max((w for (o, _), w in world.whole.items() if o == world.outcomes[outcome]), key=np.sum)
    lost, fewer = int((~good).sum()), int((~there).sum())
    caution = [
        *world.unknown.values(),
        f"{fewer} specifications have no estimate and left." if fewer else "",
        f"{lost} draws without an estimate of every specification left." if lost else "",
    ]
    return Fit(
        tuple(terms), int(whole.sum()) * len(world.years), int(whole.sum()), int(seen[:, 3].max()),
        int(seen[:, 4].max()), caution=" ".join(filter(None, caution)), facts={"counts": counts},
    )  # fmt: skip


def extreme(values: Floats) -> float:
    """The two-sided p-value of the first of `values` (1 + draws,): the share that is as far from nought, itself among
    them (Phipson and Smyth 2010)."""
    import numpy as np

    size = np.abs(values)
    return float((size >= size[0] * (1 - 1e-12)).mean())


def step_down(size: Floats) -> Floats:
    """Adjusted p-values (S,) of the first row of `size` (1 + draws, S) in step-down order: each specification against
    the largest of those that are not yet rejected (Romano and Wolf 2005, algorithm 4.1)."""
    import numpy as np

    order = np.argsort(-size[0], kind="stable")
    largest = np.maximum.accumulate(size[:, order[::-1]], axis=1)[:, ::-1]
    p = np.maximum.accumulate((largest >= size[0, order] * (1 - 1e-12)).mean(axis=0))
    out = np.empty_like(p)
    out[order] = p
    return np.asarray(out)


def shares(specs: Sequence[Specification], values: Floats) -> dict[str, float]:
    """How much of the variance of `values` (S,) goes with each dimension, and with none by itself (`interactions`).

    The Shapley value of a dimension in R2 of the regression on the options of all dimensions (Lindeman, Merenda and
    Gold 1980; Groemping 2007, American Statistician 61:139): what it adds, on average over all orders in which
    dimensions can be added. Combinations are ruled out, so dimensions are not orthogonal, and each order would say
    something else. Invariant to the order of options, of dimensions and of specifications.
    """
    import math

    import numpy as np

    total = float(((values - values.mean()) ** 2).sum())
    if total <= 0:
        return {**dict.fromkeys(DIMENSIONS, 0.0), "interactions": 0.0}
    blocks = []
    for d in DIMENSIONS:
        options = sorted({getattr(s, d) for s in specs})[1:]
        blocks.append(np.array([[getattr(s, d) == o for o in options] for s in specs], dtype=float))
    y = values - values.mean()
    centred = [b - b.mean(axis=0) for b in blocks]
    k = len(blocks)
    explained = np.zeros(2**k)
    for mask in range(1, 2**k):
        x = np.column_stack([centred[j] for j in range(k) if mask >> j & 1])
        fit = x @ np.linalg.lstsq(x, y, rcond=1e-10)[0] if x.shape[1] else np.zeros(len(y))
        explained[mask] = float(fit @ fit) / total
    out = {}
    for j, name in enumerate(DIMENSIONS):
        value = 0.0
        for mask in range(2**k):
            if not mask >> j & 1:
                m = mask.bit_count()
                weight = math.factorial(m) * math.factorial(k - m - 1) / math.factorial(k)
                value += weight * (explained[mask | 1 << j] - explained[mask])
        out[name] = float(value)
    return {**out, "interactions": float(1 - explained[-1])}


@dataclass(frozen=True, slots=True)
class _Matched:
    """A comparison under one list: its n LSOAs of some weight, sorted by cluster.

    `row` into the places, `head` the position of the treated LSOA a row is matched to (its own without sets), `area`
    the code of a treated LSOA's area.
    """

    row: Ints
    weight: Floats
    treated: Mask
    head: Ints
    cluster: Ints
    area: Ints
    sets: bool

    @classmethod
    def of(cls, world: World, draw: Draw, comparison: str) -> _Matched:
        import numpy as np
        import pandas as pd

        cells = draw.matched(comparison)[0]
        cells = cells[cells["weight"] > 0]
        cluster = pd.factorize(cells["cluster"], sort=True)[0]
        order = np.argsort(cluster, kind="stable")
        cells = cells.iloc[order]
        sets = bool(cells["in_set"].any())
        head = np.arange(len(cells))
        if sets:
            code = pd.Index(cells["lsoa11"])
            head = np.where(cells["in_set"], code.get_indexer(pd.Index(cells["set_lsoa"])), head)
        treated = cells["treated"].to_numpy() == 1
        area = np.where(
            treated, pd.Index(world.places.names).get_indexer(pd.Index(cells["area_id"].astype(object))), -1
        )
        return cls(
            cells["row"].to_numpy(), cells["weight"].to_numpy(dtype=float), treated, head,
            cluster[order].astype(np.int64), area, sets,
        )  # fmt: skip

    def units(self, world: World, outcome: str, window: str, treatment: str, exclusion: str) -> _Units | None:
        """The LSOAs of some specifications, and their outcome; None where no treated or comparison LSOA is left."""
        import numpy as np

        study = world.draw.study
        w, o = _multiverse(study).window[window], study.outcomes[outcome]
        span = _span(world.years, max(w.first_year, o.first_year), min(w.last_year, o.last_year))
        years = world.years[span]
        start = np.where(self.treated, world.starts[treatment][self.area], np.nan)
        ok = world.whole[outcome, window][self.row] & ~world.excluded[exclusion][self.row]
        ok &= ~self.treated | ((start > years[0]) & (start <= years[-1]))
        ok &= ok[self.head]
        kept = np.flatnonzero(ok)
        treated = self.treated[kept]
        if len(np.unique(self.cluster[kept[treated]])) < 2 or treated.all():
            return None
        size = np.bincount(self.area[kept[treated]], minlength=len(world.places.names))
        head = self.head[kept]
        own = np.full(len(self.row), -1)
        own[kept] = np.arange(len(kept))
        row = self.row[kept]
        year = study.treatments[treatment].year
        return _Units(
            around=None if year is None else world.around[outcome, window, year][row],
            changes=None if year is not None else _of(world.changes[outcome, window], row, start[head]),
            years=len(years),
            definitions=tuple(_multiverse(study).definition),
            treated=treated,
            head=own[head],
            bounds=np.flatnonzero(np.diff(self.cluster[kept], prepend=-1)),
            weight=self.weight[kept],
            residents=world.population[self.row[head]],
            size=size[self.area[head]].astype(float),
            covariates={k: x[row] for k, x in world.covariates.items()},
            sets=self.sets,
        )


@dataclass(frozen=True, slots=True)
class _Units:
    """The LSOAs (n,) of specifications that differ in weights, covariates, estimator and definition alone.

    `around` (n, 3 x definitions) as in `World`, for one start; `changes` the changes and the position of each LSOA's
    own start among theirs, that of its head for a comparison LSOA, for several; `bounds` (G,) where a cluster
    begins; `residents` and `size` those of the head and of its area.
    """

    around: Floats | None
    changes: tuple[Changes, Ints] | None
    years: int
    definitions: tuple[str, ...]
    treated: Mask
    head: Ints
    bounds: Ints
    weight: Floats
    residents: Floats
    size: Floats
    covariates: dict[str, Floats]
    sets: bool

    def estimates(self, specs: list[tuple[int, Specification]]) -> Iterator[tuple[int, tuple[float, ...]]]:
        """The numbered specifications with what they say."""

        counts = (len(self.treated), int(self.treated.sum()), len(self.bounds))
        for (weights,), some in _grouped(specs, "weights"):
            w = self.weight
            if weights != "lsoas":
                w = w * self.residents if weights == "residents" else w / self.size
            for (covariates,), few in _grouped(some, "covariates"):
                x = self.covariates[covariates]
                found = {} if self.around is None else self._at_one_start(self.around, w, x)
                found |= {} if self.changes is None else self._staggered(*self.changes, w)
                for i, s in few:
                    if s.estimator in found:
                        beta, error, own = found[s.estimator]
                        d = self.definitions.index(s.definition)
                        yield i, (float(beta[d]), float(error[d]), *(own or counts))

    def _at_one_start(self, y: Floats, w: Floats, x: Floats) -> Found:
        """Least squares on one row a unit: with whole series and constant weights two-way fixed effects and event
        study are regressions of a change on treatment, and covariates by year those on the change (Frisch, Waugh and
        Lovell). All three estimators come from what is left of the means once treatment and covariates are out."""
        import numpy as np

        t, k, n, d = self.years, x.shape[1], len(w), len(self.definitions)
        basis = np.empty((n, 2 + k))
        basis[:, 0], basis[:, 1] = self.treated, 1.0
        basis[:, 2:] = x - w @ x / w.sum()
        weighted = w[:, None] * basis
        inverse = np.linalg.inv(basis.T @ weighted)
        beta = inverse @ (weighted.T @ y)
        left = y - basis @ beta
        z = (weighted @ inverse[0])[:, None]
        post, pre, base = left[:, :d], left[:, d : 2 * d], left[:, 2 * d :]
        own = w[:, None] * pre
        size = (own * pre).sum(axis=0)
        slope = (own * post).sum(axis=0) / size
        scores = np.concatenate(
            [z * (post - pre), z * (post - base), (z - own * (beta[0, d : 2 * d] / size)) * (post - slope * pre)],
            axis=1,
        )
        error = _clustered(scores, self.bounds).reshape(3, d)
        g = len(self.bounds)
        factors = (correction(n * t, 1 + k * (t - 1) + t, g), correction(n * t, (1 + k) * (t - 1) + t, g),
                   correction(n, 3 + k, g))  # fmt: skip
        after, early, latest = beta[0, :d], beta[0, d : 2 * d], beta[0, 2 * d :]
        effects = (after - early, after - latest, after - slope * early)
        return {
            name: (effect, e * factor**0.5, ())
            for name, effect, e, factor in zip(("twfe", "event_study", "ancova"), effects, error, factors, strict=True)
        }

    def _staggered(self, c: Changes, at: Ints, w: Floats) -> Found:
        found = {"callaway_santanna": self._by_cohort(c, at, w)}
        by_set = self._by_set(c.from_all, at, w) if self.sets else self._by_start(c.from_all, at, w)
        return found | ({"matched_change": by_set} if by_set else {})

    def _by_cohort(self, c: Changes, at: Ints, w: Floats) -> Say:
        """Callaway and Sant'Anna's mean over all treated unit-years, never-treated units as the comparison: by cohort
        the mean change from the last year before, with the shares' part in the influence (`callaway_santanna`)."""
        import numpy as np

        change, spell, size, n = c.from_last, c.spell, len(c.starts), len(w)
        own = np.where(self.treated, w, 0.0)
        mass = np.bincount(at, own, size)
        total = float(mass @ spell)
        share = mass * spell / total
        own /= np.where(mass > 0, mass, 1.0)[at]
        free = np.where(self.treated, 0.0, w) / w[~self.treated].sum()
        mine = change[np.arange(n), at]
        of_treated = _means(at, own, mine, size)
        of_free = np.tensordot(free, change, 1)
        effects = of_treated - of_free
        att = share @ effects
        rest = np.tensordot(change, share, (1, 0)) - share @ of_free
        mover = (share[at] * own)[:, None] * (mine - of_treated[at])
        mover += (np.where(self.treated, w, 0.0) * (spell / total)[at])[:, None] * (effects[at] - att)
        return att, _clustered(mover - free[:, None] * rest, self.bounds), ()

    def _by_start(self, change: Floats, at: Ints, w: Floats) -> Say:
        """The matched difference in changes without sets: treated units of a start against the whole comparison."""
        import numpy as np

        free = np.where(self.treated, 0.0, w) / w[~self.treated].sum()
        own = np.where(self.treated, w, 0.0) / w[self.treated].sum()
        mine = change[np.arange(len(w)), at]
        of_free = np.tensordot(free, change, 1)
        share = np.bincount(at, own, change.shape[1])
        att = own @ mine - share @ of_free
        rest = np.tensordot(change, share, (1, 0)) - share @ of_free
        influence = own[:, None] * (mine - of_free[at] - att) - free[:, None] * rest
        return att, _clustered(influence, self.bounds) * correction(len(w), 2, len(self.bounds)) ** 0.5, ()

    def _by_set(self, change: Floats, at: Ints, w: Floats) -> Say | None:
        """The matched difference in changes (`matched_change`): each set, cut at its treated unit's own start."""
        import numpy as np

        n, size = len(w), change.shape[1]
        own, rival = np.where(self.treated, w, 0.0), np.where(self.treated, 0.0, w)
        by_set = np.bincount(self.head, rival, n)[self.head]
        used = by_set > 0  # a treated unit whose matches all left says nothing
        if not (used & self.treated).any():
            return None
        share = np.where(self.treated, own, rival * own[self.head] / np.where(used, by_set, 1.0))
        share = np.where(used, share, 0.0) / own[used].sum()
        sign = np.where(self.treated, share, -share)
        mine = change[np.arange(n), at]
        att = sign @ mine
        comparison = np.where(self.treated, 0.0, share)
        mass = np.bincount(at, comparison, size)
        mean = _means(at, comparison / np.where(mass > 0, mass, 1.0)[at], mine, size)
        influence = sign[:, None] * (mine - mean[at] - np.where(self.treated[:, None], att, 0.0))
        begins = np.add.reduceat(used, self.bounds)
        clusters, units = int((begins > 0).sum()), int(used.sum())
        if (np.add.reduceat(used & self.treated, self.bounds) > 0).sum() < 2:
            return None
        error = _clustered(influence, self.bounds) * correction(units, 2, clusters) ** 0.5
        return att, error, (units, int((used & self.treated).sum()), clusters)


Say = tuple["Floats", "Floats", tuple[int, ...]]  # estimates, errors by definition; counts, where they are its own
Found = dict[str, Say]


def _changes(y: Floats, years: Ints, starts: Floats) -> Changes:
    """The changes of outcomes `y` (N, definitions, T) at those of `starts` that have a year before and one from it."""
    import numpy as np

    starts = starts[(starts > years[0]) & (starts <= years[-1])]
    total = np.concatenate([np.zeros((*y.shape[:2], 1)), y.cumsum(axis=2)], axis=2)
    at = np.searchsorted(years, starts)
    later = (total[:, :, -1:] - total[:, :, at]) / (len(years) - at)
    turned = [
        np.ascontiguousarray(v.transpose(0, 2, 1)) for v in (later - y[:, :, at - 1], later - total[:, :, at] / at)
    ]
    return Changes(starts, (len(years) - at).astype(float), *turned)


def _of(c: Changes, row: Ints, start: Floats) -> tuple[Changes, Ints]:
    """The changes of some LSOAs, and the position of each one's own start; the first where it has none."""
    import numpy as np

    at = np.searchsorted(c.starts, np.where(np.isnan(start), c.starts[0], start))
    return replace(c, from_last=c.from_last[row], from_all=c.from_all[row]), at


def _means(group: Ints, share: Floats, values: Floats, size: int) -> Floats:
    """Sums (size, m) of share times values (n, m) within groups."""
    import numpy as np

    return np.stack([np.bincount(group, share * v, size) for v in values.T], axis=1)


def _clustered(influence: Floats, bounds: Ints) -> Floats:
    """Root of the sum of squared cluster totals, without any factor."""
    import numpy as np

    total = np.add.reduceat(influence, bounds, axis=0)
    return np.asarray(np.sqrt((total * total).sum(axis=0)))


def _span(years: Ints, first: int, last: int) -> slice:
    return slice(max(first - int(years[0]), 0), max(last - int(years[0]) + 1, 0))


def _grouped(
    specs: list[tuple[int, Specification]], *dimensions: str
) -> Iterator[tuple[tuple[str, ...], list[tuple[int, Specification]]]]:
    """Numbered specifications by their options in some dimensions."""
    groups: dict[tuple[str, ...], list[tuple[int, Specification]]] = {}
    for i, s in specs:
        groups.setdefault(tuple(getattr(s, d) for d in dimensions), []).append((i, s))
    yield from groups.items()


def _multiverse(study: Study) -> Multiverse:
    if study.multiverse is None:
        raise Inapplicable("study.toml has no [multiverse].")
    return study.multiverse
