"""The secure tier: tables of the contract, put into one folder inside a lab. No network, nothing else.

Each table of `data/tables.py` is one file named for it, `<table>.parquet` or `<table>.csv` (UTF-8, commas, names
of the columns in row 1). `biglocal dictionary` prints the columns, units, ranges and missing codes. A table that
is absent is lacked, and what depends on it says so.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from biglocal.data.folder import digest
from biglocal.data.tables import TABLES, faults, several
from biglocal.model import DataError

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

    from biglocal.data.load import Request


def banner(request: Request) -> str:
    """'' for a real study; SYNTHETIC where a truth is known or codes are those of the synthetic tier.

    Only data that were made have a known truth, and no LSOA of England has a code from E019 on.
    """
    have = _files(request)
    if have.keys() & {"truth", "residents_truth"}:
        return "SYNTHETIC"
    if "areas" not in have:
        return ""
    path = have["areas"]
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq  # type: ignore[import-untyped, unused-ignore]

        try:
            file = pq.ParquetFile(path)
            names = file.schema_arrow.names
            codes = file.read(columns=["lsoa11"]).column(0).to_pylist() if "lsoa11" in names else []
        except (OSError, ValueError):  # reading it will say what is wrong
            return ""
        return "SYNTHETIC" if any(str(c).startswith("E019") for c in codes) else ""
    with path.open(encoding="utf-8", errors="replace") as text:
        return "SYNTHETIC" if any("E019" in line for line in text) else ""


def digests(request: Request) -> dict[str, str]:
    """Table -> digest of its file. Raises `DataError` for no table at all, a table in two files, or --treated."""
    if request.treated is not None:
        raise DataError(
            "tier secure takes no --treated: the table areas has area_id and share, the table programme the waves. "
            "Put them there."
        )
    code = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    found = _files(request)
    if not found:
        raise DataError(
            f"--data {_root(request).name}: none of {', '.join(f'{t}.parquet or {t}.csv' for t in TABLES)} is in this "
            f"folder. Put the tables there; `biglocal dictionary` prints their columns."
        )
    return {t: hashlib.sha256(f"{digest(path)} {code}".encode()).hexdigest() for t, path in found.items()}


def lacks(request: Request) -> dict[str, str]:
    """Table -> which file to put where."""
    have = _files(request)
    return {
        t: f"put {t}.parquet or {t}.csv into the folder; `biglocal dictionary` prints its columns"
        for t in TABLES
        if t not in have and t not in ("truth", "residents_truth")  # nobody knows it of real data
    }


def read(name: str, request: Request, done: Callable[[str], pd.DataFrame]) -> pd.DataFrame:  # noqa: ARG001
    """Table `name` from its file; a CSV comes as text, which the contract's check turns into its types.

    Raises `DataError` for a file that cannot be read, naming the file and never a cell.
    """
    return _read(_files(request)[name])


def _read(path: Path) -> pd.DataFrame:
    import pandas as pd
    import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]

    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        frame = pd.read_csv(path, dtype=str, keep_default_na=False, na_values=["", "NA"], encoding="utf-8-sig")
        if not isinstance(frame.index, pd.RangeIndex):
            raise ValueError("more cells than names of columns")
        return frame
    except (pa.ArrowInvalid, OSError, ValueError) as error:  # pandas' parser errors are ValueErrors
        what = "Save it as UTF-8 with commas, or as Parquet, and copy it again."
        raise DataError(f"{path.name}: cannot be read to its end ({type(error).__name__}). {what}") from None


def examine(root: Path) -> tuple[list[str], list[str]]:
    """Every fault of the tables in `root`, for a data manager; and what is there, a line a table.

    A fault names table, column, the rule, how many rows break it, and what to do: never a row, its key or its value,
    only codes of coded columns that many rows share. Nothing is raised: a file that cannot be read is a fault too.
    """
    import pandas as pd

    from biglocal.data import swemwbs
    from biglocal.data.load import REFERENCES

    wrong: list[str] = []
    there: list[str] = []
    good: dict[str, pd.DataFrame] = {}
    for table in TABLES:
        both = [p.name for p in _candidates(root, table)]
        if len(both) > 1:
            wrong.append(f"table {table} stands in {both[0]} and in {both[1]}. Keep one of them.")
        if len(both) != 1:
            if not both and not table.endswith("truth"):  # nobody knows it of real data
                there.append(f"{table}: absent. What needs it will say so.")
            continue
        try:
            frame = _read(root / both[0])
        except DataError as error:
            wrong.append(str(error))
            continue
        good[table], found = faults(table, frame)
        wrong += [f"{both[0]}: {'' if f.column else f'table {table} '}{f.quiet}" for f in found]
        extra = len(set(frame.columns) - set(TABLES[table].columns))
        unknown = f", {extra} columns that the contract does not know (not read)" if extra else ""
        there.append(f"{table}: {both[0]}, {several(len(frame), table)} rows, {_counted(len(found), 'fault')}{unknown}")
        if table == "residents" and not found:
            try:
                swemwbs.scored(good[table], both[0], quiet=True)
            except DataError as error:
                wrong.append(str(error))
    for table, column, other, key in REFERENCES:
        if {table, other} <= set(good) and column in good[table] and key in good[other]:
            known = pd.Index(good[other][key].dropna().astype(str))
            lost = ~good[table][column].dropna().astype(str).isin(known)
            if lost.any():
                wrong.append(
                    f"table {table}, column {column}: a value that is not in column {key} of table {other}: "
                    f"{several(int(lost.sum()), table)} of {several(len(lost), table)} rows. "
                    f"Add it there, or drop the rows here."
                )
    if not any(_candidates(root, table) for table in TABLES):
        wrong.append(f"none of {', '.join(f'{t}.parquet or {t}.csv' for t in TABLES)} is in this folder.")
    return wrong, there


def _counted(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def notes(request: Request) -> list[str]:  # noqa: ARG001 - a tier's interface
    """Nothing is mended on this tier."""
    return []


def files(request: Request) -> dict[str, str]:
    """File -> SHA-256, for each table there is."""
    return {path.name: digest(path) for path in _files(request).values()}


def _root(request: Request) -> Path:
    if request.data is None:
        raise DataError("tier secure needs --data DIR, the folder that holds its tables (see data-raw/README.md).")
    return request.data


def _files(request: Request) -> dict[str, Path]:
    root = _root(request)
    out: dict[str, Path] = {}
    for table in TABLES:
        both = _candidates(root, table)
        if len(both) > 1:
            raise DataError(f"table {table} stands in {both[0].name} and in {both[1].name}. Keep one of them.")
        if both:
            out[table] = both[0]
    return out


def _candidates(root: Path, table: str) -> list[Path]:
    return [p for p in (root / f"{table}.parquet", root / f"{table}.csv") if p.is_file()]
