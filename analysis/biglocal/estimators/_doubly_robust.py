"""The two-group, two-period difference-in-differences of Sant'Anna and Zhao (2020, J Econometrics 219:101), on arrays.

Every estimator here but the Horvitz-Thompson one is a signed sum of weighted means whose weights may hold the
propensity's odds and whose values may hold regressions. So one function, `_combine`, gives the estimate and its
influence function for all of them: the leading term of each mean, and what estimating the nuisances adds (their
appendix A). Influence is on the scale of a sum: estimate - truth is about `influence.sum(axis=0)`, so that a
variance is the sum of squared cluster totals (R's did and DRDID divide by n, without n - 1; so does this).

Outcomes are (n, m): m outcomes of the same units share design, weights and propensity at the cost of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from biglocal.model import Inapplicable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

Method = Literal["dr", "dr_improved", "reg", "ipw", "ipw_ht"]
CAP = 1 - 1e-6  # the largest propensity used, as in DRDID 1.2
STEPS = 100  # Newton takes fewer than ten where there is an answer


@dataclass(frozen=True, slots=True)
class Effect:
    """Estimates (m,), their influence (n, m) on the scale of a sum, and how many comparison rows were trimmed."""

    att: Array
    influence: Array
    trimmed: int


@dataclass(frozen=True, slots=True)
class Propensity:
    """Odds of treatment (n,), which rows stay (n,), the score (n, k) and information (k, k); no score if improved."""

    odds: Array
    keep: NDArray[np.bool_]
    score: Array | None
    information: Array


@dataclass(frozen=True, slots=True)
class Regression:
    """Weighted least squares of (n, m) outcomes: weights (n,), fitted (n, m) for all rows, residuals, and x'wx."""

    weight: Array
    fitted: Array
    residual: Array
    gram: Array


@dataclass(frozen=True, slots=True)
class Mean:
    """A weighted mean of `value` (n, m) that enters the estimate with `sign`.

    `moves` names the regressions inside the value, by position, with their signs. `tilted`: the weight holds the odds.
    """

    sign: float
    weight: Array
    value: Array
    moves: tuple[tuple[int, float], ...] = ()
    tilted: bool = False


def design(columns: Array, names: Sequence[str]) -> Array:
    """A constant and the standardised columns (n, 1 + k): the same estimates, without the loss of digits.

    Raises `Inapplicable` naming the first column that is constant, or collinear with those before it.
    """
    n = len(columns)
    if columns.shape[1] == 0:
        return np.ones((n, 1))
    if not np.isfinite(columns).all():
        bad = [name for j, name in enumerate(names) if not np.isfinite(columns[:, j]).all()]
        raise Inapplicable(f"missing or infinite values of the covariate {', '.join(bad)}.")
    centred = columns - columns.mean(axis=0)
    spread = np.sqrt((centred * centred).mean(axis=0))
    size = np.abs(columns).max(axis=0)
    constant = [name for name, s, z in zip(names, spread, size, strict=True) if s <= 1e-12 * z]
    if constant:
        raise Inapplicable(f"collinear with the constant: {', '.join(constant)} (it does not vary).")
    x = np.column_stack([np.ones(n), centred / spread])
    left = np.abs(np.diag(np.linalg.qr(x, mode="r"))) / np.sqrt(n)
    if n < x.shape[1]:
        raise Inapplicable(f"{n} rows for {x.shape[1]} coefficients.")
    collinear = [name for name, r in zip(names, left[1:], strict=True) if r < 1e-8]
    if collinear:
        raise Inapplicable(f"collinear with the other covariates: {', '.join(collinear)}.")
    return x


def logit(x: Array, d: Array, w: Array) -> Array:
    """Fitted probabilities (n,) of the weighted logit of `d` on `x`, by Newton's method with step-halving.

    Raises `Inapplicable` where the covariates separate the groups: the maximum is then at infinity.
    """
    return _expit(x @ _logit(x, d, w))


def _expit(eta: Array) -> Array:
    from scipy.special import expit

    return np.asarray(expit(eta), dtype=float)


