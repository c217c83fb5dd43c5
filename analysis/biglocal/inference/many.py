"""One design, many outcomes: least squares and its cluster errors as matrix products.

The estimate, and each cluster's term in its sandwich, are linear in the outcome: what the rows say of each is
made once, and R outcomes then cost a product of (R, n) with a thin matrix. `satterthwaite` and the estimators are the
referees in the tests.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from biglocal.estimators import correction
from biglocal.inference.regression import Regression, by_group, parameters
from biglocal.inference.satterthwaite import corrected_fit
from biglocal.model import Inapplicable

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_array


@dataclass(frozen=True, slots=True)
class Many:
    """One linear contrast of a regression's coefficients, for any outcome on its n rows.

    `solve` (n, p + m): an outcome's coefficients on regressors and basis. `contrast` (p + m,): of these, the estimate.
    `own` (n, G), `fitted` (p + m, G): a cluster's term is y @ own less coefficients @ fitted. `scale`: the square root
    of the small-sample factor; `df`: degrees of freedom of t.
    """

    solve: NDArray[np.float64]
    contrast: NDArray[np.float64]
    own: csr_array
    fitted: NDArray[np.float64]
    scale: float
    df: float

    def estimates(self, y: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Estimates (R,) and standard errors (R,) of outcomes `y` (R, n)."""
        coefficients = y @ self.solve
        terms = (self.own.T @ y.T).T - coefficients @ self.fitted
        return coefficients @ self.contrast, self.scale * np.sqrt(np.einsum("ij,ij->i", terms, terms))


def many(
    fit: Regression, cluster: NDArray[np.int64], contrast: NDArray[np.float64], kind: Literal["CR1", "CR2"] = "CR1"
) -> Many:
    """Prepare `contrast` (p,) of the coefficients of `fit` for other outcomes, clustered on `cluster` (n,) codes.

    CR1 is the package's convention (`estimators.CONVENTION`); CR2 has Satterthwaite degrees of freedom and is for one
    coefficient. Raises `Inapplicable` for an absorbed effect not nested in the clusters, and CR2 of more coefficients.
    """
    from scipy.sparse import csr_array

    n, p = fit.x.shape
    groups = int(cluster.max()) + 1
    if kind == "CR2":
        if p != 1:
            raise Inapplicable(f"CR2 of {p} coefficients at once: name one.")
        corrected = corrected_fit(fit, cluster)
        weight = corrected.adjusted[:, 0] * contrast[0]
        scale, df = 1.0, float(corrected.df[0])
    else:
        weight = fit.weight * (fit.x @ (fit.bread @ contrast))
        scale, df = float(np.sqrt(correction(n, parameters(fit, [cluster]), groups))), groups - 1
    directions = np.column_stack([fit.x, fit.basis])
    fitted = by_group(weight[:, None] * directions, cluster, groups).T
    if fit.absorbed is not None:  # an outcome comes with its unit means: they leave through the weights
        share = np.bincount(fit.absorbed, weight) / np.bincount(fit.absorbed, fit.weight)
        weight = weight - fit.weight * share[fit.absorbed]
    return Many(
        solve=fit.weight[:, None] * np.column_stack([fit.x @ fit.bread, fit.basis]),
        contrast=np.append(contrast, np.zeros(fit.basis.shape[1])),
        own=csr_array((weight, (np.arange(n), cluster)), shape=(n, groups)),
        fitted=np.ascontiguousarray(fitted),
        scale=scale,
        df=df,
    )
