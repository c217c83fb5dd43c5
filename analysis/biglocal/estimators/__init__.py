"""Estimators, one a file, found by folder: `estimate(sample: Sample) -> Fit`, a pure function.

One convention for small samples holds for every estimator, whatever library solves it: a clustered
covariance is the raw sandwich times G/(G-1) x (N-1)/(N-K) (`correction`). K counts the regressors, and of
the fixed effects the levels of those not nested in the clusters, as R's fixest does by default
(`fixef.K = "nested"`). t tests have G-1 degrees of freedom; a joint test of q terms is F(q, G-1).
Each fit records it in `facts["convention"]`.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from biglocal.model import Estimator, Fit, Sample

CONVENTION = "CR1: G/(G-1) x (N-1)/(N-K), nested fixed effects not in K; t(G-1)"


def estimator(name: str) -> Estimator:
    """The estimator of that name. Its library is imported now, not before."""
    found: Estimator = importlib.import_module(f"biglocal.estimators.{name}").estimate
    return found


def sample(
    frame: pd.DataFrame,
    *,
    y: str,
    unit: str,
    time: str,
    first_treated: str | None = None,
    d: str | None = None,
    cluster: str | None = None,
    weight: str | None = None,
    level: str | None = None,
    set: str | None = None,
    covariates: Sequence[str] = (),
    levels: Sequence[str] = (),
) -> Sample:
    """Any data frame as a sample: the door through which data without a study around them come.

    Treatment is said by `first_treated` (time of first treatment; missing, 0 or infinite for never) or by
    `d` (0/1, treated now; once treated always treated). `cluster` defaults to the unit, `weight` to 1. `set` names the
    matched set of a row, missing for none, for estimators that compare within sets.
    Rows with a missing outcome, weight or covariate leave; `Fit.caution` of the estimators does not say so,
    so count them before. The frame given is not touched.

    Raises `DataError` for a column that is not there, where neither or both of the two are given, for a `d` other than
    0 and 1, and for units whose treatment ends: no estimator here takes these.
    """
    import numpy as np
    import pandas as pd

    from biglocal.model import DataError, Sample

    named = [c for c in (y, unit, time, first_treated, d, cluster, weight, level, set, *covariates) if c is not None]
    missing = [c for c in named if c not in frame.columns]
    if missing:
        raise DataError(f"the frame has no column {', '.join(missing)}; it has {', '.join(map(str, frame.columns))}.")
    if (first_treated is None) == (d is None):
        raise DataError("give one of first_treated and d, to say who is treated when.")
    out = pd.DataFrame(
        {
            "y": frame[y].astype(float),
            "unit": frame[unit],
            "time": frame[time],
            "cluster": frame[cluster or unit],
            "weight": frame[weight].astype(float) if weight else 1.0,
            "level": frame[level].astype(str) if level else "",
        }
    )
    if set is not None:
        out["set"] = pd.factorize(frame[set], sort=True)[0]
    for c in covariates:
        out[c] = frame[c]
    if first_treated is not None:
        first = frame[first_treated].astype(float)
        out["first_treated"] = first.where(np.isfinite(first) & (first > 0))
    else:
        odd = ~frame[d].isin([0, 1])
        if odd.any():
            raise DataError(f"{d} must be 0 or 1; {int(odd.sum())} rows are not, first {frame.loc[odd, d].iloc[0]}.")
        now = frame[d].astype(float) == 1
        out["first_treated"] = frame[time].where(now).groupby(frame[unit]).transform("min").astype(float)
        ended = frame.loc[~now & (frame[time] >= out["first_treated"]), unit].unique()
        if len(ended):
            raise DataError(
                f"{d} goes back to 0 in {len(ended)} units, first {ended[0]}: once treated is always treated here. "
                f"End these units' rows where their treatment ends, or give first_treated: the effect of having begun."
            )
    out["treated"] = out["first_treated"].notna().astype(int)
    out["d"] = ((out["treated"] == 1) & (out["time"] >= out["first_treated"])).astype(float)
    kept = out[["y", "weight", *covariates]].notna().all(axis=1)
    return Sample(out[kept].reset_index(drop=True), "", covariates=tuple(covariates), levels=tuple(levels))


def fit(name: str, frame: pd.DataFrame, *, options: dict[str, Any] | None = None, **columns: Any) -> Fit:
    """Estimate with the estimator of that name on any data frame; `columns` are those of `sample`.

    `options` go to the estimator, whose file documents them. Terms have standard errors and degrees of freedom;
    `biglocal.inference` completes them with p-values and intervals. Raises what `sample` and the estimator raise.
    """
    function: Any = estimator(name)
    found: Fit = function(sample(frame, **columns), **(options or {}))
    return found


def correction(n: int, k: int, clusters: int) -> float:
    """The factor on a raw clustered covariance: `n` rows, `k` parameters counted, `clusters` clusters."""
    return clusters / (clusters - 1) * (n - 1) / (n - k)


def counted(regressors: int, fixed: list[NDArray[np.int64]], cluster: NDArray[np.int64]) -> int:
    """K of the convention: regressors, and the levels of fixed effects not nested in `cluster`.

    All codes are (n,) integers from 0. With every effect counted, Q effects cost their levels less Q - 1;
    a nested effect gives back its levels less one (fixest 0.13, vignette On standard errors).
    """
    import numpy as np

    k = regressors + sum(int(f.max()) + 1 for f in fixed) - max(len(fixed) - 1, 0)
    for f in fixed:
        levels = int(f.max()) + 1
        first = np.full(levels, -1)
        first[f] = cluster  # any one row's cluster: nested if all rows agree with it
        if (first[f] == cluster).all():
            k -= levels - 1
    return k
