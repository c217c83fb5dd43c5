"""Group-time effects timed: 32,844 areas by 12 years, three cohorts; beside diff-diff, where it is installed.

    python make_sim.py FOLDER                     # beside the reference results: panel.csv
    python tests/benchmarks/callaway_santanna.py FOLDER/panel.csv

Both take a frame with the data in memory; ours includes making the sample, all four kinds of averages and their
errors, which diff-diff leaves out. Runs alternate, so that what else the machine does falls on both.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

COVARIATES = ["x1", "x2", "x3", "x4", "x5"]
DID = {(True, 999): 17.5}  # seconds of R's did 2.3.0, two cores, 1,000 draws (the shared TIMINGS)


def ours(frame: pd.DataFrame, covariates: list[str], draws: int) -> tuple[float, float]:
    from biglocal.estimators import callaway_santanna, sample

    s = sample(frame, y="y", unit="unit", time="year", first_treated="g", covariates=covariates)
    fit = callaway_santanna.estimate(s, draws=draws, rng=np.random.default_rng(1))
    att = next(t for t in fit.terms if t.name == "att")
    return att.estimate, att.std_error


def theirs(frame: pd.DataFrame, covariates: list[str], draws: int) -> tuple[float, float]:
    from diff_diff import CallawaySantAnna

    fit = CallawaySantAnna(control_group="never_treated", n_bootstrap=draws, seed=1).fit(
        frame, outcome="y", unit="unit", time="year", first_treat="g", covariates=covariates or None
    )
    return fit.overall_att, fit.overall_se


def timed(run: Callable[..., Any], *args: Any) -> tuple[float, tuple[float, float]]:
    start = time.perf_counter()
    out = run(*args)
    return time.perf_counter() - start, out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("panel", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    frame = pd.read_csv(args.panel)
    runners = {"biglocal": ours} | ({"diff-diff": theirs} if find_spec("diff_diff") else {})
    sys.stdout.write("| covariates | draws | | median s | ATT | error | did / this |\n" + "| --- " * 7 + "|\n")
    for covariates in ([], COVARIATES):
        for draws in (0, 999):
            for run in runners.values():
                run(frame, covariates, draws)  # imports, and what is compiled at first use
            seconds: dict[str, list[float]] = {name: [] for name in runners}
            found = {}
            for _ in range(args.runs):
                for name, run in runners.items():
                    took, found[name] = timed(run, frame, covariates, draws)
                    seconds[name].append(took)
            for name, (att, error) in found.items():
                middle = statistics.median(seconds[name])
                r = DID.get((bool(covariates), draws))
                ratio = f"{r / middle:.0f}" if r else ""
                sys.stdout.write(
                    f"| {len(covariates)} | {draws} | {name} | {middle:.3f} | {att:.6f} | {error:.6f} | {ratio} |\n"
                )


if __name__ == "__main__":
    main()
