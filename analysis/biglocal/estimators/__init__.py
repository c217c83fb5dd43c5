"""Estimators, one a file, found by folder: `estimate(sample: Sample) -> Fit`, a pure function.

One convention for small samples holds for every estimator, whatever library solves it: a clustered
covariance is the raw sandwich times G/(G-1) x (N-1)/(N-K) (`correction`). K counts the regressors, and of
the fixed effects the levels of those not nested in the clusters, as R's fixest does by default
(`fixef.K = "nested"`). t tests have G-1 degrees of freedom; a joint test of q terms is F(q, G-1).
Each fit records it in `facts["convention"]`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from biglocal.model import Estimator

CONVENTION = "CR1: G/(G-1) x (N-1)/(N-K), nested fixed effects not in K; t(G-1)"


def estimator(name: str) -> Estimator:
    """The estimator of that name. Its library is imported now, not before."""
    found: Estimator = importlib.import_module(f"biglocal.estimators.{name}").estimate
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
