"""Nearest-neighbour matching with replacement and its standard errors (Abadie and Imbens 2006, 2011).

The bootstrap fails for this estimator (Abadie and Imbens 2008), and clustering on sets does not see that an
untreated unit serves several treated ones. The variance here does: a unit's outcome enters with the number of
times it is used.

Ties are kept and share their unit's weight, so chance decides nothing. Definitions and defaults are those of R's
Matching 4.10 (Sekhon 2011), against which the tests hold estimates and errors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from biglocal.matching._distance import design
from biglocal.model import DataError, Inapplicable

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import NDArray

Estimand = Literal["ATT", "ATC", "ATE"]
Metric = Literal["inverse_variance", "mahalanobis"]


@dataclass(frozen=True, slots=True)
class Effect:
    """A matching estimate, its errors, and the pairs behind it.

    `std_error`: for the population the units are drawn from. `std_error_sample`: for the effect on these very
    units, their covariates taken as given. `std_error_simple`: that of the mean of the pairs' differences, as if no
    unit were used twice; it is here to be compared, not to be used. `n_targets`: units whose effect is averaged.
    `target`, `partner`, `share` (n_pairs,): row positions of a target and of one unit matched to it, and the weight of
    that unit in the target's match, which sum to 1 over a target.
    """

    estimate: float
    std_error: float
    std_error_sample: float
    std_error_simple: float
    n_obs: int
    n_targets: int
    target: NDArray[np.int64]
    partner: NDArray[np.int64]
    share: NDArray[np.float64]


def abadie_imbens(
    frame: pd.DataFrame,
    *,
    outcome: str,
    treated: str,
    covariates: Sequence[str],
    m: int = 1,
    estimand: Estimand = "ATT",
    distance: Metric = "inverse_variance",
    bias_adjust: bool = False,
    variance_matches: int = 0,
    tolerance: float = 1e-5,
) -> Effect:
    """The effect of `treated` (0/1) on `outcome`, each unit compared with its `m` nearest of the other group.

    `frame` has one row a unit. `estimand`: over the treated (ATT), the untreated (ATC) or all (ATE). `distance` on
    the covariates: each divided by its standard deviation, or `mahalanobis`; squared distances within `tolerance` of
    the m-th are ties with it. `bias_adjust` takes out what a linear regression among the matched units predicts from
    the distance left in each pair (Abadie and Imbens 2011, J Bus Econ Stat 29:1, section 2).

    The error is theorem 7 of Abadie and Imbens (2006, Econometrica 74:235), shares of ties in the place of 1/m. It
    needs each unit's outcome variance: the variance among the unit and its `variance_matches` nearest of its own
    group (their section 4.1); with 0, one variance for all, half the mean squared deviation of pairs' differences.

    Raises `DataError` for columns that are not there, `Inapplicable` for groups of fewer than `m` units to choose
    from or than `variance_matches` + 1, for outcomes or covariates that are missing or infinite (the row is named),
    covariates without variance, and collinear ones with `mahalanobis`.
    """
    lacking = [c for c in (outcome, treated, *covariates) if c not in frame.columns]
    if lacking:
        raise DataError(f"the frame has no column {', '.join(lacking)}; it has {', '.join(map(str, frame.columns))}.")
    if estimand not in get_args(Estimand) or distance not in get_args(Metric):
        raise Inapplicable(
            f"matching: estimand {estimand!r} and distance {distance!r}; there are {', '.join(get_args(Estimand))}, "
            f"and {', '.join(get_args(Metric))}."
        )
    y = frame[outcome].to_numpy(dtype=float, na_value=np.nan)
    if not np.isfinite(y).all():
        first = frame.index[~np.isfinite(y)][0]
        raise Inapplicable(f"matching: outcome {outcome} is missing or infinite in row {first}. Drop such rows.")
    d = frame[treated].to_numpy(dtype=float, na_value=np.nan)
    if not np.isin(d, (0.0, 1.0)).all():
        raise Inapplicable(f"matching: {treated} has values other than 0 and 1.")
    d = d == 1
    wanted = {"ATT": d, "ATC": ~d, "ATE": np.ones(len(d), dtype=bool)}[estimand]
    _check_numbers(d, wanted, m, variance_matches)
    x = design(frame, covariates)
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    point = x if distance == "inverse_variance" else _whitened(x)

    target, partner, share = _matches(point, d, wanted, m, tolerance)
    n = len(y)
    use = np.bincount(partner, share, minlength=n)
    sign = np.where(d, 1.0, -1.0)
    gap = sign[target] * (y[target] - y[partner])
    if bias_adjust:
        for group in np.unique(d[partner]):
            at = d[partner] == group
            slope = _slope(x[d == group], y[d == group], use[d == group])
            gap[at] -= sign[target[at]] * ((x[target[at]] - x[partner[at]]) @ slope)
    effect = np.bincount(target, share * gap, minlength=n)[wanted]
    count = len(effect)
    estimate = float(effect.mean())
    spread = float(share @ (gap - estimate) ** 2)
    if variance_matches:
        variance = _variance(point, y, d, variance_matches, tolerance)
    else:
        variance = np.full(n, spread / count / 2)
    own = wanted.astype(float)
    # What a unit adds beyond its own effect's square: use^2 - sum of shares^2 as a partner, and, where it is a
    # target too, twice its use. Without ties and for the ATE: use^2 + (2m - 1)/m use.
    beyond = use**2 + 2 * own * use - np.bincount(partner, share**2, minlength=n)
    return Effect(
        estimate=estimate,
        std_error=float(np.sqrt(((effect - estimate) ** 2).sum() + beyond @ variance) / count),
        std_error_sample=float(np.sqrt((own + use) ** 2 @ variance) / count),
        std_error_simple=float(np.sqrt(spread) / count),
        n_obs=n,
        n_targets=count,
        target=target,
        partner=partner,
        share=share,
    )


def _check_numbers(d: NDArray[np.bool_], wanted: NDArray[np.bool_], m: int, variance_matches: int) -> None:
    if m < 1 or variance_matches < 0:
        raise Inapplicable(f"matching: m is {m} and variance_matches {variance_matches}; at least 1 and 0 are needed.")
    for group, name, other in ((True, "treated", "untreated"), (False, "untreated", "treated")):
        size = int((d == group).sum())
        need = m if wanted[d != group].any() else 1
        if size < need or len(d) == 0:
            raise Inapplicable(f"matching: {size} {name} units, and {need} are needed for each {other} one.")
        if variance_matches and size <= variance_matches:
            raise Inapplicable(
                f"matching: {size} {name} units cannot give each {variance_matches} others for its variance. "
                f"Lower variance_matches."
            )


def _whitened(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Coordinates whose Euclidean distance is that of Mahalanobis, by the covariance over all units."""
    values, vectors = np.linalg.eigh(x.T @ x / len(x))
    if values[0] < 1e-10:
        raise Inapplicable(
            "matching: the covariates are collinear, so there is no Mahalanobis distance. Leave one out."
        )
    return np.asarray(x @ (vectors / np.sqrt(values)))


