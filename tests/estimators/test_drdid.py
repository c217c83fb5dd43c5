"""Doubly robust difference-in-differences against DRDID 1.2.3, by derivative, and by laws."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from biglocal.estimators import _doubly_robust as dr
from biglocal.estimators import callaway_santanna, drdid, sample
from biglocal.model import Inapplicable, Sample
from panels import panel
from reference_cases import case, data

LALONDE = ("age", "educ", "black", "married", "nodegree", "hisp", "re74")
PANEL: dict[str, dict[str, Any]] = {
    "drdid_imp": {"method": "dr_improved"},
    "drdid_trad": {"method": "dr"},
    "drdid": {"method": "dr"},
    "ordid": {"method": "reg"},
    "reg": {"method": "reg"},
    "ipwdid_hajek": {"method": "ipw"},
    "std_ipw": {"method": "ipw"},
    "ipwdid_ht": {"method": "ipw_ht"},
    "ipw": {"method": "ipw_ht"},
    "twfe": {"method": "twfe"},
}
ROWS: dict[str, dict[str, Any]] = {
    "drdid_imp_loceff": {"method": "dr_improved"},
    "drdid_trad_loceff": {"method": "dr"},
    "drdid_imp_notloceff": {"method": "dr_improved", "efficient": False},
    "drdid_trad_notloceff": {"method": "dr", "efficient": False},
    "reg": {"method": "reg"},
    "std_ipw": {"method": "ipw"},
    "ipw_ht": {"method": "ipw_ht"},
    "twfe": {"method": "twfe"},
}
CASES = [
    *(("drdid_panel_nsw_cps", n) for n in ("drdid_imp", "drdid_trad", "ordid", "ipwdid_hajek", "ipwdid_ht")),
    *(
        ("drdid_panel_nsw_control_cps_quadratic", n)
        for n in ("drdid_imp", "drdid_trad", "ordid", "ipwdid_hajek", "ipwdid_ht")
    ),
    *(("drdid_panel_nsw_experiment", n) for n in ("drdid_imp", "drdid_trad", "ordid", "ipwdid_hajek", "ipwdid_ht")),
    *(("drdid_panel_nsw_cps_lowlevel", n) for n in ("twfe", "reg", "std_ipw", "ipw", "drdid", "drdid_imp")),
    *(("drdid_rc_nsw_cps", n) for n in ROWS),
    *(("drdid_rc_sim", n) for n in ROWS),
]


def reference_sample(name: str, rows: bool) -> Sample:
    """The case's data; `rows`: every row a unit of its own, as DRDID's cross-sections and its `twfe` take them."""
    if name == "drdid_rc_sim":
        frame = data("sim_rc.csv").assign(first=lambda f: f["d"])
        return sample(frame, y="y", unit="id", time="post", first_treated="first", covariates=["x1", "x2", "x3", "x4"])
    frame = data("nsw_long.csv")
    covariates = list(LALONDE)
    if name == "drdid_panel_nsw_control_cps_quadratic":
        frame = frame[(frame["sample"] == 2) | (frame["treated"] == 0)]
        frame = frame.assign(first=np.where(frame["treated"] == 0, 1978, 0))
        frame = frame.assign(age2=frame["age"] ** 2, none74=(frame["re74"] == 0).astype(float))
        covariates += ["age2", "none74"]
    else:
        frame = frame[frame["treated"].notna()] if name.endswith("experiment") else frame
        frame = frame[(frame["sample"] == 2) | (frame["treated"] == 1)] if "cps" in name else frame
        frame = frame.assign(first=np.where(frame["treated"] == 1, 1978, 0))
    frame = frame.assign(row=np.arange(len(frame)))
    unit = "row" if rows else "id"
    return sample(frame, y="re", unit=unit, time="year", first_treated="first", covariates=covariates)


@pytest.mark.parametrize(("name", "estimator"), CASES)
def test_against_drdid(name: str, estimator: str) -> None:
    expected = case(name)["results"][estimator]
    rows = "_rc_" in name
    options = ROWS[estimator] if rows else PANEL[estimator]
    s = reference_sample(name, rows or estimator == "twfe")
    att = drdid.estimate(s, panel=not rows, **options).terms[0]
    rel = case(name)["tolerance"]["rel"]
    assert att.estimate == pytest.approx(expected["att"], rel=rel, abs=1e-7)
    assert att.std_error == pytest.approx(expected["se"], rel=rel, abs=1e-7)
    assert att.estimate - 1.96 * att.std_error == pytest.approx(expected["ci_low"], rel=rel, abs=rel * expected["se"])
    assert att.estimate + 1.96 * att.std_error == pytest.approx(expected["ci_high"], rel=rel, abs=rel * expected["se"])


def test_trimming_is_reported_and_can_turn_the_sign() -> None:
    """County mortality, weighted by population: what the notes of the reference say of two comparison counties."""
    assert "from 2.78 to -1.65" in case("drdid_panel_nsw_cps")["notes"]
    frame = data("county_mortality.csv")
    frame = frame[frame["yaca"].isin([0, 2014]) & frame["year"].isin([2013, 2014])]
    s = sample(
        frame, y="crude_rate", unit="county_code", time="year", first_treated="yaca", weight="pop",
        covariates=["perc_female", "perc_white", "perc_hispanic", "unemp_rate"],
    )  # fmt: skip
    trimmed, whole = drdid.estimate(s, method="dr"), drdid.estimate(s, method="dr", trim=1.0)
    assert trimmed.terms[0].estimate == pytest.approx(-1.65, abs=0.005)
    assert whole.terms[0].estimate == pytest.approx(2.78, abs=0.005)
    assert trimmed.facts["trimmed"] == 2
    assert whole.facts["trimmed"] == 0
    assert "were dropped: 2." in trimmed.caution


def drawn(seed: int = 2, n: int = 300) -> dict[str, Any]:
    """Two covariates that move both treatment and trend, weights, two outcomes."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 2))
    d = (rng.logistic(size=n) < 0.7 * x[:, 0] - 0.4).astype(float)
    y = np.column_stack([d + x @ [1.0, -0.5] + rng.normal(size=n), x[:, 0] ** 2 + rng.normal(size=n)])
    return {"y": y, "d": d, "x": dr.design(x, ["a", "b"]), "w": np.ones(n), "post": rng.integers(0, 2, n).astype(float)}


