"""What `biglocal new` writes works as it stands; the README's section on changes is followed to the letter."""

from __future__ import annotations

import difflib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import fake_rows
from biglocal import estimate, exhibits, new, results, study
from biglocal.estimators import estimator
from biglocal.model import BiglocalError, Fit, Sample, StudyError
from panels import panel

ROOT = study.ROOT
TEXT = study.PATH.read_text(encoding="utf-8")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what `new` writes to; the package's own folder is taken to be the copy's."""
    copy = tmp_path / "a copy"
    for folder in ("analysis", "manuscript", "data-raw"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__", "open", "secure"))
    monkeypatch.setattr(study, "HERE", copy / "analysis" / "biglocal")
    return copy


def call(project: Path, what: str, name: str, **options: object) -> tuple[str, ...]:
    function: Callable[..., tuple[str, ...]] = getattr(new, what)
    return function(name, path=project / "analysis/study.toml", manuscript=project / "manuscript", **options)


def load(project: Path) -> study.Study:
    return study.load(project / "analysis/study.toml", project / "manuscript")


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


OUTCOME = {"better": "lower", "family": "crime"}


@pytest.mark.parametrize(
    ("what", "name", "options", "plan"),
    [
        ("outcome", "burglary_rate", OUTCOME, "effects/burglary_rate/all/nearest/twfe/common_start/cr2"),
        ("outcome", "age", {**OUTCOME, "table": "survey"}, "effects/age/all/nearest/twfe/common_start/cluster"),
        ("outcome", "lonely", {**OUTCOME, "column": "belonging", "at_least": 4}, "change/lonely/all/cohort/gee"),
        ("outcome", "items", {**OUTCOME, "column": "swemwbs_1"}, "change/items/all/cohort/mixed_model"),
        (
            "outcome",
            "violence_rate",
            {**OUTCOME, "parts": ["years", "trends", "years"]},
            "years/violence_rate/all/nearest/event_study/common_start/cluster",
        ),
        ("subgroup", "tenure", {"of": "person"}, "subgroups/high_anxiety/tenure/nearest/twfe/common_start/cluster"),
        (
            "subgroup",
            "start",
            {"of": "area", "column": "wave", "levels": ["first=1", "later = 2, 3"]},
            "subgroups/samhi/start/nearest/twfe/common_start/cluster",
        ),
        (
            "subgroup",
            "size",
            {"of": "lsoa", "column": "population", "levels": ["small", "large"], "quantiles": [0.5]},
            "subgroups/samhi/size/nearest/twfe/common_start/cluster",
        ),
        (
            "subgroup",
            "town",
            {"of": "lsoa", "column": "rural", "levels": ["town=false", "country=true"]},
            "subgroups/burglary/town/nearest/twfe/common_start/cluster",
        ),
        (
            "subgroup",
            "old",
            {"of": "member", "column": "age", "levels": ["under 60", "60 and over"], "cuts": [59]},
            "change/swemwbs/old/cohort/mixed_model",
        ),
        ("estimator", "mean_change", {}, "estimators/samhi/all/nearest/mean_change/plan_endorsed/cluster"),
    ],
    ids=lambda v: v if isinstance(v, str) and "/" not in v else "",
)
def test_an_entry_is_added_and_nothing_else_moves(
    project: Path, what: str, name: str, options: dict[str, object], plan: str
) -> None:
    said = call(project, what, name, **options)
    found = load(project)
    assert name in getattr(found, f"{what}s")
    assert plan in {a.id for a in study.expand(found)}
    text = (project / "analysis/study.toml").read_text(encoding="utf-8")
    lost = [line[2:] for line in difflib.ndiff(TEXT.splitlines(), text.splitlines()) if line.startswith("- ")]
    assert all(line.startswith(f"{what}s = [") for line in lost), lost
    assert text.count("#") == TEXT.count("#")
    for told in said:
        if at := re.search(r"line (\d+): analyses", told):
            assert f'"{name}"' in text.splitlines()[int(at[1]) - 1]


@pytest.mark.parametrize(
    ("what", "name", "options", "parts"),
    [
        ("outcome", "Samhi 2", OUTCOME, ("not a name",)),
        ("outcome", "../up", OUTCOME, ("not a name",)),
        ("outcome", "samhi", OUTCOME, ("exists",)),
        ("outcome", "crime", OUTCOME, ("exists", "covariate")),
        ("outcome", "burglry_rate", OUTCOME, ("--column burglry_rate", "Did you mean 'burglary_rate (area_panel)'")),
        ("outcome", "area", {**OUTCOME, "table": "survey", "column": "lsoa11"}, ("not a number", "anxiety")),
        ("outcome", "old", {**OUTCOME, "column": "age"}, ("survey and residents", "--table")),
        ("outcome", "old", {**OUTCOME, "column": "age", "table": "costs"}, ("--table costs", "area_panel")),
        ("outcome", "violence_rate", {**OUTCOME, "better": "up"}, ("outcomes.violence_rate.better", "'higher', 'lower'")),
        ("outcome", "violence_rate", {**OUTCOME, "parts": ["effect"]}, ("--part effect", "Did you mean 'effects'")),
        ("outcome", "violence_rate", {**OUTCOME, "parts": ["change"]}, ("no block of that part", "area_panel")),
        ("outcome", "violence_rate", {**OUTCOME, "first_year": 2020, "last_year": 2011}, ("comes after",)),
        ("subgroup", "all", {"of": "area"}, ("exists",)),
        ("subgroup", "age", {"of": "person"}, ("exists",)),
        ("subgroup", "tenure", {"of": "people"}, ("--of people", "person")),
        ("subgroup", "tenur", {"of": "person"}, ("--column tenur", "Did you mean 'tenure'")),
        ("subgroup", "start", {"of": "area", "column": "wave"}, ("--level NAME=VALUE", "--cut")),
        ("subgroup", "start", {"of": "area", "column": "wave", "levels": ["a=one"]}, ("whole numbers",)),
        ("subgroup", "poor", {"of": "lsoa", "column": "imd", "levels": ["a=1"]}, ("--quantile",)),
        ("subgroup", "poor", {"of": "lsoa", "column": "imd", "cuts": [20.0]}, ("2 levels",)),
        ("subgroup", "poor", {"of": "lsoa", "column": "imd", "levels": ["a"], "cuts": [20.0]}, ("1 cuts make 2 levels",)),
        ("subgroup", "home", {"of": "person", "column": "tenure", "levels": ["own=owned"]}, ("Did you mean 'owner'",)),
        ("estimator", "twfe", {}, ("exists", "twfe.py")),
        ("estimator", "least_squares", {}, ("exists",)),
        ("estimator", "class", {}, ("Python",)),
        ("estimator", "_hidden", {}, ("not a name",)),
        ("estimator", "mine", {"parts": ["estimator"]}, ("Did you mean 'estimators'",)),
        ("exhibit", "balance", {"title": "Balance"}, ("exists", "balance.md.j2")),
        ("exhibit", "mine", {"title": "The 9 effects"}, ("typed digit", "exhibits/mine.md.j2")),
        ("exhibit", "mine", {"title": "Mine", "part": "flow"}, ("--part flow", "effects")),
        ("exhibit", "mine", {"title": "Mine", "outcomes": ["burglry"]}, ("Did you mean 'burglary'",)),
        ("exhibit", "mine", {"title": "Mine {{ nobody }"}, ("--title", "plain")),
    ],
)  # fmt: skip
def test_a_refusal_says_why_and_leaves_everything_as_it_was(
    project: Path, what: str, name: str, options: dict[str, object], parts: tuple[str, ...]
) -> None:
    before = tree(project)
    with pytest.raises(StudyError) as refused:
        call(project, what, name, **options)
    for part in parts:
        assert part in str(refused.value)
    assert tree(project) == before


@pytest.mark.parametrize(
    "layout",
    [
        pytest.param(lambda t: t.replace("\n", "\r\n"), id="lines end as on Windows"),
        pytest.param(lambda t: t.replace('outcomes = ["samhi", "burglary", "antisocial', 'outcomes = [\n  "samhi", # with ] and "\n  "burglary",\n  "antisocial'), id="a list over several lines"),
        pytest.param(lambda t: t.replace('"violence"]\ntreatments', '"violence" # the last]\n]\ntreatments'), id="a comment after the last"),
        pytest.param(lambda t: t.replace('"violence"]\ntreatments', "'violence', ]\ntreatments"), id="a comma after the last"),
        pytest.param(lambda t: t.rstrip() + "\n\n[outcomes.late]\n" + t.split("[outcomes.samhi]\n")[1].split("\n\n")[0].rstrip(), id="no line end at the end"),
    ],
)  # fmt: skip
def test_other_layouts_of_the_study(project: Path, layout: Callable[[str], str]) -> None:
    path = project / "analysis/study.toml"
    path.write_bytes(layout(TEXT).encode())
    before = tomllib.loads(layout(TEXT))
    call(project, "outcome", "burglary_rate", **OUTCOME)
    after = tomllib.loads(path.read_bytes().decode())
    assert after["outcomes"].pop("burglary_rate")["family"] == "crime"
    moved = [a["outcomes"] for a, b in zip(after["analyses"], before["analyses"], strict=True) if a != b]
    assert [names[-1] for names in moved] == ["burglary_rate"]
    moved[0].pop()
    assert after == before
    assert (b"\r\n" in path.read_bytes()) == ("\r\n" in layout(TEXT))
    assert path.read_bytes().count(b"\n") == path.read_bytes().count(b"\r\n") or "\r\n" not in layout(TEXT)


def test_a_study_laid_out_so_that_nothing_can_be_inserted_is_left_alone(project: Path) -> None:
    path = project / "analysis/study.toml"
    head, _, blocks = TEXT.partition("[[analyses]]")
    inline = [
        "{ " + ", ".join(f"{k} = {new._toml(v)}" for k, v in block.items()) + " }"
        for block in tomllib.loads(TEXT)["analyses"]
    ]
    rest = "[cost_benefit]" + (blocks.split("[cost_benefit]", 1)[1].split("[[analyses]]")[0])
    path.write_text(f"analyses = [{', '.join(inline)}]\n{head}\n{rest}", encoding="utf-8")
    before = tree(project)
    with pytest.raises(StudyError, match="by hand"):
        call(project, "estimator", "mine")
    assert tree(project) == before


def test_a_disk_that_fails_leaves_nothing_half_made(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = tree(project)

    def full(path: Path, text: str) -> None:
        if path.name == "study.toml":
            raise OSError(28, "no space left", str(path))
        results.write_text(path, text)

    monkeypatch.setattr(new, "write_text", full)
    for what, options in (("estimator", {}), ("exhibit", {"title": "Mine"})):
        with pytest.raises(OSError, match="no space"):
            call(project, what, "mine", **options)
    assert tree(project) == before


def test_a_table_of_any_part_has_one_row_a_cell(project: Path, tmp_path: Path) -> None:
    for part in new.PARTS:
        (said, *_) = call(project, "exhibit", f"mine_{part}", title="Mine", part=part)
        assert said == str(Path(f"manuscript/exhibits/mine_{part}.md.j2"))
    plan = replace(load(project), exhibits=tuple(f"mine_{part}" for part in new.PARTS), cost_benefit=None)
    rows = fake_rows.rows(plan)
    exhibits.render(rows, plan, fake_rows.RUN, tmp_path, project / "manuscript", only=plan.exhibits)
    for part, (term, *_) in new.PARTS.items():
        lines = (tmp_path / f"tables/mine_{part}.csv").read_text(encoding="utf-8").count("\n") - 1
        shown = [r for r in rows if (r.part, r.term) == (part, term) and r.inference in ("cluster", "none")]
        assert lines == len(shown) > 0, part


def test_what_shows_the_new_rows_is_said(project: Path) -> None:
    assert call(project, "outcome", "burglary_rate", **OUTCOME)[-1].endswith(
        "shown in balance, main_effects, inference, randomisation, power, rivals"
    )
    belongs = call(project, "outcome", "belongs", column="belonging", at_least=4, better="higher", family="members")
    assert belongs[-1].endswith("no exhibit: `biglocal new exhibit` writes one")
    call(project, "exhibit", "mine", title="Mine", part="change")
    assert "mine" in call(project, "subgroup", "old", of="member", column="age", levels=["a", "b"], cuts=[59])[-1]


def written(project: Path) -> Callable[[Sample], Fit]:
    call(project, "estimator", "mine")
    there: dict[str, object] = {}
    exec((project / "analysis/biglocal/estimators/mine.py").read_text(encoding="utf-8"), there)
    return there["estimate"]  # type: ignore[return-value]


def test_the_estimator_it_writes_is_the_matched_difference_without_sets_and_two_way_fixed_effects(
    project: Path,
) -> None:
    mine = written(project)
    for seed in range(5):
        sample = panel(seed=seed, effect=0.4)
        fit, other = mine(sample), estimator("matched_change")(sample)
        ours, theirs = fit.terms[0], other.terms[0]
        assert (ours.estimate, ours.std_error) == pytest.approx((theirs.estimate, theirs.std_error), rel=1e-11)
        assert (ours.df, ours.n_treated, ours.n_treated_clusters) == (
            theirs.df,
            theirs.n_treated,
            theirs.n_treated_clusters,
        )
        assert replace(fit, terms=(), facts={}) == replace(other, terms=(), facts={})
        twfe = estimator("twfe")(sample).terms[0]
        assert ours.estimate == pytest.approx(twfe.estimate, rel=1e-8)


def test_the_estimator_it_writes_takes_staggered_starts(project: Path) -> None:
    mine = written(project)
    frame = panel(seed=3, effect=0.0).frame
    first = frame["first_treated"] + frame["cluster"] % 2
    d = ((frame["treated"] == 1) & (frame["time"] >= first)).astype(float)
    y = 2.0 * frame["unit"] + np.sin(frame["time"]) + 0.75 * d
    sample = Sample(frame.assign(first_treated=first, d=d, y=y), "")
    assert mine(sample).terms[0].estimate == pytest.approx(0.75, abs=1e-12)
    assert mine(sample).terms[0].std_error == pytest.approx(0, abs=1e-12)


def test_an_estimator_without_its_function_is_refused_before_the_run(project: Path) -> None:
    call(project, "estimator", "mine")
    file = project / "analysis/biglocal/estimators/mine.py"
    file.write_text(file.read_text(encoding="utf-8").replace("def estimate(", "def estimated("), encoding="utf-8")
    with pytest.raises(StudyError, match=r"estimators/mine.py defines no function estimate\(…\)"):
        load(project)


def test_an_estimator_that_gives_something_else_is_told_what_to_give(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("biglocal.estimators.estimator", lambda name: lambda sample: 0.3)
    plan = study.load()
    analysis = next(a for a in study.expand(plan) if a.estimator == "twfe" and a.outcome == "samhi")
    with pytest.raises(StudyError, match=r"estimators/twfe.py: estimate\(sample\) gave a float. Return a Fit"):
        estimate.work([analysis], panel(), plan, 99)


def readme() -> list[str]:
    """The lines of the README's section that a shell is meant to run."""
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("\n## Change it\n")[1].split("\n## ")[0]
    blocks = re.findall(r"(?:^    .*\n)+", section, re.MULTILINE)
    (lines,) = [b for b in blocks if "biglocal new " in b]
    return [line[4:] for line in lines.splitlines()]


