"""The secure contract: what is wrong is said in counts, a lab's names become the contract's, and the way there and back."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from biglocal.__main__ import main
from biglocal.data import convert, secure
from biglocal.data.load import load
from biglocal.data.tables import TABLES, faults, several
from biglocal.model import DataError

SHAPE = convert.read_mapping()


@pytest.fixture(scope="module")
def people(small_tier: Path) -> dict[str, pd.DataFrame]:
    """Some thousand persons of the survey, and members of partnerships, as the contract has them."""
    survey = load("secure", data=small_tier).table("survey")
    residents = load("synthetic", seed=5).table("residents")
    return {"survey": survey.sample(6000, random_state=1, ignore_index=True), "residents": residents}


def same(ours: pd.DataFrame, theirs: pd.DataFrame) -> None:
    for column in ours:
        a, b = (
            f[column].astype(object).map(lambda v: None if pd.isna(v) else convert._plain(v)) for f in (ours, theirs)
        )
        assert a.where(a.notna(), None).tolist() == b.where(b.notna(), None).tolist(), column


# --- there and back --------------------------------------------------------------------------------------------------


def test_a_labs_files_become_the_tables_they_were_made_from(people: dict[str, pd.DataFrame], tmp_path: Path) -> None:
    convert.write_lab(tmp_path / "lab", people, SHAPE)
    assert {p.suffix for p in (tmp_path / "lab").iterdir()} == {".csv", ".tab", ".parquet"}
    said = convert.convert(tmp_path / "lab", tmp_path / "tables", SHAPE)
    assert "aps_2011.csv: " in said[0] and all("rows, fewer than 10 left out" in line for line in said[:10])
    tier = load("secure", data=tmp_path / "tables")
    back = tier.table("survey").sort_values("person_id", ignore_index=True)
    same(back, people["survey"].sort_values("person_id", ignore_index=True))
    same(tier.table("residents"), people["residents"])
    lab = sum(len(pd.read_csv(p, dtype=str)) for p in (tmp_path / "lab").glob("aps_*.csv"))
    assert lab > 0  # decoys: a proxy, a child and a person in Wales in each file are gone
    assert not list((tmp_path / "tables").glob("*.part"))


def test_stata_files_and_names_in_small_letters(people: dict[str, pd.DataFrame], tmp_path: Path) -> None:
    lab = convert.disguise("survey", people["survey"].head(500), SHAPE["survey"])
    numeric = lab.assign(**{c: pd.to_numeric(lab[c]) for c in lab if c not in ("LSOA11",)})
    (tmp_path / "lab").mkdir()
    numeric.rename(columns=str.lower).to_stata(tmp_path / "lab" / "APSP_jd15.dta", write_index=False)
    convert.convert(tmp_path / "lab", tmp_path / "tables", {"survey": SHAPE["survey"]})
    same(load("secure", data=tmp_path / "tables").table("survey"), people["survey"].head(500))


def test_results_from_synthetic_and_from_secure_shaped_inputs_are_the_same(small_tier: Path, tmp_path: Path) -> None:
    from biglocal import results, run

    folder = shutil.copytree(small_tier, tmp_path / "tables")
    convert.write_lab(tmp_path / "lab", {"survey": load("secure", data=small_tier).table("survey")}, SHAPE)
    (folder / "survey.parquet").unlink()
    convert.convert(tmp_path / "lab", folder, {"survey": SHAPE["survey"]})
    tables = []
    for name, data in (("plain", small_tier), ("lab", folder)):
        run.reproduce(
            "secure", data=data, outputs=tmp_path / name, only=["effects/high_anxiety/*", "effects/life_satisfaction/*"]
        )
        rows = results.read(tmp_path / name / "secure" / "results.csv")
        tables.append([(r.key, r.estimate, r.std_error, r.n_obs, r.status) for r in rows])
    assert tables[0] == tables[1] and any(r[1] is not None for r in tables[0])


def test_identifiers_that_repeat_are_numbered_by_content(people: dict[str, pd.DataFrame], tmp_path: Path) -> None:
    lab = convert.disguise("survey", people["survey"].head(400), SHAPE["survey"]).assign(CASENOP="7")
    made = []
    for name, rows in (("a", lab), ("b", lab.sample(frac=1, random_state=4))):
        (tmp_path / name).mkdir()
        rows.to_csv(tmp_path / name / "aps.csv", index=False)
        said = convert.convert(tmp_path / name, tmp_path / f"{name}-out", {"survey": SHAPE["survey"]})
        assert any("numbered in the order of the rows' content" in line for line in said)
        made.append(pd.read_parquet(tmp_path / f"{name}-out" / "survey.parquet"))
    pd.testing.assert_frame_equal(made[0], made[1])
    assert made[0]["person_id"].tolist() == list(range(1, 401))


def test_the_first_name_that_is_not_missing_counts(people: dict[str, pd.DataFrame], tmp_path: Path) -> None:
    lab = convert.disguise("survey", people["survey"].head(20), SHAPE["survey"])
    lab = lab.assign(HIQUL22D=["-9", "7", "", *["1"] * (len(lab) - 3)], HIQUL15D="6")
    (tmp_path / "lab").mkdir()
    lab.iloc[::-1].to_csv(tmp_path / "lab" / "aps.csv", index=False)
    convert.convert(tmp_path / "lab", tmp_path / "out", {"survey": SHAPE["survey"]})
    assert set(pd.read_parquet(tmp_path / "out" / "survey.parquet")["qualification"]) <= {"none", "degree"}


# --- faults of a lab's files -----------------------------------------------------------------------------------------


def converted(tmp_path: Path, lab: pd.DataFrame) -> str:
    (tmp_path / "lab").mkdir(exist_ok=True)
    lab.to_csv(tmp_path / "lab" / "aps.csv", index=False)
    with pytest.raises(DataError) as error:
        convert.convert(tmp_path / "lab", tmp_path / "out", {"survey": SHAPE["survey"]})
    assert not (tmp_path / "out").exists()
    return str(error.value)


def test_every_fault_is_said_at_once_and_nothing_is_written(people: dict[str, pd.DataFrame], tmp_path: Path) -> None:
    lab = convert.disguise("survey", people["survey"].head(300), SHAPE["survey"])
    bad = lab.drop(columns=["ANXIOUS", "LLORD"]).assign(SEX=["3"] * 40 + list(lab["SEX"][40:]), ILODEFR="8")
    message = converted(tmp_path, bad)
    for part in (
        "nothing was written",
        "aps.csv: column ANXIOUS (for survey.anxiety): not in the file",
        "aps.csv: column LLORD (for survey.tenure): not in the file",
        "aps.csv: column SEX (for survey.sex): 40 of 300 rows have a code that the mapping does not have "
        "(codes seen in 10 rows or more: 3 in 40)",
        "column ILODEFR",
    ):
        assert part in message, message


def test_what_breaks_the_contract_after_conversion(people: dict[str, pd.DataFrame], tmp_path: Path) -> None:
    lab = convert.disguise("survey", people["survey"].head(300), SHAPE["survey"]).assign(ANXIOUS="11", REFWKY="1871")
    message = converted(tmp_path, lab)
    assert "table survey, column anxiety: above the most, 10 (0 to 10): 300 of 300 rows" in message
    assert "codes seen in 10 rows or more: 11 in 300" in message
    assert "column year: below the least, 2010" in message and "1871" not in message


@pytest.mark.parametrize("content", [b"", b"\x00\x01\x02", b'CASENOP,"SEX\n1,2', b"<html>"], ids=str)
@pytest.mark.parametrize("suffix", ["csv", "dta", "parquet", "tab"])
def test_files_that_cannot_be_read(tmp_path: Path, content: bytes, suffix: str) -> None:
    (tmp_path / f"aps.{suffix}").write_bytes(content)
    with pytest.raises(DataError, match=f"aps.{suffix}"):
        convert.convert(tmp_path, tmp_path / "out", SHAPE)
    assert not (tmp_path / "out").exists()


def test_folders_without_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no file of any table.*aps\*"):
        convert.convert(tmp_path, tmp_path / "out", SHAPE)
    with pytest.raises(DataError, match="no such folder"):
        convert.convert(tmp_path / "none", tmp_path / "out", SHAPE)


def test_a_table_that_would_stand_twice(people: dict[str, pd.DataFrame], tmp_path: Path) -> None:
    convert.write_lab(tmp_path / "lab", {"residents": people["residents"]}, SHAPE)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "residents.csv").write_text("x")
    with pytest.raises(DataError, match=r"residents\.csv is in out already"):
        convert.convert(tmp_path / "lab", tmp_path / "out", SHAPE)


# --- the mapping -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        ("[survey]", "[surfey]", "no table 'surfey'. Choose from areas"),
        ("[survey.columns.sex]", "[survey.columns.gender]", "no column of the contract 'gender'"),
        ('from = ["SEX"]\n', "", "survey.columns.sex: no `from`"),
        ('1 = "male"', '1 = "man"', "the contract has no value 'man'; it has female, male"),
        ("number = true", "numbered = true", "no setting 'numbered'"),
        ('from = ["TEN1", "LLORD"]', 'from = ["TEN1"]', "rules name LLORD, which `from` does not"),
        ('from = ["SATIS"]', "from = [", "not valid TOML"),
        ('year = { from = ["year"] }', "year = { blank = true }", "the contract allows no blank column here"),
        ('area_id = { from = ["area_id"] }\n', "", "residents.columns: area_id not mapped"),
    ],
)
def test_bad_mappings_are_named(tmp_path: Path, old: str, new: str, part: str) -> None:
    text = convert.MAPPING.read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "mine.toml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(DataError) as error:
        convert.read_mapping(path)
    assert "mine.toml" in str(error.value) and part in str(error.value)


def test_the_mapping_makes_every_value_of_the_contract() -> None:
    for table, how in SHAPE.items():
        for name, column in how.columns.items():
            made = {*column.codes.values(), *(rule.value for rule in column.rules)}
            if TABLES[table].columns[name].allowed:
                assert made == set(TABLES[table].columns[name].allowed), (table, name)
    with pytest.raises(DataError, match="no such file"):
        convert.read_mapping(Path("nowhere.toml"))


# --- the validator ---------------------------------------------------------------------------------------------------

CANARY = ["Zanzibar", "8675309", "271.828", "E01031415", "1871-04-01"]


def spoil(folder: Path) -> None:
    """Faults of every kind, each with a value that could be recognised."""
    survey = pd.read_parquet(folder / "survey.parquet").astype(object)
    survey.loc[survey.index[0], ["age", "sex", "lsoa11"]] = [8675309, "Zanzibar", "E01031415"]
    survey.loc[survey.index[1], ["anxiety", "weight", "year"]] = ["Zanzibar", -271.828, 271.828]
    survey.loc[survey.index[2:60], "qualification"] = "9"
    survey.loc[survey.index[7], "person_id"] = survey.loc[survey.index[8], "person_id"]
    survey.astype(str).replace({"nan": "", "<NA>": "", "None": ""}).to_csv(folder / "survey.csv", index=False)
    (folder / "survey.parquet").unlink()
    programme = pd.read_parquet(folder / "programme.parquet").astype(object)
    programme.loc[programme.index[0], ["area_name", "announced", "wave", "area_id"]] = [
        "Zanzibar",
        "1871",
        8675309,
        "Zanzibar",
    ]
    programme.astype(str).replace({"nan": "", "NaT": "", "None": ""}).to_csv(folder / "programme.csv", index=False)
    (folder / "programme.parquet").unlink()
    pd.DataFrame({"Zanzibar": [1], "271.828": [2]}).to_csv(folder / "costs.csv", index=False)
    (folder / "residents.parquet").write_bytes(b"Zanzibar 8675309")


def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: object) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["biglocal", *map(str, words)])
    with pytest.raises(SystemExit) as error:
        main()
    out, err = capsys.readouterr()
    return int(error.value.code or 0), out + err


def test_check_says_everything_at_once_and_no_value(
    small_tier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(small_tier, tmp_path / "lab")
    assert command(capsys, monkeypatch, "check", "--data", folder)[0] == 0
    spoil(folder)
    code, said = command(capsys, monkeypatch, "check", "--data", folder)
    assert code == 1
    for part in (
        "survey.csv: column age: above the most, 110 (years): fewer than 10 of",
        "survey.csv: column sex: one of female, male expected: fewer than 10 of",
        "survey.csv: column anxiety: text where a number belongs: fewer than 10 of",
        "survey.csv: column weight: below the least, 0 (no unit): fewer than 10 of",
        "survey.csv: column year: ",
        "survey.csv: column qualification: one of none, below_degree, degree expected: 60 of",
        "codes seen in 10 rows or more: 9 in 60",
        "survey.csv: column person_id: key (person_id) stands twice: fewer than 10 of",
        "table survey, column lsoa11: a value that is not in column lsoa11 of table areas: fewer than 10 of",
        "programme.csv: column announced: date as YYYY-MM-DD expected: ",
        "programme.csv: column wave: above the most, 3",
        "table areas, column area_id:",
        "costs.csv: table costs lacks column area_id, year, item, amount; it has 0 of the contract's 4",
        "residents.parquet: cannot be read",
    ):
        assert part in said, f"{part!r} is not in {said}"
    for value in CANARY:
        assert value not in said
    assert re.search(r"\d+ faults", said)


def test_a_run_on_bad_tables_says_no_value_either(
    small_tier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(small_tier, tmp_path / "lab")
    spoil(folder)
    while (folder / "survey.csv").exists():
        code, said = command(
            capsys, monkeypatch, "reproduce", "secure", "--data", folder, "--outputs", tmp_path / "out"
        )
        assert code == 2 and not any(value in said for value in CANARY), said
        name = next(n for n in ("programme", "survey") if (folder / f"{n}.csv").exists())
        (folder / f"{name}.csv").unlink()
        shutil.copy(small_tier / f"{name}.parquet", folder)


def test_a_run_leaves_no_value_of_a_row_behind(small_tier: Path, tmp_path: Path) -> None:
    """Recognisable values in good tables: none of them is in any file of the run."""
    from biglocal import run

    folder = shutil.copytree(small_tier, tmp_path / "lab")
    survey = pd.read_parquet(folder / "survey.parquet")
    marked = survey.assign(
        person_id=np.arange(len(survey)) + 86753090000, weight=survey["weight"].round(3) + 0.000271828
    )
    marked.to_parquet(folder / "survey.parquet")
    said: list[str] = []
    run.reproduce(
        "secure", data=folder, outputs=tmp_path / "out", only=["effects/life_satisfaction/*", "flow"], say=said.append
    )
    files = [p for p in (tmp_path / "out").rglob("*") if p.is_file()]
    assert len(files) > 3
    for text in [*said, *(p.read_bytes().decode("utf-8", "replace") for p in files)]:
        assert "8675309" not in text and "000271828" not in text


def test_check_of_folders(tmp_path: Path) -> None:
    wrong, there = secure.examine(tmp_path)
    assert "none of areas.parquet or areas.csv" in wrong[0]
    assert any(line.startswith("survey: absent") for line in there)
    for suffix in ("csv", "parquet"):
        pd.DataFrame({c: [] for c in TABLES["costs"].columns}).pipe(
            lambda f, s=suffix: (
                f.to_csv(tmp_path / "costs.csv") if s == "csv" else f.to_parquet(tmp_path / "costs.parquet")
            )
        )
    assert "table costs stands in costs.parquet and in costs.csv. Keep one of them." in secure.examine(tmp_path)[0]


def test_faults_do_not_hide_each_other() -> None:
    frame: dict[str, list[Any]] = {
        "area_id": ["a", None, "b"],
        "year": [2015.5, float("inf"), 1990],
        "item": ["grant", "gift", "x"],
    }
    _, found = faults("costs", pd.DataFrame(frame))
    assert [(f.column, len(f.rows)) for f in found] == [
        ("", 0), ("area_id", 1), ("year", 1), ("year", 1), ("year", 1), ("item", 2),
    ]  # fmt: skip


def test_rare_codes_are_not_named() -> None:
    frame = pd.DataFrame({c: [None] * 30 for c in TABLES["survey"].columns}).astype(object)
    frame["sex"] = ["7"] * 9 + ["8"] * 10 + ["female"] * 11
    frame["age"] = 200
    said = " ".join(f.quiet for f in faults("survey", frame)[1])
    assert "8 in 10" in said and "7 in" not in said and "200" not in said


@pytest.mark.parametrize("words", [("check", "--data", "."), ("reproduce", "secure", "--data", ".")], ids=str)
def test_an_unforeseen_error_says_where_and_not_what(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise ValueError("could not convert string to float: 'Zanzibar'")

    monkeypatch.setattr("biglocal.data.secure._files", fails)
    monkeypatch.setattr("biglocal.data.secure._candidates", fails)
    code, said = command(capsys, monkeypatch, *words)
    assert code == 2 and "ValueError at " in said and "withheld" in said and "Zanzibar" not in said


def test_few_persons_are_not_counted_in_a_message_and_areas_are() -> None:
    assert [several(n, "survey") for n in (0, 1, 9, 10, 12, 1234)] == [
        "0", "fewer than 10", "fewer than 10", "10", "10", "1,235"
    ]  # fmt: skip
    assert several(3, "programme") == "3"
    # of all but three, the three cannot be worked out
    assert several(299, "residents") == several(302, "residents") == "300"
