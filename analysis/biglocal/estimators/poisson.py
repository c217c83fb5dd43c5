"""Two-way fixed effects for counts: Poisson, with a log offset, so that effects are ratios of rates.

E[y_it] = exp(offset_it + a_i + b_t + effect d_it). Consistent for any outcome that is not negative, whatever its
variance, where the mean is right (Wooldridge 1999, J Econometrics 90:77); the parallel trends are those of
log rates (Wooldridge 2023, Econometrics J 26:C31).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from biglocal.estimators import CONVENTION, correction, counted
from biglocal.estimators._effects import column, counts, effects, two_way
from biglocal.estimators._glm import glm, informative
from biglocal.estimators._within import checked, codes, sandwich
from biglocal.model import Fit, Inapplicable, Sample


def estimate(sample: Sample, *, offset: str | None = None) -> Fit:
    """Terms `att`, the log of the rate ratio, and `percent_change`, 100 (exp(att) - 1); by level, with `difference`.

    `offset` names a column of the sample that is added to the linear predictor, such as the log of the
    population (name it among the covariates so that it comes along). Tests are on `att`, by the normal
    distribution as R's fixest does; the error of `percent_change` is by the delta method, so an
    interval that keeps above -100 is that of `att`, its ends transformed.

    Units and times without a single count say nothing of a ratio and leave first: `facts["without_counts"]` says
    how many rows. Raises `Inapplicable` as `twfe` does, and for negative counts, an offset that is not
    finite, and counts that are predicted perfectly.
    """
    frame = sample.frame
    y = frame["y"].to_numpy(dtype=float)
    if len(y) and y.min() < 0:
        raise Inapplicable(f"{int((y < 0).sum())} outcomes are negative (the least is {y.min():g}): not counts.")
    model = two_way(sample, (offset,) if offset else ())
    checked(frame)
    weighed = frame["weight"].to_numpy() > 0
    keep = weighed & informative(np.where(weighed, y, 0.0), list(model.fixed.values()))
    if keep.all():
        kept, design = sample, model
    else:
        kept = replace(sample, frame=frame[keep])
        design = two_way(kept, (offset,) if offset else ())
    rows = kept.frame
    shift = None
    if offset:
        shift = column(rows, offset).to_numpy(dtype=float)
        if not np.isfinite(shift).all():
            raise Inapplicable(f"the offset {offset} is not finite in {int((~np.isfinite(shift)).sum())} rows.")
    for level, now in zip(kept.levels or ("",), design.columns.values(), strict=False):
        if not (rows["y"].to_numpy()[now == 1] > 0).any():
            where = f" in {level}" if level else ""
            raise Inapplicable(
                f"no counts among treated rows after the start{where}: predicted perfectly (separation)."
            )
    y, weight, cluster, _ = checked(rows)
    fixed = [codes(f) for f in design.fixed.values()]
    fit = glm(y, design.columns, fixed, weight, "poisson", shift)
    n_clusters = int(cluster.max()) + 1
    factor = correction(len(y), counted(len(design.columns), fixed, cluster), n_clusters)
    vcov = sandwich(fit.solution, fit.scores, cluster) * factor
    terms = effects(kept, fit.beta, vcov, float("inf"))
    terms = tuple(t if t.df_num is None else replace(t, df=n_clusters - 1) for t in terms)
    ratios = [
        replace(
            t,
            name="percent_change",
            estimate=100 * float(np.expm1(t.estimate)),
            std_error=100 * float(np.exp(t.estimate)) * t.std_error,
            tested=False,
        )
        for t in terms
        if t.name == "att"
    ]
    return Fit(
        (*terms, *ratios),
        n_obs=len(y),
        **counts(rows),
        n_clusters=n_clusters,
        caution=" ".join(filter(None, [sample.caution, model.caution])),
        facts={
            "convention": CONVENTION.replace("t(G-1)", "z, as fixest; joint tests F(q, G-1)"),
            "without_counts": int((weighed & ~keep).sum()),
        },
    )
