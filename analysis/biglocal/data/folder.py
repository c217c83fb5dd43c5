"""A folder of publishers' files: which of them plays which role, and what its columns hold.

Files are known by their columns, never by their names, and are read where they lie: plain, gzipped,
or inside a zip. Nothing is unpacked and nothing is written.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import re
import zipfile
import zlib
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from biglocal.model import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    import pandas as pd

STREET = re.compile(r"(?:^|[/\\])(\d{4})-(\d{2})-([a-z-]+)-street\.csv(?:\.gz)?$")
POLICE_OTHER = re.compile(r"\d{4}-\d{2}-[a-z-]+-(?:outcomes|stop-and-search)\.csv(?:\.gz)?$")
DOMAINS = {
    "income": "INCOME SCORE",
    "employment": "EMPLOYMENT SCORE",
    "health": "HEALTH DEPRIVATION AND DISABILITY SCORE",
    "education": "EDUCATION SKILLS AND TRAINING SCORE",
    "crime": "CRIME AND DISORDER SCORE",
    "housing": "BARRIERS TO HOUSING AND SERVICES SCORE",
    "environment": "LIVING ENVIRONMENT SCORE",
}
# role -> the columns it is known by (patterns matched whole, without regard to case), and for people what it is
ROLES: dict[str, tuple[tuple[str, ...], str]] = {
    "lookup": (("LSOA01CD", "LSOA11CD", "CHGIND", "LAD11CD"), "the ONS lookup from 2001 to 2011 LSOAs"),
    "imd": (("LSOA CODE", "IMD SCORE"), "the English Indices of Deprivation 2010 on 2001 LSOAs"),
    **{
        name: (("LSOA CODE", column), f"the {name} domain of the English Indices of Deprivation 2010")
        for name, column in DOMAINS.items()
    },
    "population_2001": (("LSOA CODE", r"(?:MID.?2008 )?TOTAL POPULATION.*"), "populations of the 2001 LSOAs"),
    "frame": (("lsoa11", "imd2010_income"), "the prepared frame of 2011 LSOAs"),
    "rural": (("LSOA11CD|code", "RUC11CD"), "the 2011 rural-urban classification of LSOAs"),
    "population": ((r"LSOA code \(2011\)", "Total population.*"), "population denominators of the Indices (File 7)"),
    "samhi": (("lsoa11", r"samhi_index(?:\.\d{4})?"), "the Small Area Mental Health Index"),
    "lookup21": (("LSOA11CD", "LSOA21CD", "CHGIND"), "the ONS lookup from 2011 to 2021 LSOAs"),
    "population_2021": (("LSOA21CD", r"(?:Total )?Population.*"), "populations of the 2021 LSOAs"),
    "borders": (("lsoa11", "neighbour"), "a list of LSOAs that border on each other"),
    "boundaries": (("FeatureCollection",), "boundaries of the 2011 LSOAs (GeoJSON)"),
    "programmes": (("lsoa11", "programme"), "a list of LSOAs in other funded programmes"),
    "treated": (("lsoa(?:01|11|21)", "area_id", "wave"), "a list of treated LSOAs"),
}
# A month of the largest force has some 30 MB, and text of this kind packs five to one: far beyond is a zip bomb
LARGEST, SMALL, TIGHTEST = 4 << 30, 64 << 20, 100
MANY = ("samhi", "treated")  # several files may play these roles; their readers choose


@dataclass(frozen=True, slots=True)
class Found:
    """One file that is known: its path, the member inside a zip ('' otherwise), and its columns."""

    path: Path
    member: str
    name: str
    columns: tuple[str, ...]

    def column(self, pattern: str) -> str:
        """The file's own spelling of the first column that matches `pattern` whole; '' if none."""
        return next((c for c in self.columns if re.fullmatch(pattern, c, re.IGNORECASE)), "")


