"""The report: true to its rows, the same bytes twice, honest about what its data can bear."""

from __future__ import annotations

import base64
import csv
import html
import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest

import fake_rows
from biglocal import exhibits, study
from biglocal.data import sources
from biglocal.exhibits import figures, markup, typed, wording
from biglocal.model import Run, Study, StudyError
from biglocal.study import MANUSCRIPT

if TYPE_CHECKING:
    from biglocal.results import Row

PLAN = study.load()
ROWS = fake_rows.rows(PLAN)
PLACEBO = replace(fake_rows.RUN, tier="open", banner="PLACEBO")
REAL = replace(fake_rows.RUN, tier="secure", banner="")


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    exhibits.render(ROWS, PLAN, fake_rows.RUN, folder)
    return folder


@pytest.fixture
def undrawn(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of words: every figure is one that is there already."""
    drawing = figures.Drawing(*((out / "figures" / f"flow.{e}").read_bytes() for e in figures.ENDINGS))
    monkeypatch.setattr(figures, "draw", lambda *_: drawing)


@pytest.fixture
def manuscript(tmp_path: Path) -> Path:
    return Path(shutil.copytree(MANUSCRIPT, tmp_path / "manuscript"))


def report(tmp_path: Path, rows: tuple[Row, ...] = ROWS, run: Run = fake_rows.RUN, plan: Study = PLAN) -> str:
    exhibits.render(rows, plan, run, tmp_path)
    return (tmp_path / "report.html").read_text(encoding="utf-8")


class Text(HTMLParser):
    """The words of a page, without drawings and data."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.within = 0
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.within += tag in ("svg", "style", "script")
        if tag not in ("button", "strong", "em", "a", "sup", "code"):  # words go on through these
            self.words.append(" ")

    def handle_endtag(self, tag: str) -> None:
        self.within -= tag in ("svg", "style", "script")

    def handle_data(self, data: str) -> None:
        if not self.within:
            self.words.append(data)

    def __str__(self) -> str:
        return " ".join("".join(self.words).split())


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_which_exhibits_need_a_source() -> None:
    listed = {s.key: set(exhibits.needing(PLAN, s)) for s in sources.read()}
    assert listed["lookup"] == listed["treated"] == set(PLAN.exhibits)
    assert {"trends", "main_effects", "placebo"} <= listed["samhi"]
    assert {"trends", "main_effects", "replication"} <= listed["police"] and "placebo" not in listed["police"]
    assert {"subgroups", "main_effects"} <= listed["aps"] and "placebo" not in listed["aps"]
    assert all("flow" not in listed[key] and "balance" not in listed[key] for key in ("samhi", "police", "residents"))
    nothing = replace(PLAN, analyses=())
    assert exhibits.needing(nothing, next(s for s in sources.read() if s.key == "samhi")) == ()


def test_every_exhibit_in_every_format(out: Path) -> None:
    made = files(out)
    for name in PLAN.exhibits:
        tables = [f"tables/{name}.{e}" for e in ("csv", "md", "tex", "html", "docx")]
        drawings = [f"figures/{name}.{e}" for e in ("svg", "pdf", "png", "csv")]
        assert all(f in made for f in tables) or all(f in made for f in drawings), name
    assert {"report.html", "report.pdf", "numbers.json"} <= set(made)


def test_render_gives_back_what_it_wrote(tmp_path: Path) -> None:
    paths = exhibits.render(ROWS, PLAN, fake_rows.RUN, tmp_path, only=["balance"])
    assert sorted(paths) == sorted(p for p in tmp_path.rglob("*") if p.is_file())
    assert {p.stem for p in paths} == {"balance"}


def test_the_same_bytes_in_another_process(out: Path, tmp_path: Path) -> None:
    code = (
        "import sys, fake_rows; from pathlib import Path; from biglocal import exhibits, study; plan = study.load(); "
    )
    code += "rows, of = fake_rows.rows(plan), {}; "
    code += "[of.setdefault(r.analysis, []).append(r) for r in rows]; "
    code += "rows = tuple(r for a in reversed(of) for r in of[a]); "  # order of terms within an analysis does matter
    code += "exhibits.render(rows, plan, fake_rows.RUN, Path(sys.argv[1]))"
    paths = os.pathsep.join((str(study.HERE.parent), str(Path(__file__).parent)))
    env = os.environ | {"PYTHONHASHSEED": "77", "TZ": "Asia/Tokyo", "LC_ALL": "C", "PYTHONPATH": paths}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, env=env, cwd=tmp_path)
    assert files(tmp_path) == files(out)


