"""Difference-in-differences by logit, for an outcome of two values, its effect on the scale of the outcome.

P(y = 1) = L(a_group + b_t + c d + x'c). Trends are parallel in log odds, which keeps shares between 0 and 1, where
the linear model has them parallel in shares. The effect on the treated is then not the interaction's marginal
effect but the mean, over treated rows, of L(.) less L(. - c) (Puhani 2012, Econ Letters 115:85; Ai and Norton
2003, Econ Letters 80:123). Its error is by the delta method, clustered, given the treated rows' covariates.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from biglocal.estimators import CONVENTION, correction, counted
from biglocal.estimators._effects import STAGGERED, column, counts, effects, two_way
from biglocal.estimators._glm import Glm, glm, informative
from biglocal.estimators._within import checked, codes, projector, sandwich, sums
from biglocal.model import Fit, Inapplicable, Sample

if TYPE_CHECKING:
    from numpy.typing import NDArray

FEW = 50  # rows a group: with fewer, the bias from estimating each group's effect is no longer small


def estimate(sample: Sample, *, group: str = "treated") -> Fit:
    """Terms `att`, in the unit of the outcome (where it is 0 or 100, percentage points), and `log_odds`.

    By level where the sample has levels, with the `difference` of the ATTs. `group` names the column whose
    values have an effect each: `treated` (two groups), `cluster` or `unit`. Groups and years in which the
    outcome never or always occurs leave first; `facts["without_variation"]` says how many rows.

    Raises `Inapplicable` as `twfe` does, for an outcome that has not two values, 0 and another, and where the
    outcome is predicted perfectly.
    """
    frame = sample.frame
    other = () if group in ("treated", "cluster", "unit") else (group,)
    two_way(sample, other)  # refuses what has no treated, comparison, before or after
    checked(frame)
    weighed = frame["weight"].to_numpy() > 0
    frame = frame[weighed] if not weighed.all() else frame
    values = np.unique(frame["y"].to_numpy(dtype=float))
    if len(values) != 2 or values[0] != 0:
        seen = ", ".join(f"{v:g}" for v in values[:5])
        raise Inapplicable(f"a logit needs an outcome of two values, 0 and another; it has {len(values)}: {seen}.")
    top = float(values[1])
    keep = informative(frame["y"].to_numpy(dtype=float), _fixed(replace(sample, frame=frame), group), top)
    rows = frame if keep.all() else frame[keep]
    kept = replace(sample, frame=rows)
    model = two_way(kept, other)
    fixed = _fixed(kept, group)
    y, weight, cluster, _ = checked(rows)
    n_clusters = int(cluster.max()) + 1
    fit = glm(y / top, model.columns, fixed, weight, "logit")
    factor = correction(len(y), counted(len(model.columns), fixed, cluster), n_clusters)
    df = n_clusters - 1
    att, influence = _atts(kept, fit, fixed, weight)
    half = top * np.column_stack([sums(cluster, i) for i in influence])
    terms = effects(kept, top * att, np.asarray(half.T @ half * factor), df)
    vcov = sandwich(fit.solution, fit.scores, cluster) * factor
    odds = [
        replace(t, name="log_odds", estimate=float(fit.beta[i]), std_error=float(np.sqrt(vcov[i, i])), tested=False)
        for i, t in enumerate(t for t in terms if t.name == "att")
    ]
    cautions = [sample.caution]
    if model.caution == STAGGERED:
        cautions.append("Starts are staggered: early starters are compared with late ones too.")
    size = len(y) / (int(fixed[0].max()) + 1)
    if size < FEW:
        cautions.append(
            f"{size:.0f} rows a group: the effects of so small groups bias a logit (incidental parameters)."
        )
    return Fit(
        (*terms, *odds),
        n_obs=len(y),
        **counts(rows),
        n_clusters=n_clusters,
        caution=" ".join(filter(None, cautions)),
        facts={"convention": CONVENTION, "without_variation": int((~keep).sum())},
    )


def _fixed(sample: Sample, group: str) -> list[NDArray[np.int64]]:
    """Codes of groups and of years, within levels."""
    frame = sample.frame
    inside = (frame["level"],) if sample.levels else ()
    return [codes(column(frame, group), *inside), codes(frame["time"], *inside)]


def _atts(
    sample: Sample, fit: Glm, fixed: list[NDArray[np.int64]], weight: NDArray[np.float64]
) -> tuple[NDArray[np.float64], list[NDArray[np.float64]]]:
    """The mean effect on treated rows' probability in each level, and each row's influence on it (n,).

    The gradient of the mean with regard to all parameters, fixed effects among them, is Z'q plus a part for
    the treatment's coefficient alone. Its product with the inverse information and a row of Z is a fitted value
    of the weighted regression of q / working on Z, so no matrix of the size of the fixed effects is needed.
    """
    frame, solution = sample.frame, fit.solution
    now = frame["d"].to_numpy() == 1
    project = projector(fixed, fit.working)
    means, influence = [], []
    for i, level in enumerate(sample.levels or ("",)):
        rows = now & (frame["level"].to_numpy() == level) if sample.levels else now
        share = np.where(rows, weight, 0.0) / weight[rows].sum()
        without = 1 / (1 + np.exp(-(fit.linear - fit.beta[i])))
        slope = without * (1 - without)
        target = share * (fit.mean * (1 - fit.mean) - slope) / fit.working
        left = project(target)
        along = solution.inverse @ (solution.columns.T @ (fit.working * left))
        along[:] += solution.inverse[:, i] * float(share @ slope)
        means.append(float(share @ (fit.mean - without)))
        influence.append(fit.scores * (target - left + solution.columns @ along))
    return np.asarray(means), influence
