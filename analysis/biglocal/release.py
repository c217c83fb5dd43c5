"""What leaves a run: its rows under disclosure control, and the report that a laboratory's checker reads.

Rows of outcomes from a table of persons (tables.PERSONS) are controlled, on whatever tier: the synthetic tier goes
through the same rules, so that a lab can rehearse. Rows of areas are made of open data and leave as they are. From
what `control` gives back everything else is made (tables, figures, the numbers behind them, the text), so there is
no second way out. The rows before control stay in the folder `not-for-release`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from biglocal import worth
from biglocal.data.tables import PERSONS
from biglocal.disclosure import CHECKED, Cell, Kind, Relation, Verdict, protect, rounded
from biglocal.model import Disclosure, Study
from biglocal.results import Row, json_lines, write_bytes, write_text
from biglocal.study import MONEY, sources

HELD = "not-for-release"
KEPT_BACK = """These files hold numbers before disclosure control: of a run on persons they must not leave the
laboratory. They are kept so that nothing is computed twice; deleting the folder costs a new run, and nothing else.
"""
NUMBERS = (
    "estimate", "std_error", "df", "statistic", "p_value", "p_adjusted", "conf_low", "conf_high", "conf_level", "n_obs",
    "n_units", "n_treated", "n_clusters", "df_num", "n_treated_clusters", "n_persons", "n_least",
)  # fmt: skip
EXTREME = re.compile(r"(^|_)(max|min|maximum|minimum(?!_detectable)|largest|smallest|range|oldest|youngest)(_|$)")
OF_PERSONS = re.compile(
    r"\b(\d[\d,]*)(?= (treated )?(rows?|persons?|people|respondents?|residents|members?|adults?|observations?|values"
    r"|units?|who|without|of no)\b)"
)
MADE = (
    MONEY,
    "simulation",
    "simulated_power",
)  # parts whose estimates are of other rows, or of outcomes drawn anew: of nobody's answers
GIVES_AWAY = "It would give away an estimate of few persons: not shown. Join the small cells."
HIDDEN = "The number of persons is not shown: it would give away one that is not."
ACRO = "1.0.2"  # the version whose results.json this is: its loader takes no other
NAMES: dict[str, str] = {
    "threshold": "persons behind a number",
    "unknown": "persons behind a number are known",
    "degrees_of_freedom": "residual degrees of freedom",
    "dominance": "dominance",
    "extreme": "no largest or smallest value",
    "complementary": "not to be worked out from the other numbers of all tables",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """What control did with one number: `verdict` is `released`, `rounded` (its counts) or `withheld`."""

    analysis: str
    level: str
    term: str
    period: int | None
    what: str
    checked: tuple[str, ...]
    verdict: str
    rule: str = ""
    why: str = ""


def personal(row: Row, study: Study) -> bool:
    """Whether a row is made of persons' answers."""
    outcome = study.outcomes.get(row.outcome)
    of_persons = bool(row.respondents) or (outcome is not None and outcome.table in PERSONS)
    return of_persons and row.part not in ("members_truth", "recovery")  # what was put in, where data were made


def control(rows: Sequence[Row], study: Study) -> tuple[tuple[Row, ...], tuple[Finding, ...]]:
    """The rows as they may leave, in their order, and a finding for each number of persons among them.

    A row that may not leave keeps its names and has status `suppressed` and a reason that says which rule, and what
    to do. Counts of persons are rounded, each the same way wherever it stands.
    """
    mine = [r for r in rows if personal(r, study) and r.status == "ok" and r.part not in MADE]
    cells, relations = _cells(mine, study)
    verdicts = protect(cells.values(), relations, study.disclosure) if cells else {}
    held = {r.analysis for r in mine if verdicts[_estimate(r)].rule}
    made_of = {a.id for a in sources(study)}
    unseen = [r for r in mine if r.analysis in made_of and verdicts[_estimate(r)].rule]
    effects: dict[str, str] = {}  # level of the two-way sums, an effect -> its place among them
    waves = {(r.analysis, r.period) for r in mine if verdicts[_estimate(r)].rule and _kind(r) == "count"}
    out: list[Row] = []
    findings: list[Finding] = []
    for row in rows:
        if not personal(row, study):
            out.append(replace(row, n_least=None))
            continue
        if row.part == MONEY and any(worth.depends(study, row, r) for r in unseen):
            verdict = Verdict("complementary", GIVES_AWAY)
            if row.estimator == "two_way":  # the level is an effect, within the interval of the one that is withheld
                row = replace(row, level=effects.setdefault(row.level, f"effect {len(effects) + 1}"))
            shown, found = _row(row, verdict, verdicts, study)
            out.append(shown)
            findings += found
            continue
        if row.status != "ok":
            out.append(replace(row, reason=_scrubbed(row.reason, study.disclosure), n_least=None))
            continue
        verdict = Verdict() if row.part in MADE else verdicts[_estimate(row)]
        # a joint test and a difference give away the estimate that they are made of
        test = row.analysis in held and (row.term in ("difference", "drawn_beyond") or row.df_num is not None)
        rate = (row.analysis, row.period) in waves and row.term.startswith("rate")
        if not verdict.rule and (test or rate):
            verdict = Verdict("complementary", GIVES_AWAY)
        shown, found = _row(row, verdict, verdicts, study)
        out.append(shown)
        findings += found
    return tuple(out), tuple(findings)


