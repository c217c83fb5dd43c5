"""Imputation of what treated rows would have been, from rows not treated yet or ever.

Borusyak, Jaravel and Spiess (2024, Rev Econ Stud 91:3253): a two-way model y_it = a_i + b_t + x_it c is fitted
to untreated rows alone; an effect is the weighted mean of y less the model over the treated rows of interest.
Gardner (2022, Two-stage differences in differences) has the same points; errors differ:

- `errors="bjs"`: their conservative clustered errors, theorem 3, with effects averaged by cohort and period,
  as R's didimputation; leads come from a regression on untreated rows, section 4.4.
- `errors="gardner"`: two-step GMM errors, as R's did2s; leads are mean residuals of the first step (all of them,
  the last period before the start left out);
- `errors="didimputation"`: as "bjs", except that with weights the influence of untreated rows is made with the
  squares of the weights, as R's didimputation 0.5.0 does. That is not theorem 3 (its weights v do not balance the
  fixed effects); kept so that its published errors can be replicated. The two are the same without weights.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np

from biglocal.estimators import CONVENTION, correction
from biglocal.estimators._staggered import (
    Panel,
    TwoWay,
    by_cluster,
    finish,
    gram_inverse,
    invert,
    joint,
    levels,
    panel,
    sums,
    treated_behind,
    two_way,
)
from biglocal.model import Fit, Inapplicable, Sample, Term

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Mask = NDArray[np.bool_]

CONVENTIONS = {
    "bjs": "BJS theorem 3, effects averaged by cohort and period, no small-sample factor, t(G-1) (R: normal); leads: ",
    "didimputation": "as R's didimputation 0.5.0: weights squared, no small-sample factor, t(G-1) (R: normal); leads: ",
    "gardner": "two-step GMM (did2s), no small-sample factor, t(G-1) (R: normal); leads: the same",
}
Errors = Literal["bjs", "gardner", "didimputation"]


def estimate(sample: Sample, *, errors: Errors = "bjs", leads: int | None = None) -> Fit:
    """Terms `att`, `event_time`, `group` (by cohort), `calendar` (by year) and `leads`, their joint test.

    `leads`: how many periods before the start are tested under "bjs", all earlier ones being the base; by
    default all but the earliest, fewer where these are not identified. 0 for none. Treated rows whose unit or
    period has no untreated row cannot be imputed: they leave, and the caution counts them.
    `facts`: `influence` (n_units, terms with an error), in the order of `influence_terms`.

    Where the sample has levels: `att` of each, and the test of their `difference`.

    Raises `Inapplicable` as `twfe` does, for collinear covariates, and where no treated row can be imputed.
    """
    if sample.levels:
        return levels(sample, partial(estimate, errors=errors, leads=0))
    p = panel(sample)
    if errors not in CONVENTIONS:
        raise Inapplicable(f"errors={errors!r} is not one of {', '.join(CONVENTIONS)}.")
    model = _impute(p, sample.covariates)
    since = p.since()
    targets = _targets(p, model.kept, since)
    ahead: list[Target] = []
    if errors == "gardner":
        before = np.unique(since[~p.now & np.isfinite(since)])
        ahead = [("event_time", int(e), ~p.now & (since == e)) for e in before if e < -1]
        targets += ahead
    values, influence = _effects(p, model, targets, errors, sample.covariates)
    error = np.sqrt((by_cluster(influence, p) ** 2).sum(axis=0))
    terms = []
    for j, (name, period, rows) in enumerate(targets):
        n, n_clusters = treated_behind(p, rows)
        terms.append(
            Term(name, values[j], float(error[j]), p.n_clusters - 1, period, n_treated=n, n_treated_clusters=n_clusters)
        )
    names = [(n, q) for n, q, _ in targets]
    if errors == "gardner":
        terms.append(Term("event_time", 0.0, period=-1, tested=False))
        early = [names.index((n, q)) for n, q, _ in ahead]
        terms += joint("leads", np.array(values)[early], by_cluster(influence[:, early], p), p.n_clusters - 1)
    else:
        more, wide = _leads(p, model, since, leads, sample.covariates)
        terms += more
        names += [(t.name, t.period) for t in more if t.name == "event_time"]
        influence = np.column_stack([influence, wide])
    lost = int((p.now & ~model.kept).sum())
    caution = f"{lost} treated rows could not be imputed and left." if lost else ""
    said = CONVENTIONS[errors] + ("" if errors == "gardner" else CONVENTION)
    facts: dict[str, object] = {
        "convention": said, "influence": influence, "influence_terms": tuple(names), "not_imputed": lost,
    }  # fmt: skip
    return finish(sample, p, terms, facts, caution, rows=len(p.y) - lost)


@dataclass(frozen=True, slots=True)
class _Model:
    """The fit on untreated rows: `gap` (n,) is y less the model, `kept` (n,) the treated rows it reaches.

    `xt` (n, k): covariates less their own two-way effects; `bread` (k, k) the inverse of xt'w xt.
    """

    effects: TwoWay
    gap: Floats
    kept: Mask
    xt: Floats
    bread: Floats


def _impute(p: Panel, names: tuple[str, ...]) -> _Model:
    free = ~p.now
    fe = two_way(p.unit[free], p.time[free], p.w[free], len(p.units), len(p.times))
    a, b = fe.effects(np.column_stack([p.y, p.x])[free])
    left = np.column_stack([p.y, p.x]) - a[p.unit] - b[p.time]
    yt, xt = left[:, 0], left[:, 1:]
    bread = gram_inverse(xt[free], p.w[free], p.x[free], names)
    gap = yt - xt @ (bread @ (xt[free].T @ (p.w * yt)[free]))
    kept = p.now & fe.identified(p.unit, p.time)
    if not kept.any():
        raise Inapplicable("no treated row has both a unit and a period with untreated rows: nothing to impute from.")
    return _Model(fe, gap, kept, xt, bread)


Target = tuple[str, "int | None", "Mask"]


def _targets(p: Panel, kept: Mask, since: Floats) -> list[Target]:
    """What is averaged: name, period, rows (n,)."""
    first, year = p.first[p.unit], p.times[p.time]
    out: list[Target] = [("att", None, kept)]
    for name, key in (("event_time", since), ("group", first), ("calendar", year)):
        out += [(name, int(v), kept & (key == v)) for v in np.unique(key[kept])]
    return out


def _effects(
    p: Panel, m: _Model, targets: list[Target], errors: str, names: tuple[str, ...]
) -> tuple[list[float], Floats]:
    """Estimates, and influence functions (U, terms).

    With weights h on the target rows, v = -w Z (Z'wZ)^-1 Z'h on untreated rows. Residuals of the model sum to
    nought within each unit, so of Z only the period effects and the covariates matter in a unit's sum of v e.
    """
    u, t = len(p.units), len(p.times)
    free = ~p.now
    dual = _impute(replace(p, w=p.w**2), names) if errors == "didimputation" else m
    we = np.where(free, p.w * m.gap, 0.0)
    by_cell = np.bincount(p.unit * t + p.time, we, u * t).reshape(u, t)
    by_x = sums(p.unit, dual.xt * we[:, None], u)
    if errors != "gardner":  # effects by cohort and period, weighted by v squared, which is w squared within a cell
        cell = np.unique(p.first, return_inverse=True)[1][p.unit] * t + p.time
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.bincount(cell, m.kept * p.w**2 * m.gap) / np.bincount(cell, m.kept * p.w**2)
        centred = np.where(m.kept, m.gap - mean[cell], 0.0)
    values: list[float] = []
    on_unit, on_time = np.zeros((u, len(targets))), np.zeros((t, len(targets)))
    on_x, own = np.zeros((len(names), len(targets))), np.zeros((u, len(targets)))
    for j, (_, _, rows) in enumerate(targets):
        at = np.flatnonzero(rows)
        h = p.w[at] / p.w[at].sum()
        own_h, value = h, float(h @ m.gap[at])
        values.append(value)
        if errors == "didimputation":
            h = h * p.w[at]
        on_unit[:, j] = np.bincount(p.unit[at], h, u)
        on_time[:, j] = np.bincount(p.time[at], h, t)
        on_x[:, j] = h @ dual.xt[at]
        off = m.gap[at] - value if errors == "gardner" else centred[at]
        own[:, j] = np.bincount(p.unit[at], own_h * off, u)
    b = dual.effects.solve(on_unit, on_time)[1]
    return values, own - by_cell @ b - by_x @ (dual.bread @ on_x)


def _leads(p: Panel, m: _Model, since: Floats, leads: int | None, names: tuple[str, ...]) -> tuple[list[Term], Floats]:
    """BJS pre-trend test: untreated rows on dummies of the last `leads` periods before the start.

    An ordinary regression, so its errors follow this package's one convention. Made from sums over the few treated
    units: with D the dummies and (a, b) their two-way effects, D'w(D - a - b) are the moments.
    """
    u, t = len(p.units), len(p.times)
    free = np.flatnonzero(~p.now)
    unit, time, w, gap, xt = p.unit[free], p.time[free], p.w[free], m.gap[free], m.xt[free]
    before = np.unique(since[free][np.isfinite(since[free])])[::-1]
    wanted = before[: len(before) - 1 if leads is None else leads]
    rows = [np.flatnonzero(since[free] == v) for v in wanted]
    by_unit, by_time = np.zeros((u, len(rows))), np.zeros((t, len(rows)))
    for i, at in enumerate(rows):
        by_unit[:, i], by_time[:, i] = np.bincount(unit[at], w[at], u), np.bincount(time[at], w[at], t)
    raw = by_time.sum(axis=0)
    a, b = m.effects.solve(by_unit, by_time)
    inner = np.diag(raw) - by_unit.T @ a - by_time.T @ b
    cross = np.array([w[at] @ xt[at] for at in rows]).reshape(len(rows), len(names))
    whole = np.block([[inner, cross], [cross.T, xt.T @ (xt * w[:, None])]])
    raw = np.append(raw, (p.x[free] ** 2 * w[:, None]).sum(axis=0))
    k = len(wanted)
    while k:
        use = np.r_[0:k, len(rows) : len(whole)]
        try:
            bread = invert(whole[np.ix_(use, use)], raw[use], (*(f"lead {-v:g}" for v in wanted[:k]), *names))
            break
        except Inapplicable:
            if leads is not None:
                raise
            k -= 1
    if not k:
        return [], np.empty((u, 0))
    rows, a, b = rows[:k], a[:, :k], b[:, :k]
    moments = np.append([w[at] @ gap[at] for at in rows], np.zeros(len(names)))  # gap is free of the covariates
    beta = bread @ moments
    left = gap + (a @ beta[:k])[unit] + (b @ beta[:k])[time] - xt @ beta[k:]
    for v, at in zip(beta, rows, strict=False):
        left[at] -= v
    we = w * left
    by_cell = np.bincount(unit * t + time, we, u * t).reshape(u, t)
    own = np.column_stack([np.bincount(unit[at], we[at], u) for at in rows]) - by_cell @ b
    influence = np.column_stack([own, sums(unit, xt * we[:, None], u)]) @ bread
    clusters = len(np.unique(p.home[unit]))
    factor = correction(len(free), k + len(names) + int((m.effects.part >= 0).sum()), clusters)
    grouped = by_cluster(influence[:, :k], p) * np.sqrt(factor)
    error = np.sqrt((grouped**2).sum(axis=0))
    out = [
        Term("event_time", float(beta[j]), float(error[j]), clusters - 1, period=int(v))
        for j, v in enumerate(wanted[:k])
    ]
    return out + joint("leads", beta[:k], grouped, clusters - 1), influence[:, :k]
