"""The multiverse: each specification is what the ordinary path says, and the curve's tests hold what they claim."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from biglocal import curve, multiverse, specifications
from biglocal import study as studies
from biglocal.data.load import Request, Tier, load
from biglocal.model import Analysis, Choice, Inapplicable, Multiverse, Outcome, Rule, Study, StudyError
from biglocal.places import relisted
from biglocal.sample import Draw
from biglocal.specifications import DIMENSIONS, Specification, expand

YEARS = range(2011, 2020)


def own() -> tuple[Study, Multiverse]:
    study = studies.load()
    assert study.multiverse is not None
    return study, study.multiverse


def small(outcomes: int = 2, seed: int = 1, comparisons: tuple[str, ...] = ("pool",)) -> Draw:
    """Forty neighbourhoods of six LSOAs, ten of them treated, two regions; outcomes without any effect."""
    study, m = own()
    rng = np.random.default_rng(seed)
    n, msoas = 240, 40
    msoa = np.arange(n) // 6
    areas = pd.DataFrame(
        {
            "lsoa11": [f"E01{i:06d}" for i in range(n)],
            "msoa11": [f"E02{i:06d}" for i in msoa],
            "region": np.where(msoa % 2, "London", "North West"),
            "rural": rng.random(n) < 0.2,
            "population": rng.integers(1000, 2000, n),
            "imd": rng.normal(size=msoas)[msoa] + rng.normal(size=n),
            "other_programme": pd.Series([None] * n, dtype=object),
            "earlier_funding": np.nan,
            "area_id": [f"A{i:02d}" if i < 10 else None for i in msoa],
            "share": np.where(msoa < 10, 1.0, np.nan),
        }
    )
    areas["income"] = rng.normal(size=n)
    names = [f"A{i:02d}" for i in range(10)]
    dates = pd.to_datetime([f"{2013 + i % 3}-03-01" for i in range(10)])
    programme = pd.DataFrame(
        {"area_id": names, "wave": 1, "plan_endorsed": dates, "first_spend": dates, "announced": dates}
    )
    panel = pd.DataFrame(list(itertools.product(areas["lsoa11"], YEARS)), columns=["lsoa11", "year"])
    shared = np.repeat(rng.normal(size=(msoas, len(YEARS), outcomes))[msoa], 1, axis=0).reshape(-1, outcomes)
    values = shared + rng.normal(size=(len(panel), outcomes)) + np.repeat(rng.normal(size=(n, outcomes)), 9, axis=0)
    panel = pd.concat([panel, pd.DataFrame(values, columns=[f"y{i}" for i in range(outcomes)])], axis=1)
    panel.loc[rng.random(len(panel)) < 0.002, "y0"] = np.nan
    named = {
        f"y{i}": Outcome(f"y{i}", f"y{i}", "area_panel", f"y{i}", "units", "lower", "made", 2011, 2019, baseline=False)
        for i in range(outcomes)
    }
    plain = {
        c: replace(
            study.comparisons[c], covariates=("imd", "income", "population"), optional=(), pool_quantile=0.0,
            exact=("region",) if c != "pool" else (), options={}, caliper=None, ratio=2,
        )
        for c in comparisons
    }  # fmt: skip
    chosen = replace(
        m, outcomes=tuple(named), bands=1, rules=(), comparison={c: m.comparison.get(c, m.comparison["pool"]) for c in plain},
        treatment={t: m.treatment[t] for t in ("common_start", "plan_endorsed")},
    )  # fmt: skip
    study = replace(
        study, outcomes=named, comparisons=plain, multiverse=chosen,
        policy=replace(study.policy, excluded_around="none"),
    )  # fmt: skip
    kept = {"areas": areas, "programme": programme, "area_panel": panel}
    tier = Tier(
        Request("synthetic"), "", dict.fromkeys(kept, "x"), {}, lambda *_: areas, lambda _: [], lambda _: {}, kept
    )
    return Draw(study, tier)


def world(draw: Draw) -> multiverse.World:
    assert draw.study.multiverse is not None
    return multiverse.build(draw, draw.study.multiverse.outcomes)


def numbered(seed: int) -> object:
    return lambda name: np.random.default_rng([seed, sum(map(ord, name)), len(name)])


# --- which there are -------------------------------------------------------------------------------------------


def test_every_combination_is_a_specification_or_has_the_reason_why_not() -> None:
    study, m = own()
    for outcome in m.outcomes:
        kept, lost = expand(study, outcome)
        assert len(kept) >= 500
        assert len({s.name for s in kept}) == len(kept)
        assert len(kept) + sum(lost.values()) == np.prod([len(getattr(m, d)) for d in DIMENSIONS])
        persons = study.outcomes[outcome].table == "survey"
        cannot = set() if persons else {"to_2020", "survey", "respondents"}  # no such years, no respondents
        for d in DIMENSIONS:  # an option is in some specification, or every one with it was ruled out by name
            rules = [r for r in m.rules if set(r.out) == {d} and outcome in (r.outcomes or m.outcomes)]
            gone = {o for r in rules for o in r.out[d]} | cannot
            assert {getattr(s, d) for s in kept} == set(getattr(m, d)) - gone


def test_outcomes_of_the_study_are_estimated_as_its_main_analysis_does_too() -> None:
    study, m = own()
    for outcome, window, weights in (("high_anxiety", "to_2020", "survey"), ("samhi", "all", "lsoas")):
        main = Specification("common_start", "nearest", "none", "twfe", window, weights, "as_measured", "none")
        assert main in expand(study, outcome)[0]
        o = study.outcomes[outcome]
        assert specifications.years_of(m, o, window) == (o.first_year, o.last_year)


def option(dimension: str, name: str = "odd", **settings: Any) -> dict[str, object]:
    """A dimension with one more option than the study has, or with another in the place of one."""
    return {dimension: {**getattr(own()[1], dimension), name: Choice("why", "Odd", **settings)}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"outcomes": ("swemwbs",)}, "outcomes: no outcome of the area panel or the survey"),
        ({"outcomes": ("happiness",), "rules": ()}, "estimator ancova, matched_change is left for happiness"),
        ({"rules": (Rule({"estimator": ("twfe",)}, "why", ("violence",)),)}, "no outcome of the multiverse 'violence'"),
        ({"draws": 20}, "draws: 20 is out of range"),
        ({"outcomes": ()}, "multiverse.outcomes: none is named"),
        ({"outcomes": ("samhi", "burglary", "samhi")}, "outcomes: samhi is named twice"),
        (
            {"rules": (Rule({"window": ("all",), "comparison": ()}, "why"),)},
            r"rules\[0\].comparison: it names no option",
        ),
        (option("covariates", columns=("imd", "imd")), "covariates.odd: imd is named twice"),
        (option("covariates", columns=("imd",), values=("x",)), "covariates.odd.values: it would do nothing"),
        (option("estimator", "twfe", columns=("imd",)), "estimator.twfe.columns: it would do nothing"),
        (option("exclusion", first_year=2012), "odd.first_year: it would do nothing. .* has columns, values, label"),
        (option("covariates", columns=("imd_msoa", "imd")), "covariates.odd: it is deprivation by another name"),
        (option("covariates"), "covariates.odd: it is none by another name"),
        (option("exclusion", columns=("rural",), values=(True,)), "exclusion.odd: it is rural by another name"),
        (option("window", first_year=2011, last_year=2018), "window.odd: it is to_2018 by another name"),
        ({"bands": 0}, "bands: 0 is out of range"),
        ({"weights": {}}, "weights: it has no option"),
        ({"rules": (Rule({"estimator": ("ols",)}, "why"),)}, "no option 'ols'"),
        ({"rules": (Rule({}, "why"),)}, "rules out everything"),
        ({"rules": (Rule({"window": ("all", "to_2018", "to_2020")}, "why"),)}, "no specification is left"),
        (
            option("exclusion", columns=("rural",), values=("true",)),
            'exclusion.odd: "true" is no value of rural. Choose from true, false.',
        ),
        (
            option("exclusion", columns=("region",), values=(True,)),
            'exclusion.odd: true is no value of region. Choose from "North East"',
        ),
        (
            option(
                "exclusion",
                columns=("region",),
                values=(
                    "London",
                    "Londn",
                ),
            ),
            'exclusion.odd: "Londn" is no value of region',
        ),
        (
            option(
                "exclusion",
                columns=("rural",),
                values=(
                    True,
                    False,
                ),
            ),
            "exclusion.odd: every value of rural is left out",
        ),
        (option("exclusion", columns=("imd",), values=("high",)), "exclusion.odd: column imd holds numbers"),
    ],
)
def test_a_multiverse_that_cannot_be_is_refused_by_name(change: dict[str, object], message: str) -> None:
    study, m = own()
    changed = replace(study, multiverse=replace(m, **change))  # type: ignore[arg-type]

    def named(at: str, seen: str, known: object, what: str) -> None:
        if seen not in list(known):  # type: ignore[call-overload]
            raise StudyError(f"{at}: no {what} '{seen}'")

    with pytest.raises(StudyError, match=message):
        specifications.check(changed, "study.toml", named, ["imd", "imd_msoa"], ["region", "rural", "imd"])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (("Londn",), "Londn leaves out none of .* whose region is known, which is London, North West. Correct"),
        (("London", "North West"), "London, North West leaves out every one"),
    ],
)
def test_an_exclusion_that_leaves_out_nothing_or_everything_is_refused(values: tuple[str, ...], message: str) -> None:
    """Its specifications would be those without it, under another name."""
    draw = small()
    m = draw.study.multiverse
    assert m is not None
    odd = {**m.exclusion, "odd": Choice("why", "Odd", ("region",), values)}
    draw = replace(draw, study=replace(draw.study, multiverse=replace(m, exclusion=odd)))
    with pytest.raises(StudyError, match=f"multiverse.exclusion.odd: .*{message}"):
        world(draw)


def test_an_exclusion_of_which_the_tier_knows_nothing_leaves_and_is_said() -> None:
    draw = small(outcomes=1)
    areas = draw.tier.table("areas")
    blank = areas.assign(rural=pd.Series([None] * len(areas), dtype="boolean"))
    tier = replace(draw.tier, _kept={**draw.tier._kept, "areas": blank}, lacks={"rural": "Ask for it."})
    made, whole = world(replace(draw, tier=tier)), world(draw)
    assert {s.exclusion for s in made.specs} == {"none", "london"}
    seen, at = multiverse.once(made, made.draw), [whole.specs.index(s) for s in made.specs]
    np.testing.assert_array_equal(seen, multiverse.once(whole, whole.draw)[:, at])
    null = multiverse.permuted(made, range(99), numbered(3))  # type: ignore[arg-type]
    fit = multiverse.summary(made, 0, seen[0], null[:, 0])
    assert fit.caution.startswith("exclusion rural: the synthetic tier has no values of rural. Ask for it.")


# --- each is what the ordinary path says -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def synthetic() -> tuple[Draw, multiverse.World, np.ndarray]:
    study, _ = own()
    draw = Draw(study, load("synthetic", seed=study.seed))
    made = world(draw)
    return draw, made, multiverse.once(made, made.draw)


def strata(specs: tuple[Specification, ...]) -> list[int]:
    """One specification, at another place each time, of every pair of estimator and comparison, weights, covariates."""
    seen: dict[tuple[str, ...], list[int]] = {}
    for i, s in enumerate(specs):
        seen.setdefault((s.estimator, s.comparison, s.weights, s.covariates), []).append(i)
    return [members[(7 * j) % len(members)] for j, members in enumerate(seen.values())]


@pytest.mark.slow
@pytest.mark.parametrize("outcome", ["high_anxiety", "samhi", "burglary"])
def test_specifications_agree_with_the_ordinary_path(
    synthetic: tuple[Draw, multiverse.World, np.ndarray], outcome: str
) -> None:
    draw, made, seen = synthetic
    o = made.outcomes.index(outcome)
    specs = expand(draw.study, outcome)[0]
    assert [s for s, mine in zip(made.specs, made.mine[o], strict=True) if mine] == list(specs)
    assert np.isnan(seen[o, ~made.mine[o]]).all()
    for s in (specs[i] for i in strata(specs)):
        i = made.specs.index(s)
        fit = multiverse.fit(draw, outcome, s)
        assert seen[o, i, :2] == pytest.approx(multiverse.average(fit), abs=1e-10), s.name
        assert tuple(seen[o, i, 2:5]) == (fit.n_units, fit.n_treated, fit.n_clusters), s.name


@pytest.mark.parametrize("cluster", ["set", "own"])
def test_every_specification_of_a_small_world_agrees_under_its_own_and_another_list(cluster: str) -> None:
    draw = small(outcomes=1, comparisons=("pool", "nearest"))
    draw = replace(draw, study=replace(draw.study, policy=replace(draw.study.policy, cluster=cluster)))
    m = draw.study.multiverse
    assert m is not None
    fewer = replace(m, definition={"winsorised": m.definition["winsorised"]}, window={"to_2018": m.window["to_2018"]})
    draw = replace(draw, study=replace(draw.study, multiverse=fewer))
    made = world(draw)
    area = made.places.drawn(np.random.default_rng(3))
    lists = {"own": made.draw, "other": relisted(made.draw, made.places, area)}
    panel = draw.tier.table("area_panel")
    for name, listed in lists.items():
        seen = multiverse.once(made, listed)
        full = replace(listed, tier=replace(listed.tier, _kept={**listed.tier._kept, "area_panel": panel}))
        full = replace(full, tier=replace(full.tier, digests=draw.tier.digests))
        for i, s in enumerate(made.specs):
            fit = multiverse.fit(full, "y0", s)
            assert seen[0, i, :2] == pytest.approx(multiverse.average(fit), abs=1e-10), (name, s.name)


def test_an_outcome_that_begins_after_a_start_has_no_specification_of_it() -> None:
    draw = small(outcomes=1)
    later = {n: replace(o, first_year=2016) for n, o in draw.study.outcomes.items()}
    made = world(replace(draw, study=replace(draw.study, outcomes=later)))
    seen = multiverse.once(made, made.draw)
    assert {s.treatment for s in made.specs} == {"plan_endorsed"}  # the common start is in 2015
    assert np.isnan(seen).all()  # areas start in 2013 to 2015
    with pytest.raises(Inapplicable, match="no specification has"):
        multiverse.summary(made, 0, seen[0], np.full((99, len(made.specs), 3), np.nan))


def test_years_without_any_value_are_in_no_window_as_on_the_ordinary_path() -> None:
    draw = small(outcomes=1)
    panel = draw.tier.table("area_panel")
    late = panel.assign(y0=panel["y0"].where(panel["year"] > 2012))
    draw = replace(draw, tier=replace(draw.tier, _kept={**draw.tier._kept, "area_panel": late}))
    made = world(draw)
    seen = multiverse.once(made, made.draw)
    there = np.isfinite(seen[0, :, 0])
    assert there.sum() > 30
    for s, has, said in zip(made.specs, there, seen[0], strict=True):
        if not has:
            with pytest.raises(Inapplicable):
                multiverse.fit(draw, "y0", s)
            continue
        fit = multiverse.fit(draw, "y0", s)
        assert said[:2] == pytest.approx(multiverse.average(fit), abs=1e-10), s.name
        assert tuple(said[2:5]) == (fit.n_units, fit.n_treated, fit.n_clusters), s.name
    rng = np.random.default_rng(1)
    null = 1 + rng.random((99, len(made.specs), 3))
    assert (
        "No LSOA has a value in 2011, 2012: windows are without." in multiverse.summary(made, 0, seen[0], null).caution
    )


# --- laws ------------------------------------------------------------------------------------------------------


def test_the_order_of_rows_and_of_options_changes_nothing() -> None:
    draw = small(comparisons=("pool", "nearest"))
    one, other = world(draw), small(comparisons=("pool", "nearest"))
    kept = {k: t.sample(frac=1, random_state=5) for k, t in other.tier._kept.items()}
    m = other.study.multiverse
    assert m is not None
    turned = replace(m, **{d: dict(reversed(getattr(m, d).items())) for d in DIMENSIONS})
    two = world(replace(other, tier=replace(other.tier, _kept=kept), study=replace(other.study, multiverse=turned)))
    where = [two.specs.index(s) for s in one.specs]
    rng = numbered(1)
    a = multiverse.permuted(one, range(3), rng)  # type: ignore[arg-type]
    b = multiverse.permuted(two, range(3), rng)  # type: ignore[arg-type]
    np.testing.assert_allclose(a, b[:, :, where], rtol=1e-9, atol=1e-12)


def test_batches_change_nothing() -> None:
    made, rng = world(small()), numbered(2)
    whole = multiverse.permuted(made, range(4), rng)  # type: ignore[arg-type]
    parts = [multiverse.permuted(made, range(i, i + 1), rng) for i in range(4)]  # type: ignore[arg-type]
    np.testing.assert_array_equal(whole, np.concatenate(parts))


def test_a_planted_effect_moves_every_specification_by_itself() -> None:
    draw = small(outcomes=1)
    plain = world(draw)
    before = multiverse.once(plain, plain.draw)[0, :, 0]
    areas, programme = draw.tier.table("areas"), draw.tier.table("programme")
    panel = draw.tier.table("area_panel")
    year = {
        "common_start": dict.fromkeys(programme["area_id"], 2015),
        "plan_endorsed": dict(zip(programme["area_id"], programme["plan_endorsed"].dt.year, strict=True)),
    }
    for treatment, start in year.items():
        first = panel["lsoa11"].map(areas.set_index("lsoa11")["area_id"]).map(start).astype(float)
        planted = panel.assign(y0=panel["y0"] + 0.7 * (panel["year"] >= first))
        tier = replace(draw.tier, _kept={**draw.tier._kept, "area_panel": planted})
        made = world(replace(draw, tier=tier))
        after = multiverse.once(made, made.draw)[0, :, 0]
        for i, s in enumerate(plain.specs):
            if s.treatment == treatment and s.definition == "as_measured":
                assert after[i] - before[i] == pytest.approx(0.7, abs=1e-9), s.name


def test_a_list_takes_as_many_places_of_each_stratum_each_as_often() -> None:
    made = world(small())
    p = made.places
    rng = np.random.default_rng(4)
    lists = np.stack([p.drawn(rng) for _ in range(2000)])
    for listed in lists[:50]:
        assert sorted(listed[listed >= 0]) == list(range(10))
        for k in np.unique(p.stratum):
            here = p.stratum == k
            assert (listed[here] >= 0).sum() == (p.label[here] >= 0).sum()
            assert set(listed[here & (listed >= 0)]) == set(p.label[here & (p.label >= 0)])
    often = (lists >= 0).mean(axis=0)
    # 2 strata of 20 places, 5 areas each: five standard errors of a quarter over 2,000 lists
    assert np.abs(often - 0.25).max() < 5 * np.sqrt(0.25 * 0.75 / 2000)


def test_neighbourhoods_of_an_area_are_no_place_of_their_own() -> None:
    made = world(small())
    p = made.places
    frame = made.draw.places()
    for place in range(10, len(p.label)):
        mine = frame[p.of == place]
        assert mine["msoa11"].nunique() == 1
        assert mine["area_id"].isna().all()


# --- the tests of the curve ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_without_an_effect_the_joint_p_values_are_uniform() -> None:
    """100 outcomes without effect, each through the curve's tests on the same 199 lists."""
    draw = small(outcomes=100, seed=7)
    m = draw.study.multiverse
    assert m is not None
    first = {d: dict([next(iter(getattr(m, d).items()))]) for d in ("exclusion", "definition", "covariates", "window")}
    made = world(replace(draw, study=replace(draw.study, multiverse=replace(m, **first))))
    seen = multiverse.once(made, made.draw)
    null = multiverse.permuted(made, range(199), numbered(8))  # type: ignore[arg-type]
    p: dict[str, list[float]] = {}
    for o in range(len(made.outcomes)):
        for t in multiverse.summary(made, o, seen[o], null[:, o]).terms:
            if t.name == "curve" and t.level != "told_apart":
                p.setdefault(t.level, []).append(t.p_value)
    assert set(p) == {"median", "stouffer", "max_z", "share_same_sign", "share_significant"}
    for name, values in p.items():
        few = np.mean(np.array(values) <= 0.1)
        assert few <= 0.1 + 3.3 * np.sqrt(0.09 / 100), name
        if name in ("median", "stouffer", "max_z"):  # the shares have ties, and are then on the safe side
            assert abs(np.mean(values) - 0.5) < 3.3 * np.sqrt(1 / 12 / 100), name
            assert few >= 0.1 - 3 * np.sqrt(0.09 / 100), name


