"""Covariances that allow for correlation over time: Driscoll-Kraay and panel Newey-West.

Driscoll and Kraay (1998, Rev Econ Stat 80:549) for shocks common to all units in a period; Newey and West (1987,
Econometrica 55:703) within each unit. Bartlett weights 1 - l/(L+1). Small-sample factors and t(T-1) as in R's fixest,
with the T periods in the place of clusters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from biglocal.inference.regression import Regression, by_group, coded, parameters
from biglocal.inference.twoway import Covariance
from biglocal.model import Inapplicable

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def driscoll_kraay(fit: Regression, time: ArrayLike, lag: int, *, unit: ArrayLike | None = None) -> Covariance:
    """Correlation across units and up to `lag` periods. `time` (n,) integers; `unit` (n,) only counts nested effects.

    Raises `Inapplicable` for fewer than two periods, no more periods than lags, and a negative lag.
    """
    periods = _periods(time, lag)
    scores = by_group(fit.x * (fit.weight * fit.residual)[:, None], periods, int(periods.max()) + 1)
    return _finish(fit, _bartlett(scores[None], lag), periods, unit)


def newey_west(fit: Regression, unit: ArrayLike, time: ArrayLike, lag: int) -> Covariance:
    """Correlation within a unit up to `lag` periods; units are independent. One row a unit and period.

    Raises `Inapplicable` as `driscoll_kraay`, and for a unit with two rows in a period.
    """
    periods, units = _periods(time, lag), coded(unit)
    t, n = int(periods.max()) + 1, int(units.max()) + 1
    cell = units * t + periods
    if len(np.unique(cell)) < len(cell):
        raise Inapplicable("a unit has two rows in one period.")
    scores = np.zeros((n * t, fit.x.shape[1]))
    scores[cell] = fit.x * (fit.weight * fit.residual)[:, None]
    return _finish(fit, _bartlett(scores.reshape(n, t, -1), lag), periods, None)


def _periods(time: ArrayLike, lag: int) -> NDArray[np.int64]:
    """Periods counted from the first, gaps kept, so that a lag is a lag."""
    values = np.asarray(time)
    if not np.equal(np.mod(values, 1), 0).all():
        raise Inapplicable("time must be whole numbers, one a period.")
    out: NDArray[np.int64] = (values - values.min()).astype(np.int64)
    if out.max() < 1:
        raise Inapplicable("1 period: errors that allow for correlation over time need at least two.")
    if not 0 <= lag <= out.max():
        raise Inapplicable(f"lag {lag} with {int(out.max()) + 1} periods: it must lie between 0 and one less.")
    return out


def _bartlett(scores: NDArray[np.float64], lag: int) -> NDArray[np.float64]:
    """Sum over groups of the kernel-weighted cross-products of `scores` (groups, T, p)."""
    meat = np.einsum("gti,gtj->ij", scores, scores)
    for step in range(1, lag + 1):
        cross = np.einsum("gti,gtj->ij", scores[:, step:], scores[:, :-step])
        meat += (1 - step / (lag + 1)) * (cross + cross.T)
    return np.asarray(meat)


def _finish(
    fit: Regression, meat: NDArray[np.float64], periods: NDArray[np.int64], unit: ArrayLike | None
) -> Covariance:
    n, t = len(periods), len(np.unique(periods))
    k = parameters(fit, [] if unit is None else [coded(unit)])
    return Covariance(fit.beta, t / (t - 1) * (n - 1) / (n - k) * fit.bread @ meat @ fit.bread, t - 1)
