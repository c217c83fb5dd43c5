"""The data dictionary for machines: valid by its standard, true of the data, as strict as the contract's own check."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from biglocal.data.load import Tier, load
from biglocal.data.tables import TABLES, check, datapackage
from biglocal.model import DataError

frictionless = pytest.importorskip("frictionless", reason="frictionless (locks/test.txt) is not installed")


@pytest.fixture(scope="module")
def tier() -> Tier:
    return load("synthetic", seed=1)


def frame(tier: Tier, name: str) -> pd.DataFrame:
    """Up to 800 rows of a table, from all over it."""
    table = tier.table(name)
    return table.sample(min(len(table), 800), random_state=1).reset_index(drop=True)


def faults(table: pd.DataFrame, name: str, folder: Path) -> list[list[Any]]:
    """What frictionless finds wrong with a table written as CSV: column and kind of each fault."""
    table.to_csv(folder / f"{name}.csv", index=False, lineterminator="\n")
    (folder / "datapackage.json").write_text(datapackage(), encoding="utf-8")
    package = frictionless.Package(str(folder / "datapackage.json"))
    report = package.get_resource(name.replace("_", "-")).validate()
    return report.flatten(["fieldName", "type"])


def as_text(table: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """A table as the secure tier finds it in a CSV file."""
    table.to_csv(folder / "text.csv", index=False)
    return pd.read_csv(folder / "text.csv", dtype=str, keep_default_na=False, na_values=["", "NA"])


def test_it_is_a_data_package_with_every_column() -> None:
    descriptor = json.loads(datapackage())
    report = frictionless.Package.validate_descriptor(descriptor)
    assert report.valid, report.flatten(["message"])
    assert {r["title"]: [f["name"] for f in r["schema"]["fields"]] for r in descriptor["resources"]} == {
        name: list(table.columns) for name, table in TABLES.items()
    }


@pytest.mark.parametrize("name", TABLES)
def test_the_synthetic_tables_keep_to_it(name: str, tier: Tier, tmp_path: Path) -> None:
    assert tier.has(name)
    assert faults(frame(tier, name), name, tmp_path) == []


BROKEN = {
    "range": ("areas", "imd", "101"),
    "number": ("areas", "imd", "many"),
    "pattern": ("areas", "lsoa11", "W01000001"),
    "choice": ("areas", "region", "Mercia"),
    "blank": ("areas", "change", ""),
    "flag": ("areas", "rural", "perhaps"),
    "date": ("programme", "announced", "2012-13-01"),
    "whole number": ("survey", "age", "30.5"),
    "code that is not one": ("survey", "anxiety", "-7"),
    "below the least": ("costs", "amount", "-1"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_it_refuses_what_the_contract_refuses(fault: str, tier: Tier, tmp_path: Path) -> None:
    name, column, value = BROKEN[fault]
    rows = as_text(frame(tier, name), tmp_path)
    rows.loc[7, column] = value
    assert [at for at, _ in faults(rows, name, tmp_path)] == [column]
    with pytest.raises(DataError, match=f"column {column}, row 9"):
        check(name, as_text(rows, tmp_path), "x")


def test_a_key_twice_is_refused_by_both(tier: Tier, tmp_path: Path) -> None:
    rows = frame(tier, "programme")
    twice = pd.concat([rows, rows.head(1)])
    assert [kind for _, kind in faults(twice, "programme", tmp_path)] == ["primary-key"]
    with pytest.raises(DataError, match="stands twice"):
        check("programme", twice, "x")


def test_codes_of_missing_answers_are_not_out_of_range(tier: Tier, tmp_path: Path) -> None:
    rows = frame(tier, "survey")
    rows.loc[3, "anxiety"] = -8
    assert faults(rows, "survey", tmp_path) == []