def test_banner_on_every_page_figure_and_table(out: Path) -> None:
    words = wording.BANNERS["SYNTHETIC"]
    assert words in Text((out / "report.html").read_text(encoding="utf-8")).__str__()
    for path in (out / "tables").iterdir():
        if path.suffix == ".docx":
            with zipfile.ZipFile(path) as parts:
                text = parts.read("word/document.xml").decode()
        else:
            text = path.read_text(encoding="utf-8")
        assert ("SYNTHETIC" if path.suffix == ".csv" else words) in text, path.name
    if not shutil.which("pdftotext"):
        pytest.skip("needs pdftotext to read the PDF")
    pages = subprocess.run(["pdftotext", "-layout", str(out / "report.pdf"), "-"], capture_output=True, check=True)
    text = pages.stdout.decode().rstrip("\f").split("\f")
    assert len(text) > 3
    assert all(words in page for page in text)


def test_banner_on_drawings(tmp_path: Path) -> None:
    exhibits.render(ROWS, PLAN, fake_rows.RUN, tmp_path / "made", only=["balance"])
    exhibits.render(ROWS, PLAN, REAL, tmp_path / "real", only=["balance"])
    made, real = ((tmp_path / k / "figures" / "balance.svg").read_bytes() for k in ("made", "real"))
    assert b"#7a1f00" in made
    assert b"#7a1f00" not in real


FORBIDDEN = re.compile(
    r"\b(replicates|confirms|proves that|Big Local (reduced|improved|worked|caused|lowered|raised))\b", re.I
)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("run", [fake_rows.RUN, PLACEBO], ids=["synthetic", "placebo"])
def test_made_data_claim_nothing(tmp_path: Path, run: Run) -> None:
    text = str(Text(report(tmp_path, run=run)))
    assert not FORBIDDEN.search(text)
    assert "nothing" in text
    assert "Verdict" not in (tmp_path / "tables" / "replication.md").read_text(encoding="utf-8")
    assert ("Known effect" in text) == (run.banner == "SYNTHETIC")


@pytest.mark.usefixtures("undrawn")
def test_real_data_have_a_verdict_and_no_banner(tmp_path: Path) -> None:
    text = str(Text(report(tmp_path, run=REAL)))
    assert "says nothing about" not in text
    with (tmp_path / "tables" / "replication.csv").open(encoding="utf-8") as file:
        verdicts = {line["Verdict"] for line in csv.DictReader(file)}
    assert verdicts - {""} <= {"differs", "agrees, same sign", "agrees, other sign"}
    assert verdicts - {""}


@pytest.mark.usefixtures("undrawn")
def test_verdict_on_balance_is_true_to_the_numbers(tmp_path: Path) -> None:
    text = str(Text(report(tmp_path / "a")))
    assert "After matching the threshold is met for every one of the" in text
    covariate = PLAN.comparisons["nearest"].covariates[0]

    def worse(row: Row) -> Row:
        bad = row.part == "balance" and row.outcome == covariate and row.term == "smd_matched"
        return replace(row, estimate=-0.1234) if bad else row

    text = str(Text(report(tmp_path / "b", tuple(worse(r) for r in ROWS))))
    name = wording.label(PLAN, "outcome", covariate)
    count = len({r.outcome for r in ROWS if r.part == "balance" and r.comparison == "nearest"})
    assert f"not met for 1 of the {count} covariates: {name} (−0.123)" in text
    assert "is met for every" not in text


