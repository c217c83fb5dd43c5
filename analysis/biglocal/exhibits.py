"""Headers to rows to tables, figures and the report.

An exhibit is one file of manuscript/exhibits: a TOML header that says which rows of results.csv it
wants and how they become columns, then Markdown that says how to read it. manuscript/README.md
documents the header. Nothing here reads microdata, and nothing here computes an estimate.
"""

from __future__ import annotations

import base64
import csv
import difflib
import html
import io
import json
import tomllib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import jinja2
from pydantic import TypeAdapter, ValidationError

from biglocal import figures, markup
from biglocal.data.tables import TABLES
from biglocal.model import DataError, Run, Study, StudyError, type_config
from biglocal.results import COLUMNS, Row, select, write_bytes, write_text
from biglocal.study import MANUSCRIPT, ROOT
from biglocal.wording import (
    FORMATS, banner, by_size, decimals, format_of, interval, kind, label, number, order, outcome_of, p_phrase, p_value,
    percent, plain,
)  # fmt: skip

PUBLISHED = ROOT / "data-raw" / "published.toml"
NONE = "n/a"
DERIVED = ("family", "interval", "n_control", "unit_label", "year")
LABELLED = ("outcome", "subgroup", "level", "comparison", "treatment", "inference", "term", "family", "part", "analysis")


# --- headers ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Column:
    """One column: `value` of the one row of the line that fits `where`; `when` names the kinds of run that show it."""

    __pydantic_config__: ClassVar[dict[str, str]] = type_config
    head: str
    value: str
    where: dict[str, Any] = field(default_factory=dict)
    format: str = ""
    when: tuple[Literal["SYNTHETIC", "PLACEBO", "REAL"], ...] = ()
    width: float = 0.0


@dataclass(frozen=True, slots=True)
class Header:
    """An exhibit's header, checked."""

    __pydantic_config__: ClassVar[dict[str, str]] = type_config
    title: str
    kind: Literal["table", "figure", "both"] = "table"
    source: Literal["rows", "run", "published"] = "rows"
    select: dict[str, Any] = field(default_factory=dict)
    like: dict[str, dict[str, Any]] = field(default_factory=dict)
    lines: tuple[str, ...] = ()
    group: str = ""
    columns: tuple[Column, ...] = ()
    total: str = ""
    note: str = ""
    landscape: bool = False
    figure: str = ""
    figure_select: dict[str, Any] = field(default_factory=dict)
    figure_title: str = ""
    figure_note: str = ""
    alt: str = ""


@dataclass(frozen=True, slots=True)
class Template:
    """One exhibit's file: name, header, Markdown."""

    id: str
    file: str
    header: Header
    body: str


@dataclass(frozen=True, slots=True)
class Cell:
    """What a table shows at one place: text, the marks of its footnotes, and the numbers behind it."""

    text: str
    marks: str = ""
    raw: tuple[object, ...] = ("",)


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
    table: Table | None = None
    figure: Figure | None = None
    missing: tuple[str, ...] = ()


# --- the one public function --------------------------------------------------------------------------------------


def render(
    rows: Sequence[Row],
    study: Study,
    run: Run,
    out: Path,
    manuscript: Path = MANUSCRIPT,
    only: Collection[str] | None = None,
    published: Path = PUBLISHED,
) -> tuple[Path, ...]:
    """Write the exhibits and the report of a run; give back the paths written, in order.

    `rows` are those of results.csv, `out` the folder that takes tables/, figures/, numbers.json, report.html
    and report.pdf. `only` names exhibits: those alone are written, and no report.

    Raises `StudyError` for a template or header that asks for what does not exist, naming template, entry and
    choices; `DataError` for a published.toml that cannot be read. Nothing half-written is left.
    """
    if only is not None and (unknown := sorted(set(only) - set(study.exhibits))):
        raise StudyError(f"no exhibit '{unknown[0]}' in study.toml. {_choices(unknown[0], study.exhibits)}")
    press = Press(tuple(sorted(rows, key=lambda r: r.analysis)), study, run, manuscript, published)
    written: list[Path] = []
    for name in study.exhibits:
        if only is None or name in only:
            written += _write_block(press, press.block(name), out)
    if only is None:
        written += _write_report(press, out)
    return tuple(written)


def parts(name: str, manuscript: Path = MANUSCRIPT) -> frozenset[str]:
    """The parts of results.csv that an exhibit is made of, from its header alone.

    Raises `StudyError` for a template that is not there or has no valid header.
    """
    header = _header(name, manuscript).header
    wanted: list[Any] = [w.get("part", []) for w in (header.select, header.figure_select, *header.like.values())]
    out = {p for part in wanted for p in (part if isinstance(part, list) else [part])}
    return frozenset(out | ({"effects", "subgroups", "truth"} if header.source == "published" else set()))


