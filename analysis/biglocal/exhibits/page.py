"""A figure within the HTML report: its words as text in a font that the page carries, its lines in few bytes.

The files in figures/ hold the outlines of letters, as other programs lack the font. On a page these would be two
thirds of it, and a reader could neither find nor copy a word of a figure.
"""

from __future__ import annotations

import base64
import html
import io
import logging
import re
from importlib.metadata import version
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from biglocal.exhibits import figures
from biglocal.provenance import code
from biglocal.results import digest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path
    from xml.etree.ElementTree import Element

_SVG, _HREF = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"
_LETTERS = re.compile(r"<text\b([^>]*)>([^<]*)</text>")
_OUTLINED = 100  # the size at which matplotlib outlines letters
_DRAWING = re.compile(r'<svg data-made="(\w+)".*?</svg>', re.DOTALL)
_TYPE = re.compile(r"/\* (\w{64}) \*/.*?/\* end \*/", re.DOTALL)


def drawing(svg: str, alt: str, prefix: str, kept: Mapping[str, str]) -> str:
    """An SVG file of figures.py as an element of the page: an image that is called `alt`.

    `prefix` begins the names within it, so that they are like no others on the page. `kept`: drawings of an earlier
    page (`earlier`), of which one that was made of the same things is taken.
    """
    made = digest(svg, alt, prefix, code("exhibits/page.py"))
    if made in kept:
        return kept[made]
    parser = ElementTree.XMLParser(target=ElementTree.TreeBuilder(insert_comments=True))
    parser.feed(svg)
    root = parser.close()
    names = {name: f"{prefix}{i}" for i, name in enumerate(e.get("id", "") for e in root.iter() if e.get("id"))}
    head = f'data-made="{made}" role="img" aria-label="{html.escape(alt)}" focusable="false"'
    head += f' viewBox="{root.get("viewBox", "")}"{_style(root.get("style", ""), names)}'
    return f"<svg {head}>{''.join(_within(root, names))}</svg>"


def earlier(page: Path) -> dict[str, str]:
    """The drawings and fonts of a page that an earlier run left, by what they were made of; none without a page.

    The caller vouches that nobody altered it.
    """
    if not page.is_file():
        return {}
    text = page.read_text(encoding="utf-8")
    return {m[1]: m[0] for m in _DRAWING.finditer(text)} | {m[1]: m[0] for m in _TYPE.finditer(text)}


def _within(parent: Element, names: dict[str, str]) -> Iterator[str]:
    said = ""  # matplotlib's remark before the outlines of a line of text: the text
    for child in parent:
        if not isinstance(child.tag, str):
            said = html.unescape(child.text or "")[1:-1]
        elif said and "scale(" in child.get("transform", ""):
            yield _words(child, said, names)
            said = ""
        else:
            yield _element(child, names)


def _words(outlines: Element, text: str, names: dict[str, str]) -> str:
    at, _, scale = outlines.get("transform", "").rpartition(" scale(")
    size = _OUTLINED * float(scale.split()[0])
    bold = ' class="b"' if any("Bold" in u.get(_HREF, "") for u in outlines.iter(f"{_SVG}use")) else ""
    style = _style(outlines.get("style", ""), names)
    text = re.sub(r"^ +| +$", lambda m: "\u00a0" * len(m[0]), text)  # HTML would drop them
    return f'<text{bold}{style} transform="{_numbers(at)}" font-size="{size:.4g}">{html.escape(text)}</text>'


def _element(e: Element, names: dict[str, str]) -> str:
    tag = e.tag.removeprefix(_SVG)
    inner = (html.escape(e.text.strip()) if tag == "title" and e.text else "") + "".join(_within(e, names))
    if tag in ("g", "defs") and not inner:
        return ""
    written = "".join(_attribute(k, v, names) for k, v in e.items())
    if tag == "g" and not written:
        return inner
    return f"<{tag}{written}>{inner}</{tag}>" if inner else f"<{tag}{written}/>"


def _attribute(name: str, value: str, names: dict[str, str]) -> str:
    if name in ("style", "clip-path"):
        return _style(value, names, name)
    if name == "id":
        return f' id="{names[value]}"' if value in names else ""
    if name == _HREF and value.startswith("data:"):
        return f' href="{"".join(value.split())}"'  # an image
    if name == _HREF:
        return f' href="#{names[value[1:]]}"'
    if name == "transform" and value.startswith("matrix"):  # of an image, whose pixels are multiplied by it
        return f' {name}="{value}"'
    if name == "d":
        value = re.sub(r"\s*([A-Za-z])\s*", r"\1", value.strip())
    return f' {name}="{html.escape(_numbers(value))}"'


def _numbers(text: str) -> str:
    """With at most two decimals: a hundredth of a point cannot be seen."""
    return re.sub(r"-?\d*\.\d+", lambda m: f"{float(m[0]):.2f}".rstrip("0").rstrip("."), text)


def _style(text: str, names: dict[str, str], attribute: str = "style") -> str:
    named = re.sub(r"url\(#([^)]+)\)", lambda m: f"url(#{names[m[1]]})", text.replace(": ", ":").replace("; ", ";"))
    return f' {attribute}="{named}"' if named else ""


def fonts(drawings: Iterable[str], kept: Mapping[str, str]) -> str:
    """The letters of some drawings as fonts, in CSS: of the fonts' 1.4 MB what the page needs, some 15 kB.

    `kept`: fonts of an earlier page (`earlier`), taken where they were made of the same letters.
    """
    of: dict[int, set[str]] = {weight: set() for weight in figures.FONTS}
    for one in drawings:
        for attributes, text in _LETTERS.findall(one):
            of[700 if 'class="b"' in attributes else 400] |= set(html.unescape(text))
    letters = {weight: "".join(sorted(found)) for weight, found in of.items() if found}
    made = digest(repr(letters), version("fonttools"), version("matplotlib"), code("exhibits/page.py"))
    if made in kept:
        return kept[made]
    return f"/* {made} */{''.join(_font(weight, text) for weight, text in letters.items())}/* end */"


def _font(weight: int, letters: str) -> str:
    from fontTools import subset  # matplotlib brings it

    logging.getLogger("fontTools").setLevel(logging.WARNING)  # it tells every glyph to whoever listens
    options = subset.Options(
        flavor="woff", layout_features=["kern", "liga"], hinting=False, recalc_timestamp=False, name_IDs=[],
        drop_tables=[*subset.Options().drop_tables, "FFTM"],
    )  # fmt: skip
    out, chosen = io.BytesIO(), subset.Subsetter(options)
    chosen.populate(text=letters)
    with subset.load_font(figures.font(weight), options) as font:
        chosen.subset(font)
        subset.save_font(font, out, options)
    data = base64.b64encode(out.getvalue()).decode()
    source = f"url(data:font/woff;base64,{data}) format('woff')"
    return f"@font-face{{font-family:'{figures.FAMILY}';font-weight:{weight};src:{source}}}"
