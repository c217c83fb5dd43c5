"""The pipeline: `reproduce` is the order in which things happen, and the only place that says it.

The rows before disclosure control are the cache and, through their journal, the checkpoint: an analysis whose digest
is already there is not computed again, and a killed run goes on where it stopped. They stay in `not-for-release`;
results.csv holds them as they may leave (release.py), and all else is made of results.csv.
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from biglocal import provenance, release, results, runs, timings
from biglocal.data import load as data_load
from biglocal.data.load import Tier
from biglocal.model import Analysis, BiglocalError, DataError, Run, Study, StudyError
from biglocal.results import Row
from biglocal.study import HERE, MANUSCRIPT, MONEY, ON_REQUEST, PATH, ROOT, expand, sources, tables
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
    left: dict[str, float] = field(default_factory=dict)  # exhibits beyond the budget: seconds each adds


def reproduce(
    tier_name: str = "synthetic",
    *,
    data: Path | None = None,
    treated: Path | None = None,
    outputs: Path = OUTPUTS,
    only: Sequence[str] = (),
    jobs: int = 1,
    scheduler: str = "",
    budget: float | None = None,
    draws: str = "quick",
    study_path: Path = PATH,
    manuscript: Path = MANUSCRIPT,
    progress: Callable[[int], Any] | None = None,
    say: Say = lambda _: None,
) -> Done:
    """From data to report.

    `only`: analysis ids (shell patterns allowed) or exhibit names; the rest is left as it is. `budget`: seconds, that
    choose the exhibits instead (`timings.within`).
    `jobs`: worker processes, or `scheduler`: a Dask cluster's (runs.py); the results are the same. Raises
    `BiglocalError` for whatever the user can mend; on a tier whose rows are confidential also for whatever else goes
    wrong, without its text.
    """
    study = load_study(study_path, manuscript)
    tier = data_load.load(tier_name, seed=study.seed, data=data, treated=treated, min_months=study.policy.min_months)
    out = outputs / tier.name
    runs.check(scheduler)
    with _quiet(out) if tier.quiet else nullcontext():
        return _reproduce(
            study, tier, out, only, (jobs, scheduler), budget, draws, study_path, manuscript, progress, say
        )


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Hold the folder of outputs: two runs at once would each drop what the other has made.

    The lock is the system's and goes with the process. Where there is none (Windows, some network disks) users have to
    see to it.
    """
    try:
        import fcntl

        held = os.open(out, os.O_RDONLY)
    except (ImportError, OSError):
        yield
        return
    try:
        with suppress(OSError):  # of a disk without locks
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BiglocalError(
                    f"another run is at work in {out}: wait until it has ended, or give this one a folder of its own "
                    f"(--outputs)."
                ) from None
        yield
    finally:
        os.close(held)


@contextmanager
def _quiet(out: Path) -> Iterator[None]:
    """Keep the text of an unforeseen error, in which a row's value may stand, with what does not leave."""
    try:
        yield
    except (BiglocalError, OSError):
        raise
    except Exception as error:
        import traceback

        results.write_text(out / release.HELD / "README.txt", release.KEPT_BACK)
        results.write_text(out / release.HELD / "error.txt", traceback.format_exc())
        raise BiglocalError(
            f"an unforeseen {type(error).__name__}. What it says may hold values of the data, so it stands in "
            f"{release.HELD}/error.txt of the outputs, not here. Look at it inside the laboratory; take none of it out."
        ) from None


