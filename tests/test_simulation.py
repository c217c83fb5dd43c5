"""The simulation: it draws what the tier draws, calls what the study calls, and tells good intervals from bad ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest

from biglocal import estimate, simulation
from biglocal import study as studies
from biglocal.data import synthetic
from biglocal.data.load import load
from biglocal.data.synthetic_truth import effects as known_effects
from biglocal.inference.many import by_t
from biglocal.model import Analysis, Fit, Sample
from biglocal.sample import Draw

YEARS = tuple(range(2011, 2020))


@pytest.fixture(scope="module")
def draw() -> Draw:
    study = studies.load()
    policy = replace(study.policy, simulations=4)
    return Draw(replace(study, policy=policy), load("synthetic", seed=study.seed))


@pytest.fixture(scope="module")
def plan(draw: Draw) -> list[Analysis]:
    return [a for a in studies.expand(draw.study) if a.part == "simulation"]


@pytest.fixture(scope="module")
def world_of(draw: Draw, plan: list[Analysis]) -> Callable[..., simulation.World]:
    def make(outcome: str, *estimators: str) -> simulation.World:
        chosen = [a for a in plan if a.outcome == outcome and (not estimators or a.estimator in estimators)]
        return simulation.prepared(draw, chosen, partial(estimate.generator, draw.study.seed))

    return make


# --- what is drawn -----------------------------------------------------------------------------------------------


def test_samhi_drawn_from_the_tiers_own_stream_is_the_tiers_own(
    draw: Draw, world_of: Callable[..., simulation.World]
) -> None:
    """The outcome without effect is the tier's table less its effects, on the rows of the sample, to its six digits."""
    stream = synthetic._rng(draw.tier.request, "area_panel").spawn(3)[0]
    world = world_of("samhi", "twfe")
    drawn = simulation.outcomes(world, stream)
    areas, programme, truth = (draw.tier.table(n) for n in ("areas", "programme", "truth"))
    nil = (
        draw.tier.table("area_panel")["samhi"].to_numpy()
        - known_effects("samhi", truth, areas, programme, YEARS).ravel()
    )
    for key, design in world.designs.items():
        np.testing.assert_allclose(drawn[key][0], nil[design.row], rtol=0, atol=1e-6)
        np.testing.assert_allclose(drawn[key][1] - drawn[key][0], design.effect, rtol=0, atol=1e-12)


def test_anxiety_has_the_tiers_level_and_moves_by_the_effect(
    draw: Draw, world_of: Callable[..., simulation.World]
) -> None:
    world = world_of("high_anxiety", "repeated_cross_section")
    ((key, design),) = world.designs.items()
    frame = design.sample.frame
    drawn = np.mean([simulation.outcomes(world, np.random.default_rng(i))[key] for i in range(10)], axis=0)
    table = draw.tier.table("survey")
    score = table["anxiety"].to_numpy(dtype=float)
    used = np.isin(score, (-8, -9), invert=True) & table["lsoa11"].isin(_matched(draw)).to_numpy()
    tiers = pd.Series(100.0 * (score[used] >= 6)).groupby(table["year"].to_numpy()[used]).mean()
    ours = pd.Series(drawn[0]).groupby(frame["time"].to_numpy()).mean()
    assert (tiers - ours).abs().max() < 1.5  # 10 draws of some 11,000 persons a year, shocks shared by district
    now = design.effect != 0
    assert (drawn[1] - drawn[0])[now].mean() == pytest.approx(design.effect[now].mean(), abs=0.35)
    assert (drawn[1] == drawn[0])[~now].all()


def _matched(draw: Draw) -> set[str]:
    cells, _ = draw.matched("nearest")
    return set(cells.loc[cells["weight"] > 0, "lsoa11"])


def test_burglaries_move_by_the_log_of_their_expectation(world_of: Callable[..., simulation.World]) -> None:
    world = world_of("burglary")
    ((key, design),) = world.designs.items()
    none, some = simulation.outcomes(world, np.random.default_rng(1))[key]
    now = design.effect != 0
    assert (none[~now] == some[~now]).all()
    expected = (none[now] * np.exp(design.effect[now])).sum()
    assert some[now].sum() == pytest.approx(expected, abs=5 * np.sqrt(expected))
    assert (none == none.round()).all() and none.min() >= 0


def test_effects_grow_and_differ_by_cohort() -> None:
    first = np.repeat([2013.0, 2015.0, np.nan], 4)
    time = np.tile(np.arange(2013, 2017), 3)
    frame = pd.DataFrame({"first_treated": first, "time": time, "d": (time >= first).astype(float)})
    found = simulation.effects(frame, -1.0).reshape(3, 4)
    assert found[0].tolist() == pytest.approx([-0.75, -1.125, -1.5, -1.875])
    assert found[1].tolist() == pytest.approx([0, 0, -0.25, -0.375])
    assert (found[2] == 0).all()
    one = frame[frame["first_treated"] != 2013]
    assert simulation.effects(one, -1.0)[:4].tolist() == pytest.approx([0, 0, -0.5, -0.75])


