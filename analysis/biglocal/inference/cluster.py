"""p-values and intervals from standard errors and degrees of freedom: for every library in this one place.

scipy.special rather than scipy.stats: the same numbers, a fifth of the import.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from biglocal.model import Estimator, Fit, Sample, Term

if TYPE_CHECKING:
    import numpy as np


def cluster(
    estimator: Estimator,  # noqa: ARG001  the signature of every inference
    sample: Sample,  # noqa: ARG001
    fit: Fit,
    rng: np.random.Generator,  # noqa: ARG001
    *,
    conf_level: float,
) -> Fit:
    """t and F tests from each term's standard error and degrees of freedom; intervals at `conf_level`.

    Descriptive terms with a standard error get an interval and no p-value. An `odds_ratio` takes its interval and
    p-value from the log odds ratio of the same period and level, and its standard error is that of the logarithm.
    """
    done = [complete(t, conf_level) for t in fit.terms]
    logs = {(t.period, t.level): t for t in done if t.name in ("change", "association")}
    return replace(fit, terms=tuple(_ratio(t, logs) if t.name == "odds_ratio" else t for t in done))


def _ratio(term: Term, logs: dict[tuple[int | None, str], Term]) -> Term:
    of = logs.get((term.period, term.level))
    if of is None:
        return term
    low, high = math.exp(of.conf_low), math.exp(of.conf_high)
    return replace(term, std_error=of.std_error, p_value=of.p_value, conf_low=low, conf_high=high)


def complete(term: Term, conf_level: float) -> Term:
    """One term with its p-value and interval, as `cluster` says."""
    from scipy.special import fdtrc, stdtr, stdtrit

    if term.df_num is not None:
        return replace(term, p_value=float(fdtrc(term.df_num, term.df, term.statistic)))
    if not (term.std_error > 0 and term.df > 0):
        return term
    width = float(stdtrit(term.df, (1 + conf_level) / 2)) * term.std_error
    low, high = term.estimate - width, term.estimate + width
    if not term.tested:
        return replace(term, conf_low=low, conf_high=high)
    t = term.estimate / term.std_error
    return replace(term, statistic=t, p_value=2 * float(stdtr(term.df, -abs(t))), conf_low=low, conf_high=high)