def _reproduce(
    study: Study,
    tier: Tier,
    out: Path,
    only: Sequence[str],
    workers: tuple[int, str],
    budget: float | None,
    draws: str,
    study_path: Path,
    manuscript: Path,
    progress: Callable[[int], Any] | None,
    say: Say,
) -> Done:
    plan = expand(study)
    count = study.policy.draws_full if draws == "full" else study.policy.draws_quick
    digests = provenance.of_plan(study, tier, plan, count)
    wanted, shown = choose(study, plan, only, manuscript)

    out.mkdir(parents=True, exist_ok=True)  # a folder that cannot be written is refused now
    with _alone(out):
        table = _table(out)
        kept = _kept(out, table, digests, say)
        left: dict[str, float] = {}
        if budget is not None:
            only, left = _affordable(study, plan, budget, kept, workers, manuscript)
            wanted, shown = choose(study, plan, only, manuscript)
        if only and shown >= _ordinary(study, manuscript):  # all that the report asks for: it is made whole
            only = ()
        todo = [a for a in wanted if a.id not in kept]
        if todo:
            kept |= _estimate(study, tier, todo, kept, digests, out, count, workers, progress, say)
        from biglocal import estimate, exhibits

        fresh = [row for a in plan for row in kept.get(a.id, ())]
        if todo:  # through text first: rows kept from a file and rows just made must lead to the same last digit
            fresh = list(results.loads(results.dumps(fresh), "results.csv"))
        rows = estimate.adjust(fresh, study, plan)
        if lost := _outdated(table, plan, set(kept)):  # beside these rows they would pass for rows of this study
            say(f"{', '.join(lost)}: made for other settings, data or code, so left out; {WHOLE if only else AGAIN}")
        held = results.dumps(rows)
        reuse = provenance.unaltered(out)
        text, findings = _released(out, held, study, reuse)
        before = provenance.last(out)
        notes = tier.notes() if todo else provenance.notes(out, tier.digests)
        noticed = tier.notes() if notes is None else notes
        run = Run(tier.name, tier.banner, tier.lacks, noticed, tier.digests, provenance.versions(), count, tier.files())
        key = _render_key(text, run, study_path, manuscript, draws)
        same = before.get("rendered_from") == key and reuse

        def record(rendered_from: str, files: Sequence[Path]) -> None:
            said = provenance.record(run, study, text, draws, rendered_from, files, out, manuscript)
            results.write_text(out / "provenance.json", said)

        _keep(out, held)
        if same:
            record(key, [out / name for name in before["outputs"]])  # the code beside what made them may have changed
            (out / JOURNAL).unlink(missing_ok=True)
            results.write_text(out / MARK, _made_from(held, study))
            return Done(out, len(todo), len(wanted) - len(todo), (), _inapplicable(kept), left)
        results.write_text(out / "results.csv", text)
        there = [out / name for name in before.get("outputs", {}) if (out / name).is_file()] if reuse else []
        record("", sorted({*there, out / "results.csv"}))  # from here on the table vouches for itself
        (out / JOURNAL).unlink(missing_ok=True)
        rows = list(results.loads(text, "results.csv"))
        if only:
            written = exhibits.render(rows, study, run, out, manuscript, only=shown, reuse=reuse) if shown else ()
            checked = _checked(rows, findings, study, manuscript, out)
            record("", sorted({*there, *written, *checked, out / "results.csv"}))
        else:
            say("rendering the report")
            written = exhibits.render(rows, study, run, out, manuscript, reuse=reuse)
            unused = (out / "unused.csv").read_text(encoding="utf-8").count("\n") - 1
            say(f"{unused} rows feed no exhibit: unused.csv")
            written = (
                *written,
                out / "results.csv",
                *_extras(out, tier, reuse and before.get("data") == tier.digests),
                *_checked(rows, findings, study, manuscript, out),
            )
            record(key, written)
        results.write_text(out / MARK, _made_from(held, study))
        (out / release.HELD / "error.txt").unlink(missing_ok=True)  # of a run before that failed
        return Done(out, len(todo), len(wanted) - len(todo), written, _inapplicable(kept), left)


def _inapplicable(kept: dict[str, tuple[Row, ...]]) -> int:
    return sum(1 for rows in kept.values() if all(r.status != "ok" for r in rows))


AGAIN = "run `biglocal reproduce --only PART` to make it again, then render once more"
WHOLE = "`biglocal reproduce` makes them again"


def _outdated(table: Sequence[Row], plan: Sequence[Analysis], kept: set[str]) -> tuple[str, ...]:
    """Parts of which the last run had rows that hold no longer and that this run does not make again."""
    there = {r.analysis for r in table}
    return tuple(dict.fromkeys(a.part for a in plan if a.id in there and a.id not in kept))


CACHE = f"{release.HELD}/results.csv"
JOURNAL = f"{release.HELD}/results.journal.csv"
TASKS = f"{release.HELD}/tasks"  # of parts on request and long tests that are not complete
MARK = f"{release.HELD}/released.sha256"  # what the outputs were released from; written last


