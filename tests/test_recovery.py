"""Recovery: the answer of a biased, a wide and a right method by hand; draws that depend on nothing but their names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from biglocal import estimate, recovery
from biglocal import study as studies
from biglocal.data.load import load
from biglocal.model import Analysis, Fit, Study
from biglocal.sample import Draw

KEY = ("change", 2018, "")


@pytest.fixture(scope="module")
def draw() -> Draw:
    study = studies.load()
    policy = replace(study.policy, recoveries=16)
    return Draw(replace(study, policy=policy), load("synthetic", seed=3))


def analysis(respondents: str, estimator: str, **more: str) -> Analysis:
    fixed = {"outcome": "swemwbs", "subgroup": "all", "comparison": "", "inference": "none", "treatment": ""}
    return Analysis(id=estimator, part="recovery", respondents=respondents, estimator=estimator, **(fixed | more))


def in_turn(items: Any) -> Iterator[Any]:
    return (function(*arguments) for function, arguments in items)


def backwards(items: Any) -> Iterator[Any]:
    """As `in_turn`, but the work is done last first: each replication has random numbers of its own."""
    listed = list(items)
    return iter([function(*arguments) for function, arguments in reversed(listed)][::-1])


def found(draw: Draw, some: list[Analysis], runs: Callable[[Any], Iterator[Any]] = in_turn) -> list[Fit | str]:
    rng = partial(estimate.generator, draw.study.seed)
    return [fit for _, fit in recovery.run(draw, some, runs, rng, lambda _: None)]


def values(fit: Fit | str) -> dict[tuple[str, int | None, str], float]:
    assert isinstance(fit, Fit)
    return {(t.name, t.period, t.level): t.estimate for t in fit.terms}


def test_by_hand() -> None:
    rng = np.random.default_rng(1)
    estimates = rng.normal(2.0, 0.5, 4000)

    def fit(shift: float, width: float) -> dict[str, float]:
        draws = [{KEY: (e + shift, width, e + shift - 1.96 * width, e + shift + 1.96 * width)} for e in estimates]
        summed = recovery.summary(draws, {KEY: 2.0}, 0.95)
        return {t.name: t.estimate for t in summed.terms} | {"cautious": float(bool(summed.caution))}

    right, biased, narrow = fit(0, 0.5), fit(1.0, 0.5), fit(0, 0.25)
    assert right["change_coverage"] == pytest.approx(0.95, abs=0.012)
    assert right["change_error_ratio"] == pytest.approx(1, abs=0.04)
    assert right["change_bias"] == pytest.approx(0, abs=0.03)
    assert biased["change_bias"] == pytest.approx(1, abs=0.03)
    assert biased["change_coverage"] < 0.6
    assert narrow["change_error_ratio"] == pytest.approx(0.5, abs=0.03)
    assert narrow["change_coverage"] < 0.75
    assert [x["cautious"] for x in (right, biased, narrow)] == [0, 1, 1]


def test_what_never_applied_gives_no_term() -> None:
    assert recovery.summary([{}, {}], {KEY: 1.0}, 0.95).terms == ()


def test_replications_depend_on_their_names_alone(draw: Draw) -> None:
    few = replace(draw, study=replace(draw.study, policy=replace(draw.study.policy, recoveries=4)))
    one, other = analysis("cohort", "mixed_model"), analysis("cohort", "least_squares", subgroup="gender")
    forward = found(few, [one, other])
    assert [values(f) for f in forward] == [values(f) for f in found(few, [one, other], backwards)]
    assert values(forward[1]) == values(found(few, [other])[0])
    true = values(forward[1])
    assert true["difference_truth", 2018, ""] == pytest.approx(
        true["change_truth", 2018, "men"] - true["change_truth", 2018, "women"]
    )


def test_weights_bring_the_change_nearer_to_what_is_true_than_pooled_answers(draw: Draw) -> None:
    naive, weighted = found(draw, [analysis("answers", "least_squares"), analysis("reached", "response_weights")])
    for wave in (2018, 2020):
        bias = {k: abs(values(f)["change_bias", wave, ""]) for k, f in (("naive", naive), ("weighted", weighted))}
        assert bias["weighted"] < bias["naive"]
    early = {t.name: t for t in weighted.terms if t.period == 2018}  # type: ignore[union-attr]
    assert abs(early["change_bias"].estimate) < 4 * early["change_bias"].std_error


def test_a_search_that_leaps_far_from_the_start_still_ends(draw: Draw) -> None:
    """In this survey the first step of the mixed model's search went to variances at which the deviance is rounding."""
    rng = estimate.generator(draw.study.seed, "recovery/99")
    one = recovery.once(draw, [analysis("reached", "standardised", subgroup="education")], rng)[0]
    assert len(one) == 6
    assert all(np.isfinite(values).all() for values in one.values())


def test_the_reason_for_coverage_names_where_it_is() -> None:
    rng = np.random.default_rng(3)
    true, where = 1.0, [("change", 2018, "men"), ("change", 2018, "women"), ("difference", 2018, "")]
    shift, width = (0.5, 0.0, 0.0), (0.2, 0.1, 0.2)

    def one() -> dict[tuple[str, int | None, str], tuple[float, float, float, float]]:
        found = {}
        for key, off, error in zip(where, shift, width, strict=True):
            e = true + off + 0.2 * rng.normal()
            found[key] = (e, error, e - 1.96 * error, e + 1.96 * error)
        return found

    said = recovery.summary([one() for _ in range(400)], dict.fromkeys(where, true), 0.95).caution
    assert "(2018, men change): the estimate is off" in said
    assert "(2018, women change): the estimate is not off, its errors are smaller" in said
    assert "difference" not in said


def test_real_members_have_no_known_truth(draw: Draw) -> None:
    real = replace(draw, tier=replace(draw.tier, request=replace(draw.tier.request, tier="secure")))
    assert found(real, [analysis("cohort", "mixed_model")]) == [
        "surveys are drawn anew from the synthetic tier's generator alone."
    ]


def test_the_study_asks_only_what_is_known(draw: Draw) -> None:
    study: Study = draw.study
    wanted = [a for a in studies.expand(study) if a.part == "recovery"]
    few = replace(draw, study=replace(study, policy=replace(study.policy, recoveries=2)))
    for a, fit in zip(wanted, found(few, wanted), strict=True):
        assert isinstance(fit, Fit), f"{a.id}: {fit}"
        assert fit.terms, a.id