def test_numbers_are_those_of_the_rows(out: Path) -> None:
    numbers = json.loads((out / "numbers.json").read_text(encoding="utf-8"))
    (row,) = (r for r in ROWS if r.part == "effects" and r.outcome == "burglary" and r.inference == "cluster")
    entry = numbers["effects.burglary.att.interval"]
    assert entry["raw"] == [row.conf_low, row.conf_high]
    assert entry["source"] == row.analysis
    assert entry["text"] in (out / "report.html").read_text(encoding="utf-8")
    assert numbers["fact.areas"]["source"] == "published: popay2023"


def test_unknown_names_in_a_header_are_refused_with_choices(manuscript: Path) -> None:
    path = manuscript / "exhibits" / "programme.md.j2"
    good = path.read_text(encoding="utf-8")
    for before, after, said in (
        ('part = "programme"', 'part = "programe"', "no part 'programe'.*Did you mean 'programme'"),
        ("{ part =", "{ prat =", "no column 'prat'"),
        ('value = "level"', 'value = "levle"', r"columns\[0\] \(Wave\).value: no value 'levle'.*Did you mean 'level'"),
        ('term = "lsoas"', 'term = "lsoa"', "column 'LSOAs' wants term 'lsoa'.*Did you mean 'lsoas'"),
        ('format = "count"', 'format = "cuont"', "no format 'cuont'"),
        ("total =", "totla =", "totla.*Did you mean 'total'"),
        ("{{ table }}", "{{ tabel }}", r"exhibits/programme.md.j2: line \d+: 'tabel' is undefined"),
        ("+++\n", "", "no header"),
    ):
        path.write_text(good.replace(before, after), encoding="utf-8")
        with pytest.raises(StudyError, match=said) as e:
            exhibits.render(ROWS, PLAN, fake_rows.RUN, manuscript.parent / "out", manuscript)
        assert "programme.md.j2" in str(e.value)


def test_a_cell_never_chooses_between_rows(manuscript: Path) -> None:
    path = manuscript / "exhibits" / "programme.md.j2"
    path.write_text(path.read_text(encoding="utf-8").replace('lines = ["level"]', 'lines = ["part"]'), encoding="utf-8")
    with pytest.raises(StudyError, match="rows fit one cell, among them programme/all"):
        exhibits.render(ROWS, PLAN, fake_rows.RUN, manuscript.parent / "out", manuscript, only=["programme"])


@pytest.mark.usefixtures("undrawn")
def test_an_exhibit_is_one_file_and_its_name(manuscript: Path, tmp_path: Path) -> None:
    readme = (MANUSCRIPT / "README.md").read_text(encoding="utf-8")
    example = re.search(r"```\n(.*?)```", readme, re.DOTALL)
    assert example
    text = re.sub(r"^   ", "", example[1], flags=re.MULTILINE)
    (manuscript / "exhibits" / "crime.md.j2").write_text(text, encoding="utf-8")
    plan = replace(PLAN, exhibits=(*PLAN.exhibits, "crime"))
    exhibits.render(ROWS, plan, fake_rows.RUN, tmp_path / "out", manuscript)
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "Further exhibits" in page
    assert "Effects on crime" in page


@pytest.mark.usefixtures("undrawn")
def test_what_is_missing_says_how_to_get_it(tmp_path: Path) -> None:
    lacking = replace(fake_rows.RUN, lacks={"survey": "apply to the data owner"})
    why = "No survey in this tier: 100% of it is *elsewhere* & <closed>."
    survey = {o.name for o in PLAN.outcomes.values() if o.table == "survey"}

    def without(row: Row) -> Row:
        gone = (row.part == "overlap" or row.outcome in survey) and row.part != "balance"
        hidden = replace(row, estimate=None, p_value=None, conf_low=None, conf_high=None, level="", period=None)
        return replace(hidden, term="", status="inapplicable", reason=why) if gone else row

    rows = tuple(dict.fromkeys(without(r) for r in ROWS))
    text = str(Text(report(tmp_path, rows, lacking)))
    assert text.count(why) > 2
    assert "Overlap: the propensity score before and after matching is not available in this run" in text
    assert not (tmp_path / "figures" / "overlap.svg").exists()
    table = (tmp_path / "tables" / "main_effects.md").read_text(encoding="utf-8")
    assert "High anxiety" in table  # the line stays, with its reason as a footnote
    assert "n/a (a)" in table


