"""The command line: arguments only. Every command says what it made, and where."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from biglocal.model import BiglocalError, VerifyError

PLAIN: dict[str, Any] = {  # help without rich: importing it takes longer than all else that help needs
    "no_args_is_help": True, "rich_markup_mode": None, "context_settings": {"max_content_width": 120},
}  # fmt: skip
app = typer.Typer(**PLAIN, add_completion=False, pretty_exceptions_enable=False, help=__doc__)


def _say(text: str) -> None:
    typer.echo(text, err=True)


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """A bar with the time left, on the error stream; quiet lines where nobody watches a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
    from rich.text import Text

    class Left(ProgressColumn):
        """By the mean pace since the start: workers' results come in bursts, after which rich's own says 2 seconds."""

        def render(self, task: Task) -> Text:
            if not task.completed or task.total is None:
                return Text("-:--:--", style="progress.remaining")
            left = (task.elapsed or 0) * (task.total - task.completed) / task.completed
            return Text(str(timedelta(seconds=round(left))), style="progress.remaining")

    console = Console(stderr=True)
    columns = (TextColumn("estimating"), BarColumn(), MofNCompleteColumn(), Left())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("estimating", total=total)
        yield lambda n: bar.advance(task, n)


@contextmanager
def _downloads() -> Iterator[Callable[[str], Callable[[int, int | None], None]]]:
    """A bar a file with bytes, speed and time left, on the error stream, where somebody watches a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:

        def start(name: str) -> Callable[[int, int | None], None]:
            task = bar.add_task(name, total=None)
            return lambda done, total: bar.update(task, completed=done, total=total)

        yield start


MANY = 8  # worker processes a core, at most
Outputs = Annotated[Path | None, typer.Option(help="Folder for the outputs (default: outputs/ of the project).")]
Draws = Annotated[str, typer.Option(help="Resampling draws: quick or full.")]
StudyFile = Annotated[Path | None, typer.Option("--study", help="Another study file than analysis/study.toml.")]


@app.command()
def reproduce(
    tier: Annotated[str, typer.Argument(help="synthetic, open or secure.")] = "synthetic",
    data: Annotated[Path | None, typer.Option(help="Folder with the tier's files (open, secure).")] = None,
    treated: Annotated[Path | None, typer.Option(help="CSV of the treated LSOAs (open).")] = None,
    outputs: Outputs = None,
    only: Annotated[
        list[str] | None, typer.Option(help="An exhibit or analysis id (patterns allowed); repeatable.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Worker processes.")] = 1,
    scheduler: Annotated[
        str, typer.Option(help="Dask cluster to work on instead: tcp://HOST:8786, or local:N for N processes here.")
    ] = "",
    budget: Annotated[
        str,
        typer.Option(help="Time there is, say 90s or 10m: exhibits in the report's order that fit; lists the rest."),
    ] = "",
    draws: Draws = "quick",
    study: StudyFile = None,
) -> None:
    """From data to report: estimate what is not yet in results.csv, then render every exhibit."""
    from biglocal import run, timings
    from biglocal.study import PATH

    _draws(draws)
    if jobs > MANY * (cores := os.cpu_count() or 1):
        raise BiglocalError(f"--jobs {jobs}: this machine has {cores} cores, and more processes only share them.")
    if budget and only:
        raise BiglocalError("--budget chooses exhibits, --only names them. Give one of the two.")
    try:
        done = run.reproduce(
            tier, data=data, treated=treated, outputs=outputs or run.OUTPUTS, only=only or (), jobs=jobs,
            scheduler=scheduler, budget=timings.seconds(budget) if budget else None, draws=draws,
            study_path=study or PATH, progress=_progress, say=_say,
        )  # fmt: skip
    except KeyboardInterrupt:
        _say("stopped; run the same line again and it goes on where it stopped")
        raise typer.Exit(130) from None
    typer.echo(
        f"{done.estimated} analyses estimated, {done.reused} reused; {done.inapplicable} do not apply to this tier"
    )
    typer.echo(f"{len(done.written)} files written to {_short(done.out)}")
    if only and done.estimated and not done.written:
        typer.echo("no exhibit was named: `--only EXHIBIT` shows what was estimated, or a run of the whole")
    if done.left:
        typer.echo("beyond the budget, and what each adds to those above it:")
        for name, more in done.left.items():
            typer.echo(f"    {name}: {timings.duration(more) if more else 'nothing more'}")
        typer.echo(f"together: {timings.duration(sum(done.left.values()))}")
        given = {
            "data": data, "treated": treated, "outputs": outputs, "study": study, "jobs": jobs if jobs > 1 else None,
            "scheduler": scheduler, "draws": draws if draws != "quick" else None,
        }  # fmt: skip
        words = [f"--{k} {v}" for k, v in given.items() if v] + [f"--only {n}" for n in done.left]
        typer.echo(f"to make them: biglocal reproduce {tier} {' '.join(words)}")
    if (done.out / "report.html").exists() and not only and (not budget or done.out / "report.html" in done.written):
        typer.echo(f"report: {_short(done.out / 'report.html')} and report.pdf")


@app.command()
def verify(
    tier: Annotated[str, typer.Argument(help="synthetic, open or secure.")] = "synthetic",
    outputs: Outputs = None,
    accept: Annotated[bool, typer.Option(help="Make the present results the reference instead.")] = False,
    json: Annotated[Path | None, typer.Option(help="Write the verdicts here too, with every cell.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write them here too, for a reviewer's form.")] = None,
    study: StudyFile = None,
) -> None:
    """Compare the outputs with the committed reference, exhibit by exhibit; exit 1 if one differs.

    In the reference's environment by bytes, elsewhere cell by cell within the tolerance of study.toml.
    """
    from biglocal import provenance, results, run
    from biglocal import verify as verifying
    from biglocal.study import PATH
    from biglocal.study import load as load_study

    plan = load_study(study or PATH)
    out = (outputs or run.OUTPUTS) / tier
    draws = provenance.last(out).get("draws")
    if draws is None:
        raise VerifyError(
            f"no record of a run of the tier {tier} in {_short(out)}. Run `biglocal reproduce {tier}` first."
        )
    expected = run.EXPECTED / f"{tier}-{draws}.csv"
    if accept:
        for path in verifying.accept(out, expected):
            typer.echo(f"reference written: {_short(path)}")
        return
    found = verifying.verify(out, expected, plan)
    for file, said in ((json, verifying.as_json), (markdown, verifying.markdown)):
        if file:
            results.write_text(file, said(found))
    typer.echo(verifying.text(found))
    if not found.ok:
        raise typer.Exit(1)


@app.command()
def data(
    into: Annotated[Path | None, typer.Option(help="Folder for the files (default: data-raw/open).")] = None,
    only: Annotated[list[str] | None, typer.Option(help="A source of data-raw/sources.toml; repeatable.")] = None,
    dry_run: Annotated[bool, typer.Option(help="Say what would be done; no server is asked.")] = False,
    given: Annotated[
        Path | None, typer.Option("--from", help="Folder of files already downloaded: copy them, fetch nothing.")
    ] = None,
) -> None:
    """Fetch the open data that is absent, say how to get the rest. Exit 1 if a file failed or changed upstream."""
    from biglocal.data import fetch, sources
    from biglocal.exhibits import needing
    from biglocal.study import load as load_study

    listed = sources.read()
    folder, states, plan = into or fetch.INTO, [], load_study()
    try:
        with _downloads() as progress:
            chosen = sources.chosen(listed, only or ())
            for report in fetch.fetch(chosen, folder, given=given, dry_run=dry_run, progress=progress):
                states.append(report.state)
                typer.echo(f"{report.source}: {report.state}: {report.said}")
                for step in report.steps:
                    typer.echo(f"    {step}")
                if report.state not in ("present", "fetched", "copied"):
                    need = needing(plan, next(s for s in chosen if s.key == report.source))
                    typer.echo(f"    For exhibits: {'all' if need == plan.exhibits else ', '.join(need) or 'none'}")
    except KeyboardInterrupt:
        _say("stopped; run the same line again and it goes on where it stopped")
        raise typer.Exit(130) from None
    typer.echo(", ".join(f"{states.count(s)} {s}" for s in dict.fromkeys(states)), err=True)
    if {"failed", "changed upstream"} & set(states):
        raise typer.Exit(1)


@app.command()
def plan(
    scale: Annotated[
        int, typer.Option(min=0, help="Say instead what it would take on that many areas: 189000 is output areas.")
    ] = 0,
    permutations: Annotated[int, typer.Option(min=1, help="Of each randomisation test, for --scale.")] = 1_000_000,
    study: StudyFile = None,
) -> None:
    """Print the analyses that study.toml expands to, a line each; or what they would take at another scale."""
    from biglocal import specifications, timings
    from biglocal.study import PATH, expand
    from biglocal.study import load as load_study

    chosen = load_study(study or PATH)
    analyses = expand(chosen)
    if scale:
        if (measured := timings.load()) is None:
            raise BiglocalError(
                "plan --scale: there is no analysis/timings.toml. Make it: `nox -s benchmark -- scale`."
            )
        typer.echo(timings.on_paper(measured, analyses, scale, permutations))
        return
    for analysis in analyses:
        typer.echo(analysis.id)
    typer.echo(f"{len(analyses)} analyses", err=True)
    if chosen.multiverse is not None:
        for outcome in chosen.multiverse.outcomes:
            kept, lost = specifications.expand(chosen, outcome)
            said = f"{len(kept):,} specifications, {sum(lost.values()):,} combinations ruled out"
            typer.echo(f"multiverse/{outcome}: {said}", err=True)


@app.command()
def dictionary(
    machine: Annotated[bool, typer.Option("--json", help="For machines: a Data Package with Table Schemas.")] = False,
) -> None:
    """Print the data dictionary: every table and column that a tier must give."""
    from biglocal.data import tables

    typer.echo(tables.datapackage() if machine else tables.dictionary(), nl=not machine)


LabFolder = Annotated[Path, typer.Option(help="Folder with the lab's files.")]
MappingFile = Annotated[Path | None, typer.Option(help="Another mapping than data-raw/secure_mapping.toml.")]


@app.command()
def check(data: Annotated[Path, typer.Option(help="Folder with the tables of the tier secure.")]) -> None:
    """Hold a lab's tables against the contract: every fault at once, as counts, never a row; exit 1 if there is one."""
    from biglocal.data import secure
    from biglocal.model import DataError

    if not data.is_dir():
        raise DataError(f"--data {data.name}: no such folder. Give the folder that holds the tables.")
    wrong, there = secure.examine(data)
    for line in there:
        typer.echo(line)
    for line in wrong:
        typer.echo(f"FAULT {line}")
    typer.echo(
        f"{len(wrong)} fault{'s' if len(wrong) > 1 else ''}"
        if wrong
        else "no fault: `biglocal reproduce secure` can read these tables"
    )
    if wrong:
        raise typer.Exit(1)


