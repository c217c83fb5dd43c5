"""Whether a run reproduces the committed reference, exhibit by exhibit: `biglocal verify`.

The reference is two files: the table of results, and the record (provenance.json) of the run that made it. Where lock,
Python, libraries and machine are those of the record, every exhibit must have the same bytes. Elsewhere sums round
otherwise, so each cell has a tolerance (`[tolerance]` of study.toml), and signs and significance must hold whatever
the tolerance. What could not be compared is told apart from what agrees.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from biglocal import exhibits, provenance, results
from biglocal.diff import causes
from biglocal.exhibits import headers
from biglocal.model import DataError, Study, Tolerance, VerifyError
from biglocal.results import Row
from biglocal.study import MANUSCRIPT, ON_REQUEST

IDENTICAL, WITHIN, DIFFERS = "identical", "within tolerance", "differs"
CANNOT, NOT_MADE, NOT_HELD = "cannot run: data", "not made", "not held"
MARKS = {IDENTICAL: "=", WITHIN: "~", DIFFERS: "x", CANNOT: "-", NOT_MADE: "-", NOT_HELD: "?"}
REASONS = {  # our code: the reason as the form of the AEA Data Editor's reports has it, and what it means here
    "altered": ("Discrepancy in output", "changed or lost after the run"),
    "row-missing": ("Discrepancy in output", "the reference has rows that the run lacks"),
    "row-unknown": ("Discrepancy in output", "rows that the reference lacks"),
    "not-the-same": ("Discrepancy in output", "a count, status or wording is another"),
    "sign": ("Discrepancy in output", "an estimate changes sign"),
    "significance": ("Discrepancy in output", "a p-value crosses the level of significance"),
    "beyond-tolerance": ("Discrepancy in output", "a number moved by more than the tolerance"),
    "other-bytes": ("Discrepancy in output", "the same environment, but not the same bytes"),
    "data": ("Data not available", "no row has a number: this tier lacks the data"),
    "on-request": ("Insufficient time available to replicator", "made on request, and not made in this run"),
    "no-reference": ("", "made on request here; the reference has no rows to hold it against"),
    "of-the-run": ("", "says of which rows and what software the run is, so it is not that of another run"),
}  # fmt: skip
CLASSES = (  # of the same form, best first
    "Full reproduction", "Full reproduction with minor issues", "Partial reproduction (see above)",
    "Not able to reproduce most or all of the results (reasons see above)",
)  # fmt: skip
WORST = tuple(REASONS)  # of several reasons the first is named
NUMBERS = (
    "estimate", "std_error", "df", "statistic", "p_value", "p_adjusted", "conf_low", "conf_high", "conf_level",
)  # fmt: skip
EXACT = ("part", "outcome", "subgroup", "comparison", "treatment", "estimator", "inference", "unit", "n_obs", "n_units",
         "n_treated", "n_clusters", "status", "reason", "tier", "df_num", "n_treated_clusters")  # fmt: skip
SHOWN = 3  # cells of an exhibit that the text lists; JSON has all


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of results.csv that is not the reference's: `errors` is the distance in the reference's standard errors.

    `column` is '' for a row that only one of the two tables has.
    """

    row: str
    column: str
    seen: str
    reference: str
    errors: float | None
    code: str

    @property
    def text(self) -> str:
        """In words."""
        if not self.column:
            return f"{self.row}: " + (
                "missing from the outputs" if self.code == "row-missing" else "not in the reference"
            )
        how = f", {self.errors:.3g} standard errors apart" if self.errors is not None else ""
        what = {"sign": " changes sign:", "significance": " crosses the level of significance:"}.get(self.code, " is")
        seen, reference = _apart(self.seen, self.reference)
        return f"{self.row}: {self.column}{what} {seen}, reference {reference}{how}"


