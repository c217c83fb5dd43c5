"""The restricted wild cluster bootstrap-t, from cluster scores alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from biglocal.estimators import correction, counted
from biglocal.model import Estimator, Fit, Inapplicable, Sample

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Scores:
    """What the restricted wild cluster bootstrap needs of the data, by cluster: G clusters, k nuisance columns.

    With b = the regressor and a = the outcome, both with every nuisance projected out, the restricted
    residual under effect r is a - r b. `sa`, `sb` (G,): sums of w b a and w b b. `ha`, `hb` (G, k): sums of
    w z a and w z b over the nuisance columns z. `cross` (G, k): sums of w b z. `inverse` (k, k): of z'wz.
    """

    sa: NDArray[np.float64]
    sb: NDArray[np.float64]
    ha: NDArray[np.float64]
    hb: NDArray[np.float64]
    cross: NDArray[np.float64]
    inverse: NDArray[np.float64]
    factor: float


def scores(sample: Sample) -> Scores:
    """Collapse a two-way fixed-effects sample to its cluster scores.

    Unit effects are projected out by demeaning, which is exact where units lie within clusters; year
    effects and covariates are the nuisance columns. Raises `Inapplicable` where a unit spans clusters.
    """
    frame = sample.frame
    w = frame["weight"].to_numpy(dtype=float)
    unit = np.unique(frame["unit"].to_numpy(), return_inverse=True)[1]
    time = np.unique(frame["time"].to_numpy(), return_inverse=True)[1]
    group = np.unique(frame["cluster"].to_numpy(), return_inverse=True)[1]
    home = np.empty(unit.max() + 1, dtype=np.int64)
    home[unit] = group
    if not (home[unit] == group).all():
        raise Inapplicable("the wild cluster bootstrap here needs units that lie within one cluster.")
    total = np.bincount(unit, w)

    def within(v: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(v - (np.bincount(unit, w * v) / total)[unit])

    dummies = [within((time == t).astype(float)) for t in range(1, int(time.max()) + 1)]
    z = np.column_stack([*dummies, *(within(frame[c].to_numpy(dtype=float)) for c in sample.covariates)])
    a, b = within(frame["y"].to_numpy(dtype=float)), within(frame["d"].to_numpy(dtype=float))
    inverse = np.linalg.inv(z.T @ (z * w[:, None]))
    a = a - z @ (inverse @ (z.T @ (w * a)))
    b = b - z @ (inverse @ (z.T @ (w * b)))
    g = int(group.max()) + 1

    def by_cluster(v: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.bincount(group, v, minlength=g))

    def columns(v: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.column_stack([by_cluster(w * v * z[:, j]) for j in range(z.shape[1])])

    k = counted(1 + len(sample.covariates), [unit, time], group)
    return Scores(
        by_cluster(w * b * a), by_cluster(w * b * b), columns(a), columns(b), columns(b), inverse,
        correction(len(w), k, g),
    )  # fmt: skip


def wild_bootstrap(
    estimator: Estimator,  # noqa: ARG001
    sample: Sample,
    fit: Fit,
    rng: np.random.Generator,
    *,
    conf_level: float,
    draws: int,
) -> Fit:
    """Restricted wild cluster bootstrap-t of the single `att`, its interval by inversion.

    Cameron, Gelbach and Miller (2008, Rev Econ Stat 90:414), Rademacher weights, null imposed; the share of
    draws with |t*| > |t|, the sample itself counted as one of the draws, so that p is never nought (Davison and
    Hinkley 1997, 4.11); all 2^G sign vectors where these are no more than `draws`. A draw costs a few
    products of cluster scores (MacKinnon 2023): with the sign vectors fixed, numerator and squared
    denominator of t* are polynomials in the hypothesised effect, so the interval's ends cost no new draws.

    Raises `Inapplicable` for a fit that is not one two-way fixed-effects `att`.
    """
    if [t.name for t in fit.terms] != ["att"]:
        raise Inapplicable("the wild cluster bootstrap is for a single ATT of two-way fixed effects.")
    att = fit.terms[0]
    s = scores(sample)
    g, d = len(s.sa), float(s.sb.sum())
    n0, n1 = np.empty(0), np.empty(0)
    q0, q1, q2 = np.empty(0), np.empty(0), np.empty(0)
    enumerate_all = g < 63 and 2**g <= draws
    count = 2**g if enumerate_all else draws
    for start in range(0, count, 1000):
        size = min(1000, count - start)
        if enumerate_all:
            bits = (np.arange(start, start + size)[:, None] >> np.arange(g)) & 1
        else:
            bits = rng.integers(0, 2, size=(size, g), dtype=np.int8)
        v = 2.0 * bits - 1
        # under effect r: beta* - r = (m0 - r m1) / d, and the score of cluster g is c0 - r c1
        m0, m1 = v @ s.sa, v @ s.sb
        c0 = v * s.sa - (v @ s.ha @ s.inverse) @ s.cross.T - (m0 / d)[:, None] * s.sb
        c1 = v * s.sb - (v @ s.hb @ s.inverse) @ s.cross.T - (m1 / d)[:, None] * s.sb
        n0, n1 = np.append(n0, m0), np.append(n1, m1)
        q0 = np.append(q0, (c0 * c0).sum(axis=1))
        q1 = np.append(q1, (c0 * c1).sum(axis=1))
        q2 = np.append(q2, (c1 * c1).sum(axis=1))
    beta = float(s.sa.sum()) / d
    own = s.sa - beta * s.sb
    se = math.sqrt(float(own @ own) * s.factor) / d

    def p_value(r: float) -> float:
        with np.errstate(divide="ignore", invalid="ignore"):
            t = (n0 - r * n1) / np.sqrt(np.maximum(q0 - 2 * r * q1 + r * r * q2, 0) * s.factor)
        beyond = float((np.abs(t) > abs((beta - r) / se) * (1 + 1e-12)).sum())
        return beyond / count if enumerate_all else (1 + beyond) / (1 + count)

    low, high = (_end(p_value, beta, side * se, 1 - conf_level) for side in (-1, 1))
    term = replace(
        att, std_error=float("nan"), df=float("nan"), statistic=beta / se, p_value=p_value(0.0), conf_low=low,
        conf_high=high,
    )  # fmt: skip
    facts = {**fit.facts, "draws": count, "enumerated": enumerate_all, "std_error": se}
    return replace(fit, terms=(term,), facts=facts)


def _end(p_value: Callable[[float], float], centre: float, step: float, alpha: float) -> float:
    """Where the p-value falls below alpha, from `centre` outwards; infinite if it does not within 64 steps."""
    outside = centre + step
    while p_value(outside) > alpha:
        outside += step
        if abs(outside - centre) > 64 * abs(step):
            return math.copysign(math.inf, step)
    inside = outside - step
    for _ in range(50):
        middle = (inside + outside) / 2
        if p_value(middle) > alpha:
            inside = middle
        else:
            outside = middle
    return (inside + outside) / 2
