"""Two-way fixed effects, event study and inference against fixest, fwildclusterboot, linearmodels, statsmodels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from biglocal import inference
from biglocal.estimators import balance, event_study, twfe
from biglocal.model import Fit, Sample
from panels import panel, said_by_hash_seed, sample
from reference_cases import case, data


def finished(s: Sample, fit: Fit) -> Fit:
    return inference.cluster(twfe.estimate, s, fit, np.random.default_rng(0), conf_level=0.95)


def base_did() -> pd.DataFrame:
    frame = data("base_did.csv")
    return frame.assign(d=frame["treat"] * frame["post"])


def test_twfe_base_did() -> None:
    expected = case("twfe_base_did")["results"]["cluster_unit"]
    s = sample(base_did(), "y", "id", "period", "d", covariates=["x1"])
    att = finished(s, twfe.estimate(s)).terms[0]
    i = expected["term"].index("treat:post")
    for ours, theirs in (
        (att.estimate, "estimate"),
        (att.std_error, "se"),
        (att.statistic, "stat"),
        (att.p_value, "p"),
        (att.conf_low, "ci_low"),
        (att.conf_high, "ci_high"),
    ):
        assert ours == pytest.approx(expected[theirs][i], rel=1e-8)
    assert att.df == expected["df_t"]


@pytest.mark.parametrize(("name", "weight"), [("twfe_castle", None), ("twfe_castle_weighted", "popwt")])
def test_twfe_castle(name: str, weight: str | None) -> None:
    expected = case(name)["results"]["cluster_unit"]
    covariates = [t for t in expected["term"] if t != "post"]
    s = sample(data("castle.csv"), "l_homicide", "sid", "year", "post", weight=weight, covariates=covariates)
    att = finished(s, twfe.estimate(s)).terms[0]
    i = expected["term"].index("post")
    assert att.estimate == pytest.approx(expected["estimate"][i], rel=1e-8)
    assert att.std_error == pytest.approx(expected["se"][i], rel=1e-8)
    assert att.p_value == pytest.approx(expected["p"][i], rel=1e-7)


def test_event_study_base_did() -> None:
    expected = case("es_base_did")["results"]
    s = sample(base_did(), "y", "id", "period", "d", covariates=["x1"])
    fit = finished(s, event_study.estimate(s))
    theirs = dict(
        zip(
            expected["cluster_unit"]["term"],
            zip(expected["cluster_unit"]["estimate"], expected["cluster_unit"]["se"], strict=True),
            strict=True,
        )
    )
    for term in fit.terms:
        if term.name == "event_time" and term.period != -1:
            estimate, se = theirs[f"period::{term.period + 6}:treat"]
            assert term.estimate == pytest.approx(estimate, rel=1e-7)
            assert term.std_error == pytest.approx(se, rel=1e-7)
    leads = next(t for t in fit.terms if t.name == "leads")
    assert leads.statistic == pytest.approx(expected["wald_pre"]["stat"], rel=1e-6)
    assert leads.df_num == expected["wald_pre"]["df1"]


def test_wild_bootstrap_castle() -> None:
    expected = case("wcb_castle_twfe")["results"]["lm_dummies_rademacher"]
    s = sample(data("castle.csv"), "l_homicide", "sid", "year", "post")
    fit = inference.wild_bootstrap(
        twfe.estimate, s, twfe.estimate(s), np.random.default_rng(7), conf_level=0.95, draws=99_999
    )
    att = fit.terms[0]
    assert att.estimate == pytest.approx(expected["estimate"], rel=1e-9)
    assert att.p_value == pytest.approx(expected["p"], abs=0.005)
    width = expected["ci"][1] - expected["ci"][0]
    assert att.conf_low == pytest.approx(expected["ci"][0], abs=0.01 * width)
    assert att.conf_high == pytest.approx(expected["ci"][1], abs=0.01 * width)


def test_wild_bootstrap_is_what_refits_of_every_sign_vector_give() -> None:
    """Full enumeration with ten clusters against an obvious loop: build each bootstrap sample and refit it."""
    s = panel(seed=3, units=30, years=6, start=4, effect=0.4, clusters=10)
    s = replace(s, covariates=("x",))
    fit = inference.wild_bootstrap(
        twfe.estimate, s, twfe.estimate(s), np.random.default_rng(0), conf_level=0.95, draws=1024
    )
    assert fit.facts["enumerated"]
    f = s.frame
    w = f["weight"].to_numpy()
    dummies = pd.get_dummies(f[["unit", "time"]].astype(str), drop_first=True).to_numpy(dtype=float)
    z = np.column_stack([np.ones(len(f)), dummies, f["x"]])
    d, y, g = f["d"].to_numpy(), f["y"].to_numpy(), f["cluster"].to_numpy()
    full = np.column_stack([d, z])
    root = np.sqrt(w)[:, None]
    pseudo = np.linalg.pinv(full * root)
    bread = np.linalg.pinv((full * root).T @ (full * root))[0]

    def t_of(outcome: np.ndarray) -> float:
        beta = pseudo @ (root[:, 0] * outcome)
        u = w * (outcome - full @ beta)
        scores = np.array([(full * u[:, None])[g == k].sum(axis=0) for k in range(10)])
        return float(beta[0] / np.sqrt(((scores @ bread) ** 2).sum()))

    restricted = z @ (np.linalg.pinv(z * root) @ (root[:, 0] * y))
    u = y - restricted
    signs = 2.0 * ((np.arange(1024)[:, None] >> np.arange(10)) & 1) - 1
    t0 = abs(t_of(y))
    plain = np.mean([abs(t_of(restricted + v[g] * u)) > t0 * (1 + 1e-9) for v in signs])
    assert fit.terms[0].p_value == pytest.approx(float(plain), abs=2 / 1024)


def test_holm_and_benjamini_hochberg() -> None:
    expected = case("multtest_castle")["results"]
    assert inference.adjust(expected["p"], "holm") == pytest.approx(expected["holm"], rel=1e-9)
    assert inference.adjust(expected["p"], "fdr_bh") == pytest.approx(expected["BH"], rel=1e-9)


def test_three_libraries_agree_under_one_convention() -> None:
    """pyfixest (ours), linearmodels and statsmodels: the same ATT and, with K counted alike, the same error."""
    import statsmodels.api as sm
    from linearmodels.panel import PanelOLS

    s = panel(seed=11, effect=0.5)
    f = s.frame
    att = twfe.estimate(s).terms[0]
    g, n, units, years = 30, len(f), f["unit"].nunique(), f["time"].nunique()
    indexed = f.set_index(["unit", "time"])
    lm = PanelOLS(indexed["y"], indexed[["d"]], weights=indexed["weight"], entity_effects=True, time_effects=True).fit(
        cov_type="clustered", clusters=indexed[["cluster"]], auto_df=False, count_effects=False, group_debias=True
    )
    ours_k, theirs_k = 1 + years, 1
    factor = np.sqrt((n - 1) / (n - ours_k) * (n - theirs_k) / (n - 1))
    assert float(lm.params["d"]) == pytest.approx(att.estimate, rel=1e-8)
    assert float(lm.std_errors["d"]) * factor == pytest.approx(att.std_error, rel=1e-8)
    x = pd.get_dummies(f[["unit", "time"]].astype(str), drop_first=True).astype(float)
    x.insert(0, "d", f["d"])
    x.insert(0, "const", 1.0)
    ols = sm.WLS(f["y"], x, weights=f["weight"]).fit(cov_type="cluster", cov_kwds={"groups": f["cluster"]})
    k = units + years
    factor = np.sqrt((n - k) / (n - ours_k))
    assert float(ols.params["d"]) == pytest.approx(att.estimate, rel=1e-8)
    assert float(ols.bse["d"]) * factor == pytest.approx(att.std_error, rel=1e-8)
    assert g == twfe.estimate(s).n_clusters


@pytest.mark.slow
def test_estimates_do_not_follow_the_hash_seed() -> None:
    """pyfixest 0.60.0's own clustered errors do, by 1%, and its last digits. Ten fresh processes, one text: through
    pyfixest, linear and Poisson, and by our own solver."""
    code = (
        "from dataclasses import replace; from panels import panel; from biglocal.estimators import poisson, twfe; "
        "from biglocal.estimators import _fixest, _poisson; from biglocal.estimators._within import codes; "
        "s = panel(units=400, clusters=400, years=10); f = s.frame.sample(frac=0.7, random_state=1); "
        "n = f.assign(y=(f['y'] * 3).round().clip(lower=0) + 1); fixed = {c: codes(f[c]) for c in ('unit', 'time')}; "
        "a = _fixest.linear(f, {'d': f['d'].to_numpy(), 'x': f['x'].to_numpy()}, fixed); "
        "b = _poisson.poisson(n, {'d': f['d'].to_numpy()}, fixed); "
        "print(a.beta.tolist(), a.vcov.tolist(), b.beta.tolist(), b.vcov.tolist(), "
        "twfe.estimate(replace(s, frame=f)), poisson.estimate(replace(s, frame=n)))"
    )
    assert len(said_by_hash_seed(code)) == 1


def test_balance_agrees_with_cobalt() -> None:
    expected = case("match_lalonde_nn1")["results"]
    frame = data("lalonde.csv")
    weights = np.asarray(expected["weights"], dtype=float)
    cobalt = expected["cobalt"]
    for name in ("age", "educ", "re74", "re75", "married"):
        rows = pd.DataFrame({"y": frame[name].astype(float), "treated": frame["treat"], "weight": weights})
        terms = {
            t.name: t.estimate for t in balance.estimate(Sample(rows.assign(cluster=0, unit=rows.index), "")).terms
        }
        i = cobalt["var"].index(name)
        for ours, theirs in (
            ("smd_unmatched", "smd_un_treated"),
            ("smd_matched", "smd_adj_treated"),
            ("variance_ratio_unmatched", "vr_un"),
            ("variance_ratio_matched", "vr_adj"),
            ("ks_unmatched", "ks_un"),
            ("ks_matched", "ks_adj"),
        ):
            if cobalt[theirs][i] is not None:
                assert terms[ours] == pytest.approx(cobalt[theirs][i], rel=1e-6, abs=1e-9), f"{name} {ours}"
