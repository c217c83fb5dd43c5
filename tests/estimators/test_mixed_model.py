"""Linear mixed models against R's lme4, lmerTest and pbkrtest, and statsmodels' MixedLM."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from biglocal.estimators import mixed_model
from biglocal.estimators._within import codes
from biglocal.model import DataError, Inapplicable
from reference_cases import case, data
from waves import survey

MODELS: dict[str, tuple[str, Any]] = {
    "lmer_sleepstudy_ri": ("Reaction ~ Days", ["Subject"]),
    "lmer_sleepstudy_rs": ("Reaction ~ Days", {"Subject": "1 + Days"}),
    "lmer_dietox": ("Weight ~ Time * Cu", ["Pig"]),
    "lmer_grunfeld": ("inv ~ value + capital", ["firm"]),
}


@pytest.mark.parametrize("name", MODELS)
def test_lme4(name: str) -> None:
    """Tolerances are the case's: 1e-5, variances 1e-4, Satterthwaite 1e-3, Kenward-Roger 1e-2; most are far nearer."""
    expected, frame = case(name)["results"], data(case(name)["dataset"])
    formula, groups = MODELS[name]
    fit = mixed_model.fit(frame, formula, groups=groups)
    assert [t.estimate for t in fit.terms] == pytest.approx(expected["estimate"], rel=1e-6)
    assert [t.std_error for t in fit.terms] == pytest.approx(expected["se"], rel=1e-6)
    assert [t.df for t in fit.terms] == pytest.approx(expected["df_satterthwaite"], rel=1e-5)
    kr = mixed_model.fit(frame, formula, groups=groups, df="kenward_roger")
    assert [t.std_error for t in kr.terms] == pytest.approx(expected["kr"]["se"], rel=1e-6)
    assert [t.df for t in kr.terms] == pytest.approx(expected["kr"]["df"], rel=1e-6)
    residual = fit.facts["variance"]["Residual"]
    found = [*(v for f in groups for v in _in_order(fit.facts["variance"][f])), residual]
    assert found == pytest.approx(expected["varcomp"]["vcov"], rel=1e-5)
    assert fit.facts["loglik"] == pytest.approx(expected["loglik_reml"], abs=1e-7)
    assert fit.n_obs == expected["n"]
    assert fit.facts["ngroups"] == expected["ngroups"]
    assert fit.caution == ""
    if "ml_loglik" in expected:
        ml = mixed_model.fit(frame, formula, groups=groups, method="ML")
        assert ml.facts["loglik"] == pytest.approx(expected["ml_loglik"], abs=1e-7)
        assert [t.estimate for t in ml.terms] == pytest.approx(expected["ml_coef"], rel=1e-6)
    if "ranef_subject_308" in expected:
        predicted = fit.facts["random_effects"]["Subject"]
        assert list(predicted.loc[308]) == pytest.approx(expected["ranef_subject_308"], rel=1e-5)
        assert predicted.shape == (18, 2)


def _in_order(variance: dict[str, float]) -> list[float]:
    """lme4's order: variances, then covariances."""
    return [v for k, v in variance.items() if ":" not in k] + [v for k, v in variance.items() if ":" in k]


def test_type_three_tests_of_lmertest__lmer_dietox() -> None:
    """Joint tests with Satterthwaite degrees of freedom. lmerTest's type III contrasts average over levels of Cu."""
    expected = case("lmer_dietox")["results"]["anova"]
    fit = mixed_model.fit(data("dietox.csv"), "Weight ~ Time * Cu", groups=["Pig"])
    assert [t.name for t in fit.terms] == case_names()
    contrasts = [
        np.array([[0, 1, 0, 0, 1 / 3, 1 / 3]]),
        np.array([[0, 0, 1, 0, 0, 0], [0, 0, 0, 1, 0, 0.0]]),
        np.array([[0, 0, 0, 0, 1, 0], [0, 0, 0, 0, 0, 1.0]]),
    ]
    for i, contrast in enumerate(contrasts):
        statistic, df = fit.facts["test"](contrast)
        assert statistic == pytest.approx(expected["F value"][i], rel=1e-5)
        assert df == pytest.approx(expected["DenDF"][i], rel=1e-3)


