"""The open tier: real open data of England, read from a folder as the publishers made them.

Which file is which is known by its columns (`data/folder.py`); `data-raw/sources.toml` says where each comes
from. Without the list of treated LSOAs there is no study; everything else that is absent is said in `lacks`.

Where publisher's files and the prepared frame both have a score, the publisher's stands; the frame fills what
is left blank. Population is the Census of 2011 from the frame where there is one, because it was taken before
the programme spent; the denominators of mid-2015 stand in where there is none, and a note says so.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from biglocal.data import borders, crime, folder, geography, police, samhi, treated
from biglocal.data.folder import DOMAINS, ROLES, Folder, Found, digest, numbers, refuse, texts
from biglocal.data.tables import CRIMES, REGIONS, TABLES
from biglocal.model import DataError

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import pandas as pd

    from biglocal.data.load import Request

SOURCES = "data-raw/sources.toml says where it comes from"
FRAME = {
    "imd": "imd2010_score",
    "income": "imd2010_income",
    "employment": "imd2010_employment",
    "health": "imd2010_health",
    "education": "imd2010_education",
    "crime": "imd2010_crime",
    "housing": "imd2010_barriers",
    "environment": "imd2010_environment",
    "population": "population_2011",
    "region": "region",
    "district": "lad13",
    "msoa11": "msoa11",
    "rural": "rural",
}
AREAS_FROM = (
    "lookup", "imd", *DOMAINS, "population_2001", "frame", "rural", "population", "programmes", "lookup21",
    "population_2021",
)  # fmt: skip
BORDERS_FROM = ("borders", "boundaries")
ABSENT = {
    "survey": "the Annual Population Survey with LSOA codes is secure data: apply to the UK Data Service for secure "
    "access, and use the tier secure inside its lab",
    "residents": "the survey of partnership members is not public: ask the study's authors, and use the tier secure",
    "costs": "spending by area and year is not public: ask Local Trust, and use the tier secure",
    "truth": "the true effect is known only where data were made: the tier synthetic has it",
    "residents_truth": "the true change is known only where data were made: the tier synthetic has it",
    "earlier_funding": "earlier lottery funding by district is not read yet: the tier synthetic has it",
    "other_programme": "a list of LSOAs in other funded programmes (CSV with lsoa11, programme) is yours to bring",
    "borders": "which LSOAs border on each other: put a list (CSV with lsoa11, neighbour) or the ONS boundaries of the "
    "2011 LSOAs (.geojson) into the folder",
    "progress": "how fast an area progressed is not public: ask the study's authors, and use the tier secure",
    "plan_endorsed": "the day a plan was endorsed is not public: ask Local Trust, and use the tier secure",
    "first_spend": "the day of the first payment is not public: ask Local Trust, and use the tier secure",
}


def banner(request: Request) -> str:
    """`PLACEBO` for a placebo list, '' for a real one."""
    return treated.banner(request.treated)


def digests(request: Request) -> dict[str, str]:
    """Table -> digest of the files it is made from and of the code that reads them.

    Raises `DataError` for a list of treated LSOAs that is absent or breaks its rules, for a damaged file,
    and for required files that are absent (listed, with the columns they are known by).
    """
    path = treated.need(request.treated)
    treated.read(path)
    at = _required(_data(request))
    listed = f"treated {digest(path)}"
    areas = [*_digests(at, AREAS_FROM), _code()]
    out = {"areas": _join([*areas, listed]), "programme": _join([listed, _code()])}
    if any(at.roles.get(role) for role in BORDERS_FROM):
        out["borders"] = _join([*areas, *_digests(at, BORDERS_FROM)])
    if at.roles.get("samhi") or at.street:
        zips = sorted({f"police {digest(one.path)}" for one in at.street})
        months = f"min_months {request.min_months}"
        out["area_panel"] = _join([*areas, *_digests(at, ("samhi",)), *zips, months])
    return out


def lacks(request: Request) -> dict[str, str]:
    """Table or column -> what is missing and how to get it. Looks at names and columns only."""
    at = _data(request)
    out = dict(ABSENT)
    for name in DOMAINS:
        if not at.roles.get(name) and not at.roles.get("frame"):
            out[name] = (
                f"no file has the column {DOMAINS[name]}: put the English Indices 2010 domain file (LSOA CODE, "
                f"{DOMAINS[name]}) into the folder; {SOURCES}"
            )
    for name in ("rural", "population"):
        if not at.roles.get(name) and not at.roles.get("frame"):
            out[name] = f"{_missing(name)}; {SOURCES}"
    if not at.roles.get("samhi"):
        out["samhi"] = f"{_missing('samhi')}; {SOURCES}"
    how = "put the archives of all months (data.police.uk/data/archive) into the folder, or lower min_months"
    for name, why in police.short(at.street, request.min_months).items():
        for column in (name, f"{name}_rate", f"{name}_z"):
            out[column] = f"{why}: {how}" if at.street else f"no street-level police files: {how}"
    if not at.street:
        out["months"] = f"no street-level police files: {how}"
    if any(at.roles.get(role) for role in BORDERS_FROM):
        del out["borders"]
    if not at.roles.get("samhi") and not at.street:
        out["area_panel"] = f"neither SAMHI nor street-level crime is in the folder; {SOURCES}"
    return out


def read(name: str, request: Request, done: Callable[[str], pd.DataFrame]) -> pd.DataFrame:
    """Table `name` as the contract has it, unchecked. Raises `DataError` naming file, column and row."""
    if name == "programme":
        return treated.programme(treated.read(treated.need(request.treated)))
    if name == "area_panel":
        return _panel(request, done("areas"))[0]
    at = _data(request)
    if name == "borders":
        return borders.read(at, set(done("areas")["lsoa11"]))
    areas = read_areas(at.root)
    rows, _ = _listed(request, at, set(areas["lsoa11"]))
    listed = {row.lsoa: row for row in rows}
    code = areas["lsoa11"]
    area, share = ({key: getattr(row, name) for key, row in listed.items()} for name in ("area_id", "share"))
    return areas.assign(area_id=code.map(area), share=code.map(share))


def _listed(request: Request, at: Folder, known: set[str]) -> tuple[tuple[treated.Row, ...], list[str]]:
    """The rows of the list on LSOAs of 2011, whatever census it was written for, and notes."""
    path = treated.need(request.treated)
    rows = treated.read(path)
    said: list[str] = []
    if rows[0].vintage == "lsoa01":
        rows, said = treated.bring(path, rows, _lookup(_required(at)).pairs, _population_by(at, "population_2001"))
    elif rows[0].vintage == "lsoa21":
        pairs = _pairs21(at)
        if pairs is None:
            raise DataError(
                f"{path.name}: column lsoa21: {_missing('lookup21')}, which brings it to 2011. Put it into the folder."
            )
        rows, said = treated.bring(path, rows, pairs, _population_by(at, "population_2021"))
    parents = {str(a): tuple(b) for a, b in _lookup(_required(at)).pairs.groupby("source")["lsoa11"]}
    treated.hold(path, rows, known, parents)
    return rows, said


def notes(request: Request) -> list[str]:
    """What was dropped, mended or passed over in reading, in words; reads the tables it speaks of."""
    at = _data(request)
    areas, said = _areas(_required(at))
    out = [*at.notes, *said, *_listed(request, at, set(areas["lsoa11"]))[1]]
    if at.roles.get("samhi") or at.street:
        out += _panel(request, areas)[1]
    return out


def files(request: Request) -> dict[str, str]:
    """File (as named below the folder) -> SHA-256, for each file that a table is made from."""
    at = _data(request)
    found = [f for role in (*AREAS_FROM, *BORDERS_FROM, "samhi") for f in at.roles.get(role, ())]
    paths = {f.path for f in found} | {one.path for one in at.street}
    out = {path.relative_to(at.root).as_posix(): digest(path) for path in paths}
    if request.treated:
        out[request.treated.name] = digest(request.treated)
    return dict(sorted(out.items()))


def read_areas(data: Path) -> pd.DataFrame:
    """All LSOAs of England (2011) from the folder `data`, as table `areas` without area_id and share.

    Rows are in the order of the codes. Raises `DataError` for absent or damaged files and bad cells.
    """
    return _areas(_required(folder.folder(data)))[0]


def street_level(data: Path, min_months: int) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """Every crime series by LSOA and year with rates, what each force's files cover, and notes; no list is needed.

    The first frame has lsoa11, year, months, the series of `police.NAMES` in crimes, and `<series>_rate` in crimes
    per 1,000 residents and year; the second is `police.coverage`. Raises `DataError` as the tier does, and where
    the folder has no street-level file.
    """
    import re

    at = _required(folder.folder(data))
    if not at.street:
        raise DataError(
            f"--data: no street-level police files (YYYY-MM-<force>-street.csv, in archives or unpacked). {SOURCES}."
        )
    areas, _ = _areas(at)
    frame, said = police.read(at.street, areas, min_months, _shares(at, areas))
    rated = crime.add_rates(frame, areas, police.NAMES)
    again = [note for note in at.notes if re.search("-street.csv", note)]
    return rated[[c for c in rated.columns if not c.endswith("_z")]], police.coverage(at.street), [*again, *said]


def _data(request: Request) -> Folder:
    if request.data is None:
        raise DataError("tier open needs --data DIR, the folder that holds its files (see data-raw/README.md).")
    return folder.folder(request.data)


def _missing(role: str) -> str:
    patterns, what = ROLES[role]
    plain = ", ".join(p.replace("\\", "").replace("(?:.d{4})?", ".YYYY").replace("|", " or ") for p in patterns)
    return f"{what[0].upper() + what[1:]} is absent (a file with columns {plain})"


def _required(at: Folder) -> Folder:
    """The same folder, if it has the lookup and the Indices 2010 (or the frame in their place)."""
    absent = [] if at.one("lookup") else ["lookup"]
    if not at.one("imd") and not at.one("frame"):
        absent.append("imd")
    if absent:
        have = sorted({f.name for found in at.roles.values() for f in found})
        raise DataError(
            f"--data: {'; '.join(_missing(role) for role in absent)}. Recognised: {', '.join(have) or 'nothing'}. "
            f"Put the publisher's file into the folder, plain, .gz or .zip; {SOURCES}."
        )
    return at


def _digests(at: Folder, roles: tuple[str, ...]) -> list[str]:
    return [f"{role} {digest(f.path, f.member)}" for role in roles for f in at.roles.get(role, ())]


def _join(parts: list[str]) -> str:
    return hashlib.sha256("\n".join(sorted(parts)).encode()).hexdigest()


@lru_cache(maxsize=1)
def _code() -> str:
    """Digest of the code that reads the tier: another reader is other data."""
    here = Path(__file__).parent
    names = ("open", "folder", "geography", "borders", "samhi", "street", "police", "treated", "crime")
    return _join([f"{n} {hashlib.sha256((here / f'{n}.py').read_bytes()).hexdigest()}" for n in names])


@dataclass(frozen=True, slots=True)
class _Side:
    """A file on 2011 LSOAs: its rows as they stand (`raw`, with lsoa11) and those of England by LSOA (`frame`)."""

    found: Found
    raw: pd.DataFrame
    frame: pd.DataFrame
    own: dict[str, str]

    def number(self, name: str) -> pd.Series:
        """Column `name` as numbers within the contract's range, by LSOA; blank throughout if the file has none."""
        import pandas as pd

        if name not in self.own:
            return pd.Series(float("nan"), index=self.frame.index)
        limits = TABLES["areas"].columns[name]
        low, high = (0.0, 1.0) if limits.kind == "flag" else (limits.low, limits.high)
        values = numbers(self.found, self.own[name], self.raw[name], low=low, high=high)
        return pd.Series(values, index=self.raw["lsoa11"]).reindex(self.frame.index)


