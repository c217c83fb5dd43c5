"""Many outcomes on one design: as the estimators and `satterthwaite` give for each."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from biglocal import inference
from biglocal.estimators import event_study, twfe
from biglocal.estimators._fixest import linear
from biglocal.estimators._within import codes
from biglocal.inference.many import many, many_randomised, many_wild
from biglocal.inference.regression import coded, of_sample, regression
from biglocal.model import Inapplicable, Sample
from panels import panel


@pytest.fixture(params=["whole", "gaps", "clusters across units"])
def design(request: pytest.FixtureRequest) -> Sample:
    s = panel(units=90, clusters=30, years=7, start=4)
    if request.param == "gaps":
        return replace(s, frame=s.frame.sample(frac=0.8, random_state=3))
    if request.param == "clusters across units":
        return replace(s, frame=s.frame.assign(unit=s.frame["unit"] % 50, cluster=s.frame["cluster"] % 7))
    return s


def outcomes(n: int, count: int = 4) -> np.ndarray:
    return np.random.default_rng(5).normal(3.0, 2.0, (count, n))


def test_cr1_is_that_of_two_way_fixed_effects(design: Sample) -> None:
    y = outcomes(len(design.frame))
    estimate, error = many(of_sample(design), coded(design.frame["cluster"]), np.ones(1)).estimates(y)
    for row, b, e in zip(y, estimate, error, strict=True):
        att = twfe.estimate(replace(design, frame=design.frame.assign(y=row))).terms[0]
        assert (b, e) == pytest.approx((att.estimate, att.std_error), rel=1e-9)


def test_cr2_is_that_of_satterthwaite(design: Sample) -> None:
    y = outcomes(len(design.frame))
    found = many(of_sample(design), coded(design.frame["cluster"]), np.ones(1), "CR2")
    for row, b, e in zip(y, *found.estimates(y), strict=True):
        s = replace(design, frame=design.frame.assign(y=row))
        fit = twfe.estimate(s)
        att = inference.satterthwaite(twfe.estimate, s, fit, np.random.default_rng(0), conf_level=0.95).terms[0]
        assert (b, e, found.df) == pytest.approx((att.estimate, att.std_error, att.df), rel=1e-8)


def test_a_contrast_of_an_event_study_is_that_of_pyfixest() -> None:
    s = panel(units=90, clusters=30, years=7, start=4)
    frame = s.frame
    since = (frame["time"] - frame["first_treated"]).to_numpy(dtype=float)
    columns = {f"e{e + 4:g}": (since == e).astype(float) for e in range(-4, 3) if e != -1}
    contrast = np.array([0, 0, 0, 0.5, 0.3, 0.2])
    fit = regression(
        frame["y"], np.column_stack(list(columns.values())), fixed=(frame["unit"], frame["time"]),
        weight=frame["weight"], within=frame["cluster"],
    )  # fmt: skip
    ((b,), (e,)) = many(fit, coded(frame["cluster"]), contrast).estimates(frame["y"].to_numpy()[None])
    whole = linear(frame, columns, {n: codes(frame[n]) for n in ("unit", "time")})
    assert b == pytest.approx(contrast @ whole.beta, rel=1e-9)
    assert e == pytest.approx(np.sqrt(contrast @ whole.vcov @ contrast), rel=1e-8)
    points = [t.estimate for t in event_study.estimate(s).terms if t.name == "event_time" and (t.period or 0) >= 0]
    assert b == pytest.approx(contrast[3:] @ points, rel=1e-9)


@pytest.mark.parametrize("way", ["wild_bootstrap", "randomisation"])
@pytest.mark.parametrize("kept", [1.0, 0.8], ids=["whole", "gaps"])
@pytest.mark.parametrize("starts", ["one", "staggered"])
def test_resampling_is_that_of_each_outcome_by_itself(way: str, kept: float, starts: str) -> None:
    s = panel(units=90, clusters=30, years=7, start=4)
    frame = s.frame.sample(frac=kept, random_state=3)
    if way == "randomisation":  # treated and comparison units in every cluster, as matched sets are
        frame = frame.assign(treated=(frame["unit"] % 3 == 0).astype(int))
        first = np.where(frame["treated"] == 1, 4.0 + (frame["unit"] % 2) * (starts == "staggered"), np.nan)
        frame = frame.assign(first_treated=first, d=(frame["time"] >= first).astype(float))
    elif starts == "staggered":
        frame = frame.assign(first_treated=frame["first_treated"] + frame["unit"] % 2)
        frame = frame.assign(d=(frame["time"] >= frame["first_treated"]).astype(float))
    s = replace(s, frame=frame)
    make, named = {
        "wild_bootstrap": (many_wild, inference.wild_bootstrap), "randomisation": (many_randomised, inference.randomisation)
    }[way]  # fmt: skip
    y = outcomes(len(frame))
    found = make(s).tests(y, lambda: np.random.default_rng(7), 199, 0.9)
    for row, one in zip(y, found, strict=True):
        single = replace(s, frame=frame.assign(y=row))
        done = named(twfe.estimate, single, twfe.estimate(single), np.random.default_rng(7), conf_level=0.9, draws=199)
        att = done.terms[0]
        assert one[[0, 2, 3]] == pytest.approx([att.estimate, att.conf_low, att.conf_high], rel=1e-9)
        assert one[4] == att.p_value
        assert np.isnan(one[1]) and np.isnan(att.std_error)


def test_cr2_of_several_coefficients_is_refused() -> None:
    frame = panel().frame
    fit = regression(frame["y"], frame[["d", "x"]], fixed=(frame["unit"], frame["time"]), within=frame["cluster"])
    with pytest.raises(Inapplicable, match="CR2 of 2 coefficients"):
        many(fit, coded(frame["cluster"]), np.array([1.0, 0.0]), "CR2")
