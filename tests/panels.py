"""Small panels made for the tests, and a plain way from a frame to a sample."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from biglocal.model import Sample


def sample(
    frame: pd.DataFrame,
    y: str,
    unit: str,
    time: str,
    d: str,
    cluster: str | None = None,
    weight: str | None = None,
    covariates: Sequence[str] = (),
) -> Sample:
    """A sample from any panel: treated and first_treated follow from d."""
    out = pd.DataFrame(
        {
            "y": frame[y].astype(float),
            "d": frame[d].astype(float),
            "unit": frame[unit],
            "time": frame[time],
            "cluster": frame[cluster or unit],
            "weight": 1.0 if weight is None else frame[weight].astype(float),
            "level": "",
        }
    )
    out["treated"] = out.groupby("unit")["d"].transform("max").astype(int)
    out["first_treated"] = out["time"].where(out["d"] == 1).groupby(out["unit"]).transform("min").astype(float)
    for c in covariates:
        out[c] = frame[c]
    return Sample(out.reset_index(drop=True), "", covariates=tuple(covariates))


def panel(
    seed: int = 1, units: int = 120, years: int = 8, start: int = 5, effect: float = 0.0, clusters: int = 30
) -> Sample:
    """A panel with unit and year effects, clustered shocks and one start; 40% of the clusters are treated."""
    rng = np.random.default_rng(seed)
    unit = np.repeat(np.arange(units), years)
    time = np.tile(np.arange(years), units)
    cluster = unit * clusters // units
    treated = (cluster % 5 < 2).astype(int)
    d = (treated == 1) & (time >= start)
    y = (
        rng.normal(size=units)[unit]
        + rng.normal(size=years)[time]
        + rng.normal(scale=0.3, size=(clusters, years))[cluster, time]
        + rng.normal(scale=0.5, size=units * years)
        + effect * d
    )
    frame = pd.DataFrame(
        {
            "y": y,
            "d": d.astype(float),
            "treated": treated,
            "first_treated": np.where(treated == 1, float(start), np.nan),
            "unit": unit,
            "time": time,
            "cluster": cluster,
            "weight": rng.uniform(0.5, 2, size=units)[unit],
            "level": np.where(unit % 2 == 0, "even", "odd"),
            "x": rng.normal(size=units * years),
        }
    )
    return Sample(frame, "points")


def said_by_hash_seed(code: str, seeds: int = 10) -> set[str]:
    """What `code` prints in fresh processes, one for each string-hash seed; raises where one fails."""
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    running = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", code],
            env={**os.environ, "PYTHONHASHSEED": str(seed), "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in range(seeds)
    ]
    said = {p.communicate()[0] for p in running}
    failed = [p.args for p in running if p.returncode]
    if failed:
        raise RuntimeError(f"{len(failed)} of {seeds} processes failed: {code}")
    return said