def _row(row: Row, verdict: Verdict, verdicts: Mapping[str, Verdict], study: Study) -> tuple[Row, list[Finding]]:
    rules, kind = study.disclosure, _kind(row)

    def finding(what: str, checked: Kind, result: str, v: Verdict) -> Finding:
        return Finding(row.analysis, row.level, row.term, row.period, what, CHECKED[checked], result, v.rule, v.why)

    if verdict.rule:
        blank: dict[str, Any] = dict.fromkeys(NUMBERS)
        why = f"{verdict.why} (study.toml, disclosure)"
        return replace(row, **blank, status="suppressed", reason=why), [finding(kind, kind, "withheld", verdict)]
    counts: dict[str, Any] = {"n_least": None}
    found = [finding(kind, kind, "rounded" if kind in ("count", "mean") else "released", verdict)]
    reason = _scrubbed(row.reason, rules)
    if kind == "count" and row.estimate is not None:
        counts["estimate"] = float(rounded(round(row.estimate), rules.round_to))
    if kind == "mean":  # a mean to ten digits is a fraction whose denominator is the number of persons
        for column in ("estimate", "std_error", "statistic", "conf_low", "conf_high"):
            value = getattr(row, column)
            counts[column] = None if value is None else float(f"{value:.{rules.digits}g}")
    for column, name in _counts(row).items():
        value, v = getattr(row, column), verdicts.get(name, Verdict())
        counts[column] = None if v.rule else rounded(value, rules.round_to)
        found.append(finding(column, "count", "withheld" if v.rule else "rounded", v))
        if v.rule and HIDDEN not in reason:
            reason = f"{reason} {HIDDEN}".strip()
    if row.df is not None and row.df == int(row.df) and row.df >= (row.n_clusters or 0):  # persons less parameters
        counts["df"] = float(rounded(int(row.df), rules.round_to))
    return replace(row, **counts, reason=reason), found


# --- the cells of the rows, and how they add up ---------------------------------------------------------------------


def _kind(row: Row) -> Kind:
    if EXTREME.search(row.term):
        return "extreme"
    if row.part in MADE:
        return "derived"
    if row.part == "participation":
        return "mean" if row.term.startswith("rate") else "count"
    return "mean" if row.estimator in ("means", "truth", "participants") else "regression"


def _residual(row: Row) -> float | None:
    """Residual degrees of freedom, or fewer. Those of a t test that count years or an effective number of clusters
    (two-way clustering, Satterthwaite) say nothing of how many persons the model left over."""
    return None if row.inference in ("twoway", "cr2") else row.df


def _sample(row: Row) -> str:
    return "/".join((row.outcome, row.subgroup, row.comparison, row.treatment, row.respondents, row.exposure))


def _estimate(row: Row) -> str:
    """One name for one number, by whatever inference or library, in whatever part of the report it stands."""
    period = "" if row.period is None else str(row.period)
    estimator = "twfe" if row.part == "twins" else row.estimator
    return f"estimate {estimator} {row.term} {row.level} {period} in {_sample(row)} of {row.n_obs}"


def _counts(row: Row) -> dict[str, str]:
    """Columns of the row that count persons, or the answers of some -> the names of the counts."""
    of, out = _sample(row), {}
    part = row.term if row.term in ("treated", "control") and row.period is not None else ""
    part = row.term.removeprefix("gap").removeprefix("share_") if row.part == "participants" else part
    for column in ("n_obs", "n_persons", *(("n_units", "n_treated") if row.respondents else ())):
        value = getattr(row, column)
        if value is None:
            continue
        what = "answers" if row.respondents and column == "n_obs" else "persons"
        if column == "n_persons" and (part or row.level):
            what = " ".join(filter(None, (what, part, row.level, str(row.period or ""))))
        elif column == "n_treated" and row.level:  # every member counts as treated
            what = " ".join(filter(None, (what, "members" if row.part == "participants" else "", row.level)))
        out[column] = f"{what}: {value} in {of}"
    return out


