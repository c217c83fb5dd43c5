"""The rules of the data editors' README, of DCAS and of CODECHECK, as rules.py lists them."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import PurePosixPath
from typing import Any

from biglocal import exhibits, timings
from biglocal.archive.package import (
    CHECKS,
    GENERATORS,
    REPRODUCE,
    SESSION,
    Answer,
    Package,
    aside,
    ending,
    held,
    judged,
    parsed,
    rule,
    unseen,
)
from biglocal.archive.rules import RULES
from biglocal.data import sources
from biglocal.data.tables import TABLES, datapackage
from biglocal.study import ROOT, expand, file_of

# --- the README, after the template of the Social Science Data Editors ------------------------------------------

SECTIONS = tuple(rule for rule in RULES.values() if rule.standard == "SSDE")


def _section(id: str) -> Callable[[Package], Answer]:
    """The README has this heading, after those before it in the template, and says something below it."""

    def judge(p: Package) -> Answer:
        rule = RULES[id]
        if "README.md" not in p.files:
            return Answer("fail", ("there is no README.md",))
        headings = list(p.readme)
        wanted = rule.heading.casefold()
        if wanted not in headings:
            return Answer("fail", (f"README.md has no heading '{rule.heading}'",), f"Add the section '{rule.heading}'.")
        body = p.readme[wanted]
        before = [s.heading for s in SECTIONS[: SECTIONS.index(rule)] if s.heading.casefold() in headings]
        late = [h for h in before if headings.index(h.casefold()) > headings.index(wanted)]
        faults = [f"'{rule.heading}' stands before '{h}', which the template has first" for h in late]
        if not re.search(r"\w", body):
            faults.append(f"'{rule.heading}' says nothing")
        faults += [
            f"'{rule.heading}' is not filled in: {m[0]}" for m in re.finditer(r"\b(TODO|FIXME|XXXX+|TBD)\b", body)
        ]
        faults += MORE[id](p, body) if id in MORE else []
        return judged(faults, f"{len(body.split())} words", f"Mend the section '{rule.heading}' of README.md.")

    return judge


def _randomness(p: Package, body: str) -> list[str]:
    calls = {name for name, _, call, _ in p.draws if call.rsplit(".", 1)[-1] in GENERATORS}
    return [f"'Controlled Randomness' does not name {n}, where random numbers begin" for n in calls if n not in body]


def _measured(p: Package, body: str) -> list[str]:
    measured = timings.load(p.root / timings.PATH.relative_to(ROOT))
    faults = [] if measured else ["no measured times: analysis/timings.toml is not there"]
    if not re.search(r"\d+(\.\d+)? ?(s|seconds|minutes|min|hours)\b", body):
        faults.append("no time with its unit")
    return faults if re.search(r"\d ?(MB|GB|GiB|MiB)\b", body) else [*faults, "no memory or storage with its unit"]


def _listed(p: Package, body: str) -> list[str]:
    return [f"exhibit {e} is not in the list" for e in p.study.exhibits if e not in body]


def _each_source(p: Package, body: str) -> list[str]:
    text = body + p.texts.get("data-raw/README.md", "")
    return [f"source {s.key} is not in the list" for s in p.sources if f"`{s.key}`" not in text and s.name not in text]


def _cited(p: Package, body: str) -> list[str]:
    text = body + p.texts.get("data-raw/README.md", "")
    faults = [f"source {s.key} has no citation there" for s in p.sources if s.citation and s.citation not in text]
    study = p.metadata.about.study
    return faults if study.doi.casefold() in body.casefold() else [*faults, f"the study, doi {study.doi}, is not cited"]


MORE = {
    "SSDE-2.4": _each_source,
    "SSDE-3": _each_source,
    "SSDE-4.2": _randomness,
    "SSDE-4.3": _measured,
    "SSDE-7": _listed,
    "SSDE-8": _cited,
}
for _s in SECTIONS:
    rule(_s.id)(_section(_s.id))


# --- the Data and Code Availability Standard --------------------------------------------------------------------


@rule("DCAS-1")
def _statement(p: Package) -> Answer:
    faults = [f"data-raw/sources.toml: {key}: no {what}" for key, what in unsaid(p.sources)]
    said = p.texts.get("data-raw/README.md", "")
    if said and sources.insert(said, p.sources) != said:
        faults.append("data-raw/README.md is not what sources.toml makes")
    return judged(
        faults,
        f"{len(p.sources)} sources, each with licence, rights, cost, waiting time and steps",
        "Complete the entries of data-raw/sources.toml, then `biglocal data --statement`.",
    )


ASKED = {
    "publisher": "publisher", "licence": "licence", "rights": "terms of use", "cost": "cost", "waiting": "waiting time",
    "vintage": "vintage", "columns": "description of its columns",
}  # fmt: skip


def unsaid(listed: Iterable[sources.Source]) -> list[tuple[str, str]]:
    """What DCAS asks of each source, and the list does not say: (source, what)."""
    gaps = [(s.key, words) for s in listed for name, words in ASKED.items() if not getattr(s, name)]
    return gaps + [(s.key, "way to get it: neither files nor steps") for s in listed if not s.files and not s.steps]


def vague(listed: Iterable[sources.Source]) -> list[tuple[str, str]]:
    """What the list says to be unknown or open yet, which on the ACRE guide's scale is not said: (source, what)."""
    return [
        (s.key, words)
        for s in listed
        for name, words in ASKED.items()
        if str(getattr(s, name)).startswith(("not known", "to be agreed"))
    ]


