"""Specifications of an outcome of persons, other persons every year: each is what the ordinary path says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from biglocal import cross_sections, multiverse, release
from biglocal.estimate import rows
from biglocal.model import Analysis, Inapplicable, Outcome
from biglocal.places import relisted
from biglocal.sample import Draw
from biglocal.specifications import SURVEY, Specification, expand
from test_multiverse import collinear, is_collinear, numbered, own, partly_blank, small, world

MOOD = Outcome("mood", "Mood", "survey", "mood", "points", "lower", "made", 2011, 2019, codes_missing=(-8,))


def asked(seed: int = 1, comparisons: tuple[str, ...] = ("pool", "nearest"), persons: int = 9_000) -> Draw:
    """Persons of the small world's LSOAs: some LSOAs have none in some years, one never, some have few."""
    draw = small(outcomes=1, seed=seed, comparisons=comparisons)
    rng = np.random.default_rng([seed, 1])
    areas, (_, real) = draw.tier.table("areas"), own()
    at = np.minimum(rng.integers(0, len(areas), persons), rng.integers(1, len(areas), persons))
    year = rng.integers(2011, 2020, persons)
    level = rng.normal(size=len(areas))
    survey = pd.DataFrame(
        {
            "person_id": np.arange(persons),
            "lsoa11": pd.Categorical(areas["lsoa11"].to_numpy()[at]),
            "year": year,
            "weight": np.where(rng.random(persons) < 0.02, 0.0, rng.gamma(2, 0.5, persons)),
            "mood": np.where(
                rng.random(persons) < 0.05, -8, level[at] + 0.1 * (year - 2011) + rng.normal(size=persons)
            ),
        }
    )
    survey = survey[survey["lsoa11"] != areas["lsoa11"].iloc[3]]
    rules = tuple(
        replace(r, outcomes=("mood",)) for r in real.rules if r.outcomes and "to_2018" not in r.out.get("window", ())
    )
    m = draw.study.multiverse
    assert m is not None
    study = replace(
        draw.study,
        outcomes={**draw.study.outcomes, "mood": MOOD},
        multiverse=replace(m, outcomes=("mood",), rules=rules),
    )
    return replace(draw, study=study, tier=with_survey(draw, survey).tier)


def with_survey(draw: Draw, survey: pd.DataFrame) -> Draw:
    kept = {**draw.tier._kept, "survey": survey}
    return replace(draw, tier=replace(draw.tier, _kept=kept, digests=dict.fromkeys(kept, "x")))


def least(draw: Draw, spec: Specification) -> int:
    """The fewest persons of treated and others, before and after, of the ordinary sample; others by the first start."""
    frame = multiverse.sample(draw, "mood", spec).frame
    after = frame["time"] >= frame["first_treated"].fillna(frame["first_treated"].min())
    return int(frame.groupby([frame["treated"], after]).size().min())


@pytest.mark.parametrize("cluster", ["set", "own"])
def test_every_specification_agrees_with_the_ordinary_path_under_its_own_and_two_other_lists(cluster: str) -> None:
    draw = asked()
    draw = replace(draw, study=replace(draw.study, policy=replace(draw.study.policy, cluster=cluster)))
    made = world(draw)
    specs = expand(draw.study, "mood")[0]
    assert {d: {getattr(s, d) for s in specs} for d in SURVEY} == {d: set(options) for d, options in SURVEY.items()}
    lists = [made.draw]
    lists += [relisted(made.draw, made.places, made.places.drawn(np.random.default_rng(i))) for i in (3, 4)]
    for j, listed in enumerate(lists):
        seen = multiverse.once(made, listed)[0]
        full = with_survey(listed, draw.tier.table("survey"))
        for i, s in list(enumerate(made.specs))[:: 5 if j else 2]:
            fit = multiverse.fit(full, "mood", s)
            np.testing.assert_allclose(seen[i, :2], multiverse.average(fit), rtol=1e-11, atol=1e-12, err_msg=s.name)
            assert tuple(seen[i, 2:5]) == (fit.n_units, fit.n_treated, fit.n_clusters), s.name
            assert seen[i, 5] == least(full, s), s.name


