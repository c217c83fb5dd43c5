"""The main regression by three libraries: the same numbers as ours, under the same laws, for every design."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import get_args

import numpy as np
import pandas as pd
import pytest

from biglocal.estimators import _within, correction, counted, twfe, twins
from biglocal.model import Inapplicable, Sample
from biglocal.study import expand, file_of, load, options
from panels import panel
from reference_cases import case, data

ENGINES = get_args(twins.Engine)
REL = 1e-8  # eight digits, of estimate and error


def unbalanced(s: Sample) -> Sample:
    return replace(s, frame=s.frame.sample(frac=0.8, random_state=1).reset_index(drop=True))


def staggered(s: Sample) -> Sample:
    first = s.frame["first_treated"] + s.frame["cluster"] % 2
    return replace(s, frame=s.frame.assign(first_treated=first, d=(s.frame["time"] >= first).astype(float)))


def persons(s: Sample) -> Sample:
    """Several rows of a unit in a year, each with a weight of its own."""
    rng = np.random.default_rng(6)
    f = s.frame.loc[np.repeat(s.frame.index, rng.integers(0, 4, len(s.frame)))].reset_index(drop=True)
    return replace(
        s, frame=f.assign(y=(f["y"] + rng.normal(size=len(f)) > 0) * 100.0, weight=rng.uniform(1, 9, len(f)))
    )


DESIGNS: dict[str, Callable[[Sample], Sample]] = {
    "panel": lambda s: s,
    "unbalanced": unbalanced,
    "persons": persons,
    "staggered starts": staggered,
    "a covariate": lambda s: replace(s, covariates=("x",)),
    "levels": lambda s: replace(s, levels=("even", "odd")),
    "levels, a covariate, unbalanced": lambda s: unbalanced(replace(s, levels=("even", "odd"), covariates=("x",))),
    "rows of weight zero": lambda s: replace(s, frame=s.frame.assign(weight=s.frame["weight"] * (s.frame["unit"] > 5))),
    "unequal weights": lambda s: replace(s, frame=s.frame.assign(weight=10.0 ** (s.frame["unit"] % 5))),
    "units across clusters": lambda s: replace(s, frame=s.frame.assign(cluster=s.frame.index % 40)),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("design", DESIGNS)
def test_estimate_and_error_are_ours_to_eight_digits(design: str, engine: twins.Engine) -> None:
    drawn = DESIGNS[design](panel(seed=3, effect=0.3))
    ours, theirs = twfe.estimate(drawn), twins.estimate(drawn, engine=engine)
    assert len(theirs.terms) == len(ours.terms) + 1
    for a, b in zip(ours.terms, theirs.terms, strict=False):
        assert (a.name, a.level, a.df) == (b.name, b.level, b.df)
        assert (b.estimate, b.std_error) == pytest.approx((a.estimate, a.std_error), rel=REL)
    assert theirs.terms[-1].name == "digits"
    assert theirs.terms[-1].estimate >= 8
    assert theirs.n_clusters == ours.n_clusters
    if design != "rows of weight zero":  # twfe counts all units it was given
        assert [t.n_treated_clusters for t in theirs.terms[:-1]] == [t.n_treated_clusters for t in ours.terms]
        assert (theirs.n_obs, theirs.n_units, theirs.n_treated) == (ours.n_obs, ours.n_units, ours.n_treated)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", ["twfe_castle", "twfe_castle_weighted"])
def test_the_raw_sandwich_with_our_factor_is_that_of_fixest(name: str, engine: twins.Engine) -> None:
    """R's fixest is the referee: what a library gives, corrected as the estimator corrects it."""
    f = data("castle.csv")
    expected, tolerance = case(name)["results"]["cluster_unit"], case(name)["tolerance"]
    weight = f["popwt"].to_numpy(dtype=float) if name.endswith("weighted") else np.ones(len(f))
    unit, time = _within.codes(f["sid"]), _within.codes(f["year"])
    x = f[expected["term"]].to_numpy(dtype=float)
    rows = twins.Rows(f["l_homicide"].to_numpy(dtype=float), weight, x, unit, time, unit)
    beta, raw = getattr(twins, f"_{engine}")(rows)
    factor = correction(len(f), counted(x.shape[1], [unit, time], unit), int(unit.max()) + 1)
    assert beta == pytest.approx(expected["estimate"], rel=tolerance["rel"], abs=tolerance["abs"])
    error = np.sqrt(np.diag(raw) * factor)
    assert error == pytest.approx(expected["se"], rel=tolerance["rel"], abs=tolerance["abs"])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda f: f.sample(frac=1, random_state=2), id="shuffle rows"),
        pytest.param(lambda f: f.assign(unit=10_000 - 7 * f["unit"]), id="relabel units"),
        pytest.param(lambda f: f.assign(weight=5 * f["weight"]), id="scale weights"),
        pytest.param(lambda f: f.set_axis(f.index * 3 + 1), id="another index"),
        pytest.param(lambda f: f.assign(time=f["time"] + 2010), id="shift time"),
        pytest.param(lambda f: f.assign(y=f["y"] + 3 * f["unit"] + np.sin(f["time"])), id="add unit and time effects"),
    ],
)
def test_nothing_moves(change: Callable[[pd.DataFrame], pd.DataFrame], engine: twins.Engine) -> None:
    drawn = panel(seed=4)
    before = drawn.frame.copy()
    one = twins.estimate(drawn, engine=engine).terms[0]
    two = twins.estimate(replace(drawn, frame=change(drawn.frame)), engine=engine).terms[0]
    assert (two.estimate, two.std_error) == pytest.approx((one.estimate, one.std_error), rel=REL)
    pd.testing.assert_frame_equal(drawn.frame, before)


