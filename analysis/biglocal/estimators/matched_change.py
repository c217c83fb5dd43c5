"""Matched difference in changes: what treated units' outcomes did less what their own comparison units' did.

No model and no iteration, so it is what a regression on the same sample must agree with. Each matched set gives a
difference in changes; the ATT is their mean, weighted by the treated units (Heckman, Ichimura and Todd 1997, Rev
Econ Stud 64:605, for sets). Without sets the treated units of each date of start are held against
all never-treated units, weighted: with one start and a balanced panel that is two-way fixed effects, exactly.

With several starts each set is cut at its own treated unit's start, so early starters are never compared with
late ones. A change is over all years there are: effects that grow weigh as the panel's length has it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from biglocal.estimators import correction
from biglocal.estimators._changes import changes
from biglocal.estimators._design import check_design, wald
from biglocal.estimators._within import codes
from biglocal.model import Fit, Inapplicable, Sample, Term

if TYPE_CHECKING:
    from numpy.typing import NDArray


def estimate(sample: Sample) -> Fit:
    """ATT (term `att`), by level where the sample has levels, then with their `difference`.

    Sets come from the frame's column `set` (rows with the same value are one set, -1 is none), where it is there.
    Errors are clustered: the influence of unit i in cell k, started in s, is w_i / W (change_i - C_s - ATT) if it
    is treated, and -(W_k / W) w_i / V_k (change_i - C_s) if not, where W sums the treated weights in all, W_k those
    of the cell, V_k its comparison weights, and C_s is the mean change of comparison units at that start. Where
    sets lie within clusters this is the clustered error of the mean of the sets' differences.

    Raises `Inapplicable` as `twfe.estimate` does, for covariates (a model-free estimate has none), and where no
    treated unit has periods on both sides and a comparison unit.
    """
    frame = sample.frame
    check_design(frame)
    if sample.covariates:
        raise Inapplicable(
            f"a matched difference in changes takes no covariates (asked for {', '.join(sample.covariates)}): "
            f"match on them, or use twfe."
        )
    names = sample.levels or ("",)
    level = None
    if sample.levels:
        of_row = frame["level"].to_numpy()
        for name in names:
            check_design(frame[of_row == name])
        frame = frame[np.isin(of_row, names)]
        level = np.asarray([names.index(v) for v in frame["level"]], dtype=np.int64)
    made = changes(frame, level)
    treated_weight, of_treated, of_comparison = made.cell_means()
    level_of_cell = np.empty(len(treated_weight), dtype=np.int64)
    level_of_cell[made.cell] = made.level
    total = np.bincount(level_of_cell, treated_weight, len(names))
    for name, size in zip(names, total, strict=True):
        if size == 0:
            raise Inapplicable(f"level {name}: no treated unit has periods on both sides and a comparison unit.")
    att = np.bincount(level_of_cell, treated_weight * (of_treated - of_comparison), len(names)) / total

    share = _shares(made.cell, made.treated, made.weight, treated_weight) / total[made.level]
    strand = codes(made.level, made.start)
    mean = np.bincount(strand, np.where(made.treated, 0, share * made.change)) / np.bincount(
        strand, np.where(made.treated, 0, share)
    )
    influence = np.where(made.treated, share, -share) * (
        made.change - mean[strand] - np.where(made.treated, att[made.level], 0)
    )
    cluster = np.unique(made.cluster, return_inverse=True)[1]
    clusters, n_units = int(cluster.max()) + 1, len(np.unique(made.unit))
    sums = np.bincount(cluster * len(names) + made.level, influence, clusters * len(names)).reshape(clusters, -1)
    vcov = np.asarray(sums.T @ sums * correction(n_units, 2 * len(names), clusters), dtype=np.float64)

    terms = []
    for i, name in enumerate(names):
        mine = made.treated & (made.level == i)
        seen = len(np.unique(made.cluster[mine]))
        if seen < 2:
            raise Inapplicable(f"{seen} treated cluster{f' in {name}' if name else ''} with periods on both sides.")
        terms.append(
            Term(
                "att",
                float(att[i]),
                float(np.sqrt(vcov[i, i])),
                clusters - 1,
                level=name,
                n_treated=len(np.unique(made.unit[mine])),
                n_treated_clusters=seen,
            )
        )
    if len(names) > 1:
        terms.append(_difference(att, vcov, clusters - 1))
    return Fit(
        tuple(terms),
        n_obs=len(frame),
        n_units=n_units,
        n_treated=len(np.unique(made.unit[made.treated])),
        n_clusters=clusters,
        caution=" ".join(filter(None, [sample.caution, made.caution()])),
        facts={
            "convention": "CR1 on units' changes: G/(G-1) x (N-1)/(N-2), N units; t(G-1)",
            "sets": len(treated_weight) if made.matched else 0,
        },
    )


def _shares(
    cell: NDArray[np.int64], treated: NDArray[np.bool_], weight: NDArray[np.float64], of_cell: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Each unit's weight, comparison units' scaled so that they weigh in their cell as much as its treated."""
    comparison = np.bincount(cell, np.where(treated, 0, weight))
    return np.where(treated, weight, weight * (of_cell / comparison)[cell])


def _difference(att: NDArray[np.float64], vcov: NDArray[np.float64], df: int) -> Term:
    """Joint test that all levels have the same effect; for two levels the size of the difference."""
    contrast = np.column_stack([-np.ones(len(att) - 1), np.eye(len(att) - 1)])
    if len(att) == 2:
        error = float(np.sqrt(contrast[0] @ vcov @ contrast[0]))
        return Term("difference", float(att[1] - att[0]), error, df)
    statistic = wald(att, vcov, contrast)
    return Term("difference", float("nan"), df=df, statistic=statistic, df_num=len(contrast))