# --- what is called ----------------------------------------------------------------------------------------------


def test_products_are_the_estimators_called_replication_by_replication(
    world_of: Callable[..., simulation.World],
) -> None:
    for outcome, least in (("samhi", 5), ("high_anxiety", 3)):
        world = world_of(outcome, "twfe", "repeated_cross_section")
        methods = tuple(m for m in world.methods if m.product is not None)
        assert len(methods) == least
        world = replace(world, methods=methods)
        one_by_one = replace(world, methods=tuple(replace(m, product=None) for m in methods))
        fast, slow = (simulation.replications(w, range(2)) for w in (world, one_by_one))
        np.testing.assert_allclose(fast, slow, rtol=1e-7, atol=1e-10)


def test_resampled_means_of_areas_are_the_resampled_persons(world_of: Callable[..., simulation.World]) -> None:
    world = world_of("high_anxiety", "twfe")
    assert {m.analysis.inference for m in world.methods} == {"wild_bootstrap", "randomisation"}
    cells = next(iter(world.designs.values()))
    persons = world_of("high_anxiety", "imputation").designs
    ((key, of_persons),) = persons.items()
    by_person = replace(
        world, designs={key: of_persons}, methods=tuple(replace(m, design=key, product=None) for m in world.methods)
    )
    assert cells.cells is not None and of_persons.cells is None
    one, other = (simulation.replications(w, range(1)) for w in (world, by_person))
    np.testing.assert_allclose(one[..., 4], other[..., 4])
    np.testing.assert_allclose(one[..., [0, 2, 3]], other[..., [0, 2, 3]], rtol=1e-6)


def test_synthetic_did_takes_whole_panels_and_says_so(world_of: Callable[..., simulation.World]) -> None:
    for design in world_of("samhi", "synthetic_did").designs.values():
        assert (design.sample.frame.groupby("unit").size() == len(YEARS)).all()
        assert "seen in every year only" in design.sample.caution


def test_the_same_rows_from_one_worker_and_from_two(
    draw: Draw, plan: list[Analysis], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulation, "BATCH", 2)
    wanted = [a for a in plan if a.outcome == "samhi" and (a.estimator, a.treatment) == ("twfe", "common_start")]
    ticks: list[int] = []
    one, two = ({a.id: fit for a, fit in estimate.estimate(draw, wanted, 0, jobs, ticks.append)} for jobs in (1, 2))
    assert repr(one) == repr(two)
    assert set(one) == {a.id for a in wanted}
    assert sum(ticks) == 2 * sum(estimate.steps(draw.study, a, 0) for a in wanted)


def test_fewer_methods_draw_the_same_replications(draw: Draw, plan: list[Analysis]) -> None:
    """A method's row does not hang on which others are computed with it: a part of the table can be made anew."""
    both = [a for a in plan if a.outcome == "samhi" and a.estimator in ("drdid", "stacked")]
    every, alone = (
        {a.id: repr(fit) for a, fit in estimate.estimate(draw, some, 0, 1, lambda _: None)}
        for some in (both, both[-1:])
    )
    assert alone.items() <= every.items() and len(every) == 3


# --- what is said ------------------------------------------------------------------------------------------------


def made(
    bias: float = 0.0, drift: float = 0.0, error: float = 1.0, spread: float = 1.0, count: int = 800
) -> tuple[np.ndarray, simulation.Design]:
    """Replications as a method would give them that has this bias and these errors, and a design with effect -2."""
    rng = np.random.default_rng(8)
    null = drift + rng.normal(scale=spread, size=count)
    found = np.empty((count, 2, 5))
    for j, e in enumerate((null, null - 2.0 + bias)):
        found[:, j] = by_t(e, np.full(count, error), 1e6, 0.95)
    frame = pd.DataFrame({"unit": [1, 1, 2, 2], "treated": [1, 1, 0, 0], "cluster": [1, 1, 2, 2], "weight": 1.0})
    return found, simulation.Design(Sample(frame, ""), np.arange(4), np.array([0.0, -2.0, 0.0, 0.0]))


def said(fit: Fit) -> dict[str, float]:
    return {t.name: t.estimate for t in fit.terms}


def test_a_right_method_is_right() -> None:
    fit = simulation.summary(*made(), 0.95)
    found = {t.name: t for t in fit.terms}
    assert found["truth"].estimate == -2.0
    for name, value in (("coverage", 0.95), ("rejection_rate", 0.05), ("error_ratio", 1.0), ("bias", 0.0)):
        assert found[name].conf_low < value < found[name].conf_high, name
    assert fit.caution == ""


