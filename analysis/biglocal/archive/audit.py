"""Where the package stands before those who judge it: `biglocal audit`, as text, JSON, and Markdown for a form."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from biglocal import exhibits, verify
from biglocal.archive import acre, hygiene, standards, validity  # noqa: F401  they enter their rules
from biglocal.archive.acre import Facts
from biglocal.archive.package import CHECKS, Answer, Check, Package
from biglocal.archive.rules import STANDARDS
from biglocal.archive.standards import programs, unsaid, vague

MARKS = {"pass": "ok  ", "fail": "FAIL", "advised": "note", "not applicable": "n/a ", "cannot check": "?   "}
SHOWN = 3
GRAVEST = ("no-secret", "outputs-unaltered", "licence-code", "reproduces", "outputs-current")  # mended first


@dataclass(frozen=True, slots=True)
class Standing:
    """An exhibit on the ACRE guide's scale.

    `made`: of the made data; None where this run does not show it. `real`: of the study's own data, today; `could`: the
    same once a third party has certified a run. `sources`: what it needs of real data. `why`: of `made` None.
    """

    exhibit: str
    made: Facts | None
    real: Facts
    could: Facts
    sources: tuple[str, ...]
    why: str = ""


@dataclass(frozen=True, slots=True)
class Audit:
    """Every rule with its answer, every exhibit with its level, and the one step that helps most."""

    package: str
    bundle: str
    answers: tuple[tuple[Check, Answer], ...]
    standings: tuple[Standing, ...]
    step: str

    @property
    def ok(self) -> bool:
        """Whether no rule fails."""
        return all(a.verdict != "fail" for _, a in self.answers)


def audit(package: Package) -> Audit:
    """Ask every rule, and place every exhibit.

    Raises `StudyError` or `DataError` where study.toml or sources.toml cannot be read: nothing can then be said.
    """
    answers = tuple((c, c.answer(package)) for c in CHECKS.values())
    standings = tuple(_standings(package))
    name = f"{package.metadata.name} {package.metadata.version}"
    bundle = package.bundle.name if package.bundle else ""
    return Audit(
        name, bundle, answers, standings, _step({c.id: a for c, a in answers}, standings, vague(package.sources))
    )


def _standings(p: Package) -> Iterator[Standing]:
    lacking, closed = programs(p), {key for key, _ in (*unsaid(p.sources), *vague(p.sources))}
    cleaning: acre.Share = "complete" if CHECKS["DCAS-7"].answer(p).verdict == "pass" else "partial"
    needs = {s.key: set(exhibits.needing(p.study, s, p.manuscript)) for s in p.sources}
    seen = {v.exhibit: v for v in p.verified.verdicts} if p.verified else {}
    for name in p.study.exhibits:
        code: acre.Share = "partial" if lacking[name] else "complete"
        needed = tuple(s.key for s in p.sources if name in needs[s.key])
        told: acre.Share = "partial" if closed & set(needed) else "complete"
        verdict = seen.get(name)
        made, why = None, "no run in outputs/, or no reference"
        if verdict and verdict.verdict in (verify.IDENTICAL, verify.WITHIN, verify.DIFFERS):
            made, why = Facts(code, "complete", verdict.verdict != verify.DIFFERS, "none", "none", crr=False), ""
        elif verdict:
            why = verify.REASONS[verdict.code][1]
        real = Facts(code, told, cra=False, cleaning=cleaning, raw=told, crr=False, star=True)
        could = replace(real, data="complete", raw="complete", cra=True, crr=True)
        yield Standing(name, made, real, could, needed, why)


def _step(answers: dict[str, Answer], standings: Iterable[Standing], gaps: list[tuple[str, str]]) -> str:
    """The one thing to do next: mend the gravest failure, else let more be seen, else raise the most exhibits."""
    failed = [i for i, a in answers.items() if a.verdict == "fail"]
    for rule in sorted(failed, key=lambda i: (GRAVEST.index(i) if i in GRAVEST else len(GRAVEST), failed.index(i))):
        a = answers[rule]
        return f"{a.do or 'Mend it'} ({rule}: {a.said[0]})"
    blind: dict[str, list[str]] = {}
    for rule, a in answers.items():
        if a.verdict == "cannot check" and a.do:
            blind.setdefault(a.do, []).append(rule)
    if blind:
        do, rules = max(blind.items(), key=lambda item: len(item[1]))
        return f"{do} (it lets {', '.join(rules)} be seen)"
    low = [s for s in standings if acre.level(s.real).number < acre.level(s.could).number]
    if gaps:
        held_up = [s for s in low if s.real.data != "complete"]
        key = Counter(key for key, _ in gaps for s in held_up if key in s.sources).most_common(1)[0][0]
        open_ = ", ".join(what for k, what in gaps if k == key)
        count = sum(key in s.sources for s in held_up)
        return (
            f"Find out, and write into data-raw/sources.toml, what is not known of `{key}`: {open_} ({count} exhibits)"
        )
    if low:
        now, then = acre.name(low[0].real), acre.name(low[0].could)
        return (
            f"Have a third party with access to the closed data run `reproduce secure` and certify what comes out: "
            f"{len(low)} exhibits go from level {now} to {then} of the ACRE guide"
        )
    return "Nothing: every rule is kept, every exhibit is on the highest level"


# --- in words ----------------------------------------------------------------------------------------------


def text(a: Audit, whole: bool = False) -> str:
    """By standard counts and a line for each rule not kept (`whole`: for every rule), levels, and the next step."""
    lines = [f"{a.package}{f', bundle {a.bundle}' if a.bundle else ', no bundle'}"]
    for standard, answers in _by_standard(a).items():
        lines += ["", f"{standard}: {_counts(answer for _, answer in answers)}"]
        for check, answer in answers:
            if whole or answer.verdict in ("fail", "advised", "cannot check"):
                lines.append(f"  {MARKS[answer.verdict]} {check.id}  {check.title}: {_some(answer.said, SHOWN)}")
    lines += ["", "Levels of computational reproducibility (ACRE guide; * data that may not be passed on)"]
    lines += [f"  {what}: {line}" for what, line in _levels(a)]
    failed = sum(answer.verdict == "fail" for _, answer in a.answers)
    lines += [
        "",
        f"Next: {a.step}",
        "",
        f"{failed or 'no'} rule{'' if failed == 1 else 's'} of {len(a.answers)} failed",
    ]
    return "\n".join(lines)


def markdown(a: Audit) -> str:
    """A table a standard, and one of exhibits, to paste into a form."""
    lines = [f"## Audit of {a.package}", "", f"Bundle: {a.bundle or 'none looked at'}. **Next step:** {a.step}."]
    for standard, answers in _by_standard(a).items():
        lines += ["", f"### {standard}", "", f"{_counts(answer for _, answer in answers)}.", ""]
        lines += ["| Rule | Title | Verdict | Seen |", "|---|---|---|---|"]
        lines += [
            f"| {c.id} | {_cell(c.title)} | {_bold(r.verdict)} | {_cell(_some(r.said, 2 * SHOWN))} |"
            for c, r in answers
        ]
    lines += ["", "### Levels of computational reproducibility (ACRE guide)", "", NOTE, ""]
    lines += ["| Exhibit | Made data | Study's data, now | If certified | Needs |", "|---|---|---|---|---|"]
    for s in a.standings:
        made = f"{acre.name(s.made)}: {acre.meaning(s.made)}" if s.made else f"not judged: {s.why}"
        real = f"{acre.name(s.real)}: {acre.meaning(s.real)}"
        lines.append(f"| {s.exhibit} | {made} | {real} | {acre.name(s.could)} | {', '.join(s.sources) or 'nothing'} |")
    return "\n".join(lines) + "\n"


NOTE = (
    "Made data have no raw stage, so level 5 is the highest they can show, and what they reproduce is this package's "
    "own reference: nothing here says that the published numbers come out. For the study's own data, which may not be "
    "passed on, the starred scale counts complete instructions as data, and a third party's certificate as a run."
)


def as_json(a: Audit) -> str:
    """Everything."""
    rules = [
        {"id": c.id, "standard": c.standard, "title": c.title, "asks": c.asks, "severity": c.severity, **asdict(answer)}
        for c, answer in a.answers
    ]
    levels = [
        {
            "exhibit": s.exhibit,
            "made": acre.name(s.made) if s.made else None,
            "why": s.why,
            "real": acre.name(s.real),
            "could": acre.name(s.could),
            "sources": s.sources,
        }
        for s in a.standings
    ]
    ladder = [asdict(rung) for rung in acre.LEVELS]
    whole = {"package": a.package, "bundle": a.bundle, "ok": a.ok, "next": a.step, "note": NOTE}
    return json.dumps(whole | {"rules": rules, "levels": levels, "acre": ladder}, indent=1, ensure_ascii=False) + "\n"


def _by_standard(a: Audit) -> dict[str, list[tuple[Check, Answer]]]:
    found: dict[str, list[tuple[Check, Answer]]] = {}
    for check, answer in a.answers:
        known = STANDARDS.get(check.standard)
        name = f"{known.name} ({check.standard} {known.version})" if known else check.standard
        found.setdefault(name, []).append((check, answer))
    return found


def _levels(a: Audit) -> Iterator[tuple[str, str]]:
    by: dict[tuple[str, str], list[str]] = {}
    for s in a.standings:
        said = f"level {acre.name(s.made)} ({acre.meaning(s.made)})" if s.made else f"not judged: {s.why}"
        by.setdefault(("made data", said), []).append(s.exhibit)
    for s in a.standings:
        then = f"level {acre.name(s.could)} once {acre.meaning(s.could)}"
        said = f"level {acre.name(s.real)} ({acre.meaning(s.real)}); {then}"
        by.setdefault(("study's own data", said), []).append(s.exhibit)
    for (what, said), names in by.items():
        few = f": {', '.join(names)}" if len(names) < 6 else ""
        yield what, f"{len(names)} exhibit{'s' if len(names) > 1 else ''}, {said}{few}"


def _counts(answers: Iterable[Answer]) -> str:
    found = [a.verdict for a in answers]
    return ", ".join(f"{found.count(v)} {v}" for v in MARKS if v in found)


def _some(said: tuple[str, ...], n: int) -> str:
    return "; ".join(said[:n]) + (f"; and {len(said) - n} more" if len(said) > n else "")


def _bold(verdict: str) -> str:
    return f"**{verdict}**" if verdict == "fail" else verdict


def _cell(said: str) -> str:
    return said.replace("|", "\\|").replace("\n", " ")


def newest(dist: Path) -> Path | None:
    """The bundle made last in a folder; None where there is none."""
    found = sorted(dist.glob("biglocal-*.zip"), key=lambda f: f.stat().st_mtime)
    return found[-1] if found else None
