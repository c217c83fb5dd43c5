"""Doubly robust difference-in-differences with one start: Sant'Anna and Zhao (2020, J Econometrics 219:101).

Two groups, before and after: the ATT is identified where trends are parallel given the covariates, if either the
propensity or the regression of the outcome's evolution is right. For several starts see `callaway_santanna`, which
applies this to each cohort and year. The formulae are in `_doubly_robust`.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np

from biglocal.estimators import _doubly_robust as dr
from biglocal.estimators._design import check_design
from biglocal.estimators._levels import by_level
from biglocal.model import Fit, Inapplicable, Sample, Term

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Index = NDArray[np.int64]

CONVENTION = "influence functions: sums of squared cluster totals; G/(G-1) for twfe only, as R's DRDID 1.2; t(G-1)"


def estimate(
    sample: Sample,
    *,
    method: Literal["dr_improved", "dr", "reg", "ipw", "ipw_ht", "twfe"] = "dr_improved",
    panel: bool = True,
    efficient: bool = True,
    trim: float = 0.995,
    exact: bool = False,
) -> Fit:
    """Term `att`: the mean effect on the treated after the start, given `sample.covariates`.

    `method`: `dr_improved` (tilting and weighted regression: doubly robust for inference too), `dr` (logit and least
    squares), `reg` (outcome regression), `ipw` (normalised weights), `ipw_ht` (Abadie 2005), and `twfe`, least squares
    with the covariates in levels, for comparison only (rows as they come, whatever `panel`).

    `panel`: a unit's outcome is its mean before and after the start; covariates and weight are those of its last
    period before; units not seen on both sides leave, counted in `caution`. With False, rows are repeated
    cross-sections; `efficient` then asks for the locally efficient form, `exact` for errors without a slip of
    DRDID's (`_doubly_robust.cross_sections`). Comparison rows with a propensity of `trim` or more are dropped, as
    DRDID does, and counted in `facts["trimmed"]`. `facts["influence"]` (G, 1) sums to estimate - truth by cluster, as
    named in `facts["clusters"]`. Where the sample has levels: `att` of each level, by itself, and their `difference`.

    Raises `Inapplicable` where starts are staggered, for a design without treated, comparison or untreated rows,
    fewer than two treated clusters, a constant outcome, weights all zero, covariates collinear (named) or without
    overlap.
    """
    if sample.levels:
        one = partial(estimate, method=method, panel=panel, efficient=efficient, trim=trim, exact=exact)
        return by_level(sample, one)
    frame = sample.frame
    check_design(frame)
    y, weight = frame["y"].to_numpy(dtype=float), frame["weight"].to_numpy(dtype=float)
    starts = np.unique(frame["first_treated"].dropna())
    if not np.isfinite(y).all():
        raise Inapplicable(f"the outcome is missing or infinite in {int((~np.isfinite(y)).sum()):,} rows.")
    if not (weight > 0).any():
        raise Inapplicable("all weights are zero.")
    if np.ptp(y) == 0:
        raise Inapplicable(f"the outcome is constant (always {y[0]:g}).")
    if len(starts) > 1:
        raise Inapplicable(f"starts are staggered ({', '.join(f'{s:g}' for s in starts)}): use callaway_santanna.")
    try:
        columns = np.column_stack([np.empty((len(y), 0)), *(frame[c].to_numpy(dtype=float) for c in sample.covariates)])
    except (TypeError, ValueError):
        raise Inapplicable(f"covariates must be numbers or 0/1: {', '.join(sample.covariates)}.") from None
    treated, post = frame["treated"].to_numpy(dtype=float), (frame["time"].to_numpy() >= starts[0]).astype(float)
    names, cluster = np.unique(frame["cluster"].to_numpy(), return_inverse=True)
    caution = ""
    if method == "twfe":
        effect = dr.two_way(y[:, None], post, treated, dr.design(columns, sample.covariates), weight)
        d = treated
    elif panel:
        change, d, x, w, cluster, left = _changes(frame, y, weight, columns, treated, post, cluster)
        effect = dr.panel(change[:, None], d, dr.design(x, sample.covariates), w, method, trim)
        caution = f"{left:,} unit{'s' if left > 1 else ''} not seen both before and after left." if left else ""
    else:
        x, d = dr.design(columns, sample.covariates), treated
        effect = dr.cross_sections(y[:, None], post, d, x, weight, method, trim, efficient, exact)
    present, cluster = np.unique(cluster, return_inverse=True)
    names, n_clusters = names[present], len(present)
    totals = np.bincount(cluster, effect.influence[:, 0])
    by_unit = panel and method != "twfe"
    n_treated = int(d.sum()) if by_unit else int(frame.loc[frame["treated"] == 1, "unit"].nunique())
    # DRDID's twfe is the one of its estimators whose variance has n - 1
    factor = n_clusters / (n_clusters - 1) if method == "twfe" else 1.0
    term = Term(
        "att",
        float(effect.att[0]),
        float(np.sqrt(totals @ totals * factor)),
        n_clusters - 1,
        n_treated=n_treated,
        n_treated_clusters=len(np.unique(cluster[d == 1])),
    )
    dropped = f"Comparison rows with a propensity of {trim} or more were dropped: {effect.trimmed:,}."
    return Fit(
        (term,),
        n_obs=len(frame),
        n_units=len(d) if by_unit else int(frame["unit"].nunique()),
        n_treated=n_treated,
        n_clusters=n_clusters,
        caution=" ".join(filter(None, [sample.caution, caution, dropped if effect.trimmed else ""])),
        facts={
            "convention": CONVENTION,
            "influence": totals[:, None],
            "clusters": names,
            "trimmed": effect.trimmed,
        },
    )


def _changes(
    frame: pd.DataFrame, y: Array, weight: Array, columns: Array, treated: Array, post: Array, cluster: Index
) -> tuple[Array, Array, Array, Array, Index, int]:
    """Changes, group, covariates, weights and clusters by unit (n,), and how many units left."""
    unit = np.unique(frame["unit"].to_numpy(), return_inverse=True)[1]
    time = np.unique(frame["time"].to_numpy(), return_inverse=True)[1]
    n = int(unit.max()) + 1
    first = np.full(n, -1)
    first[unit] = cluster
    if not (first[unit] == cluster).all():
        raise Inapplicable("units with more than one cluster; it must be one a unit.")
    last = np.full(n, -1)
    np.maximum.at(last, unit[post == 0], time[post == 0])
    base = weight * (time == last[unit])

    def mean(values: Array, w: Array) -> Array:
        total = np.bincount(unit, w, minlength=n)
        return np.asarray(np.bincount(unit, w * values, minlength=n) / np.where(total > 0, total, 1))

    change = mean(y, weight * post) - mean(y, weight * (1 - post))
    x: Array = np.column_stack([np.empty((n, 0)), *(mean(columns[:, j], base) for j in range(columns.shape[1]))])
    w: Array = np.asarray(np.bincount(unit, base, minlength=n), dtype=float)
    whole = (w > 0) & (np.bincount(unit, weight * post, minlength=n) > 0)
    d = mean(treated, np.ones(len(y)))
    if not (whole & (d == 1)).any() or not (whole & (d == 0)).any():
        raise Inapplicable("no treated or no comparison unit is seen both before and after: use panel=False.")
    return change[whole], d[whole], x[whole], w[whole], first[whole], int((~whole).sum())