@app.command()
def convert(
    data: LabFolder,
    out: Annotated[Path, typer.Option(help="Folder for the tables of the contract.")],
    mapping: MappingFile = None,
) -> None:
    """From a lab's files to the tables of the contract, by data-raw/secure_mapping.toml: all or nothing is written."""
    from biglocal.data import convert as converting

    for line in converting.convert(data, out, converting.read_mapping(mapping or converting.MAPPING)):
        typer.echo(line)


@app.command()
def dry_run(
    out: Annotated[Path, typer.Option(help="Folder for everything that is made.")],
    mapping: MappingFile = None,
    only: Annotated[list[str] | None, typer.Option(help="As for reproduce; repeatable.")] = None,
) -> None:
    """Rehearse a lab's work on synthetic files in the lab's shape: convert, check, reproduce."""
    from biglocal import run
    from biglocal.data import convert as converting
    from biglocal.data import load as loading
    from biglocal.data import secure
    from biglocal.data.tables import TABLES
    from biglocal.model import DataError
    from biglocal.study import load as load_study

    maps = converting.read_mapping(mapping or converting.MAPPING)
    tier = loading.load("synthetic", seed=load_study().seed)
    _say("writing synthetic files in the lab's shape")
    converting.write_lab(out / "lab", {t: tier.table(t) for t in maps}, maps)
    (out / "tables").mkdir(exist_ok=True)
    for table in TABLES:
        if table not in maps:
            tier.table(table).to_parquet(out / "tables" / f"{table}.parquet", index=False)
    for line in converting.convert(out / "lab", out / "tables", maps):
        typer.echo(line)
    wrong, _ = secure.examine(out / "tables")
    if wrong:
        raise DataError("the converted tables break the contract:\n" + "\n".join(wrong))
    done = run.reproduce(
        "secure", data=out / "tables", outputs=out / "outputs", only=only or (), progress=_progress, say=_say
    )
    typer.echo(f"{done.estimated} analyses estimated from synthetic files in the lab's shape: {_short(done.out)}")


