"""Equivalence of pre-trends: by hand, its size at the boundary, and from a fit."""

from __future__ import annotations

import numpy as np
import pytest

from biglocal.estimators import event_study, twfe
from biglocal.inference.equivalence import equivalence, pre_trends
from biglocal.model import Inapplicable
from panels import panel


def test_by_hand() -> None:
    found = equivalence([0.1, -0.3], [0.1, 0.2], 0.8)
    assert found.worst == 1
    assert found.smallest == pytest.approx(0.3 + 1.6448536269514722 * 0.2)
    assert found.p_value == pytest.approx(0.006209665325776132)  # normal tail at -2.5
    assert equivalence([0.1, -0.3], [0.1, 0.2], found.smallest).p_value == pytest.approx(0.05)
    assert equivalence([0.1, -0.3], [0.1, 0.2], 0.8, df=5).p_value > found.p_value


def test_size_at_the_boundary() -> None:
    """One lead exactly at the threshold: the test that it is smaller rejects in 5% of draws."""
    z = np.random.default_rng(0).normal(1.0, 0.2, size=4_000)
    share = np.mean([equivalence([v, 0.0], [0.2, 0.01], 1.0).p_value <= 0.05 for v in z])
    assert share == pytest.approx(0.05, abs=3 * np.sqrt(0.05 * 0.95 / 4_000))


def test_of_a_fit() -> None:
    s = panel(seed=3)
    fit = event_study.estimate(s)
    leads = [t for t in fit.terms if t.name == "event_time" and (t.period or 0) < -1]
    found = pre_trends(fit, 0.5)
    assert found.smallest >= max(abs(t.estimate) for t in leads)
    assert pre_trends(fit, found.smallest).p_value == pytest.approx(0.05)
    with pytest.raises(Inapplicable, match="no leads"):
        pre_trends(twfe.estimate(s), 0.5)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [(([], [], 1.0), "0 leads"), (([1.0], [0.0], 1.0), "positive"), (([1.0], [1.0], 0.0), "positive")],
)
def test_what_cannot_be_tested_is_refused(arguments: tuple[list[float], list[float], float], reason: str) -> None:
    with pytest.raises(Inapplicable, match=reason):
        equivalence(*arguments)
