"""The list of treated LSOAs that the user brings: `lsoa11, area_id, area_name, wave, share`.

The first column may be lsoa01 or lsoa21 instead, for a list on the LSOAs of another census (`bring`). Read with
the standard library alone, so that a bad list is refused before anything else is loaded.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from biglocal.data import geography
from biglocal.model import DataError

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

COLUMNS = ("lsoa11", "area_id", "area_name", "wave", "share")
VINTAGES = ("lsoa01", "lsoa11", "lsoa21")
ANNOUNCED = {1: "2010-07-27", 2: "2012-02-29", 3: "2012-12-10"}  # Local Trust; FACTS, the programme
DRAW = "`python data-raw/placebo.py --data DIR --out FILE` draws a placebo list."


@dataclass(frozen=True, slots=True)
class Row:
    """One treated LSOA. `row` is its row in the file; `share` the share of its residents inside the area.

    `vintage` names the column its code `lsoa` stands in: lsoa01, lsoa11 or lsoa21.
    """

    row: int
    lsoa: str
    area_id: str
    area_name: str
    wave: int
    share: float
    vintage: str = "lsoa11"


def banner(path: Path | None) -> str:
    """`PLACEBO` if the list's first line is a comment that says so, else ''."""
    if path is None:
        return ""
    with path.open("rb") as stream:
        first = stream.readline().decode("utf-8-sig", errors="replace").strip()
    return "PLACEBO" if first.startswith("#") and first[1:].strip().upper().startswith("PLACEBO") else ""


def need(path: Path | None) -> Path:
    """The path of the list. Raises `DataError` saying how to get one where none was given."""
    if path is None:
        raise DataError(
            "tier open needs --treated FILE, the list of treated LSOAs: the list of the Big Local areas' LSOAs is not "
            f"public (ask Local Trust or the study's authors). {DRAW}"
        )
    return path


def read(path: Path) -> tuple[Row, ...]:
    """Read and check the list; whether its LSOAs exist is `hold`'s business.

    Raises `DataError` naming file, column and row (the header is row 1, comment lines count) for a missing
    column, an empty list, a blank cell, text in a number, a wave that is not 1, 2 or 3, a share outside
    (0, 1], an LSOA that stands twice, and an area with two waves or names.
    """
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("cp1252", errors="replace")  # as spreadsheets save it
    lines = text.splitlines(keepends=True)
    skipped = 0
    while skipped < len(lines) and lines[skipped].startswith("#"):
        skipped += 1
    reader = csv.reader(io.StringIO("".join(lines[skipped:]), newline=""))
    header = [c.strip() for c in next(reader, [])]
    given = [v for v in VINTAGES if v in header]
    if len(given) > 1:
        raise DataError(f"{path.name}: columns {' and '.join(given)}: which one counts? Keep one of them.")
    vintage = given[0] if given else "lsoa11"
    columns = (vintage, *COLUMNS[1:])
    missing = [c for c in columns if c not in header]
    if missing:
        raise DataError(
            f"{path.name}: no column {', '.join(missing)}, row {skipped + 1} has {', '.join(header) or 'nothing'}. "
            f"The columns are {', '.join(COLUMNS)}, apart by commas."
        )
    rows: list[Row] = []
    lsoas: dict[str, Row] = {}
    areas: dict[str, Row] = {}
    for cells in reader:
        number = skipped + reader.line_num
        if not any(c.strip() for c in cells):
            continue

        def bad(column: str, seen: str, why: str, number: int = number) -> DataError:
            return DataError(f"{path.name}: column {column}, row {number}: seen {seen!r}, {why}.")

        if len(cells) != len(header):
            raise DataError(
                f"{path.name}: row {number} has {len(cells)} cells and the header {len(header)}. "
                f"Put a name with a comma in double quotes."
            )
        cell = {name: value.strip() for name, value in zip(header, cells, strict=True)}
        for column in columns:
            if not cell[column]:
                raise bad(column, "", "a value is required. Fill it or drop the row")
        try:
            wave = float(cell["wave"])
        except ValueError:
            raise bad("wave", cell["wave"], "text where a number belongs. Give 1, 2 or 3") from None
        if wave not in ANNOUNCED:
            raise bad("wave", cell["wave"], "the programme had waves 1, 2 and 3. Give one of these")
        try:
            share = float(cell["share"])
        except ValueError:
            raise bad("share", cell["share"], "text where a number belongs. Give a share such as 0.75") from None
        if not 0 < share <= 1:
            raise bad(
                "share", cell["share"],
                "a share above 0 and up to 1 is expected. Give the share of the LSOA's residents inside the area "
                "(0.75, not 75), or drop the row",
            )  # fmt: skip
        row = Row(number, cell[vintage], cell["area_id"], cell["area_name"], int(wave), share, vintage)
        if earlier := lsoas.get(row.lsoa):
            raise bad(vintage, row.lsoa, f"it stands in row {earlier.row} too. Keep one row for each LSOA")
        lsoas[row.lsoa] = row
        first = areas.setdefault(row.area_id, row)
        if first.wave != row.wave:
            raise bad(
                "wave",
                cell["wave"],
                f"area {row.area_id} has wave {first.wave} in row {first.row}. Give one wave an area",
            )
        if first.area_name != row.area_name:
            raise bad(
                "area_name", row.area_name,
                f"area {row.area_id} is called {first.area_name!r} in row {first.row}. Give one name an area",
            )  # fmt: skip
        rows.append(row)
    if not rows:
        raise DataError(
            f"{path.name}: the list is empty, no row below the header (row {skipped + 1}). "
            f"Give one row for each treated LSOA. {DRAW}"
        )
    return tuple(rows)


