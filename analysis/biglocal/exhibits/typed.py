"""No number is typed into the report: every digit of the manuscript comes from a row, a fact or the study.

A digit outside the templates' own expressions is refused, unless it belongs to a name on the short list in
facts.toml (`digits`), such as SHA-256.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from biglocal.exhibits.headers import toml
from biglocal.model import StudyError

TEXTS = ("title", "note", "figure_title", "figure_note", "alt", "absent", "total")  # of a header; and columns' head
_CODE = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", re.DOTALL)
SHOWN = 10


def check(manuscript: Path) -> None:
    """Refuse typed digits in report.md.j2, macros.md.j2 and the exhibits.

    Raises `StudyError` naming file, line and digit of up to ten, and what to write instead.
    """
    allowed = [re.escape(a) for a in toml(manuscript / "facts.toml").get("digits", ())]
    names = re.compile("|".join(sorted(allowed, key=lambda a: -len(a))) or r"(?!)")
    found: list[str] = []
    for path in (*sorted(manuscript.glob("*.md.j2")), *sorted((manuscript / "exhibits").glob("*.md.j2"))):
        file = path.relative_to(manuscript).as_posix()
        for line, text in _texts(path.read_text(encoding="utf-8")):
            bare = names.sub("", text)
            for digit in re.finditer(r"\d[\d.,]*", bare):
                near = " ".join(bare[max(0, digit.start() - 35) : digit.end() + 25].split())
                found.append(f"{file}: line {line}: {digit[0]}, in \u2018{near}\u2019")
    if found:
        more = f"\n  and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        listed = "\n  ".join(found[:SHOWN])
        raise StudyError(
            f"the manuscript has {len(found)} typed digit{'s' if len(found) > 1 else ''}:\n  {listed}{more}\n"
            f"Take the number from a row, `fact`, `policy(…)` or `number(…)` (manuscript/README.md); a name with a "
            f"digit in it goes into `digits` of facts.toml."
        )


def _texts(source: str) -> list[tuple[int, str]]:
    """The lines that a reader sees, with their numbers: of a header its texts alone."""
    lines = _CODE.sub(lambda m: re.sub(r"[^\n]", " ", m[0]), source).split("\n")
    if not lines or lines[0] != "+++":
        return list(enumerate(lines, start=1))
    end = lines.index("+++", 1) if "+++" in lines[1:] else len(lines)
    body = list(enumerate(lines[end + 1 :], start=end + 2))
    try:
        header: dict[str, Any] = tomllib.loads("\n".join(lines[1:end]))
    except tomllib.TOMLDecodeError:
        return body  # headers.py says what is wrong with it
    texts = [header.get(k, "") for k in TEXTS] + [c.get("head", "") for c in header.get("columns", ())]
    said = [t for t in texts if isinstance(t, str) and re.search(r"\d", t)]
    at = {t: next((n for n, line in enumerate(lines, start=1) if t.split("\n")[0] in line), 1) for t in said}
    return [(at[t], t) for t in said] + body
