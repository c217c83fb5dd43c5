"""Entropy balancing (Hainmueller 2012, Political Analysis 20:25): the weights nearest to equal ones that make the
covariates' means exactly those of the target, by Newton's method on the dual, which is convex.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from biglocal.matching._distance import design
from biglocal.matching._units import Estimand, arrange, check_any, check_unused
from biglocal.model import Inapplicable

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    moments: int = 1,
) -> Match:
    """Weights of the rows of `frame` that balance means (and `moments` powers) of the covariates; no sets.

    ATT: treated units weigh 1, untreated ones are weighted to the means of the treated and sum to their number.
    ATE: each group is weighted to the means of all and sums to its own size. Powers are taken of covariates with
    more than two values. `exact`: balance within each block; blocks without both groups have weight 0.

    Raises `Inapplicable` for input that `_units.arrange` refuses, covariates that are missing, infinite or
    constant, a ratio or caliper, and where no weights reach the target (the groups do not overlap enough).
    """
    check_unused("entropy balancing", ratio, caliper)
    if moments < 1 or estimand not in ("ATT", "ATE"):
        raise Inapplicable(f"matching: moments {moments}, estimand {estimand!r}; moments from 1, and ATT or ATE.")
    units = arrange(frame, treated, exact)
    x = design(units.frame, covariates)
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    many = np.array([len(np.unique(column)) > 2 for column in z.T])
    z = np.column_stack([z, *(z[:, many] ** power for power in range(2, moments + 1))])
    weights = np.zeros(len(z))
    for t, c in units.blocks():
        if estimand == "ATT":
            weights[t] = 1.0
            weights[c] = len(t) * _balanced(z[c], z[t].mean(axis=0))
        else:
            target = z[np.concatenate([t, c])].mean(axis=0)
            weights[t] = len(t) * _balanced(z[t], target)
            weights[c] = len(c) * _balanced(z[c], target)
    check_any(bool(weights.any()), "a block")
    return units.match(weights, np.full(len(z), -1), np.full(len(z), np.nan))


def _balanced(z: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights (n,), sum 1, with z' w = target: those of least entropy, w proportional to exp(z b)."""
    z = z - target
    b = np.zeros(z.shape[1])

    def dual(b: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        eta = z @ b
        top = float(eta.max())
        w = np.exp(eta - top)
        return top + float(np.log(w.sum())), w / w.sum()

    value, w = dual(b)
    for _ in range(200):
        gap = z.T @ w
        if np.abs(gap).max() < 1e-10:
            return w
        curvature = (z * w[:, None]).T @ z - np.outer(gap, gap)
        # least squares: a covariate that does not vary here, but need not move, costs nothing
        step = -np.linalg.lstsq(curvature, gap, rcond=1e-12)[0]
        length = 1.0
        while length > 1e-10:
            better, new = dual(b + length * step)
            if better <= value + 1e-4 * length * float(gap @ step) or np.abs(z.T @ new).max() < 1e-10:
                break
            length /= 2
        b, value, w = b + length * step, better, new
        if length <= 1e-10 or np.abs(b).max() > 1e4:
            break
    gap = np.abs(z.T @ w)
    if gap.max() < 1e-6:  # no further step helps: rounding
        return w
    raise Inapplicable(
        f"matching: no weights reach the target means (the nearest miss a covariate by {gap.max():.3g} standard "
        f"deviations): the groups do not overlap enough. Leave covariates or moments out, or widen the pool."
    )
