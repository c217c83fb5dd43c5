"""The multiverse: every specification of study.toml estimated, and all of them tested together.

One draw of who was treated (`places`) goes through all specifications at once, from the pool and the matching to the
standard error, so that the dependence between specifications is as it is; `curve` is what they then say together.

Outcomes of LSOAs enter through sums over the years of each (`whole_series`), those of persons through sums over the
persons of each LSOA and year (`cross_sections`). `fit` gives any specification the ordinary way; the tests hold the
two together.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from biglocal import curve
from biglocal.cross_sections import Answers, Respondents, answers
from biglocal.data.tables import PERSONS
from biglocal.estimators import estimator
from biglocal.model import Analysis, Fit, Inapplicable, Outcome, Sample, StudyError
from biglocal.places import Places, exchangeable, relisted
from biglocal.specifications import DIMENSIONS, Specification, combinations, expand, grouped, multiverse, years_of
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
    import pandas as pd
    from numpy.typing import NDArray

    from biglocal.sample import Draw

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Mask = NDArray[np.bool_]

BATCH = 9  # draws of a task: some seconds, so that no worker waits long for the last
TAIL = 0.01  # winsorised on either side
PER_ROW = 6  # estimate, standard error, units, treated units, clusters, the fewest persons compared
SHARED = (0, 1, 4)  # of these, what a draw says


@dataclass(frozen=True, slots=True)
class World:
    """What every draw shares, and what a worker is sent.

    `mine` (O, S): which of `specs` an outcome has. `lacking`: outcome -> why it has none. `series` by outcome and
    window, or of persons `answers` by outcome. `starts` treatment -> (A,) first treated year by area. `columns`: of
    each option of covariates, in their values `x` (N, K). `excluded` name -> (N,). `unknown`: (dimension, option) ->
    why the tier has no dates for the treatment, or no values for the covariates or the exclusion.
    """

    draw: Draw
    specs: tuple[Specification, ...]
    outcomes: tuple[str, ...]
    mine: Mask
    lacking: dict[str, str]
    places: Places
    series: dict[tuple[str, str], Series]
    answers: dict[str, Answers]
    starts: dict[str, Floats]
    columns: dict[str, list[int]]
    x: Floats
    excluded: dict[str, Mask]
    population: Floats
    unknown: dict[tuple[str, str], str]


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
    world = build(draw, [a.outcome for a in analyses])
    if not world.outcomes:
        advance(m.draws * len(analyses))
        yield from ((a, world.lacking[a.outcome]) for a in analyses)
        return
    seen = once(world, world.draw)
    batches = [range(i, min(i + BATCH, m.draws)) for i in range(0, m.draws, BATCH)]
    found = []
    for batch, part in zip(batches, runs((permuted, (world, b, rng)) for b in batches), strict=True):
        advance(len(batch) * len(analyses))
        found.append(part)
    null = np.concatenate(found)
    for analysis in analyses:
        if analysis.outcome in world.lacking:
            yield analysis, world.lacking[analysis.outcome]
            continue
        o = world.outcomes.index(analysis.outcome)
        try:
            yield analysis, summary(world, o, seen[o], null[:, o])
        except Inapplicable as e:
            yield analysis, str(e)


def summary(world: World, outcome: int, seen: Floats, null: Floats) -> Fit:
    """`curve.summary` of one outcome, `seen` (S, 6) as `once` has it and `null` (draws, S, 3) as `permuted` has it."""

    name, mine = world.outcomes[outcome], world.mine[outcome]
    if name in world.answers:
        persons = world.answers[name].persons
        units, rows = int(persons.any(axis=0).sum()), int(persons.sum())
    else:
        own = [s for (o, _), s in world.series.items() if o == name]
        units, years = (max(of, default=0) for of in ([int(s.whole.sum()) for s in own], [len(s.years) for s in own]))
        rows = units * years
    specs = [s for s, its in zip(world.specs, mine, strict=True) if its]
    said = [*world.unknown.values(), *_blank(world), *_absent(world, name)]
    level, caution = world.draw.study.policy.conf_level, " ".join(f"{s.rstrip('.')}." for s in said)
    return curve.summary(specs, seen[mine], null[:, mine], level=level, units=units, rows=rows, caution=caution)


def _absent(world: World, outcome: str) -> Iterator[str]:
    """What is said of years of a window of which an outcome of LSOAs has no value at all."""
    m, chosen = multiverse(world.draw.study), world.draw.study.outcomes[outcome]
    spans = {w: years_of(m, chosen, w) for o, w in world.series if o == outcome}
    wanted = {year for first, last in spans.values() for year in range(first, last + 1)}
    if lost := sorted(wanted - {int(y) for (o, _), s in world.series.items() if o == outcome for y in s.years}):
        yield f"No LSOA has a value in {', '.join(map(str, lost))}: windows are without."


def _blank(world: World) -> Iterator[str]:
    """What is said of LSOAs that would be in a specification, were not one of its covariates blank."""
    import numpy as np

    used = np.zeros(len(world.population), dtype=bool)
    for comparison in dict.fromkeys(s.comparison for s in world.specs) if np.isnan(world.x).any() else ():
        with suppress(Inapplicable):
            cells = world.draw.matched(comparison)[0]
            used[cells["place"][cells["weight"] > 0]] = True
    for name, at in world.columns.items():
        if lost := int((np.isnan(world.x[:, at]).any(axis=1) & used).sum()):
            columns = ", ".join(multiverse(world.draw.study).covariates[name].columns)
            yield (
                f"{lost} matched LSOA{'' if lost == 1 else 's'} without a value of {columns} left the specifications "
                f"with covariates {name}, treated ones with those matched to them."
            )


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
    definition, exclusion, weights and covariates, of which none is blank. LSOAs have whole series; persons need none,
    but some of a treated LSOA before its start. Raises `Inapplicable` where nothing is left of it."""
    import numpy as np

    m, chosen = multiverse(draw.study), draw.study.outcomes[outcome]
    cells = draw.matched(spec.comparison)[0]  # before the outcome is changed: matching may look at it
    tier = draw.tier
    if spec.definition == "winsorised":
        table = tier.table(chosen.table)
        by_year = table.groupby("year")[chosen.column]
        low, high = (table["year"].map(by_year.quantile(q)) for q in (TAIL, 1 - TAIL))
        table = table.assign(**{chosen.column: table[chosen.column].astype(float).clip(low, high)})
        tier = replace(tier, _kept={**tier._kept, chosen.table: table})
    made = replace(draw, tier=tier).sample(
        Analysis("", "effects", outcome, "all", spec.comparison, "", "none", spec.treatment)
    )
    cells = cells[cells["weight"] > 0]
    window, gone = m.window[spec.window], m.exclusion[spec.exclusion]
    frame = made.frame
    frame = frame[frame["time"].between(window.first_year, window.last_year)]
    first, unit = frame["first_treated"], frame.groupby("unit")["time"]
    kept = (frame["treated"] == 0) | ((first > unit.transform("min")) & (first <= frame["time"].max()))
    if chosen.table not in PERSONS:
        kept &= unit.transform("size") == frame["time"].nunique()
    for c in m.covariates[spec.covariates].columns:
        kept &= cells[c].notna().to_numpy(dtype=bool)[frame["unit"]]
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
    elif spec.weights == "respondents":
        frame = frame.assign(weight=cells["weight"].to_numpy(dtype=float)[frame["unit"]])
    elif spec.weights == "areas":
        area = cells["area_id"].astype(object).to_numpy()
        treated = frame[frame["treated"] == 1]
        if chosen.table not in PERSONS:
            treated = treated.drop_duplicates("unit")
        size = treated["weight"].groupby(area[treated["unit"]]).sum()
        frame = frame.assign(weight=frame["weight"] / size.reindex(area[head]).to_numpy(dtype=float))
    more: dict[str, Any] = {}
    for c in m.covariates[spec.covariates].columns:
        x = cells[c].to_numpy(dtype=float, na_value=np.nan)[frame["unit"]]
        if spec.estimator == "ancova":
            more[c] = x
        else:  # unit effects hold its level, so it enters by year
            more |= {f"{c} in {t}": np.where(frame["time"] == t, x, 0.0) for t in sorted(frame["time"].unique())[1:]}
    return replace(made, frame=frame.assign(**more).reset_index(drop=True), covariates=tuple(more))