def _side(at: Folder, role: str, key: str, columns: dict[str, str]) -> _Side | None:
    """Read a file with one row an LSOA of 2011; Wales is left out, a code that stands twice refused."""
    found = at.one(role)
    if found is None:
        return None
    own = {name: found.column(column) for name, column in columns.items() if found.column(column)}
    raw = texts(found, {"lsoa11": found.column(key), **own})
    code = raw["lsoa11"]
    good = code.str.fullmatch(r"[EW]01\d{6}").fillna(False).to_numpy(dtype=bool)
    refuse(found, found.column(key), ~good, code, "an LSOA code expected (E01 and six digits)", "Correct the cell.")
    twice = code.duplicated().to_numpy()
    refuse(found, found.column(key), twice, code, "this LSOA stands twice", "Keep one row for each LSOA.")
    # blank columns for what the file has not, so that every side has the same shape
    raw = raw.assign(**{name: None for name in columns if name not in own})
    return _Side(found, raw, raw[code.str.startswith("E01")].set_index("lsoa11"), own)


def _lookup(at: Folder) -> geography.Lookup:
    found = at.one("lookup")
    assert found is not None  # held by _required
    return geography.read_lookup(found)


def _pairs21(at: Folder) -> pd.DataFrame | None:
    found = at.one("lookup21")
    return geography.read_lookup21(found) if found else None