@dataclass(frozen=True, slots=True)
class Street:
    """One month of one force: where its rows are, and the zip's checksum where there is one."""

    path: Path
    member: str
    name: str
    month: str
    force: str


@dataclass(frozen=True, slots=True)
class Folder:
    """What a folder holds. `street` has each month and force once; `notes` says what was passed over."""

    root: Path
    roles: dict[str, tuple[Found, ...]] = field(hash=False)
    street: tuple[Street, ...]
    notes: tuple[str, ...]

    def one(self, role: str) -> Found | None:
        """The file that plays `role`, or None."""
        found = self.roles.get(role, ())
        return found[0] if found else None


def folder(root: Path) -> Folder:
    """Look through `root` and everything below it; cheap (first lines and lists of zips only).

    Raises `DataError` for a file that cannot be opened (truncated gzip or zip), a zip entry that climbs
    out of the folder, and two files of different content that claim one role.
    """

    def hidden(path: Path) -> bool:
        return any(part.startswith(".") for part in path.relative_to(root).parts)

    files = sorted(p for p in root.rglob("*") if p.is_file() and not hidden(p))
    return _folder(root, tuple((p, p.stat().st_size, p.stat().st_mtime_ns) for p in files))


@lru_cache(maxsize=8)
def _folder(root: Path, files: tuple[tuple[Path, int, int], ...]) -> Folder:
    roles: dict[str, list[Found]] = {}
    months: dict[tuple[str, str], list[Street]] = {}
    notes: list[str] = []
    for path, _, _ in files:
        name = path.relative_to(root).as_posix()
        if path.suffix.lower() == ".zip":
            for member in _members(path, name):
                _place(root, path, member, f"{name}: {member}", roles, months, notes)
        elif path.name.lower().endswith((".csv", ".csv.gz", ".txt", ".txt.gz")):
            _place(root, path, "", name, roles, months, notes)
        elif path.name.lower().endswith((".geojson", ".geojson.gz")):
            roles.setdefault("boundaries", []).append(Found(path, "", name, ("FeatureCollection",)))
    for role, found in roles.items():
        if role not in MANY and len(found) > 1:
            if len({digest(f.path, f.member) for f in found}) > 1:
                raise DataError(
                    f"{found[0].name} and {found[1].name} both hold {ROLES[role][1]} and differ. "
                    f"Keep one of them in the folder."
                )
            notes.append(f"{', '.join(f.name for f in found[1:])}: same content as {found[0].name}, read once.")
    street = _once(months, notes)
    return Folder(root, {r: tuple(f) for r, f in roles.items()}, street, tuple(notes))


def _once(months: dict[tuple[str, str], list[Street]], notes: list[str]) -> tuple[Street, ...]:
    """Each month and force once, from the archive that goes on longest: it holds the publisher's revisions."""

    def archive(one: Street) -> str:
        return one.path.as_posix() if one.member else one.path.parent.parent.as_posix()

    until: dict[str, str] = {}
    for held in months.values():
        for one in held:
            until[archive(one)] = max(until.get(archive(one), ""), one.month)
    chosen = []
    for _, held in sorted(months.items()):
        *others, best = sorted(held, key=lambda one: (until[archive(one)], one.name))
        notes += [
            f"{other.name}: {other.force} {other.month} stands in {best.name} too; "
            f"it is read once, from the later archive."
            for other in others
        ]
        chosen.append(best)
    return tuple(chosen)


def played(path: Path) -> tuple[set[str], tuple[str, ...]]:
    """The roles that one file plays (`police` for street-level crime), and the columns of what was not recognised.

    Raises `DataError` for a damaged file.
    """
    roles: dict[str, list[Found]] = {}
    months: dict[tuple[str, str], list[Street]] = {}
    members = _members(path, path.name) if path.suffix.lower() == ".zip" else [""]
    for member in members:
        _place(path.parent, path, member, path.name, roles, months, [])
    strange = _header(path, members[0], path.name) if members and not roles and not months else ()
    return {*roles, *(("police",) if months else ())}, strange


