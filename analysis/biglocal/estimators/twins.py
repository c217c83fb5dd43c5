"""The main regression by libraries that share no solver with ours: pyfixest, linearmodels and statsmodels.

Same rows, weights, columns, fixed effects and clusters as `twfe`. Each library absorbs the fixed effects in its own
way: pyfixest by alternating projections, linearmodels by sparse least squares with every dummy (LSMR; Fong and
Saunders 2011, SIAM J Sci Comput 33:2950), statsmodels with dummies for the times on rows less their unit's mean.
Each is asked for the raw sandwich, to which the one factor of this package is applied (`estimators.correction`): the
libraries' own defaults count the fixed effects in three ways, and their errors then differ by several per cent.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from biglocal.estimators import CONVENTION, correction, counted
from biglocal.estimators._effects import counts, effects, two_way
from biglocal.estimators._within import checked, linear, sums
from biglocal.model import Fit, Sample, Term

if TYPE_CHECKING:
    from numpy.typing import NDArray

Engine = Literal["pyfixest", "linearmodels", "statsmodels"]
MOST = 10  # digits claimed at most: what is beyond is the machine's rounding, not the library's answer


@dataclass(frozen=True, slots=True)
class Rows:
    """What a library is given: `y`, `weight` (n,), `x` (n, k), codes from 0 of `unit`, `time` and `cluster` (n,)."""

    y: NDArray[np.float64]
    weight: NDArray[np.float64]
    x: NDArray[np.float64]
    unit: NDArray[np.int64]
    time: NDArray[np.int64]
    cluster: NDArray[np.int64]


Raw = tuple["NDArray[np.float64]", "NDArray[np.float64]"]  # coefficients (k,), raw clustered covariance (k, k)


def estimate(sample: Sample, *, engine: Engine = "statsmodels") -> Fit:
    """ATT (term `att`) in the unit of the outcome, by level where the sample has levels, then their `difference`.

    `digits`: to how many digits, at most 10, every ATT and its error are those of our solver (`_within.linear`).
    Raises `Inapplicable` as `twfe` does, and for a covariate with missing values.
    """
    y, weight, cluster, keep = checked(sample.frame)
    if keep is not None:
        sample = replace(sample, frame=sample.frame[keep])
    model = two_way(sample)
    ours = linear(sample.frame, model.columns, model.fixed)
    x = np.column_stack(list(model.columns.values()))
    rows = Rows(y, weight, x, model.fixed["unit"], model.fixed["time"], cluster)
    solve = {"pyfixest": _pyfixest, "linearmodels": _linearmodels, "statsmodels": _statsmodels}[engine]
    beta, raw = solve(rows)
    k = counted(len(beta), [rows.unit, rows.time], cluster)
    vcov = raw * correction(len(y), k, ours.n_clusters)
    effect = range(max(len(sample.levels), 1))
    pairs = [(beta[i], ours.beta[i]) for i in effect]
    pairs += [(np.sqrt(vcov[i, i]), np.sqrt(ours.vcov[i, i])) for i in effect]
    same = Term("digits", float(min(agreeing(a, b) for a, b in pairs)), tested=False)
    return Fit(
        (*effects(sample, beta, vcov, ours.n_clusters - 1), same),
        n_obs=len(y),
        **counts(sample.frame),
        n_clusters=ours.n_clusters,
        caution=" ".join(filter(None, [sample.caution, model.caution])),
        facts={"convention": CONVENTION, "engine": engine},
    )


def agreeing(a: float, b: float) -> int:
    """Digits to which two numbers agree, 0 to `MOST`: their relative difference is below ten to the minus that."""
    if not np.isfinite([a, b]).all():
        return 0
    gap = abs(a - b) / max(abs(a), abs(b), np.finfo(float).tiny)
    return int(np.clip(np.floor(-np.log10(max(gap, 0.1**MOST))), 0, MOST))


def _pyfixest(rows: Rows) -> Raw:
    import pandas as pd

    from biglocal.estimators import _fixest

    frame = pd.DataFrame({"y": rows.y, "weight": rows.weight, "cluster": rows.cluster})
    fixed = {"unit": rows.unit, "time": rows.time}
    fit = _fixest.linear(frame, {f"x{i}": c for i, c in enumerate(rows.x.T)}, fixed)
    # its factor is ours already: taken off, as all engines give the raw sandwich
    k = counted(rows.x.shape[1], list(fixed.values()), rows.cluster)
    return fit.beta, fit.vcov / correction(len(rows.y), k, fit.n_clusters)


def _linearmodels(rows: Rows) -> Raw:
    import pandas as pd
    from linearmodels.iv.absorbing import AbsorbingLS

    absorbed = pd.DataFrame({"unit": pd.Categorical(rows.unit), "time": pd.Categorical(rows.time)})
    model = AbsorbingLS(rows.y, rows.x, absorb=absorbed, weights=rows.weight)
    fit = model.fit(
        cov_type="clustered", clusters=rows.cluster, debiased=False, method="lsmr", use_cache=False,
        absorb_options={"atol": 1e-14, "btol": 1e-14, "conlim": 0.0},
    )  # fmt: skip
    return np.asarray(fit.params, dtype=float), np.asarray(fit.cov, dtype=float)


def _statsmodels(rows: Rows) -> Raw:
    from statsmodels.regression.linear_model import WLS

    total = sums(rows.unit, rows.weight)

    def less_mean(v: NDArray[np.float64]) -> NDArray[np.float64]:
        return v - (sums(rows.unit, v * rows.weight) / total)[rows.unit]

    # one dummy less for each set of times that no unit links to the others, such as those of another level
    first = np.unique(_linked(rows.unit, rows.time), return_index=True)[1]
    times = np.delete(np.arange(int(rows.time.max()) + 1), first)
    columns = [*rows.x.T, *((rows.time == t).astype(float) for t in times)]
    k = rows.x.shape[1]
    fit = WLS(less_mean(rows.y), np.column_stack([less_mean(c) for c in columns]), weights=rows.weight).fit(
        cov_type="cluster", cov_kwds={"groups": rows.cluster, "use_correction": False}
    )
    return np.asarray(fit.params, dtype=float)[:k], np.asarray(fit.cov_params(), dtype=float)[:k, :k]


def _linked(unit: NDArray[np.int64], time: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each time (T,) the set of times it is in: units seen at both link two times."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    seen = csr_array((np.ones(len(unit)), (unit, time)))
    return np.asarray(connected_components(seen.T @ seen, directed=False)[1], dtype=np.int64)
