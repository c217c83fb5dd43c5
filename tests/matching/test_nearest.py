"""Nearest-neighbour matching: MatchIt's pairs, its laws, and what it refuses."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from biglocal.matching import _distance, nearest
from biglocal.model import Inapplicable, Match
from reference_cases import case, data

LALONDE = ["age", "educ", "race", "married", "nodegree", "re74", "re75"]
CASES = {
    "match_lalonde_nn1": {"distance": "probability"},
    "match_lalonde_nn2": {"distance": "probability", "ratio": 2},
    "match_lalonde_nn1_caliper": {"distance": "probability", "caliper": 0.1},
    "match_lalonde_nn1_linear_caliper": {"caliper": 0.2},
    "match_lalonde_nn1_exact_race": {"distance": "probability", "exact": ["race", "married"]},
}


def distances(match: Match, scale: np.ndarray, treated: np.ndarray) -> np.ndarray:
    """Distance of each comparison unit to the treated one of its set."""
    rows = np.flatnonzero((match.sets >= 0) & ~treated)
    return np.abs(scale[rows] - scale[match.sets[rows]])


@pytest.mark.parametrize("name", CASES)
def test_agrees_with_matchit(name: str) -> None:
    """Score, numbers matched and total distance; pair labels only up to ties (identical covariate rows)."""
    expected = case(name)["results"]
    frame = data("lalonde.csv").reset_index(drop=True)
    treated = frame["treat"].to_numpy() == 1
    match = nearest.match(frame, treated="treat", covariates=LALONDE, **CASES[name])
    score = match.score if "linear" in name else 1 / (1 + np.exp(-match.score))
    np.testing.assert_allclose(score, expected["distance"], rtol=1e-6)
    assert (match.weights[treated] > 0).sum() == expected["n_matched_treated"]
    assert (match.weights[~treated] > 0).sum() == expected["n_matched_control"]
    assert distances(match, score, treated).sum() == pytest.approx(expected["total_ps_distance"], rel=1e-6)


def test_agrees_with_matchit_in_16_177_rows_with_ties() -> None:
    """NSW against CPS, 5:1, caliper, exact: who is matched, set by set, up to ties in the score."""
    expected = case("match_nswcps_nn5_caliper_exact")["results"]
    frame = data("nsw_cps.csv").reset_index(drop=True)
    frame["age2"] = frame["age"] ** 2
    covariates = ["age", "age2", "educ", "black", "hisp", "marr", "nodegree", "re74", "re75"]
    treated = frame["treat"].to_numpy() == 1
    match = nearest.match(
        frame, treated="treat", covariates=covariates, ratio=5, caliper=0.2, exact=["black"], distance="probability"
    )
    assert (match.weights[treated] > 0).sum() == expected["n_matched_treated"]
    assert (match.weights[~treated] > 0).sum() == expected["n_matched_control"]
    score = 1 / (1 + np.exp(-match.score))
    ours: dict[int, list[float]] = {}
    for row in np.flatnonzero((match.sets >= 0) & ~treated):
        ours.setdefault(int(match.sets[row]), []).append(score[row])
    pairs = expected["pairs"]
    for t, controls in zip(pairs["treated"], pairs["controls"], strict=True):
        theirs = sorted(score[int(c) - 1] for c in controls)
        assert sorted(ours.get(int(t) - 1, [])) == pytest.approx(theirs, rel=1e-7), f"set of treated {t}"


def units(seed: int, n: int = 300) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "a": rng.normal(size=n).round(1),
            "b": rng.normal(size=n),
            "region": rng.choice(["north", "south"], size=n),
        },
        index=pd.Index([f"E{i:05d}" for i in range(n)], name="lsoa11"),
    )
    frame["treated"] = (rng.uniform(size=n) < 1 / (1 + np.exp(2 - frame["a"]))).astype(int)
    return frame


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_order_of_rows_changes_no_match(seed: int) -> None:
    frame = units(seed)
    options = {"treated": "treated", "covariates": ["a", "b"], "ratio": 3, "caliper": 0.5, "exact": ["region"]}
    shuffled = frame.sample(frac=1, random_state=seed)
    one, two = nearest.match(frame, **options), nearest.match(shuffled, **options)
    to_id = [
        dict(
            zip(
                f.index, zip(m.weights, np.where(m.sets >= 0, f.index.to_numpy()[m.sets], ""), strict=True), strict=True
            )
        )
        for f, m in ((frame, one), (shuffled, two))
    ]
    assert to_id[0] == to_id[1]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_every_choice_is_what_a_plain_search_finds(seed: int) -> None:
    """The linked-list search against the obvious one: look at every free unit, take the nearest."""
    frame = units(seed, n=120)
    match = nearest.match(frame, treated="treated", covariates=["a"], ratio=2, caliper=0.3)
    t = frame["treated"].to_numpy() == 1
    score, width = match.score, 0.3 * np.std(match.score, ddof=1)
    free, expected = set(np.flatnonzero(~t)), np.full(len(frame), -1)
    queue = sorted(np.flatnonzero(t), key=lambda i: (-score[i], i))
    for _ in range(2):
        again = []
        for i in queue:
            near = min(free, key=lambda j: (abs(score[j] - score[i]), j), default=None)
            if near is not None and abs(score[near] - score[i]) <= width:
                expected[near] = i
                free.remove(near)
                again.append(i)
        queue = again
    np.testing.assert_array_equal(np.where(t, -1, match.sets), expected)


def test_laws_of_weights_and_sets() -> None:
    frame = units(3, 600)
    match = nearest.match(frame, treated="treated", covariates=["a", "b"], ratio=4, caliper=0.2, exact=["region"])
    t = frame["treated"].to_numpy() == 1
    for i in np.flatnonzero(t & (match.weights > 0)):
        members = np.flatnonzero((match.sets == i) & ~t)
        assert 1 <= len(members) <= 4
        assert match.weights[members].sum() == pytest.approx(1)
        assert set(frame["region"].iloc[members]) == {frame["region"].iloc[i]}
    assert ((match.weights > 0) == (match.sets >= 0)).all()


def test_scale_of_a_covariate_changes_nothing() -> None:
    frame = units(5)
    other = frame.assign(b=frame["b"] * 1000 + 7)
    one = nearest.match(frame, treated="treated", covariates=["a", "b"], ratio=2)
    two = nearest.match(other, treated="treated", covariates=["a", "b"], ratio=2)
    np.testing.assert_array_equal(one.sets, two.sets)


def test_score_agrees_with_statsmodels() -> None:
    import statsmodels.api as sm

    frame = units(7, 1000)
    x = _distance.design(frame, ["a", "b", "region"])
    t = frame["treated"].to_numpy() == 1
    fit = sm.Logit(t.astype(float), sm.add_constant(x)).fit(disp=0, method="newton", tol=1e-12)
    np.testing.assert_allclose(_distance.propensity(x, t), sm.add_constant(x) @ fit.params, rtol=1e-8)


def test_frame_is_not_touched() -> None:
    frame = units(1)
    before = frame.copy()
    nearest.match(frame, treated="treated", covariates=["a"], exact=["region"])
    pd.testing.assert_frame_equal(frame, before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.assign(a=f["a"].where(f.index != "E00003")), "covariate a is missing in 1 rows, first E00003"),
        (lambda f: f.assign(a=f["a"].where(f.index != "E00003", np.inf)), "covariate a is infinite in row E00003"),
        (lambda f: f.assign(a=1.0), "covariate a has no variance"),
        (lambda f: f.assign(b=2 * f["a"] + 1), "collinear"),
        (lambda f: f.assign(treated=0), "0 treated and 300 untreated"),
        (lambda f: f.assign(treated=1), "300 treated and 0 untreated"),
        (lambda f: f.assign(treated=(f["b"] > 1).astype(int)), "separates"),
        (lambda f: f.set_axis(["x"] * len(f)), "index has duplicates"),
    ],
)
def test_refuses_with_a_reason(change, message: str) -> None:
    with pytest.raises(Inapplicable, match=message):
        nearest.match(change(units(2)), treated="treated", covariates=["a", "b"])


@pytest.mark.parametrize("order", ["largest", "closest", "data"])
def test_looking_within_the_caliper_alone_finds_what_looking_everywhere_does(
    order: nearest.Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One treated unit at a time, and all together, where the caliper's window is the whole pool."""
    frame = units(5, n=900)
    found = []
    for together in (1, 32, 10_000):
        monkeypatch.setattr(nearest, "TOGETHER", together)
        options = {"ratio": 3, "caliper": 0.1, "mahvars": ["a", "b"], "order": order}
        found.append(nearest.match(frame, treated="treated", covariates=["a", "b"], **options))
    assert (found[0].weights > 0).sum() > 300
    for other in found[1:]:
        np.testing.assert_array_equal(found[0].sets, other.sets)