@rule("DCAS-2")
def _raw(p: Package) -> Answer:
    closed = [s for s in p.sources if s.tier == "secure"]
    fetched = [s for s in p.sources if s.files]
    faults = [f"{s.key} is not open, and nothing says how to get it" for s in closed if not s.steps]
    evidence = (
        f"none is in the package; of {len(p.sources)} sources {len(fetched)} are fetched by `nox -s data`, "
        f"{len(p.sources) - len(fetched)} explained ({len(closed)} of them not open)"
    )
    return judged(faults, evidence)


@rule("DCAS-3")
def _analysis_data(p: Package) -> Answer:
    if not p.record:
        return unseen("no run in outputs/: whether the package gives analysis data is seen from one", REPRODUCE)
    faults = [f"table {t} of the contract was not made" for t in TABLES if t not in p.record["data"]]
    return judged(
        faults, f"{len(TABLES)} tables, made from seed {p.study.seed}; real ones by `reproduce open` or in a lab"
    )


OPEN_FORMATS = {"csv", "tsv", "json", "toml", "parquet", "txt", "md", "gz", "zip", "svg", "pdf", "png"}
CLOSED_FORMATS = {"dta", "sav", "sas7bdat", "xls", "xlsx", "mat", "rds", "rdata", "wf1", "pkl", "pickle"}


@rule("DCAS-4")
def _formats(p: Package) -> Answer:
    ends = Counter(PurePosixPath(n).suffix.lstrip(".").lower() for n in p.contents)
    faults = [f"{n}: a format that takes one program to read" for n in p.contents if ending(n) in CLOSED_FORMATS]
    data = {e: n for e, n in sorted(ends.items()) if e in OPEN_FORMATS}
    return judged(faults, ", ".join(f"{n} .{e}" for e, n in data.items()), "Give it as .csv or .parquet.")


@rule("DCAS-5")
def _variables(p: Package) -> Answer:
    fields = [(r["name"], f) for r in json.loads(datapackage())["resources"] for f in r["schema"]["fields"]]
    faults = [f"{table}.{f['name']}: no {k}" for table, f in fields for k in ("description", "type") if not f.get(k)]
    if p.outputs and "dictionary.md" not in p.outputs:
        faults.append("the run wrote no dictionary.md")
    return judged(faults, f"{len(fields)} columns with type and description: dictionary.md, datapackage.json")


@rule("DCAS-6")
def _citations(p: Package) -> Answer:
    unpublished = [s.key for s in p.sources if not s.citation and s.publisher.startswith("not public")]
    faults = [f"data-raw/sources.toml: {s.key}: no citation" for s in p.sources if not s.citation]
    faults = [f for f in faults if not any(f" {key}:" in f for key in unpublished)]
    evidence = f"{len(p.sources) - len(unpublished)} sources, each with its citation"
    if unpublished:
        evidence += f"; {', '.join(unpublished)} was never published, so nothing can be cited"
    return judged(faults, evidence, "Add `citation` to the source.")


