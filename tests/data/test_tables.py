"""The contract of the tables: each way a frame can break it, and that the message names the cell and the remedy."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from biglocal.data.tables import LAST_YEAR, TABLES, check, dictionary
from biglocal.model import DataError

AREA: dict[str, Any] = {
    "lsoa11": "E01000001", "msoa11": "E02000001", "district": "E09000001", "region": "London", "rural": False,
    "population": 1500, "change": "U", "imd": 20.0, "income": 0.1, "employment": 0.1, "health": 0.0, "education": 20.0,
    "crime": 0.0, "housing": 20.0, "environment": 20.0, "earlier_funding": 3.5, "other_programme": None, "area_id": None, "share": None,
}  # fmt: skip
PERSON: dict[str, Any] = {
    "person_id": 1, "year": 2015, "quarter": 1, "lsoa11": "E01000001", "weight": 1.0, "anxiety": 3, "satisfaction": 7,
    "happiness": -8, "worthwhile": -9, "age": 40, "sex": "female", "qualification": "degree", "activity": "employed",
    "tenure": "owner", "ethnicity": "white",
}  # fmt: skip
PROGRAMME: dict[str, Any] = {
    "area_id": "B1", "area_name": "Adur", "wave": 1, "announced": "2010-07-27", "plan_endorsed": None,
    "first_spend": "2013-05-01", "progress": "fast",
}  # fmt: skip


def rows(row: dict[str, Any], n: int = 3, key: str = "") -> pd.DataFrame:
    """`n` rows like `row`, with a key that counts up."""
    frame = pd.DataFrame([row] * n)
    key = key or next(iter(row))
    frame[key] = [f"E0100000{i + 1}" if key == "lsoa11" else f"B{i + 1}" if key == "area_id" else i for i in range(n)]
    return frame


def refused(table: str, frame: pd.DataFrame) -> str:
    with pytest.raises(DataError) as error:
        check(table, frame, "that file.csv")
    return str(error.value)


def test_good_frames_pass_and_are_typed() -> None:
    areas = rows(AREA)
    before = areas.copy(deep=True)
    got = check("areas", areas.assign(more=1)[[*reversed(AREA), "more"]], "x")
    assert list(got.columns) == list(TABLES["areas"].columns)  # in order, strangers dropped
    pd.testing.assert_frame_equal(areas, before)  # the caller's frame is never touched
    assert str(got["rural"].dtype) == "boolean"
    assert str(got["region"].dtype) == "category"
    survey = check("survey", rows(PERSON), "x")
    assert (survey["happiness"] == -8).all()  # missing codes pass; the outcome turns them to blanks
    programme = check("programme", rows(PROGRAMME), "x")
    assert str(programme["announced"].dtype).startswith("datetime64")
    assert programme["plan_endorsed"].isna().all()


def test_a_frame_of_texts_gives_the_same_table() -> None:
    frame = rows(AREA)
    texts = frame.apply(lambda s: s.map(lambda v: None if v is None else str(v)))
    pd.testing.assert_frame_equal(check("areas", texts, "x"), check("areas", frame, "x"), check_dtype=False)


def test_index_and_order_of_columns_do_not_matter() -> None:
    frame = rows(AREA)
    odd = frame.set_index(pd.Index([7, 7, 9], name="mine"))
    pd.testing.assert_frame_equal(check("areas", odd, "x"), check("areas", frame, "x"))


@pytest.mark.parametrize(
    ("table", "row", "column", "value", "parts"),
    [
        ("areas", AREA, "imd", "n.k.", ("text where a number belongs", "'n.k.'", "Correct the cell")),
        ("areas", AREA, "imd", 101.0, ("above the most, 100", "101.0", "its unit")),
        ("areas", AREA, "income", -0.1, ("below the least, 0", "its unit")),
        ("areas", AREA, "imd", float("inf"), ("infinite",)),
        ("areas", AREA, "population", 1500.5, ("whole number expected", "1500.5")),
        ("areas", AREA, "population", 0, ("below the least, 1 (persons)",)),
        ("areas", AREA, "region", "Wessex", ("one of North East", "'Wessex'")),
        ("areas", AREA, "region", None, ("blank where a value is required", "Fill it or drop the row")),
        ("areas", AREA, "rural", "maybe", ("0 or 1 expected", "'maybe'")),
        ("areas", AREA, "lsoa11", "E00000001", ("2011 LSOA code of England", "'E00000001'", "other vintages")),
        ("areas", AREA, "lsoa11", "W01000001", ("2011 LSOA code of England", "'W01000001'")),
        ("areas", AREA, "lsoa11", "E01000001", ("stands twice", "Drop one of the rows")),
        ("survey", PERSON, "year", LAST_YEAR + 1, ("above the most, 2022", "2023")),
        ("survey", PERSON, "year", 1999, ("below the least, 2010", "1999")),
        ("survey", PERSON, "anxiety", -1, ("below the least, 0 (0 to 10)", "-1")),
        ("survey", PERSON, "anxiety", 11, ("above the most, 10", "11")),
        ("survey", PERSON, "age", "forty", ("text where a number belongs", "'forty'")),
        ("survey", PERSON, "sex", "F", ("one of female, male", "'F'")),
        ("programme", PROGRAMME, "announced", "27/07/2010", ("date as YYYY-MM-DD", "'27/07/2010'")),
        ("programme", PROGRAMME, "wave", 4, ("above the most, 3", "4")),
    ],
)
def test_what_breaks_the_contract_is_named(
    table: str, row: dict[str, Any], column: str, value: object, parts: tuple[str, ...]
) -> None:
    frame = rows(row).astype(object)
    frame.loc[2, column] = value
    message = refused(table, frame)
    for part in ("that file.csv", f"table {table}", f"column {column}", "row 4", *parts):
        assert part in message


def test_a_missing_column_is_named() -> None:
    message = refused("areas", rows(AREA).drop(columns=["imd", "share"]))
    for part in ("that file.csv", "lacks column imd, share", "it has lsoa11", "biglocal dictionary"):
        assert part in message


def test_a_key_of_two_columns() -> None:
    panel = pd.DataFrame({name: [None, None] for name in TABLES["area_panel"].columns})
    panel["lsoa11"], panel["year"] = "E01000001", [2015, 2016]
    assert len(check("area_panel", panel, "x")) == 2
    assert "key (lsoa11, year) stands twice" in refused("area_panel", panel.assign(year=2015))


def test_many_bad_rows_are_counted() -> None:
    assert "3 such rows" in refused("areas", rows(AREA).assign(imd=200.0))


def test_every_table_can_be_empty_of_rows() -> None:
    for name, table in TABLES.items():
        assert len(check(name, pd.DataFrame({c: [] for c in table.columns}), "x")) == 0


def test_the_dictionary_has_every_column() -> None:
    text = dictionary()
    for name, table in TABLES.items():
        assert f"## {name}\n" in text
        for column, spec in table.columns.items():
            assert f"| {column} | {spec.kind} |" in text


def test_contract_is_whole() -> None:
    for table in TABLES.values():
        assert set(table.key) <= set(table.columns)
        for column, spec in table.columns.items():
            assert spec.doc
            assert not (column in table.key and spec.blank)
            assert spec.low is None or spec.high is None or spec.low <= spec.high