def test_the_summary_counts_what_it_says() -> None:
    made = world(small(outcomes=1))
    seen = multiverse.once(made, made.draw)
    null = multiverse.permuted(made, range(99), numbered(9))  # type: ignore[arg-type]
    terms = multiverse.summary(made, 0, seen[0], null[:, 0]).terms
    of = {t.level: t for t in terms if t.name == "curve"}
    specs = [t for t in terms if t.name == "specification"]
    assert [t.level for t in specs] == [s.name for s in made.specs]
    assert of["median"].estimate == pytest.approx(np.median([t.estimate for t in specs]))
    medians = np.median(null[:, 0, :, 0], axis=1)
    assert of["median"].p_value == pytest.approx((1 + (np.abs(medians) >= abs(of["median"].estimate)).sum()) / 100)
    positive = np.mean([t.estimate > 0 for t in specs])
    assert of["share_same_sign"].estimate == pytest.approx(max(positive, 1 - positive))
    assert sum(t.estimate for t in terms if t.name == "choice") == pytest.approx(1)
    with pytest.raises(Inapplicable, match="98 of 98 draws"):
        multiverse.summary(made, 0, seen[0], null[:98, 0])


def test_step_down_against_the_definition() -> None:
    size = np.abs(np.random.default_rng(5).normal(size=(200, 6)))
    size[0] = [4.0, 0.1, 2.5, 2.4, 1.0, 3.1]
    found = curve.step_down(size)
    order = np.argsort(-size[0])
    last = 0.0
    for k, j in enumerate(order):
        rest = order[k:]
        last = max(last, float(np.mean(size[:, rest].max(axis=1) >= size[0, j])))
        assert found[j] == pytest.approx(last)


