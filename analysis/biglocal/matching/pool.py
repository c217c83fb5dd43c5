"""No matching: every untreated unit of the pool stands for the treated ones, with weight 1."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from biglocal.model import Match

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd


def match(
    frame: pd.DataFrame,
    *,
    treated: str,  # noqa: ARG001  the signature of every method
    covariates: Sequence[str],  # noqa: ARG001
    ratio: int = 1,  # noqa: ARG001
    caliper: float | None = None,  # noqa: ARG001
    exact: Sequence[str] = (),  # noqa: ARG001
) -> Match:
    """Weight 1 for every row of `frame`, no sets and no score."""
    n = len(frame)
    return Match(np.ones(n), np.full(n, -1), np.full(n, np.nan))
