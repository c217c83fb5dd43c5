"""From a sample to rows: one analysis estimated, inferred, and written in the columns of the results table."""

from __future__ import annotations

import importlib
import itertools
import math
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biglocal.data.tables import PERSONS
from biglocal.model import Analysis, Fit, Inapplicable, Sample, Study, StudyError, Term
from biglocal.results import Row, digest
from biglocal.runs import Item, Pool, forget, pool
from biglocal.study import ON_REQUEST, expand, family, file_of, options, seeded_by

if TYPE_CHECKING:
    import numpy as np

    from biglocal.inference.randomisation import Randomisation
    from biglocal.sample import Draw

UNITS = {  # of terms that are not in their outcome's
    "percent_change": "per cent",
    "power": "chance",
    "size": "chance",
    "breakdown_relative_magnitudes": "ratio",
    "comparison_weight": "share",
    "two_by_two_weight": "share",
    "digits": "digits",
    "draws": "draws",
    "drawn_nearer": "share",
    "drawn_beyond": "share",
    "specifications": "specifications",
    "told_apart": "specifications",
    "vibration_p": "powers of ten",
    "stouffer": "z",
    "max_z": "z",
    **dict.fromkeys(("share_same_sign", "share_significant", "share_flipped", "choice"), "share"),
}
OF_ALL = (
    "relative_magnitudes",
    "smoothness",
    "minimum_detectable_with",
    "drawn_nearer",
    "drawn_beyond",
)  # level and period are no group of rows
Result = tuple[Analysis, "Fit | str"]
Found = tuple[Analysis, "Fit | str | Randomisation"]  # the last: a test that is not drawn yet
DRAWS_A_STEP = 10_000  # of a randomisation test, in a progress bar


def check_levels(draw: Draw, analyses: Sequence[Analysis]) -> None:
    """Draw each subgroup's sample before anything is estimated, so that an empty level is refused now, not later.

    Raises `DataError` naming the level and the values there are.
    """
    for analysis in analyses:
        if analysis.subgroup != "all" and analysis.part != "truth":
            with suppress(Inapplicable):
                draw.sample(analysis)


