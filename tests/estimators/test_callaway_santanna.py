"""Group-time effects against R's did 2.3.0, against slow obvious versions of themselves, and against planted truth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from biglocal.estimators import callaway_santanna, sample
from biglocal.model import Fit, Inapplicable, Sample
from panels import panel
from reference_cases import case, data

MPDTA = [
    *(f"cs_mpdta_lpop_{m}_{c}_varying" for m in ("reg", "ipw") for c in ("nevertreated", "notyettreated")),
    *(
        f"cs_mpdta_{x}_dr_{c}_{b}"
        for c in ("nevertreated", "notyettreated")
        for b in ("varying", "universal")
        for x in ("nox", "lpop")
    ),
    "cs_mpdta_anticipation1", "cs_mpdta_weights", "cs_mpdta_rc_dr", "cs_mpdta_rc_reg", "cs_mpdta_rc_ipw",
    "cs_mpdta_unbalanced",
]  # fmt: skip
OTHERS = [
    f"cs_{f}_nox_dr_{c}_{b}"
    for f in ("base_stagg", "castle")
    for c in ("nevertreated", "notyettreated")
    for b in ("varying", "universal")
]
Key = tuple[str, int | None, str]


def reference_sample(name: str) -> Sample:
    if "castle" in name:
        return sample(data("castle.csv"), y="l_homicide", unit="sid", time="year", first_treated="effyear")
    if "base_stagg" in name:
        frame = data("base_stagg.csv").assign(g=lambda f: f["year_treated"].where(f["year_treated"] < 10_000))
        return sample(frame, y="y", unit="id", time="year", first_treated="g")
    frame = data("mpdta.csv").assign(row=lambda f: f.index, w=lambda f: np.exp(f["lpop"]))
    if name.endswith("unbalanced"):
        frame = frame[(frame["countyreal"] + frame["year"]) % 17 != 0]
    return sample(
        frame,
        y="lemp",
        unit="row" if "_rc_" in name else "countyreal",
        time="year",
        first_treated="first_treat",
        weight="w" if name.endswith("weights") else None,
        covariates=() if "nox" in name or name.endswith(("weights", "bootstrap")) else ("lpop",),
    )


def reference_options(name: str) -> dict[str, Any]:
    parts = name.split("_")
    return {
        "method": next((m for m in ("reg", "ipw") if m in parts), "dr"),
        "control": "notyet" if "notyettreated" in parts else "never",
        "base": "universal" if "universal" in parts else "varying",
        "anticipation": 1 if "anticipation1" in parts else 0,
        "panel": not {"rc", "unbalanced"} & set(parts),
    }


def numbers(fit: Fit) -> dict[Key, tuple[float, float]]:
    return {(t.name, t.period, t.level): (t.estimate, t.std_error) for t in fit.terms}


def expected_numbers(results: dict[str, Any]) -> Iterator[tuple[Key, tuple[float, float | None]]]:
    for g, t, att, se in zip(results["group"], results["t"], results["att"], results["se"], strict=True):
        yield ("att_gt", t, f"{g:g}"), (att, se)
    yield ("att", None, ""), (results["simple"]["overall_att"], results["simple"]["overall_se"])
    for name, overall, key in (
        ("group", "att_group", "group_agg"),
        ("event_time", "att_dynamic", "dynamic"),
        ("calendar", "att_calendar", "calendar"),
    ):
        part = results[key]
        yield (overall, None, ""), (part["overall_att"], part["overall_se"])
        for e, att, se in zip(part["egt"], part["att"], part["se"], strict=True):
            yield (name, e, ""), (att, se)


def compare(ours: tuple[float, float], theirs: tuple[float, float | None], tolerance: dict[str, float]) -> None:
    error = float("nan") if theirs[1] is None else theirs[1]
    assert ours == pytest.approx((theirs[0], error), rel=tolerance["rel"], abs=tolerance["abs"], nan_ok=True)


@pytest.mark.parametrize("name", MPDTA + OTHERS)
def test_against_did(name: str) -> None:
    """Every group-time effect, average and standard error, and the test of the leads."""
    expected = case(name)
    fit = callaway_santanna.estimate(reference_sample(name), **reference_options(name))
    ours = numbers(fit)
    theirs = dict(expected_numbers(expected["results"]))
    assert set(theirs) == {k for k in ours if k[0] != "leads"}
    for key, value in theirs.items():
        compare(ours[key], value, expected["tolerance"])
    wald = expected["results"]["wald_pre"]
    leads = [t for t in fit.terms if t.name == "leads"]
    assert len(leads) == (wald is not None)
    for term in leads:
        assert term.statistic * (term.df_num or 0) == pytest.approx(wald, rel=1e-6)


@pytest.mark.parametrize("name", MPDTA[:12] + OTHERS)
def test_balanced_in_event_time_against_did(name: str) -> None:
    expected = case(name)
    part = expected["results"]["dynamic_balance_e"]
    s, options = reference_sample(name), reference_options(name)
    ours = numbers(callaway_santanna.estimate(s, **options, balance=part["balance_e"]))
    compare(
        ours["att_dynamic", None, ""],
        (part["overall_att"], part["overall_se"]),
        expected["tolerance"],
    )
    assert [k[1] for k in ours if k[0] == "event_time"] == part["egt"]
    for e, att, se in zip(part["egt"], part["att"], part["se"], strict=True):
        compare(ours["event_time", e, ""], (att, se), expected["tolerance"])


@pytest.mark.parametrize("name", ["cs_mpdta_multiplier_bootstrap"])
def test_multiplier_bootstrap_against_did(name: str) -> None:
    """The case says Mammen; its numbers are those of Rademacher multipliers, which did draws."""
    expected = case(name)["results"]
    rel = case(name)["tolerance"]["rel"]
    fit = callaway_santanna.estimate(reference_sample(name), draws=100_000, rng=np.random.default_rng(3))
    drawn = dict(zip(numbers(fit), fit.facts["bootstrap_std_errors"], strict=False))  # the leads come last
    for g, t, se in zip(expected["group"], expected["t"], expected["se"], strict=True):
        assert drawn["att_gt", t, f"{g:g}"] == pytest.approx(se, rel=rel)
    for e, se in zip(expected["dynamic_egt"], expected["dynamic_se"], strict=True):
        assert drawn["event_time", e, ""] == pytest.approx(se, rel=rel)
    assert drawn["att_dynamic", None, ""] == pytest.approx(expected["overall_se"], rel=rel)
    assert fit.facts["critical_values"]["att_gt"] == pytest.approx(expected["crit_val"], abs=0.05)
    assert fit.facts["critical_values"]["event_time"] == pytest.approx(expected["dynamic_crit"], abs=0.05)


def staggered(seed: int = 5, units: int = 60, noise: float = 0.5, late: bool = True) -> Sample:
    """Cohorts of 3, 5 and never (or none never), effects 1 + 0.5 e and -2; weights, a covariate, 20 clusters."""
    rng = np.random.default_rng(seed)
    unit, time = np.repeat(np.arange(units), 7), np.tile(np.arange(7), units)
    x, weight = rng.normal(size=units), rng.uniform(0.5, 2, size=units)
    cohort = np.where(x + rng.normal(size=units) > 0.3, rng.choice([3.0, 5.0], size=units), np.nan)
    if not late:
        cohort = np.where(np.isnan(cohort), 6.0, cohort)
    first = cohort[unit]
    effect = np.where(first == 3, 1 + 0.5 * (time - first), np.where(first == 5, -2.0, 0.0)) * (time >= first)
    y = rng.normal(size=units)[unit] + 0.3 * time * x[unit] + effect + rng.normal(scale=noise, size=len(unit))
    frame = pd.DataFrame({"y": y, "unit": unit, "time": time, "first": first, "x": x[unit], "w": weight[unit]})
    return sample(
        frame.assign(area=frame["unit"] % 20),
        y="y", unit="unit", time="time", first_treated="first", cluster="area", weight="w", covariates=["x"],
    )  # fmt: skip


@pytest.mark.parametrize("method", ["dr", "reg", "ipw"])
@pytest.mark.parametrize("panel", [True, False])
@pytest.mark.parametrize(("control", "base"), [("never", "universal"), ("notyet", "varying")])
def test_influence_is_the_derivative_by_weight(method: Any, panel: bool, control: Any, base: Any) -> None:
    """What an influence function means: the change of every number as one unit weighs a little more."""
    s = staggered(units=40)
    s = replace(s, frame=s.frame.assign(cluster=s.frame["unit"]))
    s = replace(s, frame=s.frame[(s.frame["unit"] + s.frame["time"]) % 11 != 0]) if not panel else s
    options: dict[str, Any] = {"method": method, "control": control, "base": base, "panel": panel, "exact": True}
    facts = callaway_santanna.estimate(s, **options).facts
    influence = facts["basis"] @ facts["loadings"]

    def numbers_at(unit: int, step: float) -> np.ndarray:
        weight = s.frame["weight"] * np.where(s.frame["unit"] == unit, 1 + step, 1)
        fit = callaway_santanna.estimate(replace(s, frame=s.frame.assign(weight=weight)), **options)
        return np.array([t.estimate for t in fit.terms if t.name != "leads"])

    for unit in (0, 1, 7, 18):
        slope = (numbers_at(unit, 1e-4) - numbers_at(unit, -1e-4)) / 2e-4
        assert influence[unit] == pytest.approx(slope, rel=1e-5, abs=1e-7)


def test_without_covariates_it_is_differences_of_means_averaged_by_hand() -> None:
    s = replace(staggered(), covariates=())
    f = s.frame
    ours = numbers(callaway_santanna.estimate(s))

    def mean(g: float | None, t: int) -> float:
        rows = f[(f["first_treated"].isna() if g is None else f["first_treated"] == g) & (f["time"] == t)]
        return float(np.average(rows["y"], weights=rows["weight"]))

    cells = {}
    for g in (3, 5):
        for t in range(1, 7):
            b = g - 1 if t >= g else t - 1
            cells[g, t] = mean(g, t) - mean(g, b) - mean(None, t) + mean(None, b)
            assert ours["att_gt", t, str(g)][0] == pytest.approx(cells[g, t], rel=1e-10)
    share = f[f["time"] == 0].groupby("first_treated")["weight"].sum()
    after = [(g, t) for g, t in cells if t >= g]
    simple = np.average([cells[k] for k in after], weights=[share[g] for g, _ in after])
    assert ours["att", None, ""][0] == pytest.approx(simple, rel=1e-10)
    by_group = {g: np.mean([cells[k] for k in after if k[0] == g]) for g in (3, 5)}
    overall = np.average(list(by_group.values()), weights=[share[g] for g in by_group])
    assert ours["att_group", None, ""][0] == pytest.approx(overall, rel=1e-10)
    first = np.average([cells[3, 3], cells[5, 5]], weights=[share[3], share[5]])
    assert ours["event_time", 0, ""][0] == pytest.approx(first, rel=1e-10)
    last = np.average([cells[3, 6], cells[5, 6]], weights=[share[3], share[5]])
    assert ours["calendar", 6, ""][0] == pytest.approx(last, rel=1e-10)


@pytest.mark.parametrize("method", ["dr", "reg", "ipw"])
def test_a_cell_is_what_textbook_regressions_give(method: Any) -> None:
    """One cell by statsmodels' logit and least squares, written out."""
    import statsmodels.api as sm

    s = staggered(units=200)
    f = s.frame
    cell = f[f["first_treated"].isna() | (f["first_treated"] == 3)]
    wide = cell.pivot_table(index="unit", columns="time", values="y")
    unit = cell[cell["time"] == 2].set_index("unit")
    dy, d, w = wide[4] - wide[2], (unit["first_treated"] == 3).astype(float), unit["weight"]
    x = sm.add_constant(unit[["x"]])
    p = sm.GLM(d, x, family=sm.families.Binomial(), freq_weights=w).fit(tol=1e-13).predict(x)
    trend = sm.WLS(dy[d == 0], x[d == 0], weights=w[d == 0]).fit().predict(x)
    rest = dy if method == "ipw" else dy - trend
    by_hand = np.average(rest[d == 1], weights=w[d == 1])
    if method != "reg":
        by_hand -= np.average(rest[d == 0], weights=(w * p / (1 - p))[d == 0])
    ours = numbers(callaway_santanna.estimate(s, method=method))
    assert ours["att_gt", 4, "3"][0] == pytest.approx(by_hand, rel=1e-8)


