"""Levels of a subgroup: which one a value falls into."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from biglocal.model import Subgroup


def classify(subgroup: Subgroup, values: pd.Series, reference: pd.Series) -> NDArray[np.object_]:
    """The level of each value, '' for none. Quantile cuts are taken over `reference` (the treated)."""
    out = np.full(len(values), "", dtype=object)
    if subgroup.cuts or subgroup.cuts_quantile:
        number = values.to_numpy(dtype=float, na_value=np.nan)
        cuts = list(subgroup.cuts)
        if subgroup.cuts_quantile:
            base = reference.to_numpy(dtype=float, na_value=np.nan)
            cuts = list(np.nanquantile(base, subgroup.cuts_quantile))
        known = np.isfinite(number)
        out[known] = np.asarray(subgroup.levels, dtype=object)[np.searchsorted(cuts, number[known], side="left")]
        return out
    plain = values.astype(object)
    for level in subgroup.levels:
        wanted = dict(subgroup.values).get(level, (level,))
        out[plain.isin(list(wanted)).to_numpy()] = level
    return out
