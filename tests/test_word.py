"""The report in Word: what is in it, and the same bytes twice."""

from __future__ import annotations

import re
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

import fake_rows
from biglocal import exhibits
from biglocal.study import load

PLAN = load()
NAMES = frozenset({"main_effects", "simulation"})


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("word")
    exhibits.render(fake_rows.rows(PLAN), PLAN, fake_rows.RUN, to, only=NAMES)
    return to


def test_a_table_says_what_its_csv_says(out: Path) -> None:
    import csv

    import docx

    document = docx.Document(str(out / "tables" / "main_effects.docx"))
    (table,) = document.tables
    with (out / "tables" / "main_effects.csv").open(encoding="utf-8") as file:
        heads, *lines = list(csv.reader(file))
    assert [c.text for c in table.rows[0].cells][:2] == ["Outcome", "Estimate"]
    groups = {line[heads.index("group")] for line in lines}
    said = [[c.text for c in row.cells] for row in table.rows[1:]]
    assert {cells[0] for cells in said if len(set(cells)) == 1} == groups  # a line across the table
    body = [cells for cells in said if len(set(cells)) > 1]
    assert len(body) == len(lines)
    for cells, line in zip(body, lines, strict=True):
        shown = float(re.sub(r"[^\d.-]", "", cells[1].replace("\u2212", "-")))
        assert shown == pytest.approx(float(line[heads.index("Estimate")]), abs=0.006)


def test_header_rows_repeat_and_the_banner_is_on_each_page(out: Path) -> None:
    import docx

    document = docx.Document(str(out / "tables" / "main_effects.docx"))
    xml = document.element.xml
    assert xml.count("<w:tblHeader/>") == 1
    assert "SYNTHETIC DATA" in document.sections[0].header.paragraphs[0].text
    assert "SYNTHETIC DATA" in document.paragraphs[0].text
    wide = docx.Document(str(out / "tables" / "simulation.docx")).sections[0]
    assert wide.page_width > wide.page_height  # a table set across


def test_same_bytes_twice_and_no_clock(out: Path, tmp_path: Path) -> None:
    exhibits.render(fake_rows.rows(PLAN), PLAN, fake_rows.RUN, tmp_path, only=NAMES)
    for name in NAMES:
        one, other = (folder / "tables" / f"{name}.docx" for folder in (out, tmp_path))
        assert one.read_bytes() == other.read_bytes()
        with zipfile.ZipFile(one) as file:
            assert {i.date_time for i in file.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_an_unchanged_table_is_taken_as_it_is_and_a_changed_one_is_not(out: Path, tmp_path: Path) -> None:
    rows = fake_rows.rows(PLAN)
    exhibits.render(rows, PLAN, fake_rows.RUN, tmp_path, only=["main_effects"])
    path = tmp_path / "tables" / "main_effects.docx"
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("left", "by the earlier run")
    kept = path.read_bytes()
    exhibits.render(rows, PLAN, fake_rows.RUN, tmp_path, only=["main_effects"], reuse=True)
    assert path.read_bytes() == kept
    new = {"estimate": -9.99, "conf_low": -11.0, "conf_high": -9.0}
    moved = tuple(replace(r, **new) if r.part == "effects" and r.conf_low is not None else r for r in rows)
    exhibits.render(moved, PLAN, fake_rows.RUN, tmp_path, only=["main_effects"], reuse=True)
    with zipfile.ZipFile(path) as file:
        assert "left" not in file.namelist()
        assert "9.99" in file.read("word/document.xml").decode()
    exhibits.render(rows, PLAN, fake_rows.RUN, tmp_path, only=["main_effects"])
    assert path.read_bytes() == (out / "tables" / "main_effects.docx").read_bytes()


def test_the_report_has_headings_links_and_pictures_with_words(reproduced: Path) -> None:
    import docx

    document = docx.Document(str(reproduced / "secure" / "report.docx"))
    text = "\n".join(p.text for p in document.paragraphs)
    assert not re.search("[\ue000-\ue002]", text)  # marks of cards are taken off
    headings = [p.text for p in document.paragraphs if p.style is not None and p.style.name == "Heading 1"]
    assert "Effects" in headings
    xml = document.element.xml
    pictures = re.findall(r'<wp:docPr [^>]*descr="([^"]*)"', xml)
    assert len(pictures) == xml.count("<pic:pic") > 3
    assert all(len(said) > 40 for said in pictures)
    marks = set(re.findall(r'<w:bookmarkStart [^>]*w:name="([^"]+)"', xml))
    links = set(re.findall(r'<w:hyperlink w:anchor="([^"]+)"', xml))
    assert links
    assert links <= marks
    assert len(document.tables) > 8
