"""The report and its tables in Word, for journals that take nothing else: python-docx, with the same bytes twice.

Real headings, captions, header rows that repeat, pictures with alternative text; the banner of a run that proves
nothing stands at the head of each page.
"""

from __future__ import annotations

import datetime
import io
import zipfile
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

from biglocal.exhibits.markup import unmarked
from biglocal.model import StudyError
from biglocal.provenance import code
from biglocal.results import digest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from docx.document import Document
    from markdown_it.token import Token

    from biglocal.exhibits.tabulate import Block, Figure, Table

WIDTH, LONG = 16.0, 24.7  # cm between the margins, upright and across
WARN = "7A1F00"
EPOCH = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)  # no clock in outputs


def report(parts: Sequence[dict[str, Any]], title: str, banner: str) -> bytes:
    """The whole report as a .docx file. `parts` as the other formats get them: pieces of Markdown, and blocks."""
    document = _document(title, banner)
    document.add_heading(title, level=0)
    if banner:
        _run(document.add_paragraph(), banner, bold=True, colour=WARN)
    for part in parts:
        if part["piece"].tokens:
            _markdown(document, part["piece"].tokens)
            continue
        block: Block = part["block"]
        if part["what"] == "missing":
            _run(document.add_paragraph(), f"{block.title} is not available in this run.", bold=True)
            for reason in block.missing:
                document.add_paragraph(reason)
        elif part["what"] == "table" and block.table:
            _table(document, block.table)
        elif part["what"] == "figure" and block.figure:
            _figure(document, block.figure)
    return _saved(document)


def table(one: Table, before: Path | None = None) -> bytes:
    """One table with its caption and notes as a .docx file.

    `before` is the file that an earlier run may have left: where it says that it was made of the same things, it is
    taken as it is. The caller vouches that nobody altered it.
    """
    key = _key(one)
    if before and before.is_file():
        data = before.read_bytes()
        with suppress(zipfile.BadZipFile, KeyError), zipfile.ZipFile(io.BytesIO(data)) as file:
            if key.encode() in file.read("docProps/core.xml"):
                return data
    document = _document(one.caption, one.banner)
    document.core_properties.identifier = key
    _table(document, one, alone=True)
    return _saved(document)


def _key(one: Table) -> str:
    """Digest of all that a table's file is made from: its words, this code and the library."""
    lines = [[line.group and (line.group.text, line.group.marks), *((c.text, c.marks) for c in line.cells)]
             for line in one.lines]  # fmt: skip
    words = (one.id, one.caption, one.heads, lines, one.notes, one.banner, one.landscape)
    return f"made from {digest(repr(words), *_made_by())}"


@cache
def _made_by() -> tuple[str, str]:
    return version("python-docx"), code("exhibits/word.py")


def _document(title: str, banner: str) -> Document:
    import docx
    from docx.enum.text import WD_ALIGN_PARAGRAPH
    from docx.oxml.ns import qn
    from docx.shared import Cm, Pt, RGBColor

    document = docx.Document()
    page = document.sections[0]
    page.page_width, page.page_height = Cm(21), Cm(29.7)
    page.left_margin = page.right_margin = page.top_margin = page.bottom_margin = Cm(2.5)
    for name, size in (("Normal", 10.5), ("Caption", 9.5), ("Heading 1", 15), ("Heading 2", 12), ("Title", 20)):
        style: Any = document.styles[name]
        style.font.name, style.font.size = "Times New Roman", Pt(size)
        fonts = style.element.get_or_add_rPr().get_or_add_rFonts()
        for own in ("w:asciiTheme", "w:hAnsiTheme", "w:eastAsiaTheme", "w:cstheme"):
            fonts.attrib.pop(qn(own), None)
        style.font.color.rgb = RGBColor(0x1A, 0x1A, 0x1A)
    head = page.header.paragraphs[0]
    if banner:
        head.alignment = WD_ALIGN_PARAGRAPH.CENTER
        _run(head, banner, bold=True, colour=WARN, size=8.5)
    properties = document.core_properties
    properties.title, properties.author, properties.language = title, "biglocal", "en-GB"
    properties.created = properties.modified = EPOCH
    return document


def _saved(document: Document) -> bytes:
    """The file, its bookmarks numbered, its entries in order and without dates."""
    from docx.oxml.ns import qn

    for tag in ("w:bookmarkStart", "w:bookmarkEnd"):
        for i, mark in enumerate(document.element.iter(qn(tag))):
            mark.set(qn("w:id"), str(i))
    loose, out = io.BytesIO(), io.BytesIO()
    document.save(loose)
    with zipfile.ZipFile(loose) as before, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as after:
        for name in sorted(before.namelist(), key=lambda n: (n != "[Content_Types].xml", n)):
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            packed = name.endswith(".png")  # already
            entry.compress_type, entry.external_attr = (
                zipfile.ZIP_STORED if packed else zipfile.ZIP_DEFLATED,
                0o600 << 16,
            )
            after.writestr(entry, before.read(name))
    return out.getvalue()


