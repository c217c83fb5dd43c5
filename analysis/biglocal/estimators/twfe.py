"""Two-way fixed effects difference-in-differences.

y_it = a_i + b_t + ATT d_it + e_it, weighted, clustered. With one start date it is the difference in
differences of means; with several it weighs comparisons of early with late starters too, some negatively
(Goodman-Bacon 2021, J Econometrics 225:254), and its fit says so.

With levels, units and years get effects of their own in each level, so each level's ATT is that of a
separate regression, and one covariance holds them all: the difference is tested, not looked at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from biglocal.estimators import CONVENTION
from biglocal.estimators._design import Linear, check_design, wald
from biglocal.estimators._within import codes, linear
from biglocal.model import Fit, Sample, Term

if TYPE_CHECKING:
    import pandas as pd


def estimate(sample: Sample) -> Fit:
    """ATT (term `att`), by level where the sample has levels, then with their `difference`.

    Raises `Inapplicable` where there is no treated or comparison unit, no period before or after, fewer
    than two treated clusters, or a level in which `d` does not vary.
    """
    frame = sample.frame
    check_design(frame)
    d = frame["d"].to_numpy(dtype=float)
    extra = {f"x{i}": frame[c].to_numpy(dtype=float) for i, c in enumerate(sample.covariates)}
    staggered = frame["first_treated"].nunique() > 1
    caution = (
        "Starts are staggered: two-way fixed effects then also compare early with late starters." if staggered else ""
    )
    if sample.levels:
        level = frame["level"].to_numpy()
        where = {name: level == name for name in sample.levels}
        for w in where.values():
            check_design(frame[w])
        columns = {f"d{i}": d * w for i, w in enumerate(where.values())}
        if extra:
            extra = {f"{n}l{i}": v * w for n, v in extra.items() for i, w in enumerate(where.values())}
        unit, time = codes(frame["unit"], level), codes(frame["time"], level)
        fit = linear(frame, {**columns, **extra}, {"unit": unit, "time": time})
        terms = tuple(_att(fit, i, name, frame[w]) for i, (name, w) in enumerate(where.items()))
        terms += _difference(fit, len(where))
    else:
        fit = linear(frame, {"d": d, **extra}, {"unit": codes(frame["unit"]), "time": codes(frame["time"])})
        terms = (_att(fit, 0, "", frame),)
    return Fit(
        terms,
        n_obs=fit.n_obs,
        n_units=int(frame["unit"].nunique()),
        n_treated=int(frame.loc[frame["treated"] == 1, "unit"].nunique()),
        n_clusters=fit.n_clusters,
        caution=" ".join(filter(None, [sample.caution, caution])),
        facts={"convention": CONVENTION},
    )


def _att(fit: Linear, i: int, level: str, rows: pd.DataFrame) -> Term:
    treated = rows[rows["treated"] == 1]
    return Term(
        "att",
        float(fit.beta[i]),
        float(np.sqrt(fit.vcov[i, i])),
        fit.n_clusters - 1,
        level=level,
        n_treated=int(treated["unit"].nunique()),
        n_treated_clusters=int(treated["cluster"].nunique()),
    )


def _difference(fit: Linear, levels: int) -> tuple[Term, ...]:
    """Joint test that all levels have the same effect; for two levels also the size of the difference."""
    contrast = np.zeros((levels - 1, len(fit.beta)))
    contrast[:, 0] = -1
    contrast[np.arange(levels - 1), np.arange(1, levels)] = 1
    df = fit.n_clusters - 1
    if levels == 2:
        size = float(contrast[0] @ fit.beta)
        return (Term("difference", size, float(np.sqrt(contrast[0] @ fit.vcov @ contrast[0])), df),)
    return (Term("difference", float("nan"), df=df, statistic=wald(fit.beta, fit.vcov, contrast), df_num=levels - 1),)
