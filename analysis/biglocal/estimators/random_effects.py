"""Random-effect linear model by generalised least squares, variances after Swamy and Arora (1972, Econometrica 40:261;
persons seen more or less often: Baltagi and Chang 1994, J Econometrics 62:67), as R's plm has it.

linearmodels solves it. The Hausman test of the random effects against effects within persons (Hausman 1978,
Econometrica 46:1251) is in the facts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from biglocal.estimators import CONVENTION
from biglocal.estimators._design import wald
from biglocal.estimators._waves import Of, coefficients, model, orthogonal, people, read, terms, weighed
from biglocal.estimators._within import codes, least_squares
from biglocal.model import Fit, Inapplicable, Sample

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

NOTHING = 1e-12  # share of the outcome's variance that is rounding
Errors = Literal["model", "cluster"]


def estimate(sample: Sample, *, of: Of = "change", errors: Errors = "cluster") -> Fit:
    """The terms of `_waves` in the unit of the outcome; errors clustered on the area, t(areas - 1), or by the model.

    `facts`: `sigma2` of the residual and of the person, `icc`, and `hausman`: chi2, its degrees of freedom and p of the
    coefficients that effects within persons can have, by the model's errors. A variance of persons of nought is said in
    the caution. Raises `Inapplicable` as `_waves.model` does, where no person is seen twice, for collinear columns, a
    constant outcome, and one cluster.
    """
    sample = weighed(sample)
    frame = sample.frame
    found = model(sample, of)
    y, weight = frame["y"].to_numpy(dtype=float), frame["weight"].to_numpy(dtype=float)
    cluster = codes(frame["cluster"])
    solved = _solve(y, found.columns, codes(frame["unit"]), weight, cluster, errors)
    return Fit(
        terms(found, solved.beta, solved.vcov, lambda c: (wald(solved.beta, solved.vcov, c), solved.df)),
        n_obs=len(y),
        **people(frame),
        n_clusters=int(cluster.max()) + 1,
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
) -> Fit:
    """A term for each coefficient of `formula`, with a random effect of each `unit`.

    `errors="cluster"` sums over `cluster` (the unit, where not said). Raises as `estimate` and `_waves.matrix` do.
    """
    of = read(frame, formula, unit, cluster, weight)
    solved = _solve(of.y, of.columns, of.unit, of.weight, of.cluster, errors)
    said = coefficients(
        tuple(of.columns), solved.beta, solved.vcov, lambda c: (wald(solved.beta, solved.vcov, c), solved.df)
    )
    return Fit(said, *of.counts, solved.caution, solved.facts)


@dataclass(frozen=True, slots=True)
class _Solved:
    beta: NDArray[np.float64]
    vcov: NDArray[np.float64]
    df: float
    caution: str
    facts: dict[str, Any]


def _solve(
    y: NDArray[np.float64],
    columns: dict[str, NDArray[np.float64]],
    unit: NDArray[np.int64],
    weight: NDArray[np.float64],
    cluster: NDArray[np.int64],
    errors: Errors,
) -> _Solved:
    import pandas as pd
    from linearmodels.panel import RandomEffects

    n, clusters = len(y), int(cluster.max()) + 1 if len(cluster) else 0
    if n == 0:
        raise Inapplicable("no rows.")
    if np.ptp(y) == 0:
        raise Inapplicable(f"the outcome is constant (always {y[0]:g}).")
    if int(unit.max()) + 1 == n:
        raise Inapplicable("no person is seen twice: a random effect cannot be told from the residual.")
    if errors == "cluster" and clusters < 2:
        raise Inapplicable("1 cluster: clustered errors need at least two.")
    x = np.column_stack(list(columns.values()))
    orthogonal(x, tuple(columns))
    order = np.argsort(unit, kind="stable")
    place = pd.Series(unit).groupby(unit).cumcount().to_numpy()  # rows of a person, counted: waves need no order here
    index = pd.MultiIndex.from_arrays([unit[order], place[order]], names=["unit", "row"])
    made = RandomEffects(
        pd.DataFrame({"y": y[order]}, index=index),
        pd.DataFrame(x[order], index=index, columns=list(columns)),
        weights=pd.DataFrame({"w": weight[order]}, index=index),
    )
    try:
        done = plain = made.fit(small_sample=True, debiased=True)
    except ValueError as e:
        raise Inapplicable(f"no fit: {e}") from None
    if errors == "cluster":
        groups = pd.DataFrame({"g": cluster[order]}, index=index)
        done = made.fit(small_sample=True, debiased=True, cov_type="clustered", clusters=groups, group_debias=True)
    within, between = (float(done.variance_decomposition[k]) for k in ("Residual", "Effects"))
    if within < NOTHING * float(np.var(y)):
        raise Inapplicable("the outcome does not change within persons but by the regressors: no error can be had.")
    facts = {
        "convention": CONVENTION if errors == "cluster" else "by the model; t(N - K)",
        "sigma2": {"Residual": within, "person": between},
        "theta": np.asarray(done.theta["theta"], dtype=float),
        "icc": {"person": between / (between + within)},
        "hausman": _hausman(y, columns, unit, weight, np.asarray(plain.params), np.asarray(plain.cov)),
    }
    caution = "" if between > 0 else "The variance of persons is at its bound, nought: this is ordinary least squares."
    df = clusters - 1 if errors == "cluster" else n - len(columns)
    return _Solved(np.asarray(done.params, dtype=float), np.asarray(done.cov, dtype=float), df, caution, facts)


def _hausman(
    y: NDArray[np.float64],
    columns: dict[str, NDArray[np.float64]],
    unit: NDArray[np.int64],
    weight: NDArray[np.float64],
    beta: NDArray[np.float64],
    vcov: NDArray[np.float64],
) -> tuple[float, int, float] | None:
    """chi2, degrees of freedom, p; None where no coefficient changes within units, or the difference of the
    covariances is not one of a covariance (then the test says nothing)."""
    from scipy.special import chdtrc

    names = list(columns)
    size = np.bincount(unit)
    moving = [
        i
        for i, c in enumerate(columns.values())
        if np.linalg.norm(c - (np.bincount(unit, c) / size)[unit]) > 1e-8 * np.linalg.norm(c)
    ]
    try:
        inside = least_squares(y, {names[i]: columns[names[i]] for i in moving}, [unit], weight)
    except Inapplicable:
        return None
    if not moving:
        return None
    n, groups = len(y), len(size)
    sigma2 = float(weight @ inside.residual**2) / (n - groups - len(moving))
    gap = inside.beta - beta[moving]
    spread = sigma2 * inside.inverse - vcov[np.ix_(moving, moving)]
    scale = np.sqrt(np.diag(inside.inverse))
    if np.linalg.eigvalsh(spread / np.outer(scale, scale))[0] <= 0:
        return None
    chi2 = float(gap @ np.linalg.solve(spread, gap))
    return chi2, len(moving), float(chdtrc(len(moving), chi2))