def steps(study: Study, analysis: Analysis, draws: int) -> int:
    """How much an analysis counts in a progress bar."""
    policy = study.policy
    many = {"placebo": policy.placebo_lists, "simulation": policy.simulations, "recovery": policy.recoveries}
    many["simulated_power"] = policy.power_simulations
    many["multiverse"] = study.multiverse.draws if study.multiverse else 1
    return many.get(analysis.part, max(1, draws // DRAWS_A_STEP if analysis.inference == "randomisation" else 1))


def estimate(
    draw: Draw,
    analyses: Sequence[Analysis],
    draws: int,
    jobs: int,
    advance: Callable[[int], None],
    *,
    scheduler: str = "",
    held: Path | None = None,
    digests: Mapping[str, str] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Iterator[Result]:
    """Each analysis with its complete fit, or with the reason why there is none, as they come; parts on request last.

    Analyses of one sample share it, and those that differ in their inference alone share one fit. A test of very many
    draws is made by many tasks. `jobs`, `scheduler`, `say`: see `runs.pool`. `advance` is called as `steps` are done.
    With `held`, a folder for what may be confidential, and `digests` of the analyses, what such a test or a part on
    request has done is kept there until the next result is asked for after its own.
    """
    apart = (*ON_REQUEST, "families")
    with pool(jobs, scheduler, held, say) as calls:
        ordinary = [a for a in analyses if a.part not in apart]
        families = [a for a in analyses if a.part == "families"]
        if calls.engine and (ordinary or families):
            _match(draw, [*ordinary, *families], calls)
        long: list[tuple[Analysis, Randomisation]] = []
        for found in calls.each(itertools.chain(_fits(draw, ordinary, draws), _families(draw, families, draws))):
            for a, fit in found:
                if isinstance(fit, Fit | str):
                    advance(steps(draw.study, a, draws))
                    yield a, fit
                else:
                    long.append((a, fit))
        for a, test in long:
            with _kept_until_taken(calls, [a], digests or {}) as runs:
                yield a, _shared_out(draw.study, a, test, runs, advance)
        for part in ON_REQUEST:
            wanted = [a for a in analyses if a.part == part]
            if wanted:  # imported by name: a change to one part computes no row of another again
                run = importlib.import_module(f"biglocal.{part}").run
                with _kept_until_taken(calls, wanted, digests or {}) as runs:
                    yield from run(draw, wanted, runs, partial(generator, draw.study.seed), advance)
    if held:
        with suppress(OSError):  # of other runs something is kept
            held.rmdir()


@contextmanager
def _kept_until_taken(
    calls: Pool, wanted: Sequence[Analysis], digests: Mapping[str, str]
) -> Iterator[Callable[..., Iterator[Any]]]:
    """What a part on request or a long test calls its functions by, in order: `runs(items, of=analyses)`.

    Results are kept by the digests of the analyses that they are `of`, so that a run that goes on finds its own
    again; by default of all that are wanted, which is enough for a part that says nothing before it has done all.
    They are forgotten once all has been said and taken.
    """
    count: Counter[str] = Counter()

    def runs(items: Iterable[Item], of: Sequence[Analysis] = wanted) -> Iterator[Any]:
        if not digests:
            return calls.ordered(items)
        key = digest(*(digests[a.id] for a in of))[:16]
        count[key] += 1
        return calls.ordered(items, f"{wanted[0].part}/{key}-{count[key]}")

    yield runs
    if calls.folder:
        forget(calls.folder, (f"{wanted[0].part}/{key}-{i + 1}" for key, n in count.items() for i in range(n)))


def _shared_out(
    study: Study,
    analysis: Analysis,
    test: Randomisation,
    runs: Callable[..., Iterator[Any]],
    advance: Callable[[int], None],
) -> Fit | str:
    """A long test, its draws shared out among all workers and kept as they come; `advance` by its `steps` in all."""
    drawn: list[Any] = []
    shares, done, all_ = test.shares(), 0, steps(study, analysis, test.draws)
    for found in runs((_share, (test, study.seed, analysis.id, some)) for some in shares):
        drawn.append(found)
        before, done = done, all_ * len(drawn) // len(shares)
        advance(done - before)
    try:
        return test.completed(*drawn)
    except Inapplicable as e:
        return str(e)


def _share(test: Randomisation, seed: int, name: str, some: range) -> Any:
    return test.drawn(generator(seed, name), some)


def _match(draw: Draw, analyses: Sequence[Analysis], calls: Pool) -> None:
    """Each comparison matched once, by workers, before the draw is sent to all of them."""
    names = [n for n in dict.fromkeys(a.comparison for a in analyses if a.comparison) if n not in draw._matched]
    for name, found in zip(names, calls.ordered((_matched, (draw, n)) for n in names), strict=True):
        if found is not None:
            draw._matched[name] = found


def _matched(draw: Draw, name: str) -> Any:
    try:
        return draw.matched(name)
    except Inapplicable:  # said where it is asked for
        return None


def _fits(draw: Draw, analyses: Sequence[Analysis], draws: int) -> Iterator[Item]:
    """A task for the analyses of each sample."""
    groups: dict[Analysis, list[Analysis]] = {}
    for a in analyses:
        groups.setdefault(drawn_as(draw.study, a), []).append(a)
    for g in groups.values():
        yield alike, (draw, g, draws)


def drawn_as(study: Study, analysis: Analysis) -> Analysis:
    """The analysis without what its sample does not depend on: alike where the sample is the same."""
    if analysis.outcome not in study.outcomes or analysis.respondents:
        return replace(analysis, id="", estimator="", inference="")
    entry = study.estimators.get(analysis.estimator)
    adds = entry is not None and (entry.covariates or {"dose", "offset"} & entry.options.keys())
    return replace(analysis, id="", part="", inference="", estimator=analysis.estimator if adds else "")


def alike(draw: Draw, analyses: Sequence[Analysis], draws: int) -> list[Found]:
    """Analyses that are drawn alike: one sample, then one fit for those that differ in inference alone."""
    groups: dict[Analysis, list[Analysis]] = {}
    for a in analyses:
        groups.setdefault(replace(a, id="", inference=""), []).append(a)
    sample = _sample(draw, analyses[0])
    return [result for g in groups.values() for result in work(g, sample, draw.study, draws)]


def _families(draw: Draw, analyses: Sequence[Analysis], draws: int) -> Iterator[Item]:
    """Families of outcomes whole, even where not every member is asked for: their adjustment needs them all."""
    study = draw.study
    groups: dict[Analysis, list[Analysis]] = {}
    for a in analyses:
        key = replace(a, id="", outcome=study.outcomes[a.outcome].family)
        groups.setdefault(key, []).append(a)
    plan = {a.id: a for a in expand(study)}
    for wanted in groups.values():
        first = wanted[0]
        at = first.id.split("/")
        members = [plan["/".join((at[0], o, *at[2:]))] for o in family(study, first)]
        yield together, (draw, wanted, members, draws)


def _sample(draw: Draw, analysis: Analysis) -> Sample | str:
    try:
        return draw.sample(analysis)
    except Inapplicable as e:
        return str(e)


def _options(study: Study, analysis: Analysis) -> dict[str, Any]:
    return options(study, analysis.estimator) | ({"of": "association"} if analysis.exposure else {})


def work(group: list[Analysis], sample: Sample | str, study: Study, draws: int) -> list[Found]:
    """Estimate one sample once, and complete the fit by each inference asked of it. A string is a reason not to, and a
    test comes back undrawn that is too long for one task.

    Where the outcome is one of persons, the persons behind each term are counted.
    """
    from biglocal import inference
    from biglocal.estimators import estimator
    from biglocal.inference.power import with_minimum_detectable

    if isinstance(sample, str):
        return [(a, sample) for a in group]
    function, policy = estimator(file_of(study, group[0].estimator)), study.policy
    try:
        fit = function(sample, **_options(study, group[0]))
    except Inapplicable as e:
        return [(a, str(e)) for a in group]
    except Exception as e:
        e.add_note(f"in analysis {group[0].id}")
        raise
    if not isinstance(fit, Fit):
        file = f"estimators/{file_of(study, group[0].estimator)}.py"
        raise StudyError(f"{file}: estimate(sample) gave a {type(fit).__name__}. Return a Fit, as model.py has it.")
    out: list[Found] = []
    outcome = study.outcomes.get(group[0].outcome)
    members = bool(group[0].respondents) and group[0].part != "members_truth"  # what is true is nobody's answer
    persons = members or (outcome is not None and outcome.table in PERSONS and not group[0].respondents)
    count = _counter(_grouped(sample, fit), distinct=members) if persons else None
    for analysis in group:
        infer = inference.infer(analysis.inference, policy.conf_level, draws, policy.power)
        try:
            if analysis.inference == "randomisation" and not analysis.respondents:
                known = replace(fit, terms=tuple(map(count, fit.terms))) if count else fit
                test = inference.prepared(sample, known, conf_level=policy.conf_level, draws=draws)
                if len(test.shares()) > 1:
                    out.append((analysis, test))
                    continue
                done = test.whole(generator(study.seed, analysis.id))
            else:
                done = infer(function, sample, fit, generator(study.seed, analysis.id))
            if analysis.respondents:
                done = with_minimum_detectable(done, target=policy.power, alpha=1 - policy.conf_level)
        except Inapplicable as e:
            out.append((analysis, str(e)))
            continue
        if count:
            done = replace(done, terms=tuple(map(count, done.terms)))
        out.append((analysis, done))
    return out


def _grouped(sample: Sample, fit: Fit) -> Sample:
    """The sample with the groups of rows that an estimator made itself (facts `levels`, (n,) names, '' for none)."""
    own = fit.facts.get("levels")
    if own is None:
        return sample
    return replace(sample, frame=sample.frame.assign(level=own), levels=tuple(sorted({*own} - {""})))


def _counter(sample: Sample, distinct: bool) -> Callable[[Term], Term]:
    """Counts the persons behind a term: `n_persons`, and `n_least` of the smallest group it describes or compares.

    A mean of one group and year describes that group, and a share also those who are and those who are not. An effect
    compares treated and others, before and after; of one year, that year with the last before treatment. `distinct`:
    rows of one unit are one person, seen more than once. What the estimator counted itself stays. A term of a level
    that the sample does not have is left uncounted, and what is not counted is not released.
    """
    import numpy as np

    frame = sample.frame[sample.frame["y"].notna()]
    size = len(frame)
    level = np.zeros(size, dtype=np.int64)
    for i, name in enumerate(sample.levels):
        level[(frame["level"] == name).to_numpy()] = i
    time = frame["time"].to_numpy(dtype=np.int64) if "time" in frame else np.zeros(size, dtype=np.int64)
    first = frame["first_treated"].to_numpy(dtype=float) if "first_treated" in frame else np.full(size, np.nan)
    treated = frame["treated"].to_numpy(dtype=np.int64) if "treated" in frame else np.ones(size, dtype=np.int64)
    if "first_treated" not in frame and "d" in frame and frame["d"].nunique() == 2:  # an exposure one has or has not
        treated = (frame["d"] == frame["d"].max()).to_numpy(dtype=np.int64)
    y = frame["y"].to_numpy(dtype=float)
    case = (y == y.max()).astype(np.int64)
    share = bool(((y == y.max()) | (y == y.min())).all())
    # few kinds of rows stand for all of them
    starts, of = np.unique(np.nan_to_num(first, nan=np.inf), return_inverse=True)
    years = np.arange(time.min(), time.max() + 1)
    shape = (max(len(sample.levels), 1), len(years), len(starts), 2, 2)
    code = np.ravel_multi_index((level, time - years[0], of, treated, case), shape)
    total = np.bincount(code, minlength=int(np.prod(shape)))
    kinds = np.flatnonzero(total)
    k_level, k_year, k_start, k_treated, k_case = np.unravel_index(kinds, shape)
    k_time, k_first = years[k_year], starts[k_start]
    start = starts[np.isfinite(starts)].min(initial=np.inf)
    since = k_time - np.where(np.isfinite(k_first), k_first, start)
    is_treated = k_treated == 1
    unit = frame["unit"].to_numpy()

    def persons(of_kinds: np.ndarray) -> int:
        if distinct:
            return len(np.unique(unit[np.isin(code, kinds[of_kinds])]))
        return int(total[kinds[of_kinds]].sum())

    def count(term: Term) -> Term:
        if term.n_least is not None:
            return term
        if term.name in OF_ALL:
            whole = count(replace(term, name="", level="", period=None))
            return replace(term, n_persons=whole.n_persons, n_least=whole.n_least)
        here = np.ones(len(kinds), dtype=bool)
        if term.level in sample.levels:
            here = k_level == sample.levels.index(term.level)
        elif term.level.isdigit() and float(term.level) in starts:  # a cohort
            here = (k_first == float(term.level)) | ~is_treated
        elif term.level:
            return term
        if term.name in ("treated", "control") and term.period is not None:
            group = here & (is_treated == (term.name == "treated")) & (k_time == term.period)
            parts = [group & (k_case == 1), group & (k_case == 0)] if share else [group]
            return replace(term, n_persons=persons(group), n_least=min(map(persons, parts)))
        after = since >= 0
        if term.period is not None:
            after = (k_time if term.period >= years[0] else since) == term.period
        before = since == -1 if term.period is not None else since < 0
        if term.period is not None and not np.isfinite(start):  # no start: since the first wave
            before = k_time == years[0]
        groups = [here & t & b for t in (is_treated, ~is_treated) for b in (after, before)]
        least = min((n for n in map(persons, groups) if n), default=0)
        return replace(term, n_persons=persons(here) if term.period is None else None, n_least=least)

    return count


def together(draw: Draw, wanted: list[Analysis], members: list[Analysis], draws: int) -> list[Result]:
    """A family of outcomes estimated and their p-values adjusted for each other; those of `wanted` are given back.

    An outcome without a sample or fit leaves the family, and the others' caution says so.
    """
    from biglocal.estimators import estimator
    from biglocal.inference.multiplicity import together as adjusted

    study = draw.study
    function = estimator(file_of(study, wanted[0].estimator))
    samples = [(a, _sample(draw, a)) for a in members]
    fits: dict[str, Fit | str] = {}
    for a, sample in samples:
        try:
            fits[a.id] = sample if isinstance(sample, str) else function(sample, **_options(study, a))
        except Inapplicable as e:
            fits[a.id] = str(e)
    good = [(a, s, f) for a, s in samples if isinstance(f := fits[a.id], Fit) and isinstance(s, Sample)]
    lost = [a.outcome for a, _ in samples if isinstance(fits[a.id], str)]
    said = f"Not in the family, for want of an estimate: {', '.join(lost)}." if lost else ""
    if good:
        try:
            done = adjusted(
                [s for _, s, _ in good], [f for *_, f in good], rng=generator(study.seed, seeded_by(study, wanted[0])),
                conf_level=study.policy.conf_level, draws=draws,
            )  # fmt: skip
        except Inapplicable as e:
            return [(a, str(e)) for a in wanted]
        for (a, sample, _), fit in zip(good, done, strict=True):
            if study.outcomes[a.outcome].table in PERSONS:
                fit = replace(fit, terms=tuple(map(_counter(sample, distinct=False), fit.terms)))
            fits[a.id] = replace(fit, caution=" ".join(filter(None, [fit.caution, said])))
    return [(a, fits[a.id]) for a in wanted]


def generator(seed: int, name: str) -> np.random.Generator:
    """Random numbers of one analysis: by its name, so that order and number of workers change nothing."""
    import numpy as np

    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def rows(study: Study, tier: str, analysis: Analysis, fit: Fit | str, digest: str) -> Iterator[Row]:
    """The rows of one analysis; one row with the reason where it does not apply."""
    outcome = study.outcomes.get(analysis.outcome)

    def row(term: Term | None, status: str, reason: str, counts: tuple[int | None, ...]) -> Row:
        t = term or Term("", float("nan"))

        def number(value: float) -> float | None:
            return None if math.isnan(value) else value

        return Row(
            analysis=analysis.id,
            digest=digest,
            part=analysis.part,
            outcome=analysis.outcome,
            subgroup=analysis.subgroup,
            level=t.level,
            comparison=analysis.comparison,
            treatment=analysis.treatment,
            estimator=analysis.estimator,
            inference=analysis.inference,
            term=t.name,
            period=t.period,
            estimate=number(t.estimate),
            std_error=number(t.std_error),
            df=number(t.df),
            statistic=number(t.statistic),
            p_value=number(t.p_value),
            p_adjusted=None,
            conf_low=number(t.conf_low),
            conf_high=number(t.conf_high),
            conf_level=study.policy.conf_level if t.conf_low == t.conf_low else None,
            unit=_unit(fit, t, outcome.unit if outcome else "GBP" if analysis.part == "spending" else ""),
            n_obs=counts[0],
            n_units=counts[1],
            n_treated=counts[2],
            n_clusters=counts[3],
            status=status,
            reason=reason,
            tier=tier,
            df_num=t.df_num,
            n_treated_clusters=t.n_treated_clusters,
            respondents=analysis.respondents,
            exposure=analysis.exposure,
            n_persons=t.n_persons,
            n_least=t.n_least,
        )

    if isinstance(fit, str):
        yield row(None, "inapplicable", fit, (None, None, None, None))
        return
    steps = fit.facts.get("counts")
    for i, term in enumerate(fit.terms):
        treated = fit.n_treated if term.n_treated is None else term.n_treated
        counts = (fit.n_obs, fit.n_units, treated, fit.n_clusters) if not steps else (fit.n_obs, *steps[i])
        yield row(term, "ok", fit.caution, counts)


def _unit(fit: Fit | str, term: Term, unit: str) -> str:
    """The unit of a term, mostly its outcome's; a model for two values speaks of log odds and of odds ratios."""
    if isinstance(fit, str) or not any(t.name == "odds_ratio" for t in fit.terms):
        return UNITS.get(term.level if term.name in ("curve", "drawn") else term.name, unit)
    return "odds ratio" if term.name in ("odds_ratio", "minimum_detectable") else "log odds"


def adjust(table: Sequence[Row], study: Study, plan: Sequence[Analysis]) -> list[Row]:
    """Fill p_adjusted: effects within the outcome's family, tests of difference within the outcome.

    Made anew from the whole table each time, so that adding an outcome to a family moves its fellows. A family of
    which the plan has more than the table (a run of a part) is left blank: its correction is not known.
    """
    from biglocal.inference import adjust as adjusted

    def together_with(a: Analysis | Row) -> tuple[str, ...] | None:
        same = (a.part, a.comparison, a.treatment, a.estimator, a.inference)
        if a.part == "effects":
            return (*same, a.subgroup, study.outcomes[a.outcome].family)
        return (*same, a.outcome, a.respondents, a.exposure) if a.part in ("subgroups", "change") else None

    there = {r.analysis for r in table}
    incomplete = {together_with(a) for a in plan if a.id not in there}
    groups: dict[tuple[str, ...], list[int]] = {}
    for i, r in enumerate(table):
        key = together_with(r)
        tested = r.term == ("att" if r.part == "effects" else "difference")
        if key and key not in incomplete and tested and r.p_value is not None:
            groups.setdefault(key, []).append(i)
    out = [replace(r, p_adjusted=None) for r in table]
    for members in groups.values():
        values = adjusted([table[i].p_value or 0.0 for i in members], study.policy.multiplicity)
        for i, p in zip(members, values, strict=True):
            out[i] = replace(out[i], p_adjusted=p)
    return out