def test_shares_are_those_of_anova_where_choices_are_crossed_and_do_not_depend_on_order() -> None:
    rng = np.random.default_rng(6)
    levels = {d: [f"{d}{i}" for i in range(2)] for d in DIMENSIONS}
    specs = [Specification(*c) for c in itertools.product(*levels.values())]
    y = sum(
        np.array([rng.normal(size=2)[levels[d].index(getattr(s, d))] for s in specs]) * (d in ("window", "weights"))
        for d in DIMENSIONS
    )
    y = np.array([1.5 * (s.window == "window1") + 0.5 * (s.weights == "weights1") for s in specs]) + 0.1 * np.asarray(y)
    found = curve.shares(specs, y)
    for d in DIMENSIONS:
        means = {o: y[[getattr(s, d) == o for s in specs]].mean() for o in levels[d]}
        between = np.var([means[getattr(s, d)] for s in specs])
        assert found[d] == pytest.approx(between / np.var(y), abs=1e-10)
    mixed = rng.permutation(len(specs))[:150]  # no longer crossed
    one = curve.shares([specs[i] for i in mixed], y[mixed])
    back = mixed[::-1]
    two = curve.shares([specs[i] for i in back], y[back])
    assert one == pytest.approx(two, abs=1e-10)
    assert sum(one.values()) == pytest.approx(1)


