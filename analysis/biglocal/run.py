"""The pipeline: `reproduce` is the order in which things happen, and the only place that says it.

results.csv is the cache and, through its journal, the checkpoint: an analysis whose digest is already
there is not computed again, and a killed run goes on where it stopped.
"""

from __future__ import annotations

import fnmatch
import itertools
import math
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biglocal import provenance, results
from biglocal.data import load as data_load
from biglocal.data.load import Tier
from biglocal.model import Analysis, DataError, Fit, Inapplicable, Run, Study, StudyError, Term
from biglocal.results import COLUMNS, Row
from biglocal.study import HERE, MANUSCRIPT, PATH, ROOT, expand, tables
from biglocal.study import load as load_study

if TYPE_CHECKING:
    import numpy as np

    from biglocal.model import Sample
    from biglocal.sample import Draw

OUTPUTS = ROOT / "outputs"
EXPECTED = OUTPUTS / "expected"
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Done:
    """What a call of `reproduce` did: where, how many analyses were estimated and reused, what was written."""

    out: Path
    estimated: int
    reused: int
    written: tuple[Path, ...]
    inapplicable: int


def reproduce(
    tier_name: str = "synthetic",
    *,
    data: Path | None = None,
    treated: Path | None = None,
    outputs: Path = OUTPUTS,
    only: Sequence[str] = (),
    jobs: int = 1,
    draws: str = "quick",
    study_path: Path = PATH,
    manuscript: Path = MANUSCRIPT,
    progress: Callable[[int], Any] | None = None,
    say: Say = lambda _: None,
) -> Done:
    """From data to report.

    `only`: analysis ids (shell patterns allowed) or exhibit names; the rest is left as it is.
    `jobs`: worker processes. Raises `BiglocalError` for whatever the user can mend.
    """
    study = load_study(study_path, manuscript)
    tier = data_load.load(tier_name, seed=study.seed, data=data, treated=treated, min_months=study.policy.min_months)
    out = outputs / tier.name
    plan = expand(study)
    count = study.policy.draws_full if draws == "full" else study.policy.draws_quick
    digests = {a.id: provenance.of_analysis(study, tier, a, count) for a in plan}
    wanted, shown = choose(study, plan, only, manuscript)

    kept = _kept(out, digests)
    todo = [a for a in wanted if a.id not in kept]
    if todo:
        kept |= _estimate(study, tier, todo, digests, out, count, jobs, progress, say)
    # through text first: rows kept from a file and rows just made must lead to the same last digit
    rows = results.loads(results.dumps(row for a in plan for row in kept.get(a.id, ())), "results.csv")
    text = results.dumps(adjust(rows, study))
    _write_if_new(out / "results.csv", text)
    (out / JOURNAL).unlink(missing_ok=True)

    from biglocal import exhibits

    notes = tier.notes() if todo else provenance.notes(out, tier.digests)
    run = Run(tier.name, tier.banner, tier.lacks, tier.notes() if notes is None else notes, tier.digests,
              provenance.versions())  # fmt: skip
    rows = results.loads(text, "results.csv")
    written: tuple[Path, ...] = ()
    if only:
        written = exhibits.render(rows, study, run, out, manuscript, only=shown) if shown else ()
    elif _stale(out, text, run, study_path, manuscript, count):
        say("rendering the report")
        written = exhibits.render(rows, study, run, out, manuscript, reuse=provenance.unaltered(out))
        written = (*written, out / "results.csv", *_extras(out, tier))
        key = _render_key(text, run, study_path, manuscript, count)
        record = provenance.record(run, study_path.read_bytes(), text, draws, key, written, out)
        results.write_text(out / "provenance.json", record)
    bad = sum(1 for a in plan if all(r.status != "ok" for r in kept.get(a.id, ())) and a.id in kept)
    return Done(out, len(todo), len(wanted) - len(todo), written, bad)


JOURNAL = "results.journal.csv"


def choose(
    study: Study, plan: Sequence[Analysis], only: Sequence[str], manuscript: Path
) -> tuple[list[Analysis], frozenset[str]]:
    """The analyses to have, and the exhibits to render, for the ids the user named.

    Raises `StudyError` for a name that is neither.
    """
    if not only:
        return list(plan), frozenset(study.exhibits)
    from biglocal import exhibits

    ids: set[str] = set()
    shown: set[str] = set()
    for name in only:
        if name in study.exhibits:
            shown.add(name)
            parts = exhibits.parts(name, manuscript)
            ids |= {a.id for a in plan if a.part in parts}
            continue
        found = {a.id for a in plan if fnmatch.fnmatchcase(a.id, name) or a.id.startswith(name.rstrip("/") + "/")}
        if not found:
            raise StudyError(
                f"--only {name}: neither an exhibit ({', '.join(study.exhibits)}) nor an analysis. "
                f"`biglocal plan` prints the analyses."
            )
        ids |= found
    return [a for a in plan if a.id in ids], frozenset(shown)


