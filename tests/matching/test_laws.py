"""What must hold of every matching method that is registered, whatever its numbers."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from biglocal.matching import _distance, _units, entropy, full, method, nearest, weighting
from biglocal.model import Inapplicable, Match
from biglocal.study import modules

METHODS: dict[str, list[dict[str, Any]]] = {
    "pool": [{}],
    "benchmark": [{}],
    "nearest": [
        {"ratio": 2, "caliper": 0.5, "exact": ["region"]},
        {"ratio": 2, "replace": True},
        {"order": "smallest", "distance": "probit"},
        {"order": "data", "penalty": 5.0},
        {"order": "closest", "ratio": 2},
        {"order": "farthest", "ratio": 2},
        {"distance": "mahalanobis", "ratio": 2},
        {"distance": "mahalanobis", "replace": True, "exact": ["region"]},
        {"distance": "robust_mahalanobis"},
        {"distance": "scaled_euclidean", "order": "closest"},
        {"mahvars": ["a", "b"], "caliper": 0.5},
        {"anti_exact": ["district"], "calipers": {"b": 0.8}},
    ],
    "optimal": [
        {},
        {"ratio": 2, "caliper": 0.3, "exact": ["region"]},
        {"distance": "mahalanobis", "anti_exact": ["district"]},
    ],
    "full": [{}, {"estimand": "ATE", "distance": "mahalanobis"}, {"caliper": 0.1, "exact": ["region"]}],
    "exact": [{"covariates": ["region", "district"]}, {"covariates": ["region"], "estimand": "ATE"}],
    "coarsened_exact": [{}, {"cutpoints": {"a": [0.0], "b": 3}, "estimand": "ATE", "exact": ["region"]}],
    "subclass": [{}, {"classes": 4, "estimand": "ATE"}, {"exact": ["region"], "classes": 3}],
    "weighting": [{}, {"estimand": "ATE", "trim": 0.05}, {"estimand": "ATO", "exact": ["region"]}],
    "entropy": [{}, {"estimand": "ATE"}, {"moments": 2}, {"exact": ["region"]}],
}
SPECIFICATIONS = [(name, options) for name, several in METHODS.items() for options in several]


def specifications(wanted: Callable[[str, dict[str, Any]], bool] = lambda _name, _options: True) -> list[Any]:
    return [
        pytest.param(name, options, id=f"{name}-{'-'.join(map(str, options.values())) or 'plain'}")
        for name, options in SPECIFICATIONS
        if wanted(name, options)
    ]


def units(seed: int, n: int = 200) -> pd.DataFrame:
    """Rounded covariates, so that ties are many."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "a": rng.normal(size=n).round(1),
            "b": rng.normal(size=n).round(1),
            "c": rng.integers(0, 2, size=n),
            "region": rng.choice(["north", "south"], size=n),
            "district": rng.integers(0, 5, size=n),
        },
        index=pd.Index([f"E{i:05d}" for i in range(n)], name="lsoa11"),
    )
    frame["treated"] = (rng.uniform(size=n) < 1 / (1 + np.exp(1.6 - 0.7 * frame["a"]))).astype(int)
    return frame


def run(name: str, frame: pd.DataFrame, options: dict[str, Any]) -> Match:
    return method(name)(frame, **{"treated": "treated", "covariates": ["a", "b", "c"], **options})


def by_name(frame: pd.DataFrame, match: Match) -> pd.DataFrame:
    index = frame.index.to_numpy(dtype=object)
    sets = np.where(match.sets >= 0, index[match.sets], "")
    return pd.DataFrame({"w": match.weights, "sets": sets, "score": match.score}, index=frame.index).sort_index()


def test_every_method_is_under_a_law() -> None:
    assert set(METHODS) == set(modules("matching"))


@pytest.mark.parametrize(("name", "options"), specifications())
def test_order_of_rows_changes_nothing(name: str, options: dict[str, Any]) -> None:
    frame = units(11)
    shuffled = frame.sample(frac=1, random_state=3)
    one, two = by_name(frame, run(name, frame, options)), by_name(shuffled, run(name, shuffled, options))
    pd.testing.assert_frame_equal(one, two, check_exact=True)