def _write_block(press: Press, block: Block, out: Path) -> list[Path]:
    name, written = block.template.id, []
    if block.table:
        path = out / "tables" / name
        write_text(path.with_suffix(".csv"), block.table.csv)
        written.append(path.with_suffix(".csv"))
        for ending in ("md", "tex", "html"):
            text = press.format(f"table.{ending}.j2", table=block.table)
            write_text(path.with_suffix(f".{ending}"), text)
            written.append(path.with_suffix(f".{ending}"))
    for ending in ("csv", "svg", "png"):
        path = out / "figures" / f"{name}.{ending}"
        if block.figure is None:
            path.unlink(missing_ok=True)  # of an earlier run that had the rows: it would now tell an untruth
            continue
        data = {"csv": block.figure.csv.encode(), "svg": block.figure.drawing.svg, "png": block.figure.drawing.png}
        write_bytes(path, data[ending])
        written.append(path)
    return written


def _write_report(press: Press, out: Path) -> list[Path]:
    import typst

    pieces = markup.parse(press.text("report.md.j2"))
    blocks = {name: press.block(name) for name in press.study.exhibits}
    parts: list[dict[str, object]] = []
    for piece in pieces:
        what, _, name = piece.place.partition(".")
        parts.append({"piece": piece, "what": what, "block": blocks.get(name)})
    shared = {"parts": parts, "title": press.study.title, "banner": banner(press.run), "kind": kind(press.run)}
    page = press.format("report.html.j2", toc=markup.headings(pieces), **shared)
    source = press.format("report.typ.j2", **shared)
    files = {"main.typ": source.encode()}
    for name, block in blocks.items():
        if block.figure:
            files[f"figures/{name}.svg"] = block.figure.drawing.svg
    try:
        pdf = typst.compile(
            files, format="pdf", pdf_standards=["ua-1"], timestamp=0,
            font_paths=typst.Fonts(include_system_fonts=False),
        )  # fmt: skip
    except typst.TypstError as e:
        raise StudyError(f"formats/report.typ.j2: the PDF cannot be set: {e}. Look at the exhibit or text named.") from e
    numbers = json.dumps(dict(sorted(press.numbers.items())), indent=1, ensure_ascii=False) + "\n"
    paths = {"numbers.json": numbers.encode(), "report.html": page.encode(), "report.pdf": pdf}
    for file, data in paths.items():
        write_bytes(out / file, data)
    return [out / file for file in paths]


# --- what templates may say ---------------------------------------------------------------------------------------


def _header(name: str, manuscript: Path) -> Template:
    """An exhibit's file, its header's form checked; `Press._check` looks up the names in it."""
    path = manuscript / "exhibits" / f"{name}.md.j2"
    file = f"exhibits/{path.name}"
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise StudyError(f"study.toml: exhibits: no template manuscript/{file}. Add it or take the name out.") from None
    parts = text.split("+++\n", 2)
    if len(parts) != 3 or parts[0].strip():
        raise StudyError(f"{file}: no header. Begin with a line +++, TOML, and a line +++.")
    try:
        header = TypeAdapter(Header).validate_python(tomllib.loads(parts[1]))
    except tomllib.TOMLDecodeError as e:
        raise StudyError(f"{file}: the header is not valid TOML: {e} (line counted from the first +++).") from None
    except ValidationError as e:
        first = e.errors()[0]
        at = ".".join(str(p) for p in first["loc"])
        known = Column.__slots__ if str(first["loc"][0]) == "columns" and len(first["loc"]) > 1 else Header.__slots__
        more = _choices(str(first["loc"][-1]), known) if "unexpected" in first["type"] else "Correct the header."
        raise StudyError(f"{file}: {at}: {first['msg'].lower()}. {more}") from None
    return Template(name, file, header, parts[2])


