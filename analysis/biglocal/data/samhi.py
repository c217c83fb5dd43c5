"""The Small Area Mental Health Index (University of Liverpool), in each layout it was published in.

Wide: `lsoa11, samhi_index.YYYY, …` (v5, with deciles `samhi_dec.YYYY`; v4 without). Tall: `lsoa11, year,
samhi_index, …` (v4). Versions differ in level (each is standardised on its own years), so they are never
mixed: where a folder holds several, the one that covers most LSOAs of England is used alone (then the one
with more years, then the last by name), and the others are named in the notes.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from biglocal.data.folder import Found, numbers, refuse, texts
from biglocal.data.tables import FIRST_YEAR, LAST_YEAR, TABLES
from biglocal.model import DataError

if TYPE_CHECKING:
    import pandas as pd

INDEX = re.compile(r"samhi_index\.(\d{4})")


def read(files: tuple[Found, ...], known: set[str]) -> tuple[pd.DataFrame, list[str]]:
    """One row an LSOA and year (lsoa11, year, samhi), and notes in words.

    `known` holds the LSOAs of England in 2011. Raises `DataError` for a code that is not among them, text in
    a number, a value out of range, a year outside the contract, or rows of one key that differ.
    """
    frames = [(_read(found, known), found) for found in files]
    notes: list[str] = []
    (best, dropped), chosen = max(
        frames, key=lambda f: (f[0][0]["lsoa11"].nunique(), f[0][0]["year"].nunique(), f[1].name)
    )
    if dropped:
        notes.append(f"{chosen.name}: {dropped} rows stand twice, word for word; each is used once.")
    for (frame, _), found in frames:
        if found is not chosen:
            notes.append(
                f"{found.name}: not used. It has SAMHI for {frame['lsoa11'].nunique():,} LSOAs, {chosen.name} for "
                f"{best['lsoa11'].nunique():,}; versions differ in level and are never mixed."
            )
    blank = len(known) - best["lsoa11"].nunique()
    if blank:
        notes.append(f"{chosen.name}: no SAMHI for {blank:,} of {len(known):,} LSOAs.")
    return best, notes


def _read(found: Found, known: set[str]) -> tuple[pd.DataFrame, int]:
    import numpy as np
    import pandas as pd

    years = {m[1]: c for c in found.columns if (m := INDEX.fullmatch(c))}
    limits = TABLES["area_panel"].columns["samhi"]
    key = found.column("lsoa11")
    if not years and not found.column("year"):
        raise DataError(
            f"{found.name}: column samhi_index has no year beside it. Use the publisher's wide file "
            f"(samhi_index.2011, …) or its tall one (lsoa11, year, samhi_index)."
        )
    wanted = {"lsoa11": key, **(years or {"year": found.column("year"), "samhi": found.column("samhi_index")})}
    raw = texts(found, wanted)
    refuse(found, key, raw["lsoa11"].isna().to_numpy(), raw["lsoa11"], "blank cell", "Fill it or drop the row.")
    for year, column in years.items():
        if not FIRST_YEAR <= int(year) <= LAST_YEAR:
            raise DataError(
                f"{found.name}: column {column}, row 1: year {year} is outside {FIRST_YEAR} to {LAST_YEAR}. "
                f"Correct or drop the column."
            )
    keys = ["lsoa11"] if years else ["lsoa11", "year"]
    england = raw[~raw["lsoa11"].str.startswith(("W01", "S01"))]
    once = england.drop_duplicates()
    twice = raw.index.isin(once.index[once.duplicated(keys)])
    refuse(found, key, twice, raw["lsoa11"], "this row's key stands above with other values", "Keep the right one.")
    stranger = raw.index.isin(once.index[~once["lsoa11"].isin(known)])
    refuse(
        found, key, stranger, raw["lsoa11"], "a 2011 LSOA of England expected",
        "Use the file on 2011 LSOAs, or correct the cell.",
    )  # fmt: skip
    if years:
        values = {y: numbers(found, c, raw[y], low=limits.low, high=limits.high) for y, c in years.items()}
        wide = pd.DataFrame(values, index=raw.index).loc[once.index]
        ordered = sorted(values)
        long = pd.DataFrame(
            {
                "lsoa11": np.repeat(once["lsoa11"].to_numpy(dtype=object), len(ordered)),
                "year": np.tile([int(y) for y in ordered], len(once)),
                "samhi": wide[ordered].to_numpy().reshape(-1),
            }
        )
    else:
        column = wanted["year"]
        year = numbers(found, column, raw["year"], low=FIRST_YEAR, high=LAST_YEAR)
        wrong = np.isnan(year) | (year % 1 != 0)
        refuse(found, column, wrong, raw["year"], "a year expected", "Correct the cell.")
        value = numbers(found, wanted["samhi"], raw["samhi"], low=limits.low, high=limits.high)
        long = pd.DataFrame({"lsoa11": raw["lsoa11"], "year": year, "samhi": value}).loc[once.index]
        long["year"] = long["year"].astype(int)
    return long.dropna(subset=["samhi"]).reset_index(drop=True), len(england) - len(once)
