"""Linear models with fixed effects: ours against pyfixest, fixest, linearmodels and statsmodels; calendar years and dose."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from biglocal.estimators import _fixest, _within, calendar_effects, dose_response, event_study, fit, twfe
from biglocal.model import Fit, Inapplicable, Sample
from panels import panel, sample
from reference_cases import case, data

ENGINES = {"pyfixest": _fixest.linear, "within": _within.linear}


def frame_of(frame: pd.DataFrame, y: str, cluster: str, weight: str | None = None) -> pd.DataFrame:
    """The three columns that a linear fit reads."""
    return pd.DataFrame(
        {"y": frame[y].astype(float), "cluster": frame[cluster], "weight": 1.0 if weight is None else frame[weight]}
    )


def agrees(fit: Any, expected: dict[str, Any], tolerance: dict[str, Any]) -> None:
    """Coefficients, clustered errors and degrees of freedom of a fit, whose columns are named as the case's terms."""
    for i, term in enumerate(fit.names):
        j = expected["term"].index(term)
        assert fit.beta[i] == pytest.approx(expected["estimate"][j], rel=tolerance["rel"], abs=tolerance["abs"])
        error = np.sqrt(fit.vcov[i, i])
        assert error == pytest.approx(expected["se"][j], rel=tolerance["rel"], abs=tolerance["abs"])
    assert fit.n_obs == expected["n"]
    assert fit.n_clusters - 1 == expected["df_t"]


