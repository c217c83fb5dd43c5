"""Inverse probability and overlap weights from the propensity score.

Horvitz-Thompson weights for the ATE and odds for the ATT (Hirano, Imbens and Ridder 2003, Econometrica 71:1161);
overlap weights (Li, Morgan and Zaslavsky 2018, JASA 113:390), the ATO; trimming as in Crump, Hotz, Imbens and
Mitnik (2009, Biometrika 96:187). The tests hold them to WeightIt 1.3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from biglocal.matching._distance import Propensity, space
from biglocal.matching._units import arrange, check_any, check_unused
from biglocal.model import Inapplicable

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from biglocal.model import Match


def match(
    frame: pd.DataFrame,
    *,
    treated: str,
    covariates: Sequence[str],
    ratio: int = 1,
    caliper: float | None = None,
    exact: Sequence[str] = (),
    estimand: Literal["ATT", "ATE", "ATO"] = "ATT",
    trim: float = 0.0,
    distance: Propensity = "logit",
    penalty: float = 0.0,
    score: str | None = None,
) -> Match:
    """Weights of the rows of `frame` from their propensity p; no sets.

    ATT: 1 and p / (1 - p); ATE: 1 / p and 1 / (1 - p); ATO: 1 - p and p, for treated and untreated. `trim`:
    units with p below `trim` or above 1 - `trim` have weight 0; for the ATT only the latter, since untreated
    units of small p weigh little (Crump et al. advise 0.1; the model is not fitted again). `exact`: units in
    blocks without both groups have weight 0, and each block's untreated units are scaled to the weight of its
    treated ones.

    Raises `Inapplicable` for input that `_units.arrange` and `_distance.space` refuse, a trim outside 0 to 0.5,
    a ratio or caliper, and where trimming leaves a group empty.
    """
    check_unused("weighting", ratio, caliper)
    if not 0 <= trim < 0.5:
        raise Inapplicable(f"matching: trim is {trim:g}; it must be at least 0 and less than 0.5.")
    units = arrange(frame, treated, exact)
    where = space(units, covariates, distance=distance, penalty=penalty, score=score)
    t = units.treated
    p, q = 1 / (1 + np.exp(-where.score)), 1 / (1 + np.exp(where.score))  # q = 1 - p, exact where p is near 1
    if estimand == "ATT":
        weights, kept = np.where(t, 1.0, p / q), q >= trim
    elif estimand == "ATE":
        weights, kept = np.where(t, 1 / p, 1 / q), (p >= trim) & (q >= trim)
    elif estimand == "ATO":
        weights, kept = np.where(t, q, p), (p >= trim) & (q >= trim)
    else:
        raise Inapplicable(f"matching: estimand {estimand!r} is not one of ATT, ATE, ATO.")
    weights = np.where(kept, weights, 0.0)
    if exact:
        total1 = np.bincount(units.block[t], weights[t], int(units.block.max()) + 1)
        total0 = np.bincount(units.block[~t], weights[~t], int(units.block.max()) + 1)
        both = (total1 > 0) & (total0 > 0)
        scale = np.where(both, total1 / np.where(both, total0, 1), 0.0)[units.block]
        weights = weights * np.where(t, both[units.block], scale)
    check_any(bool(weights[t].any() and weights[~t].any()), "a range of the score")
    return units.match(weights, np.full(len(t), -1), where.score)
