"""How cost grows: the main job by number of areas, resampling by number of draws.

    nox -s benchmark -- growth          # to tests/benchmarks/results.md and growth.svg; some minutes

A made country of N small areas (2.3% treated, in Big Local areas of five; a panel of nine years): the study's own
matching, its sample, regression, estimators and inference, each size in a process of its own, medians of three runs
after one that is not counted. `slope`: of the logarithm of seconds on that of the size, by least squares, where a
step takes longer than a fixed cost of some milliseconds. One is linear.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import measure
import numpy as np
import pandas as pd

HERE = Path(__file__).resolve().parent
AREAS = (1_000, 3_000, 10_000, 32_844, 100_000, 200_000)
DRAWS = (99, 999, 9_999, 99_999)
YEARS, START = 9, 5
SETTLED = 10_000  # areas; and 999 draws: from here on a step's fixed cost is small
COVARIATES = [
    "imd", "imd_msoa", "income", "employment", "health", "education", "crime", "housing", "environment", "population",
]  # fmt: skip
NEAR = {"ratio": 5, "caliper": 0.2, "exact": ["region", "rural"], "mahvars": COVARIATES[:5]}  # as in study.toml


def country(n: int) -> pd.DataFrame:
    """`n` areas: correlated deprivation, nine regions, and treated ones among the more deprived, five to an area."""
    rng = np.random.default_rng([20261122, n])
    common = rng.normal(size=n)
    frame = pd.DataFrame({c: 0.7 * common + 0.7 * rng.normal(size=n) for c in COVARIATES})
    frame["region"], frame["rural"] = rng.integers(0, 9, n), (rng.random(n) < 0.2).astype(int)
    score = common + rng.gumbel(size=n)
    treated = np.argsort(-score, kind="stable")[: round(0.023 * n)]
    frame["treated"] = 0
    frame.loc[treated, "treated"] = 1
    frame["area"] = -1
    frame.loc[np.sort(treated), "area"] = np.arange(len(treated)) // 5
    return frame[frame["imd"] >= frame["imd"].quantile(0.5)]


def panel(places: pd.DataFrame, matched: Any) -> pd.DataFrame:
    """Nine years of the matched areas: an outcome with effects of areas and years and shocks of Big Local areas."""
    rng = np.random.default_rng(1)
    kept = np.flatnonzero(matched.weights > 0)
    head = np.where(matched.sets[kept] >= 0, matched.sets[kept], kept)
    area = places["area"].to_numpy()[head]
    y = (
        rng.normal(size=(len(kept), 1))
        + rng.normal(size=YEARS)
        + rng.normal(scale=0.3, size=(area.max() + 1, YEARS))[area]
    )
    y += rng.normal(scale=0.5, size=y.shape)
    first = np.where(places["treated"].to_numpy()[kept] == 1, 2011.0 + START, np.nan)
    columns = {"unit": kept, "area": area, "set": head, "weight": matched.weights[kept], "first": first}
    frame = pd.DataFrame({k: np.repeat(v, YEARS) for k, v in columns.items()})
    return frame.assign(year=np.tile(2011 + np.arange(YEARS), len(kept)), y=y.ravel())


def steps(n: int, draws: int) -> dict[str, Callable[[], Any]]:
    """The main job as steps, each on what those before it made."""
    from biglocal import estimators, inference
    from biglocal.estimators import callaway_santanna, event_study, twfe
    from biglocal.matching import nearest

    places = country(n)
    made: dict[str, Any] = {}

    def match() -> None:
        made["match"] = nearest.match(places, treated="treated", covariates=COVARIATES, **NEAR)

    match()
    frame = panel(places, made["match"])

    def sample() -> None:
        columns = {"y": "y", "unit": "unit", "time": "year", "first_treated": "first"}
        made["sample"] = estimators.sample(frame, **columns, cluster="area", weight="weight", set="set")

    def completed(way: str) -> Callable[[], Any]:
        infer = inference.infer(way, 0.95, draws)
        return lambda: infer(twfe.estimate, made["sample"], made["fit"], np.random.default_rng(1))

    def fit() -> None:
        made["fit"] = twfe.estimate(made["sample"])

    sample()
    fit()
    return {
        "matching": match,
        "sample": sample,
        "two-way fixed effects, clustered": fit,
        "event study": lambda: event_study.estimate(made["sample"]),
        "Callaway-Sant'Anna": lambda: callaway_santanna.estimate(made["sample"]),
        "CR2": completed("cr2"),
        "wild bootstrap, 999 draws": completed("wild_bootstrap"),
        "randomisation, 999 draws": completed("randomisation"),
    }


def child(n: int, draws: int, only: Sequence[str]) -> dict[str, float]:
    """Seconds by step, and peak MB, of this process; bare Python with the libraries in it."""
    run = {name: step for name, step in steps(n, draws).items() if not only or name in only}
    took = {name: measure.in_turn({name: step}, 3)[name].processor for name, step in run.items()}
    return {**took, "peak": measure.peak()}


def spawn(n: int, draws: int, only: Sequence[str] = ()) -> dict[str, float]:
    words = [sys.executable, "-W", "ignore", __file__, "--child", str(n), "--draws", str(draws), "--only", *only]
    one = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True, env=one)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def slope(sizes: Sequence[float], seconds: Sequence[float], settled: float) -> float:
    """Of log seconds on log size, from `settled` on."""
    at = [(math.log(n), math.log(s)) for n, s in zip(sizes, seconds, strict=True) if n >= settled]
    return float(np.polyfit(*zip(*at, strict=True), 1)[0])


def draw(curves: Sequence[tuple[str, str, dict[str, list[float]], Sequence[int]]], path: Path) -> None:
    """Small panels on logarithmic axes, with the slope of one, in the look of the report's figures."""
    from matplotlib.figure import Figure

    from biglocal.exhibits import figures

    colours = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#8c8c8c", "#222222")
    marks = "osD^vP*X"
    with figures._style("growth"):
        figure = Figure(figsize=(figures.WIDTH, 4.1))
        axes = figure.subplots(1, len(curves), width_ratios=[3, 2])
        figure.subplots_adjust(left=0.08, right=0.985, top=0.93, bottom=0.42, wspace=0.2)
        for ax, (title, unit, lines, sizes) in zip(axes, curves, strict=True):
            for i, (name, seconds) in enumerate(lines.items()):
                whole = name == "whole job"
                ax.plot(
                    sizes, seconds, color="#222222" if whole else colours[i % 8], marker=marks[i % 8], label=name,
                    linewidth=2 if whole else 1, markersize=3.5, markerfacecolor="white" if i % 2 else None,
                )  # fmt: skip
            largest = max(s[-1] for s in lines.values())
            ends = (sizes[0], sizes[-1])
            ax.plot(ends, [largest * n / sizes[-1] for n in ends], color="#8c8c8c", linestyle=":", label="linear")
            ax.set(xscale="log", yscale="log", title=title, xlabel=unit)
            ax.set_xticks(sizes, [f"{n:,}" for n in sizes], rotation=30, ha="right")
            ax.xaxis.set_minor_locator(__import__("matplotlib.ticker").ticker.NullLocator())
            ax.grid(axis="y", color="#e4e4e4", linewidth=0.5)
            ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.36), ncols=2 if len(lines) > 4 else 1, fontsize=6.5)
        axes[0].set_ylabel("processor seconds")
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--areas", type=int, nargs="+", default=AREAS)
    parser.add_argument("--permutations", type=int, nargs="+", default=DRAWS)
    parser.add_argument("--child", type=int, help="for the processes this starts itself")
    parser.add_argument("--draws", type=int, default=999)
    parser.add_argument("--only", nargs="*", default=())
    args = parser.parse_args()
    if args.child:
        measure.say(json.dumps(child(args.child, args.draws, args.only)))
        return
    began = measure.load()
    found = []
    for n in args.areas:
        found.append(spawn(n, 999))
        sys.stderr.write(f"{n:,}: " + ", ".join(f"{k} {v:.3f}" for k, v in found[-1].items()) + "\n")
    names = [name for name in found[0] if name != "peak"]
    by = {name: [one[name] for one in found] for name in names}
    by = {"whole job": [sum(one[name] for name in names) for one in found], **by}
    ways = ("wild bootstrap, 999 draws", "randomisation, 999 draws")
    resampled = []
    for count in args.permutations:
        resampled.append(spawn(32_844, count, ways))
        sys.stderr.write(f"{count:,} draws: {resampled[-1]}\n")
    drawn = {way.partition(",")[0]: [one[way] for one in resampled] for way in ways}
    rows = [
        [name, *(f"{s:.3f}" for s in seconds), f"{slope(args.areas, seconds, SETTLED):.2f}"]
        for name, seconds in by.items()
    ]
    rows.append(["peak MB", *(f"{one['peak']:,.0f}" for one in found), ""])
    more = [
        [name, *(f"{s:.3f}" for s in seconds), f"{slope(args.permutations, seconds, 999):.2f}"]
        for name, seconds in drawn.items()
    ]
    more.append(["peak MB", *(f"{one['peak']:,.0f}" for one in resampled), ""])
    worst = max(
        slope(args.areas, by["whole job"], SETTLED), *(slope(args.permutations, s, 999) for s in drawn.values())
    )
    text = f"""Made by `nox -s benchmark -- growth`; how each figure is taken is in `growth.py`. Processor seconds of one core.
Processes that wanted a core when it began and ended: {began} and {measure.load()}.

![Seconds by number of areas and of draws, on logarithmic axes](growth.svg)

{measure.table(["main job, by areas", *(f"{n:,}" for n in args.areas), "slope"], rows)}
{measure.table(["32,844 areas, by draws", *(f"{n:,}" for n in args.permutations), "slope"], more)}
Slopes are from {SETTLED:,} areas and 999 draws on; one is linear. The steepest of the whole job and of the two ways of
resampling is {worst:.2f}: {"at most linear" if worst <= 1.05 else "**more than linear**"}, to a twentieth.
"""
    measure.say(text)
    if tuple(args.areas) == AREAS and tuple(args.permutations) == DRAWS:
        draw(
            [("Main job", "areas", by, AREAS), ("Resampling, 32,844 areas", "draws", drawn, DRAWS)], HERE / "growth.svg"
        )
        measure.put("Growth", text)


if __name__ == "__main__":
    main()
