"""Simulation: outcomes drawn anew by the synthetic tier's own process, with a known effect and with none.

Places, programme, matching, blanks and, in the survey, the persons stay as they are; the outcome is drawn again. So
each method is asked on the study's own design whether it is unbiased, whether its 95% interval holds the effect
95 times in 100, and how often it claims an effect where there is none. Interval errors of the answers: a share's by
Wilson (1927), a mean's by its standard error (Morris, White and Crowther 2019, Stat Med 38:2074).
"""

from __future__ import annotations

import itertools
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from biglocal.model import Analysis, Fit, Inapplicable, Sample, Term
from biglocal.placebo import wilson
from biglocal.study import file_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray
    from scipy.sparse import csr_array

    from biglocal.inference.many import Many, ManyRandomised, ManyWild
    from biglocal.sample import Draw

    Floats = NDArray[np.float64]
    Product = Many | ManyWild | ManyRandomised

BATCH = 20  # replications of a task: their outcomes are held at once
DRAWS = 199  # of wild bootstrap and randomisation: with 199 a test at 5% is exact, 0.05 x 200 being whole
LINEAR = {  # inference -> estimators that are least squares: replications as products
    "none": ("twfe", "event_study", "repeated_cross_section"),
    "cluster": ("twfe", "event_study", "repeated_cross_section"),
    "cr2": ("twfe", "repeated_cross_section"),
    "wild_bootstrap": ("twfe",),
    "randomisation": ("twfe",),
}
RESAMPLED = ("wild_bootstrap", "randomisation")
GOOD = (0.93, 0.97)  # coverage of a 95% interval that needs no reason
MATERIAL = 0.1  # a bias below this share of the estimates' spread moves coverage by less than 0.2 points


@dataclass(frozen=True, slots=True)
class Design:
    """A sample without its outcome: `row` (n,) is the place of each row in what is drawn, `effect` (n,) the known
    effect on it. `cells` (cells, n) takes rows to their weighted means, where the sample is made of such."""

    sample: Sample
    row: NDArray[np.int64]
    effect: Floats
    cells: csr_array | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Method:
    """An analysis, the key of its design, the file of its estimator with its settings, and, where it is least squares,
    its products."""

    analysis: Analysis
    design: str
    file: str
    options: dict[str, Any]
    product: Product | None


@dataclass(frozen=True, slots=True)
class World:
    """What every replication of an outcome shares, and what a worker is sent.

    `places`: the columns of `areas` that outcomes are drawn from. `persons`: of the survey, see `_persons`.
    """

    outcome: str
    scale: float
    places: pd.DataFrame
    persons: dict[str, NDArray[Any]]
    designs: dict[str, Design]
    methods: tuple[Method, ...]
    conf_level: float
    rng: Callable[[str], np.random.Generator]


def run(
    draw: Draw,
    analyses: Sequence[Analysis],
    runs: Callable[..., Iterator[Any]],
    rng: Callable[[str], np.random.Generator],
    advance: Callable[[int], None],
) -> Iterator[tuple[Analysis, Fit | str]]:
    """Each analysis with what its replications say, or the reason why there is nothing to say; see `replicated`."""
    import numpy as np

    policy = draw.study.policy

    def say(found: list[Floats], world: World, m: int, caution: str) -> Fit:
        estimates = np.concatenate([part[:, m] for part in found])
        return summary(estimates, world.designs[world.methods[m].design], policy.conf_level, caution)

    yield from replicated(draw, analyses, runs, rng, advance, policy.simulations, replications, (), say)


