"""Nothing stale: a report made in a folder that holds an earlier one is, byte for byte, the one made in an empty folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

import fake_rows
from biglocal import exhibits, study
from biglocal.model import Run, Study
from biglocal.results import Row
from biglocal.study import MANUSCRIPT, ROOT

PLAN = replace(study.load(), exhibits=("balance", "main_effects"))


@dataclass(frozen=True)
class Given:
    """All that a report is made of."""

    manuscript: Path = MANUSCRIPT
    published: Path = exhibits.PUBLISHED
    rows: tuple[Row, ...] = fake_rows.rows(PLAN)
    plan: Study = PLAN
    run: Run = fake_rows.RUN

    def render(self, out: Path, *, reuse: bool) -> dict[str, bytes]:
        exhibits.render(self.rows, self.plan, self.run, out, self.manuscript, published=self.published, reuse=reuse)
        return {p.relative_to(out).as_posix(): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("before")
    Given().render(out, reuse=False)
    return out


def edited(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text, f"{path.name} has no longer {old!r}: name another place to edit"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def of_manuscript(file: str, old: str, new: str) -> Callable[[Given, Path], Given]:
    def change(given: Given, tmp: Path) -> Given:
        manuscript = Path(shutil.copytree(MANUSCRIPT, tmp / "manuscript"))
        edited(manuscript / file, old, new)
        return replace(given, manuscript=manuscript)

    return change


def published(given: Given, tmp: Path) -> Given:
    path = Path(shutil.copy(exhibits.PUBLISHED, tmp / "published.toml"))
    path.write_text(path.read_text(encoding="utf-8").replace("estimate = -", "estimate = -9"), encoding="utf-8")
    return replace(given, published=path)


def a_row(given: Given, _: Path) -> Given:
    at = next(i for i, r in enumerate(given.rows) if (r.part, r.inference, r.term) == ("effects", "cluster", "att"))
    rows = list(given.rows)
    rows[at] = replace(rows[at], estimate=0.0123, conf_low=-0.5, conf_high=0.6)
    return replace(given, rows=tuple(rows))


def the_study(given: Given, _: Path) -> Given:
    outcome = replace(given.plan.outcomes["burglary"], label="Housebreaking")
    return replace(given, plan=replace(given.plan, outcomes={**given.plan.outcomes, "burglary": outcome}))


def the_run(given: Given, _: Path) -> Given:
    return replace(given, run=replace(given.run, banner="PLACEBO", tier="open"))


CHANGES = {
    "title of an exhibit": of_manuscript("exhibits/balance.md.j2", 'title = "', 'title = "Changed: '),
    "alternative text": of_manuscript("exhibits/main_effects.md.j2", 'alt = "', 'alt = "Changed: '),
    "prose": of_manuscript("report.md.j2", "They were chosen", "They have been chosen"),
    "macro": of_manuscript("macros.md.j2", "nothing about Big Local", "nothing at all about Big Local"),
    "style": of_manuscript("formats/style.css", "--ink: #1a1a1a", "--ink: #000000"),
    "script": of_manuscript("formats/report.js", '"use strict";', '"use strict"; // changed'),
    "table": of_manuscript("formats/table.html.j2", "<caption>", '<caption class="changed">'),
    "typesetting": of_manuscript("formats/report.typ.j2", "#set text(", "#set text(hyphenate: true, "),
    "published estimate": published,
    "row": a_row,
    "study": the_study,
    "run": the_run,
}


@pytest.mark.parametrize("name", CHANGES)
def test_an_edit_leaves_nothing_of_the_report_before(name: str, before: Path, tmp_path: Path) -> None:
    given = CHANGES[name](Given(), tmp_path)
    again = given.render(Path(shutil.copytree(before, tmp_path / "again")), reuse=True)
    fresh = given.render(tmp_path / "fresh", reuse=False)
    assert [n for n in fresh if again.get(n) != fresh[n]] == []
    assert again.keys() == fresh.keys()
    moved = [n for n in fresh if not (before / n).is_file() or (before / n).read_bytes() != fresh[n]]
    assert moved, "the edit changes nothing: it tests nothing"


CODE = """
import sys, test_stale
from pathlib import Path
again, fresh = Path(sys.argv[1]), Path(sys.argv[2])
again, fresh = test_stale.Given().render(again, reuse=True), test_stale.Given().render(fresh, reuse=False)
print([n for n in {**again, **fresh} if again.get(n) != fresh.get(n)])
"""


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("exhibits/figures.py", '"lines.linewidth": 1.2', '"lines.linewidth": 2.2'),
        ("exhibits/page.py", ":.2f", ":.1f"),
        ("exhibits/word.py", '"Times New Roman"', '"Arial"'),
    ],
)
def test_a_changed_line_of_code_leaves_nothing_of_the_report_before(
    file: str, old: str, new: str, before: Path, tmp_path: Path
) -> None:
    for part in ("analysis", "manuscript", "data-raw", "locks"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__", "open", "secure"))
    edited(tmp_path / "analysis" / "biglocal" / file, old, new)
    again, fresh = Path(shutil.copytree(before, tmp_path / "again")), tmp_path / "fresh"
    path = os.pathsep.join((str(tmp_path / "analysis"), str(Path(__file__).parent)))
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(again), str(fresh)],
        env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
    moved = [
        p for p in fresh.rglob("*") if p.is_file() and p.read_bytes() != (before / p.relative_to(fresh)).read_bytes()
    ]
    assert moved, "the edit changes nothing: it tests nothing"