def case_names() -> list[str]:
    return ["Intercept", "Time", "Cu[T.Cu035]", "Cu[T.Cu175]", "Time:Cu[T.Cu035]", "Time:Cu[T.Cu175]"]


def test_nested_and_crossed_factors_are_those_of_a_covariance_written_out() -> None:
    """scipy maximises the restricted likelihood of the dense covariance; the same maximum, to its digits."""
    from scipy.optimize import minimize

    s = survey(persons=60, areas=12)
    f = s.frame
    for other in ("cluster", "time"):  # persons are nested in areas, and crossed with waves
        fit = mixed_model.fit(f, "y ~ d + x", groups=["unit", other], weight=None)
        x = np.column_stack([np.ones(len(f)), f["d"], f["x"]])
        y = f["y"].to_numpy()
        same = [np.equal.outer(f[c].to_numpy(), f[c].to_numpy()).astype(float) for c in ("unit", other)]

        def minus_twice(t: Any, x: Any = x, y: Any = y, same: Any = same) -> float:
            v = np.exp(t[0]) * same[0] + np.exp(t[1]) * same[1] + np.exp(t[2]) * np.eye(len(y))
            vi = np.linalg.inv(v)
            a = x.T @ vi @ x
            r = y - x @ np.linalg.solve(a, x.T @ vi @ y)
            log = np.linalg.slogdet(v)[1] + np.linalg.slogdet(a)[1]
            return float(log + r @ vi @ r + (len(y) - 3) * np.log(2 * np.pi))

        done = minimize(minus_twice, np.zeros(3), method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-10})
        assert fit.facts["loglik"] == pytest.approx(-done.fun / 2, abs=1e-8)
        variance = fit.facts["variance"]
        ours = [variance["unit"]["Intercept"], variance[other]["Intercept"], variance["Residual"]]
        assert ours == pytest.approx(np.exp(done.x), rel=1e-3)


def test_mixedlm_gives_the_same() -> None:
    import statsmodels.formula.api as smf

    f = survey().frame
    ours = mixed_model.fit(f, "y ~ d + x", groups=["unit"])
    theirs = smf.mixedlm("y ~ d + x", f, groups=f["unit"]).fit(method="bfgs")
    assert [t.estimate for t in ours.terms] == pytest.approx(list(theirs.fe_params), rel=1e-5)
    # its errors come from the joint Hessian, whose cross terms with the variances are nought only in expectation
    assert [t.std_error for t in ours.terms] == pytest.approx(list(theirs.bse_fe), rel=5e-3)
    assert ours.facts["variance"]["unit"]["Intercept"] == pytest.approx(float(theirs.cov_re.iloc[0, 0]), rel=1e-3)
    assert ours.facts["loglik"] == pytest.approx(theirs.llf, abs=1e-5)


def test_the_size_of_weights_changes_the_residual_variance_alone() -> None:
    """The residual variance is that of a row of weight one, as in lme4."""
    f = survey(persons=80).frame
    one = mixed_model.fit(f.assign(w=2.0), "y ~ d", groups=["unit"], weight="w", method="ML")
    plain = mixed_model.fit(f, "y ~ d", groups=["unit"], method="ML")
    assert [t.estimate for t in one.terms] == pytest.approx([t.estimate for t in plain.terms], rel=1e-8)
    assert [t.std_error for t in one.terms] == pytest.approx([t.std_error for t in plain.terms], rel=1e-8)
    assert one.facts["variance"]["unit"] == pytest.approx(plain.facts["variance"]["unit"], rel=1e-7)
    assert one.facts["variance"]["Residual"] == pytest.approx(2 * plain.facts["variance"]["Residual"], rel=1e-7)
    assert one.facts["loglik"] == pytest.approx(plain.facts["loglik"], abs=1e-8)