def _run(
    paragraph: Any, text: str, *, bold: bool = False, italic: bool = False, colour: str = "", size: float = 0
) -> Any:
    from docx.shared import Pt, RGBColor

    run = paragraph.add_run(text)
    run.bold, run.italic = bold or None, italic or None
    if colour:
        run.font.color.rgb = RGBColor.from_string(colour)
    if size:
        run.font.size = Pt(size)
    return run


# --- prose ------------------------------------------------------------------------------------------------

_LISTS = {"bullet_list_open": "List Bullet", "ordered_list_open": "List Number"}


def _markdown(document: Document, tokens: Sequence[Token]) -> None:
    style: list[str] = []
    paragraph: Any = None
    for token in tokens:
        if token.type in _LISTS:
            style.append(_LISTS[token.type])
        elif token.type in ("bullet_list_close", "ordered_list_close", "blockquote_close"):
            style.pop()
        elif token.type == "blockquote_open":
            style.append("Quote")
        elif token.type == "heading_open":
            paragraph = _paragraph(document, f"Heading {max(1, int(token.tag[1]) - 1)}")
            _mark(paragraph, str(token.attrGet("id") or ""))
        elif token.type == "paragraph_open":
            paragraph = _paragraph(document, style[-1]) if style else document.add_paragraph()
        elif token.type == "inline":
            _inline(paragraph, token.children or ())
        elif token.type in ("fence", "code_block"):
            code = document.add_paragraph()
            _run(code, token.content.rstrip("\n"), size=9).font.name = "Consolas"
        elif token.type not in ("list_item_open", "list_item_close", "paragraph_close", "heading_close"):
            raise StudyError(f"report.md.j2: Markdown of kind '{token.type}' has no form in Word. See markup.py.")


def _inline(paragraph: Any, tokens: Iterable[Token]) -> None:
    bold = italic = False
    link: Any = None
    for token in tokens:
        if token.type in ("strong_open", "strong_close"):
            bold = token.type == "strong_open"
        elif token.type in ("em_open", "em_close"):
            italic = token.type == "em_open"
        elif token.type == "link_open":
            link = _link(paragraph, str(token.attrGet("href")))
        elif token.type == "link_close":
            link = None
        else:
            text = {"softbreak": " ", "hardbreak": "\n"}.get(token.type, unmarked(token.content))
            run = _run(paragraph, text, bold=bold, italic=italic)
            if token.type == "code_inline":
                run.font.name = "Consolas"
            if link is not None:
                run.font.underline = True
                link.append(run._r)


def _link(paragraph: Any, href: str) -> Any:
    from docx.opc.constants import RELATIONSHIP_TYPE
    from docx.oxml import OxmlElement
    from docx.oxml.ns import qn

    element = OxmlElement("w:hyperlink")
    if href.startswith("#"):
        element.set(qn("w:anchor"), _name(href[1:]))
    else:
        element.set(qn("r:id"), paragraph.part.relate_to(href, RELATIONSHIP_TYPE.HYPERLINK, is_external=True))
    paragraph._p.append(element)
    return element


def _paragraph(document: Document, style: str) -> Any:
    """A paragraph of a style that Word has itself, whose id is its name without blanks: python-docx looks through all
    styles for each."""
    paragraph = document.add_paragraph()
    paragraph._p.style = style.replace(" ", "")
    return paragraph


def _name(text: str) -> str:
    return text.replace("-", "_")[:40]  # what Word takes as a bookmark's name


def _mark(paragraph: Any, name: str) -> None:
    """A bookmark, for links within the document; `_saved` gives it its number."""
    from docx.oxml import OxmlElement
    from docx.oxml.ns import qn

    if not name:
        return
    for tag in ("w:bookmarkStart", "w:bookmarkEnd"):
        element = OxmlElement(tag)
        element.set(qn("w:id"), "")
        if tag == "w:bookmarkStart":
            element.set(qn("w:name"), _name(name))
        paragraph._p.append(element)


# --- exhibits ---------------------------------------------------------------------------------------------


def _caption(document: Document, text: str, banner: str, name: str) -> None:
    paragraph = _paragraph(document, "Caption")
    paragraph.paragraph_format.keep_with_next = True
    label, _, rest = text.partition(". ")
    _mark(paragraph, name)
    _run(paragraph, f"{label}. ", bold=True)
    _run(paragraph, rest).bold = False
    if banner:
        _run(paragraph, f". {banner}", bold=True, colour=WARN)


def _figure(document: Document, one: Figure) -> None:
    from docx.shared import Cm

    picture = document.add_paragraph()
    picture.paragraph_format.keep_with_next = True
    shape = picture.add_run().add_picture(io.BytesIO(one.drawing.png), width=Cm(WIDTH))
    shape._inline.docPr.set("descr", one.alt)
    said = " ".join([f"{one.caption}.", *(text for _, text in one.notes)])
    _caption(document, said, "", f"figure-{one.id}")


