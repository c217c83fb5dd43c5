"""Effects by calendar year, against the last year before anyone's treatment: was there some effect after a year?

y_it = a_i + b_t + sum over s of effect_s treated_i 1(t = s) + error, base s = the year before the first start. The
event study asks how long after its start an area is; this asks what the year is, as published claims do. With
several starts a year's effect is that of all treated areas, those not yet started among them, and its fit says so.
"""

from __future__ import annotations

import numpy as np

from biglocal.estimators import CONVENTION
from biglocal.estimators._design import check_design, wald
from biglocal.estimators._effects import counts, regressors
from biglocal.estimators._within import codes, linear
from biglocal.model import Fit, Inapplicable, Sample, Term


def estimate(sample: Sample, *, after: int | None = None) -> Fit:
    """Terms `calendar` (period = year), `att_calendar`, and the joint tests `leads` and `years`.

    `leads` tests the years before the base. `years` tests that no year from the start on has an effect, or none
    later than `after` ("some effect after 2017": `after=2017`); `att_calendar` is the mean of the same years'.

    Raises `Inapplicable` as `twfe` does, where no treated row lies in the base year, and where no year is
    later than `after`.
    """
    frame = sample.frame
    check_design(frame)
    time = frame["time"].to_numpy()
    treated = frame["treated"].to_numpy() == 1
    first = int(frame["first_treated"].min())
    years = [int(t) for t in np.unique(time[treated])]
    base = max((t for t in years if t < first), default=None)
    if base is None:
        raise Inapplicable(f"no treated row before the first start in {first} (years seen: {years}).")
    rest = [t for t in years if t != base]
    columns = {f"t{t}": (treated & (time == t)).astype(float) for t in rest}
    fixed = {"unit": codes(frame["unit"]), "time": codes(frame["time"])}
    fit = linear(frame, columns | regressors(frame, sample.covariates), fixed)
    df = fit.n_clusters - 1
    tested = [i for i, t in enumerate(rest) if t >= first and (after is None or t > after)]
    if not tested:
        raise Inapplicable(f"no year after {after} with treated rows (the last is {years[-1]}).")
    leads = [i for i, t in enumerate(rest) if t < base]
    terms = [
        Term("calendar", float(fit.beta[i]), float(np.sqrt(fit.vcov[i, i])), df, period=t) for i, t in enumerate(rest)
    ]
    terms.append(Term("calendar", 0.0, period=base, tested=False))
    terms.sort(key=lambda t: t.period or 0)
    mean = np.zeros(len(fit.beta))
    mean[tested] = 1 / len(tested)
    terms.append(Term("att_calendar", float(mean @ fit.beta), float(np.sqrt(mean @ fit.vcov @ mean)), df))
    for name, some in (("leads", leads), ("years", tested)):
        if some:
            f = wald(fit.beta, fit.vcov, np.eye(len(fit.beta))[some])
            terms.append(Term(name, float("nan"), df=df, statistic=f, df_num=len(some)))
    staggered = frame["first_treated"].nunique() > 1
    caution = (
        "Starts are staggered: a year's effect mixes areas that have started with areas that have not."
        if staggered
        else ""
    )
    return Fit(
        tuple(terms),
        n_obs=fit.n_obs,
        **counts(frame),
        n_clusters=fit.n_clusters,
        caution=" ".join(filter(None, [sample.caution, caution])),
        facts={"convention": CONVENTION, "base": base, "years": tuple(rest[i] for i in tested)},
    )
