"""Who is in a sample, with which weight, level and start: on a small tier, against what the tables say."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from biglocal import study as studies
from biglocal.data.load import Tier, load
from biglocal.model import Analysis, DataError, Inapplicable, Study, Subgroup
from biglocal.sample import Draw, classify


@pytest.fixture(scope="module")
def study() -> Study:
    return studies.load()


@pytest.fixture(scope="module")
def tier(small_tier: Path) -> Tier:
    return load("secure", data=small_tier)


@pytest.fixture(scope="module")
def draw(study: Study, tier: Tier) -> Draw:
    return Draw(study, tier)


def analysis(
    outcome: str, subgroup: str = "all", treatment: str = "common_start", comparison: str = "nearest"
) -> Analysis:
    return Analysis("id", "effects", outcome, subgroup, comparison, "twfe", "cluster", treatment)


def public(tier: Tier) -> Tier:
    """The same tables as a tier whose rows may be named in a message."""
    return replace(tier, request=replace(tier.request, tier="open"))


def test_panel(draw: Draw, tier: Tier, study: Study) -> None:
    sample = draw.sample(analysis("samhi"))
    f = sample.frame
    cells, _ = draw.matched("nearest")
    inside = cells[cells["weight"] > 0]
    assert f["unit"].nunique() <= len(inside)
    assert not f[["unit", "time"]].duplicated().any()
    assert set(f["first_treated"].dropna()) == {2015.0}
    assert (f["d"] == ((f["treated"] == 1) & (f["time"] >= 2015))).all()
    # each set's comparison LSOAs weigh as much as its treated one
    by_set = inside[inside["treated"] == 0].groupby("set_lsoa")["weight"].sum()
    np.testing.assert_allclose(by_set, 1)
    # the outcome is the table's
    panel = tier.table("area_panel").set_index(["lsoa11", "year"])["samhi"]
    row = f.iloc[len(f) // 2]
    lsoa = inside["lsoa11"].iloc[int(row["unit"])]
    assert row["y"] == panel[lsoa, int(row["time"])]


def test_order_of_rows_in_the_tables_changes_nothing(draw: Draw, tier: Tier, study: Study) -> None:
    shuffled = replace(tier, _kept={n: tier.table(n).sample(frac=1, random_state=3) for n in tier.digests})
    for outcome in ("samhi", "high_anxiety"):
        one = draw.sample(analysis(outcome)).frame
        pd.testing.assert_frame_equal(one, Draw(study, shuffled).sample(analysis(outcome)).frame)


def test_clusters_are_the_units_of_assignment(draw: Draw) -> None:
    cells, _ = draw.matched("nearest")
    inside = cells[cells["weight"] > 0]
    treated = inside[inside["treated"] == 1]
    assert (treated["cluster"] == treated["area_id"].astype(str)).all()
    of_set = treated.set_index("lsoa11")["cluster"]
    control = inside[inside["treated"] == 0]
    assert (control["cluster"].to_numpy() == of_set.reindex(control["set_lsoa"]).to_numpy()).all()
    pool, _ = draw.matched("pool")
    control = pool[pool["treated"] == 0]
    assert (control["cluster"] == control["msoa11"].astype(str)).all()


def test_flow_only_loses(draw: Draw) -> None:
    _, steps = draw.matched("nearest")
    for a, b in pairwise(steps):
        assert b.treated <= a.treated
        assert b.control <= a.control
        assert b.areas <= a.areas
    assert steps[0].treated + steps[0].control == len(draw.tier.table("areas"))


def test_nobody_near_a_treated_lsoa_is_a_comparison(draw: Draw) -> None:
    cells, _ = draw.matched("nearest")
    used = cells[cells["weight"] > 0]
    treated = draw.tier.table("areas")
    treated = treated[treated["share"] >= 0.5]
    assert not set(used.loc[used["treated"] == 0, "msoa11"]) & set(treated["msoa11"])
    assert not used.loc[used["treated"] == 0, "area_id"].notna().any()


def test_neighbours_across_a_border_leave_the_pool(study: Study, tier: Tier) -> None:
    areas = tier.table("areas").sort_values("lsoa11", ignore_index=True)
    inside = areas["area_id"].notna() & (areas["share"] >= study.policy.treated_share)
    outside = areas.loc[areas["area_id"].isna() & (areas["imd"] > areas["imd"].quantile(0.8)), "lsoa11"]
    gone = outside.sample(60, random_state=1).tolist()
    pairs = pd.DataFrame({"lsoa11": areas.loc[inside, "lsoa11"].head(60).tolist(), "neighbour": gone})
    by_border = replace(study, policy=replace(study.policy, excluded_around="border"))
    draws = []
    for table in (pairs, pairs.rename(columns={"lsoa11": "neighbour", "neighbour": "lsoa11"})):
        with_table = replace(tier, digests={**tier.digests, "borders": "x"}, _kept={**tier._kept, "borders": table})
        draws.append(Draw(by_border, with_table).matched("pool"))
    for cells, steps in draws:
        assert not set(gone) & set(cells["lsoa11"]) and len(set(outside) & set(cells["lsoa11"])) > 60
        step = next(s for s in steps if "border on a treated one" in s.name)
        assert step.treated == steps[0].treated
    pd.testing.assert_frame_equal(draws[0][0], draws[1][0])
    with pytest.raises(DataError, match=r"no table borders"):
        Draw(by_border, tier).matched("pool")


def test_survey_takes_codes_as_missing_and_high_as_six_or_more(draw: Draw, tier: Tier) -> None:
    f = draw.sample(analysis("high_anxiety")).frame
    assert set(f["y"].unique()) == {0.0, 100.0}
    survey = tier.table("survey")
    cells, _ = draw.matched("nearest")
    inside = set(cells.loc[cells["weight"] > 0, "lsoa11"])
    raw = survey[survey["lsoa11"].isin(inside) & survey["anxiety"].between(0, 10)]
    assert len(f) == len(raw)
    assert f["y"].mean() == pytest.approx(100 * (raw["anxiety"] >= 6).mean())


def test_matched_sets_stay_whole_in_a_subgroup(draw: Draw) -> None:
    f = draw.sample(analysis("samhi", "progress")).frame
    cells, _ = draw.matched("nearest")
    inside = cells[cells["weight"] > 0].reset_index(drop=True)
    level = f.drop_duplicates("unit").set_index("unit")["level"]
    of = dict(zip(inside["lsoa11"], level.reindex(range(len(inside))), strict=True))
    compared = 0
    for unit, name in level.items():
        head = of[inside["set_lsoa"].iloc[int(unit)]]
        if pd.notna(head):  # the treated LSOA itself may have no values of the outcome
            assert name == head
            compared += 1
    assert compared > 0.9 * len(level)


def test_announcement_leaves_wave_one_without_a_period_before_and_says_so(draw: Draw, tier: Tier) -> None:
    sample = draw.sample(analysis("samhi", treatment="announced"))
    waves = tier.table("programme").set_index("area_id")["wave"]
    cells, _ = draw.matched("nearest")
    areas = cells[cells["weight"] > 0]["area_id"].iloc[sample.frame.loc[sample.frame["treated"] == 1, "unit"].unique()]
    assert 1 not in set(waves.reindex(areas))
    assert "No period before treatment, as Mental health (SAMHI) begins in 2011" in sample.caution
    assert set(sample.frame["first_treated"].dropna()) == {2012.0, 2013.0}


def test_an_empty_subgroup_is_refused_with_what_there_is(study: Study, tier: Tier) -> None:
    wrong = replace(study.subgroups["rural"], column="region", levels=("urban", "London"), values={})
    other = replace(study, subgroups={**study.subgroups, "rural": replace(wrong, levels=("North East", "London"))})
    with pytest.raises(
        DataError, match=r"samhi/rural: no rows left in subgroup 'London' \(region has values .*North East"
    ):
        Draw(other, public(tier)).sample(analysis("samhi", "rural"))
    with pytest.raises(DataError, match=r"no rows left in subgroup 'London' \(region has values 3 kinds, not shown"):
        Draw(other, tier).sample(analysis("samhi", "rural"))


def test_a_table_or_covariate_that_is_not_there_is_a_reason(study: Study, tier: Tier) -> None:
    without = replace(
        tier, digests={k: v for k, v in tier.digests.items() if k != "survey"}, lacks={"survey": "ask the lab"}
    )
    with pytest.raises(Inapplicable, match="ask the lab"):
        Draw(study, without).sample(analysis("high_anxiety"))
    areas = tier.table("areas").assign(income=np.nan)
    blank = replace(tier, _kept={**tier._kept, "areas": areas})
    with pytest.raises(Inapplicable, match="nearest needs income, which the secure tier lacks"):
        Draw(study, blank).sample(analysis("samhi"))


def test_levels_and_trends_before_treatment_are_plain_means_and_slopes(draw: Draw, tier: Tier) -> None:
    cells, _ = draw.matched("nearest")
    lsoa = cells["lsoa11"].iloc[10]
    panel = tier.table("area_panel")
    own = panel[(panel["lsoa11"] == lsoa) & (panel["year"] < 2015) & panel["samhi"].notna()]
    assert cells["samhi_level"].iloc[10] == pytest.approx(own["samhi"].mean())
    assert cells["samhi_trend"].iloc[10] == pytest.approx(np.polyfit(own["year"], own["samhi"].astype(float), 1)[0])


def test_missing_covariates_can_be_refused_by_name(study: Study, tier: Tier) -> None:
    strict = replace(study, policy=replace(study.policy, missing_covariates="refuse"))
    with pytest.raises(
        DataError, match=r"LSOAs lack a covariate of comparison nearest, first E019\d{5} \(.*missing_covariates"
    ):
        Draw(strict, public(tier)).matched("nearest")
    with pytest.raises(DataError, match=r"comparison nearest, one of them \(.*missing_covariates"):
        Draw(strict, tier).matched("nearest")


def test_other_programmes_leave_the_pool_but_not_the_treated(study: Study, tier: Tier) -> None:
    areas = tier.table("areas")
    marked = replace(tier, _kept={**tier._kept, "areas": areas.assign(other_programme="P")})
    open_pool = replace(study, policy=replace(study.policy, exclude_other_programmes=False))
    cells, _ = Draw(open_pool, marked).matched("pool")
    assert (cells["treated"] == 0).any()
    with pytest.raises(Inapplicable, match="0 untreated"):
        Draw(study, marked).matched("nearest")


def test_matching_on_baseline_outcomes_is_said_in_each_row(study: Study, tier: Tier) -> None:
    chosen = replace(study.comparisons["propensity"], name="nearest", baseline=("samhi",))
    other = Draw(replace(study, comparisons={"nearest": chosen}), tier)
    assert "regression to the mean" in other.sample(analysis("samhi")).caution
    matched, _ = other.matched("nearest")
    plain, _ = Draw(study, tier).matched("propensity")

    def gap(cells: pd.DataFrame) -> float:
        cells = cells[cells["samhi_trend"].notna()]
        t, c = cells[cells["treated"] == 1], cells[(cells["treated"] == 0) & (cells["weight"] > 0)]
        return abs(t.loc[t["weight"] > 0, "samhi_trend"].mean() - np.average(c["samhi_trend"], weights=c["weight"]))

    assert gap(matched) < gap(plain)


def test_whole_areas_are_matched_to_whole_areas(study: Study, tier: Tier) -> None:
    chosen = replace(study.comparisons["nearest"], level="area", ratio=2, caliper=None)
    cells, steps = Draw(replace(study, comparisons={"nearest": chosen}), tier).matched("nearest")
    used = cells[cells["weight"] > 0]
    treated, control = used[used["treated"] == 1], used[used["treated"] == 0]
    assert set(treated["weight"]) == {1.0}
    # all eligible LSOAs of a chosen MSOA are in, and each set weighs what its treated area has in LSOAs
    assert not set(control["msoa11"]) & set(cells.loc[(cells["treated"] == 0) & (cells["weight"] == 0), "msoa11"])
    weight = control.groupby("cluster")["weight"].sum()
    size = treated.groupby("cluster").size().reindex(weight.index)
    np.testing.assert_allclose(weight.to_numpy(), size.to_numpy())
    assert control.groupby("cluster")["msoa11"].nunique().max() == 2
    assert steps[-1].areas == treated["area_id"].nunique()
    f = Draw(replace(study, comparisons={"nearest": chosen}), tier).sample(analysis("samhi")).frame
    assert f["cluster"].nunique() == treated["area_id"].nunique()


def test_a_truth_is_one_of_its_own_measure(study: Study, tier: Tier) -> None:
    """The known effect on the share of high anxiety says nothing of the mean score."""
    mean = replace(study.outcomes["high_anxiety"], name="anxiety_mean", at_least=None, scale=1.0)
    other = Draw(replace(study, outcomes={**study.outcomes, "anxiety_mean": mean}), tier)
    assert "effect" in other.sample(analysis("high_anxiety")).frame
    assert "effect" not in other.sample(analysis("anxiety_mean")).frame


def test_spending_is_the_areas_own_until_the_last_year_per_resident(study: Study, tier: Tier) -> None:
    ids = sorted(map(str, tier.table("programme")["area_id"]))
    # 1,000 GBP more for each next area in 2016 and again in 2018; the last area spent nothing; 2020 comes too late
    costs = pd.DataFrame(
        [(a, y, 1000.0 * (i + 1) * (a != ids[-1])) for i, a in enumerate(ids) for y in (2016, 2018, 2020)],
        columns=["area_id", "year", "amount"],
    )
    paid = replace(tier, digests={**tier.digests, "costs": "made"}, _kept={**tier._kept, "costs": costs})
    draw = Draw(study, paid)
    sample = draw.sample(replace(analysis("samhi"), estimator="dose_response"))
    assert study.outcomes["samhi"].last_year == 2019
    assert sample.covariates == ("spend",)
    f = sample.frame
    assert f.loc[f["treated"] == 0, "spend"].isna().all()
    cells, _ = draw.matched("nearest")
    own = cells[cells["weight"] > 0]["area_id"].astype(object).reset_index(drop=True)
    areas = tier.table("areas").dropna(subset="area_id")
    people = (areas["population"] * areas["share"]).groupby(areas["area_id"].astype(str)).sum()
    treated = f[f["treated"] == 1]
    expected = [0.0 if a == ids[-1] else 2000.0 * (ids.index(a) + 1) / people[a] / 100 for a in own[treated["unit"]]]
    assert len(set(expected)) > 10
    assert treated["spend"].to_numpy() == pytest.approx(expected)
    assert "all that an area spent up to and with 2019" in sample.caution
    with pytest.raises(Inapplicable, match="Spending"):
        Draw(study, tier).sample(replace(analysis("samhi"), estimator="dose_response"))
    known = set(own[treated["unit"]])
    unknown = replace(paid, _kept={**paid._kept, "costs": costs[costs["area_id"] != min(known)]})
    with pytest.raises(Inapplicable, match=rf"1 of {len(known)} treated areas have no row in the table costs"):
        Draw(study, unknown).sample(replace(analysis("samhi"), estimator="dose_response"))


def test_the_offset_is_the_logarithm_of_the_residents(draw: Draw, tier: Tier) -> None:
    sample = draw.sample(replace(analysis("burglary_count"), estimator="poisson_counts"))
    assert sample.covariates == ("log_population",)
    cells, _ = draw.matched("nearest")
    lsoa = cells[cells["weight"] > 0]["lsoa11"].astype(object).reset_index(drop=True)[sample.frame["unit"]]
    people = tier.table("areas").set_index("lsoa11")["population"].reindex(lsoa)
    assert np.exp(sample.frame["log_population"].to_numpy()) == pytest.approx(people.to_numpy(dtype=float))


def test_covariates_of_persons_and_areas_come_along_and_gaps_leave_with_a_word(study: Study, tier: Tier) -> None:
    asked = replace(analysis("high_anxiety"), estimator="drdid_sections")
    survey = tier.table("survey")
    whole = survey.assign(age=survey["age"].fillna(40), sex=survey["sex"].fillna("male"))
    sample = Draw(study, replace(tier, _kept={**tier._kept, "survey": whole})).sample(asked)
    assert sample.covariates[0] == "age"
    assert sample.covariates[-1] == "imd"
    sexes = sorted(map(str, survey["sex"].cat.categories))
    assert sample.covariates[1:-1] == tuple(f"sex_{s}" for s in sexes[1:])  # the first is what is left
    f = sample.frame
    assert not f[list(sample.covariates)].isna().any(axis=None)
    assert set(np.unique(f[f"sex_{sexes[1]}"])) == {0.0, 1.0}
    # rows and answers stay together: the mean age of those with high anxiety is that in the table
    cells, _ = Draw(study, tier).matched("nearest")
    inside = whole["lsoa11"].isin(set(cells.loc[cells["weight"] > 0, "lsoa11"])) & whole["anxiety"].between(0, 10)
    high = whole[inside & (whole["anxiety"] >= 6)]
    assert f.loc[f["y"] == 100, "age"].mean() == pytest.approx(high["age"].mean())
    assert f.loc[f["y"] == 100, f"sex_{sexes[1]}"].mean() == pytest.approx((high["sex"] == sexes[1]).mean())
    blank = whole.assign(age=whole["age"].where(whole["person_id"] % 3 != 0))
    less = Draw(study, replace(tier, _kept={**tier._kept, "survey": blank})).sample(asked)
    assert f"{len(f) - len(less.frame):,} rows with a covariate missing left." in less.caution
    assert 0.6 * len(f) < len(less.frame) < 0.7 * len(f)
    assert less.frame["age"].notna().all()


def test_a_pretended_start_sees_no_year_after_its_last(draw: Draw, study: Study) -> None:
    true, pretended = (draw.sample(analysis("samhi", treatment=t)).frame for t in ("common_start", "placebo_2013"))
    last = study.treatments["placebo_2013"].last_year
    assert last is not None
    assert last < 2015
    assert pretended["time"].max() == last
    assert set(pretended.loc[pretended["d"] == 1, "time"]) == set(range(2013, last + 1))
    before = true[true["time"] <= last]  # the same rows, as far as both have them
    assert set(zip(pretended["unit"], pretended["time"], strict=True)) <= set(
        zip(before["unit"], before["time"], strict=True)
    )
    both = pretended.merge(before, on=["unit", "time"], suffixes=("", "_true"))
    assert (both["y"] == both["y_true"]).all()


def test_classify() -> None:
    cut = Subgroup("age", "Age", "person", "age", ("young", "old"), cuts=(34,))
    assert list(classify(cut, pd.Series([16, 34, 35, None]), pd.Series([0]))) == ["young", "young", "old", ""]
    half = Subgroup("imd", "IMD", "lsoa", "imd", ("low", "high"), cuts_quantile=(0.5,))
    assert list(classify(half, pd.Series([1.0, 9.0, 2.0]), pd.Series([1.0, 2.0, 3.0]))) == ["low", "high", "low"]
    named = Subgroup("sex", "Sex", "person", "sex", ("women",), values={"women": ("female",)})
    assert list(classify(named, pd.Series(["female", "male", None]), pd.Series([]))) == ["women", "", ""]
