"""Nearest-neighbour matching, k to 1, with or without replacement.

Rosenbaum and Rubin (1985); the algorithm and its defaults are those of MatchIt 4.7 (Ho, Imai, King and
Stuart 2011), against which the tests hold it pair by pair: without replacement treated units choose one after
another, in rounds, so that each has had its first choice before any has its second.

Nothing is left to chance. Ties go to the unit that comes first in the index's order, and a random order of the
treated is not offered. Boosted or other scores from elsewhere come in as a column (`score`).
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from biglocal.matching._distance import Distance, Space, space
from biglocal.matching._units import Units, arrange, check_any
from biglocal.model import Inapplicable, Match

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    # the nearest untreated unit still free, as (distance, its place), for the row of a treated one; or infinite
    Find = Callable[[int], tuple[float, int]]
    Take = Callable[[int], None]
    # treated row, untreated row, distance
    Pair = tuple[int, int, float]

TOGETHER = 32  # treated units whose distances are made together, where a caliper leaves each few
Order = Literal["largest", "smallest", "data", "closest", "farthest"]


def match(
    frame: pd.DataFrame,
    *,
    treated: str,
    covariates: Sequence[str],
    ratio: int = 1,
    caliper: float | None = None,
    exact: Sequence[str] = (),
    distance: Distance = "logit",
    replace: bool = False,
    order: Order | None = None,
    mahvars: Sequence[str] = (),
    calipers: Mapping[str, float] | None = None,
    anti_exact: Sequence[str] = (),
    penalty: float = 0.0,
    score: str | None = None,
) -> Match:
    """Match each treated row of `frame` (one row a unit, index its identity) to `ratio` untreated ones.

    `distance`: `logit` or `probability` of the propensity score, the probability by `probit`, `mahalanobis`,
    `robust_mahalanobis` (on ranks) or `scaled_euclidean`. `caliper`: the widest distance on the propensity
    scale, in its standard deviations over the whole frame (Austin 2011 advises 0.2 of the logit). `calipers`:
    the widest difference of single columns, in their own units. `exact`: units match only within equal values
    of these columns; `anti_exact`: never within equal values of any of these. `mahvars`: nearness by
    Mahalanobis on these, inside the propensity caliper. `penalty`: ridge on the propensity model
    (`_distance.propensity`). `score`: a column that holds a propensity score from elsewhere, or
    `boosted` for one learned by gradient-boosted trees (`_distance.boosted`).

    `order` in which treated units choose without replacement: by score from the `largest` (the default with a
    score) or `smallest`, the `data`'s (that of the index; the default without a score), the `closest` pair
    first, or first those whose nearest unit is `farthest` as a round begins. With `replace` an untreated unit
    may serve several treated ones, and order plays no part.

    A treated unit may get fewer than `ratio`; one that gets none has weight 0. An untreated unit's weight is
    the sum over its treated ones of 1 over the number matched to each, so that a set's untreated units weigh
    as much as its treated one. With `replace` there are no sets (`pairs` says who is with whom).

    Raises `Inapplicable` for input that `_units.arrange` and `_distance.space` refuse, for more treated than
    untreated units without replacement, and where no pair is allowed at all.
    """
    options: dict[str, Any] = {
        "distance": distance, "caliper": caliper, "mahvars": mahvars, "calipers": calipers,
        "anti_exact": anti_exact, "penalty": penalty, "score": score,
    }  # fmt: skip
    units = arrange(frame, treated, exact)
    where = space(units, covariates, **options)
    t, c, _ = _search(units, where, ratio, replace, order)
    n = len(units.treated)
    size = np.bincount(t, minlength=n)
    weights, sets = np.zeros(n), np.full(n, -1)
    weights[t] = 1.0
    np.add.at(weights, c, 1 / size[t])
    if not replace:
        sets[t], sets[c] = t, t
    return units.match(weights, sets, where.score)


def pairs(
    frame: pd.DataFrame,
    *,
    treated: str,
    covariates: Sequence[str],
    ratio: int = 1,
    exact: Sequence[str] = (),
    replace: bool = False,
    order: Order | None = None,
    **options: Any,
) -> pd.DataFrame:
    """Who is matched with whom: a row a pair, with columns `treated` and `control` (index values) and `distance`.

    Takes the options of `match`, and raises the same. Sorted by treated unit, then in the order of choice.
    """
    import pandas as pd

    units = arrange(frame, treated, exact)
    t, c, d = _search(units, space(units, covariates, **options), ratio, replace, order)
    by = np.argsort(t, kind="stable")
    index = units.frame.index
    return pd.DataFrame({"treated": index[t[by]], "control": index[c[by]], "distance": d[by]})


def _search(
    units: Units, where: Space, ratio: int, replace: bool, order: Order | None
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """All pairs as rows of treated and untreated units, and their distances."""
    if ratio < 1:
        raise Inapplicable(f"matching: a ratio of {ratio}; it must be 1 or more.")
    n1 = int(units.treated.sum())
    if not replace and n1 > len(units.treated) - n1:
        raise Inapplicable(
            f"matching: {n1} treated and {len(units.treated) - n1} untreated units, so not every treated one can have "
            f"its own. Match with replacement, or widen the pool."
        )
    found: list[Pair] = []
    for t, c in units.blocks():
        queue = _ordered(t, where, order)
        if replace:
            found += _merged(where, queue, c, ratio) if where.on_a_line() else _listed(where, queue, c, ratio)
        else:
            find, take, rows = _line(where, queue, c) if where.on_a_line() else _cloud(where, queue, c, ratio)
            found += [(t_, int(rows[at]), d) for t_, at, d in _greedy(queue, find, take, ratio, order)]
    check_any(bool(found), "a caliper or block")
    treated, control, distance = zip(*found, strict=True)
    return np.array(treated), np.array(control), np.array(distance)


def _ordered(treated: NDArray[np.int64], where: Space, order: Order | None) -> list[int]:
    scored = bool(np.isfinite(where.score).all())
    if order is None:
        order = "largest" if scored else "data"
    if order in ("largest", "smallest"):
        if not scored:
            raise Inapplicable(f"matching: order {order} needs a propensity score. Use data or closest.")
        by = -where.score[treated] if order == "largest" else where.score[treated]
        return [int(t) for t in treated[np.argsort(by, kind="stable")]]
    if order in ("data", "closest", "farthest"):
        return [int(t) for t in treated]
    raise Inapplicable(f"matching: order {order!r} is not one of {', '.join(get_args(Order))}.")


def _greedy(queue: list[int], find: Find, take: Take, ratio: int, order: Order | None) -> Iterator[Pair]:
    """Rounds in which each treated unit of the queue takes its nearest free one: row, place, distance."""
    sign = {"closest": 1, "farthest": -1}.get(order or "", 0)
    for _ in range(ratio):
        # by distance where the order says so, else in the order of the queue
        heap = [(sign * d, i, at) for i, (d, at) in enumerate(map(find, queue)) if d < np.inf]
        heapq.heapify(heap)
        matched = []
        while heap:
            _, i, at = heap[0]
            d, now = find(queue[i])
            if d == np.inf:
                heapq.heappop(heap)
            elif now != at:  # another took it
                heapq.heapreplace(heap, (sign * d, i, now))
            else:
                heapq.heappop(heap)
                take(at)
                matched.append(i)
                yield queue[i], at, d
        queue = [queue[i] for i in sorted(matched)]


def _line(where: Space, treated: list[int], control: NDArray[np.int64]) -> tuple[Find, Take, NDArray[np.int64]]:
    """Search among scores: untreated units lie sorted by (score, index); `left` and `right` lead to the nearest
    one still free, with path halving, so a choice costs next to nothing whatever the number of units.
    """
    score, width = where.point[:, 0], where.width
    control = control[np.lexsort((control, score[control]))]
    value = score[control]
    n = len(control)
    first_equal = np.searchsorted(value, value, side="left").tolist()
    left = list(range(-1, n))  # left[i + 1]: nearest free place <= i, or -1
    right = list(range(n + 1))  # right[i]: nearest free place >= i, or n
    values = value.tolist()
    start = dict(zip(treated, np.searchsorted(value, score[treated]).tolist(), strict=True))
    scores = dict(zip(treated, score[treated].tolist(), strict=True))

    def follow(parent: list[int], i: int, shift: int) -> int:
        while parent[i] != i - shift:
            parent[i] = parent[parent[i] + shift]
            i = parent[i] + shift
        return i - shift

    def find(t: int) -> tuple[float, int]:
        s, at = scores[t], start[t]
        i, j = follow(left, at, 1), follow(right, at, 0)
        below = s - values[i] if i >= 0 else np.inf
        above = values[j] - s if j < n else np.inf
        if min(below, above) > width or min(below, above) == np.inf:
            return np.inf, -1
        # the first in the index's order among the nearest: equal scores below start at first_equal
        if below < np.inf:
            i = follow(right, first_equal[i], 0)
        return (below, i) if below < above or (below == above and control[i] < control[j]) else (above, j)

    def take(at: int) -> None:
        left[at + 1] = at - 1
        right[at] = at + 1

    return find, take, control


def _cloud(
    where: Space, treated: list[int], control: NDArray[np.int64], ratio: int
) -> tuple[Find, Take, NDArray[np.int64]]:
    """Search in several dimensions, or among allowed pairs only: each treated unit keeps a short list of its
    nearest free ones, written again when it runs out.
    """
    free = np.ones(len(control), dtype=bool)
    length = max(64, 8 * ratio)
    lists: dict[int, tuple[list[float], list[int]]] = {}
    place: dict[int, int] = {}

    every = np.arange(len(control))
    value, width = where.bounds[0] if where.bounds else (np.empty(0), np.inf)
    by = np.argsort(value[control], kind="stable") if where.bounds else every
    along = value[control][by] if where.bounds else value

    def within(rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Places of the units that a caliper leaves to any of `rows`."""
        if not where.bounds:
            return every
        slack = width + 1e-9 * (1 + np.abs(value[rows]).max())  # whose edge it is, the distances decide
        ends = value[rows].min() - slack, value[rows].max() + slack
        return np.sort(by[np.searchsorted(along, ends[0], "left") : np.searchsorted(along, ends[1], "right")])

    def write(rows: list[int]) -> None:
        some = within(np.array(rows))
        d = where.distances(np.array(rows), control[some])
        d[:, ~free[some]] = np.inf
        for t, row in zip(rows, d, strict=True):
            near = _first(row, length)
            lists[t], place[t] = (row[near].tolist(), some[near].tolist()), 0

    if where.bounds:  # neighbours together, so that what a caliper leaves to them is little
        treated = sorted(treated, key=value.__getitem__)
    for rows in _chunks(treated, len(control), TOGETHER if where.bounds else None):
        write(rows)

    def find(t: int) -> tuple[float, int]:
        while True:
            (distances, places), at = lists[t], place[t]
            while at < len(places) and not free[places[at]]:
                at += 1
            place[t] = at
            if at < len(places):
                return distances[at], places[at]
            if not places:
                return np.inf, -1
            write([t])

    def take(at: int) -> None:
        free[at] = False

    return find, take, control


