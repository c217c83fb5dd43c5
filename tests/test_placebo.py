"""Placebo lists: how they are drawn, and what many of them say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from biglocal import estimate, placebo
from biglocal import study as studies
from biglocal.data.load import load
from biglocal.model import DataError
from biglocal.sample import Draw
from biglocal.study import ROOT


def places(n: int = 400) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    msoa = np.arange(n) // 6
    return pd.DataFrame(
        {
            "lsoa11": [f"E01{i:06d}" for i in range(n)],
            "msoa11": [f"E02{m:06d}" for m in msoa],
            "imd": rng.uniform(0, 20, n) + 60 * (msoa % 4 == 0),
        }
    )


def test_lists_are_whole_deprived_neighbourhoods() -> None:
    frame = places()
    found = placebo.draw_list(frame, 9, np.random.default_rng(1))
    assert found["lsoa11"].is_unique
    assert found.groupby("area_id").size().between(4, 6).all()
    assert found.drop_duplicates("area_id")["wave"].value_counts().tolist() == [3, 3, 3]
    joined = found.merge(frame, on="lsoa11")
    assert (joined["imd"] >= frame["imd"].quantile(0.8)).all()
    assert (joined.groupby("area_id")["msoa11"].nunique() == 1).all()


def test_order_of_rows_draws_the_same_list() -> None:
    frame = places()
    one = placebo.draw_list(frame, 9, np.random.default_rng(1))
    two = placebo.draw_list(frame.sample(frac=1, random_state=1), 9, np.random.default_rng(1))
    pd.testing.assert_frame_equal(one, two)


def test_too_many_areas_are_refused() -> None:
    with pytest.raises(DataError, match="500 placebo areas: only"):
        placebo.draw_list(places(), 500, np.random.default_rng(1))


def test_summary_counts_what_it_says() -> None:
    found = [
        placebo.One(0.1 * i, 0.2, p, 0.1 * i - 0.5, i < 3, (10, 5, 2, 4)) for i, p in enumerate((0.01, 0.2, 0.5, 0.9))
    ]
    terms = {t.name: t for t in placebo.summary(found, -0.5, 0.95).terms if t.name != "p_value"}
    assert terms["rejection_rate"].estimate == 0.25
    assert terms["rejection_rate"].conf_low < 0.25 < terms["rejection_rate"].conf_high
    assert terms["bias"].estimate == pytest.approx(0.15)
    assert terms["planted_mean"].estimate == pytest.approx(-0.35)
    assert terms["planted_coverage"].estimate == 0.75
    bins = [t.estimate for t in placebo.summary(found, -0.5, 0.95).terms if t.name == "p_value"]
    assert sum(bins) == pytest.approx(1)


def test_wilson_against_statsmodels() -> None:
    from statsmodels.stats.proportion import proportion_confint

    assert placebo.wilson(0.05, 200, 0.95) == pytest.approx(proportion_confint(10, 200, method="wilson"), rel=1e-9)


@pytest.mark.slow
def test_on_real_outcomes_lists_find_what_is_planted(real_data: Path) -> None:
    """Five lists on real SAMHI: the planted effect comes back; nobody of the tier's own list is in any of them."""
    study = studies.load()
    tier = load("open", data=real_data, treated=ROOT / "tests" / "fixtures" / "placebo.csv", min_months=12)
    draw = Draw(replace(study, policy=replace(study.policy, placebo_lists=5)), tier)
    analysis = next(a for a in studies.expand(study) if a.part == "placebo")
    ticks: list[int] = []
    ((_, fit),) = estimate.estimate(draw, [analysis], 0, 1, ticks.append)
    assert sum(ticks) == 5
    terms = {t.name: t.estimate for t in fit.terms}
    assert terms["planted_mean"] == pytest.approx(terms["bias"] + study.policy.placebo_effect, abs=1e-9)
    assert abs(terms["bias"]) < 4 * terms["mean_std_error"]


def test_an_estimator_under_a_name_of_its_own_is_found() -> None:
    """An entry of study.toml may `use` an estimator's file: part placebo takes it as every other part does."""
    study = studies.load()
    entry = replace(study.estimators["twfe"], name="as_it_is", uses="twfe")
    study = replace(study, estimators={**study.estimators, "as_it_is": entry})
    draw = Draw(study, load("synthetic", seed=study.seed))
    plain = next(a for a in studies.expand(study) if a.part == "placebo")
    found = [
        placebo.once(draw, replace(plain, estimator=name), {}, -0.5, np.random.default_rng(1))
        for name in ("twfe", "as_it_is")
    ]
    assert found[0] == found[1]