def test_a_year_in_which_nobody_was_asked_is_none() -> None:
    draw = asked(comparisons=("pool",))
    survey = draw.tier.table("survey")
    draw = with_survey(draw, survey[survey["year"] != 2016])
    made = world(draw)
    seen = multiverse.once(made, made.draw)[0]
    for i in range(0, len(made.specs), 7):
        fit = multiverse.fit(draw, "mood", made.specs[i])
        np.testing.assert_allclose(seen[i, :2], multiverse.average(fit), rtol=1e-11, err_msg=made.specs[i].name)


def test_scale_of_outcome_and_weights_and_the_order_of_rows() -> None:
    draw = asked()
    made = world(draw)
    plain = multiverse.once(made, made.draw)
    survey = draw.tier.table("survey").sample(frac=1, random_state=1)
    turned = world(with_survey(draw, survey))
    np.testing.assert_array_equal(multiverse.once(turned, turned.draw), plain)
    heavier = world(with_survey(draw, survey.assign(weight=survey["weight"] * 7)))
    np.testing.assert_allclose(multiverse.once(heavier, heavier.draw), plain, rtol=1e-10)
    scaled = replace(draw.study, outcomes={**draw.study.outcomes, "mood": replace(MOOD, scale=-100.0)})
    larger = world(replace(draw, study=scaled))
    changed = multiverse.once(larger, larger.draw)
    np.testing.assert_allclose(changed[..., 0], -100 * plain[..., 0], rtol=1e-10)
    np.testing.assert_allclose(changed[..., 1:], plain[..., 1:] * [100, 1, 1, 1, 1], rtol=1e-10)


def test_a_planted_effect_moves_every_specification_by_itself() -> None:
    draw = asked(comparisons=("pool",))
    made = world(draw)
    before = multiverse.once(made, made.draw)[0, :, 0]
    areas, programme, survey = (draw.tier.table(t) for t in ("areas", "programme", "survey"))
    dates = dict(zip(programme["area_id"], programme["plan_endorsed"].dt.year, strict=True))
    area = survey["lsoa11"].astype(object).map(areas.set_index("lsoa11")["area_id"])
    for treatment, start in {"common_start": dict.fromkeys(dates, 2015), "plan_endorsed": dates}.items():
        moved = np.where((survey["year"] >= area.map(start)) & (survey["mood"] != -8), 0.7, 0.0)
        planted = world(with_survey(draw, survey.assign(mood=survey["mood"] + moved)))
        after = multiverse.once(planted, planted.draw)[0, :, 0]
        mine = [s.treatment == treatment for s in made.specs]
        np.testing.assert_allclose((after - before)[mine], 0.7, atol=1e-10)


def test_answers_are_added_up_by_lsoa_and_year() -> None:
    draw = asked()
    survey, places = draw.tier.table("survey"), draw.places().index
    lie = draw.positions("survey")
    found = cross_sections.answers(survey, MOOD, *lie, np.arange(2010, 2021))
    good = survey[(survey["mood"] != -8) & (survey["weight"] > 0)]
    assert found.persons.sum() == len(good)
    assert not found.persons[[0, -1]].any()  # no years of the outcome
    at = places.get_loc(good["lsoa11"].iloc[0])
    own = good[good["lsoa11"] == good["lsoa11"].iloc[0]]
    assert found.by_weight[:, at].sum() == pytest.approx((own["weight"] * own["mood"]).sum())
    assert found.of(np.array([at, 3])).first().tolist() == [own["year"].min(), np.inf]
    with pytest.raises(Inapplicable, match="Mood: no values of mood"):
        cross_sections.answers(survey.assign(mood=-8), MOOD, *lie, np.arange(2011, 2020))