FIXED_EFFECTS = {
    "twfe_castle": ("castle.csv", "l_homicide", "sid", "year", None),
    "twfe_castle_weighted": ("castle.csv", "l_homicide", "sid", "year", "popwt"),
    "twfe_mortality_rates": ("mortality_rates.csv", "mrate", "state", "year", None),
    "twfe_wagepan": ("wagepan.csv", "lwage", "nr", "year", None),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", FIXED_EFFECTS)
def test_two_way_fixed_effects(name: str, engine: str) -> None:
    """Treatments that come and go or have a size (wagepan, mortality_rates) are regressors like any other here."""
    file, y, unit, time, weight = FIXED_EFFECTS[name]
    f = data(file)
    if name == "twfe_mortality_rates":
        f = f[(f["cause"] == "Motor Vehicle") & f["year"].between(1970, 1983)].dropna(subset="beertaxa")
    expected = case(name)["results"]["cluster_unit"]
    fit = ENGINES[engine](
        frame_of(f, y, unit, weight),
        {t: f[t].to_numpy(dtype=float) for t in expected["term"]},
        {"unit": _within.codes(f[unit]), "time": _within.codes(f[time])},
    )
    agrees(fit, expected, case(name)["tolerance"])


def test_unit_trends__twfe_castle_unit_trends() -> None:
    """Slopes of the states' own, as covariates of the sample. Two slopes' worth of what fixest does is not ours:

    with year effects the sum of the slopes is collinear, so 49 are free; fixest counts 50 in K. The error is
    compared with its K.
    """
    expected, tolerance = case("twfe_castle_unit_trends")["results"]["cluster_unit"], 1e-4
    f = data("castle.csv")
    slopes = {f"slope{s}": (f["sid"] == s) * (f["year"] - 2005.0) for s in sorted(f["sid"].unique())[1:]}
    f = f.assign(**slopes)
    att = twfe.estimate(sample(f, "l_homicide", "sid", "year", "post", covariates=tuple(slopes))).terms[0]
    assert att.estimate == pytest.approx(expected["estimate"][0], rel=tolerance)
    ours, theirs = len(f) - expected["df_K"] + 1, len(f) - expected["df_K"]
    assert att.std_error * np.sqrt(ours / theirs) == pytest.approx(expected["se"][0], rel=tolerance)


def card_krueger() -> pd.DataFrame:
    f = data("card_krueger.csv")
    return f.assign(row=np.arange(len(f)), now=f["nj"] * f["d"]).dropna(subset="fte")


@pytest.mark.parametrize("name", ["did2x2_card_krueger", "did2x2_card_krueger_cov"])
def test_two_by_two(name: str) -> None:
    """The 2x2 is two-way fixed effects of two groups in two periods; each row its own cluster gives HC1."""
    expected, tolerance = case(name)["results"]["HC1"], case(name)["tolerance"]
    covariates = [t for t in expected["term"] if t not in ("(Intercept)", "nj", "d", "nj:d")]
    s = sample(card_krueger(), "fte", "nj", "d", "now", cluster="row", covariates=covariates)
    fit = twfe.estimate(s)
    i = expected["term"].index("nj:d")
    assert fit.terms[0].estimate == pytest.approx(expected["estimate"][i], rel=tolerance["rel"])
    assert fit.terms[0].std_error == pytest.approx(expected["se"][i], rel=tolerance["rel"])
    assert fit.n_obs == expected["n"]
    if not covariates:
        cells = {(int(c["nj"]), int(c["d"])): c["mean"] for c in case(name)["results"]["cell_means"]}
        assert fit.terms[0].estimate == pytest.approx(cells[1, 1] - cells[1, 0] - cells[0, 1] + cells[0, 0], rel=1e-9)


@pytest.mark.parametrize(
    ("errors", "cluster", "weight"),
    [
        ("fe_weighted_cl_county", "county_code", "w13"),
        ("fe_weighted_cl_state", "st_fips", "w13"),
        ("fe_unweighted_cl_county", "county_code", None),
        ("ols_weighted_cl_county", "county_code", "w13"),
    ],
)
def test_county_mortality__twfe_county_mortality_2x2(errors: str, cluster: str, weight: str | None) -> None:
    whole = case("twfe_county_mortality_2x2")
    expected, tolerance = whole["results"][errors], whole["tolerance"]
    f = data("county_mortality.csv")
    f = f[f["year"].isin([2013, 2014]) & f["yaca"].isin([0, 2014])]
    f = f.assign(
        treat=(f["yaca"] == 2014).astype(int),
        d=((f["yaca"] == 2014) & (f["year"] == 2014)).astype(int),
        w13=f["pop"].where(f["year"] == 2013).groupby(f["county_code"]).transform("max"),
    )
    unit = "treat" if errors.startswith("ols") else "county_code"
    fit = twfe.estimate(sample(f, "crude_rate", unit, "year", "d", cluster=cluster, weight=weight))
    i = expected["term"].index("treat:post")
    assert fit.terms[0].estimate == pytest.approx(expected["estimate"][i], rel=tolerance["rel"])
    assert fit.terms[0].std_error == pytest.approx(expected["se"][i], rel=tolerance["rel"])
    assert (fit.n_obs, fit.terms[0].df) == (expected["n"], expected["df_t"])


@pytest.mark.parametrize("name", ["es_castle_dynamic", "es_base_did"])
def test_event_study_with_all_leads(name: str) -> None:
    expected, tolerance = case(name)["results"], case(name)["tolerance"]
    if name == "es_castle_dynamic":
        s, label = sample(data("castle.csv"), "l_homicide", "sid", "year", "post"), "rel::{}"
    else:
        f = data("base_did.csv")
        f = f.assign(d=f["treat"] * f["post"])
        s, label = sample(f, "y", "id", "period", "d", covariates=["x1"]), "period::{}:treat"
    fit = event_study.estimate(s)
    shift = 0 if name == "es_castle_dynamic" else 6  # base_did names the period, treatment starts in the sixth
    ours = {label.format(t.period + shift): t for t in fit.terms if t.name == "event_time" and t.tested}
    theirs = expected["cluster_unit"]
    assert set(ours) == set(theirs["term"]) - {"x1"}
    for term, estimate, error in zip(theirs["term"], theirs["estimate"], theirs["se"], strict=True):
        if term in ours:
            assert ours[term].estimate == pytest.approx(estimate, rel=tolerance["rel"], abs=tolerance["abs"])
            assert ours[term].std_error == pytest.approx(error, rel=tolerance["rel"], abs=tolerance["abs"])
    if "wald_pre" in expected:
        leads = next(t for t in fit.terms if t.name == "leads")
        assert leads.statistic == pytest.approx(expected["wald_pre"]["stat"], rel=tolerance["rel"])
        assert leads.df_num == expected["wald_pre"]["df1"]


# --- the projection --------------------------------------------------------------------------------------------


def fixed_of(f: pd.DataFrame, *names: str) -> dict[str, np.ndarray]:
    return {n: _within.codes(f[n]) for n in names}


def fits(s: Sample, fixed: dict[str, np.ndarray], **columns: np.ndarray) -> list[Any]:
    f = s.frame
    wanted = {"d": f["d"].to_numpy(), "x": f["x"].to_numpy(), **columns}
    return [engine(f, wanted, fixed) for engine in ENGINES.values()]


@pytest.mark.parametrize(
    "effects", [("unit",), ("time",), ("unit", "time"), ("time", "unit"), ("unit", "time", "other")]
)
@pytest.mark.parametrize("shape", ["balanced", "four in five rows", "clusters across units"])
def test_the_two_engines_agree_to_ten_digits(effects: tuple[str, ...], shape: str) -> None:
    s = panel(seed=21, effect=0.5)
    f = s.frame.assign(other=(s.frame["unit"] * 3 + s.frame["time"]) % 5)
    if shape == "four in five rows":
        f = f.sample(frac=0.8, random_state=3)
    elif shape == "clusters across units":
        f = f.assign(cluster=(f["unit"] + f["time"]) % 23)
    one, two = fits(replace(s, frame=f), fixed_of(f, *effects))
    assert two.beta == pytest.approx(one.beta, rel=1e-10)
    assert two.vcov == pytest.approx(one.vcov, rel=1e-9)
    assert (two.names, two.n_obs, two.n_clusters) == (one.names, one.n_obs, one.n_clusters)


def test_a_panel_in_two_parts_that_share_no_year() -> None:
    """The years' system is then singular by two; both engines leave the effect as it is."""
    s = panel(seed=22)
    f = s.frame
    late = f.assign(unit=f["unit"] + 1000, time=f["time"] + 100, cluster=f["cluster"] + 1000)
    both = pd.concat([f, late])
    one, two = fits(replace(s, frame=both), fixed_of(both, "unit", "time"))
    assert two.beta == pytest.approx(one.beta, rel=1e-10)
    assert two.beta == pytest.approx(fits(s, fixed_of(f, "unit", "time"))[1].beta, rel=1e-10)


def test_a_table_too_large_to_be_dense_is_kept_sparse(monkeypatch: pytest.MonkeyPatch) -> None:
    s = panel(seed=23)
    fixed = fixed_of(s.frame, "unit", "time")
    dense = fits(s, fixed)[1]
    monkeypatch.setattr(_within, "DENSE", 10)
    sparse = fits(s, fixed)[1]
    assert sparse.beta == pytest.approx(dense.beta, rel=1e-11)
    assert sparse.vcov == pytest.approx(dense.vcov, rel=1e-11)


def test_the_projection_is_that_of_every_dummy() -> None:
    s = panel(seed=24, units=20, clusters=10)
    f = s.frame.sample(frac=0.9, random_state=1)
    w, x = f["weight"].to_numpy(), f["x"].to_numpy()
    dummies = pd.get_dummies(f[["unit", "time"]].astype(str)).to_numpy(dtype=float)
    root = np.sqrt(w)[:, None]
    left = x - dummies @ np.linalg.lstsq(dummies * root, x * root[:, 0], rcond=None)[0]
    project = _within.projector([_within.codes(f["unit"]), _within.codes(f["time"])], w)
    assert project(x) == pytest.approx(left, abs=1e-12)


def test_large_levels_and_odd_scales_cost_no_accuracy() -> None:
    """Population counts beside rates; outcomes whose level is a thousand times their movement."""
    s = panel(seed=25, effect=0.5)
    f = s.frame
    plain = fits(s, fixed_of(f, "unit", "time"))[1]
    moved = f.assign(y=f["y"] + 1e3 * (f["unit"] + 1))
    far = _within.linear(moved, {"d": f["d"].to_numpy(), "x": 1e9 * f["x"].to_numpy()}, fixed_of(f, "unit", "time"))
    assert far.beta[0] == pytest.approx(plain.beta[0], rel=1e-8)
    assert far.beta[1] * 1e9 == pytest.approx(plain.beta[1], rel=1e-8)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("a", lambda f: 2.0 * f["unit"]),
        ("a", lambda f: np.sqrt(1.0 + f["time"])),
        ("a", lambda f: f["unit"] / 3 - 1e3 * f["time"]),
        ("a", lambda f: 3 * f["d"] - f["x"] + f["time"]),
        ("a", lambda f: 0.0 * f["x"]),
    ],
)
def test_what_is_collinear_is_named_by_both(engine: str, name: str, values: Any) -> None:
    f = panel(seed=26).frame
    columns = {"d": f["d"].to_numpy(), "x": f["x"].to_numpy(), name: values(f).to_numpy(dtype=float)}
    with pytest.raises(Inapplicable, match=rf"collinear .*: {name}"):
        ENGINES[engine](f, columns, fixed_of(f, "unit", "time"))


