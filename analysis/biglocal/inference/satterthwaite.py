"""Bias-reduced cluster errors: CR2 with Satterthwaite degrees of freedom, CR3, the cluster jackknife, HTZ tests.

Bell and McCaffrey (2002, Survey Methodology 28:169); Pustejovsky and Tipton (2018, J Bus Econ Stat 36:672, with
the 2023 corrigendum), whose working model is used: independent errors of equal variance, also under
weights. Fixed effects count as dummies in the adjustment, whether absorbed here or not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from biglocal.inference.regression import (
    Regression,
    by_group,
    coded,
    errors,
    hashed,
    mixed,
    of_sample,
    parameters,
    refuse_another,
    regression,
    sole_att,
)
from biglocal.model import Estimator, Fit, Inapplicable, Sample

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

Kind = Literal["CR0", "CR1", "CR1S", "CR2", "CR3"]
FLAT = 1e-9  # eigenvalues of I - H below this are nought: a direction the cluster fits perfectly


@dataclass(frozen=True, slots=True)
class Corrected:
    """Estimates (p,), standard errors (p,), degrees of freedom (p,), covariance (p, p); `test` is HTZ over all p.

    `moments` (p, p, G, G): the expected products of the p coefficients' cluster terms under the working model,
    from which degrees of freedom of any contrast follow. `adjusted` (n, p): its sum with the residuals over a
    cluster's rows is that cluster's term; the outcome is not in it.
    """

    estimate: NDArray[np.float64]
    std_error: NDArray[np.float64]
    df: NDArray[np.float64]
    vcov: NDArray[np.float64]
    moments: NDArray[np.float64]
    adjusted: NDArray[np.float64]

    def p_values(self) -> NDArray[np.float64]:
        """Two-sided p-values (p,) against t with each coefficient's own degrees of freedom.

        Raises `Inapplicable` for an error that is not positive.
        """
        from scipy.special import stdtr

        return np.asarray(2 * stdtr(self.df, -np.abs(self.estimate / errors(self.std_error))))

    def intervals(self, conf_level: float = 0.95) -> NDArray[np.float64]:
        """Confidence intervals (p, 2) from t with each coefficient's own degrees of freedom."""
        from scipy.special import stdtrit

        width = stdtrit(self.df, (1 + conf_level) / 2) * self.std_error
        return np.column_stack([self.estimate - width, self.estimate + width])


@dataclass(frozen=True, slots=True)
class Wald:
    """A joint test: F with `df_num` and `df` degrees of freedom."""

    statistic: float
    df_num: int
    df: float
    p_value: float


def corrected(
    y: ArrayLike,
    x: ArrayLike,
    cluster: ArrayLike,
    *,
    kind: Kind = "CR2",
    nuisance: ArrayLike | None = None,
    fixed: Sequence[ArrayLike] = (),
    weight: ArrayLike | None = None,
    constant: bool = True,
    inverse_variance: bool = False,
) -> Corrected:
    """Cluster-robust inference on the coefficients of `x` (n,) or (n, p) with small-sample adjustment.

    `kind`: CR0 no adjustment, CR1 G/(G-1), CR1S G/(G-1) x (N-1)/(N-K) with K all parameters, CR2, CR3
    (names of R's clubSandwich). The regression is that of `regression.regression`. `inverse_variance`: take
    the weights for inverse error variances in the working model, instead of errors of equal variance.
    Raises `Inapplicable` for what `regression` refuses, and for fewer than two clusters.
    """
    group = coded(cluster)
    fit = regression(y, x, nuisance=nuisance, fixed=fixed, weight=weight, within=group, constant=constant)
    return corrected_fit(fit, group, kind=kind, inverse_variance=inverse_variance)


