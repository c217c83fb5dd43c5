"""What one fit, match and permutation cost at 189,000 areas, into analysis/timings.toml: `nox -s benchmark -- scale`.

The number is that of England's output areas. The panel is drawn from a seed: 9 years, 900 clusters of which 150 are
treated. Seconds are the processor's, of one thread; those of a draw are the difference of many and few over their
number. `biglocal plan --scale` multiplies them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import measure
import numpy as np
import pandas as pd

from biglocal import results, timings
from biglocal.estimators import sample, twfe
from biglocal.inference.randomisation import randomise
from biglocal.matching import nearest
from biglocal.model import BiglocalError
from biglocal.timings import Cost

AREAS, YEARS, CLUSTERS = timings.AREAS, 9, timings.CLUSTERS


def panel(areas: int) -> pd.DataFrame:
    rng = np.random.default_rng(20261122)
    unit, year = np.repeat(np.arange(areas), YEARS), np.tile(np.arange(YEARS), areas)
    area = unit * CLUSTERS // areas
    common = rng.normal(size=areas)[unit] + rng.normal(size=YEARS)[year]
    shared = rng.normal(scale=0.3, size=(CLUSTERS, YEARS))[area, year]
    first = np.where(area % 6 == 0, 4.0, np.nan)
    y = common + shared + rng.normal(size=len(unit))
    return pd.DataFrame({"y": y, "unit": unit, "year": year, "area": area, "g": first})


def places(areas: int) -> pd.DataFrame:
    rng = np.random.default_rng(20261123)
    x = rng.normal(size=(areas, 7))
    treated = np.zeros(areas, dtype=int)
    treated[np.argsort(-(x[:, 0] + rng.normal(size=areas)))[: areas // 40]] = 1
    frame = pd.DataFrame(x, columns=[f"x{i}" for i in range(7)])
    return frame.assign(treated=treated, region=rng.integers(0, 9, size=areas))


def took(run: Callable[[], Any], runs: int = 3) -> Cost:
    return Cost(measure.in_turn({"": run}, runs)[""].processor, measure.peak())


def main() -> None:
    old = timings.load()
    if old is None:
        raise BiglocalError("there is no analysis/timings.toml to add to. Make it with `nox -s benchmark -- exhibits`.")
    found: dict[str, Cost] = {}
    at = places(AREAS)
    how: dict[str, Any] = {"covariates": [f"x{i}" for i in range(7)], "ratio": 5, "caliper": 0.2, "exact": ["region"]}
    found["match"] = took(lambda: nearest.match(at, treated="treated", **how))
    s = sample(panel(AREAS), y="y", unit="unit", time="year", first_treated="g", cluster="area")
    found["fit"] = took(lambda: twfe.estimate(s))
    f = s.frame

    def dealt(by: str, draws: int) -> None:
        randomise(
            f["y"], f["first_treated"], f[by], rng=np.random.default_rng(1), time=f["time"], draws=draws,
            fixed=(f["unit"], f["time"]), cluster=f["cluster"], statistic="t",
        )  # fmt: skip

    for name, by, few, many in (("area", "cluster", 99, 100_099), ("unit", "unit", 99, 1_099)):
        less, more = (took(lambda n=n, by=by: dealt(by, n), 1) for n in (few, many))  # type: ignore[misc]
        each = max(more.seconds - less.seconds, 0) / (many - few)
        found[f"{name}_draw"] = Cost(each, more.memory_mb)
        found[f"{name}_test"] = less
    found = {name: Cost(float(f"{c.seconds:.3g}"), round(c.memory_mb)) for name, c in found.items()}
    results.write_text(timings.PATH, timings.text(replace(old, scale=found)))
    measure.say("\n".join(f"{name}: {c}" for name, c in found.items()))


if __name__ == "__main__":
    main()
