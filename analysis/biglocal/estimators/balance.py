"""Balance of covariates before and after matching or weighting.

Definitions are those of cobalt 4.6 and MatchIt 4.7 (Austin 2009, Stat Med 28:3083): the standardised mean
difference divides by a standard deviation before matching, after matching too, so that it cannot improve by the
denominator alone: that of the treated units for the ATT, the pooled one for the ATE.

`balance_table` takes any data frame; `estimate` says the same of one covariate of a study.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from biglocal.model import Fit, Inapplicable, Sample, Term

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import NDArray

Denominator = Literal["treated", "control", "pooled", "all"]
WHEN = ("unmatched", "matched")
BINS = 40  # of the overlap, over the range of a covariate


def estimate(sample: Sample) -> Fit:
    """Means, `smd_*`, `variance_ratio_*` and `ks_*`, each `_unmatched` (weight 1) and `_matched`.

    `sample.frame` has a row a unit: y the covariate, treated, weight (0 for the unmatched).
    Raises `Inapplicable` where the covariate is constant among the treated.
    """
    frame = sample.frame
    y, w = frame["y"].to_numpy(dtype=float), frame["weight"].to_numpy(dtype=float)
    t = frame["treated"].to_numpy() == 1
    binary = _is_binary(y)
    spread = spread_of(y, t, "treated")
    if not spread > 0:
        raise Inapplicable("the covariate does not vary among the treated.")
    terms = [Term("mean_treated", float(np.average(y[t], weights=w[t])), tested=False)]
    for name, weights in zip(WHEN, (np.ones(len(y)), w), strict=True):
        terms.append(Term(f"mean_control_{name}", float(np.average(y[~t], weights=weights[~t])), tested=False))
        terms.append(Term(f"smd_{name}", gap_of_means(y, t, weights) / spread, tested=False))
        if not binary:  # a proportion's variance says nothing its mean does not
            ratio = variance(y[t], weights[t]) / variance(y[~t], weights[~t])
            terms.append(Term(f"variance_ratio_{name}", ratio, tested=False))
        terms.append(Term(f"ks_{name}", kolmogorov_smirnov(y, t, weights), tested=False))
    return Fit(
        tuple(terms),
        n_obs=len(frame),
        n_units=int((w > 0).sum()),
        n_treated=int((w[t] > 0).sum()),
        n_clusters=int(frame.loc[w > 0, "cluster"].nunique()),
        caution=sample.caution,
    )


def balance_table(
    frame: pd.DataFrame,
    treated: str,
    covariates: Sequence[str],
    weights: NDArray[np.float64],
    *,
    denominator: Denominator = "treated",
    sets: NDArray[np.int64] | None = None,
) -> pd.DataFrame:
    """Balance of `covariates` between `frame[treated]` 1 and 0, `unmatched` (weight 1) and `matched` (`weights`).

    A row a covariate; text and categories have a row a level, named `column_level`. Columns: covariate, binary,
    and for either state
    `mean_treated_*`, `mean_control_*`;
    `smd_*` (difference of means over the standard deviation, without weights, of the `denominator`: `treated`,
    `control`, `all`, or `pooled`, the root of the groups' mean variance; sqrt(p (1 - p)) if binary);
    `variance_ratio_*` (treated over untreated, NaN if binary);
    `ks_*` and `ecdf_mean_*` (largest and mean distance of the distribution functions over the values seen);
    `overlap_*` (share that the distributions have in common, by value if binary, else over 40 equal bins);
    and with `sets`, as in `Match`, `pair_distance_matched`: the mean over all pairs of a treated and an untreated
    unit of a set of their absolute difference, in the same standard deviations.

    `weights` (n,) are aligned with `frame`; those of a `Match`. The frame is not touched.
    Raises `Inapplicable` for covariates that are missing or infinite (row named), weights that are negative,
    missing, or zero throughout a group, and a group without units.
    """
    import pandas as pd

    t = frame[treated].to_numpy() == 1
    w = np.asarray(weights, dtype=float)
    _check(t, w)
    names, x = _columns(frame, covariates)
    table: dict[str, list[float]] = {}

    def say(column: str, value: float) -> None:
        table.setdefault(column, []).append(value)

    states = dict(zip(WHEN, (np.ones(len(w)), w), strict=True))
    share = {when: np.where(t, v / v[t].sum(), v / v[~t].sum()) for when, v in states.items()}
    pairs = None if sets is None else _pairs(np.asarray(sets), t)
    for y in x:
        binary, spread = _is_binary(y), spread_of(y, t, denominator)
        order = np.argsort(y, kind="stable")
        sorted_y, sorted_t = y[order], t[order]
        last = np.append(np.flatnonzero(np.diff(sorted_y)), len(y) - 1)
        low, high = float(sorted_y[0]), float(sorted_y[-1])
        say("binary", binary)
        for when, v in share.items():
            m1, m0 = float(y[t] @ v[t]), float(y[~t] @ v[~t])
            say(f"mean_treated_{when}", m1)
            say(f"mean_control_{when}", m0)
            say(f"smd_{when}", (m1 - m0) / spread if spread > 0 else np.nan)
            ratio = np.nan if binary else _ratio(variance(y[t], v[t]), variance(y[~t], v[~t]))
            say(f"variance_ratio_{when}", ratio)
            step = v[order]
            gap = np.abs(np.cumsum(np.where(sorted_t, step, -step))[last])
            if binary:  # above the larger value both functions are 1, which is no distance seen
                gap = gap[:1]
            say(f"ks_{when}", float(gap.max()))
            say(f"ecdf_mean_{when}", float(gap.mean()))
            bins = 2 if binary else BINS
            place = np.minimum(((y - low) * (bins / max(high - low, 1e-300))).astype(np.int64), bins - 1)
            one, nought = np.bincount(place[t], v[t], bins), np.bincount(place[~t], v[~t], bins)
            say(f"overlap_{when}", float(np.minimum(one, nought).sum()))
        if pairs is not None:
            say("pair_distance_matched", float(np.abs(y[pairs[0]] - y[pairs[1]]).mean()) / spread)
    out = pd.DataFrame({"covariate": names, **table})
    out["binary"] = out["binary"].astype(bool)
    return out


def sizes(treated: NDArray[np.bool_], weights: NDArray[np.float64]) -> pd.DataFrame:
    """Units by group (`treated`, `control`): `all`, `matched` (weight above 0), `unmatched`, and `effective`.

    The effective sample size of weights is the square of their sum over the sum of their squares (Kish 1965).
    """
    import pandas as pd

    t, w = np.asarray(treated) == 1, np.asarray(weights, dtype=float)
    _check(t, w)
    rows = []
    for group in (t, ~t):
        v = w[group]
        matched = int((v > 0).sum())
        rows.append((len(v), matched, len(v) - matched, float(v.sum() ** 2 / (v @ v))))
    return pd.DataFrame(rows, index=["treated", "control"], columns=["all", "matched", "unmatched", "effective"])


def spread_of(y: NDArray[np.float64], t: NDArray[np.bool_], denominator: Denominator) -> float:
    """The standard deviation that differences of means are divided by: unweighted, sqrt(p (1 - p)) if binary."""
    ddof = 0 if _is_binary(y) else 1

    def square(part: NDArray[np.float64]) -> float:
        return float(np.var(part, ddof=ddof)) if len(part) > 1 and np.ptp(part) > 0 else 0.0

    if denominator == "pooled":
        return float(np.sqrt((square(y[t]) + square(y[~t])) / 2))
    part = {"treated": y[t], "control": y[~t], "all": y}.get(denominator)
    if part is None:
        raise Inapplicable(f"balance: denominator {denominator!r} is not one of treated, control, pooled, all.")
    return float(np.sqrt(square(part)))


def variance(y: NDArray[np.float64], w: NDArray[np.float64]) -> float:
    """Weighted variance with the small-sample factor 1 / (1 - sum of squared weights), weights summing to 1."""
    w = w / w.sum()
    mean = w @ y
    return float(w @ (y - mean) ** 2 / (1 - w @ w))


def gap_of_means(y: NDArray[np.float64], t: NDArray[np.bool_], w: NDArray[np.float64]) -> float:
    """Weighted mean of the treated less that of the others."""
    return float(np.average(y[t], weights=w[t]) - np.average(y[~t], weights=w[~t]))


def kolmogorov_smirnov(y: NDArray[np.float64], t: NDArray[np.bool_], w: NDArray[np.float64]) -> float:
    """Largest distance between the two weighted distribution functions."""
    order = np.argsort(y, kind="stable")
    step = np.where(t, w / w[t].sum(), -w / w[~t].sum())[order]
    gap = np.cumsum(step)
    last = np.append(np.flatnonzero(np.diff(y[order])), len(y) - 1)
    return float(np.abs(gap[last]).max())


def _is_binary(y: NDArray[np.float64]) -> bool:
    return bool(((y == 0) | (y == 1)).all())


def _ratio(one: float, other: float) -> float:
    return one / other if other > 0 else float("nan")


def _check(t: NDArray[np.bool_], w: NDArray[np.float64]) -> None:
    if w.shape != t.shape:
        raise Inapplicable(f"balance: {w.size} weights for {t.size} rows.")
    if not (np.isfinite(w) & (w >= 0)).all():
        raise Inapplicable(f"balance: weights must be finite and at least 0; the least is {np.min(w):g}.")
    for name, group in (("treated", t), ("untreated", ~t)):
        if not w[group].any():
            raise Inapplicable(f"balance: no {name} unit has a weight above 0 ({int(group.sum())} are there).")


def _columns(frame: pd.DataFrame, covariates: Sequence[str]) -> tuple[list[str], list[NDArray[np.float64]]]:
    """Names and values; every level of text and categories as an indicator."""
    import pandas as pd

    names: list[str] = []
    columns: list[NDArray[np.float64]] = []
    for name in covariates:
        series = frame[name]
        if pd.api.types.is_numeric_dtype(series) or pd.api.types.is_bool_dtype(series):
            values = series.to_numpy(dtype=float, na_value=np.nan)
            wrong = ~np.isfinite(values)
            names.append(name)
            columns.append(values)
        else:
            wrong = series.isna().to_numpy()
            text = series.astype(str).to_numpy()
            for level in np.unique(text[~wrong]):
                names.append(f"{name}_{level}")
                columns.append((text == level).astype(float))
        if wrong.any():
            raise Inapplicable(
                f"balance: covariate {name} is missing or infinite in {int(wrong.sum()):,} rows, first "
                f"{frame.index[wrong][0]}. Drop these rows or leave the covariate out."
            )
    return names, columns


def _pairs(sets: NDArray[np.int64], t: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Every treated with every untreated row of its set."""
    rows = np.flatnonzero(sets >= 0)
    rows = rows[np.argsort(sets[rows], kind="stable")]
    one, other = rows[t[rows]], rows[~t[rows]]
    start, stop = (np.searchsorted(sets[other], sets[one], side=side) for side in ("left", "right"))
    count = stop - start
    offset = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    return np.repeat(one, count), other[np.repeat(start, count) + offset]
