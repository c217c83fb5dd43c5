"""Who was lost, and what it could do: comparison of those who stayed and left, and bounds that assume nothing.

`stayed`: the first answer of those who answered a later wave less that of those who did not. Nought does not show that
the missing would have answered alike; something shows that they are not missing at random with regard to all
else.

`lowest`, `highest`: the mean change were every missing answer the lowest, or the highest, there can be (Manski 1990,
Am Econ Rev 80:319; Horowitz and Manski 2000, J Am Stat Assoc 95:77). `tipping`: by how much, in the unit of the
outcome, the unseen would have to have changed less than the seen for the mean change to be nought (a pattern mixture
with one parameter, Little 1994, Biometrika 81:471).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from biglocal.estimators import CONVENTION, correction
from biglocal.estimators._design import wald
from biglocal.estimators._effects import regressors
from biglocal.estimators._waves import weighed
from biglocal.estimators._within import codes, least_squares, sandwich
from biglocal.model import Fit, Inapplicable, Sample, Term

if TYPE_CHECKING:
    import pandas as pd


def estimate(sample: Sample, *, low: float | None = None, high: float | None = None) -> Fit:
    """Terms by wave (period) after the first, of persons who answered in the first; a row is a person and wave, y
    missing (or no row) where there is no answer.

    `answered`: the share that did; `stayed` (level is '' for the first answer, else the covariate, an indicator as
    `name: value`), a difference of means with clustered errors; `stayed_joint`, all of these at once; `change`,
    of those who answered, unadjusted; `lowest` and `highest`, bounds of everyone's; `tipping`. All but `stayed` and
    `stayed_joint` are descriptive; `lowest`, `highest` have the standard error of their sample mean. `low`, `high`:
    the ends of the outcome's scale; where not said, the extremes seen, and the caution says so.

    Raises `Inapplicable` where nobody answered the first wave, all or none of them a later one, one cluster, missing
    covariates, answers outside `low` to `high`.
    """
    frame = weighed(sample).frame
    seen = frame[frame["y"].notna()].sort_values(["unit", "time"], kind="stable")
    if len(seen) == 0:
        raise Inapplicable("nobody answered.")
    if seen.duplicated(["unit", "time"]).any():
        raise Inapplicable("a person has two rows in a wave: keep one.")
    waves = sorted(int(t) for t in frame["time"].unique())
    if len(waves) < 2:
        raise Inapplicable(f"one wave ({waves[0]}): nobody can be lost.")
    first = seen[seen["time"] == waves[0]].set_index("unit")
    if len(first) == 0:
        raise Inapplicable(f"nobody answered in {waves[0]}.")
    if first["cluster"].nunique() < 2:
        raise Inapplicable("1 cluster: clustered errors need at least two.")
    ends, caution = _ends(seen["y"], low, high)
    known = {"": first["y"].to_numpy(dtype=float), **regressors(first, sample.covariates)}
    terms: list[Term] = []
    for t in waves[1:]:
        later = seen[seen["time"] == t].set_index("unit")["y"].reindex(first.index).to_numpy(dtype=float)
        terms += _wave(t, first, later, known, ends)
    return Fit(
        tuple(terms),
        n_obs=len(seen),
        n_units=len(first),
        n_treated=len(first),
        n_clusters=int(first["cluster"].nunique()),
        caution=" ".join(filter(None, [sample.caution, caution])),
        facts={"convention": CONVENTION, "low": ends[0], "high": ends[1]},
    )


def _ends(y: pd.Series, low: float | None, high: float | None) -> tuple[tuple[float, float], str]:
    least, most = float(y.min()), float(y.max())
    bottom, top = least if low is None else float(low), most if high is None else float(high)
    outside = int(((y < bottom) | (y > top)).sum())
    if outside:
        raise Inapplicable(f"{outside} answers are outside {bottom:g} to {top:g} (seen {least:g} to {most:g}).")
    if bottom == top:
        raise Inapplicable(f"the outcome is constant (always {bottom:g}).")
    said = f"Bounds take the extremes seen, {bottom:g} and {top:g}, as the ends of the scale."
    return (bottom, top), said if low is None or high is None else ""


def _wave(
    t: int, first: pd.DataFrame, later: np.ndarray, known: dict[str, np.ndarray], ends: tuple[float, float]
) -> list[Term]:
    stayed = np.isfinite(later)
    if stayed.all() or not stayed.any():
        raise Inapplicable(
            f"wave {t}: {'all' if stayed.all() else 'none'} of those who answered first did: no comparison."
        )
    weight, area = first["weight"].to_numpy(dtype=float), codes(first["cluster"])
    start = known[""]
    n, g = int(stayed.sum()), int(first.loc[stayed, "cluster"].nunique())

    def mean(name: str, values: np.ndarray, rows: np.ndarray, *, level: str = "") -> Term:
        w, group = weight[rows], codes(area[rows])
        clusters = int(group.max()) + 1
        found = least_squares(values[rows], {"mean": np.ones(len(w))}, [], w)
        error = float("nan")
        if clusters > 1:
            factor = correction(len(w), 1, clusters)
            error = float(np.sqrt(sandwich(found, w * found.residual, group)[0, 0] * factor))
        return Term(name, float(found.beta[0]), error, clusters - 1, t, level, n_treated=n, tested=False)

    everyone = np.ones(len(start), dtype=bool)
    share = float(weight @ stayed / weight.sum())
    change = np.where(stayed, later - start, 0.0)
    out = [mean("answered", stayed.astype(float), everyone), mean("change", change, stayed)]
    out += _stayed(t, stayed, known, weight, area, n, g)
    for name, end in (("lowest", ends[0]), ("highest", ends[1])):
        out.append(mean(name, np.where(stayed, later, end) - start, everyone))
    out.append(Term("tipping", out[1].estimate / (1 - share), period=t, n_treated=n, tested=False))
    return out


def _stayed(
    t: int, stayed: np.ndarray, known: dict[str, np.ndarray], weight: np.ndarray, area: np.ndarray, n: int, g: int
) -> list[Term]:
    """Differences of means, each a regression on having stayed, with one covariance of all for the joint test."""
    columns = {"one": np.ones(len(stayed)), "stayed": stayed.astype(float)}
    everyone, fewer = len(stayed), min(n, len(stayed) - n)
    clusters = int(area.max()) + 1
    factor = correction(len(stayed), 2, clusters)
    terms, gaps, parts = [], [], []
    for name, values in known.items():
        if np.ptp(values) == 0:
            continue
        found = least_squares(values, columns, [], weight)
        scores = (found.columns * (weight * found.residual)[:, None]) @ found.inverse[:, 1]
        parts.append(np.bincount(area, scores, minlength=clusters))
        gaps.append(float(found.beta[1]))
        error = float(np.sqrt(parts[-1] @ parts[-1] * factor))
        terms.append(
            Term(
                "stayed", gaps[-1], error, clusters - 1, t, name, n_treated=n, n_treated_clusters=g,
                n_persons=everyone, n_least=fewer,
            )
        )  # fmt: skip
    if len(terms) > 1 and clusters > len(terms):
        half = np.column_stack(parts)
        vcov = np.asarray(half.T @ half * factor, dtype=np.float64)
        statistic = wald(np.array(gaps), vcov, np.eye(len(gaps)))
        terms.append(
            Term(
                "stayed_joint", float("nan"), df=clusters - 1, period=t, statistic=statistic, df_num=len(gaps),
                n_persons=everyone, n_least=fewer,
            )
        )  # fmt: skip
    return terms
