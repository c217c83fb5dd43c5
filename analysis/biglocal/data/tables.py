"""The contract of the tables: every tier gives these, and nothing downstream asks where they came from.

The contract is data (no import beyond the standard library), so that the plan can be checked against
it and the data dictionary written from it in milliseconds; `check` holds a frame against it and names
file, column and row of what breaks it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from biglocal.model import DataError

if TYPE_CHECKING:
    import pandas as pd

Kind = Literal["text", "category", "integer", "number", "flag", "date"]


@dataclass(frozen=True, slots=True)
class Column:
    """One column: `low` and `high` are inclusive; `codes` are values outside the range that mean missing."""

    kind: Kind
    doc: str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    allowed: tuple[str, ...] = ()
    pattern: str = ""
    codes: tuple[int, ...] = ()
    blank: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """One table: what a row is, its key, its columns."""

    doc: str
    key: tuple[str, ...]
    columns: dict[str, Column]


LSOA11 = r"E01\d{6}"
FIRST_YEAR, LAST_YEAR = 2010, 2022
REGIONS = (
    "North East", "North West", "Yorkshire and The Humber", "East Midlands", "West Midlands",
    "East", "London", "South East", "South West",
)  # fmt: skip
CRIMES = ("burglary", "antisocial_behaviour", "criminal_damage", "violence")
WAVES = (2016, 2018, 2020)
QUALIFICATIONS = ("none", "below_degree", "degree")
ROLES = ("officer", "member")
EXPOSURES = ("individual_control", "collective_control", "help_each_other", "belonging")
PERSONS = ("survey", "residents")  # tables whose rows are persons: what is computed from them is controlled


def _lsoa(doc: str = "Lower layer super output area, 2011 code") -> Column:
    return Column("text", doc, pattern=LSOA11)


def _score(doc: str, low: float | None = None, high: float | None = None) -> Column:
    return Column("number", doc, unit="score, higher is more deprived", low=low, high=high, blank=True)


def _likert(doc: str, high: int = 5) -> Column:
    return Column("integer", doc, unit=f"1 to {high}", low=1, high=high, blank=True)


TABLES: dict[str, Table] = {
    "areas": Table(
        "One row for each of the LSOAs of England (2011 boundaries).",
        ("lsoa11",),
        {
            "lsoa11": _lsoa(),
            "msoa11": Column("category", "Middle layer super output area (code or name) that holds the LSOA"),
            "district": Column("category", "Local authority district, code"),
            "region": Column("category", "Region of England", allowed=REGIONS),
            "rural": Column("flag", "Rural under the 2011 rural-urban classification", blank=True),
            "population": Column("integer", "Residents, mid-year", unit="persons", low=1, high=20_000, blank=True),
            "change": Column(
                "category",
                "How the 2001 LSOA became this one: U unchanged, S split, M merged, X complex",
                allowed=("U", "S", "M", "X"),
            ),
            "imd": _score("Index of Multiple Deprivation 2010, score", 0, 100),
            "income": _score("Income deprivation domain 2010, share of people", 0, 1),
            "employment": _score("Employment deprivation domain 2010, share of working age", 0, 1),
            "health": _score("Health deprivation and disability domain 2010", -5, 5),
            "education": _score("Education, skills and training domain 2010", 0, 100),
            "crime": _score("Crime domain 2010", -5, 5),
            "housing": _score("Barriers to housing and services domain 2010", 0, 100),
            "environment": _score("Living environment domain 2010", 0, 100),
            "earlier_funding": Column(
                "number",
                "Earlier lottery funding of the district",
                unit="GBP per resident",
                low=0,
                blank=True,
            ),
            "other_programme": Column("category", "Another funded programme that covers the LSOA", blank=True),
            "area_id": Column("category", "Big Local area that holds the LSOA, blank if none", blank=True),
            "share": Column("number", "Share of the LSOA's residents inside that area", low=0, high=1, blank=True),
        },
    ),
    "programme": Table(
        "One row for each Big Local area.",
        ("area_id",),
        {
            "area_id": Column("category", "Big Local area"),
            "area_name": Column("text", "Name of the area"),
            "wave": Column("integer", "Wave in which it was announced", low=1, high=3),
            "announced": Column("date", "Day the area was announced"),
            "plan_endorsed": Column("date", "Day its first plan was endorsed", blank=True),
            "first_spend": Column("date", "Day of the first payment", blank=True),
            "progress": Column("category", "Speed of progress", allowed=("fast", "middle", "slow"), blank=True),
        },
    ),
    "area_panel": Table(
        "One row an LSOA and year.",
        ("lsoa11", "year"),
        {
            "lsoa11": _lsoa(),
            "year": Column("integer", "Calendar year", low=FIRST_YEAR, high=LAST_YEAR),
            "samhi": Column(
                "number",
                "Small Area Mental Health Index, higher is worse",
                unit="index points",
                low=-10,
                high=15,
                blank=True,
            ),
            "months": Column(
                "integer",
                "Months of the year with police data for the LSOA's force",
                unit="months",
                low=0,
                high=12,
                blank=True,
            ),
            **{
                # a number, not an integer: a 2021 LSOA made of several of 2011 divides its crimes among them
                name: Column("number", f"Recorded {name.replace('_', ' ')}", unit="crimes", low=0, blank=True)
                for name in CRIMES
            },
            **{
                f"{name}_rate": Column(
                    "number",
                    f"{name.replace('_', ' ').capitalize()} rate",
                    unit="crimes per 1,000 residents and year",
                    low=0,
                    blank=True,
                )
                for name in CRIMES
            },
            **{
                f"{name}_z": Column(
                    "number",
                    f"{name.replace('_', ' ').capitalize()} rate, standardised within the year",
                    unit="standard deviations",
                    blank=True,
                )
                for name in CRIMES
            },
        },
    ),
    "borders": Table(
        "One row a pair of LSOAs that border on each other, once or both ways.",
        ("lsoa11", "neighbour"),
        {"lsoa11": _lsoa(), "neighbour": _lsoa("An LSOA that borders on it, 2011 code")},
    ),
    "survey": Table(
        "One row a respondent of a repeated cross-section like the Annual Population Survey.",
        ("person_id",),
        {
            "person_id": Column("integer", "Respondent", low=0),
            "year": Column("integer", "Year of interview", low=FIRST_YEAR, high=LAST_YEAR),
            "quarter": Column("integer", "Quarter of interview", low=1, high=4),
            "lsoa11": Column("category", "LSOA of residence, 2011 code", pattern=LSOA11),
            "weight": Column("number", "Survey weight, mean about 1", low=0),
            **{
                name: Column("integer", doc, unit="0 to 10", low=0, high=10, codes=(-8, -9), blank=True)
                for name, doc in {
                    "anxiety": "How anxious did you feel yesterday",
                    "satisfaction": "How satisfied are you with your life nowadays",
                    "happiness": "How happy did you feel yesterday",
                    "worthwhile": "To what extent are the things you do worthwhile",
                }.items()
            },
            "age": Column("integer", "Age", unit="years", low=16, high=110),
            "sex": Column("category", "Sex", allowed=("female", "male")),
            "qualification": Column("category", "Highest qualification", allowed=QUALIFICATIONS, blank=True),
            "activity": Column(
                "category", "Economic activity", allowed=("employed", "unemployed", "inactive"), blank=True
            ),
            "tenure": Column("category", "Housing tenure", allowed=("owner", "social", "private"), blank=True),
            "ethnicity": Column("category", "Ethnic group", allowed=("white", "other"), blank=True),
        },
    ),
    "residents": Table(
        "One row a partnership member and wave of the residents' survey in which the member was approached; answers "
        "are blank where there was no response.",
        ("person_id", "year"),
        {
            "person_id": Column("integer", "Partnership member", low=0),
            "year": Column("integer", "Wave", low=WAVES[0], high=WAVES[-1]),
            "area_id": Column("category", "Big Local area"),
            "responded": Column("flag", "Answered in this wave"),
            "role": Column(
                "category", "Role in the partnership (officer: chair, secretary, treasurer)", allowed=ROLES, blank=True
            ),
            **{
                f"swemwbs_{i}": _likert(f"SWEMWBS item {i}, 1 none of the time to 5 all of the time")
                for i in range(1, 8)
            },
            "swemwbs": Column(
                "number",
                "SWEMWBS, metric score after conversion; made from the items where there are any",
                unit="points (7-35)",
                low=7,
                high=35,
                blank=True,
            ),
            "general_health": _likert("Self-rated general health, 5 is very good"),
            "individual_control": _likert("Can influence decisions, individually"),
            "collective_control": _likert("Can influence decisions, together"),
            "help_each_other": _likert("People in the area help each other"),
            "belonging": _likert("Feels belonging to the area"),
            "age": Column("integer", "Age", unit="years", low=16, high=110, blank=True),
            "sex": Column("category", "Sex", allowed=("female", "male"), blank=True),
            "qualification": Column("category", "Highest qualification", allowed=QUALIFICATIONS, blank=True),
        },
    ),
    "costs": Table(
        "One row an area, year and item of spending; area_id is `programme` for central costs.",
        ("area_id", "year", "item"),
        {
            "area_id": Column("category", "Big Local area, or `programme`"),
            "year": Column("integer", "Calendar year", low=FIRST_YEAR, high=2026),
            "item": Column("category", "What the money was for", allowed=("grant", "support")),
            "amount": Column("number", "Spending in prices of the year", unit="GBP", low=0),
        },
    ),
    "truth": Table(
        "Known effects of a tier that was made (synthetic, or a planted effect); empty where nobody knows.",
        ("outcome", "progress", "year"),
        {
            "outcome": Column("text", "Outcome, by its column in the panel, survey or residents table"),
            "at_least": Column("number", "Value from which on the share is meant, if it is a share", blank=True),
            "scale": Column("number", "The share's unit: 100 for percentage points, 1 for an outcome as it is"),
            "progress": Column("category", "Speed of progress of the area", allowed=("fast", "middle", "slow")),
            "year": Column("integer", "Calendar year", low=FIRST_YEAR, high=LAST_YEAR),
            "effect": Column("number", "Effect on a treated row, in the outcome's unit"),
        },
    ),
    "residents_truth": Table(
        "What is true of the members of a residents' survey that was made: of all whom its first wave reached, "
        "whoever answered later.",
        ("outcome", "quantity", "subgroup", "level", "year"),
        {
            "outcome": Column("text", "Outcome, by its column in residents"),
            "at_least": Column("number", "Value from which on the share is meant, if it is a share", blank=True),
            "quantity": Column(
                "text", "`change` since the first wave, or the exposure (columns joined by +, their mean)"
            ),
            "subgroup": Column("text", "Column that makes the groups, or `all`"),
            "level": Column("text", "Value of that column, or `all`"),
            "year": Column("integer", "Wave of the change; the first wave for associations", low=2016, high=2020),
            "value": Column("number", "Change, or difference for one step of the exposure; log odds ratio for a share"),
        },
    ),
}


# What sample.py adds to `areas`, the same way for every tier; may be named as covariates like its columns.
DERIVED: dict[str, Column] = {
    "imd_msoa": Column(
        "number",
        "Index of Multiple Deprivation 2010 of the whole MSOA, mean weighted by residents",
        unit="score, higher is more deprived",
    )
}
COVARIATES = TABLES["areas"].columns | DERIVED


@dataclass(frozen=True, slots=True)
class Fault:
    """Where a table breaks its contract: a rule, the rows that break it (positions), and what to do.

    `quiet` says it in counts and, for coded columns, codes that many rows have; `loud` with the first row's value.
    """

    column: str
    rule: str
    todo: str
    rows: tuple[int, ...]
    quiet: str
    loud: str


OFTEN = 10  # rows that share a code before a quiet message may name it, or their number


def several(rows: int, table: str) -> str:
    """How many rows, for a quiet message: few of a table of persons are not counted, more to the nearest five."""
    if table not in PERSONS:
        return f"{rows:,}"
    if 0 < rows < OFTEN:
        return f"fewer than {OFTEN}"
    return f"{(rows + 2) // 5 * 5:,}"


def check(name: str, frame: pd.DataFrame, source: str, *, quiet: bool = False) -> pd.DataFrame:
    """Hold `frame` against the contract of table `name`; give it back with its columns in order and typed.

    `source` is how the message names where the frame came from (a file's name). The frame given is
    not changed. Columns the contract does not know are dropped.

    Raises `DataError` naming source, column and the first row (by key) that breaks it; where `quiet`, counts only.
    """
    good, found = faults(name, frame)
    if found:
        more = f" {len(found) - 1} more faults: `biglocal check` lists them." if quiet and len(found) > 1 else ""
        said = found[0].quiet if quiet else found[0].loud
        raise DataError(f"{source}: table {name}{', ' if found[0].column else ' '}{said}{more}")
    return good


def faults(name: str, frame: pd.DataFrame) -> tuple[pd.DataFrame, list[Fault]]:
    """`frame` as `check` gives it back, and every fault; a cell with one is blank from then on."""
    import numpy as np
    import pandas as pd

    table = TABLES[name]
    found: list[Fault] = []
    missing = [c for c in table.columns if c not in frame.columns]
    if missing:
        todo = "Add the column (a blank one where the contract allows it; see `biglocal dictionary`)."
        rule = f"lacks column {', '.join(missing)}"
        loud = f"{rule}; it has {', '.join(map(str, frame.columns))}. {todo}"
        # without a header the names are the first row's values: a quiet message counts them
        quiet = f"{rule}; it has {len(table.columns) - len(missing)} of the contract's {len(table.columns)}. {todo}"
        found.append(Fault("", rule, todo, (), quiet, loud))
    out: dict[str, pd.Series] = {}

    def refuse(column: str, bad: np.ndarray, why: str, todo: str) -> None:
        if not bad.any():
            return
        rows = np.flatnonzero(bad)
        first = int(rows[0])
        key = ", ".join(f"{k}={frame[k].iloc[first]!s}" for k in table.key if k in frame)
        rule = why.removesuffix(",").removesuffix(", seen").removesuffix(" seen").removesuffix(",")
        many = f"{several(len(rows), name)} of {several(len(frame), name)}"
        codes = _codes_seen(name, table.columns[column], frame[column].iloc[rows])
        found.append(
            Fault(
                column, rule, todo, tuple(int(r) for r in rows),
                f"column {column}: {rule}: {many} rows{codes}. {todo}",
                f"column {column}, row {first + 2} ({key}): {why} "
                f"{frame[column].iloc[first]!r}; {len(rows):,} such row{'s' if len(rows) > 1 else ''}. {todo}",
            )
        )  # fmt: skip

    for column, spec in table.columns.items():
        if column in missing:
            continue
        series = frame[column]
        blank = series.isna().to_numpy()
        if not spec.blank:
            refuse(column, blank, "blank where a value is required, seen", "Fill it or drop the row.")
        if spec.kind in ("integer", "number"):
            if not pd.api.types.is_numeric_dtype(series):
                number = pd.to_numeric(series, errors="coerce")
                refuse(column, number.isna().to_numpy() & ~blank, "text where a number belongs,", "Correct the cell.")
                series = number
            values = series.to_numpy(dtype=float, na_value=np.nan)
            refuse(column, np.isinf(values), "infinite value", "Correct the cell.")
            values = np.where(np.isinf(values), np.nan, values)
            coded = np.isin(values, spec.codes)
            if spec.kind == "integer":
                part = np.isfinite(values) & (values % 1 != 0)
                refuse(column, part, "whole number expected, seen", "Correct the cell.")
                values = np.where(part, np.nan, values)
                if str(series.dtype).startswith(("float", "object")):
                    series = pd.Series(pd.array(values, dtype="Float64"), index=series.index).astype("Int64")
            if spec.low is not None:
                what = f"below the least, {spec.low:g} ({spec.unit or 'no unit'}),"
                refuse(column, ~coded & (values < spec.low), what, "Correct the cell or its unit.")
            if spec.high is not None:
                what = f"above the most, {spec.high:g} ({spec.unit or 'no unit'}),"
                refuse(column, ~coded & (values > spec.high), what, "Correct the cell or its unit.")
        elif spec.kind == "flag":
            flag = series.map(
                {0: False, 1: True, "0": False, "1": True, "False": False, "True": True}, na_action="ignore"
            )
            refuse(column, flag.isna().to_numpy() & ~blank, "0 or 1 expected, seen", "Correct the cell.")
            series = flag.astype("boolean")
        elif spec.kind == "date":
            dates = pd.to_datetime(series, format="ISO8601", errors="coerce")
            if not pd.api.types.is_datetime64_any_dtype(series):  # a year alone would pass for its first day
                dates = dates.where(series.astype(str).str.match(r"\d{4}-\d{2}-\d{2}"))
            refuse(column, dates.isna().to_numpy() & ~blank, "date as YYYY-MM-DD expected, seen", "Correct the cell.")
            series = dates
        else:
            levels = series if spec.kind == "text" else series.astype("category")
            if spec.allowed or spec.pattern:
                # one look at each distinct value, not at each row: the survey has a million
                codes, uniques = pd.factorize(levels, use_na_sentinel=True)
                texts = pd.Series(np.asarray(uniques, dtype=object)).astype(str)
                good = (
                    texts.isin(spec.allowed).to_numpy()
                    if spec.allowed
                    else texts.str.fullmatch(spec.pattern).to_numpy(dtype=bool)
                )
                bad = np.append(~good, False)[codes]
                expected = f"one of {', '.join(spec.allowed)}" if spec.allowed else f"a code like {spec.pattern}"
                todo = "Correct the cell."
                if spec.pattern == LSOA11:
                    expected = "a 2011 LSOA code of England (E01 and six digits)"
                    todo = "Correct the cell, or map other vintages to 2011 first."
                refuse(column, bad, f"{expected} expected, seen", todo)
            series = levels
        out[column] = series
    if not set(table.key) & set(missing):
        key = frame[list(table.key)]
        twice = key.duplicated(keep="first").to_numpy()
        refuse(table.key[0], twice, f"key ({', '.join(table.key)}) stands twice,", "Drop one of the rows.")
    return pd.DataFrame(out).reset_index(drop=True), found


def _codes_seen(table: str, spec: Column, values: pd.Series) -> str:
    """Codes among `values` that at least `OFTEN` rows share, in words; only of columns whose values are codes."""
    coded = bool(spec.allowed) or (spec.kind == "integer" and spec.high is not None and spec.high <= OFTEN)
    if not coded:
        return ""
    texts = values.dropna().astype(str).str.removesuffix(".0")
    seen = texts[texts.str.fullmatch(r"-?\d{1,2}|[A-Za-z]{1,2}")].value_counts()
    often = sorted((code, int(n)) for code, n in seen.items() if n >= OFTEN)
    return (
        f" (codes seen in {OFTEN} rows or more: {', '.join(f'{c} in {several(n, table)}' for c, n in often)})"
        if often
        else ""
    )


def dictionary() -> str:
    """The data dictionary as Markdown, written from the contract."""
    lines = ["# Data dictionary", "", "Written from `analysis/biglocal/data/tables.py`; the same for every tier.", ""]
    for name, table in TABLES.items():
        lines += [f"## {name}", "", f"{table.doc} Key: {', '.join(table.key)}.", ""]
        lines += [
            "| column | type | unit | range or values | blank | what it is |",
            "| --- | --- | --- | --- | --- | --- |",
        ]
        for column, c in table.columns.items():
            limits = ", ".join(c.allowed) or c.pattern.replace("|", r"\|")
            if c.low is not None or c.high is not None:
                limits = f"{'' if c.low is None else f'{c.low:g}'} to {'' if c.high is None else f'{c.high:g}'}"
            if c.codes:
                limits += f"; {', '.join(map(str, c.codes))} mean missing"
            lines.append(f"| {column} | {c.kind} | {c.unit} | {limits} | {'yes' if c.blank else 'no'} | {c.doc} |")
        lines.append("")
    return "\n".join(lines)


def datapackage() -> str:
    """The same contract for machines: a Data Package with a Table Schema for each table (specs.frictionlessdata.io).

    Every resource is the table's CSV file as the secure tier reads it, `<table>.csv`.
    """
    resources = [
        {
            "name": name.replace("_", "-"),
            "path": f"{name}.csv",
            "title": name,
            "description": table.doc,
            "profile": "tabular-data-resource",
            "encoding": "utf-8",
            "schema": {
                "fields": [_field(column, c) for column, c in table.columns.items()],
                "primaryKey": list(table.key),
                "missingValues": ["", "NA"],
            },
        }
        for name, table in TABLES.items()
    ]
    package = {
        "name": "biglocal-contract",
        "title": "The tables that every tier of data gives",
        "description": "Written from analysis/biglocal/data/tables.py; the same for every tier.",
        "profile": "tabular-data-package",
        "resources": resources,
    }
    return json.dumps(package, indent=1, ensure_ascii=False) + "\n"


def _field(name: str, column: Column) -> dict[str, Any]:
    kinds = {"text": "string", "category": "string", "flag": "boolean"}
    whole = column.kind == "integer"
    limits: dict[str, Any] = {
        "required": True if not column.blank else None,
        "minimum": column.low if column.low is None or not whole else int(column.low),
        "maximum": column.high if column.high is None or not whole else int(column.high),
        "enum": list(column.allowed) or None,
        "pattern": column.pattern or None,
    }
    out: dict[str, Any] = {"name": name, "type": kinds.get(column.kind, column.kind), "description": column.doc}
    if column.unit:
        out["unit"] = column.unit
    if column.kind == "flag":
        out |= {"trueValues": ["1", "True"], "falseValues": ["0", "False"]}
    if column.codes:
        out["missingValues"] = ["", "NA", *map(str, column.codes)]
    return out | {"constraints": {key: value for key, value in limits.items() if value is not None}}
