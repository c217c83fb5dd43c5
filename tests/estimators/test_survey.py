"""Design-based errors against R's survey, and repeated cross-sections with persons in the rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from biglocal.estimators import _survey, repeated_cross_section, twfe
from biglocal.estimators._within import cluster_sums
from biglocal.model import Inapplicable, Sample
from panels import panel
from reference_cases import case, data


def near(value: Any, name: str) -> Any:
    tolerance = case(name)["tolerance"]
    return pytest.approx(value, rel=tolerance["rel"], abs=tolerance["abs"])


def columns_of(f: pd.DataFrame, *names: str) -> dict[str, np.ndarray]:
    return {"constant": np.ones(len(f)), **{n: f[n].to_numpy(dtype=float) for n in names}}


@pytest.mark.parametrize("fpc", [True, False], ids=["with correction", "without"])
def test_clusters__svy_apiclus1(fpc: bool) -> None:
    name, f = "svy_apiclus1", data("apiclus1.csv")
    expected = case(name)["results"]
    size = f["fpc"].to_numpy(dtype=float) if fpc else None
    drawn = _survey.design(f["pw"].to_numpy(dtype=float), f["dnum"], size=size)
    y, one = f["api00"].to_numpy(dtype=float), np.ones(len(f))
    mean = expected["mean_fpc" if fpc else "mean_nofpc"]
    assert _survey.ratio(y, one, drawn) == near((mean["mean"][0], mean["se"][0]), name)
    assert _survey.design_effect(y, drawn) == near(mean["deff"][0], name)
    assert drawn.df == mean["df"]
    if fpc:
        total = expected["total"]
        assert _survey.total(f["enroll"].to_numpy(dtype=float), drawn) == near((total["mean"][0], total["se"][0]), name)
        for i, level in enumerate(expected["by_stype"]["level"]):
            where = (f["stype"] == level).to_numpy(dtype=float)
            wanted = (expected["by_stype"]["mean"][i], expected["by_stype"]["se"][i])
            assert _survey.ratio(y * where, where, drawn) == near(wanted, name)
        both = [f[c].to_numpy(dtype=float) for c in ("api.stu", "enroll")]
        assert _survey.ratio(*both, drawn) == near((expected["ratio"]["r"], expected["ratio"]["se"]), name)
    glm = expected["glm" if fpc else "glm_nofpc"]
    beta, vcov = _survey.regression(y, columns_of(f, "ell", "meals", "mobility"), drawn)
    assert beta == near(glm["estimate"], name)
    assert np.sqrt(np.diag(vcov)) == near(glm["se"], name)
    assert drawn.df == glm["design_df"]


def test_strata__svy_apistrat() -> None:
    name, f = "svy_apistrat", data("apistrat.csv")
    expected = case(name)["results"]
    weight, size = f["pw"].to_numpy(dtype=float), f["fpc"].to_numpy(dtype=float)
    drawn = _survey.design(weight, pd.Series(range(len(f))), f["stype"], size)
    for i, column in enumerate(("api00", "api99")):
        y = f[column].to_numpy(dtype=float)
        wanted = (expected["mean"]["mean"][i], expected["mean"]["se"][i])
        assert _survey.ratio(y, np.ones(len(f)), drawn) == near(wanted, name)
        assert _survey.design_effect(y, drawn) == near(expected["mean"]["deff"][i], name)
    assert drawn.df == expected["mean"]["df"]
    y = f["api00"].to_numpy(dtype=float)
    beta, vcov = _survey.regression(y, columns_of(f, "ell", "meals", "mobility"), drawn)
    assert beta == near(expected["glm"]["estimate"], name)
    assert np.sqrt(np.diag(vcov)) == near(expected["glm"]["se"], name)


def r_stops_early(y: np.ndarray, x: np.ndarray, weight: np.ndarray, beta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The bread and the scores of R's glm: it stops at a change of 1e-8 in deviance, and leaves the weights of the
    last step behind, which are those of the coefficients before. svyglm takes both from there."""
    w = weight / weight.mean()
    mean = (w * y + 0.5) / (w + 1)
    eta, deviance = np.log(mean / (1 - mean)), np.inf
    while True:
        working = w * mean * (1 - mean)
        theta = np.linalg.solve(x.T @ (x * working[:, None]), x.T @ (working * eta + w * (y - mean)))
        eta = x @ theta
        mean = 1 / (1 + np.exp(-eta))
        new = -2 * float(w @ np.log(np.where(y == 1, mean, 1 - mean)))
        if abs(new - deviance) / (abs(new) + 0.1) < 1e-8:
            break
        deviance = new
    assert theta == pytest.approx(beta, rel=1e-6)
    residual = (y - mean) / (mean * (1 - mean))
    return np.linalg.inv(x.T @ (x * working[:, None])), x * (working * residual)[:, None]