def corrected_fit(
    fit: Regression, cluster: NDArray[np.int64], *, kind: Kind = "CR2", inverse_variance: bool = False
) -> Corrected:
    """As `corrected`, from a regression already made; its absorbed fixed effect must be nested in `cluster`."""
    groups = int(cluster.max()) + 1
    if groups < 2:
        raise Inapplicable(f"{groups} cluster: clustered errors need at least two.")
    n, p = fit.x.shape
    w = fit.weight
    plain = bool(np.ptp(w) == 0)
    # all directions, orthonormal in the weights: the hat matrix is u u'w plus that of the absorbed effect
    u = np.column_stack([fit.x @ np.linalg.cholesky(fit.bread), fit.basis])
    target = 1 / w if inverse_variance else np.ones(n)
    first, of, count, level = _alike(u, w, fit.absorbed, cluster)
    order = np.argsort(cluster[first], kind="stable")
    bounds = np.searchsorted(cluster[first][order], np.arange(groups + 1))
    middle = u.T @ ((w * w * target)[:, None] * u)
    root = fit.x @ fit.bread  # (n, p): the coefficient is root'w y
    one = np.empty((len(first), p))
    own = np.empty((p, p, groups))
    across = np.empty((p, groups, u.shape[1]))
    back = np.empty((p, groups, u.shape[1]))
    for g in range(groups):
        these = order[bounds[g] : bounds[g + 1]]
        rows, times = first[these], np.sqrt(count[these])[:, None]
        ug, wg = times * u[rows], w[rows]
        wr = times * wg[:, None] * root[rows]
        if kind not in ("CR2", "CR3"):
            a = wr
        elif plain:
            a = _low_rank(ug * math.sqrt(wg[0]), wr, -0.5 if kind == "CR2" else -1.0)
        else:
            hat_t = np.zeros((len(rows), len(rows))) if level is None else _absorbed_hat(level[these], wg)
            if kind == "CR2":
                a = _adjust(ug, hat_t, wg, target[rows], None if inverse_variance else middle) @ wr
            else:
                hat = ug @ (ug * wg[:, None]).T + hat_t
                a = np.linalg.pinv(np.eye(len(rows)) - hat, rcond=FLAT).T @ wr
        one[these] = a / times
        # p_i = (1 - H)' a_i in R^n, split into its part in the cluster and its part along u
        b = a if level is None else _without_absorbed(a, level[these], wg)
        own[:, :, g] = b.T @ (target[rows][:, None] * b)
        across[:, g] = a.T @ ug
        back[:, g] = b.T @ ((target[rows] * wg)[:, None] * ug)
    moments = (
        np.einsum("sgk,kl,thl->stgh", across, middle, across, optimize=True)
        - np.einsum("sgk,thk->stgh", back, across)
        - np.einsum("sgk,thk->stgh", across, back)
    )
    moments[:, :, np.arange(groups), np.arange(groups)] += own
    adjusted = one[of]
    score = by_group(adjusted * fit.residual[:, None], cluster, groups).T
    factor = 1.0
    if kind in ("CR1", "CR1S"):
        factor = groups / (groups - 1)
    if kind == "CR1S":
        factor *= (n - 1) / (n - parameters(fit, [], "full"))
    vcov = factor * score @ score.T
    df = np.array([_df(moments[j, j]) for j in range(p)])
    return Corrected(fit.beta, np.sqrt(np.diag(vcov)), df, vcov, moments, adjusted)


def wald_htz(fit: Corrected, contrast: ArrayLike | None = None) -> Wald:
    """Test `contrast` (q, p) @ beta = 0, by default that all are nought: the approximate Hotelling test AHT/HTZ.

    Pustejovsky and Tipton (2018, eq. 14-17). The p-value is NaN where the clusters are too few for it.
    """
    from scipy.special import fdtrc

    p = len(fit.estimate)
    c = np.eye(p) if contrast is None else np.atleast_2d(np.asarray(contrast, dtype=float))
    q = len(c)
    moments = np.einsum("as,bt,stgh->abgh", c, c, fit.moments, optimize=True)
    expected = np.einsum("abgg->ab", moments)
    values, vectors = np.linalg.eigh(expected)
    whiten = vectors / np.sqrt(values) @ vectors.T
    m = np.einsum("as,bt,stgh->abgh", whiten, whiten, moments, optimize=True)
    spread = np.einsum("stgh,tsgh->", m, m) + np.einsum("ssgh,ttgh->", m, m)
    eta = q * (q + 1) / float(spread)
    r = c @ fit.estimate
    statistic = float(r @ np.linalg.solve(c @ fit.vcov @ c.T, r))
    df = eta - q + 1
    f = df / eta * statistic / q
    return Wald(f, q, df, float(fdtrc(q, df, f)) if df > 0 else math.nan)