def test_replications_without_an_estimate_are_counted_and_left_out() -> None:
    found, design = made()
    found[:5, 1] = np.nan
    fit = simulation.summary(found, design, 0.95)
    assert said(fit)["replications"] == len(found) - 5
    assert fit.caution == "5 replications without an estimate left."
    assert np.isfinite(list(said(fit).values())).all()


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"error": 0.6}, "districts share shocks"),
        ({"error": 1.7}, "drawn at random"),
        ({"bias": 1.0}, "other weights than treated rows have"),
        ({"drift": 0.8}, "drift apart without any effect"),
    ],
)
def test_a_wrong_method_is_exposed_with_its_reason(wrong: dict[str, float], reason: str) -> None:
    fit = simulation.summary(*made(**wrong), 0.95)
    assert not 0.93 <= said(fit)["coverage"] <= 0.97
    assert reason in fit.caution
    assert fit.caution.count(";") == 0  # one fault, one reason


def test_an_error_that_is_one_half_too_small_is_exposed_on_the_studys_design(
    world_of: Callable[..., simulation.World],
) -> None:
    """Twice the errors' size apart, on the same replications: the wrong one rejects and misses far more often."""
    world = world_of("samhi", "event_study")
    right = simulation.replications(world, range(60))[:, :1]
    wrong = right.copy()
    for j in range(2):
        wrong[:, 0, j] = by_t(right[:, 0, j, 0], right[:, 0, j, 1] / 2, 144, 0.95)
    design = next(iter(world.designs.values()))
    good, bad = (simulation.summary(f[:, 0], design, 0.95) for f in (right, wrong))
    assert said(good)["truth"] == pytest.approx(-0.1, rel=0.01)  # the mean of the years' 0.5 to 1.5 times -0.1
    assert abs(said(good)["bias"]) < 4 * next(t.std_error for t in good.terms if t.name == "bias")
    assert said(bad)["coverage"] < 0.85 < said(good)["coverage"]
    assert said(bad)["rejection_rate"] > 0.15 > said(good)["rejection_rate"]
    assert "standard errors are 0." in bad.caution


def test_where_there_is_no_process_the_row_says_so(draw: Draw, plan: list[Analysis]) -> None:
    policy = replace(draw.study.policy, simulation_effects={})
    bare = replace(draw, study=replace(draw.study, policy=policy))
    other = replace(draw, tier=replace(draw.tier, request=replace(draw.tier.request, tier="open")))
    for d, words in ((bare, "policy.simulation_effects"), (other, "synthetic tier only")):
        ((_, reason),) = estimate.estimate(d, plan[:1], 0, 1, lambda _: None)
        assert isinstance(reason, str) and words in reason


def test_a_method_that_does_not_apply_says_why_and_the_others_go_on(draw: Draw, plan: list[Analysis]) -> None:
    one = next(a for a in plan if (a.estimator, a.treatment) == ("drdid", "common_start"))
    wrong = [
        replace(one, id="a", treatment="plan_endorsed"),
        replace(one, id="b", estimator="callaway_santanna", inference="randomisation"),
        replace(one, id="c", estimator="calendar_effects"),
    ]
    ticks: list[int] = []
    found = {a.id: fit for a, fit in estimate.estimate(draw, [*wrong, one], 0, 1, ticks.append)}
    for name, words in (("a", "staggered"), ("b", "single ATT of two-way"), ("c", "gives no single ATT")):
        assert isinstance(found[name], str) and words in found[name], name
    assert isinstance(found[one.id], Fit)
    assert sum(ticks) == 4 * draw.study.policy.simulations


def test_each_method_has_the_sample_and_the_errors_of_its_name(draw: Draw, plan: list[Analysis]) -> None:
    """Covariates and two-way errors are not dropped for the sake of the product that stands for plain regressions."""
    plain = next(a for a in plan if a.outcome == "samhi" and a.estimator == "twfe" and a.inference == "cluster")
    entry = replace(draw.study.estimators["twfe"], name="adjusted", uses="twfe", covariates=("population",))
    study = replace(draw.study, estimators={**draw.study.estimators, "adjusted": entry})
    group = [
        plain,
        replace(plain, id="adjusted", estimator="adjusted"),
        replace(plain, id="twoway", inference="twoway"),
        replace(plain, id="event", estimator="event_study", inference="cr2"),
    ]
    world = simulation.prepared(replace(draw, study=study), group, partial(estimate.generator, study.seed))
    one, adjusted, twoway, event = world.methods
    assert one.product is not None
    assert adjusted.product is None and twoway.product is None and event.product is None
    assert world.designs[one.design].sample.covariates == ()
    assert world.designs[adjusted.design].sample.covariates == ("population",)
