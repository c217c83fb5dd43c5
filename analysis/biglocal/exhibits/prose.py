"""What templates may say: rows as sentences use them, facts, choices of the study; each number is written down.

A template never formats a number itself: it asks a row, a fact or the study, and what it printed is
entered in numbers.json by a readable name, with its raw value and the analysis it comes from.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, get_args
from urllib.parse import quote

import jinja2

from biglocal.data.tables import TABLES
from biglocal.exhibits import markup
from biglocal.exhibits.headers import toml, words
from biglocal.exhibits.wording import (
    FORMATS,
    banner,
    decimals,
    interval,
    kind,
    label,
    number,
    order,
    outcome_of,
    p_phrase,
    percent,
    plain,
    sentence,
    unit_in_words,
)  # fmt: skip
from biglocal.model import Inference, StudyError
from biglocal.results import COLUMNS, Row, select
from biglocal.study import MONEY, choices, expand

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from pathlib import Path

    from biglocal.model import Run, Study

NONE = "n/a"


class Said:
    """A row as prose may use it: each number asked for is formatted and entered in numbers.json.

    `ok` is whether there is a number; if not, `reason` says why. `raw` is the row, for comparisons in templates.
    """

    def __init__(self, press: Press, row: Row | None, reason: str) -> None:
        self._press = press
        self.raw = row
        self.ok = row is not None and row.status == "ok" and (row.estimate is not None or row.p_value is not None)
        self.why = reason or (press.why(row) if row and row.status != "ok" else "")
        self.reason = markup.markdown(self.why)

    def _row(self) -> Row:
        if self.raw is None:
            raise StudyError(
                f"a template asks for a number of a row that is not there ({self.reason}). Ask `.ok` first."
            )
        return self.raw

    def _say(self, column: str, text: str, *raw: object) -> str:
        row = self._row()
        value = raw[0] if len(raw) == 1 else list(raw)
        return self._press.record(_name(self._press.study, row, column), text, value, row.analysis, row)

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
    def percent(self) -> str:
        """The estimate, a share, as a percentage."""
        return self._number("estimate", "percent")

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
        """The subgroup's level; of money, the scenario or input."""
        return markup.markdown(label(self._press.study, "level", self._row().level))

    @property
    def subgroup(self) -> str:
        """The subgroup's label."""
        return markup.markdown(label(self._press.study, "subgroup", self._row().subgroup))

    @property
    def unit(self) -> str:
        """The unit of the estimate, as a sentence says it."""
        return markup.markdown(unit_in_words(self._row().unit))

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
    for key in ("exposure", "subgroup", "level", "comparison", "respondents", "treatment", "inference"):
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
            raise StudyError(f"{self._file}: no fact '{name}'. {choices(name, self._facts.get('fact', {}))}") from None
        self._press.cite(entry["source"])
        source = f"published: {entry['source']}"
        return self._press.record(f"fact.{name}", markup.markdown(entry["text"]), entry["text"], source)

    __getitem__ = __getattr__


