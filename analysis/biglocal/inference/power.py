"""Power and minimum detectable effects, from a standard error or from a design.

A test of an effect with standard error s and df degrees of freedom rejects when |estimate / s| exceeds the two-sided
critical value; its power at effect d is the upper tail of the noncentral t with noncentrality |d|/s (the other
tail is left out, as is usual). The design formulas give s: two arms of k clusters of m persons, measured once,
or twice with a difference in differences (Teerenstra et al. 2012, Statistics in Medicine 31:2169).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from biglocal.model import Estimator, Fit, Inapplicable, Sample, Term

if TYPE_CHECKING:
    import numpy as np

AREAS = (25, 50, 75, 100, 150, 200, 300)  # treated areas of designs like the one at hand


def power(effect: float, std_error: float, df: float = math.inf, *, alpha: float = 0.05) -> float:
    """The chance that the two-sided t test at `alpha` finds `effect`; normal where `df` is infinite."""
    from scipy.special import nctdtr, ndtr, ndtri, stdtr, stdtrit

    _check(std_error, df, alpha)
    shift = abs(effect) / std_error
    if math.isinf(df):
        return float(ndtr(shift - float(ndtri(1 - alpha / 2))))
    critical = float(stdtrit(df, 1 - alpha / 2))
    if shift == 0:
        return float(stdtr(df, -critical))
    return float(1 - nctdtr(df, shift, critical))


def minimum_detectable(std_error: float, df: float = math.inf, *, target: float = 0.8, alpha: float = 0.05) -> float:
    """The smallest effect that the test finds with chance `target`: that of a fit with this error and df."""
    if not alpha / 2 < target < 1:
        raise Inapplicable(f"power {target:g}: it must lie between {alpha / 2:g} and 1.")
    return std_error * _root(lambda shift: power(shift, 1.0, df, alpha=alpha) - target)


def with_minimum_detectable(fit: Fit, *, target: float, alpha: float) -> Fit:
    """The fit with a term `minimum_detectable` for each tested estimate: same period and level, in its unit.

    Of a fit in log odds it is the odds ratio above 1.
    """
    odds = any(t.name == "odds_ratio" for t in fit.terms)
    found = []
    for term in fit.terms:
        if term.tested and term.name in ("change", "association") and term.std_error > 0 and term.df > 0:
            least = minimum_detectable(term.std_error, term.df, target=target, alpha=alpha)
            least = math.exp(least) if odds else least
            found.append(
                Term(
                    "minimum_detectable", least, period=term.period, level=term.level, tested=False,
                    n_treated=term.n_treated, n_treated_clusters=term.n_treated_clusters,
                )
            )  # fmt: skip
    return replace(fit, terms=(*fit.terms, *found))


def bloom(std_error: float, df: float = math.inf, *, target: float = 0.8, alpha: float = 0.05) -> float:
    """Bloom's multiple (1995, Evaluation Review 19:547): (t of 1 - alpha/2 plus t of the power) standard errors."""
    from scipy.special import ndtri, stdtrit

    _check(std_error, df, alpha)
    if not 0 < target < 1:
        raise Inapplicable(f"power {target:g}: it must lie between 0 and 1.")

    def quantile(q: float) -> float:
        return float(ndtri(q) if math.isinf(df) else stdtrit(df, q))

    return std_error * (quantile(1 - alpha / 2) + quantile(target))


def achieved(
    estimator: Estimator,  # noqa: ARG001  the signature of every inference
    sample: Sample,
    fit: Fit,
    rng: np.random.Generator,  # noqa: ARG001
    *,
    conf_level: float,
    target: float = 0.8,
) -> Fit:
    """What the design at hand could have found, from the clustered error it achieved.

    Terms, in units of the outcome: `minimum_detectable`, the effect found with chance `target` by the t test at
    1 - `conf_level`; `reference_effect`, the sample's, and `power`, the chance (0 to 1) to find it, where it has one;
    `minimum_detectable_with`, with `period` treated areas instead: the error goes with one over the root of their
    number, and clusters in proportion. None of it depends on the estimate.

    Raises `Inapplicable` for a fit that is not one `att` with an error and treated clusters.
    """
    if [t.name for t in fit.terms] != ["att"] or not fit.terms[0].n_treated_clusters:
        raise Inapplicable("power is worked out for a single ATT, from its error and its treated areas.")
    att, alpha = fit.terms[0], 1 - conf_level
    areas = att.n_treated_clusters or 0
    said: list[tuple[str, float, int | None]] = [
        ("minimum_detectable", minimum_detectable(att.std_error, att.df, target=target, alpha=alpha), None)
    ]
    if not math.isnan(sample.reference_effect):
        said.append(("reference_effect", sample.reference_effect, None))
        said.append(("power", power(sample.reference_effect, att.std_error, att.df, alpha=alpha), None))
    for count in AREAS:
        share = count / areas
        df = (att.df + 1) * share - 1
        effect = minimum_detectable(att.std_error / math.sqrt(share), df, target=target, alpha=alpha)
        said.append(("minimum_detectable_with", effect, count))
    terms = tuple(
        Term(name, value, period=count, tested=False, n_treated=att.n_treated, n_treated_clusters=areas)
        for name, value, count in said
    )
    return replace(fit, terms=terms)