@pytest.mark.parametrize("panel", [True, False])
@pytest.mark.parametrize("control", ["never", "notyet"])
@pytest.mark.parametrize("base", ["varying", "universal"])
def test_effects_planted_by_cohort_are_found(panel: bool, control: Any, base: Any) -> None:
    """No noise, trends that differ by covariate: exact, where two-way fixed effects are far off."""
    s = staggered(noise=0, units=80)
    if not panel:  # no unit effects: cross-sections compare people, not changes
        s = replace(s, frame=s.frame.assign(y=s.frame["y"] - s.frame.groupby("unit")["y"].transform("first")))
    fit = callaway_santanna.estimate(s, panel=panel, control=control, base=base, method="reg")
    for t in fit.terms:
        if t.name == "att_gt" and t.period is not None:
            e = t.period - int(t.level)
            truth = 0 if e < 0 else 1 + 0.5 * e if t.level == "3" else -2
            assert t.estimate == pytest.approx(truth, abs=1e-9)
    ours = numbers(fit)
    assert ours["group", 3, ""][0] == pytest.approx(1.75, abs=1e-9)
    assert ours["group", 5, ""][0] == pytest.approx(-2, abs=1e-9)


@pytest.mark.parametrize("panel", [True, False])
def test_errors_are_clustered(panel: bool) -> None:
    s = staggered()
    fit = callaway_santanna.estimate(s, panel=panel)
    by_unit = callaway_santanna.estimate(replace(s, frame=s.frame.assign(cluster=s.frame["unit"])), panel=panel).facts
    influence = by_unit["basis"] @ by_unit["loadings"]
    totals = np.array([influence[by_unit["clusters"] % 20 == c].sum(axis=0) for c in range(20)])
    assert fit.facts["basis"] @ fit.facts["loadings"] == pytest.approx(totals, abs=1e-10)
    errors = [t.std_error for t in fit.terms if t.name != "leads"]
    assert errors == pytest.approx(list(np.sqrt((totals**2).sum(axis=0))), rel=1e-10)
    assert errors == pytest.approx(list(np.sqrt(np.diag(fit.facts["vcov"]))), rel=1e-10)
    assert fit.n_clusters == 20
    assert {t.df for t in fit.terms} == {19}


