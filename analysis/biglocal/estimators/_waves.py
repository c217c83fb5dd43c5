"""Waves of a survey in which persons answer again: what the models of the residents' survey share.

The sample has y, unit (person), time (wave, a year), cluster (Big Local area), weight, level (subgroup level of the
person, '' for all), covariates, and for associations d, an exposure on any scale.

Every one of these models, called with `of="change"`, gives

    change        by wave (period) and level, against the first wave; the first wave is 0 and not tested
    difference    by wave: of two levels the later less the earlier in `sample.levels`; of more a joint test

and with `of="association"`

    association   of y with one unit of d, given wave and covariates; by level
    difference    of the associations, as above

A level has an intercept and waves of its own; covariates have one coefficient for all. `n_treated` of a term counts
the persons behind it, `n_treated_clusters` their areas. Models for two values (`mixed_logit`, `gee` with
family="logit") give these terms as log odds ratios, and beside each, with the same period and level, `odds_ratio`, its
exponential, without an error: its interval is that of the log odds ratio, the ends exponentiated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from biglocal.estimators._effects import regressors
from biglocal.estimators._within import codes
from biglocal.model import Inapplicable, Sample, Term

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

Of = Literal["change", "association"]
Test = Callable[["NDArray[np.float64]"], tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Model:
    """`columns`: name -> (n,), k of them. `wanted`: each term as it will be said, with what it is of the
    coefficients, (q, k); q is 1 but for a joint test, None for the first wave."""

    columns: dict[str, NDArray[np.float64]]
    wanted: tuple[tuple[Term, NDArray[np.float64] | None], ...]


def weighed(sample: Sample) -> Sample:
    """The sample with the rows that have weight, and an index of their own.

    Raises `Inapplicable` for no rows, and for weights that are negative, missing or all zero.
    """
    frame, weight = sample.frame, sample.frame["weight"].to_numpy(dtype=float)
    if len(frame) == 0:
        raise Inapplicable("no rows.")
    wrong = int((~(weight >= 0)).sum())
    if wrong:
        raise Inapplicable(f"{wrong} weights are negative or missing.")
    if not weight.any():
        raise Inapplicable("all weights are zero.")
    return replace(sample, frame=frame[weight > 0].reset_index(drop=True))


def refuse_unvaried(sample: Sample) -> None:
    """For an outcome of two values: refuse a wave, or wave of a level, in which all have the same one."""
    by = ["time", "level"] if sample.levels else ["time"]
    cells = sample.frame[sample.frame["level"].isin(sample.levels)] if sample.levels else sample.frame
    spread = cells.groupby(by, sort=True)["y"].agg(["min", "max", "size"])
    for key, low, high, size in zip(spread.index, spread["min"], spread["max"], spread["size"], strict=True):
        if low == high:
            where = f"wave {key[0]} of level {key[1]}" if sample.levels else f"wave {key}"
            raise Inapplicable(f"{where}: the outcome is {low:g} in all {size} rows: its log odds are not finite.")


def model(sample: Sample, of: Of, *, within: bool = False) -> Model:
    """The regressors of a sample. `within`: for a model that takes up whatever is constant within persons, so
    intercepts and covariates that are constant leave.

    Raises `Inapplicable` for no rows, missing outcomes or covariates, a wave or level without at least two
    persons, one wave only where change is asked, and an exposure that is missing or constant.
    """
    frame = sample.frame
    if of not in ("change", "association"):
        raise Inapplicable(f"of='{of}' is neither change nor association.")
    if len(frame) == 0:
        raise Inapplicable("no rows.")
    absent = int((~np.isfinite(frame["y"].to_numpy(dtype=float))).sum())
    if absent:
        raise Inapplicable(f"the outcome is missing in {absent} rows: leave them out, or use multiple_imputation.")
    levels, waves = sample.levels or ("",), sorted(int(t) for t in frame["time"].unique())
    if of == "change" and len(waves) < 2:
        raise Inapplicable(f"one wave ({waves[0]}): a change needs two.")
    inside = {k: (frame["level"] == k).to_numpy() if sample.levels else np.ones(len(frame), bool) for k in levels}
    time = frame["time"].to_numpy()
    behind = {(k, t): frame[rows & (time == t)] for k, rows in inside.items() for t in waves}
    for (k, t), rows in behind.items():
        persons = int(rows["unit"].nunique())
        if persons < 2:
            where = f"wave {t}" + (f" of level {k}" if k else "")
            raise Inapplicable(f"{where}: {persons} person{'' if persons == 1 else 's'}; leave it out, or join levels.")
    columns: dict[str, NDArray[np.float64]] = {}
    for k, rows in inside.items():
        of_level = f" of {k}" if k else ""
        if not within:
            columns[f"intercept{of_level}"] = rows.astype(float)
        for t in waves[1:]:
            columns[f"wave {t}{of_level}"] = (rows & (time == t)).astype(float)
        if of == "association":
            columns[f"exposure{of_level}"] = np.where(rows, _exposure(frame, rows, k), 0.0)
    extra = regressors(frame, sample.covariates)
    columns |= {n: v for n, v in extra.items() if not (within and _constant(frame, v))}
    return Model(columns, _wanted(levels, waves, of, list(columns), inside, behind, frame))


def _exposure(frame: pd.DataFrame, rows: NDArray[np.bool_], level: str) -> NDArray[np.float64]:
    if "d" not in frame:
        raise Inapplicable("the sample has no exposure: an association needs a column d.")
    d = frame["d"].to_numpy(dtype=float)
    missing = int((~np.isfinite(d)).sum())
    if missing:
        raise Inapplicable(f"the exposure is missing in {missing} rows: fill it in or leave them out.")
    if np.ptp(d[rows]) == 0:
        raise Inapplicable(f"the exposure is constant ({d[rows][0]:g}){f' in level {level}' if level else ''}.")
    return d


def _constant(frame: pd.DataFrame, values: NDArray[np.float64]) -> bool:
    import pandas as pd

    groups = pd.Series(values).groupby(frame["unit"].to_numpy())
    return bool((groups.max() == groups.min()).all())


def _wanted(
    levels: tuple[str, ...],
    waves: list[int],
    of: Of,
    names: list[str],
    inside: dict[str, NDArray[np.bool_]],
    behind: dict[tuple[str, int], pd.DataFrame],
    frame: pd.DataFrame,
) -> tuple[tuple[Term, NDArray[np.float64] | None], ...]:
    def row(name: str, level: str) -> NDArray[np.float64]:
        one = np.zeros((1, len(names)))
        one[0, names.index(name + (f" of {level}" if level else ""))] = 1
        return one

    def said(name: str, level: str, rows: pd.DataFrame, period: int | None = None) -> Term:
        persons, areas = int(rows["unit"].nunique()), int(rows["cluster"].nunique())
        return Term(name, 0.0, period=period, level=level, n_treated=persons, n_treated_clusters=areas)

    out: list[tuple[Term, NDArray[np.float64] | None]] = []
    if of == "association":
        out += [(said(of, k, frame[inside[k]]), row("exposure", k)) for k in levels]
        return (*out, *_gaps(levels, [row("exposure", k) for k in levels], None))
    for k in levels:
        out.append((replace(said("change", k, behind[k, waves[0]], waves[0]), tested=False), None))
        out += [(said("change", k, behind[k, t], t), row(f"wave {t}", k)) for t in waves[1:]]
    for t in waves[1:]:
        out += _gaps(levels, [row(f"wave {t}", k) for k in levels], t)
    return tuple(out)


def _gaps(
    levels: tuple[str, ...], rows: list[NDArray[np.float64]], period: int | None
) -> list[tuple[Term, NDArray[np.float64] | None]]:
    if len(levels) < 2:
        return []
    return [(Term("difference", float("nan"), period=period), np.vstack([r - rows[0] for r in rows[1:]]))]


def orthogonal(x: NDArray[np.float64], names: tuple[str, ...]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Orthonormal columns (n, k) and the triangle (k, k) that gives `x` back. Raises `Inapplicable`, naming the columns
    of which less than 1e-8 of their length is left after those before them."""
    if len(x) < len(names):
        raise Inapplicable(f"{len(x)} rows for {len(names)} coefficients.")
    q, r = np.linalg.qr(x)
    length = np.linalg.norm(x, axis=0)
    gone = [n for n, left, size in zip(names, np.abs(np.diag(r)), length, strict=True) if not left > 1e-8 * size]
    if gone:
        raise Inapplicable(f"collinear with other terms: {', '.join(gone)}.")
    return q, r


