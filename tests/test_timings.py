"""Measured costs: read, refused where they are none, and of what the study has."""

from __future__ import annotations

from pathlib import Path

import pytest

from biglocal import exhibits, results, run, timings
from biglocal import study as studies
from biglocal.__main__ import main
from biglocal.inference.randomisation import a_share
from biglocal.model import Analysis, BiglocalError, StudyError
from biglocal.timings import AREAS, Cost, Timings, duration, on_paper, seconds, within


def test_the_committed_file_is_of_what_the_study_has() -> None:
    study, found = studies.load(), timings.load()
    assert found is not None
    parts = {a.part for a in studies.expand(study)}
    assert set(found.exhibits) <= set(study.exhibits)
    assert set(found.parts) <= parts
    assert all(c.seconds >= 0 and c.memory_mb > 0 for c in (found.start, *found.exhibits.values()))
    # what is made alone begins, and then makes its parts
    assert found.exhibits["main_effects"].seconds > found.parts["effects"].seconds


def test_what_is_written_is_read_and_what_is_committed_is_as_written(tmp_path: Path) -> None:
    found = timings.load()
    assert found is not None
    assert timings.text(found) == timings.PATH.read_text(encoding="utf-8")
    one, small = Cost(1.5, 300), Cost(2.02e-05, 1024)
    for made in (
        Timings('2 cores ("EPYC"); é', one, {}, {}),
        Timings("x", one, {"flow": small}, {"flow": one, "trends": one}, one, {"area_draw": small}),
    ):
        (tmp_path / "timings.toml").write_text(timings.text(made), encoding="utf-8")
        assert timings.load(tmp_path / "timings.toml") == made


def test_none_is_none(tmp_path: Path) -> None:
    assert timings.load(tmp_path / "timings.toml") is None


@pytest.mark.parametrize(
    "text", ["machine = ", "machine = 'x'", "machine='x'\nstart={seconds=1}\nparts={}\nexhibits={}", "start = 1"]
)
def test_another_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "timings.toml").write_text(text)
    with pytest.raises(StudyError, match=r"timings.toml: not a table of costs: .*nox -s benchmark -- exhibits"):
        timings.load(tmp_path / "timings.toml")


@pytest.mark.parametrize(("text", "of"), [("90s", 90), ("10m", 600), ("1h30m", 5400), ("2h", 7200), ("1h1m1s", 3661)])
def test_durations_are_read(text: str, of: float) -> None:
    assert seconds(text) == of


