"""After matching: the difference in changes, Rosenbaum's bounds, E-value and Oster's bounds."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import ndtr

from biglocal.estimators import correction, estimator, fit, matched_change, rosenbaum, twfe, unmeasured
from biglocal.model import Inapplicable, Sample
from panels import panel

Frame = Callable[[pd.DataFrame], pd.DataFrame]


def matched(
    seed: int = 1, sets: int = 60, years: int = 8, effect: float = 0.0, areas: int = 20, starts: tuple[int, ...] = (4,)
) -> Sample:
    """Sets of one treated unit and one to four comparison units (weights 1 over their number), in areas of sets."""
    rng = np.random.default_rng(seed)
    size = 1 + np.arange(sets) % 4
    of_unit = np.repeat(np.arange(sets), 1 + size)
    first = np.append(True, np.diff(of_unit) > 0)
    weight = np.where(first, 1.0, 1 / size[of_unit])
    area = of_unit * areas // sets
    start = np.asarray(starts)[area % len(starts)]
    n = len(of_unit)
    unit, time = np.repeat(np.arange(n), years), np.tile(np.arange(years), n)
    d = first[unit] & (time >= start[unit])
    y = rng.normal(size=n)[unit] + rng.normal(size=years)[time] + rng.normal(scale=0.7, size=len(unit)) + effect * d
    shock = rng.normal(scale=0.3, size=(areas, 2, years))
    y = y + shock[area[unit], first[unit].astype(int), time]
    frame = pd.DataFrame(
        {
            "y": y,
            "d": d.astype(float),
            "treated": first[unit].astype(int),
            "first_treated": np.where(first[unit], start[unit], np.nan).astype(float),
            "unit": unit,
            "time": time,
            "cluster": area[unit],
            "weight": weight[unit],
            "level": np.where(area[unit] % 2 == 0, "even", "odd"),
            "set": np.flatnonzero(first)[of_unit[unit]],
        }
    )
    return Sample(frame, "points")


def with_frame(sample: Sample, change: Frame) -> Sample:
    return replace(sample, frame=change(sample.frame))


def set_effects(frame: pd.DataFrame) -> pd.DataFrame:
    """A slow and plain table of sets: effect, weight, area."""
    out = []
    for _, rows in frame.groupby("set"):
        start = rows["first_treated"].min()
        change = rows.groupby("unit").apply(
            lambda g, s=start: g.loc[g["time"] >= s, "y"].mean() - g.loc[g["time"] < s, "y"].mean(),
            include_groups=False,
        )
        units = rows.groupby("unit").first()
        t = units["treated"] == 1
        effect = change[t].mean() - np.average(change[~t], weights=units.loc[~t, "weight"])
        out.append((effect, units.loc[t, "weight"].sum(), units["cluster"].iloc[0]))
    return pd.DataFrame(out, columns=["effect", "weight", "area"])


# ---- the matched difference in changes


@pytest.mark.parametrize("make", [panel, matched], ids=["weights", "sets"])
def test_with_one_start_it_is_two_way_fixed_effects(make: Callable[..., Sample]) -> None:
    sample = make(seed=5, effect=0.4)
    ours, theirs = matched_change.estimate(sample), twfe.estimate(sample)
    att, reference = ours.terms[0], theirs.terms[0]
    assert att.estimate == pytest.approx(reference.estimate, rel=1e-10)
    # the same sandwich: only the counts of rows and parameters differ, units here, units by years there
    f, units, clusters = sample.frame, ours.n_units, ours.n_clusters
    factor = correction(units, 2, clusters) / correction(len(f), 1 + f["time"].nunique(), clusters)
    assert att.std_error == pytest.approx(reference.std_error * np.sqrt(factor), rel=1e-9)


@pytest.mark.parametrize("starts", [(4,), (3, 5, 6)], ids=["one start", "staggered"])
def test_sets_are_the_mean_of_differences_in_changes(starts: tuple[int, ...]) -> None:
    sample = matched(seed=2, effect=0.5, starts=starts)
    found = matched_change.estimate(sample)
    table = set_effects(sample.frame)
    share = table["weight"] / table["weight"].sum()
    att = float(share @ table["effect"])
    assert found.terms[0].estimate == pytest.approx(att, rel=1e-12)
    assert found.facts["sets"] == len(table)
    if len(starts) == 1:
        sums = (share * (table["effect"] - att)).groupby(table["area"]).sum()
        error = np.sqrt((sums**2).sum() * correction(found.n_units, 2, found.n_clusters))
        assert found.terms[0].std_error == pytest.approx(error, rel=1e-12)


def test_effects_that_differ_by_start_are_averaged_over_treated_units() -> None:
    """No noise, no sets, three starts with effects of 1, 2 and 3: two-way fixed effects go astray here."""
    base = matched(seed=3, starts=(3, 5, 6)).frame.drop(columns="set")
    effect = base["first_treated"].map({3.0: 1.0, 5.0: 2.0, 6.0: 3.0}).fillna(0) * base["d"]
    frame = base.assign(y=base["unit"] * 0.1 + np.sin(base["time"]) + effect)
    treated = frame[(frame["treated"] == 1) & (frame["time"] == 7)]
    expected = np.average(effect[treated.index], weights=treated["weight"])
    found = fit(
        "matched_change", frame, y="y", unit="unit", time="time", first_treated="first_treated", weight="weight",
        cluster="cluster",
    )  # fmt: skip
    assert found.terms[0].estimate == pytest.approx(expected, abs=1e-12)


def test_a_start_that_nobody_is_left_of_is_no_hindrance() -> None:
    sample = matched(seed=3, starts=(3, 5, 6))
    left = sample.frame["first_treated"].eq(5) & (sample.frame["time"] < 5)
    found = matched_change.estimate(with_frame(sample, lambda f: f[~left]))
    assert found.terms[0].std_error > 0
    assert "left out" in found.caution


def test_levels_are_separate_samples_and_their_difference_is_tested() -> None:
    sample = replace(matched(seed=4), levels=("even", "odd"))
    together = {(t.name, t.level): t for t in matched_change.estimate(sample).terms}
    alone = {
        k: matched_change.estimate(
            with_frame(replace(sample, levels=()), lambda f, k=k: f[f["level"] == k].assign(level=""))
        ).terms[0]
        for k in ("even", "odd")
    }
    for level, term in alone.items():
        assert together["att", level].estimate == pytest.approx(term.estimate, rel=1e-12)
        assert together["att", level].std_error == pytest.approx(term.std_error, rel=0.06)  # their counts differ
    gap = together["difference", ""]
    assert gap.estimate == pytest.approx(alone["odd"].estimate - alone["even"].estimate, rel=1e-10)
    # areas lie in one level, so the two are independent
    both = together["att", "odd"].std_error ** 2 + together["att", "even"].std_error ** 2
    assert gap.std_error**2 == pytest.approx(both, rel=1e-10)


def test_units_seen_on_one_side_only_leave_and_it_is_said() -> None:
    sample = matched(seed=6)
    gone = sample.frame.loc[sample.frame["treated"] == 1, "unit"].unique()[:3]
    found = matched_change.estimate(with_frame(sample, lambda f: f[~(f["unit"].isin(gone) & (f["time"] >= 4))]))
    assert "3 treated units are left out" in found.caution
    rest = matched_change.estimate(with_frame(sample, lambda f: f[~f["set"].isin(gone)]))
    assert found.terms[0].estimate == pytest.approx(rest.terms[0].estimate, rel=1e-12)


def test_coverage_of_the_matched_difference() -> None:
    """200 panels with clustered shocks, no effect: rejected at about 5% (binomial bounds at 99.9%)."""
    from scipy.special import stdtrit

    rejected = 0
    for seed in range(200):
        att = matched_change.estimate(matched(seed=500 + seed, sets=40, years=4, starts=(2,))).terms[0]
        rejected += abs(att.estimate / att.std_error) > stdtrit(att.df, 0.975)
    assert 1 <= rejected <= 22, rejected


# ---- Rosenbaum's bounds

# Morton et al. (1982), lead in the blood of children whose parents worked with it, and of their matched controls
EXPOSED = [
    38,
    23,
    41,
    18,
    37,
    36,
    23,
    62,
    31,
    34,
    24,
    14,
    21,
    17,
    16,
    20,
    15,
    10,
    45,
    39,
    22,
    35,
    49,
    48,
    44,
    35,
    43,
    39,
    34,
    13,
    73,
    25,
    27,
]
CONTROL = [
    16,
    18,
    18,
    24,
    19,
    11,
    10,
    15,
    16,
    18,
    18,
    13,
    19,
    10,
    16,
    16,
    24,
    13,
    9,
    14,
    21,
    19,
    7,
    18,
    19,
    12,
    11,
    22,
    25,
    16,
    13,
    11,
    13,
]


def lead_sample() -> Sample:
    """The pairs as a panel of two periods that starts at nought, so that changes are the levels."""
    n = len(EXPOSED)
    after = pd.DataFrame({"y": [*EXPOSED, *CONTROL], "unit": range(2 * n), "time": 1})
    frame = pd.concat([after.assign(y=0.0, time=0), after.assign(y=after["y"].astype(float))])
    treated = (frame["unit"] < n).astype(int)
    return Sample(
        frame.assign(
            treated=treated, d=treated * frame["time"], first_treated=np.where(treated == 1, 1.0, np.nan),
            set=frame["unit"] % n, cluster=frame["unit"] % n, weight=1.0, level="",
        ),
        "",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("gamma", "published"), [(1, 0.0001), (2, 0.0018), (3, 0.0136), (4, 0.0388), (4.25, 0.0468), (5, 0.0740)]
)
def test_signed_rank_bounds_of_lead_in_childrens_blood(gamma: float, published: float) -> None:
    """Rosenbaum (2002, Observational Studies, section 4.3): upper bounds on the one-sided p-value."""
    found = rosenbaum.estimate(lead_sample(), gammas=(gamma,), statistic="signed_rank").terms[0]
    one_sided = found.p_value / 2
    if gamma == 1:
        assert one_sided < published
    else:
        assert round(one_sided, 4) == published
    assert found.level == f"{gamma:g}"


def worst(sets: list[np.ndarray], gamma: float) -> float:
    """The deviate by trying every bias u in {0, 1}^J in every set."""
    observed = mean = variance = 0.0
    for scores in sets:
        for q in scores:
            tried = []
            for u in itertools.product((0, 1), repeat=len(q)):
                p = gamma ** np.array(u, dtype=float)
                p /= p.sum()
                tried.append((round(float(p @ q), 12), float(p @ q**2 - (p @ q) ** 2)))
            best = max(tried)
            observed, mean, variance = observed + q[0], mean + best[0], variance + best[1]
    return float((observed - mean) / np.sqrt(variance))


@pytest.mark.parametrize("gamma", [1.0, 1.5, 4.0])
@pytest.mark.parametrize("trim", [1.0, 2.5, np.inf])
def test_the_worst_bias_is_found(gamma: float, trim: float) -> None:
    rng = np.random.default_rng(0)
    sets = [rng.normal(size=(20, j)) + 0.5 * (np.arange(j) == 0) for j in (2, 3, 5)]
    scores = rosenbaum.m_scores(sets, trim)
    p, deviate = rosenbaum.p_bound(scores, gamma)
    expected = max(worst(scores, gamma), worst([-q for q in scores], gamma))
    assert deviate == pytest.approx(expected, rel=1e-8)
    assert p == pytest.approx(min(1, 2 * ndtr(-expected)), rel=1e-8)


def test_scores_are_those_of_the_definition() -> None:
    sets = [np.array([[3.0, 1.0], [0.0, 5.0]]), np.array([[2.0, 1.0, -1.0]])]
    apart = [2, 5, 1, 3, 2]  # differences within sets
    h = np.median(apart)
    pair, triple = rosenbaum.m_scores(sets, trim=1.2)

    def psi(x: float) -> float:
        return float(np.clip(x / (1.2 * h), -1, 1))

    assert pair == pytest.approx(np.array([[psi(2), psi(-2)], [psi(-5), psi(5)]]) / 2)
    assert triple[0] == pytest.approx(np.array([psi(1) + psi(3), psi(-1) + psi(2), psi(-3) + psi(-2)]) / 3)


def test_without_bias_it_is_the_randomisation_test() -> None:
    """Gamma 1, no trimming: the mean and variance of the treated score over all choices of who is treated."""
    rng = np.random.default_rng(1)
    y = rng.normal(size=(5, 3)) + np.array([0.3, 0, 0])
    (q,) = rosenbaum.m_scores([y], np.inf)
    totals = [sum(q[i, j] for i, j in enumerate(who)) for who in itertools.product(range(3), repeat=5)]
    deviate = (q[:, 0].sum() - np.mean(totals)) / np.std(totals)
    assert rosenbaum.p_bound([q], 1.0)[0] == pytest.approx(2 * ndtr(-abs(deviate)), rel=1e-10)


def test_bounds_grow_with_gamma_and_the_breakdown_is_where_they_cross() -> None:
    sample = matched(seed=7, effect=0.9)
    found = rosenbaum.estimate(sample, gammas=(1, 1.5, 2, 5, 20), assigned="unit")
    p = [t.p_value for t in found.terms if t.name == "gamma"]
    assert p == sorted(p)
    breakdown = found.terms[-1].estimate
    assert 1 < breakdown < 20
    at = rosenbaum.estimate(sample, gammas=(breakdown,), assigned="unit").terms[0]
    assert at.p_value == pytest.approx(0.05, rel=1e-8)
    assert np.isnan(rosenbaum.estimate(matched(seed=7), assigned="unit", alpha=1e-6).terms[-1].estimate)


def test_a_bias_of_gamma_is_not_taken_for_an_effect() -> None:
    """Of 400 studies of 80 pairs in which the larger response is treated at odds of 2, the bound at 2 rejects 5%."""
    rng = np.random.default_rng(5)
    rejected = {1.0: 0, 2.0: 0}
    for _ in range(400):
        y = np.sort(rng.normal(size=(80, 2)), axis=1)
        larger = rng.uniform(size=80) < 2 / 3
        scores = rosenbaum.m_scores([np.where(larger[:, None], y[:, ::-1], y)])
        for gamma in rejected:
            rejected[gamma] += rosenbaum.p_bound(scores, gamma)[0] < 0.10  # one-sided 5%
    assert rejected[1.0] > 300
    assert 8 <= rejected[2.0] <= 36, rejected


def test_full_matching_turns_sets_about() -> None:
    """Several treated to one comparison unit: the same as treating the one and turning the outcome's sign."""
    sample = matched(seed=8, effect=0.4)
    f = sample.frame
    other = f.assign(
        treated=1 - f["treated"], y=-f["y"], first_treated=np.where(f["treated"] == 1, np.nan, 4.0),
        d=(1 - f["treated"]) * (f["time"] >= 4), weight=1.0,
    )  # fmt: skip
    one = rosenbaum.estimate(sample, assigned="unit").terms
    two = rosenbaum.estimate(replace(sample, frame=other), assigned="unit").terms
    for a, b in zip(one, two, strict=True):
        assert (a.estimate, a.p_value) == pytest.approx((b.estimate, b.p_value), rel=1e-10, nan_ok=True)