@pytest.mark.usefixtures("undrawn")
def test_nothing_at_all_still_makes_a_report(tmp_path: Path) -> None:
    text = str(Text(report(tmp_path, rows=())))
    assert "No effect could be estimated" in text
    assert "is not available in this run" in text


def test_special_characters_are_literal_in_every_format(out: Path, tmp_path: Path) -> None:
    steps = {e: (out / "tables" / f"flow.{e}").read_text(encoding="utf-8") for e in ("md", "tex", "html", "csv")}
    assert r"\& more" in steps["tex"]
    assert "&amp; more" in steps["html"]
    assert "& more" in steps["md"]
    assert (
        "Fake note: 7 areas & 3 *stars* _under_ <b>."
        in Text((out / "report.html").read_text(encoding="utf-8")).__str__()
    )
    nasty = 'a\\b {c} $d$ 50% #e _f_ ~g ^h <i> |j| "k" *l* [m] −1'
    assert markup.latex(nasty).count("\\") >= 14
    rendered = "".join(markup.html(p) for p in markup.parse(markup.markdown(nasty)))
    assert "<em>" not in rendered
    assert "&lt;i&gt;" in rendered
    assert markup.typst(nasty).startswith('#"a\\\\b {c}')


def test_marks_of_figures_say_their_numbers(out: Path) -> None:
    for path in sorted((out / "figures").glob("*.svg")):
        root = ElementTree.fromstring(path.read_bytes())
        width, height = (float(v) for v in root.attrib["viewBox"].split()[2:])
        (group,) = root.findall("{*}g[@class='told']")
        assert len(group), path.name
        for spot in group:
            title = spot.find("{*}title")
            assert title is not None and title.text and re.search(r"\d", title.text), path.name
            x, y = (float(spot.get(k) or spot.get(f"c{k}") or "nan") for k in "xy")
            assert 0 <= x <= width and 0 <= y <= height, (path.name, title.text)
    said = (out / "figures" / "main_effects.svg").read_text(encoding="utf-8")
    for row in ROWS:
        if row.part == "effects" and row.inference == "cluster" and row.term == "att":
            label = wording.label(PLAN, "outcome", row.outcome)
            assert f"<title>{label}: {wording.number(row.estimate or 0.0, wording.decimals(row.unit))}" in said


def test_marks_stand_where_the_numbers_are(out: Path) -> None:
    """Left to right, the marks of the forest lie in the order of their estimates, within an axis."""
    root = ElementTree.fromstring((out / "figures" / "main_effects.svg").read_bytes())
    at = {
        spot.findtext("{*}title", "").split(":")[0]: float(spot.get("cx") or "nan")
        for spot in root.iterfind(".//{*}circle")
    }
    for family in {o.unit for o in PLAN.outcomes.values()}:
        rows = [
            r for r in ROWS
            if (r.part, r.inference, r.term) == ("effects", "cluster", "att") and r.unit == family
        ]  # fmt: skip
        ranked = sorted(rows, key=lambda r: r.estimate or 0.0)
        places = [at[wording.label(PLAN, "outcome", r.outcome)] for r in ranked]
        assert places == sorted(places)


def test_specification_curve_holds_every_estimate_by_size(out: Path) -> None:
    root = ElementTree.fromstring((out / "figures" / "specification_curve.svg").read_bytes())
    parts = ("effects", "estimators", "rivals", "robustness")
    for name in {r.outcome for r in ROWS if r.part == "robustness"}:
        mine = [
            r for r in ROWS
            if (r.outcome, r.inference, r.term, r.subgroup) == (name, "cluster", "att", "all") and r.part in parts
        ]  # fmt: skip
        label, unit = wording.label(PLAN, "outcome", name), PLAN.outcomes[name].unit
        spots = [s for s in root.iterfind(".//{*}circle") if s.findtext("{*}title", "").startswith(f"{label},")]
        assert len(spots) == len({(r.comparison, r.estimator, r.treatment) for r in mine}) > 3
        places = [float(s.get("cx") or "nan") for s in spots]
        assert places == sorted(places) and len(set(places)) == len(places)
        found = re.findall(rf": (\S+) {re.escape(unit)} \(", " ".join(s.findtext("{*}title", "") for s in spots))
        estimates = [float(f.replace("\u2212", "-")) for f in found]
        assert len(estimates) == len(spots) and estimates == sorted(estimates)