def replicated(
    draw: Draw,
    analyses: Sequence[Analysis],
    runs: Callable[..., Iterator[Any]],
    rng: Callable[[str], np.random.Generator],
    advance: Callable[[int], None],
    count: int,
    call: Callable[..., Any],
    settings: tuple[Any, ...],
    say: Callable[[list[Any], World, int, str], Fit],
) -> Iterator[tuple[Analysis, Fit | str]]:
    """`count` replications of each analysis, in batches: `call(world, batch, *settings)`; then what they `say`.

    Analyses of one outcome and comparison share a world and its draws. `runs` calls functions with their arguments, in
    order, told what analyses they are `of`. `say(found, world, m, caution)` sums up method m of what the batches found;
    an analysis that does not apply, or of which there is nothing to say, comes with the reason.
    """
    for _, some in itertools.groupby(analyses, key=lambda a: (a.outcome, a.comparison)):
        group = list(some)
        try:
            world = prepared(draw, group, rng)
        except Inapplicable as e:
            advance(count * len(group))
            yield from ((a, str(e)) for a in group)
            continue
        kept: dict[Method, str] = {}
        for method, (fits, said) in zip(world.methods, tried(world), strict=True):
            if fits:
                kept[method] = said
            else:
                advance(count)
                yield method.analysis, said
        world = replace(world, methods=tuple(kept))
        batches = [range(i, min(i + BATCH, count)) for i in range(0, count, BATCH)] if kept else []
        found = []
        items = ((call, (world, b, *settings)) for b in batches)
        of = [method.analysis for method in kept]
        for batch, part in zip(batches, runs(items, of=of), strict=True):
            advance(len(batch) * len(kept))
            found.append(part)
        for m, (method, caution) in enumerate(kept.items()):
            try:
                yield method.analysis, say(found, world, m, caution)
            except Inapplicable as e:
                yield method.analysis, str(e)


def replications(world: World, which: range) -> Floats:
    """Replications x methods x (without effect, with) x (estimate, std_error, conf_low, conf_high, p_value).

    NaN where the method does not apply to what was drawn.
    """
    import numpy as np

    drawn = [outcomes(world, world.rng(f"simulation/{world.outcome}/{i}")) for i in which]
    out = np.full((len(which), len(world.methods), 2, 5), np.nan)
    for m, method in enumerate(world.methods):
        for r, i in enumerate(which):
            y, name = drawn[r][method.design], f"{method.analysis.id}/{i}"
            if method.product is not None:
                out[r, m] = method.product.tests(y, partial(world.rng, name), DRAWS, world.conf_level)
                continue
            for j in range(2):
                with suppress(Inapplicable):  # counted in `summary`
                    out[r, m, j] = called(method, y[j], world, name)
    return out


def called(method: Method, y: Floats, world: World, name: str) -> tuple[float, float, float, float, float]:
    """One replication through estimator and inference, as the study calls them."""
    att = _att(_fit(method, y, world, name))
    return att.estimate, att.std_error, att.conf_low, att.conf_high, att.p_value


def _att(fit: Fit) -> Term:
    return next(t for t in fit.terms if t.name == "att")


def _fit(method: Method, y: Floats, world: World, name: str) -> Fit:
    from biglocal import inference
    from biglocal.estimators import estimator

    function, sample = estimator(method.file), world.designs[method.design].sample
    sample = replace(sample, frame=sample.frame.assign(y=y))
    fit = function(sample, **method.options)
    if method.product is not None:
        return fit
    done = inference.infer(method.analysis.inference, world.conf_level, DRAWS)(function, sample, fit, world.rng(name))
    if [t.name for t in done.terms].count("att") != 1:
        raise Inapplicable(f"{method.file} gives no single ATT that a known effect could be held against.")
    return done


def tried(world: World) -> Iterator[tuple[bool, str]]:
    """Of each method, from one replication: whether it applies, and its caution or the reason why it does not."""
    drawn = outcomes(world, world.rng(f"simulation/{world.outcome}/0"))
    for method in world.methods:
        try:
            yield True, _fit(method, drawn[method.design][1], world, method.analysis.id).caution
        except Inapplicable as e:
            yield False, str(e)


# --- the design: what stays as it is ---------------------------------------------------------------------------


