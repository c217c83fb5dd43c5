"""What the linear difference-in-differences share: what they refuse, and what a fitted regression says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from biglocal.model import Inapplicable

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Linear:
    """Coefficients (k,), their clustered covariance (k, k), and counts."""

    names: tuple[str, ...]
    beta: NDArray[np.float64]
    vcov: NDArray[np.float64]
    n_obs: int
    n_clusters: int


def wald(beta: NDArray[np.float64], vcov: NDArray[np.float64], contrast: NDArray[np.float64]) -> float:
    """The F statistic of contrast @ beta = 0: the Wald statistic over its rank."""
    r = contrast @ beta
    try:
        return float(r @ np.linalg.solve(contrast @ vcov @ contrast.T, r)) / len(contrast)
    except np.linalg.LinAlgError:
        raise Inapplicable(f"too few clusters for a joint test of {len(contrast)} restrictions.") from None


def treated_clusters(frame: pd.DataFrame) -> int:
    """How many clusters hold a treated row."""
    return int(frame.loc[frame["treated"] == 1, "cluster"].nunique())


def check_design(frame: pd.DataFrame) -> None:
    """Refuse what no difference-in-differences can use, with the reason."""
    if len(frame) == 0:
        raise Inapplicable("no rows.")
    t = frame["treated"] == 1
    if not t.any() or t.all():
        raise Inapplicable(f"{int(t.sum())} treated and {int((~t).sum())} comparison rows; both are needed.")
    now = frame["d"] == 1
    if not (t & ~now).any():
        raise Inapplicable("no period before treatment.")
    if not now.any():
        raise Inapplicable("no period after treatment.")
    if treated_clusters(frame) < 2:
        raise Inapplicable(f"{treated_clusters(frame)} treated cluster: its error cannot be told from its effect.")