class Said:
    """A row as prose may use it: each number asked for is formatted and entered in numbers.json.

    `ok` is whether there is a number; if not, `reason` says why. `raw` is the row, for comparisons in templates.
    """

    def __init__(self, press: Press, row: Row | None, reason: str) -> None:
        self._press = press
        self.raw = row
        self.ok = row is not None and row.status == "ok" and (row.estimate is not None or row.p_value is not None)
        self.reason = markup.markdown(reason or (row.reason if row else ""))

    def _row(self) -> Row:
        if self.raw is None:
            raise StudyError(f"a template asks for a number of a row that is not there ({self.reason}). Ask `.ok` first.")
        return self.raw

    def _say(self, column: str, text: str, *raw: object) -> str:
        row = self._row()
        self._press.record(_name(self._press.study, row, column), text, raw[0] if len(raw) == 1 else list(raw), row.analysis)
        return text

    def _number(self, column: str, form: str) -> str:
        value = getattr(self._row(), column)
        return self._say(column, NONE if value is None else FORMATS[form](value, self.raw), value)

    @property
    def estimate(self) -> str:
        """The estimate with its unit's decimals."""
        return self._number("estimate", "estimate")

    @property
    def size(self) -> str:
        """The estimate without its sign, for sentences that say `lower` or `higher`."""
        value = self._row().estimate
        return self._say("size", NONE if value is None else number(abs(value), decimals(self._row().unit)), value)

    @property
    def count(self) -> str:
        """The estimate as a whole number."""
        return self._number("estimate", "count")

    def rounded(self, places: int) -> str:
        """The estimate with so many decimals."""
        value = self._row().estimate
        return self._say("estimate", NONE if value is None else number(value, places), value)

    @property
    def interval(self) -> str:
        """Both ends of the interval."""
        r = self._row()
        if r.conf_low is None or r.conf_high is None:
            return self._say("interval", NONE, None)
        return self._say("interval", interval(r.conf_low, r.conf_high, decimals(r.unit)), r.conf_low, r.conf_high)

    @property
    def p(self) -> str:
        """`p = 0.012`."""
        value = self._row().p_value
        return self._say("p_value", NONE if value is None else p_phrase(value), value)

    @property
    def p_adjusted(self) -> str:
        """`p = 0.012`, adjusted within the outcome's family."""
        value = self._row().p_adjusted
        return self._say("p_adjusted", NONE if value is None else p_phrase(value), value)

    def n(self, what: str) -> str:
        """A count of the row: obs, units, treated, clusters."""
        return self._number(f"n_{what}", "count")

    @property
    def label(self) -> str:
        """What the row is about: the outcome's or covariate's label."""
        return markup.markdown(label(self._press.study, "outcome", self._row().outcome))

    @property
    def level(self) -> str:
        """The subgroup's level."""
        return markup.markdown(self._row().level)

    @property
    def subgroup(self) -> str:
        """The subgroup's label."""
        return markup.markdown(label(self._press.study, "subgroup", self._row().subgroup))

    @property
    def unit(self) -> str:
        """The unit of the estimate."""
        return markup.markdown(self._row().unit)

    @property
    def clear(self) -> bool:
        """Whether the data distinguish it from no effect at the study's level, after adjustment where there is one."""
        row = self._row()
        p = row.p_adjusted if row.p_adjusted is not None else row.p_value
        return p is not None and p < 1 - self._press.study.policy.conf_level

    @property
    def direction(self) -> str:
        """Lower or higher."""
        return "lower" if (self._row().estimate or 0.0) < 0 else "higher"

    @property
    def better(self) -> bool:
        """Whether the estimate points to the better side of its outcome."""
        outcome = outcome_of(self._press.study, self._row())
        return outcome is not None and self.direction == outcome.better


def _name(study: Study, row: Row, column: str) -> str:
    """A readable name for a number: what differs from the study's main setting, then the column."""
    usual = {
        "subgroup": "all", "comparison": next(iter(study.comparisons), ""), "treatment": study.main_treatment,
        "inference": ("cluster", "none"),
    }  # fmt: skip
    words = [row.part, row.outcome]
    for key in ("subgroup", "level", "comparison", "treatment", "inference"):
        value = getattr(row, key)
        if value and value != usual.get(key) and value not in usual.get(key, ()):
            words.append(value)
    if row.part == "flow":
        words = [row.part, *([row.comparison] if row.comparison != usual["comparison"] else [])]
    words += [row.term, "" if row.period is None else str(row.period), column]
    return ".".join(w.replace(" ", "_") for w in words if w)


class Fact:
    """A published fact of facts.toml: prints its text; entered in numbers.json with its source."""

    def __init__(self, press: Press, facts: Mapping[str, Any], file: str) -> None:
        self._press, self._facts, self._file = press, facts, file

    def __getattr__(self, name: str) -> str:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            entry = self._facts["fact"][name]
        except KeyError:
            raise StudyError(f"{self._file}: no fact '{name}'. {_choices(name, self._facts.get('fact', {}))}") from None
        self._press.record(f"fact.{name}", entry["text"], entry["text"], f"published: {entry['source']}")
        return markup.markdown(entry["text"])

    __getitem__ = __getattr__


