"""From rows to a table or figure in words, before any format.

A header's `lines` and `columns` pivot the rows; a cell is the one row of its line that fits, and never a
choice between two. What is not available says why in a footnote; a caution on a row is a footnote too.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, fields, replace
from functools import partial
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Literal

from biglocal import provenance, specifications, timings
from biglocal.data.tables import FIRST_YEAR, TABLES
from biglocal.exhibits import figures
from biglocal.exhibits.headers import Column, Header, Template, words
from biglocal.exhibits.markup import unescaped
from biglocal.exhibits.prose import NONE, Press, held, on_scale
from biglocal.exhibits.wording import (
    FORMATS,
    banner,
    by_size,
    decimals,
    format_of,
    interval,
    kind,
    label,
    number,
    order,
    outcome_of,
    sentence,
)
from biglocal.model import Analysis, DataError, StudyError
from biglocal.results import COLUMNS, Row, select
from biglocal.study import MONEY, ON_REQUEST, choices
from biglocal.timings import Cost

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from biglocal.model import Run

DERIVED = ("family", "interval", "n_control", "outcome_unit", "year")
LABELLED = (
    "outcome",
    "subgroup",
    "level",
    "comparison",
    "treatment",
    "estimator",
    "respondents",
    "exposure",
    "inference",
    "term",
    "family",
    "part",
    "analysis",
)
ANALYSIS = tuple(f.name for f in fields(Analysis) if f.name != "id")
ABOUT = ("power", "parallel_trends")  # inference whose rows say something of an estimate, and have none of their own
RUN_VALUES = ("table", "what", "digest", "status")
ENVIRONMENT_VALUES = ("group", "what", "value")
MULTIVERSE_VALUES = ("group", "option", "reason", "count")
PUBLISHED_VALUES = (
    "label", "label_unit", "unit", "source", "published", "published_interval", "ours", "ours_interval", "truth",
    "off", "covers", "difference", "verdict",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cell:
    """What a table shows at one place: text, the marks of its footnotes, the numbers behind it, and their row."""

    text: str
    marks: str = ""
    raw: tuple[object, ...] = ("",)
    row: Row | None = None

    @property
    def traced(self) -> bool:
        """Whether it shows numbers of a row."""
        return self.row is not None and any(isinstance(v, int | float) for v in self.raw)


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a table; with `group`, a line across it that names what follows."""

    cells: tuple[Cell, ...]
    group: Cell | None = None


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a column: its text, whether it holds numbers, and its share of the width."""

    text: str
    numeric: bool
    width: float
    ends: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A table in words, before any format."""

    id: str
    caption: str
    heads: tuple[Head, ...]
    lines: tuple[Line, ...]
    notes: tuple[tuple[str, str], ...]
    banner: str
    landscape: bool
    csv: str


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure with its words and the numbers behind it."""

    id: str
    caption: str
    alt: str
    notes: tuple[tuple[str, str], ...]
    drawing: figures.Drawing
    csv: str


@dataclass(frozen=True, slots=True)
class Block:
    """All that an exhibit puts into the report. `missing` says what to do where there is nothing to show."""

    template: Template
    title: str
    table: Table | None = None
    figure: Figure | None = None
    missing: tuple[str, ...] = ()


def check(press: Press, header: Header, file: str) -> None:
    """Refuse a header that asks for what does not exist, naming file, entry and choices."""

    def named(at: str, seen: str, known: Iterable[str], what: str) -> None:
        if seen not in list(known):
            raise StudyError(f"{file}: {at}: no {what} '{seen}'. {choices(seen, known)}")

    for at, wanted in (("select", header.select), ("figure_select", header.figure_select), *header.like.items()):
        press.check_select(wanted, f"{file}: {at}")
        _check_said(press, wanted, f"{file}: {at}")
    if header.source == "rows":
        _check_fed(press, header, file)
        for key in (*header.lines, *([header.group] if header.group else [])):
            named("lines", key, (*COLUMNS, "family"), "column of results")
    values = {
        "rows": (*COLUMNS, *DERIVED), "run": RUN_VALUES, "published": PUBLISHED_VALUES,
        "environment": ENVIRONMENT_VALUES, "multiverse": MULTIVERSE_VALUES,
    }[header.source]  # fmt: skip
    for i, column in enumerate(_columns(press, header)):
        named(f"columns[{i}] ({column.head}).value", column.value, values, "value")
        if column.format:
            named(f"columns[{i}] ({column.head}).format", column.format, FORMATS, "format")
        press.check_select(column.where, f"{file}: columns[{i}] ({column.head}).where")
        if header.source == "multiverse" and list(column.where) != ["outcome"] * (column.value == "count"):
            raise StudyError(
                f"{file}: columns[{i}] ({column.head}): give each = true, or where = {{ outcome = … }}, to count, "
                f"and to no other."
            )
    if header.kind != "table":
        named("figure", header.figure, figures.FIGURES, "figure")
        if not header.alt:
            raise StudyError(f"{file}: alt: a figure needs alternative text. Say in a sentence what it shows.")
    if header.kind != "figure" and not header.columns:
        raise StudyError(f"{file}: columns: a table needs at least one. Add [[columns]] with head and value.")


def _check_said(press: Press, wanted: Mapping[str, Any], at: str) -> None:
    """Refuse a selection by term of analyses that have rows, but none of that term: a row renamed, or a typo.

    Without this what one estimator calls otherwise would leave the table without a word.
    """
    if "term" not in wanted:
        return
    terms, *others = (v if isinstance(v, list | tuple) else [v] for v in (wanted["term"], *wanted.values()))
    own = [(k, v) for k, v in zip(wanted, others, strict=True) if k in ANALYSIS]
    apart = () if "inference" in wanted else ABOUT
    for analysis, (row, found) in press.terms.items():
        other = row.part == MONEY or row.inference in apart
        if not other and not found & set(terms) and all(getattr(row, k) in v for k, v in own):
            said = f"'{terms[0]}'" if len(terms) == 1 else f"one of {', '.join(terms)}"
            raise StudyError(
                f"{at}: wants term {said}, and {analysis} has rows, but none of it. {choices(terms[0], found)} "
                f"Name in the template what the row is called, or leave the analysis out of the selection."
            )


def _check_fed(press: Press, header: Header, file: str) -> None:
    """Refuse an exhibit that no analysis of the study can feed: it would say `not available` for ever."""
    wanted = {k: v if isinstance(v, list | tuple) else [v] for k, v in header.select.items() if k in ANALYSIS}
    if not wanted or any(all(getattr(a, k) in v for k, v in wanted.items()) for a in press.plan):
        return
    if not select(press.rows, **wanted):
        raise StudyError(
            f"{file}: select: no analysis of study.toml has {words(header.select)}, so no row can feed this exhibit. "
            f"Add the analysis, or take the exhibit out of `exhibits`."
        )


def block(press: Press, template: Template) -> Block:
    """The table and figure of an exhibit; where no row has a number, what is missing and how to get it."""
    header, title = template.header, press.line(template.header.title, template.file)
    rows = chosen(press.rows, header, header.select)
    shown = [r for r in rows if r.status == "ok"]
    if header.source == "rows" and not shown:
        why = _missing(press, rows, header)
        return Block(template, title, _empty(press, template, why) if header.kind != "figure" else None, missing=why)
    table = _table(press, template, rows) if header.kind != "figure" else None
    figure = _figure(press, template) if header.kind != "table" else None
    return Block(template, title, table, figure)


def chosen(rows: Sequence[Row], header: Header, wanted: Mapping[str, Any]) -> list[Row]:
    """The rows that a header's selection picks of a table of results, and those that stand there without a number."""
    loose = {k: v for k, v in wanted.items() if k not in ("term", "level", "period")}  # a row without a number has none
    gone = [r for r in select(rows, **loose) if r.status != "ok" and not r.term] if loose else []
    found = list(dict.fromkeys((*select(rows, **wanted), *gone)))
    for column, where in header.like.items():
        among = {getattr(r, column) for r in select(rows, **where)}
        found = [r for r in found if getattr(r, column) in among]
    return found