@pytest.mark.parametrize("engine", ENGINES)
def test_scale_and_a_planted_effect(engine: twins.Engine) -> None:
    drawn = panel(seed=4)
    one = twins.estimate(drawn, engine=engine).terms[0]
    f = drawn.frame
    scaled = twins.estimate(replace(drawn, frame=f.assign(y=5 - 100 * f["y"])), engine=engine).terms[0]
    planted = twins.estimate(replace(drawn, frame=f.assign(y=f["y"] + 0.75 * f["d"])), engine=engine).terms[0]
    assert (scaled.estimate, scaled.std_error) == pytest.approx((-100 * one.estimate, 100 * one.std_error), rel=REL)
    assert (planted.estimate - one.estimate, planted.std_error) == pytest.approx((0.75, one.std_error), rel=REL)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda f: f[f["time"] >= 5], "no period before"),
        (lambda f: f[f["treated"] == 1], "0 comparison"),
        (lambda f: f[(f["treated"] == 0) | (f["cluster"] == 0)], "1 treated cluster"),
        (lambda f: f.assign(cluster=0), "1 cluster"),
        (lambda f: f.assign(y=3.0), "constant"),
        (lambda f: f.assign(weight=0.0), "weights are zero"),
        (lambda f: f.assign(x=f["unit"] * 2.0), "collinear.*: x"),
        (lambda f: f.assign(x=np.nan), "x is missing"),
        (lambda f: f[:0], "no rows"),
    ],
)
def test_what_cannot_be_estimated_is_refused(
    change: Callable[[pd.DataFrame], pd.DataFrame], reason: str, engine: twins.Engine
) -> None:
    drawn = panel(seed=4)
    with pytest.raises(Inapplicable, match=reason):
        twins.estimate(replace(drawn, frame=change(drawn.frame), covariates=("x",)), engine=engine)


def test_staggered_starts_are_said() -> None:
    assert "staggered" in twins.estimate(staggered(panel(seed=4))).caution


def test_times_that_no_unit_links_have_a_dummy_less_each() -> None:
    """Two spells with no unit in both: the years of each are free of the other's."""
    drawn = panel(seed=5, units=60, years=6, start=2)
    late = drawn.frame.assign(
        unit=drawn.frame["unit"] + 100, time=drawn.frame["time"] + 50, first_treated=drawn.frame["first_treated"] + 50
    )
    both = replace(drawn, frame=pd.concat([drawn.frame, late], ignore_index=True).assign(weight=1.0))
    both.frame.loc[60 * 6 :, "y"] *= 2.0
    ours = twfe.estimate(both).terms[0]
    for engine in ENGINES:
        theirs = twins.estimate(both, engine=engine).terms[0]
        assert (theirs.estimate, theirs.std_error) == pytest.approx((ours.estimate, ours.std_error), rel=REL)


@pytest.mark.parametrize(
    ("a", "b", "digits"),
    [(1.0, 1.0, 10), (0.0, 0.0, 10), (1.0, 1.0 + 1e-12, 10), (1.0, 1.0 + 3e-7, 6), (2.0, -2.0, 0), (1.0, np.nan, 0)],
)
def test_agreeing_digits(a: float, b: float, digits: int) -> None:
    assert twins.agreeing(a, b) == twins.agreeing(b, a) == digits
    assert twins.agreeing(-1e9 * a, -1e9 * b) == digits


def test_the_study_asks_every_library_for_the_main_regression() -> None:
    study = load()
    plan = [a for a in expand(study) if a.part == "twins"]
    main = {(a.outcome, a.comparison, a.treatment) for a in expand(study) if a.part == "effects"}
    assert {(a.outcome, a.comparison, a.treatment) for a in plan} <= main
    assert {file_of(study, a.estimator) for a in plan} == {"twins"}
    assert {options(study, a.estimator)["engine"] for a in plan} == set(ENGINES)
