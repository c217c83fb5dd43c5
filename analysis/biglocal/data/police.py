"""Street-level crime of data.police.uk: from counts by label to series by LSOA, year and category.

A place counts what its own force recorded. A district belongs to the force that records most of its crime, if that
force records crime in at least half of its LSOAs (police areas are made of whole districts; a neighbour's file
holds a few crimes placed across the border). A year with fewer months than asked for is blank, and so is a
category before it existed; an LSOA of a covered force without a crime in a full year is a true zero.

Categories: six to August 2011, eleven to April 2013, fourteen since (FACTS). A series of `SERIES` adds the labels
that mean the same thing in each of them, and begins when the last of them can be told apart. The three lists are
those of data.police.uk; where a label was divided (theft, public order) there is a wide series with the longer
past beside the narrow ones. "Other crime" of the six held all that has no name there, so it begins with the eleven.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from biglocal.data.street import Counted, count
from biglocal.data.tables import CRIMES, FIRST_YEAR, LAST_YEAR

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from biglocal.data.folder import Street

SIX, ELEVEN, FOURTEEN = "2010-12", "2011-09", "2013-05"  # first months of the three lists
ANTISOCIAL = "Anti-social behaviour"  # incidents, no recorded crimes: not in `all_crime`
SERIES: dict[str, tuple[str, tuple[str, ...]]] = {  # name -> since when it exists, and its labels
    "antisocial_behaviour": (SIX, (ANTISOCIAL,)),
    "burglary": (SIX, ("Burglary",)),
    "robbery": (SIX, ("Robbery",)),
    "vehicle_crime": (SIX, ("Vehicle crime",)),
    "violence": (SIX, ("Violent crime", "Violence and sexual offences")),
    "criminal_damage": (ELEVEN, ("Criminal damage and arson",)),
    "drugs": (ELEVEN, ("Drugs",)),
    "shoplifting": (ELEVEN, ("Shoplifting",)),
    "theft": (ELEVEN, ("Other theft", "Bicycle theft", "Theft from the person")),
    "public_order_and_weapons": (ELEVEN, ("Public disorder and weapons", "Public order", "Possession of weapons")),
    "other_crime": (ELEVEN, ("Other crime",)),
    "bicycle_theft": (FOURTEEN, ("Bicycle theft",)),
    "theft_from_the_person": (FOURTEEN, ("Theft from the person",)),
    "other_theft": (FOURTEEN, ("Other theft",)),
    "public_order": (FOURTEEN, ("Public order",)),
    "possession_of_weapons": (FOURTEEN, ("Possession of weapons",)),
}
ALL = "all_crime"  # every label but antisocial behaviour, those not known here included: the same in all three lists
NAMES = (*SERIES, ALL)
LABELS = tuple(sorted({label for _, labels in SERIES.values() for label in labels}))
# Files of these forces are not used from the month on: Greater Manchester's system changed (FACTS: unreliable).
UNRELIABLE = {"greater-manchester": "2019-07"}
NOT_TERRITORIAL = ("btp",)  # records crime on railways everywhere, so it is the force of no place
THIN = 0.25  # a month with fewer rows than this share of the force's median month is flagged, and used


def since(series: str) -> str:
    """First month (YYYY-MM) in which `series` exists."""
    return SERIES[series][0] if series in SERIES else SIX


def usable(force: str, month: str) -> bool:
    """Whether the force's file of this month counts."""
    return month < UNRELIABLE.get(force, "9999-99")


def months(street: tuple[Street, ...]) -> dict[tuple[str, int, str], int]:
    """Usable months at hand for each force, year and series, from the files' names alone."""
    at_hand: Counter[tuple[str, int, str]] = Counter()
    for one in street:
        if usable(one.force, one.month):
            at_hand.update((one.force, int(one.month[:4]), series) for series in NAMES if one.month >= since(series))
    return dict(at_hand)


