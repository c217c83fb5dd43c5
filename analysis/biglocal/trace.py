"""Where a number comes from: from the report, through its row, to function and line, data and seed.

`numbers.json` holds every number that the report prints with the row it was made from; the row names its
analysis, the analysis its settings, and provenance.json the bytes of all that went in.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from biglocal import provenance, results
from biglocal.exhibits import headers
from biglocal.model import Analysis, DataError, Study, StudyError
from biglocal.results import Row
from biglocal.study import MANUSCRIPT, MONEY, ON_REQUEST, PATH, choices, expand, file_of, seeded_by, sources, tables

MOST = 8  # rows told in full where a number as printed has more than one


def trace(out: Path, wanted: str, study: Study, study_path: Path = PATH, manuscript: Path = MANUSCRIPT) -> str:
    """The chain behind `wanted`, in words: an exhibit, an analysis or row, a name of numbers.json, or a number as
    printed (a hyphen may stand for the minus sign).

    Raises `DataError` where `out` holds no finished run, and `StudyError` where nothing of that name or text is there.
    """
    record = provenance.last(out)
    if not record:
        raise DataError(f"no record of a run in {out.name}/. Run `biglocal reproduce` first.")
    rows = {r.key: (n, r) for n, r in enumerate(results.read(out / "results.csv"), start=2)}
    plan = {a.id: a for a in expand(study)}
    chain = _Chain(out, record, study, study_path, plan, rows)
    if wanted in study.exhibits:
        return "\n".join(_exhibit(chain, wanted, manuscript))
    found = [key for key, (_, r) in rows.items() if wanted in (key, r.analysis)]
    if found:
        return "\n".join(line for key in found for line in chain.row(key))
    numbers = _numbers(out)
    text = re.sub(r"^-(?=[\d.])", "\u2212", wanted.strip())
    hits = {name: n for name, n in numbers.items() if name == wanted or n["text"] in (wanted, text)}
    if not hits:
        raise StudyError(
            f"'{wanted}' is no exhibit, analysis, row or number of {out.name}/. {choices(wanted, study.exhibits)} "
            f"A number is given as the report prints it, say \u22120.104."
        )
    places: dict[str, list[str]] = {}  # by what they come from: a row, or a source in words
    for name, number in hits.items():
        printed = f"{number['text']}  {number['template']}: {number['source'] if 'row' in number else name}"
        places.setdefault(number.get("row", number["source"]), []).append(printed)
    lines = [f"{text} is printed in {len(hits)} place{'s' if len(hits) > 1 else ''}"]
    for origin, said in list(places.items())[:MOST]:
        lines += ["", *said, *(chain.row(origin) if "#" in origin else [f"  from       {origin}"])]
    if len(places) > MOST:
        lines += ["", f"and from {len(places) - MOST} more: {', '.join(list(places)[MOST:])}"]
    return "\n".join(lines)


def _numbers(out: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((out / "numbers.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise DataError(f"{out.name}/numbers.json cannot be read. Run `biglocal reproduce` again.") from None
    return found


class _Chain:
    """What every step of a trace needs."""

    def __init__(
        self,
        out: Path,
        record: dict[str, Any],
        study: Study,
        study_path: Path,
        plan: dict[str, Analysis],
        rows: dict[str, tuple[int, Row]],
    ) -> None:
        self.out, self.record, self.study, self.plan, self.rows = out, record, study, plan, rows
        self.study_lines = study_path.read_text(encoding="utf-8").splitlines()
        self.study_name = study_path.name

    def row(self, key: str) -> Iterator[str]:
        """The chain of one row."""
        if key not in self.rows:
            yield f"  row        {key}: not in results.csv any more. Run `biglocal reproduce` again."
            return
        at, row = self.rows[key]
        yield f"  row        {key} (results.csv line {at})"
        yield f"             {_values(row)}"
        analysis = self.plan.get(row.analysis)
        if analysis is None:
            yield f"  analysis   {row.analysis}: study.toml has no such analysis any more."
            return
        yield from self.analysis(analysis)

    def analysis(self, analysis: Analysis) -> Iterator[str]:
        """Settings, code, seed and data of an analysis; of one made of other rows, those analyses."""
        if analysis.part == MONEY:
            yield f"  settings   {MONEY} ({self.study_name} line {self._line(f'[{MONEY}]')})"
            yield f"  made by    {self._code('worth.py', 'rows')}"
            yield f"  formula    {self._code('cost_benefit.py', 'account')}"
            yield f"  seed       default_rng([{self.study.seed}, {zlib.crc32(analysis.id.encode())}])"
            yield from (f"  made of    {a.id}" for a in sources(self.study))
            return
        settings = [
            f"{section}.{name} ({self.study_name} line {line})"
            for section, name in (
                ("outcomes", analysis.outcome),
                ("subgroups", analysis.subgroup),
                ("comparisons", analysis.comparison),
                ("treatments", analysis.treatment),
                ("estimators", analysis.estimator),
                ("respondents", analysis.respondents),
                ("exposures", analysis.exposure),
            )
            if (line := self._setting(section, name))
        ]
        yield f"  settings   {'; '.join(settings) or 'none of its own'}"
        if analysis.estimator:
            yield f"  estimator  {self._code(f'estimators/{file_of(self.study, analysis.estimator)}.py', 'estimate')}"
        if analysis.inference != "none":
            yield f"  inference  {analysis.inference}: {self._code('inference/__init__.py', 'infer')}"
        if analysis.comparison:
            method = self.study.comparisons[analysis.comparison].method
            yield f"  matching   {self._code(f'matching/{method}.py', 'match')}"
        yield f"  sample     {self._code('sample.py', 'sample')}"
        if analysis.part in ON_REQUEST:
            drawn = self._code(f"{analysis.part}.py", "run")
            yield f"  seed       {self.study.seed}, with a name for each replication: {drawn}"
        else:
            name = seeded_by(self.study, analysis)
            yield f"  seed       default_rng([{self.study.seed}, {zlib.crc32(name.encode())}])"
        data = self.record.get("data", {})
        for table in tables(self.study, analysis):
            if table in data:
                yield f"  data       table {table}, sha256 {data[table][:12]}"
        if self.record.get("tier") == "synthetic":
            yield f"  raw        made from seed {self.study.seed}: {self._code('data/synthetic.py', 'read')}"
        for name, sha in self.record.get("files", {}).items():
            yield f"  raw        {name}, sha256 {sha[:12]}"
        lock = self.record.get("lock", "")
        yield f"  lock       locks/run.txt, sha256 {lock[:12]}{'' if lock == provenance.lock() else ' (CHANGED SINCE)'}"

    def _setting(self, section: str, name: str) -> int | None:
        return self._line(f"[{section}.{name}]")

    def _line(self, wanted: str) -> int | None:
        return next((n for n, line in enumerate(self.study_lines, start=1) if line.strip() == wanted), None)

    def _code(self, file: str, function: str) -> str:
        line, sha = provenance.where(file, function)
        then = self.record.get("code", {}).get(file)
        changed = "" if sha == then else " (CHANGED SINCE THE RUN)"
        return f"biglocal/{file} line {line}, {function}(), sha256 {sha[:12]}{changed}"


def _values(row: Row) -> str:
    named = [(c, getattr(row, c)) for c in ("estimate", "std_error", "conf_low", "conf_high", "df", "p_value")]
    named += [(c, getattr(row, c)) for c in ("p_adjusted", "n_obs", "n_units", "n_treated", "n_clusters")]
    said = [f"{c} {v:.10g}" if isinstance(v, float) else f"{c} {v}" for c, v in named if v is not None]
    return ", ".join([*said, *([f"unit {row.unit}"] if row.unit else []), row.status]) + (
        f": {row.reason}" if row.reason else ""
    )


def _exhibit(chain: _Chain, name: str, manuscript: Path) -> list[str]:
    template = headers.read(name, manuscript)
    fed = _feeding(chain.out, name)
    made = [f for f in chain.record.get("outputs", {}) if Path(f).stem == name]
    lines = [
        f"{name}: {template.file}",
        f"  wants      {headers.words(template.header.select) or template.header.source}",
    ]
    lines += [f"  made       {f}, sha256 {chain.record['outputs'][f][:12]}" for f in made]
    ids = list(dict.fromkeys(chain.rows[k][1].analysis for k in fed if k in chain.rows))
    lines += [f"  rows       {len(set(fed))} rows of {len(ids)} analyses feed its numbers"]
    lines += [f"             {key}" for key in sorted(set(fed))]
    for analysis in _kinds([chain.plan[i] for i in ids if i in chain.plan]):
        lines += ["", f"  {analysis.id}", *chain.analysis(analysis)]
    return lines


def _feeding(out: Path, exhibit: str) -> list[str]:
    return [n["row"] for name, n in _numbers(out).items() if "row" in n and name.startswith(f"{exhibit}.")]


def _kinds(analyses: Sequence[Analysis]) -> list[Analysis]:
    """One analysis for each estimator, inference and comparison: the rest differ in their outcome alone."""
    return list({(a.estimator, a.inference, a.comparison): a for a in reversed(analyses)}.values())[::-1]