def test_weights_are_those_of_a_covariance_written_out() -> None:
    f = survey(persons=50).frame
    w = np.random.default_rng(2).uniform(0.5, 2, len(f))
    fit = mixed_model.fit(f.assign(w=w), "y ~ d", groups=["unit"], weight="w")
    variance = fit.facts["variance"]
    same = np.equal.outer(f["unit"].to_numpy(), f["unit"].to_numpy())
    vi = np.linalg.inv(variance["unit"]["Intercept"] * same + variance["Residual"] * np.diag(1 / w))
    x = np.column_stack([np.ones(len(f)), f["d"]])
    vcov = np.linalg.inv(x.T @ vi @ x)
    assert [t.estimate for t in fit.terms] == pytest.approx(list(vcov @ x.T @ vi @ f["y"].to_numpy()), rel=1e-9)
    assert [t.std_error for t in fit.terms] == pytest.approx(list(np.sqrt(np.diag(vcov))), rel=1e-9)
    r = f["y"].to_numpy() - x @ (vcov @ x.T @ vi @ f["y"].to_numpy())
    v = np.linalg.inv(vi)
    restricted = np.linalg.slogdet(v)[1] - np.linalg.slogdet(vcov)[1] + r @ vi @ r + (len(f) - 2) * np.log(2 * np.pi)
    assert fit.facts["loglik"] == pytest.approx(-restricted / 2, abs=1e-7)


def test_robust_errors_of_one_area_a_person_are_gees() -> None:
    """With the variances that the mixed model found, exchangeable equations have the same solution when balanced."""
    s = survey(persons=90, areas=90)
    f = s.frame
    whole = f[f.groupby("unit")["unit"].transform("size") == 3]
    from biglocal.estimators import gee

    ours = mixed_model.fit(whole, "y ~ d", groups=["unit"], errors="cluster", cluster="unit")
    theirs = gee.fit(whole, "y ~ d", unit="unit", family="gaussian", small_sample=True)
    assert ours.terms[1].estimate == pytest.approx(theirs.terms[1].estimate, rel=1e-2)
    assert ours.terms[1].std_error == pytest.approx(theirs.terms[1].std_error, rel=1e-2)
    assert ours.terms[1].df == whole["unit"].nunique() - 1


def test_robust_errors_by_hand() -> None:
    """Areas hold their persons; the scores of an area are X'V^-1 (y - Xb) over its rows."""
    f = survey(persons=120, areas=25).frame
    fit = mixed_model.fit(f, "y ~ d + age", groups=["unit", "cluster"], errors="cluster", cluster="cluster")
    variance = fit.facts["variance"]
    same = {c: np.equal.outer(f[c].to_numpy(), f[c].to_numpy()) for c in ("unit", "cluster")}
    v = sum(variance[c]["Intercept"] * same[c] for c in same) + variance["Residual"] * np.eye(len(f))
    x, vi = np.column_stack([np.ones(len(f)), f["d"], f["age"]]), np.linalg.inv(v)
    bread = np.linalg.inv(x.T @ vi @ x)
    scores = x * (vi @ (f["y"].to_numpy() - x @ [t.estimate for t in fit.terms]))[:, None]
    totals = np.array([scores[rows].sum(axis=0) for rows in f.groupby("cluster").indices.values()])
    vcov = bread @ totals.T @ totals @ bread * 25 / 24 * (len(f) - 1) / (len(f) - 3)
    assert [t.std_error for t in fit.terms] == pytest.approx(list(np.sqrt(np.diag(vcov))), rel=1e-6)
    assert fit.terms[0].df == 24


def test_a_variance_at_its_bound_is_said() -> None:
    rng = np.random.default_rng(3)
    f = pd.DataFrame({"unit": np.repeat(np.arange(50), 3), "x": rng.normal(size=150)})
    y = rng.normal(size=150)
    y = y - pd.Series(y).groupby(f["unit"]).transform("mean")  # persons are more alike than by chance
    fit = mixed_model.fit(f.assign(y=y), "y ~ x", groups=["unit"])
    assert fit.facts["variance"]["unit"]["Intercept"] == pytest.approx(0, abs=1e-8)
    assert "variance of unit is at its bound" in fit.caution
    import statsmodels.api as sm

    least = sm.OLS(y, sm.add_constant(f["x"])).fit()
    assert [t.std_error for t in fit.terms] == pytest.approx(list(least.bse), rel=1e-8)
    assert [t.df for t in fit.terms] == pytest.approx([148, 148], rel=1e-6)


