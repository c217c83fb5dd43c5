"""Exact matching: strata of equal values of every covariate."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from biglocal.matching._units import Estimand, arrange, check_any, check_unused, groups, stratified

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

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
) -> Match:
    """Weight rows of `frame` within strata of equal `covariates` (and `exact`), as `_units.stratified` says.

    Units in strata without both groups have weight 0. A set's name, in `sets`, is its first treated unit.
    Raises `Inapplicable` for missing values, a ratio or caliper, and where no stratum has both groups.
    """
    check_unused("exact matching", ratio, caliper)
    units = arrange(frame, treated)
    weights, sets = stratified(units, groups(units.frame, [*covariates, *exact]), estimand)
    check_any(bool(weights.any()), "all values")
    return units.match(weights, sets, np.full(len(weights), np.nan))