@rule("DCAS-7")
def _transformation(p: Package) -> Answer:
    code = "analysis/biglocal/data"
    makers = {s.tier: f"{code}/{s.tier}.py" for s in p.sources} | {"synthetic": f"{code}/synthetic.py"}
    faults = [
        f"{file} is not there: no program makes the tables of the tier {t}"
        for t, file in makers.items()
        if file not in p.files
    ]
    faults += [f"source {s.key} names table {t}, which is none" for s in p.sources for t in s.tables if t not in TABLES]
    return judged(faults, f"{', '.join(sorted(makers.values()))}: from raw files, or a seed, to {len(TABLES)} tables")


@rule("DCAS-8")
def _analysis(p: Package) -> Answer:
    lacking = programs(p)
    faults = [f"{e}: {why}" for e, why in lacking.items() if why]
    return judged(faults, f"{len(lacking)} exhibits, each with its template and the programs of its rows")


def programs(p: Package) -> dict[str, str]:
    """Exhibit -> what program it lacks, '' for none."""
    by_part: dict[str, set[str]] = {}
    for a in expand(p.study):
        own = [f"estimators/{file_of(p.study, a.estimator)}.py"] if a.estimator and a.part != "cost_benefit" else []
        if a.comparison in p.study.comparisons:
            own.append(f"matching/{p.study.comparisons[a.comparison].method}.py")
        by_part.setdefault(a.part, set()).update(own)
    found = {}
    for name in p.study.exhibits:
        if f"manuscript/exhibits/{name}.md.j2" not in p.files:
            found[name] = f"no template manuscript/exhibits/{name}.md.j2"
            continue
        needs = sorted({f for part in exhibits.parts(name, p.manuscript) for f in by_part.get(part, ())})
        lost = [f for f in needs if f"analysis/biglocal/{f}" not in p.files]
        found[name] = f"no program {', '.join(lost)}" if lost else ""
    return found


@rule("DCAS-9")
def _source_code(p: Package) -> Answer:
    programs = {n: text for n, text in p.texts.items() if n.endswith(".py")}
    faults = [f"{n}: not Python" for n, text in programs.items() if parsed(text) is None]
    built = [n for n in p.files if ending(n) in ("pyc", "so", "dll", "exe", "o", "class")]
    return judged(
        [*faults, *(f"{n}: compiled" for n in built)], f"{len(programs)} files of Python source, no compiled one"
    )


@rule("DCAS-10")
def _instruments(_: Package) -> Answer:
    return aside("the authors of this package collected no data; the questionnaires are those of the study replicated")


@rule("DCAS-11")
def _ethics(_: Package) -> Answer:
    return aside(
        "no data on persons are in the package, made persons apart; who runs the tier secure needs the approval that "
        "the data's owner asks for"
    )


@rule("DCAS-12")
def _registration(p: Package) -> Answer:
    named = re.search(
        r"osf\.io/\w+|registr\w+ (?:number|id|doi)|\bRIDIE\b|AEARCTR-\d+|ISRCTN\d+", p.texts.get("README.md", "")
    )
    if named:
        return held(f"README.md names {named[0]}")
    return unseen("no registration is named; whether there is one cannot be seen from files: the authors know")


@rule("DCAS-13")
def _documentation(p: Package) -> Answer:
    lacks = [s.id for s in SECTIONS if s.severity == "error" and _section(s.id)(p).verdict == "fail"]
    faults = [f"README.md does not do what {', '.join(lacks)} ask{'s' if len(lacks) == 1 else ''}"] if lacks else []
    return judged(faults, "README.md has every section that the template must have, in its order")


@rule("DCAS-14")
def _location(p: Package) -> Answer:
    if p.metadata.about.doi:
        return unseen(f"doi {p.metadata.about.doi} is named; whether the archive holds it takes a network")
    return unseen(
        "no DOI is named: the package is not yet in an archive",
        "Deposit the file that `nox -s bundle` makes, and set `doi` in [tool.biglocal] of pyproject.toml.",
    )


@rule("DCAS-15")
def _licences(p: Package) -> Answer:
    lacks = [i for i in ("licence-code", "licence-data") if CHECKS[i].answer(p).verdict == "fail"]
    return judged([f"see {i}" for i in lacks], f"code {p.metadata.licence}, which lets strangers use and change it")


