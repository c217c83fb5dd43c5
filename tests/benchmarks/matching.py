"""Matching at the scale of England: seconds and memory of each method, and how nearest neighbour grows.

    nox -s benchmark -- matching --england FILE [--treated FILE]

FILE is a table of all LSOAs (lsoa11, imd2010_*, population_2011, region), the list of treated LSOAs defaults to
the placebo list of the tests. Medians of three after one that is not counted, in one process; memory is the process's peak so far, so methods
run from the light to the heavy. Prints two tables; nothing is asserted.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from measure import ROOT, in_turn, peak, say

from biglocal.estimators.balance import balance_table
from biglocal.matching import method
from biglocal.model import Match

COVARIATES = [
    "imd2010_score", "imd2010_income", "imd2010_employment", "imd2010_health", "imd2010_education",
    "imd2010_crime", "imd2010_barriers", "imd2010_environment", "population_2011",
]  # fmt: skip
STUDY: dict[str, Any] = {"ratio": 5, "caliper": 0.2, "exact": ["region"]}
ENGLAND: list[tuple[str, str, dict[str, Any]]] = [
    ("nearest 5:1, caliper, region", "nearest", STUDY),
    ("the same, with replacement", "nearest", {**STUDY, "replace": True}),
    ("the same, closest pairs first", "nearest", {**STUDY, "order": "closest"}),
    ("the same, never the same district", "nearest", {**STUDY, "anti_exact": ["lad13"]}),
    ("the same, Mahalanobis inside the caliper", "nearest", {**STUDY, "mahvars": COVARIATES}),
    ("nearest 5:1, Mahalanobis, all England", "nearest", {"ratio": 5, "distance": "mahalanobis"}),
    ("optimal 5:1, caliper, region", "optimal", STUDY),
    ("subclassification, 6 classes", "subclass", {}),
    ("inverse probability weights", "weighting", {}),
    ("entropy balancing", "entropy", {}),
    ("full, logit, all England", "full", {}),
    ("full, Mahalanobis, all England", "full", {"distance": "mahalanobis"}),
]
FIFTH: list[tuple[str, str, dict[str, Any]]] = [
    ("full, logit, deprived fifth", "full", {}),
    ("full, Mahalanobis, deprived fifth", "full", {"distance": "mahalanobis"}),
    ("optimal 5:1, region, deprived fifth", "optimal", {"ratio": 5, "exact": ["region"]}),
    ("optimal 5:1, deprived fifth, one block", "optimal", {"ratio": 5}),
]


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, the middle of three runs, and the result."""
    took = in_turn({"": run}, 3)[""]
    return took.seconds, took.result


def line(frame: pd.DataFrame, label: str, name: str, options: dict[str, Any]) -> None:
    seconds, match = timed(lambda: method(name)(frame, treated="treated", covariates=COVARIATES, **options))
    t = frame["treated"].to_numpy() == 1
    treated, control = (match.weights[t] > 0).sum(), (match.weights[~t] > 0).sum()
    say(f"{label:44s}{seconds:8.3f}{peak():9.0f}{treated:9,d}{control:9,d}")


def simulated(candidates: int, treated: int) -> pd.DataFrame:
    rng = np.random.default_rng(20261122)
    frame = pd.DataFrame(rng.normal(size=(candidates + treated, 9)), columns=COVARIATES)
    frame["treated"] = (np.arange(len(frame)) < treated).astype(int)
    frame.loc[frame["treated"] == 1, COVARIATES[:3]] += 0.5
    frame["region"] = rng.integers(0, 9, size=len(frame))
    return frame


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--england", type=Path, required=True)
    parser.add_argument("--treated", type=Path, default=ROOT / "tests" / "fixtures" / "placebo.csv")
    args = parser.parse_args()
    frame = pd.read_csv(args.england)
    treated = pd.read_csv(args.treated, comment="#")["lsoa11"]
    frame = frame.assign(treated=frame["lsoa11"].isin(treated).astype(int)).set_index("lsoa11")
    frame = frame[frame[COVARIATES].notna().all(axis=1)]
    fifth = frame[frame["imd2010_score"] >= frame["imd2010_score"].quantile(0.8)]
    say(f"{len(frame):,} LSOAs, {frame['treated'].sum():,} treated; deprived fifth {len(fifth):,}\n")
    say(f"{'':44s}{'seconds':>8s}{'peak MB':>9s}{'treated':>9s}{'control':>9s}")
    for label, name, options in ENGLAND[:2]:
        line(frame, label, name, options)
    twenty = frame[COVARIATES].join(frame[COVARIATES].rank().add_suffix("_rank"))
    twenty = twenty.assign(x=twenty.sum(axis=1), z=twenty.min(axis=1), treated=frame["treated"])
    match: Match = method("nearest")(frame, treated="treated", covariates=COVARIATES, **STUDY)
    names = [c for c in twenty.columns if c != "treated"]
    seconds, _ = timed(lambda: balance_table(twenty, "treated", names, match.weights))
    say(f"{f'balance of {len(names)} covariates':44s}{seconds:8.3f}{peak():9.0f}")
    for label, name, options in ENGLAND[2:]:
        line(frame, label, name, options)
    for label, name, options in FIFTH:
        line(fifth, label, name, options)
    say("\nGrowth: nearest 5:1, caliper 0.2, exact on 9 regions, 900 treated; n log n would give the last column")
    say(f"{'candidates':>12s}{'seconds':>10s}{'ratio':>8s}{'n log n':>9s}")
    base = None
    for n in (10_000, 20_000, 50_000, 100_000, 200_000):
        made = simulated(n, 900)
        seconds, _ = timed(lambda f=made: method("nearest")(f, treated="treated", covariates=COVARIATES, **STUDY))  # type: ignore[misc]
        base = base or (seconds, n * np.log(n))
        say(f"{n:12,d}{seconds:10.3f}{seconds / base[0]:8.1f}{n * np.log(n) / base[1]:9.1f}")


if __name__ == "__main__":
    main()
