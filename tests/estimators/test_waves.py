"""What must hold of every model of persons who answer again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from biglocal.estimators import estimator
from biglocal.model import Fit, Inapplicable, Sample
from waves import survey

LINEAR: dict[str, tuple[str, dict[str, Any]]] = {
    "gee": ("gee", {"family": "gaussian"}),
    "gee independence": ("gee", {"family": "gaussian", "correlation": "independence"}),
    "gee ar1": ("gee", {"family": "gaussian", "correlation": "ar1"}),
    "mixed_model": ("mixed_model", {}),
    "mixed_model kenward_roger": ("mixed_model", {"df": "kenward_roger"}),
    "mixed_model cluster": ("mixed_model", {"errors": "cluster"}),
    "mixed_model slope": ("mixed_model", {"slope": True, "method": "ML"}),
    "random_effects": ("random_effects", {}),
    "within_person": ("within_person", {}),
}
LOG_ODDS: dict[str, tuple[str, dict[str, Any]]] = {
    "gee logit": ("gee", {}),
    "mixed_logit": ("mixed_logit", {}),
    "mixed_logit cluster": ("mixed_logit", {"errors": "cluster"}),
}
ALL = {**LINEAR, **LOG_ODDS}
OF = pytest.mark.parametrize("of", ["change", "association"])
TWO = ("men", "women")


def base(model: str, seed: int = 1, **options: Any) -> Sample:
    s = survey(seed=seed, **{"persons": 180, **options})
    if model in LOG_ODDS:
        return replace(s, frame=s.frame.assign(y=(s.frame["y"] > s.frame["y"].median()).astype(float)))
    return s


def run(model: str, sample: Sample, of: str) -> Fit:
    name, options = ALL[model]
    return estimator(name)(sample, of=of, **options)


def by_term(fit: Fit) -> dict[tuple[str, int | None, str], tuple[float, float, float, float]]:
    return {(t.name, t.period, t.level): (t.estimate, t.std_error, t.statistic, t.df) for t in fit.terms}


def two_levels(s: Sample) -> Sample:
    return replace(s, frame=s.frame[s.frame["level"] != "neither"], levels=TWO)


def digits(model: str) -> float:
    return 1e-4 if "slope" in model else 1e-6  # a slope without variance is at its bound: the top is flat


@OF
@pytest.mark.parametrize("model", ALL)
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(
            lambda f: (
                f.assign(
                    unit=f["unit"].map(lambda u: f"p{7919 * u % 10007}"),
                    cluster=f["cluster"].map(lambda c: 97 * c % 1009),
                    weight=5.0,
                )
                .sample(frac=1, random_state=2)
                .set_axis(f.index * 3 + 1)
            ),
            id="shuffle rows, relabel persons and areas, scale weights, another index",
        ),
        pytest.param(lambda f: f.assign(age=40 + 1000 * f["age"]), id="covariate on another scale"),
    ],
)
def test_nothing_moves(model: str, of: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    s = two_levels(base(model))
    before = s.frame.copy()
    one, two = by_term(run(model, s, of)), by_term(run(model, replace(s, frame=change(s.frame)), of))
    pd.testing.assert_frame_equal(s.frame, before)
    assert one.keys() == two.keys()
    for key in one:
        assert two[key] == pytest.approx(one[key], rel=digits(model), abs=1e-7, nan_ok=True)


@OF
@pytest.mark.parametrize("model", LINEAR)
def test_scale_and_shift_of_the_outcome(model: str, of: str) -> None:
    s = base(model)
    one = by_term(run(model, s, of))
    two = by_term(run(model, replace(s, frame=s.frame.assign(y=-100 * s.frame["y"] + 5)), of))
    for key, (estimate, error, _, df) in one.items():
        wanted = (-100 * estimate, 100 * error, df)
        assert (*two[key][:2], two[key][3]) == pytest.approx(wanted, rel=digits(model), abs=1e-5, nan_ok=True)


@pytest.mark.parametrize("model", LOG_ODDS)
def test_an_outcome_of_percentage_points_and_its_complement(model: str) -> None:
    s = base(model)
    one = by_term(run(model, s, "association"))
    two = by_term(run(model, replace(s, frame=s.frame.assign(y=100 * s.frame["y"])), "association"))
    other = by_term(run(model, replace(s, frame=s.frame.assign(y=1 - s.frame["y"])), "association"))
    key = ("association", None, "")
    assert two[key] == pytest.approx(one[key], rel=1e-9, nan_ok=True)
    assert other[key][:2] == pytest.approx((-one[key][0], one[key][1]), rel=1e-6)
    assert one["odds_ratio", None, ""][0] == pytest.approx(np.exp(one[key][0]))


@pytest.mark.parametrize("model", ALL)
def test_the_scale_of_the_exposure(model: str) -> None:
    s = base(model)
    one = by_term(run(model, s, "association"))["association", None, ""]
    two = by_term(run(model, replace(s, frame=s.frame.assign(d=10 - s.frame["d"] / 4)), "association"))
    assert two["association", None, ""][:2] == pytest.approx((-4 * one[0], 4 * one[1]), rel=digits(model))


@OF
@pytest.mark.parametrize("model", LINEAR)
def test_a_planted_effect_is_found(model: str, of: str) -> None:
    s = base(model, seed=11, persons=900, areas=150, change=0.8, slope=0.4)
    for t in run(model, s, of).terms:
        truth = {"change": {2016: 0.0, 2018: 0.8, 2020: 0.0}, "association": {None: 0.4}}[t.name][t.period]
        assert abs(t.estimate - truth) <= 3.5 * np.nan_to_num(t.std_error)


@OF
@pytest.mark.parametrize("model", ALL)
def test_levels_have_each_their_terms_and_the_test_of_the_difference(model: str, of: str) -> None:
    s = two_levels(base(model))
    fit = run(model, s, of)
    found = by_term(fit)
    name, periods = ("change", [2018, 2020]) if of == "change" else ("association", [None])
    for period in periods:
        gap = found[name, period, "women"][0] - found[name, period, "men"][0]
        assert found["difference", period, ""][0] == pytest.approx(gap, rel=1e-9)
        assert found["difference", period, ""][1] > 0
    if of == "change":
        assert [found[name, 2016, k][0] for k in TWO] == [0, 0]
        assert not any(t.tested for t in fit.terms if t.period == 2016)
    for t in fit.terms:
        if t.name == name:
            rows = s.frame[(s.frame["level"] == t.level) & (t.period is None or s.frame["time"] == t.period)]
            assert (t.n_treated or 0) <= rows["unit"].nunique()
    turned = by_term(run(model, replace(s, levels=TWO[::-1]), of))
    for period in periods:
        assert turned["difference", period, ""][0] == pytest.approx(-found["difference", period, ""][0], rel=1e-5)
    three = replace(base(model, persons=600), levels=("men", "women", "neither"))
    joint = [t for t in run(model, three, of).terms if t.name == "difference"]
    assert [(t.df_num, t.period) for t in joint] == [(2, p) for p in periods]
    assert all(t.statistic > 0 and np.isnan(t.estimate) and t.df > 2 for t in joint)


@OF
@pytest.mark.parametrize("model", ALL)
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda f: f[:0], "no rows"),
        (lambda f: f.assign(y=1.0), "constant"),
        (lambda f: f.assign(weight=-1.0), "weights are negative"),
        (lambda f: f.assign(weight=0.0), "weights are zero"),
        (lambda f: f.assign(y=f["y"].where(f.index > 3)), "missing in"),
        (lambda f: f[(f["time"] != 2020) | (f["unit"] == 4)], "wave 2020"),
        (lambda f: f.assign(x=f["x"].where(f.index > 3)), "covariate x is missing in"),
        (lambda f: f.assign(age=2.0 * f["x"] + (f["time"] == 2018)), "collinear"),
    ],
)
def test_degenerate_input_is_refused_with_a_reason(model: str, of: str, change: Any, reason: str) -> None:
    s = base(model)
    frame = change(s.frame)
    if reason == "wave 2020" and not (frame["time"] == 2020).any():
        frame = pd.concat([frame, s.frame[s.frame["time"] == 2020][:1]])
    with pytest.raises(Inapplicable, match=reason):
        run(model, replace(s, frame=frame), of)


@pytest.mark.parametrize("model", ALL)
def test_an_empty_cell_names_wave_and_level(model: str) -> None:
    s = two_levels(base(model))
    empty = s.frame[(s.frame["time"] != 2018) | (s.frame["level"] != "women")]
    with pytest.raises(Inapplicable, match="wave 2018 of level women: 0 persons"):
        run(model, replace(s, frame=empty), "change")
    with pytest.raises(Inapplicable, match=r"a change (within persons )?needs two"):
        run(model, replace(s, frame=s.frame[s.frame["time"] == 2018]), "change")
    with pytest.raises(Inapplicable, match="exposure is constant"):
        run(model, replace(s, frame=s.frame.assign(d=1.0)), "association")
    with pytest.raises(Inapplicable, match="no exposure"):
        run(model, replace(s, frame=s.frame.drop(columns="d")), "association")


@pytest.mark.parametrize(
    "model", [m for m in LINEAR if m.split()[0] in ("mixed_model", "random_effects", "within_person")]
)
def test_an_outcome_that_does_not_change_within_persons_is_refused(model: str) -> None:
    s = base(model)
    steady = np.random.default_rng(1).normal(size=180)[s.frame["unit"]]
    with pytest.raises(Inapplicable, match="does not change"):
        run(model, replace(s, frame=s.frame.assign(y=steady)), "change")


@pytest.mark.parametrize("model", LOG_ODDS)
def test_a_wave_without_the_outcome_is_refused(model: str) -> None:
    s = two_levels(base(model))
    none = s.frame.assign(y=s.frame["y"].where((s.frame["time"] != 2018) | (s.frame["level"] == "men"), 0.0))
    with pytest.raises(Inapplicable, match="wave 2018 of level women: the outcome is 0 in all"):
        run(model, replace(s, frame=none), "change")
    assert run(model, replace(s, frame=none, levels=()), "change").terms


def test_intervals_hold_the_planted_effects_about_as_often_as_they_say() -> None:
    """50 surveys of few areas; the binomial bound at 99.9%."""
    from biglocal import inference

    models = ("mixed_model", "mixed_model cluster", "within_person", "gee independence")
    held = dict.fromkeys(((m, of) for m in models for of in ("change", "association")), 0)
    for seed in range(50):
        s = survey(seed=3000 + seed, persons=75, areas=25)
        for m, of in held:
            done = inference.cluster(
                estimator(m.split()[0]), s, run(m, s, of), np.random.default_rng(0), conf_level=0.95
            )
            term = next(t for t in done.terms if t.period == (2018 if of == "change" else None))
            held[m, of] += term.conf_low <= (0.5 if of == "change" else 0.3) <= term.conf_high
    assert all(n >= 41 for n in held.values()), held
