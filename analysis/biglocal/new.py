"""What an extension needs, written: an entry of study.toml and its name where it is used, an estimator, an exhibit.

study.toml is changed by inserting text, so that comments and order stay. Whatever is written is checked as a run would
check it, before it takes its place; on refusal everything is as it was.
"""

from __future__ import annotations

import json
import keyword
import re
import tempfile
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from biglocal import study
from biglocal.data.tables import COVARIATES, FIRST_YEAR, LAST_YEAR, TABLES, Column
from biglocal.exhibits.headers import Header
from biglocal.model import Analysis, Grid, Run, Study, StudyError
from biglocal.results import write_text
from biglocal.study import MANUSCRIPT, PATH, TABLE_OF, choices, modules

OUTCOMES = ("area_panel", "survey", "residents")  # tables that outcomes come from
NUMBERS = ("number", "integer", "flag")
# part -> its estimate's term, what the table's note says of it, and what it is an estimate of
EFFECT = ("att", "treated less comparison, after less before; interval cluster-robust", "effect")
PARTS = {
    **dict.fromkeys(("effects", "subgroups", "rivals", "estimators", "robustness", "equity"), EFFECT),
    "years": ("event_time", "difference from the comparison, less that in the year before the start", "effect"),
    "change": ("change", "change since the first wave; of a model for two values, of the log odds", "change"),
    "association": ("association", "difference for one unit of what members say, by its coding", "association"),
}
COLUMNS: dict[str, dict[str, object]] = {  # what tells the lines of a table apart, as columns
    "outcome": {"head": "Outcome", "value": "outcome_unit", "width": 2},
    "exposure": {"head": "What members say", "value": "exposure", "width": 2},
    "subgroup": {"head": "Subgroup", "value": "subgroup", "width": 2},
    "level": {"head": "Group", "value": "level", "width": 2},
    "comparison": {"head": "Comparison", "value": "comparison", "width": 2},
    "respondents": {"head": "Answers", "value": "respondents", "width": 2},
    "treatment": {"head": "Treatment starts", "value": "treatment", "width": 2},
    "estimator": {"head": "Estimator", "value": "estimator", "width": 2},
    "period": {"head": "Period", "value": "period", "format": "text"},
}


def outcome(
    name: str,
    *,
    better: str,
    family: str,
    table: str = "",
    column: str = "",
    label: str = "",
    unit: str = "",
    first_year: int | None = None,
    last_year: int | None = None,
    at_least: float | None = None,
    scale: float | None = None,
    parts: Sequence[str] = (),
    path: Path = PATH,
    manuscript: Path = MANUSCRIPT,
) -> tuple[str, ...]:
    """Add an outcome to study.toml and name it in a block of each of `parts`; give back what was written, a line each.

    `column` is by default `name`; `table` the one table that has it; `unit` and missing codes those of the contract;
    the years those of the study's outcomes of that table; `parts` effects, of members change. Raises `StudyError`.
    """
    edit = Edit.of(path, manuscript)
    taken = {**edit.study.outcomes, **COVARIATES, **dict.fromkeys(study.baseline(edit.study))}
    _name(name, taken, "outcome or covariate")
    column = column or name
    having = [t for t in OUTCOMES if column in TABLES[t].columns and TABLES[t].columns[column].kind in NUMBERS]
    if table and table not in OUTCOMES:
        raise StudyError(f"--table {table}: outcomes come from another table. {choices(table, OUTCOMES)}")
    if not table and len(having) != 1:
        known = [f"{c} ({t})" for t in OUTCOMES for c, k in TABLES[t].columns.items() if k.kind in NUMBERS]
        what = f"stands in {' and '.join(having)}: name one with --table" if having else "no column of numbers"
        raise StudyError(f"--column {column}: {what}. {'' if having else choices(column, known)}".rstrip())
    table = table or having[0]
    found = _column(table, column, NUMBERS, "--column")
    same = [o for o in edit.study.outcomes.values() if o.table == table]
    first_year = first_year or min((o.first_year for o in same), default=FIRST_YEAR)
    last_year = last_year or max((o.last_year for o in same), default=LAST_YEAR)
    edit.entry(
        "outcomes", name,
        {
            "label": label or _words(name), "table": table, "column": column, "at_least": at_least, "scale": scale,
            "unit": unit or found.unit or "share", "better": better, "family": family,
            "first_year": first_year, "last_year": last_year, "codes_missing": list(found.codes) or None,
        },
    )  # fmt: skip
    alike = {o.name for o in same if (o.at_least is None) == (at_least is None)}
    for part in dict.fromkeys(parts or (("change",) if table == "residents" else ("effects",))):

        def fits(block: Grid) -> int:
            own = [edit.study.outcomes[o].table == table for o in block.outcomes]
            return 4 * (any(own) and all(own)) + 2 * any(own) + (any(own) and bool(alike & set(block.outcomes)))

        edit.name("outcomes", name, part, fits, f"with an outcome of the table {table}")
    return edit.write()


