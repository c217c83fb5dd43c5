"""Who answers and who takes part: counts by hand, shares against least squares, laws."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from biglocal.estimators import members_truth, participants, participation, truth
from biglocal.model import Fit, Inapplicable, Sample


def values(fit: Fit) -> dict[tuple[str, int | None, str], float]:
    return {(t.name, t.period, t.level): t.estimate for t in fit.terms}


def errors(fit: Fit) -> dict[tuple[str, int | None, str], float]:
    return {(t.name, t.period, t.level): t.std_error for t in fit.terms}


@pytest.fixture
def approached() -> Sample:
    rows = [
        # person, wave, answered, answered in the first wave, area
        (1, 2016, 1, 1, "a"), (1, 2018, 1, 1, "a"), (1, 2020, 1, 1, "a"),
        (2, 2016, 1, 1, "a"), (2, 2018, 0, 1, "a"), (2, 2020, 1, 1, "a"),
        (3, 2016, 1, 1, "b"), (3, 2018, 0, 1, "b"), (3, 2020, 0, 1, "b"),
        (4, 2016, 0, 0, "b"),
        (5, 2018, 1, 0, "c"), (5, 2020, 1, 0, "c"),
        (6, 2018, 0, 0, "c"),
    ]  # fmt: skip
    frame = pd.DataFrame(rows, columns=["unit", "time", "y", "earlier", "cluster"])
    return Sample(frame.assign(treated=1, weight=1.0, level="", y=frame["y"].astype(float)), "persons")


def test_counts_by_hand(approached: Sample) -> None:
    found = values(participation.estimate(approached))
    waves = {w: {k[0]: v for k, v in found.items() if k[1] == w} for w in (2016, 2018, 2020)}
    assert waves[2016] == {
        "approached": 4, "answered": 3, "new": 4, "answered_first": 3, "answered_all": 3, "rate": 0.75,
    }  # fmt: skip
    assert waves[2018] == pytest.approx(
        {
            "approached": 5,
            "answered": 2,
            "new": 2,
            "answered_first": 1,
            "answered_all": 1,
            "rate": 0.4,
            "rate_again": 1 / 3,
        }
    )
    assert waves[2020] == pytest.approx(
        {
            "approached": 4,
            "answered": 3,
            "new": 0,
            "answered_first": 2,
            "answered_all": 1,
            "rate": 0.75,
            "rate_again": 2 / 3,
        }
    )


def test_the_order_of_rows_and_the_names_of_areas_change_nothing(approached: Sample) -> None:
    other = approached.frame.sample(frac=1, random_state=1)
    other["cluster"] = other["cluster"].map({"a": "z", "b": "y", "c": "x"})
    one, two = participation.estimate(approached), participation.estimate(replace(approached, frame=other))
    assert values(one) == values(two)
    assert errors(one) == pytest.approx(errors(two), nan_ok=True)


def test_an_error_needs_two_areas(approached: Sample) -> None:
    fit = participation.estimate(replace(approached, frame=approached.frame.assign(cluster="a")))
    assert np.isnan(errors(fit)["rate", 2018, ""])
    with pytest.raises(Inapplicable, match="nobody was approached"):
        participation.estimate(replace(approached, frame=approached.frame[:0]))


@pytest.fixture
def both() -> Sample:
    rng = np.random.default_rng(3)
    n = 900
    treated = (np.arange(n) < 400).astype(int)
    cluster = rng.integers(0, 40, n)
    level = np.where(rng.random(n) < 0.3 + 0.2 * treated + 0.1 * (cluster % 3), "women", "men")
    weight = np.where(treated == 1, 1.0, rng.uniform(0.5, 2, n))
    frame = pd.DataFrame({"treated": treated, "cluster": cluster, "level": level, "weight": weight, "y": 1.0})
    return Sample(frame.assign(unit=np.arange(n), time=2016), "share", levels=("women", "men"))


def test_the_gap_is_that_of_weighted_least_squares_with_clustered_errors(both: Sample) -> None:
    sm = pytest.importorskip("statsmodels.api")
    f = both.frame
    model = sm.WLS((f["level"] == "women").astype(float), sm.add_constant(f["treated"].astype(float)), f["weight"])
    fit = model.fit(cov_type="cluster", cov_kwds={"groups": f["cluster"], "use_correction": False})
    ours = next(t for t in participants.estimate(both).terms if (t.name, t.level) == ("gap", "women"))
    g = f["cluster"].nunique()
    assert ours.estimate == pytest.approx(float(fit.params.iloc[1]), rel=1e-12)
    assert ours.std_error == pytest.approx(float(fit.bse.iloc[1]) * (g / (g - 1)) ** 0.5, rel=1e-10)


def test_laws_of_shares(both: Sample) -> None:
    fit = participants.estimate(both)
    found = values(fit)
    for name in ("share_members", "share_adults"):
        assert found[name, None, "women"] + found[name, None, "men"] == pytest.approx(1)
    assert found["gap", None, "women"] == pytest.approx(-found["gap", None, "men"])
    other = both.frame.sample(frac=1, random_state=2).assign(weight=lambda f: 3 * f["weight"])
    again = participants.estimate(replace(both, frame=other))
    assert values(again) == pytest.approx(found)
    assert errors(again) == pytest.approx(errors(fit))
    assert [t.tested for t in fit.terms] == [False, False, True] * 2


@pytest.mark.parametrize(
    ("change", "says"), [({"treated": 1}, "both are needed"), ({"treated": 0}, "both"), ({"cluster": 1}, "one area")]
)
def test_what_cannot_be_compared_is_said(both: Sample, change: dict[str, int], says: str) -> None:
    with pytest.raises(Inapplicable, match=says):
        participants.estimate(replace(both, frame=both.frame.assign(**change)))


def test_truth_is_said_as_it_is_recorded() -> None:
    frame = pd.DataFrame({"y": [1.5, 0.1], "time": [2018, 2020], "level": ["", ""]})
    fit = members_truth.estimate(Sample(frame, "points"))
    assert values(fit) == {("change", 2018, ""): 1.5, ("change", 2020, ""): 0.1}
    odds = members_truth.estimate(Sample(frame[:1], "log odds"), of="association")
    assert values(odds) == {("association", None, ""): 1.5, ("odds_ratio", None, ""): pytest.approx(np.exp(1.5))}
    assert not any(t.tested for t in odds.terms)


def test_a_wave_without_anyone_of_the_first_has_no_rate_of_answering_again(approached: Sample) -> None:
    frame = approached.frame
    late = frame[(frame["earlier"] == 0) & (frame["time"] > 2016) | (frame["time"] == 2016)]
    found = values(participation.estimate(replace(approached, frame=late)))
    assert ("rate", 2018, "") in found and ("rate_again", 2018, "") not in found


def test_a_truth_of_nobody_is_refused() -> None:
    rows = [(u, t, u < 2, u < 2 and t > 0, "fast" if u else "slow") for u in range(4) for t in (0, 1)]
    frame = pd.DataFrame(rows, columns=["unit", "time", "treated", "d", "level"])
    frame = frame.assign(effect=-1.0, weight=1.0, cluster=frame["unit"])
    whole = Sample(frame, "persons", levels=("fast", "slow"))
    assert values(truth.estimate(whole)) == {("att", None, "fast"): -1.0, ("att", None, "slow"): -1.0}
    gone = frame[~((frame["level"] == "slow") & frame["d"])]
    with pytest.raises(Inapplicable, match="nobody treated answered after the start in slow"):
        truth.estimate(replace(whole, frame=gone))