def terms(found: Model, beta: NDArray[np.float64], vcov: NDArray[np.float64], test: Test) -> tuple[Term, ...]:
    """The terms of a model from its coefficients (k,) and covariance (k, k).

    `test` gives the F statistic and the degrees of freedom of contrast @ beta = 0, for a contrast (q, k).
    """
    out = []
    for term, contrast in found.wanted:
        if contrast is None:
            out.append(term)
        elif len(contrast) > 1:
            statistic, df = test(contrast)
            out.append(replace(term, statistic=statistic, df=df, df_num=len(contrast)))
        else:
            error = float(np.sqrt((contrast @ vcov @ contrast.T)[0, 0]))
            out.append(replace(term, estimate=float((contrast @ beta)[0]), std_error=error, df=test(contrast)[1]))
    return tuple(out)


def coefficients(
    names: tuple[str, ...], beta: NDArray[np.float64], vcov: NDArray[np.float64], test: Test
) -> tuple[Term, ...]:
    """Every coefficient as a term of its own name: what the models say of a frame without a study around it."""
    rows = np.eye(len(beta))
    errors = np.sqrt(np.diag(vcov))
    return tuple(Term(n, float(beta[i]), float(errors[i]), test(rows[i : i + 1])[1]) for i, n in enumerate(names))


