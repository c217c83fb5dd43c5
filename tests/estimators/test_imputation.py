"""Imputation against R's didimputation and did2s, and against what theorem 3 says in full matrices."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from biglocal.estimators import estimator, fit
from biglocal.estimators._design import wald
from biglocal.estimators._fixest import linear
from biglocal.estimators._within import codes
from biglocal.model import Fit, Inapplicable
from panels import panel
from reference_cases import case, data

CASTLE = {"y": "l_homicide", "unit": "sid", "time": "year", "first_treated": "effyear"}
STAGG = {"y": "y", "unit": "id", "time": "year", "first_treated": "g"}
MPDTA = {"y": "lemp", "unit": "countyreal", "time": "year", "first_treated": "first_treat"}
WEIGHTED: dict[str, Any] = {"weight": "popwt"}
GARDNER = {"options": {"errors": "gardner"}}


def frame(name: str) -> pd.DataFrame:
    found = data(name)
    if name == "base_stagg.csv":
        found["g"] = found["year_treated"].where(found["year_treated"] < 1000)
    return found


def term(ours: Fit, name: str) -> tuple[float, float]:
    """The estimate and error of a term of R: `treat`, `post::1`, a horizon or `rel::2`."""
    last = name.split("::")[-1]
    static = name.startswith(("treat", "post", "tr::"))
    found = next(
        t for t in ours.terms if (t.name == "att" if static else t.name == "event_time" and t.period == int(last))
    )
    return found.estimate, found.std_error


@pytest.mark.parametrize(
    ("name", "result", "file", "columns", "more"),
    [
        ("didimputation_castle", "static", "castle.csv", CASTLE, {}),
        ("didimputation_castle", "horizon", "castle.csv", CASTLE, {"options": {"leads": 3}}),
        # didimputation squares the weights in its errors; ours by default do not (next test)
        ("didimputation_castle", "static_weighted", "castle.csv", CASTLE, {**WEIGHTED, "options": {"errors": "didimputation"}}),
        ("didimputation_base_stagg", "static", "base_stagg.csv", STAGG, {}),
        ("didimputation_base_stagg", "horizon", "base_stagg.csv", STAGG, {}),
        ("didimputation_base_stagg", "static_cov", "base_stagg.csv", STAGG, {"covariates": ["x1"]}),
        ("did2s_castle", "static", "castle.csv", CASTLE, GARDNER),
        ("did2s_castle", "static_weighted", "castle.csv", CASTLE, {**WEIGHTED, **GARDNER}),
        ("did2s_castle", "event_weighted", "castle.csv", CASTLE, {**WEIGHTED, **GARDNER}),
        ("did2s_castle", "static_weighted_cov", "castle.csv", CASTLE, {**WEIGHTED, **GARDNER, "covariates": ["unemployrt", "poverty"]}),
        ("did2s_mpdta", "static", "mpdta.csv", MPDTA, GARDNER),
        ("did2s_mpdta", "event", "mpdta.csv", MPDTA, GARDNER),
    ],
)  # fmt: skip
def test_reference(name: str, result: str, file: str, columns: dict[str, Any], more: dict[str, Any]) -> None:
    rel, absolute = case(name)["tolerance"]["rel"], case(name)["tolerance"]["abs"]
    expected = case(name)["results"][result]
    ours = fit("imputation", frame(file), **columns, **more)
    assert expected["term"]
    for i, of in enumerate(expected["term"]):
        estimate, error = term(ours, of)
        assert estimate == pytest.approx(expected["estimate"][i], rel=rel, abs=absolute)
        assert error == pytest.approx(expected["se"][i], rel=rel, abs=absolute)
        if "ci_low" in expected:
            assert estimate - 1.96 * error == pytest.approx(expected["ci_low"][i], rel=1e-4, abs=1e-6)


def by_matrices(f: pd.DataFrame, x: list[str]) -> tuple[float, float]:
    """Theorem 3 with every dummy a column: v = -w Z (Z'wZ)^-1 Z'h, effects averaged by cohort and period."""
    y, w, d = f["y"].to_numpy(), f["weight"].to_numpy(), f["d"].to_numpy() == 1
    dummies = pd.get_dummies(f[["unit", "time"]].astype(str)).to_numpy(dtype=float)
    z = np.column_stack([dummies, f[x]])
    inverse = np.linalg.pinv((z[~d] * w[~d, None]).T @ z[~d])
    gap = y - z @ (inverse @ (z[~d].T @ (w[~d] * y[~d])))
    h = np.where(d, w, 0) / w[d].sum()
    v = np.where(d, h, -w * (z @ (inverse @ (z.T @ h))))
    cell = f["first_treated"].fillna(0).astype(str) + f["time"].astype(str)
    squares = pd.Series(np.where(d, v**2, 0))
    mean = (squares * gap).groupby(cell).transform("sum") / squares.groupby(cell).transform("sum")
    score = pd.Series(v * (gap - np.where(d, mean, 0))).groupby(f["cluster"]).sum()
    return float(h @ gap), float(np.sqrt((score**2).sum()))


@pytest.mark.parametrize("x", [[], ["x"]])
def test_weights_gaps_and_clusters_are_theorem_three(x: list[str]) -> None:
    sample = panel(seed=5, units=60, effect=0.5)
    first = sample.frame["first_treated"] + sample.frame["cluster"] % 3
    f = sample.frame.assign(first_treated=first, d=(sample.frame["time"] >= first).astype(float))
    f = f.sample(frac=0.85, random_state=1).reset_index(drop=True)
    ours = fit("imputation", f, y="y", unit="unit", time="time", first_treated="first_treated", cluster="cluster", weight="weight", covariates=x)  # fmt: skip
    assert ours.facts["not_imputed"] == 0
    att = ours.terms[0]
    assert (att.estimate, att.std_error) == pytest.approx(by_matrices(f, x), rel=1e-9)


def test_errors_follow_influence_functions_that_sum_to_nought() -> None:
    ours = fit("imputation", data("mpdta.csv"), **MPDTA)
    influence = ours.facts["influence"]
    assert influence.shape == (ours.n_units, len(ours.facts["influence_terms"]))
    assert np.sqrt((influence[:, 0] ** 2).sum()) == pytest.approx(ours.terms[0].std_error, rel=1e-10)
    assert np.abs(influence.sum(axis=0)).max() < 1e-10


def test_leads_are_fewer_where_all_cannot_be_told_apart() -> None:
    """Without never-treated units two leads, not one, go: a trend and the unit effects hide in them."""
    f = data("mpdta.csv").query("first_treat > 0")
    ours = fit("imputation", f, **MPDTA)
    leads = [t.period for t in ours.terms if t.name == "event_time" and (t.period or 0) < 0]
    assert leads == [-2, -1]
    with pytest.raises(Inapplicable, match="lead"):
        fit("imputation", f, **MPDTA, options={"leads": 4})
    assert not [t for t in fit("imputation", f, **MPDTA, options={"leads": 0}).terms if t.name == "leads"]


def test_what_cannot_be_imputed_leaves_and_is_counted() -> None:
    """A unit treated from the first period on has nothing to be imputed from."""
    f = data("mpdta.csv").assign(first_treat=lambda g: g["first_treat"].replace(2004, 2003))
    ours = fit("imputation", f, **MPDTA)
    without = fit("imputation", f[f["first_treat"] != 2003], **MPDTA)
    assert ours.facts["not_imputed"] == 20 * 5
    assert "100 treated rows" in ours.caution
    for name in ("att", "group"):
        one = [(t.period, t.estimate, t.std_error) for t in ours.terms if t.name == name]
        two = [(t.period, t.estimate, t.std_error) for t in without.terms if t.name == name]
        assert np.array(one, dtype=float) == pytest.approx(np.array(two, dtype=float), rel=1e-9, nan_ok=True)


def test_an_unknown_kind_of_errors_is_refused() -> None:
    from biglocal.estimators import imputation

    with pytest.raises(Inapplicable, match="bjs"):
        imputation.estimate(panel(), errors="robust")  # type: ignore[arg-type]


def test_effects_that_grow_and_differ_by_cohort_are_recovered() -> None:
    """Where two-way fixed effects are wrong by construction, and the imputation is exact."""
    sample = panel(seed=6)
    f = sample.frame
    first = f["first_treated"] + f["cluster"] % 3 - 2
    since = f["time"] - first
    effect = np.where(since >= 0, (since + 1) * (3 - f["cluster"] % 3), 0.0)
    f = f.assign(first_treated=first, y=f["unit"] * 0.1 - f["time"] * 0.2 + effect)
    columns: dict[str, Any] = {"y": "y", "unit": "unit", "time": "time", "first_treated": "first_treated"}
    ours = {(t.name, t.period): t.estimate for t in fit("imputation", f, **columns).terms}
    treated = effect[since >= 0]
    assert ours["att", None] == pytest.approx(treated.mean(), rel=1e-9)
    for e in range(3):
        assert ours["event_time", e] == pytest.approx(effect[since == e].mean(), rel=1e-9)
    two_way = fit("goodman_bacon", f, **columns).terms[0].estimate
    assert abs(two_way / treated.mean() - 1) > 0.05


@pytest.mark.parametrize("name", ["imputation", "sun_abraham", "stacked"])
def test_levels_are_separate_estimates_and_their_difference_is_tested(name: str) -> None:
    sample = panel(seed=9, clusters=60)
    f = sample.frame.assign(level=np.where(sample.frame["unit"] % 2 == 0, "even", "odd"))
    together = {(t.name, t.level): t for t in estimator(name)(replace(sample, frame=f, levels=("even", "odd"))).terms}
    alone = {k: estimator(name)(replace(sample, frame=f[f["level"] == k])).terms[0] for k in ("even", "odd")}
    for level, term_ in alone.items():
        assert together["att", level].estimate == pytest.approx(term_.estimate, rel=1e-10)
        assert together["att", level].std_error == pytest.approx(term_.std_error, rel=1e-10)
    gap = together["difference", ""]
    assert gap.estimate == pytest.approx(alone["odd"].estimate - alone["even"].estimate, rel=1e-9)
    # clusters hold units of both levels, so the error is not that of independent estimates
    assert gap.std_error != pytest.approx(np.hypot(alone["odd"].std_error, alone["even"].std_error), rel=1e-3)


@pytest.mark.parametrize("name", ["goodman_bacon", "synthetic_did", "roth_santanna"])
def test_where_no_difference_is_tested_levels_are_refused(name: str) -> None:
    with pytest.raises(Inapplicable, match="level"):
        estimator(name)(replace(panel(), levels=("even", "odd")))


def test_leads_are_a_regression_on_untreated_rows() -> None:
    """Weights, gaps, clusters and a covariate, through pyfixest."""
    f = panel(seed=7, units=60).frame
    first = f["first_treated"] + f["cluster"] % 2
    f = f.assign(first_treated=first, d=(f["time"] >= first).astype(float)).sample(frac=0.9, random_state=3)
    ours = fit("imputation", f, y="y", unit="unit", time="time", first_treated="first_treated", cluster="cluster", weight="weight", covariates=["x"], options={"leads": 3})  # fmt: skip
    free = f[f["d"] == 0]
    since = free["time"] - free["first_treated"]
    columns = {f"lead{e}": (since == -e).to_numpy(dtype=float) for e in (1, 2, 3)}
    theirs = linear(free, {**columns, "x": free["x"].to_numpy()}, {"unit": codes(free["unit"]), "time": codes(free["time"])})  # fmt: skip
    found = {t.period: t for t in ours.terms if t.name == "event_time"}
    for i, e in enumerate((1, 2, 3)):
        assert found[-e].estimate == pytest.approx(theirs.beta[i], rel=1e-7)
        assert found[-e].std_error == pytest.approx(np.sqrt(theirs.vcov[i, i]), rel=1e-7)
    joint = next(t for t in ours.terms if t.name == "leads")
    assert joint.statistic == pytest.approx(wald(theirs.beta, theirs.vcov, np.eye(4)[:3]), rel=1e-7)
