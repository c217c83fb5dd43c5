"""From the LSOAs of 2001 to those of 2011, by the change codes of the Office for National Statistics.

A score published on 2001 LSOAs reaches a 2011 LSOA from the 2001 LSOAs that the lookup records as its parents:

- U unchanged and S split: it inherits the score of its one parent;
- M merged: the mean of its parents, weighted by their population where that is at hand, else the simple mean;
- X complex (boundaries redrawn across several): the same mean over the recorded parents. It is approximate:
  the lookup does not say which share of a parent went where. It concerns 0.4% of LSOAs.

Where a parent has no score the child has none: a mean of some of the parents would pass for the whole.
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

    `pairs` has one row a pair of 2001 and 2011 LSOA (lsoa01, lsoa11, change); `lsoa11` has one row a 2011
    LSOA, in the order of the codes (lsoa11, name, district, change).
    """

    pairs: pd.DataFrame
    lsoa11: pd.DataFrame


def read_lookup(found: Found) -> Lookup:
    """Read the lookup `LSOA01CD, LSOA11CD, CHGIND, LAD11CD` (ONS); Wales is left out.

    Raises `DataError` for an unknown change code, a pair that stands twice with different content, a 2011
    LSOA with two change codes or districts, or a file without an LSOA of England.
    """
    wanted = {"lsoa01": "LSOA01CD", "lsoa11": "LSOA11CD", "change": "CHGIND", "district": "LAD11CD", "name": "LSOA11NM"}
    own = {key: found.column(column) for key, column in wanted.items() if found.column(column)}
    pairs = texts(found, own)
    for key in ("lsoa01", "lsoa11", "change", "district"):
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
    return Lookup(pairs[["lsoa01", "lsoa11", "change"]].reset_index(drop=True), areas.reset_index(drop=True))


def to_2011(values: pd.DataFrame, pairs: pd.DataFrame, population: pd.Series | None = None) -> pd.DataFrame:
    """Numbers by 2001 LSOA (index lsoa01, one column each) brought to 2011: index lsoa11, the same columns.

    `population` (index lsoa01, persons) weights the parents of a merged or complex LSOA; a child any of
    whose parents has no population takes the simple mean. Rules: see the module.
    """
    import numpy as np
    import pandas as pd

    parents = values.reindex(pairs["lsoa01"])
    weight = np.ones(len(pairs))
    child = pairs["lsoa11"].to_numpy()
    if population is not None:
        known = population.reindex(pairs["lsoa01"]).to_numpy(dtype=float)
        whole = np.isfinite(known) & (known > 0)
        complete = pairs.assign(whole=whole).groupby("lsoa11")["whole"].transform("all").to_numpy(dtype=bool)
        weight = np.where(complete, known, 1.0)
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
        return f"a 2001 code, replaced in 2011 by {became}. Give the 2011 code"
    if code.startswith("W01"):
        return "an LSOA of Wales; the programme is in England. Drop the row"
    if not re.fullmatch(r"E01\d{6}", code):
        return "not an LSOA code of England (E01 and six digits). Correct the cell"
    if known and code > max(known):
        return "a 2021 code, by its number. Map it back to 2011 with the ONS lookup from 2011 to 2021 LSOAs"
    return "no LSOA of England in 2011. Correct the cell"
