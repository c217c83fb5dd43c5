"""Balance of one covariate before and after matching.

Definitions are those of cobalt and MatchIt 4.7 for the ATT (Austin 2009, Stat Med 28:3083): the
standardised mean difference divides by the treated units' standard deviation before matching, after
matching too, so that it cannot improve by the denominator alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from biglocal.model import Fit, Inapplicable, Sample, Term

if TYPE_CHECKING:
    from numpy.typing import NDArray


def estimate(sample: Sample) -> Fit:
    """Means, `smd_*`, `variance_ratio_*` and `ks_*`, each `_unmatched` (weight 1) and `_matched`.

    `sample.frame` has a row a unit: y the covariate, treated, weight (0 for the unmatched).
    Raises `Inapplicable` where the covariate is constant among the treated.
    """
    frame = sample.frame
    y, w = frame["y"].to_numpy(dtype=float), frame["weight"].to_numpy(dtype=float)
    t = frame["treated"].to_numpy() == 1
    binary = bool(np.isin(y, (0.0, 1.0)).all())
    spread = float(np.std(y[t], ddof=0 if binary else 1)) if t.sum() > 1 else 0.0
    if spread == 0:
        raise Inapplicable("the covariate does not vary among the treated.")
    terms = [Term("mean_treated", float(np.average(y[t], weights=w[t])), tested=False)]
    for name, weights in (("unmatched", np.ones(len(y))), ("matched", w)):
        m1, m0 = np.average(y[t], weights=weights[t]), np.average(y[~t], weights=weights[~t])
        terms.append(Term(f"mean_control_{name}", float(m0), tested=False))
        terms.append(Term(f"smd_{name}", float((m1 - m0) / spread), tested=False))
        if not binary:  # a proportion's variance says nothing its mean does not
            ratio = variance(y[t], weights[t]) / variance(y[~t], weights[~t])
            terms.append(Term(f"variance_ratio_{name}", ratio, tested=False))
        terms.append(Term(f"ks_{name}", kolmogorov_smirnov(y, t, weights), tested=False))
    return Fit(
        tuple(terms),
        n_obs=len(frame),
        n_units=int((w > 0).sum()),
        n_treated=int((w[t] > 0).sum()),
        n_clusters=int(frame.loc[w > 0, "cluster"].nunique()),
        caution=sample.caution,
    )


def variance(y: NDArray[np.float64], w: NDArray[np.float64]) -> float:
    """Weighted variance with the small-sample factor 1 / (1 - sum of squared weights), weights summing to 1."""
    w = w / w.sum()
    mean = w @ y
    return float(w @ (y - mean) ** 2 / (1 - w @ w))


def kolmogorov_smirnov(y: NDArray[np.float64], t: NDArray[np.bool_], w: NDArray[np.float64]) -> float:
    """Largest distance between the two weighted distribution functions."""
    order = np.argsort(y, kind="stable")
    step = np.where(t, w / w[t].sum(), -w / w[~t].sum())[order]
    gap = np.cumsum(step)
    last = np.append(np.flatnonzero(np.diff(y[order])), len(y) - 1)
    return float(np.abs(gap[last]).max())