@rule("DCAS-16")
def _omissions(p: Package) -> Answer:
    text = p.texts.get("README.md", "") + p.texts.get("data-raw/README.md", "")
    away = [s for s in p.sources if f"data-raw/{s.key}" not in p.files]
    faults = [
        f"source {s.key} is not in the package, and no README names it"
        for s in away
        if f"`{s.key}`" not in text and s.name not in text
    ]
    return judged(faults, f"{len(away)} sources are left out, each named with how to get it")


# --- CODECHECK: what applies before a check ---------------------------------------------------------------------

CONFIG = "codecheck.yml"


def _config(p: Package) -> dict[str, Any] | Answer:
    """codecheck.yml as read, or why it cannot be."""
    if CONFIG not in p.texts:
        return unseen(f"no {CONFIG} (CC-CFG-003)")
    try:
        import yaml
    except ImportError:
        return unseen(f"no reader of YAML is installed here; {SESSION}")
    try:
        said = yaml.safe_load(p.texts[CONFIG])
    except yaml.YAMLError:
        return unseen(f"{CONFIG} is not YAML (CC-CFG-001)")
    return said if isinstance(said, dict) else unseen(f"{CONFIG} is not a list of settings (CC-CFG-001)")


def _of_config(judge: Callable[[Package, dict[str, Any]], list[str]]) -> Callable[[Package], Answer]:
    """A rule on what codecheck.yml says: its faults."""

    def ask(p: Package) -> Answer:
        said = _config(p)
        if isinstance(said, Answer):
            return said
        return judged(judge(p, said), CONFIG, "Mend the source of codecheck.yml and run `biglocal metadata`.")

    return ask


@rule("CC-CFG-001")
def _yaml(p: Package) -> Answer:
    if CONFIG not in p.texts:
        return unseen(f"no {CONFIG} (CC-CFG-003)")
    try:
        import yaml
    except ImportError:
        return unseen(f"no reader of YAML is installed here; {SESSION}")
    try:
        said = yaml.safe_load(p.texts[CONFIG])
    except yaml.YAMLError as e:
        return Answer("fail", (f"{CONFIG}: {' '.join(str(e).split())}",))
    return held(f"{len(said)} settings") if isinstance(said, dict) else Answer("fail", ("it holds no settings",))


@rule("CC-CFG-002")
def _document(p: Package) -> Answer:
    if CONFIG not in p.texts:
        return unseen(f"no {CONFIG} (CC-CFG-003)")
    lines = [line for line in p.texts[CONFIG].splitlines() if line.strip() and not line.startswith(("#", "%"))]
    return judged([] if lines[:1] == ["---"] else ["it does not begin with ---"], "it begins with ---")


@rule("CC-CFG-003")
def _config_there(p: Package) -> Answer:
    return judged([] if CONFIG in p.files else [f"there is no {CONFIG}"], CONFIG, "Run `biglocal metadata`.")


def _manifest(said: dict[str, Any]) -> list[dict[str, Any]]:
    listed = said.get("manifest") or []
    return [m if isinstance(m, dict) else {} for m in listed] if isinstance(listed, list) else []


def _authors(said: dict[str, Any]) -> list[dict[str, Any]]:
    paper = said.get("paper")
    found = paper.get("authors") if isinstance(paper, dict) else None
    return [a if isinstance(a, dict) else {} for a in found] if isinstance(found, list) else []


def _paper(said: dict[str, Any], what: str) -> str:
    paper = said.get("paper")
    return str(paper.get(what) or "") if isinstance(paper, dict) else ""


