"""What a change in life satisfaction is worth, less what it cost: pure functions of plain numbers.

    account(effect, residents, spending, Assumptions(...))    # a year at a time, then the sums
    simulate(effect, residents, spending, assumptions, ...)   # the same, with what is not known drawn jointly

benefit = sum over years of effect (points, 0 to 10) x residents x share x value of one point for a year, discounted;
cost = sum over years of spending in prices of one year, discounted. Method: HM Treasury (2021), Wellbeing Guidance for
Appraisal, supplementary to the Green Book (2022), whose annex A6 gives discounting and A3 distributional weights.
Amounts of money are in GBP, effects in points of life satisfaction, years are calendar years. A year's flows count
whole in that year: the base year's are not discounted, earlier ones are compounded forward.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from biglocal.model import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Years = Mapping[int, float]


@dataclass(frozen=True, slots=True)
class Assumptions:
    """What the money depends on besides effect, residents and spending.

    `value`: GBP for one point for one person and year, in prices of `value_prices` (a year). `share`: of the
    residents, those whose life satisfaction moves. `rate_benefit`, `rate_cost`: discount rates a year (0.015).
    `price_year`: results are in its prices; None leaves amounts as they are. `base_year`: present values are of it.
    `deflator`: year -> price level, any base. `cost_scale` multiplies spending.
    """

    value: float
    share: float = 1.0
    rate_benefit: float = 0.0
    rate_cost: float = 0.0
    base_year: int | None = None
    price_year: int | None = None
    value_prices: int | None = None
    cost_scale: float = 1.0
    deflator: Years = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises `DataError` for a number that cannot be what it is called."""
        for name, good, want in (
            ("value", self.value > 0, "above 0 GBP"),
            ("share", self.share >= 0, "0 or more"),
            ("rate_benefit", -1 < self.rate_benefit < 1, "a rate such as 0.015, not a percentage"),
            ("rate_cost", -1 < self.rate_cost < 1, "a rate such as 0.035, not a percentage"),
            ("cost_scale", self.cost_scale > 0, "above 0"),
        ):
            seen = getattr(self, name)
            if not (good and math.isfinite(seen)):
                raise DataError(f"cost-benefit: {name} is {seen}. Give {want}.")
        if (self.rate_benefit or self.rate_cost) and self.base_year is None:
            raise DataError("cost-benefit: a discount rate without a base year. Give base_year.")
        for year, level in self.deflator.items():
            if not (level > 0 and math.isfinite(level)):
                raise DataError(f"cost-benefit: the deflator of {year} is {level}. Give a price level above 0.")


@dataclass(frozen=True, slots=True)
class Account:
    """Benefits and costs, by year and in all. Money: GBP, present values in prices of the price year.

    `point_years` are not discounted, `discounted_point_years` are. `break_even_effect` is the effect, the same in
    every year that counts, at which benefit equals cost; `cost_per_point_year` the value of a point at which it does
    (NaN where the point-years are not above nought: then no value does), `break_even_share` the share (NaN alike).
    """

    benefit_by_year: dict[int, float]
    cost_by_year: dict[int, float]
    point_years: float
    discounted_point_years: float
    benefit: float
    cost: float
    net_benefit: float
    ratio: float
    break_even_effect: float
    cost_per_point_year: float
    break_even_share: float


def discount_factor(year: int, rate: float, base_year: int) -> float:
    """1 / (1 + rate)^(year - base_year): Green Book (2022), annex A6."""
    return float((1 + rate) ** (base_year - year))


def in_prices(amount: float, year: int, price_year: int, deflator: Years) -> float:
    """An amount in prices of `year` as one in prices of `price_year`: times deflator[price_year] / deflator[year].

    Raises `DataError` for a year without a deflator.
    """
    for wanted in (year, price_year):
        if wanted not in deflator:
            known = f"{min(deflator)} to {max(deflator)}" if deflator else "no year"
            raise DataError(f"cost-benefit: no deflator for {wanted} (there is one for {known}). Add the year.")
    return amount * deflator[price_year] / deflator[year]


