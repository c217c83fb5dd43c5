"""The order in which things are written says nothing: of rows and columns of the tables, and of what study.toml lists."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from threadpoolctl import threadpool_limits

from biglocal import curve, estimate, results, worth
from biglocal import study as studies
from biglocal.data import load as data_load
from biglocal.data.load import Tier
from biglocal.model import Analysis, Study
from biglocal.results import Row
from biglocal.sample import Draw
from biglocal.study import MONEY, expand, sources

DRAWS = 19


def few(study: Study) -> Study:
    """The study with as few replications of each part on request as say anything."""
    assert study.multiverse is not None
    policy = replace(
        study.policy, placebo_lists=2, simulations=2, recoveries=2, power_simulations=2, power_areas=(10, 150),
        power_effects=(0.0, 1.0),
    )  # fmt: skip
    return replace(study, policy=policy, multiverse=replace(study.multiverse, draws=3))


def one_of_each(study: Study, plan: Iterable[Analysis]) -> list[Analysis]:
    """The first analysis of each part, estimator, inference and table; whole families; what money is made of."""
    found: dict[tuple[str, ...], Analysis] = {}
    for a in plan:
        table = study.outcomes[a.outcome].table if a.outcome in study.outcomes else ""
        if a.part == "twins" and table == "survey":
            continue  # seconds each, on a sample that others have too
        whole = a.outcome if a.part == "effects" and a.inference == "cluster" else ""
        found.setdefault((a.part, a.estimator, a.inference, table, a.respondents, whole, str(a.subgroup == "all")), a)
    return list(dict.fromkeys([*found.values(), *sources(study)]))


def rows(study: Study, tier: Tier, wanted: Sequence[Analysis]) -> dict[str, tuple[Row, ...]]:
    """Rows by analysis, with all the digits that they have before they are written."""
    made: dict[str, tuple[Row, ...]] = {}
    with threadpool_limits(1):
        estimated = [a for a in wanted if a.part != MONEY]
        for a, fit in estimate.estimate(Draw(study, tier), estimated, DRAWS, 1, lambda _: None):
            made[a.id] = tuple(estimate.rows(study, tier.name, a, fit, ""))
        before = results.loads(results.dumps([r for a in sources(study) for r in made[a.id]]), "rows")
        made |= {a.id: worth.rows(study, tier.name, a, before, "") for a in wanted if a.part == MONEY}
    table = [r for a in wanted for r in made[a.id]]
    adjusted = estimate.adjust(table, study, [a for a in expand(study) if a in wanted])
    return {a.id: tuple(r for r in adjusted if r.analysis == a.id) for a in wanted}


@pytest.fixture(scope="module", autouse=True)
def _few_draws_are_enough() -> Iterator[None]:
    """So that the multiverse says all that it has to say."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(curve, "FEWEST", 2)
        yield


@pytest.fixture(scope="module")
def study() -> Study:
    return few(studies.load())


@pytest.fixture(scope="module")
def tier(study: Study) -> Tier:
    made = data_load.load("synthetic", seed=study.seed)
    for name in data_load.order():
        made.table(name)
    return made


@pytest.fixture(scope="module")
def plain(study: Study, tier: Tier) -> dict[str, tuple[Row, ...]]:
    return rows(study, tier, one_of_each(study, expand(study)))


def shuffled(frame: pd.DataFrame) -> pd.DataFrame:
    """The same table with its rows, its columns and the categories of each column in another order."""
    rng = np.random.default_rng(len(frame))
    for name in frame.columns:
        if isinstance(frame[name].dtype, pd.CategoricalDtype):
            values = frame[name].cat
            frame = frame.assign(**{name: values.reorder_categories(rng.permutation(values.categories))})
    return frame.iloc[rng.permutation(len(frame)), rng.permutation(frame.shape[1])].reset_index(drop=True)


def test_tables_in_another_order_give_the_same_rows(
    study: Study, tier: Tier, plain: dict[str, tuple[Row, ...]]
) -> None:
    other = replace(tier, _kept={name: shuffled(tier.table(name)) for name in data_load.order()})
    wanted = one_of_each(study, expand(study))
    assert {a.part for a in wanted} == {a.part for a in expand(study)}
    assert all(len(plain[a.id]) > 500 for a in wanted if a.part == "multiverse")
    found = rows(study, other, wanted)
    assert [name for name in plain if found[name] != plain[name]] == []


COPIES = {"happiness": "delight", "violence": "assaults", "good_health": "fine_health"}  # of each table
GROUPS = {"gender": "sex", "deprivation": "need"}


def grown(study: Study) -> Study:
    """The study with outcomes and subgroups that are copies under other names, first, and all its lists turned round."""

    def turned(names: tuple[str, ...], copies: dict[str, str]) -> tuple[str, ...]:
        return (*(copies[n] for n in names if n in copies), *names[::-1])

    outcomes = {
        copy: replace(study.outcomes[o], name=copy, family=f"copy of {study.outcomes[o].family}", baseline=False)
        for o, copy in COPIES.items()
    }
    subgroups = {copy: replace(study.subgroups[s], name=copy) for s, copy in GROUPS.items()}
    blocks = [
        replace(
            b,
            outcomes=turned(b.outcomes, COPIES),
            subgroups=turned(b.subgroups, GROUPS),
            **{
                name: getattr(b, name)[::-1]
                for name in ("estimators", "comparisons", "treatments", "inference", "respondents", "exposures")
            },
        )
        for b in reversed(study.analyses)
    ]
    return replace(
        study,
        outcomes=outcomes | dict(reversed(study.outcomes.items())),
        subgroups=subgroups | dict(reversed(study.subgroups.items())),
        analyses=tuple(blocks),
    )


def test_a_study_with_more_in_it_and_in_another_order_gives_the_same_rows(
    study: Study, tier: Tier, plain: dict[str, tuple[Row, ...]]
) -> None:
    other = grown(study)
    plan = {a.id: a for a in expand(other)}
    new = [a for a in plan.values() if a.id not in {a.id for a in expand(study)}]
    assert {a.outcome for a in new} > {*COPIES.values()}
    assert {a.subgroup for a in new} > {*GROUPS.values()}
    wanted = [a for a in plan.values() if a.id in plain and a.part != "twins"]  # slow, and without random numbers
    found = rows(other, tier, list(dict.fromkeys([*one_of_each(other, new), *wanted])))

    def same(a: Analysis) -> bool:
        ours, theirs = found[a.id], plain[a.id]
        if a.part in ("subgroups", "change"):  # adjusted for the outcome's other subgroups, of which there are more
            ours, theirs = (tuple(replace(r, p_adjusted=None) for r in t) for t in (ours, theirs))
        return ours == theirs

    assert [a.id for a in wanted if not same(a)] == []
