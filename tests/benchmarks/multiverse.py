"""The multiverse's specifications under one list of areas: all at once, one by one, and by pyfixest.

nox -s benchmark -- multiverse   # to tests/benchmarks/results.md

All at once is what a draw of the multiverse takes: places dealt anew, comparisons matched anew, every specification of
every outcome estimated. One by one is the ordinary path (`multiverse.fit`: a sample and the registered estimator), and
pyfixest's feols on its rows, of two-way fixed effects and event studies alone; their matching is done before. Both are
taken on one specification of every pair of estimator and comparison, weights and covariates.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import threadpoolctl
from measure import in_turn, load, machine, peak, put, say, table

from biglocal import multiverse
from biglocal import study as studies
from biglocal.data import load as loading
from biglocal.estimate import generator
from biglocal.model import Sample
from biglocal.places import relisted
from biglocal.sample import Draw
from biglocal.specifications import Specification, expand

SCALE = 999 * 1000  # specifications and draws of issue and README


def strata(specs: tuple[Specification, ...]) -> list[int]:
    seen: dict[tuple[str, ...], list[int]] = {}
    for i, s in enumerate(specs):
        seen.setdefault((s.estimator, s.comparison, s.weights, s.covariates), []).append(i)
    return [members[(7 * j) % len(members)] for j, members in enumerate(seen.values())]


def feols(sample: Sample, name: str) -> float:
    import pyfixest as pf

    f = sample.frame
    f = f.assign(since=np.where(f["treated"] == 1, f["time"] - f["first_treated"], -1).astype(int))
    f["d"] = ((f["treated"] == 1) & (f["since"] >= 0)).astype(int)
    covariates = "".join(f" + Q{i}" for i in range(len(sample.covariates)))
    f = f.rename(columns={c: f"Q{i}" for i, c in enumerate(sample.covariates)})
    main = "d" if name == "twfe" else "i(since, ref=-1)"
    fit = pf.feols(f"y ~ {main}{covariates} | unit + time", f, vcov={"CRV1": "cluster"}, weights="weight")
    b = fit.coef()
    return float(b["d"] if name == "twfe" else np.mean([v for k, v in b.items() if after(k)]))


def after(name: str) -> bool:
    inside = name.partition("::")[2] or name.partition("[")[2]
    digits = inside.strip("[]T.").removesuffix(".0")
    return digits.lstrip("-").isdigit() and int(digits) >= 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    began = load()
    study = studies.load()
    chosen = multiverse.multiverse(study)
    draw = Draw(study, loading.load("synthetic", seed=study.seed))
    world = multiverse.build(draw, chosen.outcomes)
    threadpoolctl.threadpool_limits(1)
    seen = multiverse.once(world, world.draw)
    area = world.places.drawn(generator(study.seed, "multiverse/0"))
    rows: dict[str, list[tuple[float, float]]] = {"one by one": [], "pyfixest": []}
    worst = 0.0
    for outcome, name in enumerate(world.outcomes):
        specs = expand(study, name)[0]
        for s in (specs[i] for i in strata(specs)):
            start, used = time.perf_counter(), time.process_time()
            found = multiverse.average(multiverse.fit(draw, name, s))[0]
            rows["one by one"].append((time.perf_counter() - start, time.process_time() - used))
            worst = max(worst, abs(found - seen[outcome, world.specs.index(s), 0]))
            if s.estimator in ("twfe", "event_study"):
                sample = multiverse.sample(draw, name, s)
                took: Any = in_turn({"": lambda sample=sample, s=s: feols(sample, s.estimator)}, 1)[""]
                rows["pyfixest"].append((took.seconds, took.processor))
                worst = max(worst, abs(took.result - found))
    once = in_turn({"": lambda: multiverse.once(world, relisted(world.draw, world.places, area))}, args.runs)[""]
    count = int(world.mine.sum())
    lines = [["all at once, matching anew", str(count), f"{once.processor / count * 1000:.2f}",
              f"{once.processor / count * SCALE / 3600:.2f}"]]  # fmt: skip
    for name, each in rows.items():
        one = float(np.mean([p for _, p in each]))
        lines.append([name, str(len(each)), f"{one * 1000:.1f}", f"{one * SCALE / 3600:.1f}"])
    heads = ["", "specifications timed", "processor ms each", "hours of 1,000 x 999"]
    made = f"""Made by `nox -s benchmark -- multiverse`; how each figure is taken is in the file of that name. {machine(["numpy", "pyfixest"])}
Processes that wanted a core when it began and ended: {began} and {load()}. Worst difference of an estimate: {worst:.1e}; peak {peak():,.0f} MB.

{table(heads, lines)}"""
    say(made)
    put("The multiverse", made)


if __name__ == "__main__":
    main()