def _apart(a: str, b: str, most: int = 60) -> tuple[str, str]:
    """Two long texts from a little before they part."""
    if max(len(a), len(b)) <= most:
        return a, b
    same = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    start = max(0, same - 20)

    def cut(text: str) -> str:
        return ("…" if start else "") + text[start : start + most] + ("…" if text[start + most :] else "")

    return cut(a), cut(b)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is said of an exhibit: verdict, reason code ('' if identical), the cells and files that are not the same.

    `rows` are those compared. `ok` is false where the exhibit is not that of the reference.
    """

    exhibit: str
    verdict: str
    code: str
    rows: int
    cells: tuple[Cell, ...]
    files: tuple[str, ...]
    ok: bool


@dataclass(frozen=True, slots=True)
class Verification:
    """A run held against a reference.

    `environment`: what is not the reference's of lock, libraries and machine; None where the reference has no record.
    `causes`: what else went in and is not the same (diff.causes).
    """

    tier: str
    draws: str
    banner: str
    reference: str
    environment: tuple[str, ...] | None
    causes: tuple[str, ...]
    verdicts: tuple[Verdict, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing differs; what could not be compared does not differ."""
        return all(v.ok for v in self.verdicts)


def compare(
    seen: Iterable[Row], expected: Iterable[Row], tolerance: Tolerance, alpha: float
) -> dict[str, tuple[Cell, ...]]:
    """Row -> its cells in which two results tables differ beyond `tolerance`; empty if they agree.

    A number may move by `absolute` + `relative` x its size, an estimate or interval also by `std_errors`
    standard errors. Whatever the tolerance, an estimate may not change sign, nor a p-value cross `alpha`.
    """
    ours, theirs = {r.key: r for r in seen}, {r.key: r for r in expected}
    found: dict[str, tuple[Cell, ...]] = {
        k: (Cell(k, "", "", "", None, "row-missing"),) for k in theirs.keys() - ours.keys()
    }
    found |= {k: (Cell(k, "", "", "", None, "row-unknown"),) for k in ours.keys() - theirs.keys()}
    for key in ours.keys() & theirs.keys():
        if cells := tuple(_cells(ours[key], theirs[key], tolerance, alpha)):
            found[key] = cells
    return dict(sorted(found.items()))


def _cells(a: Row, b: Row, tolerance: Tolerance, alpha: float) -> Iterable[Cell]:
    for column in EXACT:
        x, y = getattr(a, column), getattr(b, column)
        if x != y:
            yield Cell(a.key, column, repr(x), repr(y), None, "not-the-same")
    se = b.std_error or 0.0
    for column in NUMBERS:
        x, y = getattr(a, column), getattr(b, column)
        if x is None or y is None or math.isinf(x) or math.isinf(y):
            if x != y:
                yield Cell(a.key, column, str(x), str(y), None, "beyond-tolerance")
            continue
        effect = column in ("estimate", "conf_low", "conf_high")
        room = tolerance.absolute + tolerance.relative * abs(y)
        if effect:
            room = max(room, tolerance.std_errors * se)
        code = "beyond-tolerance" if abs(x - y) > room else ""
        if column == "estimate" and se and x * y < 0 and abs(x - y) > tolerance.absolute:
            code = "sign"
        elif column in ("p_value", "p_adjusted") and (x < alpha) != (y < alpha):
            code = "significance"
        if code:
            far = abs(x - y) / se if se and (effect or column == "std_error") else None
            yield Cell(a.key, column, f"{x:.10g}", f"{y:.10g}", far, code)


def accept(out: Path, expected: Path) -> tuple[Path, Path]:
    """Make the run in `out` the reference: its rows at `expected`, its record beside as .json.

    Raises `VerifyError` for outputs that are no longer what the run wrote, or of which it made a part alone.
    """
    if wrong := provenance.altered(out):
        raise VerifyError(
            f"{wrong[0]}. Run `biglocal reproduce {out.name}` again before its results become the reference."
        )
    if not provenance.last(out).get("rendered_from"):
        raise VerifyError(
            f"the last run made a part of the outputs (--only). Run `biglocal reproduce {out.name}`, then "
            f"accept it whole."
        )
    beside = expected.with_suffix(".json")
    results.write_text(expected, (out / "results.csv").read_text(encoding="utf-8"))
    results.write_text(beside, (out / "provenance.json").read_text(encoding="utf-8"))
    return expected, beside