@pytest.mark.parametrize("method", ["dr", "reg", "ipw", "ipw_ht"])
@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize("efficient", [False, True])
def test_influence_is_the_derivative_by_weight(method: Any, rows: bool, efficient: bool) -> None:
    """Also of the exact form for cross-sections, from which DRDID's differs in one sign."""
    a = drawn()

    def effect(w: np.ndarray) -> dr.Effect:
        if rows:
            return dr.cross_sections(a["y"], a["post"], a["d"], a["x"], w, method, 0.995, efficient, exact=True)
        return dr.panel(a["y"], a["d"], a["x"], w, method, 0.995)

    influence = effect(a["w"]).influence
    for i in (0, 1, 50, 51, 52):
        step = 1e-4 * (np.arange(len(a["w"])) == i)
        slope = (effect(a["w"] + step).att - effect(a["w"] - step).att) / 2e-4
        assert influence[i] == pytest.approx(slope, rel=1e-4, abs=1e-8)


def test_the_exact_error_differs_from_drdids_by_some_per_cent() -> None:
    a = drawn(n=2000)
    both = [dr.cross_sections(a["y"], a["post"], a["d"], a["x"], a["w"], "dr", 0.995, exact=e) for e in (False, True)]
    assert (both[0].att == both[1].att).all()
    errors = [np.sqrt((e.influence**2).sum(axis=0)) for e in both]
    assert errors[0] != pytest.approx(errors[1], rel=0.01)
    assert errors[0] == pytest.approx(errors[1], rel=0.1)


@pytest.mark.parametrize("rows", [False, True])
def test_tilting_balances_and_the_improved_estimate_is_doubly_robust_in_its_sample(rows: bool) -> None:
    a = drawn()
    odds = dr._tilt(a["x"], a["d"], a["w"])
    treated = a["x"][a["d"] == 1].mean(axis=0)
    compared = np.average(a["x"][a["d"] == 0], axis=0, weights=odds[a["d"] == 0])
    assert compared == pytest.approx(treated, abs=1e-9)
    # outcomes linear in x without noise: exact, whatever the propensity
    y = (a["x"] @ [1.0, 2.0, -3.0])[:, None] * (a["post"][:, None] if rows else 1) + 0.6 * a["d"][:, None]
    y = y + (a["d"] * a["post"])[:, None] if rows else y
    for method in ("dr_improved", "dr") if rows else ("dr_improved", "dr", "reg"):
        effect = (
            dr.cross_sections(y, a["post"], a["d"], a["x"], a["w"], method, 0.995)  # type: ignore[arg-type]
            if rows
            else dr.panel(y, a["d"], a["x"], a["w"], method, 0.995)  # type: ignore[arg-type]
        )
        assert effect.att[0] == pytest.approx(1.0 if rows else 0.6, abs=1e-9)


def test_outcomes_together_are_outcomes_apart() -> None:
    a = drawn()
    for method in ("dr_improved", "dr", "reg", "ipw", "ipw_ht"):
        both = dr.panel(a["y"], a["d"], a["x"], a["w"], method, 0.995)  # type: ignore[arg-type]
        one = dr.panel(a["y"][:, 1:], a["d"], a["x"], a["w"], method, 0.995)  # type: ignore[arg-type]
        assert both.att[1] == pytest.approx(one.att[0], rel=1e-12)
        assert both.influence[:, 1:] == pytest.approx(one.influence, abs=1e-12)


