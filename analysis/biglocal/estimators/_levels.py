"""The same estimator in each level of a subgroup, and the test of the difference.

For estimators whose fits carry the influence function of `att`: each level is estimated by itself, and influence
added up over levels within clusters gives one covariance, also where a cluster has rows in several levels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from biglocal.estimators._design import wald
from biglocal.model import Fit, Inapplicable, Sample, Term


def by_level(sample: Sample, one: Callable[[Sample], Fit]) -> Fit:
    """`att` of each level and their `difference`: its size for two levels, a joint test for more.

    `one` gives the fit of a sample without levels, with `facts["influence"]` (G, 1) of its `att` on the scale of a
    sum, by cluster, and `facts["clusters"]` (G,). Raises `Inapplicable`, naming the level, where `one` does.
    """
    fits = {}
    for name in sample.levels:
        try:
            fits[name] = one(replace(sample, frame=sample.frame[sample.frame["level"] == name], levels=(), caution=""))
        except Inapplicable as e:
            raise Inapplicable(f"level {name}: {e}") from None
    clusters = np.concatenate([f.facts["clusters"] for f in fits.values()])
    found, code = np.unique(clusters, return_inverse=True)
    df, levels = len(found) - 1, len(fits)
    starts = np.cumsum([0, *(len(f.facts["clusters"]) for f in fits.values())])
    totals = np.zeros((len(found), levels))
    for i, fit in enumerate(fits.values()):
        here = code[starts[i] : starts[i + 1]]
        totals[:, i] = np.bincount(here, fit.facts["influence"][:, 0], minlength=len(found))
    terms = [replace(next(t for t in f.terms if t.name == "att"), level=name, df=df) for name, f in fits.items()]
    # an estimator's own factor on its variance (G/(G-1) for least squares) holds for the difference too
    own = np.array([t.std_error for t in terms])
    scale = own / np.sqrt((totals * totals).sum(axis=0))
    vcov = (totals.T @ totals) * np.outer(scale, scale)
    beta = np.array([t.estimate for t in terms])
    contrast = np.column_stack([-np.ones(levels - 1), np.eye(levels - 1)])
    if levels == 2:
        error = float(np.sqrt(contrast[0] @ vcov @ contrast[0]))
        terms.append(Term("difference", float(contrast[0] @ beta), error, df))
    elif levels > 2:
        f_statistic = wald(beta, vcov, contrast)
        terms.append(Term("difference", float("nan"), df=df, statistic=f_statistic, df_num=levels - 1))
    cautions = [sample.caution, *(f"{name}: {f.caution}" for name, f in fits.items() if f.caution)]
    return Fit(
        tuple(terms),
        n_obs=sum(f.n_obs for f in fits.values()),
        n_units=int(sample.frame["unit"].nunique()),
        n_treated=int(sample.frame.loc[sample.frame["treated"] == 1, "unit"].nunique()),
        n_clusters=len(found),
        caution=" ".join(filter(None, cautions)),
        facts={
            "convention": next(iter(fits.values())).facts["convention"],
            "trimmed": sum(f.facts["trimmed"] for f in fits.values()),
            "levels": {name: f.facts for name, f in fits.items()},
        },
    )