def _missing(press: Press, rows: Sequence[Row], header: Header) -> tuple[str, ...]:
    """Why there is nothing to show, and how to get it."""
    if not rows and header.absent:
        return (header.absent,)
    reasons = list(dict.fromkeys(press.why(r) for r in rows if r.status != "ok"))
    about = {r.outcome for r in rows}
    wanted = {
        x
        for o in press.study.outcomes.values()
        if o.name in about
        for x in (o.table, o.column, f"{o.table}.{o.column}")
    }
    hints = [sentence(v) for k, v in sorted(press.run.lacks.items()) if not rows or k in wanted]
    if not reasons and not hints:
        reasons = [f"no row of results.csv has {words(header.select)}; add an analysis that makes it to study.toml"]
    return tuple(dict.fromkeys((*reasons, *hints)))


def _caption(press: Press, template: Template, what: Literal["table", "figure"]) -> str:
    title = template.header.figure_title if what == "figure" and template.header.figure_title else template.header.title
    return f"{what.capitalize()} {press.places[template.id, what]}. {press.line(title, template.file)}"


def _empty(press: Press, template: Template, why: Sequence[str]) -> Table:
    """What the table's files say where there is nothing to show."""
    said = "Not available in this run."
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["notes", "tier"])
    for reason in why:
        writer.writerow([f"{said} {reason}", press.run.banner or press.run.tier])
    heads = (Head(said, False, 1.0),)
    lines = tuple(Line((Cell(reason),)) for reason in why)
    return Table(
        template.id, _caption(press, template, "table"), heads, lines, (), banner(press.run), False, out.getvalue()
    )