def short(street: tuple[Street, ...], min_months: int) -> dict[str, str]:
    """For each crime of the contract that no force has in full for any year: what is at hand, in a sentence."""
    at_hand = months(street)
    out = {}
    for crime in CRIMES:
        best = max((n for (_, _, c), n in at_hand.items() if c == crime), default=0)
        if best < min_months:
            forces = len({one.force for one in street})
            out[crime] = (
                f"police data cover at most {best} of 12 months in any year ({len(street)} monthly files of {forces} "
                f"force{'s' if forces != 1 else ''}) and {min_months} are asked for"
            )
    return out


def read(
    street: tuple[Street, ...], areas: pd.DataFrame, min_months: int, shares: pd.DataFrame | None = None
) -> tuple[pd.DataFrame, list[str]]:
    """Counts by LSOA and year, and notes in words.

    `areas` has lsoa11 and district; `shares` (source, lsoa11, share; `geography.shares`) brings codes of 2001
    and 2021 to 2011. The frame has one row an LSOA and year with police data somewhere: lsoa11, year, months (usable
    ones of the LSOA's force; 0 where that year has none; blank where the force is not known), and the series of
    `NAMES` in crimes, blank as the module says; a count is a fraction only where `shares` divide it.
    Raises `DataError` for a damaged archive or a file without the columns it needs.
    """
    import numpy as np
    import pandas as pd

    within = tuple(one for one in street if FIRST_YEAR <= int(one.month[:4]) <= LAST_YEAR)
    notes = []
    if late := len(street) - len(within):
        notes.append(f"{late:,} monthly police files outside {FIRST_YEAR} to {LAST_YEAR}: not used.")
    if not within:
        return pd.DataFrame({name: [] for name in ("lsoa11", "year", "months", *NAMES)}), notes
    counted = count(within)
    notes += _said(counted)
    codes = areas["lsoa11"].to_numpy(dtype=object)
    forces, years = sorted({one.force for one in within}), sorted({int(one.month[:4]) for one in within})
    crimes, elsewhere, mapped = _placed(counted.crimes, codes, forces, years, shares)
    f, y, place, n = (crimes[name].to_numpy() for name in ("force", "year", "place", "n"))
    total = np.bincount(f * len(codes) + place, weights=n, minlength=len(forces) * len(codes))
    total = total.reshape(len(forces), len(codes))
    own = _own_force(total, areas, [one not in NOT_TERRITORIAL for one in forces])

    mine = own[place] == f
    if foreign := round(float(n[~mine].sum())):
        notes.append(f"{foreign:,} crimes recorded by another force than the place's own: not counted.")
    cell = (place * len(years) + y)[mine]
    kinds = crimes["kind"].to_numpy()[mine]
    size = len(codes) * len(years)
    by_label = np.zeros((len(LABELS) + 1, size))
    for k in range(len(LABELS) + 1):  # the last is for labels that are not known
        of = kinds == (k if k < len(LABELS) else -1)
        by_label[k] = np.bincount(cell[of], weights=n[mine][of], minlength=size)
    anything = by_label.sum(axis=0).reshape(len(codes), len(years)) > 0
    # a place without any crime in a year with codes that are lost: its crimes may stand there, so no true zero
    unseen = ~anything & (elsewhere[own] > 0) & (own >= 0)[:, None]

    at_hand = months(within)
    files = Counter((one.force, int(one.month[:4])) for one in within if usable(one.force, one.month))

    def of_force(value: dict[tuple[str, int], int]) -> np.ndarray:
        table = np.array([[value.get((force, year), 0) for year in years] for force in forces])
        return np.asarray(table[own])

    covered = (own >= 0)[:, None]
    out = {"months": np.where(covered, of_force(dict(files)), np.nan)}
    for series in NAMES:
        labels = SERIES[series][1] if series in SERIES else tuple(x for x in LABELS if x != ANTISOCIAL)
        rows = [LABELS.index(x) for x in labels] + ([len(LABELS)] if series == ALL else [])
        enough = of_force({(g, t): k for (g, t, s), k in at_hand.items() if s == series}) >= min_months
        values = by_label[rows].sum(axis=0).reshape(len(codes), len(years))
        out[series] = np.where(covered & enough & ~unseen, values, np.nan)
    if lost := int(elsewhere.sum()):
        notes.append(
            f"{lost:,} crimes carry a code of England that is not of 2011: not counted, and an LSOA without any crime "
            f"in such a year of its force is left blank. Recent files carry 2021 codes: the ONS lookup from 2011 to "
            f"2021 LSOAs, put into the folder, brings them back."
        )
    if mapped:
        notes.append(f"{mapped:,} crimes carry a code of 2001 or 2021: brought to 2011 by the ONS lookups.")
    keys = {"lsoa11": np.repeat(codes, len(years)), "year": np.tile(np.array(years, dtype=int), len(codes))}
    return pd.DataFrame({**keys, **{name: column.reshape(-1) for name, column in out.items()}}), notes


