"""What every matching method does first and last: put rows in the index's order, and back.

A method sees its units sorted by index, so that the order in which rows come changes no match.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from biglocal.model import Inapplicable, Match

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import NDArray

Estimand = Literal["ATT", "ATE"]


@dataclass(frozen=True, slots=True)
class Units:
    """A frame sorted by index: its rows' places in the frame given, who is treated, and its exact blocks.

    `order` (n,) row positions in the frame given; `treated` (n,) bool; `block` (n,) integers from 0, one for
    each combination of the exact columns.
    """

    frame: pd.DataFrame
    order: NDArray[np.int64]
    treated: NDArray[np.bool_]
    block: NDArray[np.int64]

    def blocks(self) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Rows of the treated and of the untreated units, for each block that has both."""
        found = []
        by_block = np.argsort(self.block, kind="stable")
        for rows in np.split(by_block, np.cumsum(np.bincount(self.block))[:-1]):
            t = self.treated[rows]
            if t.any() and not t.all():
                found.append((rows[t], rows[~t]))
        return found

    def match(self, weights: NDArray[np.float64], sets: NDArray[np.int64], score: NDArray[np.float64]) -> Match:
        """Weights, sets and score of the sorted units, in the order of the frame given."""
        back = np.empty_like(self.order)
        back[self.order] = np.arange(len(self.order))
        return Match(weights[back], np.where(sets[back] >= 0, self.order[sets[back]], -1), score[back])


def arrange(frame: pd.DataFrame, treated: str, exact: Sequence[str] = ()) -> Units:
    """The units of `frame` (one row a unit, index its identity) in the index's order.

    Raises `Inapplicable` for an index with duplicates, a treatment that is not 0/1, an empty group, and a
    missing value of an exact column (first row named).
    """
    if not frame.index.is_unique:
        raise Inapplicable(f"matching: the index has duplicates, first {frame.index[frame.index.duplicated()][0]!r}.")
    order = np.argsort(frame.index.to_numpy(), kind="stable")
    ordered = frame.iloc[order]
    values = ordered[treated]
    wrong = ~values.isin([0, 1]).to_numpy()
    if wrong.any():
        raise Inapplicable(
            f"matching: {treated} must be 0 or 1; it is {values[wrong].iloc[0]} in row {ordered.index[wrong][0]}."
        )
    t = values.to_numpy(dtype=bool)
    n1 = int(t.sum())
    if n1 in (0, len(t)):
        raise Inapplicable(f"matching: {n1} treated and {len(t) - n1} untreated units; both are needed.")
    return Units(ordered, order, t, groups(ordered, exact))


def groups(frame: pd.DataFrame, columns: Sequence[str]) -> NDArray[np.int64]:
    """One integer from 0 for each combination of values. Raises `Inapplicable` for a missing value."""
    if not columns:
        return np.zeros(len(frame), dtype=np.int64)
    for name in columns:
        check_missing(frame, name)
    codes = frame.groupby(list(columns), observed=True, sort=True).ngroup()
    return np.asarray(codes.to_numpy(), dtype=np.int64)


def check_missing(frame: pd.DataFrame, name: str) -> None:
    """Raises `Inapplicable` naming the first row in which column `name` is missing."""
    gone = frame[name].isna()
    if gone.any():
        first = frame.index[gone][0]
        raise Inapplicable(
            f"matching: covariate {name} is missing in {int(gone.sum()):,} rows, first {first}. "
            f"Drop these rows or leave the covariate out."
        )


def check_unused(method: str, ratio: int = 1, caliper: float | None = None) -> None:
    """Raises `Inapplicable` where a comparison asks for what the method lacks: nothing is ignored in silence."""
    if ratio != 1:
        raise Inapplicable(f"matching: {method} has no ratio (asked for {ratio}). Leave it out, or use nearest.")
    if caliper is not None:
        raise Inapplicable(f"matching: {method} has no caliper (asked for {caliper:g}). Leave it out, or use nearest.")


def check_any(matched: bool, what: str) -> None:
    """Raises `Inapplicable` where nobody is matched."""
    if not matched:
        raise Inapplicable(
            f"matching: no treated unit shares {what} with an untreated one, so there is no overlap. "
            f"Widen the caliper, the blocks or the pool."
        )


def stratified(
    units: Units, stratum: NDArray[np.int64], estimand: Estimand
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Weights and sets of units in strata; `stratum` (n,) integers from 0, or -1 for units left out.

    A stratum without both groups has weight 0. ATT: treated units weigh 1, a stratum's untreated units together
    as much as its treated. ATE: each group is weighted to the stratum's share of all matched units, and sums to
    its own size (Hansen 2004; the weights of MatchIt up to a factor for each group). The set's name is its
    first treated unit in the index's order.
    """
    inside = stratum >= 0
    count = int(stratum.max(initial=-1)) + 1
    n1 = np.bincount(stratum[inside & units.treated], minlength=count)
    n0 = np.bincount(stratum[inside & ~units.treated], minlength=count)
    both = (n1 > 0) & (n0 > 0)
    kept = np.flatnonzero(inside)
    kept = kept[both[stratum[kept]]]
    s, t = stratum[kept], units.treated[kept]
    weights, sets = np.zeros(len(stratum)), np.full(len(stratum), -1)
    if estimand == "ATT":
        weights[kept] = np.where(t, 1.0, n1[s] / n0[s])
    elif estimand == "ATE":
        share = (n1 + n0) / (n1 + n0)[both].sum()
        weights[kept] = np.where(t, share[s] * t.sum() / n1[s], share[s] * (~t).sum() / n0[s])
    else:
        raise Inapplicable(f"matching: estimand {estimand!r} is not one of ATT, ATE.")
    name = np.full(count, -1)
    name[s[t][::-1]] = kept[t][::-1]  # the last to be written is the first in order
    sets[kept] = name[s]
    return weights, sets
