"""The known effect in a sample: what an estimator should find, where the data were made."""

from __future__ import annotations

import numpy as np

from biglocal.model import Fit, Inapplicable, Sample, Term


def estimate(sample: Sample) -> Fit:
    """Terms `att` (by level) and `att_year` (period = year): weighted mean of `effect` over treated rows in treatment.

    Raises `Inapplicable` where the tier has no known truth, or a level has no treated row in treatment.
    """
    frame = sample.frame
    if "effect" not in frame:
        raise Inapplicable("nobody knows the true effect: it is recorded only for data that were made.")
    treated = frame[frame["treated"] == 1]
    after = treated[treated["d"] == 1]
    terms = []
    for level in sample.levels or ("",):
        rows = after[after["level"] == level] if sample.levels else after
        if rows.empty:
            raise Inapplicable(f"nobody treated answered after the start{f' in {level}' if level else ''}.")
        terms.append(Term("att", float(np.average(rows["effect"], weights=rows["weight"])), level=level, tested=False))
    if not sample.levels:
        terms += [
            Term("att_year", float(np.average(r["effect"], weights=r["weight"])), period=int(str(y)), tested=False)
            for y, r in treated.groupby("time", sort=True)
        ]
    return Fit(
        tuple(terms),
        n_obs=len(frame),
        n_units=int(frame["unit"].nunique()),
        n_treated=int(treated["unit"].nunique()),
        n_clusters=int(frame["cluster"].nunique()),
        caution=sample.caution,
    )