@pytest.mark.parametrize("method", ["dr", "reg", "ipw"])
def test_two_periods_are_one_cell_of_callaway_and_santanna(method: Any) -> None:
    s = panel(seed=6, effect=0.3)
    s = replace(s, frame=s.frame[s.frame["time"].isin([4, 5])], covariates=("x",))
    one = drdid.estimate(s, method=method).terms[0]
    cell = next(t for t in callaway_santanna.estimate(s, method=method).terms if t.name == "att_gt")
    assert one.estimate == pytest.approx(cell.estimate, rel=1e-10)
    assert one.std_error == pytest.approx(cell.std_error, rel=1e-10)


def test_a_planted_effect_is_found_where_trends_follow_a_covariate() -> None:
    """Where two-way fixed effects are far off."""
    s = panel(seed=7, units=2000, clusters=400)
    first = s.frame.groupby("unit")["x"].transform("first")
    x = first + 1.5 * s.frame["treated"]
    y = s.frame["y"] + 0.5 * s.frame["d"] + 0.4 * x * s.frame["time"]
    s = replace(s, frame=s.frame.assign(x=x, y=y), covariates=("x",))
    for method in ("dr_improved", "dr", "reg", "ipw"):
        att = drdid.estimate(s, method=method).terms[0]  # type: ignore[arg-type]
        assert abs(att.estimate - 0.5) < 3.5 * att.std_error
    assert drdid.estimate(replace(s, covariates=())).terms[0].estimate > 1.5


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda f: f.assign(first_treated=f["first_treated"] + f["cluster"] % 2), "staggered .*use callaway_santanna"),
        (lambda f: f.assign(x=1.0), "collinear with the constant: x"),
        (lambda f: f.assign(x=10.0 * f["treated"] + 0.01 * f["unit"]), "separate treated from comparison"),
        (lambda f: f.assign(y=f["y"].where(f["unit"] > 0)), "missing or infinite in 8 rows"),
        (lambda f: f.assign(cluster=f["time"]), "more than one cluster"),
        (lambda f: f[(f["time"] < 5) == (f["unit"] % 2 == 0)], "seen both before and after"),
    ],
)
def test_what_cannot_be_estimated_is_refused(change: Any, reason: str) -> None:
    s = panel(seed=4)
    with pytest.raises(Inapplicable, match=reason):
        drdid.estimate(replace(s, frame=change(s.frame), covariates=("x",)))


def test_units_seen_on_one_side_only_leave_and_are_counted() -> None:
    s = panel(seed=4)
    f = s.frame[~((s.frame["unit"] < 3) & (s.frame["time"] >= 5))]
    fit = drdid.estimate(replace(s, frame=f))
    assert "3 units not seen both before and after left" in fit.caution
    assert fit.n_units == 117


def test_every_row_counts_once_whatever_the_order() -> None:
    s = replace(panel(seed=4), covariates=("x",))
    mixed = replace(s, frame=pd.DataFrame(s.frame.sample(frac=1, random_state=3)))
    for method in ("dr_improved", "dr", "reg", "ipw", "ipw_ht", "twfe"):
        for following in (True, False):
            one = drdid.estimate(s, method=method, panel=following).terms[0]  # type: ignore[arg-type]
            two = drdid.estimate(mixed, method=method, panel=following).terms[0]  # type: ignore[arg-type]
            assert (two.estimate, two.std_error) == pytest.approx((one.estimate, one.std_error), rel=1e-8)


@pytest.mark.parametrize("estimate", [drdid.estimate, callaway_santanna.estimate])
def test_levels_are_estimated_apart_and_their_difference_is_tested(estimate: Any) -> None:
    s = replace(panel(seed=9, clusters=60), levels=("even", "odd"))  # two units a cluster, one of each level
    terms = {(t.name, t.level): t for t in estimate(s).terms}
    fits = {k: estimate(replace(s, frame=s.frame[s.frame["level"] == k], levels=())) for k in ("even", "odd")}
    totals = []
    for name, fit in fits.items():
        alone = next(t for t in fit.terms if t.name == "att")
        assert terms["att", name].estimate == pytest.approx(alone.estimate, rel=1e-12)
        assert terms["att", name].std_error == pytest.approx(alone.std_error, rel=1e-12)
        order = np.argsort(fit.facts["clusters"])
        totals.append(fit.facts["influence"][order, 0])
    gap = terms["difference", ""]
    assert gap.estimate == pytest.approx(terms["att", "odd"].estimate - terms["att", "even"].estimate, rel=1e-9)
    assert gap.std_error == pytest.approx(float(np.sqrt(((totals[1] - totals[0]) ** 2).sum())), rel=1e-9)
    three = replace(
        s, levels=("a", "b", "c"), frame=s.frame.assign(level=np.array(["a", "b", "c"])[s.frame["unit"] % 3])
    )
    joint = next(t for t in estimate(three).terms if t.name == "difference")
    assert joint.df_num == 2
    assert joint.statistic > 0
    with pytest.raises(Inapplicable, match="level other"):
        estimate(replace(s, levels=("even", "other")))
