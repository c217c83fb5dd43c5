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
from typing import TYPE_CHECKING, Any

from biglocal import curve
from biglocal.model import Analysis, Fit, Inapplicable, Sample
from biglocal.places import Places, exchangeable, relisted
from biglocal.specifications import Specification, expand, grouped, multiverse
from biglocal.whole_series import Changes, Units, changes_of, own_start

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
    import numpy as np

    whole = max((w for (o, _), w in world.whole.items() if o == world.outcomes[outcome]), key=np.sum)
    return curve.summary(
        world.specs, seen, null, level=world.draw.study.policy.conf_level, units=int(whole.sum()),
        years=len(world.years), caution=" ".join(world.unknown.values()),
    )  # fmt: skip


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
            changes[name, window] = changes_of(y, seen, np.unique(np.concatenate([starts[t] for t in sorted(dated)])))
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


def once(world: World, draw: Draw) -> Floats:
    """Outcomes x specifications x (estimate, standard error, units, treated units, clusters) under the list of `draw`.

    NaN where a comparison does not apply to the list.
    """
    import numpy as np

    out = np.full((len(world.outcomes), len(world.specs), PER_ROW), np.nan)
    numbered = list(enumerate(world.specs))
    for (comparison,), group in grouped(numbered, "comparison"):
        try:
            matched = _Matched.of(world, draw, comparison)
        except Inapplicable:
            continue
        for (window, treatment, exclusion), some in grouped(group, "window", "treatment", "exclusion"):
            for o, outcome in enumerate(world.outcomes):
                units = matched.units(world, outcome, window, treatment, exclusion)
                for i, said in units.estimates(some) if units else ():
                    out[o, i] = said
    return out


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

    def units(self, world: World, outcome: str, window: str, treatment: str, exclusion: str) -> Units | None:
        """The LSOAs of some specifications, and their outcome; None where no treated or comparison LSOA is left."""
        import numpy as np

        study = world.draw.study
        w, o = multiverse(study).window[window], study.outcomes[outcome]
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
        return Units(
            around=None if year is None else world.around[outcome, window, year][row],
            changes=None if year is not None else own_start(world.changes[outcome, window], row, start[head]),
            years=len(years),
            definitions=tuple(multiverse(study).definition),
            treated=treated,
            head=own[head],
            bounds=np.flatnonzero(np.diff(self.cluster[kept], prepend=-1)),
            weight=self.weight[kept],
            residents=world.population[self.row[head]],
            size=size[self.area[head]].astype(float),
            covariates={k: x[row] for k, x in world.covariates.items()},
            sets=self.sets,
        )


def _span(years: Ints, first: int, last: int) -> slice:
    return slice(max(first - int(years[0]), 0), max(last - int(years[0]) + 1, 0))
