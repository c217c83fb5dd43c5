"""The Goodman-Bacon decomposition against R's bacondecomp, and against the coefficient it takes apart."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from biglocal.estimators import estimator, fit, goodman_bacon
from biglocal.model import Inapplicable, Sample
from panels import panel
from reference_cases import case, data

CASTLE = {"y": "l_homicide", "unit": "sid", "time": "year", "d": "post"}
REFORM = {"y": "incearn_ln", "unit": "state", "time": "class", "d": "reform_math"}
CASES = [
    ("bacon_castle", "castle.csv", CASTLE, []),
    ("bacon_castle_cov", "castle.csv", CASTLE, ["l_income", "unemployrt"]),
    ("bacon_math_reform", "math_reform.csv", REFORM, []),
]


def cohort(value: float | None) -> float:
    return math.inf if value in (None, 99999) else float(value)


@pytest.mark.parametrize(("name", "file", "columns", "covariates"), CASES)
def test_reference(name: str, file: str, columns: dict[str, Any], covariates: list[str]) -> None:
    expected, tolerance = case(name)["results"], case(name)["tolerance"]
    ours = fit("goodman_bacon", data(file), **columns, covariates=covariates)
    pairs = {(frozenset((x["treated"], x["untreated"])), x["type"]): x for x in ours.facts["two_by_twos"]}
    assert len(pairs) == len(expected["two_by_twos"])
    for theirs in expected["two_by_twos"]:
        found = pairs[frozenset((cohort(theirs["treated"]), cohort(theirs["untreated"]))), theirs["type"]]
        if theirs["type"] != "Both Treated":
            assert found["treated"] == theirs["treated"]
        assert found["estimate"] == pytest.approx(theirs["estimate"], **tolerance)
        assert found["weight"] == pytest.approx(theirs["weight"], **tolerance)
    terms = {(t.name, t.level): t.estimate for t in ours.terms}
    between = 1 - ours.facts["omega"]
    for theirs in expected["by_type"]:
        assert terms["comparison", theirs["type"]] == pytest.approx(theirs["avg_estimate"], **tolerance)
        assert terms["comparison_weight", theirs["type"]] == pytest.approx(theirs["weight"] * between, **tolerance)
    assert terms["att", ""] == pytest.approx(expected.get("dd", expected.get("twfe_with_controls")), **tolerance)
    if covariates:
        assert ours.facts["omega"] == pytest.approx(expected["Omega"], **tolerance)
        assert terms["within", ""] == pytest.approx(expected["beta_hat_w"], **tolerance)
        total = sum(x["estimate"] * x["weight"] for x in ours.facts["two_by_twos"])
        assert total == pytest.approx(expected["dd_between"], **tolerance)


def staggered(**more: Any) -> Sample:
    """Two starts, one cohort treated throughout, weights by unit."""
    s = panel(seed=21, units=90, effect=0.3)
    f = s.frame
    first = f["first_treated"] - f["cluster"] % 2
    first = first.where((f["cluster"] != 6) & (f["cluster"] != 11), 0.0)
    treated = first.notna()
    f = f.assign(first_treated=first, treated=treated.astype(int), d=(treated & (f["time"] >= first)).astype(float))
    return replace(s, frame=f, **more)


@pytest.mark.parametrize("covariates", [(), ("x",)])
def test_the_pairs_add_up_to_the_two_way_coefficient(covariates: tuple[str, ...]) -> None:
    s = staggered(covariates=covariates)
    ours = {(t.name, t.level): t.estimate for t in estimator("goodman_bacon")(s).terms}
    whole = sum(v * ours["comparison_weight", k] for (n, k), v in ours.items() if n == "comparison")
    weight = sum(v for (n, _), v in ours.items() if n == "comparison_weight")
    if covariates:
        whole += ours["within", ""] * ours["within_weight", ""]
        weight += ours["within_weight", ""]
    else:
        assert ("comparison", "Later vs Always Treated") in ours
    twfe = estimator("twfe")(s).terms[0].estimate
    assert weight == pytest.approx(1, rel=1e-10)
    assert whole == pytest.approx(twfe, rel=1e-8)
    assert ours["att", ""] == pytest.approx(twfe, rel=1e-8)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda f: f.sample(frac=1, random_state=2), id="shuffle rows"),
        pytest.param(lambda f: f.assign(unit=10_000 - 7 * f["unit"]), id="relabel units"),
        pytest.param(lambda f: f.assign(weight=5 * f["weight"]), id="scale weights"),
        pytest.param(lambda f: f.set_axis(f.index * 3 + 1), id="another index"),
        pytest.param(lambda f: f.assign(time=f["time"] + 9, first_treated=f["first_treated"] + 9), id="shift time"),
        pytest.param(lambda f: f.assign(y=f["y"] + 3 * f["unit"] + np.sin(f["time"])), id="absorbed effects"),
        pytest.param(lambda f: pd.concat([f, f]).assign(weight=lambda g: g["weight"] / 2), id="every row twice"),
    ],
)
def test_nothing_moves(change: Any) -> None:
    s = staggered(covariates=("x",))
    one, two = (estimator("goodman_bacon")(x) for x in (s, replace(s, frame=change(s.frame))))
    kinds = [[t for t in fit.terms if not t.name.startswith("two_by_two")] for fit in (one, two)]
    assert [t.estimate for t in kinds[1]] == pytest.approx([t.estimate for t in kinds[0]], rel=1e-7)
    assert [(t.name, t.level) for t in kinds[1]] == [(t.name, t.level) for t in kinds[0]]
    pairs = [sorted(t.estimate for t in fit.terms if t.name == "two_by_two") for fit in (one, two)]  # named by years
    assert pairs[1] == pytest.approx(pairs[0], rel=1e-7)


def test_pairs_add_up_to_the_coefficient() -> None:
    for covariates in ((), ("x",)):
        said = {
            (t.name, t.level): t.estimate for t in estimator("goodman_bacon")(staggered(covariates=covariates)).terms
        }
        whole = sum(v * said["two_by_two_weight", k] for (name, k), v in said.items() if name == "two_by_two")
        whole += said.get(("within", ""), 0.0) * said.get(("within_weight", ""), 0.0)
        assert whole == pytest.approx(said["att", ""], rel=1e-8)


def test_gaps_are_left_out_where_asked() -> None:
    s = staggered()
    hole = s.frame.index[(s.frame["unit"] == s.frame["unit"].max()) & (s.frame["time"] == s.frame["time"].min())]
    gap = replace(s, frame=s.frame.drop(index=hole))
    whole = replace(s, frame=s.frame[s.frame["unit"] != s.frame["unit"].max()])
    with pytest.raises(Inapplicable, match="balanced"):
        estimator("goodman_bacon")(gap)
    found = goodman_bacon.estimate(gap, balance=True)
    assert "1 unit without a row in every period left" in found.caution
    assert found.terms == estimator("goodman_bacon")(whole).terms


def test_estimates_scale_and_weights_do_not() -> None:
    s = staggered()
    one, two = (estimator("goodman_bacon")(x) for x in (s, replace(s, frame=s.frame.assign(y=-100 * s.frame["y"] + 5))))
    for a, b in zip(one.terms, two.terms, strict=True):
        assert b.estimate == pytest.approx(a.estimate * (1 if "weight" in a.name else -100), rel=1e-8)
        assert not a.tested


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda f: f.sample(frac=0.8, random_state=1), "balanced"),
        (lambda f: f.assign(weight=f["weight"] * (1 + f["time"] * f["treated"])), "weights change"),
        (lambda f: f[f["treated"] == 0], "0 treated"),
        (lambda f: f.assign(y=3.0), "constant"),
        (lambda f: f.assign(weight=0.0), "weights are zero"),
        (lambda f: f[:0], "no rows"),
        (lambda f: f.assign(x=f["unit"] * 2.0), "collinear"),
        (lambda f: f.assign(x=f["d"]), "collinear"),
    ],
)
def test_degenerate_input_is_refused_with_a_reason(change: Any, reason: str) -> None:
    s = staggered(covariates=("x",))
    with pytest.raises(Inapplicable, match=reason):
        estimator("goodman_bacon")(replace(s, frame=change(s.frame)))
