"""Street-level crime of data.police.uk: from rows to counts by LSOA, year and category.

Archives are read month by month and force by force, as zips or unpacked; only two columns are kept. A place
counts what its own force recorded. A district belongs to the force that records most of its crime, if that
force records crime in at least half of its LSOAs (police areas are made of whole districts; a neighbour's file
holds a few crimes placed across the border). A year with fewer months than asked for is blank, and so is a
category before it existed; an LSOA of a covered force without a crime in a full year is a true zero.

Categories: six to August 2011, eleven to April 2013, fourteen since. Criminal damage first stands apart in
September 2011; "Violent crime" became "Violence and sexual offences" in May 2013 and is read as one series.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from biglocal.data.folder import Street, table
from biglocal.data.tables import CRIMES, FIRST_YEAR, LAST_YEAR

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

CATEGORIES = {
    "Burglary": "burglary",
    "Anti-social behaviour": "antisocial_behaviour",
    "Criminal damage and arson": "criminal_damage",
    "Violent crime": "violence",
    "Violence and sexual offences": "violence",
}
SINCE = {"criminal_damage": "2011-09"}  # month from which a category exists; the others are there from the start
NOT_TERRITORIAL = ("btp",)  # records crime on railways everywhere, so it is the force of no place


def months(street: tuple[Street, ...]) -> dict[tuple[str, int, str], int]:
    """Months at hand for each force, year and category, from the files' names alone."""
    at_hand: Counter[tuple[str, int, str]] = Counter()
    for one in street:
        for crime in CRIMES:
            if one.month >= SINCE.get(crime, ""):
                at_hand[one.force, int(one.month[:4]), crime] += 1
    return dict(at_hand)


def short(street: tuple[Street, ...], min_months: int) -> dict[str, str]:
    """For each category that no force has in full for any year: what is at hand, in a sentence."""
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


def read(street: tuple[Street, ...], areas: pd.DataFrame, min_months: int) -> tuple[pd.DataFrame, list[str]]:
    """Counts by LSOA and year, and notes in words.

    `areas` has lsoa11 and district. The frame has one row an LSOA and year with police data somewhere:
    lsoa11, year, months (of the LSOA's force; 0 where that year has none; blank where the force is not
    known), and the categories of `CRIMES` in crimes, blank as the module says. Raises `DataError` for a
    damaged archive or a file without the columns `LSOA code` and `Crime type`.
    """
    import numpy as np
    import pandas as pd

    within = [one for one in street if FIRST_YEAR <= int(one.month[:4]) <= LAST_YEAR]
    notes = []
    if late := len(street) - len(within):
        notes.append(f"{late:,} monthly police files outside {FIRST_YEAR} to {LAST_YEAR}: not used.")
    if not within:
        return pd.DataFrame({name: [] for name in ("lsoa11", "year", "months", *CRIMES)}), notes
    codes = areas["lsoa11"].to_numpy(dtype=object)
    years = sorted({int(one.month[:4]) for one in within})
    forces = sorted({one.force for one in within})
    recorded = [_count([one for one in within if one.force == force], codes, years) for force in forces]
    rows, nowhere = sum(r.rows for r in recorded), sum(r.nowhere for r in recorded)
    notes.append(
        f"{rows:,} street-level rows of {len(within):,} monthly files read; {nowhere:,} have no LSOA and count nowhere."
    )
    total = np.zeros((len(forces), len(codes)))
    for f, force in enumerate(recorded):
        total[f, force.places] = force.counts[..., -1].sum(axis=1)
    own = _own_force(total, areas, [f not in NOT_TERRITORIAL for f in forces])

    at_hand = months(tuple(within))
    blank = (len(codes), len(years))
    out = {name: np.full(blank, np.nan) for name in ("months", *CRIMES)}
    counted = 0
    for f, force in enumerate(recorded):
        mine = own == f
        counts = np.zeros((*blank, len(CRIMES) + 1), dtype=np.int64)
        counts[force.places] = force.counts
        counted += int(counts[mine][..., -1].sum())
        # a place without any crime in a year with codes of 2021: its crimes may stand there, so no true zero
        unseen = (counts[..., -1] == 0) & (force.elsewhere > 0)
        for y, year in enumerate(years):
            out["months"][mine, y] = sum(o.force == forces[f] and int(o.month[:4]) == year for o in within)
            for c, crime in enumerate(CRIMES):
                if at_hand.get((forces[f], year, crime), 0) >= min_months:
                    good = mine & ~unseen[:, y]
                    out[crime][good, y] = counts[good, y, c]
    if foreign := int(total.sum()) - counted:
        notes.append(f"{foreign:,} crimes recorded by another force than the place's own: not counted.")
    if strange := sum(int(r.elsewhere.sum()) for r in recorded):
        notes.append(
            f"{strange:,} crimes carry a code of England that is not of 2011 (recent files carry 2021 codes): not "
            f"counted, and an LSOA without any crime in such a year of its force is left blank."
        )
    keys = {"lsoa11": np.repeat(codes, len(years)), "year": np.tile(np.array(years, dtype=int), len(codes))}
    return pd.DataFrame({**keys, **{name: column.reshape(-1) for name, column in out.items()}}), notes


@dataclass(frozen=True, slots=True)
class _Recorded:
    """What one force recorded: `counts` (places, years, categories and any) at the positions `places`.

    `rows` were read, `nowhere` had no LSOA, `elsewhere` (years,) had a code of England not of 2011.
    """

    places: np.ndarray
    counts: np.ndarray
    rows: int
    nowhere: int
    elsewhere: np.ndarray


def _count(files: list[Street], codes: np.ndarray, years: list[int]) -> _Recorded:
    """Count the files of one force, one after another; `codes` are the LSOAs of 2011."""
    import numpy as np
    import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]
    import pyarrow.compute as pc  # type: ignore[import-untyped, unused-ignore]

    known, kinds = pa.array(codes, pa.string()), pa.array(list(CATEGORIES), pa.string())
    crime_of = np.array([CRIMES.index(c) for c in CATEGORIES.values()])
    counts = np.zeros((len(codes), len(years), len(CRIMES) + 1), dtype=np.int32)
    elsewhere = np.zeros(len(years), dtype=np.int64)
    rows = nowhere = 0
    for one in files:
        y = years.index(int(one.month[:4]))
        got = table(one, {"lsoa": "LSOA code", "kind": "Crime type"})
        rows += got.num_rows
        nowhere += got["lsoa"].null_count
        place = pc.fill_null(pc.index_in(got["lsoa"], value_set=known), -1).to_numpy()
        kind = pc.fill_null(pc.index_in(got["kind"], value_set=kinds), -1).to_numpy()
        strange = pc.fill_null(pc.starts_with(got["lsoa"], "E01"), False).to_numpy() & (place < 0)
        elsewhere[y] += int(strange.sum())
        counts[:, y, -1] += np.bincount(place[place >= 0], minlength=len(codes)).astype(np.int32)
        both = (place >= 0) & (kind >= 0)
        cell = place[both] * len(CRIMES) + crime_of[kind[both]]
        found = np.bincount(cell, minlength=len(codes) * len(CRIMES)).astype(np.int32)
        counts[:, y, :-1] += found.reshape(len(codes), len(CRIMES))
    places = np.flatnonzero(counts[..., -1].any(axis=1))
    return _Recorded(places, counts[places], rows, nowhere, elsewhere)


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
