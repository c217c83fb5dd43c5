"""Many outcomes on one design: as the estimators and `satterthwaite` give for each."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from biglocal import inference
from biglocal.estimators import event_study, twfe
from biglocal.estimators._fixest import linear
from biglocal.estimators._within import codes
from biglocal.inference.many import many
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


def test_cr2_of_several_coefficients_is_refused() -> None:
    frame = panel().frame
    fit = regression(frame["y"], frame[["d", "x"]], fixed=(frame["unit"], frame["time"]), within=frame["cluster"])
    with pytest.raises(Inapplicable, match="CR2 of 2 coefficients"):
        many(fit, coded(frame["cluster"]), np.array([1.0, 0.0]), "CR2")