def fit(draw: Draw, outcome: str, spec: Specification) -> Fit:
    """One specification the ordinary way. Raises what `sample` and its estimator raise."""
    sections = draw.study.outcomes[outcome].table in PERSONS and spec.estimator == "callaway_santanna"
    function: Any = estimator(spec.estimator)
    found: Fit = function(sample(draw, outcome, spec), **({"panel": False} if sections else {}))
    return found


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
    """What every draw shares. An outcome that the tier lacks, or that has no specification, is left out with why.

    Raises `StudyError` for an exclusion that leaves out no LSOA, or every one."""
    import numpy as np

    study, m = draw.study, multiverse(draw.study)
    frame = draw.places()
    names = tuple(sorted(map(str, draw.tier.table("programme")["area_id"])))
    starts: dict[str, Floats] = {}
    unknown: dict[tuple[str, str], str] = {}
    for name in m.treatment:
        try:
            by_area, _ = draw.starts(study.treatments[name])
            starts[name] = np.array([by_area[a] for a in names])
        except Inapplicable as e:
            unknown["treatment", name] = str(e)
    excluded: dict[str, Mask] = {}
    for name in m.exclusion:
        try:
            excluded[name] = _excluded(draw, frame, name)
        except Inapplicable as e:
            unknown["exclusion", name] = str(e)
    columns, x = _covariates(draw, frame, unknown)
    wanted: dict[str, set[Specification]] = {}
    lacking: dict[str, str] = {}
    found: dict[tuple[str, str], Series] = {}
    said: dict[str, Answers] = {}
    for name in outcomes:
        chosen = study.outcomes[name]
        specs = [s for s in expand(study, name)[0] if not unknown.keys() & {(d, getattr(s, d)) for d in DIMENSIONS}]
        try:
            if not specs:
                why = " ".join(dict.fromkeys(unknown.values()))
                raise Inapplicable(why or f"{chosen.label}: no specification is left.")
            if not draw.tier.has(chosen.table):
                raise Inapplicable(draw.tier.lacks.get(chosen.table, f"The tier has no {chosen.table}."))
            if chosen.table in PERSONS:
                first = min(w.first_year for w in m.window.values())
                years = np.arange(first, max(w.last_year for w in m.window.values()) + 1)
                said[name] = answers(draw.tier.table(chosen.table), chosen, *draw.positions(chosen.table), years)
            else:
                some = {window: years_of(m, chosen, window) for window in dict.fromkeys(s.window for s in specs)}
                treatments = [study.treatments[t].year for t in dict.fromkeys(s.treatment for s in specs)]
                common = sorted({year for year in treatments if year is not None})
                dated = [
                    starts[t]
                    for t in sorted({s.treatment for s in specs if study.treatments[s.treatment].year is None})
                ]
                for window, one in _series(draw, chosen, some, x, common, dated):
                    found[name, window] = one
            wanted[name] = set(specs)
        except Inapplicable as e:
            lacking[name] = str(e)
    every = tuple(s for s in combinations(m) if any(s in of for of in wanted.values()))
    kept = {"areas": frame, "programme": draw.tier.table("programme")}
    return World(
        draw=replace(draw, tier=replace(draw.tier, _kept=kept), _matched={}, _places=frame),
        specs=every,
        outcomes=tuple(wanted),
        mine=np.array([[s in of for s in every] for of in wanted.values()], dtype=bool),
        lacking=lacking,
        places=exchangeable(frame, study, names),
        series=found,
        answers=said,
        starts=starts,
        columns=columns,
        x=x,
        excluded=excluded,
        population=frame["population"].to_numpy(dtype=float, na_value=np.nan),
        unknown=unknown,
    )


