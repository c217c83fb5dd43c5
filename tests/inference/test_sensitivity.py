"""Bounds under departures from parallel trends against R's HonestDiD, linear programmes and random search."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from biglocal.estimators import event_study as estimator
from biglocal.inference.sensitivity import (
    EventStudy,
    _flci,
    _folded,
    _relative,
    _smooth,
    breakdown,
    event_study,
    of_sample,
    original,
    relative_magnitudes,
    smoothness,
)  # fmt: skip
from biglocal.model import Inapplicable
from panels import panel, sample
from reference_cases import FOLDER, case, data

METHODS = {
    "rm_CLF": lambda s, m: relative_magnitudes(s, m),
    "rm_Conditional": lambda s, m: relative_magnitudes(s, m, method="conditional"),
    "sd_FLCI": lambda s, m: smoothness(s, m),
    "sd_CLF": lambda s, m: smoothness(s, m, method="C-LF"),
    "sd_CF": lambda s, m: smoothness(s, m, method="C-F"),
}


def base_did() -> EventStudy:
    f = data("base_did.csv")
    return of_sample(sample(f.assign(d=f["treat"] * f["post"]), "y", "id", "period", "d"))


def benzarti_carloni(weights: list[float] | None = None) -> EventStudy:
    case("honest_bc")  # skips where there is no reference
    beta = data("eventstudy_bc_beta.csv")["betahat"]
    return event_study(beta, pd.read_csv(FOLDER / "data" / "eventstudy_bc_sigma.csv", header=None), 4, weights)


def near(study: EventStudy, result: str, expected: dict[str, Any]) -> None:
    """At the cases' tolerance, 1% and 0.05 standard errors. Ends cut by R's grid must lie beyond it.

    Without simulation (conditional) the sets are R's, grid point by grid point.
    """
    theirs = expected[result]
    found = METHODS[result](study, theirs["M"])
    for side, ours in (("lb", found.conf_low), ("ub", found.conf_high)):
        cut = theirs.get(f"{side}_at_grid_limit") or [False] * len(ours)
        grid = 20 * study.std_error
        for i, (a, b) in enumerate(zip(ours, theirs[side], strict=True)):
            if cut[i] or (result == "sd_CLF" and abs(b) >= grid * (1 - 1e-9)):
                assert abs(a) >= abs(b)
            elif result == "rm_Conditional":
                assert a == pytest.approx(b, rel=1e-6)
            else:
                assert abs(a - b) <= 0.01 * abs(b) + 0.05 * study.std_error, (side, theirs["M"][i])


@pytest.mark.parametrize("result", ["rm_CLF", "rm_Conditional", "sd_FLCI", "sd_CLF"])
def test_honest_base_did(result: str) -> None:
    expected = case("honest_base_did")["results"]
    study = base_did()
    assert study.beta == pytest.approx(expected["betahat"], rel=1e-6)
    assert original(study) == pytest.approx(
        (expected["first"]["original"]["lb"], expected["first"]["original"]["ub"]), rel=1e-6
    )
    near(study, result, expected["first"])


@pytest.mark.parametrize(
    ("target", "result"),
    [("first", r) for r in METHODS] + [("avg", r) for r in METHODS if r != "sd_CF"],
)
def test_honest_bc(target: str, result: str) -> None:
    expected = case("honest_bc")["results"][target]
    study = benzarti_carloni(None if target == "first" else [0.25] * 4)
    assert original(study) == pytest.approx((expected["original"]["lb"], expected["original"]["ub"]), rel=1e-9)
    near(study, result, expected)


def made(n_pre: int, n_post: int, seed: int = 0, weights: list[float] | None = None) -> EventStudy:
    rng = np.random.default_rng(seed)
    k = n_pre + n_post
    root = rng.normal(size=(k, k + 3))
    return event_study(rng.normal(size=k), root @ root.T / k, n_pre, weights)


@pytest.mark.parametrize(("n_pre", "n_post"), [(1, 2), (3, 3), (4, 2)])
def test_vertices_solve_the_linear_programme(n_pre: int, n_post: int) -> None:
    """min eta s.t. A(beta - tau) - d <= eta sd for some tau with l'tau = theta, by scipy's solver."""
    from scipy.optimize import linprog

    study = made(n_pre, n_post, weights=[1.0, 0.5, -0.2][:n_post])
    n = n_pre + n_post
    steps = np.delete(np.diff(np.eye(n + 1), axis=0), n_pre, axis=1)
    for m, theta in ((0.7, 0.3), (1.5, -2.0)):
        polyhedra = _relative(study, m)
        assert len(polyhedra) == 2 * n_pre
        largest = steps[0]
        rows = steps[n_pre:]
        a = np.vstack([rows - m * largest, -rows - m * largest])
        sd = np.sqrt(np.diag(a @ study.vcov @ a.T))
        solved = linprog(
            np.r_[1.0, np.zeros(n_post)],
            A_ub=np.column_stack([-sd, -a[:, n_pre:]]), b_ub=-a @ study.beta,
            A_eq=[np.r_[0.0, study.weights]], b_eq=[theta], bounds=(None, None),
        )  # fmt: skip
        ours = (polyhedra[0].level - polyhedra[0].slope * theta).max()
        assert ours == pytest.approx(solved.fun, rel=1e-8, abs=1e-9)


@pytest.mark.parametrize("n_post", [1, 3])
def test_vertices_of_smoothness(n_post: int) -> None:
    study = made(3, n_post)
    p = _smooth(study, 0.2)
    assert np.linalg.eigvalsh(p.cov)[0] > -1e-9
    assert len(p.level) == (2 * 3 if n_post == 1 else n_post + 2)


@pytest.mark.parametrize("m", [0.0, 0.1, 0.6])
def test_no_other_linear_estimator_has_a_shorter_fixed_length(m: float) -> None:
    study = made(4, 3, seed=2)
    low, high, v = _flci(study, m, 0.05)
    times = np.r_[-4:0, 1:4].astype(float)
    assert v @ times == pytest.approx(0, abs=1e-9)
    assert v[4:] == pytest.approx(study.weights)
    rng = np.random.default_rng(1)

    def half(v: np.ndarray) -> float:
        hinges = [np.maximum(k - times, 0) for k in (-3, -2, -1)] + [np.maximum(times - k, 0) for k in (0, 1, 2)]
        bias = m * sum(abs(v @ h) for h in hinges)
        s = float(np.sqrt(v @ study.vcov @ v))
        return s * _folded(bias / s, 0.05)[0]

    assert half(v) == pytest.approx((high - low) / 2, rel=1e-9)
    for scale in (1e-3, 1e-2, 0.1, 1.0):
        for _ in range(50):
            move = np.r_[rng.normal(scale=scale, size=4), np.zeros(3)]
            move[:4] -= times[:4] * (move @ times) / (times[:4] @ times[:4])
            assert half(v + move) >= half(v) * (1 - 1e-8)


def test_laws() -> None:
    study = made(3, 3, seed=5)
    scaled = event_study(-10 * study.beta, 100 * study.vcov, 3)
    for find in (relative_magnitudes, smoothness):
        one = find(study, [0.0, 0.5, 1.0])
        unit = 10.0 if find is smoothness else 1.0
        two = find(scaled, [0.0, 0.5 * unit, 1.0 * unit])
        assert one.conf_low == pytest.approx([-v / 10 for v in two.conf_high], abs=1e-4 * study.std_error)
        width = np.subtract(one.conf_high, one.conf_low)
        assert (np.diff(width) > 0).all()
    level = smoothness(study, [0.3], conf_level=0.9)
    assert level.conf_high[0] - level.conf_low[0] < width[1]


def test_breakdown_is_where_the_interval_reaches_nought() -> None:
    study = benzarti_carloni()
    for restriction, find in (("relative_magnitudes", relative_magnitudes), ("smoothness", smoothness)):
        m = breakdown(study, restriction)  # type: ignore[arg-type]
        found = find(study, [m * 0.95, m * 1.05])
        assert found.conf_low[0] > 0 > found.conf_low[1]
    none = event_study(np.zeros(4), np.eye(4), 2)
    assert breakdown(none, "relative_magnitudes") == 0
    assert breakdown(none, "smoothness") == 0


def test_coverage_of_the_bounds() -> None:
    """A trend whose last step is 1.5 times the largest before: Mbar = 1.5 covers at 95% or more."""
    rng = np.random.default_rng(0)
    delta = np.array([-0.6, -0.2, -0.3, 0.6])  # three before, reference nought, one after; steps .4 -.1 .3 and .6
    vcov = 0.02 * (np.eye(4) + 1)
    drawn = rng.multivariate_normal(delta, vcov, size=60)
    covered = 0
    for beta in drawn:
        found = relative_magnitudes(event_study(beta, vcov, 3), [1.5], method="conditional")
        covered += found.conf_low[0] <= 0 <= found.conf_high[0]
    assert covered >= 52  # 95% of 60 less three binomial errors


def test_event_study_of_a_sample_is_the_estimators() -> None:
    s = panel(seed=3, effect=0.2)
    study = of_sample(s)
    terms = [t for t in estimator.estimate(s).terms if t.name == "event_time" and t.period != -1]
    assert study.beta == pytest.approx([t.estimate for t in terms], rel=1e-7)
    assert np.sqrt(np.diag(study.vcov)) == pytest.approx([t.std_error for t in terms], rel=1e-7)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (([1.0, 2], np.eye(2), 0), "0 periods before"),
        (([1.0, 2], np.eye(2), 2), "and 0 after"),
        (([1.0, 2], np.eye(3), 1), "shapes"),
        (([1.0, np.nan], np.eye(2), 1), "missing"),
        (([1.0, 2], np.ones((2, 2)), 1), "not positive definite"),
    ],
)
def test_event_studies_that_cannot_be_bounded_are_refused(arguments: Any, reason: str) -> None:
    with pytest.raises(Inapplicable, match=reason):
        event_study(*arguments)


def test_negative_m_is_refused() -> None:
    with pytest.raises(Inapplicable, match="at least nought"):
        smoothness(made(2, 2), [-0.1])
