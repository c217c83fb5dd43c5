"""The linear regression behind every covariance: what is left of the data when nuisance is projected out.

By Frisch, Waugh and Lovell a coefficient, its scores, its leverage and its bootstrap need the regressors
of interest only after everything else is projected out of them. That is done once here; each way of
inference is then a few lines over the same record. One large fixed effect is absorbed by demeaning,
which is exact; the rest of the nuisance becomes an orthonormal basis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from biglocal.model import Fit, Inapplicable, Sample, Term

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

RANK = 1e-10  # of a column's own size: less than this left of it after projection is nothing
WIDEST = 5_000  # dummies held as columns; more need a fixed effect nested in the clusters


@dataclass(frozen=True, slots=True)
class Regression:
    """A weighted least-squares fit of n rows with p coefficients of interest.

    `x` (n, p): the regressors of interest with all nuisance projected out; `residual` (n,); `beta` (p,);
    `bread` (p, p): the inverse of x'wx. `basis` (n, m): the nuisance that is not absorbed, orthonormal in
    the weights, so that basis'w basis = 1. `absorbed` (n,): codes of the fixed effect removed by demeaning, or
    None. `fixed`: codes of every fixed effect. `rank`: parameters in all, fixed effects included.
    """

    x: NDArray[np.float64]
    residual: NDArray[np.float64]
    beta: NDArray[np.float64]
    bread: NDArray[np.float64]
    basis: NDArray[np.float64]
    weight: NDArray[np.float64]
    absorbed: NDArray[np.int64] | None
    fixed: tuple[NDArray[np.int64], ...]
    rank: int


def coded(labels: ArrayLike) -> NDArray[np.int64]:
    """Labels of any kind as integers from 0, in sorted order."""
    return np.asarray(np.unique(np.asarray(labels), return_inverse=True)[1].ravel(), dtype=np.int64)


def crossed(*codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """One code for each combination that occurs."""
    out = codes[0]
    for c in codes[1:]:
        out = coded(out * (int(c.max()) + 1) + c)
    return out


def nested(inner: NDArray[np.int64], outer: NDArray[np.int64]) -> bool:
    """Whether each level of `inner` lies in one level of `outer`."""
    home = np.empty(int(inner.max()) + 1, dtype=np.int64)
    home[inner] = outer
    return bool((home[inner] == outer).all())


def regression(
    y: ArrayLike,
    x: ArrayLike,
    *,
    nuisance: ArrayLike | None = None,
    fixed: Sequence[ArrayLike] = (),
    weight: ArrayLike | None = None,
    within: ArrayLike | None = None,
    constant: bool = True,
) -> Regression:
    """Regress `y` (n,) on `x` (n,) or (n, p), with `nuisance` (n, k) and `fixed` effects beside.

    Without fixed effects a constant is among the nuisance unless `constant` is False (then put it into `x`
    where one is wanted). `within` (n,): clusters in which an absorbed fixed effect must be nested, as the
    wild bootstrap and CR2 need; a fixed effect that is not becomes columns.
    Raises `Inapplicable` for no rows, unequal lengths, missing or infinite values, weights that are not all
    positive, a regressor of interest that is collinear with the rest (its position is named), no degrees of
    freedom left, and more dummies than can be held as columns.
    """
    outcome = np.asarray(y, dtype=float).ravel()
    n = len(outcome)
    tested = np.asarray(x, dtype=float).reshape(n, -1) if n else np.empty((0, 1))
    z = np.empty((n, 0)) if nuisance is None else np.asarray(nuisance, dtype=float).reshape(n, -1)
    w = np.ones(n) if weight is None else np.asarray(weight, dtype=float)
    effects = tuple(coded(f) for f in fixed)
    if n == 0:
        raise Inapplicable("no rows.")
    if any(len(f) != n for f in effects) or len(w) != n:
        raise Inapplicable(f"columns of unequal length: y has {n}.")
    for name, values in (("y", outcome), ("x", tested), ("nuisance", z), ("weight", w)):
        if not np.isfinite(values).all():
            raise Inapplicable(f"{name} has {int((~np.isfinite(values)).sum())} missing or infinite values: drop them.")
    if not (w > 0).all():
        raise Inapplicable(f"{int((w <= 0).sum())} weights are not positive: drop these rows.")

    absorbed = _to_absorb(effects, None if within is None else coded(within))
    wide = sum(int(f.max()) for f in effects if f is not absorbed)
    if wide > WIDEST:
        raise Inapplicable(f"{wide} dummies to hold as columns; at most {WIDEST}. Cluster at a level that nests them.")
    columns = [z]
    for f in effects:
        if f is not absorbed:
            dummies = np.zeros((n, int(f.max()) + 1))
            dummies[np.arange(n), f] = 1
            columns.append(dummies[:, 1 if absorbed is not None else 0 :])
    if not effects and constant:
        columns.append(np.ones((n, 1)))
    z = np.column_stack(columns)
    size = np.sqrt(w @ (tested * tested))
    if absorbed is not None:
        total = np.bincount(absorbed, w)
        outcome = _demean(outcome[:, None], absorbed, w, total)[:, 0]
        tested = _demean(tested, absorbed, w, total)
        z = _demean(z, absorbed, w, total)
    basis = _orthonormal(z, w)
    for _ in range(2):  # twice is enough: the second pass removes what rounding left of the first
        outcome = outcome - basis @ (basis.T @ (w * outcome))
        tested = tested - basis @ (basis.T @ (w[:, None] * tested))
    left = np.sqrt(w @ (tested * tested))
    lost = np.flatnonzero(left <= RANK**0.5 * 1e-3 * np.maximum(size, np.finfo(float).tiny))
    gram = tested.T @ (w[:, None] * tested)
    scaled = gram / np.outer(left, left) if not len(lost) else gram
    if len(lost) or (len(left) > 1 and np.linalg.eigvalsh(scaled)[0] < RANK):
        which = ", ".join(str(i) for i in lost) or "among each other"
        raise Inapplicable(f"regressors of interest are collinear with the rest: {which} (counted from 0).")
    try:
        bread = np.linalg.inv(gram)
    except np.linalg.LinAlgError:
        raise Inapplicable("the regressors are collinear with each other or with the fixed effects.") from None
    beta = bread @ (tested.T @ (w * outcome))
    rank = tested.shape[1] + basis.shape[1] + (0 if absorbed is None else int(absorbed.max()) + 1)
    if rank >= n:
        raise Inapplicable(f"{n} rows for {rank} parameters: nothing is left to estimate the error from.")
    return Regression(tested, outcome - tested @ beta, beta, bread, basis, w, absorbed, effects, rank)


def of_sample(sample: Sample, *, within: bool = True) -> Regression:
    """The two-way fixed-effects regression of a sample on `d`; `within`: absorb only what the clusters nest."""
    frame = sample.frame
    z = frame[list(sample.covariates)].to_numpy(dtype=float) if sample.covariates else None
    return regression(
        frame["y"], frame["d"], nuisance=z, fixed=(frame["unit"], frame["time"]), weight=frame["weight"],
        within=frame["cluster"] if within else None,
    )  # fmt: skip


def sole_att(fit: Fit, what: str) -> Term:
    """The one ATT of a fit. Raises `Inapplicable`, naming the inference `what`, for a fit of other terms."""
    if [t.name for t in fit.terms] != ["att"]:
        raise Inapplicable(f"{what} is for a single ATT of two-way fixed effects.")
    return fit.terms[0]


def refuse_another(att: Term, estimate: float, std_error: float, what: str) -> None:
    """Refuse to lend a fit the test of another regression: its ATT must be the `estimate` that was tested."""
    if not abs(att.estimate - estimate) <= 1e-6 * max(abs(estimate), std_error):
        raise Inapplicable(
            f"{what} tests the two-way fixed-effects ATT, {estimate:.6g}, and this estimator's is {att.estimate:.6g}. "
            f"Use cluster-robust inference for it."
        )


def resampled(att: Term, statistic: float, p_value: float, conf_low: float, conf_high: float) -> Term:
    """An ATT with the p-value and interval of resampling, which has no standard error and no degrees of freedom."""
    return replace(
        att, std_error=float("nan"), df=float("nan"), statistic=statistic, p_value=p_value, conf_low=conf_low,
        conf_high=conf_high,
    )  # fmt: skip


def errors(std_error: NDArray[np.float64]) -> NDArray[np.float64]:
    """The errors (p,), if a t can be made with each. Raises `Inapplicable` where one is not positive."""
    if not (std_error > 0).all():
        which = ", ".join(map(str, np.flatnonzero(~(std_error > 0))))
        raise Inapplicable(f"the variance of coefficient {which} (counted from 0) is not positive: it has no t.")
    return std_error


def parameters(fit: Regression, clusters: Sequence[NDArray[np.int64]], counting: str = "nonnested") -> int:
    """K of a small-sample factor: fixed effects counted `nonnested` in any cluster, `full`, or `none` of them.

    The names are those of fixest (`ssc`, argument K.fixef). Connected fixed effects are taken for granted: Q of
    them cost their levels less Q - 1.
    """
    levels = [int(f.max()) + 1 for f in fit.fixed]
    effects = sum(levels) - max(len(levels) - 1, 0)
    if counting == "full":
        return fit.rank
    if counting == "none":
        return fit.rank - effects
    return fit.rank - sum(n - 1 for f, n in zip(fit.fixed, levels, strict=True) if any(nested(f, c) for c in clusters))


def hashed(values: NDArray[np.float64], digits: int) -> NDArray[np.uint64]:
    """A number for each row of `values` (n, k): the same for rows equal to so many digits of their column's largest.

    64 bits, mixed by the finaliser of splitmix64 (Steele, Lea and Flood 2014, OOPSLA): that two kinds of rows share
    one has no chance worth the name. Equal rows may get two numbers where a value lies on the edge of rounding.
    """
    size = np.abs(values).max(axis=0, initial=0.0)
    whole = np.rint(values * (10.0**digits / np.where(size > 0, size, 1.0))).astype(np.int64).view(np.uint64)
    key = np.zeros(len(values), dtype=np.uint64)
    for column in whole.T:
        key = mixed(key + column)
    return key


def mixed(key: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """See `hashed`."""
    key = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    key = (key ^ (key >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(key ^ (key >> np.uint64(31)))


def by_group(
    values: NDArray[np.float64], group: NDArray[np.int64], groups: int, times: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Sums of the columns of `values` (n, k), `times` (n,) if given, within groups: (groups, k).

    Rows are added in their order, whichever way.
    """
    n, k = values.shape
    if k > 3:  # all columns at one pass
        from scipy.sparse import csc_array

        each = np.ones(n) if times is None else times
        return np.asarray(csc_array((each, group, np.arange(n + 1)), shape=(groups, n)) @ values)
    out = np.empty((groups, k))
    for j in range(k):
        column = values[:, j] if times is None else values[:, j] * times
        out[:, j] = np.bincount(group, column, minlength=groups)
    return out


def _to_absorb(effects: tuple[NDArray[np.int64], ...], within: NDArray[np.int64] | None) -> NDArray[np.int64] | None:
    """The fixed effect with the most levels, among those nested in `within`."""
    fit = [f for f in effects if within is None or nested(f, within)]
    return max(fit, key=lambda f: int(f.max()), default=None)


def _demean(v: NDArray[Any], code: NDArray[np.int64], w: NDArray[Any], total: NDArray[Any]) -> NDArray[np.float64]:
    means = by_group(w[:, None] * v, code, len(total)) / total[:, None]
    return np.asarray(v - means[code], dtype=float)


def _orthonormal(z: NDArray[np.float64], w: NDArray[np.float64]) -> NDArray[np.float64]:
    """A basis of the span of `z`, orthonormal in the weights; collinear columns cost nothing and are dropped."""
    size = np.sqrt(w @ (z * z))
    z = z[:, size > 0] / size[size > 0]
    for _ in range(2):
        values, vectors = np.linalg.eigh(z.T @ (w[:, None] * z))
        kept = values > RANK
        z = z @ (vectors[:, kept] / np.sqrt(values[kept]))
    return z
