"""Regressions with two fixed effects timed beside pyfixest: an area panel, its counts, and millions of survey rows.

    python make_sim.py FOLDER --big               # beside the reference results: panel.csv, big.csv
    python tests/benchmarks/regression.py FOLDER

Cold: the first fit of a fresh process, imports and compiling in it, the data in memory before. Warm: medians of
runs that alternate in one process, so that what else the machine does falls on all alike. Peak memory: of a
process that does the one thing, `data` what it holds before it starts. Each starts from a plain frame: ours
includes making the sample and its checks. Ratios are to pyfixest.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

Found = tuple[float, float]
COVARIATES = [f"x{i}" for i in range(1, 11)]
NAMES = {
    "panel": ["unit", "area", "year", "g", "d", "y", "count"],
    "big": ["id", "t", "w", "d", "y", *COVARIATES],
}


def within(frame: pd.DataFrame) -> Found:
    from biglocal.estimators import _within, sample

    f = sample(frame, y="y", unit="unit", time="year", first_treated="g", cluster="area").frame
    fixed = {"unit": _within.codes(f["unit"]), "time": _within.codes(f["time"])}
    fit = _within.linear(f, {"d": f["d"].to_numpy()}, fixed)
    return float(fit.beta[0]), float(fit.vcov[0, 0] ** 0.5)


def twfe(frame: pd.DataFrame) -> Found:
    from biglocal.estimators import fit

    term = fit("twfe", frame, y="y", unit="unit", time="year", first_treated="g", cluster="area").terms[0]
    return term.estimate, term.std_error


def feols(frame: pd.DataFrame) -> Found:
    import pyfixest as pf

    fit = pf.feols("y ~ d | unit + year", frame, vcov={"CRV1": "area"}, copy_data=False, store_data=False, lean=True)
    return float(fit.coef()["d"]), float(fit.se()["d"])


def counts(frame: pd.DataFrame) -> Found:
    from biglocal.estimators import fit

    term = fit("poisson", frame, y="count", unit="unit", time="year", first_treated="g", cluster="area").terms[0]
    return term.estimate, term.std_error


def counts_within(frame: pd.DataFrame) -> Found:
    from biglocal.estimators import _within, correction, counted
    from biglocal.estimators._glm import glm, informative

    fixed = [_within.codes(frame["unit"]), _within.codes(frame["year"])]
    y, cluster = frame["count"].to_numpy(dtype=float), _within.codes(frame["area"])
    keep = informative(y, fixed)
    fixed = [_within.codes(f[keep]) for f in fixed]
    n, cluster = int(keep.sum()), _within.codes(cluster[keep])
    fit = glm(y[keep], {"d": frame["d"].to_numpy(dtype=float)[keep]}, fixed, np.ones(n), "poisson")
    raw = _within.sandwich(fit.solution, fit.scores, cluster)[0, 0]
    return float(fit.beta[0]), float(raw * correction(n, counted(1, fixed, cluster), int(cluster.max()) + 1)) ** 0.5


def fepois(frame: pd.DataFrame) -> Found:
    import pyfixest as pf

    fit = pf.fepois("count ~ d | unit + year", frame, vcov={"CRV1": "area"}, copy_data=False, store_data=False)
    return float(fit.coef()["d"]), float(fit.se()["d"])


def survey(frame: pd.DataFrame) -> Found:
    from biglocal.estimators import fit

    columns = {"y": "y", "unit": "id", "time": "t", "d": "d", "weight": "w", "covariates": COVARIATES}
    term = fit("repeated_cross_section", frame, **columns).terms[0]
    return term.estimate, term.std_error


def survey_feols(frame: pd.DataFrame) -> Found:
    import pyfixest as pf

    formula = f"y ~ d + {' + '.join(COVARIATES)} | id + t"
    fit = pf.feols(formula, frame, vcov={"CRV1": "id"}, weights="w", copy_data=False, store_data=False, lean=True)
    return float(fit.coef()["d"]), float(fit.se()["d"])


Task = tuple[str, str, dict[str, Callable[[pd.DataFrame], Found]]]
TASKS: dict[str, Task] = {
    "panel": (
        "y ~ d, unit and year, 394,128 rows, 600 clusters",
        "panel",
        {"pyfixest feols": feols, "biglocal twfe": twfe, "biglocal within": within},
    ),
    "counts": (
        "Poisson count ~ d, unit and year, 394,128 rows, 600 clusters",
        "panel",
        {"pyfixest fepois": fepois, "biglocal poisson": counts, "biglocal within": counts_within},
    ),
    "survey": (
        "y ~ d + 10 covariates, 225,000 units and 12 years, weights, 2,700,000 rows",
        "big",
        {"pyfixest feols": survey_feols, "biglocal repeated_cross_section": survey},
    ),
}


def peak() -> float:
    """Peak MB of this process alone (getrusage would give a child that of its parent)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return float("nan")


