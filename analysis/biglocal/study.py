"""Reads study.toml and checks the whole plan before anything runs.

Names are looked up in the study itself, in the tables' contract, and in the folders of estimators,
matching methods and exhibits: a typo costs a second, not a night.
"""

from __future__ import annotations

import ast
import difflib
import itertools
import math
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from biglocal import specifications
from biglocal.data.tables import COVARIATES, EXPOSURES, FIRST_YEAR, LAST_YEAR, TABLES, WAVES
from biglocal.model import (
    Analysis,
    Choice,
    Comparison,
    CostBenefit,
    Equity,
    Estimation,
    Exposure,
    Grid,
    Input,
    Multiverse,
    Outcome,
    Respondents,
    Rule,
    Scenario,
    Study,
    StudyError,
    Subgroup,
)

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PATH = ROOT / "analysis" / "study.toml"
MANUSCRIPT = ROOT / "manuscript"
NAMED = ("treatments", "outcomes", "subgroups", "comparisons", "estimators", "respondents", "exposures")
PARTS = (
    "programme", "flow", "balance", "overlap", "quality", "trends", "effects", "truth", "years", "subgroups",
    "rivals", "estimators", "sensitivity", "placebo", "simulation", "simulated_power", "robustness", "spending",
    "equity", "participation", "participants", "change", "association", "attrition", "losses", "members_truth",
    "recovery", "families", "placebo_dates", "placebo_outcomes", "calendar", "decomposition", "dose", "counts", "twins",
)  # fmt: skip
MONEY = "cost_benefit"  # the part whose rows are made of other rows
MONEY_VIEWS = ("one_way", "two_way", "acceptability", "equity")
INPUTS = (
    "value", "value_prices", "price_year", "base_year", "rate_benefit", "rate_cost", "share", "last_year", "fade",
    "cost_scale", "cost_last_year", "elasticity",
)  # fmt: skip
ON_REQUEST = (
    "placebo",
    "simulation",
    "simulated_power",
    "recovery",
    "multiverse",
)  # parts that take minutes, each with a module of its name; run by `--only`
INFERENCE_OF = {  # of parts that would not do another, or would do it without draws
    "placebo": ("none", "cluster", "twoway", "cr2"), "recovery": ("none",),
}  # fmt: skip
WITH_SETS = ("nearest", "optimal")  # methods whose sets have one treated unit each
ADJUSTABLE = ("age", "sex", "qualification", "role")
TABLE_OF = {"area": "programme", "lsoa": "areas", "person": "survey", "member": "residents"}


def modules(folder: str) -> tuple[str, ...]:
    """Names of the files of one of the package's folders: what is there is what can be named."""
    return tuple(sorted(p.stem for p in (HERE / folder).glob("*.py") if not p.stem.startswith("_")))


