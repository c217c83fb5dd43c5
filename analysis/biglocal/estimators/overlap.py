"""Overlap of the propensity score before and after matching, and what the matched comparison is worth in size."""

from __future__ import annotations

import numpy as np

from biglocal.model import Fit, Inapplicable, Sample, Term

BINS = 40


def estimate(sample: Sample) -> Fit:
    """Shares of `treated`, `control_unmatched`, `control_matched` by bin of the score, and the effective size.

    `sample.frame.y` is the propensity logit; bins are equal over the range in which the treated lie.
    `effective_sample_size` is (sum of weights)^2 / sum of squared weights of the matched comparison units.
    """
    frame = sample.frame
    y, w = frame["y"].to_numpy(dtype=float), frame["weight"].to_numpy(dtype=float)
    if not np.isfinite(y).all():
        raise Inapplicable("the method estimates no propensity score.")
    t = frame["treated"].to_numpy() == 1
    edges = np.linspace(y[t].min(), y[t].max(), BINS + 1)
    terms = []
    for name, rows, weights in (
        ("treated", t, np.ones(len(y))),
        ("control_unmatched", ~t, np.ones(len(y))),
        ("control_matched", ~t & (w > 0), w),
    ):
        count, _ = np.histogram(y[rows], bins=edges, weights=weights[rows])
        for i, share in enumerate(count / weights[rows].sum()):
            terms.append(
                Term(
                    name, float(share), period=i, conf_low=float(edges[i]), conf_high=float(edges[i + 1]), tested=False
                )
            )
    control = w[~t]
    terms.append(Term("effective_sample_size", float(control.sum() ** 2 / (control @ control)), tested=False))
    return Fit(
        tuple(terms),
        n_obs=len(frame),
        n_units=int((w > 0).sum()),
        n_treated=int((w[t] > 0).sum()),
        n_clusters=int(frame.loc[w > 0, "cluster"].nunique()),
        caution=sample.caution,
    )
