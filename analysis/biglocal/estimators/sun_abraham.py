"""The interaction-weighted estimator of Sun and Abraham (2021, J Econometrics 225:175).

Each cohort has its own effect in each period, against units never treated within the panel (or, where there are
none, the cohort treated last, up to its start) and its own last period before the start; averages over cohorts
weigh by their rows. Shares count as fixed, as in R's fixest::sunab. Without covariates on a balanced panel the
cells are Callaway and Sant'Anna's with the never treated.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from biglocal.estimators import CONVENTION, correction, counted
from biglocal.estimators._saturated import saturated
from biglocal.estimators._staggered import by_cluster, finish, joint, levels, panel, sums
from biglocal.model import Fit, Inapplicable, Sample, Term

if TYPE_CHECKING:
    from numpy.typing import NDArray


def estimate(sample: Sample) -> Fit:
    """Terms `att`, `event_time`, `group`, `calendar`, `att_gt` (level cohort, period time) and `leads`.

    Units treated from the first period on have no period before, and leave; the caution counts them.
    `facts`: `influence` (n_units, terms with an error) without the small-sample factor, in the order of
    `influence_terms`; `coefficients` of the covariates with their errors.

    Where the sample has levels: `att` of each, and the test of their `difference`.

    Raises `Inapplicable` as `twfe` does, and where no cohort can be compared.
    """
    if sample.levels:
        return levels(sample, estimate)
    p = panel(sample)
    first, last = p.first, p.times[-1]
    always = first <= p.times[0]
    start = np.where(first > last, np.inf, first)
    end = np.inf
    if not np.isinf(start).any():
        end = start.max()
        start = np.where(start == end, np.inf, start)
    rows = np.flatnonzero(~always[p.unit] & (p.times[p.time] < end))
    units, unit = np.unique(p.unit[rows], return_inverse=True)
    begins, group = np.unique(start[units], return_inverse=True)
    if len(begins) < 2 or np.isfinite(begins[-1]):
        raise Inapplicable("no cohort with a period before its start and a comparison not treated in the panel.")
    times, control = len(p.times), len(begins) - 1
    fit = saturated(p.y[rows], p.x[rows], p.w[rows], unit, p.time[rows], group, times, sample.covariates)

    base, cells = [], []  # cells: cohort, period
    for c in range(control):
        before = np.flatnonzero((fit.part[c] >= 0) & (p.times < begins[c]))
        b = int(before[-1]) if len(before) else -1
        base.append(b)
        if b >= 0:
            with_base = (fit.part[c] == fit.part[c, b]) & (fit.part[control] == fit.part[control, b])
            cells += [(c, t) for t in np.flatnonzero(with_base) if t != b and fit.part[control, b] >= 0]
    if not any(p.times[t] >= begins[c] for c, t in cells):
        raise Inapplicable("no cohort has rows both before and after its start, with comparison rows beside them.")
    cohort = np.array([c for c, _ in cells])
    at = np.array([t for _, t in cells])
    loadings = np.zeros((len(cells), control + 1, times))
    for j, (c, t) in enumerate(cells):
        loadings[j, c, t], loadings[j, control, t] = 1, -1
        loadings[j, c, base[c]], loadings[j, control, base[c]] = -1, 1
    cell, cell_influence = fit.combine(loadings)

    since, begin, year = p.times[at] - begins[cohort], begins[cohort], p.times[at]
    post = since >= 0
    mean: list[tuple[str, int | None, str, NDArray[np.bool_]]] = [("att", None, "", post)]
    mean += [("event_time", int(e), "", since == e) for e in np.unique(since)]
    mean += [("group", int(g), "", post & (begin == g)) for g in np.unique(begin[post])]
    mean += [("calendar", int(v), "", post & (year == v)) for v in np.unique(year[post])]
    mean += [("att_gt", int(year[j]), f"{begin[j]:g}", np.arange(len(cells)) == j) for j in range(len(cells))]
    weight = np.array([rows_in * fit.mass[cohort, at] for *_, rows_in in mean])
    weight /= weight.sum(axis=1, keepdims=True)
    values, influence = weight @ cell, cell_influence @ weight.T

    codes = [unit, np.unique(p.time[rows], return_inverse=True)[1]]
    home = p.home[units]
    clusters, cluster = np.unique(home, return_inverse=True)
    k = counted(len(cells) + p.x.shape[1], codes, cluster[unit])
    factor = correction(len(rows), k, len(clusters))
    wide = np.zeros((len(p.units), len(mean)))
    wide[units] = influence
    grouped = by_cluster(wide, p) * np.sqrt(factor)
    error = np.sqrt((grouped**2).sum(axis=0))
    df = len(clusters) - 1
    terms = []
    for j, (name, period, level, rows_in) in enumerate(mean):
        who = np.isin(group, cohort[rows_in])
        term = Term(name, float(values[j]), float(error[j]), df, period, level)
        terms.append(replace(term, n_treated=int(who.sum()), n_treated_clusters=len(np.unique(home[who]))))
    bases = {int(p.times[b] - g) for b, g in zip(base, begins[:-1], strict=True) if b >= 0}
    terms += [Term("event_time", 0.0, period=e, tested=False) for e in sorted(bases - set(since.astype(int)))]
    early = [j for j, (name, period, *_) in enumerate(mean) if name == "event_time" and (period or 0) < 0]
    terms += joint("leads", values[early], grouped[:, early], df)
    x_error = np.sqrt((sums(home, fit.beta_influence, p.n_clusters) ** 2).sum(axis=0) * factor)
    gone = int(always.sum())
    facts: dict[str, object] = {
        "convention": CONVENTION,
        "influence": wide,
        "influence_terms": tuple((n, q, v) for n, q, v, _ in mean),
        "coefficients": {n: (float(b), float(s)) for n, b, s in zip(sample.covariates, fit.beta, x_error, strict=True)},
    }
    cautions = [f"{gone} units treated from the first period on left." if gone else ""]
    if np.isfinite(end):
        cautions.append(f"No unit stays untreated: the comparison is the cohort of {end:g}, up to its start.")
    return finish(sample, p, terms, facts, *cautions, rows=len(rows))