class Press:
    """One rendering: the rows, the study and the run, with everything templates may ask of them."""

    def __init__(self, rows: tuple[Row, ...], study: Study, run: Run, manuscript: Path, published: Path) -> None:
        self.rows, self.study, self.run, self.manuscript = rows, study, run, manuscript
        self.numbers: dict[str, dict[str, object]] = {}
        self._blocks: dict[str, Block] = {}
        self._published_path = published
        self._published: dict[str, Any] | None = None
        self._placed: set[str] = set()
        self._environments: dict[str, jinja2.Environment] = {}
        facts = manuscript / "facts.toml"
        self.facts = _toml(facts) if facts.exists() else {}
        self.templates = {name: _header(name, manuscript) for name in study.exhibits}
        for template in self.templates.values():
            self._check(template.header, template.file)
        self.places = _count(self.templates.values())

    # numbers

    def record(self, name: str, text: str, raw: object, source: str) -> None:
        """Enter a printed number. A name that already stands for another number takes the analysis into its name."""
        entry = {"text": text, "raw": raw, "source": source}
        if self.numbers.setdefault(name, entry)["raw"] != raw:
            self.numbers[f"{name} [{source}]"] = entry

    def said(self, **wanted: object) -> tuple[Said, ...]:
        """Rows with a number, for prose; columns and values as in a header's `select`."""
        self._check_select(wanted, "rows(…)")
        found = (Said(self, row, "") for row in self._ordered(select(self.rows, **wanted)))
        return tuple(s for s in found if s.ok)

    def one(self, **wanted: object) -> Said:
        """The one row that fits; if there is none with a number, `.ok` is false and `.reason` says why."""
        self._check_select(wanted, "one(…)")
        rows = select(self.rows, **wanted)
        good = [r for r in rows if r.status == "ok"]
        if len(good) > 1:
            raise StudyError(
                f"one({_words(wanted)}): {len(good)} rows fit, among them {good[0].analysis} ({good[0].term}) and "
                f"{good[1].analysis} ({good[1].term}). Say more of what is wanted."
            )
        if good:
            return Said(self, good[0], "")
        loose = {k: v for k, v in wanted.items() if k not in ("term", "level", "period")}
        reasons = [r.reason for r in rows or select(self.rows, **loose) if r.status != "ok" and r.reason]
        return Said(self, rows[0] if rows else None, reasons[0] if reasons else f"no row has {_words(wanted)}")

    # templates

    def text(self, file: str, **more: object) -> str:
        """A Markdown template, rendered."""
        return self._render(lambda: self._markdown().get_template(file).render(**more), file)

    def line(self, source: str, file: str) -> str:
        """A short text of a header, rendered as plain text."""
        if "{" not in source:
            return source
        return self._render(lambda: self._markdown().from_string(source).render(), file)

    def format(self, file: str, **values: object) -> str:
        """A template of formats/, in the delimiters of its kind."""
        ending = file.split(".")[-2]
        return self._render(lambda: self._environment(ending).get_template(file).render(**values), f"formats/{file}")

    def _render(self, go: Callable[[], str], file: str) -> str:
        try:
            return go()
        except jinja2.TemplateSyntaxError as e:
            raise StudyError(f"{e.name or file}: line {e.lineno}: {e.message}. Correct the template.") from None
        except jinja2.TemplateNotFound as e:
            raise StudyError(f"{file}: no template '{e.name}' in {self.manuscript.name}/. Add it or mend the name.") from None
        except jinja2.UndefinedError as e:
            raise StudyError(f"{file}: line {_template_line(e)}: {e.message}. manuscript/README.md lists what there is.") from None
        except (StudyError, KeyError, TypeError) as e:
            if isinstance(e, StudyError) and getattr(e, "located", False):
                raise
            said = StudyError(f"{file}: line {_template_line(e)}: {e.args[0] if e.args else e}")
            said.located = True  # type: ignore[attr-defined]  # the innermost template names the line
            raise said from None

    def _environment(self, ending: str) -> jinja2.Environment:
        if ending not in self._environments:
            own: dict[str, Any] = {}
            if ending in ("tex", "typ"):  # braces are theirs
                own = {
                    "variable_start_string": "<<", "variable_end_string": ">>", "block_start_string": "<%",
                    "block_end_string": "%>", "comment_start_string": "<#", "comment_end_string": "#>",
                }  # fmt: skip
            env = jinja2.Environment(
                loader=jinja2.FileSystemLoader(self.manuscript / "formats"), undefined=jinja2.StrictUndefined,
                autoescape=ending in ("html", "css"), trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, **own,
            )  # fmt: skip
            env.filters |= {
                "md": markup.markdown, "tex": markup.latex, "typ": markup.typst, "typ_string": markup.string,
                "html_piece": markup.html, "typ_piece": lambda p: markup.as_typst(p, "report.md.j2"),
                "svg": lambda f: figures.inline(f.drawing.svg.decode(), html.escape(f.alt)), "data": _data,
            }  # fmt: skip
            self._environments[ending] = env
        return self._environments[ending]

    def _markdown(self) -> jinja2.Environment:
        if "prose" not in self._environments:
            env = jinja2.Environment(
                loader=jinja2.FileSystemLoader([self.manuscript, self.manuscript / "exhibits"]),
                undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
            )  # fmt: skip
            env.filters |= {"md": markup.markdown}
            words = self.facts.get("words", {})
            env.globals |= {
                "rows": self.said, "one": self.one, "fact": Fact(self, self.facts, "facts.toml"), "study": self.study,
                "policy": self.policy, "kind": kind(self.run), "banner": banner(self.run), "run": self.run,
                "level": percent(self.study.policy.conf_level), "treated": words.get(kind(self.run), "treated areas"),
                "exhibit": self.exhibit, "others": self.others, "ref": self.ref, "outcomes": self.outcomes,
                "start": self.start, "versions": sorted(self.run.versions.items()), "number": self.own,
                "lacks": [(markup.markdown(k), markup.markdown(v)) for k, v in sorted(self.run.lacks.items())],
                "notes": [markup.markdown(n) for n in self.run.notes], "known": self.known, "cited": self.cited,
            }  # fmt: skip
            self._environments["prose"] = env
        return self._environments["prose"]

    def policy(self, name: str) -> str:
        """A choice of study.toml's [policy] or `seed`, as printed."""
        value = self.study.seed if name == "seed" else getattr(self.study.policy, name, None)
        if value is None:
            raise StudyError(f"no policy '{name}'. {_choices(name, self.study.policy.__slots__)}")
        text = plain(value).replace(",", "") if isinstance(value, int | float) else str(value)
        self.record(f"study.{name}", text, value, "study.toml")
        return text

    def own(self, name: str, value: float, text: str = "") -> str:
        """A count that the template made of rows, such as how many; entered under `name`."""
        said = text or plain(value)
        self.record(f"count.{name}", said, value, "counted by the template")
        return said

    def start(self) -> str:
        """The year in which the main treatment starts, or the label of its rule."""
        treatment = self.study.treatments[self.study.main_treatment]
        return str(treatment.year) if treatment.year is not None else markup.markdown(treatment.label.lower())

    def outcomes(self, **wanted: object) -> tuple[str, ...]:
        """Names of outcomes among the rows that fit, in the study's order."""
        found = {r.outcome for r in select(self.rows, **wanted)}
        return tuple(name for name in self.study.outcomes if name in found)

    def cited(self) -> tuple[str, ...]:
        """The sources that facts and published estimates come from."""
        sources = self.published().get("sources", {}) | self.facts.get("sources", {})
        return tuple(markup.markdown(sources[k]) for k in sorted(sources))

    def known(self) -> tuple[dict[str, Any], ...]:
        """Estimates beside the known truth: dicts of `ours` (Said), `truth` (Said), `off` (standard errors), `covers`."""
        out = []
        for ours in self.said(part="effects", inference="cluster", term="att"):
            row = ours.raw
            truth = self.one(part="truth", outcome=row.outcome, subgroup="all", term="att") if row else None
            if row is None or truth is None or not truth.ok or truth.raw is None:
                continue
            off, covers = _held(row, truth.raw)
            out.append({"ours": ours, "truth": truth, "off": off, "covers": covers})
        return tuple(out)

    # exhibits in the report

    def exhibit(self, name: str) -> str:
        """An exhibit's text with places for its table and figure; nothing if study.toml does not list it."""
        if name not in self.templates:
            return ""
        self._placed.add(name)
        block, template = self.block(name), self.templates[name]
        has = {"table": block.table is not None, "figure": block.figure is not None}
        spots = {w: f"\n\n@@{w}.{name}@@\n\n" if has[w] else "" for w in has}
        if block.missing:
            return f"\n\n@@missing.{name}@@\n\n"
        body = self._render(lambda: self._markdown().from_string(template.body).render(**spots), template.file)
        for what, spot in spots.items():
            if spot and f"@@{what}.{name}@@" not in body:
                body += spot
        return f"\n\n{body}\n\n"

    def others(self) -> str:
        """The exhibits that the report's text did not place, in order: an added file needs no other change."""
        return "".join(self.exhibit(name) for name in self.study.exhibits if name not in self._placed)

    def ref(self, name: str, what: str = "table") -> str:
        """`Table 4`, linked."""
        if name not in self.templates or (name, what) not in self.places:
            return "an exhibit left out of this report"
        block = self.block(name)
        words = f"{what.capitalize()} {self.places[name, what]}"
        there = block.table if what == "table" else block.figure
        return f"[{words}](#{what}-{name})" if there and not block.missing else f"{words} (not available in this run)"

    def block(self, name: str) -> Block:
        """The exhibit, made once."""
        if name not in self._blocks:
            self._blocks[name] = _block(self, self.templates[name])
        return self._blocks[name]

    def published(self) -> dict[str, Any]:
        """The published estimates, read once."""
        if self._published is None:
            self._published = _toml(self._published_path)
        return self._published

    # headers

    def _check(self, header: Header, file: str) -> None:
        def named(at: str, seen: str, known: Iterable[str], what: str) -> None:
            if seen not in list(known):
                raise StudyError(f"{file}: {at}: no {what} '{seen}'. {_choices(seen, known)}")

        for at, wanted in (("select", header.select), ("figure_select", header.figure_select), *header.like.items()):
            self._check_select(wanted, f"{file}: {at}")
        if header.source == "rows":
            for key in (*header.lines, *([header.group] if header.group else [])):
                named("lines", key, (*COLUMNS, "family"), "column of results")
        values = {"rows": (*COLUMNS, *DERIVED), "run": RUN_VALUES, "published": PUBLISHED_VALUES}[header.source]
        for i, column in enumerate(header.columns):
            named(f"columns[{i}] ({column.head}).value", column.value, values, "value")
            if column.format:
                named(f"columns[{i}] ({column.head}).format", column.format, FORMATS, "format")
            self._check_select(column.where, f"{file}: columns[{i}] ({column.head}).where")
        if header.kind != "table":
            named("figure", header.figure, figures.FIGURES, "figure")
            if not header.alt:
                raise StudyError(f"{file}: alt: a figure needs alternative text. Say in a sentence what it shows.")
        if header.kind != "figure" and not header.columns:
            raise StudyError(f"{file}: columns: a table needs at least one. Add [[columns]] with head and value.")

    def _check_select(self, wanted: Mapping[str, object], at: str) -> None:
        """Columns must exist, and names must be names of the study: a typo is not an empty table."""
        study = self.study
        covariates = [x for c in study.comparisons.values() for x in (*c.covariates, *c.optional)]
        known: dict[str, Collection[str]] = {
            "part": dict.fromkeys([*(b.part for b in study.analyses), *(r.part for r in self.rows)]),
            "outcome": ["", *study.outcomes, *covariates],
            "comparison": ["", *study.comparisons],
            "treatment": ["", *study.treatments],
            "inference": ["", "none", "cluster", "wild_bootstrap"],
            "status": ["ok", "inapplicable", "suppressed"],
        }
        for column, value in wanted.items():
            if column not in COLUMNS:
                raise StudyError(f"{at}: no column '{column}' in results. {_choices(column, COLUMNS)}")
            for one in value if isinstance(value, list | tuple) else (value,):
                if column in known and one not in known[column]:
                    raise StudyError(f"{at}: no {column} '{one}' in study.toml. {_choices(str(one), known[column])}")

    def _ordered(self, rows: Iterable[Row]) -> list[Row]:
        return sorted(rows, key=lambda r: tuple(order(self.study, c, getattr(r, c)) for c in ("outcome", "subgroup", "level", "comparison")))


