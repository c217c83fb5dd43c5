"""A fixed number of benchmark units that look, on average, like the treated ones: no sets, equal weights.

The design of Local Trust's comparison (1 July 2025), which set the programme's areas against 29 similarly
deprived ones. How those were chosen is not published; here they are the untreated units nearest to the mean
of the treated ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from biglocal.matching._distance import design
from biglocal.matching._units import arrange
from biglocal.model import Inapplicable, Match

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd


def match(
    frame: pd.DataFrame,
    *,
    treated: str,
    covariates: Sequence[str],
    ratio: int = 1,  # noqa: ARG001  the signature of every method
    caliper: float | None = None,  # noqa: ARG001
    exact: Sequence[str] = (),
    count: int = 29,
) -> Match:
    """Weight 1 for the treated rows of `frame` and for the `count` untreated ones nearest to their mean.

    Nearest by Mahalanobis distance on the covariates, with the covariance of the untreated units; ties go to the
    index's order. Raises `Inapplicable` where there are fewer untreated units, and with exact columns.
    """
    if exact:
        raise Inapplicable("matching: benchmark units stand for all treated ones; leave `exact` out.")
    units = arrange(frame, treated)
    x = design(units.frame, covariates)
    t = units.treated
    if (~t).sum() < count:
        raise Inapplicable(f"matching: {int((~t).sum())} untreated units for {count} benchmarks. Widen the pool.")
    gap = x - x[t].mean(axis=0)
    spread = np.atleast_2d(np.cov(x[~t], rowvar=False))
    distance = np.einsum("ij,ji->i", gap, np.linalg.solve(spread, gap.T))
    # rounded, so that the units a covariate is measured in decide no tie
    rank = np.lexsort((np.arange(len(t)), np.round(np.where(t, np.inf, distance), 10)))
    weights = t.astype(float)
    weights[rank[:count]] = 1.0
    return units.match(weights, np.full(len(t), -1), np.full(len(t), np.nan))