def test_logit__svy_apistrat() -> None:
    """The outcome is api00 > 700. Errors to the case's tolerance with R's bread, to 2e-5 with that of the maximum."""
    name, f = "svy_apistrat", data("apistrat.csv")
    expected = case(name)["results"]["logit"]
    weight, size = f["pw"].to_numpy(dtype=float), f["fpc"].to_numpy(dtype=float)
    drawn = _survey.design(weight, pd.Series(range(len(f))), f["stype"], size)
    y, columns = (f["api00"] > 700).to_numpy(dtype=float), columns_of(f, "meals")
    beta, vcov = _survey.regression(y, columns, drawn, "logit")
    assert beta == near(expected["estimate"], name)
    assert np.sqrt(np.diag(vcov)) == pytest.approx(expected["se"], rel=2e-5)
    bread, scores = r_stops_early(y, np.column_stack(list(columns.values())), weight, beta)
    by_cluster = cluster_sums(scores @ bread, np.ones(len(f)), drawn.cluster)
    theirs = _survey.covariance(by_cluster, drawn.stratum, drawn.size)
    assert np.sqrt(np.diag(theirs)) == near(expected["se"], name)
    assert drawn.df == expected["design_df"]


def test_a_stratum_with_one_cluster_is_refused() -> None:
    with pytest.raises(Inapplicable, match="1 strata have one cluster"):
        _survey.design(np.ones(5), pd.Series([1, 1, 2, 3, 3]), pd.Series(["a", "a", "a", "b", "b"]))


# --- repeated cross-sections -----------------------------------------------------------------------------------


