"""The README as data editors want it: sections in order, lists that are true of the code, nothing stale."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import tokenize
from pathlib import Path
from typing import Any, get_args

import pytest

from biglocal.__main__ import main
from biglocal.archive import dialects, editors
from biglocal.archive.rules import RULES
from biglocal.exhibits import PUBLISHED, Report
from biglocal.model import DataError, Inference, Run
from biglocal.study import HERE, MANUSCRIPT, ON_REQUEST, ROOT, expand
from biglocal.study import load as load_study
from biglocal.timings import Cost, Timings

STUDY = load_study()
MADE = dialects.read(STUDY)
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def report() -> Report:
    return Report((), STUDY, Run("synthetic", "SYNTHETIC", {}, (), {}, {}), MANUSCRIPT, PUBLISHED)


@pytest.fixture(scope="module")
def listed(report: Report) -> dict[str, dict[str, str]]:
    """The list of tables and figures, read back: exhibit -> column -> cell."""
    heads, _, *lines = [
        [c.strip() for c in li.split("|")[1:-1]] for li in editors.exhibits(STUDY, report, None).split("\n") if li
    ]
    cells = [dict(zip(heads, line, strict=True)) for line in lines]
    return {re.findall(r"`(\w+)\.md\.j2", c["program and line"])[0]: c for c in cells}


def test_nothing_that_is_generated_is_stale() -> None:
    _, stale = editors.stale(STUDY)
    assert not stale, "run `biglocal metadata`"


def test_the_command_finds_what_is_stale_and_writes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("pyproject.toml", "README.md", "data-raw/README.md", "data-raw/sources.toml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    project = tmp_path / "pyproject.toml"
    project.write_text(project.read_text(encoding="utf-8").replace('name = "The biglocal authors"', 'family = "Ek"'))
    monkeypatch.setattr("biglocal.study.ROOT", tmp_path)

    def call(*words: str) -> int:
        monkeypatch.setattr("sys.argv", ["biglocal", "metadata", *words])
        with pytest.raises(SystemExit) as done:
            main()
        return int(done.value.code or 0)

    dialect_files = {"CITATION.cff", "codemeta.json", ".zenodo.json", "datacite.json", "codecheck.yml"}
    assert call("--check") == 1
    assert {line.partition(":")[0] for line in capsys.readouterr().out.splitlines()} >= dialect_files
    assert not (tmp_path / "CITATION.cff").exists()
    assert call() == 0
    assert all("Ek" in (tmp_path / f).read_text(encoding="utf-8") for f in dialect_files)
    assert call("--check") == 0


def test_the_readme_has_every_section_of_the_template_in_its_order() -> None:
    titles = re.findall(r"^#+ (.+)$", README, re.MULTILINE)
    wanted = [r.heading for r in RULES.values() if r.standard == "SSDE"]
    at = [titles.index(w) for w in wanted]
    assert at == sorted(at)
    level = {t: len(m) for m, t in re.findall(r"^(#+) (.+)$", README, re.MULTILINE)}
    for rule in (r for r in RULES.values() if r.standard == "SSDE"):
        assert level[rule.heading] == (4 if "." in rule.id else 3), rule.id


def test_a_lost_marker_is_named_and_filling_twice_changes_nothing() -> None:
    block = {"software": "x\n"}
    once = editors.filled(README, block)
    assert once != README and editors.filled(once, block) == once
    with pytest.raises(DataError, match=r"README\.md: .*software.* are gone"):
        editors.filled(README.replace("<!-- end: software -->", ""), block)


def test_every_program_and_line_is_the_function_and_every_template_line_its_selection(
    listed: dict[str, dict[str, str]],
) -> None:
    assert list(listed) == list(STUDY.exhibits)
    for name, cells in listed.items():
        found = re.findall(r"`([\w./]+\.(?:py|j2)):(\d+)`", cells["program and line"])
        assert len(found) == cells["program and line"].count("`") // 2 >= 2, name
        for file, line in found:
            folder = HERE if file.endswith(".py") else MANUSCRIPT / "exhibits"
            said = (folder / file).read_text(encoding="utf-8").splitlines()[int(line) - 1]
            assert said.startswith(("def ", "select", "figure_select", "source")), f"{name}: {file}:{line}: {said}"


def test_every_way_of_inference_has_its_program(listed: dict[str, dict[str, str]]) -> None:
    assert set(editors._inference()) == set(get_args(Inference)) - {"none"}
    assert "`inference/randomisation.py:" in listed["randomisation"]["program and line"]
    assert "`inference/wild.py:" in listed["main_effects"]["program and line"]


def test_the_list_says_what_open_data_allow_and_what_runs_on_request(
    listed: dict[str, dict[str, str]], report: Report
) -> None:
    by_part = {}
    for name in STUDY.exhibits:
        by_part[name] = {a.part for a in editors.feeding(report, name, expand(STUDY))}
        alone = by_part[name] and by_part[name] <= set(ON_REQUEST)
        assert ("on request" in listed[name]["files of a run"]) == bool(alone), name
    assert listed["counts"]["open data"] == "yes"  # recorded crime alone
    assert listed["member_change"]["open data"] == "no: residents"
    assert listed["main_effects"]["open data"] == "in part: not survey"
    assert listed["money"]["open data"] == "no: costs, survey"
    assert listed["simulation"]["open data"] == "no: known effects"
    for name, cells in listed.items():
        persons = {"survey", "residents"} & set(cells["tables of data"].split(", "))
        assert not (persons and cells["open data"] == "yes"), name
        assert cells["time, memory"] == "not measured"


def test_every_row_that_an_exhibit_prints_is_of_an_analysis_that_is_listed(report: Report, reproduced: Path) -> None:
    plan = {a.id: a for a in expand(STUDY)}
    numbers = json.loads((reproduced / "secure" / "numbers.json").read_text(encoding="utf-8"))
    for name in STUDY.exhibits:
        printed = {n["row"].split("#")[0] for key, n in numbers.items() if key.startswith(f"{name}.") and "row" in n}
        listed = {a.id for a in editors.feeding(report, name, plan.values())}
        assert printed <= listed, name


def test_an_outcome_taken_from_persons_moves_an_exhibit_out_of_what_is_open(report: Report) -> None:
    chosen = dataclasses.replace(STUDY.outcomes["burglary_count"], table="survey", column="anxiety")
    study = dataclasses.replace(STUDY, outcomes={**STUDY.outcomes, "burglary_count": chosen})
    feeding = editors.feeding(report, "counts", expand(study))
    assert editors.openly(study, feeding) == "in part: not survey"


def test_captions_are_numbered_as_the_report_numbers_them(listed: dict[str, dict[str, str]]) -> None:
    numbers = [n for c in listed.values() for n in c["exhibit"].split(", ")]
    for what in ("Table", "Figure"):
        own = [int(n.removeprefix(f"{what} ")) for n in numbers if n.startswith(what)]
        assert own == list(range(1, len(own) + 1))


@pytest.mark.parametrize(
    ("seconds", "box"), [(30.0, "<10 minutes"), (900.0, "10-60 minutes"), (4e4, "8-24 hours"), (1e7, "> 14 days")]
)
def test_the_box_of_the_run_time_follows_the_measured_cost(seconds: float, box: str) -> None:
    parts = {"effects": Cost(seconds, 500), "placebo": Cost(9e9, 300)}  # what runs on request is apart
    said = editors.runtime(Timings("a machine", Cost(1, 100), {"main_effects": Cost(1, 777)}, parts))
    assert re.findall(r"- \[x\] (.+)", said) == [box]
    assert "a machine" in said and "777 MB" in said and "`placebo` 150000000 min" in said


def test_without_a_measurement_the_readme_says_so() -> None:
    assert editors.runtime(None).startswith("Not measured")


# --- controlled randomness ---------------------------------------------------------------------------------


def _code(path: Path) -> str:
    """A source without its texts and comments, so that what is only talked about is not counted."""
    drop = (tokenize.COMMENT, tokenize.STRING)
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline)
    return " ".join(t.string for t in tokens if t.type not in drop)


def test_every_start_of_random_numbers_is_listed_and_seeded() -> None:
    found = list(editors.generators())
    written = {}
    for path in sorted([*HERE.rglob("*.py"), *(ROOT / "data-raw").glob("*.py")]):
        code = _code(path)
        starts = len(re.findall(r"(?<!def )\b(?:default_rng|RandomState|SeedSequence) \(|\brandom_state =", code))
        if starts:
            written[path.relative_to(ROOT).as_posix()] = starts
        # the global state of numpy or of Python would move with the order of calls
        assert not re.search(
            r"\brandom \. (seed|normal|uniform|choice|shuffle|permutation|rand) \(", code.replace("rng . random", "")
        ), path
        assert not re.search(r"^import random\b", code, re.MULTILINE), path
    seen = {file: sum(f == file for f, *_ in found) for file, *_ in found}
    assert seen == written
    for file, line, call in found:
        said = (ROOT / file).read_text(encoding="utf-8").splitlines()[line - 1]
        assert "default_rng(" in said or "random_state=" in said, f"{file}:{line}"
        assert not call.endswith("default_rng()"), f"{file}:{line}: no seed"


def test_a_generator_without_a_seed_would_be_listed(tmp_path: Path) -> None:
    (tmp_path / "analysis").mkdir()
    (tmp_path / "data-raw").mkdir()
    (tmp_path / "analysis" / "new.py").write_text("import numpy as np\n\nrng = np.random.default_rng()\n")
    assert list(editors.generators(tmp_path)) == [("analysis/new.py", 3, "np.random.default_rng()")]


# --- codecheck.yml -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def codecheck(report: Report) -> Any:
    yaml = pytest.importorskip("yaml", reason="PyYAML reads back what we write: locks/test.txt has it")
    text = editors.codecheck(MADE, STUDY, report)
    assert text.startswith("---\n")  # CC-CFG-002
    return yaml.safe_load(text)  # CC-CFG-001


def test_codecheck_has_the_authors_half_and_nothing_of_the_codecheckers(codecheck: Any) -> None:
    assert set(codecheck) == {"version", "manifest", "paper", "source"}
    assert codecheck["version"] == "https://codecheck.org.uk/spec/config/1.0/"  # CC-CFG-015
    files = [entry["file"] for entry in codecheck["manifest"]]  # CC-CFG-005
    assert len(set(files)) == len(files) and all(f.startswith("outputs/synthetic/") for f in files)  # CC-CFG-006
    assert all(entry["comment"] for entry in codecheck["manifest"])  # CC-CFG-007
    assert codecheck["paper"]["title"] == STUDY.title
    assert [a["name"] for a in codecheck["paper"]["authors"]] == [a.full for a in MADE.about.authors]
    assert not re.search("FIXME|TODO|XXXX", str(codecheck))  # CC-CFG-023


def test_codecheck_names_the_doi_and_the_orcid_once_there_are_such(report: Report) -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML reads back what we write: locks/test.txt has it")
    person = dialects.Author(family="Carberry", given="Josiah", orcid="0000-0002-1825-0097")
    about = dataclasses.replace(MADE.about, doi="10.5072/example-full", authors=(person,))
    said = yaml.safe_load(editors.codecheck(dataclasses.replace(MADE, about=about), STUDY, report))["paper"]
    assert said["reference"] == "https://doi.org/10.5072/example-full"
    assert said["authors"] == [{"name": "Josiah Carberry", "ORCID": "0000-0002-1825-0097"}]  # CC-CFG-020


def test_codecheck_lists_what_a_run_writes(codecheck: Any, report: Report) -> None:
    files = {e["file"].removeprefix("outputs/synthetic/") for e in codecheck["manifest"]}
    for name in STUDY.exhibits:
        asked = editors.on_request(editors.feeding(report, name, expand(STUDY)))
        kind = report.templates[name].header.kind
        assert (f"tables/{name}.csv" in files) == (kind in ("table", "both") and not asked)
        assert (f"figures/{name}.svg" in files) == (kind in ("figure", "both") and not asked)