def _count(templates: Iterable[Template]) -> dict[tuple[str, str], int]:
    """Numbers of tables and figures, in the study's order, whatever this run can show."""
    out: dict[tuple[str, str], int] = {}
    seen = {"table": 0, "figure": 0}
    for template in templates:
        for what in ("table", "figure") if template.header.kind == "both" else (template.header.kind,):
            seen[what] += 1
            out[template.id, what] = seen[what]
    return out


def _template_line(error: BaseException) -> int:
    line, at = 0, error.__traceback__
    while at:
        if at.tb_frame.f_code.co_filename.endswith(".j2") or at.tb_frame.f_code.co_filename == "<template>":
            line = at.tb_lineno
        at = at.tb_next
    return line


def _choices(seen: str, known: Iterable[str]) -> str:
    names = [k for k in known if k]
    close = difflib.get_close_matches(seen, names, 1)
    return (f"Did you mean '{close[0]}'? " if close else "") + f"Choose from {', '.join(names)}."


def _words(wanted: Mapping[str, object]) -> str:
    return ", ".join(f"{k} {v}" for k, v in wanted.items())


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path.name}: no such file. Run from a clone of the project.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise DataError(f"{path.name}: not valid TOML: {e}. Mend the line named.") from None


def _data(text: str) -> str:
    return "data:text/csv;charset=utf-8;base64," + base64.b64encode(text.encode()).decode()


