"""Poisson and logit regression with weights, an offset and fixed effects, by iteratively reweighted least squares.

Fisher scoring with the fixed effects partialled out of every step (`_within.projector`), which is exact, so the
estimates are those of the model with all dummies in it (Correia, Guimaraes and Zylkin 2020, Stata J 20:95).
pyfixest takes no weights in its logit, R's fixest does; both and statsmodels are referees in the tests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from biglocal.estimators._within import Solution, least_squares
from biglocal.model import Inapplicable

if TYPE_CHECKING:
    from numpy.typing import NDArray

Family = Literal["poisson", "logit"]
STEPS = 60
CERTAIN = 1e-9  # a fitted probability, or a share of the mean count, below which a row counts as predicted perfectly


@dataclass(frozen=True, slots=True)
class Glm:
    """`solution` is the last weighted step: its `inverse` is the model's information inverted, its `columns`
    (n, k) are projected at the converged weights. `linear` (n,) is the linear predictor, offset and fixed effects
    in it; `mean` (n,) its inverse link; `scores` (n,) weight times (y - mean); `working` (n,) the IRLS weights."""

    solution: Solution
    beta: NDArray[np.float64]
    linear: NDArray[np.float64]
    mean: NDArray[np.float64]
    scores: NDArray[np.float64]
    working: NDArray[np.float64]
    deviance: float


def glm(
    y: NDArray[np.float64],
    columns: dict[str, NDArray[np.float64]],
    fixed: list[NDArray[np.int64]],
    weight: NDArray[np.float64],
    family: Family,
    offset: NDArray[np.float64] | None = None,
) -> Glm:
    """Maximum likelihood of `y` (n,), counts or 0/1, on `columns` and the levels of `fixed`; canonical link.

    No constant is added. Call with rows that `informative` keeps. Raises `Inapplicable` for collinear columns
    (named) and where the outcome is predicted perfectly, so that no finite estimate exists.
    """
    link = 0.0 if offset is None else offset
    average = float(weight @ y / weight.sum())
    mean = (y + average) / 2 if family == "poisson" else (y + 0.5) / 2
    linear = np.log(mean) if family == "poisson" else np.log(mean / (1 - mean))
    deviance, converged = np.inf, False  # the start is nearer to the outcome than any fit
    for _ in range(STEPS):
        variance = mean if family == "poisson" else mean * (1 - mean)
        working = weight * variance
        # a row that is predicted perfectly has a weight of nought; it is refused below, after the last step
        target = linear - link + (y - mean) / np.maximum(variance, 1e-300)
        solution = least_squares(target, columns, fixed, np.maximum(working, 1e-300))
        step, before = target - solution.residual + link, linear
        for _ in range(30):  # halved while it makes the fit worse
            linear = step
            mean = _mean(family, linear)
            new = _deviance(family)(y, mean, weight)
            if converged or new <= deviance + 1e-10 * (1 + abs(new)):
                break
            step = (step + before) / 2
        if converged:  # one step beyond convergence: Newton's is quadratic, so this is to machine precision
            break
        converged = abs(deviance - new) <= 1e-9 * (0.1 + abs(new))
        deviance = new
    certain = mean < CERTAIN * average if family == "poisson" else np.minimum(mean, 1 - mean) < CERTAIN
    if not converged or certain.any():
        raise Inapplicable(
            f"{int(certain.sum())} rows are predicted perfectly: no finite estimate exists (separation). "
            "Leave out the covariate that tells them apart, or use a linear model."
        )
    return Glm(solution, solution.beta, linear, mean, weight * (y - mean), working, new)


def informative(y: NDArray[np.float64], fixed: list[NDArray[np.int64]], top: float = np.inf) -> NDArray[np.bool_]:
    """Rows (n,) that say something: levels of fixed effects in which y is 0 throughout, or `top` throughout, say
    nothing of the coefficients and leave first, as in R's fixest, again until none is left to leave."""
    keep = np.ones(len(y), dtype=bool)
    while True:
        before = int(keep.sum())
        for f in fixed:
            count = np.bincount(f, keep)
            useless = (np.bincount(f, keep & (y != 0)) == 0) | (np.bincount(f, keep & (y == top)) == count)
            keep &= ~useless[f]
        if int(keep.sum()) == before:
            return keep


def _mean(family: Family, linear: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy.special import expit

    if family == "poisson":
        return np.exp(np.minimum(linear, 700))
    return np.asarray(expit(linear))


def _deviance(
    family: Family,
) -> Callable[[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]], float]:
    from scipy.special import xlogy

    def poisson(y: NDArray[np.float64], mean: NDArray[np.float64], weight: NDArray[np.float64]) -> float:
        with np.errstate(divide="ignore", invalid="ignore"):
            return float(2 * weight @ (xlogy(y, y / mean) - (y - mean)))

    def logit(y: NDArray[np.float64], mean: NDArray[np.float64], weight: NDArray[np.float64]) -> float:
        return float(-2 * weight @ (xlogy(y, mean) + xlogy(1 - y, 1 - mean)))

    return poisson if family == "poisson" else logit
