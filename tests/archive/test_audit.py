"""The audit finds each planted fault by its rule and by no other, and passes nothing that it cannot see."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

import fake_rows
from biglocal import provenance, results, verify
from biglocal import study as studies
from biglocal.archive import acre, audit, editors, pack
from biglocal.archive.acre import Facts
from biglocal.archive.package import CHECKS, OF_STANDARDS, Answer, Package
from biglocal.archive.rules import RULES
from biglocal.archive.standards import SECTIONS
from biglocal.data.tables import TABLES
from biglocal.study import HERE, ON_REQUEST, ROOT

Fault = Callable[[Path], object]


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as it would be unpacked somewhere, without tests and reference: every rule on files is kept."""
    to = tmp_path_factory.mktemp("package") / "biglocal"
    for name in Package(ROOT).files:
        if not name.startswith(("tests/", "outputs/expected/")):
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, to / name)
    package = Package(to)
    for name, text in editors.files(package.metadata, package.study, to).items():
        (to / name).write_text(text, encoding="utf-8")  # whether ours are stale is asked in test_editors.py
    return to


@pytest.fixture
def copy(clean: Path, tmp_path: Path) -> Path:
    return shutil.copytree(clean, tmp_path / "biglocal")


SLOW = ("metadata-current", "Frictionless Data Package")  # asked where they can tell something


def unkept(root: Path, rules: tuple[str, ...] = (), outputs: Path | None = None) -> dict[str, tuple[str, ...]]:
    """The rules that are not kept, and what is said of them."""
    package = Package(root, outputs)
    asked = {i: CHECKS[i].answer(package) for i in rules or CHECKS}
    return {i: a.said for i, a in asked.items() if a.verdict in ("fail", "advised")}


@pytest.fixture(scope="module")
def before(clean: Path) -> set[str]:
    """What is advice for the package as it is: it fails no rule."""
    found = unkept(clean)
    assert {i for i in found if RULES.get(i) is None or RULES[i].severity == "error"} == set(), found
    return set(found)


def add(name: str, text: str) -> Fault:
    def plant(root: Path) -> None:
        with (root / name).open("a", encoding="utf-8") as file:
            file.write(text)

    return plant


def edit(name: str, old: str, new: str) -> Fault:
    def plant(root: Path) -> None:
        text = (root / name).read_text(encoding="utf-8")
        assert old in text
        (root / name).write_text(text.replace(old, new, 1), encoding="utf-8")

    return plant


def large(root: Path) -> None:
    with (root / "data-raw" / "large.csv").open("wb") as file:
        file.truncate(100 * 1000**2 + 1)  # takes no room on the disk


