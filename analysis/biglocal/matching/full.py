"""Optimal full matching: sets of one treated and one or more untreated units, or the other way round, with the
least total distance (Rosenbaum 1991, JRSS B 53:597; Hansen 2004, JASA 99:609).

With no limits on the size of sets, as is MatchIt's default, this is the cheapest edge cover of a bipartite graph:
every unit must have a partner, and a cheapest cover consists of stars. It is solved exactly by a maximum-weight
matching (Schrijver 2003, Combinatorial Optimization, theorem 19.3): let m_u be the distance of unit u to its
nearest partner; match the pairs that maximise the sum of m_t + m_c - d_tc, and give every other unit its nearest
partner. Only pairs with d_tc < m_t + m_c can gain, and these are few, so all of England is a sparse problem.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from biglocal.matching._distance import DIGITS, Distance, Space, space
from biglocal.matching._units import Estimand, arrange, check_any, check_unused, stratified

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from biglocal.model import Match


def match(
    frame: pd.DataFrame,
    *,
    treated: str,
    covariates: Sequence[str],
    ratio: int = 1,
    caliper: float | None = None,
    exact: Sequence[str] = (),
    estimand: Estimand = "ATT",
    distance: Distance = "logit",
    mahvars: Sequence[str] = (),
    calipers: Mapping[str, float] | None = None,
    anti_exact: Sequence[str] = (),
    penalty: float = 0.0,
    score: str | None = None,
) -> Match:
    """Put every row of `frame` into a set with the other group, so that the sum of distances is least.

    Distances are those of each set's single unit to the others; options as in `nearest.match`, weights for the
    `estimand` as in `_units.stratified`. A unit with no allowed partner has weight 0. A set's name, in `sets`, is
    its first treated unit in the index's order.

    Raises `Inapplicable` for input that `_units.arrange` and `_distance.space` refuse, for a ratio other than
    1, and where no pair is allowed at all.
    """
    check_unused("full matching", ratio)
    units = arrange(frame, treated, exact)
    where = space(
        units, covariates, distance=distance, caliper=caliper, mahvars=mahvars, calipers=calipers,
        anti_exact=anti_exact, penalty=penalty, score=score,
    )  # fmt: skip
    stratum = np.full(len(units.treated), -1)
    for t, c in units.blocks():
        i, j = cover(where, t, c)
        _name(stratum, t[i], c[j])
    check_any(bool((stratum >= 0).any()), "a caliper or block")
    weights, sets = stratified(units, stratum, estimand)
    return units.match(weights, sets, where.score)


def cover(
    where: Space, treated: NDArray[np.int64], control: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The cheapest edge cover of one block: places of the treated and untreated unit of each edge, all stars.

    Distances count in units of 10^-`DIGITS`. Among covers as cheap, one with the most matched pairs is taken, and
    units with several nearest partners spread over them in turn: where many units have the same covariates,
    sets are then many and of like size, and weights even.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import min_weight_full_bipartite_matching

    n1, n0 = len(treated), len(control)
    step = max(1, 4_000_000 // n0)
    chunks = [slice(start, min(start + step, n1)) for start in range(0, n1, step)]

    def distances(rows: slice) -> NDArray[np.float64]:
        return np.rint(where.distances(treated[rows], control) * 10.0**DIGITS)

    near1, near0 = np.full(n1, np.inf), np.full(n0, np.inf)
    for rows in chunks:
        d = distances(rows)
        near1[rows] = d.min(axis=1)
        near0 = np.minimum(near0, d.min(axis=0))
    found, ties = [], []
    for rows in chunks:
        d = distances(rows)
        gain = near1[rows, None] + near0 - np.where(np.isfinite(d), d, np.nan)
        i, j = np.nonzero(gain > 0)
        found.append((i + rows.start, j, gain[i, j]))
        same = gain == 0  # two units at one point: no gain, but a pair; no more of them than could be used
        for at in np.flatnonzero(same.any(axis=1)).tolist():
            j = np.flatnonzero(same[at])[:n1]
            found.append((np.full(len(j), at + rows.start), j, np.zeros(len(j))))
        ties.append(((d == near1[rows, None]) & np.isfinite(d), (d == near0) & np.isfinite(d)))
    i, j, gain = (np.concatenate(parts) for parts in zip(*found, strict=True))
    gain = gain * (n1 + 1) + 1  # the number of pairs decides only between equal gains
    # a treated unit that stays out of the matching takes a place of its own, at no gain
    most = float(gain.max(initial=0)) + 1  # SciPy drops edges of weight 0
    each = np.arange(n1)
    graph = csr_array(
        (
            np.concatenate([most - gain, np.full(n1, most)]),
            (np.concatenate([i, each]), np.concatenate([j, n0 + each])),
        ),
        shape=(n1, n0 + n1),
    )
    row, place = min_weight_full_bipartite_matching(graph)
    row, place = row[place < n0], place[place < n0]
    matched1, matched0 = np.isin(np.arange(n1), row), np.isin(np.arange(n0), place)
    alone1 = np.flatnonzero(np.isfinite(near1) & ~matched1)
    alone0 = np.flatnonzero(np.isfinite(near0) & ~matched0)
    edges = {*zip(row.tolist(), place.tolist(), strict=True)}
    edges |= {*zip(alone1.tolist(), _in_turn([t for t, _ in ties], alone1, 1).tolist(), strict=True)}
    edges |= {*zip(_in_turn([t for _, t in ties], alone0, 0).tolist(), alone0.tolist(), strict=True)}
    return _stars(edges, n1, n0)


def _in_turn(nearest: list[NDArray[np.bool_]], units: NDArray[np.int64], axis: int) -> NDArray[np.int64]:
    """A nearest partner for each of `units` (rows of the stacked table if `axis` is 1, else columns): units with
    the same first choice take turns among their choices.
    """
    stacked = np.concatenate(nearest)
    table = stacked[units] if axis else stacked[:, units].T
    first, count = np.asarray(table.argmax(axis=1), dtype=np.int64), table.sum(axis=1)
    order = np.argsort(first, kind="stable")
    start = np.searchsorted(first[order], first[order])
    turn = np.empty(len(units), dtype=np.int64)
    turn[order] = np.arange(len(units)) - start
    several = np.flatnonzero(count > 1)
    for u in several:
        first[u] = np.flatnonzero(table[u])[turn[u] % count[u]]
    return first


def _stars(edges: set[tuple[int, int]], n1: int, n0: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Leave out edges whose ends both have others: with distances of 0 a cheapest cover may hold some."""
    pairs = sorted(edges)
    of1, of0 = [0] * n1, [0] * n0
    for i, j in pairs:
        of1[i] += 1
        of0[j] += 1
    kept = []
    for i, j in pairs:
        if of1[i] > 1 and of0[j] > 1:
            of1[i] -= 1
            of0[j] -= 1
        else:
            kept.append((i, j))
    both = np.array(kept, dtype=np.int64).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def _name(stratum: NDArray[np.int64], treated: NDArray[np.int64], control: NDArray[np.int64]) -> None:
    """Number the stars that these edges (rows of the frame) make."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n = len(stratum)
    rows = np.union1d(treated, control)
    graph = coo_array((np.ones(len(treated)), (treated, control)), shape=(n, n))
    _, label = connected_components(graph, directed=False)
    stratum[rows] = np.unique(label[rows], return_inverse=True)[1] + int(stratum.max()) + 1