class Notes:
    """Footnotes of a table: each reason once, lettered in the order of its first mark."""

    def __init__(self) -> None:
        self.letters: dict[str, str] = {}

    def mark(self, reasons: Iterable[str]) -> str:
        """The letters for some reasons."""
        marks = []
        for reason in dict.fromkeys(r.replace("`", "") for r in reasons if r):
            n = len(self.letters)
            letter = chr(97 + n) if n < 26 else chr(96 + n // 26) + chr(97 + n % 26)
            marks.append(self.letters.setdefault(reason, letter))
        return ",".join(marks)


@dataclass(frozen=True, slots=True)
class _Found:
    """A cell before its marks: text, numbers, why it is not there, what is to be borne in mind."""

    text: str
    raw: tuple[object, ...]
    why: str = ""
    caution: str = ""
    row: Row | None = None


def _columns(press: Press, header: Header) -> list[Column]:
    """The header's columns, those that are for `each` outcome of the multiverse once for each."""
    m, out = press.study.multiverse, []
    for c in header.columns:
        names = m.outcomes if c.each and m else ()
        own = [
            replace(c, head=c.head.replace("{outcome}", press.study.outcomes[o].label), where={**c.where, "outcome": o})
            for o in names
        ]
        out += own if c.each else [c]
    return out


def _table(press: Press, template: Template, rows: Sequence[Row]) -> Table:
    header = template.header
    columns = [c for c in _columns(press, header) if not c.when or kind(press.run) in c.when]
    if header.source == "rows":
        _check_terms(press, template, rows, columns)
        lines = _lines(press, header, rows)
        found = [[_find(press, template, c, line, key) for c in columns] for key, line in lines]
        groups = [label(press.study, header.group, key.get(header.group)) if header.group else "" for key, _ in lines]
    else:
        of = {
            "run": _run_lines,
            "published": _published_lines,
            "environment": _environment_lines,
            "multiverse": _multiverse_lines,
        }
        records = of[header.source](press)
        found = [[record[" ".join((c.value, *map(str, c.where.values())))] for c in columns] for record in records]
        groups = [str(record[header.group].text) if header.group else "" for record in records]
    for line in found:
        _rescale(columns, line)
        said = {f.raw[0] for c, f in zip(columns, line, strict=True) if c.value == "reason"}  # needs no footnote too
        line[:] = [replace(f, caution="") if f.caution in said else f for f in line]
    if header.total:
        found.append(_total(header, columns, found))
        groups.append("")
    notes = Notes()
    everywhere = set.intersection(*({f.caution for f in line if f.caution} for line in found)) if found else set()
    by_group: dict[str, set[str]] = {}
    for name, line in zip(groups, found, strict=True):
        own = {f.caution for f in line if f.caution}
        by_group[name] = by_group[name] & own if name in by_group else own
    out: list[Line] = []
    last = None
    for name, line in zip(groups, found, strict=True):
        shared = by_group[name] if header.group else set()
        if header.group and name != last:
            out.append(Line((), Cell(name, notes.mark(sorted(shared - everywhere)), (name,))))
            last = name
        told = everywhere | shared
        cells = []
        for f in line:
            new = "" if f.caution in told else f.caution
            told = told | {new}
            cells.append(Cell(f.text, notes.mark((f.why, new)), f.raw, f.row))
        out.append(Line(tuple(cells)))
    heads = tuple(
        Head(press.line(c.head, template.file), _numeric(c), c.width or _width(c), c.value.endswith("interval"))
        for c in columns
    )
    text = [("", press.line(header.note, template.file))] if header.note else []
    text += [("", f"{r}.".replace("..", ".")) for r in sorted(everywhere)]
    text += [(letter, reason) for reason, letter in notes.letters.items()]
    return Table(
        template.id, _caption(press, template, "table"), heads, tuple(out), tuple(text), banner(press.run),
        header.landscape, _table_csv(heads, out, {b: a for a, b in notes.letters.items()}, press.run),
    )  # fmt: skip


def _numeric(column: Column) -> bool:
    return column.format != "text" and column.value not in (
        *LABELLED,
        "unit",
        "reason",
        "outcome_unit",
        "label",
        "label_unit",
        "source",
        "verdict",
        "table",
        "what",
        "status",
        "option",
    )


def _width(column: Column) -> float:
    if column.value.endswith("interval"):
        return 1.7
    return 1.0 if _numeric(column) else 2.2


def _check_terms(press: Press, template: Template, rows: Sequence[Row], columns: Sequence[Column]) -> None:
    """A column whose term no row has is a row renamed or a typo, unless something in the table is not available."""
    if any(r.status != "ok" for r in rows):
        return
    terms = dict.fromkeys(r.term for r in rows)
    for column in columns:
        wanted = column.where.get("term", [])
        for term in wanted if isinstance(wanted, list) else [wanted]:
            if term not in terms and not isinstance(wanted, list):
                called = sorted({t for r in rows for t in press.terms[r.analysis][1]})
                raise StudyError(
                    f"{template.file}: column '{column.head}' wants term '{term}', which no row of "
                    f"{words(template.header.select)} has. {choices(term, called)}"
                )


def _get(press: Press, row: Row, column: str) -> Any:
    if column == "family":
        outcome = press.study.outcomes.get(row.outcome)
        return outcome.family if outcome else ""
    return getattr(row, column)


def _lines(press: Press, header: Header, rows: Sequence[Row]) -> list[tuple[dict[str, Any], list[Row]]]:
    keys = tuple(dict.fromkeys((*([header.group] if header.group else []), *header.lines))) or ("analysis",)
    of: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        of.setdefault(tuple(_get(press, row, k) for k in keys), []).append(row)

    def rank(key: tuple[Any, ...]) -> list[tuple[int, str]]:
        if header.select.get("part") == "flow":  # steps go by their order, not by their words
            return [order(press.study, "comparison", of[key][0].comparison), (of[key][0].period or 0, "")]
        return [order(press.study, k, v) for k, v in zip(keys, key, strict=True)]

    return [(dict(zip(keys, key, strict=True)), of[key]) for key in sorted(of, key=rank)]


def _find(press: Press, template: Template, column: Column, rows: Sequence[Row], key: Mapping[str, Any]) -> _Found:
    """The cell of one line and column; refuses to choose between two rows."""
    value = column.value
    fitting = list(select(rows, **column.where))
    if value in key and not column.where:
        return _named(press, value, key[value], rows)
    if value == "unit" and fitting:
        return _Found(fitting[0].unit, (fitting[0].unit,))
    if value == "outcome_unit" and rows:
        outcome = outcome_of(press.study, rows[0])
        text = label(press.study, "outcome", rows[0].outcome) + (f", {outcome.unit}" if outcome else "")
        return _Found(text, (text,))
    good = [r for r in fitting if r.status == "ok"]
    if len(good) > 1:
        if len({_raw(press, r, value) for r in good}) > 1:
            raise StudyError(
                f"{template.file}: column '{column.head}': {len(good)} rows fit one cell, among them "
                f"{good[0].analysis} ({good[0].term}) and {good[1].analysis} ({good[1].term}). "
                f"Say more in `where`, or name what tells them apart in `lines`."
            )
        good = good[:1]
    if good:
        row = good[0]
        raw = _raw(press, row, value)
        if raw is None:
            return _Found("–", ("", "") if value == "interval" else ("",), caution=row.reason, row=row)
        if value == "interval":
            # shares and ratios of an outcome are not in its unit: they name their decimals
            places = int(column.format[-1]) if column.format.startswith("number") else decimals(row.unit)
            return _Found(interval(raw[0], raw[1], places), raw, caution=row.reason, row=row)
        if isinstance(raw, str):
            return _Found(label(press.study, value, raw) or "–", (raw,), row=row)
        form = column.format or format_of(value)
        return _Found(FORMATS[form](raw, row), (raw,), caution=row.reason, row=row)
    near = fitting or select(rows, **{k: v for k, v in column.where.items() if k not in ("term", "level", "period")})
    why = [press.why(r) for r in near if r.status != "ok"]
    blank = ("", "") if value == "interval" else ("",)
    if why:
        return _Found(NONE, blank, why=why[0])
    return _Found("–", blank)


def _named(press: Press, column: str, value: Any, rows: Sequence[Row]) -> _Found:
    if column == "level" and not value:
        text = "Test of the difference" if any(r.term.startswith("difference") for r in rows) else "All levels"
        return _Found(text, ("",))
    if column == "period":
        if value is not None and value > FIRST_YEAR:  # a calendar year, not years since the start
            return _Found(FORMATS["year"](value, None), (value,))
        tests = value is None and any(r.term == "leads" for r in rows)
        return _Found(
            "Joint test, years before" if tests else "All" if value is None else FORMATS["signed"](value, None),
            ("" if value is None else value,),
        )
    if column == "family":
        return _Found(label(press.study, column, value), (value,))
    return _Found(label(press.study, column, value) or "–", (value,))


def _raw(press: Press, row: Row, value: str) -> Any:
    if value == "interval":
        return None if row.conf_low is None or row.conf_high is None else (row.conf_low, row.conf_high)
    if value == "n_control":
        return None if row.n_units is None or row.n_treated is None else row.n_units - row.n_treated
    if value == "year":
        start = press.study.treatments[row.treatment].year if row.treatment in press.study.treatments else None
        return None if start is None or row.period is None else start + row.period
    return _get(press, row, value)


def _rescale(columns: Sequence[Column], line: list[_Found]) -> None:
    """Give the `scale` cells of a line the decimals of the largest of them."""
    at = [i for i, c in enumerate(columns) if c.format == "scale" and line[i].row is not None]
    places = by_size([float(str(line[i].raw[0])) for i in at if line[i].raw[0] != ""])
    for i in at:
        f = line[i]
        if f.raw[0] != "":
            line[i] = _Found(number(float(str(f.raw[0])), places), f.raw, f.why, f.caution, f.row)


def _total(header: Header, columns: Sequence[Column], found: Sequence[Sequence[_Found]]) -> list[_Found]:
    out = []
    for i, column in enumerate(columns):
        if i == 0:
            out.append(_Found(header.total, (header.total,)))
        elif (column.format or format_of(column.value)) == "count" and all(line[i].raw[0] != "" for line in found):
            total = sum(float(str(line[i].raw[0])) for line in found)
            out.append(_Found(number(total, 0), (int(total),)))
        else:
            out.append(_Found("–", ("",)))
    return out


def _table_csv(heads: Sequence[Head], lines: Sequence[Line], notes: Mapping[str, str], run: Run) -> str:
    grouped = any(line.group for line in lines)
    names: list[str] = ["group"] if grouped else []
    for head in heads:
        names += [f"{head.text}: low", f"{head.text}: high"] if head.ends else [head.text]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*names, "notes", "tier"])
    group, group_marks = "", ""
    for line in lines:
        if line.group:
            group, group_marks = line.group.text, line.group.marks
            continue
        marks = [m for text in (group_marks, *(c.marks for c in line.cells)) for m in text.split(",") if m]
        values = [_plain(v) for c in line.cells for v in c.raw]
        said = "; ".join(notes[m] for m in dict.fromkeys(marks))
        writer.writerow([*([group] if grouped else []), *values, said, run.banner or run.tier])
    return out.getvalue()


