"""Weighted least squares with fixed effects in numpy: exact, and without anything to import or compile.

With two fixed effects the projection needs no iteration. The levels of the larger are partialled out by their
weighted means; what is left of the others is a system with as many unknowns as these have levels (twelve
years), the Schur complement of the normal equations, solved once for all columns. Frisch and Waugh (1933,
Econometrica 1:387) and Lovell (1963, JASA 58:993): coefficients, residuals and scores of the regression on
the projected columns are those of the regression with every dummy in it.

pyfixest (`_fixest.py`) is the referee in the tests, and one of three in the report (`twins.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from biglocal.estimators import correction, counted
from biglocal.estimators._design import Linear
from biglocal.model import Inapplicable

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray
    from scipy.sparse import csr_array

DENSE = 50_000_000  # cells of the table of larger by other levels that is kept dense: 400 MB
TOLERANCE = 1e-5  # a column is collinear when less than this share of its length is left (squared: above rounding)


@dataclass(frozen=True, slots=True)
class Solution:
    """Least squares on projected columns: `beta` (k,), `residual` (n,), `columns` (n, k) as projected,
    `inverse` (k, k) of their weighted cross-products."""

    beta: NDArray[np.float64]
    residual: NDArray[np.float64]
    columns: NDArray[np.float64]
    inverse: NDArray[np.float64]


def linear(frame: pd.DataFrame, columns: dict[str, NDArray[np.float64]], fixed: dict[str, NDArray[np.int64]]) -> Linear:
    """Weighted least squares of `frame.y` on `columns` and fixed effects, clustered on `frame.cluster`.

    As `_fixest.linear`, for the same input and with the same answer. Rows of weight zero leave first and are
    not counted. Raises `Inapplicable` for fewer than two clusters, a constant outcome, weights that are all
    zero or negative, missing values, and columns that are collinear with the rest (named).
    """
    y, weight, cluster, keep = checked(frame)
    x = {n: c if keep is None else c[keep] for n, c in columns.items()}
    f = [c if keep is None else codes(c[keep]) for c in fixed.values()]
    found = least_squares(y, x, f, weight)
    n_clusters = int(cluster.max()) + 1
    k = counted(len(columns), f, cluster)
    vcov = sandwich(found, weight * found.residual, cluster) * correction(len(y), k, n_clusters)
    return Linear(tuple(columns), found.beta, vcov, len(y), n_clusters)


def checked(
    frame: pd.DataFrame,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64], NDArray[np.bool_] | None]:
    """Outcome, weights, cluster codes, and which rows have weight (None for all). Refuses as `linear` says."""
    y, weight = frame["y"].to_numpy(dtype=float), frame["weight"].to_numpy(dtype=float)
    cluster = frame["cluster"]
    if len(y) == 0:
        raise Inapplicable("no rows.")
    if weight.min() < 0:
        raise Inapplicable(f"{int((weight < 0).sum())} weights are negative (the least is {weight.min():g}).")
    keep = weight > 0
    if not keep.any():
        raise Inapplicable("all weights are zero.")
    some = None if keep.all() else keep
    if some is not None:
        y, weight, cluster = y[keep], weight[keep], cluster[keep]
    g = codes(cluster)
    if g.max() == 0:
        raise Inapplicable("1 cluster: clustered errors need at least two.")
    if np.ptp(y) == 0:
        raise Inapplicable(f"the outcome is constant (always {y[0]:g}).")
    return y, weight, g, some


def least_squares(
    y: NDArray[np.float64],
    columns: dict[str, NDArray[np.float64]],
    fixed: list[NDArray[np.int64]],
    weight: NDArray[np.float64],
) -> Solution:
    """Weighted least squares of `y` (n,) on `columns` and the levels of `fixed` ((n,) codes from 0).

    No constant is added. `weight` > 0. Raises `Inapplicable` where a column has missing values, or is collinear
    with the fixed effects or with columns before it (named).
    """
    project = projector(fixed, weight)
    n, k = len(y), len(columns)
    root = np.sqrt(weight)
    # one column after another, so that no more than one copy of the data is ever alive; the outcome is the last
    x = np.empty((n, k + 1), order="F")
    length = np.empty(k + 1)
    for j, column in enumerate((*columns.values(), y)):
        length[j] = np.linalg.norm(root * (column - column.mean() if fixed else column))
        np.multiply(project(column), root, out=x[:, j])
    absent = [name for name, size in zip((*columns, "the outcome"), length, strict=True) if not np.isfinite(size)]
    if absent:
        raise Inapplicable(f"missing or infinite values in {', '.join(absent)}: fill them in or leave the rows out.")
    gram = x.T @ x
    refuse_collinear(gram[:k, :k], length[:k], tuple(columns))
    # solved on columns of length one, which keeps the accuracy of columns on different scales
    scale = np.sqrt(np.diag(gram)[:k])
    inverse = np.linalg.inv(gram[:k, :k] / np.outer(scale, scale)) / np.outer(scale, scale)
    beta = inverse @ gram[:k, k]
    x /= root[:, None]
    residual = x[:, k] - x[:, :k] @ beta
    return Solution(beta, residual, x[:, :k], inverse)


def sandwich(found: Solution, scores: NDArray[np.float64], cluster: NDArray[np.int64]) -> NDArray[np.float64]:
    """The raw clustered covariance, without any factor: `scores` (n,) is weight times residual."""
    meat = cluster_sums(found.columns, scores, cluster)
    half = meat @ found.inverse
    return np.asarray(half.T @ half)


def cluster_sums(
    columns: NDArray[np.float64], scores: NDArray[np.float64], cluster: NDArray[np.int64]
) -> NDArray[np.float64]:
    """The sum of each column times the scores within each cluster: (G, k)."""
    return np.column_stack([sums(cluster, c * scores) for c in columns.T])


def refuse_collinear(gram: NDArray[np.float64], length: NDArray[np.float64], names: tuple[str, ...]) -> None:
    """A Cholesky factor, column by column: what is left of each after those before it, against its own length."""
    left = gram.copy()
    gone = []
    for j, name in enumerate(names):
        if not left[j, j] > (TOLERANCE * length[j]) ** 2:
            gone.append(name)
            continue
        left[j + 1 :, j + 1 :] -= np.outer(left[j + 1 :, j], left[j, j + 1 :]) / left[j, j]
    if gone:
        raise Inapplicable(f"collinear with the fixed effects or other terms: {', '.join(gone)}.")


def projector(
    fixed: list[NDArray[np.int64]], weight: NDArray[np.float64]
) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """A function from a column (n,) to its residual from the weighted regression on all levels of `fixed`.

    Memory: the levels of the largest effect times the levels of the others, dense up to `DENSE` cells.
    """
    if not fixed:
        return lambda v: v
    order = sorted(range(len(fixed)), key=lambda i: -int(fixed[i].max()))
    big, rest = fixed[order[0]], [fixed[i] for i in order[1:]]
    inverse = 1 / sums(big, weight)

    def demean(v: NDArray[np.float64]) -> NDArray[np.float64]:
        out = (sums(big, v * weight) * inverse)[big]
        return np.subtract(v, out, out=out)

    if not rest:
        return demean
    levels = [int(f.max()) + 1 for f in rest]
    table, schur = _schur(big, rest, levels, weight, inverse)
    # The system is singular by one for each set of connected levels. Scaled to a unit diagonal before its
    # pseudo-inverse is taken, so that what counts as nought does not depend on the weights' size.
    scale = 1 / np.sqrt(np.concatenate([sums(f, weight) for f in rest]))
    values, vectors = np.linalg.eigh(schur * np.outer(scale, scale))
    use = values > 1e-11
    half = scale[:, None] * vectors[:, use]
    solve = (half / values[use]) @ half.T
    ends = np.cumsum(levels)[:-1]

    def project(v: NDArray[np.float64]) -> NDArray[np.float64]:
        out = demean(v)
        weighted = out * weight
        effects = solve @ np.concatenate([sums(f, weighted) for f in rest])
        out += (table @ effects * inverse)[big]
        for f, effect in zip(rest, np.split(effects, ends), strict=True):
            out -= effect[f]
        return out

    return project


def _schur(
    big: NDArray[np.int64],
    rest: list[NDArray[np.int64]],
    levels: list[int],
    weight: NDArray[np.float64],
    inverse: NDArray[np.float64],
) -> tuple[NDArray[np.float64] | csr_array, NDArray[np.float64]]:
    """The table of weights of the largest effect by the others, and the Schur complement of the others."""

    def crossed(a: NDArray[np.int64], rows: int, b: NDArray[np.int64], columns: int) -> NDArray[np.float64]:
        return sums(a * columns + b, weight, rows * columns).reshape(rows, columns)

    others = list(zip(rest, levels, strict=True))
    inner = np.block([[crossed(f, m, g, q) for g, q in others] for f, m in others])
    if len(inverse) * sum(levels) <= DENSE:
        table = np.hstack([crossed(big, len(inverse), f, m) for f, m in others])
        return table, np.asarray(inner - table.T @ (table * inverse[:, None]))
    from scipy import sparse

    tables = [sparse.coo_array((weight, (big, f)), shape=(len(inverse), m)) for f, m in others]
    thin = sparse.csr_array(sparse.hstack(tables))
    return thin, np.asarray(inner - (thin.T @ sparse.diags_array(inverse) @ thin).toarray())


def sums(groups: NDArray[np.int64], values: NDArray[np.float64], size: int = 0) -> NDArray[np.float64]:
    """The sum of `values` (n,) within each group, for at least `size` groups."""
    return np.asarray(np.bincount(groups, values, minlength=size), dtype=np.float64)


def codes(*columns: NDArray[np.int64] | pd.Series) -> NDArray[np.int64]:
    """One integer code from 0 for each distinct combination, in sorted order (faster than sorting)."""
    out = _sorted_codes(columns[0])[0]
    for column in columns[1:]:
        more, size = _sorted_codes(column)
        out = _sorted_codes(out * size + more)[0]
    return out


def _sorted_codes(column: NDArray[np.int64] | pd.Series) -> tuple[NDArray[np.int64], int]:
    import pandas as pd

    values = column.to_numpy() if isinstance(column, pd.Series) and column.dtype.kind in "iu" else column
    if isinstance(values, np.ndarray) and values.dtype.kind in "iu" and len(values):
        low = int(values.min())
        span = int(values.max()) - low + 1
        if span <= 4 * len(values) + 1000:  # counted rather than sorted
            shifted = (values - low).astype(np.int64, copy=False)
            seen = np.zeros(span, dtype=np.int64)
            seen[shifted] = 1
            return (np.cumsum(seen) - 1)[shifted], int(seen.sum())
    found, distinct = pd.factorize(values, sort=True, use_na_sentinel=False)
    return found.astype(np.int64, copy=False), len(distinct)
