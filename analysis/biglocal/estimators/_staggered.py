"""Panels with staggered starts as arrays, and two-way fixed effects on them solved exactly.

Unit effects are eliminated by hand, which leaves a system the size of the number of periods: exact for any
weights and any gaps, without iteration, in one pass over the rows (the Schur complement of the normal
equations; Abowd, Creecy and Kramarz 2002 describe the two-way structure).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from biglocal.estimators._design import check_design
from biglocal.estimators._levels import by_level
from biglocal.model import Fit, Inapplicable, Sample, Term

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Panel:
    """The rows of positive weight as arrays: n rows, U units, T periods, G clusters, k covariates.

    `unit`, `time` (n,) are codes into `units` (U,) and `times` (T,), both sorted; `home` (U,) into `clusters` (G,).
    `first` (U,) is each unit's first treated period, infinite for never; `now` (n,) says treated now.
    """

    y: Floats
    w: Floats
    x: Floats
    now: Mask
    unit: Ints
    time: Ints
    units: NDArray[np.object_]
    times: Floats
    first: Floats
    home: Ints
    clusters: NDArray[np.object_]

    @property
    def n_clusters(self) -> int:
        """G."""
        return len(self.clusters)

    def since(self) -> Floats:
        """Years since the start, by row; minus infinity for the never treated."""
        return np.asarray(self.times[self.time] - self.first[self.unit])


def panel(sample: Sample) -> Panel:
    """The sample as arrays. Raises `Inapplicable` for what no staggered design can use, with the reason.

    Without never-treated units several starts are enough: those not yet treated are the comparison.
    """
    frame = sample.frame
    first = frame["first_treated"]
    if not (len(frame) and first.notna().all() and first.nunique() > 1):
        check_design(frame)
    return arrays(sample)


def arrays(sample: Sample) -> Panel:
    """The sample as arrays, its design not looked at."""
    import pandas as pd

    if len(sample.frame) == 0:
        raise Inapplicable("no rows.")
    frame = sample.frame[sample.frame["weight"] > 0]
    if len(frame) == 0:
        raise Inapplicable("all weights are zero.")
    y = frame["y"].to_numpy(dtype=float)
    if np.ptp(y) == 0:
        raise Inapplicable(f"the outcome is constant (always {y[0]:g}).")
    unit, units = pd.factorize(frame["unit"], sort=True)
    time, times = pd.factorize(frame["time"], sort=True)
    cluster, clusters = pd.factorize(frame["cluster"], sort=True)
    home = np.empty(len(units), dtype=np.int64)
    home[unit] = cluster
    start = np.full(len(units), np.inf)
    row_start = frame["first_treated"].fillna(np.inf).to_numpy(dtype=float)
    start[unit] = row_start
    if not (start[unit] == row_start).all():
        raise Inapplicable("a unit has more than one start of treatment.")
    if not (home[unit] == cluster).all():
        raise Inapplicable("a unit spans clusters; these errors need units that lie within one cluster.")
    if len(clusters) < 2:
        raise Inapplicable(f"{len(clusters)} cluster: clustered errors need at least two.")
    return Panel(
        y,
        frame["weight"].to_numpy(dtype=float),
        frame[list(sample.covariates)].to_numpy(dtype=float).reshape(len(y), -1),
        frame["d"].to_numpy(dtype=float) == 1,
        unit.astype(np.int64),
        time.astype(np.int64),
        np.asarray(units),
        np.asarray(times, dtype=float),
        start,
        home,
        np.asarray(clusters),
    )


@dataclass(frozen=True, slots=True)
class TwoWay:
    """Weighted two-way effects on some rows, ready to be solved for any column.

    `share` (U, T): a unit's weight by period over its total, nought for units without rows. `inverse` (T, T):
    pseudo-inverse of diag(w_t) - W' diag(1 / w_u) W. `part` (T,): the connected part of the panel a period
    belongs to, or -1 without rows; `part_of` (U,) the same for units.
    """

    unit: Ints
    time: Ints
    w: Floats
    total: Floats
    share: Floats
    inverse: Floats
    part: Ints
    part_of: Ints

    def solve(self, by_unit: Floats, by_time: Floats) -> tuple[Floats, Floats]:
        """Effects (U, m) and (T, m) whose normal equations have these right-hand sides."""
        b = self.inverse @ (by_time - self.share.T @ by_unit)
        with np.errstate(divide="ignore", invalid="ignore"):
            a = np.where(self.total[:, None] > 0, by_unit / self.total[:, None], 0.0) - self.share @ b
        return a, b

    def effects(self, v: Floats) -> tuple[Floats, Floats]:
        """Unit (U, m) and period (T, m) effects of the columns of `v` (rows, m), by weighted least squares."""
        u, t = self.share.shape
        wv = v * self.w[:, None]
        return self.solve(sums(self.unit, wv, u), sums(self.time, wv, t))

    def identified(self, unit: Ints, time: Ints) -> Mask:
        """Which cells have an effect of both, in one connected part."""
        return np.asarray((self.part[time] >= 0) & (self.part_of[unit] == self.part[time]))


def sums(code: Ints, v: Floats, levels: int) -> Floats:
    """Sums of the columns of `v` (n, m) by code: (levels, m)."""
    out = np.empty((levels, v.shape[1]))
    for j in range(v.shape[1]):
        out[:, j] = np.bincount(code, v[:, j], levels)
    return out


def two_way(unit: Ints, time: Ints, w: Floats, units: int, times: int) -> TwoWay:
    """Prepare two-way effects on the rows given; codes run to `units` and `times`, some may have no row."""
    from scipy.sparse.csgraph import connected_components

    mass = np.bincount(unit * times + time, w, units * times).reshape(units, times)
    total = mass.sum(axis=1)
    share = mass / np.where(total > 0, total, 1)[:, None]
    by_time = mass.sum(axis=0)
    inner = np.diag(by_time) - mass.T @ share
    scale = np.sqrt(np.where(by_time > 0, by_time, 1))
    inverse = np.linalg.pinv(inner / np.outer(scale, scale), rcond=1e-12, hermitian=True) / np.outer(scale, scale)
    part = np.asarray(connected_components(mass.T @ (mass > 0))[1], dtype=np.int64)
    part[by_time == 0] = -1
    part_of = np.where(total > 0, part[np.argmax(mass > 0, axis=1)], -2)
    return TwoWay(unit, time, w, total, share, inverse, part, part_of)


def gram_inverse(x: Floats, w: Floats, raw: Floats, names: tuple[str, ...]) -> Floats:
    """Inverse of x'wx (k, k) of residualised covariates; `Inapplicable` names those collinear with the rest."""
    return invert(x.T @ (x * w[:, None]), (raw**2 * w[:, None]).sum(axis=0), names)