def _plain(value: object) -> str:
    return format(value, ".10g") if isinstance(value, float) else str(value)


def _run_lines(press: Press) -> list[dict[str, _Found]]:
    """Each table of data: what it is, its digest, or that the tier lacks it."""
    out = []
    names = [*press.run.digests, *(k for k in press.run.lacks if k in TABLES and k not in press.run.digests)]
    for name in sorted(names, key=lambda n: (list(TABLES).index(n) if n in TABLES else 99, n)):
        doc = TABLES[name].doc if name in TABLES else "File as it was read."
        digest, why = press.run.digests.get(name, ""), press.run.lacks.get(name, "")
        why = sentence(why) if why else ""
        out.append(
            {
                "table": _Found(name, (name,)),
                "what": _Found(doc, (doc,)),
                "digest": _Found(digest[:12] or NONE, (digest,), why=why if not digest else ""),
                "status": _Found(
                    "present" if digest else "missing",
                    ("present" if digest else "missing",),
                    caution=why if digest else "",
                ),
            }
        )
    return out


def _environment_lines(press: Press) -> list[dict[str, _Found]]:
    """What the numbers depend on besides data and study, and what they cost as measured; no clock, no own machine."""
    locked = provenance.locked()
    versions = dict(press.run.versions)
    python = versions.pop("python", "")
    run = {r.analysis for r in press.rows}
    lines = [
        ("Software", "Python", python),
        *(("Software", name, said) for name, said in sorted(versions.items())),
        ("Software", "Packages pinned in the lock", number(len(locked), 0)),
        ("Software", "Digest of the lock", provenance.lock()[:12]),
        ("Run", "Seed", str(press.study.seed)),
        ("Run", "Draws of bootstrap and randomisation", number(press.run.draws, 0)),
        ("Run", "Analyses in results.csv", number(len(run), 0)),
        ("Run", "Rows in results.csv", number(len(press.rows), 0)),
        *_costs(press),
    ]
    return [{k: _Found(v, (v,)) for k, v in zip(ENVIRONMENT_VALUES, line, strict=True)} for line in lines if line[2]]