def test_draws_follow_the_generator_and_the_clusters() -> None:
    s = staggered()
    facts = [callaway_santanna.estimate(s, draws=n, rng=np.random.default_rng(1)).facts for n in (500, 500, 20_000)]
    assert (facts[0]["bootstrap_std_errors"] == facts[1]["bootstrap_std_errors"]).all()
    assert facts[0]["critical_values"] == facts[1]["critical_values"]
    analytic = np.array([t.std_error for t in callaway_santanna.estimate(s).terms if t.name != "leads"])
    ratio = facts[2]["bootstrap_std_errors"] / analytic
    assert 0.9 < np.median(ratio) < 1.1  # an interquartile range of 20 clusters' sums is not quite a normal's
    assert 1.96 < facts[2]["critical_values"]["group"] < facts[2]["critical_values"]["att_gt"]
    with pytest.raises(Inapplicable, match="random generator"):
        callaway_santanna.estimate(s, draws=10)


def test_without_never_treated_the_last_cohort_is_compared_with_until_it_starts() -> None:
    s = staggered(late=False)
    with pytest.raises(Inapplicable, match="0 comparison rows"):
        callaway_santanna.estimate(s)
    fit = callaway_santanna.estimate(s, control="notyet")
    assert "cohort of 6 is the comparison" in fit.caution
    assert {t.level for t in fit.terms if t.name == "att_gt"} == {"3", "5"}
    assert max(t.period or 0 for t in fit.terms if t.name == "att_gt") == 5