def _table(document: Document, one: Table, *, alone: bool = False) -> None:
    from docx.enum.section import WD_ORIENT, WD_SECTION
    from docx.oxml import parse_xml
    from docx.shared import Pt

    def turn(across: bool) -> None:
        page = document.sections[0] if alone else document.add_section(WD_SECTION.NEW_PAGE)
        page.orientation = WD_ORIENT.LANDSCAPE if across else WD_ORIENT.PORTRAIT
        long, short = max(page.page_width, page.page_height), min(page.page_width, page.page_height)  # type: ignore[type-var]
        page.page_width, page.page_height = (long, short) if across else (short, long)

    if one.landscape:
        turn(across=True)
    _caption(document, one.caption, one.banner, f"table-{one.id}")
    element = parse_xml(_table_xml(one, LONG if one.landscape else WIDTH))
    body: Any = document.element.body
    body.insert(len(body) - 1, element)  # before the properties of the last section
    for i, (letter, text) in enumerate(one.notes):
        paragraph = document.add_paragraph()
        paragraph.paragraph_format.space_before = Pt(0 if i else 4)
        paragraph.paragraph_format.space_after = Pt(0)
        if letter:
            _run(paragraph, f"{letter} ", size=8).font.superscript = True
        _run(paragraph, text, size=8)
    if one.landscape and not alone:
        turn(across=False)
    elif not alone:
        document.add_paragraph()


def _table_xml(one: Table, width: float) -> str:
    """A table as WordprocessingML. Written whole: python-docx, cell by cell, is slow."""
    namespace = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    total = sum(h.width for h in one.heads)
    widths = [round(567 * width * h.width / total) for h in one.heads]
    right = [h.numeric for h in one.heads]
    alt = escape(one.caption, {'"': "&quot;"})
    rule = '<w:{} w:val="single" w:sz="{}" w:space="0" w:color="1A1A1A"/>'
    out = [
        f'<w:tbl xmlns:w="{namespace}"><w:tblPr><w:tblW w:w="{sum(widths)}" w:type="dxa"/><w:tblBorders>'
        f'{rule.format("top", 8)}{rule.format("bottom", 8)}</w:tblBorders><w:tblLayout w:type="fixed"/><w:tblCellMar>'
        '<w:left w:w="50" w:type="dxa"/><w:right w:w="50" w:type="dxa"/></w:tblCellMar>'
        f'<w:tblCaption w:val="{alt}"/></w:tblPr><w:tblGrid>',
        *(f'<w:gridCol w:w="{w}"/>' for w in widths),
        "</w:tblGrid>",
        "<w:tr><w:trPr><w:cantSplit/><w:tblHeader/></w:trPr>",
        *(
            _cell(h.text, "", w, right=r, bold=True, under=rule.format("bottom", 4))
            for h, w, r in zip(one.heads, widths, right, strict=True)
        ),
        "</w:tr>",
    ]
    for line in one.lines:
        out.append("<w:tr><w:trPr><w:cantSplit/></w:trPr>")
        if line.group:
            out.append(_cell(line.group.text, line.group.marks, sum(widths), bold=True, across=len(widths)))
        else:
            out += [_cell(c.text, c.marks, w, right=r) for c, w, r in zip(line.cells, widths, right, strict=False)]
        out.append("</w:tr>")
    return "".join([*out, "</w:tbl>"])


def _cell(
    text: str, marks: str, width: int, *, right: bool = False, bold: bool = False, under: str = "", across: int = 1
) -> str:
    span = f'<w:gridSpan w:val="{across}"/>' if across > 1 else ""
    borders = f"<w:tcBorders>{under}</w:tcBorders>" if under else ""
    side = "right" if right else "left"
    keep = "<w:keepNext/>" if bold else ""  # a head or a group's name does not end a page
    return (
        f'<w:tc><w:tcPr><w:tcW w:w="{width}" w:type="dxa"/>{span}{borders}</w:tcPr><w:p><w:pPr>{keep}<w:keepLines/>'
        f'<w:spacing w:before="20" w:after="20" w:line="240" w:lineRule="auto"/><w:jc w:val="{side}"/></w:pPr>'
        f"{_text(text, bold=bold)}{_text(marks, raised=True)}</w:p></w:tc>"
    )


def _text(text: str, *, bold: bool = False, raised: bool = False) -> str:
    if not text:
        return ""
    weight = "<w:b/>" if bold else ""
    place = '<w:vertAlign w:val="superscript"/>' if raised else ""
    how = f'<w:rPr>{weight}<w:sz w:val="16"/>{place}</w:rPr>'
    return f'<w:r>{how}<w:t xml:space="preserve">{escape(text)}</w:t></w:r>'