def _shares(at: Folder, areas: pd.DataFrame) -> pd.DataFrame:
    """How counts on LSOAs of 2001, and of 2021 where that lookup is there, go to those of 2011: by residents."""
    import pandas as pd

    pairs = pd.concat([_lookup(at).pairs, *([] if (later := _pairs21(at)) is None else [later])])
    pairs = pairs[~pairs["source"].isin(areas["lsoa11"])].reset_index(drop=True)  # a code of 2011 stays where it is
    return geography.shares(pairs, areas.set_index("lsoa11")["population"].astype(float))


def _areas(at: Folder) -> tuple[pd.DataFrame, list[str]]:
    """The table `areas` without the treated columns, and notes."""
    import numpy as np
    import pandas as pd

    said: list[str] = []
    lookup = _lookup(at)
    frame = _side(at, "frame", "lsoa11", {"name": "name", **FRAME})
    rural = _side(at, "rural", "LSOA11CD|code", {"ruc": "RUC11CD", "name": "LSOA11NM"})
    denominators = {"name": r"LSOA name \(2011\)", "population": "Total population.*"}
    people = _side(at, "population", r"LSOA code \(2011\)", denominators)
    sides = [s for s in (frame, rural, people) if s is not None]

    base = lookup.lsoa11.set_index("lsoa11")
    extra = sorted(set().union(*(s.frame.index for s in sides)) - set(base.index))
    if extra:
        # the ONS lookup in circulation lacks a few LSOAs that were made in 2011
        base = pd.concat([base, pd.DataFrame({"change": "X"}, index=pd.Index(extra, name="lsoa11"))]).sort_index()
        said.append(
            f"{len(extra)} LSOAs are not in the lookup ({', '.join(extra[:4])}{', …' if len(extra) > 4 else ''}): "
            f"change set to X, scores of 2010 blank unless the prepared frame has them."
        )
    names = base["name"]
    for side in sides:
        names = names.fillna(side.frame["name"].reindex(base.index))
    stem = names.str.replace(r"[A-Z]$", "", regex=True)  # "Adur 001A" is of the MSOA "Adur 001"
    town = names.str.replace(r" \d{3}[A-Z]$", "", regex=True)
    by_town = pd.Series(base["district"].to_numpy(), index=town).dropna().groupby(level=0).first()
    district = base["district"].fillna(town.map(by_town))
    if frame is not None:
        district = district.fillna(frame.frame["district"].reindex(base.index))
        msoa = frame.frame["msoa11"].reindex(base.index).fillna(stem)
    else:
        msoa = stem
    lost = base.index[(district.isna() | msoa.isna()).to_numpy()]
    if len(lost):
        raise DataError(
            f"{_lookup_name(at)}: {len(lost):,} LSOAs have no name or district, the first is {lost[0]}. Use the ONS "
            f"lookup with the columns LSOA11NM and LAD11CD, or put the rural-urban file with LSOA11NM beside it."
        )

    out = pd.DataFrame({"msoa11": msoa, "district": district, "change": base["change"]}, index=base.index)
    scores, region01 = _scores_2001(at, said)
    out["region"] = _region(at, lookup, region01, out["district"], frame)
    fresh = geography.to_2011(scores, lookup.pairs, _population_by(at, "population_2001")).reindex(base.index)
    if len(scores.columns):
        weighted = "population-weighted" if at.one("population_2001") else "simple (no population of 2001 LSOAs)"
        count = lookup.lsoa11["change"].value_counts()
        said.append(
            f"Indices of 2010 brought from 2001 to 2011 LSOAs: {count.get('U', 0):,} unchanged, "
            f"{count.get('S', 0):,} from splits inherit, {count.get('M', 0):,} merged "
            f"and {count.get('X', 0):,} complex take the {weighted} mean."
        )
    for name in ("imd", *DOMAINS):
        column = fresh[name] if name in fresh else pd.Series(np.nan, index=base.index)
        if frame is not None:
            column = column.fillna(frame.number(name).reindex(base.index))
        out[name] = column
    out["rural"] = _rural(base.index, rural, frame)
    out["population"] = _population(base.index, people, frame, said)
    out["earlier_funding"] = np.nan
    others = _side(at, "programmes", "lsoa11", {"other_programme": "programme"})
    out["other_programme"] = None if others is None else others.frame["other_programme"].reindex(base.index)
    return out.reset_index(names="lsoa11"), said


