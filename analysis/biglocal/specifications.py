"""The multiverse as data: what could have been chosen otherwise, and which combinations are left.

Steegen, Tuerlinckx, Gelman and Vanpaemel (2016, Perspectives on Psychological Science 11:702). A specification takes
one option of each dimension of [multiverse] in study.toml. It is ruled out where the study's own rules say so, or
where it cannot be: no year before or after the start in its window, or sets where the comparison has none.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from biglocal.data.tables import PERSONS, TABLES
from biglocal.model import StudyError

if TYPE_CHECKING:
    from biglocal.model import Multiverse, Outcome, Rule, Study

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
    "survey": "Survey weights",
    "respondents": "Every respondent alike",
}
OF_PERSONS = ("survey", "respondents")  # weights for respondents
IN_SETS = ("residents", "areas")  # weights of a treated LSOA that those matched to it take
SURVEY = {  # what there is for an outcome of persons, other persons every year
    "estimator": ("twfe", "event_study", "callaway_santanna"),
    "weights": ("survey", "respondents", "areas"),
    "definition": ("as_measured",),
}
SETTINGS = {"covariates": ("columns",), "exclusion": ("columns", "values"), "window": ("first_year", "last_year")}
DEFINITIONS = {"as_measured": "As measured", "winsorised": "Winsorised, 1st and 99th percentile"}
SETS = ("nearest", "optimal")  # methods with a treated LSOA for every comparison LSOA, whose weight can follow it
NO_PERSONS = "An outcome of LSOAs has no respondents to weigh."
SAME_YEARS = "The outcome has the same years in a shorter window."
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


def combinations(m: Multiverse) -> Iterator[Specification]:
    """Every combination of one option each, ruled out or not, in the study's order."""
    for options in itertools.product(*(getattr(m, d) for d in DIMENSIONS)):
        yield Specification(*options)


def expand(study: Study, outcome: str) -> tuple[tuple[Specification, ...], dict[str, int]]:
    """The specifications of an outcome, in the study's order, and how many each reason ruled out (the first that did).

    Raises `StudyError` where the study has no multiverse.
    """
    kept = []
    lost: dict[str, int] = {}
    for one, reason in _judged(study, outcome):
        if reason:
            lost[reason] = lost.get(reason, 0) + 1
        else:
            kept.append(one)
    return tuple(kept), lost


def _judged(study: Study, outcome: str) -> Iterator[tuple[Specification, str]]:
    """Every combination, with the first reason that rules it out, or none."""
    m, chosen = multiverse(study), study.outcomes[outcome]
    spans: dict[str, tuple[int, int] | None] = dict.fromkeys(m.window)
    shortest_first = sorted(m.window, key=lambda w: (m.window[w].last_year - m.window[w].first_year, w))
    for window in shortest_first:
        span = years_of(m, chosen, window)
        spans[window] = None if span in spans.values() else span
    rules = [r for r in m.rules if not r.outcomes or outcome in r.outcomes]
    for one in combinations(m):
        yield one, _impossible(study, m, chosen, spans[one.window], one) or _indefensible(rules, one)


def years_of(m: Multiverse, outcome: Outcome, window: str) -> tuple[int, int]:
    """The first and last year that an outcome can have in a window."""
    w = m.window[window]
    return max(w.first_year, outcome.first_year), min(w.last_year, outcome.last_year)


def _impossible(study: Study, m: Multiverse, outcome: Outcome, span: tuple[int, int] | None, s: Specification) -> str:
    start = study.treatments[s.treatment].year
    kind = ESTIMATORS[s.estimator]
    if (start is None) != (kind == "staggered"):
        return ONE_START if kind == "common" else MANY_STARTS
    if span is None:
        return SAME_YEARS
    if span[0] >= span[1] or (start is not None and not span[0] < start <= span[1]):
        return NO_YEAR
    if kind == "staggered" and m.covariates[s.covariates].columns:
        return FEW
    if s.weights in IN_SETS and study.comparisons[s.comparison].method not in SETS:
        return NO_SETS
    if s.weights in OF_PERSONS and outcome.table not in PERSONS:
        return NO_PERSONS
    return ""


def _indefensible(rules: Iterable[Rule], s: Specification) -> str:
    for rule in rules:
        if all(getattr(s, dimension) in options for dimension, options in rule.out.items()):
            return rule.reason
    return ""


def _check_values(where: str, column: str, values: tuple[str | bool, ...], refuse: Callable[..., None]) -> None:
    """Refuse values that a column of table areas cannot have, and all that it can have."""
    of = TABLES["areas"].columns[column]
    if of.kind not in ("flag", "category", "text"):
        refuse(where, f"column {column} holds numbers", "Name a flag or a category.")
    there: tuple[str | bool, ...] = (True, False) if of.kind == "flag" else of.allowed
    words = [str(v).lower() if isinstance(v, bool) else f'"{v}"' for v in there]
    for value in values:
        if isinstance(value, bool) != (of.kind == "flag") or (there and value not in there):
            said = str(value).lower() if isinstance(value, bool) else f'"{value}"'
            refuse(where, f"{said} is no value of {column}", f"Choose from {', '.join(words) or 'its texts'}.")
    if there and set(there) <= set(values):
        refuse(where, f"every value of {column} is left out", "Leave some in.")