def _cells(rows: Sequence[Row], study: Study) -> tuple[dict[str, Cell], list[Relation]]:
    """All numbers of persons in the run as cells, and how they hang together."""
    cells: dict[str, Cell] = {}
    relations: list[Relation] = []
    parts: dict[tuple[str, str, str], set[str]] = {}  # a sample, its estimator and group -> its persons by part
    sizes: dict[tuple[str, str, str], dict[tuple[str, str], int]] = {}  # outcome, comparison, what -> samples' sizes

    def adds_up(whole: str, members: Sequence[str]) -> None:
        left = cells[whole].value - sum(cells[n].value for n in members)
        if left < 0:  # persons seen more than once
            return
        rest = f"{whole} less {', '.join(members)}"
        if left > 0:
            cells[rest] = Cell(rest, "count", left, printed=False)
        relations.append(((whole, -1.0), *((n, 1.0) for n in members), *([(rest, 1.0)] if left > 0 else [])))

    for row in rows:
        name, kind = _estimate(row), _kind(row)
        seen = cells.get(name)
        least = [n for n in (row.n_least, seen.persons if seen else None) if n is not None]
        dfs = [x for x in (_residual(row), seen.df if seen else None) if x is not None]
        cost = 10.0 if row.level or row.period is not None else 1000.0  # an effect over all is what the study is for
        cells[name] = Cell(name, kind, row.estimate or 0.0, min(least, default=None), min(dfs, default=None), cost=cost)
        counts = _counts(row)
        for column, count in counts.items():
            value = getattr(row, column)
            cells.setdefault(count, Cell(count, "count", float(value), cost=1 + value * 1e-6))
            what = count.split(":")[0]
            if what in ("persons", "answers"):  # of the whole sample
                sizes.setdefault((row.outcome, row.comparison, what), {})[count, row.exposure] = value
        whole = counts.get("n_units" if row.respondents else "n_obs", "")
        if row.part == "participants":  # of members, and of adults
            continue
        if whole and "n_persons" in counts and counts["n_persons"] != whole:
            parts.setdefault((whole, row.estimator, row.exposure), set()).add(counts["n_persons"])
    for (whole, _, _), some in sorted(parts.items()):
        adds_up(whole, sorted(some))
    for samples in sizes.values():  # a sample and one a little smaller: the few by which they differ
        for (whole, exposure), n in samples.items():
            for (part, other), m in samples.items():
                # who answered one question is no part of who answered another, but is of those who were asked
                if 0 < n - m < study.disclosure.min_cell and exposure in ("", other):
                    adds_up(whole, [part])
    for whole, members in _participation(rows):
        if all(n in cells for n in (whole, *members)):
            adds_up(whole, members)
    return cells, [*relations, *_effects(rows)]


def _participation(rows: Sequence[Row]) -> Iterator[tuple[str, list[str]]]:
    """How the counts of who was approached and who answered hang together: by wave, and over the waves."""
    inside = (("approached", "answered"), ("approached", "new"), ("answered", "answered_first"),
              ("answered_first", "answered_all"))  # fmt: skip
    mine = [r for r in rows if r.part == "participation"]
    by_term: dict[tuple[str, str], list[str]] = {}
    for row in mine:
        by_term.setdefault((row.term, row.analysis), []).append(_estimate(row))
        for whole, part in inside:
            if row.term == whole:
                yield _estimate(row), [_estimate(replace(row, term=part))]
    for row in {r.analysis: r for r in mine}.values():
        counts = _counts(row)
        yield counts["n_obs"], by_term.get(("approached", row.analysis), [])
        yield counts["n_units"], by_term.get(("new", row.analysis), [])


def _effects(rows: Sequence[Row]) -> Iterator[Relation]:
    """Numbers that are not counts and follow from each other, in deviations from their values.

    An effect over all is about the mean of those in the levels: one that is not shown could be worked out. Shares of
    all levels add up to one, and a gap is the difference of two shares.
    """
    shares: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row.part == "participants":
            if row.term == "gap":
                ours, theirs = (_estimate(replace(row, term=f"share_{who}")) for who in ("members", "adults"))
                yield ((_estimate(row), 1.0), (ours, -1.0), (theirs, 1.0))
            else:
                shares.setdefault((row.analysis, row.term), []).append(_estimate(row))
    for names in shares.values():
        yield tuple((n, 1.0) for n in sorted(names))
    levels: dict[tuple[str, ...], dict[str, float]] = {}
    whole: dict[tuple[str, ...], str] = {}
    for row in rows:
        key = (row.outcome, row.comparison, row.treatment, row.respondents, row.exposure, row.estimator, row.term)
        if row.subgroup == "all" and not row.level and row.period is None:
            whole[key] = _estimate(row)
        elif row.level and row.period is None and row.n_persons:
            levels.setdefault((*key, row.subgroup), {})[_estimate(row)] = float(row.n_persons)
    for level_key, members in sorted(levels.items()):
        if level_key[:-1] in whole:
            total = sum(members.values())
            name = whole[level_key[:-1]]
            yield ((name, -1.0), *((n, x / total) for n, x in sorted(members.items())))