def cut(text: str) -> str:
    """A study that takes seconds: the analyses that cards ask for and those that the README adds to."""
    kept = {"effects", "truth", "subgroups", "estimators", "change", "association", "members_truth"}
    tables = []
    for table in re.split(r"(?m)^(?=\[)", text):
        part = re.search(r'^part = "(\w+)"', table, re.MULTILINE)
        if not table.startswith("[cost_benefit") and (part is None or part[1] in kept):
            tables.append(table)
    shown = 'exhibits = [\n    "main_effects", "subgroups", "estimators",\n]'
    fast = re.sub(r'inference = \["cluster".*?\]', 'inference = ["cluster"]', "".join(tables))
    return re.sub(r"exhibits = \[.*?\n\]", shown, fast, flags=re.DOTALL)


def test_the_readme_followed_to_the_letter_reaches_every_format(small_tier: Path, project: Path) -> None:
    """As written, in a copy; only the data are smaller, and most analyses are left out first."""
    if not shutil.which("bash"):
        pytest.skip("no bash")
    lines = readme()
    assert len(lines) <= 10
    path = project / "analysis/study.toml"
    path.write_text(cut(TEXT), encoding="utf-8")
    (project / "manuscript/report.md.j2").write_text("## Report\n\n{{ others() }}\n", encoding="utf-8")
    program = project / ".nox/reproduce/bin/biglocal"
    program.parent.mkdir(parents=True)
    smaller = f'[ "$*" = reproduce ] && set -- reproduce secure --data "{small_tier}"\n'
    program.write_text(f'#!/bin/sh\n{smaller}exec "{sys.executable}" -m biglocal "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    environment = {**os.environ, "PYTHONPATH": str(project / "analysis"), "OMP_NUM_THREADS": "1"}
    script = "set -e\n" + "\n".join(lines)
    done = subprocess.run(["bash", "-c", script], cwd=project, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

    made = dict(re.findall(r"biglocal new (\w+) (\w+)", "\n".join(lines)))
    assert made.keys() == {"outcome", "subgroup", "estimator", "exhibit"}
    out = project / "outputs/secure"
    rows = [r for r in results.read(out / "results.csv") if r.status == "ok" and r.term == "att"]
    for what in ("outcome", "subgroup", "estimator"):
        assert any(getattr(r, what) == made[what] and r.estimate is not None for r in rows), what
    found = study.load(path, project / "manuscript")
    title = re.search(r'title = "(.*)"', (project / f"manuscript/exhibits/{made['exhibit']}.md.j2").read_text())[1]  # type: ignore[index]
    labels = [
        found.outcomes[made["outcome"]].label,
        found.subgroups[made["subgroup"]].label,
        found.estimators[made["estimator"]].label,
        title,
    ]
    pages = [(out / "report.html").read_text(encoding="utf-8")]
    if shutil.which("pdftotext"):
        pages.append(
            subprocess.run(["pdftotext", out / "report.pdf", "-"], capture_output=True, text=True, check=True).stdout
        )
    for page in pages:
        for label in labels:
            assert label in " ".join(page.split()), label
    assert (out / "tables" / f"{made['exhibit']}.csv").read_text(encoding="utf-8").count("\n") == 3


def test_an_estimator_that_is_written_is_under_the_laws_at_once(project: Path) -> None:
    call(project, "estimator", "mine")
    shutil.copytree(ROOT / "tests", project / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "tests/estimators/test_laws.py", "-q", "-p", "no:cacheprovider", "-k", "mine or under_a_law"],
        cwd=project, env={**os.environ, "PYTHONPATH": os.pathsep.join([str(project / "analysis"), str(project / "tests")])},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert re.search(r"(\d+) passed", done.stdout)[1] > "1"  # type: ignore[index]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 20  # type: ignore[index]


def test_the_command_says_what_it_wrote_and_refuses_with_exit_2(project: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(project / "analysis")}

    def say(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "biglocal", "new", *words], cwd=project, env=environment, capture_output=True, text=True
        )  # fmt: skip

    done = say("exhibit", "mine", "--title", "Mine", "--part", "subgroups")
    assert done.returncode == 0
    assert "manuscript/exhibits/mine.md.j2" in done.stdout
    again = say("exhibit", "mine", "--title", "Mine")
    assert again.returncode == 2
    assert again.stderr.startswith("biglocal: mine: this exhibit exists")
    assert issubclass(StudyError, BiglocalError)


def test_a_members_outcome_and_subgroup_reach_the_report(project: Path) -> None:
    """The outcome in a table of its own, as `new` says that no exhibit shows it; the subgroup in the figure of change."""
    parts = r'\[\[analyses\]\]\npart = "(?!(effects|truth|subgroups|change|association|members_truth)")|\[cost_benefit'
    left = "".join(t for t in re.split(r"(?m)^(?=\[)", TEXT) if not re.match(parts, t))
    few = re.sub(r'outcomes = \["(high_anxiety|samhi)".*?\]', 'outcomes = ["burglary"]', left)
    few = few.replace('subgroups = ["progress", "deprivation", "rural", "region"]', 'subgroups = ["progress"]')
    few = few.replace('subgroups = ["gender", "age", "education"]', 'subgroups = ["progress"]')
    few = re.sub(r'inference = \["cluster".*?\]', 'inference = ["cluster"]', few)
    shown = 'exhibits = [\n    "member_change", "member_health_change", "member_subgroups",\n]'
    path = project / "analysis/study.toml"
    path.write_text(re.sub(r"exhibits = \[.*?\n\]", shown, few, flags=re.DOTALL), encoding="utf-8")
    (project / "manuscript/report.md.j2").write_text("## Report\n\n{{ others() }}\n", encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(project / "analysis"), "OMP_NUM_THREADS": "1"}

    def biglocal(*words: str) -> str:
        line = [sys.executable, "-m", "biglocal", *words]
        done = subprocess.run(line, cwd=project, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    said = biglocal("new", "outcome", "sociable", "--better", "higher", "--family", "wellbeing_members", "--column", "swemwbs_1", "--table", "residents", "--label", "First item of well-being")  # fmt: skip
    assert "no exhibit: `biglocal new exhibit` writes one" in said
    biglocal("new", "exhibit", "sociable_change", "--title", "Change of the first item", "--part", "change", "--outcome", "sociable")  # fmt: skip
    biglocal("new", "subgroup", "elder", "--of", "member", "--column", "age", "--level", "under 60", "--level", "60 and over", "--cut", "59", "--label", "Age in two")  # fmt: skip
    biglocal("reproduce")
    out = project / "outputs/synthetic"
    rows = [r for r in results.read(out / "results.csv") if r.status == "ok" and r.part == "change"]
    assert any(r.outcome == "sociable" and r.estimate is not None for r in rows)
    assert {r.level for r in rows if r.subgroup == "elder" and r.term == "change"} == {"under 60", "60 and over"}
    page = " ".join((out / "report.html").read_text(encoding="utf-8").split())
    for label in ("Change of the first item", "First item of well-being", "Age in two"):
        assert label in page, label
    if shutil.which("pdftotext"):
        told = subprocess.run(["pdftotext", out / "report.pdf", "-"], capture_output=True, text=True, check=True)
        assert "First item of well-being" in " ".join(told.stdout.split())
