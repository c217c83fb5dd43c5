"""LSOAs of 2001 and of 2021 brought to those of 2011, by the change codes of the Office for National Statistics.

A lookup pairs the LSOAs of one census with those of the next and says of each pair how it came about: U unchanged,
S one was split into several, M several were merged into one, X complex (boundaries redrawn across several). Here
the 2011 LSOA is always the target; `source` is the LSOA of 2001 or 2021. Two kinds of quantity need two rules:

- a score or a share (`to_2011`) is a mean over the sources of a 2011 LSOA: with one source it is inherited
  untouched, with several weighted by the sources' populations where all are at hand, else the simple mean;
- a count (`counts_to_2011`) is divided among the 2011 LSOAs of a source: with one it goes there whole, with several
  by the populations of these 2011 LSOAs where all are at hand, else evenly. What goes in comes out.

Both are approximate for X: the lookup does not say which share of a source went where. It concerns 0.4% of the
LSOAs of 2011. Where a source is blank its targets are: a part would pass for the whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from biglocal.data.folder import Found, refuse, texts
from biglocal.model import DataError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

CHANGES = ("U", "S", "M", "X")


@dataclass(frozen=True, slots=True)
class Lookup:
    """The ONS lookup for England.

    `pairs` has one row a pair of 2001 and 2011 LSOA (source, lsoa11, change); `lsoa11` has one row a 2011
    LSOA, in the order of the codes (lsoa11, name, district, change).
    """

    pairs: pd.DataFrame
    lsoa11: pd.DataFrame


def read_lookup(found: Found) -> Lookup:
    """Read the lookup `LSOA01CD, LSOA11CD, CHGIND, LAD11CD` (ONS); Wales is left out.

    Raises `DataError` for an unknown change code or one that its pairs belie, a pair that stands twice with
    different content, a 2011 LSOA with two change codes or districts, or a file without an LSOA of England.
    """
    wanted = {"source": "LSOA01CD", "lsoa11": "LSOA11CD", "change": "CHGIND", "district": "LAD11CD", "name": "LSOA11NM"}
    own = {key: found.column(column) for key, column in wanted.items() if found.column(column)}
    pairs = texts(found, own)
    for key in ("source", "lsoa11", "change", "district"):
        refuse(found, own[key], pairs[key].isna().to_numpy(), pairs[key], "blank cell", "Download the lookup again.")
    refuse(
        found, own["change"], ~pairs["change"].isin(CHANGES).to_numpy(), pairs["change"],
        "U, S, M or X expected", "Use the ONS lookup from 2001 to 2011 LSOAs.",
    )  # fmt: skip
    if "name" not in own:
        pairs["name"] = None
    pairs = pairs[pairs["lsoa11"].str.startswith("E01")].drop_duplicates()
    if pairs.empty:
        raise DataError(f"{found.name}: column LSOA11CD has no LSOA of England (E01…). Use the ONS lookup.")
    areas = pairs[["lsoa11", "name", "district", "change"]].drop_duplicates().sort_values("lsoa11")
    refuse(
        found, own["lsoa11"], pairs.index.isin(areas.index[areas["lsoa11"].duplicated()]), pairs["lsoa11"],
        "this 2011 LSOA has two names, districts or change codes", "Use the ONS lookup as published.",
    )  # fmt: skip
    _hold_changes(found, own["change"], pairs, older="source", newer="lsoa11")
    return Lookup(pairs[["source", "lsoa11", "change"]].reset_index(drop=True), areas.reset_index(drop=True))


def read_lookup21(found: Found) -> pd.DataFrame:
    """Pairs (source: the 2021 code, lsoa11, change) of the lookup `LSOA11CD, LSOA21CD, CHGIND` (ONS), England only.

    Raises `DataError` for a blank cell, an unknown change code or one that its pairs belie.
    """
    own = {key: found.column(c) for key, c in {"source": "LSOA21CD", "lsoa11": "LSOA11CD", "change": "CHGIND"}.items()}
    pairs = texts(found, own)
    for key in own:
        refuse(found, own[key], pairs[key].isna().to_numpy(), pairs[key], "blank cell", "Download the lookup again.")
    refuse(
        found, own["change"], ~pairs["change"].isin(CHANGES).to_numpy(), pairs["change"],
        "U, S, M or X expected", "Use the ONS lookup from 2011 to 2021 LSOAs.",
    )  # fmt: skip
    pairs = pairs[pairs["lsoa11"].str.startswith("E01")].drop_duplicates()
    if pairs.empty:
        raise DataError(f"{found.name}: column LSOA11CD has no LSOA of England (E01…). Use the ONS lookup.")
    _hold_changes(found, own["change"], pairs, older="lsoa11", newer="source")
    return pairs.reset_index(drop=True)


def _hold_changes(found: Found, column: str, pairs: pd.DataFrame, *, older: str, newer: str) -> None:
    """Refuse a change code that its pairs belie: U is one to one under one code, S one to many, M many to one."""
    import numpy as np

    children = pairs.groupby(older)[newer].transform("nunique").to_numpy()
    parents = pairs.groupby(newer)[older].transform("nunique").to_numpy()
    change = pairs["change"].to_numpy(dtype=object)
    same = pairs[older].to_numpy(dtype=object) == pairs[newer].to_numpy(dtype=object)
    good = np.select(
        [change == "U", change == "S", change == "M"],
        [same & (children == 1) & (parents == 1), (children > 1) & (parents == 1), (children == 1) & (parents > 1)],
        True,
    )
    bad = pairs[~good.astype(bool)]
    if len(bad):
        one = bad.iloc[0]
        raise DataError(
            f"{found.name}: column {column}, row {int(bad.index[0]) + 2}: {one['change']!r} for {one[older]} and "
            f"{one[newer]}, which other rows belie (U is one to one, S one to many, M many to one); {len(bad):,} such "
            f"row{'s' if len(bad) > 1 else ''}. Use the lookup as published, whole."
        )


def shares(pairs: pd.DataFrame, population: pd.Series | None = None) -> pd.DataFrame:
    """Which share of a count at each source goes to which 2011 LSOA: source, lsoa11, share; a source's sum to one.

    `population` (index lsoa11, persons) divides a source among several; evenly where one of them has none.
    """
    import numpy as np

    weight = np.ones(len(pairs))
    if population is not None:
        weight = _known(population.reindex(pairs["lsoa11"]).to_numpy(dtype=float), pairs["source"].to_numpy())
    codes, sources = _codes(pairs["source"].to_numpy())
    total = np.bincount(codes, weights=weight, minlength=len(sources))
    return pairs[["source", "lsoa11"]].assign(share=weight / total[codes]).reset_index(drop=True)


def counts_to_2011(values: pd.DataFrame, pairs: pd.DataFrame, population: pd.Series | None = None) -> pd.DataFrame:
    """Counts by source (index source, one column each) brought to 2011: index lsoa11, columns and totals the same.

    A 2011 LSOA none of whose sources is in `values` is blank. Raises `DataError` for a source that the lookup
    does not have: its count would be lost.
    """
    import numpy as np
    import pandas as pd

    lost = values.index.difference(pd.Index(pairs["source"]))
    if len(lost):
        raise DataError(
            f"{len(lost):,} LSOAs are not in the lookup, the first is {lost[0]}: their counts would be lost. Drop "
            f"them, or use the lookup of their census."
        )
    to = shares(pairs, population)
    codes, children = _codes(to["lsoa11"].to_numpy())
    out = {
        str(name): np.bincount(
            codes, weights=to["share"].to_numpy() * values[name].reindex(to["source"]).to_numpy(dtype=float)
        )
        for name in values
    }
    return pd.DataFrame(out, index=pd.Index(children, name="lsoa11"))


def account(codes: pd.Index, pairs: pd.DataFrame) -> dict[str, int]:
    """How many sources `codes` are unchanged (U), split (S), merged (M), complex (X), or unknown to the lookup."""
    change = pairs.drop_duplicates("source").set_index("source")["change"].reindex(codes.unique())
    seen = change.value_counts()
    return {**{c: int(seen.get(c, 0)) for c in CHANGES}, "unknown": int(change.isna().sum())}


def to_2011(values: pd.DataFrame, pairs: pd.DataFrame, population: pd.Series | None = None) -> pd.DataFrame:
    """Scores or shares by source (index source, one column each) brought to 2011: index lsoa11, the same columns.

    `population` (index source, persons) weights the sources of a 2011 LSOA with several; one any of whose
    sources has no population takes the simple mean. Rules: see the module.
    """
    import numpy as np
    import pandas as pd

    parents = values.reindex(pairs["source"])
    weight = np.ones(len(pairs))
    child = pairs["lsoa11"].to_numpy()
    if population is not None:
        weight = _known(population.reindex(pairs["source"]).to_numpy(dtype=float), child)
    columns: dict[str, np.ndarray] = {}
    codes, children = _codes(child)
    total = np.bincount(codes, weights=weight)
    for name in parents.columns:  # NaN of one parent reaches the sum: blank, as the rule says
        value = parents[name].to_numpy(dtype=float)
        mean = np.bincount(codes, weights=weight * value) / total
        alone = np.bincount(codes) == 1
        first = np.full(len(children), np.nan)
        first[codes] = value
        columns[str(name)] = np.where(alone, first, mean)  # one parent: its number, untouched by the division
    return pd.DataFrame(columns, index=pd.Index(children, name="lsoa11"))


def _known(weight: np.ndarray, group: np.ndarray) -> np.ndarray:
    """`weight` (n,) where the whole of its group has one above 0, else 1: never a mixture within a group."""
    import numpy as np

    codes, groups = _codes(group)
    whole = np.isfinite(weight) & (weight > 0)
    lacking = np.bincount(codes, weights=~whole, minlength=len(groups)) > 0
    return np.where(lacking[codes], 1.0, weight)


def _codes(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    import numpy as np

    names, codes = np.unique(keys.astype(object), return_inverse=True)
    return codes, names


def vintage(code: str, known: set[str], parents: dict[str, tuple[str, ...]]) -> str:
    """'' for a 2011 LSOA of England; otherwise what `code` is instead, and what to do, in a sentence.

    `known` holds the 2011 codes; `parents` maps a 2001 code to the 2011 codes it became.
    """
    import re

    if code in known:
        return ""
    if code in parents:
        became = ", ".join(parents[code])
        return f"a 2001 code, replaced in 2011 by {became}. Give the 2011 code, or call the column lsoa01"
    if code.startswith("W01"):
        return "an LSOA of Wales; the programme is in England. Drop the row"
    if not re.fullmatch(r"E01\d{6}", code):
        return "not an LSOA code of England (E01 and six digits). Correct the cell"
    if known and code > max(known):
        return (
            "a 2021 code, by its number. Call the column lsoa21 and put the ONS lookup from 2011 to 2021 LSOAs into "
            "the folder, or give the 2011 code"
        )
    return "no LSOA of England in 2011. Correct the cell"