@dataclass(frozen=True, slots=True)
class Jackknife:
    """The cluster jackknife: `estimates` (G, p) without each cluster, `std_error` (p,), `leverage` (G,) of clusters."""

    estimate: NDArray[np.float64]
    std_error: NDArray[np.float64]
    estimates: NDArray[np.float64]
    leverage: NDArray[np.float64]


def jackknife(
    y: ArrayLike,
    x: ArrayLike,
    cluster: ArrayLike,
    *,
    nuisance: ArrayLike | None = None,
    fixed: Sequence[ArrayLike] = (),
    weight: ArrayLike | None = None,
    constant: bool = True,
) -> Jackknife:
    """CV3, the variance of the estimates without one cluster each, times (G-1), around the full estimate.

    MacKinnon, Nielsen and Webb (2023, J Applied Econometrics 38:671, eq. 12); exact, without refits:
    without cluster g the normal equations lose its cross-products. `leverage` is the trace of a cluster's hat
    matrix. Raises `Inapplicable` as `regression` does, and where a coefficient hangs on one cluster (named).
    """
    labels, group = np.unique(np.asarray(cluster), return_inverse=True)
    fit = regression(y, x, nuisance=nuisance, fixed=fixed, weight=weight, within=group, constant=constant)
    groups, (_, p) = len(labels), fit.x.shape
    if groups < 2:
        raise Inapplicable(f"{groups} cluster: a jackknife needs at least two.")
    w = fit.weight
    turn = np.linalg.cholesky(fit.bread)
    u = np.column_stack([fit.x @ turn, fit.basis])
    k = u.shape[1]
    estimates = np.empty((groups, p))
    leverage = np.empty(groups)
    target = np.zeros(k)
    for g in range(groups):
        rows = group == g
        ug = u[rows]
        cross = ug.T @ (w[rows][:, None] * ug)
        leverage[g] = float(np.trace(cross))
        # dummies of the cluster itself go with it (directions with eigenvalue one); they must not carry x
        values, vectors = np.linalg.eigh(np.eye(k) - cross)
        kept = values > FLAT
        if np.abs(vectors[:p, ~kept]).max(initial=0) > FLAT**0.5:
            raise Inapplicable(f"a coefficient cannot be estimated without cluster {labels[g]}.")
        right = target - ug.T @ (w[rows] * fit.residual[rows])
        move = vectors[:, kept] @ ((vectors[:, kept].T @ right) / values[kept])
        estimates[g] = fit.beta + turn @ move[:p]
    if fit.absorbed is not None:
        per = np.zeros(int(fit.absorbed.max()) + 1, dtype=np.int64)
        per[fit.absorbed] = group
        leverage += np.bincount(per, minlength=groups)
    gaps = estimates - fit.beta
    variance = (groups - 1) / groups * (gaps * gaps).sum(axis=0)
    return Jackknife(fit.beta, np.sqrt(variance), estimates, leverage)


def satterthwaite(
    estimator: Estimator,  # noqa: ARG001
    sample: Sample,
    fit: Fit,
    rng: np.random.Generator,  # noqa: ARG001
    *,
    conf_level: float,
) -> Fit:
    """The `att` of a two-way fixed-effects fit with CR2 errors and t tests on Satterthwaite degrees of freedom.

    Raises `Inapplicable` for a fit that is not one two-way fixed-effects `att`.
    """
    att = sole_att(fit, "CR2")
    done = corrected_fit(of_sample(sample), coded(sample.frame["cluster"]))
    refuse_another(att, float(done.estimate[0]), float(done.std_error[0]), "CR2")
    p_value = float(done.p_values()[0])
    low, high = done.intervals(conf_level)[0]
    term = replace(
        att, std_error=float(done.std_error[0]), df=float(done.df[0]),
        statistic=float(done.estimate[0] / done.std_error[0]), p_value=p_value,
        conf_low=float(low), conf_high=float(high),
    )  # fmt: skip
    return replace(fit, terms=(term,), facts={**fit.facts, "convention": "CR2, Satterthwaite degrees of freedom"})