def test_areas_are_one_pair_each() -> None:
    sample = matched(seed=9, effect=0.4)
    table = set_effects(sample.frame)
    table["area_effect"] = table["effect"] * table["weight"]
    by_area = table.groupby("area")[["area_effect", "weight"]].sum()
    gap = (by_area["area_effect"] / by_area["weight"]).to_numpy()
    scores = rosenbaum.m_scores([np.column_stack([gap, np.zeros_like(gap)])])
    found = rosenbaum.estimate(sample, gammas=(1.5,))
    assert found.facts["sets"] == len(gap)
    assert found.terms[0].p_value == pytest.approx(rosenbaum.p_bound(scores, 1.5)[0], rel=1e-10)
    # whole areas matched to whole areas: sets of several treated and several comparison units
    whole = with_frame(sample, lambda f: f.assign(set=f["cluster"]))
    assert rosenbaum.estimate(whole, gammas=(1.5,)).terms[0].p_value == pytest.approx(found.terms[0].p_value, rel=1e-10)
    table, att = set_effects(whole.frame), matched_change.estimate(whole).terms[0].estimate
    assert att == pytest.approx(np.average(table["effect"], weights=table["weight"]), rel=1e-12)


# ---- unmeasured confounding


def test_e_values_of_the_paper() -> None:
    """VanderWeele and Ding (2017): RR 3.9 (95% interval 1.8 to 8.7) has E-values 7.26 and 3.0."""
    assert round(unmeasured.e_value(3.9), 2) == 7.26
    assert unmeasured.e_value(1.8) == pytest.approx(3.0)
    assert unmeasured.e_value(1 / 3.9) == pytest.approx(unmeasured.e_value(3.9))
    assert unmeasured.e_value(1.0) == 1.0


