"""From a lab's files to the tables of the contract, by a mapping the lab can change: data-raw/secure_mapping.toml.

Nothing is written unless every file of every table converts and the result keeps the contract. Messages name files,
columns, rules and counts, and codes of coded columns that at least `OFTEN` rows share: never a row or another value.
`disguise` is the way back, for a rehearsal on synthetic data in the lab's shape.
"""

from __future__ import annotations

import fnmatch
import struct
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biglocal.data.tables import OFTEN, TABLES, faults, several
from biglocal.model import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import pandas as pd

MAPPING = Path(__file__).resolve().parents[3] / "data-raw" / "secure_mapping.toml"
READABLE = (".csv", ".tab", ".tsv", ".dta", ".parquet")
ELSEWHERE = ("W", "S", "N", "9")  # first letters of small areas in Wales, Scotland and Northern Ireland
Value = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Rule:
    """A value for the rows whose columns all have one of the codes named."""

    value: Value
    codes: dict[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class ColumnMap:
    """How one column of the contract is made: see the head of data-raw/secure_mapping.toml."""

    names: tuple[str, ...]
    codes: dict[str, Value]
    missing: tuple[str, ...]
    rules: tuple[Rule, ...]
    number: bool
    blank: bool


@dataclass(frozen=True, slots=True)
class TableMap:
    """How one table is made: which files, which rows, which columns."""

    files: tuple[str, ...]
    keep: dict[str, tuple[str, ...] | float]
    england: str
    columns: dict[str, ColumnMap]


def read_mapping(path: Path = MAPPING) -> dict[str, TableMap]:
    """Read and check a mapping: table -> how it is made.

    Raises `DataError` naming the entry for an unknown table, column or setting, a column of the contract that is
    not mapped, and a code whose value the contract does not have.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"--mapping {path.name}: no such file. Give a mapping like data-raw/{MAPPING.name}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path.name}: not valid TOML: {error}. Mend the line named.") from None
    out: dict[str, TableMap] = {}
    for table, entry in raw.items():
        _known(path, table, [table], TABLES, "table")
        _known(path, table, entry, ("files", "keep", "england", "columns"), "setting")
        columns = entry.get("columns", {})
        _known(path, f"{table}.columns", columns, TABLES[table].columns, "column of the contract")
        if lost := [c for c in TABLES[table].columns if c not in columns]:
            raise DataError(
                f"{path.name}: {table}.columns: {', '.join(lost)} not mapped. Say where it is, or `blank = true` where "
                f"the contract allows it."
            )
        keep = {
            name: float(rule["least"]) if isinstance(rule, dict) else tuple(_plain(c) for c in rule)
            for name, rule in entry.get("keep", {}).items()
        }
        maps = {name: _column_map(path, f"{table}.columns.{name}", columns[name], table, name) for name in columns}
        out[table] = TableMap(tuple(entry.get("files", ())), keep, entry.get("england", ""), maps)
    return out


def _column_map(path: Path, at: str, entry: dict[str, Any], table: str, name: str) -> ColumnMap:
    _known(path, at, entry, ("from", "codes", "missing", "rules", "number", "blank"), "setting")
    spec = TABLES[table].columns[name]
    rules = tuple(
        Rule(rule["is"], {k.upper(): tuple(_plain(c) for c in v) for k, v in rule.items() if k != "is"})
        for rule in entry.get("rules", ())
    )
    codes = {_plain(code): value for code, value in entry.get("codes", {}).items()}
    for value in (*codes.values(), *(rule.value for rule in rules)):
        if spec.allowed and value not in spec.allowed:
            raise DataError(
                f"{path.name}: {at}: the contract has no value {value!r}; it has {', '.join(spec.allowed)}. Correct it."
            )
    if not entry.get("from") and not entry.get("blank"):
        raise DataError(f"{path.name}: {at}: no `from`. Name the lab's column, or say `blank = true`.")
    if entry.get("blank") and not spec.blank:
        raise DataError(f"{path.name}: {at}: the contract allows no blank column here. Name the lab's column.")
    names = tuple(n.upper() for n in entry.get("from", ()))
    if lost := sorted({column for rule in rules for column in rule.codes} - set(names)):
        raise DataError(f"{path.name}: {at}: rules name {', '.join(lost)}, which `from` does not. Add it there.")
    missing = tuple(_plain(c) for c in entry.get("missing", ()))
    return ColumnMap(names, codes, missing, rules, bool(entry.get("number")), bool(entry.get("blank")))


def _known(path: Path, at: str, seen: Iterable[str], known: Iterable[str], what: str) -> None:
    known = list(known)
    for name in seen:
        if name not in known:
            raise DataError(f"{path.name}: {at}: no {what} '{name}'. Choose from {', '.join(known)}.")


def _plain(code: object) -> str:
    """A code as text, the same whether it came as 1, 1.0, '1' or '01'."""
    text = str(code).strip()
    try:
        number = float(text)
    except ValueError:
        return text
    return str(int(number)) if number.is_integer() else text


def convert(data: Path, out: Path, mapping: dict[str, TableMap]) -> list[str]:
    """Write the tables of `mapping` whose files lie in `data` into `out`, as Parquet; returns what was done.

    Raises `DataError` with every fault at once, a line each, before anything is written: a file that cannot be
    read, a column that is not there, a code the mapping does not have, a result that breaks the contract.
    """
    import pandas as pd

    if not data.is_dir():
        raise DataError(f"--data {data.name}: no such folder. Give the folder that holds the lab's files.")
    done: list[str] = []
    wrong: list[str] = []
    made: dict[str, pd.DataFrame] = {}
    for table, how in mapping.items():
        files = [
            p for p in sorted(data.iterdir())
            if p.suffix.lower() in READABLE and any(fnmatch.fnmatch(p.stem.lower(), f.lower()) for f in how.files)
        ]  # fmt: skip
        if not files:
            done.append(f"{table}: no file like {', '.join(how.files)} in {data.name}, so the table is absent")
            continue
        parts = []
        for path in files:
            got, found, said = _file(path, table, how)
            wrong += found
            parts.append(got)
            done.append(f"{path.name}: {said}")
        if wrong:
            continue
        frame = pd.concat(parts, ignore_index=True)
        for name, column in how.columns.items():
            if column.number:
                frame, said = _numbered(frame, name)
                done.append(f"{table}, column {name}: {said}")
        made[table], found_here = faults(table, frame)
        wrong += [f"table {table}{', ' if f.column else ' '}{f.quiet}" for f in found_here]
        done.append(f"{table}: {several(len(frame), table)} rows")
        if (out / f"{table}.csv").exists():
            wrong.append(f"{table}.csv is in {out.name} already. Take it out: the table would stand there twice.")
    if wrong:
        raise DataError("nothing was written.\n" + "\n".join(f"- {line}" for line in wrong))
    if not made:
        raise DataError(f"--data {data.name}: no file of any table. {'; '.join(done)}. Name them in the mapping.")
    out.mkdir(parents=True, exist_ok=True)
    for table, frame in made.items():
        half = out / f"{table}.parquet.part"
        frame.to_parquet(half, index=False)
        half.replace(out / f"{table}.parquet")
    return done


def _file(path: Path, table: str, how: TableMap) -> tuple[pd.DataFrame, list[str], str]:
    """One file's rows in the columns of the contract, its faults, and how many rows were kept."""
    import numpy as np
    import pandas as pd

    contract = TABLES[table].columns
    wanted = {n for column in how.columns.values() for n in column.names} | {
        k.upper() for k in how.keep if k not in contract
    }
    try:
        raw = _read(path, lambda name: name.strip().upper() in wanted)
    except DataError as error:
        return pd.DataFrame(), [str(error)], ""
    raw.columns = [str(c).strip().upper() for c in raw.columns]
    wrong: list[str] = []
    rows = np.ones(len(raw), dtype=bool)
    for name, rule in how.keep.items():
        if name in contract:
            continue
        if name.upper() not in raw:
            wrong.append(f"{path.name}: no column {name}, by which rows are kept. Correct `keep` in the mapping.")
        elif isinstance(rule, float):
            rows &= pd.to_numeric(raw[name.upper()], errors="coerce").to_numpy(dtype=float) >= rule
        else:
            rows &= _texts(raw[name.upper()]).isin(rule).to_numpy()
    raw = raw[rows].reset_index(drop=True)
    columns: dict[str, Any] = {}
    for name, column in how.columns.items():
        columns[name], found = _column(table, raw, column, f"{path.name}: column {{}} (for {table}.{name})")
        wrong += found
    frame = pd.DataFrame(columns, index=raw.index)
    if wrong:
        return frame, wrong, ""
    kept = np.ones(len(frame), dtype=bool)
    for name, rule in how.keep.items():
        if name not in contract:
            continue
        if isinstance(rule, float):
            kept &= pd.to_numeric(frame[name], errors="coerce").to_numpy(dtype=float) >= rule
        else:
            kept &= _texts(frame[name]).isin(rule).to_numpy()
    if how.england:
        kept &= ~frame[how.england].astype(str).str.startswith(ELSEWHERE).to_numpy()
    lost = len(rows) - int(kept.sum())
    said = f"{several(len(rows), table)} rows{f', {several(lost, table)} left out by the mapping' if lost else ''}"
    return frame[kept].reset_index(drop=True), [], said


def _read(path: Path, wanted: Callable[[str], bool]) -> pd.DataFrame:
    """The wanted columns of a lab's file. Raises `DataError` naming the file, never a cell."""
    import pandas as pd

    try:
        if path.suffix.lower() == ".dta":
            with pd.io.stata.StataReader(path) as reader:
                names = [c for c in reader.variable_labels() if wanted(c)]
            stata: pd.DataFrame = pd.read_stata(path, convert_categoricals=False, columns=names)
            return stata
        if path.suffix.lower() == ".parquet":
            import pyarrow.parquet as pq  # type: ignore[import-untyped, unused-ignore]

            columns = [c for c in pq.read_schema(path).names if wanted(c)]
            packed: pd.DataFrame = pd.read_parquet(path, columns=columns)
            return packed
        sep = "," if path.suffix.lower() == ".csv" else "\t"
        options: dict[str, Any] = {
            "sep": sep,
            "dtype": str,
            "keep_default_na": False,
            "na_values": ["", " ", "NA", "."],
        }
        with path.open("rb") as stream:
            head = stream.read(4)
        encoding = "utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        try:
            text: pd.DataFrame = pd.read_csv(path, usecols=wanted, encoding=encoding, **options)
        except UnicodeDecodeError:
            text = pd.read_csv(path, usecols=wanted, encoding="cp1252", **options)
        return text
    except (
        OSError,
        ValueError,
        KeyError,
        EOFError,
        struct.error,
    ) as error:  # pandas' and Arrow's errors are ValueErrors
        raise DataError(
            f"{path.name}: cannot be read to its end ({type(error).__name__}). Export it again, as Stata, Parquet, or "
            f"CSV with commas or tabs."
        ) from None


def _texts(series: pd.Series) -> pd.Series:
    """Codes as text (see `_plain`), blank stays missing; one look at each distinct value."""
    import numpy as np
    import pandas as pd

    codes, values = pd.factorize(series, use_na_sentinel=True)
    texts = np.array([*(_plain(v) for v in values), None], dtype=object)
    return pd.Series(texts[codes], index=series.index, dtype=object)


def _column(table: str, raw: pd.DataFrame, how: ColumnMap, at: str) -> tuple[Any, list[str]]:
    """A column of the contract from a lab's frame, and its faults; `at` names the place, with {} for the column."""
    import pandas as pd

    if how.blank:
        return pd.Series([None] * len(raw), index=raw.index, dtype=object), []
    names = [n for n in how.names if n in raw]
    needed = {c for rule in how.rules for c in rule.codes}
    if not names or needed - set(names):
        lost = ", ".join(sorted(needed - set(names))) or " or ".join(how.names)
        return None, [f"{at.format(lost)}: not in the file. Correct `from` in the mapping."]
    if how.rules:
        return _by_rules(table, raw, how, names, at)
    out = pd.Series([None] * len(raw), index=raw.index, dtype=object)
    wrong: list[str] = []
    open_ = pd.Series(True, index=raw.index)
    for name in names:
        texts = _texts(raw[name])
        seen = open_ & texts.notna() & ~texts.isin(how.missing)
        if how.codes:
            strange = seen & ~texts.isin(list(how.codes))
            if strange.any():
                wrong.append(_strange(table, at.format(name), texts[strange], len(raw)))
            out[seen] = texts[seen].map(how.codes)
        else:
            out[seen] = texts[seen]
        open_ &= ~seen
    return out, wrong


def _by_rules(table: str, raw: pd.DataFrame, how: ColumnMap, names: list[str], at: str) -> tuple[Any, list[str]]:
    import pandas as pd

    texts = {name: _texts(raw[name]) for name in names}
    out = pd.Series([None] * len(raw), index=raw.index, dtype=object)
    open_ = pd.Series(True, index=raw.index)
    for rule in how.rules:
        here = open_.copy()
        for name, codes in rule.codes.items():
            here &= texts[name].isin(codes)
        out[here] = rule.value
        open_ &= ~here
    first = texts[names[0]]
    strange = open_ & first.notna() & ~first.isin(how.missing)
    wrong = [_strange(table, at.format(" and ".join(names)), first[strange], len(raw))] if strange.any() else []
    return out, wrong


def _strange(table: str, at: str, texts: pd.Series, rows: int) -> str:
    """A fault: codes that the mapping does not have, those that many rows share by name."""
    seen = texts[texts.str.fullmatch(r"-?\d{1,3}")].value_counts()
    often = ", ".join(f"{code} in {several(n, table)}" for code, n in sorted(seen.items()) if n >= OFTEN)
    shown = f" (codes seen in {OFTEN} rows or more: {often})" if often else ""
    return (
        f"{at}: {several(len(texts), table)} of {several(rows, table)} rows have a code that the mapping does not "
        f"have{shown}. Add it to `codes`, `rules` or `missing`."
    )


def _numbered(frame: pd.DataFrame, name: str) -> tuple[pd.DataFrame, str]:
    """Identifiers as they are where they are whole numbers, each once; else numbers in the order of the content."""
    import numpy as np
    import pandas as pd

    number = pd.to_numeric(frame[name], errors="coerce").to_numpy(dtype=float)
    whole = np.isfinite(number) & (number >= 0) & (number % 1 == 0) & (number < 2**53)
    if whole.all() and len(np.unique(number)) == len(number):
        return frame.assign(**{name: number.astype(np.int64)}), "the lab's own identifiers"
    others = [c for c in frame.columns if c != name]
    order = frame[others].astype(str).sort_values(others, kind="stable").index
    return (
        frame.loc[order].reset_index(drop=True).assign(**{name: np.arange(1, len(frame) + 1)}),
        "not whole numbers, each once: numbered in the order of the rows' content",
    )


def disguise(table: str, frame: pd.DataFrame, how: TableMap, pick: int = 0) -> pd.DataFrame:
    """Rows of the contract in the lab's names and codes, as text, with a few rows that `keep` leaves out.

    `pick` chooses among the names a column may have. `convert` of the result gives `frame` back.
    """
    import numpy as np
    import pandas as pd

    out: dict[str, Any] = {}
    for name, column in how.columns.items():
        if column.blank:
            continue
        values = frame[name].astype(object)
        blank = values.isna().to_numpy()
        missing = column.missing[0] if column.missing else ""
        if column.rules:
            codes = _codes_of(column)
            for lab in column.names:
                by_value = {value: chosen.get(lab, "-9") for value, chosen in codes.items()}
                out[lab] = np.where(blank, missing, values.map(by_value).astype(object))
            continue
        lab = column.names[pick % len(column.names)]
        if column.codes:
            back: dict[Value, str] = {}
            for code, value in column.codes.items():
                back.setdefault(value, code)
            values = values.map(back)
        out[lab] = np.where(blank, missing, values.astype(str))
    for name, rule in how.keep.items():
        if name not in TABLES[table].columns:
            out[name.upper()] = str(rule) if isinstance(rule, float) else rule[0]
    lab_frame = pd.DataFrame(out, index=frame.index)

    def decoy(name: str, value: str) -> pd.DataFrame:
        lab = (
            name.upper() if name.upper() in lab_frame else how.columns[name].names[pick % len(how.columns[name].names)]
        )
        return lab_frame.head(1).assign(**{lab: value})

    left_out = [decoy(name, str(rule - 1) if isinstance(rule, float) else "2") for name, rule in how.keep.items()]
    if how.england:
        left_out.append(decoy(how.england, "W01000001"))
    return pd.concat([*left_out, lab_frame], ignore_index=True)


def _codes_of(column: ColumnMap) -> dict[Value, dict[str, str]]:
    """For each value of a column with rules, codes of the lab's columns that lead to it and to no earlier rule."""
    return {rule.value: {lab: codes[0] for lab, codes in rule.codes.items()} for rule in reversed(column.rules)}


def write_lab(folder: Path, tables: dict[str, pd.DataFrame], mapping: dict[str, TableMap]) -> None:
    """A folder as a lab would have it, of synthetic `tables`: a file a year of the survey, in several formats."""
    folder.mkdir(parents=True, exist_ok=True)
    for table, how in mapping.items():
        if table not in tables:
            continue
        stem = how.files[0].replace("*", "")
        frame = tables[table]
        groups = [(str(y), g) for y, g in frame.groupby("year")] if table == "survey" else [("", frame)]
        for k, (year, rows) in enumerate(groups):
            lab = disguise(table, rows, how, k)
            name = f"{stem}_{year}" if year else stem
            if k % 3 == 1:
                lab.to_csv(folder / f"{name}.tab", index=False, sep="\t", lineterminator="\n")
            elif k % 3 == 2:
                lab.to_parquet(folder / f"{name}.parquet", index=False)
            else:
                lab.to_csv(folder / f"{name}.csv", index=False, lineterminator="\n")
