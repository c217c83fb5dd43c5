"""Samples of the residents' survey: whose answers, which exposure, which level, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from biglocal import estimate, release
from biglocal import study as studies
from biglocal.data import synthetic_residents
from biglocal.data.load import Tier, load
from biglocal.estimators import estimator
from biglocal.model import Analysis, DataError, Inapplicable, Sample, Study, StudyError
from biglocal.residents import sample

PROGRAMME = pd.DataFrame({"area_id": [f"BL{i:03d}" for i in range(1, 151)]})


@pytest.fixture(scope="module")
def study() -> Study:
    return studies.load()


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return synthetic_residents.residents(np.random.default_rng(11), PROGRAMME)


def tier(table: pd.DataFrame, truth: bool = True) -> Tier:
    frames = {"residents": table, "programme": PROGRAMME}
    if truth:
        frames["residents_truth"] = synthetic_residents.truth()
    made = load("synthetic", seed=1)
    return replace(made, digests=dict.fromkeys(frames, "x"), lacks={"residents": "not public"}, _kept=frames)


def analysis(part: str = "change", outcome: str = "swemwbs", respondents: str = "cohort", **more: str) -> Analysis:
    fixed = {"subgroup": "all", "comparison": "", "estimator": "mixed_model", "inference": "none", "treatment": ""}
    return Analysis(id="id", part=part, outcome=outcome, respondents=respondents, **(fixed | more))


def draw(study: Study, table: pd.DataFrame, **what: str) -> Sample:
    return sample(study, tier(table), analysis(**what))


def test_whose_answers(study: Study, table: pd.DataFrame) -> None:
    answered = table[table["responded"]]
    waves = answered.groupby("person_id")["year"].nunique()
    scored = answered[answered["swemwbs"].notna()]
    cohort = draw(study, table).frame
    assert len(cohort) == scored["person_id"].isin(waves.index[waves == 3]).sum()
    assert len(draw(study, table, respondents="answers").frame) == len(scored)
    assert set(draw(study, table, respondents="cross_section").frame["time"]) == {2016}
    reached = draw(study, table, respondents="reached")
    first = answered.loc[answered["year"] == 2016, "person_id"]
    known = answered[answered["qualification"].notna() & answered["person_id"].isin(first)]["person_id"].nunique()
    assert len(reached.frame) == 3 * known  # every wave of whom the first reached, answered or not
    assert reached.frame["y"].isna().any()
    assert reached.covariates == ("age", "sex", "qualification", "role")


def test_the_outcome_is_the_table_s(study: Study, table: pd.DataFrame) -> None:
    first = draw(study, table, respondents="cross_section").frame
    assert first["y"].mean() == pytest.approx(table.loc[table["year"] == 2016, "swemwbs"].mean())
    health = draw(study, table, respondents="cross_section", outcome="good_health").frame
    answers = table.loc[(table["year"] == 2016) & table["general_health"].notna(), "general_health"]
    assert health["y"].mean() == pytest.approx((answers >= 4).mean())


def test_neither_order_nor_names_matter(study: Study, table: pd.DataFrame) -> None:
    one = draw(study, table, subgroup="education", exposure="social_cohesion").frame
    other = table.sample(frac=1, random_state=1).assign(person_id=lambda f: 7 * f["person_id"] + 3)
    pd.testing.assert_frame_equal(one, draw(study, other, subgroup="education", exposure="social_cohesion").frame)


def test_codings_of_an_exposure(study: Study, table: pd.DataFrame) -> None:
    seen = {}
    for coding in ("step", "range", "standardised", "agree"):
        exposure = replace(study.exposures["social_cohesion"], coding=coding)
        changed = replace(study, exposures={"social_cohesion": exposure})
        seen[coding] = draw(changed, table, exposure="social_cohesion").frame["d"].to_numpy()
    assert seen["step"] == pytest.approx(1 + 4 * seen["range"])
    assert set(seen["step"] % 0.5) == {0.0}  # the mean of two answers
    assert (seen["agree"] == (seen["step"] >= 4)).all()
    ratio = np.diff(seen["standardised"]) / np.where(np.diff(seen["step"]) == 0, np.nan, np.diff(seen["step"]))
    assert np.nanstd(ratio) < 1e-9
    same = table.assign(help_each_other=table["help_each_other"].mask(table["responded"], 4))
    flat = replace(study.exposures["help_each_other"], coding="standardised")
    with pytest.raises(Inapplicable, match="every answer is the same"):
        draw(replace(study, exposures={"x": flat}), same, exposure="x")


def test_a_level_is_the_person_s_and_is_not_adjusted_for(study: Study, table: pd.DataFrame) -> None:
    aged = draw(study, table, subgroup="age", respondents="answers").frame
    assert aged.groupby("unit")["level"].nunique().max() == 1
    told = draw(study, table, subgroup="gender", exposure="collective_control")
    assert told.levels == ("women", "men")
    assert told.covariates == ("age", "qualification", "role")


def test_what_left_is_said(study: Study, table: pd.DataFrame) -> None:
    said = draw(study, table, exposure="collective_control").caution
    assert said == "Left out: rows without an outcome, or without an exposure, or without a covariate."
    assert (
        draw(study, table, subgroup="education").caution == "Left out: rows without an outcome, or of no known group."
    )


def test_an_empty_cell_is_refused_by_name(study: Study, table: pd.DataFrame) -> None:
    women = table.assign(sex=table["sex"].astype(object).where(table["sex"] != "male", None))
    with pytest.raises(DataError, match=r"no member in subgroup 'men' .*edit subgroups.gender"):
        draw(study, women, subgroup="gender")


def test_a_wave_without_an_answer(study: Study, table: pd.DataFrame) -> None:
    with pytest.raises(Inapplicable, match="nobody answered in 2020"):
        draw(study, table[table["year"] < 2020])


@pytest.mark.parametrize("name", ["mixed_model", "within_person", "gee"])
def test_a_wave_with_one_respondent_is_said(study: Study, table: pd.DataFrame, name: str) -> None:
    cohort = table[table["responded"] & table.groupby("person_id")["responded"].transform("sum").eq(3)]
    cohort = cohort[cohort["swemwbs"].notna()]
    last = cohort[cohort["year"] == 2020]
    thin = pd.concat([table[table["year"] < 2020], last.head(1)])
    with pytest.raises(Inapplicable, match="wave 2020: 1 person"):
        estimator(name)(sample(study, tier(thin), analysis(respondents="answers")))


def test_a_tier_without_the_survey_says_how_to_get_it(study: Study) -> None:
    empty = replace(tier(PROGRAMME), digests={})
    with pytest.raises(Inapplicable, match="Residents' survey: not public"):
        sample(study, empty, analysis())


def test_truth_in_the_exposure_s_coding(study: Study, table: pd.DataFrame) -> None:
    def value(**what: str) -> float:
        return float(draw(study, table, part="members_truth", **what).frame["y"].iloc[0])

    assert value(exposure="collective_control") == pytest.approx(3.36)
    assert value(exposure="social_cohesion") == pytest.approx(1.09)
    assert value(exposure="belonging", outcome="good_health") == pytest.approx(np.log(4.25))
    with pytest.raises(Inapplicable, match="not recorded"):
        value(exposure="individual_control")
    with pytest.raises(Inapplicable, match="nobody knows"):
        sample(study, tier(table, truth=False), analysis(part="members_truth"))
    agree = replace(study.exposures["belonging"], coding="agree")
    with pytest.raises(Inapplicable, match="for one answer up, not agree"):
        sample(
            replace(study, exposures={"belonging": agree}), tier(table), analysis("members_truth", exposure="belonging")
        )


def test_rows_speak_of_odds_and_of_what_could_be_found(study: Study, table: pd.DataFrame) -> None:
    one = analysis(
        part="association", outcome="good_health", exposure="belonging", estimator="gee", respondents="answers"
    )
    ((_, fit),) = estimate.work([one], sample(study, tier(table), one), study, 0)
    rows = {r.term: r for r in estimate.rows(study, "synthetic", one, fit, "")}
    log, odds, least = (rows[t] for t in ("association", "odds_ratio", "minimum_detectable"))
    assert (log.unit, odds.unit, least.unit) == ("log odds", "odds ratio", "odds ratio")
    assert odds.estimate == pytest.approx(np.exp(log.estimate))
    assert (odds.conf_low, odds.conf_high) == pytest.approx((np.exp(log.conf_low), np.exp(log.conf_high)))
    assert odds.p_value == log.p_value
    # the usual rule: 2.8 standard errors for a power of 80% at 5%
    assert np.log(least.estimate) == pytest.approx(2.8 * log.std_error, rel=0.02)
    assert (log.respondents, log.exposure) == ("answers", "belonging")


def test_cells_of_few_members_are_not_shown(study: Study, table: pd.DataFrame) -> None:
    few = table[(table["role"] == "member") | (table["person_id"] % 40 == 0)]
    one = analysis(subgroup="role")
    ((_, fit),) = estimate.work([one], sample(study, tier(few), one), study, 0)
    rows, _ = release.control(list(estimate.rows(study, "synthetic", one, fit, "")), study)
    assert {r.status for r in rows if r.level == "officer"} == {"suppressed"}
    assert all(r.estimate is None for r in rows if r.term == "difference")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (('who = "every_wave"', 'who = "most"'), "respondents.cohort.who"),
        (("waves = [2016, 2018, 2020]", "waves = [2017]"), "no wave '2017'"),
        (("waves = [2016, 2018, 2020]", "waves = [2018, 2016]"), "Name one or more, in order"),
        (('columns = ["collective_control"]', 'columns = ["swemwbs"]'), "no answer of members 'swemwbs'"),
        (('columns = ["collective_control"]', "columns = []"), "exposures.collective_control.columns: none"),
        (('adjust = ["age"', 'adjust = ["ages"'), "no column to adjust for 'ages'"),
        (('respondents = ["answers"]', 'respondents = ["anyone"]'), "no respondent 'anyone'"),
        (('uses = "gee"', 'uses = "gees"'), "no estimator 'gees'"),
    ],
)
def test_a_wrong_name_is_refused_at_once(
    change: tuple[str, str], says: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    text = studies.PATH.read_text(encoding="utf-8")
    assert change[0] in text
    path = tmp_path_factory.mktemp("study") / "study.toml"
    path.write_text(text.replace(change[0], change[1], 1), encoding="utf-8")
    with pytest.raises(StudyError, match=says):
        studies.load(path)


@pytest.mark.parametrize(
    ("block", "says"),
    [
        ('estimators = ["mixed_model"]\noutcomes = ["swemwbs"]', "Name its respondents"),
        (
            'estimators = ["mixed_model"]\noutcomes = ["samhi"]\nrespondents = ["cohort"]',
            "outcomes of the table residents alone",
        ),
        (
            'estimators = ["mixed_model"]\noutcomes = ["swemwbs"]\nrespondents = ["cohort"]\nsubgroups = ["rural"]',
            "no property of a member",
        ),
        (
            'estimators = ["twfe"]\noutcomes = ["samhi"]\ncomparisons = ["nearest"]\nsubgroups = ["role"]',
            "a property of members",
        ),
    ],
)
def test_blocks_that_do_not_fit_together(block: str, says: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    text = studies.PATH.read_text(encoding="utf-8") + f'\n[[analyses]]\npart = "change"\n{block}\n'
    path = tmp_path_factory.mktemp("study") / "study.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(StudyError, match=says):
        studies.load(path)
