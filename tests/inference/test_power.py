"""Power and detectable effects against R's stats and clusterPower, and against simulation."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

import panels
from biglocal import inference
from biglocal.estimators import event_study, twfe
from biglocal.inference.power import (
    bloom,
    cluster_did,
    cluster_trial,
    minimum_detectable,
    power,
    two_groups,
    two_proportions,
)  # fmt: skip
from biglocal.model import Inapplicable, Sample
from reference_cases import case

REL = 1e-5  # the cases' tolerance


def test_power_did_cluster_normal() -> None:
    for row in case("power_did_cluster_normal")["results"]:
        design = cluster_did(
            row["nclusters"], row["nsubjects"], row["ICC"],
            cluster_autocorrelation=row["rho_c"], person_autocorrelation=row["rho_s"],
        )  # fmt: skip
        assert minimum_detectable(*design) == pytest.approx(row["mde_d"], rel=REL), row
        assert power(0.3, *design) == pytest.approx(row["power_d03"], rel=REL), row


def test_power_basic() -> None:
    expected = case("power_basic")["results"]
    assert power(0.5, *two_groups(50)) == pytest.approx(expected["power_t"], rel=REL)
    assert minimum_detectable(*two_groups(64)) == pytest.approx(expected["mde_t"], rel=REL)
    assert two_proportions(200, 0.3, 0.4) == pytest.approx(expected["power_prop"], rel=REL)
    assert minimum_detectable(*cluster_trial(12, 30, 0.05)) == pytest.approx(expected["cluster_mde"], rel=REL)
    for k, theirs in zip((10, 30), expected["did_binary_power"], strict=True):
        design = cluster_did(k, 50, 0.05, cluster_autocorrelation=0.3, person_autocorrelation=0.4, variance=0.5 * 0.5)
        assert power(0.15, *design) == pytest.approx(theirs, rel=REL)


def test_laws() -> None:
    assert minimum_detectable(1.0) == pytest.approx(1.959963984540054 + 0.8416212335729143)
    assert bloom(2.0) == pytest.approx(minimum_detectable(2.0))
    assert bloom(1.0, 18) == pytest.approx(minimum_detectable(1.0, 18), rel=0.01)
    assert minimum_detectable(3.0, 10) == pytest.approx(3 * minimum_detectable(1.0, 10))
    for df in (4.0, 30.0, math.inf):
        assert power(minimum_detectable(0.7, df, target=0.9), 0.7, df) == pytest.approx(0.9)
        assert power(-0.4, 0.2, df) == power(0.4, 0.2, df)
        assert power(0.0, 0.2, df) == pytest.approx(0.025)
    assert power(1.0, 0.4, 1e7) == pytest.approx(power(1.0, 0.4), rel=1e-5)
    assert cluster_did(10, 20, 0.0, person_autocorrelation=0.5)[0] == pytest.approx(cluster_trial(10, 20, 0.0)[0])


def test_power_is_the_share_of_simulated_trials_that_reject() -> None:
    """Two arms of 8 clusters of 10: 20,000 cluster means; within three Monte Carlo errors."""
    from scipy.special import stdtrit

    se, df = cluster_trial(8, 10, 0.1)
    rng = np.random.default_rng(0)
    means = rng.normal(scale=math.sqrt(0.1 + 0.9 / 10), size=(20_000, 2, 8))
    gap = means[:, 1].mean(axis=1) - means[:, 0].mean(axis=1) + 0.5
    error = np.sqrt((means.var(axis=2, ddof=1) / 8).sum(axis=1))
    share = float((gap / error > stdtrit(df, 0.975)).mean())
    assert share == pytest.approx(power(0.5, se, df), abs=3 * math.sqrt(0.25 / 20_000))


def test_impossible_designs_are_refused() -> None:
    with pytest.raises(Inapplicable, match="all positive"):
        power(1.0, 0.0)
    with pytest.raises(Inapplicable, match="power 1"):
        minimum_detectable(1.0, target=1.0)
    with pytest.raises(Inapplicable, match="1 clusters"):
        cluster_did(1, 20, 0.1)
    with pytest.raises(Inapplicable, match="proportions 0 and 0"):
        two_proportions(100, 0.0, 0.0)
    with pytest.raises(Inapplicable, match="1 persons a group"):
        two_groups(1)
    with pytest.raises(Inapplicable, match="autocorrelations 2 and 0"):
        cluster_did(10, 10, 0.5, cluster_autocorrelation=2.0)
    with pytest.raises(Inapplicable, match="power 2"):
        bloom(1.0, 10, target=2.0)


def achieved(sample: Sample) -> dict[tuple[str, int | None], float]:
    fit = inference.infer("power", 0.95, 0)(twfe.estimate, sample, twfe.estimate(sample), np.random.default_rng(0))
    return {(t.name, t.period): t.estimate for t in fit.terms}


def test_achieved_power_of_a_fit() -> None:
    sample = replace(panels.panel(seed=2), reference_effect=0.3)
    att = twfe.estimate(sample).terms[0]
    said = achieved(sample)
    assert power(said["minimum_detectable", None], att.std_error, att.df) == pytest.approx(0.8, abs=1e-9)
    assert said["power", None] == pytest.approx(power(0.3, att.std_error, att.df))
    assert said["reference_effect", None] == 0.3
    areas = att.n_treated_clusters or 0
    known = minimum_detectable(att.std_error * math.sqrt(areas / 100), (att.df + 1) * 100 / areas - 1)
    assert said["minimum_detectable_with", 100] == pytest.approx(known)
    curve = [v for (name, _), v in said.items() if name == "minimum_detectable_with"]
    assert curve == sorted(curve, reverse=True)


def test_achieved_power_does_not_depend_on_the_estimate() -> None:
    sample = replace(panels.panel(seed=2), reference_effect=0.3)
    moved = replace(sample, frame=sample.frame.assign(y=sample.frame["y"] + 2 * sample.frame["d"]))
    assert achieved(moved) == pytest.approx(achieved(sample))
    assert ("power", None) not in achieved(panels.panel(seed=2))


def test_achieved_power_needs_one_att() -> None:
    sample = panels.panel(seed=2)
    fit = event_study.estimate(sample)
    with pytest.raises(Inapplicable, match="single ATT"):
        inference.infer("power", 0.95, 0)(event_study.estimate, sample, fit, np.random.default_rng(0))