def test_e_value_of_an_estimate_and_its_limit() -> None:
    from scipy.special import stdtrit

    for effect in (0.8, -0.8):
        sample = panel(seed=4, effect=effect)
        att = twfe.estimate(sample).terms[0]
        f = sample.frame[(sample.frame["treated"] == 1) & (sample.frame["d"] == 0)]
        mean = np.average(f["y"], weights=f["weight"])
        sd = np.sqrt(np.average((f["y"] - mean) ** 2, weights=f["weight"]))
        found = {t.name: t.estimate for t in unmeasured.estimate(sample).terms}
        near = abs(att.estimate) - stdtrit(att.df, 0.975) * att.std_error
        assert near > 0
        assert found["standardised"] == pytest.approx(att.estimate / sd)
        assert found["e_value"] == pytest.approx(unmeasured.e_value(np.exp(0.91 * abs(att.estimate) / sd)))
        assert found["e_value_limit"] == pytest.approx(unmeasured.e_value(np.exp(0.91 * near / sd)))
    assert {t.name: t.estimate for t in unmeasured.estimate(panel(seed=4)).terms}["e_value_limit"] == 1.0


def test_an_indicator_has_a_risk_ratio_of_its_own() -> None:
    sample = with_frame(panel(seed=4, effect=1.5), lambda f: f.assign(y=100.0 * (f["y"] > 0.5)))
    att = twfe.estimate(sample).terms[0].estimate
    f = sample.frame[sample.frame["d"] == 1]
    risk = np.average(f["y"], weights=f["weight"])
    found = {t.name: t.estimate for t in unmeasured.estimate(sample).terms}
    assert found["e_value"] == pytest.approx(unmeasured.e_value(risk / (risk - att)))
    assert np.isnan(unmeasured.e_value(-0.2))  # an effect larger than the risk itself


