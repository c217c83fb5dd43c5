"""What the programme is worth, from rows to rows: the study's inputs and scenarios put to `cost_benefit`.

Nothing is estimated here and no data are read: the effect, its error, residents and spending are rows of the same run.
One analysis is one view of the sums, named in column estimator: `inputs`, `scenario` (one for each), `one_way`,
`two_way`, `acceptability`, `equity`.
Money is in GBP million, present values in prices of the price year; `results.py` lists the terms.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from biglocal import cost_benefit
from biglocal.cost_benefit import Account, Assumptions, Range, Simulated, Years
from biglocal.estimate import generator
from biglocal.model import Analysis, CostBenefit, DataError, Inapplicable, Scenario, Study
from biglocal.results import Row, select

if TYPE_CHECKING:
    from biglocal.data.load import Tier
    from biglocal.model import Input

POUNDS, MILLION, POINTS = "GBP", "GBP million", "points (0-10)"
STEPS = 39  # of the acceptability curve, from nought to three times the value of a point
GRID = 9  # lines and columns of the two-way table
WIDEST = (
    "Errors of the years are taken as perfectly correlated, since results hold no covariances: the interval is the "
    "widest they allow."
)


@dataclass(frozen=True, slots=True)
class _Case:
    """A scenario filled in: effect and standard error by year, and what they meet. `caution` goes with its rows."""

    effect: Years
    error: Years
    df: float
    residents: float
    spending: Years
    terms: Assumptions
    value: Range
    share: Range
    caution: str

    def account(self) -> Account:
        return cost_benefit.account(self.effect, self.residents, self.spending, self.terms)


def rows(study: Study, tier: str, analysis: Analysis, before: Sequence[Row], digest: str) -> tuple[Row, ...]:
    """The rows of one cost-benefit analysis, from those of `study.sources`; one row with the reason where one lacks.

    Raises `DataError` for inputs that cannot be added up, such as a year of spending without a deflator.
    """
    assert study.cost_benefit is not None
    name = analysis.id.partition(f"/{analysis.estimator}/")[2]
    base = _blank(tier, analysis, digest)
    try:
        made = _views(study, study.cost_benefit, analysis, before, name)[analysis.estimator]()
        return tuple(replace(base, **said) for said in made)
    except Inapplicable as e:
        return (replace(base, level=name, status="inapplicable", reason=str(e)),)


WITHOUT_EFFECT = ("cost", "break_even_effect", "break_even_point_years", "spent_year", "cost_year")


def depends(study: Study, row: Row, source: Row) -> bool:
    """Whether a cost-benefit row is computed from the number of `source`, a row of `study.sources`.

    Inputs, prices and costs are from no estimate, nor is the effect at which benefit and cost are equal.
    """
    money = study.cost_benefit
    assert money is not None
    main = next(iter(money.scenarios.values()))
    scenario = money.scenarios.get(row.level, main) if row.estimator == "scenario" else main
    taken = {"average": ("effects", "att"), "by_year": ("years", "event_time"), "known": ("truth", "att")}
    of = {taken[scenario.effect]}
    here = (source.part, source.term)
    if source.part == "years" and (source.period or 0) < 0:  # before the start
        return False
    if row.estimator == "equity":
        return source.part == "equity" and row.term not in ("residents", "weight") and row.level in ("", source.level)
    if row.estimator == "inputs":
        return row.level == "effect" and here == taken["average"]
    if row.estimator == "scenario":
        return row.term not in WITHOUT_EFFECT and here in of
    if row.estimator == "one_way" and row.term.startswith("input_") and row.level != "effect":
        return False
    return here in {*of, taken["average"]}


Said = dict[str, Any]


def check(study: Study, tier: Tier) -> None:
    """Refuse now what would stop the sums at the end of a long run.

    Raises `DataError` for spending in a year without a deflator.
    """
    money = study.cost_benefit
    if money is None or not tier.has("costs"):
        return
    years = tier.table("costs")["year"]
    if lost := sorted(set(years.astype(int)) - set(money.deflator)):
        raise DataError(
            f"{tier.name} tier, table costs, column year: spending in {', '.join(map(str, lost))}, for which "
            f"study.toml has no deflator (it has {min(money.deflator)} to {max(money.deflator)}). "
            f"Add it to cost_benefit.deflator."
        )


def _views(
    study: Study, money: CostBenefit, analysis: Analysis, before: Sequence[Row], name: str
) -> dict[str, Callable[[], list[Said]]]:
    main = next(iter(money.scenarios.values()))
    return {
        "inputs": lambda: list(_inputs(money, before)),
        "scenario": lambda: list(_scenario(study, money, analysis, before, money.scenarios[name], name == main.name)),
        "one_way": lambda: list(_one_way(study, money, before, main)),
        "two_way": lambda: list(_two_way(study, money, before, main)),
        "acceptability": lambda: list(_acceptability(study, money, analysis, before, main)),
        "equity": lambda: list(_equity(study, money, before, main)),
    }


def _inputs(money: CostBenefit, before: Sequence[Row]) -> Iterator[Said]:
    att = _effect(money, before)
    ends: Said = {"conf_low": att.conf_low, "conf_high": att.conf_high, "conf_level": att.conf_level}
    counts: Said = {
        "n_obs": att.n_obs,
        "n_units": att.n_units,
        "n_treated": att.n_treated,
        "n_clusters": att.n_clusters,
    }
    yield _said(
        "input",
        att.estimate,
        POINTS,
        level="effect",
        std_error=att.std_error,
        reason=f"Row {att.analysis}",
        **ends,
        **counts,
    )
    yield _said(
        "input", _residents(before), "persons", level="residents", reason="Rows of part programme: residents inside"
    )
    spent = math.fsum(_spending(before).values())
    yield _said(
        "input",
        spent / 1e6,
        MILLION,
        level="spending",
        reason="Rows of part spending: table costs, in prices of each year",
    )
    for i in money.inputs.values():
        yield _said("input", i.value, i.unit, level=i.name, reason=i.source, conf_low=i.low, conf_high=i.high)
    for year in sorted(money.deflator):
        yield _said(
            "deflator", money.deflator[year], "index", level="deflator", period=year, reason=money.deflator_source
        )
    for level, income in money.equity.income.items():
        yield _said("relative_income", income, "of median income", level=level, reason=money.equity.source)


def _scenario(
    study: Study, money: CostBenefit, analysis: Analysis, before: Sequence[Row], scenario: Scenario, by_year: bool
) -> Iterator[Said]:
    case = _case(study, money, before, scenario)
    sums, drawn = case.account(), _drawn(study, money, analysis, case)
    level = {"level": scenario.name}
    low, high = drawn.interval(study.policy.conf_level)
    ends: Said = {"conf_level": study.policy.conf_level}
    yield _said("point_years", sums.point_years, "point-years", reason=scenario.reason, **level)
    yield _said("benefit", sums.benefit / 1e6, MILLION, **level)
    yield _said("cost", sums.cost / 1e6, MILLION, **level)
    yield _said(
        "net_benefit", sums.net_benefit / 1e6, MILLION, std_error=float(drawn.net_benefit.std(ddof=1)) / 1e6,
        conf_low=low / 1e6, conf_high=high / 1e6, reason=case.caution, **ends, **level,
    )  # fmt: skip
    yield _said("ratio", sums.ratio, "ratio", reason=case.caution, **level)
    yield _said("probability", drawn.probability, "probability", **level)
    yield _said("break_even_effect", sums.break_even_effect, POINTS, **level)
    each = cost_benefit.break_even(
        sums.cost, cost_benefit.value_of_point(case.terms), case.residents * case.terms.share
    )
    yield _said("break_even_point_years", each, "point-years", **level)
    lost = "The point-years are not above nought: no value of a point, and no share of residents, makes it break even."
    yield _said("cost_per_point_year", sums.cost_per_point_year, POUNDS, lost=lost, **level)
    yield _said("break_even_share", sums.break_even_share, "share", lost=lost, **level)
    if by_year:
        for term, of, unit in (
            ("spent_year", _spending(before), 1e6),
            ("cost_year", sums.cost_by_year, 1e6),
            ("benefit_year", sums.benefit_by_year, 1e6),
            ("effect_year", case.effect, 1.0),
        ):
            for year, x in of.items():
                yield _said(term, x / unit, POINTS if term == "effect_year" else MILLION, period=year, **level)


def _one_way(study: Study, money: CostBenefit, before: Sequence[Row], main: Scenario) -> Iterator[Said]:
    """Net benefit with one input at either end of its range, the effect of its interval; the others at their value."""
    case = _case(study, money, before, main)
    att = _effect(money, before)
    yield _said("net_benefit", case.account().net_benefit / 1e6, MILLION)
    known = {"effect": (att.conf_low, att.conf_high, POINTS)}
    known |= {i.name: (i.low, i.high, i.unit) for i in money.inputs.values() if i.low is not None}
    for name, (low, high, unit) in known.items():
        for end, x in (("low", low), ("high", high)):
            if x is None:
                raise Inapplicable("The effect has no interval.")
            moved = replace(main, change=main.change | ({} if name == "effect" else {name: x}))
            there = _case(study, money, before, moved, average=x if name == "effect" else None).account()
            yield _said(f"input_{end}", x, unit, level=name)
            yield _said(f"net_benefit_{end}", there.net_benefit / 1e6, MILLION, level=name)


def _two_way(study: Study, money: CostBenefit, before: Sequence[Row], main: Scenario) -> Iterator[Said]:
    """Net benefit over effects (level; the interval's ends and between) and values of a point (period, GBP)."""
    att, value = _effect(money, before), money.inputs["value"]
    low, high = att.conf_low, att.conf_high
    if low is None or high is None:
        raise Inapplicable("The effect has no interval.")
    case = _case(study, money, before, main)
    value_low, value_high = _range(value).low, _range(value).high
    values = sorted({round(value_low + (value_high - value_low) * i / (GRID - 1)) for i in range(GRID)})
    for i in range(GRID):
        x = low + (high - low) * i / (GRID - 1)
        effect = {y: x * e for y, e in _shape(study, money, main).items()}
        for v in values:
            there = replace(case, effect=effect, terms=replace(case.terms, value=float(v))).account()
            yield _said("net_benefit", there.net_benefit / 1e6, MILLION, level=f"{x:.6f}", period=v)


def _acceptability(
    study: Study, money: CostBenefit, analysis: Analysis, before: Sequence[Row], main: Scenario
) -> Iterator[Said]:
    case = _case(study, money, before, main)
    values = [round(3 * money.inputs["value"].value * i / STEPS) for i in range(STEPS + 1)]
    drawn = _drawn(study, money, analysis, case)
    scale = cost_benefit.value_of_point(case.terms) / case.terms.value  # from prices of the value to those of results
    for v, p in zip(values, drawn.acceptability([v * scale for v in values]), strict=True):
        yield _said("probability", p, "probability", period=v)


def _equity(study: Study, money: CostBenefit, before: Sequence[Row], main: Scenario) -> Iterator[Said]:
    """Benefit by level of a subgroup, plain and weighted by income; costs are not weighted."""
    case = _case(study, money, before, main)
    found = {r.level: r for r in _good(before, part="equity", term="att")}
    levels = study.subgroups[money.equity.subgroup].levels
    if lost := [level for level in levels if level not in found]:
        raise Inapplicable(f"There is no effect for {', '.join(lost)}: too few treated units, or none.")
    treated = {level: found[level].n_treated or 0 for level in levels}
    elasticity = main.change.get("elasticity", money.inputs["elasticity"].value)
    plain, weighted = [], []
    for level in levels:
        att = found[level]
        residents = case.residents * treated[level] / sum(treated.values())
        of_point = replace(case, effect=_shape(study, money, main), residents=residents).account().benefit / 1e6
        weight = cost_benefit.equity_weight(money.equity.income[level], elasticity)
        plain.append(of_point * _known(att.estimate))
        weighted.append(plain[-1] * weight)
        ends: Said = {"conf_low": att.conf_low, "conf_high": att.conf_high, "conf_level": att.conf_level}
        yield _said("effect", att.estimate, POINTS, level=level, std_error=att.std_error, **ends)
        yield _said("residents", residents, "persons", level=level)
        yield _said("weight", weight, "weight", level=level)
        yield _said("benefit", plain[-1], MILLION, level=level, **_times(att, of_point))
        yield _said("weighted_benefit", weighted[-1], MILLION, level=level, **_times(att, of_point * weight))
    for test in _good(before, part="equity", term="difference"):
        tested = {k: getattr(test, k) for k in ("std_error", "statistic", "df", "p_value", "conf_low", "conf_high")}
        yield _said("difference", test.estimate, POINTS, conf_level=test.conf_level, **tested)
    cost = case.account().cost / 1e6
    yield _said("net_benefit", math.fsum(plain) - cost, MILLION)
    yield _said("weighted_net_benefit", math.fsum(weighted) - cost, MILLION)
    needed = cost / math.fsum(plain) if math.fsum(plain) > 0 else math.nan
    yield _said(
        "break_even_weight", needed, "weight", lost="The benefit is not above nought: no weight makes it break even."
    )


# --- a scenario filled in ------------------------------------------------------------------------------------


def _case(
    study: Study, money: CostBenefit, before: Sequence[Row], scenario: Scenario, average: float | None = None
) -> _Case:
    """The scenario with its effect; `average` in place of the estimated one."""
    given = {name: i.value for name, i in money.inputs.items()} | scenario.change
    terms = Assumptions(
        value=given["value"], share=given["share"], rate_benefit=given["rate_benefit"], rate_cost=given["rate_cost"],
        base_year=int(given["base_year"]), price_year=int(given["price_year"]) if scenario.constant_prices else None,
        value_prices=int(given["value_prices"]), cost_scale=given["cost_scale"], deflator=money.deflator,
    )  # fmt: skip
    spending = {y: x for y, x in _spending(before).items() if y <= given["cost_last_year"]}
    if not math.fsum(spending.values()) > 0:
        raise Inapplicable(
            f"Table costs holds no spending up to {given['cost_last_year']:.0f}, the last year that counts."
        )
    effect, error, df, note = _effects(study, money, before, scenario)
    if average is not None:
        effect = {y: average * x for y, x in _shape(study, money, scenario).items()}
    fixed = {n: _range(money.inputs[n]) if n not in scenario.change else _point(given[n]) for n in ("value", "share")}
    caution = _holds_nought(effect, error, df, terms, study.policy.conf_level)
    return _Case(
        effect, error, df, _residents(before), spending, terms, fixed["value"], fixed["share"],
        " ".join(t for t in (caution, note) if t),
    )  # fmt: skip


def _effects(
    study: Study, money: CostBenefit, before: Sequence[Row], scenario: Scenario
) -> tuple[Years, Years, float, str]:
    """Effect and standard error by year, degrees of freedom, and what is to be borne in mind."""
    shape = _shape(study, money, scenario)
    if scenario.effect == "by_year":
        start = min(shape)
        found = {start + (r.period or 0): r for r in _good(before, part="years", term="event_time")}
        last = max(found, default=0)
        if lost := [y for y in range(start, min(max(shape), last or start) + 1) if y not in found]:
            raise Inapplicable(f"The event study has no effect for {', '.join(map(str, lost))}.")
        own = {y: found[min(y, last)] for y in shape}
        df = min((r.df for r in own.values() if r.df is not None), default=math.inf)
        effect = {y: shape[y] * _known(own[y].estimate) for y in shape}
        return effect, {y: shape[y] * (own[y].std_error or 0.0) for y in shape}, df, WIDEST
    if scenario.effect == "known":
        truth = _the(before, part="truth", term="att")
        note = "The effect is the known one: no sampling error."
        return {y: x * _known(truth.estimate) for y, x in shape.items()}, dict.fromkeys(shape, 0.0), math.inf, note
    att = _effect(money, before)
    error = {y: x * (att.std_error or 0.0) for y, x in shape.items()}
    return {y: x * _known(att.estimate) for y, x in shape.items()}, error, att.df or math.inf, att.reason


def _shape(study: Study, money: CostBenefit, scenario: Scenario) -> dict[int, float]:
    """Year -> what one point of effect becomes in it: 1 to the last year measured, then as it fades."""
    given = {name: i.value for name, i in money.inputs.items()} | scenario.change
    first = study.treatments[study.main_treatment].year
    assert first is not None  # study.py refuses a study without
    return cost_benefit.lasting(
        1.0, first, study.outcomes[money.outcome].last_year, int(given["last_year"]), given["fade"]
    )


def _holds_nought(effect: Years, error: Years, df: float, terms: Assumptions, level: float) -> str:
    """Whether the interval of the effect, summed as it is valued, holds nought: in words, or ''."""
    from scipy.special import ndtri, stdtrit

    weight = {y: cost_benefit.discount_factor(y, terms.rate_benefit, terms.base_year or y) for y in effect}
    middle, spread = (math.fsum(x[y] * weight[y] for y in sorted(x)) for x in (effect, error))
    at = (1 + level) / 2
    if not spread or abs(middle) > float(ndtri(at) if math.isinf(df) else stdtrit(df, at)) * spread:
        return ""
    return "The interval of the effect holds nought: an effect that is not told apart from none is turned into money."


def _drawn(study: Study, money: CostBenefit, analysis: Analysis, case: _Case) -> Simulated:
    return cost_benefit.simulate(
        case.effect, case.error, case.df, case.residents, case.spending, case.terms,
        value=case.value, share=case.share, draws=money.draws, rng=generator(study.seed, analysis.id),
    )  # fmt: skip


def _range(given: Input) -> Range:
    if given.low is None or given.high is None:
        return _point(given.value)
    return Range(given.low, given.value, given.high)


def _point(x: float) -> Range:
    return Range(x, x, x)


# --- rows ------------------------------------------------------------------------------------------------------


def _good(before: Sequence[Row], **wanted: object) -> tuple[Row, ...]:
    """Rows with a number. Raises `Inapplicable` with the reason why there is none."""
    found = select(before, **wanted)
    good = tuple(r for r in found if r.status == "ok")
    if not good:
        gone = [r for r in select(before, part=wanted["part"]) if r.status != "ok"]
        raise Inapplicable(gone[0].reason if gone else f"No row of part {wanted['part']} has {wanted}.")
    return good


def _the(before: Sequence[Row], **wanted: object) -> Row:
    return _good(before, **wanted)[0]


def _effect(money: CostBenefit, before: Sequence[Row]) -> Row:
    """The average effect. What also lacks is told with it, so that one reading says all that is to be got."""
    reasons = []
    for part, term in (("effects", "att"), ("spending", "spent"), ("programme", "residents")):
        try:
            _good(before, part=part, term=term)
        except Inapplicable as e:
            reasons.append(str(e))
    if reasons:
        raise Inapplicable(" ".join(dict.fromkeys(reasons)))
    return _the(before, part="effects", term="att", outcome=money.outcome)


def _residents(before: Sequence[Row]) -> float:
    return math.fsum(_known(r.estimate) for r in _good(before, part="programme", term="residents"))


def _spending(before: Sequence[Row]) -> dict[int, float]:
    found = {r.period or 0: _known(r.estimate) for r in _good(before, part="spending", term="spent")}
    return dict(sorted(found.items()))


def _known(x: float | None) -> float:
    return math.nan if x is None else x


def _times(row: Row, by: float) -> Said:
    """The row's interval and error times `by`, which is not negative."""
    ends = {k: None if (x := getattr(row, k)) is None else x * by for k in ("conf_low", "conf_high", "std_error")}
    return {**ends, "conf_level": row.conf_level}


def _said(term: str, estimate: float | None, unit: str, *, lost: str = "", **more: Any) -> Said:
    """A row's own columns; without a number it is inapplicable, and `lost` says why."""
    if estimate is None or math.isnan(estimate):
        return {"term": term, "unit": unit, "status": "inapplicable", **more, "reason": lost or "There is no number."}
    return {"term": term, "estimate": float(estimate), "unit": unit, **more}


def _blank(tier: str, a: Analysis, digest: str) -> Row:
    none: Said = dict.fromkeys(
        ("period", "estimate", "std_error", "df", "statistic", "p_value", "p_adjusted", "conf_low", "conf_high",
         "conf_level", "n_obs", "n_units", "n_treated", "n_clusters")
    )  # fmt: skip
    return Row(
        analysis=a.id, digest=digest, part=a.part, outcome=a.outcome, subgroup=a.subgroup, level="",
        comparison=a.comparison, treatment=a.treatment, estimator=a.estimator, inference=a.inference, term="",
        unit="", status="ok", reason="", tier=tier, **none,
    )  # fmt: skip
