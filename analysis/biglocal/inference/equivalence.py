"""Equivalence tests of the pre-trends: evidence that leads are small, not mere absence of evidence that they are not.

The null is that some lead is at least `threshold` in size; two one-sided tests of each lead, all of which must reject
(Berger 1982, Technometrics 24:295; Hartman and Hidalgo 2018, Am J Pol Sci 62:1000; Dette and Schumann 2024, J Bus
Econ Stat 42:1322). What the data support is the smallest threshold at which the test would reject.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from biglocal.model import Fit, Inapplicable

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


@dataclass(frozen=True, slots=True)
class Equivalence:
    """`p_value` of the null that a lead is `threshold` or larger; `smallest` threshold that would be rejected at alpha.

    `worst` is the place of the lead that decides, counted from 0.
    """

    p_value: float
    smallest: float
    worst: int
    threshold: float


def equivalence(
    estimate: ArrayLike, std_error: ArrayLike, threshold: float, *, df: float = math.inf, alpha: float = 0.05
) -> Equivalence:
    """Intersection-union test that every one of the leads `estimate` (k,) is smaller than `threshold` in size.

    `threshold` in units of the outcome: say it before looking. `df`: of t, infinite for normal. The p-value is the
    largest of the leads'; `smallest` is the largest end of the leads' 1 - 2 alpha intervals.
    Raises `Inapplicable` for no leads, errors that are not positive, and a threshold that is not.
    """
    from scipy.special import ndtr, ndtri, stdtr, stdtrit

    size, se = np.abs(np.asarray(estimate, dtype=float)).ravel(), np.asarray(std_error, dtype=float).ravel()
    if len(size) == 0 or len(size) != len(se):
        raise Inapplicable(f"{len(size)} leads with {len(se)} standard errors: at least one of each.")
    if not (np.isfinite(size) & (se > 0)).all() or not threshold > 0:
        raise Inapplicable("leads must have positive standard errors, and the threshold be positive.")
    t = (size - threshold) / se
    p = ndtr(t) if math.isinf(df) else stdtr(df, t)
    width = float(ndtri(1 - alpha) if math.isinf(df) else stdtrit(df, 1 - alpha))
    ends = size + width * se
    return Equivalence(float(p.max()), float(ends.max()), int(ends.argmax()), threshold)


def pre_trends(fit: Fit, threshold: float, *, alpha: float = 0.05) -> Equivalence:
    """As `equivalence`, of the leads in a fit: its terms `event_time` before 0, the base period left out.

    Raises `Inapplicable` for a fit without leads that have a standard error.
    """
    leads = [t for t in fit.terms if t.name == "event_time" and (t.period or 0) < 0 and t.std_error > 0]
    if not leads:
        raise Inapplicable("the fit has no leads with a standard error: use an event study.")
    return equivalence(
        [t.estimate for t in leads], [t.std_error for t in leads], threshold, df=leads[0].df, alpha=alpha
    )