# --- from rows to a table -----------------------------------------------------------------------------------------


def _block(press: Press, template: Template) -> Block:
    header = template.header
    rows = _chosen(press, header, header.select)
    shown = [r for r in rows if r.status == "ok"]
    if header.source == "rows" and not shown:
        why = _missing(press, rows, header)
        return Block(template, _empty(press, template, why) if header.kind != "figure" else None, missing=why)
    table = _table(press, template, rows) if header.kind != "figure" else None
    figure = _figure(press, template) if header.kind != "table" else None
    return Block(template, table, figure)


def _chosen(press: Press, header: Header, wanted: Mapping[str, Any]) -> list[Row]:
    rows = list(select(press.rows, **wanted))
    for column, where in header.like.items():
        among = {getattr(r, column) for r in select(press.rows, **where)}
        rows = [r for r in rows if getattr(r, column) in among]
    return rows


def _missing(press: Press, rows: Sequence[Row], header: Header) -> tuple[str, ...]:
    """Why there is nothing to show, and how to get it."""
    reasons = list(dict.fromkeys(r.reason for r in rows if r.reason))
    about = {r.outcome for r in rows}
    wanted = {x for o in press.study.outcomes.values() if o.name in about for x in (o.table, o.column, f"{o.table}.{o.column}")}
    hints = [f"{k}: {v}" for k, v in sorted(press.run.lacks.items()) if not rows or k in wanted]
    if not reasons and not hints:
        reasons = [f"no row of results.csv has {_words(header.select)}; add an analysis that makes it to study.toml"]
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
    return Table(template.id, _caption(press, template, "table"), heads, lines, (), banner(press.run), False, out.getvalue())


class Notes:
    """Footnotes of a table: each reason once, lettered in the order of its first mark."""

    def __init__(self) -> None:
        self.letters: dict[str, str] = {}

    def mark(self, reasons: Iterable[str]) -> str:
        """The letters for some reasons."""
        marks = []
        for reason in dict.fromkeys(r for r in reasons if r):
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