def _logit(x: Array, d: Array, w: Array) -> Array:
    share = float((w @ d) / w.sum())
    beta = np.zeros(x.shape[1])
    beta[0] = np.log(share / (1 - share))
    eta = x @ beta
    value = float(w @ (d * eta - np.logaddexp(0, eta)))
    for _ in range(STEPS):
        p = _expit(eta)
        step = _solve((x * (w * p * (1 - p))[:, None]).T @ x, x.T @ (w * (d - p)), "the propensity's")
        size = 1.0
        while True:
            eta = x @ (beta + size * step)
            now = float(w @ (d * eta - np.logaddexp(0, eta)))
            if now >= value - 1e-9 * abs(value) or size < 1e-6:
                break
            size /= 2
        beta, value = beta + size * step, now
        if np.abs(step).max() < 1e-9:  # Newton squares the error, so the next would be at rounding
            return beta
        if np.abs(beta).max() > 1e3:
            break
    raise Inapplicable("the covariates separate treated from comparison rows: no propensity; leave some out.")


def _tilt(x: Array, d: Array, w: Array) -> Array:
    """Odds (n,) that balance exactly: sum of w (1-d) odds x = sum of w d x (Graham, Pinto and Egel 2012).

    Raises `Inapplicable` where no such odds exist: the treated mean lies outside what the comparison rows span.
    """
    c, target = w * (1 - d), x.T @ (w * d)
    gamma = _logit(x, d, w)
    eta = x @ gamma

    def loss(eta: Array) -> float:
        with np.errstate(over="ignore"):
            return float(c @ np.exp(np.where(c > 0, eta, 0)) - (w * d) @ eta)

    value = loss(eta)
    for _ in range(STEPS):
        tilted = c * np.exp(np.where(c > 0, eta, 0))
        gap = target - x.T @ tilted
        if np.abs(gap).max() <= 1e-11 * target[0]:
            return np.exp(np.minimum(eta, 700))
        step = _solve((x * tilted[:, None]).T @ x, gap, "the tilted comparison's")
        size = 1.0
        while not (now := loss(x @ (gamma + size * step))) <= value + 1e-10 * abs(value) and size > 1e-10:
            size /= 2
        gamma, value = gamma + size * step, now
        eta = x @ gamma
    raise Inapplicable("no weights of comparison rows balance the covariates exactly; use method dr, reg or ipw.")


def _solve(a: Array, b: Array, whose: str) -> Array:
    scale = np.sqrt(np.diag(a))
    if not (scale > 0).all() or not np.isfinite(a).all():
        raise Inapplicable(f"{whose} covariates are collinear, or too few rows hold them.")
    unit = a / np.outer(scale, scale)
    if np.linalg.cond(unit) > 1e13:
        raise Inapplicable(f"{whose} covariates are collinear, or too few rows hold them.")
    return np.asarray((np.linalg.solve(unit, (b.T / scale).T).T / scale).T)


def _propensity(x: Array, d: Array, w: Array, trim: float, improved: bool) -> Propensity:
    if improved:
        odds = _tilt(x, d, w)
        p = np.minimum(odds / (1 + odds), CAP)
        score, information = None, np.empty((0, 0))
    else:
        p = np.minimum(logit(x, d, w), CAP)
        score = x * (w * (d - p))[:, None]
        information = (x * (w * p * (1 - p))[:, None]).T @ x
    return Propensity(p / (1 - p), (d == 1) | (p < trim), score, information)


def _regression(x: Array, y: Array, w: Array, whose: str) -> Regression:
    rows = w > 0
    inside = x[rows]
    gram = (inside * w[rows, None]).T @ inside
    fitted = x @ _solve(gram, inside.T @ (w[rows, None] * y[rows]), whose)
    return Regression(w, fitted, y - fitted, gram)