def _lookup_name(at: Folder) -> str:
    """The lookup's file name, for messages."""
    found = at.one("lookup")
    return found.name if found else "lookup"


def _scores_2001(at: Folder, said: list[str]) -> tuple[pd.DataFrame, pd.Series]:
    """Scores on 2001 LSOAs (index source; imd and the domains there are) and the region's name of each LSOA."""
    import pandas as pd

    scores: dict[str, pd.Series] = {}
    region = pd.Series(dtype=object)
    for name in ("imd", *DOMAINS):
        found = at.one(name)
        if found is None:
            continue
        limits = TABLES["areas"].columns[name]
        column = found.column(ROLES[name][0][1])
        key = found.column("LSOA CODE")
        gor = {n: found.column(c) for n, c in {"region": "GOR NAME"}.items() if found.column(c)}
        raw = texts(found, {"lsoa01": key, "value": column, **gor})
        code = raw["lsoa01"]
        good = code.str.fullmatch(r"[EW]01\d{6}").fillna(False).to_numpy(dtype=bool)
        refuse(found, key, ~good, code, "a 2001 LSOA code expected (E01 and six digits)", "Correct the cell.")
        refuse(found, key, code.duplicated().to_numpy(), code, "this LSOA stands twice", "Keep one row for each LSOA.")
        scores[name] = pd.Series(numbers(found, column, raw["value"], low=limits.low, high=limits.high), index=code)
        if gor and region.empty:
            known = raw["region"].map(_region_name)
            wrong = known.isna().to_numpy() & raw["region"].notna().to_numpy()
            todo = f"One of {', '.join(REGIONS)}."
            refuse(found, gor["region"], wrong, raw["region"], "a region of England expected", todo)
            region = pd.Series(known.to_numpy(), index=code)
    if "imd" not in scores:
        said.append("No Indices of 2010 on 2001 LSOAs: the score is the prepared frame's, blank where LSOAs changed.")
    return pd.DataFrame(scores).rename_axis("source"), region


