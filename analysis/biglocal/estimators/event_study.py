"""Event study: effects by year since start, with a joint test of the leads.

y_it = a_i + b_t + sum over e of effect_e 1(t - start_i = e) + error, base e = -1. With one start date each
effect is a 2x2 difference-in-differences against the last year before it. With several, effects of
different cohorts mix (Sun and Abraham 2021, J Econometrics 225:175), and its fit says so.
"""

from __future__ import annotations

import numpy as np

from biglocal.estimators import CONVENTION
from biglocal.estimators._design import check_design, wald
from biglocal.estimators._within import codes, linear
from biglocal.model import Fit, Inapplicable, Sample, Term


def estimate(sample: Sample) -> Fit:
    """Terms `event_time` (period = years since start) and `leads`, the joint test that all leads are zero.

    `facts` has `periods`, the years since start without the base, and their coefficients `beta` (k,) with the
    clustered covariance `vcov` (k, k): what bounds under non-parallel trends are made from.

    Raises `Inapplicable` as `twfe` does, and where no treated row lies in the base year.
    """
    frame = sample.frame
    check_design(frame)
    since = (frame["time"] - frame["first_treated"]).to_numpy(dtype=float)
    times = np.unique(since[np.isfinite(since)]).astype(int)
    if -1 not in times:
        raise Inapplicable(f"no treated row in the base year, the last before treatment (there are {times.tolist()}).")
    staggered = frame["first_treated"].nunique() > 1
    rest = [int(e) for e in times if e != -1]
    columns = {f"e{i}": (since == e).astype(float) for i, e in enumerate(rest)}
    extra = {f"x{i}": frame[c].to_numpy(dtype=float) for i, c in enumerate(sample.covariates)}
    fit = linear(frame, {**columns, **extra}, {"unit": codes(frame["unit"]), "time": codes(frame["time"])})
    df = fit.n_clusters - 1
    terms = [
        Term("event_time", float(fit.beta[i]), float(np.sqrt(fit.vcov[i, i])), df, period=e) for i, e in enumerate(rest)
    ]
    terms.append(Term("event_time", 0.0, period=-1, tested=False))
    leads, k = [i for i, e in enumerate(rest) if e < -1], len(rest)
    if leads:
        contrast = np.eye(len(fit.beta))[leads]
        terms.append(
            Term("leads", float("nan"), df=df, statistic=wald(fit.beta, fit.vcov, contrast), df_num=len(leads))
        )
    caution = "Starts are staggered: effects of different cohorts mix in each coefficient." if staggered else ""
    return Fit(
        tuple(sorted(terms, key=lambda t: (t.name, t.period or 0))),
        n_obs=fit.n_obs,
        n_units=int(frame["unit"].nunique()),
        n_treated=int(frame.loc[frame["treated"] == 1, "unit"].nunique()),
        n_clusters=fit.n_clusters,
        caution=" ".join(filter(None, [sample.caution, caution])),
        facts={"convention": CONVENTION, "periods": tuple(rest), "beta": fit.beta[:k], "vcov": fit.vcov[:k, :k]},
    )