def _combine(
    means: Sequence[Mean], x: Array, regressions: Sequence[Regression], ps: Propensity | None, effects: bool
) -> Effect:
    """The signed sum of means and its influence; `effects`: with what estimating the nuisances adds."""
    n, m = means[0].value.shape
    att, influence = np.zeros(m), np.zeros((n, m))
    by_ols = [np.zeros(x.shape[1]) for _ in regressions]
    by_ps = np.zeros((x.shape[1], m))
    for part in means:
        total = float(part.weight.sum())
        if not total > 0:
            raise Inapplicable("a group has no weight in one of the periods.")
        share = part.sign * part.weight / total
        eta = part.weight @ part.value / total
        att += part.sign * eta
        centred = share[:, None] * (part.value - eta)
        influence += centred
        for j, sign in part.moves:
            by_ols[j] += sign * (share @ x)
        if part.tilted:
            by_ps += x.T @ centred
    if effects:
        for regression, gradient in zip(regressions, by_ols, strict=True):
            pull = regression.weight * (x @ _solve(regression.gram, gradient, "the regression's"))
            influence += pull[:, None] * regression.residual
        if ps is not None and ps.score is not None:
            influence += ps.score @ _solve(ps.information, by_ps, "the propensity's")
    return Effect(att, influence, 0 if ps is None else int((~ps.keep).sum()))


def panel(dy: Array, d: Array, x: Array, w: Array, method: Method, trim: float) -> Effect:
    """The ATT of changes `dy` (n, m) between treated (d = 1) and comparison units (n,), given the design x (n, k).

    `dr`: equation 3.1 with logit and least squares; `dr_improved`: with tilting and weighted least squares, whose
    estimation adds nothing (section 3.1); `reg`: Heckman, Ichimura and Todd (1997); `ipw`: normalised weights;
    `ipw_ht`: Abadie (2005). Comparison units with a propensity of `trim` or more leave; the count is returned.

    Raises `Inapplicable` for collinear covariates, separated groups, or a group without weight.
    """
    w = w / w.mean()
    treated, free = w * d, w * (1 - d)
    if method == "reg":
        r = _regression(x, dy, free, "the comparison rows'")
        return _combine([Mean(1, treated, r.residual, ((0, -1),))], x, [r], None, True)
    ps = _propensity(x, d, w, trim, method == "dr_improved")
    tilted = free * ps.odds * ps.keep
    if method == "ipw":
        return _combine([Mean(1, treated, dy), Mean(-1, tilted, dy, tilted=True)], x, [], ps, True)
    if method == "dr":
        r = _regression(x, dy, free, "the comparison rows'")
        means = [Mean(1, treated, r.residual, ((0, -1),)), Mean(-1, tilted, r.residual, ((0, -1),), tilted=True)]
        return _combine(means, x, [r], ps, True)
    # what is left is not normalised: over the weight of the treated in both terms
    value = _regression(x, dy, free * ps.odds, "the comparison rows'").residual if method == "dr_improved" else dy
    total = float(treated.sum())
    lead = (treated - tilted)[:, None] * value
    att = lead.sum(axis=0) / total
    influence = lead - treated[:, None] * att
    if ps.score is not None:
        influence -= ps.score @ _solve(ps.information, x.T @ (tilted[:, None] * value), "the propensity's")
    return Effect(att, influence / total, int((~ps.keep).sum()))


