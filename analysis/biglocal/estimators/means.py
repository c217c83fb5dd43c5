"""Weighted means of treated and comparison rows by year, with clustered errors: what a trends figure shows."""

from __future__ import annotations

import numpy as np

from biglocal.estimators import CONVENTION, correction
from biglocal.model import Fit, Sample, Term


def estimate(sample: Sample) -> Fit:
    """Terms `treated` and `control`, period = year. A mean is a regression on a constant, clustered."""
    frame = sample.frame
    terms = []
    for name, group in (("treated", frame[frame["treated"] == 1]), ("control", frame[frame["treated"] == 0])):
        for year, rows in group.groupby("time", sort=True):
            w, y = rows["weight"].to_numpy(), rows["y"].to_numpy()
            mean = float(w @ y / w.sum())
            cluster = np.unique(rows["cluster"].to_numpy(), return_inverse=True)[1]
            g = int(cluster.max()) + 1
            count = int(rows["unit"].nunique())
            score = np.bincount(cluster, w * (y - mean))
            se = float(np.sqrt(score @ score * correction(len(y), 1, g)) / w.sum()) if g > 1 else float("nan")
            terms.append(
                Term(
                    name,
                    mean,
                    se,
                    g - 1,
                    period=int(str(year)),
                    n_treated=count if name == "treated" else None,
                    tested=False,
                )
            )
    return Fit(
        tuple(terms),
        n_obs=len(frame),
        n_units=int(frame["unit"].nunique()),
        n_treated=int(frame.loc[frame["treated"] == 1, "unit"].nunique()),
        n_clusters=int(frame["cluster"].nunique()),
        caution=sample.caution,
        facts={"convention": CONVENTION},
    )
