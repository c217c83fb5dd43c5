"""The benchmarks' input where the references' make_sim.py is not at hand: the same shape, other numbers.

panel.csv: 32,844 units in 600 areas by 12 years, three cohorts of 300, five covariates; units.csv: the units. big.csv: 225,000 persons
by 12 waves, weights, ten covariates.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd


def write(folder: Path, units: int = 32_844, persons: int = 225_000, years: int = 12) -> None:
    rng = np.random.default_rng(20261122)
    area = np.sort(rng.integers(1, 601, units))
    x = rng.normal(size=(units, 5))
    x[:, 3] = x[:, 3] > 0.4
    g = np.zeros(units, dtype=int)
    g[np.argsort(-x[:, 0] - rng.gumbel(size=units))[: 3 * 300]] = rng.permutation(np.repeat([2014, 2016, 2018], 300))
    year = np.arange(2010, 2010 + years)
    since = year - g[:, None]
    d = (g[:, None] > 0) & (since >= 0)
    y = rng.normal(size=(units, 1)) + 0.05 * np.arange(years) + 0.03 * x[:, [0]] * np.arange(years)
    y += rng.normal(scale=0.2, size=(601, years))[area] + rng.normal(size=(units, years)) - (0.25 + 0.05 * since) * d
    panel = {"unit": np.arange(1, units + 1), "area": area, "g": g} | {f"x{i + 1}": x[:, i] for i in range(5)}
    frame = pd.DataFrame({n: np.repeat(v, years) for n, v in panel.items()})
    frame["year"], frame["d"], frame["y"] = np.tile(year, units), d.ravel().astype(int), y.ravel()
    frame["count"] = rng.poisson(np.exp(1.2 + 0.15 * frame["y"]))
    frame.to_csv(folder / "panel.csv", index=False, float_format="%.6f")

    units = pd.DataFrame(panel).assign(region=(area - 1) // 67 + 1, treated=(g > 0).astype(int))
    units["pre1"], units["pre2"] = y[:, :4].mean(axis=1), (y[:, 3] - y[:, 0]) / 3
    units.to_csv(folder / "units.csv", index=False, float_format="%.6f")

    z = rng.normal(size=(persons * years, 10))
    effect, weight = np.repeat(rng.normal(size=(2, persons)), years, axis=1)
    t = np.tile(np.arange(1, years + 1), persons)
    start = np.where(rng.random(persons) < 0.1, rng.integers(5, years, persons), 99)
    big = pd.DataFrame(z, columns=[f"x{i + 1}" for i in range(10)])
    big["id"], big["t"], big["w"] = np.repeat(np.arange(1, persons + 1), years), t, np.exp(0.5 * weight)
    big["d"] = (t >= np.repeat(start, years)).astype(int)
    big["y"] = effect + 0.1 * t + z @ np.linspace(0.1, 1, 10) + 0.3 * big["d"] + rng.normal(size=len(big))
    big.to_csv(folder / "big.csv", index=False, float_format="%.6f")
