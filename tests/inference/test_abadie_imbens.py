"""Matching with replacement against R's Matching, against a slow and plain solver, and against laws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from biglocal.inference.abadie_imbens import abadie_imbens
from biglocal.matching._distance import design, propensity
from biglocal.model import DataError, Inapplicable
from reference_cases import case, data

X = ("age", "educ", "hispan", "white", "married", "nodegree", "re74", "re75")
CASES: dict[str, dict[str, Any]] = {
    "att_m1": {},
    "att_m4_bias": {"m": 4, "bias_adjust": True},
    "att_m1_mahal_bias": {"distance": "mahalanobis", "bias_adjust": True},
    "ate_m1": {"estimand": "ATE"},
    "att_m4_var4": {"m": 4, "variance_matches": 4},
    "att_ps": {"covariates": ("logit",)},
}


def lalonde() -> pd.DataFrame:
    frame = data("lalonde.csv")
    frame = frame.assign(hispan=frame["race"] == "hispan", white=frame["race"] == "white")
    return frame.assign(logit=propensity(design(frame, X), frame["treat"].to_numpy() == 1))


@pytest.mark.parametrize("name", [pytest.param(n, id=f"ai_lalonde-{n}") for n in CASES])
def test_lalonde_against_matching(name: str) -> None:
    reference = case("ai_lalonde")
    expected, near = reference["results"][name], reference["tolerance"]
    options = {"covariates": X, **CASES[name]}
    found = abadie_imbens(lalonde(), outcome="re78", treated="treat", **options)
    assert found.estimate == pytest.approx(expected["est"], rel=near["rel"], abs=near["abs"])
    assert found.std_error == pytest.approx(expected["se_ai"], rel=near["rel"], abs=near["abs"])
    assert found.n_obs == expected["nobs"]
    assert found.n_targets == expected["wnobs"]
    assert len(found.target) == expected["n_pairs"]
    if not options.get("bias_adjust"):
        # of a bias-adjusted estimate Matching gives the simple error of the unadjusted one
        assert found.std_error_simple == pytest.approx(expected["se_standard"], rel=near["rel"])


def made(n: int = 150, seed: int = 3, *, round_to: int = 6) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3)).round(round_to)
    d = rng.uniform(size=n) < 1 / (1 + np.exp(-x[:, 0] + 0.5))
    y = x @ [1.0, -0.5, 0.2] + 0.7 * d + rng.normal(size=n)
    return pd.DataFrame({"y": y, "d": d.astype(int), "a": x[:, 0], "b": x[:, 1], "c": x[:, 2]})


def plain(frame: pd.DataFrame, m: int, estimand: str, j: int) -> tuple[float, float, float]:
    """Every pair of units looked at: estimate, population and sample error."""
    y, d = frame["y"].to_numpy(), frame["d"].to_numpy()
    x = frame[["a", "b", "c"]].to_numpy()
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    near = ((x[:, None] - x[None]) ** 2).sum(axis=2)
    n = len(y)
    weight = np.zeros((n, n))
    variance = np.zeros(n)
    for i in range(n):
        for matrix, pool, k in ((weight, d != d[i], m), (None, (d == d[i]) & (np.arange(n) != i), j)):
            rows = np.flatnonzero(pool)
            chosen = rows[near[i, rows] <= np.sort(near[i, rows])[k - 1] + 1e-5]
            if matrix is None:
                variance[i] = np.var(y[[i, *chosen]], ddof=1)
            else:
                matrix[i, chosen] = 1 / len(chosen)
    targets = {"ATT": d == 1, "ATC": d == 0, "ATE": d >= 0}[estimand]
    effects = ((2 * d - 1) * (y - weight @ y))[targets]
    use, squared = weight[targets].sum(axis=0), (weight[targets] ** 2).sum(axis=0)
    count, estimate = targets.sum(), effects.mean()
    beyond = use**2 + 2 * targets * use - squared
    population = ((effects - estimate) ** 2).sum() + beyond @ variance
    return estimate, np.sqrt(population) / count, np.sqrt(((targets + use) ** 2 * variance).sum()) / count


@pytest.mark.parametrize("estimand", ["ATT", "ATC", "ATE"])
@pytest.mark.parametrize("round_to", [6, 0], ids=["few ties", "many ties"])
@pytest.mark.parametrize("m", [1, 3])
def test_against_a_plain_solver(estimand: Any, round_to: int, m: int) -> None:
    frame = made(round_to=round_to)
    found = abadie_imbens(
        frame, outcome="y", treated="d", covariates=("a", "b", "c"), m=m, estimand=estimand, variance_matches=2
    )
    expected = plain(frame, m, estimand, 2)
    assert (found.estimate, found.std_error, found.std_error_sample) == pytest.approx(expected, rel=1e-10)


def test_the_formula_without_ties_is_that_of_the_paper() -> None:
    """Theorem 7: K^2 + (2m - 1)/m K for the ATE, K (K - 1)/m^2 for the ATT, K the number of uses."""
    frame, m = made(), 3
    for estimand, factor in (
        ("ATE", lambda k: (k / m) ** 2 + (2 * m - 1) / m * (k / m)),
        ("ATT", lambda k: k * (k - 1) / m**2),
    ):
        found = abadie_imbens(frame, outcome="y", treated="d", covariates=("a", "b"), m=m, estimand=estimand)  # type: ignore[arg-type]
        k = np.bincount(found.partner, minlength=len(frame))
        y, sign = frame["y"].to_numpy(), 2 * frame["d"].to_numpy() - 1
        gap = (sign[found.target] * (y[found.target] - y[found.partner])).reshape(-1, m)
        variance = ((gap - found.estimate) ** 2).mean() / 2
        by_hand = ((gap.mean(axis=1) - found.estimate) ** 2).sum() + (factor(k) * variance).sum()
        assert found.std_error == pytest.approx(np.sqrt(by_hand) / len(gap), rel=1e-10)


@pytest.mark.parametrize("distance", ["inverse_variance", "mahalanobis"])
def test_nothing_moves(distance: Any) -> None:
    options: dict[str, Any] = {"outcome": "y", "treated": "d", "covariates": ("a", "b", "c"), "distance": distance}
    options |= {"m": 2, "bias_adjust": True, "variance_matches": 2, "estimand": "ATE"}
    frame = made()
    one = abadie_imbens(frame, **options)
    expected = (one.estimate, one.std_error, one.std_error_sample)
    before = frame.copy()
    for other, scale in (
        (frame.sample(frac=1, random_state=1), 1.0),
        (frame.assign(a=1000 * frame["a"] - 7, b=-frame["b"]), 1.0),
        (frame.assign(y=5 - 3 * frame["y"]), -3.0),
        (frame.assign(y=frame["y"] + 1e6), 1.0),
    ):
        two = abadie_imbens(other, **options)
        assert (two.estimate, two.std_error, two.std_error_sample) == pytest.approx(
            (scale * expected[0], abs(scale) * expected[1], abs(scale) * expected[2]), rel=1e-7
        )
    pd.testing.assert_frame_equal(frame, before)
    if distance == "mahalanobis":  # no mixing of the covariates changes it
        mixed = frame.assign(a=frame["a"] + frame["b"], b=frame["b"] - 2 * frame["c"])
        assert abadie_imbens(mixed, **options).estimate == pytest.approx(one.estimate, rel=1e-8)


def test_bias_adjustment_is_exact_where_the_outcome_is_linear() -> None:
    frame = made()
    frame["y"] = frame["a"] - 2 * frame["b"] + 0.5 * frame["d"]
    for estimand in ("ATT", "ATC", "ATE"):
        found = abadie_imbens(
            frame, outcome="y", treated="d", covariates=("a", "b"), estimand=estimand, bias_adjust=True
        )  # type: ignore[arg-type]
        assert found.estimate == pytest.approx(0.5, abs=1e-10)
        assert found.std_error < 1e-6


def test_a_covariate_that_is_constant_among_the_matched_is_no_hindrance() -> None:
    frame = made(60)
    frame["only_treated"] = (frame["d"] == 1) & (frame.index % 2 == 0)
    found = abadie_imbens(frame, outcome="y", treated="d", covariates=("a", "only_treated"), bias_adjust=True)
    assert np.isfinite(found.std_error)


def test_coverage_of_the_population_error() -> None:
    """300 draws with an effect of 0.7 and one covariate: 95% intervals hold it in 91% to 98% of them."""
    inside = 0
    for seed in range(300):
        found = abadie_imbens(
            made(200, 100 + seed),
            outcome="y",
            treated="d",
            covariates=("a",),
            m=2,
            variance_matches=2,
            bias_adjust=True,
        )
        inside += abs(found.estimate - 0.7) < 1.96 * found.std_error
    assert 273 <= inside <= 294, inside


@pytest.mark.parametrize(
    ("change", "options", "reason"),
    [
        (lambda f: f.assign(d=1), {}, "0 untreated"),
        (lambda f: f.assign(d=0), {}, "0 treated"),
        (lambda f: f[:0], {}, "0 treated"),
        (lambda f: f, {"m": 1000}, "1000 are needed"),
        (lambda f: f, {"m": 0}, "m is 0"),
        (lambda f: f, {"variance_matches": 100}, "Lower variance_matches"),
        (lambda f: f.assign(a=1.0), {}, "no variance"),
        (lambda f: f.assign(a=f["b"]), {"distance": "mahalanobis"}, "collinear"),
        (lambda f: f.assign(a=np.nan), {}, "a"),
        (lambda f: f.assign(a=np.inf), {}, "infinite"),
        (lambda f: f.assign(y=np.nan), {}, "outcome y is missing"),
        (lambda f: f.assign(d=2), {}, "other than 0 and 1"),
        (lambda f: f, {"estimand": "LATE"}, "LATE"),
    ],
)
def test_degenerate_input_is_refused_with_a_reason(change: Any, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(Inapplicable, match=reason):
        abadie_imbens(change(made()), outcome="y", treated="d", covariates=("a", "b"), **options)


def test_a_column_that_is_not_there_is_named() -> None:
    with pytest.raises(DataError, match="no column z"):
        abadie_imbens(made(), outcome="y", treated="d", covariates=("z",))