def _kept(out: Path, digests: dict[str, str]) -> dict[str, tuple[Row, ...]]:
    """Rows that still hold, by analysis: from the last table, and from the journal of a run that was killed."""
    journal = results.read(out / JOURNAL, torn=True)
    if journal:  # the last analysis may be half there: it is computed again
        last = journal[-1].analysis
        journal = tuple(r for r in journal if r.analysis != last)
    kept: dict[str, list[Row]] = {}
    for source in (_table(out), journal):
        fresh: dict[str, list[Row]] = {}
        for row in source:
            if digests.get(row.analysis) == row.digest:
                fresh.setdefault(row.analysis, []).append(row)
        kept |= fresh
    return {k: tuple(v) for k, v in kept.items()}


def _table(out: Path) -> tuple[Row, ...]:
    try:
        return results.read(out / "results.csv")
    except DataError:
        return ()  # of another version, or damaged: a cache that cannot be read is no cache


def _estimate(
    study: Study,
    tier: Tier,
    todo: Sequence[Analysis],
    digests: dict[str, str],
    out: Path,
    draws: int,
    jobs: int,
    progress: Callable[[int], Any] | None,
    say: Say,
) -> dict[str, tuple[Row, ...]]:
    """Draw, estimate and infer; journal each analysis as it comes."""
    from threadpoolctl import threadpool_limits

    from biglocal import sample

    draw = sample.Draw(study, tier)
    with threadpool_limits(1):  # sums in one order: the same bytes on any number of cores
        say(f"reading the {tier.name} tier")
        for table in sorted({t for a in todo for t in tables(study, a) if tier.has(t)}):
            tier.table(table)
        _check_levels(draw, todo)
        groups = [list(g) for _, g in itertools.groupby(todo, key=lambda a: replace(a, id="", inference=""))]
        say(f"estimating {len(todo)} analyses")
        found: dict[str, tuple[Row, ...]] = {}
        with _journal(out) as write, _bar(progress, len(todo)) as advance:
            for done in _map(_jobs(draw, study, groups, draws), jobs):
                for analysis, fits in done:
                    rows = tuple(_rows(study, tier, analysis, fits, digests[analysis.id]))
                    found[analysis.id] = rows
                    write(rows)
                    advance(1)
    return found


def _check_levels(draw: Draw, todo: Sequence[Analysis]) -> None:
    """Draw each subgroup's sample once before anything is estimated: an empty level is refused now, not later."""
    for analysis in todo:
        if analysis.subgroup != "all" and analysis.part != "truth":
            try:
                draw.sample(analysis)
            except Inapplicable:
                continue


Work = tuple[list[Analysis], "Sample | str", float, int, int]
Result = list[tuple[Analysis, "Fit | str"]]


def _jobs(draw: Draw, study: Study, groups: Iterable[list[Analysis]], draws: int) -> Iterator[Work]:
    for group in groups:
        sample: Sample | str
        try:
            sample = draw.sample(group[0])
        except Inapplicable as e:
            sample = str(e)
        yield group, sample, study.policy.conf_level, draws, study.seed


def work(group: list[Analysis], sample: Sample | str, conf_level: float, draws: int, seed: int) -> Result:
    """Estimate one sample once, and complete the fit by each inference asked of it. A string is a reason not to."""
    from biglocal import inference
    from biglocal.estimators import estimator

    if isinstance(sample, str):
        return [(a, sample) for a in group]
    function = estimator(group[0].estimator)
    try:
        fit = function(sample)
    except Inapplicable as e:
        return [(a, str(e)) for a in group]
    except Exception as e:
        e.add_note(f"in analysis {group[0].id}")
        raise
    out: Result = []
    for analysis in group:
        infer = inference.infer(analysis.inference, conf_level, draws)
        try:
            out.append((analysis, infer(function, sample, fit, generator(seed, analysis.id))))
        except Inapplicable as e:
            out.append((analysis, str(e)))
    return out


def generator(seed: int, name: str) -> np.random.Generator:
    """Random numbers of one analysis: by its name, so that order and number of workers change nothing."""
    import numpy as np

    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def _map(items: Iterator[Work], jobs: int) -> Iterator[Result]:
    if jobs <= 1:
        yield from (work(*item) for item in items)
        return
    from joblib import Parallel, delayed

    yield from Parallel(n_jobs=jobs, backend="loky", return_as="generator", pre_dispatch=2 * jobs)(
        delayed(_limited)(*item) for item in items
    )


def _limited(*item: Any) -> Result:
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        return work(*item)