def test_rows_without_weight_leave_and_negative_weights_are_refused() -> None:
    f = panel(seed=27).frame
    out = f["unit"] % 3 == 0
    kept = f[~out]
    some = _within.linear(kept, {"d": kept["d"].to_numpy()}, fixed_of(kept, "unit", "time"))
    none = f.assign(weight=f["weight"].where(~out, 0.0))
    all_ = _within.linear(none, {"d": f["d"].to_numpy()}, fixed_of(f, "unit", "time"))
    assert all_.beta == pytest.approx(some.beta, rel=1e-12)
    assert all_.vcov == pytest.approx(some.vcov, rel=1e-12)
    assert (all_.n_obs, all_.n_clusters) == (some.n_obs, some.n_clusters)
    with pytest.raises(Inapplicable, match="missing or infinite values in x, the outcome"):
        x, y = f["x"].where(f["unit"] > 3).to_numpy(), f["y"].where(f["unit"] > 3)
        _within.linear(f.assign(y=y), {"d": f["d"].to_numpy(), "x": x}, fixed_of(f, "unit", "time"))
    with pytest.raises(Inapplicable, match="negative"):
        _within.linear(f.assign(weight=-f["weight"]), {"d": f["d"].to_numpy()}, fixed_of(f, "unit", "time"))