def _covariates(
    draw: Draw, frame: pd.DataFrame, unknown: dict[tuple[str, str], str]
) -> tuple[dict[str, list[int]], Floats]:
    """Of each option of covariates its columns in the values (N, K) of all. An option of which the tier has no values
    becomes `unknown`."""
    import numpy as np

    options: dict[str, tuple[str, ...]] = {}
    for name, option in multiverse(draw.study).covariates.items():
        try:
            for c in option.columns:
                _known(draw, frame, f"covariates {name}", c)
            options[name] = option.columns
        except Inapplicable as e:
            unknown["covariates", name] = str(e)
    columns = list(dict.fromkeys(c for own in options.values() for c in own))
    x = frame[columns].to_numpy(dtype=float, na_value=np.nan)
    spread = np.nanstd(x, axis=0)
    x = (x - np.nanmean(x, axis=0)) / np.where(spread > 0, spread, 1.0)  # for digits: no estimate depends on it
    return {name: [columns.index(c) for c in dict.fromkeys(own)] for name, own in options.items()}, x


def _known(draw: Draw, frame: pd.DataFrame, of: str, column: str) -> Mask:
    """Where (N,) a column has a value. Raises `Inapplicable` where the tier has none."""
    known = frame[column].notna().to_numpy(dtype=bool)
    if not known.any():
        lacks = draw.tier.lacks.get(column, "")
        raise Inapplicable(f"{of}: the {draw.tier.name} tier has no values of {column}. {lacks}".rstrip())
    return known


