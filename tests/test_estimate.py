"""From fits to rows: the persons behind each term are counted, against a plain count of the frame."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from biglocal import results, run
from biglocal.estimate import _counter, _grouped
from biglocal.model import Fit, Sample, Term


def people(levels: tuple[str, ...] = (), share: bool = True) -> Sample:
    """Persons seen once, in repeated cross-sections; areas 0-3 are treated, from 2015 on."""
    rng = np.random.default_rng(4)
    n = 900
    unit = rng.integers(0, 12, size=n)
    frame = pd.DataFrame(
        {
            "y": (rng.random(n) < 0.2) * 100.0 if share else rng.normal(size=n),
            "unit": unit,
            "time": rng.integers(2011, 2020, size=n),
            "treated": (unit < 4).astype(int),
            "first_treated": np.where(unit < 4, 2015.0, np.nan),
            "cluster": unit,
            "weight": 1.0,
            "level": rng.choice(["women", "men"], size=n, p=[0.9, 0.1]) if levels else "",
        }
    )
    frame["d"] = ((frame["treated"] == 1) & (frame["time"] >= 2015)).astype(float)
    return Sample(frame, "points", levels=levels)


def test_a_mean_is_of_its_group_and_a_share_of_those_who_are_and_are_not() -> None:
    sample = people()
    f = sample.frame[(sample.frame["treated"] == 1) & (sample.frame["time"] == 2013)]
    term = _counter(sample, distinct=False)(Term("treated", 20.0, period=2013))
    assert term.n_persons == len(f)
    assert term.n_least == min((f["y"] == 100).sum(), (f["y"] == 0).sum())
    number = people(share=False)
    f = number.frame[(number.frame["treated"] == 0) & (number.frame["time"] == 2013)]
    assert _counter(number, distinct=False)(Term("control", 0.1, period=2013)).n_least == len(f)


def test_an_effect_compares_four_groups_within_its_level() -> None:
    sample = people(("women", "men"))
    count = _counter(sample, distinct=False)
    for level in sample.levels:
        f = sample.frame[sample.frame["level"] == level]
        term = count(Term("att", 1.0, level=level))
        assert term.n_persons == len(f)
        assert term.n_least == f.groupby(["treated", f["time"] >= 2015]).size().min()
    assert count(Term("difference", 1.0)).n_persons == len(sample.frame)


def test_an_effect_of_a_year_compares_it_with_the_last_before() -> None:
    sample = people()
    f = sample.frame
    for period in (-3, 2):
        years = f["time"].isin([2015 + period, 2014])
        want = f[years].groupby(["treated", "time"]).size().min()
        assert _counter(sample, distinct=False)(Term("event_time", 1.0, period=period)).n_least == want
        assert _counter(sample, distinct=False)(Term("calendar", 1.0, period=2015 + period)).n_least == want


def test_one_person_seen_twice_is_one() -> None:
    sample = people(share=False)
    once = _counter(sample, distinct=False)(Term("att", 1.0))
    twice = replace(sample, frame=pd.concat([sample.frame.assign(unit=range(900))] * 2, ignore_index=True))
    assert _counter(twice, distinct=True)(Term("att", 1.0)).n_persons == 900
    assert _counter(twice, distinct=True)(Term("att", 1.0)).n_least == once.n_least


@pytest.mark.parametrize("level", ["men", "2017"])
def test_a_level_that_is_not_there_is_not_counted(level: str) -> None:
    term = _counter(people(), distinct=False)(Term("att", 1.0, level=level))
    assert (term.n_persons, term.n_least) == (None, None)


def test_row_order_changes_nothing() -> None:
    sample = people(("women", "men"))
    other = replace(sample, frame=sample.frame.sample(frac=1, random_state=1))
    term = Term("att", 1.0, level="men")
    assert _counter(sample, distinct=False)(term) == _counter(other, distinct=False)(term)


def test_the_headline_effects_and_what_rests_on_them_are_released(tmp_path: Path, small_tier: Path) -> None:
    """Two-way clustering counts years: its few degrees of freedom are no reason to withhold the estimate itself."""
    only = ["effects/life_satisfaction", "effects/high_anxiety"]
    run.reproduce("secure", data=small_tier, outputs=tmp_path, only=only)
    rows = results.read(tmp_path / "secure" / "results.csv")
    assert {r.inference for r in rows if r.part == "effects"} >= {"cluster", "twoway"}
    assert all(r.status == "ok" for r in rows if r.part == "effects"), [r.reason for r in rows]


def test_groups_that_an_estimator_made_itself_are_counted() -> None:
    sample = people(share=False)
    own = np.where(sample.frame["treated"] == 1, np.where(sample.frame["unit"] < 2, "low", "high"), "")
    fit = Fit((), 0, 0, 0, 0, facts={"levels": own})
    grouped = _grouped(sample, fit)
    assert grouped.levels == ("high", "low")
    treated = sample.frame[own == "low"]
    want = min((treated["time"] >= 2015).sum(), (treated["time"] < 2015).sum())
    assert _counter(grouped, distinct=False)(Term("att", 1.0, level="low")).n_least == want
    assert _grouped(sample, replace(fit, facts={})) is sample