@pytest.mark.parametrize(("name", "options"), specifications())
def test_the_frame_is_not_touched(name: str, options: dict[str, Any]) -> None:
    frame = units(12)
    before = frame.copy()
    run(name, frame, options)
    pd.testing.assert_frame_equal(frame, before)


@pytest.mark.parametrize("factor", [1000.0, -0.3])
@pytest.mark.parametrize(("name", "options"), specifications(lambda _, options: "cutpoints" not in options))
def test_units_of_measurement_change_nothing(name: str, options: dict[str, Any], factor: float) -> None:
    """A constant added to a covariate, or another scale. Weights that solve equations move in the last digits."""
    if name == "coarsened_exact":
        factor = abs(factor)  # bins hold their lower end, so a reversed scale parts values elsewhere
    frame = units(13)
    other = frame.assign(a=factor * frame["a"] + 7)
    one, two = run(name, frame, options), run(name, other, options)
    np.testing.assert_allclose(one.weights, two.weights, rtol=1e-7, atol=1e-12)
    np.testing.assert_array_equal(one.sets, two.sets)


def mahalanobis(_: str, options: dict[str, Any]) -> bool:
    return options.get("distance") == "mahalanobis" or "mahvars" in options


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("name", "options"), specifications(mahalanobis))
def test_affine_maps_change_no_mahalanobis_match(name: str, options: dict[str, Any], seed: int) -> None:
    """Any invertible linear map of the covariates, not only of their units."""
    frame = units(20 + seed)
    other = frame.assign(a=frame["a"] + 2 * frame["b"] - 4, b=3 * frame["b"] - frame["a"])
    np.testing.assert_array_equal(run(name, frame, options).sets, run(name, other, options).sets)


@pytest.mark.parametrize(("name", "options"), specifications())
def test_weights_and_sets(name: str, options: dict[str, Any]) -> None:
    frame = units(14)
    t = frame["treated"].to_numpy() == 1
    match = run(name, frame, options)
    w, sets = match.weights, match.sets
    assert w.shape == sets.shape == match.score.shape == t.shape
    assert (w >= 0).all()
    if name != "pool" and options.get("estimand", "ATT") == "ATT":
        assert set(w[t]) <= {0.0, 1.0}
        if name not in ("weighting", "benchmark"):
            assert w[~t].sum() == pytest.approx(w[t].sum())
    assert (w[sets >= 0] > 0).all()
    if (sets >= 0).any():
        assert t[sets[sets >= 0]].all(), "a set is named after a treated unit"
        np.testing.assert_array_equal(sets >= 0, w > 0)
        for s in np.unique(sets[sets >= 0]):
            assert sets[s] == s
            members = np.flatnonzero(sets == s)
            assert t[members].any()
            assert not t[members].all()
            if "exact" in options:
                assert frame["region"].iloc[members].nunique() == 1


REFUSED = [
    (lambda f: f.assign(treated=0), "0 treated and 200 untreated"),
    (lambda f: f.assign(treated=1), "200 treated and 0 untreated"),
    (lambda f: f.assign(treated=f["treated"].where(f.index != "E00003", 2)), "must be 0 or 1; it is 2 in row E00003"),
    (lambda f: f.set_axis(["x"] * len(f)), "index has duplicates"),
    (lambda f: f.assign(a=f["a"].where(f.index != "E00003")), "covariate a is missing in 1 rows, first E00003"),
]
REFUSED_BY_NUMBERS = [
    (lambda f: f.assign(a=f["a"].where(f.index != "E00003", np.inf)), "covariate a is infinite in row E00003"),
    (lambda f: f.assign(a=1.0), "covariate a has no variance"),
]


@pytest.mark.parametrize("name", [n for n in METHODS if n != "pool"])
@pytest.mark.parametrize(("change", "message"), REFUSED)
def test_bad_input_is_refused_with_a_reason(name: str, change, message: str) -> None:
    with pytest.raises(Inapplicable, match=message):
        run(name, change(units(2)), {})


