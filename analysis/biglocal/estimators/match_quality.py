"""How good a comparison is, in a line: balance over all covariates, and how much is left to compare."""

from __future__ import annotations

import math

import numpy as np

from biglocal.estimators import balance
from biglocal.model import Fit, Inapplicable, Sample, Term


def estimate(sample: Sample) -> Fit:
    """Terms `max_abs_smd` and `mean_abs_smd` after matching over `sample.covariates` (a row a unit, weight 0 for the
    unmatched), the same `_unmatched`, `covariates` (how many), `treated` and `control` units with a weight, and
    `effective_sample_size` of the comparison units, (sum of weights)^2 / sum of squared weights.

    A covariate that is missing in a row leaves that row out for itself only; one that does not vary among the
    treated is left out. Raises `Inapplicable` where no covariate is left.
    """
    frame = sample.frame
    w, t = frame["weight"].to_numpy(dtype=float), frame["treated"].to_numpy() == 1
    gaps: dict[str, list[float]] = {"smd_matched": [], "smd_unmatched": []}
    for name in sample.covariates:
        known = frame[name].notna().to_numpy()
        y, of = frame[name].to_numpy(dtype=float, na_value=np.nan)[known], t[known]
        spread = balance.spread_of(y, of, "treated") if of.any() else 0.0
        if not spread > 0:
            continue
        for when, weights in (("smd_matched", w[known]), ("smd_unmatched", np.ones(len(y)))):
            gaps[when].append(abs(balance.gap_of_means(y, of, weights) / spread))
    if not gaps["smd_matched"]:
        raise Inapplicable("no covariate varies among the treated: there is no balance to speak of.")
    control = w[~t]
    numbers = {
        "max_abs_smd": max(gaps["smd_matched"]),
        "mean_abs_smd": math.fsum(gaps["smd_matched"]) / len(gaps["smd_matched"]),  # whatever their order
        "max_abs_smd_unmatched": max(gaps["smd_unmatched"]),
        "covariates": float(len(gaps["smd_matched"])),
        "treated": float((w[t] > 0).sum()),
        "control": float((control > 0).sum()),
        "effective_sample_size": float(control.sum() ** 2 / (control @ control)),
    }
    return Fit(
        tuple(Term(name, value, tested=False) for name, value in numbers.items()),
        n_obs=len(frame),
        n_units=int((w > 0).sum()),
        n_treated=int((w[t] > 0).sum()),
        n_clusters=int(frame.loc[w > 0, "cluster"].nunique()),
        caution=sample.caution,
    )
