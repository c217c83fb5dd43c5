"""What a reader sees who asks a number of the HTML report where it comes from: one card for each row or source.

The same chain that `biglocal trace` prints, from the rows and the record of the run alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from biglocal import provenance
from biglocal.exhibits.wording import decimals, interval, label, number, plain
from biglocal.results import Row
from biglocal.study import MONEY, file_of, sources, tables

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from biglocal.exhibits.prose import Press
    from biglocal.model import Analysis

Pairs = list[tuple[str, str]]
CHOICES = ("effects", "estimators", "rivals", "robustness")  # parts whose ATTs are the same effect, chosen otherwise


def cards(press: Press) -> dict[str, Any]:
    """`cards`: name -> title, pairs of what and value, and `made`, the place in `made` of how such rows are made."""
    rows = {r.key: r for r in press.rows}
    plan = {a.id: a for a in press.plan}
    published, same = _published(press), _same(press.rows)
    made: list[Pairs] = []
    at: dict[str, int] = {}  # analysis -> its place in `made`
    out: dict[str, Any] = {}
    for origin, name in press.cards.items():
        if origin not in rows:
            entry = press.numbers[origin]
            pairs = [
                ("Value", str(entry["raw"])),
                ("From", str(entry["source"])),
                ("Printed in", str(entry["template"])),
            ]
            out[name] = {"title": origin, "pairs": pairs}
            continue
        row = rows[origin]
        pairs = list(_values(press, row))
        pairs += [("Published", said) for said in published.get(origin, ())]
        pairs += [("Other choices", said) for said in _range(row, same)]
        pairs += [("Row", origin)]
        if row.analysis not in at:
            how = _made(press, plan[row.analysis]) if row.analysis in plan else []
            if how not in made:
                made.append(how)
            at[row.analysis] = made.index(how)
        out[name] = {"title": _title(press, row), "pairs": pairs, "made": at[row.analysis]}
    return {"cards": out, "made": made}


def _title(press: Press, row: Row) -> str:
    named = [
        ("outcome", row.outcome),
        ("level", row.level),
        ("estimator", row.estimator),
        ("comparison", row.comparison),
    ]
    words = [label(press.study, column, value) for column, value in named if value]
    if row.part == MONEY:
        words = [label(press.study, "term", row.term), *words[1:2]]
    if row.period is not None:
        words.insert(1, f"{row.term.replace('_', ' ')} {row.period}")
    return " \u00b7 ".join(words) or row.key


def _values(press: Press, row: Row) -> Iterator[tuple[str, str]]:
    for name, column in (
        ("Estimate", "estimate"), ("Standard error", "std_error"), ("Statistic", "statistic"),
        ("Degrees of freedom", "df"), ("p", "p_value"), ("p, adjusted", "p_adjusted"),
    ):  # fmt: skip
        value = getattr(row, column)
        if value is not None:
            unit = f" {row.unit}" if column == "estimate" and row.unit else ""
            yield name, format(value, ".10g").replace("-", "\u2212") + unit
    if row.conf_low is not None and row.conf_high is not None:
        name = "Interval" if row.conf_level is None else f"{plain(round(100 * row.conf_level, 6))}% interval"
        yield name, f"{row.conf_low:.10g} to {row.conf_high:.10g}".replace("-", "\u2212")
    counts = [
        (row.n_obs, "observations"),
        (row.n_units, "units"),
        (row.n_treated, "treated"),
        (row.n_clusters, "clusters"),
    ]
    if said := [f"{n:,} {what}" for n, what in counts if n is not None]:
        yield "Sample", ", ".join(said)
    if row.inference not in ("", "none"):
        yield "Inference", label(press.study, "inference", row.inference)
    if row.treatment:
        yield "Treatment", label(press.study, "treatment", row.treatment)
    if row.reason:
        yield "Source" if (row.part, row.estimator) == (MONEY, "inputs") else "Caution", row.reason


def _published(press: Press) -> dict[str, list[str]]:
    """Row -> the published estimates that it replicates."""
    out: dict[str, list[str]] = {}
    sources = press.published().get("sources", {})
    for entry in press.published().get("estimate", ()):
        row = press.one(**entry["row"]).raw if "row" in entry else None
        if row is None:
            continue
        low, high = entry.get("conf_low"), entry.get("conf_high")
        ends = "" if low is None else f" ({interval(low, high, 3)})"
        said = f"{plain(entry['estimate'])}{ends} {entry['unit']}: {sources.get(entry['source'], entry['source'])}"
        out.setdefault(row.key, []).append(said)
    return out


def _range(row: Row, same: Mapping[tuple[str, str], Sequence[Row]]) -> Iterator[str]:
    """The smallest and largest ATT among other estimators, comparisons and dates, for the same outcome and unit."""
    if row not in same.get((row.outcome, row.unit), ()):
        return
    others = [r.estimate or 0.0 for r in same[row.outcome, row.unit] if _choice(r) != _choice(row)]
    if others:
        places = decimals(row.unit)
        ends = f"{number(min(others), places)} to {number(max(others), places)}"
        yield f"{ends} over {len(others)} other estimates of this effect in this report"


def _same(rows: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
    """The estimates of one effect, otherwise chosen, by outcome and unit."""
    out: dict[tuple[str, str], list[Row]] = {}
    for r in rows:
        if r.part in CHOICES and r.term == "att" and not r.level and r.status == "ok" and r.estimate is not None:
            out.setdefault((r.outcome, r.unit), []).append(r)
    return out


def _choice(row: Row) -> tuple[str, str, str]:
    return row.comparison, row.estimator, row.treatment


def _made(press: Press, analysis: Analysis) -> Pairs:
    """How rows of this kind are made: function and line, data and their digests."""

    def code(file: str, function: str) -> str:
        line, sha = provenance.where(file, function)
        return f"biglocal/{file}, line {line}, {function}(), sha256 {sha[:12]}"

    if analysis.part == MONEY:
        made = [("Made by", code("worth.py", "rows")), ("Formula", code("cost_benefit.py", "account"))]
        return made + [("From the rows of", a.id) for a in sources(press.study)]
    out = [("Estimator", code("multiverse.py", "once"))]
    if analysis.estimator:
        out = [("Estimator", code(f"estimators/{file_of(press.study, analysis.estimator)}.py", "estimate"))]
    if analysis.comparison:
        method = press.study.comparisons[analysis.comparison].method
        out.append(("Matching", code(f"matching/{method}.py", "match")))
    out.append(("Drawn by", code("sample.py", "sample")))
    data = press.run.digests
    out += [("Data", f"table {t}, sha256 {data[t][:12]}") for t in tables(press.study, analysis) if t in data]
    if press.run.banner == "SYNTHETIC":
        out.append(("Raw data", f"none: made from seed {press.study.seed}"))
    return out + [("File", f"{name}, sha256 {sha[:12]}") for name, sha in press.run.files.items()]
