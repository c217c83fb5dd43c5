"""Estimators for staggered starts timed: 32,844 areas by 12 years, three cohorts; beside others where installed.

    python make_sim.py FOLDER                     # beside the reference results: panel.csv
    python tests/benchmarks/staggered.py FOLDER/panel.csv

The sample is in memory; medians of five in one process, runs of ours and of diff-diff alternating. R's times are
those of the shared TIMINGS: fixest 0.13.2 (sunab), did2s 1.2.1, on two cores of a machine like ours.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd

from biglocal.estimators import estimator, sample
from biglocal.model import Sample

OURS: list[tuple[str, str, dict[str, Any], float | None]] = [
    ("imputation, BJS errors", "imputation", {}, None),
    ("imputation, Gardner's errors", "imputation", {"errors": "gardner"}, 3.786),
    ("Sun-Abraham", "sun_abraham", {}, 2.502),
    ("stacked, corrective weights", "stacked", {}, None),
    ("Goodman-Bacon", "goodman_bacon", {}, None),
    ("synthetic DiD, exact, jackknife", "synthetic_did", {}, None),
    ("synthetic DiD, exact, 200 placebo units", "synthetic_did", {"errors": "placebo"}, None),
    ("synthetic DiD, early stop, jackknife", "synthetic_did", {"solver": "frank_wolfe"}, None),
]
COLUMNS = {"outcome": "y", "unit": "unit", "time": "year", "first_treat": "g"}


def diff_diff(frame: pd.DataFrame) -> dict[str, Callable[[], Any]]:
    """The same estimators of diff-diff, by the name of ours."""
    import diff_diff as dd

    return {
        "imputation, BJS errors": lambda: dd.ImputationDiD(cluster="area").fit(frame, **COLUMNS),
        "imputation, Gardner's errors": lambda: dd.TwoStageDiD(cluster="area").fit(frame, **COLUMNS),
        "Sun-Abraham": lambda: dd.SunAbraham(cluster="area").fit(frame, **COLUMNS),
    }


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    out = run()
    return time.perf_counter() - start, out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("panel", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    frame = pd.read_csv(args.panel)
    s: Sample = sample(frame, y="y", unit="unit", time="year", first_treated="g", cluster="area")
    by_unit: Sample = sample(frame, y="y", unit="unit", time="year", first_treated="g")
    others = diff_diff(frame) if find_spec("diff_diff") else {}
    sys.stdout.write("| estimator | median s | ATT | error | R / this | diff-diff / this | peak MB so far |\n")
    sys.stdout.write("| --- " * 7 + "|\n")
    for label, name, options, r in OURS:
        run: Any = estimator(name)
        seconds, theirs = [], []
        for _ in range(args.runs if "200" not in label and "early" not in label else 1):
            data = by_unit if "placebo" in label else s
            took, fit = timed(partial(run, data, **options))
            seconds.append(took)
            if label in others:
                theirs.append(timed(others[label])[0])
            att, ours = fit.terms[0], statistics.median(seconds)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        ratios = [f"{r / ours:.0f}" if r else "", f"{statistics.median(theirs) / ours:.1f}" if theirs else ""]
        row = [label, f"{ours:.3f}", f"{att.estimate:.10f}", f"{att.std_error:.10f}", *ratios, f"{peak:,.0f}"]
        sys.stdout.write("| " + " | ".join(row) + " |\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