@pytest.mark.parametrize(
    "column",
    [
        pd.Series([7, -3, 7, 10**12, 0]),
        pd.Series(["b", "a", "b", "", "é"]),
        pd.Series([2.5, -1.0, 2.5, np.inf, 0.0]),
        pd.Series([True, False, True, True, True]),
        pd.Series([5, 3, 5, 4, 3], dtype="int8"),
        pd.Series(["x", "y", "x", "x", "z"], dtype="category"),
        pd.Series(pd.to_datetime(["2015-01-01", "2014-01-01", "2015-01-01", "2016-01-01", "2014-01-01"])),
    ],
    ids=["far apart", "text", "floats", "truth", "small", "category", "dates"],
)
def test_codes_are_those_of_sorted_values(column: pd.Series) -> None:
    first = np.unique(np.asarray(column), return_inverse=True)[1]
    assert _within.codes(column).tolist() == first.tolist()
    other = pd.Series([1, 1, 2, 1, 2])
    both = np.unique(first * 3 + other.to_numpy(), return_inverse=True)[1]
    assert _within.codes(column, other).tolist() == both.tolist()


def test_twins_linearmodels_and_statsmodels() -> None:
    """The same ATT; the same error once K is counted alike (their defaults count other things)."""
    import statsmodels.api as sm
    from linearmodels.panel import PanelOLS

    s = panel(seed=28, effect=0.5)
    f = s.frame
    ours = _within.linear(f, {"d": f["d"].to_numpy()}, fixed_of(f, "unit", "time"))
    error, n, units, years = np.sqrt(ours.vcov[0, 0]), len(f), f["unit"].nunique(), f["time"].nunique()
    indexed = f.set_index(["unit", "time"])
    lm = PanelOLS(indexed["y"], indexed[["d"]], weights=indexed["weight"], entity_effects=True, time_effects=True).fit(
        cov_type="clustered", clusters=indexed[["cluster"]], auto_df=False, count_effects=False, group_debias=True
    )
    assert float(lm.params["d"]) == pytest.approx(ours.beta[0], rel=1e-8)
    assert float(lm.std_errors["d"]) * np.sqrt((n - 1) / (n - 1 - years)) == pytest.approx(error, rel=1e-8)
    x = pd.get_dummies(f[["unit", "time"]].astype(str), drop_first=True).astype(float).assign(d=f["d"], const=1.0)
    ols = sm.WLS(f["y"], x, weights=f["weight"]).fit(cov_type="cluster", cov_kwds={"groups": f["cluster"]})
    assert float(ols.params["d"]) == pytest.approx(ours.beta[0], rel=1e-8)
    assert float(ols.bse["d"]) * np.sqrt((n - units - years) / (n - 1 - years)) == pytest.approx(error, rel=1e-8)