def _twice(names: Sequence[str]) -> str:
    """The first that is there before, or none."""
    return next((name for i, name in enumerate(names) if name in names[:i]), "")


def check(study: Study, file: str, named: Callable[..., None], covariates: list[str], columns: Collection[str]) -> None:
    """Refuse a multiverse that names what does not exist, or leaves nothing. `named` looks a name up."""
    m = study.multiverse
    if m is None:
        return
    at = "multiverse"

    def refuse(where: str, seen: object, todo: str) -> None:
        raise StudyError(f"{file}: {at}.{where}: {seen}. {todo}")

    if not m.outcomes:
        refuse("outcomes", "none is named", "Name one or more, or take [multiverse] out.")
    if twice := _twice(m.outcomes):
        refuse("outcomes", f"{twice} is named twice", "Name each once.")
    known = [o.name for o in study.outcomes.values() if o.table in ("area_panel", "survey")]
    for name in m.outcomes:
        named(f"{at}.outcomes", name, known, "outcome of the area panel or the survey")
    for dimension, there, what in (
        ("treatment", study.treatments, "treatment"),
        ("comparison", study.comparisons, "comparison"),
        ("estimator", ESTIMATORS, "estimator that the multiverse has"),
        ("weights", WEIGHTS, "way to weigh"),
        ("definition", DEFINITIONS, "definition of an outcome"),
    ):
        for name in getattr(m, dimension):
            named(f"{at}.{dimension}", name, there, what)
    for dimension in DIMENSIONS:
        if not getattr(m, dimension):
            refuse(dimension, "it has no option", "Add one or more, each with its reason.")
        for name, option in getattr(m, dimension).items():
            if not option.reason.strip():
                refuse(f"{dimension}.{name}", "it has no reason", "Say why it could have been chosen.")
            if " | " in name:
                refuse(f"{dimension}.{name}", "' | ' parts the options of a name", "Use another name.")
            own = SETTINGS.get(dimension, ())
            for setting in ("columns", "values", "first_year", "last_year"):
                if getattr(option, setting) and setting not in own:
                    todo = f"Take it out: an option of {dimension} has {', '.join((*own, 'label', 'reason'))}."
                    refuse(f"{dimension}.{name}.{setting}", "it would do nothing", todo)
    for name in m.comparison:
        if study.comparisons[name].level == "area":
            refuse(f"comparison.{name}", "it matches whole areas", "Name comparisons of LSOAs.")
    for name, option in m.covariates.items():
        for column in option.columns:
            named(f"{at}.covariates.{name}", column, covariates, "numeric column of table areas")
        if twice := _twice(option.columns):
            refuse(f"covariates.{name}", f"{twice} is named twice", "Name each once.")
    for dimension, settings in SETTINGS.items():
        named_so: dict[object, str] = {}
        for name, option in getattr(m, dimension).items():
            same = tuple(v if isinstance(v := getattr(option, x), int) else frozenset(v) for x in settings)
            if (other := named_so.setdefault(same, name)) != name:
                refuse(f"{dimension}.{name}", f"it is {other} by another name", "Take one of them out.")
    for name, option in m.exclusion.items():
        if bool(option.columns) != bool(option.values) or len(option.columns) > 1:
            refuse(f"exclusion.{name}", "a column goes with its values", "Give one column and values, or neither.")
        for column in option.columns:
            named(f"{at}.exclusion.{name}", column, columns, "column of table areas")
            _check_values(f"exclusion.{name}", column, option.values, refuse)
    for name, option in m.window.items():
        if option.first_year >= option.last_year:
            refuse(f"window.{name}", f"{option.first_year} to {option.last_year}", "Give two years or more, in order.")
    for i, rule in enumerate(m.rules):
        for name in rule.outcomes:
            named(f"{at}.rules[{i}].outcomes", name, m.outcomes, "outcome of the multiverse")
        for dimension, options in rule.out.items():
            named(f"{at}.rules[{i}]", dimension, DIMENSIONS, "dimension")
            if not options:
                refuse(f"rules[{i}].{dimension}", "it names no option", "Name one or more, or take it out.")
            for name in options:
                named(f"{at}.rules[{i}].{dimension}", name, getattr(m, dimension), "option")
        if not rule.out:
            refuse(f"rules[{i}]", "it rules out everything", "Name options in `out`.")
    if m.draws < 99:
        refuse("draws", f"{m.draws} is out of range", "Give 99 or more.")
    if not 1 <= m.bands <= 100:
        refuse("bands", f"{m.bands} is out of range", "Give 1 to 100.")
    for outcome in m.outcomes:
        left = (s for s, reason in _judged(study, outcome) if not reason)
        persons = study.outcomes[outcome].table in PERSONS
        specs = list(left if persons else itertools.islice(left, 1))  # of the others, that there is one
        if not specs:
            refuse("rules", f"no specification is left for {outcome}", "Take a rule out.")
        for dimension, options in SURVEY.items() if persons else ():
            if odd := sorted({getattr(s, dimension) for s in specs} - {*options}):
                seen = (
                    f"{dimension} {', '.join(odd)} is left for {outcome}, of which other persons are asked every year"
                )
                refuse("rules", seen, "Rule it out for the outcome, with the reason.")
