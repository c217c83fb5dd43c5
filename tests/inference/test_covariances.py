"""Errors of one regression under every convention of fixest, and over time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from biglocal.inference.hac import driscoll_kraay, newey_west
from biglocal.inference.multiplicity import Outcome, romano_wolf
from biglocal.inference.randomisation import randomise
from biglocal.inference.regression import Regression, regression
from biglocal.inference.satterthwaite import corrected
from biglocal.inference.twoway import Covariance, area_and_year, clustered, independent
from biglocal.inference.wild import wild_cluster
from biglocal.model import Inapplicable
from panels import panel
from reference_cases import case, data

REL = 1e-6  # the cases' tolerance
CLUSTERED: dict[str, dict[str, Any]] = {
    "cluster_unit": {},
    "cluster_unit_noKadj": {"count_parameters": False},
    "cluster_unit_Kfull": {"counting": "full"},
    "cluster_unit_Knone": {"counting": "none"},
    "cluster_unit_noGadj": {"groups": "none"},
    "cluster_unit_none": {"groups": "none", "count_parameters": False},
    "cluster_unit_tconv": {"residual_df": True},
    "twoway_unit_time": {},
    "twoway_unit_time_Gconv": {"groups": "conventional"},
}


def near(fit: Covariance, expected: dict[str, Any]) -> None:
    assert fit.estimate == pytest.approx(expected["estimate"], rel=REL)
    assert fit.std_error == pytest.approx(expected["se"], rel=REL)
    assert fit.df == expected["df_t"]
    assert fit.p_values() == pytest.approx(expected["p"], rel=REL)
    assert fit.intervals() == pytest.approx(np.column_stack([expected["ci_low"], expected["ci_high"]]), rel=REL)


def made(name: str) -> tuple[Regression, Any, Any]:
    if name == "twfe_base_did":
        f = data("base_did.csv")
        x = np.column_stack([f["x1"], f["treat"] * f["post"]])
        return regression(f["y"], x, fixed=(f["id"], f["period"])), f["id"], f["period"]
    f = data("castle.csv")
    x = f[case(name)["results"]["iid"]["term"]]
    weight = f["popwt"] if name == "twfe_castle_weighted" else None
    return regression(f["l_homicide"], x, fixed=(f["sid"], f["year"]), weight=weight), f["sid"], f["year"]


@pytest.mark.parametrize("name", ["twfe_base_did", "twfe_castle", "twfe_castle_weighted"])
@pytest.mark.parametrize("variance", ["iid", "HC1", "HC2", "HC3", *CLUSTERED])
def test_variances_of_fixest(name: str, variance: Any) -> None:
    results = case(name)["results"]
    fit, unit, time = made(name)
    if variance in CLUSTERED:
        ways = (unit, time) if variance.startswith("twoway") else (unit,)
        near(clustered(fit, *ways, **CLUSTERED[variance]), results[variance])
    else:
        near(independent(fit, variance), results[variance])


@pytest.mark.parametrize("name", ["twfe_base_did", "twfe_castle", "twfe_castle_weighted"])
def test_two_way_without_making_it_definite(name: str) -> None:
    fit, unit, time = made(name)
    expected = np.array(case(name)["results"]["twoway_unit_time_se_without_psd_fix"], dtype=float)
    found = np.diag(clustered(fit, unit, time, definite=False).vcov)
    assert found[np.isfinite(expected)] == pytest.approx(expected[np.isfinite(expected)] ** 2, rel=REL)


@pytest.mark.parametrize("variance", ["DK2", "NW2", "iid"])
def test_panel_hac_grunfeld(variance: str) -> None:
    f = data("grunfeld.csv")
    fit = regression(f["inv"], f[["value", "capital"]], fixed=(f["firm"],))
    found = {
        "DK2": lambda: driscoll_kraay(fit, f["year"], 2),
        "NW2": lambda: newey_west(fit, f["firm"], f["year"], 2),
        "iid": lambda: independent(fit, "iid"),
    }[variance]()
    near(found, case("panel_hac_grunfeld")["results"][variance])


def test_without_lags_newey_west_is_hc_and_driscoll_kraay_is_clustered_on_time() -> None:
    f = panel(seed=2, units=20).frame
    fit = regression(f["y"], f["x"], fixed=(f["unit"],))
    t = f["time"].nunique()
    factor = np.sqrt(t / (t - 1) * (len(f) - 1) / len(f))
    assert newey_west(fit, f["unit"], f["time"], 0).std_error / factor == pytest.approx(independent(fit).std_error)
    assert driscoll_kraay(fit, f["time"], 0).std_error == pytest.approx(clustered(fit, f["time"]).std_error)


def test_a_fixed_effect_absorbed_or_not_is_the_same_regression() -> None:
    f = panel(seed=2, units=20).frame
    one = regression(f["y"], f[["d", "x"]], fixed=(f["unit"], f["time"]), weight=f["weight"])
    two = regression(f["y"], f[["d", "x"]], fixed=(f["unit"], f["time"]), weight=f["weight"], within=f.index % 7)
    assert one.absorbed is not None
    assert two.absorbed is None
    assert one.rank == two.rank
    assert one.beta == pytest.approx(two.beta, rel=1e-10)
    assert independent(one, "HC3").vcov == pytest.approx(independent(two, "HC3").vcov, rel=1e-9)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"y": []}, "no rows"),
        ({"x": [1.0, 2.0, np.inf, 1.0]}, "x has 1 missing"),
        ({"weight": [1.0, 1.0, 0.0, 1.0]}, "not positive"),
        ({"x": [3.0, 3.0, 3.0, 3.0]}, "collinear"),
        ({"x": [[1.0, 2.0], [2.0, 4.0], [0.0, 0.0], [1.0, 2.0]]}, "collinear"),
        ({"fixed": ([0, 1, 2, 3],)}, "collinear"),
        ({"fixed": ([0, 1, 2],)}, "unequal length"),
        ({"fixed": ([0, 0, 1, 1],), "nuisance": [0.0, 1.0, 1.0, 3.0]}, "nothing is left"),
    ],
)
def test_what_cannot_be_estimated_is_refused(arguments: dict[str, Any], reason: str) -> None:
    plain: dict[str, Any] = {"y": [1.0, 2.0, 4.0, 3.0], "x": [0.0, 1.0, 1.0, 0.0]}
    with pytest.raises(Inapplicable, match=reason):
        regression(**{**plain, **arguments})


@pytest.mark.parametrize("rows", ["balanced", "unbalanced"])
def test_the_att_clustered_on_area_and_year_is_that_of_linearmodels(rows: str) -> None:
    """Its raw two-way sandwich, times our factor: the smaller number of clusters, and K of what is nested in none."""
    from linearmodels.panel import PanelOLS

    from biglocal.estimators import twfe

    drawn = panel(seed=2, effect=0.3, years=8)
    if rows == "unbalanced":
        drawn = replace(drawn, frame=drawn.frame.sample(frac=0.8, random_state=1))
    fit = twfe.estimate(drawn)
    term = area_and_year(twfe.estimate, drawn, fit, np.random.default_rng(0), conf_level=0.95).terms[0]
    f = drawn.frame.set_index(["unit", "time"], drop=False).rename_axis(["entity", "year"])
    model = PanelOLS(f["y"], f[["d"]], weights=f["weight"], entity_effects=True, time_effects=True)
    theirs = model.fit(
        cov_type="clustered", clusters=f[["cluster", "time"]], debiased=False, auto_df=False, count_effects=False,
        group_debias=False,
    )  # fmt: skip
    n, years = len(f), f["time"].nunique()
    factor = np.sqrt(years / (years - 1) * (n - 1) / (n - 2))
    assert term.estimate == pytest.approx(theirs.params["d"], rel=1e-8)
    assert term.std_error == pytest.approx(theirs.std_errors["d"] * factor, rel=1e-8)
    assert term.df == years - 1
    interval = theirs.params["d"] + np.array([-1, 1]) * stats.t.ppf(0.975, years - 1) * term.std_error
    assert (term.conf_low, term.conf_high) == pytest.approx(tuple(interval), rel=1e-8)


def test_degenerate_clusters_and_lags_are_refused() -> None:
    fit = regression([1.0, 2, 4, 3, 7], [0.0, 1, 1, 0, 2])
    with pytest.raises(Inapplicable, match="1 cluster"):
        clustered(fit, [0, 0, 0, 0, 0])
    with pytest.raises(Inapplicable, match="no cluster"):
        clustered(fit)
    with pytest.raises(Inapplicable, match="1 period"):
        driscoll_kraay(fit, [1, 1, 1, 1, 1], 0)
    with pytest.raises(Inapplicable, match="lag 9"):
        driscoll_kraay(fit, [1, 2, 3, 4, 5], 9)
    with pytest.raises(Inapplicable, match="two rows"):
        newey_west(fit, [0, 0, 0, 0, 0], [1, 1, 2, 3, 4], 1)


def test_an_outcome_that_does_not_vary_has_no_t() -> None:
    """Whatever gives a p-value gives the reason instead: none of these may say that nought differs from nought."""
    x, cluster, nought = np.repeat([1.0, 0.0], 12), np.repeat(np.arange(8), 3), np.zeros(24)
    rng = np.random.default_rng(0)
    reasons: dict[str, Callable[[], object]] = {
        "CR1": clustered(regression(nought, x), cluster).p_values,
        "CR2": corrected(nought, x, cluster).p_values,
        "wild": lambda: wild_cluster(nought, x, cluster, rng=rng, draws=99),
        "Romano-Wolf": lambda: romano_wolf([Outcome(nought, x, cluster)], rng=rng, draws=99),
        "randomisation": lambda: randomise(
            nought, np.where(x == 1, 0, np.nan), cluster, rng=rng, statistic="t", draws=99
        ),
    }
    for way, test in reasons.items():
        with pytest.raises(Inapplicable, match="not positive"):
            raise AssertionError(f"{way}: {test()}")


@pytest.mark.parametrize("name", ["cr2", "wild_bootstrap", "randomisation", "twoway"])
def test_no_fit_is_lent_the_test_of_another_regression(name: str) -> None:
    """An estimator that says one ATT too, but not that of two-way fixed effects."""
    from biglocal import inference
    from biglocal.estimators import estimator

    drawn = panel()
    fit = estimator("twfe")(drawn)
    infer = inference.infer(name, 0.95, 99)
    assert infer(estimator("twfe"), drawn, fit, np.random.default_rng(1)).terms[0].p_value >= 0
    other = replace(fit, terms=(replace(fit.terms[0], estimate=fit.terms[0].estimate + 0.01),))
    with pytest.raises(Inapplicable, match="tests the two-way fixed-effects ATT"):
        infer(estimator("drdid"), drawn, other, np.random.default_rng(1))
