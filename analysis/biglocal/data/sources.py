"""The list of sources, `data-raw/sources.toml`: read and checked, and written out for people."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from biglocal.data.folder import DOMAINS
from biglocal.model import DataError, type_config
from biglocal.study import ROOT, choices

PATH = ROOT / "data-raw" / "sources.toml"
README = ROOT / "data-raw" / "README.md"
BEGIN = "<!-- begin: sources (written by `biglocal metadata`) -->"
END = "<!-- end: sources -->"


@dataclass(frozen=True, slots=True)
class File:
    """One file to fetch: its name, its addresses (the publisher's first), and what is known of its bytes."""

    __pydantic_config__: ClassVar[dict[str, str]] = type_config
    name: str
    addresses: tuple[str, ...]
    size: int | None = None
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Source:
    """One source: `address` is its page for people, `steps` what a person does where nothing can be fetched."""

    __pydantic_config__: ClassVar[dict[str, str]] = type_config
    key: str
    name: str
    publisher: str
    tier: Literal["open", "secure"]
    address: str
    licence: str
    citation: str
    vintage: str
    columns: tuple[str, ...]
    tables: tuple[str, ...]
    gives: tuple[str, ...]
    needed: str
    rights: str = ""
    cost: str = ""
    waiting: str = ""
    files: tuple[File, ...] = ()
    steps: tuple[str, ...] = ()

    @property
    def published(self) -> bool:
        """Whether it has a publisher with a page, so that it can be cited as data."""
        return bool(self.citation and self.address) and not self.publisher.startswith("not public")

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles of `data/folder.py` that its files play together; none for what never leaves a lab."""
        if self.tier != "open":
            return ()
        return tuple(DOMAINS) if self.key == "domains" else (self.key,)


def read(path: Path = PATH) -> tuple[Source, ...]:
    """The sources in the order of the file.

    Raises `DataError` for a file that is absent or is not as above, an address that is not of the web, and a name of
    a file that is not a plain name.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        raw: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        sources = TypeAdapter(tuple[Source, ...]).validate_python([{**s, "key": key} for key, s in raw.items()])
    except FileNotFoundError:
        raise DataError(f"{path.name}: no such file at {path}. Run from a clone of the project.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path.name}: not valid TOML: {error}. Mend the line named.") from None
    except (ValidationError, TypeError) as error:
        where = ""
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            at = [list(raw)[int(first["loc"][0])], *first["loc"][1:]]
            where = f"{'.'.join(map(str, at))}: {first['msg'].lower()}"
        raise DataError(f"{path.name}: {where or error}. Correct the entry.") from None
    for source in sources:
        for file in source.files:
            if not file.addresses or not all(a.startswith(("https://", "http://")) for a in file.addresses):
                raise DataError(f"{path.name}: {source.key}: {file.name}: an address begins with https://. Correct it.")
            if Path(file.name).name != file.name or file.name.startswith("."):
                raise DataError(f"{path.name}: {source.key}: {file.name!r} is not a plain file name. Correct it.")
            if file.sha256 and not (len(file.sha256) == 64 and set(file.sha256) <= set("0123456789abcdef")):
                raise DataError(f"{path.name}: {source.key}: {file.name}: sha256 has 64 of 0-9 and a-f. Correct it.")
    return sources


def chosen(sources: Iterable[Source], only: Iterable[str]) -> tuple[Source, ...]:
    """Those named in `only`, or all. Raises `DataError` for a name that is not there."""
    known = {s.key: s for s in sources}
    for name in only:
        if name not in known:
            raise DataError(f"--only {name}: no such source. {choices(name, known)}")
    return tuple(s for s in known.values() if not (names := set(only)) or s.key in names)


def statement(sources: Iterable[Source]) -> str:
    """The dataset list and the statement of each source, as Markdown (Social Science Data Editors' template)."""
    sources = tuple(sources)
    lines = ["### Details on each data source", ""]
    for s in sources:
        lines += [f"#### {s.key}: {s.name}", ""]
        lines += [f"- Publisher: {s.publisher}.", f"- Vintage: {s.vintage}.", f"- Licence: {s.licence}; {s.rights}."]
        lines += [f"- Cost: {s.cost}. Waiting time: {s.waiting}.", f"- Needed to start the tier {s.tier}: {s.needed}."]
        lines += [
            f"- Known by its columns: {', '.join(f'`{c}`' for c in s.columns)}.",
            f"- Gives: {', '.join(s.gives)}.",
        ]
        if s.address:
            lines.append(f"- Page: <{s.address}>")
        lines += [f"- File `{f.name}`: {' or '.join(f'<{a}>' for a in f.addresses)}" for f in s.files]
        lines += [f"- Step {i}: {step}" for i, step in enumerate(s.steps, 1)]
        if s.citation:
            lines.append(f"- Cite: {s.citation}")
        lines.append("")
    lines += [
        "## Dataset list",
        "",
        "| name | what | publisher | licence | in this package | how to get it | table |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| `{s.key}` | {s.name} | {s.publisher} | {s.licence} | no | {_how(s)} | {', '.join(s.tables)} |"
        for s in sources
    ]
    return "\n".join([*lines, ""])


def insert(text: str, sources: Iterable[Source]) -> str:
    """`text` with what stands between its markers written anew. Raises `DataError` for a text without them."""
    return between(text, BEGIN, END, statement(sources), "data-raw/README.md")


def between(text: str, begin: str, end: str, block: str, file: str) -> str:
    """`text` with `block` for what stands between two lines. Raises `DataError` naming `file` where one is gone."""
    head, first, rest = text.partition(begin)
    _, last, tail = rest.partition(end)
    if not first or not last:
        raise DataError(f"{file}: the lines '{begin}' and '{end}' are gone. Put them back.")
    return f"{head}{first}\n\n{block}\n{last}{tail}"


def _how(source: Source) -> str:
    if source.files:
        return f"`nox -s data -- --only {source.key}`"
    return "by hand: the steps above" if source.tier == "open" else "inside a lab: the steps above"