def _place(
    root: Path,
    path: Path,
    member: str,
    name: str,
    roles: dict[str, list[Found]],
    months: dict[tuple[str, str], list[Street]],
    notes: list[str],
) -> None:
    """Put one file where it belongs: a month of street-level crime, one or more roles, or the notes."""
    inside = member or path.relative_to(root).as_posix()
    if street := STREET.search(inside):
        month, force = f"{street[1]}-{street[2]}", street[3]
        months.setdefault((month, force), []).append(Street(path, member, name, month, force))
        return
    if POLICE_OTHER.search(inside):
        return
    found = Found(path, member, name, _header(path, member, name))
    played = [role for role, (patterns, _) in ROLES.items() if all(found.column(pattern) for pattern in patterns)]
    if "frame" in played:
        played = ["frame"]
    for role in played:
        roles.setdefault(role, []).append(found)
    if not played:
        notes.append(f"{name}: not recognised by its columns ({', '.join(found.columns[:6])}); not used.")


def _members(path: Path, name: str) -> list[str]:
    """Names of the files of a zip that could be read."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise broken(name, error) from error
    members = [entry.filename for entry in entries]
    for entry in entries:  # the unpacker stops at the size stated here, so what is stated can be held against limits
        if entry.file_size > LARGEST or entry.file_size > max(SMALL, TIGHTEST * entry.compress_size):
            raise DataError(
                f"{name}: entry {entry.filename!r} would unpack to {entry.file_size:,} bytes from "
                f"{entry.compress_size:,}. No publisher's file is like that: do not use it, download it again."
            )
    for member in members:
        parts = PurePosixPath(member.replace("\\", "/")).parts
        if ".." in parts or member.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", member):
            raise DataError(
                f"{name}: entry {member!r} points outside the archive. The publishers' archives have no such entry: "
                f"do not use this file, download it again from the publisher."
            )
    return sorted(m for m in members if m.lower().endswith((".csv", ".csv.gz")) and not m.startswith("__MACOSX"))


def content(path: Path, member: str = "", name: str = "") -> bytes:
    """All bytes of a file, unpacked. Raises `DataError` for a truncated or damaged gzip or zip."""
    try:
        if member:
            with zipfile.ZipFile(path) as archive:
                data = archive.read(member)
            return gzip.decompress(data) if member.endswith(".gz") else data
        if path.suffix == ".gz":
            with gzip.open(path) as stream:
                return stream.read()
        return path.read_bytes()
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        raise broken(name or path.name, error) from error


def broken(name: str, error: BaseException) -> DataError:
    """The error for a file that is cut, damaged or packed in a way that cannot be read."""
    return DataError(f"{name}: cannot be read to its end ({error}). The file is cut or damaged: download it again.")


def _header(path: Path, member: str, name: str) -> tuple[str, ...]:
    """Names in the first line that is not a comment."""
    try:
        if member:
            with zipfile.ZipFile(path) as archive, archive.open(member) as raw:
                return _names(gzip.open(raw) if member.endswith(".gz") else raw)
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            return _names(stream)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        raise broken(name, error) from error


def _names(lines: Iterable[bytes]) -> tuple[str, ...]:
    for line in lines:
        text = line.decode("utf-8-sig", errors="replace").strip()
        if text and not text.startswith("#"):
            return tuple(c.strip() for c in next(csv.reader([text])))
    return ()


def digest(path: Path, member: str = "") -> str:
    """SHA-256 of a file as it lies, or of one unpacked member of a zip."""
    if member:
        return hashlib.sha256(content(path, member)).hexdigest()
    stat = path.stat()
    return _digest(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=256)
def _digest(path: Path, size: int, changed: int) -> str:  # noqa: ARG001 - size and time are part of the key
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def texts(found: Found | Street, columns: dict[str, str]) -> pd.DataFrame:
    """Columns of a file as text, blanks as missing, one row a row of the file (row 0 is row 2 of the file).

    `columns` maps the name wanted to the file's own. Raises `DataError` for a damaged file, a missing
    column, or a row with too few or too many cells.
    """
    frame: pd.DataFrame = table(found, columns).to_pandas()
    return frame


def table(found: Found | Street, columns: dict[str, str]) -> Any:
    """Like `texts`, as a pyarrow Table of strings: for files too long for text in pandas."""
    import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]
    from pyarrow import csv as pcsv  # type: ignore[import-untyped, unused-ignore]

    data = content(found.path, found.member, found.name).removeprefix(b"\xef\xbb\xbf")
    if data.startswith(b"#"):
        raise DataError(f"{found.name}: row 1 is a comment where the names of the columns belong. Remove it.")
    have = _names(io.BytesIO(data[:65536]))
    missing = [c for c in columns.values() if c not in have]
    if missing:
        raise DataError(
            f"{found.name}: no column {', '.join(missing)}; it has {', '.join(have)}. "
            f"Put the publisher's own file in place, with its columns as they are."
        )

    def read(encoding: str) -> Any:
        return pcsv.read_csv(
            pa.BufferReader(data),
            read_options=pcsv.ReadOptions(
                column_names=list(have), skip_rows=1, encoding=encoding, use_threads=False, block_size=1 << 22
            ),
            parse_options=pcsv.ParseOptions(ignore_empty_lines=False, newlines_in_values=False),
            convert_options=pcsv.ConvertOptions(
                include_columns=list(columns.values()),
                column_types={c: pa.string() for c in columns.values()},
                strings_can_be_null=True,
                null_values=["", " ", "NA", "NaN", "N/A"],
                quoted_strings_can_be_null=True,
            ),
        )

    if data.endswith((b"\n\n", b"\r\n\r\n")):
        data = data.rstrip(b"\r\n") + b"\n"
    try:
        try:
            got = read("utf8")
        except pa.ArrowInvalid as error:
            if "UTF8" not in str(error).upper():
                raise
            got = read("latin1")
    except pa.ArrowInvalid as error:
        row = re.search(r"Row #(\d+): (.*?)(?::|$)", str(error))
        where = f"row {row[1]}: {row[2].lower()}" if row else str(error)
        raise DataError(f"{found.name}: {where}. The file is cut or was edited: download it again.") from error
    return got.rename_columns(list(columns))


def refuse(found: Found, column: str, bad: np.ndarray, values: Any, why: str, todo: str) -> None:
    """Raise `DataError` for the first row where `bad` (n,) is true, naming file, column and row."""
    import numpy as np

    rows = np.flatnonzero(bad)
    if len(rows):
        first = int(rows[0])
        more = f"; {len(rows):,} such rows" if len(rows) > 1 else ""
        raise DataError(
            f"{found.name}: column {column}, row {first + 2}: {why}, seen {values.iloc[first]!r}{more}. {todo}"
        )


def numbers(
    found: Found, column: str, values: pd.Series, *, low: float | None = None, high: float | None = None
) -> np.ndarray:
    """Text to numbers (n,), blanks as NaN; `1,296` is 1296. Raises `DataError` for text or a value out of range."""
    import numpy as np
    import pandas as pd

    blank = values.isna().to_numpy()
    plain = values.str.replace(",", "") if values.str.contains(",", regex=False, na=False).any() else values
    number = np.asarray(pd.to_numeric(plain, errors="coerce"), dtype=float)
    refuse(found, column, np.isnan(number) & ~blank, values, "text where a number belongs", "Correct the cell.")
    refuse(found, column, np.isinf(number), values, "infinite value", "Correct the cell.")
    if low is not None:
        refuse(found, column, number < low, values, f"a number of at least {low:g} expected", "Correct the cell.")
    if high is not None:
        refuse(found, column, number > high, values, f"a number of at most {high:g} expected", "Correct the cell.")
    return number