def prepared(draw: Draw, group: Sequence[Analysis], rng: Callable[[str], np.random.Generator]) -> World:
    """Raises `Inapplicable` for a tier or outcome that has no process to draw from."""
    import numpy as np

    outcome = draw.study.outcomes[group[0].outcome]
    if draw.tier.name != "synthetic":
        raise Inapplicable("Outcomes can be drawn anew on the synthetic tier only: `nox -s simulate`.")
    if outcome.name not in draw.study.policy.simulation_effects:
        raise Inapplicable(f"No effect on {outcome.name} to put in: name it in policy.simulation_effects.")
    base = draw.study.policy.simulation_effects[outcome.name]
    numbered: dict[str, Design] = {}
    designs: dict[str, Design] = {}
    methods = []
    for a in group:
        carries = _carries(draw, a)
        rows = f"{a.treatment} {a.estimator}" if carries else a.treatment
        if rows not in numbered:
            numbered[rows] = _design(draw, a, base)
        kind = _kind(a, outcome.table)
        key = f"{rows} {kind}"
        if key not in designs:
            designs[key] = {"rows": lambda d: d, "cells": _by_cell, "whole": _whole}[kind](numbered[rows])
        file = file_of(draw.study, a.estimator)
        options = dict(draw.study.estimators[a.estimator].options) if a.estimator in draw.study.estimators else {}
        linear = file in LINEAR.get(a.inference, ()) and not options and not carries
        made = None
        if linear:
            with suppress(Inapplicable):  # said by `tried`, of the method itself
                made = product(designs[key].sample, file, a.inference)
        methods.append(Method(a, key, file, options, made))
    areas = _by_key(draw, "areas")
    persons: dict[str, NDArray[Any]] = {}
    if outcome.table == "survey":
        used = np.unique(np.concatenate([d.row for d in designs.values()]))
        designs = {k: replace(d, row=np.searchsorted(used, d.row)) for k, d in designs.items()}
        persons = _persons(_by_key(draw, "survey").iloc[used], areas)
    places = areas[["lsoa11", "msoa11", "district", "region", "imd", "crime", "population"]]
    name = outcome.column.removesuffix("_z")
    return World(name, outcome.scale, places, persons, designs, tuple(methods), draw.study.policy.conf_level, rng)


def _kind(analysis: Analysis, table: str) -> Literal["rows", "cells", "whole"]:
    """How a method takes its sample: synthetic difference-in-differences needs whole panels; resampling persons is
    the same as resampling their areas' means, for treatment and clusters are those of the area."""
    if analysis.estimator == "synthetic_did":
        return "whole"
    return "cells" if table == "survey" and analysis.inference in RESAMPLED else "rows"


def _carries(draw: Draw, analysis: Analysis) -> bool:
    """Whether the sample of an analysis has columns of its own: covariates, a dose or an offset."""
    entry = draw.study.estimators.get(analysis.estimator)
    return entry is not None and bool(entry.covariates or {"dose", "offset"} & set(entry.options))


def _design(draw: Draw, analysis: Analysis, base: float) -> Design:
    """The sample of `analysis` with, for an outcome, the number of its row in the outcome's table."""
    import numpy as np

    draw.matched(analysis.comparison)  # by the tier's own outcomes, before these give way to numbers
    outcome = draw.study.outcomes[analysis.outcome]
    table = _by_key(draw, outcome.table)
    value = table[outcome.column].to_numpy(dtype=float, na_value=np.nan)
    there = np.isfinite(value) & ~np.isin(value, outcome.codes_missing)
    plain = replace(outcome, at_least=None, scale=1.0, codes_missing=())
    kept = {n: draw.tier.table(n) for n in ("areas", "programme", "truth")}
    kept[outcome.table] = table.assign(**{outcome.column: np.where(there, np.arange(len(table)), np.nan)})
    sample = replace(
        draw,
        study=replace(draw.study, outcomes={**draw.study.outcomes, outcome.name: plain}),
        tier=replace(draw.tier, _kept=kept),
    ).sample(analysis)
    frame = sample.frame.drop(columns="effect", errors="ignore")
    return Design(replace(sample, frame=frame), frame["y"].to_numpy().astype(np.int64), effects(frame, base))