def _costs(press: Press) -> Iterator[tuple[str, str, str]]:
    """Time and memory of the parts of this study, the dearest first; those under a second together."""
    measured = timings.load()
    if measured is None:
        yield "Time and memory", "All parts", "not measured"
        return

    def said(cost: Cost) -> str:
        return f"{number(cost.seconds, 1)} s, {number(cost.memory_mb, 0)} MB"

    group = "Time and memory"
    yield group, "Measured on", measured.machine.rstrip(".")
    yield group, "Libraries, tables and matching", said(measured.start)
    known = {b.part for b in press.study.analyses} | {MONEY, "multiverse"}
    parts = sorted(((p, c) for p, c in measured.parts.items() if p in known), key=lambda pc: (-pc[1].seconds, pc[0]))
    small = [c for _, c in parts if c.seconds < 1]
    for part, cost in parts:
        if cost.seconds >= 1:
            asked = ", on request" if part in ON_REQUEST else ""
            yield group, f"{label(press.study, 'term', part)}{asked}", said(cost)
    if small:
        together = Cost(sum(c.seconds for c in small), max(c.memory_mb for c in small))
        yield group, f"{number(len(small), 0)} other parts together", said(together)


def _multiverse_lines(press: Press) -> list[dict[str, _Found]]:
    """Each option of the multiverse with its reason and the specifications that have it; then what is ruled out.

    `count` is that of an outcome, named by the column's `where`."""
    m = specifications.multiverse(press.study)
    found = {o: specifications.expand(press.study, o) for o in m.outcomes}
    words = partial(specifications.label, press.study)
    lines = [
        (
            words(d),
            words(d, name),
            choice.reason,
            [sum(getattr(s, d) == name for s in kept) for kept, _ in found.values()],
        )
        for d in specifications.DIMENSIONS
        for name, choice in getattr(m, d).items()
    ]
    reasons = {
        reason: [lost.get(reason, 0) for _, lost in found.values()] for _, lost in found.values() for reason in lost
    }
    lines += [("Ruled out", "", reason, n) for reason, n in sorted(reasons.items(), key=lambda x: (-sum(x[1]), x[0]))]
    lines.append(("All", "", "Remain.", [len(kept) for kept, _ in found.values()]))
    out = []
    for group, option, reason, counts in lines:
        of = dict.fromkeys(press.study.outcomes, 0) | dict(zip(found, counts, strict=True))
        cells = {"group": group, "option": option, "reason": reason}
        out.append({k: _Found(v, (v,)) for k, v in cells.items()} | {
            f"count {o}": _Found(number(n, 0), (n,)) for o, n in of.items()
        })  # fmt: skip
    return out


