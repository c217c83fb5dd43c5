"""The level after the start, given the level before: analysis of covariance.

y_i,after = a + ATT treated_i + b y_i,before + x_i c + e_i on units' means before and after one common start (McKenzie
2012, J Development Economics 99:210, equation 3). It takes treated and comparison units of the same level before for
alike, where difference-in-differences takes their trends for parallel; one of the two may hold, and where treated units
begin higher or lower the two bracket the effect (Ding and Li 2019, Political Analysis 27:605). Unit effects are not
absorbed: what moves units apart for good moves this estimate.
"""

from __future__ import annotations

import numpy as np

from biglocal.estimators import correction
from biglocal.estimators._design import check_design, treated_clusters
from biglocal.estimators._staggered import no_levels
from biglocal.estimators._within import checked, codes, least_squares, sandwich
from biglocal.model import Fit, Inapplicable, Sample, Term


def estimate(sample: Sample) -> Fit:
    """ATT (term `att`) of one common start; covariates enter as units' means before it.

    Errors are clustered: CR1 on units, K being all coefficients. Units without a row on both sides of the start leave,
    and the caution counts them.

    Raises `Inapplicable` as `twfe` does, for staggered starts, for levels, and where the level before is constant.
    """
    no_levels(sample)
    check_design(sample.frame)
    checked(sample.frame)
    frame = sample.frame[sample.frame["weight"] > 0]
    starts = frame["first_treated"].dropna().unique()
    if len(starts) > 1:
        raise Inapplicable(f"ANCOVA is for one common start; there are {len(starts)}. Use callaway_santanna.")
    unit = codes(frame["unit"])
    n = int(unit.max()) + 1
    w = frame["weight"].to_numpy(dtype=float)
    now = frame["time"].to_numpy() >= starts[0]
    after, before = np.bincount(unit, w * now, n), np.bincount(unit, w * ~now, n)
    both = (after > 0) & (before > 0)

    def mean(column: str, rows: np.ndarray, total: np.ndarray) -> np.ndarray:
        values = frame[column].to_numpy(dtype=float)
        means = np.asarray(np.bincount(unit, w * rows * values, n)[both] / total[both])
        if np.ptp(means) <= 1e-12 * np.abs(means).max():
            raise Inapplicable(f"the level of {column} is the same for all units: collinear with the constant.")
        return np.asarray(means - means.mean())  # which leaves the effect, and digits where the level is high

    last = np.zeros(n, dtype=np.int64)
    last[unit] = np.arange(len(unit))
    one = frame.iloc[last[both]]
    columns = {
        "treated": one["treated"].to_numpy(dtype=float),
        "constant": np.ones(int(both.sum())),
        "level before": mean("y", ~now, before),
        **{c: mean(c, ~now, before) for c in sample.covariates},
    }
    rows = np.bincount(unit, minlength=n)
    weight = (np.bincount(unit, w, n) / rows)[both]
    fit = least_squares(mean("y", now, after), columns, [], weight)
    cluster = codes(one["cluster"])
    clusters = int(cluster.max()) + 1
    if treated_clusters(one) < 2:
        raise Inapplicable(f"{treated_clusters(one)} treated cluster with rows before and after.")
    vcov = sandwich(fit, weight * fit.residual, cluster) * correction(len(one), len(columns), clusters)
    lost = n - len(one)
    said = f"{lost} units without a row both before and after the start left." if lost else ""
    treated = int((one["treated"] == 1).sum())
    term = Term(
        "att", float(fit.beta[0]), float(np.sqrt(vcov[0, 0])), clusters - 1, n_treated=treated,
        n_treated_clusters=treated_clusters(one),
    )  # fmt: skip
    return Fit(
        (term,), n_obs=int(rows[both].sum()), n_units=len(one), n_treated=treated, n_clusters=clusters,
        caution=" ".join(filter(None, [sample.caution, said])),
        facts={"convention": "CR1 on units' means: G/(G-1) x (N-1)/(N-K), N units; t(G-1)"},
    )  # fmt: skip