def _excluded(draw: Draw, frame: pd.DataFrame, name: str) -> Mask:
    """The LSOAs (N,) of `frame` that an exclusion leaves out.

    Raises `Inapplicable` where the tier has no value of its column, and `StudyError` where it would be a second name
    for specifications that are there without it, or leave nothing."""
    import numpy as np

    option = multiverse(draw.study).exclusion[name]
    out = np.zeros(len(frame), dtype=bool)
    for c in option.columns:
        known = _known(draw, frame, f"exclusion {name}", c)
        out |= frame[c].isin(list(option.values)).to_numpy(dtype=bool)
        if not out.any() or out[known].all():
            raise StudyError(
                f"study.toml: multiverse.exclusion.{name}: {', '.join(map(str, option.values))} leaves out "
                f"{'every one' if out.any() else 'none'} of the {draw.tier.name} tier's LSOAs whose {c} is known, "
                f"which is {draw.tier.shown(frame[c], 12)}. Correct the values, or take the option out."
            )
    return out


def _series(
    draw: Draw,
    outcome: Outcome,
    windows: dict[str, tuple[int, int]],
    x: Floats,
    common: Sequence[int],
    dated: Sequence[Floats],
) -> Iterator[tuple[str, Series]]:
    """An outcome of LSOAs by window, with the covariates `x` (N, K). A year of which no LSOA has a value is in no
    window, as on the ordinary path.

    Raises `Inapplicable` where it has no values."""
    import numpy as np

    panel = draw.tier.table(outcome.table)
    places, at = draw.positions(outcome.table)
    year = panel["year"].to_numpy(dtype=int)
    first, last = min(w[0] for w in windows.values()), max(w[1] for w in windows.values())
    years = np.arange(first, last + 1)
    y = panel[outcome.column].to_numpy(dtype=float, na_value=np.nan)
    y = np.where(np.isin(y, outcome.codes_missing), np.nan, y)
    wide = np.full((places, len(years)), np.nan)
    here = (at >= 0) & (year >= first) & (year <= last)
    wide[at[here], year[here] - first] = y[here]
    if not np.isfinite(wide).any():
        lacks = draw.tier.lacks.get(outcome.column, "")
        raise Inapplicable(f"{outcome.label}: no values of {outcome.column}. {lacks}".rstrip())
    at_dates = np.unique(np.concatenate(dated)) if dated else np.empty(0)
    values = []
    for definition in multiverse(draw.study).definition:
        made = wide
        if definition == "winsorised":
            known = np.isfinite(wide).any(axis=0)
            made = wide.copy()
            made[:, known] = np.clip(wide[:, known], *np.nanquantile(wide[:, known], [TAIL, 1 - TAIL], axis=0))
        if outcome.at_least is not None:
            made = np.where(np.isnan(made), np.nan, made >= outcome.at_least)
        values.append(np.nan_to_num(made * outcome.scale))
    for window, (begin, end) in windows.items():
        span = np.arange(begin - first, end - first + 1)
        there = span[np.isfinite(wide[:, span]).any(axis=0)]
        span = there if len(there) > 1 else span
        whole = np.isfinite(wide[:, span]).all(axis=1)
        yield (
            window,
            series(np.stack([v[:, span] for v in values], axis=1), years[span], x, common, at_dates, whole=whole),
        )


