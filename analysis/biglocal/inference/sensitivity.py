"""Bounds on an effect when trends are not parallel: Rambachan and Roth (2023, Rev Econ Stud 90:2555).

An event study's coefficients are effects plus a difference in trends delta. Two restrictions of delta: relative
magnitudes (no step between periods after the start exceeds Mbar times the largest step before) and smoothness
(the slope changes by at most M from one period to the next). Confidence sets are those of the paper and
of R's HonestDiD: conditional and hybrid tests (Andrews, Roth and Pakes 2023, Rev Econ Stud 90:2763) and, for
smoothness, fixed-length intervals.

The linear programmes of those tests are solved in closed form. With all post-period effects but l'tau as
nuisance, a dual variable of the restrictions -d <= D delta_post <= d must have D'(plus - minus) proportional to
l. With P post periods that leaves P + 2 vertices: one for each sign of l'tau, and one for each row with both
its sides equal. So a test is a few products, over all hypotheses at once, and a breakdown value a bisection.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np

from biglocal.inference.regression import regression
from biglocal.inference.twoway import clustered
from biglocal.model import Inapplicable, Sample

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

Method = Literal["C-LF", "conditional", "FLCI", "C-F"]
DRAWS = 100_000  # for the least favourable critical value: its error is then below a hundredth
GRID = 1_000  # points to 20 standard errors on either side: a step is 0.04 of them
WIDEST = 256  # times that; a set that reaches so far is open
NOUGHT = 1e-12


@dataclass(frozen=True, slots=True)
class EventStudy:
    """Coefficients (T + P,) in order of time without the reference period, their covariance, and l (P,).

    The first `n_pre` = T lie before the reference, the others after it, all one period apart.
    """

    beta: NDArray[np.float64]
    vcov: NDArray[np.float64]
    n_pre: int
    weights: NDArray[np.float64]

    @property
    def estimate(self) -> float:
        """l'beta over the post periods."""
        return float(self.weights @ self.beta[self.n_pre :])

    @property
    def std_error(self) -> float:
        """Its standard error."""
        post = self.vcov[self.n_pre :, self.n_pre :]
        return math.sqrt(float(self.weights @ post @ self.weights))


@dataclass(frozen=True, slots=True)
class Bounds:
    """Confidence bounds under each `m`; infinite where a set is open, NaN where every value is rejected.

    Sets by inversion have ends on a grid of 0.04 standard errors of l'beta, as HonestDiD's; FLCI is exact.
    """

    m: tuple[float, ...]
    conf_low: tuple[float, ...]
    conf_high: tuple[float, ...]
    method: Method


@dataclass(frozen=True, slots=True)
class _Dual:
    """A test of l'tau = theta in one polyhedron, by its dual vertices (V of them).

    The statistic is the largest of `level` - theta x `slope`; its parts have covariance `cov` (V, V) and are
    `load` (V, T + P) times the coefficients less a constant.
    """

    level: NDArray[np.float64]
    slope: NDArray[np.float64]
    cov: NDArray[np.float64]
    load: NDArray[np.float64]


def event_study(beta: ArrayLike, vcov: ArrayLike, n_pre: int, weights: ArrayLike | None = None) -> EventStudy:
    """Check and hold an event study; `weights` (P,) of the post periods, by default the first alone.

    Raises `Inapplicable` for shapes that do not fit, no pre- or post-period, missing values, and a covariance that is
    not positive definite.
    """
    b, v = np.asarray(beta, dtype=float), np.asarray(vcov, dtype=float)
    n_post = len(b) - n_pre
    if n_pre < 1 or n_post < 1:
        raise Inapplicable(f"{n_pre} periods before the reference and {n_post} after; at least one of each is needed.")
    first = np.eye(n_post)[0]
    w = first if weights is None else np.asarray(weights, dtype=float)
    if v.shape != (len(b), len(b)) or w.shape != (n_post,) or not np.any(w):
        raise Inapplicable(f"shapes do not fit: {len(b)} coefficients, covariance {v.shape}, {len(w)} weights.")
    if not (np.isfinite(b).all() and np.isfinite(v).all()):
        raise Inapplicable("missing or infinite values among the coefficients or their covariance.")
    if np.linalg.eigvalsh((v + v.T) / 2)[0] <= 0:
        raise Inapplicable("the covariance of the coefficients is not positive definite: too few clusters for it.")
    return EventStudy(b, (v + v.T) / 2, n_pre, w)


