"""Stacked difference-in-differences with corrective weights: Wing, Freedman and Hollingsworth (2024, NBER WP 32054).

Each cohort with the whole window from `kappa_pre` periods before its start to `kappa_post` after it is an
experiment of its own, with clean controls: units that start later than the window's end, or never. Experiments
are stacked by time since the start. Controls of experiment a weigh, in each period e, (D_ae / D_e) / (C_ae / C_e)
(their equation 10, D and C the weight of treated and control rows), so that each coefficient is the average of
the experiments' differences in differences with the shares of the treated, the same in every period: without
these weights the regression averages treated and controls differently, and need not be an average of effects.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np

from biglocal.estimators import CONVENTION, correction, counted
from biglocal.estimators._saturated import saturated
from biglocal.estimators._staggered import Panel, by_cluster, cohorts, finish, joint, levels, panel, sums
from biglocal.model import Fit, Inapplicable, Sample, Term

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]


def estimate(
    sample: Sample,
    *,
    kappa_pre: int | None = None,
    kappa_post: int | None = None,
    effects: Literal["unit", "group"] = "unit",
) -> Fit:
    """Terms `att` (mean of the effects from the start on), `event_time` and `leads`.

    The window is the longest that every cohort has, unless given; cohorts that lack it stay out and the caution
    names them. `effects`: fixed effects of each unit in each experiment, or of the treated as a `group` as in the
    paper's equation 8; the two agree on balanced panels. `facts`: the window, the experiments, `influence`
    (n_units, terms with an error) without the small-sample factor.

    Where the sample has levels: `att` of each, and the test of their `difference`.

    Raises `Inapplicable` as `twfe` does, and where no cohort has a window and clean controls.
    """
    if sample.levels:
        return levels(sample, partial(estimate, kappa_pre=kappa_pre, kappa_post=kappa_post, effects=effects))
    p = panel(sample)
    starts = cohorts(p)
    able = starts[np.isin(starts - 1, p.times)]
    if not len(able):
        raise Inapplicable("no cohort has a period just before its start: nothing to compare with.")
    pre = int(min(able - p.times[0])) if kappa_pre is None else kappa_pre
    post = int(min(p.times[-1] - able)) if kappa_post is None else kappa_post
    if pre < 1 or post < 0:
        raise Inapplicable(f"a window of {pre} periods before and {post} after: at least 1 and 0 are needed.")
    kept = able[(able - pre >= p.times[0]) & (able + post <= p.times[-1])]
    row, experiment, used = _stack(p, kept, pre, post)
    if not len(used):
        raise Inapplicable(f"no cohort has {pre} periods before and {post} after its start, and clean controls.")
    unit, time = p.unit[row], p.time[row]
    since = (p.times[time] - used[experiment]).astype(int)
    periods, e = np.unique(since, return_inverse=True)
    now = (p.first[unit] == used[experiment]).astype(np.int64)
    w = p.w[row] * _corrective(p.w[row], now, experiment, e, len(used), len(periods))
    units, own = np.unique(experiment * len(p.units) + unit, return_inverse=True)
    group = np.empty(len(units), dtype=np.int64)
    group[own] = now
    fit = saturated(
        p.y[row], p.x[row], w, own, e, group, len(periods), sample.covariates, unit_effects=effects == "unit"
    )
    base = int(np.flatnonzero(periods == -1)[0])
    rest = [j for j in range(len(periods)) if j != base]
    loadings = np.zeros((len(rest), 2, len(periods)))
    for i, j in enumerate(rest):
        loadings[i, 1, j], loadings[i, 0, j] = 1, -1
        loadings[i, 1, base], loadings[i, 0, base] = -1, 1
    later = periods[rest] >= 0
    loadings = np.concatenate([loadings[later].mean(axis=0)[None], loadings])
    values, by_stack = fit.combine(loadings)
    influence = sums(units % len(p.units), by_stack, len(p.units))

    clusters, cluster = np.unique(p.home[unit], return_inverse=True)
    fixed = [own if effects == "unit" else now, e]
    k = counted(len(rest) + p.x.shape[1], fixed, cluster)
    grouped = by_cluster(influence, p) * np.sqrt(correction(len(row), k, len(clusters)))
    error = np.sqrt((grouped**2).sum(axis=0))
    df = len(clusters) - 1
    treated = np.unique(unit[now == 1])
    behind = (len(treated), len(np.unique(p.home[treated])))
    names: list[tuple[str, int | None]] = [("att", None), *(("event_time", int(periods[j])) for j in rest)]
    terms = [
        Term(name, float(v), float(s), df, period, n_treated=behind[0], n_treated_clusters=behind[1])
        for (name, period), v, s in zip(names, values, error, strict=True)
    ]
    terms.append(Term("event_time", 0.0, period=-1, tested=False))
    early = [j for j, (_, period) in enumerate(names) if period is not None and period < -1]
    terms += joint("leads", values[early], grouped[:, early], df)
    out = [f"{g:g}" for g in starts if g not in used]
    caution = f"Cohorts without the window or clean controls left: {', '.join(out)}." if out else ""
    facts: dict[str, object] = {
        "convention": CONVENTION,
        "kappa": (pre, post),
        "experiments": tuple(float(g) for g in used),
        "stacked_rows": len(row),
        "influence": influence,
        "influence_terms": tuple(names),
    }
    return finish(sample, p, terms, facts, caution, rows=len(np.unique(row)))


def _stack(p: Panel, starts: Floats, pre: int, post: int) -> tuple[Ints, Ints, Floats]:
    """Rows of the stack (n,), the experiment of each (n,), and the experiments' starts: those with both sides."""
    rows, used = [], []
    for g in starts:
        inside = (p.times >= g - pre) & (p.times <= g + post)
        side = (p.first == g) | (p.first > g + post)
        found = np.flatnonzero(inside[p.time] & side[p.unit])
        treated = p.first[p.unit[found]] == g
        if treated.any() and not treated.all():
            rows.append(found)
            used.append(g)
    if not used:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64), np.empty(0)
    return np.concatenate(rows), np.repeat(np.arange(len(used)), [len(r) for r in rows]), np.array(used)


def _corrective(w: Floats, now: Ints, experiment: Ints, e: Ints, experiments: int, periods: int) -> Floats:
    """The corrective weight of each stacked row: 1 for treated rows."""
    cell = experiment * periods + e
    treated, control = (
        np.bincount(cell, w * (now == side), experiments * periods).reshape(experiments, periods) for side in (1, 0)
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        q = (treated / treated.sum(axis=0)) / (control / control.sum(axis=0))
    return np.where(now == 1, 1.0, q.ravel()[cell])