def subgroup(
    name: str,
    *,
    of: str,
    column: str = "",
    label: str = "",
    levels: Sequence[str] = (),
    cuts: Sequence[float] = (),
    quantiles: Sequence[float] = (),
    parts: Sequence[str] = (),
    path: Path = PATH,
    manuscript: Path = MANUSCRIPT,
) -> tuple[str, ...]:
    """Add a subgroup to study.toml and name it in a block of each of `parts`; give back what was written.

    `levels`: a name each, or `name=value,value`; by default the values that the contract allows. `cuts` or `quantiles`
    make levels of a number, as `model.Subgroup` says. `parts`: subgroups, of members change. Raises `StudyError`.
    """
    edit = Edit.of(path, manuscript)
    _name(name, {**edit.study.subgroups, "all": None}, "subgroup")
    if of not in TABLE_OF:
        raise StudyError(f"--of {of}: a subgroup is a property of something else. {choices(of, TABLE_OF)}")
    table, column = TABLE_OF[of], column or name
    found = _column(table, column, ("category", "text", "flag", "integer", "number"), "--column")
    named, values = [], {}
    for level in levels:
        title, is_, those = level.partition("=")
        named.append(title.strip())
        if is_:
            values[title.strip()] = [_value(v.strip(), found, column) for v in those.split(",")]
    if not named and not (cuts or quantiles):
        named = list(found.allowed)
    if not named:
        what = f"{len(cuts or quantiles) + 1} levels" if cuts or quantiles else "levels"
        how = "NAME" if cuts or quantiles else "NAME=VALUE"
        more = ", or NAME with --cut or --quantile" if found.kind in NUMBERS[:2] and how != "NAME" else ""
        raise StudyError(
            f"--level: column {column} of table {table} needs {what} with names. Give --level {how}{more}."
        )
    edit.entry(
        "subgroups", name,
        {
            "label": label or _words(name), "of": of, "column": column, "levels": named, "values": values or None,
            "cuts": list(cuts) or None, "cuts_quantile": list(quantiles) or None,
        },
    )  # fmt: skip
    whose = ("area", "lsoa") if of in ("area", "lsoa") else (of,)
    for part in dict.fromkeys(parts or (("change",) if of == "member" else ("subgroups",))):

        def fits(block: Grid) -> int:
            others = [edit.study.subgroups[s].of for s in block.subgroups if s != "all"]
            return sum(o in whose for o in others)

        edit.name("subgroups", name, part, fits, f"with subgroups of {' or '.join(whose)}")
    return edit.write()


def estimator(
    name: str,
    *,
    label: str = "",
    parts: Sequence[str] = ("estimators",),
    path: Path = PATH,
    manuscript: Path = MANUSCRIPT,
) -> tuple[str, ...]:
    """Write estimators/NAME.py, which works as it stands, label it in study.toml and name it in a block of each part.

    Give back what was written. Raises `StudyError`.
    """
    edit = Edit.of(path, manuscript)
    file = study.HERE / "estimators" / f"{name}.py"
    _name(name, {**dict.fromkeys(modules("estimators")), **edit.study.estimators}, "estimator", file)
    if keyword.iskeyword(name):
        raise StudyError(f"{name}: a word of Python's own. Take another name.")
    edit.entry("estimators", name, {"label": label or _words(name)})
    for part in dict.fromkeys(parts):
        edit.name("estimators", name, part, lambda block: bool(block.comparisons), "with comparisons")
    edit.files[file] = ESTIMATOR
    return edit.write()