@contextmanager
def _journal(out: Path) -> Iterator[Callable[[tuple[Row, ...]], None]]:
    """Append each analysis' rows to the journal at once, so that a killed run loses only what was in flight."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / JOURNAL
    if path.exists():
        results.write_text(path, results.dumps(_whole(results.read(path, torn=True))))
    else:
        results.write_text(path, ",".join(COLUMNS) + "\n")
    with path.open("a", encoding="utf-8", newline="") as file:

        def write(rows: tuple[Row, ...]) -> None:
            file.write(results.dumps(rows).split("\n", 1)[1])
            file.flush()

        yield write


def _whole(rows: tuple[Row, ...]) -> tuple[Row, ...]:
    return tuple(r for r in rows if r.analysis != rows[-1].analysis) if rows else rows


@contextmanager
def _bar(progress: Callable[[int], Any] | None, total: int) -> Iterator[Callable[[int], None]]:
    if progress is None:
        yield lambda _: None
        return
    with progress(total) as advance:
        yield advance


def _rows(study: Study, tier: Tier, analysis: Analysis, fit: Fit | str, digest: str) -> Iterator[Row]:
    """The rows of one analysis; one row with the reason where it does not apply."""
    outcome = study.outcomes.get(analysis.outcome)

    def row(term: Term | None, status: str, reason: str, counts: tuple[int | None, ...]) -> Row:
        t = term or Term("", float("nan"))
        hidden = status != "ok"

        def number(value: float) -> float | None:
            return None if hidden or math.isnan(value) else value

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
            conf_level=study.policy.conf_level if t.conf_low == t.conf_low and not hidden else None,
            unit=outcome.unit if outcome else "",
            n_obs=counts[0],
            n_units=counts[1],
            n_treated=counts[2],
            n_clusters=counts[3],
            status=status,
            reason=reason,
            tier=tier.name,
            df_num=t.df_num,
            n_treated_clusters=None if hidden else t.n_treated_clusters,
        )

    if isinstance(fit, str):
        yield row(None, "inapplicable", fit, (None, None, None, None))
        return
    steps = fit.facts.get("counts")
    treated = [fit.n_treated if t.n_treated is None else t.n_treated for t in fit.terms]
    small = [outcome is not None and n < study.policy.min_cell for n in treated]
    for i, term in enumerate(fit.terms):
        # a test of the difference gives a hidden level away: it is hidden with it
        hidden = small[i] or (term.name == "difference" and any(small))
        counts = (fit.n_obs, fit.n_units, treated[i], fit.n_clusters) if not steps else (fit.n_obs, *steps[i])
        if hidden:
            why = f"Fewer than {study.policy.min_cell} treated units in a level: not shown (policy.min_cell)."
            yield row(term, "suppressed", why, (None, None, None, None))
        else:
            yield row(term, "ok", fit.caution, counts)


def adjust(rows: Sequence[Row], study: Study) -> list[Row]:
    """Fill p_adjusted: effects within the outcome's family, tests of difference within the outcome.

    Made anew from the whole table each time, so that adding an outcome to a family moves its fellows.
    """
    from biglocal.inference import adjust as adjusted

    groups: dict[tuple[str, ...], list[int]] = {}
    for i, r in enumerate(rows):
        if r.p_value is None:
            continue
        if r.part == "effects" and r.term == "att":
            family = study.outcomes[r.outcome].family
            groups.setdefault(
                (r.part, family, r.subgroup, r.comparison, r.treatment, r.estimator, r.inference), []
            ).append(i)
        elif r.term == "difference":
            groups.setdefault((r.part, r.outcome, r.comparison, r.treatment, r.estimator, r.inference), []).append(i)
    out = [replace(r, p_adjusted=None) for r in rows]
    for members in groups.values():
        values = adjusted([rows[i].p_value or 0.0 for i in members], study.policy.multiplicity)
        for i, p in zip(members, values, strict=True):
            out[i] = replace(out[i], p_adjusted=p)
    return out


def _write_if_new(path: Path, text: str) -> None:
    if not path.exists() or path.read_bytes() != text.encode():
        results.write_text(path, text)


def _render_key(text: str, run: Run, study_path: Path, manuscript: Path, draws: int) -> str:
    """Everything the report is made of besides the libraries: rows, run, study, templates, rendering code."""
    files = sorted(p for p in manuscript.rglob("*") if p.is_file())
    sources = [ROOT / "data-raw" / n for n in ("published.toml", "sources.toml")]
    rendering = sorted(HERE.glob("*.py"))
    parts: list[str | bytes] = [text, repr(run), str(draws), study_path.read_bytes()]
    for p in (*files, *(s for s in sources if s.exists()), *rendering):
        parts += [p.name, p.read_bytes()]
    return results.digest(*parts)


def _stale(out: Path, text: str, run: Run, study_path: Path, manuscript: Path, draws: int) -> bool:
    """Whether the report must be rendered: something it is made of changed, or an output is not what was written."""
    same = provenance.last(out).get("rendered_from") == _render_key(text, run, study_path, manuscript, draws)
    return not (same and provenance.unaltered(out))


def _extras(out: Path, tier: Tier) -> tuple[Path, ...]:
    """The data dictionary, and the known truth where the tier was made."""
    from biglocal.data import tables

    results.write_text(out / "dictionary.md", tables.dictionary())
    written = [out / "dictionary.md"]
    if tier.has("truth"):
        text = tier.table("truth").to_csv(index=False, lineterminator="\n", float_format="%.10g")
        results.write_text(out / "truth.csv", text)
        written.append(out / "truth.csv")
    return tuple(written)