def of_sample(sample: Sample, weights: ArrayLike | None = None) -> EventStudy:
    """The event study of a sample: two-way fixed effects and a coefficient a year since start, base -1, clustered.

    The estimates and errors are those of `estimators.event_study`. `weights` as in `event_study`.
    Raises `Inapplicable` as `event_study` and `regression` do, and where years since start have gaps.
    """
    frame = sample.frame
    since = (frame["time"] - frame["first_treated"]).to_numpy(dtype=float)
    times = np.unique(since[np.isfinite(since)]).astype(int)
    if len(times) == 0 or -1 not in times or not (np.diff(times) == 1).all():
        raise Inapplicable(f"years since start must have no gaps and hold -1; there are {times.tolist()}.")
    rest = times[times != -1]
    fit = regression(
        frame["y"], since[:, None] == rest, fixed=(frame["unit"], frame["time"]), weight=frame["weight"],
        nuisance=frame[list(sample.covariates)].to_numpy(dtype=float) if sample.covariates else None,
    )  # fmt: skip
    return event_study(fit.beta, clustered(fit, frame["cluster"]).vcov, int((rest < 0).sum()), weights)


def relative_magnitudes(
    study: EventStudy, m: Sequence[float], *, conf_level: float = 0.95, method: Method = "C-LF"
) -> Bounds:
    """Bounds on l'tau for each Mbar of `m`: by how much post-period steps may exceed the largest pre-period one.

    `method`: C-LF (hybrid with the least favourable test at a tenth of the level, the default) or conditional.
    """
    _check(m)
    tests = [_any(_relative(study, value), study, conf_level, method) for value in m]
    return _bounds(m, [_set(t, 0.0, 20 * study.std_error) for t in tests], method)


def smoothness(study: EventStudy, m: Sequence[float], *, conf_level: float = 0.95, method: Method = "FLCI") -> Bounds:
    """Bounds on l'tau for each M of `m`: by how much the slope may change in a period, in units of the outcome.

    `method`: FLCI (fixed-length interval around an optimal linear estimator, the default), C-LF, C-F (hybrid
    with FLCI) or conditional.
    """
    _check(m)
    if method == "FLCI":
        return _bounds(m, [_flci(study, value, 1 - conf_level)[:2] for value in m], method)
    ends = []
    for value in m:
        test = _any([_smooth(study, value)], study, conf_level, method, value)
        if method == "C-F":
            low, high, _ = _flci(study, value, (1 - conf_level) / 10)
            ends.append(_set(test, (low + high) / 2, (high - low) / 2 * (1 + NOUGHT)))
        else:
            ends.append(_set(test, 0.0, 20 * study.std_error + value * _bends(study.weights)))
    return _bounds(m, ends, method)


def original(study: EventStudy, conf_level: float = 0.95) -> tuple[float, float]:
    """The interval under parallel trends, normal."""
    from scipy.special import ndtri

    width = float(ndtri((1 + conf_level) / 2)) * study.std_error
    return study.estimate - width, study.estimate + width


def breakdown(
    study: EventStudy,
    restriction: Literal["relative_magnitudes", "smoothness"],
    *,
    conf_level: float = 0.95,
    method: Method | None = None,
    value: float = 0.0,
    largest: float = 1e6,
) -> float:
    """The largest m under which `value` is rejected, to 1e-4 of itself; 0 where it never is, infinite beyond `largest`.

    `largest` is in units of m for relative magnitudes and in standard errors of l'beta for smoothness.
    """
    smooth = restriction == "smoothness"
    how = method or ("FLCI" if smooth else "C-LF")
    unit = study.std_error if smooth else 1.0

    def rejected(m: float) -> bool:
        if how == "FLCI":
            low, high, _ = _flci(study, m, 1 - conf_level)
            return not low <= value <= high
        polyhedra = [_smooth(study, m)] if smooth else _relative(study, m)
        return not _any(polyhedra, study, conf_level, how, m)(np.array([value]))[0]

    if not rejected(0.0):
        return 0.0
    low, high = 0.0, unit
    while rejected(high):
        low, high = high, 2 * high
        if high > largest * unit:
            return math.inf
    while high - low > 1e-4 * high and high > NOUGHT * unit:
        middle = (low + high) / 2
        low, high = (middle, high) if rejected(middle) else (low, middle)
    return low