# --- calendar years --------------------------------------------------------------------------------------------


def terms_of(fit: Fit, name: str) -> dict[Any, Any]:
    return {t.period: t for t in fit.terms if t.name == name}


def test_calendar_years_are_the_event_study_where_all_start_together() -> None:
    s = panel(seed=31, effect=0.4)
    years, since = calendar_effects.estimate(s), event_study.estimate(s)
    by_year = terms_of(years, "calendar")
    for e, term in terms_of(since, "event_time").items():
        assert by_year[e + 5].estimate == pytest.approx(term.estimate, rel=1e-9)
        assert by_year[e + 5].std_error == pytest.approx(term.std_error, rel=1e-8, nan_ok=True)
    assert terms_of(years, "leads")[None].statistic == pytest.approx(terms_of(since, "leads")[None].statistic, rel=1e-7)


def test_some_effect_after_a_year() -> None:
    """`after` moves the joint test and the mean, and nothing else; one year's F is its t squared."""
    s = panel(seed=32, effect=0.4)
    whole, late = calendar_effects.estimate(s), calendar_effects.estimate(s, after=6)
    assert whole.facts["years"] == (5, 6, 7)
    assert late.facts["years"] == (7,)
    year = terms_of(whole, "calendar")[7]
    same = terms_of(late, "calendar")[7]  # fields one by one: NaN is not equal to itself
    assert (same.estimate, same.std_error, same.df, same.n_treated) == (
        year.estimate,
        year.std_error,
        year.df,
        year.n_treated,
    )
    assert terms_of(late, "years")[None].statistic == pytest.approx((year.estimate / year.std_error) ** 2, rel=1e-9)
    assert terms_of(late, "att_calendar")[None].estimate == pytest.approx(year.estimate, rel=1e-12)
    mean = np.mean([terms_of(whole, "calendar")[t].estimate for t in (5, 6, 7)])
    assert terms_of(whole, "att_calendar")[None].estimate == pytest.approx(mean, rel=1e-12)
    with pytest.raises(Inapplicable, match="no year after 2030"):
        calendar_effects.estimate(s, after=2030)


