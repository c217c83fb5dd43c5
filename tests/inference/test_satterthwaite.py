"""CR2, Satterthwaite degrees of freedom, HTZ and the jackknife against clubSandwich, estimatr and summclust."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import pandas as pd
import pytest

from biglocal import inference
from biglocal.estimators import twfe
from biglocal.inference.regression import regression
from biglocal.inference.satterthwaite import Corrected, corrected, jackknife, wald_htz
from biglocal.inference.twoway import clustered, independent
from biglocal.model import Inapplicable
from panels import panel
from reference_cases import case, data

REL = 1e-6  # the cases' tolerance


def near(fit: Corrected, expected: dict[str, Any]) -> None:
    k = len(expected["se"])
    assert fit.estimate[:k] == pytest.approx(expected["estimate"], rel=REL)
    assert fit.std_error[:k] == pytest.approx(expected["se"], rel=REL)
    assert fit.df[:k] == pytest.approx(expected["df"], rel=REL)
    assert fit.p_values()[:k] == pytest.approx(expected["p"], rel=REL)
    assert fit.intervals()[:k] == pytest.approx(np.column_stack([expected["ci_low"], expected["ci_high"]]), rel=REL)


@pytest.mark.parametrize("absorbed", [True, False], ids=["absorbed", "dummies"])
@pytest.mark.parametrize("kind", ["CR0", "CR1", "CR1S", "CR2"])
def test_cr2_grunfeld(kind: Any, absorbed: bool) -> None:
    f = data("grunfeld.csv")
    x = f[["value", "capital"]]
    if absorbed:
        fit = corrected(f["inv"], x, f["firm"], fixed=(f["firm"],), kind=kind)
    else:
        dummies = pd.get_dummies(f["firm"]).to_numpy(dtype=float)
        fit = corrected(f["inv"], x, f["firm"], nuisance=dummies, constant=False, kind=kind)
    near(fit, case("cr2_grunfeld")["results"][kind])


def test_cr2_grunfeld_wald_htz() -> None:
    expected = case("cr2_grunfeld")["results"]["wald_HTZ"]
    f = data("grunfeld.csv")
    test = wald_htz(corrected(f["inv"], f[["value", "capital"]], f["firm"], fixed=(f["firm"],)))
    assert (test.statistic, test.df_num, test.df, test.p_value) == pytest.approx(
        (expected["F"], expected["df_num"], expected["df_denom"], expected["p"]), rel=REL
    )


@pytest.mark.parametrize(
    ("design", "kind"),
    [("unweighted", k) for k in ("CR0", "CR1", "CR1S", "CR2")] + [("weighted", "CR1"), ("weighted", "CR2")],
)
def test_cr2_castle(design: str, kind: Any) -> None:
    expected = case("cr2_castle")["results"][design][kind]
    f = data("castle.csv")
    more: dict[str, Any] = {}
    if design == "weighted":
        more = {"weight": f["popwt"], "nuisance": f[["unemployrt", "poverty"]]}
    near(corrected(f["l_homicide"], f["post"], f["sid"], fixed=(f["sid"], f["year"]), kind=kind, **more), expected)


@pytest.mark.parametrize(("result", "kind"), [("CR2", "CR2"), ("CR2_fe", "CR2"), ("CR_stata", "CR1S")])
def test_estimatr_grunfeld_clustered(result: str, kind: Any) -> None:
    expected = case("estimatr_grunfeld")["results"][result]
    f = data("grunfeld.csv")
    x = f[["value", "capital"]]
    if result == "CR2_fe":
        return near(corrected(f["inv"], x, f["firm"], fixed=(f["firm"],)), expected)
    full = x.assign(constant=1.0)[["constant", "value", "capital"]]
    if result == "CR2":
        return near(corrected(f["inv"], full, f["firm"], constant=False), expected)
    one = clustered(regression(f["inv"], full, constant=False), f["firm"])
    assert one.std_error == pytest.approx(expected["se"], rel=REL)
    assert one.df == expected["df"][0]
    assert one.p_values() == pytest.approx(expected["p"], rel=REL)
    return None


@pytest.mark.parametrize("kind", ["HC2", "HC3"])
def test_estimatr_grunfeld_heteroskedastic(kind: Any) -> None:
    expected = case("estimatr_grunfeld")["results"][kind]
    f = data("grunfeld.csv").assign(constant=1.0)
    fit = independent(regression(f["inv"], f[["constant", "value", "capital"]], constant=False), kind)
    assert fit.std_error == pytest.approx(expected["se"], rel=REL)
    assert fit.p_values() == pytest.approx(expected["p"], rel=REL)
    assert fit.intervals()[:, 0] == pytest.approx(expected["ci_low"], rel=REL)


def test_estimatr_lin_lalonde() -> None:
    """The interacted regression with HC2; of `dim` the estimate and error (its Welch df are scipy's ttest_ind)."""
    expected = case("estimatr_lin_lalonde")["results"]
    f = data("lalonde.csv")
    t = f["treat"].to_numpy(dtype=float)
    z = f[["age", "educ", "married", "nodegree", "re74", "re75"]].to_numpy(dtype=float)
    z -= z.mean(axis=0)
    x = np.column_stack([np.ones(len(f)), t, z, z * t[:, None]])
    fit = independent(regression(f["re78"], x, constant=False), "HC2")
    lin = expected["lin"]
    assert fit.estimate == pytest.approx(lin["estimate"], rel=REL)
    assert fit.std_error == pytest.approx(lin["se"], rel=REL)
    assert fit.df == lin["df"][0]
    assert fit.p_values() == pytest.approx(lin["p"], rel=REL)
    dim = independent(regression(f["re78"], t), "HC2")
    assert (dim.estimate[0], dim.std_error[0]) == pytest.approx(
        (expected["dim"]["estimate"][0], expected["dim"]["se"][0]), rel=REL
    )


def test_cv3_jackknife_grunfeld() -> None:
    expected = case("cv3_jackknife_grunfeld")["results"]
    f = data("grunfeld.csv").assign(constant=1.0)
    x = f[["constant", "value", "capital"]]
    fit = jackknife(f["inv"], x, f["firm"], constant=False)
    assert fit.std_error == pytest.approx(expected["cv3_se"], rel=REL)
    assert fit.leverage == pytest.approx(expected["leverage_g"], rel=REL)
    assert fit.estimates[:, 1] == pytest.approx(expected["beta_jack"]["value"], rel=REL)
    assert fit.estimates[:, 2] == pytest.approx(expected["beta_jack"]["capital"], rel=REL)
    for ours, theirs in (("CR0", "HC0"), ("CR1S", "HC1"), ("CR2", "HC2"), ("CR3", "HC3")):
        errors = corrected(f["inv"], x, f["firm"], constant=False, kind=ours).std_error  # type: ignore[arg-type]
        assert errors == pytest.approx(expected["HC_cluster_sandwich"][theirs], rel=REL)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", ["CR2", "CR3"])
def test_absorbing_is_the_same_as_dummies(kind: Any, weighted: bool) -> None:
    f = panel(seed=3, units=30, years=5, start=3, clusters=10).frame
    w = f["weight"] if weighted else None
    one = corrected(f["y"], f["d"], f["cluster"], fixed=(f["unit"], f["time"]), weight=w, kind=kind)
    dummies = pd.get_dummies(f[["unit", "time"]].astype(str)).to_numpy(dtype=float)
    two = corrected(f["y"], f["d"], f["cluster"], nuisance=dummies, weight=w, kind=kind)
    assert (one.std_error[0], one.df[0]) == pytest.approx((two.std_error[0], two.df[0]), rel=1e-8)


def test_cr2_is_unbiased_under_its_working_model() -> None:
    """Its expectation under errors of equal variance is the true variance: the moments' trace is bread'x'x bread."""
    f = panel(seed=3, units=30, years=5, start=3, clusters=10).frame
    fit = regression(f["y"], f["d"], fixed=(f["unit"], f["time"]), weight=f["weight"], within=f["cluster"])
    done = corrected(f["y"], f["d"], f["cluster"], fixed=(f["unit"], f["time"]), weight=f["weight"])
    xw = fit.x[:, 0] * fit.weight
    assert np.trace(done.moments[0, 0]) == pytest.approx(float(fit.bread[0, 0] ** 2 * (xw @ xw)), rel=1e-9)


def test_jackknife_is_what_refits_give_and_refuses_what_hangs_on_one_cluster() -> None:
    f = panel(seed=3, units=40, years=5, start=3, clusters=10).frame
    done = jackknife(f["y"], f["d"], f["cluster"], fixed=(f["unit"], f["time"]), weight=f["weight"])
    for g in range(10):
        rest = f[f["cluster"] != g]
        again = regression(rest["y"], rest["d"], fixed=(rest["unit"], rest["time"]), weight=rest["weight"])
        assert done.estimates[g, 0] == pytest.approx(again.beta[0], rel=1e-9)
    few = f[(f["treated"] == 0) | (f["cluster"] == 0)]
    with pytest.raises(Inapplicable, match="without cluster 0"):
        jackknife(few["y"], few["d"], few["cluster"], fixed=(few["unit"], few["time"]))


def test_laws_and_the_study_path() -> None:
    s = panel(seed=4, clusters=14, effect=0.3)
    fit = inference.satterthwaite(twfe.estimate, s, twfe.estimate(s), np.random.default_rng(0), conf_level=0.95)
    att = fit.terms[0]
    assert att.df < 13
    assert att.conf_low < att.estimate < att.conf_high
    f = s.frame

    def numbers(frame: pd.DataFrame) -> tuple[float, float, float]:
        one = corrected(
            frame["y"], frame["d"], frame["cluster"], fixed=(frame["unit"], frame["time"]), weight=frame["weight"]
        )
        return float(one.estimate[0]), float(one.std_error[0]), float(one.df[0])

    base = numbers(f)
    assert base == pytest.approx((att.estimate, att.std_error, att.df), rel=1e-9)
    for other in (f.sample(frac=1, random_state=3), f.assign(weight=7 * f["weight"]), f.assign(unit=1000 - f["unit"])):
        assert numbers(other) == pytest.approx(base, rel=1e-9)
    assert numbers(f.assign(y=-5 * f["y"])) == pytest.approx((-5 * base[0], 5 * base[1], base[2]), rel=1e-9)


@pytest.mark.parametrize("inverse_variance", [False, True], ids=["equal variance", "inverse variance"])
@pytest.mark.parametrize("kind", ["CR2", "CR3"])
@pytest.mark.parametrize("rows", ["whole", "gaps", "twice", "dummies"])
def test_rows_that_are_alike_stand_for_each_other(
    rows: str, kind: Any, inverse_variance: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One row for all of its kind gives what every row by itself gives, to 1e-11, whatever makes rows alike."""
    frame = panel(units=90, clusters=18, years=6, start=3).frame
    if rows == "gaps":  # and shuffled
        frame = frame.sample(frac=0.8, random_state=2)
    if rows == "whole":
        frame = frame.sample(frac=1, random_state=2)
    if rows == "twice":  # an absorbed level that holds a row twice: nothing is merged
        frame = pd.concat([frame, frame[frame["unit"] % 2 == 0]])
    weight = np.where(frame["treated"] == 1, 1.0, 0.25)
    fixed = (frame["time"],) if rows == "dummies" else (frame["unit"], frame["time"])
    module = import_module("biglocal.inference.satterthwaite")
    merged: list[int] = []
    alike = module._alike

    def counted(*arguments: Any) -> Any:
        found = alike(*arguments)
        merged.append(len(found[0]))
        return found

    def each(u: np.ndarray, _: np.ndarray, absorbed: Any, __: np.ndarray) -> Any:
        return np.arange(len(u)), np.arange(len(u)), np.ones(len(u), dtype=np.int64), absorbed

    def made(way: Any) -> Corrected:
        monkeypatch.setattr(module, "_alike", way)
        more: dict[str, Any] = {"kind": kind, "fixed": fixed, "weight": weight, "inverse_variance": inverse_variance}
        return corrected(frame["y"], frame["d"], frame["cluster"], **more)

    one, other = made(counted), made(each)
    assert (merged[0] < len(frame) / 2) == (rows in ("whole", "dummies"))
    for name in ("estimate", "std_error", "df", "adjusted", "moments"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-8, atol=1e-11, err_msg=name)