def _differences(study: EventStudy, order: int) -> NDArray[np.float64]:
    """First or second differences of delta over time, (T + P - order + 1, T + P); the reference period is nought."""
    n = len(study.beta) + 1
    return np.delete(np.diff(np.eye(n), n=order, axis=0), study.n_pre, axis=1)


def _bends(weights: NDArray[np.float64]) -> float:
    """The largest |l'delta| over the post periods that unit changes of slope, from the reference on, can make."""
    after = np.arange(1.0, len(weights) + 1)
    return float(sum(abs(weights @ np.maximum(after - k, 0)) for k in range(len(weights))))


def _relative(study: EventStudy, m: float) -> list[_Dual]:
    """A polyhedron for each pre-period step that may be the largest, and each sign of it."""
    t = study.n_pre
    steps = _differences(study, 1)
    largest = [sign * steps[s] for s in range(t) for sign in (1, -1)]
    if len(study.weights) > 1:
        return [_dual(study, steps[t:], m * np.tile(v, (len(steps) - t, 1)), 0.0) for v in largest]
    factor = np.r_[np.ones(t), np.full(len(steps) - t, m)]
    return [_dual(study, steps, factor[:, None] * v, 0.0) for v in largest]


def _smooth(study: EventStudy, m: float) -> _Dual:
    bends = _differences(study, 2)
    return _dual(study, bends[study.n_pre - 1 :] if len(study.weights) > 1 else bends, np.zeros(1), m)


def _dual(study: EventStudy, rows: NDArray[np.float64], bound: NDArray[np.float64], constant: float) -> _Dual:
    """The restrictions |rows delta| <= bound delta + constant, as vertices of the dual.

    With one post period nothing is nuisance, and each restriction alone is a vertex.
    """
    plus, minus = rows - bound, -rows - bound
    a = np.vstack([plus, minus])
    a = a[(a * a).sum(axis=1) > 1e-10]  # the largest step is no larger than itself
    sd = np.sqrt(np.einsum("ij,jk,ik->i", a, study.vcov, a))
    post = study.n_pre
    if len(study.weights) == 1:
        lam = np.diag(1 / sd)
    else:
        p = len(rows)
        along = np.linalg.solve(rows[:, post:].T, study.weights)
        both = np.hstack([np.eye(p), np.eye(p)])
        up = np.r_[np.maximum(along, 0), np.maximum(-along, 0)]
        down = np.r_[np.maximum(-along, 0), np.maximum(along, 0)]
        lam = np.vstack([up, down, both])
        lam /= (lam @ sd)[:, None]
    load = lam @ a
    slope = load[:, post:] @ study.weights / float(study.weights @ study.weights)
    return _Dual(load @ study.beta - constant * lam.sum(axis=1), slope, load @ study.vcov @ load.T, load)


def _any(
    polyhedra: list[_Dual], study: EventStudy, conf_level: float, method: Method, m: float = 0.0
) -> Callable[[NDArray[np.float64]], NDArray[np.bool_]]:
    """Whether each theta is accepted in some polyhedron."""
    alpha = 1 - conf_level
    kappa = 0.0 if method == "conditional" else alpha / 10
    fixed = _flci(study, m, kappa) if method == "C-F" else None
    critical = [math.inf] * len(polyhedra)
    if method == "C-LF":
        root = (_normal(len(study.beta)) @ np.linalg.cholesky(study.vcov).T).T
        critical = [float(np.quantile(_largest(p.load @ root), 1 - kappa)) for p in polyhedra]

    def accepted(theta: NDArray[np.float64]) -> NDArray[np.bool_]:
        out = np.zeros(len(theta), dtype=bool)
        for p, c in zip(polyhedra, critical, strict=True):
            out |= ~_rejects(p, theta, (alpha - kappa) / (1 - kappa), c, study, fixed)
        return out

    return accepted


