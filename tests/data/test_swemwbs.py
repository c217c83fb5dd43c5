"""Scoring: the published conversion, its missing-item rule, and what is refused at the door."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from biglocal.data import swemwbs, synthetic_residents
from biglocal.data.swemwbs import ITEMS, METRIC
from biglocal.data.tables import check
from biglocal.model import DataError

PROGRAMME = pd.DataFrame({"area_id": [f"BL{i:03d}" for i in range(1, 151)]})


@pytest.fixture
def table() -> pd.DataFrame:
    return synthetic_residents.residents(np.random.default_rng(5), PROGRAMME)


def read(table: pd.DataFrame) -> pd.DataFrame:
    return swemwbs.scored(check("residents", table, "file"), "file")


@pytest.mark.parametrize(("total", "metric"), [(7, 7.0), (8, 9.51), (21, 19.25), (23, 20.73), (28, 25.03), (35, 35.0)])
def test_published_conversion(total: int, metric: float) -> None:  # Stewart-Brown et al. 2009, its table
    answers = np.full(7, total // 7) + (np.arange(7) < total % 7)
    assert swemwbs.score([answers]) == pytest.approx([metric])


def test_it_rises_and_is_stretched_at_the_ends() -> None:
    steps = np.diff(METRIC)
    assert len(METRIC) == 29
    assert (steps > 0).all()
    assert steps[0] > 3 * steps.min()
    assert steps[-1] > 3 * steps.min()


def test_order_of_the_items_and_of_the_rows_changes_nothing() -> None:
    answers = np.random.default_rng(1).integers(1, 6, (200, 7))
    score = swemwbs.score(answers)
    assert (swemwbs.score(answers[:, ::-1]) == score).all()
    assert (swemwbs.score(answers[::-1]) == score[::-1]).all()


def test_no_score_where_an_item_is_missing() -> None:
    answers = np.full((8, 7), 3.0)
    answers[np.arange(7), np.arange(7)] = np.nan
    assert np.isnan(swemwbs.score(answers)).tolist() == [True] * 7 + [False]


@pytest.mark.parametrize(("bad", "says"), [(0, "is 0"), (6, "is 6"), (2.5, "is 2.5"), (-8, "is -8")])
def test_an_answer_outside_one_to_five_is_refused(bad: float, says: str) -> None:
    answers = np.full((3, 7), 3.0)
    answers[1, 4] = bad
    with pytest.raises(DataError, match=f"item 5 of row 2 {says}"):
        swemwbs.score(answers)


@pytest.mark.parametrize("total", [6, 36, 20.5])
def test_a_sum_outside_seven_to_thirty_five_is_refused(total: float) -> None:
    with pytest.raises(DataError, match="from 7 to 35"):
        swemwbs.metric([total])


def test_seven_items_are_wanted() -> None:
    with pytest.raises(DataError, match=r"\(persons, 7\) expected"):
        swemwbs.score(np.full((3, 14), 3.0))


def test_a_reversed_item_is_refused_by_name(table: pd.DataFrame) -> None:
    read(table)  # as it should be
    turned = table.assign(swemwbs_3=6 - table["swemwbs_3"], swemwbs=np.nan)
    with pytest.raises(DataError, match=r"swemwbs_3 \(correlation -0\.\d\d .*reversed"):
        read(turned)


def test_chance_does_not_look_like_a_reversed_item() -> None:
    rng = np.random.default_rng(2)
    assert not any(swemwbs.against_the_others(rng.integers(1, 6, (100, 7))) for _ in range(20))
    assert swemwbs.against_the_others(np.full((100, 7), 3)) == ()
    assert swemwbs.against_the_others(np.empty((0, 7))) == ()


def test_the_score_is_made_from_the_items(table: pd.DataFrame) -> None:
    blank = read(table.assign(swemwbs=np.nan))
    pd.testing.assert_series_equal(blank["swemwbs"], read(table)["swemwbs"])
    assert blank["swemwbs"].notna().any()


def test_a_score_without_items_stands(table: pd.DataFrame) -> None:
    only = table.assign(**dict.fromkeys(ITEMS, pd.NA))
    pd.testing.assert_series_equal(read(only)["swemwbs"], read(table)["swemwbs"])


def test_a_raw_sum_is_not_taken_for_the_score(table: pd.DataFrame) -> None:
    whole = table[list(ITEMS)].notna().all(axis=1)
    raw = table[list(ITEMS)].astype(float).sum(axis=1).where(whole)
    with pytest.raises(DataError, match="raw sum of the items, whose metric score is"):
        read(table.assign(swemwbs=raw))
    with pytest.raises(DataError, match="not the score of the items"):
        read(table.assign(swemwbs=table["swemwbs"].mask(table["swemwbs"] > 25, 24.0)))


@pytest.mark.parametrize(("column", "value"), [("swemwbs", 36.0), ("swemwbs", 6.9), ("swemwbs_2", 6), ("belonging", 0)])
def test_the_contract_refuses_what_is_out_of_range(table: pd.DataFrame, column: str, value: float) -> None:
    at = table.index[table["responded"]][0]
    table.loc[at, column] = value
    with pytest.raises(DataError, match=f"column {column}, row {at + 2}"):
        read(table)


def test_answers_without_a_response_are_refused(table: pd.DataFrame) -> None:
    at = table.index[~table["responded"]][0]
    table.loc[at, "belonging"] = 4
    with pytest.raises(DataError, match="responded: 0 in a row that has answers"):
        read(table)