def test_calendar_years_say_when_starts_are_staggered_and_find_a_planted_path() -> None:
    s = panel(seed=33)
    f = s.frame
    path = {5: 0.1, 6: 0.3, 7: 0.8}
    noise = np.random.default_rng(0).normal(scale=1e-9, size=len(f))
    planted = f.assign(y=2.0 * f["unit"] - f["time"] + f["d"] * f["time"].map(path).fillna(0) + noise)
    fit = calendar_effects.estimate(replace(s, frame=planted))
    for year, effect in path.items():
        assert terms_of(fit, "calendar")[year].estimate == pytest.approx(effect, abs=1e-7)
    first = f["first_treated"] + (f["cluster"] % 2)
    late = f.assign(first_treated=first, d=((f["treated"] == 1) & (f["time"] >= first)).astype(float))
    assert "staggered" in calendar_effects.estimate(replace(s, frame=late)).caution


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda f: f.sample(frac=1, random_state=2), id="shuffle rows"),
        pytest.param(lambda f: f.assign(unit=10_000 - 7 * f["unit"]), id="relabel units"),
        pytest.param(lambda f: f.assign(weight=5 * f["weight"]), id="scale weights"),
        pytest.param(lambda f: f.assign(y=f["y"] + 3 * f["unit"] + np.sin(f["time"])), id="unit and year effects"),
    ],
)
def test_laws_of_calendar_years(change: Any) -> None:
    s = panel(seed=34)
    one, two = calendar_effects.estimate(s), calendar_effects.estimate(replace(s, frame=change(s.frame)))
    for a, b in zip(one.terms, two.terms, strict=True):
        assert (a.name, a.period) == (b.name, b.period)
        got, wanted = (b.estimate, b.std_error, b.statistic), (a.estimate, a.std_error, a.statistic)
        assert got == pytest.approx(wanted, rel=1e-7, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda f: f[f["time"] >= 5], "no period before"),
        (lambda f: f[f["time"] < 5], "no period after"),
        (lambda f: f[f["treated"] == 0], "0 treated"),
        (lambda f: f[(f["treated"] == 0) | (f["cluster"] == 0)], "1 treated cluster"),
        (lambda f: f.assign(y=3.0), "constant"),
        (lambda f: f.assign(weight=0.0), "weights are zero"),
        (lambda f: f[:0], "no rows"),
    ],
)
def test_calendar_years_refuse_degenerate_input(change: Any, reason: str) -> None:
    s = panel(seed=34)
    with pytest.raises(Inapplicable, match=reason):
        calendar_effects.estimate(replace(s, frame=change(s.frame)))


# --- dose ------------------------------------------------------------------------------------------------------


def dosed(seed: int = 41, **changes: Any) -> Sample:
    s = panel(seed=seed)
    return replace(s, frame=s.frame.assign(spend=10.0 + s.frame["unit"] * 7 % 40, **changes), covariates=("spend",))


def test_a_planted_dose_response_is_found() -> None:
    s = dosed()
    f = s.frame
    mean = f[f["treated"] == 1].groupby("unit")["spend"].first().mean()
    noise = np.random.default_rng(0).normal(scale=1e-9, size=len(f))
    y = 2.0 * f["unit"] - f["time"] + f["d"] * (0.5 + 0.02 * (f["spend"] - mean)) + noise
    fit = dose_response.estimate(replace(s, frame=f.assign(y=y)), dose="spend")
    at = {(t.name, t.level): t for t in fit.terms}
    assert at["att", ""].estimate == pytest.approx(0.5, abs=1e-7)
    assert at["dose", ""].estimate == pytest.approx(0.02, abs=1e-8)
    thirds = [at["att", level].estimate for level in dose_response.THIRDS]
    assert thirds == sorted(thirds)
    assert fit.facts["mean"] == pytest.approx(mean)
    assert sum(at["att", level].n_treated for level in dose_response.THIRDS) == fit.n_treated
    assert at["difference", ""].df_num == 2