def test_the_sample_of_a_specification_is_the_ordinary_one_where_it_chooses_as_the_study_does() -> None:
    draw = small(outcomes=2)
    plain = draw.sample(Analysis("", "effects", "y1", "all", "pool", "twfe", "none", "common_start"))
    spec = Specification("common_start", "pool", "none", "twfe", "all", "lsoas", "as_measured", "none")
    pd.testing.assert_frame_equal(multiverse.sample(draw, "y1", spec).frame, plain.frame)


def collinear(draw: Draw, fault: str, **covariates: tuple[str, ...]) -> Draw:
    """One start, and an option `deprivation` of covariates at fault in some samples or all; `covariates`: more."""
    m, areas = draw.study.multiverse, draw.tier.table("areas")
    assert m is not None
    made = {
        "constant": areas["rural"].astype(float) * 0.3,  # where the exclusion leaves urban LSOAs alone
        "nought": areas["imd"] * 0,
        "double": 3 - 0.7 * areas["imd"],
        "treatment": areas["area_id"].notna() * 0.1,
    }[fault]
    columns = {"deprivation": ("imd", "made") if fault == "double" else ("made",)} | covariates
    options = {name: replace(m.covariates["deprivation"], columns=own) for name, own in columns.items()}
    chosen = replace(m, covariates=m.covariates | options, treatment={"common_start": m.treatment["common_start"]})
    return replace(
        draw, study=replace(draw.study, multiverse=chosen),
        tier=replace(draw.tier, _kept={**draw.tier._kept, "areas": areas.assign(made=made)}),
    )  # fmt: skip


