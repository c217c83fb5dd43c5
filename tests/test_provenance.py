"""What a row depends on: exactly the rows whose numbers a change can move are computed again."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from biglocal import provenance
from biglocal import study as studies
from biglocal.data.load import Tier, load
from biglocal.model import Comparison, Outcome, Study
from biglocal.study import HERE

DRAWS = 999


@pytest.fixture(scope="module")
def study() -> Study:
    return studies.load()


@pytest.fixture(scope="module")
def tier(study: Study) -> Tier:
    return load("synthetic", seed=study.seed)


def digests(study: Study, tier: Tier, draws: int = DRAWS) -> dict[str, str]:
    return provenance.of_plan(study, tier, studies.expand(study), draws)


def moved(before: dict[str, str], after: dict[str, str]) -> set[str]:
    """Parts of the analyses that would be computed again."""
    return {a.partition("/")[0] for a in before if after.get(a) != before[a]}


def policy(**change: Any) -> Callable[[Study], Study]:
    return lambda study: replace(study, policy=replace(study.policy, **change))


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (policy(placebo_lists=21), {"placebo"}),
        (policy(placebo_effect=-0.7), {"placebo"}),
        (policy(simulations=21), {"simulation"}),
        (policy(simulation_effects={}), {"simulation", "simulated_power"}),
        (policy(power_areas=(10, 20)), {"simulated_power"}),
        (policy(recoveries=21), {"recovery"}),
        (policy(balance_threshold=0.2), set[str]()),
        (policy(multiplicity="fdr_bh"), set[str]()),
    ],
    ids=["placebo_lists", "placebo_effect", "simulations", "simulation_effects", "power_areas", "recoveries", "balance", "adjustment"],
)  # fmt: skip
def test_a_policy_moves_the_rows_it_is_for(
    study: Study, tier: Tier, change: Callable[[Study], Study], parts: set[str]
) -> None:
    assert moved(digests(study, tier), digests(change(study), tier)) == parts


@pytest.mark.parametrize("change", [policy(conf_level=0.9), policy(treated_share=0.6)], ids=["level", "share"])
def test_every_row_depends_on_the_other_policies(study: Study, tier: Tier, change: Callable[[Study], Study]) -> None:
    before, after = digests(study, tier), digests(change(study), tier)
    assert {a for a in before if after[a] == before[a]} == set()


def with_multiverse(**change: Callable[[Any], Any]) -> Callable[[Study], Study]:
    """The study with entries of its multiverse changed, each by a function of what it was."""

    def changed(study: Study) -> Study:
        m = study.multiverse
        assert m is not None
        return replace(study, multiverse=replace(m, **{k: f(getattr(m, k)) for k, f in change.items()}))

    return changed


def with_entry(section: str, name: str, of: str = "", **change: Any) -> Callable[[Study], Study]:
    """The study with an entry changed, or with a new one made `of` another."""

    def changed(study: Study) -> Study:
        entries = getattr(study, section)
        entry = replace(entries[of or name], **change, name=name)
        return replace(study, **{section: {**entries, name: entry}})

    return changed


def worded(entries: dict[str, Any]) -> dict[str, Any]:
    return {k: replace(v, label="Other words", reason="another reason") for k, v in entries.items()}


OUTCOMES = {"high_anxiety", "samhi", "burglary"}


@pytest.mark.parametrize(
    ("change", "outcomes"),
    [
        (with_entry("outcomes", "new", "violence"), set[str]()),
        (with_entry("outcomes", "happiness", label="Happiness now"), set[str]()),
        (with_entry("comparisons", "optimal", label="Other words", ratio=3), set[str]()),
        (with_entry("comparisons", "nearest", label="Other words"), set[str]()),
        (with_entry("comparisons", "new", "nearest", ratio=3), set[str]()),
        (with_entry("treatments", "plan_endorsed", label="Other words", reason="another reason"), set[str]()),
        (with_multiverse(exclusion=worded, window=worded, estimator=worded, treatment=worded), set[str]()),
        (with_multiverse(rules=lambda rules: tuple(replace(r, reason="another") for r in rules)), set[str]()),
        (with_multiverse(outcomes=lambda names: (*names, "violence")), set[str]()),
        (with_multiverse(rules=lambda rules: tuple(r for r in rules if not r.outcomes)), {"high_anxiety"}),
        (with_multiverse(rules=lambda rules: rules[1:]), OUTCOMES),
        (with_multiverse(draws=lambda n: n + 1), OUTCOMES),
        (with_multiverse(bands=lambda n: n + 1), OUTCOMES),
        (with_multiverse(covariates=lambda had: {**had, "deprivation": replace(had["deprivation"], columns=("imd",))}), OUTCOMES),
        (with_multiverse(exclusion=lambda had: {**had, "london": replace(had["london"], values=("East",))}), OUTCOMES),
        (with_multiverse(window=lambda had: {**had, "to_2018": replace(had["to_2018"], last_year=2017)}), OUTCOMES),
        (with_multiverse(definition=lambda had: {"as_measured": had["as_measured"]}), OUTCOMES),
        (with_entry("comparisons", "nearest", ratio=3), OUTCOMES),
        (with_entry("treatments", "all_announced", year=2014), OUTCOMES),
        (with_entry("outcomes", "burglary", first_year=2012), {"burglary"}),
        (with_entry("outcomes", "samhi", column="burglary_z"), OUTCOMES),  # matched on
        (lambda study: start_of_main(study), OUTCOMES),
    ],
    ids=[
        "new outcome", "label of another outcome", "another comparison", "label of a comparison", "new comparison",
        "words of a treatment", "words of options", "reasons of rules", "one more outcome", "rules of an outcome",
        "a rule of all", "draws", "bands", "covariates", "exclusion", "window", "definition", "comparison", "treatment",
        "own years", "column matched on", "main treatment",
    ],
)  # fmt: skip
def test_a_multiverse_is_made_again_where_its_numbers_can_move(
    study: Study, tier: Tier, change: Callable[[Study], Study], outcomes: set[str]
) -> None:
    """It takes minutes: words, and what other outcomes and comparisons are, leave its rows as they are."""
    before, after = digests(study, tier), digests(change(study), tier)
    assert {o for o in OUTCOMES if after[f"multiverse/{o}"] != before[f"multiverse/{o}"]} == outcomes


def test_draws_move_what_is_resampled_in_a_run_and_nothing_on_request(study: Study, tier: Tier) -> None:
    """Parts on request draw by numbers of their own: `--draws full` must not lose rows that took minutes."""
    before, after = digests(study, tier), digests(study, tier, 9999)
    resampled = {
        a.id for a in studies.expand(study) if a.inference in provenance.RESAMPLING and a.part not in studies.ON_REQUEST
    }
    assert {a for a in before if after[a] != before[a]} == resampled


def start_of_main(study: Study) -> Study:
    main = study.treatments[study.main_treatment]
    assert main.year is not None
    return replace(study, treatments={**study.treatments, main.name: replace(main, year=main.year + 1)})


def other_outcome_before(study: Study) -> Study:
    samhi: Outcome = study.outcomes["samhi"]
    return replace(study, outcomes={**study.outcomes, "samhi": replace(samhi, column="burglary_z")})


@pytest.mark.parametrize("change", [start_of_main, other_outcome_before])
def test_balance_depends_on_which_outcomes_before_which_start(
    study: Study, tier: Tier, change: Callable[[Study], Study]
) -> None:
    """Levels and trends before treatment are looked at, and matched on, though no analysis of balance names them."""
    before, after = digests(study, tier), digests(change(study), tier)
    wanted = {a.id for a in studies.expand(study) if a.part in ("balance", "flow", "overlap", "quality")}
    assert wanted
    assert {a for a in wanted if after[a] == before[a]} == set()


def test_matching_on_outcomes_before_treatment_depends_on_their_data(study: Study, tier: Tier) -> None:
    """An outcome of persons too, though its own table is another."""
    on_baseline: dict[str, Comparison] = {n: c for n, c in study.comparisons.items() if c.baseline}
    of_persons = [
        a
        for a in studies.expand(study)
        if a.comparison in on_baseline
        and a.outcome in study.outcomes
        and study.outcomes[a.outcome].table == "survey"
        and a.part != studies.MONEY
    ]
    assert of_persons
    other = replace(tier, digests={**tier.digests, "area_panel": "other"})
    before, after = digests(study, tier), digests(study, other)
    assert [a.id for a in of_persons if before[a.id] == after[a.id]] == []


def test_money_depends_on_the_rows_it_is_made_of(study: Study, tier: Tier) -> None:
    for table in ("survey", "costs", "areas", "programme", "truth"):
        other = replace(tier, digests={**tier.digests, table: "other"})
        assert studies.MONEY in moved(digests(study, tier), digests(study, other)), table


def test_what_an_estimator_calls_counts_in_its_digest() -> None:
    """An estimator found by a name that is made at run time would be missed: imputed rows would outlive their model."""
    for path in sorted((provenance.HERE / "estimators").glob("*.py")):
        if path.name == "__init__.py":
            continue
        text = path.read_text(encoding="utf-8")
        assert "estimator(" not in text.replace("def estimator(", ""), path.name
        assert "import_module" not in text, path.name
    for model in ("mixed_model", "within_person", "random_effects", "gee", "mixed_logit"):
        assert f"estimators/{model}.py" in provenance._imports("estimators/multiple_imputation.py")


def test_imports_are_found_as_the_parser_finds_them() -> None:
    """They are read by pattern, for speed: the parser is the referee over every file of the package."""
    for path in sorted(HERE.rglob("*.py")):
        found = set[str]()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("biglocal"):
                base = (node.module or "").removeprefix("biglocal").strip(".").replace(".", "/")
                for name in (base, *(f"{base}/{alias.name}".strip("/") for alias in node.names)):
                    found |= {f for f in (f"{name}.py", f"{name}/__init__.py") if (HERE / f).is_file()}
            assert not (isinstance(node, ast.Import) and any(a.name.startswith("biglocal") for a in node.names)), path
        seen = set(provenance._imports(path.relative_to(HERE).as_posix()))
        assert seen >= found if path.name == "new.py" else seen == found, path  # new.py holds code that it writes
