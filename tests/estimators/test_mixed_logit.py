"""Logit with random intercepts against R's glmer, statsmodels, and the integral itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from biglocal.estimators import mixed_logit
from biglocal.model import Inapplicable
from reference_cases import case, data
from waves import survey


def two_values(seed: int = 1, **options: Any) -> pd.DataFrame:
    f = survey(seed=seed, **options).frame
    return f.assign(y=(f["y"] > 20.8).astype(float))


def test_glmer__glmer_ohio() -> None:
    found = case("glmer_ohio")
    expected, tolerance = found["results"], found["tolerance"]
    fit = mixed_logit.fit(data("ohio.csv"), "resp ~ age + smoke", unit="id", nodes=25)
    said = [t for t in fit.terms if t.name != "odds_ratio"]
    assert [t.estimate for t in said] == pytest.approx(expected["estimate"], rel=tolerance["rel"])
    assert [t.std_error for t in said] == pytest.approx(expected["se"], rel=1e-3)
    assert fit.facts["sd"] == pytest.approx(expected["sd_intercept"], rel=1e-4)
    assert fit.facts["loglik"] == pytest.approx(expected["loglik"], abs=1e-5)
    assert fit.facts["loglik"] >= expected["loglik"]  # theirs stops a little below the top


def test_the_likelihood_is_the_integral_and_its_derivatives_are_right() -> None:
    from scipy.integrate import quad
    from scipy.special import expit

    f = two_values(persons=25)
    fit = mixed_logit.fit(f, "y ~ x", unit="unit")
    beta = np.array([t.estimate for t in fit.terms if t.name != "odds_ratio"])
    x = np.column_stack([np.ones(len(f)), f["x"]])

    def log_likelihood(theta: Any) -> float:
        total = 0.0
        for rows in f.groupby("unit").indices.values():
            linear, y = x[rows] @ theta[:2], f["y"].to_numpy()[rows]

            def inside(u: float, linear: Any = linear, y: Any = y) -> float:
                p = expit(linear + theta[2] * u)
                return float(np.prod(np.where(y > 0, p, 1 - p)) * np.exp(-(u**2) / 2) / np.sqrt(2 * np.pi))

            total += np.log(quad(inside, -12, 12, epsabs=1e-13, epsrel=1e-11)[0])
        return total

    best = np.append(beta, fit.facts["sd"])
    assert fit.facts["loglik"] == pytest.approx(log_likelihood(best), abs=1e-6)
    for step in 1e-3 * np.eye(3):
        slope = (log_likelihood(best + step) - log_likelihood(best - step)) / 2e-3
        assert slope == pytest.approx(0, abs=1e-3)
    hessian = np.empty((3, 3))
    h = 1e-2
    for i in range(3):
        for j in range(3):
            a, b = h * np.eye(3)[i], h * np.eye(3)[j]
            corners = [log_likelihood(best + s * a + t * b) for s, t in ((1, 1), (1, -1), (-1, 1), (-1, -1))]
            hessian[i, j] = (corners[0] - corners[1] - corners[2] + corners[3]) / (4 * h * h)
    errors = np.sqrt(np.diag(np.linalg.inv(-hessian)))[:2]
    assert [t.std_error for t in fit.terms if t.name != "odds_ratio"] == pytest.approx(list(errors), rel=1e-3)


def test_a_row_of_weight_two_is_two_rows() -> None:
    f = two_values(persons=60)
    two = mixed_logit.fit(f.assign(w=2.0), "y ~ x", unit="unit", weight="w")
    twice = mixed_logit.fit(pd.concat([f, f]), "y ~ x", unit="unit")
    assert [t.estimate for t in two.terms] == pytest.approx([t.estimate for t in twice.terms], rel=1e-7)
    assert two.facts["loglik"] == pytest.approx(twice.facts["loglik"], rel=1e-10)


def test_no_variance_is_an_ordinary_logit_and_said() -> None:
    import statsmodels.api as sm

    rng = np.random.default_rng(5)
    f = pd.DataFrame({"unit": np.repeat(np.arange(150), 2), "x": rng.normal(size=300)})
    f["y"] = np.tile([0.0, 1.0], 150)  # each person once yes, once no
    f.loc[:40, "y"] = rng.integers(0, 2, 41)
    fit = mixed_logit.fit(f, "y ~ x", unit="unit")
    plain = sm.Logit(f["y"], sm.add_constant(f["x"])).fit(disp=0)
    assert fit.facts["sd"] == 0
    assert "at its bound" in fit.caution
    assert [t.estimate for t in fit.terms if t.name != "odds_ratio"] == pytest.approx(list(plain.params), abs=1e-8)
    assert [t.std_error for t in fit.terms if t.name != "odds_ratio"] == pytest.approx(list(plain.bse), rel=1e-6)
    assert fit.facts["loglik"] == pytest.approx(plain.llf, abs=1e-6)


def test_what_cannot_be_fitted_is_refused() -> None:
    f = two_values(persons=60)
    rng = np.random.default_rng(1)
    each = np.repeat(rng.integers(0, 2, 60), 5).astype(float)
    same = pd.DataFrame({"unit": np.repeat(np.arange(60), 5), "y": each, "x": rng.normal(size=300)})
    with pytest.raises(Inapplicable, match="same each time"):
        mixed_logit.fit(same, "y ~ x", unit="unit")
    with pytest.raises(Inapplicable, match="no person is seen twice"):
        mixed_logit.fit(f.drop_duplicates("unit"), "y ~ x", unit="unit")
    with pytest.raises(Inapplicable, match="predicted perfectly"):
        mixed_logit.fit(f.assign(z=f["y"]), "y ~ z", unit="unit")
    with pytest.raises(Inapplicable, match="always 1"):
        mixed_logit.fit(f.assign(y=1.0), "y ~ x", unit="unit")