def _first(row: NDArray[np.float64], k: int) -> NDArray[np.int64]:
    """Places of the `k` smallest finite distances, with all ties of the last, nearest first, then in order."""
    near = np.arange(len(row))
    if len(row) > k:
        near = near[row <= np.partition(row, k - 1)[k - 1]]
    near = near[np.isfinite(row[near])]
    return near[np.argsort(row[near], kind="stable")]


def _chunks(treated: list[int], columns: int, most: int | None = None) -> Iterator[list[int]]:
    """So many rows that their distances take some 30 MB, and no more than `most`."""
    step = max(1, min(4_000_000 // max(columns, 1), most or len(treated)))
    for i in range(0, len(treated), step):
        yield treated[i : i + step]


def _listed(where: Space, treated: list[int], control: NDArray[np.int64], ratio: int) -> list[Pair]:
    """With replacement: the nearest `ratio` allowed units of each."""
    found: list[Pair] = []
    for rows in _chunks(treated, len(control)):
        for t, row in zip(rows, where.distances(np.array(rows), control), strict=True):
            found += [(t, int(control[i]), float(row[i])) for i in _first(row, ratio)[:ratio]]
    return found


def _merged(where: Space, treated: list[int], control: NDArray[np.int64], ratio: int) -> list[Pair]:
    """With replacement among scores: for each, merge the stream of units below with that of units above."""
    score, width = where.point[:, 0], where.width
    up = control[np.lexsort((control, score[control]))]
    down = control[np.lexsort((control, -score[control]))]
    above, below = score[up].tolist(), score[down].tolist()
    up_rows, down_rows = up.tolist(), down.tolist()
    n = len(control)
    first_above = np.searchsorted(score[up], score[treated]).tolist()
    found: list[Pair] = []
    for t, s, j in zip(treated, score[treated].tolist(), first_above, strict=True):
        i = n - j  # the units below s are the last j upwards, so those after the first n - j downwards
        for _ in range(ratio):
            down_by = s - below[i] if i < n else np.inf
            up_by = above[j] - s if j < n else np.inf
            d = min(down_by, up_by)
            if d > width or d == np.inf:
                break
            if down_by < up_by or (down_by == up_by and down_rows[i] < up_rows[j]):
                found.append((t, down_rows[i], d))
                i += 1
            else:
                found.append((t, up_rows[j], d))
                j += 1
    return found
