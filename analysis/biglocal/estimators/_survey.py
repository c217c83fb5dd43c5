"""Design-based (linearised) errors: clusters drawn within strata, with or without a finite-population correction.

The variance of a total is that of the totals of the first-stage clusters, about their stratum's mean, in each
stratum n/(n-1) (1 - n/N); everything else is a total of influence functions (Binder 1983, Int Stat Rev 51:279;
Lumley 2004, J Stat Softw 9(8)). Held against R's survey.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from biglocal.estimators._glm import glm
from biglocal.estimators._within import cluster_sums, codes, least_squares, sums
from biglocal.model import Inapplicable

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Design:
    """How the rows were drawn: `weight` (n,), `cluster` (n,) codes of first-stage clusters, `stratum` (G,) code of
    each cluster's stratum, `size` (G,) clusters its stratum has in the population (infinite without correction)."""

    weight: NDArray[np.float64]
    cluster: NDArray[np.int64]
    stratum: NDArray[np.int64]
    size: NDArray[np.float64]

    @property
    def df(self) -> int:
        """Degrees of freedom: clusters less strata."""
        return len(self.stratum) - int(self.stratum.max()) - 1


def design(
    weight: NDArray[np.float64],
    cluster: pd.Series | NDArray[np.int64],
    stratum: pd.Series | NDArray[np.int64] | None = None,
    size: NDArray[np.float64] | None = None,
) -> Design:
    """A design from columns of rows; clusters are nested in strata, so the same code in two strata is two clusters.

    Raises `Inapplicable` where a stratum has one cluster, from which no variance can be had.
    """
    strata = np.zeros(len(weight), dtype=np.int64) if stratum is None else codes(stratum)
    groups = codes(strata, codes(cluster))
    n = int(groups.max()) + 1
    of_group, population = np.empty(n, dtype=np.int64), np.full(n, np.inf)
    of_group[groups] = strata
    if size is not None:
        population[groups] = size
    single = int((np.bincount(of_group) == 1).sum())
    if single:
        raise Inapplicable(f"{single} strata have one cluster: merge each with a stratum like it.")
    return Design(weight, groups, of_group, population)


def covariance(
    totals: NDArray[np.float64], stratum: NDArray[np.int64], size: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The covariance (k, k) of a total, from its parts by cluster (G, k)."""
    n = np.bincount(stratum)[stratum].astype(float)
    mean = cluster_sums(totals, np.ones(len(n)), stratum)[stratum] / n[:, None]
    centred = (totals - mean) * np.sqrt(n / (n - 1) * (1 - n / size))[:, None]
    return np.asarray(centred.T @ centred)


def total(y: NDArray[np.float64], drawn: Design) -> tuple[float, float]:
    """The estimated population total of `y` (n,) and its standard error."""
    return float(drawn.weight @ y), float(np.sqrt(_variance(y, drawn)))


def ratio(y: NDArray[np.float64], x: NDArray[np.float64], drawn: Design) -> tuple[float, float]:
    """The ratio of the totals of `y` and `x` and its standard error; with x = 1 in a domain, the domain's mean."""
    below = float(drawn.weight @ x)
    found = float(drawn.weight @ y) / below
    return found, float(np.sqrt(_variance((y - found * x) / below, drawn)))


def design_effect(y: NDArray[np.float64], drawn: Design) -> float:
    """The variance of the mean of `y` over that of a simple random sample of as many rows, without replacement."""
    w = drawn.weight
    n, population = len(y), float(w.sum())
    mean, error = ratio(y, np.ones(n), drawn)
    spread = float(w @ (y - mean) ** 2) / population * n / (n - 1)
    return error**2 / (spread * (population - n) / (population * n))


def regression(
    y: NDArray[np.float64],
    columns: dict[str, NDArray[np.float64]],
    drawn: Design,
    family: Literal["gaussian", "logit"] = "gaussian",
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Coefficients (k,) and covariance (k, k) of a weighted regression; a constant is one of the columns."""
    if family == "gaussian":
        found = least_squares(y, columns, [], drawn.weight)
        scores = drawn.weight * found.residual
    else:
        fit = glm(y, columns, [], drawn.weight, family)
        found, scores = fit.solution, fit.scores
    totals = cluster_sums(found.columns, scores, drawn.cluster) @ found.inverse
    return (found.beta, covariance(totals, drawn.stratum, drawn.size))


def _variance(influence: NDArray[np.float64], drawn: Design) -> float:
    totals = sums(drawn.cluster, drawn.weight * influence)[:, None]
    return float(covariance(totals, drawn.stratum, drawn.size)[0, 0])
