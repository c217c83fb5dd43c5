"""Synthetic difference-in-differences: Arkhangelsky, Athey, Hirshberg, Imbens and Wager (2021, AER 111:4088).

Control units are weighted so that their path before the start runs parallel to the treated mean, periods before
the start so that they predict the controls' mean after it; the estimate is the difference in differences under both
weights (algorithm 1). The synthetic control and the plain difference in differences are the same with other weights.

With several starts, each cohort is estimated against the never treated, and cohorts average by their treated
unit-periods (their appendix; Clarke et al. 2023). Unit weights of the sample weigh the treated mean; controls get
the method's own. Covariates are taken out beforehand with coefficients from untreated rows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from biglocal.estimators._area_means import area_means
from biglocal.estimators._simplex import exact, frank_wolfe, sparse
from biglocal.estimators._staggered import Panel, arrays, finish, gram_inverse, no_levels, sums, two_way
from biglocal.model import Fit, Inapplicable, Sample, Term

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

Method = Literal["sdid", "sc", "did"]
Solver = Literal["exact", "frank_wolfe"]
Errors = Literal["auto", "jackknife", "placebo", "bootstrap", "none"]


def estimate(
    sample: Sample,
    *,
    method: Method = "sdid",
    solver: Solver = "exact",
    errors: Errors = "auto",
    draws: int = 200,
    seed: int = 0,
    over: Literal["unit", "area"] = "unit",
) -> Fit:
    """Terms `att` and, from the start on, `event_time`.

    `solver="frank_wolfe"` stops early and drops small weights as R's synthdid does by default; the exact solution
    differs from it by up to 1.5%. `errors`: leave-one-cluster-out jackknife with the weights fixed (algorithm 3),
    `placebo` among the controls (algorithm 4; every one in turn for a single treated cluster, else `draws` of them
    from `seed`), `bootstrap` of clusters (algorithm 2), `none`, or `auto`: the jackknife, but placebo where that
    cannot be made (one treated cluster, or all the weight on one control).
    `over`: `unit` weighs units; `area` the means of areas (clusters), treated and comparison (`_area_means`).
    `facts`: `blocks`, a list by start with unit weights `omega`, period weights `lambda`, `noise` and the ridges
    `zeta_omega` and `zeta_lambda`; effects of the draws; `placebo_share` of them at least as large as the estimate.

    Raises `Inapplicable` for no treated or control unit, fewer than two periods before every start, an unbalanced
    panel, a constant outcome, and errors that the number of units does not allow.
    """
    no_levels(sample)
    sample = area_means(sample) if over == "area" else sample
    p = arrays(sample)
    data = _data(p, sample.covariates)
    fit = _fit(data, method, solver)
    value = _combine(data, [(b.start, b.mass, b.gaps) for b in fit])
    groups = len(np.unique(data.home1))
    error = np.full(len(value), np.nan)
    if errors in ("auto", "jackknife"):
        try:
            error, errors = _jackknife(data, fit), "jackknife"
        except Inapplicable:
            if errors == "jackknife":
                raise
            errors = "placebo"
    said = "no errors" if errors == "none" else f"{errors} errors, t(G-1) (R: normal)"
    facts: dict[str, object] = {"convention": said, "method": method, "solver": solver, "blocks": _said(data, fit)}
    if errors in ("placebo", "bootstrap"):
        make = _placebo if errors == "placebo" else _bootstrap
        effects = make(data, fit, method, solver, draws, np.random.default_rng(seed))
        error = effects.std(axis=0)
        facts[errors] = effects[:, 0]
        if errors == "placebo":
            facts["placebo_share"] = float((np.abs(effects[:, 0]) >= abs(value[0])).mean())
    names: list[tuple[str, int | None]] = [("att", None), *(("event_time", int(e)) for e in data.since)]
    n = len(data.y1)
    terms = [
        Term(name, float(v), float(s), p.n_clusters - 1, q, n_treated=n, n_treated_clusters=groups)
        for (name, q), v, s in zip(names, value, error, strict=True)
    ]
    return finish(sample, p, terms, facts, data.caution)


@dataclass(frozen=True, slots=True)
class _Data:
    """Unit means: controls `y0` (N0, T), treated `y1` (N1, T) with weights `w1` and starts `first` (N1,).

    `home0`, `home1`: their clusters. `since` (K,): the years since start that the treated cover.
    """

    y0: Floats
    y1: Floats
    w1: Floats
    first: Floats
    home0: Ints
    home1: Ints
    names0: NDArray[np.object_]
    times: Floats
    since: Floats
    caution: str


@dataclass(frozen=True, slots=True)
class _Block:
    """One start: `t0` periods before it; unit and period weights; `gaps` (T - t0,) its effects, `mass` its weight."""

    start: float
    t0: int
    noise: float
    zeta_omega: float
    zeta_lambda: float
    omega: Floats
    lam: Floats
    gaps: Floats
    mass: float


def _data(p: Panel, names: tuple[str, ...]) -> _Data:
    u, t = len(p.units), len(p.times)
    y = p.y
    if names:
        free = ~p.now
        fe = two_way(p.unit[free], p.time[free], p.w[free], u, t)
        columns = np.column_stack([p.y, p.x])
        a, b = fe.effects(columns[free])
        left = columns[free] - a[p.unit[free]] - b[p.time[free]]
        x, w = left[:, 1:], p.w[free]
        y = y - p.x @ (gram_inverse(x, w, p.x[free], names) @ (x.T @ (w * left[:, 0])))
    mass = np.bincount(p.unit * t + p.time, p.w, u * t).reshape(u, t)
    empty = int((mass == 0).sum())
    control = p.first > p.times[-1]
    if control.all() or not control.any():
        raise Inapplicable(f"{int((~control).sum())} treated and {int(control.sum())} comparison units; needs both.")
    before = np.searchsorted(p.times, p.first)
    if before[~control].max() < 2:
        few = "no period" if before[~control].max() == 0 else "only one period"
        raise Inapplicable(f"{few} before treatment; synthetic difference-in-differences needs two.")
    if (before >= t).all():
        raise Inapplicable("no period after treatment.")
    if empty:
        raise Inapplicable(f"the panel is unbalanced: {empty} of {u * t} unit-periods have no row.")
    cell = np.bincount(p.unit * t + p.time, p.w * y, u * t).reshape(u, t) / mass
    treated = ~control & (before >= 2)
    lost = int((~control & ~treated).sum())
    at = p.times - p.first[treated][:, None]
    return _Data(
        cell[control], cell[treated], mass[treated].mean(axis=1), p.first[treated], p.home[control], p.home[treated],
        p.units[control], p.times, np.unique(at[at >= 0]),
        f"{lost} treated units with fewer than two periods before their start left." if lost else "",
    )  # fmt: skip


def _fit(data: _Data, method: Method, solver: Solver) -> list[_Block]:
    blocks = []
    for start in np.unique(data.first):
        mine = data.first == start
        t0 = int(np.searchsorted(data.times, start))
        noise = float(np.diff(data.y0[:, :t0], axis=1).std(ddof=1)) if data.y0[:, :t0].size > 2 else 0.0
        after = len(data.times) - t0
        ridge = (int(mine.sum()) * after) ** 0.25 if method == "sdid" else 1e-6
        even = np.full(len(data.y0), 1 / len(data.y0)), np.full(t0, 1 / t0)
        empty = _Block(float(start), t0, noise, ridge * noise, 1e-6 * noise, *even, np.empty(0), 0.0)
        blocks.append(_block(data.y0, data.y1[mine], data.w1[mine], empty, method, solver))
    return blocks


def _block(y0: Floats, y1: Floats, w1: Floats, start: _Block, method: Method, solver: Solver) -> _Block:
    """Fit one start with the ridges, and for Frank-Wolfe the first weights, of `start`."""
    t0, mass = start.t0, float(w1.sum())
    path = w1 @ y1 / mass
    omega, lam = start.omega, start.lam
    if method == "did":
        omega, lam = np.full(len(y0), 1 / len(y0)), np.full(t0, 1 / t0)
    else:
        before, after = y0[:, :t0], y0[:, t0:].mean(axis=1)
        a, b = before.T, path[:t0]
        if method == "sc":
            lam = np.zeros(t0)
        else:
            lam = _solve(
                before - before.mean(axis=0), after - after.mean(), start.zeta_lambda, lam, start.noise, solver
            )
            a, b = a - a.mean(axis=0), b - b.mean()
        omega = _solve(a, b, start.zeta_omega, omega, start.noise, solver)
    gap = path - omega @ y0
    return replace(start, omega=omega, lam=lam, gaps=gap[t0:] - lam @ gap[:t0], mass=mass)


def _solve(a: Floats, b: Floats, zeta: float, first: Floats, noise: float, solver: Solver) -> Floats:
    eta = len(b) * zeta**2
    if solver == "exact":
        return exact(a, b, eta)
    rough = frank_wolfe(a, b, eta, first, 1e-5 * noise, 100)
    return frank_wolfe(a, b, eta, sparse(rough), 1e-5 * noise, 10_000)


def _combine(data: _Data, parts: Sequence[tuple[float, float | Floats, Floats]]) -> Floats:
    """ATT and effects by year since start (..., 1 + K): over blocks (start, mass (...), gaps (..., T1)), by mass."""
    shape = (*np.shape(parts[0][1]), 1 + len(data.since))
    top, bottom = np.zeros(shape), np.zeros(shape)
    for start, mass, gaps in parts:
        k = 1 + np.searchsorted(data.since, data.times[data.times >= start] - start)
        weight = np.asarray(mass)[..., None]
        top[..., k] += weight * gaps
        bottom[..., k] += weight
        top[..., 0] += (weight * gaps).sum(axis=-1)
        bottom[..., 0] += gaps.shape[-1] * weight[..., 0]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(top / bottom)


def _jackknife(data: _Data, fit: list[_Block]) -> Floats:
    """Errors from leaving out each cluster in turn, weights fixed but for their sum (algorithm 3)."""
    if len(np.unique(data.home1)) < 2:
        raise Inapplicable("one treated cluster: nothing is left when it is left out; use errors='placebo'.")
    home = np.concatenate([data.home0, data.home1])
    clusters, code = np.unique(home, return_inverse=True)
    code0, code1, g = code[: len(data.home0)], code[len(data.home0) :], len(clusters)
    parts = []
    for b in fit:
        mine = data.first == b.start
        w1, w0 = data.w1[mine], b.omega
        mass = w1.sum() - np.bincount(code1[mine], w1, g)
        rest = w0.sum() - np.bincount(code0, w0, g)
        if rest.min() < 1e-9:
            raise Inapplicable(
                "one cluster of controls has all the weight: the jackknife cannot leave it out; use errors='placebo'."
            )
        gone = mass < 1e-12 * w1.sum()
        treated = w1 @ data.y1[mine] - sums(code1[mine], w1[:, None] * data.y1[mine], g)
        control = w0 @ data.y0 - sums(code0, w0[:, None] * data.y0, g)
        path = treated / np.where(gone, 1, mass)[:, None] - control / rest[:, None]
        gaps = path[:, b.t0 :] - (path[:, : b.t0] @ b.lam)[:, None]
        parts.append((b.start, np.where(gone, 0, mass), np.where(gone[:, None], 0, gaps)))
    values = _combine(data, parts)
    # a year since start that only one cluster covers has no error: leaving that cluster out leaves nothing
    return np.asarray(np.sqrt((g - 1) / g * ((values - values.mean(axis=0)) ** 2).sum(axis=0)))


def _placebo(
    data: _Data, fit: list[_Block], method: Method, solver: Solver, draws: int, rng: np.random.Generator
) -> Floats:
    """Estimates with as many control clusters in the place of the treated, (draws, 1 + K) (algorithm 4).

    The ridges stay those of the estimate. A single treated cluster is replaced by every control cluster in turn.
    """
    clusters, code = np.unique(data.home0, return_inverse=True)
    need = [len(np.unique(data.home1[data.first == b.start])) for b in fit]
    if len(clusters) <= sum(need):
        raise Inapplicable(f"{len(clusters)} control clusters for {sum(need)} treated: placebo errors need more.")
    if need == [1]:
        orders = np.arange(len(clusters))[:, None]
    else:
        orders = np.array([rng.permutation(len(clusters))[: sum(need)] for _ in range(draws)])
    out = []
    for order in orders:
        rest = ~np.isin(code, order)
        parts, used = [], 0
        for b, n in zip(fit, need, strict=True):
            placebo = np.isin(code, order[used : used + n])
            used += n
            found = _refit(
                b, data.y0[rest], data.y0[placebo], np.ones(int(placebo.sum())), b.omega[rest], method, solver
            )
            parts.append((b.start, found.mass, found.gaps))
        out.append(_combine(data, parts))
    return np.array(out)


def _bootstrap(
    data: _Data, fit: list[_Block], method: Method, solver: Solver, draws: int, rng: np.random.Generator
) -> Floats:
    """Estimates from clusters drawn with replacement, (draws, 1 + K) (algorithm 2), until both sides are there."""
    home = np.concatenate([data.home0, data.home1])
    clusters, code = np.unique(home, return_inverse=True)
    if len(np.unique(data.home1)) < 2:
        raise Inapplicable("one treated cluster cannot be resampled; use errors='placebo'.")
    n0 = len(data.home0)
    out: list[Floats] = []
    while len(out) < draws:
        times = np.bincount(rng.integers(0, len(clusters), len(clusters)), minlength=len(clusters))[code]
        at0, at1 = np.repeat(np.arange(n0), times[:n0]), np.repeat(np.arange(len(data.home1)), times[n0:])
        if not len(at0) or not len(at1):
            continue
        parts = []
        for b in fit:
            mine = at1[data.first[at1] == b.start]
            if len(mine):
                found = _refit(b, data.y0[at0], data.y1[mine], data.w1[mine], b.omega[at0], method, solver)
                parts.append((b.start, found.mass, found.gaps))
        out.append(_combine(data, parts))
    return np.array(out)


def _refit(b: _Block, y0: Floats, y1: Floats, w1: Floats, omega: Floats, method: Method, solver: Solver) -> _Block:
    total = omega.sum()
    first = omega / total if total > 0 else np.full(len(omega), 1 / len(omega))
    return _block(y0, y1, w1, replace(b, omega=first), method, solver)


def _said(data: _Data, fit: list[_Block]) -> list[dict[str, object]]:
    """What `facts` says of each start."""
    return [
        {
            "start": b.start,
            "noise": b.noise,
            "zeta_omega": b.zeta_omega,
            "zeta_lambda": b.zeta_lambda,
            "omega": dict(zip(data.names0.tolist(), b.omega.tolist(), strict=True)),
            "lambda": dict(zip(data.times[: b.t0].tolist(), b.lam.tolist(), strict=True)),
        }
        for b in fit
    ]