def two_groups(n: int, *, sd: float = 1.0) -> tuple[float, float]:
    """Standard error and df of a difference of means, `n` persons in each group."""
    if n < 2:
        raise Inapplicable(f"{n} persons a group: at least 2.")
    return sd * math.sqrt(2 / n), 2.0 * (n - 1)


def two_proportions(n: int, p1: float, p2: float, *, alpha: float = 0.05) -> float:
    """Power of the two-sided normal test of two proportions, `n` in each group, variance pooled under no difference."""
    from scipy.special import ndtr, ndtri

    if n < 1 or not (0 < p1 < 1 and 0 < p2 < 1):
        raise Inapplicable(f"{n} persons a group, proportions {p1:g} and {p2:g}: at least 1, and between 0 and 1.")
    mean = (p1 + p2) / 2
    apart = math.sqrt(p1 * (1 - p1) + p2 * (1 - p2))
    beyond = math.sqrt(n) * abs(p1 - p2) - float(ndtri(1 - alpha / 2)) * math.sqrt(2 * mean * (1 - mean))
    return float(ndtr(beyond / apart))


def cluster_trial(clusters: int, persons: int, icc: float, *, variance: float = 1.0) -> tuple[float, float]:
    """Standard error and df of a difference of means: `clusters` in each arm, `persons` in a cluster.

    `icc`: intraclass correlation; the design effect is 1 + (m - 1) icc. df = 2(k - 1).
    """
    _check_design(clusters, persons, icc)
    effect = 1 + (persons - 1) * icc
    return math.sqrt(2 * effect * variance / (clusters * persons)), 2.0 * (clusters - 1)


def cluster_did(
    clusters: int,
    persons: int,
    icc: float,
    *,
    cluster_autocorrelation: float = 0.0,
    person_autocorrelation: float = 0.0,
    variance: float = 1.0,
) -> tuple[float, float]:
    """Standard error and df of a difference in differences over two periods, `clusters` in each arm.

    `persons` in a cluster and period. The correlation of a cluster's two means is
    r = (m icc / D) cluster_autocorrelation + ((1 - icc) / D) person_autocorrelation with D = 1 + (m - 1) icc; the
    variance of the difference is 2 (1 - r) that of one measurement. `variance` of a proportion p is p (1 - p).
    Autocorrelation of persons is nought where different persons
    are asked each time. df = 2(k - 1).
    """
    _check_design(clusters, persons, icc)
    if not (abs(cluster_autocorrelation) <= 1 and abs(person_autocorrelation) <= 1):
        raise Inapplicable(
            f"autocorrelations {cluster_autocorrelation:g} and {person_autocorrelation:g}: they lie between -1 and 1."
        )
    design = 1 + (persons - 1) * icc
    r = persons * icc / design * cluster_autocorrelation + (1 - icc) / design * person_autocorrelation
    return math.sqrt(4 * design * (1 - r) * variance / (clusters * persons)), 2.0 * (clusters - 1)


def _root(excess: Callable[[float], float]) -> float:
    """Where an increasing function of the noncentrality crosses nought."""
    from scipy.optimize import brentq

    high = 1.0
    while excess(high) < 0:
        high *= 2
    return float(brentq(excess, 0.0, high, xtol=1e-13, rtol=1e-13))


def _check(std_error: float, df: float, alpha: float) -> None:
    if not (std_error > 0 and df > 0 and 0 < alpha < 1):
        raise Inapplicable(f"standard error {std_error:g}, df {df:g}, alpha {alpha:g}: all positive, alpha below 1.")


def _check_design(clusters: int, persons: int, icc: float) -> None:
    if clusters < 2 or persons < 1 or not 0 <= icc <= 1:
        raise Inapplicable(
            f"{clusters} clusters an arm, {persons} persons, icc {icc:g}: at least 2, 1, and from 0 to 1."
        )