def test_who_leaves_is_said() -> None:
    s = staggered()
    gone = replace(s, frame=s.frame.drop(index=s.frame.index[[0, 8]]))
    assert "2 units not seen, or without weight, in every period left" in callaway_santanna.estimate(gone).caution
    early = s.frame.assign(first_treated=s.frame["first_treated"].where(s.frame["unit"] != 3, 0.0))
    early = early.assign(treated=early["first_treated"].notna().astype(int))
    early["d"] = ((early["treated"] == 1) & (early["time"] >= early["first_treated"])).astype(float)
    assert "1 unit without a period before" in callaway_santanna.estimate(replace(s, frame=early)).caution


def test_a_cohort_without_overlap_leaves_the_averages_and_is_said() -> None:
    """The rest is what it is without that cohort, but for the size of the sample."""
    s = staggered()
    apart = s.frame.assign(x=s.frame["x"] + 50 * (s.frame["first_treated"] == 3))
    fit = callaway_santanna.estimate(replace(s, frame=apart))
    alone = callaway_santanna.estimate(replace(s, frame=s.frame[s.frame["first_treated"] != 3]))
    assert "6 group-time effects are missing (first: cohort 3 in 1: " in fit.caution
    assert set(fit.facts["refused"]) == {f"3 in {t}" for t in range(1, 7)}
    for key, value in numbers(alone).items():
        assert numbers(fit)[key] == pytest.approx(value, rel=1e-7, nan_ok=True)