class Press:
    """One rendering: the rows, the study and the run, with everything templates may ask of them."""

    def __init__(self, rows: tuple[Row, ...], study: Study, run: Run, manuscript: Path, published: Path) -> None:
        self.rows, self.study, self.run, self.manuscript = rows, study, run, manuscript
        self.plan = expand(study)
        self.terms: dict[str, tuple[Row, set[str]]] = {}  # analyses that have rows -> one of these, and their terms
        for row in (r for r in rows if r.term):
            self.terms.setdefault(row.analysis, (row, set()))[1].add(row.term)
        self.places: dict[tuple[str, str], int] = {}
        self.numbers: dict[str, dict[str, object]] = {}
        self.published_path = published
        self.before: Path | None = None  # the figures of an earlier run, where they may be taken as they are
        self._published: dict[str, Any] | None = None
        self._cited: set[str] = set()
        self.cards: dict[str, str] = {}
        self.used: set[str] = set()  # keys of rows that the report shows
        self._file = ""  # the template being rendered: where a number is printed
        self._environments: dict[str, jinja2.Environment] = {}
        self._known = _names(study, rows)
        facts = manuscript / "facts.toml"
        self.facts = toml(facts) if facts.exists() else {}

    # numbers

    def record(self, name: str, text: str, raw: object, source: str, row: Row | None = None) -> str:
        """Enter a printed number; give it back marked with the name of its card.

        A name that already stands for another number takes the analysis into its name.
        """
        entry = {"text": markup.unescaped(text), "raw": raw, "source": source, "template": self._file}
        if row:
            entry["row"] = row.key
        if self.numbers.setdefault(name, entry)["raw"] != raw:
            name = f"{name} [{source}]"
            self.numbers[name] = entry
        return markup.marked(text, self.card(row.key if row else name))

    def card(self, origin: str) -> str:
        """The name of the card of a row (by its key) or of a number of the prose (by its name)."""
        self.used.add(origin)
        return self.cards.setdefault(origin, f"c{len(self.cards)}")

    def said(self, **wanted: object) -> tuple[Said, ...]:
        """Rows with a number, for prose; columns and values as in a header's `select`."""
        self.check_select(wanted, "rows(…)")
        found = (Said(self, row, "") for row in self.ordered(select(self.rows, **wanted)))
        return tuple(s for s in found if s.ok)

    def gone(self, **wanted: object) -> tuple[Said, ...]:
        """What has no number among the rows that fit, once for each outcome: `.label` and `.reason`."""
        self.check_select(wanted, "gone(…)")
        rows = self.ordered(r for r in select(self.rows, **wanted) if r.status != "ok")
        return tuple(Said(self, row, "") for row in {r.outcome: r for r in reversed(rows)}.values())[::-1]

    def one(self, **wanted: object) -> Said:
        """The one row that fits; if there is none with a number, `.ok` is false and `.reason` says why."""
        self.check_select(wanted, "one(…)")
        rows = select(self.rows, **wanted)
        good = [r for r in rows if r.status == "ok"]
        if len(good) > 1:
            raise StudyError(
                f"one({words(wanted)}): {len(good)} rows fit, among them {good[0].analysis} ({good[0].term}) and "
                f"{good[1].analysis} ({good[1].term}). Say more of what is wanted."
            )
        if good:
            return Said(self, good[0], "")
        loose = {k: v for k, v in wanted.items() if k not in ("term", "level", "period")}
        reasons = [self.why(r) for r in rows or select(self.rows, **loose) if r.status != "ok"]
        return Said(
            self, rows[0] if rows else None, reasons[0] if reasons else f"No row of this run has {words(wanted)}."
        )

    def why(self, row: Row) -> str:
        """Why a row has no number, as a sentence; what many rows lack alike is said in the same words for all."""
        for how in sorted(set(self.run.lacks.values()), key=lambda text: (-len(text), text)):
            if how in row.reason:
                return sentence(how)
        return sentence(row.reason.removeprefix(f"{label(self.study, 'outcome', row.outcome)}: ") or row.status)

    def more(self) -> dict[str, Any]:
        """What else prose may call; a report adds its exhibits."""
        return {}

    # templates

    def text(self, file: str, **more: object) -> str:
        """A Markdown template, rendered."""
        return self.render(lambda: self.markdown().get_template(file).render(**more), file)

    def line(self, source: str, file: str) -> str:
        """A short text of a header, rendered as plain text: the backticks of code fall away."""
        if "{" in source:
            source = markup.unmarked(self.render(lambda: self.markdown().from_string(source).render(), file))
        return source.replace("`", "")

    def format(self, file: str, **values: object) -> str:
        """A template of formats/, in the delimiters of its kind."""
        ending = file.split(".")[-2]
        return self.render(lambda: self._environment(ending).get_template(file).render(**values), f"formats/{file}")

    def render(self, go: Callable[[], str], file: str) -> str:
        """Call `go`; whatever is wrong becomes a `StudyError` that names the template and its line."""
        outer, self._file = self._file, file
        try:
            return go()
        except jinja2.TemplateSyntaxError as e:
            raise StudyError(f"{e.name or file}: line {e.lineno}: {e.message}. Correct the template.") from None
        except jinja2.TemplateNotFound as e:
            raise StudyError(
                f"{file}: no template '{e.name}' in {self.manuscript.name}/. Add it or mend the name."
            ) from None
        except jinja2.UndefinedError as e:
            raise StudyError(
                f"{file}: line {_line(e)}: {e.message}. manuscript/README.md lists what there is."
            ) from None
        except (StudyError, KeyError, TypeError) as e:
            if isinstance(e, StudyError) and getattr(e, "located", False):
                raise
            said = StudyError(f"{file}: line {_line(e)}: {e.args[0] if e.args else e}")
            said.located = True  # type: ignore[attr-defined]  # the innermost template names the line
            raise said from None
        finally:
            self._file = outer

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
                autoescape=ending in ("html", "css"), trim_blocks=True, lstrip_blocks=True,
                keep_trailing_newline=True, **own,
            )  # fmt: skip
            env.filters |= {
                "md": markup.markdown, "tex": markup.latex, "typ": markup.typst, "typ_string": markup.string,
                "html_piece": markup.html, "typ_piece": lambda p: markup.as_typst(p, "report.md.j2"),
                "data": _data,
            }  # fmt: skip
            self._environments[ending] = env
        return self._environments[ending]

    def markdown(self) -> jinja2.Environment:
        """The environment of prose: rows, facts, the study's choices, and the words for this kind of run."""
        if "prose" not in self._environments:
            env = jinja2.Environment(
                loader=jinja2.FileSystemLoader([self.manuscript, self.manuscript / "exhibits"]),
                undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
            )  # fmt: skip
            env.filters |= {"md": markup.markdown}
            words = self.facts.get("words", {})
            env.globals |= {
                "rows": self.said, "one": self.one, "gone": self.gone,
                "fact": Fact(self, self.facts, "facts.toml"), "study": self.study,
                "policy": self.policy, "kind": kind(self.run), "banner": banner(self.run), "run": self.run,
                "level": percent(self.study.policy.conf_level), "treated": words.get(kind(self.run), "treated areas"),
                "outcomes": self.outcomes, "draws": self.own("draws", self.run.draws),
                "start": self.start, "versions": sorted(self.run.versions.items()), "number": self.own,
                "lacks": self.lacks(),
                "notes": [markup.markdown(n) for n in self.run.notes], "known": self.known,
                "cite": self.cite, "cited": self.cited,
            }  # fmt: skip
            env.globals |= self.more()
            self._environments["prose"] = env
        return self._environments["prose"]

    def policy(self, name: str, as_percent: bool = False) -> str:
        """A choice of study.toml's [policy] or `seed`, as printed; a share as a percentage if so asked."""
        value = self.study.seed if name == "seed" else getattr(self.study.policy, name, None)
        if value is None:
            raise StudyError(f"no policy '{name}'. {choices(name, self.study.policy.__slots__)}")
        text = plain(value).replace(",", "") if isinstance(value, int | float) else str(value)
        text = percent(value) if as_percent else text
        said = self.record(f"study.{name}", text, value, "study.toml")
        return said if isinstance(value, int | float) else text

    def own(self, name: str, value: float | str) -> str:
        """A count that the template made of rows, such as how many, or a version; entered under `name`."""
        said = value if isinstance(value, str) else plain(value)
        return self.record(f"count.{name}", said, value, "counted by the template")

    def start(self) -> str:
        """The year in which the main treatment starts, or the label of its rule."""
        treatment = self.study.treatments[self.study.main_treatment]
        return str(treatment.year) if treatment.year is not None else markup.markdown(treatment.label.lower())

    def outcomes(self, **wanted: object) -> tuple[str, ...]:
        """Names of outcomes among the rows that fit, in the study's order."""
        found = {r.outcome for r in select(self.rows, **wanted)}
        return tuple(name for name in self.study.outcomes if name in found)

    def cite(self, key: str) -> str:
        """`Austin 2009`, for a source of facts.toml or published.toml; what is cited stands in the list of sources."""
        sources = self.published().get("sources", {}) | self.facts.get("sources", {})
        if key not in sources:
            raise StudyError(f"no source '{key}' in facts.toml or published.toml. {choices(key, sources)}")
        self._cited.add(key)
        year = re.search(r"\d{4}", key)
        return markup.markdown(" ".join([sources[key].split(",")[0], *([year[0]] if year else [])]))

    def cited(self) -> tuple[str, ...]:
        """The sources cited so far, in the order of the alphabet: asked for at the end."""
        sources = self.published().get("sources", {}) | self.facts.get("sources", {})
        return tuple(markup.markdown(text) for text in sorted(sources[k] for k in self._cited))

    def lacks(self) -> tuple[tuple[str, str], ...]:
        """What of tables the run has is missing, with how to get it; columns lacking for one reason together."""
        together: dict[str, list[str]] = {}
        for what, how in sorted(self.run.lacks.items()):
            if what not in TABLES:  # whole tables stand in the table of sources
                together.setdefault(how, []).append(what)
        return tuple(
            (markup.markdown(", ".join(names)), markup.markdown(sentence(how))) for how, names in together.items()
        )

    def known(self) -> tuple[dict[str, Any], ...]:
        """Estimates beside the known truth: dicts of `ours`, `truth` (Said), `off` (standard errors), `covers`."""
        out = []
        for ours in self.said(part="effects", inference="cluster", term="att"):
            row = ours.raw
            truth = self.one(part="truth", outcome=row.outcome, subgroup="all", term="att") if row else None
            if row is None or truth is None or not truth.ok or truth.raw is None:
                continue
            off, covers = held(row, truth.raw)
            out.append({"ours": ours, "truth": truth, "off": off, "covers": covers})
        return tuple(out)

    def published(self) -> dict[str, Any]:
        """The published estimates, read once."""
        if self._published is None:
            self._published = toml(self.published_path)
        return self._published

    # headers

    def check_select(self, wanted: Mapping[str, object], at: str) -> None:
        """Columns must exist, and names must be names of the study: a typo is not an empty table."""
        known = self._known
        for column, value in wanted.items():
            if column not in COLUMNS:
                raise StudyError(f"{at}: no column '{column}' in results. {choices(column, COLUMNS)}")
            for one in value if isinstance(value, list | tuple) else (value,):
                if column in known and one not in known[column]:
                    raise StudyError(f"{at}: no {column} '{one}' in study.toml. {choices(str(one), known[column])}")

    def ordered(self, rows: Iterable[Row]) -> list[Row]:
        """Rows in the study's order of outcomes, subgroups and levels."""
        return sorted(
            rows,
            key=lambda r: tuple(
                order(self.study, c, getattr(r, c)) for c in ("outcome", "subgroup", "level", "comparison")
            ),
        )


