"""Multiple imputation: Rubin's rules by hand, the likelihood it must come to, and statsmodels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from biglocal.estimators import mixed_model
from biglocal.estimators import multiple_imputation as mi
from biglocal.model import DataError, Fit, Inapplicable, Sample, Term
from waves import survey


def grid(seed: int = 1, persons: int = 300, **options: Any) -> Sample:
    """Every person in every wave; who felt worse in the first wave answers less often later."""
    s = survey(seed=seed, persons=persons, areas=60, **options)
    rng = np.random.default_rng(seed)
    unit, time = np.repeat(np.arange(persons), 3), np.tile([2016, 2018, 2020], persons)
    person = rng.normal(size=persons)
    f = pd.DataFrame({"unit": unit, "time": time, "cluster": unit % 60, "weight": 1.0})
    f["level"] = np.where(unit % 2 == 0, "men", "women")
    f["age"] = person[unit] + np.repeat(rng.normal(size=persons), 3)
    f["role"] = np.where(unit % 5 == 0, "officer", "member")
    f["whole"] = 20 + 2 * person[unit] + rng.normal(size=3 * persons) + (time == 2018) * 1.0
    first = f.loc[time == 2016, "whole"].to_numpy()[unit]
    gone = (time > 2016) & (rng.random(3 * persons) < 1 / (1 + np.exp(first - 20)))
    return replace(s, frame=f.assign(y=f["whole"].mask(gone)), covariates=("age", "role"))


def said(estimate: float, error: float, df: float = np.inf) -> Fit:
    return Fit((Term("b", estimate, error, df),), 1, 1, 1, 1)


def test_rubins_rules_by_hand() -> None:
    """Three copies: W = 0.05, B = 0.07, T = 0.05 + 4/3 x 0.07."""
    fits = [said(1.0, np.sqrt(0.04), 30), said(1.2, np.sqrt(0.05), 30), said(1.5273049, np.sqrt(0.06), 30)]
    b = np.var([1.0, 1.2, 1.5273049], ddof=1)
    done = mi.pool(fits).terms[0]
    total = 0.05 + 4 / 3 * b
    share = 4 / 3 * b / total
    old, seen = 2 / share**2, 31 / 33 * 30 * (1 - share)
    assert done.estimate == pytest.approx((1.0 + 1.2 + 1.5273049) / 3)
    assert done.std_error == pytest.approx(np.sqrt(total))
    assert done.df == pytest.approx(old * seen / (old + seen))
    assert mi.pool([said(1.0, 0.2), said(1.2, 0.2)]).terms[0].df == pytest.approx((1 + 0.04 / (1.5 * 0.02)) ** 2)
    same = mi.pool([said(1.0, 0.2, 30), said(1.0, 0.2, 30)]).terms[0]
    assert (same.std_error, same.df) == pytest.approx((0.2, 31 / 33 * 30))


def test_joint_tests_by_hand_and_of_one_restriction() -> None:
    one = [Fit((Term("difference", np.nan, df=50, statistic=f, df_num=2),), 1, 1, 1, 1) for f in (2.0, 3.0, 4.5)]
    done = mi.pool(one).terms[0]
    d = np.array([4.0, 6.0, 9.0])
    r = 4 / 3 * np.var(np.sqrt(d), ddof=1)
    assert done.statistic == pytest.approx((d.mean() / 2 - 4 / 2 * r) / (1 + r))
    assert done.df == pytest.approx(2 ** (-3 / 3) * 2 * (1 + 1 / r) ** 2)


def test_statsmodels_pools_alike() -> None:
    from statsmodels.imputation import mice

    class Stub:
        scale, nobs = 1.0, 100

        def __init__(self, estimates: list[float], errors: list[float]) -> None:
            self.params, self._errors, self._results = np.array(estimates), errors, self

        def cov_params(self) -> np.ndarray:
            return np.diag(np.square(self._errors))

    pairs = [([1.0, 3.0], [0.2, 0.5]), ([1.2, 2.5], [0.22, 0.4]), ([0.9, 3.1], [0.25, 0.6]), ([1.4, 2.9], [0.2, 0.5])]
    theirs = mice.MICE.__new__(mice.MICE)
    theirs.results_list = [Stub(*p) for p in pairs]
    theirs.exog_names, theirs.endog_names, theirs.model_class = ["a", "b"], "y", None
    theirs.model = None
    combined = theirs.combine()
    for i in range(2):
        ours = mi.pool([said(estimates[i], errors[i]) for estimates, errors in pairs])
        assert ours.terms[0].estimate == pytest.approx(float(combined.params[i]))
        assert ours.terms[0].std_error == pytest.approx(float(combined.bse[i]))
        r = combined.frac_miss_info[i]  # without the degrees of freedom's part
        assert ours.terms[0].df == pytest.approx(3 / r**2)


@pytest.mark.parametrize("method", ["normal", "pmm"])
def test_a_mean_comes_to_that_of_the_likelihood(method: str) -> None:
    """y2 is missing where y1 is low. Maximum likelihood is the regression estimator (Anderson 1957, JASA 52:200)."""
    rng = np.random.default_rng(1)
    n = 1500
    y1 = rng.normal(size=n)
    y2 = 1 + 0.8 * y1 + 0.6 * rng.normal(size=n)
    gone = rng.random(n) < 1 / (1 + np.exp(1.5 * y1))
    f = pd.DataFrame({"y1": y1, "y2": np.where(gone, np.nan, y2)})
    slope = np.polyfit(y1[~gone], y2[~gone], 1)
    likelihood = float(np.polyval(slope, y1.mean()))

    def mean(g: pd.DataFrame) -> Fit:
        return said(g["y2"].mean(), g["y2"].std() / np.sqrt(n), n - 1)

    done = mi.fit(f, mean, imputations=60, method=method).terms[0]
    naive = y2[~gone].mean()
    assert done.estimate == pytest.approx(likelihood, abs=0.03)
    assert abs(done.estimate - likelihood) < abs(naive - likelihood) / 10
    # its variance: residual variance over those seen, for the mean and for moving along the slope, and that of y1
    residual = y2[~gone] - np.polyval(slope, y1[~gone])
    s2 = residual @ residual / (len(residual) - 2)
    away = (y1.mean() - y1[~gone].mean()) ** 2 / ((y1[~gone] - y1[~gone].mean()) ** 2).sum()
    wanted = np.sqrt(s2 * (1 / len(residual) + away) + slope[0] ** 2 * y1.var(ddof=1) / n)
    assert done.std_error == pytest.approx(wanted, rel=0.12)


def test_chained_equations_and_statsmodels_agree() -> None:
    """Two columns with holes: both ways of filling in give the same regression, but for the draws."""
    from statsmodels.imputation import mice

    rng = np.random.default_rng(3)
    n = 300
    x = rng.normal(size=n)
    z = 0.5 * x + rng.normal(size=n)
    y = 1 + x - 0.5 * z + rng.normal(size=n)
    f = pd.DataFrame({"y": y, "x": x, "z": np.where(rng.random(n) < 0.3 + 0.2 * (x > 0), np.nan, z)})
    f.loc[rng.random(n) < 0.2, "y"] = np.nan
    from biglocal.estimators import gee

    def model(g: pd.DataFrame) -> Fit:
        return gee.fit(g.assign(i=range(n)), "y ~ x + z", unit="i", family="gaussian", correlation="independence")

    ours = mi.fit(f, model, imputations=30)
    np.random.seed(1)  # noqa: NPY002  statsmodels draws from the global generator
    import statsmodels.api as sm

    theirs = mice.MICE("y ~ x + z", sm.OLS, mice.MICEData(f, k_pmm=5)).fit(5, 15)
    for i, t in enumerate(ours.terms):
        assert abs(t.estimate - theirs.params[i]) < t.std_error / 2
        assert t.std_error == pytest.approx(theirs.bse[i], rel=0.25)


def test_attrition_that_depends_on_what_was_seen_is_put_right() -> None:
    s = grid(persons=900)
    whole = mixed_model.estimate(replace(s, frame=s.frame.assign(y=s.frame["whole"]), covariates=())).terms
    seen = s.frame.dropna(subset=["y"])
    means = seen.groupby("time")["y"].mean()
    naive = means[2018] - means[2016]
    done = mi.estimate(s)
    truth = next(t.estimate for t in whole if t.period == 2018)
    ours = next(t for t in done.terms if t.period == 2018)
    assert abs(ours.estimate - truth) < 2 * ours.std_error
    assert abs(ours.estimate - truth) < abs(naive - truth) / 4
    assert ours.std_error > next(t.std_error for t in whole if t.period == 2018)
    assert done.facts["imputed"] == int(s.frame["y"].isna().sum())
    assert 0.1 < done.facts["missing_information"]["change", 2018, ""] < 0.8


def test_the_same_draws_whatever_the_order_of_rows_and_others_with_another_seed() -> None:
    s = replace(grid(persons=120), levels=("men", "women"))
    options: dict[str, Any] = {"imputations": 3, "iterations": 2, "model": "within_person"}
    before = s.frame.copy()
    one = mi.estimate(s, **options)
    two = mi.estimate(replace(s, frame=s.frame.sample(frac=1, random_state=1)), **options)
    pd.testing.assert_frame_equal(s.frame, before)
    assert [t.estimate for t in one.terms] == pytest.approx([t.estimate for t in two.terms], rel=1e-12)
    assert [(t.name, t.period, t.level) for t in one.terms] == [(t.name, t.period, t.level) for t in two.terms]
    assert "difference" in {t.name for t in one.terms}
    assert one.terms[1].estimate != mi.estimate(s, seed=2, **options).terms[1].estimate


def test_exposures_are_filled_in_too_and_every_model_can_be_wrapped() -> None:
    s = grid(persons=200)
    rng = np.random.default_rng(5)
    d = rng.normal(size=len(s.frame))
    f = s.frame.assign(d=np.where(rng.random(len(d)) < 0.1, np.nan, d), y=s.frame["y"] + 0.5 * d)
    few: dict[str, Any] = {"imputations": 3, "iterations": 3}
    for model in ("mixed_model", "within_person", "random_effects"):
        done = mi.estimate(replace(s, frame=f), of="association", model=model, adjust=model == "mixed_model", **few)
        assert done.terms[0].estimate == pytest.approx(0.5, abs=5 * done.terms[0].std_error)
        assert done.n_obs == f["y"].notna().sum() < len(f)
    two = replace(s, frame=f.assign(y=(f["y"] > 20.5).astype(float).mask(f["y"].isna())))
    for model in ("gee", "mixed_logit"):
        done = mi.estimate(two, model=model, **few)
        ratio = next(t for t in done.terms if t.name == "odds_ratio" and t.period == 2018)
        log = next(t for t in done.terms if t.name == "change" and t.period == 2018)
        assert ratio.estimate == pytest.approx(np.exp(log.estimate))


def test_predictive_mean_matching_gives_answers_that_were_given() -> None:
    f = grid(persons=150).frame[["y", "age", "role"]].assign(y=lambda g: g["y"].round())
    for copy in mi.impute(f, imputations=3, iterations=2):
        assert set(copy["y"]) <= set(f["y"].dropna())
        assert copy["y"][f["y"].notna()].equals(f["y"].dropna())
        assert not copy.isna().any(axis=None)


def test_what_cannot_be_imputed_is_refused() -> None:
    s = grid(persons=60)
    with pytest.raises(Inapplicable, match="nothing is missing"):
        mi.estimate(replace(s, frame=s.frame.assign(y=s.frame["whole"])))
    with pytest.raises(Inapplicable, match="two rows in a wave"):
        mi.estimate(replace(s, frame=pd.concat([s.frame, s.frame[:2]])))
    with pytest.raises(Inapplicable, match="no value of y 2018"):
        mi.estimate(replace(s, frame=s.frame.assign(y=s.frame["y"].mask(s.frame["time"] == 2018))))
    with pytest.raises(Inapplicable, match="role is not a number and is missing"):
        mi.estimate(replace(s, frame=s.frame.assign(role=s.frame["role"].mask(s.frame["unit"] == 3))))
    with pytest.raises(Inapplicable, match="no rows"):
        mi.estimate(replace(s, frame=s.frame[:0]))
    with pytest.raises(DataError, match="1 imputations"):
        mi.impute(s.frame[["y", "age"]], imputations=1)