@app.command()
def crime(
    data: Annotated[Path, typer.Option(help="Folder with the open tier's files, police archives among them.")],
    outputs: Outputs = None,
    study: StudyFile = None,
) -> None:
    """Street-level police data as counts and rates of every category by LSOA and year, and what is missing of them."""
    from biglocal import results, run
    from biglocal.data import open as open_tier
    from biglocal.study import PATH
    from biglocal.study import load as load_study

    frame, covered, notes = open_tier.street_level(data, load_study(study or PATH).policy.min_months)
    out = (outputs or run.OUTPUTS) / "open"
    out.mkdir(parents=True, exist_ok=True)
    half = out / "crime.parquet.part"
    frame.to_parquet(half, index=False)
    half.replace(out / "crime.parquet")
    results.write_text(out / "crime_coverage.csv", covered.to_csv(index=False, lineterminator="\n"))
    for note in notes:
        typer.echo(note)
    typer.echo(f"{_short(out / 'crime.parquet')}: {len(frame):,} LSOA-years; {_short(out / 'crime_coverage.csv')}")


@app.command(context_settings={"ignore_unknown_options": True})  # -0.104 is a number
def trace(
    what: Annotated[str, typer.Argument(help="An exhibit, an analysis or row, or a number as printed.")],
    tier: Annotated[str, typer.Argument(help="synthetic, open or secure.")] = "synthetic",
    outputs: Outputs = None,
    study: StudyFile = None,
) -> None:
    """Where a number comes from: row, settings, function and line, seed, data files and their hashes."""
    from biglocal import run
    from biglocal.study import PATH
    from biglocal.study import load as load_study
    from biglocal.trace import trace as told

    typer.echo(told((outputs or run.OUTPUTS) / tier, what, load_study(study or PATH), study or PATH))