def _region_name(name: object) -> str | None:
    """The contract's name of a region, from any of the publishers' spellings; None if it is none."""
    plain = str(name).strip().lower().replace("&", "and").removesuffix(" region").removesuffix(" gor")
    same = {"east of england": "east", "eastern": "east", "yorkshire and humber": "yorkshire and the humber"}
    plain = same.get(plain, plain)
    return next((region for region in REGIONS if region.lower() == plain), None)


def _region(
    at: Folder, lookup: geography.Lookup, region01: pd.Series, district: pd.Series, frame: _Side | None
) -> pd.Series:
    """Region of each 2011 LSOA: its first parent's, else its district's, else the frame's."""
    parents = lookup.pairs.assign(region=lookup.pairs["source"].map(region01)).dropna(subset=["region"])
    own = parents.sort_values(["lsoa11", "source"]).groupby("lsoa11")["region"].first().reindex(district.index)
    if frame is not None:
        own = own.fillna(frame.frame["region"].map(_region_name).reindex(district.index))
    by_district = own.groupby(district).first()
    region = own.fillna(district.map(by_district))
    if region.isna().any():
        first = region.index[region.isna().to_numpy()][0]
        raise DataError(
            f"{_lookup_name(at)}: no region for {int(region.isna().sum()):,} LSOAs, the first is {first} (district "
            f"{district[first]}). Use the Indices 2010 file with the column GOR NAME, for the whole of England."
        )
    return region


