"""What exhibits and parts cost, as measured: for `--budget`, for plans, and for those who deposit or check.

timings.toml is an input like study.toml, so that outputs made from it keep the same bytes.
`nox -s benchmark -- exhibits` measures it anew.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from biglocal.model import Analysis, BiglocalError, StudyError
from biglocal.study import ON_REQUEST, ROOT

PATH = ROOT / "analysis" / "timings.toml"
AREAS = 189_000  # England's output areas: the size at which `scale` is measured
CLUSTERS = 900  # Big Local areas and those compared with them, to which it deals there


@dataclass(frozen=True, slots=True)
class Cost:
    """Processor seconds on one core, and the peak of memory in MB (2^20 bytes) of one process."""

    seconds: float
    memory_mb: float


@dataclass(frozen=True, slots=True)
class Timings:
    """Costs on `machine` (processor, memory, system, versions), of the synthetic tier with quick draws.

    `exhibits`: each made alone from nothing, in a process of its own. `parts`: all analyses of a part, once `start` is
    done: the libraries loaded, tables read and comparisons matched. `whole`: a first run, with the report.
    `scale`: one match, fit, test (its preparation) and draw of it, on 9 years of `AREAS` areas.
    """

    machine: str
    start: Cost
    exhibits: dict[str, Cost]
    parts: dict[str, Cost]
    whole: Cost | None = None
    scale: dict[str, Cost] = field(default_factory=dict)


def load(path: Path = PATH) -> Timings | None:
    """The measured costs; None where there are none.

    Raises `StudyError` for a file that is not one of costs.
    """
    if not path.is_file():
        return None
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
        exhibits, parts = ({k: Cost(**v) for k, v in raw[t].items()} for t in ("exhibits", "parts"))
        whole = Cost(**raw["whole"]) if "whole" in raw else None
        scale = {k: Cost(**v) for k, v in raw.get("scale", {}).items()}
        return Timings(str(raw["machine"]), Cost(**raw["start"]), exhibits, parts, whole, scale)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as e:
        raise StudyError(
            f"{path.name}: not a table of costs: {e}. Make it again with `nox -s benchmark -- exhibits`."
        ) from None


def text(of: Timings) -> str:
    """The file that `load` reads as these costs, byte for byte the same whoever writes it."""

    def line(name: str, cost: Cost) -> str:
        return f"{name} = {{ seconds = {cost.seconds:.10g}, memory_mb = {cost.memory_mb:.10g} }}"

    whole = [] if of.whole is None else [f"{line('whole', of.whole)} # a first run, the report in every format"]
    at = f"[scale] # one of each, at {AREAS:,} areas (`nox -s benchmark -- scale`)"
    tables = [("[exhibits] # each alone, from nothing", of.exhibits), ("[parts] # after the start", of.parts)]
    tables += [(at, of.scale)] if of.scale else []
    return "\n".join(
        [
            "# Made by `nox -s benchmark -- exhibits`, which says how each figure is taken. An input, not an output.",
            f"machine = {json.dumps(of.machine, ensure_ascii=False)}",
            f"{line('start', of.start)} # libraries loaded, tables read, comparisons matched",
            *whole,
            *(x for head, costs in tables for x in ("", head, *(line(n, c) for n, c in costs.items()))),
            "",
        ]
    )


def seconds(text: str) -> float:
    """A duration such as 90s, 10m or 1h30m, in seconds. Raises `BiglocalError` for anything else, and for nought."""
    found = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text.strip())
    total = sum(int(n or 0) * f for n, f in zip(found.groups(), (3600, 60, 1), strict=True)) if found else 0
    if not total:
        raise BiglocalError(f"--budget {text}: not a duration. Give hours, minutes and seconds, say 90s, 10m or 1h30m.")
    return float(total)


def duration(of: float) -> str:
    """Seconds as people say them: `0.3 s`, `40 s`, `5 min`, `1 h 20 min`; infinity was not measured."""
    if of == float("inf"):
        return "not measured"
    if of < 100:
        return f"{of:.1f} s" if of < 9.95 else f"{of:.0f} s"
    hours, minutes = divmod(round(of / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def within(
    budget: float,
    exhibits: Mapping[str, Sequence[Analysis]],
    there: Collection[str],
    plan: Sequence[Analysis],
    timings: Timings,
    jobs: int = 1,
) -> tuple[tuple[str, ...], dict[str, float]]:
    """The exhibits that can be made in `budget` seconds by `jobs` processes, and the rest with what each adds to them
    and to those of the rest before it.

    Rule: in the report's order, those on request last; each exhibit is taken whose analyses, less those that another
    has or that are `there` (ids), take no more than what is left once the run has begun and the report is set. An
    analysis takes its part's mean. A part that was never measured does not fit.

    Raises `BiglocalError` where nothing fits.
    """
    count: dict[str, int] = {}
    for a in plan:
        count[a.part] = count.get(a.part, 0) + 1
    each = {p: timings.parts[p].seconds / n / jobs if p in timings.parts else float("inf") for p, n in count.items()}
    ordinary = sum(c.seconds for p, c in timings.parts.items() if p not in ON_REQUEST)
    fixed = timings.start.seconds if timings.whole is None else max(timings.whole.seconds - ordinary, 0)
    had, spent = set(there), fixed
    chosen: list[str] = []
    beyond: dict[str, float] = {}
    last = sorted(exhibits, key=lambda e: bool(exhibits[e]) and all(a.part in ON_REQUEST for a in exhibits[e]))
    for name in last:
        more = sum(each[a.part] for a in exhibits[name] if a.id not in had)
        if spent + more <= budget:
            chosen.append(name)
            had |= {a.id for a in exhibits[name]}
            spent += more
        else:
            beyond[name] = more
    if not any(exhibits[e] for e in chosen):
        least = fixed + min(beyond.values(), default=0)
        raise BiglocalError(
            f"--budget: {duration(budget)} is less than the quickest exhibit takes with the report, about "
            f"{duration(least)} on {timings.machine.split(';')[0]}. Give more, or make exhibits alone with --only NAME."
        )
    left: dict[str, float] = {}
    for name in beyond:
        left[name] = sum(each[a.part] for a in exhibits[name] if a.id not in had)
        had |= {a.id for a in exhibits[name]}
    return tuple(chosen), left


def on_paper(
    timings: Timings, plan: Sequence[Analysis], areas: int, permutations: int, cores: Sequence[int] = (2, 16, 100)
) -> str:
    """What the plan's main steps would take on `areas` areas with `permutations`, in Markdown, from measured constants.

    Linear in areas and permutations from what was measured at `AREAS`; every fit is taken to be on all areas, which
    matching leaves far fewer of, so seconds are at most these. A core takes whole tasks, and the draws of one long
    test are shared out at a time. Not in it: p-value and interval from the draws, a second a test of a million.

    Raises `BiglocalError` where the constants were not measured.
    """
    if not timings.scale:
        raise BiglocalError("plan --scale: no measured constants. Make them with `nox -s benchmark -- scale`.")
    one, grown = timings.scale, areas / AREAS
    once = [a for a in plan if a.part not in ON_REQUEST]
    tests = sum(a.inference == "randomisation" for a in once)

    from biglocal.inference.randomisation import a_share

    # name, how many after one another, tasks of each, seconds of a task, what was measured of its memory
    steps = [
        ("match a comparison", 1, len({a.comparison for a in once if a.comparison}), one["match"].seconds, "match"),
        ("fit an analysis", 1, len(once), one["fit"].seconds, "fit"),
        ("prepare its test", 1, tests, max(one["area_test"].seconds, one["unit_test"].seconds), "unit_test"),
    ]
    steps = [(name, turns, count, each * grown, at) for name, turns, count, each, at in steps]
    for name, units, at, by in (
        ("Big Local areas", CLUSTERS, "area_draw", 1.0),
        ("single areas", areas, "unit_draw", grown),
    ):
        share = min(a_share(units, permutations), permutations)
        shares = -(-permutations // share)
        turns, count = (tests, shares) if shares > 1 else (1, tests)
        steps.append((f"draw it, if dealt to {name}", turns, count, share * one[at].seconds * by, at))
    lines = [
        f"{areas:,} areas, 9 years, {permutations:,} permutations; by constants measured at {AREAS:,} areas on "
        f"{timings.machine.rstrip('.')}.",
        "",
        "| step | tasks | one | " + " | ".join(f"{n} cores" for n in cores) + " | memory of a process |",
        "| :--- | ---: " + "| ---: " * (len(cores) + 2) + "|",
    ]
    for name, turns, count, each, at in steps:
        of = (duration(turns * each * -(-count // n)) for n in cores)
        memory = f"{one[at].memory_mb * max(grown, 0.2) / 1024:.1f} GiB"
        lines.append(f"| {name} | {turns * count:,} | {duration(each)} | " + " | ".join(of) + f" | {memory} |")
    least = (
        "A core takes whole tasks; one long test's draws are shared out at a time. Of the last two lines one holds. "
        "Parts on request (`nox -l`: placebo, simulate, multiverse, recover) are not in it."
    )
    return "\n".join([*lines, "", least])