@app.command()
def diff(
    first: Annotated[Path, typer.Argument(help="Outputs of one run, say outputs/synthetic.")],
    second: Annotated[Path, typer.Argument(help="Outputs of another.")],
    alpha: Annotated[float, typer.Option(min=0, max=1, help="Level at which significance is judged.")] = 0.05,
) -> None:
    """What moved between two runs, by how many standard errors, and why: data, code, study, lock or seed."""
    from biglocal.diff import diff as told

    typer.echo(told(first, second, alpha))


@app.command()
def audit(
    bundle: Annotated[Path | None, typer.Option(help="A bundle to look into (default: the newest in dist/).")] = None,
    outputs: Outputs = None,
    json: Annotated[Path | None, typer.Option(help="Write everything here too.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write it here too, for a reviewer's form.")] = None,
    all: Annotated[bool, typer.Option("--all", help="Print the rules that are kept, too.")] = False,
) -> None:
    """Ask every rule that data editors, codecheckers and archives judge by; exit 1 if one fails."""
    from biglocal.archive import audit as auditing
    from biglocal.archive.package import Package
    from biglocal.model import DataError
    from biglocal.results import write_text
    from biglocal.study import ROOT

    if bundle and not bundle.exists():
        raise DataError(f"--bundle {bundle.name}: no such file. Make one with `nox -s bundle`.")
    found = auditing.audit(Package(ROOT, outputs, bundle or auditing.newest(ROOT / "dist")))
    for file, said in ((json, auditing.as_json), (markdown, auditing.markdown)):
        if file:
            write_text(file, said(found))
    typer.echo(auditing.text(found, whole=all))
    if not found.ok:
        raise typer.Exit(1)


@app.command()
def metadata(
    check: Annotated[
        bool, typer.Option(help="Write nothing; exit 1 where a file is not what its source makes.")
    ] = False,
) -> None:
    """Write what archives and data editors read, from pyproject.toml, study.toml, the code and the measured times.

    CITATION.cff, codemeta.json, .zenodo.json, datacite.json, codecheck.yml, and the marked parts of README.md and
    data-raw/README.md.
    """
    from biglocal import study
    from biglocal.archive import editors
    from biglocal.results import write_text

    count, stale = editors.stale(study.load(), study.ROOT)
    for name, text in stale.items():
        if not check:
            write_text(study.ROOT / name, text)
        typer.echo(f"{name}: {'stale' if check else 'written'}")
    typer.echo(f"{count - len(stale)} of {count} files were as their source makes them", err=True)
    if check and stale:
        typer.echo("run `biglocal metadata`", err=True)
        raise typer.Exit(1)


