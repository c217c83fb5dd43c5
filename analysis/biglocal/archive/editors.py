"""What data editors and codecheckers ask for that only the program knows, written between markers of README.md.

The sections and their order are the Social Science Data Editors' template README 1.1 (rules.py, SSDE-1 and on). Prose
stands in README.md by hand; lists come from the code (lines found by `ast`), the study, the lock, the sources and the
measured times. codecheck.yml is the author's half of CODECHECK's configuration, specification 1.0.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path

from biglocal import provenance
from biglocal.archive import dialects
from biglocal.archive.dialects import DOI, Metadata
from biglocal.archive.rules import STANDARDS
from biglocal.data import sources
from biglocal.exhibits import PUBLISHED, Report, headers
from biglocal.model import Analysis, Run, Study, StudyError
from biglocal.release import NUMBERS
from biglocal.study import HERE, MANUSCRIPT, MONEY, ON_REQUEST, ROOT, expand, file_of, tables
from biglocal.study import sources as upstream
from biglocal.timings import Timings
from biglocal.timings import load as load_timings

CODECHECK = "https://codecheck.org.uk/spec/config/1.0/"
MADE = ("truth", "members_truth", "simulation", "simulated_power", "recovery")  # parts of known effects alone
WRITERS = {  # header's source -> the function of exhibits/tabulate.py that makes the lines
    "run": "_run_lines", "environment": "_environment_lines", "published": "_published_lines",
    "multiverse": "_multiverse_lines",
}  # fmt: skip
VALUES = (*NUMBERS, "interval", "n_control")  # what a column takes from a row, besides naming it
TIMES = (
    (600, "<10 minutes"), (3_600, "10-60 minutes"), (7_200, "1-2 hours"), (28_800, "2-8 hours"),
    (86_400, "8-24 hours"), (259_200, "1-3 days"), (1_209_600, "3-14 days"), (float("inf"), "> 14 days"),
)  # fmt: skip


def files(made: Metadata, study: Study, root: Path = ROOT) -> dict[str, str]:
    """Path from the root of the project -> text, of every file that metadata is written into.

    Raises `DataError` where README.md has lost a marker.
    """
    report = Report((), study, Run("synthetic", "SYNTHETIC", {}, (), {}, {}), MANUSCRIPT, PUBLISHED)
    timings = load_timings()
    blocks = {
        "header": header(made),
        "software": software(made),
        "randomness": randomness(),
        "runtime": runtime(timings),
        "programs": programs(),
        "exhibits": exhibits(study, report, timings),
        "references": references(made),
    }
    listed = sources.README.relative_to(ROOT).as_posix()
    return {
        **dialects.files(made),
        "codecheck.yml": codecheck(made, study, report),
        "README.md": filled(_read(root / "README.md"), blocks),
        listed: sources.insert(_read(root / listed), made.data),
    }


def stale(study: Study, root: Path = ROOT) -> tuple[int, dict[str, str]]:
    """How many files metadata is written into, and of those that are not as their source makes them path -> text."""
    texts = files(dialects.read(study, root), study, root)
    return len(texts), {n: t for n, t in texts.items() if not (root / n).is_file() or _read(root / n) != t}


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def filled(text: str, blocks: dict[str, str]) -> str:
    """`text` with what stands between each block's markers written anew. Raises `DataError` for a lost marker."""
    for name, block in blocks.items():
        begin, end = f"<!-- begin: {name} (written by `biglocal metadata`) -->", f"<!-- end: {name} -->"
        text = sources.between(text, begin, end, block, "README.md")
    return text


# --- the blocks --------------------------------------------------------------------------------------------


def header(made: Metadata) -> str:
    """Title, what it is, version, licence, what it replicates."""
    about, study = made.about, made.about.study
    where = f", doi [{about.doi}]({DOI}{about.doi})" if about.doi else ", not yet deposited: no DOI"
    return (
        f"# {made.name}\n\n"
        f"{made.description}. {about.place}, {made.years[0]} to {made.years[1]}. Version {made.version}, "
        f"{dialects.LICENCES[made.licence]}{where}. Replicates {_cited(made)}, doi [{study.doi}]({DOI}{study.doi}); "
        f"that study was funded by the {study.funder}, award {study.award}.\n"
    )


def _cited(made: Metadata) -> str:
    study = made.about.study
    who = ", ".join(a.inverted for a in study.authors) + (" and others" if study.et_al else "")
    return f"{who} ({study.year}), *{study.title}*, {study.journal} {study.volume}({study.issue})"


