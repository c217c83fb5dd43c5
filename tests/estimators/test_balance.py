"""Balance against MatchIt's summary and cobalt's table, for every case that has them, and its laws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import reference_cases
from biglocal.estimators.balance import balance_table, estimate, sizes
from biglocal.model import Inapplicable, Sample
from reference_cases import case, data

LALONDE = ["age", "educ", "race", "married", "nodegree", "re74", "re75"]
NSW = ["age", "age2", "educ", "black", "hisp", "marr", "nodegree", "re74", "re75"]
STATES = {"all": "unmatched", "matched": "matched"}
MATCHIT = {
    "mean_t": "mean_treated",
    "mean_c": "mean_control",
    "smd": "smd",
    "var_ratio": "variance_ratio",
    "ecdf_mean": "ecdf_mean",
    "ecdf_max": "ks",
}
CASES = [c for c in reference_cases._cases() if c.startswith("match_")] or ["match_lalonde_nn1"]


def reference(name: str) -> tuple[dict[str, Any], pd.DataFrame, list[str], np.ndarray]:
    expected = case(name)["results"]
    if "nswcps" in name:
        frame = data("nsw_cps.csv")
        weights = np.zeros(len(frame))
        weights[np.array(expected["nonzero_weights"]["id"], dtype=int) - 1] = expected["nonzero_weights"]["w"]
        return expected, frame.assign(age2=frame["age"] ** 2), NSW, weights
    frame, weights = data("lalonde.csv"), np.array(expected["weights"], dtype=float)
    if name == "match_lalonde_exact":
        return expected, frame, ["race", "married", "nodegree"], weights
    if "distance" in expected:
        return expected, frame.assign(distance=expected["distance"]), ["distance", *LALONDE], weights
    return expected, frame, LALONDE, weights


def same(ours: Any, theirs: list[float | None], what: str) -> None:
    """Equal where R says a number; R's scores are rounded to 15 digits."""
    numbers = np.array([np.nan if v is None else v for v in theirs], dtype=float)
    said = ~np.isnan(numbers)
    np.testing.assert_allclose(np.asarray(ours)[said], numbers[said], rtol=1e-9, atol=1e-9, err_msg=what)


@pytest.mark.parametrize("name", CASES)
def test_balance(name: str) -> None:
    expected, frame, covariates, weights = reference(name)
    ate = name.endswith("_ate")
    tables = {
        denominator: balance_table(frame, "treat", covariates, weights, denominator=denominator)
        for denominator in ("treated", "pooled")
    }
    table = tables["pooled" if ate else "treated"]
    skip = len(expected["balance"]["all"]["var"]) - len(table)  # the score of 16,177 units is not in the case
    for theirs, ours in STATES.items():
        figures = expected["balance"][theirs] or {}  # MatchIt gives none for subclasses
        for column, name_ in MATCHIT.items():
            if column in figures:
                same(table[f"{name_}_{ours}"], figures[column][skip:], f"{theirs} {column}")
    cobalt = expected.get("cobalt") or {}
    for column, name_ in (("vr", "variance_ratio"), ("ks", "ks")) if cobalt else ():
        for theirs, ours in (("un", "unmatched"), ("adj", "matched")):
            same(table[f"{name_}_{ours}"], cobalt[f"{column}_{theirs}"][skip:], column)
            for denominator, by in tables.items():
                same(by[f"smd_{ours}"], cobalt[f"smd_{theirs}_{denominator}"][skip:], f"smd {denominator}")
    counts = sizes(frame["treat"] == 1, weights)
    control, treated = expected["balance"]["nn"]["Matched (ESS)"]
    assert counts["effective"].to_numpy() == pytest.approx([treated, control], rel=1e-9)
    control, treated = expected["balance"]["nn"]["Matched"]
    assert counts["matched"].to_list() == [treated, control]


@pytest.mark.parametrize(
    "name",
    [c for c in CASES if "replace" not in c and "mahvars" not in c and "nswcps" not in c and "subclass" not in c],
)
def test_distance_within_pairs(name: str) -> None:
    expected, frame, covariates, weights = reference(name)
    if "pairs" in expected:
        place = dict(zip(frame["id"], range(len(frame)), strict=True))
        sets = np.full(len(frame), -1)
        for unit, controls in zip(expected["pairs"]["treated"], expected["pairs"]["controls"], strict=True):
            for member in [unit, *controls] if controls else []:
                sets[place[member]] = place[unit]
    else:
        sets = pd.factorize(pd.Series(expected["subclass"], dtype=object))[0]
    ate = name.endswith("_ate")
    table = balance_table(frame, "treat", covariates, weights, denominator="pooled" if ate else "treated", sets=sets)
    matched = expected["balance"]["matched"]
    # MatchIt leaves the distance unstandardised where the means are equal (educ in nn1_caliper; 0 in exact)
    theirs = [v if abs(d) > 1e-9 else None for v, d in zip(matched["std_pair_dist"], matched["smd"], strict=True)]
    same(table["pair_distance_matched"], theirs, name)