def test_svg_names_are_each_figure_s_own(out: Path) -> None:
    page = (out / "report.html").read_text(encoding="utf-8")
    names = re.findall(r'\bid="([^"]+)"', page)
    assert len(names) == len(set(names))
    targets = set(re.findall(r'href="#([^"]+)"', page)) | set(re.findall(r"url\(#([^)]+)\)", page))
    assert targets <= set(names)


def test_figures_on_the_page_say_in_text_what_their_files_draw(out: Path) -> None:
    """matplotlib leaves each line of text as a remark before its outlines: word for word it stands on the page."""
    page = (out / "report.html").read_text(encoding="utf-8")
    drawn = dict(re.findall(r'<figure id="figure-(\w+)">.*?(<svg.*?</svg>)', page, re.DOTALL))
    assert set(drawn) == {p.stem for p in (out / "figures").glob("*.svg")}
    for name, svg in drawn.items():
        file = (out / "figures" / f"{name}.svg").read_text(encoding="utf-8")
        words = [html.unescape(w) for w in re.findall(r"<!-- (.*?) -->\s*<g style", file)]
        shown = [html.unescape(w).replace("\u00a0", " ") for w in re.findall(r"<text [^>]*>(.*?)</text>", svg)]
        assert [w.replace("\u00a0", " ") for w in words] == shown and words, name
        assert "DejaVu" not in svg
        marks = re.findall(r'<use xlink:href="#m[^>]*>', file)  # glyphs apart, as many marks and lines as in the file
        assert len(re.findall(r"<use ", svg)) == len(marks), name
        assert svg.count("<title>") == file.count("<title>")


def test_the_page_carries_every_letter_of_its_figures(out: Path) -> None:
    from fontTools.ttLib import TTFont

    page = (out / "report.html").read_text(encoding="utf-8")
    fonts = dict(re.findall(r"font-weight:(\d+);src:url\(data:font/woff;base64,([^)]+)\)", page))
    for weight, bold in (("400", False), ("700", True)):
        has = set(TTFont(io.BytesIO(base64.b64decode(fonts[weight]))).getBestCmap())
        texts = re.findall(r"<text([^>]*)>(.*?)</text>", page)
        letters = {c for how, text in texts if ('class="b"' in how) == bold for c in html.unescape(text)}
        assert letters and {ord(c) for c in letters} <= has


def test_what_is_taken_from_an_earlier_page_is_what_would_be_made(out: Path, tmp_path: Path) -> None:
    shutil.copytree(out, tmp_path / "again")
    exhibits.render(ROWS, PLAN, fake_rows.RUN, tmp_path / "again", reuse=True)
    assert files(tmp_path / "again") == files(out)


def test_page_asks_nothing_of_any_host(out: Path) -> None:
    page = (out / "report.html").read_text(encoding="utf-8")
    assert not re.findall(r'<(?:script|link|img|iframe)[^>]+(?:src|href)="(?!data:)', page)


def test_numbers_in_words() -> None:
    assert wording.number(-0.0004, 3) == "0.000"
    assert wording.number(-1234.5, 1) == "−1,234.5"
    assert [wording.p_value(p) for p in (0.0004, 0.0123, 0.9999)] == ["<0.001", "0.012", ">0.999"]
    assert wording.plain(0.1) == "0.1"
    assert wording.percent(0.95) == "95%"


