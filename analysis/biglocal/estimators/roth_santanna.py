"""The efficient estimator for starts in random order: Roth and Sant'Anna (2023, J Pol Econ Micro 1:669).

Where it is chance when a unit starts, differences before any start are noise, and an estimate may be adjusted by
them as by a covariate: theta = theta0 - beta X, theta0 the difference in means after the start, X the same average
of differences in the last period before it. beta = 1 is a difference in differences; the variance is least at the
beta of equation 10. Everything is made from the cohorts' means and covariances of outcome paths.

This asks more than parallel trends: that the order of starts is as good as random. Never-treated units belong to it
only if they too are so by chance.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from biglocal.estimators._area_means import area_means
from biglocal.estimators._staggered import arrays, finish, no_levels
from biglocal.model import Fit, Inapplicable, Sample, Term

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


def estimate(
    sample: Sample,
    *,
    version: Literal["efficient", "callaway_santanna", "sun_abraham"] = "efficient",
    over: Literal["unit", "treated_area"] = "unit",
) -> Fit:
    """Terms `att`, `att_group`, `att_calendar` (means over cohorts and over periods) and `event_time`.

    `version`: the best beta, against those not yet treated; or beta = 1 against those (`callaway_santanna`) or
    against the cohort treated last (`sun_abraham`), both without units treated from the first period on. Errors are
    design-based, adjusted as in section 2.4; `facts["neyman"]` has the unadjusted ones by term, `facts["beta"]` the
    betas. Cohorts of one unit have no variance: they leave, and the caution counts them.

    `over`: `treated_area` takes the means of treated areas (clusters), each counted alike, as the units: where areas
    were chosen but their order was not, comparison areas are no part of the lottery.

    Raises `Inapplicable` for fewer than two cohorts, unbalanced panels, covariates, weights or clusters: the order of
    starts is random over units.
    """
    no_levels(sample)
    if over == "treated_area":
        means = area_means(sample)
        frame = means.frame[means.frame["treated"] == 1]
        sample = replace(means, frame=frame.assign(weight=1.0, cluster=frame["unit"]))
    p = arrays(sample)
    if sample.covariates:
        raise Inapplicable("takes no covariates: differences before the start are its covariate.")
    u, t = len(p.units), len(p.times)
    if np.ptp(p.w) > 1e-12 * p.w.max():
        raise Inapplicable("takes no weights: starts are random over units, each counted alike.")
    if p.n_clusters < u:
        raise Inapplicable(f"{p.n_clusters} clusters of {u} units: starts must be random over units; use their means.")
    count = np.bincount(p.unit * t + p.time, minlength=u * t)
    if (count == 0).any() or np.ptp(count):
        raise Inapplicable(f"the panel is unbalanced: {int((count == 0).sum())} of {u * t} unit-periods have no row.")
    y = (np.bincount(p.unit * t + p.time, p.y, u * t) / count).reshape(u, t)
    start = np.where(p.first > p.times[-1], np.inf, p.first)
    kept = np.ones(u, dtype=bool) if version == "efficient" else start > p.times[0]
    cohort, group, size = np.unique(start[kept], return_inverse=True, return_counts=True)
    alone = np.isin(start, cohort[size < 2])
    kept &= ~alone
    cohort, group, n = np.unique(start[kept], return_inverse=True, return_counts=True)
    if len(cohort) < 2:
        raise Inapplicable(f"{len(cohort)} cohort of two units or more: nothing to compare.")
    mean = np.array([y[kept][group == g].mean(axis=0) for g in range(len(cohort))])
    cov = np.array([np.cov(y[kept][group == g], rowvar=False).reshape(t, t) for g in range(len(cohort))])

    pairs = [
        (g, j)
        for g in range(len(cohort))
        for j in range(t)
        if p.times[j] >= cohort[g] and p.times[j] < cohort[-1] and (version == "efficient" or cohort[g] > p.times[0])
    ]
    if not pairs:
        raise Inapplicable("no period in which one cohort is treated and another not yet.")
    last_only = version == "sun_abraham"
    after = np.array([_against(cohort, n, p.times, g, j, j, last_only) for g, j in pairs])
    before = np.array(
        [_against(cohort, n, p.times, g, j, int(np.searchsorted(p.times, cohort[g])) - 1, last_only) for g, j in pairs]
    )
    estimands = _estimands(cohort, n, p.times, pairs)
    terms, neyman, betas = [], [], []
    for (name, period), share in estimands:
        a_theta = np.einsum("k,kgt->gt", share, after)
        a_zero = np.einsum("k,kgt->gt", share, before)
        x_var = _quadratic(a_zero, a_zero, cov, n)
        beta = 1.0
        if version == "efficient":
            beta = _quadratic(a_zero, a_theta, cov, n) / x_var if x_var > 0 else 0.0
        loading = a_theta - beta * a_zero
        variance = _quadratic(loading, loading, cov, n)
        adjusted = max(variance - _adjustment(a_theta, cohort, p.times, cov, int(n.sum())), 0.0)
        used = start[kept][np.isin(group, [g for (g, _), s in zip(pairs, share, strict=True) if s > 0])]
        terms.append(
            Term(
                name,
                float((loading * mean).sum()),
                float(np.sqrt(adjusted)),
                p.n_clusters - 1,
                period,
                n_treated=len(used),
            )
        )
        neyman.append(float(np.sqrt(variance)))
        betas.append(float(beta))
    names = [key for key, _ in estimands]
    facts: dict[str, object] = {
        "convention": "design-based, section 2.4; t(G-1) (R: normal)",
        "neyman": dict(zip(names, neyman, strict=True)),
        "beta": dict(zip(names, betas, strict=True)),
    }
    gone = int((~kept).sum())
    cautions = ["Holds if the order in which areas started is as good as random."] if over == "treated_area" else []
    cautions += [f"{gone} units in cohorts of one or treated from the first period on left."] if gone else []
    caution = " ".join(cautions)
    return finish(sample, p, terms, facts, caution, rows=int(kept.sum()) * t)


def _against(cohort: Floats, n: NDArray[np.int64], times: Floats, g: int, j: int, at: int, last_only: bool) -> Floats:
    """Loadings (G, T) on the means: cohort g in period `at`, less those not treated by period j in the same period."""
    out = np.zeros((len(cohort), len(times)))
    if at < 0:
        return out  # no period before the start to adjust by
    later = cohort > times[j]
    if last_only:
        later &= cohort == cohort[-1]
    out[:, at] = -np.where(later, n, 0) / n[later].sum()
    out[g, at] += 1
    return out


def _estimands(
    cohort: Floats, n: NDArray[np.int64], times: Floats, pairs: list[tuple[int, int]]
) -> list[tuple[tuple[str, int | None], Floats]]:
    """What is estimated, as shares (pairs,) of the cells of cohort and period (section 2.2)."""
    g, j = np.array(pairs).T
    size = n[g].astype(float)
    by_cohort = size / np.bincount(g, minlength=len(cohort))[g]
    period, at = np.unique(j, return_inverse=True)
    by_period = size / np.bincount(at, size)[at] / len(period)
    since = times[j] - cohort[g]
    out: list[tuple[tuple[str, int | None], Floats]] = [
        (("att", None), size / size.sum()),
        (("att_group", None), by_cohort / by_cohort.sum()),
        (("att_calendar", None), by_period),
    ]
    for e in np.unique(since):
        share = np.where(since == e, size, 0.0)
        out.append((("event_time", int(e)), share / share.sum()))
    return out


def _quadratic(a: Floats, b: Floats, cov: Floats, n: NDArray[np.int64]) -> float:
    """The sum over cohorts of a' S b / n."""
    return float((np.einsum("gt,gts,gs->g", a, cov, b) / n).sum())


def _adjustment(a_theta: Floats, cohort: Floats, times: Floats, cov: Floats, total: int) -> float:
    """How far Neyman's variance is known to be too large: what paths before any start say of the effects' variance."""
    first = cohort[np.flatnonzero(np.abs(a_theta).max(axis=1) > 0)[0]]
    m = int((times < first).sum())
    if m == 0:
        return 0.0
    use = cohort >= first
    inner = cov[use][:, :m, :m]
    slope = np.zeros(m)
    for s, whole, a in zip(inner, cov[use], a_theta[use], strict=True):
        slope += np.linalg.pinv(s, rcond=float(np.sqrt(np.finfo(float).eps)), hermitian=True) @ (whole[:m] @ a)
    return float(slope @ inner.mean(axis=0) @ slope) / total
