"""Poisson regression with fixed effects through pyfixest: the referee of `poisson.py`, as `_fixest.py` is of `twfe.py`.

pyfixest's own clustered errors of Poisson models too change with the process's string-hash seed, and its last digits
with the order of fixed effects: both are kept still as in `_fixest.py`, by its order and the convention's own factor.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from biglocal.estimators import correction, counted
from biglocal.estimators._design import Linear
from biglocal.estimators._fixest import in_order
from biglocal.estimators._within import codes
from biglocal.model import Inapplicable

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray


def poisson(
    frame: pd.DataFrame,
    columns: dict[str, NDArray[np.float64]],
    fixed: dict[str, NDArray[np.int64]],
    offset: NDArray[np.float64] | None = None,
) -> Linear:
    """Poisson pseudo-maximum likelihood of `frame.y` on `columns` and fixed effects, clustered on `frame.cluster`.

    All rows must have weight, and each level of a fixed effect a row with a count (`_glm.informative`): pyfixest
    would otherwise leave rows out on its own. Raises `Inapplicable` for collinear columns (named), for
    counts that are predicted perfectly, and where the iterations do not converge.
    """
    import pandas as pd
    import pyfixest as pf

    cluster = codes(frame["cluster"])
    n_clusters = int(cluster.max()) + 1
    if n_clusters < 2:
        raise Inapplicable("1 cluster: clustered errors need at least two.")
    safe = {f"x{i}": c for i, c in enumerate(columns.values())}  # pyfixest reads names as formulas
    data = pd.DataFrame(
        {"y": frame["y"].to_numpy(dtype=float), "w": frame["weight"].to_numpy(dtype=float), "g": cluster}
    )
    data = data.assign(**safe, **fixed, offset=0.0 if offset is None else offset)
    with warnings.catch_warnings(), in_order():
        warnings.filterwarnings("ignore", category=pd.errors.Pandas4Warning)  # pyfixest 0.60 on pandas 3.1
        warnings.filterwarnings("ignore", message="(?s).*multicollinearity")  # refused below, by name
        warnings.filterwarnings("ignore", message="(?s).*separation")  # refused below, with their number
        try:
            fit = pf.fepois(
                f"y ~ {' + '.join(safe)} | {' + '.join(fixed)}",
                data,
                vcov={"CRV1": "g"},
                weights="w",
                offset="offset",
                ssc=pf.ssc(k_adj=False, G_adj=False),
                demeaner=pf.MapDemeaner(fixef_tol=1e-11, fixef_maxiter=100_000),
                fixef_rm="none",
                iwls_tol=1e-12,
                iwls_maxiter=100,
                separation_check=["ir"],
                copy_data=False,
                store_data=False,
            )
        except (ValueError, RuntimeError) as e:  # its errors of convergence are of both kinds
            raise Inapplicable(f"no fit: {e}") from None
    kept = {str(n) for n in fit.coef().index}
    gone = [name for name, short in zip(columns, safe, strict=True) if short not in kept]
    if gone:
        raise Inapplicable(f"collinear with the fixed effects or other terms: {', '.join(gone)}.")
    separated = len(frame) - int(fit._N)
    if separated:
        raise Inapplicable(
            f"{separated} rows are predicted perfectly: no finite estimate exists (separation). "
            "Leave out the covariate that tells them apart."
        )
    k = counted(len(columns), list(fixed.values()), cluster)
    vcov = np.asarray(fit._vcov, dtype=float) * correction(len(frame), k, n_clusters)
    return Linear(tuple(columns), np.asarray(fit.coef(), dtype=float), vcov, len(frame), n_clusters)