def _matches(
    point: NDArray[np.float64], d: NDArray[np.bool_], wanted: NDArray[np.bool_], m: int, tolerance: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Targets, partners and shares, sorted by target, then partner."""
    parts = []
    for group in (True, False):
        asking, pool = np.flatnonzero(wanted & (d == group)), np.flatnonzero(d != group)
        if len(asking):
            i, j = _nearest(point[asking], point[pool], m, tolerance)
            parts.append((asking[i], pool[j]))
    target = np.concatenate([t for t, _ in parts])
    partner = np.concatenate([p for _, p in parts])
    order = np.lexsort((partner, target))
    target, partner = target[order], partner[order]
    return target, partner, 1 / np.bincount(target)[target]


def _nearest(
    asking: NDArray[np.float64], pool: NDArray[np.float64], m: int, tolerance: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of positions: each asking point with its `m` nearest of the pool and whatever ties with the last.

    The tree finds who is near; distances are then computed anew in one way for all, so that exact ties are equal.
    """
    from scipy.spatial import cKDTree

    tree = cKDTree(pool)
    last = np.asarray(tree.query(asking, k=[m])[1], dtype=np.int64)[:, 0]
    edge = ((asking - pool[last]) ** 2).sum(axis=1)
    reach = np.sqrt(edge + tolerance) * (1 + 1e-9) + 1e-12
    near = tree.query_ball_point(asking, reach, return_sorted=True)
    i = np.repeat(np.arange(len(asking)), [len(n) for n in near])
    j = np.concatenate([np.asarray(n, dtype=np.int64) for n in near])
    within = ((asking[i] - pool[j]) ** 2).sum(axis=1) <= edge[i] + tolerance
    return i[within], j[within]


def _slope(x: NDArray[np.float64], y: NDArray[np.float64], use: NDArray[np.float64]) -> NDArray[np.float64]:
    """Coefficients (k,) of the regression among the units used, weighted by their use; 0 for what is constant there."""
    x, y, use = x[use > 0], y[use > 0], use[use > 0]
    root = np.sqrt(use)[:, None]
    centred = root * (x - np.average(x, axis=0, weights=use))
    return np.asarray(np.linalg.lstsq(centred, root[:, 0] * (y - np.average(y, weights=use)), rcond=1e-10)[0])


def _variance(
    point: NDArray[np.float64], y: NDArray[np.float64], d: NDArray[np.bool_], matches: int, tolerance: float
) -> NDArray[np.float64]:
    """Each unit's outcome variance (n,): among itself and its nearest of its own group, ties and all."""
    variance = np.empty(len(y))
    for group in (True, False):
        rows = np.flatnonzero(d == group)
        # the nearest to a point among its own group is itself, so one more is asked for
        i, j = _nearest(point[rows], point[rows], matches + 1, tolerance)
        value = y[rows] - y[rows].mean()  # so that squares lose no digits
        count = np.bincount(i)
        mean = np.bincount(i, value[j]) / count
        variance[rows] = np.bincount(i, (value[j] - mean[i]) ** 2) / (count - 1)
    return variance
