"""Nearest-neighbour matching on the propensity score, k to 1, without replacement.

Rosenbaum and Rubin (1985); the algorithm and its defaults are those of MatchIt 4.7 (Ho, Imai, King and
Stuart 2011), against which the tests hold it pair by pair: treated units choose from the highest score
downwards, in rounds, so that each has had its first choice before any has its second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from biglocal.model import Inapplicable, Match

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import NDArray


def match(
    frame: pd.DataFrame,
    *,
    treated: str,
    covariates: Sequence[str],
    ratio: int = 1,
    caliper: float | None = None,
    exact: Sequence[str] = (),
    distance: Literal["logit", "probability"] = "logit",
) -> Match:
    """Match each treated row of `frame` (one row a unit, index its identity) to `ratio` untreated ones.

    `distance` is the scale on which nearness and the caliper are measured; `caliper` is in standard
    deviations of that scale over the whole frame (Austin 2011 advises 0.2 of the logit). Units match only
    within equal values of the `exact` columns. Ties go to the unit that comes first in the index's order.
    A treated unit may get fewer than `ratio`; one that gets none has weight 0. A comparison unit's weight
    is 1 over the size of its set, so that each set's comparison units weigh as much as its treated one.

    Raises `Inapplicable` where a covariate is missing, infinite or constant, the index has duplicates,
    there are no treated or no untreated rows, or the covariates separate the two groups.
    """
    if not frame.index.is_unique:
        raise Inapplicable(f"matching: the index has duplicates, first {frame.index[frame.index.duplicated()][0]!r}.")
    order = np.argsort(frame.index.to_numpy(), kind="stable")
    ordered = frame.iloc[order]
    t = ordered[treated].to_numpy(dtype=bool)
    x = design(ordered, covariates)
    score = propensity(x, t)
    scale = score if distance == "logit" else 1 / (1 + np.exp(-score))
    width = np.inf if caliper is None else caliper * float(np.std(scale, ddof=1))
    block = np.zeros(len(t), dtype=int)
    if exact:
        block = ordered.groupby(list(exact), observed=True, sort=True, dropna=False).ngroup().to_numpy()
    sets = np.full(len(t), -1)
    for b in np.unique(block[t]):
        rows = np.flatnonzero(block == b)
        _greedy(rows[t[rows]], rows[~t[rows]], scale, ratio, width, sets)
    size = np.bincount(sets[(sets >= 0) & ~t], minlength=len(t))
    weights = np.zeros(len(t))
    weights[t] = size[t] > 0
    free = (sets >= 0) & ~t
    weights[free] = 1 / size[sets[free]]
    sets[t & (size > 0)] = np.flatnonzero(t & (size > 0))
    # back to the order of the frame given
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return Match(weights[back], np.where(sets[back] >= 0, order[sets[back]], -1), score[back])


def design(frame: pd.DataFrame, covariates: Sequence[str]) -> NDArray[np.float64]:
    """The covariates as an (n, k) array; text and categories become indicators without their first level.

    Raises `Inapplicable` naming the covariate (and the first row) that is missing, infinite or constant.
    """
    import pandas as pd

    columns: list[NDArray[np.float64]] = []
    for name in covariates:
        series = frame[name]
        if series.isna().any():
            first = frame.index[series.isna()][0]
            raise Inapplicable(
                f"matching: covariate {name} is missing in {int(series.isna().sum()):,} rows, first {first}. "
                f"Drop these rows or leave the covariate out."
            )
        if pd.api.types.is_numeric_dtype(series) or pd.api.types.is_bool_dtype(series):
            parts = [series.to_numpy(dtype=float)]
        else:
            values = series.astype(str).to_numpy()
            parts = [(values == level).astype(float) for level in np.unique(values)[1:]]
        for part in parts:
            if not np.isfinite(part).all():
                first = frame.index[~np.isfinite(part)][0]
                raise Inapplicable(f"matching: covariate {name} is infinite in row {first}. Correct or drop it.")
            if np.ptp(part) == 0:
                raise Inapplicable(f"matching: covariate {name} has no variance (always {part[0]:g}). Leave it out.")
            columns.append(part)
        if not parts:
            raise Inapplicable(f"matching: covariate {name} has no variance. Leave it out.")
    return np.column_stack(columns)


def propensity(x: NDArray[np.float64], treated: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Logit of the propensity score, (n,), by maximum likelihood (iteratively reweighted least squares).

    Not statsmodels' Logit: its import alone takes longer than matching all of England. The tests hold the
    two together. Raises `Inapplicable` when a group is empty, the covariates are collinear, or they
    separate the groups, so that no finite maximum exists.
    """
    n1 = int(treated.sum())
    if n1 == 0 or n1 == len(treated):
        raise Inapplicable(f"matching: {n1} treated and {len(treated) - n1} untreated units; both are needed.")
    centre, spread = x.mean(axis=0), x.std(axis=0)
    z = np.column_stack([np.ones(len(x)), (x - centre) / spread])

    def likelihood(eta: NDArray[np.float64]) -> float:
        return float(eta[treated].sum() - np.logaddexp(0, eta).sum())

    if np.linalg.cond(z.T @ z / len(z)) > 1e12:
        raise Inapplicable("matching: the covariates are collinear. Leave one of them out.")
    beta = np.zeros(z.shape[1])
    beta[0] = np.log(n1 / (len(treated) - n1))
    eta = z @ beta
    fit = likelihood(eta)
    for _ in range(100):
        p = np.exp(-np.logaddexp(0, -eta))
        step = np.linalg.solve((z * (p * (1 - p))[:, None]).T @ z, z.T @ (treated - p))
        while (better := likelihood(z @ (beta + step))) < fit - 1e-9 * abs(fit):
            step = step / 2  # Newton's step overshot
        beta, fit = beta + step, better
        eta = z @ beta
        if np.abs(beta).max() > 100:
            break
        if np.abs(step).max() < 1e-10:
            return np.asarray(eta)
    raise Inapplicable(
        "matching: the propensity model has no finite maximum, so a combination of covariates separates "
        "treated from untreated units. Leave the separating covariate out or widen the pool."
    )