def once(world: World, draw: Draw) -> Floats:
    """Outcomes x specifications x (estimate, standard error, units, treated units, clusters, fewest persons) under the
    list of `draw`.

    NaN where a comparison does not apply to the list, and for the specifications that an outcome has not.
    """
    import numpy as np

    out = np.full((len(world.outcomes), len(world.specs), PER_ROW), np.nan)
    definitions = list(multiverse(draw.study).definition)
    for (comparison,), group in grouped(enumerate(world.specs), "comparison"):
        try:
            matched = _Matched.of(world, draw, comparison)
        except Inapplicable:
            continue
        asked: dict[tuple[str, str], tuple[Answers, Floats]] = {}
        adjusted = matched.adjusted(world)
        for (window, treatment), several in grouped(group, "window", "treatment"):
            for (o, outcome), (whole, options) in itertools.product(enumerate(world.outcomes), adjusted):
                some = [(i, s) for i, s in several if world.mine[o, i] and s.covariates in options]
                if outcome in world.answers:
                    if (outcome, window) not in asked:
                        asked[outcome, window] = matched.answers(world, outcome, window)
                    for (exclusion,), few in grouped(some, "exclusion"):
                        theirs = matched.respondents(
                            world, *asked[outcome, window], treatment, exclusion, whole, options
                        )
                        for i, said in theirs.estimates(few) if theirs else ():
                            out[o, i] = said
                    continue
                ways = [way for way, _ in grouped(some, "exclusion", "weights")]
                weighed, found = matched.estimates(world, outcome, window, treatment, ways, whole, options)
                for i, s in some:
                    of_series = found.get((s.estimator, s.covariates))
                    way = (s.exclusion, s.weights)
                    if of_series and way in weighed:
                        q, d = weighed.index(way), definitions.index(s.definition)
                        estimate, error, c = of_series
                        out[o, i, :5] = estimate[q, d], error[q, d], c.units[q], c.treated[q], c.clusters[q]
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
        place = cells["place"].to_numpy()
        at = np.full(len(world.population), -1)
        at[place] = np.arange(len(cells))
        head = at[cells["set_place"].to_numpy()]
        named = pd.Index(world.places.names).get_indexer(pd.Index(cells["area_id"].astype(object)))
        area = np.where(treated, named, -1)[head]
        cluster = pd.factorize(cells["cluster"], sort=True)[0]
        order = np.argsort(cluster, kind="stable")
        turned = np.empty_like(order)
        turned[order] = np.arange(len(order))
        return cls(
            place[order], cells["weight"].to_numpy(dtype=float)[order], treated[order], turned[head[order]],
            area[order], np.flatnonzero(np.diff(cluster[order], prepend=-1)), bool(cells["in_set"].any()),
        )  # fmt: skip

    def adjusted(self, world: World) -> list[tuple[Mask, dict[str, list[int]]]]:
        """Options of covariates, each with its columns in `world.x`, by the LSOAs (n,) that have values of all of them;
        the others leave its specifications, treated ones with those matched to them."""
        import numpy as np

        known = np.isfinite(world.x[self.row])
        groups: dict[bytes, tuple[Mask, dict[str, list[int]]]] = {}
        for name, at in world.columns.items():
            whole = np.asarray(known[:, at].all(axis=1))
            groups.setdefault(whole.tobytes(), (whole, {}))[1][name] = at
        return list(groups.values())

    def estimates(
        self,
        world: World,
        outcome: str,
        window: str,
        treatment: str,
        ways: Sequence[tuple[str, ...]],
        whole: Mask,
        options: dict[str, list[int]],
    ) -> tuple[list[tuple[str, ...]], dict[tuple[str, str], Said]]:
        """What the estimators say of LSOAs with `whole` covariates, by their name and that of the `options` of these,
        and the `ways` (exclusion, weights) that they say it of: those that leave treated LSOAs of two areas or more,
        and comparison LSOAs."""
        import numpy as np

        series = world.series.get((outcome, window))
        if series is None or world.draw.study.treatments[treatment].year not in (None, *series.products):
            return [], {}  # the outcome is not known before the start, or not from it on
        first, last = series.years[[0, -1]]
        start = world.starts[treatment]
        in_time = (start > first) & (start <= last)
        here = whole & series.whole[self.row] & (~self.treated | in_time[self.area])
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
        return kept, self._said(world, series, treatment, np.stack(weights), Counts.of(said), options)

    def _said(
        self,
        world: World,
        series: Series,
        treatment: str,
        w: Floats,
        counts: Counts,
        options: dict[str, list[int]],
    ) -> dict[tuple[str, str], Said]:
        """What the estimators say of LSOAs weighed by `w` (q, n), by their name and that of covariates."""
        import numpy as np

        own = np.where(self.treated, w, 0.0)
        if (year := world.draw.study.treatments[treatment].year) is not None:
            s, treated = (sums(series.products[year], self.row, x, self.begins) for x in (w, own))
            found: dict[tuple[str, str], Said] = {}
            for name, columns in options.items():
                of = at_one_start(s, treated, columns, world.x.shape[1], len(series.years), counts)
                found |= {(estimator, name): said for estimator, said in of.items()}
            return found
        changes = series.changes
        assert changes is not None  # there is a treatment with dates
        none = next(name for name, columns in options.items() if not columns)
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

    def answers(self, world: World, outcome: str, window: str) -> tuple[Answers, Floats]:
        """What persons say, and the first year in which some do (n,)."""
        m = multiverse(world.draw.study)
        asked = world.answers[outcome].within(*years_of(m, world.draw.study.outcomes[outcome], window)).of(self.row)
        return asked, asked.first()

    def respondents(
        self,
        world: World,
        asked: Answers,
        first: Floats,
        treatment: str,
        exclusion: str,
        whole: Mask,
        options: dict[str, list[int]],
    ) -> Respondents | None:
        """The LSOAs in which persons answered, treated ones before their start too; None where no treated LSOAs of two
        areas are left, or none to compare with. `asked` and `first` as `answers` has them, `whole` and `options` as
        `adjusted` does."""
        import numpy as np

        start = np.where(self.treated, world.starts[treatment][self.area], np.nan)
        ok = np.isfinite(first) & whole & ~world.excluded[exclusion][self.row]
        ok &= ~self.treated | ((start > first) & (start <= asked.years[-1]))
        ok &= ok[self.head]
        if self._counts(ok) is None:
            return None
        kept = np.flatnonzero(ok)
        cluster = np.repeat(np.arange(len(self.begins)), np.diff(self.begins, append=len(self.row)))
        own = world.x[self.row[kept]]
        x = {name: own[:, sorted(columns)] for name, columns in options.items()}
        return Respondents(
            asked.of(kept), start[kept], self.area[kept], self.weight[kept],
            np.flatnonzero(np.diff(cluster[kept], prepend=-1)), x,
        )  # fmt: skip

    def _counts(self, ok: Mask) -> tuple[int, int, int] | None:
        """LSOAs, treated LSOAs and clusters of those that are `ok` (n,); None without two treated clusters or without a
        comparison LSOA."""
        import numpy as np

        treated = ok & self.treated
        units, inside = int(ok.sum()), int(treated.sum())
        if inside == units or np.logical_or.reduceat(treated, self.begins).sum() < 2:
            return None
        return units, inside, int(np.logical_or.reduceat(ok, self.begins).sum())
