"""Text into the formats of the report: Markdown once, then HTML and Typst; escaping for each.

A paragraph that holds nothing but `@@name@@` is a place, kept apart for tables and figures.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markdown_it import MarkdownIt

from biglocal.model import StudyError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from markdown_it.token import Token

CARD, INSIDE, END = "\ue000", "\ue001", "\ue002"  # private characters: around a printed number and its card's name
PLACE = re.compile(r"@@([\w:.-]+)@@")
_MARKDOWN = re.compile(r"([\\`*_\[\]<>|#~])")
_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "\u2212": "$-$", "\u2013": "--", "\u2014": "---", "\u00d7": r"$\times$", "\u00a0": "~", "£": r"\pounds{}",
    "\u2265": r"$\ge$", "\u2264": r"$\le$", "|": r"\textbar{}",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of the report: `tokens` of Markdown, or a `place` for an exhibit's table, figure or gap."""

    tokens: tuple[Token, ...] = ()
    place: str = ""


def markdown(text: object) -> str:
    """Text as it must stand in Markdown to be read literally, in prose and in cells."""
    return _MARKDOWN.sub(r"\\\1", str(text)).replace("\n", " ")


def marked(text: str, card: str) -> str:
    """A printed number that knows the card which says where it comes from; `unmarked` takes that off again."""
    return f"{CARD}{card}{INSIDE}{text}{END}"


def unmarked(text: str) -> str:
    """Text without the names of cards, for formats that have none."""
    return re.sub(f"{CARD}[^{INSIDE}]*{INSIDE}|{END}", "", text)


def _buttons(text: str) -> str:
    opened = re.sub(f"{CARD}([^{INSIDE}]*){INSIDE}", r'<button type="button" class="num" data-card="\1">', text)
    return opened.replace(END, "</button>")


def unescaped(text: str) -> str:
    """What `markdown` did, undone."""
    return re.sub(r"\\(.)", r"\1", text)


def latex(text: object) -> str:
    """Text as it must stand in LaTeX to be read literally."""
    return "".join(_LATEX.get(c, c) for c in str(text)).replace("\n", " ")


def typst(text: object) -> str:
    """Text as a Typst expression: a string, so that no character of it is markup."""
    escaped = str(text).replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
    return f'#"{escaped}";'


def string(text: object) -> str:
    """Text as a Typst string, for arguments such as a title or alternative text."""
    return typst(text)[1:-1]


def slug(text: str) -> str:
    """A heading's address."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def parse(text: str) -> tuple[Piece, ...]:
    """Markdown into pieces; raw HTML in it is text. Headings get their address."""
    tokens = MarkdownIt("commonmark", {"html": False}).parse(text)
    pieces: list[Piece] = []
    start = i = 0
    while i < len(tokens):
        token = tokens[i]
        if token.type == "heading_open":
            token.attrSet("id", slug(unmarked(tokens[i + 1].content)))
        found = PLACE.fullmatch(tokens[i + 1].content.strip()) if token.type == "paragraph_open" else None
        if found and token.level == 0:
            pieces += [Piece(tuple(tokens[start:i])), Piece(place=found[1])]
            i += 3
            start = i
        else:
            i += 1
    pieces.append(Piece(tuple(tokens[start:])))
    return tuple(p for p in pieces if p.tokens or p.place)


def headings(pieces: Sequence[Piece]) -> tuple[tuple[int, str, str], ...]:
    """Level, text and address of each heading, for a table of contents."""
    out = []
    for piece in pieces:
        for a, b in zip(piece.tokens, piece.tokens[1:], strict=False):
            if a.type == "heading_open":
                out.append((int(a.tag[1]), _text(b), str(a.attrGet("id"))))
    return tuple(out)


def html(piece: Piece) -> str:
    """A piece of Markdown as HTML; a number that has a card is a button."""
    md = MarkdownIt("commonmark", {"html": False})
    return _buttons(str(md.renderer.render(list(piece.tokens), md.options, {})))


def _text(inline: Token) -> str:
    return unmarked("".join(t.content for t in inline.children or () if t.type in ("text", "code_inline")))


_OPEN = {
    "paragraph_open": "", "em_open": "#emph[", "strong_open": "#strong[", "blockquote_open": "#quote(block: true)[",
    "bullet_list_open": "#list(", "ordered_list_open": "#enum(", "list_item_open": "[",
}  # fmt: skip
_CLOSE = {
    "paragraph_close": "\n\n", "em_close": "];", "strong_close": "];", "blockquote_close": "]\n\n",
    "bullet_list_close": ")\n\n", "ordered_list_close": ")\n\n", "list_item_close": "],",
}  # fmt: skip


def as_typst(piece: Piece, source: str) -> str:
    """A piece of Markdown as Typst markup.

    Raises `StudyError` naming `source` for Markdown that the report does not use (images, rules, raw HTML).
    """
    return "".join(_typst(t, source) for t in piece.tokens)


def _typst(token: Token, source: str) -> str:
    kind = token.type
    if kind == "inline":
        return "".join(_typst(t, source) for t in token.children or ())
    if kind in _OPEN:
        return _OPEN[kind]
    if kind in _CLOSE:
        return _CLOSE[kind]
    if kind in ("text", "text_special"):
        return typst(unmarked(token.content)) if token.content else ""
    if kind == "heading_open":
        return f"#heading(level: {max(1, int(token.tag[1]) - 1)})["
    if kind == "heading_close":
        return "]\n\n"
    if kind == "code_inline":
        return f"#raw({string(token.content)});"
    if kind in ("fence", "code_block"):
        return '#raw(block: true, "{}")\n\n'.format(
            token.content.rstrip("\n").replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        )
    if kind == "link_open":
        href = str(token.attrGet("href"))
        return f"#link(<{href[1:]}>)[" if href.startswith("#") else f"#link({string(href)})["
    if kind == "link_close":
        return "];"
    if kind == "softbreak":
        return "\n"
    if kind == "hardbreak":
        return "#linebreak();"
    raise StudyError(
        f"{source}: Markdown of kind '{kind}' is not used in the report. Use paragraphs, headings, emphasis, "
        f"lists, links and code; tables and figures are exhibits."
    )
