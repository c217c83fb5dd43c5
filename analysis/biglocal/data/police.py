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
    if len(within) < len(street):
        late = len(street) - len(within)
        notes.append(f"{late:,} monthly police files outside {FIRST_YEAR} to {LAST_YEAR}: not used.")
    order = {code: i for i, code in enumerate(areas["lsoa11"])}
    forces = sorted({one.force for one in within})
    years = sorted({int(one.month[:4]) for one in within})
    force_at, year_at = {f: i for i, f in enumerate(forces)}, {y: i for i, y in enumerate(years)}
    # last place: crimes of any category, for coverage
    counts = np.zeros((len(forces), len(order), len(years), len(CRIMES) + 1), dtype=np.int32)
    rows = nowhere = 0
    elsewhere: Counter[tuple[str, int]] = Counter()
    for one in within:
        f, y = force_at[one.force], year_at[int(one.month[:4])]
        got = table(one, {"lsoa": "LSOA code", "type": "Crime type"})
        rows += got.num_rows
        grouped = got.group_by(["lsoa", "type"], use_threads=False).aggregate([([], "count_all")]).to_pydict()
        for lsoa, kind, n in zip(grouped["lsoa"], grouped["type"], grouped["count_all"], strict=True):
            if lsoa is None:
                nowhere += n
            elif (place := order.get(lsoa)) is None:
                elsewhere[one.force, int(one.month[:4])] += n if lsoa.startswith("E01") else 0
            else:
                counts[f, place, y, -1] += n
                if crime := CATEGORIES.get(kind):
                    counts[f, place, y, CRIMES.index(crime)] += n
    notes.append(
        f"{rows:,} street-level rows of {len(within):,} monthly files read; {nowhere:,} have no LSOA and count nowhere."
    )
    own = _own_force(counts[..., -1].sum(axis=2), areas, [f not in NOT_TERRITORIAL for f in forces])
    place = np.arange(len(order))
    mine = np.where((own >= 0)[:, None, None], counts[own, place], 0)
    foreign = int(counts[..., -1].sum() - mine[..., -1].sum())
    if foreign:
        notes.append(f"{foreign:,} crimes recorded by another force than the place's own: not counted.")
    if total := sum(elsewhere.values()):
        notes.append(
            f"{total:,} crimes carry an LSOA code that is not of 2011 (files of recent date carry 2021 codes): not "
            f"counted, and an LSOA without any crime in such a year of its force is left blank."
        )
    at_hand = months(tuple(within))
    full = np.array([[[at_hand.get((f, y, c), 0) for c in CRIMES] for y in years] for f in forces], dtype=int)
    whole = np.array([[sum(o.force == f and int(o.month[:4]) == y for o in within) for y in years] for f in forces])
    mixed = np.array([[elsewhere[f, y] > 0 for y in years] for f in forces])
    known = (own >= 0)[:, None]
    unseen = mixed[own] & (mine[..., -1] == 0)  # perhaps its crimes stand under a 2021 code: not a true zero
    shape = (len(order), len(years))
    out = {
        "lsoa11": np.repeat(areas["lsoa11"].to_numpy(dtype=object), len(years)),
        "year": np.tile(years, len(order)),
        "months": np.where(known, whole[own], np.nan).reshape(-1),
    }
    for c, crime in enumerate(CRIMES):
        good = known & (full[own][..., c] >= min_months) & ~unseen
        out[crime] = np.where(good, mine[..., c], np.nan).reshape(shape[0] * shape[1])
    return pd.DataFrame(out), notes


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