def lasting(effect: float, first: int, measured: int, last: int, fade: float = 0.0) -> dict[int, float]:
    """An average effect year by year, `first` to `last`; after `measured` a share `fade` of it is lost each year.

    Raises `DataError` where the horizon ends before it begins, or `fade` is not in [0, 1].
    """
    if last < first:
        raise DataError(
            f"cost-benefit: the horizon ends in {last}, before it starts in {first}. Give {first} or later."
        )
    if not 0 <= fade <= 1:
        raise DataError(f"cost-benefit: fade is {fade}. Give a share of the effect, 0 to 1, that is lost each year.")
    return {y: effect * (1 - fade) ** max(0, y - measured) for y in range(first, last + 1)}


def break_even(cost: float, value: float, residents: float) -> float:
    """Point-years each resident has to gain for the benefit to equal `cost`: cost / (value x residents).

    GBP, GBP a point and year, persons. Raises `DataError` unless all three are above nought.
    """
    for name, x in (("cost", cost), ("value", value), ("residents", residents)):
        if not x > 0:
            raise DataError(f"cost-benefit: {name} is {x}. Give a number above 0.")
    return cost / (value * residents)


def equity_weight(relative_income: float, elasticity: float = 1.3) -> float:
    """Welfare weight of a group: (median income / the group's income)^elasticity: Green Book, annex A3.

    `relative_income` is the group's income over the median. The elasticity of 1.3 is that of Layard, Mayraz and
    Nickell (2008), which the Green Book takes. Raises `DataError` for an income not above nought.
    """
    if not relative_income > 0:
        raise DataError(
            f"cost-benefit: relative income is {relative_income}. Give the group's over the median, above 0."
        )
    return float(relative_income**-elasticity)


def account(effect: Years, residents: float, spending: Years, terms: Assumptions) -> Account:
    """Benefit and cost of an effect (year -> points) on `residents` persons, and spending (year -> GBP of the year).

    Raises `DataError` for no spending or none above nought, a negative amount, no effect, or no deflator for a year.
    """
    _check(effect, residents, spending)
    per_point = _per_point(tuple(effect), residents, terms)
    cost = _costs(spending, terms)
    benefit = {y: effect[y] * per_point[y] for y in sorted(effect)}
    unit_value = value_of_point(terms)
    weights = {y: per_point[y] / unit_value for y in per_point}  # discounted persons
    point_years = math.fsum(effect.values()) * residents * terms.share
    discounted = math.fsum(effect[y] * weights[y] for y in weights)
    total, paid = math.fsum(benefit.values()), math.fsum(cost.values())
    return Account(
        benefit_by_year=benefit,
        cost_by_year=cost,
        point_years=point_years,
        discounted_point_years=discounted,
        benefit=total,
        cost=paid,
        net_benefit=total - paid,
        ratio=total / paid,
        break_even_effect=_over(paid, math.fsum(per_point.values())),
        cost_per_point_year=_over(paid, discounted),
        break_even_share=_over(paid * terms.share, total),
    )


@dataclass(frozen=True, slots=True)
class Range:
    """What an input may be: a triangle from `low` to `high` with its peak at `mode`."""

    low: float
    mode: float
    high: float

    def __post_init__(self) -> None:
        """Raises `DataError` where they are not in order."""
        if not self.low <= self.mode <= self.high:
            raise DataError(
                f"cost-benefit: a range from {self.low} to {self.high} does not hold {self.mode}. Put them in order."
            )


