"""Power by simulation: areas come with their sets, every size of effect is what a call gives, and the count is the
formula's where the formula is right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest

from biglocal import estimate, simulated_power, simulation
from biglocal import study as studies
from biglocal.data.load import load
from biglocal.estimators import estimator
from biglocal.inference.power import power
from biglocal.model import Analysis, Fit, Inapplicable, Sample
from biglocal.sample import Draw
from biglocal.simulation import Design
from panels import panel

SIZES = (0.0, 0.5, 1.0, 2.0)


@pytest.fixture(scope="module")
def draw() -> Draw:
    study = studies.load()
    policy = replace(study.policy, power_simulations=4, power_areas=(10, 150), power_effects=SIZES)
    return Draw(replace(study, policy=policy), load("synthetic", seed=study.seed))


@pytest.fixture(scope="module")
def plan(draw: Draw) -> list[Analysis]:
    return [a for a in studies.expand(draw.study) if a.part == "simulated_power"]


def sets(treated: Sequence[int] = (4,) * 12, years: int = 6, start: int = 3) -> Sample:
    """Areas of so many treated units, each with two comparison units matched to it and in its cluster."""
    units = np.arange(sum(treated) * 3)
    head = units // 3 * 3
    frame = pd.DataFrame({"unit": np.repeat(units, years), "time": np.tile(np.arange(years), len(units))})
    frame["treated"] = (frame["unit"] % 3 == 0).astype(int)
    frame["first_treated"] = np.where(frame["treated"] == 1, float(start), np.nan)
    frame["d"] = ((frame["treated"] == 1) & (frame["time"] >= start)).astype(float)
    frame["set"] = np.repeat(head, years)
    frame["cluster"] = np.repeat(np.arange(len(treated)), np.array(treated) * 3 * years)
    return Sample(frame.assign(y=0.0, weight=np.where(frame["treated"] == 1, 1.0, 0.5), level=""), "points")


def design(sample: Sample) -> Design:
    d = sample.frame["d"].to_numpy()
    return Design(sample, np.arange(len(d)), -0.2 * d * (1 + sample.frame["time"].to_numpy() / 10))


# --- areas ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clustered", ["set", "own"])
def test_areas_come_whole_with_the_units_matched_to_them(clustered: str) -> None:
    s = sets()
    if clustered == "own":  # comparison units cluster by themselves
        f = s.frame
        s = replace(s, frame=f.assign(cluster=np.where(f["treated"] == 1, f["cluster"], 100 + f["unit"])))
    place = np.random.default_rng(1).random(1000)
    few, more, every = (simulated_power.part(design(s), place, n) for n in (3, 5, 99))
    assert (few.areas, more.areas, every.areas) == (3, 5, 12)
    assert len(every.rows) == len(s.frame)
    assert set(few.rows) < set(more.rows)
    frame = few.sample.frame
    heads = set(frame.loc[frame["treated"] == 1, "unit"])
    assert heads == set(frame["set"])  # nobody without the one it is matched to, and nobody's matches left behind
    assert (frame.groupby("set")["unit"].nunique() == 3).all()
    now = few.effect != 0
    assert few.truth == pytest.approx(few.effect[now].mean())
    assert (few.effect == design(s).effect[few.rows]).all()


def test_without_sets_there_is_nothing_to_draw() -> None:
    s = sets()
    lost = s.frame.assign(set=-1, cluster=np.where(s.frame["treated"] == 1, s.frame["cluster"], 100 + s.frame["unit"]))
    with pytest.raises(Inapplicable, match="matched to no treated one"):
        simulated_power.part(design(replace(s, frame=lost)), np.arange(1000.0), 3)


# --- sizes of effect -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", simulated_power.QUADRATIC)
def test_three_fits_give_those_of_every_size(name: str) -> None:
    s = panel(units=80, years=7, start=4, clusters=20)
    frame, effect = s.frame, -0.4 * s.frame["d"].to_numpy() * (s.frame["time"].to_numpy() - 2)
    if name == "matched_change":
        frame = frame.assign(set=np.where(frame["treated"] == 1, frame["unit"], frame["unit"] // 20 * 20))

    def fitted(size: float) -> tuple[float, float, float]:
        sample = replace(s, frame=frame.assign(y=frame["y"] + size * effect))
        att = next(t for t in estimator(name)(sample).terms if t.name == "att")
        return att.estimate, att.std_error, att.df

    sizes = np.array([0.0, 0.37, 1.0, 2.5])
    found = simulated_power.scaled(fitted(-1.0)[1], fitted(0.0), fitted(1.0), sizes, 0.95)
    for row, size in zip(found, sizes, strict=True):
        assert row[:2] == pytest.approx(fitted(size)[:2], rel=1e-8)


def test_the_crossing_of_a_normal_tests_power_is_its_detectable_effect() -> None:
    """Normal power is a line in probits, so that the line between any two sizes is the curve itself."""
    sizes = [0.0, 1.0, 2.0, 4.0]
    curve = [power(s, 1.0) for s in sizes]
    assert power(simulated_power.crossing(sizes, curve, 0.8), 1.0) == pytest.approx(0.8, abs=1e-9)
    assert np.isnan(simulated_power.crossing(sizes, [0.05, 0.1, 0.2, 0.3], 0.8))


# --- what is said --------------------------------------------------------------------------------------------------


def counted(inference: str, treated: Sequence[int], replications: int) -> Fit:
    """`replications` of outcomes with shocks of an area's treated units in a year, taken through `summary`."""
    s = sets(treated)
    rng, areas, f = np.random.default_rng(3), len(treated), s.frame
    code = f["cluster"].to_numpy(), f["time"].to_numpy(), f["treated"].to_numpy()
    product = simulation.product(s, "twfe", inference)
    one = simulated_power.part(design(s), np.arange(float(areas)), areas)
    found = []
    for i in range(replications):
        y = rng.normal(scale=0.2, size=(areas, 6, 2))[code] + rng.normal(scale=0.3, size=len(f))
        under = y + np.array(SIZES)[:, None] * one.effect
        tests = product.tests(under, partial(np.random.default_rng, i), 199, 0.95)
        df = getattr(product, "df", float("nan"))
        found.append(
            simulated_power.Found(tests, df, one.truth, areas, (len(f), 3 * sum(treated), sum(treated), areas))
        )
    return simulated_power.summary([found], SIZES, [areas], 0.95, 0.8)