@lru_cache(maxsize=4)
def _normal(k: int) -> NDArray[np.float64]:
    """Half of the standard normal draws, always the same; see `_largest` for the others."""
    return np.random.default_rng(0).standard_normal((DRAWS // 2, k))


def _largest(parts: NDArray[np.float64]) -> NDArray[np.float64]:
    """The largest of `parts` (p, draws) in each draw and in its mirror image: bounds neither move nor take sides."""
    return np.concatenate([parts.max(axis=0), -parts.min(axis=0)])


def _rejects(
    p: _Dual,
    theta: NDArray[np.float64],
    alpha: float,
    critical: float,
    study: EventStudy,
    fixed: tuple[float, float, NDArray[np.float64]] | None,
) -> NDArray[np.bool_]:
    """The conditional test of each theta: the largest part, given that it is the largest (ARP 2023, section 4).

    Hybrid: reject above `critical`, or outside the interval `fixed`, and condition on not having done so.
    """
    from scipy.special import log_ndtr

    parts = p.level[:, None] - p.slope[:, None] * theta
    best = parts.argmax(axis=0)
    each = np.arange(len(theta))
    top = parts[best, each]
    var = np.maximum(np.diag(p.cov), 0)[best]
    flat = var < NOUGHT * np.max(np.diag(p.cov))
    safe = np.where(flat, 1.0, var)
    ratio = p.cov[:, best] / safe
    rest = parts - ratio * top
    with np.errstate(divide="ignore", invalid="ignore"):
        cut = rest / (1 - ratio)
    near = np.abs(1 - ratio) < 1e-9
    low = np.where((ratio < 1) & ~near, cut, -np.inf).max(axis=0)
    high = np.where((ratio > 1) & ~near, cut, np.inf).min(axis=0)
    if len(study.weights) > 1:  # with one post period HonestDiD leaves this out, which is conservative; so do we
        high = np.minimum(high, critical)
    first = top > critical
    if fixed is not None:
        centre = (fixed[0] + fixed[1]) / 2
        half = fixed[1] - centre
        first |= np.abs(centre - theta) > half
        move = (p.load @ study.vcov @ fixed[2])[best] / safe
        with np.errstate(divide="ignore", invalid="ignore"):
            ends = np.sort([top + (theta + s * half - centre) / move for s in (-1, 1)], axis=0)
        still = np.abs(move) < NOUGHT
        low = np.where(still, low, np.maximum(low, ends[0]))
        high = np.where(still, high, np.minimum(high, ends[1]))
    s = np.sqrt(safe)
    x, a, b = log_ndtr(-top / s), log_ndtr(-low / s), log_ndtr(-high / s)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # where `first` has rejected already
        tail = np.exp(x - a) * -np.expm1(b - x) / -np.expm1(b - a)
    return np.asarray(first | np.where(flat, top > 0, (top > 0) & (tail < alpha)))


def _set(
    accepted: Callable[[NDArray[np.float64]], NDArray[np.bool_]], centre: float, half: float
) -> tuple[float, float]:
    """The ends of the accepted set on HonestDiD's grid of 1,000 points, continued at the same step while it is open."""
    step, points = 2 * half / (GRID - 1), GRID
    while True:
        theta: NDArray[np.float64] = centre + step * (np.arange(points, dtype=float) - (points - 1) / 2)
        inside = accepted(theta)
        if (inside.any() and not (inside[0] or inside[-1])) or points > WIDEST * GRID:
            break
        points *= 2
    if not inside.any():
        return math.nan, math.nan
    low, high = theta[np.flatnonzero(inside)[[0, -1]]]
    return (-math.inf if inside[0] else float(low)), (math.inf if inside[-1] else float(high))


def _check(m: Sequence[float]) -> None:
    if any(not v >= 0 for v in m):
        raise Inapplicable("m must be at least nought.")


def _bounds(m: Sequence[float], ends: Sequence[tuple[float, float]], method: Method) -> Bounds:
    return Bounds(tuple(m), tuple(e[0] for e in ends), tuple(e[1] for e in ends), method)


def _flci(study: EventStudy, m: float, alpha: float) -> tuple[float, float, NDArray[np.float64]]:
    """The shortest fixed-length interval of a linear estimator v'beta: its ends, and v (T + P,).

    Half its length is s cv(b/s), s the standard error and b the largest bias, cv the quantile of |N(b/s, 1)|
    (Armstrong and Kolesár 2018, Econometrica 86:655). delta is a line plus hinges at each period, each bent by at
    most M: v must annihilate the line, and b is M times the sum of |v'hinge|. Hinges after the start meet only
    l, so those before, u (T - 1,), are what is chosen: convex, and smooth once u is split into its signs.
    """
    from scipy.optimize import minimize

    t, weights, se = study.n_pre, study.weights, study.std_error
    before, after = np.arange(-t, 0.0), np.arange(1.0, len(weights) + 1)
    always = _bends(weights)
    hinges = np.array([np.maximum(k - before, 0) for k in range(-(t - 1), 0)]).reshape(t - 1, t)
    # v over the pre periods is free up to the line: the hinges and the line determine it
    system = np.linalg.inv(np.vstack([before, hinges]))
    v0 = np.r_[system[:, 0] * -(weights @ after), weights]
    turn = np.vstack([system[:, 1:], np.zeros((len(weights), t - 1))])
    # in units of the standard error and of hinges that matter
    gram = turn.T @ study.vcov @ turn / se**2
    cross = turn.T @ study.vcov @ v0 / se**2
    own = float(v0 @ study.vcov @ v0) / se**2
    m_se = m / se

    def objective(split: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        u = split[: t - 1] - split[t - 1 :]
        s = math.sqrt(max(float(u @ gram @ u + 2 * cross @ u + own), NOUGHT))
        b = m_se * (always + float(split.sum()))
        c, rate = _folded(b / s, alpha)
        ds = (gram @ u + cross) / s
        slope = (c - rate * b / s) * ds
        return s * c, np.r_[slope + rate * m_se, -slope + rate * m_se]

    start = np.linalg.solve(gram, -cross) if t > 1 else np.empty(0)
    split = np.r_[np.maximum(start, 0), np.maximum(-start, 0)]
    if t > 1 and m > 0:
        each = np.sqrt(np.diag(gram) / own)
        scale = np.r_[each, each]

        def scaled(x: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            value, gradient = objective(x / scale)
            return value, gradient / scale

        found = minimize(
            scaled, split * scale, jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(split),
            options={"ftol": 1e-15, "gtol": 1e-10, "maxiter": 5_000, "maxfun": 50_000, "maxcor": 30},
        )  # fmt: skip
        split = found.x / scale
    half = objective(split)[0] * se
    v = v0 + turn @ (split[: t - 1] - split[t - 1 :])
    centre = float(v @ study.beta)
    return centre - half, centre + half, v


def _folded(bias: float, alpha: float) -> tuple[float, float]:
    """The 1 - alpha quantile c of |N(bias, 1)| and its derivative in bias."""
    from scipy.optimize import brentq
    from scipy.special import ndtr, ndtri

    def beyond(c: float) -> float:
        return float(ndtr(bias - c) + ndtr(-bias - c)) - alpha

    low, high = bias - float(ndtri(alpha)) - NOUGHT, bias - float(ndtri(alpha / 2)) + NOUGHT
    c = float(brentq(beyond, min(low, high), high, xtol=1e-14, rtol=1e-14)) if beyond(low) > 0 else low
    with np.errstate(under="ignore"):
        near, far = math.exp(-((c - bias) ** 2) / 2), math.exp(-((c + bias) ** 2) / 2)
    return c, (near - far) / (near + far)