@dataclass(frozen=True, slots=True)
class Simulated:
    """Joint draws, (draws,) each: net benefit in GBP, ratio of benefit to cost, and benefit for a value of 1 GBP."""

    net_benefit: NDArray[np.float64]
    ratio: NDArray[np.float64]
    benefit_of_one: NDArray[np.float64]
    cost: float

    @property
    def probability(self) -> float:
        """Share of draws in which net benefit is above nought."""
        return float((self.net_benefit > 0).mean())

    def interval(self, level: float) -> tuple[float, float]:
        """The central `level` (0.95) of net benefit, GBP."""
        import numpy as np

        low, high = np.quantile(self.net_benefit, [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)

    def acceptability(self, values: Sequence[float]) -> list[float]:
        """Probability that net benefit is above nought were a point worth each of `values` (GBP, price year) for sure.

        The cost-effectiveness acceptability curve of van Hout et al. (1994).
        """
        import numpy as np

        ordered = np.sort(self.benefit_of_one)
        needed = np.array([self.cost / v if v > 0 else np.inf for v in values])
        return [float(p) for p in 1 - np.searchsorted(ordered, needed, side="right") / len(ordered)]


def simulate(
    effect: Years,
    error: Years,
    df: float,
    residents: float,
    spending: Years,
    terms: Assumptions,
    *,
    value: Range,
    share: Range,
    draws: int,
    rng: np.random.Generator,
) -> Simulated:
    """Draw the effect's sampling error, the value of a point and the share of residents jointly and independently.

    `effect`, `error`: year -> points and their standard errors; `df`: degrees of freedom of their t distribution
    (infinite: normal). One draw of t moves all years: exact where the years share one estimate, and where each has its
    own the widest case (errors perfectly correlated), since their covariances are not in a table of results.
    `value` is in prices of `terms.value_prices`. Raises `DataError` as `account`, for fewer than 1,000 draws, and for
    a standard error that is negative or not of the effect's years.
    """
    import numpy as np

    _check(effect, residents, spending)
    if draws < 1_000:
        raise DataError(f"cost-benefit: {draws} draws. Give 1,000 or more: the ends of an interval need them.")
    if set(error) != set(effect) or any(not e >= 0 for e in error.values()):
        raise DataError("cost-benefit: standard errors must be 0 or more, one for each year of the effect.")
    if not df > 0:
        raise DataError(f"cost-benefit: {df} degrees of freedom. Give a number above 0, infinite for a normal error.")
    z = rng.standard_normal(draws) if math.isinf(df) else rng.standard_t(df, draws)
    point, reached = (
        np.full(draws, r.mode) if r.low == r.high else rng.triangular(r.low, r.mode, r.high, draws)
        for r in (value, share)
    )
    persons = _per_point(tuple(effect), residents, replace(terms, share=1.0))
    level, spread = (math.fsum(x[y] * persons[y] for y in sorted(x)) / value_of_point(terms) for x in (effect, error))
    of_one = (level + spread * z) * reached
    cost = math.fsum(_costs(spending, terms).values())
    benefit = of_one * point * (value_of_point(terms) / terms.value)
    return Simulated(benefit - cost, benefit / cost, of_one, cost)


def _check(effect: Years, residents: float, spending: Years) -> None:
    if not effect:
        raise DataError("cost-benefit: no year has an effect. Give the effect of at least one year.")
    if not residents > 0:
        raise DataError(f"cost-benefit: {residents} residents. Give a number of persons above 0.")
    if not spending or not math.fsum(spending.values()) > 0:
        raise DataError("cost-benefit: no spending. Fill table costs, or leave the cost-benefit analysis out.")
    for year, amount in spending.items():
        if not (amount >= 0 and math.isfinite(amount)):
            raise DataError(f"cost-benefit: spending of {amount} in {year}. Give GBP, 0 or more.")


def value_of_point(terms: Assumptions) -> float:
    """The value of a point for a year in prices of the price year."""
    if terms.price_year is None or terms.value_prices is None or terms.price_year == terms.value_prices:
        return terms.value
    return in_prices(terms.value, terms.value_prices, terms.price_year, terms.deflator)


def _per_point(years: Sequence[int], residents: float, terms: Assumptions) -> dict[int, float]:
    """Year -> discounted GBP of an effect of one point in it."""
    value, base = value_of_point(terms), terms.base_year
    whole = residents * terms.share * value
    return {y: whole * (1.0 if base is None else discount_factor(y, terms.rate_benefit, base)) for y in sorted(years)}


def _costs(spending: Years, terms: Assumptions) -> dict[int, float]:
    """Year -> spending in prices of the price year, discounted."""
    out = {}
    for y in sorted(spending):
        real = spending[y] if terms.price_year is None else in_prices(spending[y], y, terms.price_year, terms.deflator)
        factor = 1.0 if terms.base_year is None else discount_factor(y, terms.rate_cost, terms.base_year)
        out[y] = real * terms.cost_scale * factor
    return out


def _over(a: float, b: float) -> float:
    return a / b if b > 0 else math.nan
