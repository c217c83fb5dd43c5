"""Optimal pair matching, k to 1 without replacement: the least total distance (Rosenbaum 1989, JASA 84:1024).

An assignment problem for each exact block, solved by SciPy's dense solver where every pair is allowed and its
sparse one where calipers or blocks leave gaps. Only each treated unit's nearest (ratio x treated) untreated ones
are offered: no more can be taken by others, so the optimum of the smaller problem is that of the whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from biglocal.matching._distance import Distance, Space, space
from biglocal.matching._units import arrange, check_any
from biglocal.model import Inapplicable, Match

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

DENSE = 30_000_000  # cells of a distance matrix, 240 MB: above it the sparse solver


def match(
    frame: pd.DataFrame,
    *,
    treated: str,
    covariates: Sequence[str],
    ratio: int = 1,
    caliper: float | None = None,
    exact: Sequence[str] = (),
    distance: Distance = "logit",
    mahvars: Sequence[str] = (),
    calipers: Mapping[str, float] | None = None,
    anti_exact: Sequence[str] = (),
    penalty: float = 0.0,
    score: str | None = None,
) -> Match:
    """Match each treated row of `frame` to `ratio` untreated ones so that the sum of distances is least.

    Options as in `nearest.match`. Where calipers or blocks do not allow `ratio` for all, as many treated units
    as can be are matched, with as many untreated ones as can be, and among these the total is least; a treated
    unit that gets none has weight 0. Weights and sets as in `nearest.match`.

    Raises `Inapplicable` as `nearest.match` does.
    """
    if ratio < 1:
        raise Inapplicable(f"matching: a ratio of {ratio}; it must be 1 or more.")
    units = arrange(frame, treated, exact)
    n, n1 = len(units.treated), int(units.treated.sum())
    if n1 > n - n1:
        raise Inapplicable(
            f"matching: {n1} treated and {n - n1} untreated units, so not every treated one can have its own. "
            f"Widen the pool, or use method full."
        )
    where = space(
        units, covariates, distance=distance, caliper=caliper, mahvars=mahvars, calipers=calipers,
        anti_exact=anti_exact, penalty=penalty, score=score,
    )  # fmt: skip
    sets = np.full(n, -1)
    for t, c in units.blocks():
        sets[c] = _assign(where, t, c, ratio)
    free = sets >= 0
    check_any(bool(free.any()), "a caliper or block")
    size = np.bincount(sets[free], minlength=n)
    weights = np.where(size > 0, 1.0, 0.0)
    weights[free] = 1 / size[sets[free]]
    sets[size > 0] = np.flatnonzero(size > 0)
    return units.match(weights, sets, where.score)


def _assign(where: Space, treated: NDArray[np.int64], control: NDArray[np.int64], ratio: int) -> NDArray[np.int64]:
    """For each untreated unit of a block its treated one's row, or -1."""
    from scipy.optimize import linear_sum_assignment
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import min_weight_full_bipartite_matching

    rows, columns, cost = _edges(where, treated, control, min(ratio * len(treated), len(control)))
    of = np.full(len(control), -1)
    if not len(rows):
        return of
    offered, column = np.unique(columns, return_inverse=True)
    column = column.astype(np.int32)
    copies, full = ratio * len(treated), len(rows) == len(treated) * len(offered)
    if full and copies <= len(offered) and copies * len(offered) <= DENSE:
        dense = np.empty((len(treated), len(offered)))
        dense[rows, column] = cost
        del rows, columns, column, cost
        i, j = linear_sum_assignment(np.repeat(dense, ratio, axis=0))
        of[offered[j]] = treated[i // ratio]
        return of
    # Each copy of a treated unit may also stay alone, at a cost above any total of distances; a first copy at
    # twice that. Sets of copies that can be matched together form a matroid, so the most treated units and the
    # most pairs are reached at once. SciPy drops edges of weight 0: all are raised by 1.
    alone = copies * float(cost.max()) + 1
    copy = (rows * ratio + np.arange(ratio, dtype=np.int32)[:, None]).ravel()
    each = np.arange(copies, dtype=np.int32)
    graph = csr_array(
        (
            np.concatenate([np.tile(cost, ratio), np.where(each % ratio == 0, 2 * alone, alone)]) + 1,
            (np.concatenate([copy, each]), np.concatenate([np.tile(column, ratio), len(offered) + each])),
        ),
        shape=(copies, len(offered) + copies),
    )
    row, place = min_weight_full_bipartite_matching(graph)
    kept = place < len(offered)
    of[offered[place[kept]]] = treated[row[kept] // ratio]
    return of


def _edges(
    where: Space, treated: NDArray[np.int64], control: NDArray[np.int64], nearest: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Allowed pairs among each treated unit's `nearest`: places of both in the block, and the distance."""
    found = []
    step = max(1, 4_000_000 // len(control))
    for start in range(0, len(treated), step):
        d = where.distances(treated[start : start + step], control)
        if nearest < len(control):
            near = np.sort(np.argpartition(d, nearest - 1, axis=1)[:, :nearest], axis=1)
            kept = np.take_along_axis(d, near, axis=1)
        else:
            near, kept = np.broadcast_to(np.arange(len(control)), d.shape), d
        i, j = np.nonzero(np.isfinite(kept))
        found.append(((i + start).astype(np.int32), near[i, j].astype(np.int32), kept[i, j]))
    rows, columns, cost = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return rows, columns, cost
