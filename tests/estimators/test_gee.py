"""Generalised estimating equations against R's geepack and statsmodels."""

from __future__ import annotations

import numpy as np
import pytest

from biglocal.estimators import gee
from biglocal.estimators._within import codes
from biglocal.model import Inapplicable
from reference_cases import case, data
from waves import survey


@pytest.mark.parametrize("name", ["gee_ohio_exchangeable", "gee_ohio_independence", "gee_ohio_ar1"])
def test_geepack(name: str) -> None:
    found = case(name)
    expected, tolerance = found["results"], found["tolerance"]
    kind = name.removeprefix("gee_ohio_")
    fit = gee.fit(data("ohio.csv"), "resp ~ age * smoke", unit="id", time="age", correlation=kind)

    def near(value: object) -> object:
        return pytest.approx(value, rel=tolerance["rel"], abs=tolerance["abs"])

    said = [t for t in fit.terms if t.name != "odds_ratio"]
    assert [t.estimate for t in said] == near(expected["estimate"])
    assert [t.std_error for t in said] == near(expected["se_robust"])
    assert [(t.estimate / t.std_error) ** 2 for t in said] == near(expected["wald"])
    assert [t.estimate for t in fit.terms if t.name == "odds_ratio"] == near(expected["or"])
    low, high = (np.exp([t.estimate + z * t.std_error for t in said]) for z in (-1.959963984540054, 1.959963984540054))
    assert list(low) == near(expected["or_low"])
    assert list(high) == near(expected["or_high"])
    if expected["alpha"]:
        assert fit.facts["alpha"] == near(expected["alpha"][0])
    assert fit.facts["scale"] == near(expected["scale"][0])
    assert (fit.n_obs, fit.n_clusters) == (expected["n"], expected["n_clusters"])


@pytest.mark.parametrize("family", ["gaussian", "logit", "poisson"])
@pytest.mark.parametrize("correlation", ["independence", "exchangeable"])
def test_statsmodels(family: str, correlation: str) -> None:
    import statsmodels.api as sm

    f = survey().frame
    f = f.assign(y=f["y"] if family == "gaussian" else (f["y"] > 21).astype(float))
    families = {"gaussian": sm.families.Gaussian(), "logit": sm.families.Binomial(), "poisson": sm.families.Poisson()}
    kinds = {"independence": sm.cov_struct.Independence(), "exchangeable": sm.cov_struct.Exchangeable()}
    x = np.column_stack([np.ones(len(f)), f["d"], f["age"]])
    model = sm.GEE(f["y"], x, groups=f["unit"], family=families[family], cov_struct=kinds[correlation])
    theirs = model.fit(maxiter=200, ctol=1e-12, ddof_scale=0)
    ours = gee.fit(f, "y ~ d + age", unit="unit", family=family, correlation=correlation)
    said = [t for t in ours.terms if t.name != "odds_ratio"]
    # statsmodels takes the coefficients' number from the pairs of its exchangeable correlation: 1e-4 of it
    loose = 1e-3 if correlation == "exchangeable" else 1e-7
    assert [t.estimate for t in said] == pytest.approx(list(theirs.params), rel=loose, abs=loose)
    assert [t.std_error for t in said] == pytest.approx(list(theirs.bse), rel=loose)


def test_identity_link_with_independence_is_least_squares_with_clustered_errors() -> None:
    import statsmodels.api as sm

    s = survey()
    f = s.frame
    ours = gee.estimate(s, of="association", family="gaussian", correlation="independence")
    x = np.column_stack([np.ones(len(f)), f["time"] == 2018, f["time"] == 2020, f["d"], f["age"], f["x"]]).astype(float)
    theirs = sm.OLS(f["y"], x).fit(cov_type="cluster", cov_kwds={"groups": codes(f["cluster"])})
    assert ours.terms[0].estimate == pytest.approx(theirs.params.iloc[3], rel=1e-10)
    assert ours.terms[0].std_error == pytest.approx(theirs.bse.iloc[3], rel=1e-10)
    assert ours.terms[0].df == f["cluster"].nunique() - 1


def test_what_cannot_be_fitted_is_refused() -> None:
    s = survey()
    with pytest.raises(Inapplicable, match="two values"):
        gee.estimate(s)
    f = s.frame.assign(y=(s.frame["d"] > 3).astype(float))
    with pytest.raises(Inapplicable, match="predicted perfectly"):
        gee.fit(f, "y ~ d", unit="unit")
    with pytest.raises(Inapplicable, match="at the same time"):
        gee.fit(f.assign(t=1), "y ~ x", unit="unit", time="t", correlation="ar1")
