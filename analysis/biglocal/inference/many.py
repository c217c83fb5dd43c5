"""One design, many outcomes: least squares, its cluster errors and its resampling tests as matrix products.

The estimate, each cluster's term in its sandwich, and the sums that bootstrap and randomisation work on are linear in
the outcome: what the rows say of each is made once, and R outcomes then cost a product of (R, n) with a thin or
sparse matrix. Every kind answers `tests`: estimate, standard error, both ends of the interval and p-value of each
outcome, (R, 5); intervals by inversion are long, so `ends` may name the outcomes that want one. `satterthwaite`,
`wild`, `randomisation` and the estimators are the referees in the tests.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from biglocal.estimators import correction
from biglocal.inference.randomisation import Dealing, dealing_of, dealt_by, judged, terms_of
from biglocal.inference.regression import Regression, by_group, coded, of_sample, parameters
from biglocal.inference.satterthwaite import corrected_fit
from biglocal.inference.wild import Scores, check_clusters, scores, wild_test
from biglocal.model import Inapplicable, Sample

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

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

    def tests(
        self,
        y: NDArray[np.float64],
        rng: Callable[[], np.random.Generator],  # noqa: ARG002  the signature of every kind
        draws: int,  # noqa: ARG002
        level: float,
        ends: Collection[int] | None = None,  # noqa: ARG002
    ) -> NDArray[np.float64]:
        """Estimate, error, interval and p-value of outcomes `y` (R, n) by t: (R, 5). Nothing is drawn."""
        return by_t(*self.estimates(y), self.df, level)


def by_t(estimate: NDArray[np.float64], error: NDArray[np.float64], df: float, level: float) -> NDArray[np.float64]:
    """Estimates and errors (R,) with interval and p-value by t: (R, 5)."""
    from scipy.special import stdtr, stdtrit

    width = float(stdtrit(df, (1 + level) / 2)) * error
    return np.column_stack(
        [estimate, error, estimate - width, estimate + width, 2 * stdtr(df, -np.abs(estimate / error))]
    )


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


@dataclass(frozen=True, slots=True)
class Sums:
    """K weighted sums of what a regression's nuisance leaves of an outcome, for any outcome on its n rows.

    With z the basis: y @ own (n, K) less (y @ basis (n, m)) @ along (m, K), the absorbed effect taken out of `own`.
    """

    own: csr_array
    basis: NDArray[np.float64]
    along: NDArray[np.float64]

    def of(self, y: NDArray[np.float64]) -> NDArray[np.float64]:
        """The sums (R, K) of outcomes `y` (R, n)."""
        return np.asarray((self.own.T @ y.T).T - (y @ self.basis) @ self.along)


def sums(fit: Regression, weights: csr_array) -> Sums:
    """Prepare the sums with `weights` (n, K), in which those of the regression already are."""
    from scipy.sparse import csr_array

    along = np.asarray((weights.T @ fit.basis).T)
    own = weights
    if fit.absorbed is not None:  # an outcome comes with its unit means: they leave through the weights
        n, levels = len(fit.weight), int(fit.absorbed.max()) + 1
        share = fit.weight / np.bincount(fit.absorbed, fit.weight)[fit.absorbed]
        ones = np.arange(n), fit.absorbed
        member, mean = (csr_array((v, ones), shape=(n, levels)) for v in (np.ones(n), share))
        own = csr_array(weights - mean @ (member.T @ weights))
    return Sums(own, fit.weight[:, None] * fit.basis, along)


def _columns(values: NDArray[np.float64], group: NDArray[np.int64], groups: int) -> csr_array:
    """Columns (n, groups x k), group by group, from `values` (n, k): a row has weights in those of its group alone."""
    from scipy.sparse import csr_array

    n, k = values.shape
    at = group[:, None] * k + np.arange(k)
    return csr_array((values.ravel(), at.ravel(), np.arange(n + 1) * k), shape=(n, groups * k))


@dataclass(frozen=True, slots=True)
class ManyWild:
    """The wild cluster bootstrap of one coefficient: the outcome's scores from products, draws by `wild.wild_test`."""

    scores: Scores
    sums: Sums

    def tests(
        self,
        y: NDArray[np.float64],
        rng: Callable[[], np.random.Generator],
        draws: int,
        level: float,
        ends: Collection[int] | None = None,
    ) -> NDArray[np.float64]:
        """As `Many.tests`, all outcomes under the weights that `rng()` draws; the error is NaN, as in a fit."""
        found = self.sums.of(y).reshape(len(y), len(self.scores.home), -1)
        out = np.full((len(y), 5), np.nan)
        for r, one in enumerate(found):
            mine, wanted = replace(self.scores, sa=one[:, 0], ha=one[:, 1:]), ends is None or r in ends
            test = wild_test(mine, rng(), draws=draws, conf_level=level, ends=wanted)
            out[r] = test.estimate, np.nan, test.conf_low, test.conf_high, test.p_value
        return out


def many_wild(sample: Sample) -> ManyWild:
    """Prepare the wild cluster bootstrap of the two-way fixed-effects ATT of `sample`; refuses what `wild` does."""
    fit, cluster = of_sample(sample), coded(sample.frame["cluster"])
    check_clusters(sample.frame["d"].to_numpy(dtype=float), cluster)
    directions = np.column_stack([fit.x, fit.basis])
    made = scores(fit, [cluster])
    return ManyWild(made, sums(fit, _columns(fit.weight[:, None] * directions, cluster, len(made.home))))


@dataclass(frozen=True, slots=True)
class ManyRandomised:
    """Randomisation of one coefficient's t: the outcome's sums from products, assignments by `randomisation`."""

    design: Dealing
    sums: Sums

    def tests(
        self,
        y: NDArray[np.float64],
        rng: Callable[[], np.random.Generator],
        draws: int,
        level: float,
        ends: Collection[int] | None = None,
    ) -> NDArray[np.float64]:
        """As `Many.tests`, all outcomes under the assignments that `rng()` draws; the error is NaN, as in a fit."""
        cells, split = self.design.cells, len(self.design.cells.own)
        found = self.sums.of(y)
        out = np.full((len(y), 5), np.nan)
        deal = self.design.deal
        enumerated, pieces = deal.dealt(draws, rng())
        assignments = list(pieces)
        for r, one in enumerate(found):
            mine = replace(cells, own=one[:split], outcome=one[split:].reshape(cells.outcome.shape))
            test = judged(
                mine, deal, terms_of(mine, deal, assignments, "t"), enumerated, statistic="t", conf_level=level,
                ends=ends is None or r in ends,
            )  # fmt: skip
            out[r] = test.estimate, np.nan, test.conf_low, test.conf_high, test.p_value
        return out


def many_randomised(sample: Sample) -> ManyRandomised:
    """Prepare randomisation of the two-way fixed-effects ATT of `sample`, dealt as `randomisation` does by default."""
    from scipy.sparse import csr_array, hstack

    design = dealing_of(sample, *dealt_by(sample))
    fit, starts = design.fit, design.cells.starts
    reached = (design.span[:, None] > np.arange(starts)) * fit.weight[:, None]
    of_unit = _columns(reached.astype(float), design.unit, int(design.unit.max()) + 1)
    of_group = _columns(fit.weight[:, None] * fit.basis, design.group, len(design.cells.outcome))
    return ManyRandomised(design, sums(fit, csr_array(hstack([of_unit, of_group]))))
