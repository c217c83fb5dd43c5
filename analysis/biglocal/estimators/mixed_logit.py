"""Logit with a random intercept of persons, by adaptive Gauss-Hermite quadrature.

P(y_it = 1 | b_i) = L(x_it'b + sigma u_i), u_i standard normal, integrated out about its mode in each person (Pinheiro
and Bates 1995, J Comput Graph Stat 4:12). Newton's steps take the second derivative of the integral from the mean of
the second and the variance of the first derivatives over the nodes (Louis 1982, J R Stat Soc B 44:226).

Odds ratios are of one person, given the random intercept: further from 1 than those of the population (`gee`), by
about sqrt(1 + 0.35 sigma^2) in logs (Zeger, Liang and Albert 1988, Biometrics 44:1049).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from biglocal.estimators import CONVENTION, correction
from biglocal.estimators._design import wald
from biglocal.estimators._glm import glm
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
from biglocal.estimators._within import cluster_sums, codes
from biglocal.estimators.gee import two_values
from biglocal.model import Fit, Inapplicable, Sample

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

Errors = Literal["model", "cluster"]
STEPS = 100
LARGEST = 30.0  # a standard deviation in log odds beyond which no finite one exists


def estimate(sample: Sample, *, of: Of = "change", errors: Errors = "model", nodes: int = 25) -> Fit:
    """The terms of `_waves` as log odds ratios within persons, with `odds_ratio` beside each.

    The outcome has two values, 0 and another. Errors by the model (normal tests) or clustered on the area.
    Weights multiply a row's likelihood. `facts`: `sd`, `icc` of the latent logistic variable, `loglik`. A variance at
    its bound is said in the caution.

    Raises `Inapplicable` as `_waves.model` does, for collinear columns, where no person is seen twice, where the
    outcome is predicted perfectly, and where nearly all persons answer the same each time: no variance is finite then.
    """
    sample = weighed(sample)
    frame = sample.frame
    found = model(sample, of)
    y, weight = frame["y"].to_numpy(dtype=float), frame["weight"].to_numpy(dtype=float)
    area = codes(frame["cluster"])
    y = y / two_values(y)
    refuse_unvaried(sample)
    solved = _solve(y, found.columns, codes(frame["unit"]), weight / weight.mean(), area, errors, nodes)
    said = terms(found, solved.beta, solved.vcov, lambda c: (wald(solved.beta, solved.vcov, c), solved.df))
    return Fit(
        (*said, *ratios(said)),
        n_obs=len(y),
        **people(frame),
        n_clusters=int(area.max()) + 1,
        caution=" ".join(filter(None, [sample.caution, solved.caution])),
        facts=solved.facts,
    )


def fit(
    frame: pd.DataFrame,
    formula: str,
    *,
    unit: str,
    cluster: str | None = None,
    weight: str | None = None,
    errors: Errors = "model",
    nodes: int = 25,
) -> Fit:
    """A term for each coefficient of `formula` in log odds, and its `odds_ratio`; a random intercept of each `unit`.

    Raises as `estimate` and `_waves.matrix` do.
    """
    of = read(frame, formula, unit, cluster, weight)
    solved = _solve(of.y / two_values(of.y), of.columns, of.unit, of.weight, of.cluster, errors, nodes)
    said = coefficients(
        tuple(of.columns), solved.beta, solved.vcov, lambda c: (wald(solved.beta, solved.vcov, c), solved.df)
    )
    return Fit((*said, *ratios(said)), *of.counts, solved.caution, solved.facts)


@dataclass(frozen=True, slots=True)
class _Solved:
    beta: Floats
    vcov: Floats
    df: float
    caution: str
    facts: dict[str, Any]


def _solve(
    y: Floats,
    columns: dict[str, Floats],
    unit: NDArray[np.int64],
    weight: Floats,
    area: NDArray[np.int64],
    errors: Errors,
    nodes: int,
) -> _Solved:
    if nodes < 1:
        raise Inapplicable(f"{nodes} nodes: give 1 (Laplace's approximation) or more, 25 by default.")
    clusters = int(area.max()) + 1
    if errors == "cluster" and clusters < 2:
        raise Inapplicable("1 cluster: clustered errors need at least two.")
    if int(unit.max()) + 1 == len(y):
        raise Inapplicable("no person is seen twice: a random intercept cannot be told from chance.")
    order = np.argsort(unit, kind="stable")
    unit, x = unit[order], np.column_stack(list(columns.values()))[order]
    # solved on orthogonal columns of length one a row, so that covariates' scales do not matter
    q, r = orthogonal(x, tuple(columns))
    start = glm(y, columns, [], weight, "logit")
    size = np.sqrt(len(y))
    data = _Quadrature(y[order], q * size, weight[order], unit, nodes)
    gamma = r @ start.beta / size
    score = np.bincount(unit, data.weight * (data.y - start.mean[order]))
    at_bound = bool((score @ score) <= start.working.sum())  # the likelihood falls as the variance leaves nought
    caution = ""
    if at_bound:
        sd, k = 0.0, x.shape[1]
        found = data.evaluate(gamma, 0.0)
        information, scores = -found.hessian[:k, :k], found.scores[:, :k]
        caution = "The variance of persons is at its bound, nought: this is an ordinary logit."
    else:
        gamma, sd, found = _newton(data, gamma)
        information, scores = -found.hessian, found.scores
    inverse = np.linalg.inv(information)
    if errors == "cluster":
        first = np.flatnonzero(np.r_[True, unit[1:] != unit[:-1]])
        half = cluster_sums(scores, np.ones(len(scores)), area[order][first]) @ inverse
        inverse = half.T @ half * correction(len(y), x.shape[1], clusters)
    back = np.linalg.inv(r) * size
    k = x.shape[1]
    facts = {
        "convention": CONVENTION if errors == "cluster" else "by the model; normal tests",
        "sd": sd,
        "icc": {"person": sd**2 / (sd**2 + np.pi**2 / 3)},
        "loglik": found.loglik,
        "nodes": nodes,
    }
    df = float(clusters - 1) if errors == "cluster" else np.inf
    return _Solved(back @ gamma, back @ inverse[:k, :k] @ back.T, df, caution, facts)


def _newton(data: _Quadrature, gamma: Floats) -> tuple[Floats, float, _Point]:
    theta = np.append(gamma, 1.0)
    found = data.evaluate(theta[:-1], float(theta[-1]))
    for _ in range(STEPS):
        values, vectors = np.linalg.eigh(-found.hessian)
        # Newton's step; uphill too where the likelihood is not concave
        step = vectors @ ((vectors.T @ found.score) / np.maximum(np.abs(values), 1e-8))
        if float(step @ found.score) < 1e-16 * len(data.y):
            break
        for _ in range(30):
            new = theta + step
            new[-1] = abs(new[-1])  # the likelihood is even in it
            trial = data.evaluate(new[:-1], float(new[-1]))
            if trial.loglik >= found.loglik - 1e-9:
                break
            step = step / 2
        theta, found = new, trial
        if theta[-1] > LARGEST:
            raise Inapplicable("nearly all persons answer the same each time: no finite variance exists. Use gee.")
    else:
        raise Inapplicable(f"the likelihood's maximum was not reached in {STEPS} steps: use gee.")
    return theta[:-1], float(theta[-1]), found


@dataclass(frozen=True, slots=True)
class _Point:
    loglik: float
    score: Floats
    scores: Floats
    hessian: Floats


class _Quadrature:
    """Rows sorted by unit, and the log likelihood of coefficients and the standard deviation of the intercepts."""

    def __init__(self, y: Floats, x: Floats, weight: Floats, unit: NDArray[np.int64], nodes: int) -> None:
        self.y, self.x, self.weight, self.unit = y, x, weight, unit
        self.start = np.flatnonzero(np.r_[True, unit[1:] != unit[:-1]])
        z, w = np.polynomial.hermite.hermgauss(nodes)
        self.z, self.log_weight = z * np.sqrt(2), np.log(w) + z**2 + np.log(np.sqrt(2))

    def evaluate(self, gamma: Floats, sd: float) -> _Point:
        """Log likelihood, its derivatives by (coefficients, sd), and each unit's part of the first (units, k + 1)."""
        from scipy.special import expit, log_expit

        x, w, unit, k = self.x, self.weight, self.unit, self.x.shape[1]
        linear = x @ gamma
        mode, spread = self._modes(linear, sd)
        u = mode[:, None] + spread[:, None] * self.z
        eta = linear[:, None] + sd * u[unit]
        p = np.asarray(expit(eta))
        likelihood = w[:, None] * np.asarray(log_expit(np.where(self.y[:, None] > 0, eta, -eta)))
        log = self._sum(likelihood) - u**2 / 2 - np.log(2 * np.pi) / 2 + self.log_weight
        top = log.max(axis=1)
        total = np.exp(log - top[:, None]).sum(axis=1)
        loglik = float((top + np.log(total) + np.log(spread)).sum())
        share = np.exp(log - top[:, None]) / total[:, None]
        residual, information = w[:, None] * (self.y[:, None] - p), w[:, None] * p * (1 - p)
        each = np.empty((*u.shape, k + 1))  # the score at each node
        for j in range(k):
            each[:, :, j] = self._sum(x[:, j : j + 1] * residual)
        each[:, :, k] = u * self._sum(residual)
        scores = np.einsum("uk,uka->ua", share, each)
        hessian = np.einsum("uk,uka,ukb->ab", share, each, each, optimize=True) - scores.T @ scores
        by_row = share[unit] * information
        hessian[:k, :k] -= x.T @ (x * by_row.sum(axis=1)[:, None])
        cross = x.T @ (by_row * u[unit]).sum(axis=1)
        hessian[:k, k] -= cross
        hessian[k, :k] -= cross
        hessian[k, k] -= float((by_row * u[unit] ** 2).sum())
        return _Point(loglik, scores.sum(axis=0), scores, hessian)

    def _modes(self, linear: Floats, sd: float) -> tuple[Floats, Floats]:
        """The mode of each unit's integrand, and one over the root of its curvature there."""
        from scipy.special import expit

        mode = np.zeros(len(self.start))
        for _ in range(60):
            p = np.asarray(expit(linear + sd * mode[self.unit]))
            curve = 1 + sd**2 * np.add.reduceat(self.weight * p * (1 - p), self.start)
            step = (sd * np.add.reduceat(self.weight * (self.y - p), self.start) - mode) / curve
            mode = mode + np.clip(step, -2, 2)
            if np.abs(step).max() < 1e-10:
                break
        return mode, 1 / np.sqrt(curve)

    def _sum(self, rows: Floats) -> Floats:
        return np.asarray(np.add.reduceat(rows, self.start, axis=0))
