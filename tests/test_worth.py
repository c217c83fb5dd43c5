"""From rows to rows: what the cost-benefit analysis says follows from the rows it was given, and from study.toml."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest

import fake_rows
from biglocal import study, worth
from biglocal.model import DataError, StudyError
from biglocal.results import Row, select
from biglocal.study import MONEY, PATH

PLAN = study.load()
FAKE = tuple(r for r in fake_rows.rows(PLAN) if r.part != MONEY)
SOURCES = {a.id for a in study.sources(PLAN)}
ANALYSES = {a.id: a for a in study.expand(PLAN)}
ATT, SE = 0.02, 0.03


def given() -> list[Row]:
    """Rows of the plan with an effect of known size and error."""
    out = []
    for r in FAKE:
        if r.part == "effects" and r.outcome == "life_satisfaction" and r.inference == "cluster":
            r = replace(r, estimate=ATT, std_error=SE, df=144.0, conf_low=ATT - 0.06, conf_high=ATT + 0.06)
        out.append(r)
    return [r for r in out if r.analysis in SOURCES]


def made(name: str, before: list[Row] | None = None) -> tuple[Row, ...]:
    return worth.rows(PLAN, "synthetic", ANALYSES[f"{MONEY}/{name}"], given() if before is None else before, "0")


def one(name: str, term: str, **more: object) -> Row:
    (row,) = select(made(name), term=term, **more)
    return row


def number(name: str, term: str, **more: object) -> float:
    value = one(name, term, **more).estimate
    assert value is not None
    return value


RESIDENTS, SPENT = 9e5, {y: 1e6 * (y - 2010) for y in range(2012, 2027)}  # those of fake_rows


def test_the_main_scenario_is_the_formula_of_its_rows() -> None:
    prices = PLAN.cost_benefit.deflator  # type: ignore[union-attr]
    benefit = sum(ATT * RESIDENTS * 13_000 / 1.015 ** (y - 2010) for y in range(2015, 2021))
    cost = sum(x * 100 / prices[y] / 1.035 ** (y - 2010) for y, x in SPENT.items())
    assert number("scenario/main", "benefit") == pytest.approx(benefit / 1e6, abs=5e-7)  # to the pound
    assert number("scenario/main", "cost") == pytest.approx(cost / 1e6, abs=5e-7)
    assert number("scenario/main", "net_benefit") == pytest.approx((benefit - cost) / 1e6, abs=1e-6)
    assert number("scenario/main", "point_years") == pytest.approx(6 * ATT * RESIDENTS)
    assert number("scenario/main", "cost_per_point_year") == pytest.approx(13_000 * cost / benefit)


def test_pounds_as_spent_are_those_of_the_accounts() -> None:
    assert number("scenario/as_spent", "cost") == pytest.approx(sum(SPENT.values()) / 1e6)
    each = sum(SPENT.values()) / (13_000 * RESIDENTS)
    assert number("scenario/as_spent", "break_even_point_years") == pytest.approx(each)
    assert number("scenario/as_spent", "break_even_effect") == pytest.approx(each / 6)


def test_years_add_up_to_the_sums() -> None:
    rows = made("scenario/main")
    for term, total in (("benefit_year", "benefit"), ("cost_year", "cost")):
        assert sum(r.estimate or 0 for r in select(rows, term=term)) == pytest.approx(number("scenario/main", total))
    assert {r.period for r in select(rows, term="benefit_year")} == set(range(2015, 2021))


def test_each_scenario_moves_what_it_says() -> None:
    main = {t: number("scenario/main", t) for t in ("benefit", "cost", "point_years")}
    half = {t: number("scenario/half", t) for t in main}
    assert half == pytest.approx(
        {"benefit": main["benefit"] / 2, "cost": main["cost"], "point_years": main["point_years"] / 2}
    )
    assert number("scenario/cost_271", "cost") == pytest.approx(1.3765 * main["cost"])
    assert number("scenario/to_the_end", "point_years") == pytest.approx(2 * main["point_years"])
    assert number("scenario/before_pandemic", "point_years") == pytest.approx(main["point_years"] * 5 / 6)
    assert number("scenario/cost_to_2020", "cost") < main["cost"]
    assert number("scenario/base_2019", "benefit") == pytest.approx(main["benefit"] * 1.015**9)


def test_effects_by_year_are_those_of_the_event_study() -> None:
    years = {r.period: r.estimate or 0 for r in given() if r.part == "years" and r.term == "event_time"}
    later = [years[0], years[1], *[years[2]] * 4]  # fake_rows stops at two years: the last one known stays
    assert number("scenario/by_year", "point_years") == pytest.approx(sum(later) * RESIDENTS)


def test_an_effect_not_told_apart_from_none_is_said_beside_the_number() -> None:
    assert "holds nought" in one("scenario/main", "net_benefit").reason
    sure = [replace(r, std_error=0.001) if r.part == "effects" else r for r in given()]
    assert select(made("scenario/main", sure), term="net_benefit")[0].reason == ""
    assert "perfectly correlated" in one("scenario/by_year", "net_benefit").reason


def test_one_way_ends_are_the_scenario_with_that_input() -> None:
    assert number("one_way", "net_benefit_low", level="share") == pytest.approx(number("scenario/half", "net_benefit"))
    late = number("one_way", "net_benefit_high", level="last_year")
    assert late == pytest.approx(number("scenario/to_the_end", "net_benefit"))
    low, high = (number("one_way", f"net_benefit_{e}", level="effect") for e in ("low", "high"))
    assert (low + high) / 2 == pytest.approx(number("scenario/main", "net_benefit"))


def test_two_way_holds_the_main_scenario_and_no_key_twice() -> None:
    rows = made("two_way")
    keys = [(r.level, r.period) for r in rows]
    assert len(set(keys)) == len(keys) == worth.GRID**2
    middle = [r.estimate for r in rows if r.period == 13_000 and float(r.level) == pytest.approx(ATT)]
    assert middle == [pytest.approx(number("scenario/main", "net_benefit"))]


def test_acceptability_begins_at_nought_and_rises() -> None:
    curve = [r.estimate or 0 for r in made("acceptability")]
    assert curve[0] == 0
    assert curve == sorted(curve)
    assert 0 < curve[-1] < 1


def test_equity_weights_sum_as_they_should() -> None:
    rows = made("equity")
    plain = sum(r.estimate or 0 for r in select(rows, term="benefit"))
    cost = number("scenario/main", "cost")
    assert number("equity", "net_benefit") == pytest.approx(plain - cost)
    assert number("equity", "weight", level="more deprived half") == pytest.approx(0.51**-1.3)
    assert sum(r.estimate or 0 for r in select(rows, term="residents")) == pytest.approx(RESIDENTS)
    for r in select(rows, term="weighted_benefit"):
        weight, benefit = (number("equity", t, level=r.level) for t in ("weight", "benefit"))
        assert r.estimate == pytest.approx(weight * benefit)


def test_every_input_is_a_row_with_its_source() -> None:
    rows = {r.level: r for r in made("inputs") if r.term == "input"}
    assert set(rows) == {"effect", "residents", "spending", *study.INPUTS}
    assert all(r.reason for r in rows.values())
    assert rows["spending"].estimate == pytest.approx(sum(SPENT.values()) / 1e6)


def test_what_lacks_is_told_with_its_reason() -> None:
    why = "Spending: bring table costs"
    lost = {"spending": why, "effects": "Life satisfaction: bring table survey"}
    before = [
        replace(r, status="inapplicable", reason=lost[r.part], estimate=None, term="") if r.part in lost else r
        for r in given()
    ]
    for name in ("inputs", "scenario/main", "one_way", "two_way", "acceptability", "equity"):
        (row,) = made(name, before)
        assert (row.status, row.estimate) == ("inapplicable", None)
        assert why in row.reason or "survey" in row.reason
    assert [r.status for r in made("scenario/known", [r for r in given() if r.part != "truth"])] == ["inapplicable"]


def test_a_loss_has_no_value_at_which_it_pays() -> None:
    worse = [replace(r, estimate=-0.01) if r.part == "effects" else r for r in given()]
    (row,) = select(made("scenario/main", worse), term="cost_per_point_year")
    assert row.status == "inapplicable"
    assert "no value of a point" in row.reason


def test_the_order_of_rows_is_no_matter_and_the_seed_is_the_name() -> None:
    assert made("scenario/main") == made("scenario/main", given()[::-1])
    assert one("scenario/main", "net_benefit").conf_low != one("scenario/base_2019", "net_benefit").conf_low


def test_spending_without_a_deflator_is_refused_before_anything_runs() -> None:
    tier = SimpleNamespace(name="secure", has=lambda _: True, table=lambda _: pd.DataFrame({"year": [2015, 2031]}))
    with pytest.raises(DataError, match=r"secure tier, table costs.*2031.*has no deflator"):
        worth.check(PLAN, tier)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("value = 13_000", "value = -1", "inputs.value"),
        ("value = 2020\nlow = 2019", "value = 2010\nlow = 2009", "start of treatment, 2015"),
        ("change = { share = 0.5 }", "change = { shar = 0.5 }", "Did you mean 'share'"),
        ("change = { share = 0.5 }", "change = { share = 50 }", "inputs.share"),
        ("draws = 100_000", "draws = 1_000", "100,000 or more"),
        ("[cost_benefit.inputs.fade]", "[cost_benefit.inputs.fading]", "no input 'fading'"),
        ('"more deprived half" = 0.51', '"more deprived" = 0.51', "no level 'more deprived'"),
        ("2019 = 100.0", "2019 = 0", "deflator.2019"),
        ('part = "spending"', 'part = "flow"', "no analysis of part spending"),
    ],
)  # fmt: skip
def test_a_wrong_study_is_refused(tmp_path: pytest.TempPathFactory, old: str, new: str, said: str) -> None:
    text = PATH.read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "study.toml"  # type: ignore[operator]
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(StudyError) as e:
        study.load(path)
    assert said in str(e.value)