def exhibit(
    name: str,
    *,
    title: str,
    part: str = "effects",
    outcomes: Sequence[str] = (),
    path: Path = PATH,
    manuscript: Path = MANUSCRIPT,
) -> tuple[str, ...]:
    """Write manuscript/exhibits/NAME.md.j2, a table of the estimates of `part`, and list it last in `exhibits`.

    `outcomes`: by default all of the part. Give back what was written. Raises `StudyError`.
    """
    edit = Edit.of(path, manuscript)
    file = manuscript / "exhibits" / f"{name}.md.j2"
    _name(name, dict.fromkeys(edit.study.exhibits), "exhibit", file)
    if re.search(r"\{[{%#]|\n", title):
        raise StudyError(
            f"--title {title!r}: more than plain text on one line. Take that out; {file.name} may have it."
        )
    if part not in PARTS:
        raise StudyError(f"--part {part}: a table of estimates has another part. {choices(part, PARTS)}")
    term, note, noun = PARTS[part]
    of_part = [a for a in study.expand(edit.study) if a.part == part]
    clustered = "cluster" in {a.inference for a in of_part}
    there = dict.fromkeys(a.outcome for a in of_part)
    for o in outcomes:
        if o not in there:
            raise StudyError(f"--outcome {o}: part {part} has no such outcome. {choices(o, there)}")
    rows = [a for a in of_part if (not outcomes or a.outcome in outcomes) and (a.inference == "cluster") == clustered]
    groups = len({a.subgroup for a in rows}) > 1 or {a.subgroup for a in rows} != {"all"}
    own = {"outcome": True, "subgroup": groups, "level": groups, "period": part in ("years", "change")}
    lines = [c for c in COLUMNS if own.get(c) or (c not in own and len({getattr(a, c) for a in rows}) > 1)]
    select: dict[str, object] = {"part": part, "term": term}
    select |= ({"outcome": list(outcomes)} if outcomes else {}) | ({"inference": "cluster"} if clustered else {})
    # several lines an outcome stand under its name
    group = 'group = "outcome"\n' if len(lines) > 1 else ""
    heads = [f"  {_toml(COLUMNS[c])},\n" for c in lines if not (group and c == "outcome")]
    edit.files[file] = EXHIBIT.format(
        name=name, title=_toml(title), select=_toml(select), lines=_toml(lines), group=group,
        note=_toml(f"Estimate: {note}."), noun=noun, heads="".join(heads),
    )  # fmt: skip
    edit.append("exhibits", name, 0, edit.raw, "exhibits")
    return edit.write()