def persons(seed: int = 51, effect: float = 0.4, **options: Any) -> Sample:
    """One to five other persons an area and year, of whom something is known."""
    s = panel(seed=seed, effect=effect, **options)
    rng = np.random.default_rng(seed)
    f = s.frame.loc[np.repeat(s.frame.index, rng.integers(1, 6, size=len(s.frame)))].reset_index(drop=True)
    age = rng.choice(["young", "middle", "old"], size=len(f))
    f = f.assign(
        age=age, woman=rng.random(len(f)) < 0.5, x=rng.normal(size=len(f)), weight=rng.uniform(0.5, 3, size=len(f))
    )
    y = f["y"] + rng.normal(size=len(f)) + 0.5 * (f["age"] == "old") - 0.2 * f["woman"]
    return replace(s, frame=f.assign(y=y, stratum=f["cluster"] // 5), covariates=("age", "woman", "x"))


def test_persons_of_an_area_are_rows_of_the_two_way_model() -> None:
    """pyfixest, with the indicators of the ages written out, gives the same."""
    s = persons()
    f = s.frame.assign(old=s.frame["age"] == "old", young=s.frame["age"] == "young")
    f = f.astype({"old": float, "young": float, "woman": float})
    ours, theirs = (
        repeated_cross_section.estimate(s),
        twfe.estimate(replace(s, frame=f, covariates=("old", "young", "woman", "x"))),
    )
    assert ours.terms[0].estimate == pytest.approx(theirs.terms[0].estimate, rel=1e-10)
    assert ours.terms[0].std_error == pytest.approx(theirs.terms[0].std_error, rel=1e-9)
    assert (ours.n_obs, ours.n_units, ours.n_clusters) == (theirs.n_obs, theirs.n_units, theirs.n_clusters)
    levels = replace(s, levels=("even", "odd"))
    split = repeated_cross_section.estimate(levels).terms
    whole = twfe.estimate(replace(levels, frame=f, covariates=("old", "young", "woman", "x"))).terms
    assert [t.estimate for t in split] == pytest.approx([t.estimate for t in whole], rel=1e-9)
    assert [t.std_error for t in split] == pytest.approx([t.std_error for t in whole], rel=1e-8)
    assert [(t.name, t.level, t.n_treated, t.n_treated_clusters) for t in split] == [
        (t.name, t.level, t.n_treated, t.n_treated_clusters) for t in whole
    ]


def test_design_based_errors_are_those_of_the_regression_with_every_dummy() -> None:
    s = persons(units=30, clusters=30)
    f = s.frame
    dummies = pd.get_dummies(f[["unit", "time"]].astype(str), drop_first=True).astype(float)
    wide = {n: dummies[n].to_numpy() for n in dummies} | {
        "constant": np.ones(len(f)),
        "x": f["x"].to_numpy(),
        "woman": f["woman"].to_numpy(dtype=float),
        "old": (f["age"] == "old").to_numpy(dtype=float),
        "young": (f["age"] == "young").to_numpy(dtype=float),
    }
    for strata in (None, "stratum"):
        drawn = _survey.design(f["weight"].to_numpy(), f["cluster"], f[strata] if strata else None)
        beta, vcov = _survey.regression(f["y"].to_numpy(), {"d": f["d"].to_numpy(), **wide}, drawn)
        named = (*s.covariates, strata) if strata else s.covariates
        fit = repeated_cross_section.estimate(replace(s, covariates=named), errors="design", strata=strata)
        assert fit.terms[0].estimate == pytest.approx(beta[0], rel=1e-9)
        assert fit.terms[0].std_error == pytest.approx(np.sqrt(vcov[0, 0]), rel=1e-8)
        assert fit.terms[0].df == drawn.df == (24 if strata else 29)
        assert fit.facts["convention"].startswith("linearised")


def test_adjusting_takes_up_a_change_in_who_answers() -> None:
    """Treated areas are asked older persons later on; the effect is nought."""
    s = persons(seed=52, effect=0.0, units=400, clusters=80)
    f = s.frame
    rng = np.random.default_rng(1)
    older = rng.random(len(f)) < np.where(f["d"] == 1, 0.8, 0.3)
    y = rng.normal(size=len(f)) + 2.0 * older
    s = replace(s, frame=f.assign(age=np.where(older, "old", "young"), y=y))
    raw = repeated_cross_section.estimate(replace(s, covariates=())).terms[0]
    adjusted = repeated_cross_section.estimate(s).terms[0]
    assert raw.estimate == pytest.approx(1.0, abs=0.2)
    assert abs(adjusted.estimate) < 3 * adjusted.std_error


def test_a_covariate_with_missing_values_is_refused_with_their_number() -> None:
    s = persons()
    age = s.frame["age"].where(s.frame.index >= 7)
    with pytest.raises(Inapplicable, match="the covariate age is missing in 7 rows"):
        repeated_cross_section.estimate(replace(s, frame=s.frame.assign(age=age)))
    with pytest.raises(Inapplicable, match="no column postcode"):
        repeated_cross_section.estimate(replace(s, covariates=("postcode",)))


def test_persons_without_weight_leave() -> None:
    s = persons()
    out = s.frame["unit"] % 4 == 0
    one = repeated_cross_section.estimate(replace(s, frame=s.frame[~out]))
    two = repeated_cross_section.estimate(replace(s, frame=s.frame.assign(weight=s.frame["weight"].where(~out, 0.0))))
    assert two.terms[0].estimate == pytest.approx(one.terms[0].estimate, rel=1e-12)
    assert two.terms[0].std_error == pytest.approx(one.terms[0].std_error, rel=1e-12)
    assert (two.n_obs, two.n_clusters) == (one.n_obs, one.n_clusters)