def test_an_outcome_that_the_tier_lacks_leaves_the_others() -> None:
    draw = asked(comparisons=("pool",))
    m = draw.study.multiverse
    assert m is not None
    draw = replace(draw, study=replace(draw.study, multiverse=replace(m, outcomes=("mood", "y0"))))
    without = {k: t for k, t in draw.tier._kept.items() if k != "survey"}
    tier = replace(draw.tier, _kept=without, digests=dict.fromkeys(without, "x"), lacks={"survey": "Ask for it."})
    made = world(replace(draw, tier=tier))
    assert made.outcomes == ("y0",)
    assert made.lacking == {"mood": "Ask for it."}
    both = world(draw)
    at = [both.specs.index(s) for s in made.specs]
    np.testing.assert_array_equal(multiverse.once(made, made.draw)[0], multiverse.once(both, both.draw)[1, at])


def test_what_is_said_of_few_persons_does_not_leave() -> None:
    study, _ = own()
    draw = asked(comparisons=("pool",), persons=4_000)
    made = world(draw)
    seen = multiverse.once(made, made.draw)
    null = multiverse.permuted(made, range(99), numbered(9))  # type: ignore[arg-type]
    analysis = Analysis("multiverse/high_anxiety", "multiverse", "high_anxiety", "all", "", "", "none", "")

    def shown(few: float) -> dict[str, int]:
        fewer = seen[0].copy()
        fewer[0, 5] = few
        fit = multiverse.summary(made, 0, fewer, null[:, 0])
        mine = [replace(r, df=99.0 if r.df else r.df) for r in rows(study, "synthetic", analysis, fit, "x")]
        out, _ = release.control(mine, study)
        assert all(r.n_least is None and r.n_obs is not None and r.n_obs % 5 == 0 for r in out if r.status == "ok")
        return {s: sum(r.status == s for r in out) for s in {r.status for r in out}}

    assert set(shown(seen[0, 0, 5])) == {"ok"}
    withheld = shown(9)
    one = Specification(*made.specs[0].name.split(" | "))
    assert one == made.specs[0]
    assert withheld["suppressed"] == 1 + sum(withheld.values()) - len(made.specs)  # it, and what rests on all of them


def test_the_sample_of_a_specification_is_the_ordinary_one_where_it_chooses_as_the_study_does() -> None:
    draw = asked()
    plain = draw.sample(Analysis("", "effects", "mood", "all", "nearest", "twfe", "none", "common_start"))
    spec = Specification("common_start", "nearest", "none", "twfe", "all", "survey", "as_measured", "none")
    pd.testing.assert_frame_equal(multiverse.sample(draw, "mood", spec).frame, plain.frame)


@pytest.mark.parametrize("fault", ["constant", "nought", "double"])
def test_a_covariate_that_is_collinear_in_a_sample_has_no_estimate_there_as_on_the_ordinary_path(fault: str) -> None:
    draw = collinear(asked(comparisons=("pool",), persons=4_000), fault)
    built = world(draw)
    seen = multiverse.once(built, built.draw)[0]
    singular = [is_collinear(s, fault) for s in built.specs]
    np.testing.assert_array_equal(np.isnan(seen[:, 0]), singular)
    for i in [singular.index(True), len(singular) - 1 - singular[::-1].index(True)] if fault != "double" else []:
        with pytest.raises(Inapplicable, match="collinear"):
            multiverse.fit(draw, "mood", built.specs[i])


def test_an_lsoa_with_a_blank_covariate_leaves_the_specifications_with_it_and_no_others() -> None:
    draw = partly_blank(asked(persons=4_000))
    made = world(draw)
    for j, list_ in enumerate([None, made.places.drawn(np.random.default_rng(3))]):
        listed = made.draw if list_ is None else relisted(made.draw, made.places, list_)
        seen = multiverse.once(made, listed)[0]
        assert np.isfinite(seen[:, :2]).all()
        full = with_survey(listed, draw.tier.table("survey"))
        for i in range(j, len(made.specs), 6):
            s = made.specs[i]
            fit = multiverse.fit(full, "mood", s)
            np.testing.assert_allclose(seen[i, :2], multiverse.average(fit), rtol=1e-9, atol=1e-11, err_msg=s.name)
            assert tuple(seen[i, 2:5]) == (fit.n_units, fit.n_treated, fit.n_clusters), s.name
            assert seen[i, 5] == least(full, s), s.name