@pytest.mark.parametrize(
    ("file", "before", "after", "said"),
    [
        ("report.md.j2", "They were chosen", "All 150 were chosen", r"report.md.j2: line \d+: 150, in .*All 150 were"),
        ("exhibits/balance.md.j2", 'head = "SMD after"', 'head = "SMD after 5:1"', r"balance.md.j2: line \d+: 5, in"),
        ("macros.md.j2", "nothing about Big Local", "nothing about Big Local 2", r"macros.md.j2: line \d+: 2, in"),
    ],
    ids=["prose", "head of a column", "macro"],
)
def test_a_typed_digit_stops_the_build(file: str, before: str, after: str, said: str, manuscript: Path) -> None:
    path = manuscript / file
    text = path.read_text(encoding="utf-8")
    assert before in text
    path.write_text(text.replace(before, after, 1), encoding="utf-8")
    with pytest.raises(StudyError, match=said):
        typed.check(manuscript)


def test_digits_in_names_and_expressions_are_let_pass(manuscript: Path) -> None:
    path = manuscript / "report.md.j2"
    path.write_text(
        path.read_text(encoding="utf-8") + "\nSHA-256, CR2, {{ number('x', 3) }}{# 4 #}\n", encoding="utf-8"
    )
    typed.check(manuscript)


def test_an_exhibit_that_no_analysis_feeds_is_refused(manuscript: Path, tmp_path: Path) -> None:
    path = manuscript / "exhibits" / "years.md.j2"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('part = "years"', 'part = "years", estimator = "twfe"'), encoding="utf-8")
    with pytest.raises(
        StudyError, match=r"exhibits/years.md.j2: select: no analysis of study.toml has part years, estimator twfe"
    ):
        exhibits.render(ROWS, PLAN, fake_rows.RUN, tmp_path / "out", manuscript)


TERMS = [  # part, estimator (or any), term: what an estimator might come to call otherwise; the exhibit that misses it
    ("effects", "", "att", "main_effects"),
    ("estimators", "callaway_santanna", "att", "estimators"),
    ("rivals", "", "att", "rivals"),
    ("years", "event_study", "event_time", "years"),
    ("programme", "", "lsoas", "programme"),
    ("sensitivity", "", "e_value", "sensitivity"),
    ("families", "", "holm", "multiplicity"),
    ("simulation", "", "coverage", "simulation"),
]


@pytest.mark.parametrize(("part", "estimator", "term", "exhibit"), TERMS, ids=lambda v: v or "any")
def test_a_row_renamed_stops_the_build_naming_template_and_row(
    part: str, estimator: str, term: str, exhibit: str, tmp_path: Path
) -> None:
    renamed = [r for r in ROWS if (r.part, r.term) == (part, term) and estimator in ("", r.estimator)]
    assert renamed
    rows = tuple(replace(r, term=f"{term}_new") if r in renamed else r for r in ROWS)
    with pytest.raises(StudyError) as e:
        exhibits.render(rows, PLAN, fake_rows.RUN, tmp_path)
    said = str(e.value)
    assert re.match(r"exhibits/\w+\.md\.j2: ", said) and f"'{term}'" in said and f"{term}_new" in said, said
    assert not list(tmp_path.iterdir())
    with pytest.raises(StudyError, match=rf"exhibits/{exhibit}\.md\.j2: "):
        exhibits.render(rows, replace(PLAN, exhibits=(exhibit,)), fake_rows.RUN, tmp_path, only=[exhibit])


@pytest.mark.parametrize("name", PLAN.exhibits)
def test_a_template_deleted_stops_the_build_naming_it_and_who_asks(name: str, manuscript: Path, tmp_path: Path) -> None:
    (manuscript / "exhibits" / f"{name}.md.j2").unlink()
    with pytest.raises(StudyError, match=rf"study.toml: exhibits: .*no template .*'?{name}") as e:
        study.load(study.PATH, manuscript)
    assert "study.toml" in str(e.value)
    with pytest.raises(StudyError, match=rf"study.toml: exhibits: no template manuscript/exhibits/{name}.md.j2"):
        exhibits.render(ROWS, PLAN, fake_rows.RUN, tmp_path / "out", manuscript)
    assert not (tmp_path / "out").exists()


def test_rows_that_no_exhibit_shows_are_listed(out: Path) -> None:
    listed = {
        line.split(",", 1)[1].strip('"') for line in (out / "unused.csv").read_text(encoding="utf-8").splitlines()[1:]
    }
    keys = {r.key for r in ROWS}
    shown = {n["row"] for n in json.loads((out / "numbers.json").read_text(encoding="utf-8")).values() if "row" in n}
    assert listed <= keys
    assert shown
    assert not listed & shown
    assert all(r.key in listed | shown or r.status != "ok" or _drawn(out, r) for r in ROWS)