def ratios(given: tuple[Term, ...]) -> tuple[Term, ...]:
    """The exponential of every term but differences, as `odds_ratio`, without an error.

    A coefficient's name goes into `level`.
    """
    return tuple(
        replace(
            t,
            name="odds_ratio",
            level=t.level if t.name in ("change", "association") else t.name,
            estimate=float(np.exp(t.estimate)),
            std_error=float("nan"),
            tested=False,
        )
        for t in given
        if t.name != "difference"
    )


def people(frame: pd.DataFrame) -> dict[str, int]:
    """The counts every fit carries: all residents of a Big Local area count as treated."""
    n = int(frame["unit"].nunique())
    return {"n_units": n, "n_treated": n}


def matrix(frame: pd.DataFrame, formula: str) -> tuple[pd.Series, dict[str, NDArray[np.float64]], pd.DataFrame]:
    """Outcome, columns by name, and the rows used, of a model formula such as `y ~ wave * woman + age`.

    Wilkinson's notation as formulaic reads it. Rows with missing values in it leave. Raises `DataError` for a
    name the frame does not have, or a formula without an outcome.
    """
    from formulaic import Formula
    from formulaic.errors import FormulaicError

    from biglocal.model import DataError

    try:
        made = Formula(formula).get_model_matrix(frame.reset_index(drop=True))
        left, right = made.lhs, made.rhs
    except FormulaicError as e:
        raise DataError(f"{formula}: {e}. The frame has {', '.join(map(str, frame.columns))}.") from None
    except AttributeError:
        raise DataError(f"{formula}: no outcome. Write outcome ~ terms.") from None
    if left.shape[1] != 1:
        raise DataError(f"{formula}: the outcome has {left.shape[1]} columns. Give a number, or a 0/1 column.")
    columns = {str(n): right[n].to_numpy(dtype=float) for n in right.columns}
    return left.iloc[:, 0].astype(float), columns, frame.reset_index(drop=True).loc[right.index]


@dataclass(frozen=True, slots=True)
class Read:
    """What a formula says of a frame: `y` (n,), the columns (n,) by name, codes of unit and cluster (n,), weights
    (n,), and the rows used of the frame."""

    y: NDArray[np.float64]
    columns: dict[str, NDArray[np.float64]]
    unit: NDArray[np.int64]
    cluster: NDArray[np.int64]
    weight: NDArray[np.float64]
    rows: pd.DataFrame

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """Rows, units, treated units (all of them) and clusters, as a fit has them."""
        units = int(self.unit.max()) + 1
        return len(self.y), units, units, int(self.cluster.max()) + 1


def read(frame: pd.DataFrame, formula: str, unit: str, cluster: str | None, weight: str | None) -> Read:
    """`matrix` with the columns that are named: the cluster is the unit, and weights are 1, where not said."""
    y, columns, rows = matrix(frame, formula)
    who = codes(rows[unit])
    return Read(
        y.to_numpy(dtype=float),
        columns,
        who,
        codes(rows[cluster]) if cluster else who,
        np.asarray(rows[weight], dtype=np.float64) if weight else np.ones(len(rows)),
        rows,
    )