def choose(
    study: Study, plan: Sequence[Analysis], only: Sequence[str], manuscript: Path
) -> tuple[list[Analysis], frozenset[str]]:
    """The analyses to have, and the exhibits to render, for the ids the user named.

    Raises `StudyError` for a name that is neither.
    """
    if not only:
        return [a for a in plan if a.part not in ON_REQUEST], frozenset(study.exhibits)
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
    if any(a.part == MONEY and a.id in ids for a in plan):
        ids |= {a.id for a in sources(study)}
    return [a for a in plan if a.id in ids], frozenset(shown)


def _ordinary(study: Study, manuscript: Path) -> set[str]:
    """The exhibits that a run makes of itself, without being asked."""
    from biglocal import exhibits

    parts = {e: exhibits.parts(e, manuscript) for e in study.exhibits}
    return {e for e, own in parts.items() if not own or own - set(ON_REQUEST)}


def _affordable(
    study: Study,
    plan: Sequence[Analysis],
    budget: float,
    kept: Collection[str],
    workers: tuple[int, str],
    manuscript: Path,
) -> tuple[tuple[str, ...], dict[str, float]]:
    """The exhibits that a budget of seconds allows, and the rest with what they take, by measured costs."""
    measured = timings.load()
    if measured is None:
        raise BiglocalError("--budget: there is no analysis/timings.toml. Make it with `nox -s benchmark -- exhibits`.")
    jobs, scheduler = workers
    kind, _, count = scheduler.partition(":")
    processes = int(count) if kind == "local" and count.isdigit() and int(count) else jobs
    wanted = {e: choose(study, plan, [e], manuscript)[0] for e in study.exhibits}
    return timings.within(budget, wanted, kept, plan, measured, processes)


def _kept(out: Path, table: Sequence[Row], digests: dict[str, str], say: Say) -> dict[str, tuple[Row, ...]]:
    """Rows that still hold, by analysis: from the last table, and from the journal of a run that was killed."""
    journal = results.read(out / JOURNAL, torn=True)
    if not table and (out / CACHE).exists():
        say(f"{CACHE} is not what the last run wrote, or of another version: its rows are computed again")
    kept: dict[str, list[Row]] = {}
    for source in (table, journal):
        fresh: dict[str, list[Row]] = {}
        for row in source:
            if digests.get(row.analysis) == row.digest:
                fresh.setdefault(row.analysis, []).append(row)
        kept |= fresh
    return {k: tuple(v) for k, v in kept.items()}


def _table(out: Path) -> tuple[Row, ...]:
    """The last table, if it is what the last run wrote: a number that was edited by hand must not reach a report."""
    path = out / CACHE
    sum_ = path.with_suffix(".sha256")  # beside the rows, as these may not leave: a sum would tell a guess right
    try:
        if not path.is_file() or results.digest(path.read_bytes()) != sum_.read_text(encoding="utf-8").strip():
            return ()
        return results.read(path)
    except (OSError, UnicodeDecodeError, DataError):
        return ()


def _made_from(held: str, study: Study) -> str:
    return results.digest(held, repr(study), provenance.code("release.py")) + "\n"


def _released(out: Path, held: str, study: Study, reuse: bool) -> tuple[str, tuple[release.Finding, ...]]:
    """The table as it may leave, and what control found; those of the last run where nothing has changed."""
    mark = out / MARK
    if reuse and mark.is_file() and mark.read_text(encoding="utf-8") == _made_from(held, study):
        return (out / "results.csv").read_text(encoding="utf-8"), release.findings(out)
    mark.unlink(missing_ok=True)
    released, findings = release.control(results.loads(held, "results.csv"), study)
    return results.dumps(released), findings


def _keep(out: Path, held: str) -> None:
    """The rows before control, for the next run."""
    results.write_text(out / release.HELD / "README.txt", release.KEPT_BACK)
    results.write_text(out / CACHE, held)
    results.write_text((out / CACHE).with_suffix(".sha256"), results.digest(held) + "\n")


def _checked(
    rows: Sequence[Row], findings: Sequence[release.Finding], study: Study, manuscript: Path, out: Path
) -> tuple[Path, ...]:
    """The report of disclosure control, once what it is about is written."""
    from biglocal import exhibits

    parts = {name: exhibits.parts(name, manuscript) for name in study.exhibits}
    return release.report(rows, findings, study, parts, out)