def test_a_random_effect_that_the_data_cannot_have_leaves() -> None:
    s = survey()
    one_wave = replace(s, frame=s.frame[s.frame["time"] == 2016])
    fit = mixed_model.estimate(one_wave, of="association")
    assert fit.facts["left_out"] == ("person",)
    assert set(fit.facts["variance"]) == {"area", "Residual"}
    alone = replace(s, frame=s.frame.assign(cluster=s.frame["unit"]))
    assert mixed_model.estimate(alone).facts["left_out"] == ("area",)
    with pytest.raises(Inapplicable, match="each person has one row and each area one person"):
        mixed_model.estimate(
            replace(one_wave, frame=one_wave.frame.assign(cluster=one_wave.frame["unit"])), of="association"
        )


def test_what_cannot_be_fitted_is_refused() -> None:
    f = survey().frame
    with pytest.raises(DataError, match="no column school"):
        mixed_model.fit(f, "y ~ x", groups=["school"])
    with pytest.raises(DataError, match="nothing"):
        mixed_model.fit(f, "y ~ nothing", groups=["unit"])
    with pytest.raises(Inapplicable, match=r"collinear with .* more"):
        mixed_model.fit(f.assign(more=2 * f["x"] + 1), "y ~ x + more", groups=["unit"])
    with pytest.raises(Inapplicable, match="constant"):
        mixed_model.fit(f.assign(y=1.0), "y ~ x", groups=["unit"])
    with pytest.raises(Inapplicable, match="perfectly"):
        mixed_model.fit(f.assign(y=f["x"]), "y ~ x", groups=["unit"])
    with pytest.raises(Inapplicable, match="cannot be told from the residual"):
        mixed_model.fit(f.assign(row=range(len(f))), "y ~ x", groups=["row"])
    with pytest.raises(Inapplicable, match="one area: its variance"):
        mixed_model.fit(f.assign(area=1), "y ~ x", groups=["unit", "area"])
    with pytest.raises(Inapplicable, match="REML"):
        mixed_model.fit(f, "y ~ x", groups=["unit"], method="ML", df="kenward_roger")


def test_residuals_by_the_model_solve_the_normal_equations() -> None:
    """X'V^-1 (y - Xb) is nought: robust errors are made from its parts."""
    from biglocal.estimators import _mixed

    f = survey().frame
    x = {"one": np.ones(len(f)), "d": f["d"].to_numpy()}
    factors = tuple(_mixed.Factor(c, codes(f[c]), np.ones((len(f), 1))) for c in ("unit", "cluster"))
    found = _mixed.solve(f["y"].to_numpy(), x, factors, np.ones(len(f)), reml=True, moments=True)
    assert np.column_stack(list(x.values())).T @ found.residual == pytest.approx([0, 0], abs=1e-7)


@pytest.mark.parametrize("seed", range(12))
def test_a_search_that_lands_at_the_bound_looks_inside(seed: int) -> None:
    """The deviance has no slope where a standard deviation is nought: small variances must still be found."""
    rng = np.random.default_rng(seed)
    area = rng.integers(0, 40, size=400)
    y = 0.15 * rng.standard_normal(40)[area] + rng.standard_normal(400)
    frame = pd.DataFrame({"y": y, "x": rng.standard_normal(400), "area": area})
    ours = float(mixed_model.fit(frame, "y ~ x", groups=["area"], df="normal").facts["loglik"])
    group = np.linalg.eigh((area[:, None] == area[None, :]).astype(float))
    design = group[1].T @ np.column_stack([np.ones(400), frame["x"]])
    outcome = group[1].T @ y

    def restricted(ratio: float) -> float:  # Searle, Casella and McCulloch (1992), section 6.6, by eigenvalues
        v = 1 + ratio * group[0]
        gram = design.T @ (design / v[:, None])
        left = outcome - design @ np.linalg.solve(gram, design.T @ (outcome / v))
        scale = float(left @ (left / v)) / 398
        return -0.5 * (398 * np.log(2 * np.pi * scale) + np.log(v).sum() + np.linalg.slogdet(gram)[1] + 398)

    assert ours >= max(map(restricted, np.linspace(0, 0.5, 200))) - 1e-6
