"""What each unit's outcome did from before to after a start, and against whom it is held.

A cell is a matched set, or without sets the whole sample (of a level), at one date of start: its treated units
that start then, and its comparison units, whose change is cut at the same date.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from biglocal.estimators._within import codes
from biglocal.model import Inapplicable

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Changes:
    """A row for each unit in each cell it belongs to; never-treated units without sets are in a cell a start.

    `change` (m,): the weighted mean of the outcome after the start less that before. `weight` (m,): the unit's
    weight in a period, on average. `unit`, `cluster`, `cell`, `start`, `level` (m,): codes from 0. `treated` (m,)
    bool. `left_out`: treated units without a period on both sides or without a comparison unit that has them.
    """

    change: NDArray[np.float64]
    weight: NDArray[np.float64]
    treated: NDArray[np.bool_]
    unit: NDArray[np.int64]
    cluster: NDArray[np.int64]
    cell: NDArray[np.int64]
    start: NDArray[np.int64]
    level: NDArray[np.int64]
    matched: bool
    left_out: int

    def caution(self) -> str:
        """What is to be said of treated units left out, '' for none."""
        if not self.left_out:
            return ""
        return (
            f"{self.left_out} treated units are left out: no period on one side of their start, or no comparison "
            f"unit that has both."
        )

    def cell_means(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Of each cell: the weight of its treated units, their mean change, and that of its comparison units."""
        own = np.where(self.treated, self.weight, 0.0)
        rival = np.where(self.treated, 0.0, self.weight)
        w1 = np.asarray(np.bincount(self.cell, own), dtype=np.float64)
        w0 = np.bincount(self.cell, rival)
        return w1, np.bincount(self.cell, own * self.change) / w1, np.bincount(self.cell, rival * self.change) / w0


def changes(frame: pd.DataFrame, level: NDArray[np.int64] | None = None) -> Changes:
    """The changes of a sample's frame; `level` (n,) codes from 0 of each row's level, or None for one level.

    Sets are read from the frame's column `set`, where it is there: -1 or missing for none. Raises `Inapplicable`
    for weights that are all zero or negative, a constant outcome, a unit whose cluster, set or start varies, and
    where no treated unit has a period on both sides of its start and a comparison unit that has them too.
    """
    w = frame["weight"].to_numpy(dtype=float)
    if w.min() < 0:
        raise Inapplicable(f"{int((w < 0).sum())} weights are negative (the least is {w.min():g}).")
    if not (w > 0).any():
        raise Inapplicable("all weights are zero.")
    kept = w > 0
    frame, w = frame[kept], w[kept]
    y = frame["y"].to_numpy(dtype=float)
    if np.ptp(y) == 0:
        raise Inapplicable(f"the outcome is constant (always {y[0]:g}).")
    row_level = np.zeros(len(y), dtype=np.int64) if level is None else level[kept]
    unit = codes(frame["unit"], row_level)
    time = frame["time"].to_numpy()
    own_level = _of_unit(unit, row_level, "level")
    cluster = _of_unit(unit, codes(frame["cluster"]), "cluster")
    treated = _of_unit(unit, (frame["treated"] == 1).to_numpy(), "treatment")
    first = np.where(frame["treated"] == 1, frame["first_treated"].to_numpy(dtype=float), np.inf)
    start = _of_unit(unit, first, "start")
    name, in_set, matched = _sets(frame, unit)
    group = codes(name, own_level) if matched else own_level
    n = len(start)
    # a unit seen twice in a period (two respondents) weighs both; one seen in fewer periods weighs no less
    when, periods = codes(frame["time"]), np.zeros(n)
    seen = np.unique(unit * (int(when.max()) + 1) + when) // (int(when.max()) + 1)
    np.add.at(periods, seen, 1)
    weight = np.bincount(unit, w, n) / periods

    parts: list[tuple[NDArray[np.int64], NDArray[np.float64], int]] = []
    wy = w * y
    starts = np.unique(start[treated])
    for i, s in enumerate(starts.tolist()):
        after = time >= s
        w1, y1 = np.bincount(unit, w * after, n), np.bincount(unit, wy * after, n)
        w0, y0 = np.bincount(unit, w * ~after, n), np.bincount(unit, wy * ~after, n)
        both = (w1 > 0) & (w0 > 0) & in_set
        asked = treated & both & (start == s)
        rival = ~treated & both
        size = int(group.max()) + 1
        whole = (np.bincount(group[asked], minlength=size) > 0) & (np.bincount(group[rival], minlength=size) > 0)
        rows = np.flatnonzero((asked | rival) & whole[group])
        parts.append((rows, y1[rows] / w1[rows] - y0[rows] / w0[rows], i))
    rows = np.concatenate([r for r, _, _ in parts])
    if not len(rows):
        raise Inapplicable(
            "no treated unit has a period before and after its start and a comparison unit that has both too."
        )
    when_started = np.concatenate([np.full(len(r), i, dtype=np.int64) for r, _, i in parts])
    return Changes(
        change=np.concatenate([c for _, c, _ in parts]),
        weight=weight[rows],
        treated=treated[rows],
        unit=rows,
        cluster=cluster[rows],
        cell=codes(group[rows], when_started),
        start=when_started,
        level=own_level[rows],
        matched=matched,
        left_out=int(treated.sum() - treated[rows].sum()),
    )


def _of_unit(unit: NDArray[np.int64], values: NDArray[Any], what: str) -> NDArray[Any]:
    """One value a unit (n_units,), of a column that is the same in all its rows."""
    out = np.empty(int(unit.max()) + 1, dtype=values.dtype)
    out[unit] = values
    varies = out[unit] != values
    if varies.any():
        raise Inapplicable(f"{len(np.unique(unit[varies]))} units have more than one {what}; it must be one a unit.")
    return out


def _sets(frame: pd.DataFrame, unit: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_], bool]:
    """Of each unit: the code of its set and whether it is in one (True throughout without sets); whether there are."""
    everyone = np.ones(int(unit.max()) + 1, dtype=bool)
    if "set" in frame:
        inside = (frame["set"].notna() & (frame["set"] != -1)).to_numpy()
        if inside.any():
            name = codes(frame["set"].where(inside))
            return _of_unit(unit, name, "set"), _of_unit(unit, inside, "set"), True
    return np.zeros(len(everyone), dtype=np.int64), everyone, False