def _estimate(
    study: Study,
    tier: Tier,
    todo: Sequence[Analysis],
    kept: dict[str, tuple[Row, ...]],
    digests: dict[str, str],
    out: Path,
    draws: int,
    workers: tuple[int, str],
    progress: Callable[[int], Any] | None,
    say: Say,
) -> dict[str, tuple[Row, ...]]:
    """Draw, estimate and infer, then value in money; journal each analysis as it comes. `kept`: rows that hold."""
    from threadpoolctl import threadpool_limits

    from biglocal import estimate, worth
    from biglocal.sample import Draw

    draw = Draw(study, tier)
    found: dict[str, tuple[Row, ...]] = {}
    with threadpool_limits(1):  # sums in one order: the same bytes on any number of cores
        say(f"reading the {tier.name} tier")
        wanted = sorted({t for a in todo for t in tables(study, a) if tier.has(t)})
        for table in wanted:
            tier.table(table)
        data_load.check_references(tier, wanted)
        estimate.check_levels(draw, todo)
        worth.check(study, tier)
        say(f"estimating {len(todo)} analyses")
        with _journal(out) as write, _bar(progress, sum(estimate.steps(study, a, draws) for a in todo)) as advance:
            estimated = [a for a in todo if a.part != MONEY]
            jobs, scheduler = workers
            for analysis, fit in estimate.estimate(
                draw, estimated, draws, jobs, advance, scheduler=scheduler, held=out / TASKS, digests=digests, say=say
            ):
                rows = tuple(estimate.rows(study, tier.name, analysis, fit, digests[analysis.id]))
                found[analysis.id] = rows
                write(rows)
            # through text: rows kept from a file and rows just made must lead to the same last digit
            made = [r for a in sources(study) for r in (kept | found).get(a.id, ())]
            before = results.loads(results.dumps(made), "results.csv")
            for analysis in (a for a in todo if a.part == MONEY):
                found[analysis.id] = worth.rows(study, tier.name, analysis, before, digests[analysis.id])
                advance(1)
                write(found[analysis.id])
    return found


@contextmanager
def _journal(out: Path) -> Iterator[Callable[[tuple[Row, ...]], None]]:
    """Append each analysis' rows to the journal at once, so that a killed run loses only what was in flight."""
    path = out / JOURNAL
    path.parent.mkdir(parents=True, exist_ok=True)
    results.write_text(path.parent / "README.txt", release.KEPT_BACK)
    before = results.dumps(results.read(path, torn=True))
    results.write_text(path, before + (results.WHOLE if before.count("\n") > 1 else ""))
    with path.open("a", encoding="utf-8", newline="") as file:

        def write(rows: tuple[Row, ...]) -> None:
            file.write(results.dumps(rows).split("\n", 1)[1] + results.WHOLE)
            file.flush()

        yield write


@contextmanager
def _bar(progress: Callable[[int], Any] | None, total: int) -> Iterator[Callable[[int], None]]:
    if progress is None:
        yield lambda _: None
        return
    with progress(total) as advance:
        yield advance


def _render_key(text: str, run: Run, study_path: Path, manuscript: Path, draws: str) -> str:
    """Everything the report is made of besides the libraries: rows, run, study, templates, rendering code."""
    files = sorted(p for p in manuscript.rglob("*") if p.is_file())
    sources = [*(ROOT / "data-raw" / n for n in ("published.toml", "sources.toml")), timings.PATH]
    rendering = sorted([*HERE.glob("*.py"), *HERE.glob("exhibits/*.py")])
    parts: list[str | bytes] = [text, repr(run), draws, study_path.read_bytes()]
    for p in (*files, *(s for s in sources if s.exists()), *rendering):
        parts += [p.name, p.read_bytes()]
    return results.digest(*parts)


def _extras(out: Path, tier: Tier, same: bool) -> tuple[Path, ...]:
    """The data dictionary, for people and for machines, and the known truth where the tier was made.

    `same`: the outputs are those of a run on the same data, so that its table of the truth is this one's.
    """
    from biglocal.data import tables

    results.write_text(out / "dictionary.md", tables.dictionary())
    results.write_text(out / "datapackage.json", tables.datapackage())
    written = [out / "dictionary.md", out / "datapackage.json"]
    if tier.has("truth"):
        written.append(out / "truth.csv")
        if not (same and written[-1].is_file()):
            text = tier.table("truth").to_csv(index=False, lineterminator="\n", float_format="%.10g")
            results.write_text(written[-1], text)
    return tuple(written)
