"""What the two-way estimators share: columns of a sample, by level where it has levels, and the terms they end in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from biglocal.estimators._design import check_design, wald
from biglocal.estimators._within import codes
from biglocal.model import Inapplicable, Sample, Term

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

STAGGERED = "Starts are staggered: two-way fixed effects then also compare early with late starters."


@dataclass(frozen=True, slots=True)
class Design:
    """The regressors of a two-way model: `columns` name -> (n,), treatment first, one for each level (`d0`, `d1`, ..);
    `fixed` name -> (n,) codes of units and times, within levels where there are levels."""

    columns: dict[str, NDArray[np.float64]]
    fixed: dict[str, NDArray[np.int64]]
    caution: str


def two_way(sample: Sample, other: tuple[str, ...] = ()) -> Design:
    """The two-way design of a sample: d, and the covariates but those in `other`, which have another part to play.

    Covariates that are not numbers become indicators, the first value in sorted order left out. Raises
    `Inapplicable` as `check_design` does, in each level, and for a covariate with missing values.
    """
    frame = sample.frame
    check_design(frame)
    d = frame["d"].to_numpy(dtype=float)
    extra = regressors(frame, tuple(c for c in sample.covariates if c not in other))
    caution = STAGGERED if frame["first_treated"].nunique() > 1 else ""
    if not sample.levels:
        return Design({"d0": d, **extra}, {"unit": codes(frame["unit"]), "time": codes(frame["time"])}, caution)
    level = frame["level"].to_numpy()
    where = {name: level == name for name in sample.levels}
    for rows in where.values():
        check_design(frame[rows])
    columns = {f"d{i}": d * rows for i, rows in enumerate(where.values())}
    columns |= {f"{n} in {name}": v * rows for n, v in extra.items() for name, rows in where.items()}
    fixed = {"unit": codes(frame["unit"], frame["level"]), "time": codes(frame["time"], frame["level"])}
    return Design(columns, fixed, caution)


def regressors(frame: pd.DataFrame, names: tuple[str, ...]) -> dict[str, NDArray[np.float64]]:
    """Numbers as they are, other columns as indicators; refuses missing values with their number."""
    out: dict[str, NDArray[np.float64]] = {}
    for name in names:
        values = column(frame, name)
        missing = int(values.isna().sum())
        if missing:
            raise Inapplicable(f"the covariate {name} is missing in {missing} rows: fill it in or leave them out.")
        if values.dtype.kind in "iufb":
            out[name] = values.to_numpy(dtype=float)
        else:
            text = values.astype(str)
            out |= {f"{name}: {v}": (text == v).to_numpy(dtype=float) for v in sorted(text.unique())[1:]}
    return out


def column(frame: pd.DataFrame, name: str) -> pd.Series:
    """A column of the sample, or the reason why there is none."""
    if name not in frame:
        raise Inapplicable(f"the sample has no column {name}: name it among the covariates, so that it comes along.")
    return frame[name]


def effects(sample: Sample, beta: NDArray[np.float64], vcov: NDArray[np.float64], df: float) -> tuple[Term, ...]:
    """`att` from the first coefficients, by level where there are levels, then the test of their `difference`."""
    frame = sample.frame
    terms = []
    for i, level in enumerate(sample.levels or ("",)):
        rows = frame[frame["level"] == level] if sample.levels else frame
        terms.append(term("att", beta[i], np.sqrt(vcov[i, i]), df, rows, level))
    return (*terms, *difference(beta, vcov, len(sample.levels), df))


def term(name: str, estimate: float, error: float, df: float, rows: pd.DataFrame, level: str = "") -> Term:
    """A term with the treated units and clusters behind it: those of `rows`."""
    treated = rows[rows["treated"] == 1]
    n, g = int(treated["unit"].nunique()), int(treated["cluster"].nunique())
    return Term(name, float(estimate), float(error), df, level=level, n_treated=n, n_treated_clusters=g)


def difference(beta: NDArray[np.float64], vcov: NDArray[np.float64], levels: int, df: float) -> tuple[Term, ...]:
    """Joint test that the first `levels` coefficients are equal; for two levels also the size of the difference."""
    if levels < 2:
        return ()
    contrast = np.zeros((levels - 1, len(beta)))
    contrast[:, 0] = -1
    contrast[np.arange(levels - 1), np.arange(1, levels)] = 1
    if levels == 2:
        return (Term("difference", float(contrast[0] @ beta), float(np.sqrt(contrast[0] @ vcov @ contrast[0])), df),)
    return (Term("difference", float("nan"), df=df, statistic=wald(beta, vcov, contrast), df_num=levels - 1),)


def counts(frame: pd.DataFrame) -> dict[str, int]:
    """The counts of units that every fit carries."""
    return {
        "n_units": int(frame["unit"].nunique()),
        "n_treated": int(frame.loc[frame["treated"] == 1, "unit"].nunique()),
    }