def _table(press: Press, template: Template, rows: Sequence[Row]) -> Table:
    header = template.header
    columns = [c for c in header.columns if not c.when or kind(press.run) in c.when]
    if header.source == "rows":
        _check_terms(press, template, rows, columns)
        lines = _lines(press, header, rows)
        found = [[_find(press, template, c, line, key) for c in columns] for key, line in lines]
        groups = [label(press.study, header.group, key.get(header.group)) if header.group else "" for key, _ in lines]
    else:
        records = _run_lines(press) if header.source == "run" else _published_lines(press)
        found = [[record[c.value] for c in columns] for record in records]
        groups = [str(record[header.group].text) if header.group else "" for record in records]
    for line in found:
        _rescale(columns, line)
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
            cells.append(Cell(f.text, notes.mark((f.why, new)), f.raw))
        out.append(Line(tuple(cells)))
    heads = tuple(
        Head(press.line(c.head, template.file), _numeric(c), c.width or _width(c), c.value.endswith("interval")) for c in columns
    )
    text = [("", press.line(header.note, template.file))] if header.note else []
    text += [("", f"{r}.".replace("..", ".")) for r in sorted(everywhere)]
    text += [(letter, reason) for reason, letter in notes.letters.items()]
    return Table(
        template.id, _caption(press, template, "table"), heads, tuple(out), tuple(text), banner(press.run),
        header.landscape, _table_csv(heads, out, dict((b, a) for a, b in notes.letters.items()), press.run),
    )  # fmt: skip