def is_collinear(s: Specification, fault: str) -> bool:
    """Whether a specification of `collinear` has no estimate."""
    return s.covariates == "deprivation" and (s.exclusion == "rural" or fault != "constant")


@pytest.mark.parametrize("fault", ["constant", "nought", "double", "treatment"])
def test_a_covariate_that_is_collinear_in_a_sample_has_no_estimate_there_as_on_the_ordinary_path(fault: str) -> None:
    """Rounding leaves singular cross-products regular, and what was made of them any number at all."""
    draw = collinear(small(outcomes=1), fault, other=("imd",))
    built = world(draw)
    seen = multiverse.once(built, built.draw)[0]
    singular = [is_collinear(s, fault) for s in built.specs]
    np.testing.assert_array_equal(np.isnan(seen[:, :2]).all(axis=1), singular)
    for i in sorted({singular.index(k) for k in (True, False)} | set(range(0, len(singular), 5))):
        s = built.specs[i]
        if singular[i]:
            if fault in ("constant", "nought"):  # of the others rounding may leave the ordinary path more than nothing
                with pytest.raises(Inapplicable, match="collinear"):
                    multiverse.fit(draw, "y0", s)
        else:
            assert seen[i, :2] == pytest.approx(multiverse.average(multiverse.fit(draw, "y0", s)), abs=1e-10), s.name
    null = multiverse.permuted(built, range(99), numbered(3))  # type: ignore[arg-type]
    fit = multiverse.summary(built, 0, seen, null[:, 0])
    assert sum(t.name == "specification" for t in fit.terms) == len(singular) - sum(singular)
    named = "covariates deprivation" + (", exclusion rural" if fault == "constant" else "")
    assert f"{sum(singular)} of {len(singular)} specifications (of those with {named}) have no estimate" in fit.caution