def _alike(
    u: NDArray[np.float64], w: NDArray[np.float64], absorbed: NDArray[np.int64] | None, cluster: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64] | None]:
    """Rows that one cluster cannot tell apart: the first of each kind (k,), the kind of each row (n,), how many, and
    the kind of their absorbed level (k,).

    They have the same values, to nine digits, and their absorbed levels hold the same rows. A cluster's hat matrix is
    the same whichever way they change places, so all that is made of it is the same for each: one row, times the
    root of their number, stands for them. Every row is a kind of its own where an absorbed level holds some twice.
    """
    n = len(w)
    key = mixed(hashed(np.column_stack([u, w]), 9) + cluster.astype(np.uint64))
    if absorbed is not None:
        order = np.lexsort((key, absorbed))
        level, sorted_ = absorbed[order], key[order]
        if ((level[1:] == level[:-1]) & (sorted_[1:] == sorted_[:-1])).any():
            return np.arange(n), np.arange(n), np.ones(n, dtype=np.int64), absorbed
        starts = np.flatnonzero(np.r_[True, level[1:] != level[:-1]])
        kind = np.add.reduceat(sorted_, starts)[absorbed]
        key = mixed(key + kind)
    _, first, of, count = np.unique(key, return_index=True, return_inverse=True, return_counts=True)
    return first, of.ravel(), count, None if absorbed is None else coded(kind[first])


def _df(m: NDArray[np.float64]) -> float:
    return float(np.trace(m) ** 2 / (m * m).sum())


def _low_rank(u: NDArray[np.float64], x: NDArray[np.float64], power: float) -> NDArray[np.float64]:
    """(I - u u')^power x for x in the span of u, the power of nought being nought.

    What an absorbed effect adds to the hat matrix is orthogonal to u and does not change the product.
    """
    q, r = np.linalg.qr(u)
    values, vectors = np.linalg.eigh(np.eye(len(r)) - r @ r.T)
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = np.where(values > FLAT, np.maximum(values, FLAT) ** power, 0.0)
    return np.asarray(q @ (vectors @ (scaled[:, None] * (vectors.T @ (q.T @ x)))))


def _adjust(
    u: NDArray[np.float64],
    hat_t: NDArray[np.float64],
    w: NDArray[np.float64],
    target: NDArray[np.float64],
    middle: NDArray[np.float64] | None,
) -> NDArray[np.float64]:
    """The symmetric adjustment matrix A of one cluster under weights, with A E[ee'] A' = the working variance.

    H = u u'W + `hat_t` over all columns. `middle`: u'W V W u over all clusters for a working variance V that is
    not the inverse of the weights (then the residual's variance is (I - H) V (I - H)'); None where it is.
    """
    hat = u @ (u * w[:, None]).T + hat_t
    residual = np.diag(target) - hat * target[None, :]
    if middle is not None:
        cross = u @ ((u * (w * target)[:, None]).T @ hat_t.T)
        residual = residual - (hat * target[None, :]).T + u @ middle @ u.T + cross + cross.T
        residual += (hat_t * target[None, :]) @ hat_t.T
    root = np.sqrt(target)
    values, vectors = np.linalg.eigh(root[:, None] * residual * root[None, :])
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = np.where(values > FLAT * values[-1], np.maximum(values, FLAT * values[-1]) ** -0.5, 0.0)
    return np.asarray(root[:, None] * ((vectors * scaled) @ vectors.T) * root[None, :])


def _absorbed_hat(code: NDArray[np.int64], w: NDArray[np.float64]) -> NDArray[np.float64]:
    local = np.unique(code, return_inverse=True)[1]
    same = local[:, None] == local[None, :]
    return np.asarray(same * (w / np.bincount(local, w)[local])[None, :], dtype=float)


def _without_absorbed(a: NDArray[np.float64], code: NDArray[np.int64], w: NDArray[np.float64]) -> NDArray[np.float64]:
    """(1 - H_T)' a with H_T = T (T'wT)^-1 T'w: a less w times its group mean of sums."""
    local = np.unique(code, return_inverse=True)[1]
    total = np.bincount(local, w)
    out = a.copy()
    for j in range(a.shape[1]):
        out[:, j] -= w * (np.bincount(local, a[:, j]) / total)[local]
    return out
