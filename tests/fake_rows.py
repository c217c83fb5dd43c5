"""Made-up rows for the tests of the report: the shape of results.csv, numbers that mean nothing."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from biglocal import exhibits, results, worth
from biglocal.model import Analysis, Run, Study
from biglocal.results import Row
from biglocal.specifications import DIMENSIONS
from biglocal.specifications import expand as expand_specifications
from biglocal.study import MONEY, expand

RUN = Run(
    tier="synthetic",
    banner="SYNTHETIC",
    lacks={"costs": "not made here: write to the funder"},
    notes=("Fake note: 7 areas & 3 *stars* _under_ <b>.",),
    digests={"areas": "ab" * 32, "survey": "cd" * 32},
    versions={"typst": "0.0.0"},
)


def rows(study: Study, smd: float = 0.04) -> tuple[Row, ...]:
    """A row for each term of each analysis; `smd` is the matched difference of every covariate."""
    plan = expand(study)
    made = [row for a in plan if a.part != MONEY for row in _terms(study, a, random.Random(a.id), smd)]
    return (*made, *(row for a in plan if a.part == MONEY for row in worth.rows(study, "synthetic", a, made, "0")))


def blank(study: Study, a: Analysis) -> Row:
    """The row of an analysis, without a number."""
    unit = study.outcomes[a.outcome].unit if a.outcome in study.outcomes else ""
    none = dict.fromkeys(
        ("period", "estimate", "std_error", "df", "statistic", "p_value", "p_adjusted", "conf_low", "conf_high",
         "conf_level", "n_obs", "n_units", "n_treated", "n_clusters", "df_num")
    )  # fmt: skip
    return Row(
        analysis=a.id, digest="0", part=a.part, outcome=a.outcome, subgroup=a.subgroup, level="",
        comparison=a.comparison,
        treatment=a.treatment, estimator=a.estimator, inference=a.inference, term="", unit=unit, status="ok", reason="",
        tier="synthetic", respondents=a.respondents, exposure=a.exposure, **none,
    )  # fmt: skip


def _terms(study: Study, a: Analysis, r: random.Random, smd: float) -> list[Row]:
    base = replace(blank(study, a), n_obs=9000, n_units=3000, n_treated=600, n_clusters=150)

    def said(term: str, value: float, **more: object) -> Row:
        return replace(base, term=term, estimate=value, **more)  # type: ignore[arg-type]

    def tested(term: str, value: float, **more: object) -> Row:
        ends = {"conf_low": value - 0.2, "conf_high": value + 0.2, "conf_level": 0.95}
        return said(term, value, std_error=0.1, df=149.0, statistic=value / 0.1, p_value=r.random(), **ends, **more)

    if a.part == "programme":
        return [
            said(t, n, level=f"wave {w}")
            for w in (1, 2, 3)
            for t, n in (("areas", 50), ("lsoas", 220), ("residents", 3e5))
        ]
    if a.part == "spending":
        return [said("spent", 1e6 * (y - 2010), period=y, unit="GBP") for y in range(2012, 2027)]
    if a.part == "flow":
        return [
            said(f"step {i} & more", 600 - i, period=i, n_treated=600 - i, n_units=3000 - 100 * i) for i in range(4)
        ]
    if a.part == "balance":
        return [
            said("mean_treated", 40.0), said("mean_control_unmatched", 30.0), said("mean_control_matched", 39.0),
            said("smd_unmatched", 0.5), said("smd_matched", smd),
            said("variance_ratio_unmatched", 1.4), said("variance_ratio_matched", 1.1),
        ]  # fmt: skip
    if a.part == "quality":
        return [said("treated", 600.0), said("effective_sample_size", 2345.6), said("max_abs_smd", smd)]
    if a.part == "placebo":
        bins = [said("p_value", 0.05, period=b, conf_low=b / 20, conf_high=(b + 1) / 20) for b in range(20)]
        more = ("bias", "sd_estimates", "mean_std_error", "planted_effect", "planted_mean", "planted_coverage")
        rate = said("rejection_rate", 0.05, conf_low=0.03, conf_high=0.08)
        return [*bins, said("lists", 200.0), rate, *(said(name, 0.01, std_error=0.002) for name in more)]
    if a.part == "simulation":
        shares = [
            said(t, v, conf_low=v - 0.02, conf_high=v + 0.02) for t, v in (("coverage", 0.95), ("rejection_rate", 0.05))
        ]
        ratio = said("error_ratio", 1.0, conf_low=0.9, conf_high=1.1)
        return [*shares, ratio, said("truth", -0.1), said("bias", 0.001, std_error=0.002)]
    if a.part == "simulated_power":
        return [
            x
            for n in study.policy.power_areas
            for x in (
                *(said(t, v, period=n, conf_low=v - 0.02, conf_high=v + 0.02) for t, v in (("size", 0.05), ("coverage", 0.95))),
                *(said("power", min(s / 3, 1.0), period=n, level=f"{s:g}", statistic=s, conf_low=0.0, conf_high=1.0)
                  for s in study.policy.power_effects if s),
                said("effect", -0.1, period=n), said("replications", 500.0, period=n),
                said("minimum_detectable", 1 / n, period=n, conf_low=0.9 / n, conf_high=1.1 / n, n_treated_clusters=n),
                said("minimum_detectable_formula", 1 / n, period=n),
            )
        ]  # fmt: skip
    if a.part == "multiverse":
        names = ("median", "share_same_sign", "share_significant", "stouffer", "max_z")
        curve = [
            x
            for n in names
            for x in (
                said("curve", 0.1, level=n, p_value=0.2),
                said("drawn", 0.0, level=n, conf_low=-0.2, conf_high=0.2),
            )
        ]
        ends = {"conf_low": -0.1, "conf_high": 0.2}
        null = [
            said("null_curve", i / 500 - 0.1, period=i, conf_low=i / 500 - 0.2, conf_high=i / 500) for i in range(101)
        ]
        specs = expand_specifications(study, a.outcome)[0]
        chosen = [*DIMENSIONS, "interactions"]
        options = dict.fromkeys(f"{d}: {getattr(s, d)}" for d in DIMENSIONS for s in specs)
        return [
            said("specifications", 50.0), *curve, said("curve", 3.0, level="told_apart"), *null,
            *(said(t, 0.3, **ends) for t in ("vibration", "vibration_p", "share_flipped")),
            *(said("choice", 0.1, level=d) for d in chosen), *(said("option", 0.1, level=o) for o in options),
            *(tested("specification", r.gauss(0, 0.1), level=s.name) for s in specs[::30]),
        ]  # fmt: skip
    if a.part == "participation":
        counts = ("approached", "answered", "new", "answered_first", "answered_all")
        return [
            x
            for wave in (2016, 2018, 2020)
            for x in (
                *(said(t, 900.0 - 100 * i, period=wave) for i, t in enumerate(counts)),
                *(tested(t, 0.5, period=wave) for t in ("rate", "rate_again") if t == "rate" or wave > 2016),
            )
        ]
    if a.part == "participants":
        terms = ("share_members", "share_adults", "gap")
        return [tested(t, 0.1, level=x) for x in study.subgroups[a.subgroup].levels for t in terms]
    if a.part == "losses":
        descriptive = ("answered", "change", "lowest", "highest", "tipping")
        return [
            x
            for w in (2018, 2020)
            for x in (*(said(t, 0.4, period=w) for t in descriptive), tested("stayed", 1.0, period=w))
        ]
    if a.part == "recovery":
        name, waves = ("association", [None]) if a.exposure else ("change", [2018, 2020])
        levels = study.subgroups[a.subgroup].levels if a.subgroup != "all" else ("",)
        parts = ("truth", "bias", "error_ratio", "coverage")
        return [tested(f"{name}_{t}", 0.9, period=w, level=x) for w in waves for x in levels for t in parts]
    if a.respondents:
        return _of_members(study, a, said, tested, r)
    if a.part == "sensitivity":
        return [said(name, 1.5) for name in ("breakdown_gamma", "standardised", "e_value", "e_value_limit")]
    if a.part == "overlap":
        groups = ("treated", "control_unmatched", "control_matched")
        bins = [said(g, 0.1, period=i, conf_low=i / 10, conf_high=(i + 1) / 10) for g in groups for i in range(10)]
        return [*bins, said("effective_sample_size", 2345.6)]
    if a.part == "trends":
        years = range(2011, 2020)
        return [tested(t, r.random(), period=y) for t in ("treated", "control") for y in years]
    if a.part == "truth":
        levels = study.subgroups[a.subgroup].levels if a.subgroup != "all" else ("",)
        return [said("att", 0.05, level=x) for x in levels]
    if a.inference == "parallel_trends":
        bounds = [
            replace(tested(name, 0.3, level=level), statistic=float(level))
            for name, levels in (("relative_magnitudes", ("0", "0.5", "1")), ("smoothness", ("0", "0.5", "1")))
            for level in levels
        ]
        alone = ("breakdown_relative_magnitudes", "breakdown_smoothness", "detectable_trend", "detectable_trend_bias")
        known = said("equivalence", 0.2, p_value=0.3)
        return [tested("average_effect", 0.3), *bounds, known, *(said(name, 0.25) for name in alone)]
    if a.inference == "power":
        one = ("minimum_detectable", "reference_effect", "power")
        areas = [said("minimum_detectable_with", 10 / n, period=n) for n in (50, 100, 300)]
        return [*(said(name, 0.4, n_treated_clusters=145) for name in one), *areas]
    if a.inference == "randomisation":
        bins = [
            said(t, 0.05, period=i, conf_low=i / 2 - 2.5, conf_high=i / 2 - 2)
            for i in range(10)
            for t in ("drawn_nearer", "drawn_beyond")
        ]
        return [tested("att", r.gauss(0, 0.1), p_adjusted=0.5), said("draws", 999.0), *bins]
    if a.part == "families":
        return [said(t, 0.1, p_value=r.random()) for t in ("cluster", "holm", "fdr_bh", "bootstrap", "romano_wolf")]
    if a.part == "calendar":
        joint = [replace(base, term=t, statistic=1.0, df=149.0, p_value=0.4) for t in ("leads", "years")]
        return [tested("calendar", 0.1, period=2018), tested("att_calendar", 0.1), *joint]
    if a.part == "decomposition":
        pairs = [
            said(name, value, level=f"{g} against never treated (Treated vs Untreated)")
            for g in (2013, 2014)
            for name, value in (("two_by_two", 0.1), ("two_by_two_weight", 0.5))
        ]
        kinds = [said(name, 1.0, level="Treated vs Untreated") for name in ("comparison", "comparison_weight")]
        return [said("att", 0.1), *kinds, *pairs]
    if a.part == "dose":
        thirds = [tested("att", 0.1, level=f"{w} third") for w in ("lowest", "middle", "highest")]
        test = replace(base, term="difference", statistic=1.0, df=149.0, p_value=0.2)
        return [tested("att", 0.1), tested("dose", 0.02), *thirds, test]
    if a.part == "twins":
        return [tested("att", r.gauss(0, 0.1)), said("digits", 9.0, unit="digits")]
    if a.part == "counts":
        return [tested("att", -0.05), tested("percent_change", -5.0)]
    if a.part == "years":
        leads = replace(base, term="leads", statistic=1.0, df=149.0, p_value=0.4)
        return [leads, said("event_time", 0.0, period=-1)] + [
            tested("event_time", r.gauss(0, 0.1), period=t) for t in (-3, -2, 0, 1, 2)
        ]
    if a.part in ("subgroups", "equity"):
        test = replace(base, term="difference", statistic=1.0, df=149.0, p_value=0.2, p_adjusted=0.6)
        return [test, *(tested("att", r.gauss(0, 0.1), level=x) for x in study.subgroups[a.subgroup].levels)]
    return [tested("att", r.gauss(0, 0.1), p_adjusted=0.5 if a.part == "effects" else None)]


def _of_members(
    study: Study, a: Analysis, said: Callable[..., Row], tested: Callable[..., Row], r: random.Random
) -> list[Row]:
    """A change by wave or an association, by level, with the test of the difference and what could be found."""
    levels = study.subgroups[a.subgroup].levels if a.subgroup != "all" else ("",)
    name, waves = ("association", [None]) if a.exposure else ("change", [2018, 2020])
    if a.part == "members_truth":
        terms = [name, *(["odds_ratio"] if a.outcome == "good_health" else [])]
        return [said(t, 1.5, period=p, level=x) for p in waves for x in levels for t in terms]
    out = [] if a.exposure else [said("change", 0.0, period=2016, level=x) for x in levels]
    for period in waves:
        for level in levels:
            at = {"period": period, "level": level}
            out.append(tested(name, r.gauss(1, 0.1), **at))
            out.append(said("minimum_detectable", 0.7, **at))
            if a.estimator == "gee":
                out.append(tested("odds_ratio", 1.5, unit="odds ratio", **at))
        if len(levels) > 1:
            out.append(tested("difference", 0.3, period=period, p_adjusted=0.4))
    return out


def outputs(out: Path, study: Study, rows: Sequence[Row], /, **record: Any) -> Path:
    """Outputs as a run leaves them: rows, a table for each exhibit, and a record."""
    results.write_text(out / "results.csv", results.dumps(rows))
    rows = results.read(out / "results.csv")
    for name in study.exhibits:
        fed = exhibits.feeding(name, rows)
        results.write_text(out / "tables" / f"{name}.csv", results.dumps(replace(r, digest="") for r in fed))
    results.write_text(out / "report.html", repr([(r.key, r.estimate) for r in rows]))
    files = [p for p in out.rglob("*") if p.is_file() and p.name != "provenance.json"]
    whole: dict[str, Any] = {
        "tier": "synthetic", "banner": "SYNTHETIC", "draws": "quick", "seed": study.seed, "study": {}, "lock": "l" * 64,
        "code": {"estimate.py": "c"}, "manuscript": {}, "data": {}, "versions": {"python": "3.11.7"},
        "machine": {"platform": "Linux x86_64", "blas": "openblas Haswell"},
        "rendered_from": "r" * 64,
        "results": results.digest((out / "results.csv").read_bytes()),
        "outputs": {p.relative_to(out).as_posix(): results.digest(p.read_bytes()) for p in files},
    }  # fmt: skip
    results.write_text(out / "provenance.json", json.dumps(whole | record))
    return out
