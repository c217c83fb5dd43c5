"""The pipeline: `reproduce` is the order in which things happen, and the only place that says it.

results.csv is the cache and, through its journal, the checkpoint: an analysis whose digest is already
there is not computed again, and a killed run goes on where it stopped.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from biglocal import provenance, results
from biglocal.data import load as data_load
from biglocal.data.load import Tier
from biglocal.model import Analysis, DataError, Run, Study, StudyError
from biglocal.results import COLUMNS, Row
from biglocal.study import HERE, MANUSCRIPT, PATH, ROOT, expand, tables
from biglocal.study import load as load_study

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
    from biglocal import estimate, exhibits

    # through text first: rows kept from a file and rows just made must lead to the same last digit
    rows = results.loads(results.dumps(row for a in plan for row in kept.get(a.id, ())), "results.csv")
    text = results.dumps(estimate.adjust(rows, study))
    _write_if_new(out / "results.csv", text)
    (out / JOURNAL).unlink(missing_ok=True)

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

    from biglocal import estimate
    from biglocal.sample import Draw

    draw = Draw(study, tier)
    found: dict[str, tuple[Row, ...]] = {}
    with threadpool_limits(1):  # sums in one order: the same bytes on any number of cores
        say(f"reading the {tier.name} tier")
        for table in sorted({t for a in todo for t in tables(study, a) if tier.has(t)}):
            tier.table(table)
        estimate.check_levels(draw, todo)
        say(f"estimating {len(todo)} analyses")
        with _journal(out) as write, _bar(progress, len(todo)) as advance:
            for analysis, fit in estimate.estimate(draw, todo, draws, jobs):
                rows = tuple(estimate.rows(study, tier.name, analysis, fit, digests[analysis.id]))
                found[analysis.id] = rows
                write(rows)
                advance(1)
    return found


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