def verify(out: Path, expected: Path, study: Study, manuscript: Path = MANUSCRIPT) -> Verification:
    """Hold the run in `out` against its own record and against the reference `expected` (.csv, with .json beside).

    Raises `VerifyError` where there is no reference or no record of a run, and `DataError` for a file that is not a
    results table.
    """
    altered = {line.partition(":")[0] for line in provenance.altered(out)}
    record = provenance.last(out)
    if not expected.is_file():
        raise VerifyError(
            f"no reference for this tier and number of draws ({expected.name}). "
            f"Only the tier synthetic has a committed one; `biglocal verify {out.name} --accept` makes one of "
            f"your outputs."
        )
    rows = results.read(out / "results.csv")
    try:
        reference = results.read(expected)
    except DataError:
        raise VerifyError(
            f"the reference {expected.name} was made by another version of the package. "
            f"Check the results, then make it anew by `biglocal verify {out.name} --accept`."
        ) from None
    made = _record(expected)
    same = _environment(made, record) if made else None
    held = _Held(
        study, manuscript, rows, reference, made.get("outputs", {}), record.get("outputs", {}), altered,
        exact=same == (), same_input=not (why := causes(made, record) if made else ()),
    )  # fmt: skip
    verdicts = (*(held.exhibit(name) for name in study.exhibits), held.rest())
    return Verification(
        record["tier"], record["draws"], record["banner"], expected.name, same,
        tuple(w for w in why if not w.startswith(("lock:", "machine:"))), verdicts,
    )  # fmt: skip


