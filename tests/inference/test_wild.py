"""The wild cluster bootstrap against fwildclusterboot, and against an obvious loop of refits."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from biglocal import inference
from biglocal.estimators import twfe
from biglocal.inference.regression import coded, regression
from biglocal.inference.twoway import clustered
from biglocal.inference.wild import KINDS, WildTest, bootstrap, check_clusters, drawn, scores, wild_cluster
from biglocal.model import Inapplicable
from panels import panel
from reference_cases import case, data

if TYPE_CHECKING:
    import pandas as pd


def near(test: WildTest, expected: dict[str, object], p: float = 0.005) -> None:
    """At the case's tolerance: p to three Monte Carlo errors, ends of the interval to 1% of its width."""
    assert test.estimate == pytest.approx(expected["estimate"], rel=1e-6)
    assert test.std_error == pytest.approx(expected["se"], rel=1e-6)
    assert test.statistic == pytest.approx(expected["t"], rel=1e-6)
    assert test.p_value == pytest.approx(expected["p"], abs=p)
    if expected["ci"] is not None:
        low, high = expected["ci"]  # type: ignore[misc]
        assert (test.conf_low, test.conf_high) == pytest.approx((low, high), abs=0.01 * (high - low))


@pytest.mark.parametrize(
    ("result", "tested", "options"),
    [
        ("enumerated_1024", "value", {}),
        ("equal_tailed", "value", {"equal_tailed": True}),
        ("capital", "capital", {}),
        ("no_null", "value", {"null_imposed": False}),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_wcb_grunfeld_exact(result: str, tested: str, options: dict[str, bool]) -> None:
    expected = case("wcb_grunfeld_exact")["results"][result]
    f = data("grunfeld.csv")
    other = {"value", "capital"} - {tested}
    test = wild_cluster(
        f["inv"], f[tested], f["firm"], nuisance=f[list(other)], rng=np.random.default_rng(0), **options
    )  # type: ignore[arg-type]
    assert test.enumerated
    assert test.draws == expected["B"]
    near(test, expected, p=2 / 1024)
    assert np.isnan(test.conf_low) == (result == "no_null")


@pytest.mark.parametrize("result", ["rademacher", "webb", "mammen", "twoway"])
def test_wcb_voters(result: str) -> None:
    expected = case("wcb_voters")["results"][result]
    f = data("voters.csv").dropna(subset=["proposition_vote", "treatment", "ideology1", "log_income"])
    clusters = [f["group_id1"], f["group_id2"]][: 2 if result == "twoway" else 1]
    test = wild_cluster(
        f["proposition_vote"], f["treatment"], *clusters, nuisance=f[["ideology1", "log_income"]],
        rng=np.random.default_rng(3), draws=99_999, kind=expected["type"],
    )  # fmt: skip
    near(test, expected)


@pytest.mark.parametrize("kind", ["rademacher", "webb"])
def test_wcb_castle_twfe(kind: str) -> None:
    expected = case("wcb_castle_twfe")["results"][f"lm_dummies_{kind}"]
    f = data("castle.csv")
    test = wild_cluster(
        f["l_homicide"], f["post"], f["sid"], fixed=(f["sid"], f["year"]), counting="full", kind=kind,  # type: ignore[arg-type]
        rng=np.random.default_rng(5), draws=99_999,
    )  # fmt: skip
    near(test, expected)


@pytest.mark.parametrize("ways", [1, 2])
@pytest.mark.parametrize("kind", list(KINDS))
def test_t_of_each_draw_is_that_of_a_refit(kind: str, ways: int) -> None:
    """Draw by draw: build the bootstrap outcome, refit, and cluster; weights, nuisance, two fixed effects."""
    s = panel(seed=5, units=24, years=5, start=3, effect=0.3, clusters=8)
    f = s.frame
    y, d, w, time = (f[c].to_numpy(dtype=float) for c in ("y", "d", "weight", "time"))
    g = coded(f["cluster"])
    clusters = [g, coded(time)][:ways]
    fixed = (f["unit"], f["time"])
    fit = regression(y, d, nuisance=f[["x"]], fixed=fixed, weight=w, within=g)
    s0 = scores(fit, clusters, boot=g)
    count, _, pieces = drawn(8, 6, kind, np.random.default_rng(1))  # type: ignore[arg-type]
    vectors = list(pieces)
    r = 0.2
    ours = bootstrap(s0, iter(vectors), count, False).t(r)
    others = np.column_stack([f["x"], np.ones(len(f))])
    restricted = regression(y - r * d, others[:, :1], fixed=fixed, weight=w)
    for v, t in zip(np.concatenate(vectors), ours, strict=True):
        drawn_y = y - restricted.residual * (1 - v[g])
        again = regression(drawn_y, d, nuisance=f[["x"]], fixed=fixed, weight=w, within=g)
        cov = clustered(again, *clusters, groups="conventional", definite=False)
        if cov.vcov[0, 0] > 0:
            assert (again.beta[0] - r) / cov.std_error[0] == pytest.approx(t, rel=1e-9)


def test_laws() -> None:
    s = panel(seed=2, units=60, effect=0.4, clusters=12)
    f = s.frame

    def test(frame: pd.DataFrame, scale: float = 1.0) -> tuple[float, ...]:
        t = wild_cluster(
            scale * frame["y"], frame["d"], frame["cluster"], fixed=(frame["unit"], frame["time"]),
            weight=frame["weight"], rng=np.random.default_rng(4), draws=4_096,
        )  # fmt: skip
        return t.estimate / scale, t.statistic, t.p_value, t.conf_low / scale, t.conf_high / scale

    base = test(f)
    relabelled = f["cluster"].map(lambda c: f"area {97 * c % 1009}")  # all 2^12 vectors: any order of clusters will do
    for other in (f.sample(frac=1, random_state=1), f.assign(weight=3 * f["weight"]), f.assign(cluster=relabelled)):
        assert test(other) == pytest.approx(base, rel=1e-8)
    assert test(f, 1000.0) == pytest.approx(base, rel=1e-8)
    assert base[3] < base[0] < base[4]
    shifted = f.assign(y=f["y"] + 2 * f["d"])
    assert test(shifted)[3] == pytest.approx(base[3] + 2, rel=1e-8)


def test_the_ends_of_the_interval_are_where_the_p_value_crosses() -> None:
    f = panel(seed=2, units=60, effect=0.4, clusters=12).frame

    def p(r: float) -> WildTest:
        return wild_cluster(
            f["y"], f["d"], f["cluster"], fixed=(f["unit"], f["time"]), rng=np.random.default_rng(4), draws=4_096,
            hypothesis=r,
        )  # fmt: skip

    found = p(0.0)
    width = found.conf_high - found.conf_low
    assert p(found.conf_low - 1e-6 * width).p_value <= 0.05 < p(found.conf_low + 0.01 * width).p_value
    assert p(found.conf_high + 1e-6 * width).p_value <= 0.05 < p(found.conf_high - 0.01 * width).p_value


@pytest.mark.parametrize(
    ("x", "cluster", "reason"),
    [
        ([1.0, 1, 0, 0, 0, 0], [0, 0, 1, 1, 2, 2], "1 treated cluster"),
        ([1.0, 1, 1, 1, 0, 0], [0, 0, 1, 1, 2, 2], "1 comparison cluster"),
        ([1.0, 0, 1, 0, 1, 0], [0, 0, 0, 0, 0, 0], "1 cluster"),
        ([1.0, 1, 1, 1, 1, 1], [0, 0, 1, 1, 2, 2], "collinear"),
    ],
)
def test_designs_in_which_it_fails_are_refused(x: list[float], cluster: list[int], reason: str) -> None:
    with pytest.raises(Inapplicable, match=reason):
        wild_cluster(np.arange(6.0) ** 2, x, cluster, rng=np.random.default_rng(0))


def test_missing_values_are_refused() -> None:
    with pytest.raises(Inapplicable, match="1 missing"):
        wild_cluster([1.0, 2, np.nan, 4], [0.0, 1, 0, 1], [0, 0, 1, 1], rng=np.random.default_rng(0))
    check_clusters(np.array([0.0, 1, 0, 1]), np.array([0, 0, 1, 1]))


def test_study_path_is_the_general_one() -> None:
    s = replace(panel(seed=6, effect=0.3, clusters=20), covariates=("x",))
    fit = inference.wild_bootstrap(
        twfe.estimate, s, twfe.estimate(s), np.random.default_rng(1), conf_level=0.9, draws=499
    )
    f = s.frame
    test = wild_cluster(
        f["y"], f["d"], f["cluster"], nuisance=f[["x"]], fixed=(f["unit"], f["time"]), weight=f["weight"],
        rng=np.random.default_rng(1), draws=499, conf_level=0.9,
    )  # fmt: skip
    assert (fit.terms[0].p_value, fit.terms[0].conf_low) == (test.p_value, test.conf_low)
    assert fit.facts["std_error"] == pytest.approx(twfe.estimate(s).terms[0].std_error, rel=1e-8)


def test_draws_are_at_least_one() -> None:
    with pytest.raises(Inapplicable, match="0 draws"):
        wild_cluster(
            np.arange(8.0) ** 2,
            [1, 1, 1, 1, 0, 0, 0, 0],
            [0, 0, 1, 1, 2, 2, 3, 3],
            rng=np.random.default_rng(0),
            draws=0,
        )