@app.command()
def bundle(
    tier: Annotated[str, typer.Argument(help="synthetic, open or secure.")] = "synthetic",
    out: Annotated[Path | None, typer.Option(help="The .zip (default: dist/biglocal-VERSION-TIER.zip).")] = None,
    outputs: Outputs = None,
    wheelhouse: Annotated[
        Path | None, typer.Option(help="Folder made by `nox -s wheelhouse` (default: dist/offline).")
    ] = None,
    no_wheelhouse: Annotated[bool, typer.Option("--no-wheelhouse", help="Leave the wheels out.")] = False,
    flat: Annotated[bool, typer.Option("--flat", help="No bag, no folder: for an archive that unpacks.")] = False,
    secure: Annotated[
        bool, typer.Option("--secure", help="What may leave a laboratory, after control has run again.")
    ] = False,
    allow_dirty: Annotated[
        bool, typer.Option("--allow-dirty", help="With changes that are in no commit, and say so inside.")
    ] = False,
) -> None:
    """One deposit for an archive: source, outputs, data, wheels, ARCHIVE.txt; the same bytes from the same contents."""
    from biglocal import run
    from biglocal.archive import bundle as archive

    done = archive.make(
        archive.where(tier) if out is None else out, tier, outputs=outputs or run.OUTPUTS,
        wheelhouse=None if no_wheelhouse else wheelhouse or archive.WHEELS, flat=flat, secure=secure,
        allow_dirty=allow_dirty, say=_say,
    )  # fmt: skip
    typer.echo(f"{_short(done.path)}: {done.path.stat().st_size / 1e6:.1f} MB, {done.files:,} files")
    typer.echo(f"sha256 {done.sha256}")
    typer.echo(f"of its last list of hashes, the same whatever packs it: {done.contents}")


@app.command()
def check_bundle(
    path: Annotated[Path, typer.Argument(help="The .zip, or the folder it was unpacked to.")],
) -> None:
    """Hold a bundle against its own lists: what was altered, lost, added, renamed; exit 1 if anything was."""
    from biglocal.archive import check as archive

    raise typer.Exit(archive.main([str(path)]))


new = typer.Typer(**PLAIN, help="Write an outcome, subgroup, estimator or exhibit where it belongs.")
app.add_typer(new, name="new")
NewName = Annotated[str, typer.Argument(help="Small letters, digits and _.")]
Label = Annotated[str, typer.Option(help="What the report calls it (default: from the name).")]
Parts = Annotated[list[str] | None, typer.Option("--part", help="Part of [[analyses]] to name it in; repeatable.")]


@new.command("outcome")
def new_outcome(
    name: NewName,
    better: Annotated[str, typer.Option(help="higher, lower or neither.")],
    family: Annotated[str, typer.Option(help="Outcomes whose p-values are adjusted for each other.")],
    table: Annotated[
        str, typer.Option(help="area_panel, survey or residents (default: the one with the column).")
    ] = "",
    column: Annotated[str, typer.Option(help="Column of that table (default: the name).")] = "",
    label: Label = "",
    unit: Annotated[str, typer.Option(help="Unit (default: the column's).")] = "",
    first_year: Annotated[int | None, typer.Option(help="Default: as other outcomes of the table.")] = None,
    last_year: Annotated[int | None, typer.Option(help="Default: as other outcomes of the table.")] = None,
    at_least: Annotated[
        float | None, typer.Option(help="From this value on it counts: the outcome is a share.")
    ] = None,
    scale: Annotated[float | None, typer.Option(help="100 makes a share percentage points.")] = None,
    part: Parts = None,
    study: StudyFile = None,
) -> None:
    """Add an outcome to study.toml.

    Its name goes to a block of [[analyses]]: part effects, or of members change. `biglocal dictionary` lists columns.
    """
    from biglocal import new as writing
    from biglocal.study import PATH

    _written(
        writing.outcome(
            name, better=better, family=family, table=table, column=column, label=label, unit=unit,
            first_year=first_year, last_year=last_year, at_least=at_least, scale=scale, parts=part or (),
            path=study or PATH,
        )
    )  # fmt: skip