def cross_sections(
    y: Array,
    post: Array,
    d: Array,
    x: Array,
    w: Array,
    method: Method,
    trim: float,
    efficient: bool = True,
    exact: bool = False,
) -> Effect:
    """The same from repeated cross-sections: outcomes `y` (n, m) of rows in the second (post = 1) or first period.

    `efficient` adds the term that makes `dr` and `dr_improved` locally efficient (equation 3.4 against 3.3; two
    more regressions, among the treated). Assumes covariates whose distribution does not change between periods.

    DRDID 1.2 adds up, where the derivative subtracts, what estimating the two comparison regressions brings to the
    influence function of the first four means of `dr`. It vanishes as the propensity balances the covariates; errors
    moved by 0.1% to 5% in the samples of the tests. Default: as DRDID, which others compute; `exact`: the derivative.

    Raises as `panel` does.
    """
    w = w / w.mean()
    pre = 1 - post
    treated, free = w * d, w * (1 - d)
    if method == "reg":
        before = _regression(x, y, free * pre, "the comparison rows' before")
        after = _regression(x, y, free * post, "the comparison rows' after")
        means = [
            Mean(1, treated * post, y),
            Mean(-1, treated * pre, y),
            Mean(-1, treated, after.fitted - before.fitted, ((1, 1), (0, -1))),
        ]
        return _combine(means, x, [before, after], None, True)
    ps = _propensity(x, d, w, trim, method == "dr_improved")
    tilted = free * ps.odds * ps.keep
    if method == "ipw":
        means = [
            Mean(1, treated * post, y),
            Mean(-1, treated * pre, y),
            Mean(-1, tilted * post, y, tilted=True),
            Mean(1, tilted * pre, y, tilted=True),
        ]
        return _combine(means, x, [], ps, True)
    if method == "ipw_ht":
        return _abadie(y, post, treated, tilted, w, x, ps)
    odds = ps.odds if method == "dr_improved" else np.ones_like(w)
    before = _regression(x, y, free * pre * odds, "the comparison rows' before")
    after = _regression(x, y, free * post * odds, "the comparison rows' after")
    regressions = [before, after]
    turn = -1 if exact else 1
    means = [
        Mean(1, treated * post, after.residual, ((1, -1),)),
        Mean(-1, treated * pre, before.residual, ((0, turn),)),
        Mean(-1, tilted * post, after.residual, ((1, -1),), tilted=True),
        Mean(1, tilted * pre, before.residual, ((0, turn),), tilted=True),
    ]
    if efficient:
        own_before = _regression(x, y, treated * pre, "the treated rows' before")
        own_after = _regression(x, y, treated * post, "the treated rows' after")
        regressions += [own_before, own_after]
        gap_after, gap_before = own_after.fitted - after.fitted, own_before.fitted - before.fitted
        means += [
            Mean(1, treated, gap_after, ((3, 1), (1, -1))),
            Mean(-1, treated * post, gap_after, ((3, 1), (1, -1))),
            Mean(-1, treated, gap_before, ((2, 1), (0, -1))),
            Mean(1, treated * pre, gap_before, ((2, 1), (0, -1))),
        ]
    return _combine(means, x, regressions, ps, method == "dr")


def _abadie(y: Array, post: Array, treated: Array, tilted: Array, w: Array, x: Array, ps: Propensity) -> Effect:
    """Abadie (2005) for cross-sections: sums over the shares of treated and of each period, not normalised."""
    n, m = y.shape
    share = treated / n
    att, influence, pull = np.zeros(m), np.zeros((n, m)), np.zeros((x.shape[1], m))
    for sign, period in ((1.0, w * post / n), (-1.0, w * (1 - post) / n)):
        inside = (period > 0) * (treated - tilted)
        scale = sign / (n * share.sum() * period.sum())
        lead = scale * inside[:, None] * y
        part = lead.sum(axis=0)
        att += part
        influence += lead + part / n - np.outer(share / share.sum() + period / period.sum(), part)
        pull -= x.T @ (scale * ((period > 0) * tilted)[:, None] * y)
    if ps.score is not None:
        influence += ps.score @ _solve(ps.information, pull, "the propensity's")
    return Effect(att, influence, int((~ps.keep).sum()))


def two_way(y: Array, post: Array, d: Array, x: Array, w: Array) -> Effect:
    """Least squares on d x post, d, post and the covariates in levels: what Sant'Anna and Zhao compare with.

    Not an ATT where effects or trends vary with the covariates. Influence is by row. Raises as `panel` does.
    """
    full = np.column_stack([d * post, d, post, x])
    r = _regression(full, y, w / w.mean(), "the regression's")
    pick = np.zeros(full.shape[1])
    pick[0] = 1
    pull = r.weight * (full @ _solve(r.gram, pick, "the regression's"))
    influence = pull[:, None] * r.residual
    beta = pull @ y
    return Effect(beta, influence, 0)
