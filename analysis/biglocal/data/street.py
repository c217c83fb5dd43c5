"""From street-level rows to counts with DuckDB: archives of data.police.uk, unpacked a few months at a time.

DuckDB has no reader for zips, so entries are unpacked by the standard library (which holds each to its checksum)
into a temporary folder, some 256 MB at a time, read there and removed. One force after another, so that memory
does not grow with the number of forces. Only counts leave this module.
"""

from __future__ import annotations

import csv
import errno
import gzip
import re
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biglocal.data.folder import LARGEST, Street, broken
from biglocal.model import DataError

if TYPE_CHECKING:
    import pandas as pd

NEEDED = ("Crime ID", "Month", "LSOA code", "Crime type")
AT_ONCE = 256 << 20  # bytes unpacked at a time
MEMORY = "1GB"  # DuckDB's own limit: what does not fit goes to its file in the temporary folder


@dataclass(frozen=True, slots=True)
class Counted:
    """What the files hold, as counts.

    `crimes`: force, year, code (LSOA as written, '' where blank), label (crime type as written), n.
    `files`: force, month (YYYY-MM), rows, nowhere (rows without an LSOA), misdated (rows whose own month is
    another than the file's: not counted). `twice`: rows of a force left out because the same crime (identifier,
    LSOA and type) stands in a later month or again in the same one.
    """

    crimes: pd.DataFrame
    files: pd.DataFrame
    twice: int


def count(street: tuple[Street, ...]) -> Counted:
    """Count the rows of the monthly files, each month and force once. Independent of order and of threads.

    Raises `DataError` for a damaged file, a missing column, or a row with too few or too many cells.
    """
    stamps = tuple((one.path.stat().st_size, one.path.stat().st_mtime_ns) for one in street)
    return _count(street, stamps)


@lru_cache(maxsize=2)
def _count(street: tuple[Street, ...], stamps: tuple[tuple[int, int], ...]) -> Counted:  # noqa: ARG001 - of the key
    import os

    import duckdb
    import pandas as pd

    crimes: list[pd.DataFrame] = []
    files: list[pd.DataFrame] = []
    twice = 0
    with tempfile.TemporaryDirectory(prefix="biglocal-street-") as folder:
        config: dict[str, Any] = {
            "memory_limit": MEMORY,
            "threads": min(4, os.cpu_count() or 1),
            "preserve_insertion_order": "false",
        }
        with duckdb.connect(str(Path(folder) / "street.duckdb"), config=config) as base:
            base.execute("set enable_progress_bar = false")  # the bar is the command line's
            for force in sorted({one.force for one in street}):
                mine = [one for one in street if one.force == force]
                base.execute(
                    "create or replace table crime(id ubigint, file integer, own boolean, lsoa text, kind text)"
                )
                for paths in _unpacked(mine, Path(folder)):
                    _insert(base, paths, mine)
                seen = base.execute(
                    "select file, count(*) as rows, count(*) filter (lsoa is null) as nowhere, "
                    "count(*) filter (not own) as misdated from crime group by file order by file"
                ).df()
                at = pd.DataFrame({"force": force, "month": [one.month for one in mine]})
                whole = at.join(seen.set_index("file")).fillna({"rows": 0, "nowhere": 0, "misdated": 0})
                files.append(whole.astype({"rows": "int64", "nowhere": "int64", "misdated": "int64"}))
                base.register(
                    "dated", pd.DataFrame({"file": range(len(mine)), "year": [int(m.month[:4]) for m in mine]})
                )
                # later files come last: a crime that was dated anew counts where it was dated last
                got = base.execute(
                    "with one as (select max(file) as file, lsoa, kind from crime where own and id is not null "
                    "group by id, lsoa, kind union all select file, lsoa, kind from crime where own and id is null) "
                    "select year, coalesce(lsoa, '') as code, coalesce(kind, '') as label, count(*) as n "
                    "from one join dated using (file) group by all order by all"
                ).df()
                base.unregister("dated")
                twice += int(whole["rows"].sum() - whole["misdated"].sum() - got["n"].sum())
                crimes.append(got.assign(force=force))
    columns = ["force", "year", "code", "label", "n"]
    if not crimes:
        empty = pd.DataFrame({"force": [], "month": [], "rows": [], "nowhere": [], "misdated": []})
        return Counted(pd.DataFrame({name: [] for name in columns}), empty, 0)
    return Counted(
        pd.concat(crimes, ignore_index=True)[columns],
        pd.concat(files, ignore_index=True),
        twice,
    )