@pytest.mark.parametrize("text", ["", "0s", "10", "m", "-5m", "5m10h", "10 minutes", "1.5h"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(BiglocalError, match=r"not a duration. Give hours, minutes and seconds, say 90s, 10m or 1h30m"):
        seconds(text)


def test_durations_are_said() -> None:
    said = [duration(x) for x in (0.31, 9.96, 40.2, 300, 4800, float("inf"))]
    assert said == ["0.3 s", "10 s", "40 s", "5 min", "1 h 20 min", "not measured"]


def made(part: str, count: int) -> list[Analysis]:
    return [Analysis(f"{part}/{i}", part, "", "all", "", "", "none", "") for i in range(count)]


PLAN = {p: made(p, n) for p, n in (("flow", 1), ("effects", 4), ("years", 2), ("placebo", 2), ("dose", 1))}
WANTED = {
    "flow": PLAN["flow"],
    "placebo": PLAN["placebo"],
    "effects": PLAN["effects"],
    "years": [*PLAN["effects"], *PLAN["years"]],
    "environment": [],
    "dose": PLAN["dose"],
}
ALL = [a for some in PLAN.values() for a in some]
COSTS = Timings(
    "a machine; versions", Cost(3, 100), {},
    {p: Cost(s, 100) for p, s in (("flow", 1), ("effects", 8), ("years", 10), ("placebo", 100))}, Cost(24, 100),
)  # fmt: skip


@pytest.mark.parametrize(
    ("budget", "there", "jobs", "chosen", "left"),
    [
        (7, (), 1, ["flow", "environment"], {"effects": 8, "years": 10}),  # 24 less parts of 19: five to begin and end
        (14, (), 1, ["flow", "effects", "environment"], {"years": 10}),
        (16.5, (), 1, ["flow", "effects", "environment"], {"years": 10}),
        (16, ("effects/0", "effects/1"), 1, ["flow", "effects", "environment"], {"years": 10}),
        (24, (), 1, ["flow", "effects", "years", "environment"], {}),
        (15, (), 2, ["flow", "effects", "years", "environment"], {}),
        (124, (), 1, ["flow", "effects", "years", "environment", "placebo"], {}),
        (123, (), 1, ["flow", "effects", "years", "environment"], {"placebo": 100}),
    ],
)
def test_what_fits_is_taken_in_the_reports_order_and_nothing_is_counted_twice(
    budget: float, there: tuple[str, ...], jobs: int, chosen: list[str], left: dict[str, float]
) -> None:
    took, rest = within(budget, WANTED, there, ALL, COSTS, jobs)
    assert list(took) == chosen
    assert rest == left | {"dose": float("inf")} | ({} if "placebo" in took else {"placebo": 100 / jobs})
    assert list(rest)[-1] == "placebo" or "placebo" in took  # on request last


def test_a_budget_that_nothing_fits_is_refused() -> None:
    with pytest.raises(
        BiglocalError,
        match=r"5.0 s is less than the quickest exhibit takes with the report, about 6.0 s on a machine\.",
    ):
        within(5, WANTED, (), ALL, COSTS)


def test_a_run_within_a_budget_makes_what_fits_and_says_the_rest(
    small_tier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = {a.part: Cost(1000, 1) for a in studies.expand(studies.load())}
    cheap = {"programme": Cost(0, 1), "flow": Cost(1, 1)}
    monkeypatch.setattr(timings, "load", lambda: Timings("m", Cost(1, 1), {}, parts | cheap))
    done = run.reproduce("secure", data=small_tier, outputs=tmp_path, budget=10)
    assert {r.part for r in results.read(tmp_path / "secure" / "results.csv")} == {"programme", "flow"}
    assert (tmp_path / "secure" / "tables" / "flow.csv").exists()
    assert not (tmp_path / "secure" / "report.html").exists()
    dear = [e for e in studies.load().exhibits if exhibits.parts(e) - cheap.keys()]
    assert set(done.left) == set(dear)
    assert [done.left[e] for e in ("placebo", "multiplicity", "balance")] == pytest.approx([1000] * 3)


def test_what_is_beyond_the_budget_is_listed_with_the_line_that_makes_it(
    small_tier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    costs = dict.fromkeys((a.part for a in studies.expand(studies.load())), Cost(0, 1))
    dear = {"multiverse": Cost(600, 1), "recovery": Cost(60, 1)}
    monkeypatch.setattr(timings, "load", lambda: Timings("m", Cost(1, 1), {}, costs | dear))
    monkeypatch.setattr(timings, "within", lambda *of: (("flow",), within(*of)[1]))
    words = ["reproduce", "secure", "--data", str(small_tier), "--outputs", str(tmp_path), "--draws", "full"]
    monkeypatch.setattr("sys.argv", ["biglocal", *words, "--budget", "10s"])
    with pytest.raises(SystemExit, match="0"):
        main()
    said = capsys.readouterr().out
    _, _, listed = said.partition("beyond the budget, and what each adds to those above it:\n")
    first, *rest, together, line = listed.splitlines()[:6]
    assert first == "    multiverse: 10 min"
    assert rest == [f"    multiverse_{x}: nothing more" for x in ("choices", "vibration")] + ["    recovery: 60 s"]
    assert together == "together: 11 min"
    assert line.startswith("to make them: biglocal reproduce secure --data ")
    assert line.endswith(
        "--draws full --only multiverse --only multiverse_choices --only multiverse_vibration --only recovery"
    )


def test_no_costs_no_budget(small_tier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timings, "load", lambda: None)
    with pytest.raises(BiglocalError, match=r"no analysis/timings.toml. Make it with .nox -s benchmark -- exhibits"):
        run.reproduce("secure", data=small_tier, outputs=tmp_path, budget=10)


SCALE = {
    "match": Cost(2, 512), "fit": Cost(1, 1024), "area_test": Cost(10, 1), "area_draw": Cost(0.001, 2048),
    "unit_test": Cost(20, 1), "unit_draw": Cost(0.01, 4096),
}  # fmt: skip


def cells(areas: int, permutations: int) -> dict[str, list[str]]:
    plan = [
        Analysis(f"effects/{w}/{i}", "effects", "", "all", f"c{i}", "", w, "")
        for w in ("none", "randomisation")
        for i in range(8)
    ]
    at = on_paper(Timings("m; v.", Cost(3, 1), {}, {}, None, SCALE), [*plan, *PLAN["placebo"]], areas, permutations)
    assert at.startswith(f"{areas:,} areas, 9 years, {permutations:,} permutations; ")
    *table, _, note = at.splitlines()
    assert "whole tasks" in note
    return {c[1]: c[2:-1] for line in table[4:] if (c := [x.strip() for x in line.split("|")])}


def test_a_plan_on_paper_multiplies_what_was_measured() -> None:
    at = cells(AREAS, 1000)
    assert at["match a comparison"] == ["8", "2.0 s", "8.0 s", "2.0 s", "2.0 s", "0.5 GiB"]
    assert at["fit an analysis"] == ["16", "1.0 s", "8.0 s", "1.0 s", "1.0 s", "1.0 GiB"]
    assert at["prepare its test"] == ["8", "20 s", "80 s", "20 s", "20 s", "0.0 GiB"]
    assert at["draw it, if dealt to Big Local areas"] == ["8", "1.0 s", "4.0 s", "1.0 s", "1.0 s", "2.0 GiB"]
    assert cells(2 * AREAS, 1000)["fit an analysis"][1:3] == ["2.0 s", "16 s"]


def test_a_long_test_is_shared_out_on_paper_as_it_is_in_a_run() -> None:
    at = cells(AREAS, 1000)["draw it, if dealt to single areas"]
    assert a_share(AREAS, 1000) == 336
    assert at == ["24", "3.4 s", "54 s", "27 s", "27 s", "4.0 GiB"]  # 8 tests, of 3 shares each
    million = cells(AREAS, 1_000_000)["draw it, if dealt to single areas"]
    assert million[0] == f"{8 * -(-1_000_000 // 336):,}"
    assert million[2:5] == ["11 h 7 min", "1 h 24 min", "13 min"]


def test_a_plan_on_paper_needs_constants() -> None:
    with pytest.raises(BiglocalError, match=r"no measured constants. Make them with .nox -s benchmark -- scale"):
        on_paper(COSTS, ALL, AREAS, 10)
