"""Logit: the solver against fixest, sandwich and statsmodels; effects on shares against every dummy and a numerical gradient."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from biglocal.estimators import _within, correction, counted, logit_did, repeated_cross_section
from biglocal.estimators._glm import glm
from biglocal.model import Fit, Inapplicable, Sample
from panels import panel
from reference_cases import case, data


@pytest.mark.parametrize(("errors", "cluster"), [("cluster", "nr"), ("HC1", "row")])
def test_year_effects__felogit_wagepan(errors: str, cluster: str) -> None:
    whole = case("felogit_wagepan")
    expected, rel = whole["results"][errors], whole["tolerance"]["rel"]
    f = data("wagepan.csv")
    f = f.assign(row=range(len(f)))
    fixed, group = [_within.codes(f["year"])], _within.codes(f[cluster])
    columns = {t: f[t].to_numpy(dtype=float) for t in expected["term"]}
    fit = glm(f["union"].to_numpy(dtype=float), columns, fixed, np.ones(len(f)), "logit")
    factor = correction(len(f), counted(3, fixed, group), int(group.max()) + 1)
    error = np.sqrt(np.diag(_within.sandwich(fit.solution, fit.scores, group)) * factor)
    assert fit.beta == pytest.approx(expected["estimate"], rel=rel)
    assert error == pytest.approx(expected["se"], rel=rel)
    assert fit.deviance == pytest.approx(whole["results"]["deviance"], rel=rel)


def test_clustered_errors__logit_cluster_ohio() -> None:
    expected, rel = case("logit_cluster_ohio")["results"], case("logit_cluster_ohio")["tolerance"]["rel"]
    f = data("ohio.csv").astype(float)
    columns = {"constant": np.ones(len(f)), "age": f["age"], "smoke": f["smoke"], "both": f["age"] * f["smoke"]}
    columns = {n: np.asarray(c, dtype=float) for n, c in columns.items()}
    fit = glm(f["resp"].to_numpy(), columns, [], np.ones(len(f)), "logit")
    group = _within.codes(f["id"])
    n, g = len(f), int(group.max()) + 1
    raw = np.diag(_within.sandwich(fit.solution, fit.scores, group))
    assert fit.beta == pytest.approx(expected["estimate"], rel=rel)
    assert np.sqrt(np.diag(fit.solution.inverse)) == pytest.approx(expected["se_model"], rel=rel)
    assert np.sqrt(raw * g / (g - 1)) == pytest.approx(expected["se_cl_hc0"], rel=rel)
    assert np.sqrt(raw * correction(n, 4, g)) == pytest.approx(expected["se_cl_hc1"], rel=rel)


# --- effects on shares -----------------------------------------------------------------------------------------


def shares(seed: int = 6, effect: float = 0.0, scale: float = 100.0, **options: Any) -> Sample:
    s = panel(seed=seed, effect=effect, **options)
    return replace(s, frame=s.frame.assign(y=scale * (s.frame["y"] > 0.4)), covariates=("x",))


@pytest.mark.parametrize("levels", [(), ("even", "odd")])
@pytest.mark.parametrize("group", ["treated", "cluster"])
def test_effect_and_error_are_those_of_every_dummy_and_a_numerical_gradient(
    group: str, levels: tuple[str, ...]
) -> None:
    """The model written out: dummies, the score by hand, the mean effect as a function that is differentiated."""
    import statsmodels.api as sm
    from scipy.special import expit

    s = replace(shares(effect=1.0, units=240), levels=levels)
    f = s.frame
    inside = f["level"].astype(str) if levels else pd.Series("", index=f.index)
    groups = pd.get_dummies(inside + f[group].astype(str)).astype(float)
    years = pd.get_dummies(inside + f["time"].astype(str)).astype(float)
    years = years.drop(columns=[c for c in years if c.endswith("0")])
    where = [f["level"].to_numpy() == k for k in levels] or [np.ones(len(f), dtype=bool)]
    d = np.column_stack([f["d"] * w for w in where])
    x = np.column_stack([f["x"] * w for w in where])
    z = np.column_stack([d, x, groups, years])
    w, y = f["weight"].to_numpy(), f["y"].to_numpy() / 100
    theta = np.asarray(sm.GLM(y, z, family=sm.families.Binomial(), var_weights=w).fit(tol=1e-14, maxiter=200).params)

    def att(t: np.ndarray, i: int) -> float:
        rows = d[:, i] == 1
        gap = expit(z[rows] @ t) - expit(z[rows] @ t - t[i])
        return float(100 * np.average(gap, weights=w[rows]))

    p = expit(z @ theta)
    bread = np.linalg.inv(z.T @ (z * (w * p * (1 - p))[:, None]))
    scores = pd.DataFrame(z * (w * (y - p))[:, None]).groupby(f["cluster"].to_numpy()).sum().to_numpy()
    fixed = [_within.codes(f[group], inside), _within.codes(f["time"], inside)]
    k = counted(2 * len(where), fixed, _within.codes(f["cluster"]))
    vcov = bread @ scores.T @ scores @ bread * correction(len(f), k, 30)
    steps = np.eye(len(theta)) * 1e-5
    gradient = np.array([[(att(theta + h, i) - att(theta - h, i)) / 2e-5 for h in steps] for i in range(len(where))])
    covariance = gradient @ vcov @ gradient.T
    fit = logit_did.estimate(s, group=group)
    atts = [t for t in fit.terms if t.name == "att"]
    odds = [t for t in fit.terms if t.name == "log_odds"]
    for i in range(len(where)):
        assert atts[i].estimate == pytest.approx(att(theta, i), rel=1e-8)
        assert atts[i].std_error == pytest.approx(np.sqrt(covariance[i, i]), rel=1e-6)
        assert odds[i].estimate == pytest.approx(theta[i], rel=1e-8)
        assert odds[i].std_error == pytest.approx(np.sqrt(vcov[i, i]), rel=1e-6)
    if levels:
        gap = next(t for t in fit.terms if t.name == "difference")
        assert gap.std_error == pytest.approx(np.sqrt([-1, 1] @ covariance @ [-1, 1]), rel=1e-6)


def test_without_covariates_two_groups_and_two_years_are_four_shares() -> None:
    """The model is saturated: three of the shares give the counterfactual, by log odds."""
    s = shares(years=2, units=3000, start=1, clusters=60)
    s = replace(s, covariates=())
    f = s.frame
    p = f.groupby(["treated", "time"]).apply(
        lambda g: np.average(g["y"], weights=g["weight"]) / 100, include_groups=False
    )
    odds = np.log(p / (1 - p))
    counterfactual = 1 / (1 + np.exp(-(odds[1, 0] + odds[0, 1] - odds[0, 0])))
    fit = logit_did.estimate(s)
    assert fit.terms[0].estimate == pytest.approx(100 * (p[1, 1] - counterfactual), rel=1e-8)
    assert fit.terms[1].estimate == pytest.approx(odds[1, 1] - odds[1, 0] - odds[0, 1] + odds[0, 0], rel=1e-8)


def test_it_agrees_with_the_linear_model_where_shares_are_near_a_half() -> None:
    s = replace(shares(units=3000, clusters=60), covariates=())
    logit, linear = logit_did.estimate(s).terms[0], repeated_cross_section.estimate(s).terms[0]
    assert logit.estimate == pytest.approx(linear.estimate, abs=0.2 * linear.std_error)
    assert logit.std_error == pytest.approx(linear.std_error, rel=0.1)


def by_term(fit: Fit) -> dict[tuple[str, str], tuple[float, float]]:
    return {(t.name, t.level): (t.estimate, t.std_error) for t in fit.terms}


CHANGES = {
    "shuffle rows": lambda f: f.sample(frac=1, random_state=2),
    "relabel units": lambda f: f.assign(unit=10_000 - 7 * f["unit"]),
    "shift time": lambda f: f.assign(time=f["time"] + 2010, first_treated=f["first_treated"] + 2010),
    "scale weights": lambda f: f.assign(weight=5 * f["weight"]),
    "scale a covariate": lambda f: f.assign(x=1000 * f["x"] - 3),
    "another index": lambda f: f.set_axis(f.index * 3 + 1),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("group", ["treated", "cluster"])
def test_nothing_moves(change: str, group: str) -> None:
    s = shares()
    one = by_term(logit_did.estimate(s, group=group))
    two = by_term(logit_did.estimate(replace(s, frame=CHANGES[change](s.frame)), group=group))
    for key in one:
        assert two[key] == pytest.approx(one[key], rel=1e-7)


def test_the_outcome_turned_round_turns_the_effect_round_and_its_unit_is_that_of_the_outcome() -> None:
    s = shares()
    one = by_term(logit_did.estimate(s))
    turned = by_term(logit_did.estimate(replace(s, frame=s.frame.assign(y=1 - s.frame["y"] / 100))))
    for key, scale in ((("att", ""), 100), (("log_odds", ""), 1)):
        assert -turned[key][0] * scale == pytest.approx(one[key][0], rel=1e-8)
        assert turned[key][1] * scale == pytest.approx(one[key][1], rel=1e-8)


def test_groups_in_which_nothing_varies_leave_and_are_counted() -> None:
    s = shares()
    f = s.frame
    always = f["cluster"] == 3
    changed = replace(s, frame=f.assign(y=f["y"].where(~always, 100.0)))
    fit = logit_did.estimate(changed, group="cluster")
    without = logit_did.estimate(replace(s, frame=f[~always]), group="cluster")
    assert by_term(fit) == by_term(without)
    assert fit.facts["without_variation"] == int(always.sum()) + without.facts["without_variation"]
    assert logit_did.estimate(changed).facts["without_variation"] == 0


def test_small_groups_are_said_to_bias_and_the_sample_is_not_touched() -> None:
    s = shares()
    before = s.frame.copy()
    assert "incidental parameters" in logit_did.estimate(shares(seed=3), group="unit").caution
    assert logit_did.estimate(s).caution == ""
    pd.testing.assert_frame_equal(s.frame, before)
    first = s.frame["first_treated"] + (s.frame["cluster"] % 2)
    late = s.frame.assign(first_treated=first, d=((s.frame["treated"] == 1) & (s.frame["time"] >= first)).astype(float))
    assert "staggered" in logit_did.estimate(replace(s, frame=late)).caution


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda f: f[f["time"] >= 5], "no period before"),
        (lambda f: f[f["time"] < 5], "no period after"),
        (lambda f: f[f["treated"] == 1], "0 comparison"),
        (lambda f: f[(f["treated"] == 0) | (f["cluster"] == 0)], "1 treated cluster"),
        (lambda f: f.assign(y=100.0), "constant"),
        (lambda f: f.assign(y=f["x"]), "two values"),
        (lambda f: f.assign(y=f["y"] + 1), "two values, 0 and another"),
        (lambda f: f.assign(weight=0.0), "weights are zero"),
        (lambda f: f[:0], "no rows"),
        (lambda f: f.assign(y=f["y"].where(f["d"] == 0, 100.0)), "predicted perfectly"),
        (lambda f: f.assign(x=f["y"]), "predicted perfectly"),
        (lambda f: f.assign(x=f["treated"] - 3.0 * f["time"]), "collinear .*: x"),
        (lambda f: f.assign(x=f["x"].where(f["unit"] > 3)), "missing in 32 rows"),
    ],
)
def test_degenerate_input_is_refused_with_a_reason(change: Any, reason: str) -> None:
    s = shares()
    with pytest.raises(Inapplicable, match=reason):
        logit_did.estimate(replace(s, frame=change(s.frame)))
