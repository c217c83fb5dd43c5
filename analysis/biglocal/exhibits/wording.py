"""Numbers and names in words: one format for each unit, one label for each name, everywhere in the report.

Fixed decimals, thousands separated, a true minus sign, no exponent, no negative nought.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

from biglocal import specifications
from biglocal.data.tables import COVARIATES
from biglocal.model import Inference
from biglocal.study import baseline

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from biglocal.model import Outcome, Run, Study
    from biglocal.results import Row

MINUS = "\u2212"
NARROW = "\u00a0"  # keeps `p = 0.02` on one line

DECIMALS = {  # others: 3
    "percentage points": 2, "per cent": 1, "chance": 2, "ratio": 2, "years": 2, "odds ratio": 2, "points (7-35)": 2,
    "GBP million": 0, "GBP": 0, "persons": 0, "specifications": 0, "z": 2, "draws": 0,
}  # fmt: skip
TERMS = {"att": "Effect", "dose": "Slope", "difference": "Difference"}
THIRDS = ("lowest third", "middle third", "highest third")
BANNERS = {
    "SYNTHETIC": "SYNTHETIC DATA: says nothing about Big Local",
    "PLACEBO": "PLACEBO AREAS: says nothing about Big Local",
}


def banner(run: Run) -> str:
    """The words that stand on every page, figure and table of a run that proves nothing; else ''."""
    return BANNERS.get(run.banner, run.banner)


def kind(run: Run) -> str:
    """What headers and templates may ask of a run: SYNTHETIC, PLACEBO or REAL."""
    return run.banner or "REAL"


def decimals(unit: str) -> int:
    """Decimals with which estimates of a unit are printed."""
    return DECIMALS.get(unit, 3)


def level_unit(unit: str) -> str:
    """The unit of a mean, where `unit` is that of a difference of means."""
    return "%" if unit == "percentage points" else unit


def sentence(text: str) -> str:
    """A reason as a sentence of its own: a capital first, a full stop last."""
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def unit_in_words(unit: str) -> str:
    """The unit as a sentence says it after a number."""
    return {"z-score": "standard deviations"}.get(unit, unit)


def number(value: float, places: int) -> str:
    """Fixed decimals, thousands separated, true minus sign; what rounds to nought has no sign."""
    text = f"{abs(value):,.{places}f}"
    return MINUS + text if value < 0 and any(c in "123456789" for c in text) else text


def plain(value: float) -> str:
    """A number as short as it was typed, for choices of the study such as 0.1 or 999."""
    text = format(abs(value), ".10f").rstrip("0").rstrip(".")
    whole, dot, rest = text.partition(".")
    return (MINUS if value < 0 else "") + f"{int(whole):,}" + dot + rest


def p_value(value: float) -> str:
    """A p-value with three decimals; <0.001 and >0.999 at the ends."""
    if value < 0.001:
        return "<0.001"
    text = f"{value:.3f}"
    return ">0.999" if text == "1.000" else text


def p_phrase(value: float) -> str:
    """`p = 0.012` or `p < 0.001`, unbroken."""
    text = p_value(value)
    sign, rest = (text[0], text[1:]) if text[0] in "<>" else ("=", text)
    return f"p{NARROW}{sign}{NARROW}{rest}"


def percent(share: float) -> str:
    """A share as a whole per cent where it is one: 0.95 is 95%."""
    return plain(round(share * 100, 6)) + "%"


def interval(low: float, high: float, places: int) -> str:
    """Both ends, joined by `to` so that a minus sign cannot be misread."""
    return f"{number(low, places)} to {number(high, places)}"


def by_size(values: Sequence[float]) -> int:
    """Decimals that give the largest of some magnitudes about four digits: for lines of mixed units."""
    largest = max((abs(v) for v in values), default=0.0)
    return 0 if largest >= 1000 else 1 if largest >= 100 else 2 if largest >= 10 else 3


FORMATS: dict[str, Callable[[float, Row | None], str]] = {
    "estimate": lambda v, row: number(v, decimals(row.unit if row else "")),
    "p": lambda v, _: p_value(v),
    "count": lambda v, _: number(v, 0),
    "number1": lambda v, _: number(v, 1),
    "number2": lambda v, _: number(v, 2),
    "number3": lambda v, _: number(v, 3),
    "year": lambda v, _: f"{int(v)}",
    "signed": lambda v, _: ("+" if v > 0 else "") + number(v, 0),
    "number4": lambda v, _: number(v, 4),
    "number8": lambda v, _: number(v, 8),
    "percent": lambda v, _: number(100 * v, 1) + "%",
    "given": lambda v, row: f"{v:.0f}" if row and row.unit == "year" else plain(round(v, 0 if abs(v) >= 1000 else 4)),
    "text": lambda v, _: str(v),
    "scale": lambda v, _: number(v, by_size([v])),  # replaced by the line's own decimals
}


def format_of(value: str) -> str:
    """The format of a results column when a header names none."""
    if value in ("p_value", "p_adjusted"):
        return "p"
    if value.startswith("n_"):
        return "count"
    if value == "period":
        return "signed"
    if value == "year":
        return "year"
    return "number2" if value in ("df", "statistic") else "estimate"


def outcome_of(study: Study, row: Row) -> Outcome | None:
    """The outcome a row is about; None where it is about a covariate or nothing."""
    return study.outcomes.get(row.outcome) if row.part != "balance" else None


def label(study: Study, column: str, value: object) -> str:
    """The label a reader sees for a value of a results column."""
    text = "" if value is None else str(value)
    if column == "outcome":
        if text in study.outcomes:
            return study.outcomes[text].label
        if text in COVARIATES:
            return COVARIATES[text].doc
        if text in (before := baseline(study)):
            name, what = before[text]
            return f"{study.outcomes[name].label}, {what} before treatment"
    if column == "subgroup":
        if text in study.subgroups:
            return study.subgroups[text].label
        return {"all": "All areas"}.get(text, text.capitalize())
    if column == "respondents" and text in study.respondents:
        return study.respondents[text].label
    if column == "exposure":
        return study.exposures[text].label if text in study.exposures else text or "Change since the first wave"
    if column == "comparison" and text in study.comparisons:
        return study.comparisons[text].label
    if column == "treatment" and text in study.treatments:
        return study.treatments[text].label
    if column == "inference":
        names = {
            "cluster": "Cluster-robust", "twoway": "Two-way: area and year", "cr2": "CR2",
            "wild_bootstrap": "Wild cluster bootstrap",
        }  # fmt: skip
        return names.get(text, text.capitalize())
    if column == "estimator":
        return study.estimators[text].label if text in study.estimators else text
    if column == "level" and (said := _of_multiverse(study, text)):
        return said
    if column == "level" and (money := study.cost_benefit):
        made = {"effect": "Effect on life satisfaction", "residents": "Residents of the areas", "spending": "Spending"}
        named = {s.name: s.label for s in money.scenarios.values()} | {i.name: i.label for i in money.inputs.values()}
        return (made | named).get(text, text)
    if column == "term" and text in TERMS:
        return TERMS[text]
    if column == "family" or column == "term":
        return text[:1].upper() + text[1:].replace("_", " ")
    return text


CURVE = {
    "median": "Median of the estimates",
    "share_same_sign": "Share with the commoner sign",
    "share_significant": "Share told apart from nought, in the commoner direction",
    "stouffer": "Stouffer's Z: sum of z over the root of their number",
    "max_z": "Largest z, in size",
    "told_apart": "Told apart with the family-wise error held (step-down)",
    "interactions": "Only together with others",
}


def _of_multiverse(study: Study, level: str) -> str:
    """The words for a level of part multiverse: a statistic, a dimension, an option, a whole specification; or ''."""
    if level in CURVE:
        return CURVE[level]
    dimension, _, option = level.partition(": ")
    if dimension in specifications.DIMENSIONS:
        return specifications.label(study, dimension, option)
    options = level.split(" | ")
    if len(options) != len(specifications.DIMENSIONS):
        return ""
    pairs = zip(specifications.DIMENSIONS, options, strict=True)
    return "; ".join(specifications.label(study, d, o) for d, o in pairs)


def order(study: Study, column: str, value: object) -> tuple[int, str]:
    """Where a value stands among its kind: study.toml's order first, then the alphabet."""
    money = study.cost_benefit
    valued = ("effect", "residents", "spending", *money.inputs, *money.scenarios) if money else ()
    families = list(dict.fromkeys(o.family for o in study.outcomes.values()))
    covariates = list(dict.fromkeys(x for c in study.comparisons.values() for x in (*c.covariates, *c.optional)))
    covariates += list(baseline(study))
    known: dict[str, Sequence[str]] = {
        "outcome": (*study.outcomes, *covariates),
        "family": families,
        "subgroup": ("all", *study.subgroups),
        "level": [
            *valued,
            *(c for c in CURVE if c != "interactions"),
            *specifications.DIMENSIONS,
            "interactions",
            *(level for s in study.subgroups.values() for level in s.levels),
            *THIRDS,
        ],
        "comparison": tuple(study.comparisons),
        "treatment": (study.main_treatment, *study.treatments),
        "estimator": tuple(study.estimators),
        "respondents": tuple(study.respondents),
        "exposure": tuple(study.exposures),
        "inference": get_args(Inference),
    }
    if isinstance(value, int):
        return (value, "")
    names = known.get(column, ())
    text = "" if value is None else str(value)
    if text in names:
        return (list(names).index(text), "")
    return (10**6, text)  # the unnamed (a test of the difference, a missing level) comes last
