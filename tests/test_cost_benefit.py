"""Cost and benefit: identities written from the formula alone, laws, and refusals."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from biglocal.cost_benefit import (
    Account,
    Assumptions,
    Range,
    account,
    break_even,
    discount_factor,
    equity_weight,
    in_prices,
    lasting,
    simulate,
)
from biglocal.model import DataError

ENDOWMENT, VALUE, RESIDENTS = 196_873_499, 13_000, 1_000_000
PRICES = {2018: 97.9, 2019: 100.0, 2020: 105.1}
PLAIN = Assumptions(value=VALUE)


def test_the_break_even_of_the_endowment() -> None:
    assert break_even(ENDOWMENT, VALUE, RESIDENTS) == pytest.approx(0.0151441153, abs=1e-10)
    assert round(break_even(196.87e6, VALUE, RESIDENTS), 4) == 0.0151
    at = account({2015: break_even(ENDOWMENT, VALUE, RESIDENTS)}, RESIDENTS, {2015: ENDOWMENT}, PLAIN)
    assert at.benefit == pytest.approx(ENDOWMENT, abs=0.5)  # to the pound
    assert at.net_benefit == pytest.approx(0, abs=0.5)
    assert at.ratio == pytest.approx(1)


def test_the_published_net_benefit_to_the_pound() -> None:
    """64m and its cost, 260,873,499, are 20,067.19 point-years at 13,000: undiscounted, in prices as they stand."""
    effect = (64e6 + ENDOWMENT) / (VALUE * RESIDENTS)
    said = account(lasting(effect / 6, 2015, 2020, 2020), RESIDENTS, {2015: 1e8, 2016: ENDOWMENT - 1e8}, PLAIN)
    assert said.net_benefit == pytest.approx(64e6, abs=0.5)
    assert said.point_years == pytest.approx(20_067.19, abs=0.01)
    assert said.cost_per_point_year == pytest.approx(ENDOWMENT / 20_067.1922, rel=1e-8)


def test_the_formula_by_hand_with_prices_and_two_rates() -> None:
    terms = Assumptions(
        value=VALUE, share=0.5, rate_benefit=0.015, rate_cost=0.035, base_year=2018, price_year=2020,
        value_prices=2019, cost_scale=2, deflator=PRICES,
    )  # fmt: skip
    said = account({2018: 0.01, 2020: -0.002}, 200_000, {2018: 3e6, 2019: 1e6}, terms)
    value = 13_000 * 105.1 / 100
    benefit = 100_000 * value * (0.01 - 0.002 / 1.015**2)
    cost = 2 * (3e6 * 105.1 / 97.9 + 1e6 * 105.1 / 100 / 1.035)
    assert said.benefit == pytest.approx(benefit, abs=0.5)
    assert said.cost == pytest.approx(cost, abs=0.5)
    assert said.net_benefit == pytest.approx(benefit - cost, abs=0.5)
    assert said.benefit_by_year[2020] == pytest.approx(-100_000 * value * 0.002 / 1.015**2, abs=0.5)
    assert said.point_years == pytest.approx(100_000 * 0.008)
    assert said.discounted_point_years * value == pytest.approx(benefit, abs=0.5)
    assert said.break_even_effect == pytest.approx(cost / (100_000 * value * (1 + 1 / 1.015**2)))


def test_each_threshold_makes_net_benefit_nought() -> None:
    effect, spending = {2018: 0.02, 2019: 0.01, 2020: 0.03}, {2018: 5e7, 2020: 6e7}
    terms = Assumptions(
        value=9_000, share=0.7, rate_benefit=0.015, rate_cost=0.035, base_year=2018, price_year=2019,
        value_prices=2019, deflator=PRICES,
    )  # fmt: skip
    said = account(effect, 3e5, spending, terms)
    flat = account(dict.fromkeys(effect, said.break_even_effect), 3e5, spending, terms)
    dear = account(effect, 3e5, spending, replace(terms, value=said.cost_per_point_year))
    wide = account(effect, 3e5, spending, replace(terms, share=said.break_even_share))
    assert [a.net_benefit for a in (flat, dear, wide)] == pytest.approx([0, 0, 0], abs=0.5)


def money(**change: float) -> Account:
    effect, spending = {2018: 0.02, 2019: 0.01, 2020: 0.03}, {2018: 5e7, 2020: 6e7}
    terms = Assumptions(
        value=VALUE, rate_benefit=0.015, rate_cost=0.035, base_year=2018, price_year=2019, value_prices=2019,
        deflator=PRICES,
    )  # fmt: skip
    return account(effect, RESIDENTS, spending, replace(terms, **change))  # type: ignore[arg-type]


def test_prices_of_another_year_scale_everything_alike() -> None:
    before, after = money(), money(price_year=2020)
    assert after.benefit == pytest.approx(before.benefit * 1.051)
    assert after.cost == pytest.approx(before.cost * 1.051)
    assert (after.ratio, after.break_even_effect) == pytest.approx((before.ratio, before.break_even_effect))


def test_another_base_year_compounds_by_each_rate() -> None:
    before, after = money(), money(base_year=2020)
    assert after.benefit == pytest.approx(before.benefit * 1.015**2)
    assert after.cost == pytest.approx(before.cost * 1.035**2)


def test_no_rate_is_the_plain_sum_and_a_higher_one_is_less() -> None:
    assert money(rate_benefit=0).benefit == pytest.approx(0.06 * RESIDENTS * VALUE)
    assert money(rate_benefit=0).benefit > money().benefit > money(rate_benefit=0.035).benefit
    assert money(rate_cost=0).cost == pytest.approx(5e7 * 100 / 97.9 + 6e7 * 100 / 105.1)


def test_units_scale_and_the_order_of_years_is_no_matter() -> None:
    assert money(value=2 * VALUE).benefit == pytest.approx(2 * money().benefit)
    assert money(share=0.5).point_years == pytest.approx(money().point_years / 2)
    one = account({2019: 0.1, 2018: 0.2}, 10.0, {2020: 1.0, 2018: 2.0}, PLAIN)
    assert one == account({2018: 0.2, 2019: 0.1}, 10.0, {2018: 2.0, 2020: 1.0}, PLAIN)


def test_no_value_breaks_even_where_nothing_is_gained() -> None:
    lost = account({2015: -0.01}, RESIDENTS, {2015: 1e6}, PLAIN)
    assert math.isnan(lost.cost_per_point_year)
    assert math.isnan(lost.break_even_share)
    assert lost.break_even_effect == pytest.approx(1e6 / (RESIDENTS * VALUE))


def test_an_effect_that_fades() -> None:
    assert lasting(0.1, 2015, 2016, 2018, fade=0.5) == pytest.approx({2015: 0.1, 2016: 0.1, 2017: 0.05, 2018: 0.025})
    assert set(lasting(0.1, 2015, 2020, 2018)) == {2015, 2016, 2017, 2018}
    assert lasting(0.1, 2015, 2015, 2016, fade=1) == {2015: 0.1, 2016: 0.0}


def test_prices_and_discounts() -> None:
    assert in_prices(979, 2018, 2019, PRICES) == pytest.approx(1000)
    assert in_prices(in_prices(7.0, 2018, 2020, PRICES), 2020, 2018, PRICES) == pytest.approx(7)
    assert discount_factor(2012, 0.035, 2010) == pytest.approx(1 / 1.035**2)
    assert discount_factor(2008, 0.035, 2010) == pytest.approx(1.035**2)


def test_equity_weight_of_the_lowest_fifth() -> None:
    """Green Book, annex A3: a weight of 2.4 with incomes of 2015 for the lowest fifth, whose income is 0.51 of the median."""
    assert equity_weight(0.51) == pytest.approx(2.4, abs=0.005)
    assert equity_weight(1.0) == 1.0
    assert equity_weight(0.5, 1.0) == 2.0
    assert equity_weight(0.3, 0.0) == 1.0


# --- uncertainty ------------------------------------------------------------------------------------------------

FLAT, SPENT = dict.fromkeys(range(2015, 2021), 0.0033), {2015: float(ENDOWMENT)}
FIXED = {"value": Range(VALUE, VALUE, VALUE), "share": Range(1, 1, 1)}
DRAWS = 200_000


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def test_sampling_error_alone_is_a_t_distribution() -> None:
    error = dict.fromkeys(FLAT, 0.002)
    drawn = simulate(FLAT, error, 12, RESIDENTS, SPENT, PLAIN, draws=DRAWS, rng=rng(), **FIXED)
    exact = account(FLAT, RESIDENTS, SPENT, PLAIN)
    scale = 0.002 * 6 * RESIDENTS * VALUE
    assert drawn.probability == pytest.approx(stats.t.cdf(exact.net_benefit / scale, 12), abs=0.004)
    half = stats.t.ppf(0.975, 12) * scale
    assert drawn.interval(0.95) == pytest.approx((exact.net_benefit - half, exact.net_benefit + half), rel=0.02)
    assert drawn.ratio.mean() == pytest.approx(exact.ratio, rel=0.01)


def test_ranges_alone_have_the_moments_of_their_triangles() -> None:
    ranges = {"value": Range(10_000, 13_000, 16_000), "share": Range(0.5, 1, 1)}
    drawn = simulate(
        FLAT, dict.fromkeys(FLAT, 0.0), math.inf, RESIDENTS, SPENT, PLAIN, draws=DRAWS, rng=rng(), **ranges
    )
    gain = drawn.net_benefit + ENDOWMENT
    assert gain.mean() == pytest.approx(0.0033 * 6 * RESIDENTS * 13_000 * 2.5 / 3, rel=0.002)
    v, s = stats.triang(0.5, 10_000, 6_000), stats.triang(1, 0.5, 0.5)
    spread = ((v.var() + v.mean() ** 2) * (s.var() + s.mean() ** 2) - (v.mean() * s.mean()) ** 2) ** 0.5
    assert gain.std() == pytest.approx(spread * 0.0033 * 6 * RESIDENTS, rel=0.01)


def test_nothing_uncertain_is_the_account() -> None:
    drawn = simulate(FLAT, dict.fromkeys(FLAT, 0.0), 9, RESIDENTS, SPENT, PLAIN, draws=1_000, rng=rng(), **FIXED)
    assert set(drawn.net_benefit.round(3)) == {round(account(FLAT, RESIDENTS, SPENT, PLAIN).net_benefit, 3)}


def test_prices_reach_the_draws_too() -> None:
    terms = Assumptions(
        value=VALUE, price_year=2020, value_prices=2019, deflator=PRICES, rate_benefit=0.015, base_year=2018
    )
    effect, spent = {2018: 0.01, 2019: 0.02}, {2018: 1e7}
    drawn = simulate(effect, {2018: 0.0, 2019: 0.0}, 9, RESIDENTS, spent, terms, draws=1_000, rng=rng(), **FIXED)
    assert drawn.net_benefit == pytest.approx(account(effect, RESIDENTS, spent, terms).net_benefit)


def test_acceptability_rises_with_the_value_and_meets_the_probability() -> None:
    error = dict.fromkeys(FLAT, 0.002)
    drawn = simulate(FLAT, error, 12, RESIDENTS, SPENT, PLAIN, draws=DRAWS, rng=rng(), **FIXED)
    curve = drawn.acceptability([0, 5_000, 13_000, 30_000, 1e9])
    assert curve == sorted(curve)
    assert curve[0] == 0
    assert curve[2] == pytest.approx(drawn.probability, abs=1e-9)
    assert curve[-1] == pytest.approx(stats.t.cdf(0.0033 / 0.002, 12), abs=0.004)  # the effect's own one-sided level


def test_errors_of_years_move_together() -> None:
    """Years with errors of their own: the spread is the sum of the errors, not its square root."""
    error = {y: 0.001 * (i + 1) for i, y in enumerate(FLAT)}
    drawn = simulate(FLAT, error, math.inf, RESIDENTS, SPENT, PLAIN, draws=DRAWS, rng=rng(), **FIXED)
    assert drawn.net_benefit.std() == pytest.approx(0.021 * RESIDENTS * VALUE, rel=0.01)


def test_a_hundred_thousand_draws_come_again() -> None:
    ranges = {"value": Range(10_000, 13_000, 16_000), "share": Range(0.5, 1, 1)}
    error = dict.fromkeys(FLAT, 0.002)
    one = simulate(FLAT, error, 144, RESIDENTS, SPENT, PLAIN, draws=100_000, rng=rng(), **ranges)
    two = simulate(
        dict(reversed(FLAT.items())), error, 144, RESIDENTS, SPENT, PLAIN, draws=100_000, rng=rng(), **ranges
    )
    assert (one.net_benefit == two.net_benefit).all()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: Assumptions(value=-1), "value is -1. Give above 0"),
        (lambda: Assumptions(value=math.nan), "value is nan"),
        (lambda: Assumptions(value=1, share=-0.1), "share is -0.1"),
        (lambda: Assumptions(value=1, rate_cost=3.5, base_year=2010), "not a percentage"),
        (lambda: Assumptions(value=1, rate_cost=0.035), "without a base year"),
        (lambda: Assumptions(value=1, cost_scale=0), "cost_scale is 0"),
        (lambda: Assumptions(value=1, deflator={2010: 0}), "deflator of 2010 is 0"),
        (lambda: account({2015: 0.1}, 10, {}, PLAIN), "no spending"),
        (lambda: account({2015: 0.1}, 10, {2015: 0}, PLAIN), "no spending"),
        (lambda: account({2015: 0.1}, 10, {2015: 5, 2016: -1}, PLAIN), "spending of -1 in 2016"),
        (lambda: account({}, 10, {2015: 1}, PLAIN), "no year has an effect"),
        (lambda: account({2015: 0.1}, 0, {2015: 1}, PLAIN), "0 residents"),
        (lambda: account({2015: 0.1}, 10, {2015: 1}, replace(PLAIN, price_year=2019, deflator=PRICES)), "no deflator for 2015"),
        (lambda: account({2015: 0.1}, 10, {2015: 1}, replace(PLAIN, price_year=2019)), "there is one for no year"),
        (lambda: in_prices(1, 2018, 2031, PRICES), "no deflator for 2031"),
        (lambda: lasting(0.1, 2015, 2020, 2014), "ends in 2014, before it starts in 2015"),
        (lambda: lasting(0.1, 2015, 2020, 2021, fade=2), "fade is 2"),
        (lambda: break_even(0, 1, 1), "cost is 0"),
        (lambda: equity_weight(0), "relative income is 0"),
        (lambda: Range(3, 2, 4), "does not hold 2"),
        (lambda: simulate(FLAT, FLAT, 9, 1, SPENT, PLAIN, draws=10, rng=rng(), **FIXED), "10 draws"),
        (lambda: simulate(FLAT, {}, 9, 1, SPENT, PLAIN, draws=1_000, rng=rng(), **FIXED), "one for each year"),
        (lambda: simulate(FLAT, FLAT, 0, 1, SPENT, PLAIN, draws=1_000, rng=rng(), **FIXED), "0 degrees of freedom"),
    ],
)  # fmt: skip
def test_refused(call: object, said: str) -> None:
    with pytest.raises(DataError) as e:
        call()  # type: ignore[operator]
    assert said in str(e.value)