def software(made: Metadata) -> str:
    """Each library that the package asks for, at the version of locks/run.txt."""
    locked = provenance.locked()
    lines = [f"| Python | {made.python} |"]
    lines += [f"| {name} | {locked.get(name.lower(), 'not in the lock')} |" for name in made.libraries]
    return "\n".join(["| software | version |", "| --- | --- |", *lines, ""])


def randomness() -> str:
    """Every place of the program that makes a generator of random numbers, with what it is seeded by."""
    study = ROOT / "analysis" / "study.toml"
    at = next(i for i, line in enumerate(study.read_text(encoding="utf-8").splitlines(), 1) if line.startswith("seed"))
    lines = [f"| `analysis/study.toml` | {at} | the seed of the study, the only one to change |"]
    lines += [f"| `{file}` | {line} | `{call}` |" for file, line, call in generators()]
    return "\n".join(["| program | line | seeded by |", "| --- | --- | --- |", *lines, ""])


def generators(root: Path = ROOT) -> Iterator[tuple[str, int, str]]:
    """File, line and call of everything that starts random numbers: numpy's generators, `random_state`."""
    for path in sorted([*(root / "analysis").rglob("*.py"), *(root / "data-raw").glob("*.py")]):
        found = []
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                states = [k for k in node.keywords if k.arg == "random_state"]
                if called.split(".")[-1] in ("default_rng", "RandomState", "SeedSequence", "Random"):
                    found.append((node.lineno, ast.unparse(node).replace("|", "\\|")))
                elif states:
                    found.append((states[0].value.lineno, f"{called}({ast.unparse(states[0])})"))
        for line, call in sorted(found):
            yield path.relative_to(root).as_posix(), line, call


def runtime(timings: Timings | None) -> str:
    """The template's boxes from the measured costs, and the machine."""
    if timings is None:
        return "Not measured: `nox -s benchmark -- exhibits` measures it.\n"
    first = timings.start.seconds + sum(c.seconds for p, c in timings.parts.items() if p not in ON_REQUEST)
    asked = {p: timings.parts[p] for p in ON_REQUEST if p in timings.parts}
    peak = max(c.memory_mb for c in (timings.start, *timings.parts.values(), *timings.exhibits.values()))
    right = next(name for most, name in TIMES if first < most)
    boxes = [f"- [{'x' if name == right else ' '}] {name}" for _, name in TIMES]
    more = ", ".join(f"`{name}` {_seconds(cost.seconds)}" for name, cost in asked.items())
    return "\n".join(
        [
            *boxes,
            "",
            f"Measured on {timings.machine.rstrip('.')}, in one process, of processor time: all analyses of the "
            f"default report {_seconds(first)}; on request {more or 'not measured'}. The highest peak of memory of any "
            f"exhibit or part is {peak:,.0f} MB. What each exhibit takes, made alone from nothing, stands in the "
            f"[list of tables](#list-of-tables-and-programs).",
            "",
        ]
    )


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 60:.0f} min"


def programs() -> str:
    """Each module of the package in a sentence, and each folder in one."""
    lines = []
    for path in sorted(p for p in HERE.iterdir() if p.suffix == ".py" or (p / "__init__.py").is_file()):
        if path.name == "__init__.py":
            continue
        inside = len(list(path.glob("*.py"))) - 1 if path.is_dir() else 0
        said = ast.get_docstring(ast.parse((path / "__init__.py" if inside else path).read_text(encoding="utf-8")))
        name = f"{path.name}/`, {inside} files" if inside else f"{path.name}`"
        lines.append(f"| `{name} | {_sentence(said or '')} |")
    return "\n".join(["| `analysis/biglocal/` | |", "| --- | --- |", *lines, ""])


def _sentence(text: str) -> str:
    first = " ".join(text.split("\n\n")[0].split())
    return first.split(". ")[0].rstrip(".:") + "."