def _by_key(draw: Draw, name: str) -> pd.DataFrame:
    """A table in the order that what is drawn anew has: places by code, their years within."""
    from biglocal.data.tables import TABLES

    return draw.tier.table(name).sort_values(list(TABLES[name].key), ignore_index=True)


def effects(frame: pd.DataFrame, base: float) -> Floats:
    """The known effect on each row (n,): half of `base` in the first treated year, a quarter more each year after.

    Where starts are staggered the first cohort has half as much again and the last half as much, those between on
    a line.
    """
    import numpy as np

    first = frame["first_treated"].to_numpy(dtype=float)
    now = frame["d"].to_numpy() == 1
    starts = np.unique(first[np.isfinite(first)])
    by_cohort = np.linspace(1.5, 0.5, len(starts)) if len(starts) > 1 else np.ones(1)
    cohort = np.searchsorted(starts, np.where(now, first, starts[0]))
    since = np.where(now, frame["time"].to_numpy() - first, 0.0)
    return np.where(now, base * by_cohort[cohort] * (0.5 + 0.25 * since), 0.0)


def _whole(design: Design) -> Design:
    """The units seen in every year."""
    import numpy as np

    frame = design.sample.frame
    kept = (frame.groupby("unit")["unit"].transform("size") == frame["time"].nunique()).to_numpy()
    said = f"LSOAs seen in every year only: {frame.loc[~kept, 'unit'].nunique():,} left."
    sample = replace(design.sample, frame=frame[kept].reset_index(drop=True), caution=said)
    return Design(sample, design.row[kept], np.asarray(design.effect[kept]))


def _by_cell(design: Design) -> Design:
    """Weighted means by unit and year: the same estimate and cluster terms as from the persons."""
    import numpy as np
    from scipy.sparse import csr_array

    frame = design.sample.frame
    span = int(frame["time"].max()) + 1
    _, first, cell = np.unique(frame["unit"].to_numpy() * span + frame["time"], return_index=True, return_inverse=True)
    weight = frame["weight"].to_numpy()
    total = np.bincount(cell, weight)
    mean = csr_array((weight / total[cell], (cell, np.arange(len(frame)))), shape=(len(total), len(frame)))
    cells = frame.iloc[first].reset_index(drop=True).assign(weight=total)
    return Design(replace(design.sample, frame=cells), design.row, design.effect, mean)


def product(sample: Sample, file: str, inference: str) -> Product:
    """The ATT as products. Of an event study: the mean of the years from the start on, by their treated rows."""
    import numpy as np

    from biglocal.inference.many import many, many_randomised, many_wild
    from biglocal.inference.regression import coded, regression

    if inference in RESAMPLED:
        return (many_wild if inference == "wild_bootstrap" else many_randomised)(sample)
    frame = sample.frame
    x = frame["d"].to_numpy()[:, None]
    contrast = np.ones(1)
    if file == "event_study":
        since = (frame["time"] - frame["first_treated"]).to_numpy(dtype=float)
        rest = np.array([e for e in np.unique(since[np.isfinite(since)]) if e != -1])
        x = (since[:, None] == rest).astype(float)
        mass = np.where(rest >= 0, frame["weight"].to_numpy() @ x, 0.0)
        contrast = mass / mass.sum()
    fit = regression(
        frame["y"], x, fixed=(frame["unit"], frame["time"]), weight=frame["weight"], within=frame["cluster"]
    )
    return many(fit, coded(frame["cluster"]), contrast, "CR2" if inference == "cr2" else "CR1")


def _persons(survey: pd.DataFrame, areas: pd.DataFrame) -> dict[str, NDArray[Any]]:
    """Of each person used (rows,): `cell`, the place and year among places x years; `year` from the first; `sex`; and
    `own`, well-being but for the place."""
    import numpy as np
    import pandas as pd

    from biglocal.data.synthetic_survey import CODED, personal
    from biglocal.data.synthetic_truth import YEARS

    year = survey["year"].to_numpy(dtype=np.int64) - YEARS[0]
    home = pd.Index(areas["lsoa11"].astype(str)).get_indexer(pd.Index(survey["lsoa11"].astype(str)))
    who = {c: np.asarray(pd.Categorical(survey[c].astype(object), categories=list(v)).codes) for c, v in CODED.items()}
    own = personal(np.zeros(len(survey)), who | {"age": survey["age"].to_numpy(dtype=float)})
    return {"cell": home * len(YEARS) + year, "year": year, "sex": who["sex"], "own": own}