def invert(gram: Floats, raw: Floats, names: tuple[str, ...]) -> Floats:
    """Inverse of the moments (k, k) of columns whose fixed effects are out; `raw` (k,) are their squares before."""
    import scipy.linalg

    if not names:
        return np.empty((0, 0))
    left = np.diag(gram) / np.maximum(raw, 1e-300)
    gone = [n for n, share in zip(names, left, strict=True) if share < 1e-14]
    if not gone:
        size = np.sqrt(np.diag(gram))
        r, pivot = scipy.linalg.qr(gram / np.outer(size, size), mode="r", pivoting=True)
        gone = [names[j] for j, v in zip(pivot, np.abs(np.diag(r)), strict=True) if v < 1e-10]
        if not gone:
            return np.asarray(np.linalg.inv(gram))
    raise Inapplicable(f"collinear with the fixed effects or other terms: {', '.join(gone)}.")


def by_cluster(influence: Floats, p: Panel) -> Floats:
    """Influence functions summed within clusters: (U, m) to (G, m)."""
    return sums(p.home, influence, p.n_clusters)


def cohorts(p: Panel) -> Floats:
    """The starts of treatment within the panel, sorted; units that start after its end count as untreated."""
    found = np.unique(p.first[np.isfinite(p.first)])
    return np.asarray(found[found <= p.times[-1]])


def finish(
    sample: Sample, p: Panel, terms: list[Term], facts: dict[str, object], *cautions: str, rows: int | None = None
) -> Fit:
    """A fit with its terms in order of name, period and level, and the counts of its panel."""
    key = {"att": 0, "event_time": 1, "group": 2, "calendar": 3, "att_gt": 4}
    terms = sorted(terms, key=lambda t: (key.get(t.name, 9), t.name, t.level, t.period or 0))
    return Fit(
        tuple(terms),
        n_obs=len(p.y) if rows is None else rows,
        n_units=len(p.units),
        n_treated=int((p.first <= p.times[-1]).sum()),
        n_clusters=p.n_clusters,
        caution=" ".join(filter(None, [sample.caution, *cautions])),
        facts={**facts, "units": p.units, "cluster_of": p.clusters[p.home]},
    )


def joint(name: str, values: Floats, grouped: Floats, df: float) -> list[Term]:
    """The test that all `values` (q,) are nought, from cluster sums (G, q) that carry their factor.

    None where there is nothing to test, or too few clusters for so many restrictions.
    """
    vcov = grouped.T @ grouped
    size = np.sqrt(np.diag(vcov))
    if not len(values) or not (size > 0).all():
        return []
    if np.linalg.matrix_rank(vcov / np.outer(size, size), tol=1e-10, hermitian=True) < len(values):
        return []
    f = float(values @ np.linalg.solve(vcov, values)) / len(values)
    return [Term(name, float("nan"), df=df, statistic=f, df_num=len(values))]


def levels(sample: Sample, one: Callable[[Sample], Fit]) -> Fit:
    """`att` of each level by itself, and the test of their difference, by influence functions (`_levels.by_level`)."""

    def summed(part: Sample) -> Fit:
        fit = one(part)
        of = fit.facts["cluster_of"]
        clusters, code = np.unique(of, return_inverse=True)
        influence = sums(code, fit.facts["influence"][:, :1], len(clusters))
        return replace(fit, facts={**fit.facts, "influence": influence, "clusters": clusters, "trimmed": 0})

    return by_level(sample, summed)


def no_levels(sample: Sample) -> None:
    """Refuse levels where no test of their difference is made: one number for all would pass for a level's."""
    if sample.levels:
        raise Inapplicable("makes no test of a difference between levels; estimate each level by itself.")


def treated_behind(p: Panel, rows: Mask) -> tuple[int, int]:
    """How many units, and clusters, these rows come from."""
    units = np.unique(p.unit[rows])
    return len(units), len(np.unique(p.home[units]))
