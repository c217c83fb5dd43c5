"""What leaves a run: planted disclosures among its rows are caught, and the checker is told why."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from biglocal import release, results
from biglocal.results import Row
from biglocal.study import load, sources

STUDY = load()
BASE: dict[str, Any] = {
    **dict.fromkeys(results.COLUMNS, ""), **dict.fromkeys(release.NUMBERS), "period": None, "digest": "0",
    "comparison": "nearest", "treatment": "common_start", "subgroup": "all", "status": "ok", "tier": "secure",
}  # fmt: skip


def row(part: str, outcome: str = "high_anxiety", **more: Any) -> Row:
    given = {"estimator": "means" if part == "trends" else "twfe", "inference": "none", "estimate": 1.0, **more}
    found = Row(**{**BASE, "part": part, "outcome": outcome, **given})
    return replace(found, analysis=f"{part}/{outcome}/{found.subgroup}/{found.treatment}/{found.inference}")


def trends(outcome: str = "high_anxiety", small: int = 0, **more: Any) -> list[Row]:
    """Means of ten years and two groups, of safe numbers of persons, but for `small` in one."""
    rng = random.Random(outcome)
    cells = [(t, y, rng.randrange(200, 400)) for t in ("treated", "control") for y in range(2011, 2021)]
    if small:
        cells[3] = ("treated", 2014, small)
    total = sum(n for _, _, n in cells)
    return [row("trends", outcome, term=t, period=y, n_obs=total, n_persons=n, n_least=n, **more) for t, y, n in cells]


def levels(persons: dict[str, int], subgroup: str = "progress", **more: Any) -> list[Row]:
    total = sum(persons.values())
    own = [
        row("subgroups", subgroup=subgroup, term="att", level=level, n_obs=total, n_persons=n, n_least=n // 4, df=149.0,
            estimate=float(i), std_error=1.0, n_clusters=150, **more)
        for i, (level, n) in enumerate(persons.items())
    ]  # fmt: skip
    test = row("subgroups", subgroup=subgroup, term="difference", statistic=1.0, df=149.0, n_obs=total, df_num=2,
               estimate=None, p_value=0.5, n_persons=total, n_least=total // 4, n_clusters=150)  # fmt: skip
    return [*own, test]


def effect(n: int, **more: Any) -> Row:
    given = {"df": 149.0, "n_persons": n, "n_least": n // 4, "n_clusters": 150, **more}
    return row("effects", term="att", n_obs=n, **given)


def held(rows: tuple[Row, ...]) -> list[tuple[str, str, int | None]]:
    return [(r.term, r.level, r.period) for r in rows if r.status == "suppressed"]


EXACT = replace(STUDY, disclosure=replace(STUDY.disclosure, round_to=0))


def test_a_mean_of_two_persons_goes_and_says_why() -> None:
    shown, findings = release.control(trends(small=2), STUDY)
    assert held(shown) == [("treated", "", 2014)]
    gone = next(r for r in shown if r.status == "suppressed")
    assert gone.reason == "Fewer than 10 persons: not shown. Join levels or years. (study.toml, disclosure)"
    assert all(getattr(gone, c) is None for c in release.NUMBERS)
    assert next(f.rule for f in findings if f.verdict == "withheld") == "threshold"
    assert all(f.why for f in findings if f.verdict == "withheld")


def test_a_count_that_follows_from_the_total_takes_another_with_it() -> None:
    shown, findings = release.control(trends(small=3), EXACT)
    counts = [r for r in shown if r.n_persons is None]
    assert len(counts) == 2  # the cell, and the one that would give it away; or all of the total
    assert any(f.rule == "complementary" for f in findings)
    without = [r for r in counts if r.status == "ok"]
    assert all("number of persons is not shown" in r.reason for r in without)
    assert all(r.estimate is not None for r in without)


def test_a_level_takes_the_next_and_the_test_of_the_difference_with_it() -> None:
    rows = [effect(1000), *levels({"fast": 20, "middle": 400, "slow": 580})]
    shown, _ = release.control(rows, STUDY)
    assert ("att", "fast", None) in held(shown)
    assert ("difference", "", None) in held(shown)
    assert len([h for h in held(shown) if h[0] == "att"]) == 2
    assert next(r for r in shown if r.part == "effects").status == "ok"


def test_a_level_without_the_effect_over_all_goes_alone() -> None:
    shown, _ = release.control(levels({"fast": 20, "middle": 400, "slow": 580}), STUDY)
    assert held(shown) == [("att", "fast", None), ("difference", "", None)]


def test_two_samples_that_differ_by_few() -> None:
    """All, and those whose qualification is known: the three who did not say are the difference."""
    rows = [effect(1003), *levels({"none": 400, "degree": 600}, "education")]
    shown, findings = release.control(rows, EXACT)
    assert held(shown) == []
    assert [r.n_obs for r in shown].count(None) in (1, 3)
    assert {f.rule for f in findings if f.verdict == "withheld"} == {"complementary"}
    shown, _ = release.control([effect(1020), *levels({"none": 400, "degree": 600}, "education")], EXACT)
    assert None not in [r.n_obs for r in shown]


@pytest.mark.parametrize(
    ("more", "word"),
    [
        ({"df": 6.0}, "residual degrees of freedom"),
        ({"n_least": None}, "is not known"),
        ({"n_least": 9}, "Fewer than 10 persons"),
    ],
)
def test_a_regression_that_may_not_leave(more: dict[str, Any], word: str) -> None:
    shown, _ = release.control([effect(1000, **more)], STUDY)
    assert shown[0].status == "suppressed"
    assert word in shown[0].reason


def test_a_largest_value() -> None:
    shown, _ = release.control([row("trends", term="max", n_obs=5000, n_persons=5000, n_least=5000)], STUDY)
    assert shown[0].status == "suppressed"
    assert "largest or smallest" in shown[0].reason


def test_one_number_by_four_ways_of_inference_goes_by_all() -> None:
    three = ("cluster", "cr2", "wild_bootstrap")
    ways = [effect(1000, inference=i, df=5.0 if i == "cluster" else None) for i in three]
    shown, _ = release.control(ways, STUDY)
    assert [r.status for r in shown] == ["suppressed"] * 3
    # of a t test that counts years or an effective number of clusters, they say nothing of the persons left over
    for way in ("cr2", "twoway"):
        shown, _ = release.control(
            [effect(1000, inference=i, df=5.0 if i == way else None) for i in (way, "cluster")], STUDY
        )
        assert [r.status for r in shown] == ["ok", "ok"]


def test_a_withheld_estimate_is_not_shown_as_that_of_a_library() -> None:
    """Here the effect over all goes by its inference alone; the same number by another solver goes with it."""
    one = effect(1000, inference="cluster", df=5.0)
    libraries = ("pyfixest", "linearmodels", "statsmodels")
    others = [replace(effect(1000), part="twins", estimator=n, analysis=f"twins/{n}") for n in libraries]
    assert [r.status for r in release.control([one, *others], STUDY)[0]] == ["suppressed"] * 4
    assert [r.status for r in release.control(others, STUDY)[0]] == ["ok"] * 3


def test_money_made_of_an_estimate_that_is_not_shown() -> None:
    worth = row("cost_benefit", "life_satisfaction", term="net_benefit", n_obs=1003)
    few = replace(effect(1003, n_least=5), analysis="effects/life_satisfaction/all/nearest/twfe/common_start/cluster",
                  outcome="life_satisfaction")  # fmt: skip
    assert [r.status for r in release.control([few, worth], STUDY)[0]] == ["suppressed"] * 2
    shown, _ = release.control([replace(few, n_least=200), worth], STUDY)
    assert [(r.status, r.n_obs) for r in shown] == [("ok", 1005)] * 2


def money(view: str, term: str, **more: Any) -> Row:
    return row("cost_benefit", "life_satisfaction", estimator=view, term=term, **more)


def source(part: str, **more: Any) -> Row:
    """A row of persons of which the cost-benefit sums are made, of too few."""
    found = next(a for a in sources(STUDY) if a.part == part)
    given = {"term": "att", "n_obs": 1000, "n_persons": 1000, "n_least": 5, "df": 149.0, "n_clusters": 150} | more
    own = row(part, "life_satisfaction", subgroup=found.subgroup, estimator=found.estimator, **given)
    return replace(own, analysis=found.id)


def test_of_money_only_what_is_made_of_a_withheld_estimate_goes() -> None:
    main, years = next(iter(STUDY.cost_benefit.scenarios)), "by_year"  # type: ignore[union-attr]
    free = [
        money("inputs", "input", level="value"), money("inputs", "deflator", level="deflator", period=2015),
        money("scenario", "cost", level=main), money("scenario", "break_even_effect", level=main),
        money("one_way", "input_low", level="value"), money("equity", "weight", level="more deprived half"),
    ]  # fmt: skip
    of_effect = [
        money("inputs", "input", level="effect"), money("scenario", "net_benefit", level=main),
        money("scenario", "cost_per_point_year", level=main, estimate=None, status="inapplicable", reason="not above"),
        money("one_way", "net_benefit_low", level="value"), money("one_way", "input_low", level="effect"),
        money("acceptability", "probability", period=1000),
    ]  # fmt: skip
    of_years = [money("scenario", "net_benefit", level=years), money("scenario", "effect_year", level=years, period=3)]
    of_equity = [
        money("equity", "benefit", level="more deprived half"), money("equity", "net_benefit"),
        money("equity", "difference"),
    ]  # fmt: skip
    other = [money("equity", "benefit", level="less deprived half")]
    everything = [*free, *of_effect, *of_years, *of_equity, *other]
    for small, gone in (
        (source("effects"), of_effect),
        (source("years", term="event_time", period=3), of_years),
        (source("years", term="event_time", period=-3), []),
        (source("equity", level="more deprived half"), of_equity),
    ):
        shown, _ = release.control([small, *everything], STUDY)
        assert shown[0].status == "suppressed"
        assert [r for r, s in zip(everything, shown[1:], strict=True) if s.status == "suppressed"] == gone
        assert all("would give away" in r.reason for r in shown[1:] if r.status == "suppressed")


def test_the_lines_of_a_table_by_effect_do_not_name_a_withheld_effect() -> None:
    lines = [money("two_way", "net_benefit", level=f"{x:.6f}", period=v) for x in (-0.285722, 0.015267) for v in (1, 2)]
    shown, findings = release.control([source("effects"), *lines], STUDY)
    assert [r.level for r in shown[1:]] == ["effect 1", "effect 1", "effect 2", "effect 2"]
    assert not any("0.285" in f.level or "0.015" in f.level for f in findings)
    shown, _ = release.control([source("effects", n_least=200), *lines], STUDY)
    assert [r.level for r in shown[1:]] == [r.level for r in lines]


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("overlap: 3 who did not answer", "overlap: fewer than 10 who did not answer"),
        ("3 treated rows could not be imputed", "Fewer than 10 treated rows could not be imputed"),
        ("Left. 4 persons without an answer", "Left. Fewer than 10 persons without an answer"),
        ("of 1,234 units", "of 1,235 units"),
        ("3 treated LSOAs left", "3 treated LSOAs left"),
    ],
)
def test_counts_of_persons_in_a_caution(said: str, shown: str) -> None:
    why = row("effects", term="", status="inapplicable", reason=said)
    assert release.control([why], STUDY)[0][0].reason == shown


def test_counts_are_rounded_alike_wherever_they_stand() -> None:
    shown, _ = release.control([effect(1003), *trends(), *levels({"none": 403, "degree": 600}, "education")], STUDY)
    assert {r.n_obs for r in shown if r.part != "trends"} == {1005}
    assert all(n % 5 == 0 for r in shown for n in (r.n_obs, r.n_persons) if n is not None)
    assert {r.n_clusters for r in shown} == {None, 150}  # areas are no persons
    assert all(r.n_least is None for r in shown)


def test_rows_of_areas_and_of_no_number_leave_as_they_are() -> None:
    area = row("effects", "samhi", term="att", n_obs=3, n_treated=1, df=2.0)
    why = row("effects", term="", status="inapplicable", reason="only 3 persons and 1,234 rows in 2014")
    shown, findings = release.control([area, why], STUDY)
    assert shown[0] == area
    assert shown[1].reason == "only fewer than 10 persons and 1,235 rows in 2014"
    assert findings == ()


def test_a_hundred_safe_runs_lose_nothing() -> None:
    for i in range(100):
        rng = random.Random(i)
        split = [rng.randrange(60, 900) for _ in range(3)]
        rows = [effect(sum(split)), *levels(dict(zip(("fast", "middle", "slow"), split, strict=True)))]
        rows += trends(rng.choice(["life_satisfaction", "happiness"]))
        shown, _ = release.control(rows, STUDY if i % 2 else EXACT)
        assert held(shown) == []
        assert all(r.n_obs is not None and r.n_persons is not None for r in shown)


def test_the_order_of_rows_changes_nothing() -> None:
    rows = [effect(1003), *trends(small=4), *levels({"fast": 30, "middle": 390, "slow": 580})]
    shown, _ = release.control(rows, EXACT)
    turned, _ = release.control(rows[::-1], EXACT)
    assert shown == turned[::-1]


def test_a_run_of_a_thousand_rows_with_disclosures_everywhere_takes_two_seconds() -> None:
    rows: list[Row] = []
    for outcome in ("high_anxiety", "life_satisfaction", "happiness", "worthwhile"):
        for i in range(10):  # comparisons: samples of their own
            some = [effect(1003), *trends(small=4), *levels({"fast": 30, "middle": 390, "slow": 583})]
            some += levels({"none": 400, "degree": 600}, "education")
            rows += [
                replace(r, outcome=outcome, comparison=f"c{i}", analysis=f"{r.analysis}{outcome}{i}") for r in some
            ]
    started = time.process_time()
    shown, _ = release.control(rows, EXACT)
    assert time.process_time() - started < 3  # measured: 1.4 s, in which scipy is loaded too
    assert len(held(shown)) >= 40 * 4


# --- the checker's report -----------------------------------------------------------------------------------------


@pytest.fixture
def reported(tmp_path: Path) -> Path:
    rows, findings = release.control([*trends(small=3), effect(1000), row("effects", "samhi", term="att")], STUDY)
    results.write_text(tmp_path / "results.csv", results.dumps(rows))
    results.write_text(tmp_path / "tables" / "trends.csv", "Year,Mean\n2014,withheld\n")
    outputs = {"trends": frozenset({"trends"}), "programme": frozenset({"programme"})}
    written = release.report(rows, findings, STUDY, outputs, tmp_path)
    assert all(p.is_file() for p in written)
    return tmp_path


def test_the_audit_says_rule_verdict_and_why_of_each(reported: Path) -> None:
    audit = json.loads((reported / "disclosure.json").read_text())
    by = {o["output"]: o for o in audit["outputs"]}
    assert by["trends"]["verdict"] == "passes after withholding"
    assert by["programme"]["verdict"] == "no persons"
    assert all(o["why"] for o in audit["outputs"])
    assert "threshold" in by["trends"]["rules"]
    number = next(n for n in audit["numbers"] if n["verdict"] == "withheld")
    assert (number["term"], number["period"], number["rule"]) == ("treated", 2014, "threshold")
    assert all(n["checked"] for n in audit["numbers"])
    text = (reported / "disclosure.md").read_text()
    assert "| trends/high_anxiety/all/common_start/none |  | treated | 2014 | mean | persons behind a number |" in text


def test_acro_reads_it(reported: Path) -> None:
    pytest.importorskip("acro", reason="acro is not installed: it needs an environment of its own")
    from acro.record import load_records  # type: ignore[import-not-found, unused-ignore]

    check_acro(load_records(str(reported / "acro")))


def check_acro(records: Any) -> None:
    one = records.get("output_1")
    assert (one.status, one.output_type) == ("review", "table")
    assert "threshold: " in one.summary
    assert one.output[0].shape == (1, 2)
    assert "threshold; " in one.outcome["mean"].tolist()


def test_acros_shape_without_acro(reported: Path) -> None:
    """Every key that acro's loader asks for, and every file it names with its checksum."""
    import hashlib

    found = json.loads((reported / "acro" / "results.json").read_text())
    assert found["version"] == release.ACRO
    for uid, record in found["results"].items():
        assert record["uid"] == uid
        assert set(record) == {
            "uid", "status", "type", "properties", "files", "outcome", "command", "summary", "timestamp", "comments",
            "exception", "fair",
        }  # fmt: skip
        assert record["status"] in ("pass", "review", "fail")
        for file in record["files"]:
            data = (reported / "acro" / file["name"]).read_bytes()
            assert (reported / "acro" / "checksums" / f"{file['name']}.txt").read_text() == hashlib.sha256(
                data
            ).hexdigest()


def test_no_persons_nothing_to_control(tmp_path: Path) -> None:
    rows, findings = release.control([row("effects", "samhi", term="att")], STUDY)
    release.report(rows, findings, STUDY, {}, tmp_path)
    assert "nothing to control" in (tmp_path / "disclosure.md").read_text()


def test_rows_without_persons_need_no_solver() -> None:
    code = (
        "import sys; from biglocal import release, results; from biglocal.study import load\n"
        "release.control([], load()); sys.exit(bool({'scipy', 'numpy', 'pandas'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
