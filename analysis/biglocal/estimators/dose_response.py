"""Effect by dose, such as spend a head: how it changes with a unit more, and by third of the treated units.

y_it = a_i + b_t + ATT d_it + slope d_it (dose_i - mean dose) + e_it. The slope compares treated units with each
other, so it is causal only under strong parallel trends: units of every dose would have had the same effect
at the same dose (Callaway, Goodman-Bacon and Sant'Anna 2024, NBER 32117). Each third against the
comparison units needs no more than parallel trends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from biglocal.estimators import CONVENTION
from biglocal.estimators._design import check_design
from biglocal.estimators._effects import STAGGERED, column, counts, difference, regressors, term
from biglocal.estimators._within import codes, linear
from biglocal.model import Fit, Inapplicable, Sample

if TYPE_CHECKING:
    import pandas as pd

THIRDS = ("lowest third", "middle third", "highest third")


def estimate(sample: Sample, *, dose: str = "dose") -> Fit:
    """Terms `att` (at the treated units' mean dose), `dose` (change of the effect with a unit of dose), `att` with
    level `lowest third`, `middle third`, `highest third` of the treated units' doses, and their `difference`.

    `dose` names a column of the sample, constant within treated units (name it among the covariates so that it
    comes along; that of comparison units is not read). `facts` has the `mean` dose, the thirds' `cuts`, and the third
    of each treated row (`levels`). Thirds are left out, and the caution says so, where ties leave one with fewer than
    two clusters.

    Raises `Inapplicable` as `twfe` does, and for a dose that is missing, varies within a unit, or is the same
    in all treated units.
    """
    frame = sample.frame
    check_design(frame)
    by_unit = _doses(frame, dose)
    mean = float(by_unit.mean())
    d = frame["d"].to_numpy(dtype=float)
    own = frame["unit"].map(by_unit).fillna(mean).to_numpy(dtype=float)
    fixed = {"unit": codes(frame["unit"]), "time": codes(frame["time"])}
    extra = regressors(frame, tuple(c for c in sample.covariates if c != dose))
    fit = linear(frame, {"d": d, "dose": d * (own - mean), **extra}, fixed)
    df = fit.n_clusters - 1
    treated = frame["treated"].to_numpy() == 1
    error = np.sqrt(np.diag(fit.vcov))
    terms = [
        term("att", fit.beta[0], error[0], df, frame),
        term("dose", fit.beta[1], error[1], df, frame),
    ]
    cuts = np.quantile(by_unit, [1 / 3, 2 / 3])
    third = np.searchsorted(cuts, own)
    inside = [treated & (third == i) for i in range(3)]
    names = np.where(treated, np.array(THIRDS)[third], "")
    cautions = [sample.caution, STAGGERED if frame["first_treated"].nunique() > 1 else ""]
    if min(int(frame.loc[rows & (d == 1), "cluster"].nunique()) for rows in inside) >= 2:
        split = linear(frame, {n: d * rows for n, rows in zip(THIRDS, inside, strict=True)} | extra, fixed)
        for i, (name, rows) in enumerate(zip(THIRDS, inside, strict=True)):
            terms.append(term("att", split.beta[i], np.sqrt(split.vcov[i, i]), df, frame[rows], name))
        terms += difference(split.beta, split.vcov, 3, df)
    else:
        cautions.append(
            "Doses are so tied or few that a third would have fewer than two clusters: thirds are left out."
        )
    return Fit(
        tuple(terms),
        n_obs=fit.n_obs,
        **counts(frame),
        n_clusters=fit.n_clusters,
        caution=" ".join(filter(None, cautions)),
        facts={"convention": CONVENTION, "mean": mean, "cuts": tuple(float(c) for c in cuts), "levels": names},
    )


def _doses(frame: pd.DataFrame, dose: str) -> pd.Series:
    """The dose of each treated unit, refused where it is none."""
    treated = frame["treated"] == 1
    values = column(frame, dose)[treated].astype(float)
    if not np.isfinite(values).all():
        raise Inapplicable(
            f"the dose {dose} is missing or not finite in {int((~np.isfinite(values)).sum())} treated rows."
        )
    groups = values.groupby(frame.loc[treated, "unit"])
    low, high = groups.min(), groups.max()
    moving = int((low != high).sum())
    if moving:
        raise Inapplicable(f"the dose {dose} varies within {moving} units: give each unit one dose.")
    if low.min() == low.max():
        raise Inapplicable(f"the dose {dose} is the same in all treated units ({low.iloc[0]:g}).")
    return low
