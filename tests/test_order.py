"""The order in which things are written says nothing: of rows and columns of the tables, and of what study.toml lists."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from threadpoolctl import threadpool_limits

from biglocal import estimate, results, worth
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
    return replace(study, policy=policy, multiverse=replace(study.multiverse, draws=2))


def one_of_each(study: Study, plan: Iterable[Analysis]) -> list[Analysis]:
    """The first analysis of each part, estimator, inference and table, and what is valued in money."""
    found: dict[tuple[str, ...], Analysis] = {}
    for a in plan:
        table = study.outcomes[a.outcome].table if a.outcome in study.outcomes else ""
        found.setdefault((a.part, a.estimator, a.inference, table, a.respondents, str(a.subgroup == "all")), a)
    return list(dict.fromkeys([*found.values(), *sources(study)]))


def rows(study: Study, tier: Tier, wanted: Sequence[Analysis]) -> dict[str, str]:
    """Rows as they are written, by analysis."""
    made: list[Row] = []
    with threadpool_limits(1):
        estimated = [a for a in wanted if a.part != MONEY]
        for a, fit in estimate.estimate(Draw(study, tier), estimated, DRAWS, 1, lambda _: None):
            made += estimate.rows(study, tier.name, a, fit, "")
        order = {a.id: i for i, a in enumerate(expand(study))}
        made.sort(key=lambda r: order[r.analysis])
        before = results.loads(results.dumps(made), "rows")
        for a in wanted:
            if a.part == MONEY:
                made += worth.rows(study, tier.name, a, before, "")
    adjusted = estimate.adjust(made, study, [a for a in expand(study) if a in wanted])
    return {a.id: results.dumps([r for r in adjusted if r.analysis == a.id]) for a in wanted}


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
def plain(study: Study, tier: Tier) -> dict[str, str]:
    return rows(study, tier, one_of_each(study, expand(study)))


def shuffled(frame: pd.DataFrame) -> pd.DataFrame:
    """The same table with its rows, its columns and the categories of each column in another order."""
    rng = np.random.default_rng(len(frame))
    for name in frame.columns:
        if isinstance(frame[name].dtype, pd.CategoricalDtype):
            values = frame[name].cat
            frame = frame.assign(**{name: values.reorder_categories(rng.permutation(values.categories))})
    return frame.iloc[rng.permutation(len(frame)), rng.permutation(frame.shape[1])].reset_index(drop=True)


def test_tables_in_another_order_give_the_same_rows(study: Study, tier: Tier, plain: dict[str, str]) -> None:
    other = replace(tier, _kept={name: shuffled(tier.table(name)) for name in data_load.order()})
    wanted = one_of_each(study, expand(study))
    assert {a.part for a in wanted} == {a.part for a in expand(study)}
    found = rows(study, other, wanted)
    assert [name for name in plain if found[name] != plain[name]] == []
