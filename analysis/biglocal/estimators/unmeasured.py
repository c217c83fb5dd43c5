"""How strong an unmeasured confounder would have to be: the E-value, and Oster's bounds where there are covariates.

The E-value (VanderWeele and Ding 2017, Annals of Internal Medicine 167:268) is the least risk ratio that a confounder
must have with both treatment and outcome to explain an effect away. For a difference of means it goes through
the standardised effect d = ATT / SD by RR = exp(0.91 d) (their table 2; Chinn 2000); an outcome that is 0 or one
other value has a risk ratio of its own, the treated units' mean while treated over what it were without the ATT.

Oster (2019, J Bus Econ Stat 37:187) asks how the estimate moved as covariates came in and the fit rose with them, and
what unobserved ones would do if they were delta times as related to treatment as these.

Here d's effect is that of two-way fixed effects (`twfe`): a confounder is something that moves changes, since levels
of units and common years are held fixed already.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from biglocal.estimators import _within, twfe
from biglocal.model import Fit, Inapplicable, Sample, Term

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

SLOPE = 0.91  # of log RR on d, for a common outcome cut anywhere near its middle (VanderWeele 2017)


def estimate(sample: Sample, *, conf_level: float = 0.95, delta: float = 1.0, r_max: float = 1.3) -> Fit:
    """Terms `standardised`, `e_value`, `e_value_limit` (by level), and with covariates `oster_beta`, `oster_delta`.

    `standardised`: ATT over the SD of the treated units' outcomes before treatment, with its error (the SD taken as
    known). `e_value`: of the estimate. `e_value_limit`: of the limit of its interval at `conf_level` that is nearer to
    no effect; 1 where the interval holds 0. `oster_beta`: the ATT if unobserved confounders are `delta` times as
    related to treatment as the covariates and all together explain `r_max` times what is explained with the
    covariates, at most everything. `oster_delta`: the delta at which it would be nought.

    Oster's R-squared are within: of what unit and year effects leave. Her bounds are for a sample without levels.

    Raises `Inapplicable` as `twfe.estimate` does, for an outcome that does not vary among the treated before
    treatment, an `r_max` below 1, and for Oster's bounds in a sample with levels.
    """
    from scipy.special import stdtrit

    if sample.covariates and sample.levels:
        raise Inapplicable("Oster's bounds are for one sample at a time: drop the levels or the covariates.")
    if not r_max >= 1:
        raise Inapplicable(f"r_max is {r_max:g}; the unobserved cannot explain less than nothing: at least 1.")
    fit = twfe.estimate(sample)
    terms: list[Term] = []
    for att in fit.terms:
        if att.name != "att":
            continue
        rows = sample.frame if not att.level else sample.frame[sample.frame["level"] == att.level]
        spread = _spread(rows)
        width = float(stdtrit(att.df, (1 + conf_level) / 2)) * att.std_error
        limit = np.sign(att.estimate) * max(abs(att.estimate) - width, 0.0)
        found = {
            "standardised": att.estimate / spread,
            "e_value": e_value(_risk_ratio(rows, att.estimate, spread)),
            "e_value_limit": e_value(_risk_ratio(rows, limit, spread)),
        }
        terms += [
            replace(
                att, name=name, estimate=float(value), tested=False,
                std_error=att.std_error / spread if name == "standardised" else float("nan"),
            )
            for name, value in found.items()
        ]  # fmt: skip
    if sample.covariates:
        parts = stability(sample)
        ceiling = min(1.0, r_max * parts.r_long)
        terms.append(Term("oster_beta", oster_beta(parts, ceiling, delta), tested=False))
        terms.append(Term("oster_delta", oster_delta(parts, ceiling), tested=False))
    return replace(fit, terms=tuple(terms))


def e_value(risk_ratio: float) -> float:
    """The E-value of a risk ratio: RR + sqrt(RR (RR - 1)), of 1/RR where it is below 1; NaN for one not above 0."""
    if not risk_ratio > 0:
        return float("nan")
    rr = float(max(risk_ratio, 1 / risk_ratio))
    return rr + float(np.sqrt(rr) * np.sqrt(rr - 1))


def _risk_ratio(frame: pd.DataFrame, effect: float, spread: float) -> float:
    y = frame["y"].to_numpy(dtype=float)
    values = np.unique(y)
    if len(values) != 2 or values.min() != 0:
        return float(np.exp(SLOPE * effect / spread))
    now = frame["d"].to_numpy() == 1
    risk = float(np.average(y[now], weights=frame["weight"].to_numpy(dtype=float)[now]))
    return risk / (risk - effect) if risk != effect else float("nan")


@dataclass(frozen=True, slots=True)
class Stability:
    """What Oster's bounds are made of: coefficients and R-squared without (`short`) and with covariates (`long`),
    variances of the outcome and the treatment, and of what covariates leave of the treatment."""

    beta_short: float
    beta_long: float
    r_short: float
    r_long: float
    variance_y: float
    variance_d: float
    variance_left: float


def stability(sample: Sample) -> Stability:
    """Two-way fixed effects without and with the sample's covariates, everything within units and years.

    Raises `Inapplicable` for a collinear covariate.
    """
    frame = sample.frame
    y, w, _, kept = _within.checked(frame)
    frame = frame if kept is None else frame[kept]
    fixed = [_within.codes(frame["unit"]), _within.codes(frame["time"])]
    project = _within.projector(fixed, w)
    d = frame["d"].to_numpy(dtype=float)
    x = {c: frame[c].to_numpy(dtype=float) for c in sample.covariates}
    short = _within.least_squares(y, {"d": d}, fixed, w)
    long = _within.least_squares(y, {"d": d, **x}, fixed, w)
    left = _within.least_squares(d, x, fixed, w)
    total = w.sum()

    def variance(v: NDArray[np.float64]) -> float:
        return float(w @ v**2 / total)

    y_within = variance(project(y))
    return Stability(
        beta_short=float(short.beta[0]),
        beta_long=float(long.beta[0]),
        r_short=1 - variance(short.residual) / y_within,
        r_long=1 - variance(long.residual) / y_within,
        variance_y=y_within,
        variance_d=variance(project(d)),
        variance_left=variance(left.residual),
    )


def oster_delta(s: Stability, r_max: float, beta: float = 0.0) -> float:
    """The delta at which the effect would be `beta` (Oster 2019, proposition 3)."""
    gain, room, moved, bias, cut = _pieces(s, r_max, beta)
    t, v = s.variance_left, s.variance_d
    above = bias * gain * t + bias * v * t * moved**2 + 2 * bias**2 * t * moved * v + bias**3 * cut
    below = room * moved * v + bias * room * (v - t) + bias**2 * t * moved * v + bias**3 * cut
    return float(above / below) if below else float("nan")


def oster_beta(s: Stability, r_max: float, delta: float = 1.0) -> float:
    """The effect if unobserved confounders are `delta` times as related to treatment as the covariates.

    Her proposition 2: the bias nu = beta_long - beta solves a cubic (quadratic at delta = 1), which is proposition 3
    read the other way. Of its real roots the one whose bias has the sign of the movement from short to long
    (assumption 3), and of several the least; where none has, the least.
    """
    gain, room, moved, _, cut = _pieces(s, r_max, 0.0)
    t, v = s.variance_left, s.variance_d
    cubic = np.array(
        [
            (delta - 1) * cut,
            (delta - 2) * t * moved * v,
            delta * room * (v - t) - gain * t - v * t * moved**2,
            delta * room * moved * v,
        ]
    )
    roots = np.roots(cubic / np.abs(cubic).max()) if cubic.any() else np.zeros(1)
    real = roots[np.abs(roots.imag) < 1e-9 * (1 + np.abs(roots))].real
    onward = real[np.sign(real) == np.sign(moved)]
    found = onward if len(onward) else real
    return float(s.beta_long - found[np.argmin(np.abs(found))])


def _pieces(s: Stability, r_max: float, beta: float) -> tuple[float, float, float, float, float]:
    """Gain in fit, room left for the unobserved, how far the estimate moved, the bias, and what multiplies its cube."""
    gain = (s.r_long - s.r_short) * s.variance_y
    room = (r_max - s.r_long) * s.variance_y
    cut = s.variance_left * s.variance_d - s.variance_left**2
    return gain, room, s.beta_short - s.beta_long, s.beta_long - beta, cut


def _spread(frame: pd.DataFrame) -> float:
    """Weighted standard deviation of the treated units' outcomes before treatment."""
    before = frame[(frame["treated"] == 1) & (frame["d"] == 0)]
    y, w = before["y"].to_numpy(dtype=float), before["weight"].to_numpy(dtype=float)
    spread = float(np.sqrt(np.average((y - np.average(y, weights=w)) ** 2, weights=w)))
    if not spread > 0:
        raise Inapplicable(f"the treated units' outcome does not vary before treatment (always {y[0]:g}).")
    return spread