def test_e_values_by_level() -> None:
    found = unmeasured.estimate(replace(panel(seed=4, effect=0.8), levels=("even", "odd")))
    assert {(t.name, t.level) for t in found.terms} == {
        (n, k) for n in ("standardised", "e_value", "e_value_limit") for k in ("even", "odd")
    }


@pytest.mark.parametrize("delta", [0.5, 1.0, 1.7])
def test_oster_recovers_what_was_hidden(delta: float) -> None:
    """Orthogonal confounders, one of them unseen and `delta` times as related to treatment: the truth comes out."""
    n, beta, related = 500, 0.3, 0.35
    raw = np.random.default_rng(1).normal(size=(n, 3))
    seen, hidden, own = (np.linalg.qr(raw - raw.mean(axis=0))[0] * np.sqrt(n)).T
    hidden *= 0.8
    x = related * seen + delta * related * hidden + 0.9 * own
    y = beta * x + seen + hidden
    short = x @ y / (x @ x)
    z = np.column_stack([x, seen])
    long = np.linalg.lstsq(z, y, rcond=None)[0]
    left = x - seen * (seen @ x) / (seen @ seen)
    s = unmeasured.Stability(
        short, float(long[0]), 1 - ((y - short * x) ** 2).sum() / (y @ y), 1 - ((y - z @ long) ** 2).sum() / (y @ y),
        y @ y / n, x @ x / n, left @ left / n,
    )  # fmt: skip
    assert unmeasured.oster_delta(s, 1.0, beta) == pytest.approx(delta, rel=1e-9)
    assert unmeasured.oster_beta(s, 1.0, delta) == pytest.approx(beta, rel=1e-9)
    assert unmeasured.oster_beta(s, 1.0, unmeasured.oster_delta(s, 1.0)) == pytest.approx(0, abs=1e-9)


