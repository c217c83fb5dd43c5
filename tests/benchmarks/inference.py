"""Time the wild bootstrap and randomisation on the reference's simulated panel, in one process.

    python tests/benchmarks/inference.py DIR

DIR holds `panel.csv` of `make_sim.py`: 32,844 areas by 12 years, 600 clusters. Medians of five, in seconds.
"""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from biglocal.estimators import sample, twfe
from biglocal.inference.randomisation import randomise
from biglocal.inference.satterthwaite import satterthwaite
from biglocal.inference.wild import wild_bootstrap


def median(task: Callable[[], object], times: int = 5) -> float:
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        task()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def main(folder: Path) -> None:
    frame = pd.read_csv(folder / "panel.csv").query("area <= 600")
    s = sample(frame, y="y", unit="unit", time="year", first_treated="g", cluster="area")
    fit = twfe.estimate(s)
    f = s.frame
    refit = median(lambda: twfe.estimate(s))

    def wild() -> None:
        wild_bootstrap(twfe.estimate, s, fit, np.random.default_rng(1), conf_level=0.95, draws=9_999)

    # whole areas dealt the start of their first treated unit, and single units dealt their own
    first = f.groupby("cluster")["first_treated"].transform("min").where(f["cluster"] % 4 == 0)

    def areas(statistic: str) -> None:
        randomise(
            f["y"], first, f["cluster"], rng=np.random.default_rng(1), time=f["time"], fixed=(f["unit"], f["time"]),
            statistic=statistic,  # type: ignore[arg-type]
        )  # fmt: skip

    def units(statistic: str) -> None:
        randomise(
            f["y"], f["first_treated"], f["unit"], rng=np.random.default_rng(1), time=f["time"],
            fixed=(f["unit"], f["time"]), cluster=f["cluster"], statistic=statistic,  # type: ignore[arg-type]
        )  # fmt: skip

    rows = {
        "two-way fixed effects, one fit": lambda: twfe.estimate(s),
        "wild cluster bootstrap, 9,999 draws, with interval": wild,
        "randomisation over areas, coefficient, 9,999 draws, with interval": lambda: areas("coefficient"),
        "randomisation over areas, t": lambda: areas("t"),
        "randomisation over 32,844 units, coefficient": lambda: units("coefficient"),
        "randomisation over 32,844 units, t": lambda: units("t"),
        "CR2 with Satterthwaite degrees of freedom": lambda: satterthwaite(
            twfe.estimate, s, fit, np.random.default_rng(1), conf_level=0.95
        ),
    }
    for name, task in rows.items():
        taken = median(task)
        sys.stdout.write(f"{name:70s} {taken:8.3f} s {taken / refit:7.1f} refits\n")
    sys.stdout.write(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
