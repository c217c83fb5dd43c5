"""Difference-in-differences in repeated cross-sections: other persons every year, in the same areas.

y_pit = a_i + b_t + ATT d_it + x_p'c + e_pit for person p in area i and year t, weighted by the survey's weights:
for an outcome that is 0 or 1 (or 0 or 100) a linear probability model, its ATT a difference of shares. The
persons' covariates x take up a change in who answers. Area effects are those of `unit`.

A row is a person and none is copied more than once: projections need weighted sums by area and year only
(`_within`), so millions of rows take seconds.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from biglocal.estimators import CONVENTION, correction, counted
from biglocal.estimators._effects import column, counts, effects, two_way
from biglocal.estimators._survey import covariance, design
from biglocal.estimators._within import checked, cluster_sums, least_squares, sandwich
from biglocal.model import Fit, Sample

DESIGN = "linearised: n/(n-1) in each stratum, no finite-population correction; t(clusters - strata)"


def estimate(sample: Sample, *, errors: Literal["cluster", "design"] = "cluster", strata: str | None = None) -> Fit:
    """ATT (term `att`) in the unit of the outcome, by level where the sample has levels, then their `difference`.

    `errors="design"`: linearised errors as survey software gives them, clusters drawn within `strata`, a column
    of the sample (named among its covariates so that it comes along; it is not adjusted for). Covariates that are not
    numbers become indicators.

    Raises `Inapplicable` as `twfe` does, for a covariate with missing values, and for strata with one cluster.
    """
    other = (strata,) if strata else ()
    model = two_way(sample, other)
    y, weight, cluster, keep = checked(sample.frame)
    if keep is not None:
        sample = replace(sample, frame=sample.frame[keep])
        model = two_way(sample, other)
    frame, columns, fixed = sample.frame, model.columns, list(model.fixed.values())
    found = least_squares(y, columns, fixed, weight)
    n_clusters = int(cluster.max()) + 1
    if errors == "design":
        drawn = design(weight, cluster, column(frame, strata) if strata else None)
        totals = cluster_sums(found.columns, weight * found.residual, drawn.cluster) @ found.inverse
        vcov, df = covariance(totals, drawn.stratum, drawn.size), drawn.df
    else:
        factor = correction(len(y), counted(len(columns), fixed, cluster), n_clusters)
        vcov, df = sandwich(found, weight * found.residual, cluster) * factor, n_clusters - 1
    return Fit(
        effects(sample, found.beta, vcov, df),
        n_obs=len(y),
        **counts(frame),
        n_clusters=n_clusters,
        caution=" ".join(filter(None, [sample.caution, model.caution])),
        facts={"convention": DESIGN if errors == "design" else CONVENTION},
    )