def test_what_oster_needs_is_that_of_regressions_with_every_dummy() -> None:
    sample = replace(panel(seed=11, effect=0.5, units=60), covariates=("x",))
    f = sample.frame.assign(x=sample.frame["x"] + 2 * sample.frame["d"], y=lambda g: g["y"] + 0.4 * g["x"])
    sample = replace(sample, frame=f)
    dummies = pd.get_dummies(f[["unit", "time"]].astype(str), dtype=float).to_numpy()
    root = np.sqrt(f["weight"].to_numpy())[:, None]

    def left(v: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        b = np.linalg.lstsq(root * z, root[:, 0] * v, rcond=None)[0]
        return b, v - z @ b

    y, d, x = (f[c].to_numpy() for c in ("y", "d", "x"))
    w = f["weight"].to_numpy() / f["weight"].sum()
    y_in, d_in = left(y, dummies)[1], left(d, dummies)[1]
    b0, e0 = left(y, np.column_stack([d, dummies]))
    b1, e1 = left(y, np.column_stack([d, x, dummies]))
    left_of_d = left(d, np.column_stack([x, dummies]))[1]
    s = unmeasured.stability(sample)
    assert (s.beta_short, s.beta_long) == pytest.approx((b0[0], b1[0]), rel=1e-8)
    assert (s.r_short, s.r_long) == pytest.approx((1 - w @ e0**2 / (w @ y_in**2), 1 - w @ e1**2 / (w @ y_in**2)))
    assert (s.variance_y, s.variance_d, s.variance_left) == pytest.approx(
        (w @ y_in**2, w @ d_in**2, w @ left_of_d**2), rel=1e-8
    )
    found = {t.name: t.estimate for t in unmeasured.estimate(sample).terms}
    assert found["oster_delta"] == pytest.approx(unmeasured.oster_delta(s, min(1, 1.3 * s.r_long)))
    assert found["oster_beta"] == pytest.approx(unmeasured.oster_beta(s, min(1, 1.3 * s.r_long)))


# ---- laws of the two that answer on scales of their own


def numbers(name: str, sample: Sample) -> dict[tuple[str, str], tuple[float, float, float]]:
    return {(t.name, t.level): (t.estimate, t.statistic, t.p_value) for t in estimator(name)(sample).terms}


@pytest.mark.parametrize("name", ["rosenbaum", "unmeasured", "matched_change"])
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda f: f.sample(frac=1, random_state=2), id="shuffle rows"),
        pytest.param(lambda f: f.assign(unit=f["unit"].map(lambda u: f"E{9000 - 7 * u}")), id="relabel units"),
        pytest.param(
            lambda f: f.assign(cluster=f["cluster"].map(lambda c: f"area {97 * c % 1009}")), id="relabel clusters"
        ),
        pytest.param(lambda f: f.assign(set=f["set"].max() - f["set"]), id="relabel sets"),
        pytest.param(lambda f: f.assign(weight=5 * f["weight"]), id="scale weights"),
        pytest.param(lambda f: f.set_axis(f.index * 3 + 1), id="another index"),
        pytest.param(
            lambda f: f.assign(time=f["time"] + 2010, first_treated=f["first_treated"] + 2010), id="shift time"
        ),
        pytest.param(lambda f: f.assign(y=f["y"] + 5), id="shift the outcome"),
    ],
)
def test_nothing_moves(name: str, change: Frame) -> None:
    sample = matched(seed=12, effect=0.5)
    one, two = numbers(name, sample), numbers(name, with_frame(sample, change))
    assert one.keys() == two.keys()
    for key in one:
        assert two[key] == pytest.approx(one[key], rel=1e-6, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("name", ["rosenbaum", "matched_change"])
def test_rows_of_weight_nought_count_for_nothing(name: str) -> None:
    sample = matched(seed=12, effect=0.5)
    more = with_frame(sample, lambda f: pd.concat([f, f[:9].assign(weight=0.0, unit=-1, set=-1)]))
    one, two = numbers(name, sample), numbers(name, more)
    for key in one:
        assert two[key] == pytest.approx(one[key], nan_ok=True)


def test_the_unit_of_the_outcome_moves_no_bound() -> None:
    sample = matched(seed=12, effect=0.5)
    turned = with_frame(sample, lambda f: f.assign(y=-100 * f["y"] + 3))
    for name in ("rosenbaum", "unmeasured"):
        one, two = numbers(name, sample), numbers(name, turned)
        for key in one:
            sign = -1 if key[0] == "standardised" else 1
            assert two[key] == pytest.approx((sign * one[key][0], *one[key][1:]), rel=1e-6, abs=1e-9, nan_ok=True)


def test_levels_of_units_and_common_years_move_no_rosenbaum_bound() -> None:
    """An E-value they do move: it is in standard deviations, of which differences between units are part."""
    sample = matched(seed=12, effect=0.5)
    other = with_frame(sample, lambda f: f.assign(y=f["y"] + 3 * f["unit"] + np.sin(f["time"])))
    one, two = numbers("rosenbaum", sample), numbers("rosenbaum", other)
    for key in one:
        assert two[key] == pytest.approx(one[key], rel=1e-6, nan_ok=True)


@pytest.mark.parametrize("name", ["rosenbaum", "unmeasured", "matched_change"])
def test_the_sample_is_not_touched(name: str) -> None:
    sample = matched(seed=12)
    before = sample.frame.copy()
    estimator(name)(sample)
    pd.testing.assert_frame_equal(sample.frame, before)


@pytest.mark.parametrize("name", ["rosenbaum", "unmeasured"])
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda f: f[f["time"] >= 4], "no period before"),
        (lambda f: f[f["treated"] == 0], "0 treated"),
        (lambda f: f[f["treated"] == 1], "0 comparison"),
        (lambda f: f.assign(cluster=0), "1 treated cluster"),
        (lambda f: f.assign(y=3.0), "constant"),
        (lambda f: f.assign(weight=0.0), "weights are zero"),
        (lambda f: f[:0], "no rows"),
    ],
)
def test_degenerate_input_is_refused_with_a_reason(name: str, change: Frame, reason: str) -> None:
    with pytest.raises(Inapplicable, match=reason):
        estimator(name)(with_frame(matched(), change))