def settings(folder: str, name: str) -> tuple[str, ...]:
    """The keyword-only settings of a method or estimator that are its own, read from its file without importing it."""
    function = {"matching": "match", "estimators": "estimate"}[folder]
    shared = {"treated", "covariates", "ratio", "caliper", "exact"}
    for node in ast.parse((HERE / folder / f"{name}.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            return tuple(a.arg for a in node.args.kwonlyargs if a.arg not in shared)
    raise _no_function(folder, name, function)


def _no_function(folder: str, name: str, function: str) -> StudyError:
    return StudyError(
        f"{folder}/{name}.py defines no function {function}(…). See analysis/biglocal/{folder}/__init__.py."
    )


def load(path: Path = PATH, manuscript: Path = MANUSCRIPT) -> Study:
    """Read and check a study file.

    Raises `StudyError` that names the entry, what was seen, and the choices there are.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StudyError(f"{path.name}: no such file at {path}. Run from a clone of the project.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise StudyError(f"{path.name}: not valid TOML: {e}. Mend the line named.") from None
    money = raw.get(MONEY, {})
    for entries in (*(raw.get(k, {}) for k in NAMED), *(money.get(k, {}) for k in ("inputs", "scenarios"))):
        for name, entry in entries.items():
            if isinstance(entry, dict):
                entry["name"] = name
    try:
        study = TypeAdapter(Study).validate_python(raw)
    except ValidationError as e:
        raise StudyError(_sentence(path.name, e)) from None
    _check(study, path.name, manuscript)
    return study


def expand(study: Study) -> tuple[Analysis, ...]:
    """The analyses of the grid, in the study's order; each id once.

    A balance block becomes one analysis for each covariate of its comparisons (in `outcome`).
    """
    out: dict[str, Analysis] = {}
    for block in study.analyses:
        for comparison, respondents, exposure, subgroup, treatment, estimator, inference in itertools.product(
            block.comparisons or ("",), block.respondents or ("",), block.exposures or ("",), block.subgroups,
            block.treatments or ("",), block.estimators, block.inference,
        ):  # fmt: skip
            outcomes: Iterable[str] = block.outcomes or ("",)
            if block.part == "balance":
                chosen = study.comparisons[comparison]
                outcomes = (*chosen.covariates, *chosen.optional, *baseline(study))
            for outcome in outcomes:
                whose = (comparison, respondents)
                names = (block.part, outcome, exposure, subgroup, *whose, estimator, treatment, inference)
                key = "/".join(n for n in names if n and n != "none")
                out[key] = Analysis(
                    key, block.part, outcome, subgroup, comparison, estimator, inference, treatment,
                    respondents, exposure,
                )  # fmt: skip
    for outcome in study.multiverse.outcomes if study.multiverse else ():
        key = f"multiverse/{outcome}"
        out[key] = Analysis(key, "multiverse", outcome, "all", "", "", "none", "")
    if (money := study.cost_benefit) is not None:
        for name in ("inputs", *(f"scenario/{s}" for s in money.scenarios), *MONEY_VIEWS):
            key = f"{MONEY}/{name}"
            view = name.partition("/")[0]
            fixed = ("all", money.comparison, view, "none", study.main_treatment)
            out[key] = Analysis(key, MONEY, money.outcome, *fixed)
    return tuple(out.values())


def sources(study: Study) -> tuple[Analysis, ...]:
    """The analyses whose rows the cost-benefit analysis is made of.

    Raises `StudyError` naming the block of analyses that is missing.
    """
    money = study.cost_benefit
    if money is None:
        return ()
    wanted = {
        "effects": "all", "years": "all", "truth": "all", "equity": money.equity.subgroup, "programme": "all",
        "spending": "all",
    }  # fmt: skip
    found: dict[str, Analysis] = {}
    for a in expand(study):
        about = ("", "") if a.part in ("programme", "spending") else (money.outcome, money.comparison)
        same = (a.outcome, a.comparison) == about and a.treatment in ("", study.main_treatment)
        if wanted.get(a.part) == a.subgroup and same and a.inference in ("none", "cluster"):
            found[a.part] = a
    for part, subgroup in wanted.items():
        if part not in found:
            raise StudyError(
                f"cost_benefit: no analysis of part {part} for outcome {money.outcome}, comparison {money.comparison}, "
                f"treatment {study.main_treatment}, subgroup {subgroup}. Add it to [[analyses]]."
            )
    return tuple(found.values())


def tables(study: Study, analysis: Analysis) -> tuple[str, ...]:
    """The tables an analysis is drawn from: what its digest depends on, and what is read before it runs."""
    if analysis.part in (MONEY, "spending"):
        return ("costs",) if analysis.part == "spending" else ()
    if analysis.respondents:
        population = ("areas", "survey") if analysis.part == "participants" else ()
        return ("programme", "residents", "residents_truth", *population)
    around = ("borders",) if study.policy.excluded_around == "border" else ()
    if analysis.outcome in study.outcomes:
        together = family(study, analysis) if analysis.part == "families" else (analysis.outcome,)
        more: set[str] = {study.outcomes[o].table for o in together}
        if "dose" in options(study, analysis.estimator):
            more.add("costs")
        matched = [analysis.comparison] if analysis.comparison else []
        if analysis.part == "multiverse" and study.multiverse is not None:
            matched = [*study.multiverse.comparison]
        if any(study.comparisons[c].baseline for c in matched):
            more.add("area_panel")  # matched on outcomes before treatment
        return ("areas", "programme", "truth", *sorted(more), *around)
    return ("areas", "programme", "area_panel", *around)


def file_of(study: Study, estimator: str) -> str:
    """The estimator's file: the entry's own name, or what it uses."""
    entry = study.estimators.get(estimator)
    return entry.uses or estimator if entry else estimator


def options(study: Study, estimator: str) -> dict[str, Any]:
    """The settings an estimator is used with."""
    return dict(study.estimators[estimator].options) if estimator in study.estimators else {}


def family(study: Study, analysis: Analysis) -> tuple[str, ...]:
    """The outcomes of an analysis' family that its part has too: those whose p-values are adjusted for each other."""
    same = [o for block in study.analyses if block.part == analysis.part for o in block.outcomes]
    name = study.outcomes[analysis.outcome].family
    return tuple(o for o in dict.fromkeys(same) if study.outcomes[o].family == name)


def seeded_by(study: Study, analysis: Analysis) -> str:
    """The name an analysis' random numbers go by: its id, of a family that is drawn together with its own name."""
    if analysis.part != "families":
        return analysis.id
    part, _, rest = analysis.id.split("/", 2)
    return f"{part}/{study.outcomes[analysis.outcome].family}/{rest}"


def baseline(study: Study) -> dict[str, tuple[str, str]]:
    """Outcomes of the area panel before treatment, as covariates: name -> (outcome, `level` or `trend`)."""
    panel = [o.name for o in study.outcomes.values() if o.table == "area_panel" and o.baseline]
    return {f"{o}_{what}": (o, what) for o in panel for what in ("level", "trend")}


def _sentence(file: str, error: ValidationError) -> str:
    first = error.errors()[0]
    at = ".".join(str(part) for part in first["loc"])
    seen = first["input"]
    if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        *where, key = first["loc"]
        owner = _record(tuple(where))
        own = [f.name for f in fields(owner) if f.name != "name"] if owner else []
        return f"{file}: {at}: no setting of this name. {choices(str(key), own)}"
    if first["type"].startswith("missing"):
        return f"{file}: {at}: this setting is missing. Add it."
    more = f" ({error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{file}: {at}: {first['msg'].lower()}; seen {seen!r}. Correct the entry.{more}"


def _record(where: tuple[str | int, ...]) -> type[Any] | None:
    if not where:
        return Study
    records = {
        "outcomes": Outcome,
        "subgroups": Subgroup,
        "comparisons": Comparison,
        "estimators": Estimation,
        "respondents": Respondents,
        "exposures": Exposure,
        "analyses": Grid,
    }
    if where[0] == MONEY:
        inner = {"inputs": Input, "scenarios": Scenario, "equity": Equity}
        return inner.get(str(where[1]), CostBenefit) if len(where) > 1 else CostBenefit
    if where[0] == "multiverse":
        return Multiverse if len(where) < 3 else Rule if where[1] == "rules" else Choice
    return records.get(str(where[0]))


def choices(seen: str, known: Iterable[str]) -> str:
    """The end of an error's sentence: the nearest name, and all there are."""
    names = [k for k in known if k]
    close = difflib.get_close_matches(seen, names, 1)
    return (f"Did you mean '{close[0]}'? " if close else "") + f"Choose from {', '.join(names)}."


def _check(study: Study, file: str, manuscript: Path) -> None:
    def named(at: str, seen: str, known: Iterable[str], what: str) -> None:
        known = list(known)
        if seen not in known:
            raise StudyError(f"{file}: {at}: no {what} '{seen}'. {choices(seen, known)}")

    estimators, methods = modules("estimators"), modules("matching")
    named("main_treatment", study.main_treatment, study.treatments, "treatment")
    for t in study.treatments.values():
        if (t.rule == "common_start") != (t.year is not None):
            raise StudyError(
                f"{file}: treatments.{t.name}: rule {t.rule} with year {t.year}. "
                f"Give a year for common_start, and for that rule only."
            )
        if t.last_year is not None and (t.year is None or t.last_year < t.year):
            raise StudyError(
                f"{file}: treatments.{t.name}: last_year {t.last_year} with year {t.year} leaves none "
                f"from the start on. Give a common_start a last_year from its year on, or none."
            )
    for o in study.outcomes.values():
        numbers = [n for n, c in TABLES[o.table].columns.items() if c.kind in ("number", "integer", "flag")]
        named(f"outcomes.{o.name}.column", o.column, numbers, f"numeric column of table {o.table}")
        if o.first_year > o.last_year:
            raise StudyError(
                f"{file}: outcomes.{o.name}: first_year {o.first_year} comes after last_year {o.last_year}. Swap them."
            )
    for s in study.subgroups.values():
        at = f"subgroups.{s.name}"
        named(f"{at}.column", s.column, TABLES[TABLE_OF[s.of]].columns, f"column of table {TABLE_OF[s.of]}")
        cuts = s.cuts or s.cuts_quantile
        if cuts and len(cuts) != len(s.levels) - 1:
            raise StudyError(f"{file}: {at}: {len(cuts)} cuts make {len(cuts) + 1} levels, {len(s.levels)} are named.")
        for level in s.values:
            named(f"{at}.values", level, s.levels, "level")
        if s.values and set(s.values) != set(s.levels):
            lost = ", ".join(sorted(set(s.levels) - set(s.values)))
            raise StudyError(f"{file}: {at}.values: level {lost} has no values. Name the values that make it.")
    numeric = [n for n, c in COVARIATES.items() if c.kind in ("number", "integer", "flag")]
    for c in study.comparisons.values():
        at = f"comparisons.{c.name}"
        named(f"{at}.method", c.method, methods, "matching method")
        named(f"{at}.pool_column", c.pool_column, numeric, "numeric column of table areas")
        for x in (*c.covariates, *c.optional):
            named(f"{at}.covariates", x, numeric, "numeric column of table areas")
        for x in c.exact:
            named(f"{at}.exact", x, TABLES["areas"].columns, "column of table areas")
        for x in c.baseline:
            panel = [o.name for o in study.outcomes.values() if o.table == "area_panel" and o.baseline]
            named(f"{at}.baseline", x, panel, "outcome of the area panel")
        if c.baseline and study.treatments[study.main_treatment].year is None:
            raise StudyError(
                f"{file}: {at}.baseline: levels before treatment need one start, main_treatment "
                f"'{study.main_treatment}' has none. Name a common_start."
            )
        own = settings("matching", c.method)
        for x in c.options:
            named(f"{at}.options", x, own, f"option of method {c.method}")
        if not 0 <= c.pool_quantile < 1:
            raise StudyError(f"{file}: {at}.pool_quantile: {c.pool_quantile} is not in [0, 1).")
        if c.ratio < 1:
            raise StudyError(f"{file}: {at}.ratio: {c.ratio} comparison LSOAs for a treated one. Give 1 or more.")
        if c.caliper is not None and c.caliper <= 0:
            raise StudyError(f"{file}: {at}.caliper: {c.caliper} is not above 0. Leave it out for no caliper.")
    for m in study.estimators.values():
        named("estimators", m.uses or m.name, estimators, "estimator")
        for x in m.options:
            own = settings("estimators", m.uses or m.name)
            named(f"estimators.{m.name}.options", x, own, f"option of estimator {m.uses or m.name}")
        for x in m.covariates:
            columns = [*numeric, *(n for n in TABLES["survey"].columns if n not in ("person_id", "lsoa11", "weight"))]
            named(f"estimators.{m.name}.covariates", x, columns, "column of tables areas and survey")
    for i, block in enumerate(study.analyses):
        at = f"analyses[{i}] (part {block.part})"
        for kind, names, known in (
            ("outcome", block.outcomes, study.outcomes),
            ("subgroup", block.subgroups, {"all": None, **study.subgroups}),
            ("comparison", block.comparisons, study.comparisons),
            ("treatment", block.treatments, study.treatments),
            ("estimator", block.estimators, dict.fromkeys([*estimators, *study.estimators])),
            ("respondent", block.respondents, study.respondents),
            ("exposure", block.exposures, study.exposures),
        ):
            for name in names:
                named(f"{at}.{kind}s", name, known, kind)
        _check_members(study, block, f"{file}: {at}")
        for way in block.inference:
            if way not in INFERENCE_OF.get(block.part, (way,)):
                raise StudyError(
                    f"{file}: {at}: inference {way}. Part {block.part} has {' or '.join(INFERENCE_OF[block.part])}."
                )
            if (way == "romano_wolf") != (block.part == "families"):
                raise StudyError(
                    f"{file}: {at}: inference {way}. Romano-Wolf takes a family of outcomes at once: "
                    f"part families has inference romano_wolf, and no other part has."
                )
        for g, name in itertools.product(block.subgroups, block.outcomes):
            if g != "all" and study.subgroups[g].of == "person" and study.outcomes[name].table == "area_panel":
                raise StudyError(
                    f"{file}: {at}: subgroup {g} is a property of persons, outcome {name} is not from the survey. "
                    f"Put it in a block with survey outcomes only."
                )
        for g, k in itertools.product(block.subgroups, block.comparisons):
            c = study.comparisons[k]
            if (
                g != "all"
                and study.subgroups[g].of in ("area", "lsoa")
                and (c.method not in WITH_SETS or c.level == "area")
            ):
                raise StudyError(
                    f"{file}: {at}: subgroup {g} needs matched sets of LSOAs, comparison {k} (method {c.method}, "
                    f"level {c.level}) makes none. Use method {' or '.join(WITH_SETS)} at level lsoa."
                )
    for name in dict.fromkeys(file_of(study, e) for block in study.analyses for e in block.estimators):
        if "\ndef estimate(" not in (HERE / "estimators" / f"{name}.py").read_text(encoding="utf-8"):
            raise _no_function("estimators", name, "estimate")
    if study.cost_benefit is not None:
        _check_money(study, study.cost_benefit, file, named)
    specifications.check(study, file, named, numeric, TABLES["areas"].columns)
    for r in study.respondents.values():
        for wave in r.waves:
            named(f"respondents.{r.name}.waves", str(wave), map(str, WAVES), "wave")
        if not r.waves or list(r.waves) != sorted(set(r.waves)):
            raise StudyError(f"{file}: respondents.{r.name}.waves: {list(r.waves)}. Name one or more, in order.")
    for e in study.exposures.values():
        for name in e.columns:
            named(f"exposures.{e.name}.columns", name, EXPOSURES, "answer of members")
        for name in e.adjust:
            named(f"exposures.{e.name}.adjust", name, ADJUSTABLE, "column to adjust for")
        if not e.columns:
            raise StudyError(f"{file}: exposures.{e.name}.columns: none. Name one or more.")
    for x in study.policy.simulation_effects:
        named("policy.simulation_effects", x, study.outcomes, "outcome")
    templates = [p.name.removesuffix(".md.j2") for p in sorted((manuscript / "exhibits").glob("*.md.j2"))]
    for exhibit in study.exhibits:
        named("exhibits", exhibit, templates, "template in manuscript/exhibits")
    _check_ranges(study, file)


def _check_money(study: Study, money: CostBenefit, file: str, named: Callable[..., None]) -> None:
    """The cost-benefit analysis: its names, its years, and that what it is made of is in the plan."""

    def refuse(at: str, seen: object, todo: str) -> None:
        raise StudyError(f"{file}: {MONEY}.{at}: {seen}. {todo}")

    named(f"{MONEY}.outcome", money.outcome, study.outcomes, "outcome")
    named(f"{MONEY}.comparison", money.comparison, study.comparisons, "comparison")
    named(f"{MONEY}.equity.subgroup", money.equity.subgroup, study.subgroups, "subgroup")
    for name in money.inputs:
        named(f"{MONEY}.inputs", name, INPUTS, "input")
    if missing := [name for name in INPUTS if name not in money.inputs]:
        refuse("inputs", f"there is no {', '.join(missing)}", "Add each with label, value, unit and source.")
    for i in money.inputs.values():
        if (i.low is None) != (i.high is None) or not (i.low is None or i.low <= i.value <= (i.high or i.low)):
            refuse(f"inputs.{i.name}", f"low {i.low}, value {i.value}, high {i.high}", "Give both ends, in order.")
    if not money.scenarios:
        refuse("scenarios", "there is none", "Add one; the first is the main one.")
    start = study.treatments[study.main_treatment].year
    if start is None:
        refuse("outcome", f"main_treatment '{study.main_treatment}' has no one start", "Name a common_start.")
    for s in money.scenarios.values():
        for name in s.change:
            named(f"{MONEY}.scenarios.{s.name}.change", name, INPUTS, "input")
    values = {n: [x for x in (i.low, i.value, i.high) if x is not None] for n, i in money.inputs.items()}
    for name in INPUTS:
        values[name] += [s.change[name] for s in money.scenarios.values() if name in s.change]
    for name, good, want in (
        ("value", lambda x: x > 0, "GBP above 0"),
        ("share", lambda x: 0 < x <= 1, "a share above 0 and at most 1"),
        ("rate_benefit", lambda x: 0 <= x < 1, "a rate such as 0.015"),
        ("rate_cost", lambda x: 0 <= x < 1, "a rate such as 0.035"),
        ("fade", lambda x: 0 <= x <= 1, "0 to 1"),
        ("cost_scale", lambda x: x > 0, "a number above 0"),
        ("last_year", lambda x: x >= (start or 0), f"the start of treatment, {start}, or later"),
        ("price_year", lambda x: x in money.deflator, "a year of deflator"),
        ("value_prices", lambda x: x in money.deflator, "a year of deflator"),
    ):
        for x in values[name]:
            if not good(x):
                refuse(f"inputs.{name}", f"{x:g} is out of range", f"Give {want}.")
    if money.draws < 100_000:
        refuse("draws", f"{money.draws} is out of range", "Give 100,000 or more.")
    for year, prices in money.deflator.items():
        if not prices > 0:
            refuse(f"deflator.{year}", f"{prices} is out of range", "Give a price level above 0.")
    levels = study.subgroups[money.equity.subgroup].levels
    for level, income in money.equity.income.items():
        named(f"{MONEY}.equity.income", level, levels, "level")
        if not income > 0:
            refuse(f"equity.income.{level}", f"{income} is out of range", "Give income over the median, above 0.")
    if lost := [name for name in levels if name not in money.equity.income]:
        refuse("equity.income", f"level {', '.join(lost)} has none", "Give income over the median for each.")
    sources(study)


def _check_members(study: Study, block: Grid, at: str) -> None:
    """Outcomes of members need to be told whose answers they are, and nothing of the comparison of areas."""
    of_members = [o for o in block.outcomes if study.outcomes[o].table == "residents"]
    if block.respondents and (block.comparisons or block.treatments or len(of_members) < len(block.outcomes)):
        raise StudyError(
            f"{at}: respondents go with outcomes of the table residents alone, without comparisons and treatments. "
            f"Put the others into a block of their own."
        )
    if (of_members or block.exposures) and not block.respondents:
        raise StudyError(f"{at}: outcome {', '.join(of_members)} is of the residents' survey. Name its respondents.")
    for g in block.subgroups:
        of = "" if g == "all" else study.subgroups[g].of
        if block.respondents and of in ("area", "lsoa"):
            raise StudyError(f"{at}: subgroup {g} is no property of a member. Use one of a person or member.")
        if of == "member" and not block.respondents:
            raise StudyError(f"{at}: subgroup {g} is a property of members. Name respondents.")


def _rising(values: Iterable[float], least: float) -> bool:
    """Whether there are some, each once and in order, finite and none below `least`."""
    found = list(values)
    return bool(found) and found == sorted(set(found)) and least <= found[0] and math.isfinite(found[-1])


def _check_ranges(study: Study, file: str) -> None:
    """Numbers that would be taken without a word and mean nothing, or switch a safeguard off."""
    p, d = study.policy, study.disclosure
    for name, value, good, want in (
        ("seed", study.seed, study.seed >= 0, "0 or more"),
        ("policy.conf_level", p.conf_level, 0 < p.conf_level < 1, "between 0 and 1, say 0.95"),
        ("policy.treated_share", p.treated_share, 0 < p.treated_share <= 1, "above 0 and at most 1"),
        ("policy.balance_threshold", p.balance_threshold, p.balance_threshold > 0, "above 0"),
        ("policy.power", p.power, 0.5 <= p.power < 1, "from 0.5 to below 1, say 0.8"),
        ("policy.draws_quick", p.draws_quick, p.draws_quick >= 99, "99 or more"),
        ("policy.draws_full", p.draws_full, p.draws_full >= p.draws_quick, "draws_quick or more"),
        ("policy.placebo_lists", p.placebo_lists, p.placebo_lists >= 20, "20 or more"),
        ("policy.recoveries", p.recoveries, p.recoveries >= 20, "20 or more"),
        ("policy.simulations", p.simulations, p.simulations >= 20, "20 or more"),
        ("policy.power_simulations", p.power_simulations, p.power_simulations >= 20, "20 or more"),
        ("policy.power_areas", list(p.power_areas), _rising(p.power_areas, 2), "numbers of 2 or more, in order"),
        (
            "policy.power_effects",
            list(p.power_effects),
            _rising(p.power_effects, 0) and {0, 1} <= {*p.power_effects},
            "multiples in order, 0 and 1 among them",
        ),
        ("disclosure.min_cell", d.min_cell, d.min_cell >= 2, "2 or more, in most laboratories 10"),
        ("disclosure.round_to", d.round_to, 0 <= d.round_to <= d.min_cell, "0 (no rounding) to min_cell"),
        ("disclosure.digits", d.digits, 1 <= d.digits <= 10, "1 to 10"),
        ("disclosure.min_df", d.min_df, d.min_df >= 1, "1 or more, in most laboratories 10"),
        ("disclosure.dominance_n", d.dominance_n, d.dominance_n >= 1, "1 or more"),
        ("disclosure.dominance_k", d.dominance_k, 0 < d.dominance_k < 1, "between 0 and 1, say 0.9"),
        ("disclosure.dominance_p", d.dominance_p, 0 < d.dominance_p < 1, "between 0 and 1, say 0.1"),
        ("policy.min_months", p.min_months, 1 <= p.min_months <= 12, "1 to 12"),
        ("tolerance.relative", study.tolerance.relative, study.tolerance.relative >= 0, "0 or more"),
        ("tolerance.absolute", study.tolerance.absolute, study.tolerance.absolute >= 0, "0 or more"),
        ("tolerance.std_errors", study.tolerance.std_errors, study.tolerance.std_errors >= 0, "0 or more"),
        ("policy.placebo_effect", p.placebo_effect, math.isfinite(p.placebo_effect), "a number"),
        *(
            (f"policy.simulation_effects.{n}", x, math.isfinite(x) and x != 0, "a number other than 0")
            for n, x in p.simulation_effects.items()
        ),
        *(
            (f"outcomes.{o.name}.scale", o.scale, math.isfinite(o.scale) and o.scale != 0, "a number other than 0")
            for o in study.outcomes.values()
        ),
        *(
            (f"outcomes.{o.name}.reference_effect", o.reference_effect, o.reference_effect > 0, "its size, above 0")
            for o in study.outcomes.values()
            if o.reference_effect is not None
        ),
    ):
        if not good:
            raise StudyError(f"{file}: {name}: {value} is out of range. Give {want}.")
    for t in study.treatments.values():
        if t.year is not None and not FIRST_YEAR < t.year <= LAST_YEAR:
            raise StudyError(
                f"{file}: treatments.{t.name}.year: {t.year} leaves no year before or after among the data's "
                f"{FIRST_YEAR} to {LAST_YEAR}. Give a year between."
            )
    for s in study.subgroups.values():
        at, cuts = f"{file}: subgroups.{s.name}", s.cuts or s.cuts_quantile
        if list(cuts) != sorted(set(cuts)):
            raise StudyError(f"{at}: cuts {list(cuts)} do not rise. Put them in order, each once.")
        if s.cuts_quantile and not all(0 < q < 1 for q in s.cuts_quantile):
            raise StudyError(f"{at}.cuts_quantile: {list(s.cuts_quantile)} are not all between 0 and 1. Correct them.")
    for i, block in enumerate(study.analyses):
        if block.part not in PARTS:
            raise StudyError(f"{file}: analyses[{i}].part: no part '{block.part}'. {choices(block.part, PARTS)}")
