"""The report: exhibits placed in prose, and all of it written in the formats people use.

An exhibit is one file of manuscript/exhibits (headers.py reads it, tabulate.py fills it). Nothing here
reads microdata, and nothing here computes an estimate.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from biglocal.exhibits import cards, figures, headers, markup, page, tabulate, typed, word
from biglocal.exhibits.headers import Template
from biglocal.exhibits.prose import Press
from biglocal.exhibits.wording import banner, kind
from biglocal.model import Run, Study, StudyError
from biglocal.results import Row, json_lines, write_bytes
from biglocal.study import MANUSCRIPT, MONEY, ROOT, choices

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from pathlib import Path

    from biglocal.data.sources import Source
    from biglocal.exhibits.tabulate import Block, Table

PUBLISHED = ROOT / "data-raw" / "published.toml"


def render(
    rows: Sequence[Row],
    study: Study,
    run: Run,
    out: Path,
    manuscript: Path = MANUSCRIPT,
    only: Collection[str] | None = None,
    published: Path = PUBLISHED,
    reuse: bool = False,
) -> tuple[Path, ...]:
    """Write the exhibits and the report of a run; give back the paths written, in order.

    `rows` are those of results.csv, `out` the folder that takes tables/, figures/, numbers.json, unused.csv (rows that
    no exhibit shows), report.html and report.pdf. `only` names exhibits: those alone are written, and no report.
    `reuse`: a figure that an earlier run left in `out` and that would come out the same is not drawn again; for
    outputs known to be unaltered.

    Raises `StudyError` for a template or header that asks for what does not exist, naming template, entry and choices,
    for an exhibit that no analysis can feed, and for a digit typed into the manuscript; `DataError` for a
    published.toml that cannot be read. Nothing half-written is left.
    """
    if only is not None and (unknown := sorted(set(only) - set(study.exhibits))):
        raise StudyError(f"no exhibit '{unknown[0]}' in study.toml. {choices(unknown[0], study.exhibits)}")
    typed.check(manuscript)
    press = Report(tuple(sorted(rows, key=lambda r: r.analysis)), study, run, manuscript, published)
    press.before = out / "figures" if reuse else None
    blocks = [press.block(name) for name in study.exhibits if only is None or name in only]
    files = {path: data for block in blocks for path, data in _block(press, block, out)}
    if only is None:
        files |= _report(press, out)
    for path, data in files.items():  # once all is made, so that a fault in the last template changes nothing
        write_bytes(path, data)
    for block in blocks:
        for ending in ("csv", *figures.ENDINGS) if block.figure is None else ():
            (out / "figures" / f"{block.template.id}.{ending}").unlink(missing_ok=True)  # of a run that had the rows
    return tuple(files)


_PUBLISHED = frozenset({"effects", "subgroups", "truth", "change", "association", "members_truth", MONEY})


def parts(name: str, manuscript: Path = MANUSCRIPT) -> frozenset[str]:
    """The parts of results.csv that an exhibit is made of, from its header alone.

    Raises `StudyError` for a template that is not there or has no valid header.
    """
    header = headers.read(name, manuscript).header
    wanted: list[Any] = [w.get("part", []) for w in (header.select, header.figure_select, *header.like.values())]
    out = {p for part in wanted for p in (part if isinstance(part, list) else [part])}
    return frozenset(out | (_PUBLISHED if header.source == "published" else frozenset()))


def feeding(name: str, rows: Sequence[Row], manuscript: Path = MANUSCRIPT) -> tuple[Row, ...]:
    """The rows that an exhibit is made of, by its header alone: those its table and figure select."""
    header = headers.read(name, manuscript).header
    if header.source == "published":
        return tuple(r for r in rows if r.part in _PUBLISHED)
    if header.source != "rows":
        return ()
    wanted = [header.select, *([header.figure_select] if header.figure_select else [])]
    return tuple(dict.fromkeys(r for w in wanted for r in tabulate.chosen(rows, header, w)))


def needing(study: Study, source: Source, manuscript: Path = MANUSCRIPT) -> tuple[str, ...]:
    """The exhibits that need a source: of their outcomes where it gives outcomes, every one where it gives areas."""
    if not {"area_panel", "survey", "residents"} & set(source.tables):
        return study.exhibits
    columns = {c + suffix for c in source.gives for suffix in ("", "_z", "_rate")}
    of = {name for name, outcome in study.outcomes.items() if outcome.column in columns}
    blocks = {block.part for block in study.analyses if of & set(block.outcomes)}
    return tuple(e for e in study.exhibits if parts(e, manuscript) & blocks)


def _block(press: Report, block: Block, out: Path) -> Iterator[tuple[Path, bytes]]:
    """The files of an exhibit."""
    if block.table:
        path = out / "tables" / block.template.id
        yield path.with_suffix(".csv"), block.table.csv.encode()
        for ending, template in (("md", "table.md.j2"), ("tex", "table.tex.j2"), ("html", "alone.html.j2")):
            yield path.with_suffix(f".{ending}"), press.format(template, table=block.table).encode()
        as_word = path.with_suffix(".docx")
        yield as_word, word.table(block.table, as_word if press.before else None)
    if block.figure:
        for ending in ("csv", *reversed(figures.ENDINGS)):  # the SVG last: it vouches for the others
            data = block.figure.csv.encode() if ending == "csv" else getattr(block.figure.drawing, ending)
            yield out / "figures" / f"{block.template.id}.{ending}", data


def _report(press: Report, out: Path) -> dict[Path, bytes]:
    """The files of the whole report."""
    pieces = markup.parse(press.text("report.md.j2"))
    blocks = {name: press.block(name) for name in press.study.exhibits}
    parts: list[dict[str, object]] = []
    for piece in pieces:
        what, _, name = piece.place.partition(".")
        parts.append({"piece": piece, "what": what, "block": blocks.get(name)})
    shared = {"parts": parts, "title": press.study.title, "banner": banner(press.run), "kind": kind(press.run)}
    drawn = {f"figures/{name}.svg": b.figure.drawing.svg for name, b in blocks.items() if b.figure}
    with ThreadPoolExecutor(1) as aside:  # Typst sets on a core of its own while the rest is written
        pdf = aside.submit(_pdf, press.format("report.typ.j2", **shared), drawn)
        told = json.dumps(cards.cards(press), ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
        named = [b.figure for b in blocks.values() if b.figure]
        kept = page.earlier(out / "report.html") if press.before else {}
        drawings = {f.id: page.drawing(f.drawing.svg.decode(), f.alt, f"d{i}-", kept) for i, f in enumerate(named)}
        fonts = page.fonts(drawings.values(), kept)
        web = press.format(
            "report.html.j2", toc=markup.headings(pieces), told=told, cards=press.cards, drawings=drawings,
            fonts=fonts, **shared,
        )  # fmt: skip
        unused = [r for r in press.rows if r.status == "ok" and r.key not in press.used]
        listed = "part,row\n" + "".join(f'{r.part},"{r.key}"\n' for r in unused)
        return {
            out / "unused.csv": listed.encode(),
            out / "numbers.json": f"{json_lines(dict(sorted(press.numbers.items())))}\n".encode(),
            out / "report.html": web.encode(),
            out / "report.docx": word.report(parts, press.study.title, banner(press.run)),
            out / "report.pdf": pdf.result(),
        }


def _pdf(source: str, drawn: dict[str, bytes]) -> bytes:
    import typst

    files: Any = {"main.typ": source.encode()} | drawn  # folder in memory: typst's types do not know of it
    fonts = typst.Fonts(include_system_fonts=False)
    try:
        return typst.compile(files, format="pdf", pdf_standards=["ua-1"], timestamp=0, font_paths=fonts)
    except typst.TypstError as e:
        raise StudyError(
            f"formats/report.typ.j2: the PDF cannot be set: {e}. Look at the exhibit or text named."
        ) from e


class Report(Press):
    """A press that has the study's exhibits, each made once, and places them in prose."""

    def __init__(self, rows: tuple[Row, ...], study: Study, run: Run, manuscript: Path, published: Path) -> None:
        super().__init__(rows, study, run, manuscript, published)
        self.templates = {name: headers.read(name, manuscript) for name in study.exhibits}
        for template in self.templates.values():
            tabulate.check(self, template.header, template.file)
        self.places = _count(self.templates.values())
        self._blocks: dict[str, Block] = {}
        self._placed: set[str] = set()

    def more(self) -> dict[str, Any]:
        """Exhibits, for prose."""
        return {"exhibit": self.exhibit, "others": self.others, "ref": self.ref}

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
        body = self.render(lambda: self.markdown().from_string(template.body).render(**spots), template.file)
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
            self._blocks[name] = tabulate.block(self, self.templates[name])
            if table := self._blocks[name].table:
                self._record_cells(table, self.templates[name].file)
        return self._blocks[name]

    def _record_cells(self, table: Table, file: str) -> None:
        """Enter each number of a table that comes from a row."""
        self._file, outer = file, self._file
        at = table.caption.split(". ", 1)[0]
        for i, line in enumerate(table.lines, start=1):
            for cell, head in zip(line.cells, table.heads, strict=False):
                if cell.traced:
                    raw = cell.raw[0] if len(cell.raw) == 1 else list(cell.raw)
                    where = f"{at}, {line.cells[0].text}, {head.text}"
                    self.record(f"{table.id}.{i}.{head.text}", cell.text, raw, where, cell.row)
        self._file = outer


def _count(templates: Iterable[Template]) -> dict[tuple[str, str], int]:
    """Numbers of tables and figures, in the study's order, whatever this run can show."""
    out: dict[tuple[str, str], int] = {}
    seen = {"table": 0, "figure": 0}
    for template in templates:
        for what in ("table", "figure") if template.header.kind == "both" else (template.header.kind,):
            seen[what] += 1
            out[template.id, what] = seen[what]
    return out
