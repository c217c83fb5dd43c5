"""Period effects of each group by itself: the model behind interaction-weighted and stacked regressions.

y_it = a_i + c_{g(i) t} + x_it b + e_it. A regression that gives each cohort its own effect in each period is this
model in other words, and this one falls apart by group: a system the size of the periods for each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from biglocal.estimators._staggered import gram_inverse, sums, two_way

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Saturated:
    """C groups, T periods, U units, k covariates.

    `theta` (C, T): period effects, each group's up to a constant; `theta_x` (C, T, k) those of the covariates;
    `bread` (C, T, T) and `scores` (U, T), weighted residuals, make their influence functions. `mass` (C, T):
    weight in each cell. `part` (C, T): connected parts, within which period effects compare; -1 without rows.
    """

    group: Ints
    theta: Floats
    theta_x: Floats
    bread: Floats
    scores: Floats
    mass: Floats
    part: Ints
    beta: Floats
    beta_influence: Floats

    def combine(self, loadings: Floats) -> tuple[Floats, Floats]:
        """Estimates (m,) and influence functions (U, m) of combinations (m, C, T), which sum to nought by group."""
        values = np.einsum("mct,ct->m", loadings, self.theta)
        influence = -self.beta_influence @ np.einsum("mct,ctk->km", loadings, self.theta_x)
        for c in range(len(self.theta)):
            own = np.flatnonzero(self.group == c)
            influence[own] += self.scores[own] @ (self.bread[c] @ loadings[:, c].T)
        return values, influence


def saturated(
    y: Floats, x: Floats, w: Floats, unit: Ints, time: Ints, group: Ints, times: int, names: tuple[str, ...],
    *, unit_effects: bool = True,
) -> Saturated:  # fmt: skip
    """Fit it. `y`, `w`, `unit`, `time` (n,), `x` (n, k), `group` (units,): codes from 0, every group with a unit.

    Without `unit_effects` a_i is left out, and c_gt are cell means. Raises `Inapplicable` for collinear covariates.
    """
    groups = int(group.max()) + 1
    of = group[unit]
    columns = np.column_stack([y, x])
    left = columns.copy()
    theta = np.zeros((groups, times, columns.shape[1]))
    bread = np.zeros((groups, times, times))
    part = np.full((groups, times), -1)
    mass = np.bincount(of * times + time, w, groups * times).reshape(groups, times)
    for c in range(groups):
        at = np.flatnonzero(of == c)
        if unit_effects:
            inside, local = np.unique(unit[at], return_inverse=True)
            fe = two_way(local, time[at], w[at], len(inside), times)
            a, theta[c] = fe.effects(columns[at])
            bread[c], part[c] = fe.inverse, fe.part
            left[at] -= a[local] + theta[c][time[at]]
        else:
            seen = mass[c] > 0
            one_over = np.where(seen, 1 / np.where(seen, mass[c], 1), 0)
            bread[c], part[c] = np.diag(one_over), np.where(seen, 0, -1)
            theta[c] = one_over[:, None] * sums(time[at], columns[at] * w[at, None], times)
            left[at] -= theta[c][time[at]]
    xt = left[:, 1:]
    inverse = gram_inverse(xt, w, x, names)
    beta = inverse @ (xt.T @ (w * left[:, 0]))
    we = w * (left[:, 0] - xt @ beta)
    units = len(group)
    scores = np.bincount(unit * times + time, we, units * times).reshape(units, times)
    theta_x, by_beta = theta[:, :, 1:], sums(unit, xt * we[:, None], units) @ inverse
    own = theta[:, :, 0] - theta_x @ beta
    return Saturated(group, own, theta_x, bread, scores.astype(float), mass.astype(float), part, beta, by_beta)
