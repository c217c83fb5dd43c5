"""What each exhibit and each part of the study costs, into analysis/timings.toml: `nox -s benchmark -- exhibits`.

    python tests/benchmarks/exhibits.py [--only NAME ...]

Each exhibit is made alone from nothing (`biglocal reproduce --only NAME`) by a process of its own, once; exhibits of
the same analyses are made once for all. Each part is estimated in one process that has read and matched before, its
peak of memory set back first (Linux). Seconds are the processor's, of one thread: what the clock says of one core
that does nothing else. Synthetic tier, quick draws, one worker. `--only` measures those exhibits and their parts, and
leaves the rest of the file as it is.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path

import measure

from biglocal import results, run, timings
from biglocal.study import MANUSCRIPT, MONEY, ON_REQUEST, expand, tables
from biglocal.study import load as load_study
from biglocal.timings import Cost, Timings

PACKAGES = ("numpy", "pandas", "scipy")


def cost(seconds: float, memory: float) -> Cost:
    return Cost(round(seconds, 2), round(memory))


def alone(name: str = "") -> Cost:
    """An exhibit from nothing, in a process of its own; without a name the whole of a first run."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["-W", "ignore", "-m", "biglocal", "reproduce", "--outputs", folder]
        _, processor, peak = measure.command([*words, "--only", name] if name else words)
    return cost(processor, peak)


def parts(wanted: Sequence[str]) -> dict[str, Cost]:
    """In this process: the start, then part by part. The part whose rows are made of other rows follows these."""
    from threadpoolctl import threadpool_limits

    from biglocal import estimate, worth
    from biglocal.data import load as loading
    from biglocal.sample import Draw

    out: dict[str, Cost] = {}

    def note(name: str) -> None:
        nonlocal used
        out[name] = cost(time.process_time() - used, measure.peak())
        used = time.process_time()
        Path("/proc/self/clear_refs").write_text("5")  # the peak of memory starts anew

    used = 0.0
    study = load_study()
    draw = Draw(study, loading.load("synthetic", seed=study.seed))
    plan = [a for a in expand(study) if a.part in wanted]
    with threadpool_limits(1):
        for table in sorted({t for a in plan for t in tables(study, a) if draw.tier.has(t)}):
            draw.tier.table(table)
        for comparison in dict.fromkeys(a.comparison for a in plan if a.comparison):
            draw.matched(comparison)
        note("start")
        rows = []
        for part in wanted:
            some = [a for a in plan if a.part == part]
            if part == MONEY:
                before = results.loads(results.dumps(rows), "rows")
                for a in some:
                    worth.rows(study, "synthetic", a, before, "")
            else:
                for a, fit in estimate.estimate(draw, some, study.policy.draws_quick, 1, lambda _: None):
                    rows += estimate.rows(study, "synthetic", a, fit, "")
            note(part)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", help="exhibits to measure")
    parser.add_argument("--parts", nargs="+", help="for the process this starts itself")
    args = parser.parse_args()
    if args.parts:
        measure.say(json.dumps({name: astuple(c) for name, c in parts(args.parts).items()}))
        return
    os.environ["OMP_NUM_THREADS"] = "1"
    study = load_study()
    plan = expand(study)
    chosen = {e: run.choose(study, plan, [e], MANUSCRIPT)[0] for e in args.only or study.exhibits}
    old = timings.load()
    again = old if args.only else None  # what is measured goes into it
    exhibits = dict(again.exhibits) if again else {}
    known = dict(again.parts) if again else {}
    same: dict[tuple[str, ...], Cost] = {}
    for name, analyses in chosen.items():
        ids = tuple(a.id for a in analyses)
        if ids not in same:
            same[ids] = alone(name)
        exhibits[name] = same[ids]
        sys.stderr.write(f"{name}: {exhibits[name]}\n")
    asked = dict.fromkeys(a.part for a in plan if any(a in some for some in chosen.values()))
    if again:
        start, whole = again.start, again.whole or alone()
    else:
        here = [p for p in asked if p not in ON_REQUEST and p != MONEY] + [MONEY] * (MONEY in asked)
        words = [sys.executable, "-W", "ignore", __file__, "--parts", *here]
        found = json.loads(subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout)
        known = {name: Cost(*of) for name, of in found.items()}
        start, whole = known.pop("start"), alone()
    for part in ON_REQUEST:  # on its own, less what it takes to begin
        of = [e for e, analyses in chosen.items() if {a.part for a in analyses} == {part}]
        if of:
            took = exhibits[of[0]]
            known[part] = cost(max(took.seconds - start.seconds, 0), took.memory_mb)
    now = Timings(
        measure.machine(PACKAGES),
        start,
        {e: exhibits[e] for e in study.exhibits if e in exhibits},
        {p: known[p] for p in dict.fromkeys(a.part for a in plan) if p in known},
        whole,
        old.scale if old else {},  # another script's (scale.py)
    )
    results.write_text(timings.PATH, timings.text(now))
    sys.stderr.write(f"load when it ended: {measure.load()}\n")


if __name__ == "__main__":
    main()