@dataclass(slots=True)
class Edit:
    """study.toml on its way: its text, what the text must come to mean, files to go with it, and what to say."""

    path: Path
    manuscript: Path
    study: Study
    text: str
    raw: dict[str, Any]
    files: dict[Path, str]
    said: list[str]

    @classmethod
    def of(cls, path: Path, manuscript: Path) -> Edit:
        """The study as it stands, which must be sound. Raises `StudyError`."""
        sound = study.load(path, manuscript)
        text = path.read_bytes().decode("utf-8")
        return cls(path, manuscript, sound, text, tomllib.loads(text), {}, [])

    def entry(self, kind: str, name: str, settings: Mapping[str, object]) -> None:
        """Insert `[kind.name]` after the last entry of its kind; a setting that is None is left out."""
        given = {k: v for k, v in settings.items() if v is not None}
        made = f"[{kind}.{name}]\n" + "".join(f"{k} = {_toml(v)}\n" for k, v in given.items())
        headers = list(re.finditer(r"^[ \t]*\[.*$", self.text, re.MULTILINE))
        own = [i for i, m in enumerate(headers) if re.match(rf"\[{kind}\.", m[0].strip())]
        end = headers[own[-1] + 1].start() if own and own[-1] + 1 < len(headers) else len(self.text)
        # what stands above the next header, blank lines and comments, belongs to that one
        kept = re.sub(r"(?:^[ \t]*(?:#[^\n]*)?\r?\n)*\Z", "", self.text[:end], flags=re.MULTILINE)
        gap = "" if kept.endswith("\n") else "\n"
        self.text = f"{kept}{gap}\n{made}{self.text[len(kept) :]}"
        self.raw.setdefault(kind, {})[name] = given
        self.said.append(f"{self.path.name}: [{kind}.{name}]")

    def name(self, kind: str, name: str, part: str, fits: Callable[[Grid], int], which: str) -> None:
        """Name it in the block of `part` that fits best, the first of equals."""
        blocks = self.study.analyses
        if part not in {b.part for b in blocks}:
            raise StudyError(
                f"--part {part}: no block of that part. {choices(part, dict.fromkeys(b.part for b in blocks))}"
            )
        grades = [fits(b) if b.part == part else 0 for b in blocks]
        best = grades.index(max(grades))
        if not grades[best]:
            raise StudyError(
                f"--part {part}: no block of that part {which}. Add a block of [[analyses]] to {self.path.name} first."
            )
        headers = list(re.finditer(r"^[ \t]*\[\[[ \t]*analyses[ \t]*\]\].*$", self.text, re.MULTILINE))
        at = headers[best].end() if best < len(headers) else len(self.text)
        self.append(kind, name, at, self.raw["analyses"][best], f"analyses[{best}] (part {part}).{kind}")

    def append(self, key: str, name: str, at: int, owner: dict[str, Any], where: str) -> None:
        """Append `name` to the list `key`, the first after position `at`; `owner` is what it belongs to in `raw`."""
        found = re.compile(rf"^[ \t]*{key}[ \t]*=[ \t]*\[", re.MULTILINE).search(self.text, at)
        last, end = _array(self.text, found.end()) if found else (0, 0)
        if not found or not end:
            raise StudyError(f"{self.path.name}: {where}: no list to add {name} to. Add {_toml([name])} by hand.")
        comma = "" if self.text[last] in ",[" else ","
        lead = self.text.rfind("\n", 0, end) + 1
        if lead > last:  # the bracket stands on a line of its own
            indent = re.match(r"[ \t]*", self.text[self.text.rfind("\n", 0, last) + 1 :])
            after = f"{indent[0] if indent else ''}{_toml(name)},\n"
            self.text = self.text[: last + 1] + comma + self.text[last + 1 : lead] + after + self.text[lead:]
        else:
            space = "" if self.text[last] == "[" else " "
            self.text = f"{self.text[: last + 1]}{comma}{space}{_toml(name)}{self.text[last + 1 :]}"
        owner[key] = [*owner[key], name]
        line = self.text.count("\n", 0, found.start() + 1) + 1
        self.said.append(f"{self.path.name}: line {line}: {where}")

    def write(self) -> tuple[str, ...]:
        """Check the whole as a run would, then let it take its place; on refusal nothing stays.

        Raises `StudyError` that says what is wrong with what was asked for.
        """
        from biglocal import exhibits
        from biglocal.exhibits import typed

        newline = "\r\n" if "\r\n" in self.text else "\n"
        text = re.sub(r"\r?\n", newline, self.text)
        try:
            same = tomllib.loads(text) == self.raw
        except tomllib.TOMLDecodeError:
            same = False
        if not same:
            raise StudyError(
                f"{self.path.name}: cannot be added to without changing something else, as it is laid out. "
                f"Write one entry a table, as the others, or add by hand: {'; '.join(self.said)}."
            )
        made: list[Path] = []
        try:
            for file, content in self.files.items():
                write_text(file, content)
                made.append(file)
            with tempfile.TemporaryDirectory() as folder:  # checked under its own name before it is there
                beside = Path(folder) / self.path.name
                beside.write_bytes(text.encode("utf-8"))
                checked = study.load(beside, self.manuscript)
            typed.check(self.manuscript)
            nothing = Run("synthetic", "SYNTHETIC", {}, (), {}, {})
            report = exhibits.Report((), checked, nothing, self.manuscript, exhibits.PUBLISHED)
            write_text(self.path, text)
        except BaseException:
            for file in made:
                file.unlink(missing_ok=True)
            raise
        root, plan = self.manuscript.parent, study.expand(checked)
        files = [str(f.relative_to(root) if f.is_relative_to(root) else f) for f in self.files]
        before = set(study.expand(self.study))
        added = [a for a in plan if a not in before]
        shown = [t.id for t in report.templates.values() if any(_shows(t.header, a, plan) for a in added)]
        where = ", ".join(shown) or "no exhibit: `biglocal new exhibit` writes one"
        return (*files, *self.said, *([f"{len(added)} more analyses, shown in {where}"] if added else []))


def _shows(header: Header, analysis: Analysis, plan: Sequence[Analysis]) -> bool:
    """Whether an exhibit's table or figure takes rows of the analysis."""

    def fits(wanted: Mapping[str, Any], a: Analysis) -> bool:
        names = {k: v if isinstance(v, list) else [v] for k, v in wanted.items() if hasattr(a, k)}
        return all(getattr(a, k) in v for k, v in names.items())

    alike = all(
        any(fits(wanted, a) and getattr(a, column) == getattr(analysis, column) for a in plan)
        for column, wanted in header.like.items()
    )
    selects = [s for s in (header.select, header.figure_select) if s]
    return alike and any(fits(wanted, analysis) for wanted in selects)