def _drawn(out: Path, row: Row) -> bool:
    return any(row.analysis in p.read_text(encoding="utf-8") for p in (out / "figures").glob("*.csv"))


@pytest.mark.usefixtures("undrawn")
def test_breakdown_in_words_is_true_to_the_numbers(tmp_path: Path) -> None:
    assert "For no outcome is the average still told apart from nought" in str(Text(report(tmp_path / "a")))

    def firm(row: Row) -> Row:
        high = row.term == "breakdown_relative_magnitudes" and row.outcome == "burglary"
        return replace(row, estimate=1.37) if high else row

    text = str(Text(report(tmp_path / "b", tuple(firm(r) for r in ROWS))))
    assert "would leave told apart from nought: Burglary (up to 1.37 times it)." in text


@pytest.mark.usefixtures("undrawn")
def test_placebo_effects_in_words_are_counted(tmp_path: Path) -> None:
    tests = [r for r in ROWS if r.part in ("placebo_dates", "placebo_outcomes")]

    def found(row: Row) -> Row:
        return replace(row, p_value=0.01 if row.treatment == "placebo_2013" else 0.5) if row in tests else row

    text = str(Text(report(tmp_path, tuple(found(r) for r in ROWS))))
    count = len([r for r in tests if r.treatment == "placebo_2013"])
    assert f"at the unadjusted level in {count} of the {len(tests)} tests" in text
    bold = replace(PLAN, policy=replace(PLAN.policy, conf_level=0.9))
    assert "were there nothing, 90% of such tests would find nothing" in str(Text(report(tmp_path / "b", plan=bold)))


@pytest.mark.usefixtures("undrawn")
def test_money_in_words_is_true_to_the_numbers(tmp_path: Path) -> None:
    """With a clear gain nothing is left open, and it is not said that sampling error leaves it so."""

    def net(low: float, value: float, high: float) -> tuple[Row, ...]:
        wanted = [r for r in ROWS if r.part == "cost_benefit" and r.term == "net_benefit" and r.estimator == "scenario"]
        return tuple(replace(r, estimate=value, conf_low=low, conf_high=high) if r in wanted else r for r in ROWS)

    open_sign, over = "the sampling error of the effect leaves it open", "The interval of the net benefit holds nought"
    clear = str(Text(report(tmp_path / "a", net(10.0, 40.0, 70.0), REAL)))
    assert "changes the sign of the estimate." in clear and open_sign not in clear and over not in clear
    doubtful = str(Text(report(tmp_path / "b", net(-10.0, 40.0, 90.0), REAL)))
    assert open_sign in doubtful and over in doubtful


def test_power_table_holds_the_published_size_where_there_is_one(out: Path) -> None:
    with (out / "tables" / "power.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len({r.outcome for r in ROWS if r.inference == "power"})
    assert {line["Detectable"] for line in lines} == {"0.4"}
    assert {line["Standard error"] for line in lines} == {"0.1"}


def test_figures_say_where_an_estimate_breaks_down(tmp_path: Path) -> None:
    """Glyphs of a drawing cannot be read back: two breakdown values must give two drawings, other rows one."""
    rows = tuple(r for r in ROWS if r.inference == "parallel_trends")
    other = tuple(replace(r, estimate=0.9) if r.term == "breakdown_smoothness" else r for r in rows)
    power = tuple(replace(r, estimate=9.0) if r.inference == "power" else r for r in ROWS)
    drawn = []
    for i, some in enumerate((rows, other, (*rows, *(r for r in power if r.inference == "power")))):
        exhibits.render(some, PLAN, fake_rows.RUN, tmp_path / str(i), only=["parallel_trends"])
        drawn.append((tmp_path / str(i) / "figures" / "parallel_trends.svg").read_bytes())
    assert drawn[0] != drawn[1]
    assert drawn[0] == drawn[2]