def test_a_third_alone_is_its_own_regression() -> None:
    s = dosed()
    fit = dose_response.estimate(s, dose="spend")
    low = {(t.name, t.level): t for t in fit.terms}["att", "lowest third"]
    keep = (s.frame["treated"] == 0) | (s.frame["spend"] <= fit.facts["cuts"][0])
    alone = twfe.estimate(replace(s, frame=s.frame[keep], covariates=())).terms[0]
    assert low.estimate == pytest.approx(alone.estimate, rel=1e-8)
    assert low.n_treated == alone.n_treated


def test_the_unit_of_the_dose_scales_its_slope_and_nothing_else() -> None:
    s = dosed()
    one = dose_response.estimate(s, dose="spend").terms
    two = dose_response.estimate(replace(s, frame=s.frame.assign(spend=100 * s.frame["spend"])), dose="spend").terms
    for a, b in zip(one, two, strict=True):
        factor = 100 if a.name == "dose" else 1
        assert factor * b.estimate == pytest.approx(a.estimate, rel=1e-8, nan_ok=True)
        assert factor * b.std_error == pytest.approx(a.std_error, rel=1e-8, nan_ok=True)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda f: f.assign(spend=f["spend"].where(f["unit"] > 3)), "missing or not finite in 32 treated rows"),
        (lambda f: f.assign(spend=f["spend"] + f["time"]), "varies within 48 units"),
        (lambda f: f.assign(spend=3.0), "the same in all treated units"),
        (lambda f: f.drop(columns="spend"), "no column spend"),
    ],
)
def test_a_dose_that_is_none_is_refused(change: Any, reason: str) -> None:
    s = dosed()
    with pytest.raises(Inapplicable, match=reason):
        dose_response.estimate(replace(s, frame=change(s.frame), covariates=()), dose="spend")


def test_thirds_are_left_out_where_doses_are_tied() -> None:
    s = dosed()
    fit = dose_response.estimate(replace(s, frame=s.frame.assign(spend=1.0 + s.frame["unit"] % 2)), dose="spend")
    assert "thirds are left out" in fit.caution
    assert {t.name for t in fit.terms} == {"att", "dose"}


# --- the door --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "outcome", "covariates", "options"),
    [
        ("calendar_effects", "score", (), {"after": 2015}),
        ("dose_response", "score", ("spend",), {"dose": "spend"}),
        ("repeated_cross_section", "score", ("sex", "age", "region"), {"errors": "design", "strata": "region"}),
        ("logit_did", "ill", ("sex", "age"), {"group": "cluster"}),
        ("poisson", "crimes", ("people",), {"offset": "people"}),
    ],
)
def test_any_frame_through_the_door(
    name: str, outcome: str, covariates: tuple[str, ...], options: dict[str, Any]
) -> None:
    """A frame with names of its own, text and numbers, and columns that do not matter."""
    rng = np.random.default_rng(3)
    f = panel(seed=61).frame
    frame = pd.DataFrame(
        {
            "place": "E0" + f["unit"].astype(str),
            "year": f["time"] + 2010,
            "start": f["first_treated"] + 2010,
            "area": "area " + f["cluster"].astype(str),
            "region": "region " + (f["cluster"] // 10).astype(str),
            "w": f["weight"],
            "score": f["y"],
            "ill": f["y"] > 0.4,
            "crimes": rng.poisson(np.exp(2 + 0.3 * f["y"])),
            "people": np.log(1000.0 + 10 * f["unit"]),
            "spend": 5.0 + f["unit"] % 11,
            "sex": rng.choice(["man", "woman"], size=len(f)),
            "age": rng.integers(16, 90, size=len(f)),
            "of no matter": "?",
        }
    )
    found = fit(
        name, frame, y=outcome, unit="place", time="year", first_treated="start", cluster="area", weight="w",
        covariates=covariates, options=options,
    )  # fmt: skip
    assert found.n_clusters == 30
    assert all(np.isfinite(t.estimate) and t.std_error > 0 for t in found.terms if t.tested and t.df_num is None)
