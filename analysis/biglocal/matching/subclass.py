"""Subclassification on the propensity score (Rosenbaum and Rubin 1984, JASA 79:516)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from biglocal.matching._distance import Propensity, space
from biglocal.matching._units import Estimand, arrange, check_any, check_unused, stratified
from biglocal.model import Inapplicable

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
    classes: int = 6,
    distance: Propensity = "logit",
    penalty: float = 0.0,
    score: str | None = None,
) -> Match:
    """Weight rows of `frame` within `classes` of the score, and `exact` blocks, as `_units.stratified` says.

    Classes end at quantiles of the score among the treated for the ATT, among all for the ATE (as in MatchIt;
    by linear interpolation, so that the scale, `distance`, can move an end between two units). Units in classes
    without both groups have weight 0; nobody is moved to another class.

    Raises `Inapplicable` for input that `_units.arrange` and `_distance.space` refuse, fewer than two classes,
    a ratio or caliper, and where no class has both groups.
    """
    check_unused("subclassification", ratio, caliper)
    if classes < 2:
        raise Inapplicable(f"matching: {classes} class; subclassification needs at least two.")
    units = arrange(frame, treated, exact)
    where = space(units, covariates, distance=distance, penalty=penalty, score=score)
    line = where.point[:, 0]
    among = line[units.treated] if estimand == "ATT" else line
    ends = np.quantile(among, np.arange(1, classes) / classes)
    stratum = units.block * classes + np.searchsorted(ends, line, side="right")
    weights, sets = stratified(units, np.unique(stratum, return_inverse=True)[1], estimand)
    check_any(bool(weights.any()), "a class")
    return units.match(weights, sets, where.score)
