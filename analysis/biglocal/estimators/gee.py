"""Generalised estimating equations: means of a population whose persons answer again (Liang and Zeger 1986,
Biometrika 73:13).

The coefficients are of population averages, right whatever the correlation within persons; the working correlation
only makes them precise. Errors are robust, summed over areas, which hold their persons. The scale and the
correlation are moments of the Pearson residuals e: phi is the mean of e^2; `exchangeable` is the mean of
e_j e_k / phi over pairs; `ar1`, alpha^|t_j - t_k|, solves its least-squares equation over all pairs, as R's
geepack does (Hojsgaard, Halekoh and Yan 2006, J Stat Softw 15(2)).

A working correlation other than independence is a whitening of rows in order of time within persons, so each step is
a least-squares problem on whitened columns: nothing of the size of persons x rows^2 is made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from biglocal.estimators import CONVENTION, correction
from biglocal.estimators._design import wald
from biglocal.estimators._waves import (
    Of,
    coefficients,
    model,
    orthogonal,
    people,
    ratios,
    read,
    refuse_unvaried,
    terms,
    weighed,
)
from biglocal.estimators._within import cluster_sums, codes, sums
from biglocal.model import Fit, Inapplicable, Sample

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

Family = Literal["gaussian", "logit", "poisson"]
Correlation = Literal["independence", "exchangeable", "ar1"]
STEPS = 100
CERTAIN = 1e-9  # a fitted probability nearer to 0 or 1 than this: the outcome is predicted perfectly


@dataclass(frozen=True, slots=True)
class Estimated:
    """Weights that were estimated, by m parameters: `slope` (n, m), of the log weight of each row by each of them;
    `part` (n, m), what each row adds to their estimates (the influence function over n; rows of one person may share
    theirs out as they like)."""

    slope: NDArray[np.float64]
    part: NDArray[np.float64]


def estimate(
    sample: Sample,
    *,
    of: Of = "change",
    family: Family = "logit",
    correlation: Correlation = "exchangeable",
    estimated: Estimated | None = None,
) -> Fit:
    """The terms of `_waves`: log odds ratios (family logit, outcome of two values: 0 and another), log ratios of means
    (poisson), each with `odds_ratio` beside it for the logit, or the unit of the outcome (gaussian).

    family="gaussian" with correlation="independence" is least squares with clustered errors: for an outcome of two
    values the linear probability model. `facts` has `alpha` and `scale`. Weights that differ between a person's rows
    call for independence (Robins, Rotnitzky and Zhao 1995, J Am Stat Assoc 90:106): the caution says so. Errors take
    weights as known, unless `estimated`, in the order of the rows, says what they were estimated from; then they are
    those of leaving out each cluster (CR3), as the largest such weights stand for very many.

    Raises `Inapplicable` as `_waves.model` does, for one cluster, collinear columns, an outcome that is not of the
    family, predicted perfectly, or where the equations do not converge.
    """
    sample = weighed(sample)
    frame = sample.frame
    found = model(sample, of)
    y, top = frame["y"].to_numpy(dtype=float), 1.0
    if family == "logit":
        top = two_values(y)
        refuse_unvaried(sample)
    weight, unit = frame["weight"].to_numpy(dtype=float), codes(frame["unit"])
    time, cluster = frame["time"].to_numpy(dtype=float), codes(frame["cluster"])
    solved = _solve(
        y / top, found.columns, unit, time, cluster, weight, family, correlation, estimated, small_sample=True
    )
    df = solved.clusters - 1
    said = terms(found, solved.beta, solved.vcov, lambda c: (wald(solved.beta, solved.vcov, c), df))
    uneven = correlation != "independence" and _varies(weight, unit)
    return Fit(
        (*said, *(ratios(said) if family == "logit" else ())),
        n_obs=len(y),
        **people(frame),
        n_clusters=solved.clusters,
        caution=" ".join(filter(None, [sample.caution, UNEVEN if uneven else "", solved.caution])),
        facts={
            "convention": CONVENTION if estimated is None else LEFT_OUT,
            "alpha": solved.alpha,
            "scale": solved.scale,
            "correlation": correlation,
        },
    )


LEFT_OUT = "CR3: each cluster left out, (G-1)/G; t(G-1)"
UNEVEN = "Weights differ between a person's rows: only the independence working correlation is right with them."


def fit(
    frame: pd.DataFrame,
    formula: str,
    *,
    unit: str,
    time: str | None = None,
    cluster: str | None = None,
    weight: str | None = None,
    family: Family = "logit",
    correlation: Correlation = "exchangeable",
    small_sample: bool = False,
) -> Fit:
    """A term for each coefficient of `formula`, on the scale of the link, and for the logit its `odds_ratio` (`level`
    is then the coefficient's name).

    `time` orders a unit's rows and gives the gaps of `ar1`; where not said the rows are one apart, as they come.
    `cluster` (the unit, where not said) is what robust errors are summed over. Without `small_sample` errors are the
    raw sandwich with normal tests, as geepack's; with it those of the package's convention.
    """
    of = read(frame, formula, unit, cluster, weight)
    order = of.rows.groupby(unit).cumcount() if time is None else of.rows[time]
    times = np.asarray(order.to_numpy(), dtype=np.float64)
    y = of.y / two_values(of.y) if family == "logit" else of.y
    solved = _solve(
        y, of.columns, of.unit, times, of.cluster, of.weight, family, correlation, small_sample=small_sample
    )
    df = solved.clusters - 1 if small_sample else np.inf
    said = coefficients(tuple(of.columns), solved.beta, solved.vcov, lambda c: (wald(solved.beta, solved.vcov, c), df))
    return Fit(
        (*said, *(ratios(said) if family == "logit" else ())),
        *of.counts,
        caution=solved.caution,
        facts={"alpha": solved.alpha, "scale": solved.scale, "vcov": solved.vcov},
    )


@dataclass(frozen=True, slots=True)
class _Solved:
    beta: NDArray[np.float64]
    vcov: NDArray[np.float64]
    alpha: float
    scale: float
    clusters: int
    caution: str


def _solve(
    y: NDArray[np.float64],
    columns: dict[str, NDArray[np.float64]],
    unit: NDArray[np.int64],
    time: NDArray[np.float64],
    cluster: NDArray[np.int64],
    weight: NDArray[np.float64],
    family: Family,
    correlation: Correlation,
    estimated: Estimated | None = None,
    *,
    small_sample: bool,
) -> _Solved:
    if len(y) == 0:
        raise Inapplicable("no rows.")
    if np.ptp(y) == 0:
        raise Inapplicable(f"the outcome is constant (always {y[0]:g}).")
    if family == "poisson" and y.min() < 0:
        raise Inapplicable(f"{int((y < 0).sum())} outcomes are negative (the least is {y.min():g}): not counts.")
    clusters = int(cluster.max()) + 1
    if clusters < 2:
        raise Inapplicable("1 cluster: robust errors need at least two.")
    order = np.lexsort((time, unit))
    y, unit, time, cluster, weight = y[order], unit[order], time[order], cluster[order], weight[order]
    x = np.column_stack([c[order] for c in columns.values()])
    orthogonal(x, tuple(columns))
    pairs = _Pairs(unit, time)
    beta, alpha, scale = _start(x, y, weight, family), 0.0, 1.0
    for _ in range(STEPS):
        mean, slope, variance = _moments(x @ beta, family)
        root = np.sqrt(weight / np.maximum(variance, 1e-300))
        e = root * (y - mean)
        scale = float(e @ e) / len(e)
        alpha = pairs.alpha(e / np.sqrt(scale), correlation)
        white = pairs.whiten(np.column_stack([(root * slope)[:, None] * x, e]), alpha, correlation)
        d, r = white[:, :-1], white[:, -1]
        inverse = np.linalg.pinv(d.T @ d, hermitian=True)
        step = inverse @ (d.T @ r)
        # the step in units of the coefficients' errors, so that the scale of a covariate does not matter
        if np.max(np.abs(step) / np.sqrt(scale * np.diag(inverse))) < 1e-9:
            break
        beta = beta + step
        if not np.isfinite(beta).all() or (family == "logit" and np.abs(x @ beta).max() > 700):
            raise Inapplicable("the estimating equations do not converge: the outcome may be predicted perfectly.")
    else:
        _refuse_separation(mean, family)
        raise Inapplicable(f"the estimating equations do not converge in {STEPS} steps: try independence.")
    _refuse_separation(mean, family)
    total = cluster_sums(d, r, cluster)
    if estimated is not None:  # d and r are in order of the whitened rows, which are rows of their own by independence
        by = estimated.slope[order].T @ (d * r[:, None])  # (m, k), of the equations by the parameters
        total = total + np.column_stack([sums(cluster, c) for c in estimated.part[order].T]) @ by
    half = total @ inverse if estimated is None else _left_out(d, total, cluster)
    factor = correction(len(y), len(beta), clusters) if small_sample else 1.0
    if estimated is not None:
        factor = (clusters - 1) / clusters
    caution = ""
    if correlation != "independence" and not -1 < alpha < 1:
        caution = f"The working correlation ({alpha:.3g}) is no correlation: use independence."
    return _Solved(beta, half.T @ half * factor, alpha, scale, clusters, caution)


def _left_out(d: NDArray[np.float64], total: NDArray[np.float64], cluster: NDArray[np.int64]) -> NDArray[np.float64]:
    """What the coefficients move by, (G, k), as each cluster with its `total` (G, k) of the equations is left out.

    The jackknife's, or CR3 (Bell and McCaffrey 2002, Surv Methodol 28:169): a few clusters with large weights draw the
    fit to themselves, so that their residuals say too little of them.
    """
    k = d.shape[1]
    own = np.stack([np.column_stack([sums(cluster, a * b) for b in d.T]) for a in d.T], axis=1)
    left = d.T @ d - own
    size = np.sqrt(np.diag(d.T @ d))
    without = np.linalg.eigvalsh(left / np.outer(size, size))[:, 0] < 1e-10
    if without.any():
        raise Inapplicable(
            f"{int(without.sum())} clusters hold all that is known of a term (of {k}): no error without them."
        )
    return np.asarray(np.linalg.solve(left, total[..., None])[..., 0], dtype=np.float64)


def _refuse_separation(mean: NDArray[np.float64], family: Family) -> None:
    certain = int((np.minimum(mean, 1 - mean) < CERTAIN).sum()) if family == "logit" else 0
    if certain:
        raise Inapplicable(f"{certain} rows are predicted perfectly: no finite estimate exists (separation).")


class _Pairs:
    """Rows of one person, sorted by time: their working correlation and what takes it out of columns."""

    def __init__(self, unit: NDArray[np.int64], time: NDArray[np.float64]) -> None:
        self.unit, self.size = unit, np.bincount(unit)
        self.first = np.r_[True, unit[1:] != unit[:-1]]
        self.gap = np.where(self.first, 0.0, np.diff(time, prepend=time[0]))
        start = np.flatnonzero(self.first)[unit]
        lags, products = [], []
        for k in range(1, int(self.size.max())):  # every pair once, the k-th row before with each
            here = np.flatnonzero(np.arange(len(unit)) - start >= k)
            lags.append(time[here] - time[here - k])
            products.append((here, here - k))
        self.lags = np.concatenate(lags) if lags else np.zeros(0)
        self.late = np.concatenate([p[0] for p in products]) if products else np.zeros(0, dtype=np.int64)
        self.early = np.concatenate([p[1] for p in products]) if products else np.zeros(0, dtype=np.int64)

    def alpha(self, e: NDArray[np.float64], correlation: Correlation) -> float:
        """The working correlation from residuals of mean square one."""
        if correlation == "independence" or len(self.lags) == 0:
            return 0.0
        product = e[self.late] * e[self.early]
        if correlation == "exchangeable":
            return float(product.mean())
        if self.lags.min() <= 0:
            raise Inapplicable("two rows of a unit at the same time: ar1 needs an order. Use exchangeable.")
        lags, place = np.unique(self.lags, return_inverse=True)
        count, total = np.bincount(place), np.bincount(place, product)

        def equation(a: float) -> float:
            return float((lags * a ** (lags - 1)) @ (total - count * a**lags))

        from scipy.optimize import brentq

        low, high = 1e-6, 1 - 1e-9
        if equation(low) <= 0 or equation(high) >= 0:
            return low if equation(low) <= 0 else high
        return float(brentq(equation, low, high, xtol=1e-14))

    def whiten(self, columns: NDArray[np.float64], alpha: float, correlation: Correlation) -> NDArray[np.float64]:
        """Columns (n, k) times the inverse root of the working correlation of each person's rows."""
        if correlation == "independence" or alpha == 0:
            return columns
        if correlation == "ar1":
            rho = np.where(self.first, 0.0, alpha ** np.maximum(self.gap, 1e-300))
            before = np.vstack([np.zeros(columns.shape[1]), columns[:-1]])
            return np.asarray((columns - rho[:, None] * before) / np.sqrt(1 - rho**2)[:, None])
        # (1 - a) I + a J has the eigenvalue 1 + (n - 1) a along the mean and 1 - a across it
        along = 1 + (self.size - 1) * alpha
        if along.min() <= 0 or alpha >= 1:
            raise Inapplicable(f"the exchangeable correlation {alpha:.3g} is out of range: use independence.")
        share = 1 / np.sqrt(along) - 1 / np.sqrt(1 - alpha)
        means = np.column_stack([sums(self.unit, c) for c in columns.T]) / self.size[:, None]
        return np.asarray(columns / np.sqrt(1 - alpha) + (share[:, None] * means)[self.unit])


def _start(
    x: NDArray[np.float64], y: NDArray[np.float64], weight: NDArray[np.float64], family: Family
) -> NDArray[np.float64]:
    """Ordinary least squares of the outcome drawn to its mean, on the scale of the link."""
    middle = (y + float(weight @ y / weight.sum())) / 2
    target = y if family == "gaussian" else np.log(middle) if family == "poisson" else np.log(middle / (1 - middle))
    return np.asarray(np.linalg.lstsq(x, target, rcond=None)[0])


def _moments(
    linear: NDArray[np.float64], family: Family
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Mean, its derivative and the variance function, from the linear predictor."""
    from scipy.special import expit

    if family == "gaussian":
        return linear, np.ones_like(linear), np.ones_like(linear)
    if family == "poisson":
        mean = np.exp(np.minimum(linear, 700))
        return mean, mean, mean
    mean = np.asarray(expit(linear))
    return mean, mean * (1 - mean), mean * (1 - mean)


def two_values(y: NDArray[np.float64]) -> float:
    """The value that is not 0 of an outcome of two values, one of them 0."""
    values = np.unique(y)
    if len(values) == 1:
        raise Inapplicable(f"the outcome is constant (always {values[0]:g}).")
    if len(values) != 2 or values[0] != 0:
        seen = ", ".join(f"{v:g}" for v in values[:5])
        raise Inapplicable(f"a logit needs an outcome of two values, 0 and another; it has {len(values)}: {seen}.")
    return float(values[1])


def _varies(weight: NDArray[np.float64], unit: NDArray[np.int64]) -> bool:
    high, low = np.zeros(int(unit.max()) + 1), np.full(int(unit.max()) + 1, np.inf)
    np.maximum.at(high, unit, weight)
    np.minimum.at(low, unit, weight)
    return bool((high > low * (1 + 1e-12)).any())