def _published_lines(press: Press) -> list[dict[str, _Found]]:
    """Each published estimate, and beside it the row that replicates it with what may be said of the two."""
    file = press.published_path.name
    sources = press.published().get("sources", {})
    out = []
    for entry in press.published().get("estimate", ()):
        try:
            at, said, unit, source = entry["id"], entry["estimate"], entry["unit"], entry["source"]
            name, low, high = entry["label"], entry.get("conf_low"), entry.get("conf_high")
            cite = unescaped(press.cite(source)) if source in sources else sources[source]
        except KeyError as e:
            raise DataError(
                f"{file}: estimate {entry.get('id', entry)}: no {e}. Every estimate has a source and unit."
            ) from None
        digits = [len(repr(float(v)).partition(".")[2].rstrip("0")) for v in (said, low, high) if v is not None]
        places = max(digits)
        line = {
            "label": _Found(name, (name,)),
            "unit": _Found(unit, (unit,)),
            "label_unit": _Found(f"{name}, {unit}", (f"{name}, {unit}",)),
            "source": _Found(cite, (source,)),
            "published": _Found(number(said, places), (said,)),
            "published_interval": _Found("–", ("", ""))
            if low is None or high is None
            else _Found(interval(low, high, places), (low, high)),
        }
        if "row" not in entry:
            gone = _Found(NONE, ("",), why=entry.get("why") or "No analysis of this study estimates it.")
            line |= dict.fromkeys(("ours", "truth", "off", "covers", "difference", "verdict"), gone)
            line["ours_interval"] = _Found(NONE, ("", ""), why=gone.why)
        else:
            line |= _beside(press, entry, f"{file}: estimate {at}: row")
        out.append(line)
    return out