def _array(text: str, at: int) -> tuple[int, int]:
    """Of the TOML list whose bracket opens just before `at`: where its last sign stands, and its closing bracket."""
    depth, last = 1, at - 1
    for token in re.compile(r'"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'|#[^\n]*|\S').finditer(text, at):
        if token[0].startswith("#"):
            continue
        depth += {"[": 1, "]": -1}.get(token[0], 0)
        if depth == 0:
            return last, token.start()
        last = token.end() - 1
    return last, 0


def _toml(value: object) -> str:
    """A value as TOML on one line; a string's escapes are those of JSON."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(k)} = {_toml(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, bool | str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return f"{value:g}" if isinstance(value, float) and value == int(value) else repr(value)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _toml(name)


def _words(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _name(name: str, taken: Iterable[str], what: str, file: Path | None = None) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", name):
        raise StudyError(f"{name}: not a name. Use small letters, digits and _, a letter first, 40 signs at most.")
    if name in taken or (file and file.exists()):
        where = f" ({file.name})" if file and file.exists() else ""
        raise StudyError(f"{name}: this {what} exists{where}. Take another name, or change what is there.")


def _column(table: str, column: str, kinds: Sequence[str], option: str) -> Column:
    columns = TABLES[table].columns
    usable = [c for c, k in columns.items() if k.kind in kinds]
    if column not in usable:
        what = f"is {columns[column].kind}, not a number" if column in columns else "is not there"
        raise StudyError(f"{option} {column}: {what}, in table {table}. {choices(column, usable)}")
    return columns[column]


def _value(text: str, column: Column, name: str) -> str | int | bool:
    """A level's value, in the kind of its column."""
    if column.kind == "number":
        raise StudyError(f"--level …={text}: column {name} has too many values to name. Give --cut or --quantile.")
    if column.kind == "integer":
        if not re.fullmatch(r"-?\d+", text):
            raise StudyError(f"--level …={text}: column {name} holds whole numbers. Give such, or --cut.")
        return int(text)
    known = ("true", "false") if column.kind == "flag" else column.allowed
    if known and text not in known:
        raise StudyError(f"--level …={text}: column {name} has no such value. {choices(text, known)}")
    return text == "true" if column.kind == "flag" else text


ESTIMATOR = '''"""Difference of mean changes: what treated units' outcomes did less what comparison units' did, no more.

Card and Krueger (1994), Am Econ Rev 84:772, table 3, with the samples' weights. With several starts the units of each
are held against all comparison units at that date, and count by weight (Callaway and Sant'Anna 2021, J Econometrics
225:200, equations 2.8 and 3.11, without covariates, over all years at once).
"""

from __future__ import annotations

import numpy as np

from biglocal.estimators import correction
from biglocal.estimators._changes import changes
from biglocal.estimators._design import check_design, treated_clusters
from biglocal.model import Fit, Inapplicable, Sample, Term


def estimate(sample: Sample) -> Fit:
    """ATT (term `att`) in the outcome's unit, its error clustered; matched sets are not used, their weights are.

    Raises `Inapplicable` for covariates, for levels, and for samples that no difference-in-differences can use.
    """
    frame = sample.frame
    check_design(frame)
    if sample.covariates or sample.levels:
        raise Inapplicable("a difference of mean changes takes no covariates and no levels of a subgroup.")
    made = changes(frame.assign(set=-1))  # a row a unit and start: its change, weight, cluster, and cell (the start)
    size, treated, comparison = made.cell_means()
    att = float(np.average(treated - comparison, weights=size))

    # each row's part in the ATT, and how far its change is from the mean that stands for it
    rivals = np.bincount(made.cell, np.where(made.treated, 0, made.weight))
    share = np.where(made.treated, made.weight, -made.weight * (size / rivals)[made.cell]) / size.sum()
    off = made.change - np.where(made.treated, treated[made.cell], comparison[made.cell])
    cluster = np.unique(made.cluster, return_inverse=True)[1]
    sums = np.bincount(cluster, share * off)
    clusters, n_units = len(sums), len(np.unique(made.unit))
    error = float(np.sqrt(sums @ sums * correction(n_units, 2, clusters)))

    n_treated = len(np.unique(made.unit[made.treated]))
    att_term = Term("att", att, error, clusters - 1, n_treated=n_treated, n_treated_clusters=treated_clusters(frame))
    caution = " ".join(filter(None, [sample.caution, made.caution()]))
    return Fit((att_term,), len(frame), n_units, n_treated, clusters, caution)
'''

EXHIBIT = """+++
title = {title}
select = {select}
lines = {lines}
{group}note = {note}
columns = [
{heads}  {{ head = "Estimate", value = "estimate" }},
  {{ head = "{{{{ level }}}} interval", value = "interval", width = 1.8 }},
  {{ head = "p", value = "p_value" }},
  {{ head = "Units", value = "n_units" }},
]
+++
{{{{ ref("{name}") }}}} gives each estimate. An interval that holds nought does not show that there is no {noun}.

{{{{ table }}}}
"""
