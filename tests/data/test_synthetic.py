"""The synthetic tier keeps its promises: scale, faults, same bytes, and effects that are really in the data."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from biglocal.data import synthetic, synthetic_residents, synthetic_truth
from biglocal.data.load import Tier, load
from biglocal.data.swemwbs import ITEMS, score
from biglocal.data.tables import CRIMES, REGIONS, TABLES

SEED = 20_230
BASES = ("areas", "programme", "truth")


def fingerprint(frame: pd.DataFrame) -> int:
    return int(pd.util.hash_pandas_object(frame.astype(dict.fromkeys(frame.select_dtypes("category"), str))).sum())


@pytest.fixture(scope="module")
def tier() -> Tier:
    tier = load("synthetic", seed=SEED)
    for name in TABLES:
        tier.table(name)  # each is held against the contract here
    return tier


@pytest.fixture(scope="module")
def without(tier: Tier) -> dict[str, pd.DataFrame]:
    """The same England from the same draws, had Big Local done nothing."""
    nil = {name: tier.table(name) for name in BASES}
    nil["truth"] = nil["truth"].assign(effect=0.0)
    return {name: synthetic.read(name, tier.request, nil.__getitem__) for name in ("area_panel", "survey")}


@pytest.fixture(scope="module")
def treated(tier: Tier) -> pd.DataFrame:
    areas, programme = tier.table("areas"), tier.table("programme")
    inside = areas.loc[areas["share"] >= synthetic_truth.TREATED_SHARE, ["lsoa11", "area_id"]]
    return inside.astype(str).merge(programme[["area_id", "progress"]].astype(str), on="area_id")


def test_it_is_england_at_its_true_scale(tier: Tier) -> None:
    areas = tier.table("areas")
    assert len(areas) == 32_844
    assert areas["region"].value_counts().to_dict() == dict(
        zip(REGIONS, (1657, 4497, 3317, 2774, 3487, 3614, 4835, 5382, 3281), strict=True)
    )
    assert areas["district"].nunique() == 326
    assert 6_700 < areas["msoa11"].nunique() < 6_880
    assert areas.groupby("msoa11", observed=True)["district"].nunique().max() == 1
    assert areas["lsoa11"].str.startswith("E019").all()


def test_the_index_has_the_marginal_and_the_clustering_of_the_real_one(tier: Tier) -> None:
    areas = tier.table("areas").dropna(subset=["imd"])
    assert areas["imd"].mean() == pytest.approx(21.5, abs=0.5)
    assert areas["imd"].std() == pytest.approx(15.4, abs=0.6)
    assert areas["imd"].skew() == pytest.approx(1.1, abs=0.25)
    assert areas["imd"].corr(areas["income"]) == pytest.approx(0.96, abs=0.03)
    within = areas["imd"] - areas.groupby("msoa11", observed=True)["imd"].transform("mean")
    assert within.var() / areas["imd"].var() == pytest.approx(0.25, abs=0.06)
    assert areas["rural"].mean() == pytest.approx(0.17, abs=0.02)
    assert areas["population"].mean() == pytest.approx(1_614, abs=25)


def test_there_are_three_waves_of_fifty_areas_announced_on_the_real_days(tier: Tier) -> None:
    programme = tier.table("programme")
    assert programme["wave"].value_counts().to_dict() == {1: 50, 2: 50, 3: 50}
    assert programme["progress"].value_counts().to_dict() == {"fast": 75, "middle": 38, "slow": 37}
    days = programme.groupby("wave")["announced"].unique()
    assert [str(d[0].date()) for d in days] == ["2010-07-27", "2012-02-29", "2012-12-10"]
    both = programme.dropna(subset=["plan_endorsed", "first_spend"])
    assert (both["announced"] < both["plan_endorsed"]).all()
    assert (both["plan_endorsed"] < both["first_spend"]).all()
    assert programme["plan_endorsed"].dt.year.dropna().between(2012, 2015).all()
    assert programme.groupby("wave")["plan_endorsed"].median().is_monotonic_increasing


def test_areas_are_neighbouring_lsoas_and_hold_about_a_million_residents(tier: Tier) -> None:
    areas = tier.table("areas")
    inside = areas[areas["area_id"].notna()]
    assert 600 <= len(inside) <= 900
    assert 900_000 < (inside["population"] * inside["share"]).sum() < 1_200_000
    by_area = inside.groupby("area_id", observed=True)
    assert by_area.ngroups == 150
    assert by_area["district"].nunique().max() == 1
    position = pd.Series(inside.index, index=inside.index).groupby(inside["area_id"], observed=True)
    assert (position.max() - position.min() + 1 == position.size()).all()
    assert (inside["share"] < 1).any()
    assert (inside["share"] < 0.5).any()


def test_selection_is_on_deprivation_and_against_earlier_funding(tier: Tier) -> None:
    areas = tier.table("areas")
    poor = areas["imd"] > areas["imd"].quantile(0.8)
    inside = areas["area_id"].notna()
    assert poor[inside].mean() > 0.5
    assert areas.loc[inside, "earlier_funding"].median() < areas.loc[poor & ~inside, "earlier_funding"].median()


def test_the_index_of_mental_health_moves_like_the_real_one(tier: Tier) -> None:
    panel, areas = tier.table("area_panel"), tier.table("areas")
    wide = panel.pivot_table(index="lsoa11", columns="year", values="samhi", observed=True)
    mean = wide.mean()
    assert mean[2013] == pytest.approx(-0.41, abs=0.02)
    assert mean[2019] == pytest.approx(0.70, abs=0.02)
    assert wide[2013].std() == pytest.approx(0.80, abs=0.08)
    assert wide[2019].std() == pytest.approx(1.04, abs=0.10)
    correlation = wide.corr()
    assert all(0.96 < correlation.loc[y, y + 1] < 0.985 for y in range(2013, 2019))
    assert 0.84 < correlation.loc[2013, 2019] < 0.92
    imd = areas.set_index("lsoa11")["imd"]
    assert wide[2013].corr(imd) == pytest.approx(0.65, abs=0.07)
    assert wide[2019].corr(imd) < wide[2013].corr(imd) - 0.05


def test_scores_of_crime_are_standard_within_each_year(tier: Tier) -> None:
    scores = tier.table("area_panel").groupby("year")[[f"{c}_z" for c in CRIMES]].agg(["mean", "std"])
    seen = scores.dropna()
    np.testing.assert_allclose(seen.xs("mean", axis=1, level=1), 0.0, atol=1e-10)
    np.testing.assert_allclose(seen.xs("std", axis=1, level=1), 1.0, atol=1e-10)
    rates = tier.table("area_panel").groupby("year")["burglary"].mean()
    assert rates.astype(float).is_monotonic_decreasing


def test_the_faults_of_real_data_are_there(tier: Tier) -> None:
    areas, panel, survey = (tier.table(t) for t in ("areas", "area_panel", "survey"))
    assert areas.loc[areas["change"] == "X", "imd"].isna().all()
    assert areas.loc[areas["change"] != "X", "imd"].isna().sum() < 50
    assert (areas["change"] == "U").mean() == pytest.approx(0.964, abs=0.005)
    assert areas[["rural", "population", "earlier_funding"]].isna().any().all()
    assert areas["imd"].duplicated().any()
    assert panel.loc[panel["year"] == 2011, "criminal_damage"].isna().all()
    late = panel[panel["months"] < 12]
    assert set(late["year"]) == {2019}
    assert late[list(CRIMES)].isna().all().all()
    home = areas.set_index("lsoa11").loc[late["lsoa11"]]
    assert home["district"].nunique() == 10
    assert set(home["region"]) == {"North West"}
    blank = panel["samhi"].isna().groupby(panel["lsoa11"]).sum()
    assert (blank == 9).sum() >= 40
    assert ((blank > 0) & (blank < 9)).any()
    assert {-8, -9} <= set(survey["anxiety"])
    assert survey[["qualification", "activity", "tenure", "ethnicity"]].isna().any().all()
    assert set(survey.loc[survey["year"] == 2011, "quarter"]) == {2, 3, 4}


def test_the_survey_is_as_thin_as_the_real_one(tier: Tier, treated: pd.DataFrame) -> None:
    survey = tier.table("survey")
    assert 900_000 < len(survey) < 1_150_000
    assert survey["lsoa11"].isin(treated["lsoa11"]).sum() / 1500 == pytest.approx(14, abs=1.5)
    answered = survey[survey["anxiety"] >= 0]
    high = (answered["anxiety"] >= 6).groupby(answered["year"]).mean()
    assert high.drop(2020).between(0.195, 0.23).all()
    assert survey.loc[survey["satisfaction"] >= 0, "satisfaction"].mean() == pytest.approx(7.5, abs=0.15)
    assert (survey["anxiety"] < 0).mean() == pytest.approx(0.01, abs=0.001)
    assert survey["weight"].mean() == pytest.approx(1.0, abs=0.01)
    assert survey["weight"].std() == pytest.approx(0.6, abs=0.02)
    assert (survey["year"] == 2020).sum() < 0.7 * (survey["year"] == 2019).sum()
    assert survey.memory_usage(deep=True).sum() < 100e6


def test_members_form_the_published_cohort_and_low_scorers_leave(tier: Tier) -> None:
    residents = tier.table("residents")
    first = residents[residents["year"] == 2016]
    assert (len(first), int(first["responded"].sum())) == (1600, 862)
    answers = residents[residents["responded"]]
    waves = answers.groupby("person_id")["year"].size()
    cohort = waves.index[waves == 3]
    assert len(cohort) == 217
    first = first[first["responded"]]
    stays = first["person_id"].isin(cohort)
    assert (first["qualification"] == "degree")[stays].mean() > (first["qualification"] == "degree")[~stays].mean()
    assert first.loc[stays, "swemwbs"].mean() > first.loc[~stays, "swemwbs"].mean() + 0.5
    items = first[list(ITEMS)]
    missing = items.isna().any(axis=1)
    assert missing.any()
    assert (first["swemwbs"].isna() == missing).all()
    assert first.loc[~missing, "swemwbs"].tolist() == score(items[~missing].to_numpy(dtype=float)).tolist()
    never = residents.groupby("person_id")["responded"].transform("sum") == 0
    assert residents.loc[never, ["age", "sex", "qualification"]].isna().all(axis=None)
    assert residents.loc[never, "role"].notna().all()


def test_members_change_as_stated_were_all_seen(tier: Tier, monkeypatch: pytest.MonkeyPatch) -> None:
    def all_seen(rng: np.random.Generator, score: np.ndarray, *_: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        every = np.ones((len(score), 3), dtype=bool)
        return every, every

    monkeypatch.setattr(synthetic_residents, "_responses", all_seen)
    rng = np.random.default_rng(1)
    draws = pd.concat([synthetic_residents.residents(rng, tier.table("programme")).assign(draw=i) for i in range(25)])
    wide = draws.pivot_table(index=["draw", "person_id"], columns="year", values="swemwbs")
    who = draws[draws["year"] == 2016].set_index(["draw", "person_id"]).reindex(wide.index)
    truth = synthetic_residents.truth()
    for row in truth[truth["quantity"] == "change"].itertuples():
        of = np.ones(len(who), dtype=bool) if row.subgroup == "all" else (who[row.subgroup] == row.level).to_numpy()
        change = (wide[row.year] - wide[2016])[of].dropna()
        assert change.mean() == pytest.approx(row.value, abs=4 * change.std() / len(change) ** 0.5)
    # the mean over qualifications and over sexes is the overall change, as published
    by = synthetic_residents.changes()["qualification"]
    assert sum(by[q] * share for q, share in synthetic_residents.QUALIFIED.items()) == pytest.approx(1.46)


def test_costs_add_up_to_the_endowment_and_rise_late(tier: Tier) -> None:
    costs = tier.table("costs")
    assert costs["amount"].sum() == 196_873_499
    spent = costs.groupby("year")["amount"].sum() / 1e6
    assert spent.loc[:2014].sum() == pytest.approx(9, abs=1)
    assert spent.loc[2014:2020].sum() == pytest.approx(102, abs=0.5)
    assert costs["year"].max() == 2026


def test_no_effect_before_2015_and_the_published_ones_after(tier: Tier) -> None:
    truth = tier.table("truth")
    assert (truth.loc[truth["year"] < 2015, "effect"] == 0).all()
    after = truth[truth["year"] >= 2015].groupby(["outcome", "progress"])["effect"].mean()
    assert after["anxiety"].mean() == pytest.approx(-0.8)
    assert (after["burglary_z"] == -0.054).all()
    assert after["samhi", "fast"] == -0.053
    assert after["samhi", "slow"] == 0
    anxiety = truth[(truth["outcome"] == "anxiety") & (truth["progress"] == "fast")].set_index("year")["effect"]
    assert anxiety[2019] < anxiety[2016] < 0


def test_effects_on_area_outcomes_are_those_stated(
    tier: Tier, without: dict[str, pd.DataFrame], treated: pd.DataFrame
) -> None:
    truth, panel, nil = tier.table("truth"), tier.table("area_panel"), without["area_panel"]
    speed = panel["lsoa11"].map(treated.set_index("lsoa11")["progress"])
    for outcome in ("samhi", *(f"{c}_z" for c in CRIMES)):
        gap = panel[outcome].astype(float) - nil[outcome].astype(float)
        after = speed.notna() & (panel["year"] >= 2015) & gap.notna()
        told = truth[(truth["outcome"] == outcome) & (truth["year"] >= 2015)].groupby("progress")["effect"].mean()
        for progress, effect in told.items():
            mine = gap[after & (speed == progress)]
            assert mine.mean() == pytest.approx(effect, abs=0.004 if outcome == "burglary_z" else 1e-5)
        # nobody else moves, but for what a moved mean and spread do to a standard score
        assert gap[speed.isna() | (panel["year"] < 2015)].abs().max() < 0.02


def test_effects_on_persons_are_those_stated(
    tier: Tier, without: dict[str, pd.DataFrame], treated: pd.DataFrame
) -> None:
    truth, survey, nil = tier.table("truth"), tier.table("survey"), without["survey"]
    inside = survey["lsoa11"].isin(treated["lsoa11"])
    after = inside & (survey["year"] >= 2015)
    told = truth[truth["progress"] == "fast"].set_index(["outcome", "year"])["effect"]
    for item in ("anxiety", "satisfaction", "happiness", "worthwhile"):
        same = survey[item] == nil[item]
        assert same[~after].all()
        known = after & (survey[item] >= 0)
        if item == "anxiety":
            gap = 100.0 * ((survey[item] >= 6).astype(int) - (nil[item] >= 6).astype(int))[known]
            assert set(survey.loc[known & ~same, item]) == {5}
        else:
            gap = (survey[item].astype(float) - nil[item])[known]
        wanted = survey.loc[known, "year"].map(told[item])
        # whoever moves is one draw: the mean of n draws of chance p has sd sqrt(p (1 - p) / n)
        chance = abs(wanted.mean()) / (100.0 if item == "anxiety" else 1.0)
        noise = (100.0 if item == "anxiety" else 1.0) * np.sqrt(chance / len(wanted))
        assert gap.mean() == pytest.approx(wanted.mean(), abs=4 * noise + 1e-12)


def test_a_positive_effect_on_persons_and_places_is_planted_too(tier: Tier, treated: pd.DataFrame) -> None:
    """The other sign takes other paths through the code: an academic may plant what she likes."""
    planted = {name: tier.table(name) for name in BASES}
    size = {"anxiety": 5.0, "satisfaction": -0.3, "violence_z": 0.2}
    truth = planted["truth"]
    planted["truth"] = truth.assign(effect=truth["outcome"].map(size).fillna(0.0).where(truth["year"] >= 2015, 0.0))
    nil = dict(planted, truth=truth.assign(effect=0.0))
    with_, none = (synthetic.read("survey", tier.request, t.__getitem__) for t in (planted, nil))
    known = with_["lsoa11"].isin(treated["lsoa11"]) & (with_["year"] >= 2015)
    high = lambda f: (f.loc[known & (f["anxiety"] >= 0), "anxiety"] >= 6).mean()  # noqa: E731
    mean = lambda f: f.loc[known & (f["satisfaction"] >= 0), "satisfaction"].mean()  # noqa: E731
    assert 100 * (high(with_) - high(none)) == pytest.approx(5.0, abs=0.8)
    assert mean(with_) - mean(none) == pytest.approx(-0.3, abs=0.02)
    there, before = (synthetic.read("area_panel", tier.request, t.__getitem__) for t in (planted, nil))
    rows = there["lsoa11"].isin(treated["lsoa11"]) & (there["year"] >= 2015)
    assert (there["violence_z"] - before["violence_z"])[rows].mean() == pytest.approx(0.2, abs=0.012)


def test_a_table_does_not_depend_on_what_was_read_first(tier: Tier) -> None:
    other = load("synthetic", seed=SEED)
    for name in reversed(TABLES):
        if name != "survey":  # the largest; the next test reads it in another process
            pd.testing.assert_frame_equal(other.table(name), tier.table(name))


@pytest.mark.parametrize("hash_seed", ["0", "4242"])
def test_another_process_gives_the_same_bytes(tier: Tier, hash_seed: str) -> None:
    program = (
        "import sys, pandas as pd\n"
        "from biglocal.data.load import load\n"
        f"tier = load('synthetic', seed={SEED})\n"
        "for name in ('survey', 'area_panel', 'residents', 'costs', 'areas'):\n"
        "    f = tier.table(name)\n"
        "    f = f.astype({c: str for c in f.select_dtypes('category')})\n"
        "    print(int(pd.util.hash_pandas_object(f).sum()))\n"
    )
    package = Path(synthetic.__file__).parents[2]
    threads = "1" if hash_seed == "0" else "2"
    env = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(package), "OMP_NUM_THREADS": threads}
    ran = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
    mine = [fingerprint(tier.table(t)) for t in ("survey", "area_panel", "residents", "costs", "areas")]
    assert [int(line) for line in ran.stdout.split()] == mine


def test_another_seed_gives_another_england_and_another_digest(tier: Tier) -> None:
    other = load("synthetic", seed=SEED + 1)
    assert not other.table("areas")["imd"].equals(tier.table("areas")["imd"])
    assert set(other.digests) == set(TABLES)
    assert not set(other.digests.values()) & set(tier.digests.values())
    assert load("synthetic", seed=SEED).digests == tier.digests
    assert other.banner == "SYNTHETIC"
    assert tier.lacks == {}
    assert str(SEED) in tier.notes()[0]


def test_digests_need_no_numerical_library() -> None:
    program = (
        "import sys\n"
        "from biglocal.data.load import load\n"
        "load('synthetic', seed=1)\n"
        "assert 'numpy' not in sys.modules and 'pandas' not in sys.modules\n"
    )
    env = os.environ | {"PYTHONPATH": str(Path(synthetic.__file__).parents[2])}
    subprocess.run([sys.executable, "-c", program], env=env, check=True)