def _scrubbed(text: str, rules: Disclosure) -> str:
    """A sentence whose counts of persons are rounded, or said to be under the threshold."""

    def put(match: re.Match[str]) -> str:
        count = int(match[1].replace(",", ""))
        if 0 < count < rules.min_cell:
            start = text[: match.start()].rstrip().endswith(".") or not match.start()
            return f"{'Fewer' if start else 'fewer'} than {rules.min_cell}"
        return f"{rounded(count, rules.round_to):,}"

    return OF_PERSONS.sub(put, text)


# --- the report for the checker -------------------------------------------------------------------------------------


def findings(out: Path) -> tuple[Finding, ...]:
    """The findings of the last run, from its disclosure.json."""
    blank = {"level": "", "period": None}
    numbers = json.loads((out / "disclosure.json").read_text(encoding="utf-8"))["numbers"]
    return tuple(Finding(**(blank | n | {"checked": tuple(n["checked"])})) for n in numbers)


def report(
    rows: Sequence[Row],
    findings: Sequence[Finding],
    study: Study,
    outputs: Mapping[str, frozenset[str]],
    out: Path,
) -> tuple[Path, ...]:
    """Write disclosure.json, disclosure.md, and acro/ (results.json as acro 1.0.2 writes it); the paths written.

    `outputs`: exhibit -> the parts of results.csv that it is made of. None of these files says how few persons are
    behind a number that is not shown.
    """
    by_part: dict[str, list[Finding]] = {}
    part_of = {r.analysis: r.part for r in rows}
    for f in findings:
        by_part.setdefault(part_of[f.analysis], []).append(f)
    exhibits = [
        _exhibit(name, [f for p in sorted(parts) for f in by_part.get(p, ())]) for name, parts in outputs.items()
    ]
    whole = _exhibit("results.csv", findings)
    names = [field.name for field in fields(Finding)]
    everything = {
        "policy": asdict(study.disclosure),
        "persons": bool(findings),
        "outputs": [whole, *exhibits],
        "numbers": [{k: v for k in names if (v := getattr(f, k)) not in ("", None)} for f in findings],
    }
    paths = [out / "disclosure.json", out / "disclosure.md"]
    write_text(paths[0], json_lines(everything, 2) + "\n")
    write_text(paths[1], _markdown(findings, study.disclosure, [whole, *exhibits]))
    return (*paths, *_acro([whole, *exhibits], findings, by_part, outputs, out))


def _exhibit(name: str, findings: Sequence[Finding]) -> dict[str, Any]:
    said = Counter(f.verdict for f in findings)
    checked = list(dict.fromkeys(rule for f in findings for rule in f.checked))
    why = dict.fromkeys(f.why for f in findings if f.verdict == "withheld")
    return {
        "output": name,
        "numbers": len(findings),
        "rules": checked,
        "released": said["released"],
        "rounded": said["rounded"],
        "withheld": said["withheld"],
        "verdict": "no persons" if not findings else "passes after withholding" if said["withheld"] else "passes",
        "why": list(why) or ["Every number meets every rule." if findings else "Made of areas, of open data."],
    }