def _numeric(column: Column) -> bool:
    return column.format != "text" and column.value not in (*LABELLED, "unit", "label", "source", "verdict", "table", "what", "status")


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
                raise StudyError(
                    f"{template.file}: column '{column.head}' wants term '{term}', which no row of "
                    f"{_words(template.header.select)} has. {_choices(term, terms)}"
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
    if value in ("unit", "unit_label") and fitting:
        return _Found(fitting[0].unit, (fitting[0].unit,))
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
            return _Found(interval(*raw, decimals(row.unit)), raw, caution=row.reason, row=row)
        if isinstance(raw, str):
            return _Found(label(press.study, value, raw) or "–", (raw,), row=row)
        form = column.format or format_of(value)
        return _Found(FORMATS[form](raw, row), (raw,), caution=row.reason, row=row)
    near = fitting or select(rows, **{k: v for k, v in column.where.items() if k not in ("term", "level", "period")})
    why = [r.reason or r.status for r in near if r.status != "ok"]
    blank = ("", "") if value == "interval" else ("",)
    if why:
        return _Found(NONE, blank, why=why[0])
    return _Found("–", blank)


def _named(press: Press, column: str, value: Any, rows: Sequence[Row]) -> _Found:
    if column == "level" and not value:
        text = "Test of the difference" if any(r.term == "difference" for r in rows) else "All levels"
        return _Found(text, ("",))
    if column == "period":
        return _Found("All" if value is None else FORMATS["signed"](value, None), ("" if value is None else value,))
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


# --- lines that are not rows of results ---------------------------------------------------------------------------

RUN_VALUES = ("table", "what", "digest", "status")
PUBLISHED_VALUES = (
    "label", "unit", "source", "published", "published_interval", "ours", "ours_interval", "truth", "off", "covers",
    "difference", "verdict",
)  # fmt: skip


def _run_lines(press: Press) -> list[dict[str, _Found]]:
    """Each table of data: what it is, its digest, or that the tier lacks it."""
    out = []
    names = [*press.run.digests, *(k for k in press.run.lacks if k in TABLES and k not in press.run.digests)]
    for name in sorted(names, key=lambda n: (list(TABLES).index(n) if n in TABLES else 99, n)):
        doc = TABLES[name].doc if name in TABLES else "File as it was read."
        digest, why = press.run.digests.get(name, ""), press.run.lacks.get(name, "")
        out.append(
            {
                "table": _Found(name, (name,)),
                "what": _Found(doc, (doc,)),
                "digest": _Found(digest[:12] or NONE, (digest,), why=why if not digest else ""),
                "status": _Found("present" if digest else "missing", ("present" if digest else "missing",), caution=why if digest else ""),
            }
        )
    return out


def _held(ours: Row, truth: Row) -> tuple[float | None, bool | None]:
    """Bias in standard errors, and whether the interval covers the known effect."""
    if ours.estimate is None or truth.estimate is None:
        return None, None
    off = (ours.estimate - truth.estimate) / ours.std_error if ours.std_error else None
    covers = None
    if ours.conf_low is not None and ours.conf_high is not None:
        covers = ours.conf_low <= truth.estimate <= ours.conf_high
    return off, covers


def _published_lines(press: Press) -> list[dict[str, _Found]]:
    """Each published estimate, and beside it the row that replicates it with what may be said of the two."""
    file = press._published_path.name
    sources = press.published().get("sources", {})
    out = []
    for entry in press.published().get("estimate", ()):
        try:
            at, said, unit, source = entry["id"], entry["estimate"], entry["unit"], entry["source"]
            name, low, high = entry["label"], entry.get("conf_low"), entry.get("conf_high")
            cite = sources[source].split(",")[0]
        except KeyError as e:
            raise DataError(f"{file}: estimate {entry.get('id', entry)}: no {e}. Every estimate has a source and unit.") from None
        digits = [len(repr(float(v)).partition(".")[2].rstrip("0")) for v in (said, low, high) if v is not None]
        places = max(digits)
        line = {
            "label": _Found(name, (name,)),
            "unit": _Found(unit, (unit,)),
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
    press._check_select(wanted, at)
    ours = press.one(**wanted)
    row = ours.raw
    if not ours.ok or row is None or row.estimate is None:
        why = (row.reason if row else "") or f"No row of this run has {_words(wanted)}"
        gone = _Found(NONE, ("",), why=why)
        return dict.fromkeys(("ours", "truth", "off", "covers", "difference", "verdict"), gone) | {
            "ours_interval": _Found(NONE, ("", ""), why=why)
        }
    places = decimals(row.unit)
    line = {"ours": _Found(number(row.estimate, places), (row.estimate,), caution=row.reason, row=row)}
    if row.conf_low is None or row.conf_high is None:
        line["ours_interval"] = _Found("–", ("", ""))
    else:
        line["ours_interval"] = _Found(interval(row.conf_low, row.conf_high, places), (row.conf_low, row.conf_high))
    line |= _truth_cells(press, wanted, row, places)
    low, high = entry.get("conf_low"), entry.get("conf_high")
    if low is None or high is None or not row.std_error:
        return line | dict.fromkeys(("difference", "verdict"), _Found("–", ("",)))
    from statistics import NormalDist

    theirs = (high - low) / (2 * NormalDist().inv_cdf(0.5 + press.study.policy.conf_level / 2))
    apart = (row.estimate - entry["estimate"]) / (theirs**2 + row.std_error**2) ** 0.5
    far = abs(apart) > NormalDist().inv_cdf(0.5 + press.study.policy.conf_level / 2)
    same = (row.estimate < 0) == (entry["estimate"] < 0)
    verdict = "differs" if far else "agrees, same sign" if same else "agrees, other sign"
    return line | {"difference": _Found(number(apart, 2), (apart,)), "verdict": _Found(verdict, (verdict,))}


def _truth_cells(press: Press, wanted: Mapping[str, Any], row: Row, places: int) -> dict[str, _Found]:
    truth = press.one(part="truth", outcome=row.outcome, subgroup=wanted.get("subgroup", "all"), level=row.level, term="att")
    if not truth.ok or truth.raw is None or truth.raw.estimate is None:
        reason = (truth.raw.reason if truth.raw else "") or "The effect is not known in these data."
        return dict.fromkeys(("truth", "off", "covers"), _Found(NONE, ("",), why=reason))
    off, covers = _held(row, truth.raw)
    return {
        "truth": _Found(number(truth.raw.estimate, places), (truth.raw.estimate,)),
        "off": _Found("–", ("",)) if off is None else _Found(number(off, 2), (off,)),
        "covers": _Found("–", ("",)) if covers is None else _Found("yes" if covers else "no", ("yes" if covers else "no",)),
    }


# --- figures ------------------------------------------------------------------------------------------------------


def _figure(press: Press, template: Template) -> Figure | None:
    header = template.header
    rows = _chosen(press, header, header.figure_select or header.select)
    shown = tuple(r for r in rows if r.status == "ok")
    if not shown:
        return None
    notes = [("", press.line(header.figure_note, template.file))] if header.figure_note else []
    gone: dict[str, list[str]] = {}
    for row in rows:
        if row.status != "ok":
            what = label(press.study, "outcome", row.outcome) or row.analysis
            more = f" ({label(press.study, 'subgroup', row.subgroup)})" if row.subgroup not in ("", "all") else ""
            gone.setdefault(row.reason or row.status, []).append(what + more)
    notes += [("", f"Not shown: {', '.join(dict.fromkeys(names))}: {why}") for why, names in gone.items()]
    words = press.facts.get("words", {})
    canvas = figures.Canvas(shown, press.study, words.get(kind(press.run), "treated areas"))
    drawing = figures.draw(header.figure, canvas, banner(press.run), template.id)
    alt = press.line(header.alt, template.file)
    if banner(press.run):
        alt = f"{banner(press.run)}. {alt}"
    return Figure(
        template.id, _caption(press, template, "figure"), alt, tuple(notes), drawing, _figure_csv(press, rows)
    )  # fmt: skip


def _figure_csv(press: Press, rows: Sequence[Row]) -> str:
    """The numbers behind a figure: the columns of results that say anything here."""
    columns = [c for c in COLUMNS if c != "digest" and any(getattr(r, c) not in (None, "") for r in rows)]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_plain("" if (v := getattr(row, c)) is None else v) for c in columns])
    return out.getvalue()