def _unpacked(mine: list[Street], folder: Path) -> Iterator[dict[Path, int]]:
    """Readable files of some months, path -> position in `mine`; those unpacked are removed afterwards."""
    open_zips: dict[Path, zipfile.ZipFile] = {}
    try:
        here: dict[Path, int] = {}
        size = 0
        for k, one in enumerate(mine):
            path = folder / f"{k}.csv"
            try:
                if one.member and one.path not in open_zips:
                    open_zips[one.path] = zipfile.ZipFile(one.path)
                with (
                    open_zips[one.path].open(one.member) if one.member else one.path.open("rb") as raw,
                    path.open("wb") as out,
                ):
                    packed = (one.member or one.path.name).endswith(".gz")
                    source = gzip.GzipFile(fileobj=raw) if packed else raw
                    while block := source.read(1 << 20):
                        out.write(block)
                        if out.tell() > LARGEST:
                            raise zlib.error(f"more than {LARGEST:,} bytes, as no month of a force has")
            except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError) as error:
                if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise  # the disk is full, the file is not at fault
                raise broken(one.name, error) from error
            here[path] = k
            size += path.stat().st_size
            if size >= AT_ONCE or one is mine[-1]:
                yield here
                for path in here:
                    path.unlink()
                here, size = {}, 0
    finally:
        for packed_file in open_zips.values():
            packed_file.close()


def _insert(base: Any, paths: dict[Path, int], mine: list[Street]) -> None:
    """Read some files into the table `crime`: identifiers as 64-bit hashes, of files with the same columns at once."""
    import pandas as pd

    layouts: dict[tuple[str, ...], list[Path]] = {}
    for path, k in paths.items():
        layouts.setdefault(_columns(path, mine[k]), []).append(path)
    months = pd.DataFrame(
        {
            "path": [str(p) for p in paths],
            "file": list(paths.values()),
            "month": [mine[k].month for k in paths.values()],
        }
    )
    base.register("months", months)
    for columns, group in layouts.items():
        spec = "{" + ", ".join(f"{_quoted(c)}: 'VARCHAR'" for c in columns) + "}"
        names = "[" + ", ".join(_quoted(str(p)) for p in group) + "]"

        def run(encoding: str, names: str = names, spec: str = spec) -> None:
            base.execute(
                'insert into crime select case when "Crime ID" is not null then hash("Crime ID") end, m.file, '
                'coalesce(r."Month" = m.month, true), nullif(trim(r."LSOA code"), \'\'), trim(r."Crime type") '
                f"from read_csv({names}, columns = {spec}, auto_detect = false, header = true, delim = ',', "
                f"quote = '\"', escape = '\"', encoding = '{encoding}', filename = 'path', null_padding = false, "
                "strict_mode = true) r join months m using (path)"
            )

        import duckdb

        try:
            try:
                run("utf-8")
            except duckdb.InvalidInputException as error:
                if "encoded" not in str(error):
                    raise
                run("latin-1")
        except duckdb.InvalidInputException as error:
            raise _named(str(error), paths, mine) from None
        except (duckdb.OutOfMemoryException, duckdb.IOException) as error:
            raise DataError(
                f"street-level files could not be counted: {str(error).splitlines()[0]} Make room in the temporary "
                f"folder (TMPDIR names it): some 200 MB, and as much again for ten million rows."
            ) from None
    base.unregister("months")


def _columns(path: Path, one: Street) -> tuple[str, ...]:
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as text:
        columns = tuple(c.strip() for c in next(csv.reader(text), []))
    missing = [c for c in NEEDED if c not in columns]
    if missing:
        raise DataError(
            f"{one.name}: no column {', '.join(missing)}; it has {', '.join(columns)}. "
            f"Put the publisher's own file in place, with its columns as they are."
        )
    return columns


def _named(message: str, paths: dict[Path, int], mine: list[Street]) -> DataError:
    """DuckDB's message about an unpacked file, as one about the publisher's."""
    where = next((mine[k].name for path, k in paths.items() if str(path) in message), mine[0].name)
    line = re.search(r"Line: (\d+)", message)
    what = re.search(r"(Expected Number of Columns: \d+ Found: \d+|[Uu]nterminated quote)", message)
    return DataError(
        f"{where}: {f'row {line[1]}' if line else 'a row'}: {what[1].lower() if what else 'cannot be read'}. "
        f"The file is cut or was edited: download it again."
    )


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
