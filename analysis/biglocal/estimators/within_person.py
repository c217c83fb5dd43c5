"""Change and association within persons: least squares with an effect of every person, clustered on the area.

Whatever does not change about a person is taken up, seen or not, so attrition that depends on it does no harm; persons
seen once say nothing. The second route beside the mixed model, which needs random effects unrelated to the
regressors (Wooldridge 2010, Econometric Analysis of Cross Section and Panel Data, 10.5). For an outcome of
0 and 1 a linear probability model.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from biglocal.estimators import CONVENTION, correction, counted
from biglocal.estimators._design import wald
from biglocal.estimators._waves import Of, coefficients, matrix, model, people, terms, weighed
from biglocal.estimators._within import checked, codes, least_squares, sandwich
from biglocal.model import Fit, Inapplicable, Sample

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

NOTHING = 1e-12  # share of the outcome's variance that is rounding


def estimate(sample: Sample, *, of: Of = "change") -> Fit:
    """The terms of `_waves` in the unit of the outcome, from persons seen twice or more, weighted.

    Covariates that are constant within persons leave. `facts["seen_once"]` says how many persons did.
    Raises `Inapplicable` as `_waves.model` does, for fewer than two persons seen twice, one cluster, and
    an exposure that does not change within persons (collinear).
    """
    sample = weighed(sample)
    kept = sample.frame
    often = kept.groupby("unit")["unit"].transform("size") > 1
    once, frame = int(kept.loc[~often, "unit"].nunique()), kept[often]
    if frame["unit"].nunique() < 2:
        raise Inapplicable(
            f"{frame['unit'].nunique()} persons are seen twice or more: a change within persons needs two."
        )
    if sample.levels and int((frame.groupby("unit")["level"].nunique() > 1).sum()):
        raise Inapplicable("the level of some persons changes: give each person one level.")
    found = model(replace(sample, frame=frame), of, within=True)
    beta, vcov, clusters = _solve(frame, found.columns, codes(frame["unit"]))
    return Fit(
        terms(found, beta, vcov, lambda c: (wald(beta, vcov, c), clusters - 1)),
        n_obs=len(frame),
        **people(frame),
        n_clusters=clusters,
        caution=sample.caution,
        facts={"convention": CONVENTION, "seen_once": once},
    )


def fit(
    frame: pd.DataFrame,
    formula: str,
    *,
    unit: str,
    cluster: str | None = None,
    weight: str | None = None,
    errors: Literal["cluster", "model"] = "cluster",
) -> Fit:
    """A term for each coefficient of `formula`, given an effect of every `unit`.

    Errors clustered on `cluster` (the unit, where not said), or by the model (one residual variance, t(N - units - K)).
    Raises as `estimate` and `_waves.matrix` do.
    """
    y, columns, rows = matrix(frame, formula)
    columns.pop("Intercept", None)
    plain = rows.assign(
        y=y, unit=rows[unit], cluster=rows[cluster or unit], weight=rows[weight].astype(float) if weight else 1.0
    )
    persons = codes(plain["unit"])
    beta, vcov, clusters = _solve(plain, columns, persons)
    df, convention = float(clusters - 1), CONVENTION
    if errors == "model":
        _, w, _, keep = checked(plain)
        inside = columns if keep is None else {n: c[keep] for n, c in columns.items()}
        persons = persons if keep is None else codes(persons[keep])
        found = least_squares(
            plain["y"].to_numpy(dtype=float)[slice(None) if keep is None else keep], inside, [persons], w
        )
        df, convention = float(len(w) - int(persons.max()) - 1 - len(inside)), "by the model; t(N - units - K)"
        vcov = found.inverse * float(w @ found.residual**2) / df
    said = coefficients(tuple(columns), beta, vcov, lambda c: (wald(beta, vcov, c), df))
    return Fit(
        said, n_obs=len(plain), **people(plain), n_clusters=clusters, caution="", facts={"convention": convention}
    )


def _solve(
    frame: pd.DataFrame, columns: dict[str, NDArray[np.float64]], persons: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
    y, weight, cluster, keep = checked(frame)
    if keep is not None:
        columns, persons = {n: c[keep] for n, c in columns.items()}, codes(persons[keep])
    found = least_squares(y, columns, [persons], weight)
    if float(found.residual @ found.residual) < NOTHING * len(y) * float(np.var(y)):
        raise Inapplicable("the outcome does not change within persons but by the regressors: no error can be had.")
    clusters = int(cluster.max()) + 1
    factor = correction(len(y), counted(len(columns), [persons], cluster), clusters)
    return found.beta, sandwich(found, weight * found.residual, cluster) * factor, clusters
