"""What an event study bears: against the functions it is made of, against simulation, and laws."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

import panels
from biglocal import inference
from biglocal.estimators import event_study, twfe
from biglocal.inference import sensitivity
from biglocal.inference.parallel_trends import detectable_trend
from biglocal.model import Fit, Inapplicable, Sample, Term

RNG = np.random.default_rng(0)


def done(sample: Sample) -> Fit:
    fit = event_study.estimate(sample)
    return inference.infer("parallel_trends", 0.95, 0)(event_study.estimate, sample, fit, RNG)


def terms(sample: Sample) -> dict[tuple[str, str], Term]:
    return {(t.name, t.level): t for t in done(sample).terms}


def test_the_covariance_in_the_facts_is_that_of_another_regression() -> None:
    sample = panels.panel(seed=3)
    fit, other = event_study.estimate(sample), sensitivity.of_sample(sample)
    np.testing.assert_allclose(fit.facts["beta"], other.beta, rtol=1e-9)
    np.testing.assert_allclose(fit.facts["vcov"], other.vcov, rtol=1e-8)


def test_terms_are_those_of_the_functions() -> None:
    sample = panels.panel(seed=4, effect=1.0)
    study = sensitivity.of_sample(sample)
    weights = np.full(3, 1 / 3)
    study = sensitivity.event_study(study.beta, study.vcov, study.n_pre, weights)
    said = terms(sample)
    bounds = sensitivity.relative_magnitudes(study, [0.5, 2.0])
    for i, level in enumerate(("0.5", "2")):
        assert said["relative_magnitudes", level].conf_low == pytest.approx(bounds.conf_low[i], rel=1e-8)
        assert said["relative_magnitudes", level].conf_high == pytest.approx(bounds.conf_high[i], rel=1e-8)
    flat = sensitivity.smoothness(study, [0.25 * study.std_error])
    assert said["smoothness", "0.25"].conf_low == pytest.approx(flat.conf_low[0], rel=1e-8)
    assert said["smoothness", "0.25"].statistic == pytest.approx(0.25 * study.std_error, rel=1e-9)
    assert said["average_effect", ""].estimate == pytest.approx(study.beta[study.n_pre :].mean(), rel=1e-9)
    assert said["breakdown_relative_magnitudes", ""].estimate == pytest.approx(
        sensitivity.breakdown(study, "relative_magnitudes"), rel=1e-3
    )


def test_a_planted_effect_holds_and_no_effect_does_not() -> None:
    assert terms(panels.panel(seed=5, effect=5.0))["breakdown_relative_magnitudes", ""].estimate > 1
    assert terms(panels.panel(seed=5))["breakdown_relative_magnitudes", ""].estimate == 0


def test_bounds_widen_as_trends_may_part() -> None:
    said = terms(panels.panel(seed=6))
    for name, levels in (
        ("relative_magnitudes", ("0", "0.5", "1", "1.5", "2")),
        ("smoothness", ("0", "0.25", "0.5", "1")),
    ):
        width = [said[name, level].conf_high - said[name, level].conf_low for level in levels]
        assert width == sorted(width)


def test_scale() -> None:
    sample = replace(panels.panel(seed=7, effect=3.0), reference_effect=0.4)
    larger = replace(sample, frame=sample.frame.assign(y=3 * sample.frame["y"]), reference_effect=1.2)
    one, three = terms(sample), terms(larger)
    for key, t in one.items():
        factor = 1 if key[0] == "breakdown_relative_magnitudes" else 3
        assert three[key].estimate == pytest.approx(factor * t.estimate, rel=2e-3), key
        if key[0] in ("relative_magnitudes", "smoothness"):
            assert three[key].conf_low == pytest.approx(3 * t.conf_low, rel=1e-6)
    assert three["equivalence", ""].p_value == pytest.approx(one["equivalence", ""].p_value, rel=1e-6)


def test_equivalence_is_the_largest_end_of_the_leads_narrower_intervals() -> None:
    sample = replace(panels.panel(seed=8), reference_effect=0.5)
    leads = [t for t in event_study.estimate(sample).terms if t.name == "event_time" and (t.period or 0) < -1]
    width = stats.t.ppf(0.95, leads[0].df)
    said = terms(sample)["equivalence", ""]
    assert said.estimate == pytest.approx(max(abs(t.estimate) + width * t.std_error for t in leads), rel=1e-9)
    worst = max(stats.t.cdf((abs(t.estimate) - 0.5) / t.std_error, t.df) for t in leads)
    assert said.p_value == pytest.approx(worst, rel=1e-9)
    assert np.isnan(terms(panels.panel(seed=8))["equivalence", ""].p_value)


def test_detectable_trend_is_detected_as_often_as_it_says() -> None:
    """2,000 sets of leads drawn around the trend: the joint test rejects in 8 of 10 (0.8, error 0.009)."""
    rng = np.random.default_rng(2)
    root = rng.normal(size=(6, 6))
    study = sensitivity.event_study(np.zeros(5), (root @ root.T + np.eye(6))[:5, :5], 3, [0.5, 0.5])
    slope, bias = detectable_trend(study, 1e9)
    pre = study.vcov[:3, :3]
    leads = rng.multivariate_normal(slope * np.arange(-3, 0), pre, size=2000)
    wald = np.einsum("ij,jk,ik->i", leads, np.linalg.inv(pre), leads)
    assert (wald > stats.chi2.ppf(0.95, 3)).mean() == pytest.approx(0.8, abs=0.03)
    assert bias == pytest.approx(1.5 * slope)


def test_detectable_trend_against_scipys_noncentral_f() -> None:
    study = sensitivity.event_study(np.zeros(4), np.diag([2.0, 1.0, 1.0, 1.0]), 2, [1.0, 0.0])
    slope, _ = detectable_trend(study, 40.0, target=0.5)
    shift = slope**2 * (4 / 2 + 1)
    assert stats.ncf.sf(stats.f.ppf(0.95, 2, 40), 2, 40, shift) == pytest.approx(0.5, abs=1e-6)
    with pytest.raises(Inapplicable, match=r"between 0\.05 and 1"):
        detectable_trend(study, 40.0, target=0.01)


def test_refused_with_a_reason() -> None:
    sample = panels.panel(seed=9)
    with pytest.raises(Inapplicable, match="need an event study"):
        inference.infer("parallel_trends", 0.95, 0)(twfe.estimate, sample, twfe.estimate(sample), RNG)
    for change, reason in (
        (sample.frame["time"] != 2, "no gaps"),
        (sample.frame["time"] >= 4, "0 periods before"),
    ):
        with pytest.raises(Inapplicable, match=reason):
            done(replace(sample, frame=sample.frame[change]))
