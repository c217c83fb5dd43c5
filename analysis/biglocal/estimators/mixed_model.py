"""Linear mixed model: random intercepts of persons and of areas, and random slopes.

The engine, its equations and its referees are in `_mixed`. Right where the random effects are unrelated to the
regressors and where what is missing depends on what was seen of the person (missing at random); the route that needs
neither is `within_person`. Where change differs between groups that do not answer alike, the change of all is that of
those who answered, unless it is standardised (`_standardised`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from biglocal.estimators import CONVENTION, correction
from biglocal.estimators import _mixed as engine
from biglocal.estimators._design import wald
from biglocal.estimators._standardised import standardised
from biglocal.estimators._waves import Of, Test, coefficients, matrix, model, people, terms, weighed
from biglocal.estimators._within import cluster_sums, codes
from biglocal.model import DataError, Fit, Inapplicable, Sample

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

Df = Literal["satterthwaite", "kenward_roger", "normal"]
Errors = Literal["model", "cluster"]
Method = Literal["REML", "ML"]
WEIGHTED = (
    "Weights are taken as precision (residual variance over weight); errors by the model do not know that they stand "
    "for persons who did not answer."
)


def estimate(
    sample: Sample,
    *,
    of: Of = "change",
    slope: bool = False,
    method: Method = "REML",
    df: Df = "satterthwaite",
    errors: Errors = "model",
    standardise: bool = False,
) -> Fit:
    """The terms of `_waves`, in the unit of the outcome, with random intercepts of `unit` and, where they hold several
    units, of `cluster`; with `slope` also a random slope over time of each unit, correlated with its intercept.

    A random effect that the data cannot have leaves: of persons where each has one row, of areas where each has one
    person. `errors="cluster"`: robust errors summed over areas, t(areas - 1), right under a wrong covariance and
    under weights. `standardise`: changes may differ by every covariate, and are averaged over all persons of the
    sample, whether they have an outcome in a wave or not. `facts`: `variance` (of each factor, and the residual),
    `icc` (the share of each factor's intercepts in the variance), `loglik`, `converged`, `left_out`. A variance at its
    bound, nought, or a maximum that is not reached is said in the caution.

    Raises `Inapplicable` as `_waves.model` does, where no random effect is left, one area with `errors="cluster"`,
    and as `_mixed.solve` and, with `standardise`, `_standardised.standardised` do.
    """
    sample = weighed(sample)
    average = standardised(sample, of) if standardise else None
    if average is not None:
        sample = average.seen
    frame = sample.frame
    found = model(sample, of) if average is None else average.model
    n, unit, area = len(frame), codes(frame["unit"]), codes(frame["cluster"])
    ones = np.ones((n, 1))
    names: tuple[str, ...]
    factors, left_out = [], []
    if int(unit.max()) + 1 < n:
        z, names = ones, ("Intercept",)
        if slope:
            time = frame["time"].to_numpy(dtype=float)
            z, names = np.column_stack([ones, time - time.min()]), ("Intercept", "time")
        factors.append(engine.Factor("person", unit, z, names))
    else:
        left_out.append("person")
    areas = int(area.max()) + 1
    if 1 < areas < len(np.unique(np.column_stack([area, unit]), axis=0)):
        factors.append(engine.Factor("area", area, ones))
    else:
        left_out.append("area")
    if not factors:
        raise Inapplicable("each person has one row and each area one person: no random effect can be told apart.")
    y, weight = frame["y"].to_numpy(dtype=float), frame["weight"].to_numpy(dtype=float)
    weight = weight / weight.mean()
    solved, vcov, test, facts, cautions = _fit(y, found.columns, tuple(factors), weight, area, method, df, errors)
    if np.ptp(weight) > 1e-9 and errors == "model":
        cautions.append(WEIGHTED)
    said = (
        terms(found, solved.beta, vcov, test)
        if average is None
        else average.terms(solved.beta, vcov, test, engine.joined)
    )
    return Fit(
        said,
        n_obs=n,
        **people(frame),
        n_clusters=areas,
        caution=" ".join(filter(None, [sample.caution, *cautions])),
        facts={**facts, "left_out": tuple(left_out)},
    )


def fit(
    frame: pd.DataFrame,
    formula: str,
    *,
    groups: Mapping[str, str] | Sequence[str] | str,
    weight: str | None = None,
    cluster: str | None = None,
    method: Method = "REML",
    df: Df = "satterthwaite",
    errors: Errors = "model",
) -> Fit:
    """A term for each coefficient of `formula`, such as `Reaction ~ Days`.

    `groups`: column -> what varies over its levels, `{"Subject": "1 + Days"}` for a correlated intercept and slope; or
    the names of columns with an intercept each, nested or crossed (codes of nested levels distinct). `weight`:
    precision, as lme4's. `facts["test"]` takes a contrast (q, k) in the order of the terms and gives F and its
    denominator's degrees of freedom, `facts["random_effects"]` has a frame for each factor: the predictions of its
    levels' effects (BLUP). Rows with missing values leave.

    Raises `DataError` for a column that is not there, and `Inapplicable` as `estimate`.
    """
    from formulaic import model_matrix

    named = dict.fromkeys(groups, "1") if not isinstance(groups, Mapping) else dict(groups)
    absent = [c for c in (*named, weight, cluster) if c is not None and c not in frame.columns]
    if absent:
        raise DataError(f"the frame has no column {', '.join(absent)}; it has {', '.join(map(str, frame.columns))}.")
    if not named:
        raise Inapplicable("no grouping factor: a model without random effects is a regression.")
    y, columns, rows = matrix(frame, formula)
    factors = []
    for group, varies in named.items():
        z = model_matrix(varies, rows)
        if len(z) != len(rows):
            raise Inapplicable(f"{varies} is missing in {len(rows) - len(z)} rows: leave them out.")
        names = tuple(str(c) for c in z.columns)
        factors.append(engine.Factor(group, codes(rows[group]), z.to_numpy(dtype=float), names))
    weights = np.asarray(rows[weight], dtype=np.float64) if weight else np.ones(len(rows))
    area = codes(rows[cluster]) if cluster else factors[0].level
    values = y.to_numpy(dtype=float)
    solved, vcov, test, facts, cautions = _fit(values, columns, tuple(factors), weights, area, method, df, errors)
    facts["random_effects"] = {
        f.name: _predicted(f, psi, solved.residual, rows[f.name]) for f, psi in zip(factors, solved.psi, strict=True)
    }
    facts |= {"test": test, "vcov": vcov, "ngroups": {f.name: int(f.level.max()) + 1 for f in factors}}
    first = factors[0]
    return Fit(
        coefficients(tuple(columns), solved.beta, vcov, test),
        n_obs=len(values),
        n_units=int(first.level.max()) + 1,
        n_treated=int(first.level.max()) + 1,
        n_clusters=int(area.max()) + 1,
        caution=" ".join(cautions),
        facts=facts,
    )


def _fit(
    y: NDArray[np.float64],
    columns: dict[str, NDArray[np.float64]],
    factors: tuple[engine.Factor, ...],
    weight: NDArray[np.float64],
    area: NDArray[np.int64],
    method: Method,
    df: Df,
    errors: Errors,
) -> tuple[engine.Mixed, NDArray[np.float64], Test, dict[str, Any], list[str]]:
    approximate = errors == "model" and df != "normal"
    if df == "kenward_roger" and method == "ML":
        raise Inapplicable("Kenward-Roger errors are of restricted maximum likelihood: ask for method='REML'.")
    solved = engine.solve(y, columns, factors, weight, reml=method == "REML", moments=approximate)
    vcov = solved.vcov
    facts: dict[str, Any] = {"convention": f"{method}, {df}"}

    def by_model(contrast: NDArray[np.float64]) -> tuple[float, float]:
        if df == "normal":
            return wald(solved.beta, vcov, contrast), np.inf
        if df == "kenward_roger":
            return engine.kenward_roger_test(solved, vcov, contrast)
        return engine.satterthwaite(solved, contrast)

    test: Test = by_model
    if errors == "cluster":
        clusters = int(area.max()) + 1
        if clusters < 2:
            raise Inapplicable("1 cluster: robust errors need at least two.")
        half = cluster_sums(np.column_stack(list(columns.values())), solved.residual, area) @ solved.vcov
        vcov = half.T @ half * correction(len(y), len(columns), clusters)
        facts["convention"] = CONVENTION

        def by_cluster(contrast: NDArray[np.float64]) -> tuple[float, float]:
            return wald(solved.beta, vcov, contrast), clusters - 1

        test = by_cluster
    elif df == "kenward_roger":
        vcov = engine.kenward_roger(solved)
    variance = {f.name: dict(_named(f, p)) for f, p in zip(factors, solved.psi, strict=True)}
    own = {f.name: float(p[0, 0]) for f, p in zip(factors, solved.psi, strict=True)}
    total = sum(own.values()) + solved.sigma2
    facts |= {
        "variance": {**variance, "Residual": solved.sigma2},
        "icc": {name: v / total for name, v in own.items()},
        "loglik": solved.loglik,
        "converged": solved.converged,
    }
    cautions = [
        f"The variance of {f.name} is at its bound, nought."
        if len(f.columns) == 1
        else f"The covariance of {f.name} is at its bound: a variance is nought, or its effects move as one."
        for f in factors
        if f.name in solved.bound
    ]
    if not solved.converged:
        cautions.append("The maximum of the likelihood was not reached: take another route beside this one.")
    return solved, vcov, test, facts, cautions


def _predicted(
    f: engine.Factor, psi: NDArray[np.float64], residual: NDArray[np.float64], labels: pd.Series
) -> pd.DataFrame:
    """Psi Z'V^-1 (y - X b) of each level: its effects' conditional means."""
    import pandas as pd

    totals = np.column_stack([np.bincount(f.level, z * residual) for z in f.z.T])
    first = np.unique(f.level, return_index=True)[1]
    return pd.DataFrame(totals @ psi, index=labels.to_numpy()[first], columns=list(f.columns))


def _named(f: engine.Factor, psi: NDArray[np.float64]) -> list[tuple[str, float]]:
    pairs = [(a, b) for a in range(len(psi)) for b in range(a + 1)]
    return [(f.columns[a] if a == b else f"{f.columns[b]}:{f.columns[a]}", float(psi[a, b])) for a, b in pairs]
