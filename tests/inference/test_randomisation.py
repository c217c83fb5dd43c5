"""Randomisation inference: draws equal refits, enumeration equals a loop, and the size is right."""

from __future__ import annotations

import itertools
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from biglocal import inference
from biglocal.estimators import twfe
from biglocal.inference.randomisation import _Deal, _terms, dealing, randomise
from biglocal.inference.regression import coded, regression
from biglocal.inference.twoway import clustered
from biglocal.model import Inapplicable, Sample
from panels import panel

if TYPE_CHECKING:
    import pandas as pd


def staggered(units: int = 40, clusters: int = 12) -> Sample:
    s = panel(seed=3, units=units, years=6, start=4, effect=0.3, clusters=clusters)
    first = s.frame["first_treated"] - (s.frame["cluster"] % 5 == 1)
    d = (s.frame["time"] >= first).astype(float)
    return Sample(s.frame.assign(first_treated=first, d=d), "points")


@pytest.mark.parametrize("kinds", [200, 0], ids=["kinds", "each unit"])
@pytest.mark.parametrize("more", ["plain", "weights", "covariate", "both"])
@pytest.mark.parametrize("level", ["cluster", "unit"])
def test_each_draw_is_what_a_refit_gives(level: str, more: str, kinds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Coefficient and clustered error of 20 assignments, to 1e-12, under two hypotheses, which give all five terms.

    Starts are staggered; clusters have from one unit to eight.
    """
    monkeypatch.setattr(import_module("biglocal.inference.randomisation"), "KINDS", kinds)
    f = staggered().frame
    f["cluster"] = (
        np.floor(np.sqrt(f["unit"] * 3.0)).astype(int) if level == "unit" else f["cluster"] // 9 + f["cluster"]
    )
    f["first_treated"] = f["first_treated"].groupby(f[level]).transform("first")
    f["d"] = (f["time"] >= f["first_treated"]).astype(float)
    time, units, group = f["time"].to_numpy(dtype=float), coded(f[level]), coded(f["cluster"])
    assert len(np.unique(np.bincount(group))) > 1
    n = int(units.max()) + 1
    start = np.empty(n)
    start[units] = f["first_treated"].fillna(np.inf)
    starts = np.unique(start[np.isfinite(start)])
    beside: dict[str, Any] = {"fixed": (f["unit"], f["time"])}
    if more in ("weights", "both"):
        beside["weight"] = f["weight"]
    if more in ("covariate", "both"):
        beside["nuisance"] = f[["x"]]
    design = dealing(f["y"], start[units], f[level], time=time, cluster=f["cluster"], statistic="t", **beside)
    assert (design.cells.kind is None) == (kinds == 0)
    deal = design.deal
    who = next(deal.draw(20, False, np.random.default_rng(0), range(20)))
    assert all(len(set(row)) == len(row) for row in who.tolist())
    b0, b1, q0, q1, q2 = _terms(design.cells, who, deal.label, "t")
    np.testing.assert_allclose(_terms(design.cells, who, deal.label, "coefficient")[:2], (b0, b1), rtol=1e-15)
    for i, row in enumerate(who):
        other = np.full(n, np.inf)
        other[row] = starts[deal.label]
        for r in (0.0, 0.7):
            again = regression(f["y"] - r * f["d"], time >= other[units], within=units, **beside)
            assert b0[i] - r * b1[i] == pytest.approx(again.beta[0], rel=1e-12, abs=1e-13)
            error = np.sqrt(q0[i] - 2 * r * q1[i] + r * r * q2[i])
            assert error == pytest.approx(clustered(again, group).std_error[0], rel=1e-11)


@pytest.mark.parametrize("treated", [3, 60], ids=["few", "most"])
def test_dealing_is_the_shuffle_of_fisher_and_yates(treated: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each stratum's first steps, in a loop over draws: the same random numbers give the same assignments.

    Some strata are treated whole, with one start or two, and the draws come in pieces.
    """
    module = import_module("biglocal.inference.randomisation")
    monkeypatch.setattr(module, "HELD", 100 * 40)
    monkeypatch.setattr(module, "CACHED", 100)
    rng = np.random.default_rng(treated)
    layer = np.repeat([0, 1, 2, 3], [4, 5, 11, 80])
    label = np.full(100, -1)
    label[:4], label[4:9], label[9:11] = 1, [0, 1, 0, 1, 1], [0, 1]
    label[rng.choice(np.arange(20, 100), treated, replace=False)] = rng.integers(0, 3, treated)
    mixed = rng.permutation(100)
    deal = _Deal(layer[mixed], label[mixed])
    pieces = list(deal.draw(90, False, np.random.default_rng(7), range(90)))
    assert [len(p) for p in pieces] == [40, 40, 10]
    stream = np.random.default_rng(7)
    for piece in pieces:
        decks = np.tile(deal.order, (len(piece), 1))
        for a, b, t in zip(deal.bounds, deal.bounds[1:], deal.slots, strict=False):
            if (a, t) == (0, 4):  # all treated from one start: nothing to shuffle
                continue
            for j in range(a, min(a + t, b - 1)):
                other = j + (stream.random(len(piece)) * (b - j)).astype(int)
                for deck, o in zip(decks, other, strict=True):
                    deck[j], deck[o] = deck[o], deck[j]
        np.testing.assert_array_equal(piece, decks[:, deal.places])


@pytest.mark.parametrize("statistic", ["coefficient", "t"])
def test_all_assignments_within_strata(statistic: Any) -> None:
    """A cross-section of 4 + 5 units with 2 + 2 treated: the p-value is that of a loop over 6 x 10 assignments."""
    rng = np.random.default_rng(8)
    strata = np.repeat([0, 1], [4, 5])
    treated = np.array([1, 1, 0, 0, 1, 0, 1, 0, 0])
    y = rng.normal(size=9) + treated
    start = np.where(treated == 1, 0.0, np.nan)
    test = randomise(y, start, np.arange(9), rng=rng, strata=strata, fixed=(strata,), statistic=statistic)
    assert test.enumerated
    assert test.assignments == test.draws == 60
    assert test.mc_error == 0
    values = []
    for a, b in itertools.product(itertools.combinations(range(4), 2), itertools.combinations(range(4, 9), 2)):
        fit = regression(y, np.isin(np.arange(9), a + b), fixed=(strata,))
        error = clustered(fit, np.arange(9)).std_error[0] if statistic == "t" else 1.0
        values.append(abs(fit.beta[0] / error))
    own = values[0 * 10 + 1]  # (0, 1) and (4, 6)
    assert abs(test.statistic) == pytest.approx(own, rel=1e-12)
    assert test.p_value == pytest.approx(np.mean(np.array(values) >= own * (1 - 1e-9)))


def test_draws_agree_with_enumeration_within_their_stated_error() -> None:
    f = panel(seed=9, units=24, years=5, start=3, effect=0.25, clusters=12).frame
    arguments: dict[str, Any] = {"time": f["time"], "fixed": (f["unit"], f["time"]), "statistic": "t"}

    def test(draws: int) -> Any:
        return randomise(
            f["y"], f["first_treated"], f["cluster"], rng=np.random.default_rng(2), draws=draws, **arguments
        )

    exact, some = test(5_000), test(400)
    assert exact.enumerated
    assert not some.enumerated
    assert some.mc_low <= exact.p_value <= some.mc_high
    assert some.mc_low < some.p_value < some.mc_high
    assert abs(some.p_value - exact.p_value) < 4 * some.mc_error
    assert some.conf_low == pytest.approx(exact.conf_low, abs=0.2 * (exact.conf_high - exact.conf_low))


def test_laws() -> None:
    s = staggered()
    f = s.frame

    def test(frame: pd.DataFrame, hypothesis: float = 0.0) -> tuple[float, ...]:
        t = randomise(
            frame["y"], frame["first_treated"], frame["cluster"], rng=np.random.default_rng(0), time=frame["time"],
            fixed=(frame["unit"], frame["time"]), weight=frame["weight"], draws=499, hypothesis=hypothesis,
        )  # fmt: skip
        return t.estimate, t.p_value, t.conf_low, t.conf_high

    base = test(f)
    assert base[2] < base[0] < base[3]
    assert test(f.sample(frac=1, random_state=1)) == pytest.approx(base, rel=1e-9)
    later = f.assign(time=f["time"] + 2010, first_treated=f["first_treated"] + 2010)
    assert test(later) == pytest.approx(base, rel=1e-9)
    effect, p, low, high = base
    assert test(f.assign(y=100 * f["y"])) == pytest.approx((100 * effect, p, 100 * low, 100 * high), rel=1e-9)
    assert test(f.assign(y=f["y"] + 2 * f["d"]), 2.0) == pytest.approx((effect + 2, p, low + 2, high + 2), rel=1e-9)


def test_size_under_the_sharp_null() -> None:
    """200 panels without effect, 8 treated of 20 clusters: rejected at about 5% (binomial bounds at 99.9%)."""
    rejected = {"coefficient": 0, "t": 0}
    for seed in range(200):
        f = panel(seed=seed, units=40, years=4, start=2, clusters=20).frame
        for statistic in rejected:
            test = randomise(
                f["y"], f["first_treated"], f["cluster"], rng=np.random.default_rng(seed), time=f["time"],
                fixed=(f["unit"], f["time"]), draws=199, statistic=statistic,  # type: ignore[arg-type]
            )  # fmt: skip
            rejected[statistic] += test.p_value <= 0.05
    assert all(1 <= n <= 22 for n in rejected.values()), rejected


@pytest.mark.parametrize("mixed", [False, True], ids=["whole clusters", "units within matched sets"])
def test_study_path(mixed: bool) -> None:
    s = panel(seed=6, effect=0.5, clusters=20)
    if mixed:
        s = Sample(s.frame.assign(cluster=s.frame["unit"] % 20), "points")
    fit = inference.randomisation(
        twfe.estimate, s, twfe.estimate(s), np.random.default_rng(1), conf_level=0.95, draws=199
    )
    att = fit.terms[0]
    assert fit.facts["assigned"] == ("unit" if mixed else "cluster")
    assert fit.facts["strata"] == ("cluster" if mixed else "")
    assert att.conf_low < att.estimate < att.conf_high
    assert np.isnan(att.std_error)
    assert att.statistic == pytest.approx(twfe.estimate(s).terms[0].estimate / twfe.estimate(s).terms[0].std_error)


@pytest.mark.parametrize("mixed", [False, True], ids=["whole clusters", "units within matched sets"])
def test_a_test_in_shares_is_the_whole_test(mixed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each share from the generator as it was at the start, in any order: the same fit, to the last digit."""
    s = staggered()
    if mixed:
        s = Sample(s.frame.assign(cluster=s.frame["unit"] % 8), "points")
    fit = twfe.estimate(s)
    known = replace(fit, terms=(replace(fit.terms[0], n_persons=70, n_least=20),))
    assert len(inference.prepared(s, known, conf_level=0.9, draws=499).shares()) == 1
    monkeypatch.setattr(import_module("biglocal.inference.randomisation"), "HELD", 20 * (40 if mixed else 12))
    test = inference.prepared(s, known, conf_level=0.9, draws=499)
    shares = test.shares()
    assert [len(p) for p in shares] == [80] * 6 + [19]
    assert list(itertools.chain(*shares)) == list(range(499))
    found = {p: test.drawn(np.random.default_rng(5), p) for p in reversed(shares)}
    done = test.completed(*(found[p] for p in shares))
    whole = inference.randomisation(twfe.estimate, s, fit, np.random.default_rng(5), conf_level=0.9, draws=499)
    assert {(t.n_persons, t.n_least) for t in done.terms} == {(70, 20)}
    assert repr(replace(done, terms=tuple(replace(t, n_persons=None, n_least=None) for t in done.terms))) == repr(whole)


def test_all_assignments_are_one_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("biglocal.inference.randomisation"), "HELD", 1)
    s = panel(seed=6, effect=0.1, clusters=6)
    test = inference.prepared(s, fit := twfe.estimate(s), conf_level=0.95, draws=10_000)
    assert test.shares() == [range(test.count)]
    done = test.whole(np.random.default_rng(5))
    assert done.facts["enumerated"]
    whole = inference.randomisation(twfe.estimate, s, fit, np.random.default_rng(9), conf_level=0.95, draws=10_000)
    assert repr(done) == repr(whole)


@pytest.mark.parametrize("clusters", [6, 20], ids=["enumerated", "drawn"])
def test_p_is_counted_again_from_what_is_shown_of_the_draws(clusters: int) -> None:
    """The bins are of the very draws that p is of: shares beyond give it, and all together are all draws."""
    s = panel(seed=6, effect=0.1, clusters=clusters)
    frame, draws = s.frame, 499
    infer = inference.infer("randomisation", 0.95, draws)
    fit = infer(twfe.estimate, s, twfe.estimate(s), np.random.default_rng(4))
    att, *shown = fit.terms
    test = randomise(
        frame["y"], frame["first_treated"], frame["cluster"], rng=np.random.default_rng(4), time=frame["time"],
        cluster=frame["cluster"], fixed=(frame["unit"], frame["time"]), weight=frame["weight"], statistic="t",
        draws=draws,
    )  # fmt: skip
    n = next(t.estimate for t in shown if t.name == "draws")
    beyond = round(n * sum(t.estimate for t in shown if t.name == "drawn_beyond"))
    assert 0 < beyond < n == test.draws
    assert att.p_value == (beyond / n if test.enumerated else (1 + beyond) / (1 + n))
    assert test.enumerated == (clusters == 6)
    assert sum(t.estimate for t in shown if t.name != "draws") == pytest.approx(1)
    for t in shown[1:]:
        inside = (test.drawn >= t.conf_low) & (test.drawn < t.conf_high)
        as_far = np.abs(test.drawn) >= abs(att.statistic) * (1 - 1e-9)
        assert t.estimate == (inside & (as_far == (t.name == "drawn_beyond"))).mean()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"assigned": [0, 0, 1, 1, 1, 2]}, "varies within"),
        ({"strata": [0, 1, 2, 3, 4, 5]}, "nothing can be shuffled"),
        ({"strata": [0, 1, 0, 1, 0, 1], "assigned": [0, 0, 0, 3, 4, 5]}, "two strata"),
        ({"cluster": [0, 0, 0, 1, 1, 1], "assigned": [0, 1, 2, 2, 4, 5], "start": [1.0] * 2 + [np.nan] * 4}, "split"),
        ({"cluster": [0] * 6, "statistic": "t"}, "no clustered error"),
    ],
)
def test_designs_that_cannot_be_dealt_again_are_refused(change: dict[str, Any], reason: str) -> None:
    plain: dict[str, Any] = {"start": [1.0, 1.0, 1.0, np.nan, np.nan, np.nan], "assigned": [0, 1, 2, 3, 4, 5]}
    with pytest.raises(Inapplicable, match=reason):
        randomise(np.arange(6.0) ** 2, rng=np.random.default_rng(0), **{**plain, **change})


@pytest.mark.parametrize("kept", [1.0, 0.9], ids=["whole", "gaps"])
def test_units_alike_in_the_design_give_what_each_gives(kept: float, monkeypatch: pytest.MonkeyPatch) -> None:
    f = panel(units=90, clusters=30).frame.sample(frac=kept, random_state=1)

    def test(kinds: int) -> Any:
        monkeypatch.setattr(import_module("biglocal.inference.randomisation"), "KINDS", kinds)
        more: dict[str, Any] = {"time": f["time"], "cluster": f["cluster"], "fixed": (f["unit"], f["time"])}
        return randomise(
            f["y"], f["first_treated"], f["cluster"], rng=np.random.default_rng(2), statistic="t", draws=499, **more
        )

    one, each = test(200), test(0)
    np.testing.assert_allclose(one.drawn, each.drawn, rtol=1e-12)
    assert one.p_value == each.p_value
    assert [one.statistic, one.conf_low, one.conf_high] == pytest.approx(
        [each.statistic, each.conf_low, each.conf_high], rel=1e-9
    )


def test_assignments_without_an_effect_to_estimate_do_not_count() -> None:
    """A covariate marks one unit: dealt to that unit, treatment is the covariate, and the other nine are all there are."""
    y, unit = np.array([3.0, 1.0, 4.0, 1.5, 5.0, 9.0, 2.0, 6.0, 5.5, 3.5]), np.arange(10)
    mark = (unit == 3).astype(float)
    test = randomise(
        y, np.where(unit == 5, 0, np.nan), unit, rng=np.random.default_rng(0), nuisance=mark, statistic="coefficient"
    )
    assert (test.enumerated, test.assignments, test.draws) == (True, 10, 9)
    values = [abs(regression(y, unit == i, nuisance=mark).beta[0]) for i in range(10) if i != 3]
    assert test.p_value == np.mean(np.array(values) >= values[4] * (1 - 1e-9)) == 1 / 9
    assert np.isfinite(test.drawn).all()


def test_draws_are_at_least_one() -> None:
    with pytest.raises(Inapplicable, match="0 draws"):
        randomise(np.arange(4.0), [0, np.nan, 0, np.nan], np.arange(4), rng=np.random.default_rng(0), draws=0)