def said(fit: Fit, name: str, level: str = "") -> float:
    return next(t.estimate for t in fit.terms if (t.name, t.level) == (name, level))


def test_the_count_is_the_formula_where_the_error_is_right() -> None:
    """Many alike and independent areas: size, coverage and detectable effect of CR1 within Monte Carlo error."""
    fit = counted("cluster", (4,) * 40, 1_000)
    by = {(t.name, t.level): t for t in fit.terms}
    assert by["size", ""].conf_low < 0.05 < by["size", ""].conf_high
    assert by["coverage", ""].conf_low < 0.95 < by["coverage", ""].conf_high
    assert abs(said(fit, "bias")) < 3 * by["bias", ""].std_error
    least = by["minimum_detectable", ""]
    assert least.conf_low < said(fit, "minimum_detectable_formula") < least.conf_high
    assert least.conf_high / least.conf_low < 1.2  # the interval is one that could have missed it
    for size in SIZES[1:]:
        expected = power(size * said(fit, "effect"), said(fit, "minimum_detectable_formula") / 2.87, 39)
        assert by["power", f"{size:g}"].estimate == pytest.approx(expected, abs=0.04)


def test_few_unequal_areas_break_cr1_and_not_those_made_for_few() -> None:
    """One area holds most of the treated: the plain error takes the areas for as many equal ones."""
    unequal = (24, 3, 3, 3, 3)
    plain, corrected, bootstrap = (
        next(t for t in counted(way, unequal, n).terms if t.name == "size")
        for way, n in (("cluster", 1_000), ("cr2", 1_000), ("wild_bootstrap", 300))
    )
    assert plain.conf_low > 0.08
    assert corrected.estimate < 0.08
    assert bootstrap.conf_low < 0.08 < plain.estimate


def test_what_cannot_be_detected_says_so() -> None:
    fit = counted("cluster", (4,) * 3, 40)
    assert np.isnan(said(fit, "minimum_detectable"))
    assert "Not detectable with 3 areas" in fit.caution


# --- the part ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(draw: Draw, plan: list[Analysis]) -> Callable[..., dict[str, str]]:
    def run(jobs: int, *estimators: str) -> dict[str, str]:
        wanted = [a for a in plan if a.outcome == "samhi" and a.estimator in estimators]
        return {a.id: repr(fit) for a, fit in estimate.estimate(draw, wanted, 0, jobs, lambda _: None)}

    return run


def test_fewer_methods_and_more_workers_give_the_same_rows(
    made: Callable[..., dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulation, "BATCH", 2)
    both, alone = made(1, "drdid", "synthetic_did"), made(2, "drdid")
    assert alone.items() <= both.items() and len(both) == 2
    assert all("Fit(" in text for text in both.values())


def test_products_are_the_estimators_called(draw: Draw, plan: list[Analysis]) -> None:
    """On some of the areas too: every way of inference of the main estimator, both outcomes."""
    for outcome in ("samhi", "high_anxiety"):
        some = [a for a in plan if a.outcome == outcome and a.estimator in ("twfe", "repeated_cross_section")]
        world = simulation.prepared(draw, some, lambda name: estimate.generator(draw.study.seed, name))
        slow = replace(world, methods=tuple(replace(m, product=None) for m in world.methods))
        one, other = (simulated_power.replications(w, range(1), SIZES, (10,))[0] for w in (world, slow))
        for m, (fast, called) in enumerate(zip(one, other, strict=True)):
            assert fast[0].counts == called[0].counts
            a, b, name = fast[0].tests, called[0].tests, world.methods[m].analysis.id
            np.testing.assert_allclose(a[:, [0, 4]], b[:, [0, 4]], rtol=1e-6, err_msg=name)
            known = SIZES.index(1.0)  # intervals of the others are not asked for
            np.testing.assert_allclose(a[known], b[known], rtol=1e-6, err_msg=name)


def test_where_there_is_no_process_the_row_says_so(draw: Draw, plan: list[Analysis]) -> None:
    bare = replace(draw, study=replace(draw.study, policy=replace(draw.study.policy, simulation_effects={})))
    ((_, reason),) = estimate.estimate(bare, plan[:1], 0, 1, lambda _: None)
    assert isinstance(reason, str) and "policy.simulation_effects" in reason