def _greedy(
    treated: NDArray[np.int64],
    control: NDArray[np.int64],
    score: NDArray[np.float64],
    ratio: int,
    width: float,
    sets: NDArray[np.int64],
) -> None:
    """Greedy matching inside one block, writing each control's treated row into `sets`.

    Controls lie sorted by (score, index); `left` and `right` point to the nearest one still free, with
    path halving, so a choice costs next to nothing whatever the number of controls.
    """
    control = control[np.lexsort((control, score[control]))]
    value = score[control]
    n = len(control)
    first_equal = np.searchsorted(value, value, side="left").tolist()
    left = list(range(-1, n))  # left[i + 1]: nearest free position <= i, or -1
    right = list(range(n + 1))  # right[i]: nearest free position >= i, or n

    def find(parent: list[int], i: int, shift: int) -> int:
        while parent[i] != i - shift:
            parent[i] = parent[parent[i] + shift]
            i = parent[i] + shift
        return i - shift

    values = value.tolist()
    queue = treated[np.lexsort((treated, -score[treated]))].tolist()
    start = {t: int(np.searchsorted(value, score[t])) for t in queue}
    for _ in range(ratio):
        again = []
        for t in queue:
            s, at = float(score[t]), start[t]
            i, j = find(left, at, 1), find(right, at, 0)
            below = s - values[i] if i >= 0 else np.inf
            above = values[j] - s if j < n else np.inf
            if min(below, above) > width or not np.isfinite(min(below, above)):
                continue
            # the first in the index's order among the nearest: equal scores below start at first_equal
            if below < np.inf:
                i = find(right, first_equal[i], 0)
            pick = i if below < above or (below == above and control[i] < control[j]) else j
            sets[control[pick]] = t
            left[pick + 1] = pick - 1
            right[pick] = pick + 1
            again.append(t)
        queue = again
