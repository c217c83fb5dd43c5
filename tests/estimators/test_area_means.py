"""Means of areas as units: against pandas, and the estimators that may be set to use them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import panels
from biglocal import estimators
from biglocal.estimators import roth_santanna, synthetic_did
from biglocal.estimators._area_means import area_means, balanced
from biglocal.model import DataError, Inapplicable, Sample


def staggered(seed: int = 1) -> Sample:
    sample = panels.panel(seed=seed, clusters=40)
    f = sample.frame
    first = f["first_treated"] + np.where(f["cluster"] % 3 == 0, 1, 0)
    return replace(sample, frame=f.assign(first_treated=first, d=(f["time"] >= first).astype(float)))


def test_means_are_those_of_pandas() -> None:
    sample = staggered()
    made = area_means(sample).frame.set_index(["cluster", "treated", "time"])
    expected = (
        sample.frame.assign(y=sample.frame["y"] * sample.frame["weight"])
        .groupby(["cluster", "treated", "time"])[["y", "weight"]]
        .sum()
    )
    both = made.join(expected.add_suffix("_by_hand"))
    assert len(both) == len(expected)
    np.testing.assert_allclose(both["y"], both["y_by_hand"] / both["weight_by_hand"], rtol=1e-12)
    np.testing.assert_allclose(both["weight"], both["weight_by_hand"])


def test_units_with_gaps_leave_and_are_counted() -> None:
    sample = staggered()
    gap = replace(sample, frame=sample.frame.drop(index=[0, 1, 20]))
    whole = balanced(gap)
    assert whole.frame.groupby("unit").size().nunique() == 1
    assert (
        whole.caution
        == f"{gap.frame['unit'].nunique() - whole.frame['unit'].nunique()} units without a row in every period left."
    )
    with pytest.raises(Inapplicable, match="no unit has a row in each"):
        balanced(replace(sample, frame=sample.frame.iloc[[0, sample.frame["time"].nunique() + 1]]))


def test_synthetic_did_of_area_means_is_that_of_the_collapsed_frame() -> None:
    sample = panels.panel(seed=2, clusters=40)
    ours = synthetic_did.estimate(sample, over="area").terms
    assert ours == synthetic_did.estimate(area_means(sample)).terms


def test_treated_areas_alone_in_random_order() -> None:
    sample = staggered(3)
    fit = roth_santanna.estimate(sample, over="treated_area")
    treated = sample.frame[sample.frame["treated"] == 1]
    means = area_means(replace(sample, frame=treated)).frame
    alone = roth_santanna.estimate(Sample(means.assign(weight=1.0, cluster=means["unit"]), ""))
    assert [t.estimate for t in fit.terms] == pytest.approx([t.estimate for t in alone.terms])
    assert "as good as random" in fit.caution


def test_order_of_rows_changes_nothing() -> None:
    sample = staggered(4)
    mixed = replace(sample, frame=sample.frame.sample(frac=1, random_state=1))
    pd.testing.assert_frame_equal(area_means(mixed).frame, area_means(sample).frame, rtol=1e-12)


def test_the_door_refuses_treatment_that_ends() -> None:
    frame = pd.DataFrame({"y": [1.0, 2, 3, 4], "u": [1, 1, 1, 2], "t": [1, 2, 3, 1], "d": [0, 1, 0, 0]})
    with pytest.raises(DataError, match="goes back to 0 in 1 units, first 1"):
        estimators.sample(frame, y="y", unit="u", time="t", d="d")
    with pytest.raises(DataError, match="d must be 0 or 1; 1 rows are not, first 2"):
        estimators.sample(frame.assign(d=[0, 0, 2, 0]), y="y", unit="u", time="t", d="d")


def test_the_door_takes_sets() -> None:
    frame = pd.DataFrame({"y": [1.0, 2, 3], "u": [1, 2, 3], "t": [1, 1, 1], "d": [0, 1, 0], "s": ["b", "b", None]})
    made = estimators.sample(frame, y="y", unit="u", time="t", d="d", set="s").frame
    assert made["set"].tolist() == [0, 0, -1]