def test_ancova_has_no_estimate_where_the_mean_before_is_collinear_with_covariates() -> None:
    draw = small(outcomes=1)
    m, areas, panel = draw.study.multiverse, draw.tier.table("areas"), draw.tier.table("area_panel")
    assert m is not None
    spread = panel["y0"].where(panel["year"] >= 2015, panel["lsoa11"].map(areas.set_index("lsoa11")["imd"]))
    chosen = replace(
        m, definition={"as_measured": m.definition["as_measured"]}, treatment={"common_start": m.treatment["common_start"]},
        covariates={**m.covariates, "deprivation": replace(m.covariates["deprivation"], columns=("imd",))},
    )  # fmt: skip
    kept = {**draw.tier._kept, "area_panel": panel.assign(y0=spread)}
    draw = replace(draw, study=replace(draw.study, multiverse=chosen), tier=replace(draw.tier, _kept=kept))
    built = world(draw)
    seen = multiverse.once(built, built.draw)[0]
    for i, s in enumerate(built.specs):
        gone = s.estimator == "ancova" and s.covariates == "deprivation"
        assert np.isnan(seen[i, 0]) == gone, s.name
        if not gone and i % 5 == 0:
            assert seen[i, :2] == pytest.approx(multiverse.average(multiverse.fit(draw, "y0", s)), abs=1e-10), s.name