@new.command("subgroup")
def new_subgroup(
    name: NewName,
    of: Annotated[str, typer.Option(help="Whose property: area, lsoa, person or member.")],
    column: Annotated[str, typer.Option(help="Column of its table (default: the name).")] = "",
    label: Label = "",
    level: Annotated[
        list[str] | None, typer.Option(help="NAME, or NAME=VALUE,VALUE; repeatable (default: the column's values).")
    ] = None,
    cut: Annotated[list[float] | None, typer.Option(help="Highest number of a level but the last; repeatable.")] = None,
    quantile: Annotated[list[float] | None, typer.Option(help="The same as a quantile among the treated.")] = None,
    part: Parts = None,
    study: StudyFile = None,
) -> None:
    """Add a subgroup to study.toml.

    Its name goes to a block of [[analyses]]: part subgroups, or of members change. `biglocal dictionary` lists columns.
    """
    from biglocal import new as writing
    from biglocal.study import PATH

    _written(
        writing.subgroup(
            name, of=of, column=column, label=label, levels=level or (), cuts=cut or (), quantiles=quantile or (),
            parts=part or (), path=study or PATH,
        )
    )  # fmt: skip


@new.command("estimator")
def new_estimator(name: NewName, label: Label = "", part: Parts = None, study: StudyFile = None) -> None:
    """Write an estimator that works as it stands.

    analysis/biglocal/estimators/NAME.py, for you to put your method in; label and name go to study.toml.
    """
    from biglocal import new as writing
    from biglocal.study import PATH

    _written(writing.estimator(name, label=label, parts=part or ("estimators",), path=study or PATH))


@new.command("exhibit")
def new_exhibit(
    name: NewName,
    title: Annotated[str, typer.Option(help="Caption.")],
    part: Annotated[str, typer.Option(help="Part of the analyses it shows.")] = "effects",
    outcome: Annotated[list[str] | None, typer.Option(help="Outcome it shows; repeatable (default: all).")] = None,
    study: StudyFile = None,
) -> None:
    """Write a table of estimates.

    manuscript/exhibits/NAME.md.j2; its name goes to `exhibits` of study.toml.
    """
    from biglocal import new as writing
    from biglocal.study import PATH

    _written(writing.exhibit(name, title=title, part=part, outcomes=outcome or (), path=study or PATH))


def _written(said: Sequence[str]) -> None:
    for line in said:
        typer.echo(line)
    typer.echo(
        "next: look at what was written, then `biglocal reproduce`; README's lists: `biglocal metadata`", err=True
    )


def _draws(value: str) -> None:
    if value not in ("quick", "full"):
        raise BiglocalError(f"--draws {value}: there are quick and full.")


def _short(path: Path) -> str:
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


CONFIDENTIAL = {"secure", "check", "convert"}  # words of commands that read persons' rows


def main() -> None:
    """Run the command line: a user's mistake is one message and exit 2, a failed verification exit 1."""
    try:
        app()
    except VerifyError as e:
        sys.stderr.write(f"biglocal: {e}\n")
        sys.exit(1)
    except BiglocalError as e:
        sys.stderr.write(f"biglocal: {e}\n")
        sys.exit(2)
    except OSError as e:
        where = e.filename or "the disk"
        sys.stderr.write(f"biglocal: {where}: {e.strerror or e}. Make room there, or choose another --outputs.\n")
        sys.exit(2)
    except Exception as e:
        if not CONFIDENTIAL & set(sys.argv):
            raise
        last = traceback.extract_tb(e.__traceback__)[-1]
        ours = [f for f in traceback.extract_tb(e.__traceback__) if "biglocal" in Path(f.filename).parts]
        at = ours[-1] if ours else last
        sys.stderr.write(
            f"biglocal: {type(e).__name__} at {Path(at.filename).name}:{at.lineno}. This is a fault of the program; "
            f"its message is withheld, since it may hold a value of a confidential row. `biglocal check` may find the "
            f"cause.\n"
        )
        sys.exit(2)


if __name__ == "__main__":
    main()
