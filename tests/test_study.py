"""study.toml is checked whole before anything runs; each refusal names the entry and the choices."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from biglocal import inference, study
from biglocal.model import Inference, StudyError

TEXT = study.PATH.read_text(encoding="utf-8")


def load(tmp_path: Path, old: str, new: str) -> None:
    assert old in TEXT
    path = tmp_path / "study.toml"
    path.write_text(TEXT.replace(old, new, 1), encoding="utf-8")
    study.load(path)


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ('column = "samhi"', 'column = "samhy"', ("outcomes.samhi.column", "no numeric column of table area_panel 'samhy'", "'samhi'")),
        ('table = "area_panel"', 'table = "panel"', ("outcomes.samhi.table", "'area_panel'", "seen 'panel'")),
        ('method = "nearest"', 'method = "nearst"', ("comparisons.nearest.method", "Did you mean 'nearest'")),
        ('outcomes = ["high_anxiety", "samhi", "burglary"]', 'outcomes = ["samhi", "burglry"]', ("no outcome 'burglry'", "Did you mean 'burglary'")),
        ('subgroups = ["progress", ', 'subgroups = ["progres", ', ("no subgroup 'progres'", "Did you mean 'progress'")),
        ('treatments = ["announced", ', 'treatments = ["announce", ', ("no treatment 'announce'", "Did you mean 'announced'")),
        ('estimators = ["twfe"]', 'estimators = ["twoway"]', ("no estimator 'twoway'", "twfe")),
        ('comparisons = ["nearest", "areas"]', 'comparisons = ["all"]', ("no comparison 'all'", "nearest")),
        ('inference = ["cluster", "twoway", "cr2", "wild_bootstrap", "randomisation", "power"]', 'inference = ["clustr"]', ("'cluster'", "seen 'clustr'")),
        ('"main_effects", ', '"main_efects", ', ("no template in manuscript/exhibits 'main_efects'", "Did you mean")),
        ("caliper = 0.2", "calipr = 0.2", ("comparisons.nearest.calipr", "no setting of this name", "Did you mean 'caliper'")),
        ("first_year = 2011\nlast_year = 2018\n", "first_year = 2011\nlast_years = 2018\n", ("multiverse.window.to_2018.last_years", "Did you mean 'last_year'")),
        ("bands = 20 ", "band = 2\nbands = 20 ", ("multiverse.band: no setting of this name", "Did you mean 'bands'")),
        ('out = { comparison = ["pool"] }', 'outcome = ["samhi"]\nout = { comparison = ["pool"] }', ("multiverse.rules.0.outcome", "Did you mean 'outcomes'")),
        ("caliper = 0.2", "caliper = -1", ("caliper", "not above 0")),
        ("ratio = 5", "baseline = ['hapiness']", ("comparisons.nearest.baseline", "no outcome of the area panel 'hapiness'")),
        ("options = { mahvars =", "options = { mahvrs =", ("comparisons.nearest.options", "Did you mean 'mahvars'")),
        ("ratio = 5", "level = 'msoa'", ("comparisons.nearest.level", "'lsoa' or 'area'")),
        ("min_cell = 10 ", "min_cell = -3 ", ("disclosure.min_cell", "-3 is out of range")),
        ("placebo_effect = -0.1", "placebo_effect = nan", ("policy.placebo_effect", "out of range")),
        ("reference_effect = ", "reference_effect = -", ("reference_effect", "its size, above 0")),
        ("scale = 100", "scale = 0", ("outcomes.high_anxiety.scale", "other than 0")),
        ("std_errors = ", "std_errors = -", ("tolerance.std_errors", "0 or more")),
        ("draws_quick = 999", "draws_quick = 0", ("policy.draws_quick", "99 or more")),
        ("treated_share = 0.5 ", "treated_share = 5 ", ("policy.treated_share", "at most 1")),
        ("year = 2015", "year = 1815", ("treatments.common_start.year", "1815")),
        ("cuts = [34, 64]", "cuts = [64, 34]", ("subgroups.age", "do not rise")),
        ("cuts_quantile = [0.5]", "cuts_quantile = [1.5]", ("subgroups.deprivation.cuts_quantile", "between 0 and 1")),
        ('part = "overlap"', 'part = "overlaps"', ("no part 'overlaps'", "Did you mean 'overlap'")),
        ("ratio = 5", "ratio = 0", ("ratio", "Give 1 or more")),
        ('ratio = 5', 'ratio = "five"', ("comparisons.nearest.ratio", "seen 'five'")),
        ("conf_level = 0.95", "conf_level = 95", ("conf_level", "between 0 and 1")),
        ("conf_level = 0.95", "", ("policy.conf_level", "missing")),
        ('exact = ["region"]', 'exact = ["regoin"]', ("exact", "Did you mean 'region'")),
        ("last_year = 2020", "last_year = 2001", ("first_year 2011 comes after last_year 2001",)),
        ("cuts = [34, 64]", "cuts = [34]", ("subgroups.age", "1 cuts make 2 levels, 3 are named")),
        ("women = [", "wommen = [", ("no level 'wommen'", "Did you mean 'women'")),
        ('main_treatment = "common_start"', 'main_treatment = "start"', ("main_treatment", "common_start")),
        ("year = 2015", "", ("treatments.common_start", "Give a year")),
        ("year = 2013\nlast_year = 2014", "year = 2013\nlast_year = 2012", ("treatments.placebo_2013", "leaves none")),
        ('inference = ["romano_wolf"]', 'inference = ["cluster"]', ("part families", "a family of outcomes at once")),
        ('options = { dose = "spend" }', 'options = { doze = "spend" }', ("estimators.dose_response.options", "Did you mean 'dose'")),
        ('covariates = ["age", "sex", "imd"]', 'covariates = ["agee"]', ("estimators.drdid_sections.covariates", "Did you mean 'age'")),
        ('title = "', 'title = ', ("not valid TOML", "line 4")),
        ('outcomes = ["high_anxiety"]', 'outcomes = ["samhi"]', ("subgroup gender is a property of persons", "samhi is not from the survey")),
    ],
)  # fmt: skip
def test_refused(tmp_path: Path, old: str, new: str, parts: tuple[str, ...]) -> None:
    with pytest.raises(StudyError) as e:
        load(tmp_path, old, new)
    for part in ("study.toml", *parts):
        assert part in str(e.value), str(e.value)


def test_a_subgroup_by_sets_needs_sets(tmp_path: Path) -> None:
    block = '[[analyses]]\npart = "subgroups"\nestimators = ["twfe"]\ncomparisons = ["nearest"]'
    with pytest.raises(StudyError, match="needs matched sets"):
        load(tmp_path, block, block.replace("nearest", "pool"))


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="Run from a clone"):
        study.load(tmp_path / "study.toml")


def test_the_plan_has_each_analysis_once_and_every_part() -> None:
    plan = study.expand(study.load())
    assert len({a.id for a in plan}) == len(plan)
    assert {a.part for a in plan} >= {"flow", "balance", "trends", "effects", "years", "subgroups"}
    assert "effects/samhi/all/nearest/twfe/common_start/cluster" in {a.id for a in plan}


def test_what_can_be_named_is_there() -> None:
    assert set(get_args(Inference)) > {"none", "cluster", "cr2", "wild_bootstrap", "randomisation"}
    for name in set(get_args(Inference)) - {"romano_wolf"}:  # takes a family of fits
        assert callable(inference.infer(name, 0.95, 99))


@pytest.mark.parametrize("part", ["placebo", "recovery"])
def test_an_inference_that_a_part_would_not_do_is_refused(tmp_path: Path, part: str) -> None:
    """Rows must not carry the name of an inference that was not made."""
    text = study.PATH.read_text(encoding="utf-8")
    head, tail = text.split(f'part = "{part}"', 1)
    block, rest = tail.split("[[analyses]]", 1)
    lines = [line for line in block.splitlines() if not line.startswith("inference")]
    asked = "\n".join([f'part = "{part}"{lines[0]}', 'inference = ["wild_bootstrap"]', *lines[1:], "[[analyses]]"])
    path = tmp_path / "study.toml"
    path.write_text(head + asked + rest, encoding="utf-8")
    with pytest.raises(StudyError, match=f"inference wild_bootstrap. Part {part} has "):
        study.load(path)
