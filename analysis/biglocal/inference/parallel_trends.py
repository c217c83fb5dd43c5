"""What an event study says when trends may not have been parallel: the study's path to four answers.

Bounds on the average effect under non-parallel trends and their breakdown values (sensitivity.py); whether the data
show that leads are small (equivalence.py); and how large a drift the test of the leads would have missed.

The last is Roth's caution (2022, AER: Insights 4:305): a study is read because its leads pass a test, yet the test may
have had little chance to see a drift large enough to matter. His calculation, for the joint test that the report
shows: the linear trend that it detects with a given chance, and the bias that this trend makes in the average effect.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from biglocal.inference import sensitivity
from biglocal.inference.cluster import cluster
from biglocal.inference.equivalence import pre_trends
from biglocal.model import Estimator, Fit, Inapplicable, Sample, Term

if TYPE_CHECKING:
    from biglocal.inference.sensitivity import Bounds, EventStudy

RELATIVE = (0.0, 0.5, 1.0, 1.5, 2.0)  # Mbar: 1 is as much after the start as at most before it
SMOOTH = (0.0, 0.25, 0.5, 1.0)  # M in standard errors of the average effect: a change of slope has no scale of its own


def parallel_trends(
    estimator: Estimator,
    sample: Sample,
    fit: Fit,
    rng: np.random.Generator,
    *,
    conf_level: float,
    relative: Sequence[float] = RELATIVE,
    smooth: Sequence[float] = SMOOTH,
    target: float = 0.8,
) -> Fit:
    """Terms about the average of an event study's effects from the start on, each year alike.

    `average_effect`: the estimate, with its t interval under parallel trends. `relative_magnitudes` and `smoothness`,
    one for each of `relative` (Mbar) and `smooth` (in standard errors of the average): the interval; `statistic` is
    Mbar, or M in units of the outcome a year; `level` the number given. `breakdown_relative_magnitudes` and
    `breakdown_smoothness`: the largest Mbar, or M, under which no effect is rejected; 0 where it is not even without.
    `equivalence`: the smallest size at which every lead is shown to be smaller, at level 1 - `conf_level`; `p_value`
    that of the sample's `reference_effect`. `detectable_trend`: the slope a year that the joint test of the leads
    finds with chance `target`; `detectable_trend_bias`: what it adds to the average effect.

    A bound that is open has no end there, and the caution says so.
    Raises `Inapplicable` for a fit that is not an event study with leads, gaps between its years, and a covariance
    that is not positive definite.
    """
    if "vcov" not in fit.facts:
        raise Inapplicable("bounds under non-parallel trends need an event study and the covariance of its effects.")
    periods = np.asarray(fit.facts["periods"])
    if not (np.diff(np.sort(np.r_[periods, -1])) == 1).all():
        raise Inapplicable(f"years since start must have no gaps; there are {periods.tolist()}.")
    after = int((periods >= 0).sum())
    weights = np.full(after, 1 / max(after, 1))
    study = sensitivity.event_study(fit.facts["beta"], fit.facts["vcov"], int((periods < 0).sum()), weights)
    alpha, df, se = 1 - conf_level, float(fit.n_clusters - 1), study.std_error
    by_magnitude = sensitivity.relative_magnitudes(study, relative, conf_level=conf_level)
    by_slope = sensitivity.smoothness(study, [m * se for m in smooth], conf_level=conf_level)
    held = pre_trends(fit, _or(sample.reference_effect, math.inf), alpha=alpha)
    slope, bias = detectable_trend(study, df, alpha=alpha, target=target)
    terms = [
        Term("average_effect", study.estimate, se, df),
        *_intervals("relative_magnitudes", study, by_magnitude, relative),
        *_intervals("smoothness", study, by_slope, smooth),
        *(
            Term(f"breakdown_{name}", _finite(sensitivity.breakdown(study, name, conf_level=conf_level)), tested=False)
            for name in ("relative_magnitudes", "smoothness")
        ),
        Term(
            "equivalence", held.smallest, tested=False,
            p_value=float("nan") if math.isnan(sample.reference_effect) else held.p_value,
        ),
        Term("detectable_trend", slope, tested=False),
        Term("detectable_trend_bias", bias, tested=False),
    ]  # fmt: skip
    ends = [v for b in (by_magnitude, by_slope) for v in (*b.conf_low, *b.conf_high)]
    said = "Where a bound is missing the set has no end on that side." if not all(map(math.isfinite, ends)) else ""
    caution = " ".join(filter(None, [fit.caution, said]))
    return cluster(estimator, sample, replace(fit, terms=tuple(terms), caution=caution), rng, conf_level=conf_level)


def detectable_trend(study: EventStudy, df: float, *, alpha: float = 0.05, target: float = 0.8) -> tuple[float, float]:
    """The slope a period that the joint F test of the leads finds with chance `target`, and its bias in l'beta.

    Under a linear trend the leads' Wald statistic is noncentral F(q, `df`) with noncentrality slope^2 x'V^-1 x, x the
    leads' distances from the reference; the bias is the slope times l' of the post periods' distances.
    Raises `Inapplicable` for a `target` that is not between `alpha` and 1.
    """
    from scipy.optimize import brentq
    from scipy.special import fdtri, ncfdtr

    if not alpha < target < 1:
        raise Inapplicable(f"a chance of {target:g}: it must lie between {alpha:g} and 1.")
    q = study.n_pre
    distance = np.arange(-q, 0.0)
    unit = float(distance @ np.linalg.solve(study.vcov[:q, :q], distance))
    critical = float(fdtri(q, df, 1 - alpha))
    high = 1.0
    while 1 - ncfdtr(q, df, high, critical) < target:
        high *= 2
    shift = float(brentq(lambda v: 1 - ncfdtr(q, df, v, critical) - target, 0.0, high, xtol=1e-10))
    slope = math.sqrt(shift / unit)
    return slope, slope * abs(float(study.weights @ np.arange(1.0, len(study.weights) + 1)))


def _intervals(name: str, study: EventStudy, bounds: Bounds, said: Sequence[float]) -> list[Term]:
    return [
        Term(
            name, study.estimate, statistic=m, conf_low=_finite(low), conf_high=_finite(high), level=f"{level:g}",
            tested=False,
        )
        for level, m, low, high in zip(said, bounds.m, bounds.conf_low, bounds.conf_high, strict=True)
    ]  # fmt: skip


def _finite(value: float) -> float:
    return value if math.isfinite(value) else float("nan")


def _or(value: float, other: float) -> float:
    return other if math.isnan(value) else value