CONFIG_RULES: dict[str, Callable[[Package, dict[str, Any]], list[str]]] = {
    "CC-CFG-004": lambda _, c: [] if _manifest(c) else ["it has no manifest"],
    "CC-CFG-005": lambda _, c: [f"entry {i}: no file" for i, m in enumerate(_manifest(c), 1) if not m.get("file")],
    "CC-CFG-006": lambda _, c: [
        f"{m['file']}: not from the folder of {CONFIG}"
        for m in _manifest(c)
        if re.match(r"/|~|[A-Za-z]:|\.\./|[a-z]+://", str(m.get("file", "")))
    ],
    "CC-CFG-007": lambda _, c: [f"{m.get('file')}: no comment" for m in _manifest(c) if not m.get("comment")],
    "CC-CFG-014": lambda _, c: [] if c.get("version") else ["it names no version of the specification"],
    "CC-CFG-015": lambda _, c: (
        []
        if re.search(r"/config/(1\.0|2\.0|latest)/?$", str(c.get("version", "")))
        else [f"version {c.get('version')}"]
    ),
    "CC-CFG-016": lambda _, c: [] if isinstance(c.get("paper"), dict) else ["it names no paper"],
    "CC-CFG-017": lambda _, c: [] if _paper(c, "title") else ["the paper has no title"],
    "CC-CFG-018": lambda _, c: [] if _authors(c) else ["the paper has no author"],
    "CC-CFG-019": lambda _, c: [f"author {i}: no name" for i, a in enumerate(_authors(c), 1) if not a.get("name")],
    "CC-CFG-020": lambda _, c: [f"{a.get('name')}: no ORCID" for a in _authors(c) if not a.get("ORCID")],
    "CC-CFG-021": lambda _, c: [] if _paper(c, "reference") else ["nothing says where the paper is"],
    "CC-CFG-022": lambda _, c: ["the reference is a PDF"] if _paper(c, "reference").lower().endswith(".pdf") else [],
    "CC-CFG-023": lambda p, _: [m[0] for m in re.finditer(r"\b(FIXME|TODO|XXXX+)\b", p.texts[CONFIG])],
    "CC-CFG-027": lambda _, c: (
        [] if re.match(r"https?://", _paper(c, "reference")) else ["the reference is no address"]
    ),
    "CC-CFG-028": lambda _, c: [] if "doi.org/10." in _paper(c, "reference") else ["the reference is no DOI"],
}
for _id, _faults in CONFIG_RULES.items():
    rule(_id)(_of_config(_faults))


@rule("CC-MET-001")
def _orcids(p: Package) -> Answer:
    names = [n for n in (CONFIG, "CITATION.cff", "codemeta.json", ".zenodo.json", "datacite.json") if n in p.texts]
    found = {(n, m[0]) for n in names for m in re.finditer(r"\b\d{4}-\d{4}-\d{4}-\d{3}[\dX]\b", p.texts[n])}
    faults = [f"{n}: {orcid}: its check digit is wrong" for n, orcid in sorted(found) if not _checked(orcid)]
    return judged(faults, f"{len(found)} ORCIDs") if found else aside("no ORCID is given")


def _checked(orcid: str) -> bool:
    """By ISO/IEC 7064, MOD 11-2."""
    total = 0
    for digit in orcid.replace("-", "")[:15]:
        total = (total + int(digit)) * 2
    return "0123456789X"[(12 - total % 11) % 11] == orcid[-1]


@rule("CC-BUN-001")
def _listed_files(p: Package) -> Answer:
    said = _config(p)
    if isinstance(said, Answer):
        return said
    if not p.record:
        return unseen("no run in outputs/, so no output is there", REPRODUCE)
    lost = [m["file"] for m in _manifest(said) if m.get("file") and m["file"] not in p.contents]
    return judged([f"{f}: not there" for f in lost], f"{len(_manifest(said))} files", REPRODUCE)


@rule("CC-BUN-005")
def _licence_there(p: Package) -> Answer:
    there = [n for n in p.files if re.fullmatch(r"(LICEN[CS]E|COPYING)(\.\w+)?", n)]
    return judged([] if there else ["no LICENSE at the top"], ", ".join(there))


@rule("CODECHECK-1")
def _no_fixing(_: Package) -> Answer:
    return aside("binds the codechecker, not the package")


@rule("CODECHECK-2")
def _talk(_: Package) -> Answer:
    return aside("between people: no file shows it")


@rule("CODECHECK-3")
def _credit(_: Package) -> Answer:
    return aside("comes with the certificate, after a check")


@rule("CODECHECK-4")
def _auditable(p: Package) -> Answer:
    wanted = {"README.md": "no README.md", "noxfile.py": "no file of verbs", "locks/run.txt": "no lock"}
    faults = [why for name, why in wanted.items() if name not in p.files]
    return judged(faults, "one line runs it from a lock; provenance.json and `biglocal trace` lead from number to line")


@rule("CODECHECK-5")
def _open_by_default(p: Package) -> Answer:
    lacks = [i for i in ("DCAS-2", "DCAS-15") if CHECKS[i].answer(p).verdict == "fail"]
    return judged([f"see {i}" for i in lacks], "open code; every source says what is open, and what is not and why")
