"""How far apart units are: propensity scores, Mahalanobis and scaled distances, and what may not be matched.

Each distance is the Euclidean distance of some coordinates, so one search serves all. Definitions are those of
MatchIt 4.7 (Ho, Imai, King and Stuart 2011): the propensity score and its caliper as in Rosenbaum and Rubin
(1985); Mahalanobis with the covariance pooled within groups (Rubin 1980); its robust form on ranks with equal
variances (Rosenbaum 2010, Design of Observational Studies, chapter 8).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from biglocal.matching._units import check_missing, groups
from biglocal.model import Inapplicable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from biglocal.matching._units import Units

Propensity = Literal["logit", "probability", "probit"]
Metric = Literal["mahalanobis", "robust_mahalanobis", "scaled_euclidean"]
Distance = Literal[Propensity, Metric]

BOOSTED = "boosted"  # the `score` that is not a column: one learned by gradient-boosted trees

# Distances nearer than this are ties, so that a covariate's units, which move the last digits, decide no match.
DIGITS = 10


@dataclass(frozen=True, slots=True)
class Space:
    """Where units lie, sorted as in `Units`, and which pairs are allowed.

    `point` (n, p): the distance of two units is the Euclidean one. `score` (n,): propensity logit, or NaN.
    Allowed are pairs at most `width` apart, at most each of `bounds` apart on its (n,) variable, and with
    different codes in each (n,) of `barred`.
    """

    point: NDArray[np.float64]
    score: NDArray[np.float64]
    width: float
    bounds: tuple[tuple[NDArray[np.float64], float], ...]
    barred: tuple[NDArray[np.int64], ...]

    def on_a_line(self) -> bool:
        """One coordinate, and nothing else decides: the fast search applies."""
        return self.point.shape[1] == 1 and not self.bounds and not self.barred

    def distances(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.float64]:
        """Distances (len(rows), len(columns)); infinite where the pair is not allowed."""
        from scipy.spatial.distance import cdist

        a, b = self.point[rows], self.point[columns]
        d = np.abs(a - b.T) if a.shape[1] == 1 else np.round(cdist(a, b), DIGITS)
        if np.isfinite(self.width):
            d[d > self.width] = np.inf
        for values, width in self.bounds:
            d[np.abs(values[rows][:, None] - values[columns]) > width] = np.inf
        for codes in self.barred:
            d[codes[rows][:, None] == codes[columns]] = np.inf
        return np.asarray(d, dtype=float)


def space(
    units: Units,
    covariates: Sequence[str],
    *,
    distance: Distance = "logit",
    caliper: float | None = None,
    mahvars: Sequence[str] = (),
    calipers: Mapping[str, float] | None = None,
    anti_exact: Sequence[str] = (),
    penalty: float = 0.0,
    score: str | None = None,
) -> Space:
    """The space in which `units` are matched; the options are documented in `matching.nearest.match`.

    Raises `Inapplicable` for covariates that are missing, infinite, constant or collinear, for groups that the
    covariates separate or whose scores do not overlap, and for a caliper on a distance without a score.
    """
    n = len(units.treated)
    if distance in get_args(Propensity):
        link: Literal["logit", "probit"] = "probit" if distance == "probit" else "logit"
        if score is None:
            logit = _logit(propensity(design(units.frame, covariates), units.treated, link=link, penalty=penalty), link)
        elif score == BOOSTED:
            logit = boosted(design(units.frame, covariates, every_level=True), units.treated)
        else:
            logit = _given(units.frame, score)
        logit = np.round(logit, DIGITS)
        _check_overlap(logit, units.treated)
        line = logit if distance == "logit" else 1 / (1 + np.exp(-logit))
    elif distance in get_args(Metric):
        if caliper is not None or mahvars or penalty or score:
            raise Inapplicable(
                f"matching: distance {distance} has no score, so no caliper, penalty or mahvars. Use a propensity "
                f"distance with mahvars, or calipers on single covariates."
            )
        logit = np.full(n, np.nan)
    else:
        raise Inapplicable(f"matching: distance {distance!r} is not one of {', '.join(_names())}.")
    width = np.inf if caliper is None else _slack(caliper * float(np.std(line, ddof=1)))
    bounds = [(_column(units.frame, c), _slack(w)) for c, w in (calipers or {}).items()]
    if distance in get_args(Metric):
        point = coordinates(units.frame, covariates, units.treated, distance)  # type: ignore[arg-type]
    elif mahvars:
        point = coordinates(units.frame, mahvars, units.treated, "mahalanobis")
        if np.isfinite(width):
            bounds.append((line, width))
        width = np.inf
    else:
        point = line[:, None]
    barred = tuple(groups(units.frame, [c]) for c in anti_exact)
    return Space(point, logit, width, tuple(bounds), barred)


def boosted(x: NDArray[np.float64], treated: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Logit of a propensity score, (n,), learned by gradient-boosted trees (McCaffrey, Ridgeway and Morral 2004).

    scikit-learn's histogram boosting: 100 trees of 8 leaves, learning rate 0.05, at least 20 units a leaf, no early
    stopping and so no random split. Each unit is scored by trees that did not see it (five folds by order of rows,
    which the index gives), so that flexible trees do not part the groups they were fitted on.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier

    score = np.empty(len(treated))
    fold = np.empty(len(treated), dtype=int)
    for group in (treated, ~treated):  # every fold holds its share of both groups
        fold[group] = np.arange(int(group.sum())) % 5
    for k in range(5):
        trees = HistGradientBoostingClassifier(
            max_iter=100,
            max_leaf_nodes=8,
            learning_rate=0.05,
            min_samples_leaf=20,
            early_stopping=False,
            random_state=0,
        )
        trees.fit(x[fold != k], treated[fold != k])
        score[fold == k] = trees.decision_function(x[fold == k])
    return score


def _names() -> tuple[str, ...]:
    return (*get_args(Propensity), *get_args(Metric))


def _slack(width: float) -> float:
    """A caliper takes what lies on its edge, whatever the last digit."""
    if not width >= 0:
        raise Inapplicable(f"matching: a caliper of {width:g}; it must be 0 or more.")
    return width * (1 + 1e-9)


def _column(frame: pd.DataFrame, name: str) -> NDArray[np.float64]:
    check_missing(frame, name)
    values = frame[name].to_numpy(dtype=float)
    if not np.isfinite(values).all():
        first = frame.index[~np.isfinite(values)][0]
        raise Inapplicable(f"matching: covariate {name} is infinite in row {first}. Correct or drop it.")
    return values


def _given(frame: pd.DataFrame, name: str) -> NDArray[np.float64]:
    p = _column(frame, name)
    outside = (p <= 0) | (p >= 1)
    if outside.any():
        raise Inapplicable(
            f"matching: {name} is not a propensity score: it is {p[outside][0]:g} in row {frame.index[outside][0]}, "
            f"and must lie between 0 and 1."
        )
    return np.log(p / (1 - p))


def _check_overlap(score: NDArray[np.float64], treated: NDArray[np.bool_]) -> None:
    low, high = score[treated], score[~treated]
    if low.min() > high.max() or low.max() < high.min():
        raise Inapplicable(
            f"matching: the scores of the groups do not overlap (treated {low.min():.3g} to {low.max():.3g}, "
            f"untreated {high.min():.3g} to {high.max():.3g} in logits): there is nothing to compare."
        )


def design(frame: pd.DataFrame, covariates: Sequence[str], *, every_level: bool = False) -> NDArray[np.float64]:
    """The covariates as an (n, k) array; text and categories become indicators.

    Without their first level, unless `every_level` (for distances that are not invariant to the coding).
    Raises `Inapplicable` naming the covariate (and the first row) that is missing, infinite or constant.
    """
    import pandas as pd

    if not covariates:
        raise Inapplicable("matching: no covariates. Name at least one.")
    columns: list[NDArray[np.float64]] = []
    for name in covariates:
        check_missing(frame, name)
        series = frame[name]
        if pd.api.types.is_numeric_dtype(series) or pd.api.types.is_bool_dtype(series):
            parts = [_column(frame, name)]
        else:
            values = series.astype(str).to_numpy()
            levels = np.unique(values)
            parts = [(values == level).astype(float) for level in (levels if every_level else levels[1:])]
        if not parts or np.ptp(parts[0]) == 0:
            seen = f" (always {parts[0][0]:g})" if parts else ""
            raise Inapplicable(f"matching: covariate {name} has no variance{seen}. Leave it out.")
        columns += parts
    return np.column_stack(columns)


def propensity(
    x: NDArray[np.float64],
    treated: NDArray[np.bool_],
    *,
    link: Literal["logit", "probit"] = "logit",
    penalty: float = 0.0,
) -> NDArray[np.float64]:
    """Linear predictor of the propensity score, (n,), by maximum likelihood (Fisher scoring).

    `penalty` is ridge: half of it times the sum of squared coefficients of the standardised covariates is taken
    from the log likelihood (scikit-learn's C is its inverse). Not statsmodels' Logit: its import alone takes
    longer than matching all of England. The tests hold them together. Raises `Inapplicable` when a group is
    empty, the covariates are collinear, or they separate the groups, so that no finite maximum exists.
    """
    n1 = int(treated.sum())
    if n1 == 0 or n1 == len(treated):
        raise Inapplicable(f"matching: {n1} treated and {len(treated) - n1} untreated units; both are needed.")
    if not penalty >= 0:
        raise Inapplicable(f"matching: a penalty of {penalty:g}; it must be 0 or more.")
    centre, spread = x.mean(axis=0), x.std(axis=0)
    z = np.column_stack([np.ones(len(x)), (x - centre) / spread])
    ridge = np.append(0.0, np.full(x.shape[1], penalty))
    if penalty == 0 and np.linalg.cond(z.T @ z / len(z)) > 1e12:
        raise Inapplicable("matching: the covariates are collinear. Leave one of them out.")
    parts = _logistic if link == "logit" else _normal
    beta = np.zeros(z.shape[1])
    share = n1 / len(treated)
    if link == "logit":
        beta[0] = np.log(share / (1 - share))
    else:
        from scipy.special import ndtri

        beta[0] = ndtri(share)
    eta = z @ beta
    fit, score, weight = parts(eta, treated)
    fit -= float(ridge @ beta**2) / 2
    for _ in range(100):
        try:
            step = np.linalg.solve((z * weight[:, None]).T @ z + np.diag(ridge), z.T @ score - ridge * beta)
        except np.linalg.LinAlgError:  # all fitted probabilities are 0 or 1
            break
        for _ in range(60):
            eta = z @ (beta + step)
            better, score, weight = parts(eta, treated)
            better -= float(ridge @ (beta + step) ** 2) / 2
            if better >= fit - 1e-9 * abs(fit):
                break
            step = step / 2  # overshot
        beta, fit = beta + step, better
        if not np.abs(beta).max() <= 100:
            break
        if np.abs(step).max() < 1e-10:
            return np.asarray(eta)
    raise Inapplicable(
        "matching: the propensity model has no finite maximum, so a combination of covariates separates "
        "treated from untreated units. Leave the separating covariate out, widen the pool or set a penalty."
    )


def _logistic(
    eta: NDArray[np.float64], treated: NDArray[np.bool_]
) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """Log likelihood, its derivative in eta, and the expected information, for the logit link."""
    soft = np.logaddexp(0, -eta)
    p = np.exp(-soft)
    return float(-soft[treated].sum() - (soft + eta)[~treated].sum()), treated - p, p * (1 - p)


def _normal(
    eta: NDArray[np.float64], treated: NDArray[np.bool_]
) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """The same for the probit link, by logarithms so that the tails do not vanish."""
    from scipy.special import log_ndtr

    log_phi = -(eta**2) / 2 - np.log(2 * np.pi) / 2
    up, down = log_ndtr(eta), log_ndtr(-eta)
    with np.errstate(over="ignore"):  # where the groups are separated; the caller refuses what is not finite
        score = np.where(treated, np.exp(log_phi - up), -np.exp(log_phi - down))
        return float(np.where(treated, up, down).sum()), score, np.exp(2 * log_phi - up - down)


def _logit(eta: NDArray[np.float64], link: str) -> NDArray[np.float64]:
    """The logit of the fitted probability."""
    if link == "logit":
        return eta
    from scipy.special import log_ndtr

    return np.asarray(log_ndtr(eta) - log_ndtr(-eta), dtype=float)


def coordinates(
    frame: pd.DataFrame, covariates: Sequence[str], treated: NDArray[np.bool_], metric: Metric
) -> NDArray[np.float64]:
    """Coordinates (n, p) whose Euclidean distance is the `metric`.

    Raises `Inapplicable` where Mahalanobis meets collinear covariates, or a covariate is constant within groups.
    """
    x = design(frame, covariates, every_level=metric != "mahalanobis")
    if metric == "robust_mahalanobis":
        from scipy.stats import rankdata

        ranks = rankdata(x, axis=0)
        # every rank has the variance of ranks without ties, so that rare categories do not weigh more
        correlation = np.atleast_2d(np.corrcoef(ranks, rowvar=False)) * len(x) * (len(x) + 1) / 12
        values, vectors = np.linalg.eigh(correlation)
        kept = values > values.max() * 1e-9  # every level of a category: one dimension is empty
        return np.asarray((ranks - ranks.mean(axis=0)) @ (vectors[:, kept] / np.sqrt(values[kept])))
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    within = z.copy()
    within[treated] -= z[treated].mean(axis=0)
    within[~treated] -= z[~treated].mean(axis=0)
    covariance = within.T @ within / (len(z) - 2)
    spread = np.sqrt(np.diag(covariance))
    if (spread < 1e-9).any():
        raise Inapplicable("matching: a covariate does not vary within the groups, so it separates them. Leave it out.")
    if metric == "scaled_euclidean":
        return np.asarray(z / spread)
    if np.linalg.cond(covariance) > 1e12:
        raise Inapplicable("matching: the covariates are collinear. Leave one of them out.")
    return np.asarray(np.linalg.solve(np.linalg.cholesky(covariance), z.T).T)
