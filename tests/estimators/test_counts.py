"""Poisson: our own solver, pyfixest under our convention as its twin, both against fixest and R's glm."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from biglocal import inference
from biglocal.estimators import _within, correction, counted, poisson
from biglocal.estimators._effects import regressors
from biglocal.estimators._glm import Glm, glm, informative
from biglocal.estimators._poisson import poisson as through_pyfixest
from biglocal.model import Fit, Inapplicable, Sample
from panels import panel, sample
from reference_cases import case, data


def clustered(fit: Glm, fixed: list[np.ndarray], cluster: np.ndarray) -> np.ndarray:
    """Standard errors under the convention."""
    n, k, g = len(fit.mean), counted(len(fit.beta), fixed, cluster), int(cluster.max()) + 1
    return np.sqrt(np.diag(_within.sandwich(fit.solution, fit.scores, cluster)) * correction(n, k, g))


def castle(cluster: str = "sid") -> Sample:
    f = data("castle.csv")
    f = f.assign(log_population=np.log(f["population"]), row=range(len(f)))
    names = ("unemployrt", "poverty", "log_population")
    return sample(f, "homicide_c", "sid", "year", "post", cluster=cluster, covariates=names)


@pytest.mark.parametrize(("errors", "cluster"), [("cluster", "sid"), ("HC1", "row")])
def test_castle__fepois_castle_offset(errors: str, cluster: str) -> None:
    whole = case("fepois_castle_offset")
    expected, rel = whole["results"][errors], whole["tolerance"]["rel"]
    s = castle(cluster)
    fit = inference.cluster(
        poisson.estimate, s, poisson.estimate(s, offset="log_population"), np.random.default_rng(0), conf_level=0.95
    )
    att = fit.terms[0]
    i = expected["term"].index("post")
    theirs = {name: expected[name][i] for name in ("estimate", "se", "stat", "ci_low", "ci_high")}
    assert (att.estimate, att.std_error, att.statistic) == pytest.approx(
        (theirs["estimate"], theirs["se"], theirs["stat"]), rel=rel
    )
    if errors == "cluster":  # fixest: normal for clusters, t of the rows for HC1
        assert att.p_value == pytest.approx(expected["p"][i], rel=1e-4)
        assert (att.conf_low, att.conf_high) == pytest.approx((theirs["ci_low"], theirs["ci_high"]), rel=1e-4)
    assert fit.n_obs == expected["n"]
    change = fit.terms[1]
    assert change.name == "percent_change"
    assert change.estimate == pytest.approx(100 * (np.exp(att.estimate) - 1), rel=1e-12)
    assert change.std_error == pytest.approx(100 * np.exp(att.estimate) * att.std_error, rel=1e-12)


def test_our_solver_is_the_twin__fepois_castle_offset() -> None:
    expected, f = case("fepois_castle_offset")["results"], data("castle.csv")
    fixed = [_within.codes(f["sid"]), _within.codes(f["year"])]
    columns = {t: f[t].to_numpy(dtype=float) for t in expected["cluster"]["term"]}
    y, shift = f["homicide_c"].to_numpy(dtype=float), np.log(f["population"].to_numpy(dtype=float))
    fit = glm(y, columns, fixed, np.ones(len(f)), "poisson", shift)
    assert fit.beta == pytest.approx(expected["cluster"]["estimate"], rel=1e-9)
    assert clustered(fit, fixed, fixed[0]) == pytest.approx(expected["cluster"]["se"], rel=1e-9)
    assert np.sqrt(np.diag(fit.solution.inverse) * 549 / (550 - expected["iid"]["df_K"])) == pytest.approx(
        expected["iid"]["se"], rel=1e-6
    )
    assert fit.deviance == pytest.approx(expected["deviance"], rel=1e-9)


@pytest.mark.parametrize("engine", ["pyfixest", "ours"])
def test_four_fixed_effects__fepois_trade(engine: str) -> None:
    whole = case("fepois_trade")
    expected, rel = whole["results"]["cluster_origin"], whole["tolerance"]["rel"]
    f = data("trade.csv")
    fixed = {n.lower(): _within.codes(f[n]) for n in ("Origin", "Destination", "Product", "Year")}
    columns = {"distance": np.log(f["dist_km"].to_numpy(dtype=float))}
    if engine == "ours":
        fit = glm(f["Euros"].to_numpy(dtype=float), columns, list(fixed.values()), np.ones(len(f)), "poisson")
        beta, error = fit.beta[0], clustered(fit, list(fixed.values()), fixed["origin"])[0]
        assert fit.deviance == pytest.approx(whole["results"]["deviance"], rel=1e-9)
    else:
        rows = pd.DataFrame({"y": f["Euros"], "weight": 1.0, "cluster": f["Origin"]})
        found = through_pyfixest(rows, columns, fixed)
        beta, error = found.beta[0], float(np.sqrt(found.vcov[0, 0]))
    assert beta == pytest.approx(expected["estimate"][0], rel=rel)
    assert error == pytest.approx(expected["se"][0], rel=rel)


def test_without_fixed_effects__poisson_quine() -> None:
    expected, rel = case("poisson_quine")["results"], case("poisson_quine")["tolerance"]["rel"]
    f = data("quine.csv")
    columns = {"constant": np.ones(len(f)), **regressors(f, ("Eth", "Sex", "Age", "Lrn"))}
    assert [n.replace(": ", "") for n in columns][1:] == expected["term"][1:]
    y = f["Days"].to_numpy(dtype=float)
    fit = glm(y, columns, [], np.ones(len(f)), "poisson")
    assert fit.beta == pytest.approx(expected["estimate"], rel=rel)
    assert np.sqrt(np.diag(fit.solution.inverse)) == pytest.approx(expected["se"], rel=rel)
    raw = np.sqrt(np.diag(_within.sandwich(fit.solution, fit.scores, np.arange(len(f)))))
    assert raw == pytest.approx(expected["se_HC0"], rel=rel)
    assert fit.deviance == pytest.approx(expected["deviance"], rel=rel)
    dispersion = ((y - fit.mean) ** 2 / fit.mean).sum() / (len(f) - len(columns))
    assert dispersion == pytest.approx(expected["pearson_dispersion"], rel=rel)


# --- laws ------------------------------------------------------------------------------------------------------


def counts(seed: int = 5, effect: float = 0.3, level: float = 2.0, **options: Any) -> Sample:
    s = panel(seed=seed, **options)
    f = s.frame
    size = 0.5 + f["unit"] % 4
    y = np.random.default_rng(seed).poisson(size * np.exp(level + 0.3 * f["y"] + effect * f["d"]))
    return replace(s, frame=f.assign(y=y.astype(float), log_size=np.log(size)))


def by_term(fit: Fit) -> dict[tuple[str, str], tuple[float, float]]:
    return {(t.name, t.level): (t.estimate, t.std_error) for t in fit.terms}


@pytest.mark.parametrize("levels", [(), ("even", "odd")])
def test_pyfixest_and_our_solver_agree_with_weights_and_levels(levels: tuple[str, ...]) -> None:
    s = replace(counts(), levels=levels, covariates=("x", "log_size"))
    f = s.frame
    inside = (f["level"],) if levels else ()
    fixed = [_within.codes(f["unit"], *inside), _within.codes(f["time"], *inside)]
    where = [f["level"].to_numpy() == k for k in levels] or [np.ones(len(f), dtype=bool)]
    d, x = f["d"].to_numpy(), f["x"].to_numpy()
    columns = {f"d{i}": d * w for i, w in enumerate(where)} | {f"x{i}": x * w for i, w in enumerate(where)}
    cluster = _within.codes(f["cluster"])
    y, w, shift = (f[c].to_numpy(dtype=float) for c in ("y", "weight", "log_size"))
    keep = informative(y, fixed)
    assert keep.all()
    twin = glm(y, columns, fixed, w, "poisson", shift)
    fit = poisson.estimate(s, offset="log_size")
    att = [t for t in fit.terms if t.name == "att"]
    assert [t.estimate for t in att] == pytest.approx(twin.beta[: len(att)], rel=1e-8)
    assert [t.std_error for t in att] == pytest.approx(clustered(twin, fixed, cluster)[: len(att)], rel=1e-7)


CHANGES = {
    "shuffle rows": lambda f: f.sample(frac=1, random_state=2),
    "relabel units": lambda f: f.assign(unit=10_000 - 7 * f["unit"]),
    "shift time": lambda f: f.assign(time=f["time"] + 2010, first_treated=f["first_treated"] + 2010),
    "scale weights": lambda f: f.assign(weight=5 * f["weight"]),
    "scale counts": lambda f: f.assign(y=12 * f["y"]),
    "unit and year factors": lambda f: f.assign(log_size=f["log_size"] + f["unit"] / 50 - 0.2 * f["time"]),
    "another index": lambda f: f.set_axis(f.index * 3 + 1),
}


@pytest.mark.parametrize("change", CHANGES)
def test_nothing_moves(change: str) -> None:
    """A log rate ratio does not depend on the unit of the count; factors of units and years are absorbed."""
    s = counts()
    one = by_term(poisson.estimate(s, offset="log_size"))
    two = by_term(poisson.estimate(replace(s, frame=CHANGES[change](s.frame)), offset="log_size"))
    for key in one:
        assert two[key] == pytest.approx(one[key], rel=1e-6)


def test_an_offset_is_a_coefficient_of_one() -> None:
    """Dividing the counts by the size and weighting by it is the same estimate (not the same likelihood)."""
    s = counts()
    f = s.frame
    size = np.exp(f["log_size"])
    rates = f.assign(y=f["y"] / size, weight=f["weight"] * size)
    one, two = poisson.estimate(s, offset="log_size"), poisson.estimate(replace(s, frame=rates))
    assert two.terms[0].estimate == pytest.approx(one.terms[0].estimate, rel=1e-8)
    assert two.terms[0].std_error == pytest.approx(one.terms[0].std_error, rel=1e-7)


def test_a_planted_ratio_is_found_and_the_sample_is_not_touched() -> None:
    s = counts()
    f = s.frame
    s = replace(s, frame=f.assign(y=np.exp(0.01 * f["unit"] - 0.1 * f["time"] + 0.25 * f["d"] + f["log_size"])))
    before = s.frame.copy()
    fit = poisson.estimate(s, offset="log_size")
    assert fit.terms[0].estimate == pytest.approx(0.25, abs=1e-9)
    assert by_term(fit)["percent_change", ""][0] == pytest.approx(100 * np.expm1(0.25), rel=1e-8)
    pd.testing.assert_frame_equal(s.frame, before)


def test_units_without_a_count_leave_and_are_counted() -> None:
    s = counts()
    f = s.frame
    empty = f["unit"].isin([3, 50])
    fit = poisson.estimate(replace(s, frame=f.assign(y=f["y"].where(~empty, 0.0))))
    without = poisson.estimate(replace(s, frame=f[~empty]))
    assert by_term(fit) == by_term(without)
    assert (fit.n_obs, fit.n_units, fit.facts["without_counts"]) == (len(f) - 16, 118, 16)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda f: f[f["time"] >= 5], "no period before"),
        (lambda f: f[f["time"] < 5], "no period after"),
        (lambda f: f[f["treated"] == 1], "0 comparison"),
        (lambda f: f[(f["treated"] == 0) | (f["cluster"] == 0)], "1 treated cluster"),
        (lambda f: f.assign(y=3.0), "constant"),
        (lambda f: f.assign(y=f["y"] - 1), "negative"),
        (lambda f: f.assign(weight=0.0), "weights are zero"),
        (lambda f: f[:0], "no rows"),
        (lambda f: f.assign(log_size=f["log_size"].where(f["unit"] > 0)), "log_size is not finite in 8 rows"),
        (lambda f: f.drop(columns="log_size"), "no column log_size"),
        (lambda f: f.assign(y=f["y"].where(f["d"] == 0, 0.0)), "predicted perfectly"),
    ],
)
def test_degenerate_input_is_refused_with_a_reason(change: Any, reason: str) -> None:
    s = counts()
    with pytest.raises(Inapplicable, match=reason):
        poisson.estimate(replace(s, frame=change(s.frame)), offset="log_size")


def test_our_solver_refuses_what_has_no_finite_estimate() -> None:
    f = counts().frame
    y = f["y"].where(f["d"] == 0, 0.0).to_numpy()
    with pytest.raises(Inapplicable, match="predicted perfectly"):
        glm(
            y,
            {"d": f["d"].to_numpy()},
            [_within.codes(f["unit"]), _within.codes(f["time"])],
            np.ones(len(f)),
            "poisson",
        )


def test_a_covariate_that_is_collinear_is_named() -> None:
    s = counts()
    s = replace(s, frame=s.frame.assign(twice=2.0 * s.frame["unit"]), covariates=("twice",))
    with pytest.raises(Inapplicable, match=r"collinear .*: twice"):
        poisson.estimate(s)


def test_staggered_starts_are_said() -> None:
    s = counts()
    f = s.frame
    first = f["first_treated"] + (f["cluster"] % 2)
    late = f.assign(first_treated=first, d=((f["treated"] == 1) & (f["time"] >= first)).astype(float))
    assert "staggered" in poisson.estimate(replace(s, frame=late)).caution
