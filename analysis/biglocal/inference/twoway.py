"""Covariances of a linear regression: independent, heteroskedastic, clustered one way or more.

Cameron, Gelbach and Miller (2011, J Bus Econ Stat 29:238). Conventions and their names are those of R's fixest
0.13: with several ways of clustering one factor G/(G-1) with the smallest G ("min"), or each its own
("conventional"); t tests on the smallest G less one; a covariance that is not positive semi-definite has its
negative eigenvalues raised to 1e-12.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from biglocal.inference.cluster import cluster
from biglocal.inference.regression import (
    Regression,
    by_group,
    coded,
    crossed,
    errors,
    of_sample,
    parameters,
    refuse_another,
    sole_att,
)
from biglocal.model import Estimator, Fit, Inapplicable, Sample

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

FLOOR = 1e-12
FEW = 30  # clusters of one way: below this its asymptotics are a hope


@dataclass(frozen=True, slots=True)
class Covariance:
    """Estimates (p,), their covariance (p, p), and the degrees of freedom of t; `floored` if it was made definite."""

    estimate: NDArray[np.float64]
    vcov: NDArray[np.float64]
    df: int
    floored: bool = False

    @property
    def std_error(self) -> NDArray[np.float64]:
        """Standard errors (p,)."""
        return np.sqrt(np.diag(self.vcov))

    def p_values(self) -> NDArray[np.float64]:
        """Two-sided p-values (p,) against t(df). Raises `Inapplicable` for an error that is not positive."""
        from scipy.special import stdtr

        return np.asarray(2 * stdtr(self.df, -np.abs(self.estimate / errors(self.std_error))))

    def intervals(self, conf_level: float = 0.95) -> NDArray[np.float64]:
        """Confidence intervals (p, 2) from t(df)."""
        from scipy.special import stdtrit

        width = stdtrit(self.df, (1 + conf_level) / 2) * self.std_error
        return np.column_stack([self.estimate - width, self.estimate + width])


def clustered(
    fit: Regression,
    *cluster: ArrayLike,
    groups: Literal["min", "conventional", "none"] = "min",
    counting: str = "nonnested",
    count_parameters: bool = True,
    residual_df: bool = False,
    definite: bool = True,
) -> Covariance:
    """The covariance clustered on each of `cluster` (n,), one way or more.

    `groups`: which G/(G-1) multiplies; `counting`: which fixed effects K counts (`regression.parameters`);
    `count_parameters`: whether (N-1)/(N-K) multiplies; `residual_df`: t on N-K instead of the smallest G less
    one; `definite`: floor negative eigenvalues.
    Raises `Inapplicable` for no way of clustering, and for fewer than two clusters in one.
    """
    if not cluster:
        raise Inapplicable("no cluster given.")
    ways = [coded(c) for c in cluster]
    sizes = [int(c.max()) + 1 for c in ways]
    if min(sizes) < 2:
        raise Inapplicable("1 cluster: clustered errors need at least two.")
    scores = fit.x * (fit.weight * fit.residual)[:, None]
    meat = np.zeros((scores.shape[1], scores.shape[1]))
    for r in range(1, len(ways) + 1):
        for some in itertools.combinations(ways, r):
            code = crossed(*some)
            g = int(code.max()) + 1
            sums = by_group(scores, code, g)
            factor = g / (g - 1) if groups == "conventional" else 1.0
            meat += (-1) ** (r + 1) * factor * sums.T @ sums
    n, smallest, k = len(scores), min(sizes), parameters(fit, ways, counting)
    if groups == "min":
        meat *= smallest / (smallest - 1)
    if count_parameters:
        meat *= (n - 1) / (n - k)
    vcov = fit.bread @ meat @ fit.bread
    values, vectors = np.linalg.eigh(vcov)
    floored = definite and bool(values[0] < 0)
    if floored:
        vcov = (vectors * np.maximum(values, FLOOR)) @ vectors.T
    return Covariance(fit.beta, vcov, n - k if residual_df else smallest - 1, floored)


def independent(fit: Regression, kind: Literal["iid", "HC1", "HC2", "HC3"] = "HC1") -> Covariance:
    """The covariance under independent errors, of equal variance (`iid`) or not; t(N-K), K all parameters.

    HC2 and HC3 divide squared residuals by 1-h and (1-h)^2 with exact leverages h, dummies of fixed effects
    included (MacKinnon and White 1985, J Econometrics 29:305). Raises `Inapplicable` where a row has leverage one.
    """
    n, k = len(fit.residual), parameters(fit, [], "full")
    w, e = fit.weight, fit.residual
    if kind == "iid":
        return Covariance(fit.beta, fit.bread * float(w @ (e * e)) / (n - k), n - k)
    scores = fit.x * (w * e)[:, None]
    factor = n / (n - k) if kind == "HC1" else 1.0
    if kind != "HC1":
        u = np.column_stack([fit.x @ np.linalg.cholesky(fit.bread), fit.basis])
        h = w * np.einsum("ij,ij->i", u, u)
        if fit.absorbed is not None:
            h += w / np.bincount(fit.absorbed, w)[fit.absorbed]
        if (h > 1 - 1e-10).any():
            raise Inapplicable(
                f"{int((h > 1 - 1e-10).sum())} rows have leverage one: {kind} is not defined; drop them."
            )
        scores /= (1 - h if kind == "HC3" else np.sqrt(1 - h))[:, None]
    return Covariance(fit.beta, factor * fit.bread @ (scores.T @ scores) @ fit.bread, n - k)


def area_and_year(
    estimator: Estimator, sample: Sample, fit: Fit, rng: np.random.Generator, *, conf_level: float
) -> Fit:
    """The `att` of a two-way fixed-effects fit, clustered on the sample's clusters and on time: shocks that all areas
    of a year share, beyond the year's own effect, may then be of any size.

    t on the smaller number of clusters less one; the caution says so where these are few. Raises `Inapplicable` for a
    fit that is not one `att`, and as `clustered` does.
    """
    att = sole_att(fit, "two-way clustering")
    time = sample.frame["time"].to_numpy()
    found = clustered(of_sample(sample, within=False), sample.frame["cluster"], time)
    refuse_another(att, float(found.estimate[0]), float(found.std_error[0]), "two-way clustering")
    years = len(np.unique(time))
    said = f"{years} years: an error clustered on so few is rough, and may be too small." if years < FEW else ""
    term = replace(att, std_error=float(found.std_error[0]), df=float(found.df))
    caution = " ".join(filter(None, [fit.caution, said]))
    return cluster(estimator, sample, replace(fit, terms=(term,), caution=caution), rng, conf_level=conf_level)
