"""Propensity scores by gradient-boosted trees: what they see that a logit does not, and that nothing is by chance."""

from __future__ import annotations

import numpy as np
import pandas as pd

from biglocal.matching import nearest


def units(seed: int = 1, n: int = 1500) -> pd.DataFrame:
    """Treatment depends on the size of x, not its sign: a logit in x is blind to it."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"x": rng.normal(size=n), "z": rng.normal(size=n)}, index=[f"u{i:05d}" for i in range(n)])
    frame["t"] = (rng.uniform(size=n) < 1 / (1 + np.exp(3 - 1.5 * np.abs(frame["x"])))).astype(int)
    return frame


def gap(frame: pd.DataFrame, weights: np.ndarray) -> float:
    t = frame["t"].to_numpy() == 1
    size = frame["x"].abs().to_numpy()
    return abs(float(np.average(size[t], weights=weights[t]) - np.average(size[~t], weights=weights[~t])))


def test_trees_balance_what_the_logit_does_not_see() -> None:
    frame = units()
    options = {"treated": "t", "covariates": ["x", "z"], "ratio": 1}
    plain = nearest.match(frame, **options)
    trees = nearest.match(frame, **options, score="boosted")
    assert gap(frame, trees.weights) < 0.35 * gap(frame, plain.weights)


def test_order_of_rows_changes_no_match() -> None:
    frame = units(2, 600)
    shuffled = frame.sample(frac=1, random_state=5)
    one = nearest.match(frame, treated="t", covariates=["x", "z"], score="boosted", caliper=0.5)
    two = nearest.match(shuffled, treated="t", covariates=["x", "z"], score="boosted", caliper=0.5)
    pd.testing.assert_series_equal(
        pd.Series(one.weights, frame.index), pd.Series(two.weights, shuffled.index).reindex(frame.index)
    )
