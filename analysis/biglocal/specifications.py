"""The multiverse as data: what could have been chosen otherwise, and which combinations are left.

Steegen, Tuerlinckx, Gelman and Vanpaemel (2016, Perspectives on Psychological Science 11:702). A specification takes
one option of each dimension of [multiverse] in study.toml. It is ruled out where the study's own rules say so, or
where it cannot be: no year before or after the start in its window, or sets where the comparison has none.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from biglocal.model import StudyError

if TYPE_CHECKING:
    from biglocal.model import Multiverse, Study

DIMENSIONS = (
    "treatment", "comparison", "covariates", "estimator", "window", "weights", "definition", "exclusion",
)  # fmt: skip
HEADS = {
    "treatment": "Treatment starts", "comparison": "Comparison", "covariates": "Covariates", "estimator": "Estimator",
    "window": "Years", "weights": "Weights", "definition": "Outcome", "exclusion": "Left out",
}  # fmt: skip
ESTIMATORS = {  # file -> whether it is for one common start or for staggered ones
    "twfe": "common", "event_study": "common", "ancova": "common",
    "callaway_santanna": "staggered", "matched_change": "staggered",
}  # fmt: skip
WEIGHTS = {  # name -> what each treated LSOA counts
    "lsoas": "Every treated LSOA alike",
    "residents": "By residents",
    "areas": "Every treated area alike",
}
DEFINITIONS = {"as_measured": "As measured", "winsorised": "Winsorised, 1st and 99th percentile"}
SETS = ("nearest", "optimal")  # methods with a treated LSOA for every comparison LSOA, whose weight can follow it
NO_YEAR = "No year before the start, or none from it on, in the window."
NO_SETS = "Comparison LSOAs can take the weight of a treated one only where they are matched to it."
ONE_START = "The estimator is for one common start."
MANY_STARTS = "The estimator is for staggered starts; with one start it is one of the others."
FEW = "Regressions on covariates cohort by cohort would rest on a few areas each."


@dataclass(frozen=True, slots=True)
class Specification:
    """One option of each dimension, by name."""

    treatment: str
    comparison: str
    covariates: str
    estimator: str
    window: str
    weights: str
    definition: str
    exclusion: str

    @property
    def name(self) -> str:
        """Its readable name, unique within an outcome."""
        return " | ".join(getattr(self, d) for d in DIMENSIONS)


def label(study: Study, dimension: str, option: str = "") -> str:
    """The words for an option, or for a dimension."""
    if not option:
        return HEADS[dimension]
    choice = getattr(study.multiverse, dimension).get(option) if study.multiverse else None
    if choice is not None and choice.label:
        return str(choice.label)
    named: dict[str, dict[str, str]] = {
        "weights": WEIGHTS,
        "definition": DEFINITIONS,
        "treatment": {k: t.label for k, t in study.treatments.items()},
        "comparison": {k: c.label for k, c in study.comparisons.items()},
        "estimator": {k: e.label for k, e in study.estimators.items()},
    }
    return named.get(dimension, {}).get(option, option)


def multiverse(study: Study) -> Multiverse:
    """What study.toml says of it. Raises `StudyError` where it says nothing."""
    if study.multiverse is None:
        raise StudyError("study.toml has no [multiverse]. Add it, or ask for another part.")
    return study.multiverse


def grouped(
    specs: Iterable[tuple[int, Specification]], *dimensions: str
) -> Iterator[tuple[tuple[str, ...], list[tuple[int, Specification]]]]:
    """Numbered specifications by their options in some dimensions."""
    groups: dict[tuple[str, ...], list[tuple[int, Specification]]] = {}
    for i, s in specs:
        groups.setdefault(tuple(getattr(s, d) for d in dimensions), []).append((i, s))
    yield from groups.items()


def expand(study: Study) -> tuple[tuple[Specification, ...], dict[str, int]]:
    """The specifications of an outcome, in the study's order, and how many each reason ruled out (the first that did).

    All outcomes of the multiverse have the same. Raises `StudyError` where the study has no multiverse.
    """
    m = multiverse(study)
    kept = []
    lost: dict[str, int] = {}
    for options in itertools.product(*(getattr(m, d) for d in DIMENSIONS)):
        one = Specification(*options)
        reason = _impossible(study, m, one) or _indefensible(m, one)
        if reason:
            lost[reason] = lost.get(reason, 0) + 1
        else:
            kept.append(one)
    return tuple(kept), lost


def _impossible(study: Study, m: Multiverse, s: Specification) -> str:
    start = study.treatments[s.treatment].year
    kind = ESTIMATORS[s.estimator]
    if (start is None) != (kind == "staggered"):
        return ONE_START if kind == "common" else MANY_STARTS
    window = m.window[s.window]
    if start is not None and not window.first_year < start <= window.last_year:
        return NO_YEAR
    if kind == "staggered" and m.covariates[s.covariates].columns:
        return FEW
    if s.weights != "lsoas" and study.comparisons[s.comparison].method not in SETS:
        return NO_SETS
    return ""


def _indefensible(m: Multiverse, s: Specification) -> str:
    for rule in m.rules:
        if all(getattr(s, dimension) in options for dimension, options in rule.out.items()):
            return rule.reason
    return ""


def check(study: Study, file: str, named: Callable[..., None], covariates: list[str], columns: Collection[str]) -> None:
    """Refuse a multiverse that names what does not exist, or leaves nothing. `named` looks a name up."""
    m = study.multiverse
    if m is None:
        return
    at = "multiverse"

    def refuse(where: str, seen: object, todo: str) -> None:
        raise StudyError(f"{file}: {at}.{where}: {seen}. {todo}")

    panel = [o.name for o in study.outcomes.values() if o.table == "area_panel"]
    for name in m.outcomes:
        named(f"{at}.outcomes", name, panel, "outcome of the area panel")
    for dimension, known, what in (
        ("treatment", study.treatments, "treatment"),
        ("comparison", study.comparisons, "comparison"),
        ("estimator", ESTIMATORS, "estimator that the multiverse has"),
        ("weights", WEIGHTS, "way to weigh"),
        ("definition", DEFINITIONS, "definition of an outcome"),
    ):
        for name in getattr(m, dimension):
            named(f"{at}.{dimension}", name, known, what)
    for dimension in DIMENSIONS:
        if not getattr(m, dimension):
            refuse(dimension, "it has no option", "Add one or more, each with its reason.")
        for name, option in getattr(m, dimension).items():
            if not option.reason.strip():
                refuse(f"{dimension}.{name}", "it has no reason", "Say why it could have been chosen.")
            if " | " in name:
                refuse(f"{dimension}.{name}", "' | ' parts the options of a name", "Use another name.")
    for name in m.comparison:
        if study.comparisons[name].level == "area":
            refuse(f"comparison.{name}", "it matches whole areas", "Name comparisons of LSOAs.")
    for name, option in m.covariates.items():
        for column in option.columns:
            named(f"{at}.covariates.{name}", column, covariates, "numeric column of table areas")
    for name, option in m.exclusion.items():
        if bool(option.columns) != bool(option.values) or len(option.columns) > 1:
            refuse(f"exclusion.{name}", "a column goes with its values", "Give one column and values, or neither.")
        for column in option.columns:
            named(f"{at}.exclusion.{name}", column, columns, "column of table areas")
    for name, option in m.window.items():
        if option.first_year >= option.last_year:
            refuse(f"window.{name}", f"{option.first_year} to {option.last_year}", "Give two years or more, in order.")
    for i, rule in enumerate(m.rules):
        for dimension, options in rule.out.items():
            named(f"{at}.rules[{i}]", dimension, DIMENSIONS, "dimension")
            for name in options:
                named(f"{at}.rules[{i}].{dimension}", name, getattr(m, dimension), "option")
        if not rule.out:
            refuse(f"rules[{i}]", "it rules out everything", "Name options in `out`.")
    if m.draws < 99:
        refuse("draws", f"{m.draws} is out of range", "Give 99 or more.")
    if not 1 <= m.bands <= 100:
        refuse("bands", f"{m.bands} is out of range", "Give 1 to 100.")
    if not expand(study)[0]:
        refuse("rules", "no specification is left", "Take a rule out.")
