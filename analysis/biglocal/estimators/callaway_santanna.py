"""Group-time average treatment effects of Callaway and Sant'Anna (2021, J Econometrics 225:200), and their averages.

ATT(g, t) is a two-period, two-group difference-in-differences of the cohort first treated in g against units
never (or not yet) treated (`_doubly_robust`). Everything reported is an average of these with weights that are
cohort shares, so its influence function is linear in those of the cells and of the shares: with these stacked in
one matrix B (clusters x basis) and the averages' loadings in L (basis x terms), all standard errors are the roots
of diag(L'B'B L), and all bootstrap draws are one product V B L of multipliers V (draws x clusters).

The conventions are those of R's did 2.3: leads are short differences under a varying base; covariates and weights
are taken at the earlier of a cell's two periods; a cell without overlap (a propensity of 0.999 or more) is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np

from biglocal.estimators import _doubly_robust as dr
from biglocal.estimators._design import check_design, treated_clusters
from biglocal.estimators._levels import by_level
from biglocal.model import Fit, Inapplicable, Sample, Term

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Index = NDArray[np.int64]

CONVENTION = "influence functions: sums of squared cluster totals, without G/(G-1), as R's did 2.3; t(G-1)"
NO_OVERLAP = 0.999


@dataclass(frozen=True, slots=True)
class Data:
    """The sample as arrays: what the cells are computed from.

    By unit (n,): `group` (first treated; inf for never), `cluster` and `share` (weight in cohort shares).
    Panels hold `y`, `w` (n, T) and `x` (n, T, k); cross-sections hold them by row, (r, 1) and (r, 1, k), with the
    row's `unit` and position in `periods`.
    """

    periods: Index
    names: tuple[str, ...]
    units: NDArray[np.generic]
    group: Array
    cluster: NDArray[np.generic]
    share: Array
    y: Array
    w: Array
    x: Array
    unit: Index
    time: Index
    n_obs: int
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Cells:
    """ATT(g, t): `group` and `time` (c,), estimates (c,), and whether the cell is a base (c,).

    `cohorts` (g,) are those of the cells, `shares` (g,) their share of all units. `influence` (G, c + g), by cluster,
    holds that of the cells, then that of the shares.
    """

    group: Array
    time: Index
    att: Array
    cohorts: Array
    shares: Array
    influence: Array
    base: NDArray[np.bool_]
    trimmed: int
    refused: dict[str, str]


@dataclass(frozen=True, slots=True)
class Average:
    """One reported number: its name, what it is about, estimate, and loadings on cells and cohort shares (c + g,)."""

    name: str
    estimate: float
    loading: Array
    period: int | None = None
    level: str = ""


def estimate(
    sample: Sample,
    *,
    method: Literal["dr", "reg", "ipw"] = "dr",
    control: Literal["never", "notyet"] = "never",
    base: Literal["varying", "universal"] = "varying",
    anticipation: int = 0,
    panel: bool = True,
    trim: float = 0.995,
    exact: bool = False,
    balance: int | None = None,
    draws: int = 0,
    rng: np.random.Generator | None = None,
    conf_level: float = 0.95,
) -> Fit:
    """Terms `att` (all treated cell-years alike), `att_group`, `att_dynamic`, `att_calendar`, and what they average:
    `group` (period = cohort), `event_time` (years since start), `calendar` (year), `att_gt` (level = cohort, period =
    year); and `leads`, the joint test of all cells before treatment.

    `panel`: units are followed, and those not seen in every period leave, counted in `caution`. With False, rows are
    repeated cross-sections; rows of one unit are added up, so that an unbalanced panel may be given so too; `exact`
    is that of `_doubly_robust.cross_sections`. `base`: leads against the period before, or all against the last
    untreated one. `anticipation`: periods before the start in which effects are allowed. `trim`: comparison units
    with a propensity this high leave a cell (`facts["trimmed"]` counts them over cells). `balance`: average over
    event time only cohorts seen for that many periods after their start, up to then.

    With `draws` and a Generator, `facts` has multiplier-bootstrap standard errors by term, and the critical
    values of simultaneous bands by name. `facts["vcov"]` is the covariance of the terms, in their order but for
    `leads`; their influence, which sums to estimate - truth, is `facts["basis"] @ facts["loadings"]` (G, terms), that
    of `att` alone `facts["influence"]` (G, 1), by cluster as named in `facts["clusters"]`.

    Where the sample has levels: only `att` of each level, by itself, and their `difference`, without bands.

    Raises `Inapplicable` for a design without treated, comparison or untreated observations, fewer than two treated
    clusters, a constant outcome, weights all zero, collinear covariates (named), and where no cell can be estimated.
    """
    if draws and rng is None:
        raise Inapplicable("bootstrap draws need a random generator: give rng=np.random.default_rng(seed).")
    if sample.levels:
        return by_level(sample, partial(
            estimate, method=method, control=control, base=base, anticipation=anticipation, panel=panel, trim=trim,
            exact=exact,
        ))  # fmt: skip
    frame = sample.frame
    if control == "never" or frame["first_treated"].nunique() < 2:  # else later cohorts may stand in for a comparison
        check_design(frame)
    _check_values(frame)
    data = _panel(frame, sample.covariates) if panel else _rows(frame, sample.covariates)
    data, comparison = _comparison(data, control, anticipation)
    names, home = np.unique(data.cluster, return_inverse=True)
    n_clusters = len(names)
    cells = _cells(data, comparison, home, n_clusters, method, control, base, anticipation, panel, trim, exact)
    averages = _averages(cells, balance)
    loadings = np.column_stack([a.loading for a in averages])
    basis = cells.influence
    vcov = basis.T @ basis
    errors = np.sqrt(np.maximum(np.einsum("ij,ij->j", loadings, vcov @ loadings), 0))
    scale = np.abs(loadings).T @ np.sqrt(np.diag(vcov))
    errors[errors <= 1e-12 * np.maximum(scale, 1e-300)] = np.nan  # a base period has no error, not one of nought
    facts: dict[str, object] = {
        "convention": CONVENTION,
        "vcov": loadings.T @ vcov @ loadings,
        "basis": basis,
        "loadings": loadings,
        "influence": basis @ loadings[:, [a.name == "att" for a in averages]],
        "clusters": names,
        "trimmed": cells.trimmed,
        "refused": cells.refused,
    }
    if draws and rng is not None:
        facts |= _bootstrap(basis, loadings, averages, draws, rng, conf_level)
    size = {float(g): int((data.group == g).sum()) for g in cells.cohorts}
    member = {float(g): np.unique(home[data.group == g]) for g in cells.cohorts}
    terms = [_term(a, float(s), n_clusters, cells, size, member) for a, s in zip(averages, errors, strict=True)]
    leads = _leads(cells, vcov, n_clusters)
    return Fit(
        (*terms, *leads),
        n_obs=data.n_obs,
        n_units=len(data.units),
        n_treated=sum(size.values()),
        n_clusters=n_clusters,
        caution=" ".join(filter(None, [sample.caution, *data.notes, *_cautions(data, cells)])),
        facts=facts,
    )


def _check_values(frame: pd.DataFrame) -> None:
    y, weight = frame["y"].to_numpy(dtype=float), frame["weight"].to_numpy(dtype=float)
    if not np.isfinite(y).all():
        raise Inapplicable(f"the outcome is missing or infinite in {int((~np.isfinite(y)).sum()):,} rows.")
    if treated_clusters(frame) < 2:
        raise Inapplicable(f"{treated_clusters(frame)} treated cluster: its error cannot be told from its effect.")
    if not (weight > 0).any():
        raise Inapplicable("all weights are zero.")
    if np.ptp(y) == 0:
        raise Inapplicable(f"the outcome is constant (always {y[0]:g}).")


def _columns(frame: pd.DataFrame, names: Sequence[str]) -> Array:
    try:
        return np.column_stack([np.empty((len(frame), 0)), *(frame[c].to_numpy(dtype=float) for c in names)])
    except (TypeError, ValueError):
        raise Inapplicable(f"covariates must be numbers or 0/1: {', '.join(names)}.") from None


def _codes(values: pd.Series) -> tuple[Index, NDArray[np.generic]]:
    """Codes in the order of the sorted values, and these."""
    import pandas as pd

    codes, found = pd.factorize(values, sort=True)
    return np.asarray(codes, dtype=np.int64), np.asarray(found)


def _by_unit(code: Index, n: int, values: Array) -> Array:
    """The one start each unit has; raises `Inapplicable` where it has several."""
    first = np.empty(n, dtype=values.dtype)
    first[code] = values
    same = first[code] == values
    if not same.all():
        changing = np.bincount(code[~same], minlength=n) > 0
        raise Inapplicable(f"{_units(changing)} with more than one start of treatment.")
    return first


def _units(which: NDArray[np.bool_]) -> str:
    n = int(which.sum())
    return f"{n:,} unit" if n == 1 else f"{n:,} units"


def _clusters(cluster: pd.Series, unit: Index, n: int) -> NDArray[np.generic]:
    row = np.empty(n, dtype=np.int64)
    row[unit] = np.arange(len(unit))
    mine = cluster.iloc[row]
    same = np.asarray(cluster.array == mine.array.take(unit), dtype=bool)
    if not same.all():
        raise Inapplicable(f"{_units(np.bincount(unit[~same], minlength=n) > 0)} with more than one cluster.")
    return np.asarray(mine)


def _starts(frame: pd.DataFrame) -> Array:
    first = frame["first_treated"].to_numpy(dtype=float)
    return np.where(np.isfinite(first), first, np.inf)


def _panel(frame: pd.DataFrame, covariates: tuple[str, ...]) -> Data:
    unit, units = _codes(frame["unit"])
    time, periods = _codes(frame["time"])
    n, t, k = len(units), len(periods), len(covariates)
    group = _by_unit(unit, n, _starts(frame))
    cluster = _clusters(frame["cluster"], unit, n)
    y, w, x = frame["y"].to_numpy(dtype=float), frame["weight"].to_numpy(dtype=float), _columns(frame, covariates)
    cell = unit * t + time
    count = np.bincount(cell, minlength=n * t)
    wide_w: Array = np.asarray(np.bincount(cell, w, minlength=n * t), dtype=float)
    if (count > 1).any():  # several rows of a unit and period count as their mean
        part = w / np.where(wide_w[cell] > 0, wide_w[cell], 1)
        wide_y: Array = np.asarray(np.bincount(cell, part * y, minlength=n * t), dtype=float)
        wide_x = np.column_stack(
            [np.empty((n * t, 0)), *(np.bincount(cell, part * x[:, j], minlength=n * t) for j in range(k))]
        )
    else:
        wide_y, wide_x = np.zeros(n * t), np.zeros((n * t, k))
        wide_y[cell] = y
        wide_x[cell] = x
    whole = np.asarray((wide_w.reshape(n, t) > 0).all(axis=1))  # weights are not negative: no row, no weight
    notes = () if whole.all() else (f"{_units(~whole)} not seen, or without weight, in every period left the panel.",)
    if not whole.any():
        raise Inapplicable(f"none of {n:,} units is seen in all {t} periods: use panel=False.")
    return Data(
        periods=periods.astype(np.int64),
        names=covariates,
        units=units[whole],
        group=group[whole],
        cluster=cluster[whole],
        share=wide_w.reshape(n, t)[whole, 0],
        y=wide_y.reshape(n, t)[whole],
        w=wide_w.reshape(n, t)[whole],
        x=wide_x.reshape(n, t, k)[whole],
        unit=np.empty(0, dtype=np.int64),
        time=np.empty(0, dtype=np.int64),
        n_obs=int(count.reshape(n, t)[whole].sum()),
        notes=notes,
    )


def _rows(frame: pd.DataFrame, covariates: tuple[str, ...]) -> Data:
    unit, units = _codes(frame["unit"])
    time, periods = _codes(frame["time"])
    n = len(units)
    w = frame["weight"].to_numpy(dtype=float)
    return Data(
        periods=periods.astype(np.int64),
        names=covariates,
        units=units,
        group=_by_unit(unit, n, _starts(frame)),
        cluster=_clusters(frame["cluster"], unit, n),
        share=np.bincount(unit, w) / np.bincount(unit),
        y=frame["y"].to_numpy(dtype=float)[:, None],
        w=w[:, None],
        x=_columns(frame, covariates)[:, None, :],
        unit=unit,
        time=time,
        n_obs=len(frame),
        notes=(),
    )


def _comparison(data: Data, control: str, anticipation: int) -> tuple[Data, NDArray[np.bool_]]:
    """The data without what identifies nothing, and which units are comparison throughout (n,).

    Units treated by the first period (and its anticipation) have no period before; cohorts that start after the
    last period count as never treated. With no such unit, the last cohort is compared with until its own start.
    """
    first, last = int(data.periods[0]), int(data.periods[-1])
    notes = list(data.notes)
    always = data.group <= first + anticipation
    if always.any():
        notes.append(f"{_units(always)} without a period before treatment left.")
        data = _keep_units(data, ~always)
    later = np.isfinite(data.group) & (data.group > last)
    ambiguous = later & (data.group <= last + anticipation)
    if ambiguous.any():
        notes.append(f"{_units(ambiguous)} that may anticipate a start after the last period left.")
        data, later = _keep_units(data, ~ambiguous), later[~ambiguous]
    group = np.where(later, np.inf, data.group)
    never = np.isinf(group)
    if not never.any():
        if control == "never":
            raise Inapplicable('no unit is never treated: use control="notyet", or name a comparison.')
        end = group.max()
        never = group == end
        group = np.where(never, np.inf, group)
        kept = data.periods < end - anticipation
        notes.append(f"No unit is never treated: the cohort of {end:g} is the comparison, until then.")
        data = _keep_periods(data, kept)
    if len(data.periods) < 2 or never.all():
        raise Inapplicable("no cohort has a period before and a period after its start, with a comparison.")
    return replace(data, group=group, notes=tuple(notes)), never


def _keep_units(data: Data, kept: NDArray[np.bool_]) -> Data:
    if not kept.any():
        raise Inapplicable("no unit is observed before its treatment.")
    data = replace(
        data, units=data.units[kept], group=data.group[kept], share=data.share[kept], cluster=data.cluster[kept]
    )
    if not len(data.unit):
        return replace(data, y=data.y[kept], w=data.w[kept], x=data.x[kept])
    rows, code = kept[data.unit], np.cumsum(kept) - 1
    return replace(
        data, y=data.y[rows], w=data.w[rows], x=data.x[rows], unit=code[data.unit[rows]], time=data.time[rows]
    )


def _keep_periods(data: Data, kept: NDArray[np.bool_]) -> Data:
    periods = data.periods[kept]
    if not len(data.unit):
        return replace(data, periods=periods, y=data.y[:, kept], w=data.w[:, kept], x=data.x[:, kept])
    rows = kept[data.time]
    return replace(
        data, periods=periods, y=data.y[rows], w=data.w[rows], x=data.x[rows], unit=data.unit[rows],
        time=data.time[rows],
    )  # fmt: skip


def _cells(
    data: Data,
    never: NDArray[np.bool_],
    home: Index,
    n_clusters: int,
    method: dr.Method,
    control: str,
    base: str,
    anticipation: int,
    panel: bool,
    trim: float,
    exact: bool,
) -> Cells:
    """All ATT(g, t). Cells of one cohort with the same comparison units and covariates share one solution."""
    periods = data.periods
    cohorts = np.unique(data.group[~never])
    plan: list[tuple[float, int, int]] = []  # cohort, period, base period; positions
    for g in cohorts:
        before = np.flatnonzero(periods + anticipation < g)
        if not len(before):
            continue
        plan += [
            (float(g), t, int(before[-1]) if base == "universal" or periods[t] >= g else t - 1)
            for t in range(0 if base == "universal" else 1, len(periods))
        ]
    n = len(data.units)
    # one allocation, with room for the shares; cross-sections are added up by cluster at once
    influence = np.zeros((n if panel else n_clusters, len(plan) + len(cohorts)))
    att = np.full(len(plan), np.nan)
    is_base = np.array([t == b for _, t, b in plan])
    att[is_base] = 0
    steady = panel and _steady(data)
    jobs: dict[tuple[float, float, int], list[int]] = {}
    for i, (g, t, b) in enumerate(plan):
        if t != b:
            latest = np.inf if control == "never" else float(periods[max(t, b)] + anticipation)
            starts = data.group[(data.group > latest) & (data.group != g)]
            threshold = float(starts.min()) if len(starts) else np.inf  # the same units, whatever the period
            alone = -1 if steady else min(t, b) if panel else i
            jobs.setdefault((g, threshold, alone), []).append(i)
    trimmed = 0
    refused: dict[str, str] = {}
    checked: set[int] = set()
    for (g, threshold, _), members in jobs.items():
        compared = ((data.group >= threshold) | never) & (data.group != g)
        now, then = np.array([plan[i][1] for i in members]), np.array([plan[i][2] for i in members])
        try:
            if panel:
                at = 0 if steady else min(int(now[0]), int(then[0]))
                if at not in checked:  # said by name once, for all units of the period
                    _named(data.x[:, at], data.names)
                    checked.add(at)
                rows = np.flatnonzero((data.group == g) | compared)
                effect = _panel_cells(data, rows, g, now, then, at, method, trim)
                influence[np.ix_(rows, np.array(members))] = effect.influence
            else:
                effect, owner = _row_cell(data, g, compared, int(now[0]), int(then[0]), method, trim, exact)
                influence[:, members[0]] = np.bincount(home[owner], effect.influence[:, 0], minlength=n_clusters)
            att[members] = effect.att
            trimmed += effect.trimmed * len(members)
        except _CollinearError as e:
            raise Inapplicable(str(e)) from None
        except Inapplicable as e:
            for i in members:
                refused[f"{g:g} in {periods[plan[i][1]]}"] = str(e)
    done = np.isfinite(att)
    if not any(done[i] and periods[t] >= g for i, (g, t, _) in enumerate(plan)):
        reason = next(iter(refused.values()), "no cohort has a period before and a period after its start.")
        raise Inapplicable(f"no group-time effect can be estimated: {reason}")
    keep = np.flatnonzero(done)
    group = np.array([plan[i][0] for i in keep])
    cohorts = np.unique(group)
    columns = len(keep) + len(cohorts)
    if columns < influence.shape[1]:
        influence = influence[:, np.concatenate([keep, np.arange(len(cohorts))])]
    inside = (data.group[:, None] == cohorts) * data.share[:, None]
    shares = inside.mean(axis=0)
    around = (inside - shares) / n
    if n_clusters < n:
        around = _totals(around, home, n_clusters)
        influence = _totals(influence, home, n_clusters) if panel else influence
    influence[:, len(keep) :] = around
    return Cells(
        group=group,
        time=np.array([periods[plan[i][1]] for i in keep]),
        att=att[keep],
        cohorts=cohorts,
        shares=shares,
        influence=influence,
        base=is_base[keep],
        trimmed=trimmed,
        refused=refused,
    )


class _CollinearError(Exception):
    """Covariates that are collinear over all units: the whole is refused, not one cell."""


def _named(x: Array, names: tuple[str, ...]) -> None:
    try:
        dr.design(x, names)
    except Inapplicable as e:
        raise _CollinearError(str(e)) from None


def _steady(data: Data) -> bool:
    """Whether covariates and weights are the same in every period."""
    return bool((data.w == data.w[:, :1]).all() and (data.x == data.x[:, :1]).all())


def _panel_cells(
    data: Data, rows: Index, g: float, now: Index, then: Index, at: int, method: dr.Method, trim: float
) -> dr.Effect:
    d = (data.group[rows] == g).astype(float)
    x, w = dr.design(data.x[rows, at], data.names), data.w[rows, at]
    y = data.y[rows]
    if x.shape[1] == 1:
        method = "reg"  # without covariates every method is the difference of means
    if method != "reg" and dr.logit(x, d, np.ones(len(d))).max() >= NO_OVERLAP:
        raise Inapplicable(f"no overlap: a propensity of {NO_OVERLAP} or more.")
    return dr.panel(y[:, now] - y[:, then], d, x, w, method, trim)


def _row_cell(
    data: Data,
    g: float,
    compared: NDArray[np.bool_],
    now: int,
    then: int,
    method: dr.Method,
    trim: float,
    exact: bool,
) -> tuple[dr.Effect, Index]:
    used = ((data.group == g) | compared)[data.unit] & ((data.time == now) | (data.time == then))
    owner = data.unit[used]
    d = (data.group[owner] == g).astype(float)
    post = (data.time[used] == now).astype(float)
    for label, rows in (("treated", d == 1), ("comparison", d == 0)):
        if not (rows & (post == 1)).any() or not (rows & (post == 0)).any():
            raise Inapplicable(f"no {label} rows in one of the two periods.")
    x = dr.design(data.x[used, 0], data.names)
    return dr.cross_sections(data.y[used], post, d, x, data.w[used, 0], method, trim, exact=exact), owner


def _averages(cells: Cells, balance: int | None) -> list[Average]:
    """Everything reported."""
    cohorts, p = cells.cohorts, cells.shares
    c = len(cells.att)
    which = np.searchsorted(cohorts, cells.group)
    eye = np.eye(c + len(cohorts))

    def weighted(name: str, keep: NDArray[np.bool_], period: int | None = None) -> Average:
        """Mean of cells, weighted by cohort shares, which are estimates themselves."""
        total = p[which[keep]].sum()
        value = float(p[which[keep]] @ cells.att[keep] / total)
        loading = np.zeros(c + len(cohorts))
        loading[:c][keep] = p[which[keep]] / total
        np.add.at(loading, c + which[keep], (cells.att[keep] - value) / total)
        return Average(name, value, loading, period)

    def plain(name: str, parts: Sequence[Average], period: int | None = None) -> Average:
        value = float(np.mean([a.estimate for a in parts]))
        return Average(name, value, np.mean([a.loading for a in parts], axis=0), period)

    since = cells.time - cells.group
    after = since >= 0
    single = [
        Average("att_gt", float(cells.att[i]), eye[i], int(cells.time[i]), f"{cells.group[i]:g}") for i in range(c)
    ]
    out = [*single, weighted("att", after)]
    treated = [(j, (cells.group == g) & after) for j, g in enumerate(cohorts)]
    groups = {j: plain("group", [single[i] for i in np.flatnonzero(m)], int(cohorts[j])) for j, m in treated if m.any()}
    out += groups.values()
    total = p[list(groups)].sum()
    value = float(sum(p[j] * a.estimate for j, a in groups.items()) / total)
    loading = np.sum([p[j] / total * a.loading for j, a in groups.items()], axis=0)
    for j, a in groups.items():
        loading[c + j] += (a.estimate - value) / total
    out.append(Average("att_group", value, loading))
    years = [weighted("calendar", after & (cells.time == t), int(t)) for t in np.unique(cells.time[after])]
    out += [*years, plain("att_calendar", years)]
    seen = np.ones(c, dtype=bool)
    if balance is not None:
        span = cells.time.max() - cells.time.min()
        seen = (cells.time.max() - cells.group >= balance) & (since <= balance) & (since >= balance - span)
    times = [weighted("event_time", seen & (since == e), int(e)) for e in np.unique(since[seen])]
    out += times
    later = [a for a in times if (a.period or 0) >= 0]
    if later:
        out.append(plain("att_dynamic", later))
    return out


def _term(
    a: Average, error: float, n_clusters: int, cells: Cells, size: dict[float, int], member: dict[float, Index]
) -> Term:
    used = sorted({float(g) for g in cells.group[a.loading[: len(cells.group)] != 0]})
    clusters = member[used[0]] if len(used) == 1 else np.unique(np.concatenate([member[g] for g in used]))
    return Term(
        a.name,
        a.estimate,
        error,
        n_clusters - 1 if np.isfinite(error) else float("nan"),
        period=a.period,
        level=a.level,
        n_treated=sum(size[g] for g in used),
        n_treated_clusters=len(clusters),
        tested=bool(np.isfinite(error)),
    )


def _leads(cells: Cells, vcov: Array, n_clusters: int) -> list[Term]:
    """The joint test of the cells before treatment; none where their covariance is singular."""
    before = np.flatnonzero((cells.time < cells.group) & ~cells.base)
    v = vcov[np.ix_(before, before)]
    error = np.sqrt(np.diag(v))
    if not len(before) or not (error > 0).all() or np.linalg.cond(v / np.outer(error, error)) > 1e12:
        return []
    z = cells.att[before] / error
    f = float(z @ np.linalg.solve(v / np.outer(error, error), z)) / len(before)
    return [Term("leads", float("nan"), df=n_clusters - 1, statistic=f, df_num=len(before))]


def _totals(values: Array, code: Index, n: int) -> Array:
    """Sums of the rows of each cluster (n, columns)."""
    order = np.argsort(code, kind="stable")
    starts = np.searchsorted(code[order], np.arange(n))
    return np.asarray(np.add.reduceat(values[order], starts, axis=0))


def _bootstrap(
    scores: Array, loadings: Array, averages: Sequence[Average], draws: int, rng: np.random.Generator, conf_level: float
) -> dict[str, object]:
    """Multiplier bootstrap (Callaway and Sant'Anna 2021, algorithm 1), by cluster.

    Standard errors are interquartile ranges over the normal's; a critical value is the quantile of the largest
    |t*| among the terms of a name. Multipliers are Rademacher's, as in did: a bit a cluster and draw.
    """
    from scipy.special import ndtri

    n = len(scores)
    total = scores.sum(axis=0)
    sums = np.empty((draws, scores.shape[1]))
    for start in range(0, draws, 128):  # memory, not speed: 128 draws at a time
        size = min(128, draws - start)
        bits = rng.integers(0, 256, size=(size, -(-n // 8)), dtype=np.uint8)
        signs = np.unpackbits(bits, axis=1, count=n).astype(float)
        sums[start : start + size] = 2 * (signs @ scores) - total
    star = sums @ loadings
    ordered = np.sort(star, axis=0)
    quartiles = [ordered[int(np.ceil(q * draws)) - 1] for q in (0.25, 0.75)]
    errors = (quartiles[1] - quartiles[0]) / (2 * ndtri(0.75))
    scale = np.abs(loadings).T @ np.sqrt((scores * scores).sum(axis=0))
    errors = np.where(errors > 1e-12 * scale, errors, np.nan)
    names = np.array([a.name for a in averages])
    critical = {}
    for name in ("att_gt", "event_time", "group", "calendar"):
        family = (names == name) & np.isfinite(errors)
        if family.any():
            largest = np.sort(np.abs(star[:, family] / errors[family]).max(axis=1))
            critical[name] = float(largest[int(np.ceil(conf_level * draws)) - 1])
    return {"draws": draws, "bootstrap_std_errors": errors, "critical_values": critical}


def _cautions(data: Data, cells: Cells) -> list[str]:
    out = []
    if cells.refused:
        first, reason = next(iter(cells.refused.items()))
        out.append(f"{len(cells.refused)} group-time effects are missing (first: cohort {first}: {reason})")
    small = [f"{g:g}" for g in cells.cohorts if len(np.unique(data.cluster[data.group == g])) == 1]
    if small:
        out.append(f"Cohorts of one cluster, whose errors say too little: {', '.join(small)}.")
    if cells.trimmed:
        out.append("Comparison units with a propensity near one left some effects.")
    return out