def _record(expected: Path) -> dict[str, Any]:
    """The record of the run that made the reference; empty where there is none, or where it is of other rows."""
    try:
        made = json.loads(expected.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    fits = isinstance(made, dict) and made.get("results") == results.digest(expected.read_bytes())
    return made if fits else {}


def _environment(made: Mapping[str, Any], record: Mapping[str, Any]) -> tuple[str, ...]:
    a, b = ({"lock": str(r.get("lock"))[:12], **r.get("versions", {}), **r.get("machine", {})} for r in (made, record))
    keys = sorted(a.keys() | b.keys())
    return tuple(f"{k} {a.get(k, 'absent')} -> {b.get(k, 'absent')}" for k in keys if a.get(k) != b.get(k))


class _Held:
    """Two runs side by side, asked exhibit by exhibit."""

    def __init__(
        self,
        study: Study,
        manuscript: Path,
        rows: Sequence[Row],
        reference: Sequence[Row],
        made: Mapping[str, str],
        outputs: Mapping[str, str],
        altered: Collection[str],
        *,
        exact: bool,
        same_input: bool,
    ) -> None:
        self.study, self.manuscript, self.altered, self.exact = study, manuscript, altered, exact
        self.rows, self.reference = rows, reference
        self.files = {name: (made.get(name), outputs.get(name)) for name in sorted(made.keys() | outputs.keys())}
        here, there = ({r.part for r in table} & set(ON_REQUEST) for table in (rows, reference))
        self.one_sided = here ^ there
        self.whole = same_input and {r.key for r in rows} == {r.key for r in reference}  # the same run, if exact
        self.cells = compare(self._both(rows), self._both(reference), study.tolerance, 1 - study.policy.conf_level)
        self.fed: set[str] = set()

    def _both(self, rows: Sequence[Row]) -> list[Row]:
        return [r for r in rows if r.part not in self.one_sided]

    def exhibit(self, name: str) -> Verdict:
        ours = exhibits.feeding(name, self.rows, self.manuscript)
        theirs = exhibits.feeding(name, self.reference, self.manuscript)
        keys = list(dict.fromkeys(r.key for r in self._both((*theirs, *ours))))
        self.fed |= set(keys)
        cells = tuple(c for k in keys for c in self.cells.get(k, ()))
        files = [f for f in self.files if PurePosixPath(f).stem == name and "/" in f]
        if gone := [f for f in files if f in self.altered]:
            return Verdict(name, DIFFERS, "altered", len(keys), cells, tuple(gone), ok=False)
        source = headers.read(name, self.manuscript).header.source
        if source == "rows":
            here, there = (any(r.status == "ok" for r in rows) for rows in (ours, theirs))
            wanted = exhibits.parts(name, self.manuscript)
            if wanted and wanted <= set(ON_REQUEST) and not (here and there):
                code = "no-reference" if here else "on-request"
                return Verdict(name, NOT_HELD if here else NOT_MADE, code, 0, (), (), ok=True)
            if not here and (ours or not there) and (there or not cells):
                return Verdict(name, CANNOT, "data", len(keys), cells, (), ok=not there)
            required = not wanted & self.one_sided
        else:
            required = source == "published" or self.whole
        return self._judge(name, len(keys), cells, files, required)

    def rest(self) -> Verdict:
        """Rows that no exhibit shows, and files that are of no exhibit: the report, numbers.json and so on."""
        own = set(self.study.exhibits)
        files = [f for f in self.files if not ("/" in f and PurePosixPath(f).stem in own)]
        cells = tuple(c for k, found in self.cells.items() if k not in self.fed for c in found)
        name, n = "everything else", len({r.key for r in self._both((*self.rows, *self.reference))} - self.fed)
        if gone := [f for f in files if f in self.altered]:
            return Verdict(name, DIFFERS, "altered", n, cells, tuple(gone), ok=False)
        return self._judge(name, n, cells, files, self.whole)

    def _judge(self, name: str, n: int, cells: tuple[Cell, ...], files: Sequence[str], required: bool) -> Verdict:
        """`required`: the bytes must be the same where the environment is."""
        other = tuple(f for f in files if len(set(self.files[f])) > 1)
        if cells:
            code = min((c.code for c in cells), key=WORST.index)
            return Verdict(name, DIFFERS, code, n, cells, other, ok=False)
        if files and not other:
            return Verdict(name, IDENTICAL, "", n, (), (), ok=True)
        if self.exact and required:
            return Verdict(name, DIFFERS, "other-bytes", n, (), other, ok=False)
        if not n:
            return Verdict(name, NOT_HELD, "of-the-run", n, (), other, ok=True)
        return Verdict(name, WITHIN, "", n, (), other, ok=True)


# --- in words ----------------------------------------------------------------------------------------------


def text(v: Verification) -> str:
    """A line an exhibit; under one that differs, the first cells or files."""
    lines = [*_heading(v), ""]
    for verdict in v.verdicts:
        lines.append(f"{MARKS[verdict.verdict]} {verdict.exhibit:<26} {_said(verdict)}")
        if not verdict.ok:
            lines += [f"      {line}" for line in _shown(verdict)]
    return "\n".join([*lines, "", _sum(v)])


def markdown(v: Verification) -> str:
    """For a reviewer's form: a table of exhibits, then the boxes of the AEA Data Editor's report."""
    lines = [
        "## Reproduction",
        "",
        *(f"- {line}" for line in _heading(v)),
        "",
        "| Exhibit | Verdict | Reason |",
        "|---|---|---|",
    ]
    for verdict in v.verdicts:
        aea, meaning = REASONS.get(verdict.code, ("", ""))
        where = "" if verdict.ok else "<br>" + "<br>".join(_shown(verdict))
        why = f"`{verdict.code}`: {meaning}{f' ({aea})' if aea else ''}" if verdict.code else ""
        lines.append(f"| {verdict.exhibit} | {verdict.verdict} | {(why + where).replace('|', '/')} |")
    reasons = {REASONS[w.code][0] for w in v.verdicts if w.code}
    lines += ["", _sum(v), "", *(f"- [{'x' if c == classification(v) else ' '}] {c}" for c in CLASSES)]
    lines += ["", "### Reason for incomplete reproducibility", ""]
    known = dict.fromkeys(aea for aea, _ in REASONS.values() if aea)
    return "\n".join([*lines, *(f"- [{'x' if r in reasons else ' '}] `{r}`" for r in known)]) + "\n"


def as_json(v: Verification) -> str:
    """Everything, with every cell."""
    whole = asdict(v) | {
        "ok": v.ok,
        "class": classification(v),
        "reasons": {k: {"aea": a, "means": m} for k, (a, m) in REASONS.items()},
    }
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def classification(v: Verification) -> str:
    """The class of the AEA Data Editor's form: full only if every exhibit was made, compared, and agrees.

    Fewer than a quarter is its bound for the lowest class; what lies between is partial.
    """
    good = sum(w.verdict in (IDENTICAL, WITHIN) or w.code == "of-the-run" for w in v.verdicts)
    if good == len(v.verdicts):
        return CLASSES[0]
    return CLASSES[3] if 4 * good < len(v.verdicts) else CLASSES[2]


def _heading(v: Verification) -> list[str]:
    of = f"{v.banner} data, so no finding about Big Local; " if v.banner else ""
    if v.environment is None:
        where = (
            "the reference has no record of its making, so cells are held to the tolerance and bytes to nothing; "
            "`biglocal verify --accept` writes one"
        )
    elif v.environment:
        where = f"another environment ({_few(v.environment)}): cells have a tolerance, signs and significance none"
    else:
        where = "the same environment as the reference: bytes must be the same"
    went = f"not the same went in: {_few(v.causes)}" if v.causes else "the same data, study, code and templates went in"
    lines = [f"{v.tier}, {v.draws} draws, against {v.reference}: {of}{len(v.verdicts) - 1} exhibits", where]
    return lines if v.environment is None else [*lines, went]


def _few(things: Sequence[str], n: int = 6) -> str:
    return "; ".join(things[:n]) + (f"; and {len(things) - n} more" if len(things) > n else "")


def _said(verdict: Verdict) -> str:
    why = f": {REASONS[verdict.code][1]} [{verdict.code}]" if verdict.code else ""
    n = len(verdict.cells)
    count = (
        f", {n} cell{'s' if n > 1 else ''} in {len({c.row for c in verdict.cells})} of {verdict.rows} rows" if n else ""
    )
    far = [c.errors for c in verdict.cells if c.errors is not None]
    return verdict.verdict + why + count + (f", up to {max(far):.3g} standard errors" if far else "")


def _shown(verdict: Verdict) -> list[str]:
    ranked = sorted(verdict.cells, key=lambda c: (WORST.index(c.code), -(c.errors or 0.0)))
    lines = [c.text for c in ranked[:SHOWN]]
    if len(ranked) > SHOWN:
        lines.append(f"and {len(ranked) - SHOWN} more cells (--json lists all)")
    if verdict.code == "altered":
        lines += [f"{f}: changed or lost after the run" for f in verdict.files[:SHOWN]]
    elif not ranked:
        lines.append(f"other bytes: {_few(verdict.files)}")
    return lines


def _sum(v: Verification) -> str:
    counts = {kind: sum(w.verdict == kind for w in v.verdicts[:-1]) for kind in MARKS}
    said = ", ".join(f"{n} {kind}" for kind, n in counts.items() if n)
    if v.ok:
        return f"verified: {said}; nothing differs from {v.reference}"
    return (
        f"NOT verified: {said}. Run `biglocal reproduce {v.tier}` again; if it stays, see above what is not the same, "
        f"or make these results the reference by `biglocal verify {v.tier} --accept`"
    )