def exhibits(study: Study, report: Report, timings: Timings | None) -> str:
    """The list of tables and figures: number, caption, programs with lines, files, data, and who can make it."""
    plan = expand(study)
    heads = ("exhibit", "caption", "program and line", "files of a run", "tables of data", "open data", "time, memory")
    lines = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    for name in study.exhibits:
        made_of = feeding(report, name, plan)
        numbers = ", ".join(f"{what.capitalize()} {report.places[name, what]}" for what in _kinds(report, name))
        wanted = sorted({t for a in _real(made_of) or made_of for t in _tables(study, a)})
        cost = timings.exhibits.get(name) if timings else None
        spent = f"{_seconds(cost.seconds)}, {cost.memory_mb:,.0f} MB" if cost else "not measured"
        note = f"; on request: `--only {name}`" if on_request(made_of) else ""
        cells = (
            f"{numbers}",
            caption(report, name),
            "<br>".join(_programs(study, report, name, made_of)),
            "<br>".join(f"`{f}`" for f in outputs(report, name)) + note,
            ", ".join(wanted) or "none of its own",
            openly(study, made_of),
            spent,
        )
        lines.append(f"| {' | '.join(c.replace('|', '/') for c in cells)} |")
    return "\n".join([*lines, ""])


def feeding(report: Report, name: str, plan: Iterable[Analysis]) -> tuple[Analysis, ...]:
    """The analyses whose rows an exhibit takes: what its header selects, or published.toml where it shows that."""
    top = report.templates[name].header
    wants: list[dict[str, object]] = []
    if top.source == "rows":
        cells = [{**top.select, **c.where} for c in top.columns if c.where or c.value in VALUES]
        wants = [w for w in (*cells, top.figure_select) if w] or [top.select]
    elif top.source == "published":
        of = [e for e in report.published()["estimate"] if "row" in e]
        about = [{k: e["row"][k] for k in ("outcome", "subgroup") if k in e["row"]} for e in of]
        wants = [*(e["row"] for e in of), *(e["known"] for e in of if "known" in e)]
        wants += [{**what, "part": ["truth", "members_truth"]} for what in about]  # beside each, where it is known
    return tuple(a for a in plan if any(_fits(a, want) for want in wants))


def _fits(analysis: Analysis, wanted: dict[str, object]) -> bool:
    for key, value in wanted.items():
        seen = getattr(analysis, key, None)
        if seen is not None and seen not in (value if isinstance(value, list) else [value]):
            return False
    return True


def on_request(made_of: Sequence[Analysis]) -> bool:
    """Whether a run without `--only` leaves it out."""
    parts = {a.part for a in made_of}
    return bool(parts) and parts <= set(ON_REQUEST)


def openly(study: Study, made_of: Sequence[Analysis]) -> str:
    """Whether open data and a list of the treated LSOAs are enough: yes, in part, or no and why not."""
    from biglocal.data.open import ABSENT

    if made_of and not _real(made_of):
        return "no: known effects"
    lost: dict[str, None] = {}
    can = 0
    for a in _real(made_of):
        group, treatment = study.subgroups.get(a.subgroup), study.treatments.get(a.treatment)
        columns = {group.column if group else "", treatment.rule if treatment else ""}
        gone = sorted(ABSENT.keys() & {*_tables(study, a), *columns})
        can += not gone
        lost |= dict.fromkeys(gone)
    return "yes" if not lost else f"{'in part: not' if can else 'no:'} {', '.join(lost)}"


def _real(made_of: Sequence[Analysis]) -> tuple[Analysis, ...]:
    return tuple(a for a in made_of if a.part not in MADE)


def _tables(study: Study, analysis: Analysis) -> tuple[str, ...]:
    """The tables an analysis is made from, the known truth where it is about that; of rows made of rows, theirs."""
    if analysis.part == MONEY:
        return tuple(sorted({t for a in _real(upstream(study)) for t in _tables(study, a)}))
    known = analysis.part in MADE
    return tuple(t for t in tables(study, analysis) if known or t not in ("truth", "residents_truth"))


def _kinds(report: Report, name: str) -> tuple[str, ...]:
    kind = report.templates[name].header.kind
    return ("table", "figure") if kind == "both" else (kind,)


def caption(report: Report, name: str) -> str:
    """What stands over it, without its number, as a run on made data words it."""
    template = report.templates[name]
    return report.line(template.header.title, template.file)


def outputs(report: Report, name: str) -> tuple[str, ...]:
    """The files that hold its numbers and its drawing, in the folder of a run."""
    kept = {"table": f"tables/{name}.csv", "figure": f"figures/{name}.svg"}
    return tuple(kept[what] for what in _kinds(report, name))