def _beside(press: Press, entry: Mapping[str, Any], at: str) -> dict[str, _Found]:
    wanted = dict(entry["row"])
    press.check_select(wanted, at)
    ours = press.one(**wanted)
    row = ours.raw
    if not ours.ok or row is None or row.estimate is None:
        why = ours.why or "The row has no number."
        gone = _Found(NONE, ("",), why=why)
        return dict.fromkeys(("ours", "truth", "off", "covers", "difference", "verdict"), gone) | {
            "ours_interval": _Found(NONE, ("", ""), why=why)
        }
    places = decimals(row.unit)
    caution = " ".join(filter(None, (row.reason, entry.get("caution", ""))))
    line = {"ours": _Found(number(row.estimate, places), (row.estimate,), caution=caution, row=row)}
    if row.conf_low is None or row.conf_high is None:
        line["ours_interval"] = _Found("–", ("", ""))
    else:
        ends = (row.conf_low, row.conf_high)
        line["ours_interval"] = _Found(interval(*ends, places), ends, row=row)
    line |= _truth_cells(press, wanted, row, places, entry.get("known"))
    low, high = entry.get("conf_low"), entry.get("conf_high")
    if low is None or high is None or not row.std_error:
        why = "No verdict: published without an interval." if row.std_error else "No verdict: no standard error here."
        return line | dict.fromkeys(("difference", "verdict"), _Found("–", ("",), why=why))
    scale = on_scale(row)  # ratios are compared as logarithms
    published, estimate = scale(entry["estimate"]), scale(row.estimate)
    theirs = (scale(high) - scale(low)) / (2 * NormalDist().inv_cdf(0.5 + press.study.policy.conf_level / 2))
    apart = (estimate - published) / (theirs**2 + row.std_error**2) ** 0.5
    far = abs(apart) > NormalDist().inv_cdf(0.5 + press.study.policy.conf_level / 2)
    same = (estimate < 0) == (published < 0)
    verdict = "differs" if far else "agrees, same sign" if same else "agrees, other sign"
    return line | {"difference": _Found(number(apart, 2), (apart,)), "verdict": _Found(verdict, (verdict,))}