def _population_by(at: Folder, role: str) -> pd.Series | None:
    """Residents by LSOA of another census, from the file in `role`; None without one."""
    import pandas as pd

    found = at.one(role)
    if found is None:
        return None
    key, column = (found.column(pattern) for pattern in ROLES[role][0])
    raw = texts(found, {"source": key, "value": column})
    refuse(found, key, raw["source"].duplicated().to_numpy(), raw["source"], "this LSOA stands twice", "Keep one row.")
    return pd.Series(numbers(found, column, raw["value"], low=0), index=raw["source"])


def _rural(index: pd.Index, rural: _Side | None, frame: _Side | None) -> pd.Series:
    """True where RUC11CD is D1 to F2 (rural), false where A1 to C2 (urban), blank where neither file says."""
    import pandas as pd

    out = pd.Series(pd.NA, index=index, dtype="boolean")
    if rural is not None:
        seen = rural.raw["ruc"]
        wrong = ~(seen.str.fullmatch("[A-F][12]") | seen.isna()).to_numpy(dtype=bool)
        todo = "Use the 2011 classification of LSOAs."
        refuse(rural.found, rural.own["ruc"], wrong, seen, "a class from A1 to F2 expected", todo)
        code = rural.frame["ruc"]
        out = code.str[0].isin(list("DEF")).astype("boolean").mask(code.isna()).reindex(index)
    if frame is not None:
        flag = frame.number("rural").reindex(index)
        out = out.fillna((flag > 0.5).astype("boolean").mask(flag.isna()))
    return out


def _population(index: pd.Index, people: _Side | None, frame: _Side | None, said: list[str]) -> np.ndarray:
    import numpy as np
    import pandas as pd

    out = pd.Series(np.nan, index=index)
    if frame is not None:
        out = frame.number("population").reindex(index)
    if people is not None:
        blank = int(out.isna().sum())
        out = out.fillna(people.number("population").reindex(index))
        if blank:
            total = people.own["population"]
            said.append(f"Population of {blank:,} LSOAs is '{total}' ({people.found.name}): after the programme began.")
    return out.to_numpy(dtype=float)


def _panel(request: Request, areas: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The table `area_panel`: every LSOA in every year that SAMHI or the police have, and notes."""
    import numpy as np
    import pandas as pd

    at = _data(request)
    known = areas["lsoa11"].to_numpy(dtype=object)
    said: list[str] = []
    parts: list[pd.DataFrame] = []
    if at.roles.get("samhi"):
        frame, more = samhi.read(at.roles["samhi"], set(known))
        parts.append(frame)
        said += more
    if at.street:
        frame, more = police.read(at.street, areas, request.min_months, _shares(at, areas))
        parts.append(frame)
        said += more
    years = np.array(sorted(set().union(*(set(p["year"]) for p in parts))), dtype=int)
    place = pd.Series(np.arange(len(known)), index=known)
    panel: dict[str, np.ndarray] = {"lsoa11": np.repeat(known, len(years)), "year": np.tile(years, len(known))}
    for column in ("samhi", "months", *CRIMES):
        panel[column] = np.full(len(known) * len(years), np.nan)
    for part in parts:
        row = place[part["lsoa11"]].to_numpy() * len(years) + np.searchsorted(years, part["year"].to_numpy())
        for column in part.columns.intersection(list(panel)).difference(["lsoa11", "year"]):
            panel[column][row] = part[column].to_numpy(dtype=float)
    return crime.add_rates(pd.DataFrame(panel), areas), said