def unsettled(f: pd.DataFrame) -> pd.DataFrame:
    return f.assign(cluster=np.where(f["unit"] == 0, f["time"], f["cluster"]))


@pytest.mark.parametrize(
    ("function", "change", "options", "reason"),
    [
        (rosenbaum.estimate, lambda f: f.drop(columns="set"), {}, "no matched sets"),
        (rosenbaum.estimate, lambda f: f.assign(set=-1), {}, "no matched sets"),
        (rosenbaum.estimate, lambda f: f, {"gammas": (0.5,)}, "at least 1"),
        (rosenbaum.estimate, lambda f: f, {"gammas": ()}, "at least 1"),
        (rosenbaum.estimate, lambda f: f, {"statistic": "signed_rank", "assigned": "unit"}, "up to 5 units"),
        (rosenbaum.estimate, lambda f: f, {"statistic": "t"}, "not one of huber"),
        (rosenbaum.estimate, lambda f: f, {"assigned": "street"}, "not one of cluster"),
        (rosenbaum.estimate, lambda f: f.assign(set=f["set"] // 9), {"assigned": "unit"}, "several treated and several"),
        (rosenbaum.estimate, lambda f: f.assign(set=f["set"] // 90), {}, "several clusters"),
        (rosenbaum.estimate, lambda f: f.assign(y=f["time"] + 0.0), {}, "half of the differences"),
        (rosenbaum.estimate, lambda f: f.assign(y=f["time"] + 0.0), {"trim": np.inf}, "nothing to test"),
        (matched_change.estimate, unsettled, {}, "1 units have more than one cluster"),
        (matched_change.estimate, lambda f: f.assign(weight=f["weight"].where(f["unit"] > 0, -1)), {}, "negative"),
        (matched_change.estimate, lambda f: f.assign(set=f["set"].where(f["treated"] == 1, 10_000)), {}, "comparison unit that has both"),
        (unmeasured.estimate, lambda f: f.assign(y=f["y"].where(f["d"] + (1 - f["treated"]) > 0, 2.0)), {}, "does not vary before"),
        (unmeasured.estimate, lambda f: f, {"r_max": 0.9}, "at least 1"),
    ],
)  # fmt: skip
def test_what_a_method_cannot_take_is_refused(
    function: Callable[..., Any], change: Frame, options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(Inapplicable, match=reason):
        function(with_frame(matched(), change), **options)


def test_covariates_and_levels_are_refused_where_they_have_no_place() -> None:
    sample = with_frame(matched(), lambda f: f.assign(x=np.sin(f["unit"] * f["time"])))
    for function, extra in (
        (matched_change.estimate, {"covariates": ("x",)}),
        (rosenbaum.estimate, {"covariates": ("x",)}),
        (rosenbaum.estimate, {"levels": ("even", "odd")}),
        (unmeasured.estimate, {"covariates": ("x",), "levels": ("even", "odd")}),
    ):
        with pytest.raises(Inapplicable):
            function(replace(sample, **extra))
