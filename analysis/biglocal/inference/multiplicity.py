"""Adjustment of the p-values of a family for each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def adjust(p: Sequence[float], method: str) -> tuple[float, ...]:
    """Adjusted p-values of one family, in its order: `holm` (Holm 1979) or `fdr_bh` (Benjamini-Hochberg 1995)."""
    values = np.asarray(p, dtype=float)
    m = len(values)
    order = np.argsort(values, kind="stable")
    ranked = values[order]
    if method == "holm":
        adjusted = np.maximum.accumulate((m - np.arange(m)) * ranked)
    else:
        adjusted = np.minimum.accumulate((m / np.arange(1, m + 1) * ranked)[::-1])[::-1]
    out = np.empty(m)
    out[order] = np.minimum(adjusted, 1)
    return tuple(float(v) for v in out)
