"""Every matching and weighting case of the R reference: MatchIt 4.7, optmatch 0.10, WeightIt 1.3.

LaLonde has rows with the same covariates, so that ties are many and pairs are held by their distances: each treated
unit's choices are as near as in R, the numbers are equal, and where nobody is used twice so is the set of controls.
"""

from __future__ import annotations

from itertools import chain
from typing import Any

import numpy as np
import pandas as pd
import pytest

import reference_cases
from biglocal.matching import (
    _distance,
    _units,
    coarsened_exact,
    entropy,
    exact,
    full,
    nearest,
    optimal,
    subclass,
    weighting,
)
from reference_cases import case, data

LALONDE = ["age", "educ", "race", "married", "nodegree", "re74", "re75"]
AS_PROBABILITY = {"distance": "probability"}  # MatchIt's default scale

NEAREST: dict[str, dict[str, Any]] = {
    "match_lalonde_nn1": AS_PROBABILITY,
    "match_lalonde_nn1_data": {**AS_PROBABILITY, "order": "data"},
    "match_lalonde_nn1_closest": {**AS_PROBABILITY, "order": "closest"},
    "match_lalonde_nn2": {**AS_PROBABILITY, "ratio": 2},
    "match_lalonde_nn1_replace": {**AS_PROBABILITY, "replace": True},
    "match_lalonde_nn3_replace_caliper": {**AS_PROBABILITY, "replace": True, "ratio": 3, "caliper": 0.2},
    "match_lalonde_nn1_caliper": {**AS_PROBABILITY, "caliper": 0.1},
    "match_lalonde_nn1_linear_caliper": {"distance": "logit", "caliper": 0.2},
    "match_lalonde_nn1_exact_race": {**AS_PROBABILITY, "exact": ["race", "married"]},
    "match_lalonde_nn1_probit": {"distance": "probit"},
    "match_lalonde_mahal": {"distance": "mahalanobis"},
    "match_lalonde_mahal_replace": {"distance": "mahalanobis", "replace": True},
    "match_lalonde_rmahal_replace": {"distance": "robust_mahalanobis", "replace": True},
    "match_lalonde_seuclid_replace": {"distance": "scaled_euclidean", "replace": True},
    "match_lalonde_mahvars_caliper": {
        **AS_PROBABILITY, "mahvars": ["age", "educ", "re74", "re75"], "caliper": 0.25, "replace": True,
    },
    "match_nswcps_nn5_caliper_exact": {**AS_PROBABILITY, "ratio": 5, "caliper": 0.2, "exact": ["black"]},
}  # fmt: skip
CUTPOINTS = {"age": [20, 25, 30, 35, 40], "educ": [8, 10, 12], "re74": [1, 5000, 10000], "re75": [1, 2500, 5000, 10000]}
STRATA: dict[str, tuple[Any, dict[str, Any]]] = {
    "match_lalonde_exact": (exact, {}),
    "match_lalonde_cem": (coarsened_exact, {"cutpoints": CUTPOINTS}),
    "match_lalonde_cem_default": (coarsened_exact, {}),
    "match_lalonde_subclass6": (subclass, AS_PROBABILITY),
    "match_lalonde_subclass5_ate": (subclass, {**AS_PROBABILITY, "classes": 5, "estimand": "ATE"}),
}
OPTIMAL = ("match_lalonde_optimal",)
FULL = {"match_lalonde_full": "ATT", "match_lalonde_full_ate": "ATE"}
WEIGHTS: dict[str, tuple[Any, dict[str, Any], float]] = {
    "ipw_lalonde_att": (weighting, {"estimand": "ATT"}, 1e-6),
    "ipw_lalonde_ate": (weighting, {"estimand": "ATE"}, 1e-6),
    "ipw_lalonde_ato": (weighting, {"estimand": "ATO"}, 1e-6),
    # WeightIt stops with gaps of 1e-6 standard deviations, so its weights are good to 1e-3 (the case's note)
    "ebal_lalonde_att": (entropy, {"estimand": "ATT"}, 1e-3),
    "ebal_lalonde_ate": (entropy, {"estimand": "ATE"}, 1e-3),
    "ebal2_lalonde_att": (entropy, {"estimand": "ATT", "moments": 2}, 1e-3),
}
OUT_OF_SCOPE = {"cbps_lalonde_att": "the same balance as entropy balancing for the ATT, by another route"}


