"""Coarsened exact matching (Iacus, King and Porro 2012, Political Analysis 20:1): exact on binned covariates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from biglocal.matching._distance import design
from biglocal.matching._units import Estimand, arrange, check_any, check_unused, groups, stratified
from biglocal.model import Inapplicable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from biglocal.model import Match


def match(
    frame: pd.DataFrame,
    *,
    treated: str,
    covariates: Sequence[str],
    ratio: int = 1,
    caliper: float | None = None,
    exact: Sequence[str] = (),
    estimand: Estimand = "ATT",
    cutpoints: Mapping[str, Sequence[float] | int] | None = None,
) -> Match:
    """Weight rows of `frame` within strata of equal bins, as `_units.stratified` says.

    `cutpoints` by covariate: the points that part the bins, or the number of equal bins between the smallest
    and the largest value (0: no bins, equal values). A covariate without an entry gets Sturges' number,
    1 + log2 n rounded up. A value on a point lies in the bin above it. Text and categories are matched on
    equal values. Units in strata without both groups have weight 0.

    Raises `Inapplicable` for covariates that are missing, infinite or constant, cutpoints of what is no numeric
    covariate, a ratio or caliper, and where no stratum has both groups.
    """
    import pandas as pd

    check_unused("coarsened exact matching", ratio, caliper)
    units = arrange(frame, treated)
    points = dict(cutpoints or {})
    bins = units.frame[list(exact)].copy()
    for name in covariates:
        column = units.frame[name]
        x = design(units.frame, [name])[:, 0]
        if pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
            bins[name] = _binned(x, points.pop(name, int(np.ceil(np.log2(len(x)) + 1))))
        else:
            bins[name] = column
    if points:
        raise Inapplicable(f"matching: cutpoints for {', '.join(points)}, which is no numeric covariate.")
    weights, sets = stratified(units, groups(bins, list(bins.columns)), estimand)
    check_any(bool(weights.any()), "all bins")
    return units.match(weights, sets, np.full(len(weights), np.nan))


def _binned(x: NDArray[np.float64], points: Sequence[float] | int) -> NDArray[np.float64]:
    """The number of each value's bin."""
    if not isinstance(points, int):
        return np.searchsorted(np.sort(np.asarray(points, dtype=float)), x, side="right").astype(float)
    if points == 0:
        return x
    # rounded, so that the unit of measurement moves no value across a point
    place = np.floor(np.round((x - x.min()) / np.ptp(x) * points, 9))
    return np.asarray(np.minimum(place, points - 1))
