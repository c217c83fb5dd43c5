"""What must hold of every estimator that is registered, whatever its numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from biglocal.estimators import estimator
from biglocal.model import Fit, Inapplicable, Sample
from biglocal.study import modules
from panels import panel

# with several starts these mix effects of cohorts, and must say so
MIXING = ("twfe", "event_study", "repeated_cross_section", "dose_response")
STAGGERED = ("imputation", "sun_abraham", "stacked")  # made for several starts
CHANGES = ("callaway_santanna", "drdid")  # of changes, given the covariates of a unit before treatment
MODEL_FREE = ("matched_change",)  # refuses covariates
DESCRIBE = ("means", "truth")  # they take the same samples
OWN = (
    "ancova",
    "calendar_effects",
    "logit_did",
    "poisson",
    "rosenbaum",
    "twins",
    "unmeasured",
)  # periods are years, levels are compared, the scale is a log, or several engines: laws in files of their own
BALANCED = (
    "goodman_bacon",
    "synthetic_did",
    "roth_santanna",
)  # of balanced panels, with one treated cluster too: laws in their files
RESIDENTS = (
    "attrition",
    "gee",
    "mixed_logit",
    "mixed_model",
    "multiple_imputation",
    "random_effects",
    "response_weights",
    "within_person",
)  # of persons who answer again, none of them treated or not: laws in test_waves.py
CROSS = ("balance", "overlap", "flow", "programme", "match_quality", "spending")  # they take a row a unit
MEMBERS = ("members_truth", "participants", "participation")  # of who answers: laws in test_participation.py
NAMED = MIXING + STAGGERED + CHANGES + MODEL_FREE + DESCRIBE + OWN + BALANCED + RESIDENTS + MEMBERS + CROSS
NEW = tuple(name for name in modules("estimators") if name not in NAMED)  # a new file is under the laws of PANEL
PANEL = MIXING + STAGGERED + CHANGES + MODEL_FREE + NEW  # of an outcome over time
Frame = Callable[[pd.DataFrame], pd.DataFrame]


def test_every_estimator_is_under_a_law() -> None:
    assert sorted(modules("estimators")) == sorted((*NAMED, *NEW))  # each once, and none that is no longer there


def by_term(fit: Fit) -> dict[tuple[str, int | None, str], tuple[float, float, float]]:
    return {(t.name, t.period, t.level): (t.estimate, t.std_error, t.statistic) for t in fit.terms}


def with_frame(sample: Sample, change: Frame) -> Sample:
    return replace(sample, frame=change(sample.frame))


def base(name: str, **options: float) -> Sample:
    sample = panel(seed=4, **options)  # type: ignore[arg-type]
    if name == "dose_response":
        return with_frame(sample, lambda f: f.assign(dose=1.0 + f["cluster"] % 7))
    if name == "truth":
        return with_frame(sample, lambda f: f.assign(effect=0.3 * f["d"]))
    return sample


@pytest.mark.parametrize("name", PANEL + DESCRIBE)
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda f: f.sample(frac=1, random_state=2), id="shuffle rows"),
        pytest.param(lambda f: f.assign(unit=f["unit"].map(lambda u: 10_000 - 7 * u)), id="relabel units"),
        pytest.param(
            lambda f: f.assign(cluster=f["cluster"].map(lambda c: f"area {97 * c % 1009}")), id="relabel clusters"
        ),
        pytest.param(lambda f: f.assign(weight=5 * f["weight"]), id="scale weights"),
        pytest.param(lambda f: f.set_axis(f.index * 3 + 1), id="another index"),
    ],
)
def test_nothing_moves(name: str, change: Frame) -> None:
    one = by_term(estimator(name)(base(name)))
    two = by_term(estimator(name)(with_frame(base(name), change)))
    assert one.keys() == two.keys()
    for key in one:
        assert two[key] == pytest.approx(one[key], rel=1e-7, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("name", PANEL)
def test_scale_of_the_outcome(name: str) -> None:
    one = by_term(estimator(name)(base(name)))
    two = by_term(estimator(name)(with_frame(base(name), lambda f: f.assign(y=-100 * f["y"] + 5))))
    for key, (estimate, error, _) in one.items():
        assert two[key][:2] == pytest.approx((-100 * estimate, 100 * error), rel=1e-7, abs=1e-7, nan_ok=True)


@pytest.mark.parametrize("name", PANEL)
def test_shift_of_time(name: str) -> None:
    def shift(f: pd.DataFrame) -> pd.DataFrame:
        return f.assign(time=f["time"] + 2010, first_treated=f["first_treated"] + 2010)

    one, two = by_term(estimator(name)(base(name))), by_term(estimator(name)(with_frame(base(name), shift)))
    for name_of, period, level in one:
        dated = name_of in ("group", "calendar", "att_gt")  # their period is a year, not years since the start
        shifted = str(int(level) + 2010) if name_of == "att_gt" else level  # the cohort
        there = (name_of, period + 2010 if dated and period is not None else period, shifted)
        assert two[there] == pytest.approx(one[name_of, period, level], rel=1e-8, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("name", PANEL)
def test_unit_effects_and_common_shocks_are_absorbed(name: str) -> None:
    def add(f: pd.DataFrame) -> pd.DataFrame:
        return f.assign(y=f["y"] + 3 * f["unit"] + np.sin(f["time"]))

    one, two = by_term(estimator(name)(base(name))), by_term(estimator(name)(with_frame(base(name), add)))
    for key in one:
        assert two[key] == pytest.approx(one[key], rel=1e-6, abs=1e-7, nan_ok=True)


@pytest.mark.parametrize("name", PANEL)
def test_duplicated_rows_with_half_the_weight(name: str) -> None:
    """Estimates do not move; errors only by the small-sample factor, which counts rows."""

    def twice(f: pd.DataFrame) -> pd.DataFrame:
        return pd.concat([f, f]).assign(weight=lambda g: g["weight"] / 2)

    one, two = by_term(estimator(name)(base(name))), by_term(estimator(name)(with_frame(base(name), twice)))
    for key in one:
        assert two[key][0] == pytest.approx(one[key][0], rel=1e-7, abs=1e-9, nan_ok=True)
        assert two[key][1] == pytest.approx(one[key][1], rel=0.02, nan_ok=True)


@pytest.mark.parametrize("name", PANEL)
def test_a_planted_effect_is_found_exactly_where_there_is_no_noise(name: str) -> None:
    def plant(f: pd.DataFrame) -> pd.DataFrame:
        noise = np.random.default_rng(0).normal(scale=1e-9, size=len(f))
        return f.assign(y=2.0 * f["unit"] - f["time"] + 0.75 * f["d"] + noise)

    for term in estimator(name)(with_frame(base(name), plant)).terms:
        if term.name == "att" or (term.name == "event_time" and (term.period or 0) >= 0):
            assert term.estimate == pytest.approx(0.75, abs=1e-7)
        elif term.name == "event_time":
            assert term.estimate == pytest.approx(0, abs=1e-7)


def test_twfe_with_one_start_is_the_difference_in_differences_of_means() -> None:
    sample = panel(seed=8, effect=0.4)
    f = sample.frame.assign(after=sample.frame["time"] >= 5)
    mean = f.groupby(["treated", "after"]).apply(
        lambda g: np.average(g["y"], weights=g["weight"]), include_groups=False
    )
    by_hand = (mean[1, True] - mean[1, False]) - (mean[0, True] - mean[0, False])
    assert estimator("twfe")(sample).terms[0].estimate == pytest.approx(by_hand, rel=1e-8)


def test_levels_are_separate_regressions_and_their_difference_is_tested() -> None:
    sample = replace(panel(seed=9, clusters=60), levels=("even", "odd"))
    together = {(t.name, t.level): t for t in estimator("twfe")(sample).terms}
    for level in ("even", "odd"):
        alone = estimator("twfe")(with_frame(replace(sample, levels=()), lambda f, k=level: f[f["level"] == k])).terms[
            0
        ]
        assert together["att", level].estimate == pytest.approx(alone.estimate, rel=1e-8)
    gap = together["att", "odd"].estimate - together["att", "even"].estimate
    assert together["difference", ""].estimate == pytest.approx(gap, rel=1e-9)
    three = with_frame(
        replace(sample, levels=("a", "b", "c")), lambda f: f.assign(level=np.array(["a", "b", "c"])[f["unit"] % 3])
    )
    joint = next(t for t in estimator("twfe")(three).terms if t.name == "difference")
    assert joint.df_num == 2
    assert joint.statistic > 0
    assert np.isnan(joint.estimate)


def test_staggered_starts_are_said_to_be_outside_the_assumptions() -> None:
    def stagger(f: pd.DataFrame) -> pd.DataFrame:
        first = f["first_treated"] + (f["cluster"] % 2)
        return f.assign(first_treated=first, d=((f["treated"] == 1) & (f["time"] >= first)).astype(float))

    for name in MIXING:
        assert "staggered" in estimator(name)(with_frame(base(name), stagger)).caution


@pytest.mark.parametrize("name", PANEL)
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda f: f[f["time"] >= 5], "no period before"),
        (lambda f: f[f["time"] < 5], "no period after"),
        (lambda f: f[f["treated"] == 0], "0 treated"),
        (lambda f: f[f["treated"] == 1], "0 comparison"),
        (lambda f: f[(f["treated"] == 0) | (f["cluster"] == 0)], "1 treated cluster"),
        (lambda f: f.assign(cluster=0), "1 treated cluster"),
        (lambda f: f.assign(y=3.0), "constant"),
        (lambda f: f.assign(weight=0.0), "weights are zero"),
        (lambda f: f[:0], "no rows"),
    ],
)
def test_degenerate_input_is_refused_with_a_reason(name: str, change: Frame, reason: str) -> None:
    with pytest.raises(Inapplicable, match=reason):
        estimator(name)(with_frame(base(name), change))


@pytest.mark.parametrize("name", MIXING + STAGGERED + CHANGES)
def test_a_covariate_that_is_collinear_is_named(name: str) -> None:
    sample = with_frame(base(name), lambda f: f.assign(x=2.0 if name in CHANGES else f["unit"] * 2.0))
    with pytest.raises(Inapplicable, match="collinear"):
        estimator(name)(replace(sample, covariates=("x",)))


@pytest.mark.parametrize("name", ["twfe", "event_study", "ancova"])
def test_rounding_does_not_make_a_collinear_covariate_pass(name: str) -> None:
    """What is treatment, or another covariate, on another scale leaves no more than rounding does, which differs."""
    for seed in range(20):
        s = panel(seed=seed, units=120, years=6, start=4, effect=0.3, clusters=20)
        one = np.random.default_rng(seed).normal(50, 9, s.frame["unit"].max() + 1)[s.frame["unit"]]
        if name != "ancova":  # which takes covariates that do not move
            one = one * (1 + 0.1 * s.frame["time"])
        treated = s.frame["treated"] if name == "ancova" else s.frame["d"]
        frame = s.frame.assign(one=one, other=1000 + 0.37 * one, dose=3.7 * treated + 1.1)
        for covariates in (("one", "other"), ("dose",)):
            with pytest.raises(Inapplicable, match="collinear"):
                estimator(name)(replace(s, frame=frame, covariates=covariates))


def test_unbalanced_panels_are_taken() -> None:
    for name in PANEL:
        fit = estimator(name)(with_frame(base(name), lambda f: f.sample(frac=0.8, random_state=1)))
        assert all(np.isfinite(t.std_error) for t in fit.terms if t.name == "att" or (t.period or 0) > 0)


@pytest.mark.parametrize("name", PANEL + DESCRIBE)
def test_the_sample_is_not_touched(name: str) -> None:
    sample = base(name)
    before = sample.frame.copy()
    estimator(name)(sample)
    pd.testing.assert_frame_equal(sample.frame, before)


def test_coverage_of_the_clustered_interval_and_the_bootstrap() -> None:
    """200 panels with clustered shocks and no effect: both reject at about 5% (binomial bounds at 99.9%)."""
    from biglocal import inference

    rejected = {"cluster": 0, "wild_bootstrap": 0}
    twfe = estimator("twfe")
    for seed in range(200):
        sample = panel(seed=1000 + seed, units=60, years=6, start=4, clusters=30)
        fit = twfe(sample)
        for name in rejected:
            done = inference.infer(name, 0.95, 199)(twfe, sample, fit, np.random.default_rng(seed))
            rejected[name] += done.terms[0].p_value < 0.05
    assert all(1 <= n <= 22 for n in rejected.values()), rejected
