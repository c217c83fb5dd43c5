"""An exhibit's file: a TOML header that says which rows it wants and how they become columns, then Markdown.

manuscript/README.md documents the header for those who write one.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import TypeAdapter, ValidationError

from biglocal.model import DataError, StudyError, type_config
from biglocal.study import choices

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Column:
    """One column: `value` of the one row of the line that fits `where`; `when` names the kinds of run that show it.

    `each`: one such column for each outcome of the multiverse, which stands for `{outcome}` in `head`.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = type_config
    head: str
    value: str
    where: dict[str, Any] = field(default_factory=dict)
    format: str = ""
    when: tuple[Literal["SYNTHETIC", "PLACEBO", "REAL"], ...] = ()
    width: float = 0.0
    each: bool = False


@dataclass(frozen=True, slots=True)
class Header:
    """An exhibit's header, checked."""

    __pydantic_config__: ClassVar[dict[str, str]] = type_config
    title: str
    kind: Literal["table", "figure", "both"] = "table"
    source: Literal["rows", "run", "published", "environment", "multiverse"] = "rows"
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
    absent: str = ""


@dataclass(frozen=True, slots=True)
class Template:
    """One exhibit's file: name, header, Markdown."""

    id: str
    file: str
    header: Header
    body: str


@cache
def _header() -> TypeAdapter[Header]:
    return TypeAdapter(Header)  # ten milliseconds, for each of fifty exhibits


def read(name: str, manuscript: Path) -> Template:
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
        header = _header().validate_python(tomllib.loads(parts[1]))
    except tomllib.TOMLDecodeError as e:
        raise StudyError(f"{file}: the header is not valid TOML: {e} (line counted from the first +++).") from None
    except ValidationError as e:
        first = e.errors()[0]
        at = ".".join(str(p) for p in first["loc"])
        known = Column.__slots__ if str(first["loc"][0]) == "columns" and len(first["loc"]) > 1 else Header.__slots__
        more = choices(str(first["loc"][-1]), known) if "unexpected" in first["type"] else "Correct the header."
        raise StudyError(f"{file}: {at}: {first['msg'].lower()}. {more}") from None
    return Template(name, file, header, parts[2])


def words(wanted: Mapping[str, object]) -> str:
    """A selection in words."""
    return ", ".join(f"{k} {v}" for k, v in wanted.items())


def toml(path: Path) -> dict[str, Any]:
    """A TOML file. Raises `DataError` naming file and line where it is missing or damaged."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path.name}: no such file. Run from a clone of the project.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise DataError(f"{path.name}: not valid TOML: {e}. Mend the line named.") from None