def coverage(street: tuple[Street, ...]) -> pd.DataFrame:
    """What is at hand and what is not, one row a force and year: force, year, months (usable), rows, nowhere.

    And, as months apart by blanks: `missing` (no file, though another force or month has one on both sides),
    `unreliable` (a file that is not used, see `UNRELIABLE`), `thin` (a file with fewer rows than a quarter of
    the force's median month: used, but look at it).
    """
    import pandas as pd

    files = count(street).files
    lacking = _lacking(files)
    median = files.groupby("force")["rows"].transform("median")
    files = files.assign(
        year=files["month"].str[:4].astype(int),
        thin=files["month"].where(files["rows"] < THIN * median),
        unreliable=["" if usable(f, m) else m for f, m in zip(files["force"], files["month"], strict=True)],
    )
    rows = []
    every = {(f, int(m[:4])) for f, ms in lacking.items() for m in ms} | set(
        zip(files["force"], files["year"], strict=True)
    )
    groups = dict(list(files.groupby(["force", "year"])))
    for force, year in sorted(every):
        g = groups.get((force, year), files.iloc[:0])
        rows.append(
            {
                "force": force,
                "year": year,
                "months": int((g["unreliable"] == "").sum()),
                "rows": int(g["rows"].sum()),
                "nowhere": int(g["nowhere"].sum()),
                "missing": " ".join(m for m in lacking.get(force, ()) if int(m[:4]) == year),
                "unreliable": " ".join(m for m in g["unreliable"] if m),
                "thin": " ".join(g["thin"].dropna()),
            }
        )
    return pd.DataFrame(rows)


def _lacking(files: pd.DataFrame) -> dict[str, list[str]]:
    """Force -> months without a file, between the first and the last month that any force has."""
    first, last = str(files["month"].min()), str(files["month"].max())
    span = [f"{y}-{m:02d}" for y in range(int(first[:4]), int(last[:4]) + 1) for m in range(1, 13)]
    span = [m for m in span if first <= m <= last]
    have = files.groupby("force")["month"].agg(set).to_dict()
    return {str(f): lost for f, here in sorted(have.items()) if (lost := [m for m in span if m not in here])}


def _runs(some: list[str]) -> str:
    """Months as runs: `2019-07 to 2019-09, 2020-01`."""
    out: list[list[str]] = []
    for month in some:
        number = int(month[:4]) * 12 + int(month[5:])
        if out and int(out[-1][-1][:4]) * 12 + int(out[-1][-1][5:]) == number - 1:
            out[-1].append(month)
        else:
            out.append([month])
    return ", ".join(run[0] if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in out)