def timed(run: Callable[[pd.DataFrame], Found], frame: pd.DataFrame) -> tuple[float, Found]:
    start = time.perf_counter()
    found = run(frame)
    return time.perf_counter() - start, found


def columns_of(folder: Path, name: str) -> pd.DataFrame:
    """A column a file, so that reading costs no memory of its own."""
    return pd.DataFrame({c: np.load(folder / f"{name}.{c}.npy") for c in NAMES[name]}, copy=False)


def child(folder: Path, task: str, engine: str, runs: int) -> None:
    """One engine: cold, then its memory; or all of them in turn, warm."""
    _, name, engines = TASKS[task]
    frame = columns_of(folder, name)
    if engine != "all":
        before = peak()
        seconds, found = timed(engines[engine], frame)
        said = {"cold": seconds, "found": found, "data": before, "peak": peak()}
    else:
        for run in engines.values():
            run(frame)
        took: dict[str, list[float]] = {e: [] for e in engines}
        for _ in range(runs):
            for e, run in engines.items():
                took[e].append(timed(run, frame)[0])
        said = {e: statistics.median(t) for e, t in took.items()}
    sys.stdout.write(json.dumps(said) + "\n")


def spawn(folder: Path, task: str, engine: str, runs: int) -> dict[str, float]:
    words = [sys.executable, "-W", "ignore", __file__, str(folder), "--task", task, "--engine", engine]
    done = subprocess.run([*words, "--runs", str(runs)], stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--task", choices=list(TASKS))
    parser.add_argument("--engine", help="for the processes this starts itself")
    args = parser.parse_args()
    if args.engine:
        child(args.folder, args.task, args.engine, args.runs)
        return
    header = ["", "cold s", "ratio", "warm s", "ratio", "peak MB", "of which data", "d", "error"]
    for task, (title, name, engines) in TASKS.items():
        if args.task not in (None, task):
            continue
        if not (args.folder / f"{name}.csv").is_file():
            sys.stdout.write(f"\n{title}: no {name}.csv\n")
            continue
        table = pd.read_csv(args.folder / f"{name}.csv", usecols=NAMES[name])
        for column in NAMES[name]:
            np.save(args.folder / f"{name}.{column}.npy", table[column].to_numpy())
        del table
        warm = spawn(args.folder, task, "all", args.runs)
        cold = {e: spawn(args.folder, task, e, 1) for e in engines}
        sys.stdout.write(f"\n{title}\n\n| {' | '.join(header)} |\n{'| --- ' * len(header)}|\n")
        first = next(iter(engines))
        for e, c in cold.items():
            att, error = c["found"]  # type: ignore[misc]
            sys.stdout.write(
                f"| {e} | {c['cold']:.2f} | {c['cold'] / cold[first]['cold']:.2f} | {warm[e]:.3f} "
                f"| {warm[e] / warm[first]:.2f} | {c['peak']:,.0f} | {c['data']:,.0f} | {att:.10f} | {error:.10f} |\n"
            )
        for column in NAMES[name]:
            (args.folder / f"{name}.{column}.npy").unlink()


if __name__ == "__main__":
    main()