def lalonde() -> tuple[pd.DataFrame, np.ndarray]:
    frame = data("lalonde.csv").reset_index(drop=True)
    return frame, frame["treat"].to_numpy() == 1


def test_every_case_is_here_or_out_of_scope() -> None:
    case("match_lalonde_nn1")  # skips where there is no reference
    wanted = {c for c in reference_cases._cases() if c.startswith(("match_", "ipw_", "ebal", "cbps"))}
    assert wanted == {*NEAREST, *STRATA, *OPTIMAL, *FULL, *WEIGHTS, *OUT_OF_SCOPE}


def within(weights: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Weights as shares of their group: packages differ in the factor."""
    return np.where(t, weights / weights[t].sum(), weights / weights[~t].sum())


@pytest.mark.parametrize("name", NEAREST)
def test_nearest(name: str) -> None:
    expected, options = case(name)["results"], NEAREST[name]
    if "nswcps" in name:
        frame = data("nsw_cps.csv").reset_index(drop=True)
        frame["age2"] = frame["age"] ** 2
        covariates = ["age", "age2", "educ", "black", "hisp", "marr", "nodegree", "re74", "re75"]
        place = {str(i + 1): i for i in range(len(frame))}
    else:
        frame = data("lalonde.csv").reset_index(drop=True)
        covariates = LALONDE
        place = dict(zip(frame["id"], range(len(frame)), strict=True))
    t = frame["treat"].to_numpy() == 1
    match = nearest.match(frame, treated="treat", covariates=covariates, **options)
    pairs = nearest.pairs(frame, treated="treat", covariates=covariates, **options)
    metric = {k: v for k, v in options.items() if k in ("distance", "mahvars", "caliper")}
    where = _distance.space(_units.arrange(frame, "treat"), covariates, **metric)

    if isinstance(expected.get("distance"), list):
        score = match.score if "linear" in name else 1 / (1 + np.exp(-match.score))
        np.testing.assert_allclose(score, expected["distance"], rtol=1e-6, atol=1e-6)
    if "caliper_width" in expected and "mahvars" not in options:
        assert where.width == pytest.approx(expected["caliper_width"][0], rel=1e-6)
    assert (match.weights[t] > 0).sum() == expected["n_matched_treated"]

    theirs, ours = {}, {int(i): sorted(g["distance"]) for i, g in pairs.groupby("treated")}
    used: set[int] = set()
    for unit, controls in zip(expected["pairs"]["treated"], expected["pairs"]["controls"], strict=True):
        rows = np.array([place[c] for c in controls], dtype=int)
        used |= set(rows.tolist())
        if len(rows):
            theirs[place[unit]] = sorted(where.distances(np.array([place[unit]]), rows)[0])
    total = sum(map(sum, theirs.values()))
    assert pairs["distance"].sum() == pytest.approx(total, rel=1e-8)
    if "total_ps_distance" in expected and "mahvars" not in options:
        rel = 1e-6 if "probit" in name else 1e-7  # R's scores: glm stops at 1e-8 of the deviance, ours at 1e-10 a step
        assert total == pytest.approx(expected["total_ps_distance"], rel=rel)
    if options.get("order") == "closest":  # treated units with the same score may swap
        assert sorted(chain(*ours.values())) == pytest.approx(sorted(chain(*theirs.values())), rel=1e-7, abs=1e-9)
    else:
        assert ours.keys() == theirs.keys()
        for unit, near in theirs.items():
            assert ours[unit] == pytest.approx(near, rel=1e-7, abs=1e-9), unit
    mine = set(np.flatnonzero((match.weights > 0) & ~t).tolist())
    if options.get("replace"):  # a control may be swapped for one as near
        assert abs(len(mine) - len(used)) <= 3
    else:
        assert len(mine) == expected["n_matched_control"] == len(used)
        # the same controls, but for two equally near ones that changed places in each of these
        tied = {"match_lalonde_mahal", "match_nswcps_nn5_caliper_exact"}
        assert len(mine ^ used) == (2 if name in tied else 0)
        assert sorted(match.weights[~t & (match.weights > 0)]) == pytest.approx(
            sorted(np.concatenate([np.full(len(d), 1 / len(d)) for d in theirs.values()]))
        )


@pytest.mark.parametrize("name", STRATA)
def test_strata(name: str) -> None:
    """Weights, and the same partition of the units."""
    expected, (method, options) = case(name)["results"], STRATA[name]
    frame, t = lalonde()
    covariates = ["race", "married", "nodegree"] if name == "match_lalonde_exact" else LALONDE
    match = method.match(frame, treated="treat", covariates=covariates, **options)
    np.testing.assert_allclose(within(match.weights, t), within(np.array(expected["weights"]), t), rtol=1e-10)
    theirs = pd.factorize(pd.Series(expected["subclass"], dtype=object))[0]  # -1 for none
    assert len(pd.DataFrame({"ours": match.sets, "theirs": theirs}).drop_duplicates()) == len(set(theirs))
    assert len(set(match.sets[match.sets >= 0])) == expected["n_subclass"]


@pytest.mark.parametrize("name", OPTIMAL)
def test_optimal(name: str) -> None:
    """The total distance, within 1e-3 of optmatch's and no larger.

    The case's effect is out of reach of an optimal match: optmatch rounds distances (tol 1e-3), and its match is
    worse by 9e-4 than the optimum, whose effect is that of the nearest-neighbour match (894 or, by ties, 908).
    """
    expected = case(name)["results"]
    frame, t = lalonde()
    match = optimal.match(frame, treated="treat", covariates=LALONDE, **AS_PROBABILITY)
    score = 1 / (1 + np.exp(-match.score))
    np.testing.assert_allclose(score, expected["distance"], rtol=1e-6, atol=1e-6)
    total = np.abs(score - score[match.sets])[(match.sets >= 0) & ~t].sum()
    assert total <= expected["total_ps_distance"] + 1e-9
    assert total == pytest.approx(expected["total_ps_distance"], abs=1e-3)
    for group, count in ((t, "n_matched_treated"), (~t, "n_matched_control")):
        assert (match.weights[group] > 0).sum() == expected[count]


def total_of_stars(sets: np.ndarray, t: np.ndarray, score: np.ndarray) -> float:
    total = 0.0
    for s in np.unique(sets[sets >= 0]):
        one, other = np.flatnonzero((sets == s) & t), np.flatnonzero((sets == s) & ~t)
        assert min(len(one), len(other)) == 1, "a set has a single unit on one side"
        total += float(np.abs(score[one][:, None] - score[other]).sum())
    return total


@pytest.mark.parametrize("name", FULL)
def test_full(name: str) -> None:
    """All are matched, in stars; no further apart than optmatch's, and by less than its tolerance of 1e-3 a unit.

    As for `optimal`, its rounded problem has a worse solution (2.1498 against 2.1416), so that sets and the effect
    differ; weights are held to its formula instead, by giving it its own sets.
    """
    expected = case(name)["results"]
    frame, t = lalonde()
    match = full.match(frame, treated="treat", covariates=LALONDE, estimand=FULL[name], **AS_PROBABILITY)
    assert (match.weights > 0).all()
    score = 1 / (1 + np.exp(-match.score))
    theirs = np.array([int(s) for s in expected["subclass"]])
    gain = total_of_stars(theirs, t, score) - total_of_stars(match.sets, t, score)
    assert -1e-9 < gain < 1e-3 * len(frame)
    weights, _ = _units.stratified(_units.arrange(frame, "treat"), theirs - 1, FULL[name])
    np.testing.assert_allclose(within(weights, t), within(np.array(expected["weights"]), t), rtol=1e-10)


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights(name: str) -> None:
    expected, (method, options, rel) = case(name)["results"], WEIGHTS[name]
    frame, t = lalonde()
    match = method.match(frame, treated="treat", covariates=LALONDE, **options)
    w, theirs = match.weights, np.array(expected["weights"])
    np.testing.assert_allclose(within(w, t), within(theirs, t), rtol=rel)
    for group, ess in ((t, "ess_t"), (~t, "ess_c")):
        assert w[group].sum() ** 2 / (w[group] @ w[group]) == pytest.approx(expected[ess], rel=max(rel, 1e-5))
    y = frame["re78"].to_numpy()
    effect = np.average(y[t], weights=w[t]) - np.average(y[~t], weights=w[~t])
    assert effect == pytest.approx(expected["estimate"], rel=rel if rel > 1e-5 else 1e-5)
    if method is weighting:
        assert w[t].sum() == pytest.approx(expected["sum_t"], rel=1e-6)
        assert w[~t].sum() == pytest.approx(expected["sum_c"], rel=1e-6)