def _said(counted: Counted) -> list[str]:
    """What a reader should know of the files: rows, rows without a place, doubled and misdated rows, gaps."""
    files = counted.files
    notes = [
        f"{int(files['rows'].sum()):,} street-level rows of {len(files):,} monthly files read; "
        f"{int(files['nowhere'].sum()):,} have no LSOA and count nowhere."
    ]
    if counted.twice:
        notes.append(
            f"{counted.twice:,} rows stand again (same force, crime, LSOA and type): counted once, at the last."
        )
    if misdated := int(files["misdated"].sum()):
        notes.append(f"{misdated:,} rows carry another month than their file's name: not counted.")
    lacking = _lacking(files)
    for force, lost in list(lacking.items())[:5]:
        notes.append(f"{force}: no street-level file for {_runs(lost)}; its areas are blank in years that lack months.")
    if len(lacking) > 5:
        notes.append(f"{len(lacking) - 5} more forces lack months: `biglocal crime` writes the table.")
    for force, month in UNRELIABLE.items():
        if n := int(((files["force"] == force) & (files["month"] >= month)).sum()):
            notes.append(f"{force}: {n} files from {month} on are not reliable and not used.")
    known = set(LABELS)
    strange = counted.crimes[~counted.crimes["label"].isin(known)]
    if len(strange):
        names = sorted(strange["label"].unique())
        notes.append(
            f"{int(strange['n'].sum()):,} rows have a crime type that is in none of the three lists "
            f"({', '.join(names[:4])}{', …' if len(names) > 4 else ''}): in {ALL} only."
        )
    return notes


def _placed(
    crimes: pd.DataFrame, codes: np.ndarray, forces: list[str], years: list[int], shares: pd.DataFrame | None
) -> tuple[pd.DataFrame, np.ndarray, int]:
    """Counts at LSOAs of 2011: force, year, kind (position in `LABELS`, -1 unknown), place, n.

    Beside them crimes at codes of England that could not be placed, (forces, years), and how many were brought back.
    """
    import numpy as np
    import pandas as pd

    f = pd.Index(forces).get_indexer(pd.Index(crimes["force"]))
    y = pd.Index(years).get_indexer(pd.Index(crimes["year"]))
    kind = pd.Index(LABELS).get_indexer(pd.Index(crimes["label"]))
    place = pd.Index(codes).get_indexer(pd.Index(crimes["code"]))
    table = pd.DataFrame({"force": f, "year": y, "kind": kind, "place": place, "n": crimes["n"].to_numpy(dtype=float)})
    code, here = crimes["code"].to_numpy(dtype=object), place >= 0
    parts, mapped = [table[here]], 0
    lost = ~here
    if shares is not None:
        to = shares.assign(place=pd.Index(codes).get_indexer(pd.Index(shares["lsoa11"])))
        back = table[lost].drop(columns="place").assign(source=code[lost])
        moved = back.merge(to[to["place"] >= 0], on="source")
        moved["n"] = moved["n"] * moved["share"]
        parts.append(moved[table.columns])
        found = pd.Series(code).isin(set(to["source"])).to_numpy()
        mapped = int(table["n"][lost & found].sum())
        lost &= ~found
    english = pd.Series(code, dtype="object").str.startswith("E01").to_numpy(dtype=bool)
    gone = table[lost & english]
    elsewhere = np.bincount(
        gone["force"] * len(years) + gone["year"], weights=gone["n"], minlength=len(forces) * len(years)
    )
    return pd.concat(parts, ignore_index=True), elsewhere.reshape(len(forces), len(years)), mapped


def _own_force(recorded: np.ndarray, areas: pd.DataFrame, territorial: list[bool]) -> np.ndarray:
    """The force (its position; -1: none at hand) of each LSOA, from crimes by force and LSOA (forces, lsoas)."""
    import numpy as np
    import pandas as pd

    codes, districts = pd.factorize(areas["district"])
    size = np.bincount(codes, minlength=len(districts))
    crimes = np.zeros((len(recorded), len(districts)))
    seen = np.zeros_like(crimes)
    for f, row in enumerate(recorded):
        if territorial[f]:
            crimes[f] = np.bincount(codes, weights=row, minlength=len(districts))
            seen[f] = np.bincount(codes, weights=row > 0, minlength=len(districts))
    best = crimes.argmax(axis=0)
    covered = seen[best, np.arange(len(districts))] >= np.maximum(size / 2, 1)
    own: np.ndarray = np.where(covered, best, -1)[codes]
    return own