def _truth_cells(
    press: Press, wanted: Mapping[str, Any], row: Row, places: int, known: Mapping[str, Any] | None
) -> dict[str, _Found]:
    of = {"outcome": row.outcome, "subgroup": wanted.get("subgroup", "all"), "level": row.level}
    if row.respondents:
        of |= {"part": "members_truth", "exposure": row.exposure, "term": row.term, "period": row.period}
    else:
        of |= {"part": "truth", "term": "att"}
    truth = press.one(**(known or of))
    if not truth.ok or truth.raw is None or truth.raw.estimate is None:
        reason = truth.why or "The effect is not known in these data."
        return dict.fromkeys(("truth", "off", "covers"), _Found(NONE, ("",), why=reason))
    off, covers = held(row, truth.raw)
    return {
        "truth": _Found(number(truth.raw.estimate, places), (truth.raw.estimate,), row=truth.raw),
        "off": _Found("–", ("",)) if off is None else _Found(number(off, 2), (off,)),
        "covers": _Found("–", ("",))
        if covers is None
        else _Found("yes" if covers else "no", ("yes" if covers else "no",)),
    }


def _figure(press: Press, template: Template) -> Figure | None:
    header = template.header
    rows = chosen(press.rows, header, header.figure_select or header.select)
    shown = tuple(r for r in rows if r.status == "ok")
    if not shown:
        return None
    press.used |= {r.key for r in shown}
    notes = [("", press.line(header.figure_note, template.file))] if header.figure_note else []
    gone: dict[str, list[str]] = {}
    for row in press.ordered(r for r in rows if r.status != "ok"):
        what = label(press.study, "outcome", row.outcome) or row.analysis
        more = f" ({label(press.study, 'subgroup', row.subgroup).lower()})" if row.subgroup not in ("", "all") else ""
        gone.setdefault(press.why(row), []).append(what + more)
    notes += [("", f"Not shown: {', '.join(dict.fromkeys(names))}. {why}") for why, names in gone.items()]
    words = press.facts.get("words", {})
    canvas = figures.Canvas(shown, press.study, words.get(kind(press.run), "treated areas"))
    alt = press.line(header.alt, template.file)
    if banner(press.run):
        alt = f"{banner(press.run)}. {alt}"
    caption = _caption(press, template, "figure")
    before = press.before and press.before / template.id
    drawing = figures.draw(header.figure, canvas, banner(press.run), template.id, (caption, alt), before)
    return Figure(template.id, caption, alt, tuple(notes), drawing, _figure_csv(rows))


def _figure_csv(rows: Sequence[Row]) -> str:
    """The numbers behind a figure: the columns of results that say anything here."""
    columns = [c for c in COLUMNS if c != "digest" and any(getattr(r, c) not in (None, "") for r in rows)]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_plain("" if (v := getattr(row, c)) is None else v) for c in columns])
    return out.getvalue()
