"""The multiverse: every specification of study.toml estimated, and all of them tested together.

One draw of who was treated (`places`) goes through all specifications at once, from the pool and the matching to the
standard error, so that the dependence between specifications is as it is; `curve` is what they then say together.

Outcomes enter through sums over the years of each LSOA (`whole_series`). `sample` gives any specification the ordinary
way; the tests hold the two together.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from biglocal import curve
from biglocal.model import Analysis, Fit, Inapplicable, Sample
from biglocal.places import Places, exchangeable, relisted
from biglocal.specifications import Specification, expand, grouped, multiverse
from biglocal.whole_series import (
    Cohorts,
    Counts,
    Said,
    Series,
    at_one_start,
    by_cohort,
    by_set,
    by_start,
    in_sets,
    series,
    sums,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from biglocal.sample import Draw

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Mask = NDArray[np.bool_]

BATCH = 27  # draws of a task
TAIL = 0.01  # winsorised on either side
PER_ROW = 5  # estimate, standard error, units, treated units, clusters
SHARED = (0, 1, 4)  # of these, what a draw says


@dataclass(frozen=True, slots=True)
class World:
    """What every draw shares, and what a worker is sent.

    `series` by outcome and window. `starts` treatment -> (A,) first treated year by area. `columns`: covariates of any
    option. `excluded` name -> (N,). `unknown`: treatment -> why the tier has no dates.
    """

    draw: Draw
    specs: tuple[Specification, ...]
    outcomes: tuple[str, ...]
    places: Places
    series: dict[tuple[str, str], Series]
    starts: dict[str, Floats]
    columns: tuple[str, ...]
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

    m = multiverse(draw.study)
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


def summary(world: World, outcome: int, seen: Floats, null: Floats) -> Fit:
    """`curve.summary` of one outcome, `seen` (S, 5) as `once` has it and `null` (draws, S, 3) as `permuted` has it."""

    own = [s for (o, _), s in world.series.items() if o == world.outcomes[outcome]]
    units, years = (max(of, default=0) for of in ([int(s.whole.sum()) for s in own], [len(s.years) for s in own]))
    level, caution = world.draw.study.policy.conf_level, " ".join(world.unknown.values())
    return curve.summary(world.specs, seen, null, level=level, units=units, years=years, caution=caution)


def permuted(world: World, which: range, rng: Callable[[str], np.random.Generator]) -> Floats:
    """Draws x outcomes x specifications x (estimate, standard error, clusters) under other lists; NaN for none."""
    import numpy as np

    out = np.empty((len(which), len(world.outcomes), len(world.specs), len(SHARED)))
    for i, number in enumerate(which):
        area = world.places.drawn(rng(f"multiverse/{number}"))
        out[i] = once(world, relisted(world.draw, world.places, area))[..., SHARED]
    return out


# --- the ordinary way ------------------------------------------------------------------------------------------


def sample(draw: Draw, outcome: str, spec: Specification) -> Sample:
    """The sample of one specification, for any estimator: that of the ordinary path with the specification's window,
    definition, exclusion, weights and covariates. Raises `Inapplicable` where nothing is left of it."""
    import numpy as np
    import pandas as pd

    m = multiverse(draw.study)
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

    study, m = draw.study, multiverse(draw.study)
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
    columns = tuple(dict.fromkeys(c for option in m.covariates.values() for c in option.columns))
    x = frame[list(columns)].to_numpy(dtype=float)
    x = (x - np.nanmean(x, axis=0)) / np.nanstd(x, axis=0)  # for the sake of digits: no estimate depends on it
    common = sorted({t.year for t in (study.treatments[s.treatment] for s in specs) if t.year is not None})
    dated = [starts[t] for t in sorted({s.treatment for s in specs if study.treatments[s.treatment].year is None})]
    at_dates = np.unique(np.concatenate(dated)) if dated else np.empty(0)
    found: dict[tuple[str, str], Series] = {}
    for name in outcomes:
        o = study.outcomes[name]
        y = panel[o.column].to_numpy(dtype=float, na_value=np.nan)
        y = np.where(np.isin(y, o.codes_missing), np.nan, y)
        wide = np.full((len(frame), len(years)), np.nan)
        here = (at >= 0) & (year >= max(first, o.first_year)) & (year <= min(years[-1], o.last_year))
        wide[at[here], year[here] - first] = y[here]
        if not np.isfinite(wide).any():
            raise Inapplicable(f"{o.label}: no values of {o.column}. {draw.tier.lacks.get(o.column, '')}".rstrip())
        values = []
        for definition in m.definition:
            made = wide
            if definition == "winsorised":
                known = np.isfinite(wide).any(axis=0)
                made = wide.copy()
                made[:, known] = np.clip(wide[:, known], *np.nanquantile(wide[:, known], [TAIL, 1 - TAIL], axis=0))
            if o.at_least is not None:
                made = np.where(np.isnan(made), np.nan, made >= o.at_least)
            values.append(np.nan_to_num(made * o.scale))
        for window, w in m.window.items():
            begin, end = (np.searchsorted(years, y) for y in (max(w.first_year, o.first_year), w.last_year + 1))
            span = slice(begin, max(begin, min(end, np.searchsorted(years, o.last_year + 1))))
            if len(years[span]) < 2:
                continue
            whole = np.isfinite(wide[:, span]).all(axis=1)
            found[name, window] = series(
                np.stack([v[:, span] for v in values], axis=1), years[span], x, common, at_dates, whole=whole
            )
    area = frame["area_id"].astype(object)
    kept = {"areas": frame, "programme": draw.tier.table("programme")}
    return World(
        draw=replace(draw, tier=replace(draw.tier, _kept=kept), _matched={}, _places=frame),
        specs=specs,
        outcomes=tuple(outcomes),
        places=exchangeable(frame, study, names),
        series=found,
        starts=starts,
        columns=columns,
        excluded={
            k: np.logical_or.reduce([frame[c].isin(list(x.values)).to_numpy(dtype=bool) for c in x.columns])
            if x.columns
            else np.zeros(len(area), dtype=bool)
            for k, x in m.exclusion.items()
        },
        population=frame["population"].to_numpy(dtype=float, na_value=np.nan),
        unknown=unknown,
    )


def once(world: World, draw: Draw) -> Floats:
    """Outcomes x specifications x (estimate, standard error, units, treated units, clusters) under the list of `draw`.

    NaN where a comparison does not apply to the list.
    """
    import numpy as np

    out = np.full((len(world.outcomes), len(world.specs), PER_ROW), np.nan)
    definitions = list(multiverse(draw.study).definition)
    for (comparison,), group in grouped(enumerate(world.specs), "comparison"):
        try:
            matched = _Matched.of(world, draw, comparison)
        except Inapplicable:
            continue
        for (window, treatment), some in grouped(group, "window", "treatment"):
            ways = [way for way, _ in grouped(some, "exclusion", "weights")]
            for o, outcome in enumerate(world.outcomes):
                weighed, found = matched.estimates(world, outcome, window, treatment, ways)
                for i, s in some:
                    said = found.get((s.estimator, s.covariates))
                    way = (s.exclusion, s.weights)
                    if said and way in weighed:
                        q, d = weighed.index(way), definitions.index(s.definition)
                        estimate, error, c = said
                        out[o, i] = estimate[q, d], error[q, d], c.units[q], c.treated[q], c.clusters[q]
    return out


@dataclass(frozen=True, slots=True)
class _Matched:
    """A comparison under one list: its n LSOAs of some weight, sorted by cluster, which begin at `begins` (G,).

    `row` into the places, `head` the position of the treated LSOA a row is matched to (its own without sets), `area`
    the code of the head's area, -1 for none.
    """

    row: Ints
    weight: Floats
    treated: Mask
    head: Ints
    area: Ints
    begins: Ints
    sets: bool

    @classmethod
    def of(cls, world: World, draw: Draw, comparison: str) -> _Matched:
        import numpy as np
        import pandas as pd

        cells = draw.matched(comparison)[0]
        cells = cells[cells["weight"] > 0]
        treated = cells["treated"].to_numpy() == 1
        sets = bool(cells["in_set"].any())
        head = np.arange(len(cells))
        if sets:
            code = pd.Index(cells["lsoa11"])
            head = np.where(cells["in_set"], code.get_indexer(pd.Index(cells["set_lsoa"])), head)
        named = pd.Index(world.places.names).get_indexer(pd.Index(cells["area_id"].astype(object)))
        area = np.where(treated, named, -1)[head]
        cluster = pd.factorize(cells["cluster"], sort=True)[0]
        order = np.argsort(cluster, kind="stable")
        turned = np.empty_like(order)
        turned[order] = np.arange(len(order))
        return cls(
            cells["row"].to_numpy()[order], cells["weight"].to_numpy(dtype=float)[order], treated[order],
            turned[head[order]], area[order], np.flatnonzero(np.diff(cluster[order], prepend=-1)), sets,
        )  # fmt: skip

    def estimates(
        self, world: World, outcome: str, window: str, treatment: str, ways: Sequence[tuple[str, ...]]
    ) -> tuple[list[tuple[str, ...]], dict[tuple[str, str], Said]]:
        """What the estimators say, by their name and that of covariates, and the `ways` (exclusion, weights) that they
        say it of: those that leave treated LSOAs of two areas or more, and comparison LSOAs."""
        import numpy as np

        series = world.series.get((outcome, window))
        if series is None or world.draw.study.treatments[treatment].year not in (None, *series.products):
            return [], {}  # the outcome is not known before the start, or not from it on
        first, last = series.years[[0, -1]]
        start = world.starts[treatment]
        in_time = (start > first) & (start <= last)
        here = series.whole[self.row] & (~self.treated | in_time[self.area])
        kept: list[tuple[str, ...]] = []
        weights, said = [], []
        for exclusion, some in itertools.groupby(ways, key=lambda way: way[0]):
            ok = here & ~world.excluded[exclusion][self.row]
            ok &= ok[self.head]
            counts = self._counts(ok)
            if counts is None:
                continue
            size = np.bincount(self.area[ok & self.treated], minlength=len(start))
            for way in some:
                w = np.where(ok, self.weight, 0.0)
                if way[1] == "residents":
                    w *= np.where(ok, world.population[self.row[self.head]], 0.0)
                elif way[1] == "areas":
                    w /= np.where(ok, size[self.area], 1.0)
                kept.append(way)
                weights.append(w)
                said.append(counts)
        if not kept:
            return [], {}
        return kept, self._said(world, series, treatment, np.stack(weights), Counts.of(said))

    def _said(
        self, world: World, series: Series, treatment: str, w: Floats, counts: Counts
    ) -> dict[tuple[str, str], Said]:
        """What the estimators say of LSOAs weighed by `w` (q, n), by their name and that of covariates."""
        import numpy as np

        study = world.draw.study
        options = multiverse(study).covariates
        own = np.where(self.treated, w, 0.0)
        if (year := study.treatments[treatment].year) is not None:
            s, treated = (sums(series.products[year], self.row, x, self.begins) for x in (w, own))
            found: dict[tuple[str, str], Said] = {}
            for name, option in options.items():
                columns = [world.columns.index(c) for c in option.columns]
                of = at_one_start(s, treated, columns, len(world.columns), len(series.years), counts)
                found |= {(estimator, name): said for estimator, said in of.items()}
            return found
        changes = series.changes
        assert changes is not None  # there is a treatment with dates
        none = next(name for name, option in options.items() if not option.columns)
        start = np.searchsorted(changes.starts, world.starts[treatment])
        at = np.clip(start, 0, len(changes.starts) - 1)[self.area]
        cohorts = partial(Cohorts.of, row=self.row, at=at, own=own, rest=w - own, begins=self.begins)
        found = {("callaway_santanna", none): by_cohort(cohorts(changes.from_last), changes.spell, counts)}
        if not self.sets:
            return found | {("matched_change", none): by_start(cohorts(changes.from_all), counts)}
        share = in_sets(w, self.head, self.treated)
        used = [self._counts(one) for one in share > 0]
        rest_on = Counts.of([u or (3, 2, 2) for u in used])  # a blank has no counts: any will do
        change = changes.from_all[self.row, at]
        estimate, error, _ = by_set(change, at, share, self.treated, self.begins, rest_on)
        estimate[[u is None for u in used]] = np.nan
        return found | {("matched_change", none): (estimate, error, rest_on)}

    def _counts(self, ok: Mask) -> tuple[int, int, int] | None:
        """LSOAs, treated LSOAs and clusters of those that are `ok` (n,); None without two treated clusters or without a
        comparison LSOA."""
        import numpy as np

        treated = ok & self.treated
        units, inside = int(ok.sum()), int(treated.sum())
        if inside == units or np.logical_or.reduceat(treated, self.begins).sum() < 2:
            return None
        return units, inside, int(np.logical_or.reduceat(ok, self.begins).sum())