def partly_blank(draw: Draw) -> Draw:
    """With a covariate that is not matched on, and blank in some LSOAs, a treated and a listed one among them."""
    m, areas = draw.study.multiverse, draw.tier.table("areas")
    assert m is not None
    rng = np.random.default_rng(5)
    made = pd.Series(rng.normal(size=len(areas))).mask(rng.random(len(areas)) < 0.1)
    made[[0, 7, 100]] = np.nan
    both = {
        k: replace(m.covariates["deprivation"], columns=c)
        for k, c in {"one": ("made",), "two": ("imd", "made")}.items()
    }
    chosen = replace(m, covariates={**m.covariates, **both}, window={"all": m.window["all"]})
    covariates = {**chosen.covariates, "deprivation": replace(m.covariates["deprivation"], columns=("imd",))}
    study = replace(draw.study, multiverse=replace(chosen, covariates=covariates))
    kept = {**draw.tier._kept, "areas": areas.assign(made=made)}
    return replace(draw, study=study, tier=replace(draw.tier, _kept=kept))


def test_an_lsoa_with_a_blank_covariate_leaves_the_specifications_with_it_and_no_others() -> None:
    plain = small(outcomes=1, comparisons=("pool", "nearest"))
    draw = partly_blank(plain)
    made = world(draw)
    area = made.places.drawn(np.random.default_rng(3))
    panel = draw.tier.table("area_panel")
    for name, listed in {"own": made.draw, "other": relisted(made.draw, made.places, area)}.items():
        seen = multiverse.once(made, listed)[0]
        assert np.isfinite(seen[:, :2]).all()
        full = replace(listed, tier=replace(listed.tier, _kept={**listed.tier._kept, "area_panel": panel}))
        full = replace(full, tier=replace(full.tier, digests=draw.tier.digests))
        for i in range(0, len(made.specs), 5):
            fit = multiverse.fit(full, "y0", made.specs[i])
            assert seen[i, :2] == pytest.approx(multiverse.average(fit), abs=1e-10), (name, made.specs[i].name)
            assert tuple(seen[i, 2:5]) == (fit.n_units, fit.n_treated, fit.n_clusters), (name, made.specs[i].name)
    without = world(plain)
    before, seen = (multiverse.once(w, w.draw)[0] for w in (without, made))
    same = [(i, without.specs.index(s)) for i, s in enumerate(made.specs) if s.covariates == "none"]
    np.testing.assert_array_equal(seen[[i for i, _ in same]], before[[i for _, i in same]])
    null = multiverse.permuted(made, range(99), numbered(3))  # type: ignore[arg-type]
    fit = multiverse.summary(made, 0, seen, null[:, 0])
    assert "draws without" not in fit.caution
    assert "matched LSOAs without a value of made left the specifications with covariates one," in fit.caution
    assert "without a value of imd, made left the specifications with covariates two," in fit.caution
    assert "covariates deprivation" not in fit.caution


def test_covariates_of_which_the_tier_knows_nothing_leave_and_are_said() -> None:
    draw = partly_blank(small(outcomes=1))
    areas = draw.tier.table("areas").assign(made=np.nan)
    tier = replace(draw.tier, _kept={**draw.tier._kept, "areas": areas}, lacks={"made": "Ask for it."})
    made = world(replace(draw, tier=tier))
    assert {s.covariates for s in made.specs} == {"none", "deprivation"}
    assert made.unknown["covariates", "two"] == "covariates two: the synthetic tier has no values of made. Ask for it."
    assert np.isfinite(multiverse.once(made, made.draw)[0, :, :2]).all()
