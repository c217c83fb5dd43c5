"""What a two-way fixed-effects coefficient is made of: Goodman-Bacon (2021, J Econometrics 225:254).

With staggered starts the coefficient is an average of 2x2 comparisons of pairs of cohorts, with weights that sum
to one (theorem 1). Those of later with earlier treated use treated rows as controls. A diagnostic: it says how
much of `twfe` rests on such comparisons, and makes no test.

With covariates (section 5.2) the coefficient splits into a part within cohorts, which the covariates alone
make, and a part between them; earlier and later cannot be told apart then, so a pair of treated cohorts is one
comparison. Everything is made from means by cohort and period, whatever the number of units.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from biglocal.estimators._area_means import balanced
from biglocal.estimators._staggered import Panel, finish, gram_inverse, no_levels, panel, two_way
from biglocal.model import Fit, Inapplicable, Sample, Term

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

NEVER = "Treated vs Untreated"
EARLY = "Earlier vs Later Treated"
LATE = "Later vs Earlier Treated"
ALWAYS = "Later vs Always Treated"
BOTH = "Both Treated"
Pair = tuple[float, float, str, float, float]  # treated, untreated (infinite for never), type, estimate, weight


def estimate(sample: Sample, *, balance: bool = False) -> Fit:
    """Descriptive terms: `att`, the two-way coefficient; `comparison` and `comparison_weight` by type (level).

    `comparison` is the weighted mean of a type's 2x2 estimates, `comparison_weight` the type's weight, and the
    sum of their products is `att` (with covariates, with `within` and `within_weight` as one more pair).
    `two_by_two` and `two_by_two_weight` are those of each pair (level: who against whom), and
    `facts["two_by_twos"]` has them as treated, untreated (infinite for never), type, estimate, weight.
    `balance`: units without a row in every period leave first; the caution counts them.

    Raises `Inapplicable` as `twfe` does, for a single cohort without others to compare, and for panels whose
    cohorts differ in weight between periods: the theorem is for balanced panels.
    """
    no_levels(sample)
    sample = balanced(sample) if balance else sample
    p = panel(sample)
    starts = np.where(p.first > p.times[-1], np.inf, np.maximum(p.first, p.times[0]))
    cohort, group = np.unique(starts, return_inverse=True)
    c, t = len(cohort), len(p.times)
    cell = group[p.unit] * t + p.time
    mass = np.bincount(cell, p.w, c * t).reshape(c, t)
    if not np.allclose(mass, mass[:, :1], rtol=1e-9):
        raise Inapplicable("the panel is unbalanced, or weights change over time: the decomposition is for balanced.")
    if c < 2:
        raise Inapplicable("one cohort only: there is nothing to compare it with.")
    share = mass[:, 0] / mass[:, 0].sum()
    mean = np.bincount(cell, p.w * p.y, c * t).reshape(c, t) / mass
    if sample.covariates:
        pairs, att, within, omega = _adjusted(p, cell, cohort, share, mean, sample.covariates)
    else:
        pairs = _plain(p.times, cohort, share, mean)
        att, within, omega = float(sum(b * w for *_, b, w in pairs)), float("nan"), 0.0
    terms = [Term("att", att, tested=False)]
    for kind in sorted({k for _, _, k, _, _ in pairs}):
        weight = sum(w for _, _, k, _, w in pairs if k == kind)
        average = sum(b * w for _, _, k, b, w in pairs if k == kind) / weight
        terms.append(Term("comparison", average, level=kind, tested=False))
        terms.append(Term("comparison_weight", weight * (1 - omega), level=kind, tested=False))
    for g, h, kind, average, weight in pairs:
        name = f"{g:g} against {'never treated' if np.isinf(h) else f'{h:g}'} ({kind})"
        terms.append(Term("two_by_two", average, level=name, tested=False))
        terms.append(Term("two_by_two_weight", weight * (1 - omega), level=name, tested=False))
    if sample.covariates:
        terms.append(Term("within", within, tested=False))
        terms.append(Term("within_weight", omega, tested=False))
    keys = ("treated", "untreated", "type", "estimate", "weight")
    facts: dict[str, object] = {
        "convention": "descriptive: no errors",
        "two_by_twos": [dict(zip(keys, pair, strict=True)) for pair in pairs],
        "omega": omega,
    }
    return finish(sample, p, terms, facts)


def _plain(times: Floats, cohort: Floats, share: Floats, mean: Floats) -> list[Pair]:
    """Each cohort against each other over the window in which the other's treatment does not change.

    Equations 7 to 10: weights are proportional to the square of a pair's rows in the window times the variance of
    treatment there, which is the product of the shares and of the periods before and after.
    """
    d = (times >= cohort[:, None]).astype(float)
    found = []
    for k, g in enumerate(cohort):
        if d[k].all() or not d[k].any():
            continue  # always treated, or never: no change of its own to compare
        for other, h in enumerate(cohort):
            if other == k:
                continue
            window = times < h if g < h else times >= h
            after = d[k][window] == 1
            if after.all():
                continue  # the other is treated throughout, and so is this one: no before
            kind = NEVER if np.isinf(h) else EARLY if g < h else ALWAYS if h <= times[0] else LATE
            gap = (mean[k] - mean[other])[window]
            weight = share[k] * share[other] * after.sum() * (~after).sum()
            found.append((g, h, kind, gap[after].mean() - gap[~after].mean(), weight))
    total = sum(w for *_, w in found)
    return [(float(g), float(h), kind, float(b), float(w / total)) for g, h, kind, b, w in found]


def _adjusted(
    p: Panel, cell: NDArray[np.int64], cohort: Floats, share: Floats, mean: Floats, names: tuple[str, ...]
) -> tuple[list[Pair], float, float, float]:
    """Pairs, the coefficient, its part within cohorts, and that part's weight (equations 22 to 26).

    With r the treatment after fixed effects and covariates, the coefficient is sum(w y r) / sum(w r r); r splits
    into its mean by cohort and period and the rest, which are orthogonal. As the shares' mean of r is nought in
    each period, the part between is a sum over pairs of (y_kt - y_lt)(r_kt - r_lt).
    """
    c, t = mean.shape
    fe = two_way(p.unit, p.time, p.w, len(p.units), t)
    columns = np.column_stack([p.now.astype(float), p.x])
    a, b = fe.effects(columns)
    left = columns - a[p.unit] - b[p.time]
    r, x = left[:, 0], left[:, 1:]
    r = r - x @ (gram_inverse(x, p.w, p.x, names) @ (x.T @ (p.w * r)))
    mass = np.bincount(cell, p.w, c * t)
    between = np.bincount(cell, p.w * r, c * t) / mass
    rest = r - between[cell]
    total, inner = float(p.w @ r**2), float(p.w @ rest**2)
    if total <= 1e-14 * float(p.w @ columns[:, 0]):
        raise Inapplicable("treatment is collinear with the fixed effects and covariates.")
    rbar = between.reshape(c, t)
    found = []
    for k in range(c):
        for other in range(k + 1, c):
            gap = rbar[k] - rbar[other]
            size = float(gap @ gap)
            kind = NEVER if np.isinf(cohort[other]) else BOTH
            weight = share[k] * share[other] * size
            found.append((cohort[k], cohort[other], kind, float((mean[k] - mean[other]) @ gap) / size, weight))
    scale = sum(w for *_, w in found)
    pairs = [(float(g), float(h), kind, float(v), float(w / scale)) for g, h, kind, v, w in found]
    within = float(p.w @ (rest * p.y)) / inner if inner > 0 else 0.0
    return pairs, float(p.w @ (r * p.y)) / total, within, inner / total