# --- the outcome: what is drawn anew ---------------------------------------------------------------------------


def outcomes(world: World, rng: np.random.Generator, sizes: Sequence[float] = (0.0, 1.0)) -> dict[str, Floats]:
    """One replication: by design the outcome (sizes, n) with so many times the known effect, all from the same draws.

    By default without and with it.
    """
    import numpy as np

    from biglocal.data import synthetic_panel, synthetic_survey

    times = np.array(sizes, dtype=float)[:, None]
    out: dict[str, Floats] = {}
    if world.outcome == "samhi":
        level = synthetic_panel.samhi(rng, world.places).ravel()
        out = {k: level[d.row] + times * d.effect for k, d in world.designs.items()}
    elif world.persons:
        who = world.persons
        around = synthetic_survey.surroundings(rng, world.places).ravel()
        mean = synthetic_survey.latent(world.outcome, who["own"] + around[who["cell"]], who["year"], who["sex"])
        noise = rng.standard_normal(len(mean))
        for k, d in world.designs.items():
            high = [synthetic_survey.anxious(mean[d.row], noise[d.row], b * d.effect) for b in times[:, 0]]
            out[k] = world.scale * np.array(high, dtype=float)
    else:  # counts of a crime, the effect on the log of the expected number
        expected = synthetic_panel.expected(
            rng, world.outcome, world.places, synthetic_panel.shared(rng, world.places)
        ).ravel()
        counts = rng.poisson(expected)
        for k, d in world.designs.items():
            now = np.flatnonzero(d.effect)
            at = d.row[now]
            out[k] = np.tile(counts[d.row].astype(float), (len(times), 1))
            for j, size in enumerate(times[:, 0]):
                if size != 0:
                    mean = expected[at] * np.exp(size * d.effect[now])
                    out[k][j, now] = synthetic_panel.moved(rng, counts[at], expected[at], mean)
    return {k: _to_cells(world.designs[k], v) for k, v in out.items()}


def _to_cells(design: Design, y: Floats) -> Floats:
    import numpy as np

    return y if design.cells is None else np.asarray((design.cells @ y.T).T)


# --- what the replications say ---------------------------------------------------------------------------------


