"""A small survey of persons who answer in up to three waves, for the tests of its models."""

from __future__ import annotations

import numpy as np
import pandas as pd

from biglocal.model import Sample


def survey(seed: int = 1, persons: int = 240, areas: int = 40, change: float = 0.5, slope: float = 0.3) -> Sample:
    """Persons in areas, waves 2016, 2018, 2020 with holes; y changes by `change` in 2018, by `slope` with d."""
    rng = np.random.default_rng(seed)
    unit, time = np.repeat(np.arange(persons), 3), np.tile([2016, 2018, 2020], persons)
    cluster = unit % areas
    frame = pd.DataFrame({"unit": unit, "time": time, "cluster": cluster, "weight": 1.0, "level": ""})
    frame["level"] = np.array(["men", "women", "neither"])[np.repeat(rng.choice(3, persons, p=[0.45, 0.45, 0.1]), 3)]
    frame["age"] = np.repeat(rng.normal(size=persons), 3)
    frame["x"] = rng.normal(size=3 * persons)
    frame["d"] = rng.integers(1, 6, size=3 * persons).astype(float)
    y = rng.normal(size=areas)[cluster] * 0.4 + rng.normal(size=persons)[unit] + rng.normal(size=3 * persons)
    frame["y"] = 20 + y + change * (time == 2018) + slope * frame["d"] + 0.2 * frame["age"] - 0.1 * frame["x"]
    return Sample(frame[rng.random(len(frame)) < 0.75].reset_index(drop=True), "points", covariates=("age", "x"))