NOTES = "data-raw/notes.md"
HEX = "0a1b2c3d4e5f60718293a4b5c6d7e8f901234567"  # in parts, so that this file is not one that holds a secret
FAULTS: dict[str, tuple[Fault, set[str]]] = {
    "a token": (add(NOTES, "ours: gh" + "p_" + HEX), {"no-secret"}),
    "a private key": (add(NOTES, "-----BEGIN RSA PRIV" + "ATE KEY-----\nMIIE"), {"no-secret"}),
    "a password": (add(NOTES, 'pass' + f'word = "{HEX[:12]}"'), {"no-secret"}),
    "a password in an address": (add(NOTES, "https" + "://jane:" + "s3cretly@example.org/data"), {"no-secret"}),
    "an address under such a name": (add(NOTES, 'token' + 's: "https://example.org/ns/2019/0a1b2c3d"'), set()),
    "a file of secrets": (add("data-raw/server.pem", "x"), {"no-secret"}),
    "a home folder": (add(NOTES, "see /ho" + "me/jane/data.csv"), {"no-absolute-path"}),
    "a drive": (add(NOTES, "see C:\\Us" + "ers\\jane"), {"no-absolute-path"}),
    "an empty file": (add("data-raw/empty.csv", ""), {"no-empty-file"}),
    "a file of blanks": (add("data-raw/empty.csv", " \n"), {"no-empty-file"}),
    "a duplicate": (lambda root: shutil.copy(root / "LICENSE", root / "data-raw/LICENSE.txt"), {"no-duplicate-file"}),
    "a large file": (large, {"no-large-file"}),
    "an address in a lock": (add("locks/run.txt", "--extra-index-url https://example.org/simple\n"), {"lock-has-no-address"}),
    "a pin without a hash": (add("locks/run.txt", "lonely==1.0\n"), {"lock-has-hashes"}),
    "a pin without a version": (add("locks/run.txt", f"lonely \\\n    --hash=sha256:{HEX}\n"), {"lock-has-hashes"}),
    "no licence": (lambda root: (root / "LICENSE").unlink(), {"licence-code", "DCAS-15", "CC-BUN-005", "CODECHECK-5"}),
    "another licence": (edit("LICENSE", "MIT License", "All rights reserved"), {"licence-code", "DCAS-15", "CODECHECK-5"}),
    "a font without a licence": (add("manuscript/formats/some.woff2", "x"), {"licence-fonts"}),
    "no seed": (add("data-raw/placebo.py", "\nnp.random.default_rng()\n"), {"seeds-set"}),
    "a shared state": (add("data-raw/placebo.py", "\nnp.random.shuffle([1])\n"), {"seeds-set"}),
    "a closed format": (add("data-raw/survey.dta", "x"), {"DCAS-4"}),
    "no program": (lambda root: (root / "analysis/biglocal/estimators/dose_response.py").unlink(), {"DCAS-8"}),
    "code that is none": (add("data-raw/placebo.py", "\ndef\n"), {"DCAS-9"}),
    "a stale citation": (edit("CITATION.cff", "version: ", "version: 9"), {"metadata-current"}),
    "no README": (lambda root: (root / "README.md").unlink(), {s.id for s in SECTIONS} | {"DCAS-13", "CODECHECK-4", "licence-data", "DCAS-15", "CODECHECK-5"}),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found_by_its_rule_and_by_no_other(name: str, copy: Path, before: set[str]) -> None:
    """And by those that rest upon it: DCAS-15 on the licence, CODECHECK-5 on DCAS-15."""
    plant, rules = FAULTS[name]
    plant(copy)
    asked = tuple(i for i in CHECKS if i not in SLOW or i in rules)
    assert unkept(copy, asked).keys() - before == rules


OF_README = (*(s.id for s in SECTIONS), "DCAS-13")


def own(text: str, heading: str) -> tuple[int, int]:
    """Where a section's heading and own text stand, without the sections below it."""
    found = re.search(rf"^#+ {re.escape(heading)}$.*?(?=^#|\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, heading
    return found.span()


def rewrite(root: Path, change: Callable[[str, int, int], str], heading: str) -> None:
    path = root / "README.md"
    text = path.read_text(encoding="utf-8")
    path.write_text(change(text, *own(text, heading)), encoding="utf-8")


@pytest.mark.parametrize("section", SECTIONS, ids=lambda s: s.id)
def test_a_section_that_is_taken_out_of_the_readme_is_missed(section: object, copy: Path) -> None:
    assert unkept(copy, OF_README) == {}
    heading, id = section.heading, section.id  # type: ignore[attr-defined]
    rewrite(copy, lambda text, start, end: text[:start] + text[end:], heading)
    found = unkept(copy, OF_README)
    rests = {"DCAS-13"} if RULES[id].severity == "error" else set()
    assert set(found) == {id} | rests
    assert heading in found[id][0]


def test_sections_out_of_order_empty_or_not_filled_in(copy: Path) -> None:
    text = (copy / "README.md").read_text(encoding="utf-8")
    start, end = own(text, "License for Code")
    (copy / "README.md").write_text(text[:start] + text[end:] + "\n" + text[start:end], encoding="utf-8")
    assert set(unkept(copy, OF_README)) == {"SSDE-6", "SSDE-6.1", "SSDE-7", "SSDE-8", "DCAS-13"}  # now stand before it
    (copy / "README.md").write_text(f"{text[:start]}#### License for Code\n\n{text[end:]}", encoding="utf-8")
    assert unkept(copy, OF_README)["SSDE-5.1"] == ("'License for Code' says nothing",)
    (copy / "README.md").write_text(text[:end] + "TO" + "DO\n\n" + text[end:], encoding="utf-8")
    assert "not filled in" in unkept(copy, OF_README)["SSDE-5.1"][0]


def test_a_list_that_lacks_an_exhibit_or_a_generator(copy: Path) -> None:
    text = (copy / "README.md").read_text(encoding="utf-8")
    start, end = own(text, "List of tables and programs")
    (copy / "README.md").write_text(
        text[:start] + text[start:end].replace("main_effects", "") + text[end:], encoding="utf-8"
    )
    assert unkept(copy, OF_README)["SSDE-7"] == ("exhibit main_effects is not in the list",)
    more = "\n\ndef again():\n    return np.random.default_rng(7)\n"
    add("analysis/biglocal/levels.py", more)(copy)
    assert "analysis/biglocal/levels.py" in unkept(copy, OF_README)["SSDE-4.2"][0]


CODECHECK: dict[str, tuple[Fault, set[str]]] = {
    "no file": (lambda root: (root / "codecheck.yml").unlink(), {"CC-CFG-003"}),
    "no document": (edit("codecheck.yml", "---\n", ""), {"CC-CFG-002"}),
    "a path of one machine": (edit("codecheck.yml", 'file: "outputs/', 'file: "/outputs/'), {"CC-CFG-006"}),
    "a file that is no longer named": (edit("codecheck.yml", "  - file: ", "  - filed: "), {"CC-CFG-005"}),
    "a place to be filled in": (add("codecheck.yml", "more: FIX" + "ME\n"), {"CC-CFG-023"}),
    "another version": (edit("codecheck.yml", "config/1.0", "config/0.1"), {"CC-CFG-015"}),
    "a wrong ORCID": (add("codecheck.yml", "codechecker: 0000-0002-1825-0098\n"), {"CC-MET-001"}),
    "not YAML": (add("codecheck.yml", "}{\n"), {"CC-CFG-001"}),
}


@pytest.mark.parametrize("name", CODECHECK)
def test_a_fault_of_codecheck_yml(name: str, copy: Path) -> None:
    pytest.importorskip("yaml", reason="PyYAML (locks/archive.txt) is not installed")
    rules = tuple(i for i in RULES if i.startswith("CC-"))
    first = unkept(copy, rules).keys()
    plant, wanted = CODECHECK[name]
    plant(copy)
    assert unkept(copy, rules).keys() - first == wanted


def test_orcids_by_their_check_digit(copy: Path) -> None:
    add("codecheck.yml", "codechecker: 0000-0002-1825-0097\n")(copy)  # the example of orcid.org
    assert CHECKS["CC-MET-001"].answer(Package(copy)) == Answer("pass", ("1 ORCIDs",))


# --- what a run left --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(clean: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package with outputs that are of it, and with their reference."""
    root = tmp_path_factory.mktemp("run") / "biglocal"
    shutil.copytree(clean, root)
    study = studies.load()
    rows = [r for r in fake_rows.rows(study) if r.part not in ON_REQUEST]
    out = fake_rows.outputs(
        root / "outputs" / "synthetic", study, rows,
        code=provenance.sources_of(root / HERE.relative_to(ROOT)), study=provenance.choices(study),
        manuscript=provenance.texts_of(root / "manuscript", root), data=dict.fromkeys(TABLES, "d"),
        lock=results.digest((root / "locks" / "run.txt").read_bytes()),
    )  # fmt: skip
    verify.accept(out, root / "outputs" / "expected" / "synthetic-quick.csv")
    return root


OF_RUN = ("exhibit-has-program", "outputs-unaltered", "outputs-current", "reference-current", "reproduces", "DCAS-3")
AFTER: dict[str, tuple[Fault, set[str]]] = {
    "an edited table": (add("outputs/synthetic/tables/balance.csv", "x"), {"outputs-unaltered", "reproduces"}),
    "a lost table": (lambda r: (r / "outputs/synthetic/tables/years.csv").unlink(), {"outputs-unaltered", "reproduces"}),
    "other code": (add("analysis/biglocal/worth.py", "# a comment\n"), {"outputs-current", "reference-current"}),
    "another template": (add("manuscript/exhibits/years.md.j2", "More.\n"), {"outputs-current", "reference-current"}),
    "another setting": (
        edit("analysis/study.toml", "conf_level = 0.95", "conf_level = 0.9"),
        {"outputs-current", "reference-current"},
    ),
    "another lock": (add("locks/run.txt", "# a comment\n"), {"outputs-current", "reference-current"}),
    "a table of no exhibit": (add("outputs/synthetic/tables/old.csv", "x"), {"exhibit-has-program"}),
    "an edited reference": (edit("outputs/expected/synthetic-quick.csv", ",9000,", ",9001,"), {"reference-current", "reproduces"}),
}  # fmt: skip


@pytest.mark.parametrize("name", AFTER)
def test_outputs_that_are_not_of_this_package(name: str, run: Path, tmp_path: Path) -> None:
    root = shutil.copytree(run, tmp_path / "biglocal")
    assert unkept(root, OF_RUN) == {}
    plant, wanted = AFTER[name]
    plant(root)
    assert set(unkept(root, OF_RUN)) == wanted


def test_levels_of_a_run(run: Path) -> None:
    """Made data reach level 5 and no more; the study's own wait for what is not known of the list of areas."""
    found = audit.audit(Package(run))
    made = {s.exhibit: acre.name(s.made) if s.made else "" for s in found.standings}
    assert made["main_effects"] == "5"
    assert made["placebo"] == ""
    assert set(made.values()) == {"5", ""}
    assert {acre.name(s.real) for s in found.standings if "treated" in s.sources} == {"3*"}
    assert {acre.name(s.could) for s in found.standings} == {"10*"}
    assert "nothing here says that the published numbers come out" in audit.markdown(found)


BROKEN: dict[str, Callable[[Path], object]] = {
    "no bundle": lambda path: zipfile.ZipFile(path, "w").close(),
    "no .zip": lambda path: path.write_bytes(b"PK"),
    "a file that no list has": lambda path: pack.write(
        path, {**pack.bag({"a.csv": b"a"}, {}, {}), "data/b.csv": b"b"}, datetime(2020, 1, 1, tzinfo=UTC)
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_bundle_that_is_not_whole_is_not_unpacked(name: str, clean: Path, tmp_path: Path) -> None:
    path = tmp_path / "biglocal-0-synthetic.zip"
    BROKEN[name](path)
    assert audit.newest(tmp_path) == path
    package = Package(clean, bundle=path)
    assert CHECKS["bundle-intact"].answer(package).verdict == "fail"
    for rule in ("BagIt 1.0", "RO-Crate 1.2", "Process Run Crate 0.5"):
        assert CHECKS[rule].answer(package).verdict == "cannot check"
    assert "unpacked" not in vars(package)


# --- the levels -------------------------------------------------------------------------------------------------

NONE, SOME, ALL = "none", "partial", "complete"


@pytest.mark.parametrize(
    ("facts", "number"),
    [  # the rows of the guide's table, chapter 3.3
        (Facts(NONE, NONE, False, NONE, NONE, False), 1),
        (Facts(ALL, NONE, False, NONE, NONE, False), 2),
        (Facts(ALL, SOME, False, NONE, NONE, False), 3),
        (Facts(SOME, ALL, False, NONE, NONE, False), 3),
        (Facts(ALL, ALL, False, NONE, NONE, False), 4),
        (Facts(ALL, ALL, False, ALL, ALL, True), 4),  # raw data do not make up for a result that does not come out
        (Facts(ALL, ALL, True, NONE, NONE, False), 5),
        (Facts(ALL, ALL, True, SOME, NONE, False), 6),
        (Facts(ALL, ALL, True, ALL, NONE, False), 7),
        (Facts(ALL, ALL, True, ALL, SOME, False), 8),
        (Facts(ALL, ALL, True, ALL, ALL, False), 9),
        (Facts(ALL, ALL, True, ALL, ALL, True), 10),
    ],
)
def test_the_ladder_of_the_guide(facts: Facts, number: int) -> None:
    assert acre.level(facts).number == number
    assert acre.name(replace(facts, star=True)) == f"{number}*"


# --- the whole --------------------------------------------------------------------------------------------------


def test_every_rule_of_the_standards_is_asked() -> None:
    assert RULES.keys() <= CHECKS.keys()
    assert OF_STANDARDS.keys() <= CHECKS.keys()
    assert all(c.asks and c.title for c in CHECKS.values())


def test_nothing_passes_by_default(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    answers = {i: c.answer(Package(tmp_path / "empty")) for i, c in CHECKS.items()}
    assert {i for i, a in answers.items() if a.verdict in ("pass", "not applicable")} == set()


def test_the_forms_agree_and_the_gravest_comes_first(copy: Path) -> None:
    add(NOTES, "gh" + "p_" + HEX)(copy)
    (copy / "LICENSE").unlink()
    found = audit.audit(Package(copy))
    assert not found.ok
    assert "no-secret" in found.step
    told = json.loads(audit.as_json(found))
    assert {r["id"]: r["verdict"] for r in told["rules"]} == {c.id: a.verdict for c, a in found.answers}
    page, text = audit.markdown(found), audit.text(found, whole=True)
    for check, answer in found.answers:
        assert re.search(rf"^\| {re.escape(check.id)} \|.*{answer.verdict}", page, re.MULTILINE), check.id
        assert f"{audit.MARKS[answer.verdict]} {check.id} " in text
    assert f"{HEX}" not in page + text + audit.as_json(found)  # the report of a secret must not be one