def _names(study: Study, rows: Iterable[Row]) -> dict[str, Collection[str]]:
    """What the columns of results that hold names may hold."""
    covariates = [x for c in study.comparisons.values() for x in (*c.covariates, *c.optional)]
    return {
        "part": dict.fromkeys([*(b.part for b in study.analyses), MONEY, "multiverse", *(r.part for r in rows)]),
        "outcome": ["", *study.outcomes, *covariates],
        "comparison": ["", *study.comparisons],
        "treatment": ["", *study.treatments],
        "inference": get_args(Inference),
        "respondents": ["", *study.respondents],
        "exposure": ["", *study.exposures],
        "status": ["ok", "inapplicable", "suppressed"],
    }


def on_scale(row: Row) -> Callable[[float], float]:
    """The scale on which a row has its standard error: that of an odds ratio is of its logarithm."""
    return math.log if row.unit == "odds ratio" else float


def held(ours: Row, truth: Row) -> tuple[float | None, bool | None]:
    """Bias in standard errors, and whether the interval covers the known effect."""
    if ours.estimate is None or truth.estimate is None:
        return None, None
    scale = on_scale(ours)
    off = (scale(ours.estimate) - scale(truth.estimate)) / ours.std_error if ours.std_error else None
    covers = None
    if ours.conf_low is not None and ours.conf_high is not None:
        covers = ours.conf_low <= truth.estimate <= ours.conf_high
    return off, covers


def _line(error: BaseException) -> int:
    line, at = 0, error.__traceback__
    while at:
        if at.tb_frame.f_code.co_filename.endswith(".j2") or at.tb_frame.f_code.co_filename == "<template>":
            line = at.tb_lineno
        at = at.tb_next
    return line


def _data(text: str) -> str:
    return "data:text/csv;charset=utf-8," + quote(text, safe=",:;=()'!*@/?$~.-_+")