def test_rows_of_a_unit_and_year_count_as_their_weighted_mean() -> None:
    s = staggered()
    apart = pd.concat([s.frame.assign(y=s.frame["y"] + 1), s.frame.assign(y=s.frame["y"] - 1)])
    one, two = callaway_santanna.estimate(s), callaway_santanna.estimate(replace(s, frame=apart))
    for key, value in numbers(one).items():
        assert numbers(two)[key] == pytest.approx(value, rel=1e-9, abs=1e-9, nan_ok=True)


def test_covariates_that_change_are_taken_before_the_effect() -> None:
    """What happens to a covariate after the start moves nothing."""
    s = staggered()
    moved = s.frame.assign(x=s.frame["x"] + 10 * s.frame["d"] * s.frame["y"])
    one = numbers(callaway_santanna.estimate(s))
    two = numbers(callaway_santanna.estimate(replace(s, frame=moved)))
    for key in one:
        assert two[key] == pytest.approx(one[key], rel=1e-9, nan_ok=True)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda f: f.assign(x=1.0), "collinear with the constant: x"),
        (lambda f: f.assign(x="north"), "must be numbers"),
        (lambda f: f.assign(y=f["y"].where(f["unit"] > 0)), "missing or infinite in 7 rows"),
        (lambda f: f.assign(x=100.0 * (f["treated"] + 1e-3 * f["x"])), "no group-time effect can be estimated"),
        (lambda f: f.assign(cluster=f["time"]), "60 units with more than one cluster"),
        (lambda f: f[f["time"] != f["unit"] % 7], "none of 60 units"),
    ],
)
def test_what_cannot_be_estimated_is_refused(change: Any, reason: str) -> None:
    s = staggered()
    with pytest.raises(Inapplicable, match=reason):
        callaway_santanna.estimate(replace(s, frame=change(s.frame)))


def test_coverage_of_the_interval() -> None:
    """300 panels with clustered shocks and no effect: rejects at about 5% (binomial bounds at 99.9%)."""
    rejected = 0
    for seed in range(300):
        s = panel(seed=3000 + seed, units=60, years=4, start=2, clusters=60)
        att = next(t for t in callaway_santanna.estimate(s).terms if t.name == "att")
        rejected += abs(att.estimate) > 2.0010 * att.std_error  # t(59)
    assert 4 <= rejected <= 30