@pytest.mark.parametrize("name", [n for n in METHODS if n not in ("pool", "exact")])
@pytest.mark.parametrize(("change", "message"), REFUSED_BY_NUMBERS)
def test_numbers_that_cannot_be_matched_on_are_refused(name: str, change, message: str) -> None:
    with pytest.raises(Inapplicable, match=message):
        run(name, change(units(2)), {})


def separated(f: pd.DataFrame) -> pd.DataFrame:
    return f.assign(treated=(f["b"] > 1).astype(int))


@pytest.mark.parametrize(
    ("name", "change", "options", "message"),
    [
        ("nearest", separated, {}, "separates"),
        ("full", separated, {"distance": "probit"}, "separates"),
        ("weighting", separated, {}, "separates"),
        ("weighting", separated, {"penalty": 0.001}, "do not overlap"),
        ("entropy", separated, {}, "do not overlap enough"),
        ("nearest", lambda f: f.assign(b=2 * f["a"]), {}, "collinear"),
        ("nearest", lambda f: f.assign(b=2 * f["a"]), {"distance": "mahalanobis"}, "collinear"),
        ("nearest", lambda f: f.assign(treated=(f["a"] + f["b"] > -1.3).astype(int)), {"distance": "mahalanobis"},
         "so not every treated one can have its own"),
        ("optimal", lambda f: f.assign(treated=1 - f["treated"]), {}, "so not every treated one can have its own"),
        ("nearest", lambda f: f.assign(region=f["region"].where(f.index != "E00003")), {"exact": ["region"]},
         "region is missing in 1 rows, first E00003"),
        ("nearest", lambda f: f, {"calipers": {"b": 0.0, "a": 0.0}, "anti_exact": ["c", "region", "district"],
         "exact": ["region"]}, "no overlap"),
        ("exact", lambda f: f.assign(x=range(len(f))), {"covariates": ["x"]}, "no overlap"),
        ("nearest", lambda f: f, {"caliper": -1.0}, "caliper of -1"),
        ("nearest", lambda f: f, {"ratio": 0}, "ratio of 0"),
        ("nearest", lambda f: f, {"distance": "manhattan"}, "'manhattan' is not one of logit, probability, probit"),
        ("nearest", lambda f: f, {"order": "random"}, "'random' is not one of largest"),
        ("nearest", lambda f: f, {"distance": "mahalanobis", "caliper": 0.2}, "has no score, so no caliper"),
        ("nearest", lambda f: f, {"distance": "mahalanobis", "order": "largest"}, "needs a propensity score"),
        ("nearest", lambda f: f, {"score": "a"}, "a is not a propensity score"),
        ("nearest", lambda f: f, {"covariates": []}, "no covariates"),
        ("entropy", lambda f: f, {"ratio": 2}, "has no ratio"),
        ("subclass", lambda f: f, {"caliper": 0.2}, "has no caliper"),
        ("subclass", lambda f: f, {"classes": 1}, "at least two"),
        ("weighting", lambda f: f, {"trim": 0.6}, "trim is 0.6"),
        ("weighting", lambda f: f, {"estimand": "LATE"}, "not one of ATT, ATE, ATO"),
        ("full", lambda f: f, {"estimand": "ATO"}, "not one of ATT, ATE"),
        ("coarsened_exact", lambda f: f, {"cutpoints": {"region": 3}}, "cutpoints for region"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(name: str, change, options: dict[str, Any], message: str) -> None:
    with pytest.raises(Inapplicable, match=message):
        run(name, change(units(2)), options)


@pytest.mark.parametrize("name", ["nearest", "optimal", "full"])
def test_a_treated_unit_alone_in_its_caliper_stays_in_sight(name: str) -> None:
    frame = units(15)
    lonely = frame.index[frame["treated"] == 1][0]
    frame.loc[lonely, "b"] = 40.0
    match = run(name, frame, {"calipers": {"b": 1.0}})
    row = frame.index.get_loc(lonely)
    assert match.weights[row] == 0
    assert match.sets[row] == -1
    assert (match.weights[frame["treated"] == 1] > 0).sum() > 1


def test_anti_exact_and_calipers_hold_pair_by_pair() -> None:
    frame = units(16)
    pairs = nearest.pairs(
        frame, treated="treated", covariates=["a", "b"], ratio=3, replace=True,
        anti_exact=["district"], calipers={"a": 0.5},
    )  # fmt: skip
    one, other = frame.loc[pairs["treated"]], frame.loc[pairs["control"]]
    assert (one["district"].to_numpy() != other["district"].to_numpy()).all()
    assert np.abs(one["a"].to_numpy() - other["a"].to_numpy()).max() <= 0.5 + 1e-9


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["largest", "smallest", "data", "closest", "farthest"]), st.booleans())
def test_both_searches_find_what_a_plain_search_finds(seed: int, order: Any, on_a_line: bool) -> None:
    """Against the obvious loop over all free units, in either engine (a useless caliper turns the fast one off)."""
    frame = units(seed, n=90)
    options = {} if on_a_line else {"calipers": {"b": 1000.0}}
    match = run("nearest", frame, {"ratio": 2, "caliper": 0.4, "order": order, "covariates": ["a"], **options})
    t, score = frame["treated"].to_numpy() == 1, match.score
    width = 0.4 * np.std(score, ddof=1)
    free, sets = set(np.flatnonzero(~t)), np.full(len(t), -1)

    def nearest_free(i: int) -> tuple[float, int]:
        return min(((abs(score[j] - score[i]), j) for j in free), default=(np.inf, -1))

    rank = {"largest": -score, "smallest": score}.get(order, 0 * score)
    queue = sorted(np.flatnonzero(t), key=lambda i: (rank[i], i))
    for _ in range(2):
        again, left = [], list(queue)
        if order == "farthest":
            first = {i: nearest_free(i)[0] for i in left}
            left = sorted((i for i in left if first[i] <= width), key=lambda i: (-first[i], i))
        while left:
            i = min(left, key=lambda k: (nearest_free(k)[0], k)) if order == "closest" else left[0]
            left.remove(i)
            d, j = nearest_free(i)
            if d <= width:
                sets[j] = i
                free.remove(j)
                again.append(i)
        queue = [i for i in queue if i in again]
    np.testing.assert_array_equal(np.where(t, -1, match.sets), sets)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_with_replacement_both_searches_are_a_sort(seed: int) -> None:
    frame = units(seed, n=90)
    t = frame["treated"].to_numpy() == 1
    score = run("nearest", frame, {}).score
    expected = [
        (i, j) for i in np.flatnonzero(t) for _, j in sorted((abs(score[j] - score[i]), j) for j in np.flatnonzero(~t))[:3]
    ]  # fmt: skip
    for options in ({}, {"calipers": {"b": 1000.0}}):
        pairs = nearest.pairs(frame, treated="treated", covariates=["a", "b", "c"], ratio=3, replace=True, **options)
        rows = [
            (frame.index.get_loc(i), frame.index.get_loc(j))
            for i, j in zip(pairs["treated"], pairs["control"], strict=True)
        ]
        assert rows == expected


def test_a_short_list_that_runs_out_is_written_again() -> None:
    """All treated units at one point want the same 64 neighbours first."""
    rng = np.random.default_rng(5)
    frame = pd.DataFrame({"x": rng.normal(size=900), "y": rng.normal(size=900), "treated": 0})
    frame.loc[:149, ["x", "y"]] += 2
    frame.loc[:149, "treated"] = 1
    match = method("nearest")(frame, treated="treated", covariates=["x", "y"], distance="mahalanobis", ratio=2)
    where = _distance.space(_units.arrange(frame, "treated"), ["x", "y"], distance="mahalanobis")
    d = where.distances(np.arange(150), np.arange(150, 900))
    sets = np.full(900, -1)
    for _, i in itertools.product(range(2), range(150)):
        j = int(np.argmin(d[i]))
        d[:, j] = np.inf
        sets[150 + j] = i
    np.testing.assert_array_equal(match.sets[150:], sets[150:])


@pytest.mark.parametrize("ratio", [1, 2])
@pytest.mark.parametrize("caliper", [None, 0.05, 0.3])
def test_optimal_is_what_a_linear_programme_finds(ratio: int, caliper: float | None) -> None:
    """Most treated units, then most pairs, then the least total, by three programmes."""
    from scipy.optimize import linprog

    frame = units(30, n=80)
    t = frame["treated"].to_numpy() == 1
    match = run("optimal", frame, {"ratio": ratio, "caliper": caliper})
    where = _distance.space(_units.arrange(frame, "treated"), ["a", "b", "c"], caliper=caliper)
    rows, columns = np.flatnonzero(t), np.flatnonzero(~t)
    d = where.distances(rows, columns)
    i, j = np.nonzero(np.isfinite(d))
    used1, used0 = (
        (i[None, :] == np.arange(len(rows))[:, None]) * 1.0,
        (j[None, :] == np.arange(len(columns))[:, None]) * 1.0,
    )
    limits, at_most = np.vstack([used1, used0]), np.append(np.full(len(rows), ratio), np.ones(len(columns)))
    one_each = linprog(-np.ones(len(i)), limits, np.append(np.ones(len(rows)), np.ones(len(columns))))
    most = linprog(-np.ones(len(i)), limits, at_most)
    treated = (match.weights[t] > 0).sum()
    assert treated == round(-one_each.fun)
    pairs = np.flatnonzero((match.sets >= 0) & ~t)
    assert len(pairs) == round(-most.fun)
    least = linprog(d[i, j], limits, at_most, A_eq=np.ones((1, len(i))), b_eq=[len(pairs)])
    total = np.abs(match.score[pairs] - match.score[match.sets[pairs]]).sum()
    if treated == len(rows) or ratio == 1:  # else the programme may leave a treated unit out for a nearer second one
        assert total == pytest.approx(least.fun, rel=1e-9)
    assert total >= least.fun - 1e-9


@pytest.mark.parametrize("distance", ["logit", "mahalanobis"])
@pytest.mark.parametrize("calipers", [None, {"b": 0.6}])
def test_full_is_what_a_linear_programme_finds(distance: Any, calipers: dict[str, float] | None) -> None:
    """The cheapest edge cover; its constraints are totally unimodular, so the programme's optimum is whole."""
    from scipy.optimize import linprog

    frame = units(31, n=120)
    where = _distance.space(_units.arrange(frame, "treated"), ["a", "b"], distance=distance, calipers=calipers)
    t = frame["treated"].to_numpy() == 1
    rows, columns = np.flatnonzero(t), np.flatnonzero(~t)
    d = where.distances(rows, columns)
    i, j = np.nonzero(np.isfinite(d))
    cover = np.vstack([i == k for k in np.unique(i)] + [j == k for k in np.unique(j)]) * 1.0
    least = linprog(d[i, j], -cover, -np.ones(len(cover)))
    one, other = full.cover(where, rows, columns)
    assert d[one, other].sum() == pytest.approx(least.fun, rel=1e-9)
    assert set(one) == set(i)
    assert set(other) == set(j)
    assert (np.minimum(np.bincount(one)[one], np.bincount(other)[other]) == 1).all(), "stars"


def test_full_makes_even_sets_of_units_that_are_alike() -> None:
    """200 units in four cells: as many sets as the smaller group of each, and weights that differ by little."""
    frame = units(39).assign(a=lambda f: (f["a"] > 0) * 1.0)
    match = run("full", frame, {"covariates": ["a", "c"], "distance": "mahalanobis"})
    t = frame["treated"].to_numpy() == 1
    for cell in frame.groupby(["a", "c"]).indices.values():
        one, other = t[cell].sum(), (~t[cell]).sum()
        assert len(set(match.sets[cell])) == min(one, other) > 1
        size = np.unique(match.sets[cell], return_counts=True)[1]
        assert size.max() - size.min() <= 2


def test_entropy_balancing_balances() -> None:
    frame = units(32)
    t = frame["treated"].to_numpy() == 1
    x = frame[["a", "b", "c"]].to_numpy(dtype=float)
    for estimand in ("ATT", "ATE"):
        w = run("entropy", frame, {"estimand": estimand, "moments": 2}).weights
        target = x[t] if estimand == "ATT" else x
        for group in (t, ~t):
            for power in (1, 2):
                mean = np.average(x[group] ** power, axis=0, weights=w[group])
                np.testing.assert_allclose(mean, (target**power).mean(axis=0), atol=1e-8)
    with pytest.raises(Inapplicable, match="nearest miss a covariate"):
        entropy.match(frame.assign(a=frame["a"] + 9 * frame["treated"]), treated="treated", covariates=["a"])


def test_overlap_weights_balance_exactly_and_trimming_drops_the_tails() -> None:
    frame = units(33)
    t = frame["treated"].to_numpy() == 1
    w = run("weighting", frame, {"estimand": "ATO"}).weights
    for c in ("a", "b", "c"):
        x = frame[c].to_numpy(dtype=float)
        assert np.average(x[t], weights=w[t]) == pytest.approx(np.average(x[~t], weights=w[~t]), abs=1e-8)
    plain, cut = (
        weighting.match(frame, treated="treated", covariates=["a"], estimand="ATE", trim=c) for c in (0.0, 0.1)
    )
    p = 1 / (1 + np.exp(-plain.score))
    np.testing.assert_array_equal(cut.weights == 0, (p < 0.1) | (p > 0.9))
    assert cut.weights[cut.weights > 0] == pytest.approx(plain.weights[cut.weights > 0])


def test_penalised_score_is_scikit_learns() -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    frame = units(34)
    x, t = _distance.design(frame, ["a", "b", "region"]), frame["treated"].to_numpy() == 1
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    fit = linear.LogisticRegression(C=1 / 3, tol=1e-10, max_iter=1000).fit(z, t)
    np.testing.assert_allclose(_distance.propensity(x, t, penalty=3.0), fit.decision_function(z), atol=1e-6)


def test_probit_score_agrees_with_statsmodels() -> None:
    import statsmodels.api as sm

    frame = units(35)
    x, t = _distance.design(frame, ["a", "b", "region"]), frame["treated"].to_numpy() == 1
    fit = sm.Probit(t.astype(float), sm.add_constant(x)).fit(disp=0, method="newton", tol=1e-12)
    np.testing.assert_allclose(_distance.propensity(x, t, link="probit"), sm.add_constant(x) @ fit.params, rtol=1e-7)


def test_a_score_from_elsewhere_is_used_as_it_is() -> None:
    frame = units(36)
    own = run("nearest", frame, {"ratio": 2})
    given_ = run("nearest", frame.assign(p=1 / (1 + np.exp(-own.score))), {"ratio": 2, "score": "p"})
    np.testing.assert_array_equal(own.sets, given_.sets)


def test_treatment_may_be_true_and_false_and_the_index_numbers() -> None:
    frame = units(37)
    one = run("nearest", frame, {})
    two = run("nearest", frame.assign(treated=frame["treated"] == 1).reset_index(drop=True), {})
    np.testing.assert_array_equal(one.sets, two.sets)


def test_optimal_in_blocks_is_the_optimum_of_each() -> None:
    frame = units(38)
    options = {"distance": "scaled_euclidean", "covariates": ["a"]}

    def total(f: pd.DataFrame, match: Match) -> float:
        a = f["a"].to_numpy()
        return float(np.abs(a - a[match.sets])[match.sets >= 0].sum())

    parts = [frame[frame["region"] == region] for region in ("north", "south")]
    apart = sum(total(part, run("optimal", part, options)) for part in parts)
    assert total(frame, run("optimal", frame, {**options, "exact": ["region"]})) == pytest.approx(apart)