@pytest.mark.parametrize("name", [c for c in reference_cases._cases() if c.startswith(("ipw_", "ebal"))])
def test_balance_of_weights(name: str) -> None:
    expected = case(name)["results"]
    frame, weights = data("lalonde.csv"), np.array(expected["weights"], dtype=float)
    denominator: Any = "treated" if name.endswith("att") else "pooled"
    table = balance_table(frame, "treat", LALONDE, weights, denominator=denominator).set_index("covariate")
    for variable, adjusted, before in zip(*(expected["smd"][k] for k in ("var", "adj", "un")), strict=True):
        if variable != "prop.score":  # overlap weights balance exactly: both say 0, to 1e-8
            assert table.loc[variable, "smd_unmatched"] == pytest.approx(before, rel=1e-9)
            assert table.loc[variable, "smd_matched"] == pytest.approx(adjusted, rel=1e-9, abs=2e-8)
    effective = sizes(frame["treat"] == 1, weights)["effective"]
    assert effective.to_list() == pytest.approx([expected["ess_t"], expected["ess_c"]], rel=1e-9)


def units(seed: int = 0, n: int = 400) -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {"x": rng.normal(size=n), "z": rng.integers(0, 2, size=n), "place": rng.choice(["a", "b", "c"], size=n)},
        index=pd.Index([f"E{i:03d}" for i in range(n)]),
    )
    frame["treat"] = (rng.uniform(size=n) < 0.3).astype(int)
    return frame, rng.uniform(size=n).round(2) * (rng.uniform(size=n) < 0.8)


def test_order_of_rows_and_scale_of_weights_change_nothing() -> None:
    frame, weights = units()
    one = balance_table(frame, "treat", ["x", "z", "place"], weights)
    by = np.random.default_rng(1).permutation(len(frame))
    two = balance_table(frame.iloc[by], "treat", ["x", "z", "place"], 7 * weights[by])
    pd.testing.assert_frame_equal(one, two, rtol=1e-10)
    assert one["covariate"].to_list() == ["x", "z", "place_a", "place_b", "place_c"]


def test_scale_of_a_covariate_moves_only_its_means() -> None:
    frame, weights = units()
    one = balance_table(frame, "treat", ["x"], weights).drop(columns=["covariate"])
    two = balance_table(frame.assign(x=50 * frame["x"] - 3), "treat", ["x"], weights).drop(columns=["covariate"])
    for column in one:
        if str(column).startswith("mean"):
            assert two[column][0] == pytest.approx(50 * one[column][0] - 3)
        else:
            assert two[column][0] == pytest.approx(one[column][0])


def test_the_same_distribution_is_in_balance() -> None:
    frame, _ = units()
    twice = pd.concat([frame.assign(treat=1), frame.assign(treat=0)], ignore_index=True)
    table = balance_table(twice, "treat", ["x", "z"], np.ones(len(twice)))
    for column, value in (("smd", 0), ("ks", 0), ("ecdf_mean", 0), ("overlap", 1)):
        assert table[f"{column}_matched"].to_list() == pytest.approx([value, value], abs=1e-12)
    apart = twice.assign(x=twice["x"] + 100 * twice["treat"])
    table = balance_table(apart, "treat", ["x"], np.ones(len(apart)))
    assert (table["overlap_matched"][0], table["ks_matched"][0]) == pytest.approx((0, 1))


def test_table_and_estimator_agree() -> None:
    frame, weights = units(3)
    table = balance_table(frame, "treat", ["x"], weights).iloc[0]
    sample = Sample(
        pd.DataFrame({"y": frame["x"], "treated": frame["treat"], "weight": weights, "cluster": frame.index}), ""
    )
    said = {t.name: t.estimate for t in estimate(sample).terms}
    for name in ("smd", "variance_ratio", "ks"):
        for when in ("unmatched", "matched"):
            assert said[f"{name}_{when}"] == pytest.approx(table[f"{name}_{when}"])


def test_the_frame_is_not_touched() -> None:
    frame, weights = units()
    before = frame.copy()
    balance_table(frame, "treat", ["x", "place"], weights)
    pd.testing.assert_frame_equal(frame, before)


@pytest.mark.parametrize(
    ("change", "weights", "message"),
    [
        (lambda f: f.assign(x=f["x"].where(f.index != "E003")), 1.0, "x is missing or infinite in 1 rows, first E003"),
        (lambda f: f.assign(place=f["place"].where(f.index != "E003")), 1.0, "place is missing or infinite in 1 rows"),
        (lambda f: f, -1.0, "at least 0; the least is -1"),
        (lambda f: f, 0.0, "no treated unit has a weight above 0"),
        (lambda f: f.assign(treat=1), 1.0, r"no untreated unit has a weight above 0 \(0 are there\)"),
    ],
)
def test_refuses_with_a_reason(change: Any, weights: float, message: str) -> None:
    frame, _ = units()
    with pytest.raises(Inapplicable, match=message):
        balance_table(change(frame), "treat", ["x", "place"], np.full(len(frame), weights))


def test_refuses_weights_of_another_length_and_unknown_denominators() -> None:
    frame, _ = units()
    with pytest.raises(Inapplicable, match="3 weights for 400 rows"):
        balance_table(frame, "treat", ["x"], np.ones(3))
    with pytest.raises(Inapplicable, match="'other' is not one of"):
        balance_table(frame, "treat", ["x"], np.ones(len(frame)), denominator="other")  # type: ignore[arg-type]