def hold(path: Path, rows: tuple[Row, ...], known: set[str], parents: dict[str, tuple[str, ...]]) -> None:
    """Hold the list against the LSOAs of England in 2011 (`known`); `parents`: 2001 code to its 2011 codes.

    Raises `DataError` for the first LSOA that does not exist, saying of which vintage its code is where known.
    """
    wrong = [row for row in rows if row.lsoa not in known]
    if wrong:
        more = f" ({len(wrong):,} such rows)" if len(wrong) > 1 else ""
        why = geography.vintage(wrong[0].lsoa, known, parents)
        raise DataError(f"{path.name}: column lsoa11, row {wrong[0].row}: seen {wrong[0].lsoa!r}, {why}{more}.")


def bring(
    path: Path, rows: tuple[Row, ...], pairs: pd.DataFrame, population: pd.Series | None
) -> tuple[tuple[Row, ...], list[str]]:
    """A list on the LSOAs of 2001 or 2021, brought to 2011, and notes.

    `pairs` (source, lsoa11, change) is the lookup of the list's census, `population` (index source) its residents.
    The share of a 2011 LSOA is that of its sources by `geography.to_2011`, where a source that is not listed has
    share 0. A 2011 LSOA that two areas reach belongs to the one with the larger share.
    Raises `DataError` for an LSOA that the lookup does not have.
    """
    import pandas as pd

    vintage = rows[0].vintage
    known = set(pairs["source"])
    wrong = [row for row in rows if row.lsoa not in known]
    if wrong:
        more = f" ({len(wrong):,} such rows)" if len(wrong) > 1 else ""
        raise DataError(
            f"{path.name}: column {vintage}, row {wrong[0].row}: seen {wrong[0].lsoa!r}, no LSOA of England in "
            f"20{vintage[-2:]} by the ONS lookup{more}. Correct the cell."
        )
    best: dict[str, Row] = {}
    contested = set()
    for area in sorted({row.area_id for row in rows}):
        inside = {row.lsoa: row for row in rows if row.area_id == area}
        near = pairs[pairs["lsoa11"].isin(set(pairs.loc[pairs["source"].isin(inside), "lsoa11"]))]
        share = pd.DataFrame({"share": {s: inside[s].share if s in inside else 0.0 for s in near["source"]}})
        first = next(iter(inside.values()))
        for code, value in geography.to_2011(share, near, population)["share"].items():
            at = min(inside[s].row for s in near.loc[near["lsoa11"] == code, "source"] if s in inside)
            row = Row(at, str(code), area, first.area_name, first.wave, float(value))
            if str(code) in best:
                contested.add(str(code))
            if str(code) not in best or row.share > best[str(code)].share:
                best[str(code)] = row
    seen = geography.account(pd.Index([row.lsoa for row in rows]), pairs)
    weighted = (
        "weighted by residents" if population is not None else "simple means, as no residents of them are at hand"
    )
    notes = [
        f"{path.name}: {len(rows):,} LSOAs of 20{vintage[-2:]} brought to {len(best):,} of 2011: "
        f"{seen['U']:,} unchanged, {seen['S']:,} split, {seen['M']:,} merged, {seen['X']:,} complex; "
        f"shares of several are {weighted}."
    ]
    if contested:
        notes.append(
            f"{len(contested):,} LSOAs of 2011 are reached by two areas: each is of the one with the larger share."
        )
    return tuple(best[code] for code in sorted(best)), notes


def programme(rows: tuple[Row, ...]) -> pd.DataFrame:
    """The table `programme`: one row an area, with its wave and day of announcement; other dates are blank."""
    import pandas as pd

    areas = {row.area_id: row for row in rows}
    return pd.DataFrame(
        [
            {"area_id": key, "area_name": row.area_name, "wave": row.wave, "announced": ANNOUNCED[row.wave]}
            for key, row in sorted(areas.items())
        ]
    ).assign(plan_endorsed=None, first_spend=None, progress=None)