def _markdown(findings: Sequence[Finding], rules: Disclosure, outputs: Sequence[Mapping[str, Any]]) -> str:
    lines = ["# Disclosure control", ""]
    if not findings:
        return "\n".join([*lines, "No table of persons went into this run: there was nothing to control.", ""])
    lines += [
        "What was checked of every number on persons before it left the run. Everything in this folder but",
        f"`{HELD}/` is made of the rows of `results.csv`, after control.",
        "",
        f"- At least {rules.min_cell} persons behind a number; where it compares groups, in the smallest of them; of a",
        "  share, both those who are and those who are not.",
        f"- At least {rules.min_df} residual degrees of freedom. No largest or smallest value.",
        f"- Sums: the {rules.dominance_n} largest contributions are at most {rules.dominance_k:.0%}, and all but the",
        f"  two largest at least {rules.dominance_p:.0%} of the largest.",
        f"- Means and shares have {rules.digits} significant digits: more would tell of how many persons they are.",
        f"- Counts of persons are rounded to {rules.round_to}." if rules.round_to > 1 else "- Counts are not rounded.",
        f"- From all numbers together, as printed, no count that is not shown can be placed within {rules.min_cell}",
        "  persons, and no other number that is not shown can be worked out (linear bounds; the numbers withheld for",
        "  this are those of least cost).",
        "",
        "## By output",
        "",
        "| output | numbers | released | counts rounded | withheld | verdict | why |",
        "| --- | ---: | ---: | ---: | ---: | --- | --- |",
    ]
    for o in outputs:
        lines.append(
            f"| {o['output']} | {o['numbers']} | {o['released']} | {o['rounded']} | {o['withheld']} | {o['verdict']} "
            f"| {' '.join(o['why'])} |"
        )
    lines += [
        "",
        "`numbers.json`, `report.html` and `report.pdf` print numbers of these outputs and no others.",
        "`provenance.json` holds SHA-256 sums of whole files, `dictionary.md` the contract of the tables.",
        "",
        "## Withheld",
        "",
    ]
    held = [f for f in findings if f.verdict == "withheld"]
    if not held:
        return "\n".join([*lines, "Nothing.", ""])
    lines += [
        "| analysis | level | term | period | number | rule | why |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for f in held:
        period = "" if f.period is None else f.period
        rule = NAMES[f.rule]
        lines.append(f"| {f.analysis} | {f.level} | {f.term} | {period} | {f.what} | {rule} | {f.why} |")
    return "\n".join([*lines, ""])


def _acro(
    exhibits: Sequence[Mapping[str, Any]],
    findings: Sequence[Finding],
    by_part: Mapping[str, Sequence[Finding]],
    outputs: Mapping[str, frozenset[str]],
    out: Path,
) -> Iterator[Path]:
    """A folder as acro's `finalise` leaves it: results.json, the files it names, and their checksums."""
    folder, records = out / "acro", {}
    for i, exhibit in enumerate(exhibits):
        name = str(exhibit["output"])
        files = [out / name] if name.endswith(".csv") else [out / d / f"{name}.csv" for d in ("tables", "figures")]
        mine = findings if name.endswith(".csv") else [f for p in sorted(outputs[name]) for f in by_part.get(p, ())]
        copies = {}
        for file in files:
            if file.is_file():
                copy = file.name if file.parent == out else f"{file.parent.name}_{file.name}"
                copies[copy] = file.read_bytes()
        if not copies:
            continue
        for copy, data in copies.items():
            write_bytes(folder / copy, data)
            write_text(folder / "checksums" / f"{copy}.txt", hashlib.sha256(data).hexdigest())
            yield folder / copy
            yield folder / "checksums" / f"{copy}.txt"
        status = "review" if exhibit["withheld"] else "pass"  # acro's word for an output with cells suppressed
        summary = Counter(f.rule for f in mine if f.verdict == "withheld")
        said = "; ".join(f"{rule}: {n} cells suppressed" for rule, n in sorted(summary.items()))
        sdc = {"summary": {"suppressed": True, **summary}, "cells": {}}
        records[f"output_{i}"] = {
            "uid": f"output_{i}",
            "status": status,
            "type": "table",
            "properties": {"method": "biglocal", "rules": exhibit["rules"]},
            "files": [{"name": copy, "sdc": sdc} for copy in copies],
            "outcome": _outcome(mine),
            "command": f"biglocal reproduce: {name}",
            "summary": f"{status}; {said}" if said else status,
            "timestamp": "",
            "comments": list(exhibit["why"]),
            "exception": "",
            "fair": {},
        }
    tool = {"@type": "SoftwareApplication", "name": "biglocal, in the form of ACRO", "version": ACRO}
    text = json_lines({"version": ACRO, "tool": tool, "results": records}, 2)
    write_text(folder / "results.json", text + "\n")
    write_text(folder / "checksums" / "results.json.txt", hashlib.sha256(f"{text}\n".encode()).hexdigest())
    yield folder / "results.json"
    yield folder / "checksums" / "results.json.txt"


def _outcome(findings: Iterable[Finding]) -> dict[str, dict[str, str]]:
    """acro's cell by cell account: column -> row -> `ok` or the rules that it breaks."""
    out: dict[str, dict[str, str]] = {}
    for f in findings:
        row = " ".join(filter(None, (f.analysis, f.level, f.term, "" if f.period is None else str(f.period))))
        out.setdefault(f.what, {})[row] = f"{f.rule}; " if f.rule else "ok"
    return out
