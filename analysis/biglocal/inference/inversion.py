"""Confidence sets by inversion of a test: the hypotheses that it does not reject."""

from __future__ import annotations

import math
from collections.abc import Callable

FARTHEST = 64  # steps; a test that still does not reject so far out has no end on that side


def interval(p_value: Callable[[float], float], centre: float, step: float, conf_level: float) -> tuple[float, float]:
    """Both ends of the set of r with p_value(r) > 1 - conf_level, in steps outwards from `centre`; may be infinite."""
    alpha = 1 - conf_level
    return _end(p_value, centre, -step, alpha), _end(p_value, centre, step, alpha)


def _end(p_value: Callable[[float], float], centre: float, step: float, alpha: float) -> float:
    """Where the p-value falls below alpha; halved until the two sides are one number to 15 digits."""
    outside = centre + step
    while p_value(outside) > alpha:
        outside += step
        if abs(outside - centre) > FARTHEST * abs(step):
            return math.copysign(math.inf, step)
    inside = outside - step
    for _ in range(50):
        middle = (inside + outside) / 2
        if p_value(middle) > alpha:
            inside = middle
        else:
            outside = middle
    return (inside + outside) / 2