def _programs(study: Study, report: Report, name: str, made_of: Sequence[Analysis]) -> list[str]:
    """The functions that compute it, then the template that picks the rows, each with its line."""
    found: dict[str, None] = {}
    for a in made_of:
        if a.part == MONEY:
            found |= dict.fromkeys([_at("cost_benefit.py", "account"), _at("worth.py", "rows")])
        elif a.part in ON_REQUEST:
            found[_at(f"{a.part}.py", "run")] = None
        else:
            found[_at(f"estimators/{file_of(study, a.estimator)}.py", "estimate")] = None
            if a.inference in _inference():
                found[_at(*_inference()[a.inference])] = None
    source = report.templates[name].header.source
    if source in WRITERS:
        found[_at("exhibits/tabulate.py", WRITERS[source])] = None
    text = (MANUSCRIPT / "exhibits" / f"{name}.md.j2").read_text(encoding="utf-8").splitlines()
    line = next(i for i, said in enumerate(text, 1) if said.startswith(("select", "figure_select", "source")))
    return [*sorted(found), f"`{name}.md.j2:{line}`"]


@cache
def _inference() -> dict[str, tuple[str, str]]:
    """Way of inference -> the file and function behind it, as the table in `inference.infer` names them."""
    tree = ast.parse((HERE / "inference" / "__init__.py").read_text(encoding="utf-8"))
    come = {a.name: n.module or "" for n in tree.body if isinstance(n, ast.ImportFrom) for a in n.names}
    table = next(n for n in ast.walk(tree) if isinstance(n, ast.Dict))
    named = {}
    for way, made in zip(table.keys, table.values, strict=True):
        match way, made:  # "cluster": partial(cluster, …)
            case ast.Constant(value=str(name)), ast.Call(args=[ast.Name(id=function), *_]) if name != "none":
                named[name] = (come[function].removeprefix("biglocal.").replace(".", "/") + ".py", function)
    return named | {"romano_wolf": ("inference/multiplicity.py", "together")}


@cache
def _functions(file: str) -> dict[str, int]:
    tree = ast.parse((HERE / file).read_text(encoding="utf-8"))
    return {n.name: n.lineno for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}


def _at(file: str, function: str) -> str:
    if function not in _functions(file):
        raise StudyError(f"biglocal/{file} has no function {function}. Name it, or mend archive/editors.py.")
    return f"`{file}:{_functions(file)[function]}`"


def references(made: Metadata) -> str:
    """The study, the data, what the report cites, and the standards."""
    facts = headers.toml(MANUSCRIPT / "facts.toml")["sources"]
    cited = {
        "The study": [f"{_cited(made)}. doi {made.about.study.doi}"],
        "Data": list(dict.fromkeys(s.citation for s in made.data if s.citation)),
        "Works the report cites": sorted(facts.values()),
        "Standards": [f"{s.name} {s.version}. {s.source}" for s in STANDARDS.values()],
    }
    lines = []
    for title, of in cited.items():
        lines += [f"{title}:", "", *(f"- {c.rstrip('.')}." for c in of), ""]
    return "\n".join(lines)


# --- codecheck.yml -----------------------------------------------------------------------------------------


def codecheck(made: Metadata, study: Study, report: Report) -> str:
    """The author's half: what a codechecker makes again, and the paper. The codechecker adds the other half.

    An ORCID for each author is a should in specification 1.0 and a must in 2.0; none is made up here.
    """
    plan = expand(study)
    wanted = [("results.csv", "Every number: the only thing the report is made from"), ("report.pdf", "The report")]
    for name in study.exhibits:
        if not on_request(feeding(report, name, plan)):
            numbers = (f"{what.capitalize()} {report.places[name, what]}" for what in _kinds(report, name))
            named = zip(outputs(report, name), numbers, strict=True)
            wanted += [(file, f"{number}. {caption(report, name)}") for file, number in named]
    about = made.about
    authors = [{"name": a.full, "ORCID": a.orcid} if a.orcid else {"name": a.full} for a in about.authors]
    replicated = f"Not yet deposited; it replicates {DOI}{about.study.doi}"
    return "---\n" + dialects.yaml(
        {
            "version": CODECHECK,
            "manifest": [{"file": f"outputs/synthetic/{file}", "comment": comment} for file, comment in wanted],
            "paper": {
                "title": study.title,
                "authors": authors,
                "reference": DOI + about.doi if about.doi else replicated,
            },
            "source": "Data are synthetic, made by the package from a seed: `nox -s reproduce` makes the manifest. "
            "data-raw/README.md says how to bring the real data.",
        }
    )