def summary(found: Floats, design: Design, level: float, caution: str = "") -> Fit:
    """What replications (n, 2, 5), as of `replications`, say together.

    Terms: `replications`; `truth`, the mean known effect over treated rows; `bias` of the estimates of it, with its
    Monte Carlo error; `drift`, the mean estimate without effect, with its own; `sd_estimates`; `error_ratio`, the mean
    standard error over that (by the delta method, on logs; none for resampling, which has none); `coverage`, the share
    of intervals that hold the truth; `rejection_rate`, the share without effect with p < 1 - level. Coverage outside
    93 to 97% has its reasons in the fit's caution, after the method's own `caution` and the replications without
    an estimate, which are left out. Raises `Inapplicable` where fewer than two are left.
    """
    import numpy as np
    from scipy.special import stdtrit

    lost = len(found)
    found = found[np.isfinite(found[:, :, 0]).all(axis=1)]
    n = len(found)
    lost -= n
    if n < 2:
        raise Inapplicable(f"{n} replications to which the method applies.")
    frame, effect = design.sample.frame, design.effect
    now = effect != 0
    weight = row_weight(design)
    truth = float(weight[now] @ effect[now] / weight[now].sum())
    null, planted = found[:, 0], found[:, 1]
    spread = float(planted[:, 0].std(ddof=1))
    bias, drift = float(planted[:, 0].mean()) - truth, float(null[:, 0].mean())
    error, drift_error = spread / np.sqrt(n), float(null[:, 0].std(ddof=1)) / np.sqrt(n)
    width = float(stdtrit(n - 1, (1 + level) / 2))
    ratio = float(planted[:, 1].mean()) / spread
    relative = planted[:, 1].std(ddof=1) / planted[:, 1].mean()
    log_error = float(np.sqrt(relative**2 / n + 1 / (2 * (n - 1))))
    covered = float(_held(planted, truth).mean())
    rejected = float((null[:, 4] < 1 - level).mean())

    def mean(name: str, value: float, e: float) -> Term:
        low, high = value - width * e, value + width * e
        return Term(name, value, e, n - 1, conf_low=low, conf_high=high, tested=False)

    def share(name: str, value: float) -> Term:
        low, high = wilson(value, n, level)
        return Term(name, value, conf_low=low, conf_high=high, tested=False)

    terms = [
        Term("replications", float(n), tested=False),
        Term("truth", truth, tested=False),
        mean("bias", bias, error),
        mean("drift", drift, drift_error),
        Term("sd_estimates", spread, tested=False),
        share("coverage", covered),
        share("rejection_rate", rejected),
    ]
    if np.isfinite(ratio):
        low, high = (float(ratio * np.exp(side * width * log_error)) for side in (-1, 1))
        terms.append(Term("error_ratio", ratio, conf_low=low, conf_high=high, tested=False))
    by = {t.name: t for t in terms}
    treated = frame[frame["treated"] == 1]
    left = f"{lost} replications without an estimate left." if lost else ""
    return Fit(
        tuple(terms),
        n_obs=len(effect),
        n_units=int(frame["unit"].nunique()),
        n_treated=int(treated["unit"].nunique()),
        n_clusters=int(frame["cluster"].nunique()),
        caution=" ".join(filter(None, [caution, left, _reasons(by, planted, truth)])),
    )


def row_weight(design: Design) -> Floats:
    """Weights of the rows that effects were put on: of persons, where the sample is of their means."""
    import numpy as np

    weight = design.sample.frame["weight"].to_numpy(dtype=float)
    return weight if design.cells is None else np.asarray(design.cells.T @ weight)


def _held(planted: Floats, value: float) -> NDArray[np.bool_]:
    return (planted[:, 2] <= value) & (value <= planted[:, 3])


def _text(value: float) -> str:
    return f"{value:.3g}".replace("-", "\u2212")


def _reasons(by: dict[str, Term], planted: Floats, truth: float) -> str:
    """Why coverage is off, in measured terms; nothing where it is not, or not beyond Monte Carlo error."""
    coverage, spread, bias, drift = (by[k] for k in ("coverage", "sd_estimates", "bias", "drift"))
    if GOOD[0] <= coverage.estimate <= GOOD[1]:
        return ""
    if coverage.conf_low <= 0.95 <= coverage.conf_high:
        return "Coverage: within Monte Carlo error of 95%."
    out = []
    own = bias.estimate - drift.estimate
    if abs(own) > MATERIAL * spread.estimate:
        held = float(_held(planted, truth + own).mean())
        out.append(
            f"it averages the effects with other weights than treated rows have ({_text(truth + own)}, not "
            f"{_text(truth)}), which {held:.1%} of its intervals hold"
        )
    if abs(drift.estimate) > MATERIAL * spread.estimate and drift.conf_low * drift.conf_high > 0:
        out.append(
            f"treated and comparison rows drift apart without any effect, by {_text(drift.estimate)}: trends in these "
            f"data follow deprivation and region, which matching leaves unequal"
        )
    if "error_ratio" in by and not by["error_ratio"].conf_low <= 1 <= by["error_ratio"].conf_high:
        ratio = by["error_ratio"].estimate
        small = "they take clusters for many and independent, and districts share shocks in these data"
        large = "they take clusters for drawn at random, and places stay the same here"
        out.append(f"standard errors are {ratio:.2f} of the spread: {small if ratio < 1 else large}")
    return f"Coverage: {'; '.join(out) or 'neither bias nor standard errors explain it, so the shape of t does'}."
